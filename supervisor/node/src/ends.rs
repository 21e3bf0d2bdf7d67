//! How incarnations ended here, and how long that is remembered.

use std::collections::BTreeSet;
use std::time::SystemTime;

use common::frame::{IncarnationExit, NodeReport};

use super::Node;
use super::running::{EndedShim, Seen};
use runtime::folder::without_a_word;

/// Ends that are kept to be told again, at most: what is absent from a report has ended, too, only nobody knows how.
const EXITS: usize = 1024;

impl Node {
    pub(super) async fn shim_ended(&mut self, (key, status): EndedShim) {
        let Some(one) = self.running.get_mut(&key) else { return };
        one.gone = true;
        one.kill_at = None;
        match self.folders.last_words(&key.0, key.1) {
            Some(exit) => self.finished(exit).await,
            None => {
                self.unswept.push((key, status));
                self.sweep();
            }
        }
    }

    /// Sweeps outside the loop: with many processes it takes longer than a leader waits for a report.
    fn sweep(&mut self) {
        let Some(process) = &self.process else { return };
        if self.sweeping || self.unswept.is_empty() {
            return;
        }
        self.sweeping = true;
        let (runtime, ended) = (process.clone(), std::mem::take(&mut self.unswept));
        self.watches.spawn_blocking(move || {
            let keys: BTreeSet<_> = ended.iter().map(|(key, _)| key.clone()).collect();
            runtime.sweep(&keys);
            Seen::Swept(ended)
        });
    }

    pub(super) async fn swept(&mut self, ended: Vec<EndedShim>) {
        self.sweeping = false;
        self.sweep();
        let now = SystemTime::now().into();
        for ((agent, incarnation), status) in ended {
            self.finished(without_a_word(agent, incarnation, status, now)).await;
        }
    }

    pub(super) async fn finished(&mut self, exit: IncarnationExit) {
        let (agent, incarnation) = (&exit.agent, exit.incarnation);
        let key = (agent.clone(), incarnation);
        self.running.remove(&key);
        self.clear_files(&key);
        tracing::info!("{agent}-{incarnation} ended: {}", exit.exit.describe());
        if let Some(metrics) = &self.options.metrics {
            let was_asked_for = !exit.exit.is_failure();
            metrics.ended(was_asked_for, exit.exit.out_of_memory);
        }
        let instance = Some(self.instance);
        self.report(&NodeReport::Exited { instance, exit: exit.clone() }).await;
        self.remember(exit);
    }

    /// Keeps an end, unless a newer one of the same agent is known. What is not kept leaves no folder.
    pub(super) fn remember(&mut self, exit: IncarnationExit) {
        let known = self.exits.get(&exit.agent);
        if known.is_some_and(|known| known.incarnation > exit.incarnation) {
            return self.folders.forget(&exit.agent, exit.incarnation);
        }
        let (agent, incarnation) = (exit.agent.clone(), exit.incarnation);
        self.found.remove(&agent);
        if let Some(older) = self.exits.insert(agent, exit)
            && older.incarnation != incarnation
        {
            self.folders.forget(&older.agent, older.incarnation);
        }
        if self.exits.len() > EXITS
            && let Some(oldest) = self.exits.values().min_by_key(|exit| exit.at)
            && let Some(oldest) = self.exits.remove(&oldest.agent.clone())
        {
            self.folders.forget(&oldest.agent, oldest.incarnation);
        }
    }
}
