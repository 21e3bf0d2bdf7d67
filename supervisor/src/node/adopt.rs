//! What an earlier process of this node left: running shims are taken over, ended ones reported, leftovers ended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::SystemTime;

use common::AgentName;

use super::{Node, Running};
use crate::runtime::labels;
use crate::runtime::process::without_a_word;

impl Node {
    /// Takes over what runs. Touches nothing that is not labelled with this node's own run folder.
    pub(super) fn adopt(&mut self) {
        for shim in self.runtime.adopt() {
            tracing::info!("{}-{} adopted as process {}", shim.agent, shim.incarnation, shim.pid);
            self.watch(&shim);
            self.running.insert((shim.agent.clone(), shim.incarnation), Running::new(shim));
        }
        self.end_leftovers();
        self.report_missed_ends();
    }

    /// Workers whose shim is gone serve nobody.
    fn end_leftovers(&self) {
        let running: BTreeSet<&Path> =
            self.running.values().map(|one| one.shim.run.as_path()).collect();
        let ended = labels::sweep_where(&self.runtime.root, |run| !running.contains(run));
        if ended > 0 {
            tracing::info!("ended {ended} processes that were left behind");
        }
    }

    /// Incarnations that ended while no node watched: the newest one of each agent is reported, older folders go.
    fn report_missed_ends(&mut self) {
        let mut newest: BTreeMap<AgentName, u64> = BTreeMap::new();
        let folders = self.runtime.folders();
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
                let exit = self.runtime.last_words(&agent, incarnation).unwrap_or_else(|| {
                    without_a_word(agent, incarnation, None, SystemTime::now().into())
                });
                self.remember(exit);
            } else {
                self.runtime.forget(&agent, incarnation);
            }
        }
    }
}
