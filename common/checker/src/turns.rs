//! What the workers' own notes say about incarnations: who ran, and when.

use std::collections::{BTreeMap, BTreeSet};

use common::{AgentName, MessageId};

use super::{Facts, Fault};

/// A turn that began, as its worker wrote it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// The worker's process id.
    pub pid: u32,
    /// The incarnation that it works for.
    pub incarnation: u64,
    /// When it began, on the machine's monotonic clock, in nanoseconds: when its worker read it, or the stream stored that it was
    /// given out, whichever was earlier.
    pub began: u64,
    /// When its worker was started, on the same clock. A process id is used again, also in the next container: both together are not.
    pub born: u64,
}

/// The turns of all messages.
pub type Notes = BTreeMap<(AgentName, MessageId), Vec<Turn>>;

/// The rules of incarnations: each runs once, and starts nothing once its successor has begun.
pub(super) fn faults(facts: &Facts) -> Vec<Fault> {
    let known = facts
        .lives
        .iter()
        .map(|(key, life)| ((&key.agent, &key.message_id), life.witnessed.as_slice()));
    let unstored = facts.unstored.iter();
    let unstored = unstored.map(|((agent, id), turns)| ((agent, id), turns.as_slice()));
    let mut agents: BTreeMap<&AgentName, Vec<(Turn, &MessageId)>> = BTreeMap::new();
    for ((agent, id), turns) in known.chain(unstored) {
        agents.entry(agent).or_default().extend(turns.iter().map(|turn| (*turn, id)));
    }
    let mut faults: Vec<_> = (facts.unstored.keys().cloned())
        .map(|(agent, message)| Fault::RanUnstored { agent, message })
        .collect();
    for (agent, turns) in agents {
        faults.extend(instances(agent, &turns));
        faults.extend(late_turns(agent, &turns));
    }
    faults
}

/// Two workers with one incarnation's number, at once or one after the other: an incarnation has one worker.
fn instances(agent: &AgentName, turns: &[(Turn, &MessageId)]) -> Vec<Fault> {
    let mut workers: BTreeMap<u64, BTreeSet<(u64, u32)>> = BTreeMap::new();
    for (turn, _) in turns {
        workers.entry(turn.incarnation).or_default().insert((turn.born, turn.pid));
    }
    let doubled = workers.into_iter().filter(|(_, workers)| workers.len() > 1);
    let fault = |(incarnation, workers): (u64, BTreeSet<(u64, u32)>)| Fault::RunTwice {
        agent: agent.clone(),
        incarnation,
        pids: workers.into_iter().map(|(_, pid)| pid).collect(),
    };
    doubled.map(fault).collect()
}

/// Turns that an incarnation began after a later one had begun its first.
fn late_turns(agent: &AgentName, turns: &[(Turn, &MessageId)]) -> Vec<Fault> {
    let mut late = Vec::new();
    // From the newest to the oldest; the earliest turn of those that are newer.
    let mut turns = turns.to_vec();
    turns.sort_by_key(|(turn, _)| (std::cmp::Reverse(turn.incarnation), turn.began));
    let mut newer: Option<Turn> = None;
    for same in turns.chunk_by(|(one, _), (other, _)| one.incarnation == other.incarnation) {
        if let Some(newer) = newer {
            late.extend(same.iter().filter(|(turn, _)| turn.began > newer.began).map(
                |(turn, message)| Fault::LateTurn {
                    agent: agent.clone(),
                    message: (*message).clone(),
                    incarnation: turn.incarnation,
                    successor: newer.incarnation,
                    late_by: std::time::Duration::from_nanos(turn.began - newer.began),
                },
            ));
        }
        let earliest = newer.into_iter().chain(same.iter().map(|(turn, _)| *turn));
        newer = earliest.min_by_key(|turn| turn.began);
    }
    late
}
