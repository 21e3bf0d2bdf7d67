//! What a shim counts, and tells with its reports: the numbers of its turns since it last told.
//!
//! They travel as a header of a report and not in its frame, which cannot evolve: whoever does not know them, or not all of them, reads the
//! report as before. Each is an increase, so that whoever hears one adds it, and needs to know nothing of the shim.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The upper bounds of the classes of durations, in milliseconds. From what an echo takes to what an agent with tools takes.
pub const BOUNDS_MS: [u64; 16] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000,
    600_000, 1_800_000,
];

/// How many classes there are: the last one has no bound.
pub const CLASSES: usize = BOUNDS_MS.len() + 1;

/// The longest header that is read, in bytes.
const LONGEST: usize = 8 * 1024;

/// How durations are spread over classes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many durations each class has.
    pub counts: [u64; CLASSES],
    /// All durations together, in milliseconds.
    pub sum_ms: u64,
}

/// As it is written: classes that have something, by their bound; 0 is the one without.
#[derive(Serialize, Deserialize)]
struct Written {
    classes: Vec<(u64, u64)>,
    #[serde(rename = "sumMs")]
    sum_ms: u64,
}

impl Spread {
    /// Counts one.
    pub fn add(&mut self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.counts[class_of(ms)] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |all, one| all.saturating_add(*one))
    }

    fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }
}

fn class_of(ms: u64) -> usize {
    BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(BOUNDS_MS.len())
}

impl Serialize for Spread {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bounds = BOUNDS_MS.iter().copied().chain([0]);
        let classes = bounds.zip(self.counts).filter(|(_, count)| *count > 0).collect();
        Written { classes, sum_ms: self.sum_ms }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Spread {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Written { classes, sum_ms } = Written::deserialize(from)?;
        let mut spread = Self { sum_ms, ..Self::default() };
        for (bound, count) in classes {
            // Another version may have other bounds: it is in the class that has room for it.
            let class = if bound == 0 { BOUNDS_MS.len() } else { class_of(bound) };
            spread.counts[class] = spread.counts[class].saturating_add(count);
        }
        Ok(spread)
    }
}

/// What happened at a shim since it last told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Figures {
    /// Messages that a worker was given for the first time.
    #[serde(skip_serializing_if = "is_zero")]
    pub started: u64,
    /// Deliveries of messages that had been given out before.
    #[serde(skip_serializing_if = "is_zero")]
    pub redelivered: u64,
    /// Turns that a worker began.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u64,
    /// Messages that ended as completed.
    #[serde(skip_serializing_if = "is_zero")]
    pub completed: u64,
    /// Those that ended as failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Those that somebody cancelled, as far as the shim had them.
    #[serde(skip_serializing_if = "is_zero")]
    pub cancelled: u64,
    /// Those whose deadline passed while they waited here.
    #[serde(skip_serializing_if = "is_zero")]
    pub expired: u64,
    /// Final states that somebody else had stored first.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_finals: u64,
    /// Dead letters that were stored.
    #[serde(skip_serializing_if = "is_zero")]
    pub dead_letters: u64,
    /// Questions to other agents.
    #[serde(skip_serializing_if = "is_zero")]
    pub questions: u64,
    /// Requests to the broker that were repeated.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
    /// From when the broker had stored a message until the first text of an answer.
    #[serde(skip_serializing_if = "Spread::is_empty")]
    pub first_text: Spread,
    /// From then until its final state was stored.
    #[serde(skip_serializing_if = "Spread::is_empty")]
    pub whole: Spread,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Figures {
    /// As a header; none if nothing happened.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        // A struct of plain values always encodes.
        serde_json::to_string(self).ok()
    }

    /// Reads one; none if it cannot be read. What a newer version says beside is left out.
    #[must_use]
    pub fn read(header: &str) -> Option<Self> {
        (header.len() <= LONGEST).then(|| serde_json::from_str(header).ok())?
    }
}

/// What waits at a shim now, as a second header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    /// Messages that it has taken and that have no final state.
    pub held: u64,
    /// Those that its consumer had beyond them when it last gave one out.
    pub beyond: u64,
    /// For how long the oldest of them has been open, in milliseconds.
    pub oldest_ms: u64,
}

impl Queue {
    /// As a header; none if nothing waits.
    #[must_use]
    pub fn header(self) -> Option<String> {
        let Self { held, beyond, oldest_ms } = self;
        (held > 0).then(|| format!("{held} {beyond} {oldest_ms}"))
    }

    /// Reads one; none if it cannot be read.
    #[must_use]
    pub fn read(header: &str) -> Option<Self> {
        let mut words = header.split(' ').map(|word| word.parse().ok());
        let (held, beyond, oldest_ms) = (words.next()??, words.next()??, words.next()??);
        Some(Self { held, beyond, oldest_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_short_and_read_back() {
        assert_eq!(Figures::default().header(), None);
        let mut figures = Figures { started: 2, completed: 1, ..Figures::default() };
        for ms in [1, 10, 11, 2_000_000] {
            figures.whole.add(Duration::from_millis(ms));
        }
        let header = figures.header().expect("something happened");
        assert_eq!(
            header,
            r#"{"started":2,"completed":1,"whole":{"classes":[[10,2],[25,1],[0,1]],"sumMs":2000022}}"#
        );
        assert_eq!(Figures::read(&header), Some(figures));
    }

    #[test]
    fn other_versions_are_understood_as_far_as_that_goes() {
        let other = r#"{"started":1,"new":[7],"whole":{"classes":[[40,3],[9999999,1]],"sumMs":5}}"#;
        let read = Figures::read(other).expect("readable");
        assert_eq!((read.started, read.whole.count()), (1, 4));
        assert_eq!((read.whole.counts[2], read.whole.counts[CLASSES - 1]), (3, 1));
        for bad in ["", "x", "7", r#"{"started":-1}"#, &" ".repeat(LONGEST + 1)] {
            assert_eq!(Figures::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_queue_is_three_numbers() {
        assert_eq!(Queue::default().header(), None);
        let queue = Queue { held: 3, beyond: 4, oldest_ms: 5 };
        assert_eq!(Queue::read(&queue.header().expect("it waits")), Some(queue));
        for bad in ["", "1", "1 2", "1 2 x", "-1 2 3"] {
            assert_eq!(Queue::read(bad), None, "{bad}");
        }
    }
}
