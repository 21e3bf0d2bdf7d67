//! Trace contexts: which trace a message belongs to, and the ids of its spans.
//!
//! All ids follow from the message's name, so that nobody has to remember them: a shim can name the span of a turn that somebody else will
//! export, and what is exported twice is the same span twice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::message::{Envelope, MessageKey};

/// A span as the header `traceparent` names it (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace: never 0.
    pub trace: u128,
    /// The span: never 0.
    pub span: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// Why a text is no trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a W3C traceparent, such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)]
pub struct NoTraceParent;

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(NoTraceParent)?;
            let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let is_all_hex = part.bytes().all(is_hex);
            u128::from_str_radix(part, 16).ok().filter(|_| is_all_hex).ok_or(NoTraceParent)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        // A later version may add parts, and means the same with the first four.
        let has_more = parts.next().is_some();
        if version == 0xff || (version == 0 && has_more) || trace == 0 || span == 0 {
            return Err(NoTraceParent);
        }
        let span = u64::try_from(span).map_err(|_| NoTraceParent)?;
        Ok(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, sampled } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(*sampled))
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads one that may be missing. What is none is left out: no message is refused for its trace.
pub(crate) fn if_valid<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<TraceParent>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(value.as_str().and_then(|text| text.parse().ok()))
}

/// The trace of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Its id.
    pub id: u128,
    /// The span that the message's span is a child of; none where the trace begins with the message.
    pub parent: Option<u64>,
    /// Whether it is recorded.
    pub sampled: bool,
}

/// A part of all traces, as a number from 0 to 2^63: the trace ids below it are recorded, as OpenTelemetry's samplers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share(u64);

impl Share {
    /// All.
    pub const ALL: Self = Self(1 << 63);
    /// None.
    pub const NONE: Self = Self(0);

    /// From a number from 0 to 1; what is outside is the nearest of them.
    #[must_use]
    pub fn of(part: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "within 0 and 2^63, and no more exact than its input"
        )]
        Self((part.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64)
    }

    fn has(self, trace: u128) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "the low half")]
        let low = trace as u64;
        low >> 1 < self.0
    }
}

/// The trace of a message. `share`: of those that begin with a message, these are recorded.
#[must_use]
pub fn of(envelope: &Envelope, share: Share) -> Trace {
    match envelope.traceparent {
        Some(parent) => {
            Trace { id: parent.trace, parent: Some(parent.span), sampled: parent.sampled }
        }
        None => {
            let id = trace_id(&envelope.key());
            Trace { id, parent: None, sampled: share.has(id) }
        }
    }
}

/// What a worker, and whom it asks, is told of an attempt's span. Without a `share` nothing of Mozart's is exported here: they are told
/// what the sender said.
#[must_use]
pub fn of_turn(envelope: &Envelope, attempt: u32, share: Option<Share>) -> Option<TraceParent> {
    let Some(share) = share else { return envelope.traceparent };
    let trace = of(envelope, share);
    let span = turn_span(&envelope.key(), attempt);
    Some(TraceParent { trace: trace.id, span, sampled: trace.sampled })
}

fn name(key: &MessageKey, what: &str) -> String {
    let MessageKey { agent, sender, message_id } = key;
    // No name has a slash.
    format!("{what}/{agent}/{sender}/{message_id}")
}

/// Two halves of a hash, without the bits that every UUID has.
fn hash(name: &str) -> (u64, u64) {
    let (one, other) = ["a", "b"]
        .map(|salt| {
            Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{salt}/{name}").as_bytes()).as_u64_pair()
        })
        .into();
    (one.0 ^ other.0.rotate_left(32), one.1 ^ other.1.rotate_left(32))
}

fn trace_id(key: &MessageKey) -> u128 {
    let (high, low) = hash(&name(key, "trace"));
    (u128::from(high) << 64 | u128::from(low)).max(1)
}

fn span_id(what: &str, key: &MessageKey) -> u64 {
    hash(&name(key, what)).0.max(1)
}

