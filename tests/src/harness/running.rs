//! What runs for a fleet: processes, as `/proc` shows those of containers, too, and the containers that its engine knows.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerSummary;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::engine::{self, Engine, FLEET};
use super::fleet::Fleet;
use super::proc::{self, Process, Signal};
use super::runtime::Runtime;

/// A container that its node has noted: in the run folder of its incarnation.
#[derive(Debug, Clone, Deserialize)]
pub struct Noted {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub agent: String,
    /// Which incarnation it is.
    pub incarnation: u64,
}

impl Fleet {
    /// Everything that runs for this fleet.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        running(self.home())
    }

    /// The processes of an agent's incarnations: shim, worker and what the worker started.
    #[must_use]
    pub fn processes_of(&self, agent: &str) -> Vec<Process> {
        let all = self.noted_containers().into_iter().filter(|container| container.agent == agent);
        let containers: BTreeSet<String> = all.map(|container| container.id).collect();
        let is_its = |process: &Process| {
            process.var("MOZART_INCARNATION").split('/').nth(2) == Some(agent)
                || process.container.as_ref().is_some_and(|id| containers.contains(id))
        };
        self.processes().into_iter().filter(is_its).collect()
    }

    /// The shims of an agent: one, unless one incarnation hands over to the next.
    #[must_use]
    pub fn shims(&self, agent: &str) -> Vec<u32> {
        let all = self.processes_of(agent).into_iter();
        all.filter(Process::is_shim).map(|one| one.pid).collect()
    }

    /// The workers of an agent: children of its shims.
    #[must_use]
    pub fn workers(&self, agent: &str) -> Vec<u32> {
        let shims = self.shims(agent);
        let all = self.processes_of(agent).into_iter();
        all.filter(|one| shims.contains(&one.parent)).map(|one| one.pid).collect()
    }

    /// The only shim of an agent.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[must_use]
    #[track_caller]
    pub fn shim(&self, agent: &str) -> u32 {
        let shims = self.shims(agent);
        assert_eq!(shims.len(), 1, "the shims of {agent}: {shims:?}");
        shims[0]
    }

    /// The only worker of an agent.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[must_use]
    #[track_caller]
    pub fn worker(&self, agent: &str) -> u32 {
        let workers = self.workers(agent);
        assert_eq!(workers.len(), 1, "the workers of {agent}: {workers:?}");
        workers[0]
    }

    /// The containers that its node has noted, and not forgotten yet.
    #[must_use]
    pub fn noted_containers(&self) -> Vec<Noted> {
        noted(self.home())
    }

    /// The id of the only container of an agent.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[must_use]
    #[track_caller]
    pub fn container(&self, agent: &str) -> String {
        let mut all = self.noted_containers();
        all.retain(|container| container.agent == agent);
        assert_eq!(all.len(), 1, "the containers of {agent}: {all:?}");
        all.remove(0).id
    }

    /// The engine that this fleet's containers run in.
    ///
    /// # Panics
    /// When they are processes.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        match self.runtime() {
            Runtime::Docker(engine) => engine,
            Runtime::Process => panic!("its agents are processes"),
        }
    }

    /// The containers of this fleet, in whatever state, as the engine lists them.
    pub async fn containers(&self) -> Vec<ContainerSummary> {
        let mut known = self.label().get().cloned();
        let all = of(self.engine().docker(), self.home(), &mut known).await;
        if let Some(known) = known {
            self.label().get_or_init(|| known);
        }
        all
    }

    /// Learns how the engine tells this fleet's containers from others', while one of them is there.
    pub(super) async fn learn(&self) {
        if let Runtime::Docker(_) = self.runtime() {
            let _all = self.containers().await;
        }
    }
}

/// The running processes of the fleet of a folder, those in its containers among them.
pub(crate) fn running(home: &Path) -> Vec<Process> {
    let containers: BTreeSet<String> = noted(home).into_iter().map(|one| one.id).collect();
    let is_its = |process: &Process| {
        process.is_of(home) || process.container.as_ref().is_some_and(|id| containers.contains(id))
    };
    proc::all().filter(is_its).collect()
}

/// The containers that the nodes of a folder have noted, and not forgotten yet.
pub(crate) fn noted(home: &Path) -> Vec<Noted> {
    let within = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    // run/<namespace>/<node>/<agent>-<incarnation>
    let nodes = within(&home.join("run")).flat_map(|namespace| within(&namespace.path()));
    let runs = nodes.flat_map(|node| within(&node.path()));
    let read = |run: fs::DirEntry| {
        let text = fs::read(run.path().join("container.json")).ok()?;
        // One that is being written is not known yet.
        serde_json::from_slice(&text).ok()
    };
    runs.filter_map(read).collect()
}

/// The containers of the fleet of a folder, and by what label they are known: learned from one that its node has noted, or that has a
/// folder of the fleet's mounted.
pub(crate) async fn of(
    docker: &Docker,
    home: &Path,
    known: &mut Option<String>,
) -> Vec<ContainerSummary> {
    let mut all = engine::of_all_fleets(docker).await;
    let label = |container: &ContainerSummary| container.labels.as_ref()?.get(FLEET).cloned();
    if known.is_none() {
        let noted: BTreeSet<String> = noted(home).into_iter().map(|one| one.id).collect();
        let folder = home.parent().unwrap_or(home);
        let is_its = |container: &&ContainerSummary| {
            let mounts = container.mounts.iter().flatten();
            let mut sources = mounts.filter_map(|mount| mount.source.as_ref());
            container.id.as_ref().is_some_and(|id| noted.contains(id))
                || sources.any(|source| Path::new(source).starts_with(folder))
        };
        *known = all.iter().find(is_its).and_then(label);
    }
    all.retain(|container| known.is_some() && label(container) == *known);
    all
}

/// Ends everything that runs for the fleet of a folder, and nothing else.
pub(crate) fn end(home: &Path, runtime: &Runtime, label: Option<String>) {
    // A killed process may have started another one in the same moment.
    for _ in 0..1000 {
        let left = proc::processes(home);
        if left.is_empty() {
            break;
        }
        for process in left {
            proc::kill(process.pid, Signal::KILL);
        }
        std::thread::yield_now();
    }
    if let Runtime::Docker(_) = runtime {
        engine::apart(remove_containers(home, label));
    }
}

/// Removes the containers of a fleet. What its dead node asked for last may still be under way in the engine: so it is gone when the
/// engine has had nothing for a moment.
async fn remove_containers(home: &Path, mut label: Option<String>) {
    const QUIET: Duration = Duration::from_millis(400);
    const AT_MOST: Duration = Duration::from_secs(30);
    let Ok(docker) = engine::connect().await else { return };
    let began = Instant::now();
    let mut quiet_since = began;
    while quiet_since.elapsed() < QUIET && began.elapsed() < AT_MOST {
        let left = of(&docker, home, &mut label).await;
        let ids = left.iter().filter_map(|container| container.id.as_deref());
        let removals = ids.map(|id| engine::remove(&docker, id));
        if futures_util::future::join_all(removals).await.is_empty() {
            sleep(QUIET / 4).await;
        } else {
            quiet_since = Instant::now();
        }
    }
}
