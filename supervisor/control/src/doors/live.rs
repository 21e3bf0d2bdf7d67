//! Which incarnations may be connected: what the log says of them, shared with those who answer for logins and questions.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::files::Sha256;
use common::{AgentName, NodeName};
use supervisor_core::{Agent, Incarnation, State};
use tokio::sync::watch;
use tokio::time::timeout;

/// The incarnations of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Incarnations {
    /// The highest that was ever allocated.
    highest: u64,
    /// Those that take messages, or are to.
    current: Vec<Place>,
    /// Those that were replaced, and have not been seen to end.
    retiring: Vec<u64>,
}

/// Where an incarnation runs, and with which files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    number: u64,
    node: NodeName,
    files: Option<Sha256>,
}

impl Place {
    fn of(agent: &Agent, one: &Incarnation) -> Self {
        let files = agent.spec_of(one.generation).and_then(|spec| spec.files.as_ref());
        let files = files.map(|files| files.sha256.clone());
        Self { number: one.number, node: one.node.clone(), files }
    }
}

impl Incarnations {
    fn of(agent: &Agent) -> Self {
        let current = agent.current.iter().chain(&agent.next).map(|one| Place::of(agent, one));
        Self {
            highest: agent.incarnation,
            current: current.collect(),
            retiring: agent.retiring.iter().map(|one| one.number).collect(),
        }
    }

    fn place(&self, incarnation: u64) -> Option<&Place> {
        self.current.iter().find(|place| place.number == incarnation)
    }

    fn rank(&self, incarnation: u64) -> Rank {
        if self.place(incarnation).is_some() {
            Rank::Current
        } else if self.retiring.contains(&incarnation) {
            Rank::Retiring
        } else if incarnation > self.highest {
            Rank::Unknown
        } else {
            Rank::Over
        }
    }
}

/// What an incarnation is, as far as the log has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// It takes messages, or is to.
    Current,
    /// It was replaced, and may be finishing.
    Retiring,
    /// It has ended, or was given up.
    Over,
    /// The log does not have it yet.
    Unknown,
    /// There is no such agent, or not yet.
    Stranger,
}

/// The incarnations of all agents.
#[derive(Debug, Default)]
pub(crate) struct Live {
    agents: Mutex<HashMap<AgentName, Incarnations>>,
    changed: watch::Sender<Changes>,
}

/// How often something has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Any of it.
    pub(super) any: u64,
    /// An incarnation is not current any more, or this supervisor leads since then: connections may be left over.
    pub(super) left: u64,
}

impl Live {
    fn agents(&self) -> MutexGuard<'_, HashMap<AgentName, Incarnations>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a record has changed: of one agent, or of all.
    pub(crate) fn fold(&self, state: &State, agent: Option<&AgentName>) {
        let mut agents = self.agents();
        let (mut any, mut left) = (false, false);
        let mut put = |name: &AgentName, now: Option<Incarnations>| {
            let before = agents.get(name).cloned();
            if before == now {
                return;
            }
            any = true;
            let is_current =
                |place: &Place| now.as_ref().is_some_and(|now| now.place(place.number).is_some());
            left |= before.is_some_and(|before| !before.current.iter().all(is_current));
            match now {
                Some(now) => agents.insert(name.clone(), now),
                None => agents.remove(name),
            };
        };
        match agent {
            Some(name) => put(name, state.agent(name).map(Incarnations::of)),
            None => {
                for agent in state.agents() {
                    put(&agent.name, Some(Incarnations::of(agent)));
                }
            }
        }
        drop(agents);
        if any {
            self.changed.send_modify(|changes| {
                changes.any += 1;
                changes.left += u64::from(left);
            });
        }
    }

    /// This supervisor leads from now on.
    pub(crate) fn leads(&self) {
        self.changed.send_modify(|changes| changes.left += 1);
    }

    pub(super) fn rank(&self, agent: &AgentName, incarnation: u64) -> Rank {
        self.agents().get(agent).map_or(Rank::Stranger, |one| one.rank(incarnation))
    }

    /// The files that an incarnation starts with on a node, if it is one that takes messages there, or is to.
    pub(super) fn files(
        &self,
        agent: &AgentName,
        incarnation: u64,
        node: &NodeName,
    ) -> Option<Sha256> {
        let agents = self.agents();
        let place = agents.get(agent)?.place(incarnation).filter(|place| place.node == *node)?;
        place.files.clone()
    }

    /// What an incarnation is, once the log has been read as far as that: at most so long.
    pub(super) async fn rank_once_known(
        &self,
        agent: &AgentName,
        incarnation: u64,
        within: Duration,
    ) -> Rank {
        let mut changes = self.changes();
        let known = async {
            loop {
                let rank = self.rank(agent, incarnation);
                let is_known = !matches!(rank, Rank::Unknown | Rank::Stranger);
                if is_known || changes.changed().await.is_err() {
                    return rank;
                }
            }
        };
        timeout(within, known).await.unwrap_or(Rank::Unknown)
    }

    pub(super) fn changes(&self) -> watch::Receiver<Changes> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_that_was_never_allocated_is_unknown_and_an_earlier_one_is_over() {
        let node = NodeName::new("n").expect("valid");
        let current = vec![Place { number: 5, node, files: None }];
        let one = Incarnations { highest: 5, current, retiring: vec![4] };
        let ranks = [3, 4, 5, 6].map(|number| one.rank(number));
        assert_eq!(ranks, [Rank::Over, Rank::Retiring, Rank::Current, Rank::Unknown]);
    }
}
