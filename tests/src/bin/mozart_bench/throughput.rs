//! Goals 1 to 4: journaled chats beside the raw loop and the baseline.

use crate::cpu::Meter;
use crate::drive::{Load, Side, drive_metered, warm_up};
use crate::figure::{Goal, Pairs, Report};
use crate::fleet::ECHO;
use crate::outcome::Result;
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::sqlite::{Baseline, Synchronous};

const AGENTS: usize = 20;
const IN_FLIGHT: usize = 64;

/// Goals 1 and 3.
pub(crate) async fn lazy(plan: &Plan, report: &mut Report) -> Result<()> {
    let goals = (1, 3, Goal::AtLeast(1.0));
    many(plan, report, Sync::Lazy, Synchronous::Normal, goals).await
}

/// Goal 4.
pub(crate) async fn always(plan: &Plan, report: &mut Report) -> Result<()> {
    let goals = (4, 4, Goal::AtLeast(1.2));
    many(plan, report, Sync::Always, Synchronous::Full, goals).await
}

/// Goal 1 on a cluster of three servers, where both sides have three replicas.
pub(crate) async fn replicated(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::on_three(plan, Sync::Lazy).await?;
    let (_fleet, ours) = rig.ours(AGENTS, ECHO).await?;
    let raw = rig.raw(AGENTS).await?;
    let load = Load { agents: AGENTS, in_flight: IN_FLIGHT, window: plan.window };
    warm_up(&ours, AGENTS).await?;
    let meter = Meter::new(rig.folder.path())?;
    let Some((rates, costs)) = against(plan, &ours, Some(&raw), load, &meter).await? else {
        return Ok(());
    };
    let name = format!("{AGENTS} agents, {IN_FLIGHT} in flight, lazy, three replicas: raw loop");
    report.add(rates.figure(23, &name, "chats/s", Goal::AtLeast(0.8)))?;
    let name = "  the same, CPU time a chat, of all processes";
    report.add(costs.figure(23, name, "us", Goal::None))
}

/// Many chats at once.
async fn many(
    plan: &Plan,
    report: &mut Report,
    sync: Sync,
    synchronous: Synchronous,
    (of_raw, of_baseline, bound): (u8, u8, Goal),
) -> Result<()> {
    let rig = Rig::new(plan, sync).await?;
    let (_fleet, ours) = rig.ours(AGENTS, ECHO).await?;
    let raw = if plan.wants(of_raw) { Some(rig.raw(AGENTS).await?) } else { None };
    let baseline = if plan.wants(of_baseline) {
        Some(Baseline::start(rig.folder.path(), synchronous, AGENTS).await?)
    } else {
        None
    };
    let load = Load { agents: AGENTS, in_flight: IN_FLIGHT, window: plan.window };
    warm_up(&ours, AGENTS).await?;
    let meter = Meter::new(rig.folder.path())?;
    let to_raw = against(plan, &ours, raw.as_ref(), load, &meter).await?;
    let to_baseline = against(plan, &ours, baseline.as_ref(), load, &meter).await?;
    let what = format!("{AGENTS} agents, {IN_FLIGHT} in flight, {}", sync.name());
    if let Some((rates, costs)) = to_raw {
        let name = format!("{what}: raw loop");
        report.add(rates.figure(of_raw, &name, "chats/s", Goal::AtLeast(0.8)))?;
        let name = "  the same, CPU time a chat, of all processes";
        report.add(costs.figure(of_raw, name, "us", Goal::None))?;
    }
    if let Some((rates, costs)) = to_baseline {
        let name = format!("{what}: stdio + SQLite {synchronous:?}");
        report.add(rates.figure(of_baseline, &name, "chats/s", bound))?;
        let name = "  the same, CPU time a chat, of all processes";
        report.add(costs.figure(of_baseline, name, "us", Goal::None))?;
    }
    Ok(())
}

/// Pairs of rates, and of what a chat costs.
async fn against(
    plan: &Plan,
    ours: &impl Side,
    theirs: Option<&impl Side>,
    load: Load,
    meter: &Meter,
) -> Result<Option<(Pairs, Pairs)>> {
    let Some(theirs) = theirs else {
        return Ok(None);
    };
    warm_up(theirs, load.agents).await?;
    let (mut rates, mut costs) = (Pairs::default(), Pairs::default());
    for _ in 0..plan.pairs {
        let (ours, our_cost) = drive_metered(ours, load, meter).await?;
        let (theirs, their_cost) = drive_metered(theirs, load, meter).await?;
        rates.push(ours.rate, theirs.rate);
        costs.push(our_cost, their_cost);
    }
    Ok(Some((rates, costs)))
}

/// Goal 2: one chat at a time.
pub(crate) async fn single(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Lazy).await?;
    let (_fleet, ours) = rig.ours(1, ECHO).await?;
    let raw = rig.raw(1).await?;
    let load = Load { agents: 1, in_flight: 1, window: plan.window };
    warm_up(&ours, 1).await?;
    warm_up(&raw, 1).await?;
    let meter = Meter::new(rig.folder.path())?;
    let (mut middle, mut tail, mut costs) = (Pairs::default(), Pairs::default(), Pairs::default());
    for _ in 0..plan.pairs {
        let (ours, our_cost) = drive_metered(&ours, load, &meter).await?;
        let (theirs, their_cost) = drive_metered(&raw, load, &meter).await?;
        costs.push(our_cost, their_cost);
        middle.push(ours.micros(0.5), theirs.micros(0.5));
        tail.push(ours.micros(0.99), theirs.micros(0.99));
    }
    report.add(middle.figure(2, "one chat, lazy, p50: raw loop", "us", Goal::AtMost(1.3)))?;
    report.add(tail.figure(2, "one chat, lazy, p99: raw loop", "us", Goal::AtMost(1.5)))?;
    let name = "  the same, CPU time a chat, of all processes";
    report.add(costs.figure(2, name, "us", Goal::None))
}
