//! Goal 19: what it costs the chats that finished messages move to the history meanwhile.

use std::time::Duration;

use rustix::process::Signal;

use crate::drive::{Load, Side as _, drive, text, warm_up};
use crate::figure::{Figure, Goal, Pairs, Report};
use crate::fleet::{ECHO, Fleet};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process::signal;
use crate::rig::{Plan, Rig};
use crate::server::Sync;

const AGENTS: usize = 20;
const IN_FLIGHT: usize = 64;

/// With the one, everything that is finished moves; with the other, nothing does for as long as this takes.
const HOT: [&str; 2] = ["1s", "24h"];

/// The leader needs so long for its first round.
const ROUND: Duration = Duration::from_millis(1500);

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Lazy).await?;
    let (fleet, ours) = rig.ours(AGENTS, ECHO).await?;
    warm_up(&ours, AGENTS).await?;
    let load = Load { agents: AGENTS, in_flight: IN_FLIGHT, window: plan.window };
    // Something to move from the beginning on.
    drive(&ours, load).await?;
    let (mut pairs, mut moved) = (Pairs::default(), 0);
    for _ in 0..plan.pairs {
        let mut rates = Vec::new();
        for hot in HOT {
            lead(&fleet, &ours, hot).await?;
            let before = archived(&ours).await?;
            rates.push(drive(&ours, load).await?.rate);
            let after = archived(&ours).await?;
            match (hot == HOT[0], after > before) {
                (true, true) => moved += after - before,
                (false, false) => {}
                (is_hot, _) => return fail(format!("{before} to {after} archived, hot {is_hot}")),
            }
        }
        let [with, without] = rates[..] else { return fail("two rates") };
        pairs.push(with, without);
    }
    let name = format!("{AGENTS} agents, {IN_FLIGHT} in flight, lazy, while archiving: without");
    report.add(pairs.figure(19, &name, "chats/s", Goal::AtLeast(0.95)))?;
    let seconds = plan.window.as_secs_f64() * f64::from(plan.pairs);
    let rate = f64::from(u32::try_from(moved)?) / seconds;
    report.add(Figure::alone(19, "  messages that moved meanwhile", rate, "/s"))
}

/// Another leader takes over, and archives what is older than this.
async fn lead(fleet: &Fleet, ours: &Ours, hot: &str) -> Result<()> {
    signal(fleet.pid()?, Signal::KILL);
    fleet.up_with(&["--hot", hot]).await?;
    ours.chat(0, &text(0)).await?;
    tokio::time::sleep(ROUND).await;
    Ok(())
}

/// How many messages have moved.
async fn archived(ours: &Ours) -> Result<u64> {
    let streams = ours.broker.stream_usage().await?;
    let history = streams.iter().find(|stream| stream.name == "HISTORY");
    Ok(history.map_or(0, |history| history.records))
}
