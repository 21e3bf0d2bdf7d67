//! What is counted of messages and their ends.

use std::time::Duration;

use common::message::Outcome;

use super::{Book, Now};
use crate::clock::micros;

/// When something was stored that is so old now.
pub(super) fn stored_us(now: Now, age: Duration) -> i64 {
    let signed = |us| i64::try_from(us).unwrap_or(i64::MAX);
    signed(now.us).saturating_sub(signed(micros(age)))
}

/// The time from there to a moment.
fn since(stored_us: i64, us: u64) -> Duration {
    let passed = i64::try_from(us).unwrap_or(i64::MAX).saturating_sub(stored_us);
    Duration::from_micros(u64::try_from(passed).unwrap_or(0))
}

impl Book {
    /// A final state is stored, by this shim or by somebody else.
    pub(super) fn count_end(&mut self, now: Now, seq: u64, won: bool, status: Outcome) {
        let Some(held) = self.held.get(&seq) else { return };
        let figures = &mut self.figures;
        if !won {
            figures.lost_finals += 1;
            return;
        }
        match status {
            Outcome::Completed => figures.completed += 1,
            Outcome::Failed => figures.failed += 1,
            Outcome::Cancelled => figures.cancelled += 1,
            Outcome::Expired => figures.expired += 1,
        }
        // A worker that says all of its answer at its end has said nothing before.
        let is_answered = status == Outcome::Completed;
        if let Some(us) = held.first_text_us.or(is_answered.then_some(now.us)) {
            figures.first_text.add(since(held.stored_us, us));
        }
        if matches!(status, Outcome::Completed | Outcome::Failed) {
            figures.whole.add(since(held.stored_us, now.us));
        }
    }

    /// For how long the oldest message has been open, in milliseconds.
    pub(crate) fn oldest_ms(&self, now: Now) -> u64 {
        let oldest = self.held.values().next();
        let open = oldest.map_or(Duration::ZERO, |held| since(held.stored_us, now.us));
        u64::try_from(open.as_millis()).unwrap_or(u64::MAX)
    }
}
