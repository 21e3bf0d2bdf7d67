//! What a backup says of itself: JSON, at its beginning and its end, and before each stream.

use broker::{Copied, Extract};
use common::Timestamp;
use common::snapshot::{Logged, SnapshotHead};
use serde::{Deserialize, Serialize};

/// The format of the file. Another one is refused.
pub(super) const FORMAT: u32 = 1;

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) format: u32,
    /// The backup's name.
    pub(super) id: String,
    /// When it was taken, by the broker's clock.
    pub(super) taken: Timestamp,
    /// By which version.
    pub(super) mozart: String,
    pub(super) namespace: String,
    /// Which fleet it is of: when its control log was made.
    pub(super) fleet: String,
    /// How many journal streams it has.
    pub(super) shards: u32,
    /// Whether LOGS and EVENTS are in it.
    pub(super) with_logs: bool,
    /// The backup that it continues; none of one that is complete by itself.
    pub(super) after: Option<After>,
}

/// The backup before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct After {
    pub(super) id: String,
    /// The checksum of its file.
    pub(super) sha256: String,
}

/// What the state of the control log is of: [`SnapshotHead`] as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StateHead {
    format: u32,
    pub(super) seq: u64,
    at: Timestamp,
    id: Option<String>,
    term: u64,
    rules: u32,
}

impl StateHead {
    pub(super) fn new(head: &SnapshotHead) -> Self {
        let SnapshotHead { format, seq, last: Logged { at, id }, term, rules } = head.clone();
        Self { format, seq, at, id, term, rules }
    }

    pub(super) fn head(&self) -> SnapshotHead {
        let Self { format, seq, at, id, term, rules } = self.clone();
        SnapshotHead { format, seq, last: Logged { at, id }, term, rules }
    }
}

/// A stream, and how far it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    pub(super) stream: String,
    /// When it was made.
    pub(super) made: String,
    /// The sequence of its first record then; of the next one, where it had none.
    pub(super) first: u64,
    /// The sequence of its last record then.
    pub(super) last: u64,
    /// The sequence from which on it was copied.
    pub(super) from: u64,
    /// How many of its records are in the file.
    pub(super) records: u64,
    /// The bytes of their content.
    pub(super) bytes: u64,
}

impl Mark {
    pub(super) fn new(stream: String, extract: Extract, from: u64) -> Self {
        let Extract { made, first, last, .. } = extract;
        Self { stream, made, first, last, from, records: 0, bytes: 0 }
    }
}

/// What it all came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct End {
    pub(super) parts: Vec<Mark>,
    pub(super) agents: u64,
    /// How many requests are in it.
    pub(super) requests: u64,
    /// How many final states: of these requests, and of some in the backup before.
    pub(super) finals: u64,
    /// How many messages that had left the journal.
    pub(super) archived: u64,
}

impl End {
    pub(super) fn mark(&self, stream: &str) -> Option<&Mark> {
        self.parts.iter().find(|mark| mark.stream == stream)
    }
}

/// What is known of a record, before its content.
#[derive(Debug, Serialize, Deserialize)]
struct Place<'a> {
    #[serde(rename = "q")]
    seq: u64,
    #[serde(rename = "t")]
    at: u64,
    #[serde(rename = "s", borrow)]
    subject: std::borrow::Cow<'a, str>,
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
}

/// A record as two pieces of a frame: what is known of it, with its length before it; and its content.
///
/// # Errors
/// None that can happen.
pub(super) fn encode(record: &Copied) -> Result<Vec<u8>, String> {
    let subject = record.subject.as_str().into();
    let (seq, at, headers) = (record.seq, record.at.as_millis(), record.headers.clone());
    let place = serde_json::to_vec(&Place { seq, at, subject, headers });
    let place = place.map_err(|error| error.to_string())?;
    let length = u32::try_from(place.len()).map_err(|error| error.to_string())?;
    Ok([&length.to_le_bytes()[..], &place].concat())
}

/// A record from a frame.
///
/// # Errors
/// A human-readable message.
pub(super) fn decode(mut frame: Vec<u8>) -> Result<Copied, String> {
    let cut = || "a record is cut".to_owned();
    let (length, rest) = frame.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|error| error.to_string())?;
    let place = rest.get(..length).ok_or_else(cut)?;
    let Place { seq, at, subject, headers } =
        serde_json::from_slice(place).map_err(|error| error.to_string())?;
    let subject = subject.into_owned();
    let payload = frame.split_off(4 + length).into();
    Ok(Copied { seq, at: Timestamp::from_millis(at), subject, headers, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let headers = vec![("Mozart-Origin".to_owned(), "0:7:\u{e9} \"x\"".to_owned())];
        for (headers, payload) in [(Vec::new(), ""), (headers, "\0\u{1}content")] {
            let record = Copied {
                seq: u64::MAX,
                at: Timestamp::from_millis(7),
                subject: "journal.a.user.m.c.request".to_owned(),
                headers,
                payload: payload.as_bytes().to_vec().into(),
            };
            let frame = [&encode(&record).expect("plain")[..], &record.payload].concat();
            for cut in 0..frame.len() - payload.len() {
                decode(frame[..cut].to_vec()).expect_err("cut");
            }
            assert_eq!(decode(frame), Ok(record));
        }
    }
}
