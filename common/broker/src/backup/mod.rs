//! What a backup takes from the streams, and how a restore puts it back.
//!
//! A record leaves with its subject, without the namespace and the journal's shard, with when it was stored first, and without NATS' own
//! headers. It comes back at another sequence, with the time in a header. What refers to sequences is dealt with by whoever restores:
//! the control log keeps the order of its own, INDEX is made anew, and what is known of sequences of a journal is forgotten.
//!
//! What is in no backup: INDEX and SNAPSHOTS, which follow from the rest, and the bucket of the lease, whose secrets and claims are those of
//! one life of a fleet.

mod begin;
mod copy;
mod fill;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use common::Timestamp;
use common::subject::Subjects;

pub use copy::Copying;
pub use fill::Filler;

use crate::history::commit::{ORIGIN, origins};

/// A stream that a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// CONTROL.
    Control,
    /// FILES.
    Files,
    /// A journal stream.
    Journal(u32),
    /// HISTORY.
    History,
    /// ATTEMPTS.
    Attempts,
    /// STEPS.
    Steps,
    /// QUESTIONS.
    Questions,
    /// DEAD.
    Dead,
    /// SCHEDULES.
    Schedules,
    /// LATER.
    Later,
    /// EVENTS.
    Events,
    /// LOGS.
    Logs,
}

impl Part {
    fn stream(self, subjects: &Subjects) -> String {
        match self {
            Self::Journal(shard) => subjects.journal_stream(shard),
            Self::Control
            | Self::Files
            | Self::History
            | Self::Attempts
            | Self::Steps
            | Self::Questions
            | Self::Dead
            | Self::Schedules
            | Self::Later
            | Self::Events
            | Self::Logs => subjects.stream(&self.to_string()),
        }
    }

    /// Whether a record keeps the time at which it was stored first. One of CONTROL has its author's, one of HISTORY has those of its message.
    fn keeps_time(self) -> bool {
        match self {
            Self::Control | Self::History => false,
            Self::Journal(_)
            | Self::Files
            | Self::Attempts
            | Self::Steps
            | Self::Questions
            | Self::Dead
            | Self::Schedules
            | Self::Later
            | Self::Events
            | Self::Logs => true,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("CONTROL"),
            Self::Files => f.write_str("FILES"),
            Self::Journal(shard) => write!(f, "JOURNAL_{shard}"),
            Self::History => f.write_str("HISTORY"),
            Self::Attempts => f.write_str("ATTEMPTS"),
            Self::Steps => f.write_str("STEPS"),
            Self::Questions => f.write_str("QUESTIONS"),
            Self::Dead => f.write_str("DEAD"),
            Self::Schedules => f.write_str("SCHEDULES"),
            Self::Later => f.write_str("LATER"),
            Self::Events => f.write_str("EVENTS"),
            Self::Logs => f.write_str("LOGS"),
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "CONTROL" => Self::Control,
            "FILES" => Self::Files,
            "HISTORY" => Self::History,
            "ATTEMPTS" => Self::Attempts,
            "STEPS" => Self::Steps,
            "QUESTIONS" => Self::Questions,
            "DEAD" => Self::Dead,
            "SCHEDULES" => Self::Schedules,
            "LATER" => Self::Later,
            "EVENTS" => Self::Events,
            "LOGS" => Self::Logs,
            other => {
                let shard = other.strip_prefix("JOURNAL_").and_then(|shard| shard.parse().ok());
                Self::Journal(shard.ok_or_else(|| format!("{other} is no stream"))?)
            }
        })
    }
}

/// What a stream holds at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extract {
    /// When the stream was made: another one of its name has sequences of its own.
    pub made: String,
    /// The sequence of its first record; of the next one, where it has none.
    pub first: u64,
    /// The sequence of its last record.
    pub last: u64,
    /// How many there are.
    pub records: u64,
}

/// A record as a backup has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its sequence.
    pub seq: u64,
    /// When it was stored first.
    pub at: Timestamp,
    /// Its subject, without the namespace and the shard.
    pub subject: String,
    /// Its headers, other than NATS' own.
    pub headers: Vec<(String, String)>,
    /// Its content.
    pub payload: Bytes,
}

/// The final state that a record of HISTORY was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The shard.
    pub shard: u32,
    /// Its sequence. Final states are archived in the order of their stream: all before it are archived, too.
    pub seq: u64,
    /// When the journal stream was made.
    pub made: String,
}

impl Copied {
    /// Where a record of HISTORY comes from; none of another stream's.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        let header = self.headers.iter().find(|(name, _)| name == ORIGIN);
        let origin = header.and_then(|(_, value)| origins(value).into_iter().next());
        origin.map(|(shard, seq, made)| Origin { shard, seq, made })
    }
}
