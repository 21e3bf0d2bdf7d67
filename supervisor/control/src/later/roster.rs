//! Which agents there are, for what is delivered to them later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{AgentName, Timestamp};
use supervisor_core::State;
use tokio::sync::watch;

/// The agents, as the control log is folded. Kept whether this supervisor leads or not: what was removed before it did counts, too.
#[derive(Debug, Default)]
pub(in super::super) struct Roster {
    known: Mutex<Known>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Known {
    there: BTreeSet<AgentName>,
    /// When agents were removed, as far as that was read here.
    removed: BTreeMap<AgentName, Timestamp>,
}

/// Whether there is an agent for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    There,
    /// The one that it was for was removed.
    Removed,
    /// There is none, and nothing is known of one.
    Unknown,
}

impl Roster {
    /// The agents of a state.
    pub(in super::super) fn all(&self, state: &State) {
        let there = state.agents().filter(|agent| !agent.removing);
        self.lock().there = there.map(|agent| agent.name.clone()).collect();
    }

    /// A record about an agent was folded.
    pub(in super::super) fn folded(&self, state: &State, agent: &AgentName) {
        let is_there = state.agent(agent).is_some_and(|agent| !agent.removing);
        let mut known = self.lock();
        if is_there == known.there.contains(agent) {
            return;
        }
        if is_there {
            known.there.insert(agent.clone());
        } else {
            known.there.remove(agent);
            known.removed.insert(agent.clone(), state.at());
        }
        drop(known);
        self.changed.send_replace(());
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn standing(&self, agent: &AgentName, stored: Timestamp) -> Standing {
        self.lock().standing(agent, stored)
    }

    /// Tells which messages have no agent, by its name and by when they were stored.
    pub(super) fn gone(&self) -> impl Fn(&AgentName, Timestamp) -> bool {
        let known = self.lock();
        move |agent, stored| known.standing(agent, stored) != Standing::There
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn standing(&self, agent: &AgentName, stored: Timestamp) -> Standing {
        let removed = self.removed.get(agent);
        match (self.there.contains(agent), removed) {
            (true, Some(removed)) if stored <= *removed => Standing::Removed,
            (true, _) => Standing::There,
            (false, Some(_)) => Standing::Removed,
            (false, None) => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_to_an_agent_that_was_removed_is_not_for_the_next_one_of_its_name() {
        let agent = |name: &str| AgentName::new(name).expect("valid");
        let at = Timestamp::from_millis;
        let known = Known {
            there: BTreeSet::from([agent("a"), agent("b")]),
            removed: BTreeMap::from([(agent("b"), at(50)), (agent("c"), at(60))]),
        };
        let standing = |name: &str, stored| known.standing(&agent(name), at(stored));
        assert_eq!(standing("a", 1), Standing::There);
        assert_eq!((standing("b", 50), standing("b", 51)), (Standing::Removed, Standing::There));
        assert_eq!((standing("c", 99), standing("d", 99)), (Standing::Removed, Standing::Unknown));
    }
}
