//! What happens to a message between its request and its final state: the lines of EVENTS.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The numbers of one attempt's events: attempt `n` owns `(n-1) * ATTEMPT_STRIDE + 1 ..= n * ATTEMPT_STRIDE`, so that one number
/// orders all events of a message, over all attempts.
pub const ATTEMPT_STRIDE: u64 = 1_000_000;

/// What an attempt ended with whose shim died: recorded by the leader, for what the shim may have given to its worker.
pub const SHIM_KILLED: &str = "the shim was killed";

/// The number of the `index`-th event (from 1) of an attempt.
#[must_use]
pub fn sequence(attempt: u32, index: u64) -> u64 {
    u64::from(attempt.saturating_sub(1)) * ATTEMPT_STRIDE + index.min(ATTEMPT_STRIDE)
}

/// The attempt that an event's number belongs to.
#[must_use]
pub fn attempt_of(seq: u64) -> u32 {
    u32::try_from(seq.saturating_sub(1) / ATTEMPT_STRIDE + 1).unwrap_or(u32::MAX)
}

/// One event of a message, as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its number: rises over the message's whole life, without gaps within an attempt.
    pub seq: u64,
    /// When the shim saw it.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened in a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum EventBody {
    /// A worker was given the message.
    Delivered {
        /// To which incarnation.
        incarnation: u64,
    },
    /// The worker confirmed the message.
    Acknowledged,
    /// A piece of the answer.
    Text {
        /// The piece.
        text: String,
    },
    /// Any other event of the worker.
    Worker {
        /// The worker's event, with its own `type`.
        event: serde_json::Value,
    },
    /// The attempt ended without an answer.
    Error {
        /// Why.
        error: String,
    },
    /// What came before belongs to a broken attempt: forget it.
    Reset {
        /// The attempt that begins.
        attempt: u32,
    },
}

/// Several events of one message as the payload of one EVENTS message: one JSON object a line.
#[must_use]
pub fn encode(events: &[Event]) -> Vec<u8> {
    let mut out = Vec::with_capacity(events.len() * 96);
    for event in events {
        // A string-keyed struct of plain values always encodes.
        if serde_json::to_writer(&mut out, event).is_ok() {
            out.push(b'\n');
        }
    }
    out
}

/// Reads what [`encode`] wrote. Lines of a newer version that this one does not know are left out.
#[must_use]
pub fn decode(payload: &[u8]) -> Vec<Event> {
    payload
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}
