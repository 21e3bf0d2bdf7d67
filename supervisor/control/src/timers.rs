//! The timers that the fold asked for. Only the leader keeps them; a new leader gets them from the fold again.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::Moment;
use common::AgentName;
use common::control::Timer;

/// No timer is set for longer than a year: an odd clock must not overflow.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Of one agent, several incarnations may drain at once.
type Key = (AgentName, Timer, u64);

/// At most one timer of each kind and incarnation.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_key: BTreeMap<Key, Moment>,
    by_time: std::collections::BTreeSet<(Moment, Key)>,
}

impl Timers {
    /// Sets a timer, in the place of one that was there.
    pub(super) fn set(&mut self, key: Key, after: Duration) {
        self.set_at(key, Moment::now().after(after.min(FAR)));
    }

    fn set_at(&mut self, key: Key, at: Moment) {
        self.cancel(&key);
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
    pub(super) fn next(&self) -> Option<Moment> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out what is due.
    pub(super) fn due(&mut self, now: Moment) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some((at, key)) = self.by_time.first().cloned().filter(|(at, _)| *at <= now) {
            self.by_time.remove(&(at, key.clone()));
            self.by_key.remove(&key);
            due.push(key);
        }
        due
    }

    /// The leader stood still for a while: maybe the machine did, and whoever is to be ready or gone by then with it. A delay
    /// before a start is nobody's deadline, and goes on.
    pub(super) fn postpone(&mut self, gap: Duration) {
        let judged = self.by_key.iter().filter(|((_, timer, _), _)| *timer != Timer::Restart);
        let judged: Vec<_> = judged.map(|(key, at)| (key.clone(), at.after(gap))).collect();
        for (key, at) in judged {
            self.set_at(key, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_postpones_deadlines_and_no_start() {
        let agent = AgentName::new("a").expect("valid");
        let key = |timer| (agent.clone(), timer, 1);
        let mut timers = Timers::default();
        for timer in [Timer::Ready, Timer::Drain, Timer::Restart] {
            timers.set(key(timer), Duration::from_secs(5));
        }
        timers.postpone(Duration::from_secs(11));
        let later = |seconds| Moment::now().after(Duration::from_secs(seconds));
        assert_eq!(timers.due(later(6)), [key(Timer::Restart)]);
        assert_eq!(timers.due(later(15)), []);
        assert_eq!(timers.due(later(17)), [key(Timer::Ready), key(Timer::Drain)]);
        assert_eq!(timers.next(), None);
    }
}
