//! Goals 8 and 10: a hundred agents, some of which crash for ever.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::beacon::Beacon;
use crate::drive::{Load, Side, drive, warm_up};
use crate::figure::{Figure, Goal, Pairs, Report};
use crate::fleet::Fleet;
use crate::memory::kilobytes;
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process::signal;
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::worker;

const AGENTS: usize = 100;
/// The first of them crash in a loop.
const CRASHING: usize = 20;
const DELAY: Duration = Duration::from_secs(1);
const RESTART: &str = "RESTART always max=0/1m backoff=1s..1s";
/// Between two kills: crashes one by one, not all at once.
const APART: Duration = Duration::from_millis(50);

struct Crowd {
    ours: Ours,
    beacon: Beacon,
    folder: PathBuf,
}

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let folder = rig.folder.path().join("workers");
    let beacon = Beacon::new(&folder)?;
    let (fleet, ours) = rig.ours(AGENTS, &worker::soul(Some(&folder), RESTART)?).await?;
    let idle = resident(&fleet)?;
    let mut crowd = Crowd { ours, beacon, folder };
    warm_up(&crowd.ours, AGENTS).await?;
    drive(&crowd.ours, Load { agents: AGENTS, in_flight: 64, window: plan.window }).await?;
    if plan.wants(10) {
        let wanted = Goal::AtMost(26.0);
        let name = format!("supervisor's memory with {AGENTS} agents, idle");
        report.add(Figure::alone(10, &name, idle, "MiB").wanting(wanted))?;
        let name = "the same after load";
        report.add(Figure::alone(10, name, resident(&fleet)?, "MiB").wanting(wanted))?;
    }
    if plan.wants(8) {
        let late = crowd.delays().await?;
        let name = format!("restart later than its delay of {DELAY:?}, p99 of {AGENTS}");
        report.add(Figure::alone(8, &name, late, "ms").wanting(Goal::AtMost(5.0)))?;
        let mut pairs = Pairs::default();
        for _ in 0..plan.pairs {
            let calm = crowd.others(plan).await?;
            crowd.curse().await?;
            let wild = crowd.others(plan).await?;
            crowd.heal().await?;
            pairs.push(wild, calm);
        }
        let name = format!("{CRASHING} of {AGENTS} crash for ever, others' p99: nobody crashes");
        report.add(pairs.figure(8, &name, "us", Goal::AtMost(1.2)))?;
    }
    Ok(())
}

/// The supervisor's resident memory, in MiB.
fn resident(fleet: &Fleet) -> Result<f64> {
    let status = PathBuf::from(format!("/proc/{}/status", fleet.pid()?));
    match kilobytes(&status, "VmRSS:") {
        Some(kilobytes) => Ok(kilobytes / 1024.0),
        None => fail("the supervisor is gone"),
    }
}

/// The agents that do not crash.
struct Others<'a>(&'a Ours);

impl Side for Others<'_> {
    async fn chat(&self, agent: usize, text: &str) -> Result<()> {
        self.0.chat(CRASHING + agent, text).await
    }
}

impl Crowd {
    /// Kills every worker once: how much later than its delay the next one began, in ms. The first restart has no jitter.
    async fn delays(&mut self) -> Result<f64> {
        self.beacon.drain();
        let mut killed = Vec::new();
        for agent in &self.ours.agents {
            killed.push((agent.to_string(), Instant::now()));
            signal(self.beacon.pid(agent.as_str())?, Signal::KILL);
            tokio::time::sleep(APART).await;
        }
        let mut late = Vec::new();
        while late.len() < AGENTS {
            let (at, agent, _) = self.beacon.main().await?;
            if let Some((_, killed)) = killed.iter().find(|(name, _)| *name == agent) {
                late.push(at.duration_since(*killed + DELAY).as_secs_f64() * 1000.0);
            }
        }
        late.sort_by(f64::total_cmp);
        // The workers are there, their agents soon.
        warm_up(&self.ours, AGENTS).await?;
        Ok(late[AGENTS * 99 / 100 - 1])
    }

    /// The p99 latency of the agents that do not crash, in microseconds.
    async fn others(&self, plan: &Plan) -> Result<f64> {
        let load = Load { agents: AGENTS - CRASHING, in_flight: 4, window: plan.window };
        Ok(drive(&Others(&self.ours), load).await?.micros(0.99))
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let cursed = &self.ours.agents[..CRASHING];
        cursed.iter().map(|agent| worker::curse(Path::new(&self.folder), agent.as_str()))
    }

    /// From now on some crash as soon as they start.
    async fn curse(&mut self) -> Result<()> {
        self.files().try_for_each(|file| fs::write(file, ""))?;
        for agent in &self.ours.agents[..CRASHING] {
            signal(self.beacon.pid(agent.as_str())?, Signal::KILL);
        }
        // The first round was all at once: it is over when all have begun again.
        self.beacon.drain();
        for _ in 0..CRASHING {
            self.beacon.main().await?;
        }
        Ok(())
    }

    /// From now on they run again.
    async fn heal(&self) -> Result<()> {
        self.files().try_for_each(fs::remove_file)?;
        warm_up(&self.ours, CRASHING).await
    }
}
