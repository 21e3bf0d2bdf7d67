//! Two nodes, and agents that are talked to without a pause: one node is drained, then the other, again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{try_join, try_join_all};
use serde_json::Value;

use crate::figure::{Figure, Goal, Report, note};
use crate::fleet::{ECHO, Fleet};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process::{self, Draining, Owned};
use crate::replace::{self, Outcome};
use crate::rig::{Plan, Rig};
use crate::server::Sync;

const AGENTS: usize = 20;
/// How often something is said to each of them.
const EVERY: Duration = Duration::from_millis(50);
/// What people do not notice.
const GAP: f64 = 250.0;
const LONGEST: Duration = Duration::from_secs(30);
const SOUL: &str = "REPLACE start-first\nTIMEOUT drain=10s\n";
const SECOND: &str = "second";

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let fleet = Fleet::start(&rig, "ours", AGENTS, &format!("{ECHO}{SOUL}")).await?;
    let mut second = fleet.command_in(SECOND);
    second.args(["node", "--name", SECOND, "--runtime", "process"]);
    second.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let _second = Draining(Owned::start(&mut second)?);
    let mut nodes = process::until("the second node", LONGEST, async || {
        let nodes = nodes(&fleet).await?;
        Ok((nodes.len() == 2).then_some(nodes))
    })
    .await?;
    // The first one has all the agents.
    nodes.sort_by_key(|name| name == SECOND);
    let ours = Ours::connect(&fleet).await?;
    let stop = AtomicBool::new(false);
    let talk =
        try_join_all((0..AGENTS).map(|agent| replace::talk(&ours, (agent, 0), EVERY, &stop)));
    let drains = async {
        let mut times = Vec::new();
        for trial in 0..plan.trials {
            let drained = &nodes[usize::try_from(trial)? % 2];
            let from = Instant::now();
            run_on(&fleet, &["node", "drain", drained, "--timeout", "120s"]).await?;
            times.push(from.elapsed().as_secs_f64());
            note(&format!(
                "  trial {trial}: {drained} is empty after {:.1} s",
                times[times.len() - 1]
            ));
            run_on(&fleet, &["node", "undrain", drained]).await?;
        }
        stop.store(true, Ordering::Relaxed);
        Ok(times)
    };
    let (said, times) = try_join(talk, drains).await?;
    let Outcome { gaps, completed, faults } = replace::outcome(&ours, said).await?;
    let wanted = AGENTS * times.len();
    if gaps.len() != wanted {
        return fail(format!("{} agents moved instead of {wanted}", gaps.len()));
    }
    report.times(&format!("node with {AGENTS} busy agents drained"), &times, "s", f64::INFINITY)?;
    report.times("  gap of an agent that moved", &gaps, "ms", GAP)?;
    let name = format!("  lost, doubled or out of order of {completed}");
    let faults = f64::from(u32::try_from(faults)?);
    report.add(Figure::alone(0, &name, faults, "messages").wanting(Goal::AtMost(0.0)))
}

async fn run_on(fleet: &Fleet, args: &[&str]) -> Result<String> {
    let mut command = fleet.command();
    command.args(args);
    fleet.run(&mut command).await
}

/// The names of the nodes that are up.
async fn nodes(fleet: &Fleet) -> Result<Vec<String>> {
    let nodes: Value = serde_json::from_str(&run_on(fleet, &["-o", "json", "node", "ls"]).await?)?;
    let up = nodes.as_array().into_iter().flatten().filter(|node| node["state"] == "up");
    Ok(up.filter_map(|node| node["node"].as_str().map(str::to_owned)).collect())
}
