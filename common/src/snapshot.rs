//! Snapshots of the folded control log: the head of one, and whether it belongs to a log.
//!
//! A snapshot is the fold's state as of one record of the log, as JSON. Whoever starts from it and folds what comes after has what
//! the whole log would have given. One of another log would give another fleet: so it names the record that it ends with.

use std::fmt;

use crate::Timestamp;

/// A record of the control log, told from every other one at its sequence: another log has another record there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logged {
    /// When the log stored it.
    pub at: Timestamp,
    /// What its author calls it; none where it has no id or cannot be parsed.
    pub id: Option<String>,
}

/// The head of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The version of the layout: of the state's JSON, of its chunks and of these fields.
    pub format: u32,
    /// The sequence of the last record that is in it.
    pub seq: u64,
    /// That record.
    pub last: Logged,
    /// The newest term as of that record.
    pub term: u64,
    /// The version of the rules by which it was folded.
    pub rules: u32,
}

/// The log that a snapshot is to belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogView {
    /// The sequence of its first record; of the next one, where it has none.
    pub first: u64,
    /// The sequence of its last record.
    pub last: u64,
    /// Its record at the snapshot's sequence, where that is still there.
    pub there: Option<Logged>,
}

/// Why a snapshot is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Chunks are missing, or are not what was written.
    Damaged(String),
    /// It has a layout that this build does not know.
    Format(u32),
    /// It was folded by rules that this build does not know.
    Rules(u32),
    /// Its content is no state, or not the one that its head names.
    Content(String),
    /// The log ends before it: the log was recreated, or restored from an older backup.
    Beyond {
        /// The log's last record.
        last: u64,
    },
    /// The log has another record at its sequence.
    OtherLog,
    /// The log begins after it, and what is between is nowhere.
    Gap {
        /// The log's first record.
        first: u64,
    },
}

/// The sequence of a snapshot, and the doubt about it; none of a good one.
pub type Judged = (u64, Option<Doubt>);

impl Doubt {
    /// Whether it can be of no use to any build: what it was taken of is another log.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Beyond { .. } | Self::OtherLog)
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(how) => write!(f, "it is damaged: {how}"),
            Self::Format(format) => {
                write!(f, "it is of format {format}, which this build does not know")
            }
            Self::Rules(rules) => {
                write!(f, "it is of rules {rules}, which this build does not fold")
            }
            Self::Content(how) => write!(f, "its content cannot be read: {how}"),
            Self::Beyond { last } => write!(
                f,
                "the control log ends with record {last}: it was recreated, or restored from an older backup"
            ),
            Self::OtherLog => write!(f, "the control log has another record at its sequence"),
            Self::Gap { first } => write!(
                f,
                "the control log begins with record {first}, and the records between are gone"
            ),
        }
    }
}

impl SnapshotHead {
    /// Why it does not belong to a log; none if it does.
    #[must_use]
    pub fn doubt(&self, log: &LogView) -> Option<Doubt> {
        if self.seq > log.last {
            return Some(Doubt::Beyond { last: log.last });
        }
        if log.there.as_ref().is_some_and(|there| *there != self.last) {
            return Some(Doubt::OtherLog);
        }
        (self.seq.saturating_add(1) < log.first).then_some(Doubt::Gap { first: log.first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(at: u64, id: Option<&str>) -> Logged {
        Logged { at: Timestamp::from_millis(at), id: id.map(str::to_owned) }
    }

    #[test]
    fn a_snapshot_belongs_to_the_log_whose_record_it_ends_with_and_to_no_other() {
        let head =
            SnapshotHead { format: 1, seq: 10, last: logged(7, Some("s.1")), term: 3, rules: 3 };
        let same = || Some(head.last.clone());
        let rows = [
            // The first record, the last one, what is at 10, and the doubt.
            (1, 10, same(), None),
            (1, 20, same(), None),
            (10, 20, same(), None),
            // Trimmed up to it, and with it.
            (11, 20, None, None),
            (11, 10, None, None),
            (12, 20, None, Some(Doubt::Gap { first: 12 })),
            (1, 9, None, Some(Doubt::Beyond { last: 9 })),
            (1, 0, None, Some(Doubt::Beyond { last: 0 })),
            (1, 20, Some(logged(8, Some("s.1"))), Some(Doubt::OtherLog)),
            (1, 20, Some(logged(7, Some("s.2"))), Some(Doubt::OtherLog)),
            (1, 20, Some(logged(7, None)), Some(Doubt::OtherLog)),
        ];
        for (first, last, there, doubt) in rows {
            let log = LogView { first, last, there };
            assert_eq!(head.doubt(&log), doubt, "{log:?}");
        }
        let endless = SnapshotHead { seq: u64::MAX, ..head };
        let log = LogView { first: 1, last: u64::MAX, there: None };
        assert_eq!(endless.doubt(&log), None);
    }
}
