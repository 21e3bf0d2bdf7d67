//! The timers that the fold asked for. Kept by the leader alone; a new leader gets them from the fold anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::control::Timer;
use common::{AgentName, Timestamp};

/// No timer is set for longer than a year: an odd clock must not overflow.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Of one agent, several incarnations may drain at once.
type Key = (AgentName, Timer, u64);

/// At most one timer of each kind and incarnation.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_key: BTreeMap<Key, Instant>,
    by_time: std::collections::BTreeSet<(Instant, Key)>,
}

impl Timers {
    /// Sets a timer, in the place of one that was there. The time is a wall clock's: turned into a duration here, once.
    pub(super) fn set(&mut self, key: Key, at: Timestamp, now: Timestamp) {
        self.cancel(&key);
        let at = Instant::now() + at.since(now).min(FAR);
        self.by_time.insert((at, key.clone()));
        self.by_key.insert(key, at);
    }

    /// Removes a timer.
    pub(super) fn cancel(&mut self, key: &Key) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out what is due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some((at, key)) = self.by_time.first().cloned().filter(|(at, _)| *at <= now) {
            self.by_time.remove(&(at, key.clone()));
            self.by_key.remove(&key);
            due.push(key);
        }
        due
    }
}
