//! Clocks that two processes can agree on: this machine's boot clock for durations, the broker's clock for when
//! something happens. No host's wall clock is compared with another's.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use common::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// How much a clock may drift against another, in parts of a million.
const DRIFT_PPM: u64 = 200;

/// A moment by this machine's boot clock: it never goes back, and runs on while the process is stopped or the machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // Neither is ever negative on this clock.
        let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
        Self(Duration::new(now.tv_sec.try_into().unwrap_or_default(), nanos))
    }

    /// The time from an earlier moment to this one; nothing if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// A later moment.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// Milliseconds since the machine started.
    #[must_use]
    pub fn since_boot_ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    fn millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

/// What is known of the broker's clock: its answers say what it showed while they were under way.
#[derive(Debug, Default)]
pub(crate) struct ServerClock {
    known: Mutex<Known>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Known {
    estimate: Option<Estimate>,
    /// The broker's clock less the boot clock, in milliseconds, is at least this, by the records that came from it.
    floor: Option<i64>,
}

/// The broker's clock less the boot clock, in milliseconds, and how wrong that may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Estimate {
    offset: i64,
    error: i64,
    at: Moment,
}

impl Estimate {
    /// From an answer that was stamped between two moments.
    fn new(asked: Moment, answered: Moment, stamp: Timestamp) -> Self {
        let stamp = i64::try_from(stamp.as_millis()).unwrap_or(i64::MAX);
        let (from, to) = (asked.millis(), answered.millis());
        // Half the way, and what the milliseconds hide.
        Self { offset: stamp - (from + (to - from) / 2), error: (to - from) / 2 + 1, at: answered }
    }

    /// How wrong it may be by now.
    fn error_at(&self, now: Moment) -> i64 {
        let age = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let drift = age.saturating_mul(DRIFT_PPM) / 1_000_000;
        self.error.saturating_add(i64::try_from(drift).unwrap_or(i64::MAX))
    }

    /// The better of two. Where they contradict each other the clock was set, or another server leads: the newer one counts.
    fn or_newer(self, newer: Self) -> Self {
        let error = self.error_at(newer.at);
        let agree = (self.offset - newer.offset).abs() <= error.saturating_add(newer.error);
        if agree && error <= newer.error { self } else { newer }
    }

    fn show(&self, now: Moment) -> Timestamp {
        shown(now, self.offset)
    }

    fn show_at_least(&self, now: Moment) -> Timestamp {
        shown(now, self.offset.saturating_sub(self.error_at(now)))
    }
}

impl ServerClock {
    /// An answer that was stamped with the broker's time between two moments.
    pub(crate) fn learn(&self, asked: Moment, answered: Moment, stamp: Timestamp) {
        let newer = Estimate::new(asked, answered, stamp);
        let mut known = self.lock();
        known.estimate = Some(known.estimate.map_or(newer, |known| known.or_newer(newer)));
    }

    /// A record came that was stored at a time. It may have waited for long: it counts only until an answer tells more.
    pub(crate) fn passed(&self, now: Moment, stamp: Timestamp) {
        let stamp = i64::try_from(stamp.as_millis()).unwrap_or(i64::MAX);
        let mut known = self.lock();
        known.floor = known.floor.max(Some(stamp.saturating_sub(now.millis())));
    }

    /// What the broker's clock shows at a moment; none before the first answer.
    pub(crate) fn at(&self, now: Moment) -> Option<Timestamp> {
        self.lock().estimate.map(|estimate| estimate.show(now))
    }

    /// The earliest that it may show, by what the answers were worth, or by the records that came before any answer.
    pub(crate) fn at_least(&self, now: Moment) -> Option<Timestamp> {
        let known = *self.lock();
        let by_records = known.floor.map(|floor| shown(now, floor));
        known.estimate.map(|estimate| estimate.show_at_least(now)).or(by_records)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What the broker's clock shows by how far it is from the boot clock.
fn shown(now: Moment, offset: i64) -> Timestamp {
    Timestamp::from_millis(now.millis().saturating_add(offset).try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    fn shown(clock: &ServerClock, now: u64) -> Option<u64> {
        clock.at(at(now)).map(Timestamp::as_millis)
    }

    fn learn(clock: &ServerClock, asked: u64, answered: u64, stamp: u64) {
        clock.learn(at(asked), at(answered), Timestamp::from_millis(stamp));
    }

    #[test]
    fn nothing_is_known_before_an_answer_and_the_middle_of_its_way_after_it() {
        let clock = ServerClock::default();
        assert_eq!(shown(&clock, 1000), None);
        learn(&clock, 1000, 1100, 500_050);
        assert_eq!(shown(&clock, 1050), Some(500_050));
        assert_eq!(shown(&clock, 2050), Some(501_050));
    }

    #[test]
    fn a_quick_answer_counts_more_than_a_slow_one_until_it_is_old() {
        let clock = ServerClock::default();
        learn(&clock, 1000, 1002, 500_001);
        // 80 ms off, and says so by its own length.
        learn(&clock, 2000, 2200, 501_180);
        assert_eq!(shown(&clock, 3000), Some(502_000));
        // 10,000 s later the quick one may be 2 s off.
        learn(&clock, 10_002_000, 10_002_200, 10_501_180);
        assert_eq!(shown(&clock, 10_002_100), Some(10_501_180));
    }

    #[test]
    fn what_a_slow_answer_does_not_tell_is_left_open() {
        let clock = ServerClock::default();
        // Stamped at its end, after 2 s.
        learn(&clock, 1000, 3000, 503_000);
        let least = |now| clock.at_least(at(now)).map(Timestamp::as_millis);
        assert_eq!((shown(&clock, 3000), least(3000)), (Some(504_000), Some(502_999)));
        learn(&clock, 4000, 4002, 504_001);
        assert_eq!((shown(&clock, 5000), least(5000)), (Some(505_000), Some(504_998)));
    }

    #[test]
    fn before_an_answer_the_newest_record_says_what_has_passed() {
        let clock = ServerClock::default();
        let least = |now| clock.at_least(at(now)).map(Timestamp::as_millis);
        assert_eq!(least(1000), None, "no clock of this host stands in for it");
        clock.passed(at(1000), Timestamp::from_millis(500_000));
        // It had waited for long, and tells less than the one before.
        clock.passed(at(2000), Timestamp::from_millis(400_000));
        assert_eq!((shown(&clock, 3000), least(3000)), (None, Some(502_000)));
        learn(&clock, 4000, 4002, 600_001);
        assert_eq!(least(5000), Some(600_998));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        let clock = ServerClock::default();
        learn(&clock, 1000, 1002, 500_001);
        learn(&clock, 2000, 2010, 90_005);
        assert_eq!(shown(&clock, 2005), Some(90_005));
    }

    #[test]
    fn the_boot_clock_goes_on() {
        let first = Moment::now();
        assert!(Moment::now() >= first);
        assert_eq!(first.since(first.after(Duration::from_secs(1))), Duration::ZERO);
    }
}
