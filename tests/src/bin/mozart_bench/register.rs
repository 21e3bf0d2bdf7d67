//! Goal 11: a thousand agents.

use std::time::Instant;

use broker::{Broker, StreamOptions};
use common::Namespace;

use crate::figure::{Figure, Goal, Pairs, Report, note};
use crate::fleet::{self, ECHO, Fleet};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process;
use crate::rig::{Plan, Rig};
use crate::server::Sync;

const AGENTS: usize = 1000;
/// As many more: nothing ends at a server's default of 1000 consumers a stream.
const MORE: usize = 50;

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut registered = Pairs::default();
    let mut running = Pairs::default();
    let mut answered = 0;
    // A thousand agents take a while to start and stop.
    for pair in 0..plan.pairs.min(3) {
        // Lazy: one stream holds all of the consumers.
        let rig = Rig::new(plan, Sync::Lazy).await?;
        let theirs = consumers(&rig).await?;
        let fleet = Fleet::start(&rig, "ours", 1, ECHO).await?;
        let began = Instant::now();
        fleet.apply("souls", AGENTS).await?;
        let ours = began.elapsed().as_secs_f64();
        registered.push(ours, theirs);
        fleet.wait_running(AGENTS).await?;
        running.push(began.elapsed().as_secs_f64(), theirs);
        note(&format!("  pair {}: {ours:.2} s, raw consumers {theirs:.2} s", pair + 1));
        if pair == 0 {
            answered = beyond(&fleet).await?;
        }
    }
    let name = format!("{AGENTS} agents registered: raw consumers created");
    report.add(registered.figure(11, &name, "s", Goal::AtMost(1.3)))?;
    let name = format!("{AGENTS} agents running, their processes too: raw consumers created");
    report.add(running.figure(11, &name, "s", Goal::None))?;
    let name = format!("agents of {} that answer", AGENTS + MORE);
    let wanted = Goal::AtLeast(f64::from(u32::try_from(AGENTS + MORE)?));
    report.add(Figure::alone(11, &name, f64::from(answered), "agents").wanting(wanted))
}

/// How long it takes to create as many consumers, one after the other.
async fn consumers(rig: &Rig) -> Result<f64> {
    let options = Rig::connect(&rig.server.url, &Namespace::new("raw")?);
    let streams = StreamOptions { journal_shards: rig.shards, replicas: None };
    let broker = Broker::connect_and_create(&options, &streams).await?;
    let began = Instant::now();
    for agent in fleet::names(AGENTS)? {
        broker.create_consumer(&agent, 1, 1, 64).await?;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Registers some more, and asks each of all.
async fn beyond(fleet: &Fleet) -> Result<u32> {
    fleet.apply("more", AGENTS + MORE).await?;
    fleet.wait_running(AGENTS + MORE).await?;
    let mut ours = Ours::connect(fleet).await?;
    ours.agents = fleet::names(AGENTS + MORE)?;
    let mut answered = 0;
    for agent in 0..ours.agents.len() {
        answered += u32::from(ours.ask(agent, "still there?").await.is_ok());
    }
    Ok(answered)
}

impl Fleet {
    /// Registers the first `count` agents, from a folder of their souls.
    async fn apply(&self, folder: &str, count: usize) -> Result<()> {
        let folder = self.folder().join(folder);
        std::fs::create_dir_all(&folder)?;
        for agent in fleet::names(count)? {
            std::fs::write(folder.join(format!("{agent}.soul")), ECHO)?;
        }
        let mut apply = self.command();
        self.run(apply.arg("apply").arg(folder)).await.map(drop)
    }

    /// Waits until `count` agents are running.
    async fn wait_running(&self, count: usize) -> Result<()> {
        process::until("all running", std::time::Duration::from_secs(180), async || {
            let mut ps = self.command();
            let said = self.run(ps.args(["ps", "-a", "-o", "json"])).await?;
            let rows: Vec<serde_json::Value> = serde_json::from_str(&said)?;
            let running = rows.iter().filter(|row| row["state"] == "running").count();
            if rows.len() > count {
                return fail(format!("{} agents instead of {count}", rows.len()));
            }
            Ok((running == count).then_some(()))
        })
        .await
    }
}
