//! Input that others can send in any number is logged once, and from then on counted: a flood of bad input causes no flood of log lines.
//!
//! A tally is for one kind of thing, such as reports that cannot be read, and not for one sender of it: senders may be many, too.

use std::fmt;

/// The shortest time between two log lines, in milliseconds.
const EVERY_MS: u64 = 10_000;

/// Counts things of one kind, and tells when to log them: the first at once, then every 10 s at most.
///
/// Times are in milliseconds, by any clock that does not go back.
#[derive(Debug, Default)]
pub struct Tally {
    /// None: nothing was logged yet.
    said_at: Option<u64>,
    /// How many came since then.
    others: u64,
}

/// How many others came since the last log line. Displayed, it goes at the end of a sentence about one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Others(pub u64);

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (and 1 other since the last such line)"),
            others => write!(f, " (and {others} others since the last such line)"),
        }
    }
}

impl Tally {
    /// Nothing came yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { said_at: None, others: 0 }
    }

    /// Counts another one. If it is to be logged, how many others came since the last log line; none if it is only counted.
    #[must_use]
    pub fn count(&mut self, now_ms: u64) -> Option<Others> {
        if self.is_silent(now_ms) {
            self.others += 1;
            return None;
        }
        self.said_at = Some(now_ms);
        Some(Others(std::mem::take(&mut self.others)))
    }

    /// How many were only counted, if it is time to log that: to be called periodically, since another one may never come.
    #[must_use]
    pub fn due(&mut self, now_ms: u64) -> Option<u64> {
        if self.others == 0 || self.is_silent(now_ms) {
            return None;
        }
        self.said_at = Some(now_ms);
        Some(std::mem::take(&mut self.others))
    }

    fn is_silent(&self, now_ms: u64) -> bool {
        self.said_at.is_some_and(|said_at| now_ms.saturating_sub(said_at) < EVERY_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_spoken_of_at_once_and_the_others_are_counted() {
        let mut tally = Tally::new();
        assert_eq!(tally.count(5), Some(Others(0)));
        for ms in 5..105 {
            assert_eq!(tally.count(ms), None);
        }
        assert_eq!(tally.due(10_004), None, "too early");
        assert_eq!(tally.due(10_005), Some(100));
        assert_eq!(tally.due(30_000), None, "nothing has come since");
    }

    #[test]
    fn one_that_comes_later_speaks_for_those_before_it() {
        let mut tally = Tally::default();
        assert_eq!(tally.count(0), Some(Others(0)));
        assert_eq!(tally.count(1), None);
        assert_eq!(tally.count(9_999), None);
        assert_eq!(tally.count(10_000), Some(Others(2)));
        assert_eq!(tally.count(10_001), None);
        assert_eq!(tally.due(20_000), Some(1));
        assert_eq!(tally.count(20_001), None, "words were said just now");
        assert_eq!(tally.count(60_000), Some(Others(1)));
    }

    #[test]
    fn a_flood_makes_a_line_every_ten_seconds() {
        let mut tally = Tally::new();
        let (mut lines, mut told) = (0, 0);
        for ms in 0..60_000 {
            if let Some(Others(others)) = tally.count(ms) {
                (lines, told) = (lines + 1, told + 1 + others);
            }
            if ms % 1_000 == 0
                && let Some(others) = tally.due(ms)
            {
                (lines, told) = (lines + 1, told + others);
            }
        }
        assert_eq!(lines, 6);
        let rest = tally.due(60_000).expect("they were counted");
        assert_eq!(told + rest, 60_000, "each is told of once");
    }

    #[test]
    fn others_are_shown_where_there_are_any() {
        assert_eq!(Others(0).to_string(), "");
        assert_eq!(Others(1).to_string(), " (and 1 other since the last such line)");
        assert_eq!(Others(7).to_string(), " (and 7 others since the last such line)");
    }
}
