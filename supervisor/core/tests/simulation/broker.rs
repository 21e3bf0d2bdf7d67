//! What the broker holds beside the log: the lease, who is admitted, and the consumers that let incarnations take messages.

use std::collections::BTreeMap;

use common::AgentName;

use crate::Flaw;

/// How long a lease is good for without a renewal, in milliseconds.
pub(crate) const LEASE: u64 = 3_000;

/// How long its holder believes in it: three quarters, from before the renewal was sent.
pub(crate) const BELIEF: u64 = LEASE - LEASE / 4;

#[derive(Default)]
pub(crate) struct Broker {
    /// The run of a replica that holds the lease, and until when.
    lease: Option<(u64, u64)>,
    /// The last incarnation of each agent that was admitted.
    admitted: BTreeMap<AgentName, u64>,
    /// Each consumer, and the number of its making.
    consumers: BTreeMap<(AgentName, u64), u64>,
    made: u64,
}

impl Broker {
    /// Whether the lease is this run's now.
    pub(crate) fn take_or_renew(&mut self, run: u64, now: u64) -> bool {
        if self.lease.is_some_and(|(holder, until)| holder != run && now < until) {
            return false;
        }
        self.lease = Some((run, now + LEASE));
        true
    }

    /// The lease's bucket is made anew.
    pub(crate) fn forget_lease(&mut self) {
        self.lease = None;
    }

    /// Admits an incarnation, unless a later one was.
    pub(crate) fn claim(&mut self, agent: &AgentName, incarnation: u64) -> bool {
        let admitted = self.admitted.entry(agent.clone()).or_default();
        let may = incarnation >= *admitted;
        *admitted = incarnation.max(*admitted);
        may
    }

    pub(crate) fn is_admitted(&self, agent: &AgentName, incarnation: u64) -> bool {
        self.admitted.get(agent) == Some(&incarnation)
    }

    pub(crate) fn delete_consumer(&mut self, agent: &AgentName, incarnation: u64, flaw: Flaw) {
        if flaw != Flaw::KeepConsumers {
            self.consumers.remove(&(agent.clone(), incarnation));
        }
    }

    /// Makes a consumer, unless it is there; which one it is.
    pub(crate) fn create_consumer(&mut self, agent: &AgentName, incarnation: u64) -> u64 {
        self.made += 1;
        *self.consumers.entry((agent.clone(), incarnation)).or_insert(self.made)
    }

    pub(crate) fn consumer(&self, agent: &AgentName, incarnation: u64) -> Option<u64> {
        self.consumers.get(&(agent.clone(), incarnation)).copied()
    }

    /// A restart: consumers are in memory.
    pub(crate) fn forget_consumers(&mut self) {
        self.consumers.clear();
    }
}