/// The span of a message: from when it was stored until its final state was.
#[must_use]
pub fn message_span(key: &MessageKey) -> u64 {
    span_id("message", key)
}

/// The span of the time in which it waited for its first attempt.
#[must_use]
pub fn queue_span(key: &MessageKey) -> u64 {
    span_id("queue", key)
}

/// The span of an attempt.
#[must_use]
pub fn turn_span(key: &MessageKey, attempt: u32) -> u64 {
    span_id(&format!("turn {attempt}"), key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Kind;
    use crate::{AgentName, ConversationId, MessageId, SenderName, Timestamp};

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn envelope(id: &str, traceparent: Option<&str>) -> Envelope {
        let message_id = MessageId::new(id).expect("valid");
        Envelope {
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            kind: Kind::Chat,
            conversation_id: ConversationId::from(&message_id),
            message_id,
            message: "hi".into(),
            created_at: Timestamp::from_millis(1),
            request_id: None,
            deadline: None,
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent: traceparent.map(|text| text.parse().expect("valid")),
            scheduled_for: None,
            deliver_at: None,
        }
    }

    #[test]
    fn a_context_is_read_and_written_as_w3c_says() {
        let parsed: TraceParent = GIVEN.parse().expect("valid");
        assert_eq!(parsed.to_string(), GIVEN);
        assert!(parsed.sampled);
        let later: TraceParent = format!("cc-{}-what", &GIVEN[3..]).parse().expect("valid");
        assert_eq!(later, parsed);
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(NoTraceParent), "{bad}");
        }
    }

    #[test]
    fn a_message_keeps_the_trace_that_it_came_with_and_begins_one_without() {
        let given = of(&envelope("m", Some(GIVEN)), Share::NONE);
        assert_eq!((given.parent, given.sampled), (Some(0x00f0_67aa_0ba9_02b7), true));
        let own = of(&envelope("m", None), Share::ALL);
        assert_eq!((own.parent, own.sampled), (None, true));
        assert_eq!(own, of(&envelope("m", None), Share::ALL), "the same for everybody");
        assert_ne!(own.id, of(&envelope("n", None), Share::ALL).id);
        assert!(!of(&envelope("m", None), Share::NONE).sampled);
    }

    #[test]
    fn a_turn_is_told_to_its_worker_where_it_is_exported() {
        let given = envelope("m", Some(GIVEN));
        assert_eq!(of_turn(&given, 1, None), given.traceparent);
        assert_eq!(of_turn(&envelope("m", None), 1, None), None);
        let [one, two] = [1, 2].map(|n| of_turn(&given, n, Some(Share::NONE)).expect("told"));
        assert_eq!((one.trace, one.sampled), (two.trace, true));
        assert_ne!(one.span, two.span);
        let key = given.key();
        assert_eq!(one.span, turn_span(&key, 1));
        let mut spans = vec![message_span(&key), queue_span(&key), one.span, two.span];
        spans.sort_unstable();
        spans.dedup();
        assert_eq!(spans.len(), 4);
    }

    #[test]
    fn a_share_of_the_traces_is_about_that_many() {
        let sampled = |share| {
            let of = |n: u32| of(&envelope(&format!("m{n}"), None), Share::of(share));
            (0..2000).filter(|n| of(*n).sampled).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0), sampled(7.0)), (0, 2000, 2000));
        assert!((400..600).contains(&sampled(0.25)), "{}", sampled(0.25));
    }

    #[test]
    fn a_message_with_a_damaged_context_is_read_without_it() {
        let mut json = serde_json::to_value(envelope("m", Some(GIVEN))).expect("plain");
        assert_eq!(json["traceparent"], GIVEN);
        for bad in [serde_json::json!("garbage"), serde_json::json!(7), serde_json::Value::Null] {
            json["traceparent"] = bad;
            let read: Envelope = serde_json::from_value(json.clone()).expect("readable");
            assert_eq!(read.traceparent, None);
        }
    }
}
