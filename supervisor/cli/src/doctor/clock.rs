//! Whether the clocks agree: times written by one host are compared with the clock of another.

use std::time::Duration;

use broker::Broker;
use common::Timestamp;

use super::{Check, Health, check};
use crate::client::now;

/// Clocks further apart than this are a warning.
const APART: Duration = Duration::from_secs(2);
/// And further than this a failure.
const FAR: Duration = Duration::from_secs(30);

/// A clock that was read over a connection: between these two times by our own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) before: Timestamp,
    pub(super) theirs: Timestamp,
    pub(super) after: Timestamp,
}

impl Reading {
    /// How far the other clock is certainly away from ours, in milliseconds: ahead if positive. What the answer took proves nothing.
    fn apart(&self) -> i64 {
        let Self { before, theirs, after } = *self;
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        millis(theirs.since(after)) - millis(before.since(theirs))
    }

    /// `whose` is `the broker's`.
    pub(super) fn check(&self, whose: &str) -> Check {
        let apart = Duration::from_millis(self.apart().unsigned_abs());
        let direction = if self.apart() > 0 { "ahead of" } else { "behind" };
        let far = format!("{whose} is {:.1} s {direction} this host's", apart.as_secs_f64());
        let try_ = "run `timedatectl` on both hosts, and let NTP set the clocks";
        match apart {
            apart if apart > FAR => check("clock", Health::Fail, far, try_),
            apart if apart > APART => check("clock", Health::Warn, far, try_),
            _ => {
                let took = self.after.since(self.before).as_millis();
                let found = format!("{whose} agrees with this host's, read in {took} ms");
                check("clock", Health::Ok, found, "")
            }
        }
    }
}

/// The broker's.
pub(super) async fn broker(broker: &Broker) -> Check {
    let before = now();
    match broker.clock().await {
        Ok(theirs) => Reading { before, theirs, after: now() }.check("the broker's"),
        Err(error) => {
            check("clock", Health::Warn, format!("the broker's cannot be read: {error}"), "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(before: u64, theirs: u64, after: u64) -> Reading {
        let [before, theirs, after] = [before, theirs, after].map(Timestamp::from_millis);
        Reading { before, theirs, after }
    }

    #[test]
    fn what_the_answer_took_is_no_difference() {
        for (before, theirs, after, apart) in [
            (100_000, 100_000, 100_000, 0),
            (100_000, 104_000, 105_000, 0),
            (100_000, 107_000, 105_000, 2_000),
            (100_000, 95_000, 105_000, -5_000),
        ] {
            assert_eq!(reading(before, theirs, after).apart(), apart);
        }
    }

    #[test]
    fn seconds_are_a_warning_and_half_a_minute_a_failure() {
        for (theirs, health) in [
            (98_000, Health::Ok),
            (102_000, Health::Ok),
            (97_999, Health::Warn),
            (130_000, Health::Warn),
            (130_001, Health::Fail),
            (0, Health::Fail),
        ] {
            assert_eq!(reading(100_000, theirs, 100_000).check("x").health, health, "{theirs}");
        }
        let found = reading(100_000, 103_500, 100_000).check("the broker's").found;
        assert_eq!(found, "the broker's is 3.5 s ahead of this host's");
    }
}
