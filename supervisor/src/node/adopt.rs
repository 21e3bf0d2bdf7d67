//! What an earlier process of this node left: running shims are taken over, ended ones reported, leftovers ended.

use std::collections::BTreeMap;
use std::time::SystemTime;

use common::AgentName;

use super::{Node, Running};
use crate::runtime::labels;

impl Node {
    /// Takes over what runs. Touches nothing that is not labelled with this node's own run folder.
    pub(super) fn adopt(&mut self) {
        for shim in self.runtime.adopt() {
            tracing::info!("{}-{} adopted as process {}", shim.agent, shim.incarnation, shim.pid);
            self.watch(&shim);
            self.running
                .insert((shim.agent.clone(), shim.incarnation), Running { shim, kill_at: None });
        }
        self.end_leftovers();
        self.report_missed_ends();
    }

    /// Workers whose shim is gone serve nobody.
    fn end_leftovers(&self) {
        let running = |run: &std::path::Path| self.running.values().any(|one| one.shim.run == run);
        for one in labels::find(&self.runtime.root).iter().filter(|one| !running(&one.run)) {
            tracing::info!("process {} of {} was left behind: ended", one.pid, one.label);
            labels::sweep(&one.run);
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
                let exit = self.runtime.exit(&agent, incarnation, None, SystemTime::now().into());
                self.remember(exit);
            } else {
                self.runtime.forget(&agent, incarnation);
            }
        }
    }
}
