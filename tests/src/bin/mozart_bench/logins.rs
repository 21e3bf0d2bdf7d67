//! What it costs that agents log in with rights of their own, over TLS: two fleets, each on its own server, in one run.

use tokio::time::Instant;

use crate::cpu::Meter;
use crate::drive::{Load, drive_metered, warm_up};
use crate::figure::{Goal, Pairs, Report};
use crate::fleet::{ECHO, Fleet};
use crate::outcome::Result;
use crate::rig::{Plan, Rig};
use crate::server::Sync;

const AGENTS: usize = 20;
const IN_FLIGHT: usize = 64;
/// How many agents connect at once.
const MANY: usize = 1000;

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let (plain, own) = (Rig::new(plan, Sync::Lazy).await?, Rig::secured(plan, Sync::Lazy).await?);
    let (_without, without) = plain.ours(AGENTS, ECHO).await?;
    let (_with, with) = own.ours(AGENTS, ECHO).await?;
    let (raw_without, raw_with) = (plain.raw(AGENTS).await?, own.raw(AGENTS).await?);
    let load = Load { agents: AGENTS, in_flight: IN_FLIGHT, window: plan.window };
    warm_up(&without, AGENTS).await?;
    warm_up(&with, AGENTS).await?;
    warm_up(&raw_without, AGENTS).await?;
    warm_up(&raw_with, AGENTS).await?;
    let meters = (Meter::new(own.folder.path())?, Meter::new(plain.folder.path())?);
    let (mut rates, mut costs, mut goals) = (Pairs::default(), Pairs::default(), Pairs::default());
    for _ in 0..plan.pairs {
        let (with, cost) = drive_metered(&with, load, &meters.0).await?;
        let (without, usual) = drive_metered(&without, load, &meters.1).await?;
        let (with, without) = (with.rate, without.rate);
        rates.push(with, without);
        costs.push(cost, usual);
        // What the server asks of everybody, TLS, is asked of the raw loop too: goal 1 is against that, on the same server.
        let (raw_with, _) = drive_metered(&raw_with, load, &meters.0).await?;
        let (raw_without, _) = drive_metered(&raw_without, load, &meters.1).await?;
        goals.push(with / raw_with.rate, without / raw_without.rate);
    }
    let name = format!("{AGENTS} agents, {IN_FLIGHT} in flight, lazy: logins over TLS to none");
    report.add(rates.figure(22, &name, "chats/s", Goal::AtLeast(0.9)))?;
    let name = "  goal 1 (to the raw loop on the same server) with them: without";
    report.add(goals.figure(22, name, "ratio", Goal::AtLeast(0.9)))?;
    let name = "  the same, CPU time a chat, of all processes";
    report.add(costs.figure(22, name, "us", Goal::None))?;
    drop((_without, _with));
    if !plan.wants(22) {
        return Ok(());
    }
    let agents = plan.agents.unwrap_or(MANY);
    let mut starts = Pairs::default();
    let began = Instant::now();
    drop(Fleet::start(&own, "many", agents, ECHO).await?);
    let with = began.elapsed();
    let began = Instant::now();
    drop(Fleet::start(&plain, "many", agents, ECHO).await?);
    starts.push(with.as_secs_f64(), began.elapsed().as_secs_f64());
    let name = format!("{agents} agents start and stop, lazy: logins over TLS to none");
    report.add(starts.figure(22, &name, "s", Goal::None))
}
