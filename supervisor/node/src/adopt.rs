//! What an earlier process of this node left: running incarnations are adopted, ended ones reported, leftovers ended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::AgentName;
use common::words::count;

use super::Node;
use super::running::{Place, Running};
use runtime::folder::without_a_word;
use runtime::labels;

/// How long the engine may take to list what runs, before the node's notes are used instead. Shorter than a node may be silent.
const LIST: Duration = Duration::from_secs(5);

impl Node {
    /// Takes over what runs. Touches nothing that is not labelled as this node's own.
    pub(super) async fn adopt(&mut self) {
        self.adopt_processes();
        self.adopt_containers().await;
        self.report_missed_ends();
    }

    fn adopt_processes(&mut self) {
        let Some(process) = self.process.clone() else { return };
        for shim in process.adopt() {
            tracing::info!("{}-{} adopted as process {}", shim.agent, shim.incarnation, shim.pid);
            let key = (shim.agent.clone(), shim.incarnation);
            self.watch(key.clone(), shim.pid);
            self.running.insert(key, Running::process(shim));
        }
        // Workers whose shim is gone serve nobody.
        let running: BTreeSet<&Path> = self
            .running
            .values()
            .filter_map(|one| match &one.place {
                Place::Process(shim) => Some(shim.run.as_path()),
                Place::Container(_) => None,
            })
            .collect();
        let ended = labels::sweep_where(&self.folders.root, |run| !running.contains(run));
        if ended > 0 {
            let ended = count(ended as u64, "process", "processes");
            tracing::info!("ended {ended} of earlier incarnations");
        }
    }

    /// If the engine does not answer, that does not mean that nothing runs: then the node's notes count.
    async fn adopt_containers(&mut self) {
        let Some(engine) = self.engine.clone() else { return };
        match tokio::time::timeout(LIST, engine.list()).await {
            Ok(Ok(all)) => return self.compare(all),
            Ok(Err(error)) => tracing::warn!("the container engine does not answer: {error}"),
            Err(_) => tracing::warn!("the container engine does not answer within {LIST:?}"),
        }
        self.engine_is_up = false;
        for (agent, incarnation) in self.folders.list() {
            if self.folders.last_words(&agent, incarnation).is_none()
                && let Some(container) = engine.noted(&agent, incarnation)
            {
                self.listen(container.clone());
                self.running.insert((agent, incarnation), Running::container(container));
            }
        }
    }

    /// Incarnations that ended while no node watched: the newest one of each agent is reported, older folders go.
    fn report_missed_ends(&mut self) {
        let mut newest: BTreeMap<AgentName, u64> = BTreeMap::new();
        let folders = self.folders.list();
        for (agent, incarnation) in &folders {
            let known = newest.entry(agent.clone()).or_insert(*incarnation);
            *known = (*known).max(*incarnation);
        }
        for (agent, incarnation) in folders {
            if self.running.contains_key(&(agent.clone(), incarnation)) {
                continue;
            }
            let newer_runs =
                self.running.keys().any(|(other, number)| *other == agent && *number > incarnation);
            if newest.get(&agent) == Some(&incarnation) && !newer_runs {
                // What it may have left behind is ended by now.
                let exit = self.folders.last_words(&agent, incarnation).unwrap_or_else(|| {
                    without_a_word(agent, incarnation, None, SystemTime::now().into())
                });
                let agent = exit.agent.clone();
                self.remember(exit);
                self.found.insert(agent);
            } else {
                self.folders.forget(&agent, incarnation);
            }
        }
    }
}
