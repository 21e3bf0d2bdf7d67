//! Which schedules there are, how far each is decided, and which is due next. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::Stored;
use common::schedule::{Facts, Occurrences, Times};
use common::spec::Schedule;
use common::{AgentName, ScheduleId, Timestamp};
use supervisor_core::{Agent, State};

use super::Key;
use super::decide::Decided;

/// The last record of a schedule, and its sequence; 0: there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    pub(super) seq: u64,
    pub(super) record: Option<Occurrences>,
}

/// A schedule that is to be worked on.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: Key,
    /// Of the entry: a schedule that was taken out of the soul and is back is another one.
    pub(super) number: u64,
    pub(super) schedule: Arc<Schedule>,
    pub(super) times: Arc<Times>,
    pub(super) known: Known,
    pub(super) facts: Facts,
}

/// How far a schedule is.
#[derive(Debug)]
enum Phase {
    /// Its last record is not known.
    Unread,
    /// Its last record is being read.
    Reading,
    /// Something is to be done then; none: never again.
    Waits(Known, Option<Timestamp>),
    /// It is being worked on.
    Busy,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    schedule: Arc<Schedule>,
    times: Arc<Times>,
    phase: Phase,
}

/// No schedule of an agent comes before this.
fn first_of(agent: &AgentName) -> Key {
    #[expect(clippy::expect_used, reason = "a literal that is a valid id")]
    (agent.clone(), ScheduleId::new("-").expect("a valid id"))
}

/// All schedules.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<Key, Entry>,
    due: BTreeSet<(Timestamp, Key)>,
    unread: BTreeSet<Key>,
    /// The generations that the entries are of, of agents with schedules.
    generations: BTreeMap<AgentName, u64>,
    changed: BTreeSet<AgentName>,
    number: u64,
    busy: usize,
}

impl Book {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The schedules of an agent may be others now.
    pub(super) fn note(&mut self, name: &AgentName, agent: Option<&Agent>) {
        let generation = agent.filter(|agent| !agent.removing).map(|it| it.scheduled.generation());
        let known = self.generations.get(name).copied();
        if known.unwrap_or(0) != generation.unwrap_or(0) && !self.changed.contains(name) {
            self.changed.insert(name.clone());
        }
    }

    /// Those of all agents may.
    pub(super) fn note_all(&mut self, state: &State) {
        state.agents().for_each(|agent| self.note(&agent.name, Some(agent)));
        let gone = self.generations.keys().filter(|agent| state.agent(agent).is_none());
        let gone: Vec<AgentName> = gone.cloned().collect();
        self.changed.extend(gone);
    }

    /// Follows the agents whose schedules have changed. Those that cannot be followed, and why.
    pub(super) fn follow(&mut self, state: &State) -> Vec<(Key, String)> {
        let mut problems = Vec::new();
        for name in std::mem::take(&mut self.changed) {
            let agent = state.agent(&name).filter(|agent| !agent.removing);
            let wanted: BTreeMap<_, _> = agent.into_iter().flat_map(Agent::schedules).collect();
            let of_agent: Vec<Key> = self
                .entries
                .range(first_of(&name)..)
                .map(|(key, _)| key)
                .take_while(|key| key.0 == name)
                .cloned()
                .collect();
            for key in of_agent {
                let stays = wanted.get(&key.1).is_some_and(|schedule| {
                    self.entries.get(&key).is_some_and(|entry| *entry.schedule == **schedule)
                });
                if !stays {
                    self.remove(&key);
                }
            }
            for (id, schedule) in wanted {
                let key = (name.clone(), id);
                if self.entries.contains_key(&key) {
                    continue;
                }
                match Times::of(schedule) {
                    Ok(times) => self.add(key, schedule, times),
                    Err(problem) => problems.push((key, problem)),
                }
            }
            match agent.map_or(0, |agent| agent.scheduled.generation()) {
                0 => self.generations.remove(&name),
                generation => self.generations.insert(name, generation),
            };
        }
        problems
    }

    fn add(&mut self, key: Key, schedule: &Schedule, times: Times) {
        self.number += 1;
        let entry = Entry {
            number: self.number,
            schedule: Arc::new(schedule.clone()),
            times: Arc::new(times),
            phase: Phase::Unread,
        };
        self.unread.insert(key.clone());
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) {
        self.unread.remove(key);
        match self.entries.remove(key).map(|entry| entry.phase) {
            Some(Phase::Waits(_, Some(at))) => {
                self.due.remove(&(at, key.clone()));
            }
            Some(Phase::Busy) => self.busy = self.busy.saturating_sub(1),
            Some(Phase::Waits(_, None) | Phase::Unread | Phase::Reading) | None => {}
        }
    }

    /// The next schedules whose last records are to be read.
    pub(super) fn unread(&mut self, most: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(key) = self.unread.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.phase = Phase::Reading;
                keys.push(key);
            }
        }
        keys
    }

    /// The last record of a schedule was read; none: it has to be read again.
    pub(super) fn read(&mut self, key: &Key, last: Option<Option<Stored<Occurrences>>>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if !matches!(entry.phase, Phase::Reading) {
            return;
        }
        let Some(last) = last else {
            entry.phase = Phase::Unread;
            self.unread.insert(key.clone());
            return;
        };
        let known = match last {
            Some(Stored { value, seq, .. }) => Known { seq, record: Some(value) },
            None => Known::default(),
        };
        // What is due, its plan tells.
        let at = Timestamp::default();
        entry.phase = Phase::Waits(known, Some(at));
        self.due.insert((at, key.clone()));
    }

    /// Takes out what is due, as far as there is room for it.
    pub(super) fn due(
        &mut self,
        now: Timestamp,
        most: usize,
        facts: impl Fn(&Key) -> Option<Facts>,
    ) -> Vec<Job> {
        let mut jobs = Vec::new();
        while self.busy < most
            && self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.due.pop_first()
        {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let phase = std::mem::replace(&mut entry.phase, Phase::Waits(Known::default(), None));
            let Phase::Waits(known, _) = phase else {
                entry.phase = phase;
                continue;
            };
            let Some(mut facts) = facts(&key) else {
                // The agent does not have it any more, and that is noted.
                entry.phase = Phase::Waits(known, None);
                continue;
            };
            facts.until = known.record.as_ref().and_then(|record| record.nominal);
            entry.phase = Phase::Busy;
            self.busy += 1;
            jobs.push(Job {
                key,
                number: entry.number,
                schedule: Arc::clone(&entry.schedule),
                times: Arc::clone(&entry.times),
                known,
                facts,
            });
        }
        jobs
    }

    /// Work on a schedule has ended. `again`: when it is tried again, if it has failed.
    pub(super) fn decided(&mut self, decided: Decided, again: Option<Timestamp>) {
        let Decided { key, number, known, next, fault } = decided;
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.number == number) else {
            return;
        };
        self.busy = self.busy.saturating_sub(1);
        let Some(known) = known else {
            entry.phase = Phase::Unread;
            self.unread.insert(key);
            return;
        };
        let next = if fault.is_some() { again } else { next };
        entry.phase = Phase::Waits(known, next);
        self.due.extend(next.map(|next| (next, key)));
    }
}

#[cfg(test)]
mod tests;
