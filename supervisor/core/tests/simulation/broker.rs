//! What the broker holds beside the log: the lease, and the consumers that let incarnations take messages.

use std::collections::{BTreeMap, BTreeSet};

use common::AgentName;

use crate::Flaw;

/// How long a lease is good for without a renewal, in milliseconds.
pub(crate) const LEASE: u64 = 6_000;

#[derive(Default)]
pub(crate) struct Broker {
    holder: Option<usize>,
    until: u64,
    term: u64,
    consumers: BTreeMap<AgentName, BTreeSet<u64>>,
}

impl Broker {
    /// The term, if the lease is the replica's now.
    pub(crate) fn take_or_renew(&mut self, replica: usize, now: u64) -> Option<u64> {
        if self.holder != Some(replica) && now < self.until {
            return None;
        }
        // An expired lease is a new one even for its last holder: another may have led in between.
        if self.holder != Some(replica) || now >= self.until {
            self.term += 1;
        }
        self.holder = Some(replica);
        self.until = now + LEASE;
        Some(self.term)
    }

    /// Replaces the consumers of those named; an incarnation that is earlier than another with a consumer comes too late.
    pub(crate) fn admit(
        &mut self,
        agent: &AgentName,
        incarnation: u64,
        over: &[u64],
        flaw: Flaw,
    ) -> bool {
        let consumers = self.consumers.entry(agent.clone()).or_default();
        if consumers.iter().any(|other| *other > incarnation) {
            return false;
        }
        if flaw != Flaw::KeepConsumers {
            consumers.retain(|other| !over.contains(other));
        }
        consumers.insert(incarnation);
        true
    }

    /// Who could take messages beside this one, if it still runs somewhere.
    pub(crate) fn others(&self, agent: &AgentName, incarnation: u64) -> Vec<u64> {
        let consumers = self.consumers.get(agent).into_iter().flatten();
        consumers.copied().filter(|other| *other != incarnation).collect()
    }

    pub(crate) fn has_consumer(&self, agent: &AgentName, incarnation: u64) -> bool {
        self.consumers.get(agent).is_some_and(|all| all.contains(&incarnation))
    }

    /// A restart: consumers are in memory.
    pub(crate) fn forget_consumers(&mut self) {
        self.consumers.clear();
    }
}
