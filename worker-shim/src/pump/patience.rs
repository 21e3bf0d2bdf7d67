//! How long a shim whose worker is gone waits until its last records are stored.

use std::time::{Duration, Instant};

/// How long, once an end was requested.
const TOLD: Duration = Duration::from_secs(3);
/// How often to check whether the broker answers. If it does so twice in a row, something else is wrong.
const LOOKS: Duration = Duration::from_secs(6);
/// How long in all. While the broker does not answer, no successor can be started, and only this shim knows of the last attempts.
const IN_ALL: Duration = Duration::from_secs(600);

/// What is left of the patience.
#[derive(Debug)]
pub(super) struct Patience {
    due: Instant,
    end: Instant,
    /// Whether the broker answered when it was last asked.
    was_there: bool,
    told: bool,
}

impl Patience {
    /// Begins. `told`: somebody has asked for the end.
    pub(super) fn begin(now: Instant, told: bool) -> Self {
        let due = now + if told { TOLD } else { LOOKS };
        Self { due, end: now + IN_ALL, was_there: false, told }
    }

    /// When to ask whether it is at its end.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Somebody asks for the end now.
    pub(super) fn told(&mut self, now: Instant) {
        if !self.told {
            self.told = true;
            self.due = now + TOLD;
        }
    }

    /// Whether it matters if the broker answers.
    pub(super) fn asks(&self) -> bool {
        !self.told
    }

    /// Whether it is at its end, once due: it is when the broker was there all the while.
    pub(super) fn ends(&mut self, now: Instant, is_there: bool) -> bool {
        if self.told || now >= self.end || (is_there && self.was_there) {
            return true;
        }
        self.was_there = is_there;
        self.due = now + LOOKS;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When it ends, in seconds, where the broker is there as `is_there` says of each second.
    fn ends(told: bool, is_there: impl Fn(u64) -> bool) -> u64 {
        let began = Instant::now();
        let mut patience = Patience::begin(began, told);
        loop {
            let now = patience.due();
            let second = (now - began).as_secs();
            if patience.ends(now, is_there(second)) {
                return second;
            }
        }
    }

    #[test]
    fn it_lasts_for_as_long_as_the_broker_is_away_and_a_little_longer() {
        assert_eq!(ends(false, |_| true), 12);
        assert_eq!(ends(false, |second| second > 60), 72);
        assert_eq!(ends(false, |_| false), 600);
        // Each time that it goes away again, too.
        assert_eq!(ends(false, |second| second % 12 == 0 || second > 90), 102);
    }

    #[test]
    fn it_is_short_once_somebody_asks_for_the_end() {
        assert_eq!(ends(true, |_| false), 3);
        let began = Instant::now();
        let mut patience = Patience::begin(began, false);
        let later = began + Duration::from_secs(100);
        for _ in 0..2 {
            patience.told(later);
        }
        assert_eq!(patience.due(), later + TOLD);
        patience.told(later + TOLD);
        assert!(patience.ends(patience.due(), false));
    }
}
