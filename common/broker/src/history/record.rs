//! A finished message as HISTORY holds it: one record, or two where request and answer do not fit one. Pure.

use bytes::Bytes;
use common::event::{Event, EventBody};
use common::message::{AttemptEnd, Envelope, Final, MessageKey};
use common::step::StepMark;
use common::{AgentName, ConversationTag, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{BrokerError, Result};
use crate::journal::{Stored, encode};

/// A finished message that has left the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Archived {
    /// Whose it is.
    pub key: MessageKey,
    /// Its conversation's tag.
    pub conversation: ConversationTag,
    /// Its sequence in HISTORY.
    pub seq: u64,
    /// The request, with its place and time in the journal. None if it could not be read, or was gone.
    pub request: Option<Stored<Envelope>>,
    /// Its final state, with its place and time in the journal; without the text that was streamed.
    pub final_: Stored<Final>,
    /// What its attempts ended with, other than the one that answered.
    pub attempts: Vec<AttemptEnd>,
    /// The steps that were stored in the course of it, without their results; as many of them as fitted.
    pub steps: Vec<StepMark>,
    /// The bytes of a request that could not be read, as far as they are text.
    pub unreadable: Option<Stored<String>>,
}

/// Where and when the journal stored something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    seq: u64,
    at: Timestamp,
}

/// The JSON of a record. Where a message has two, the first has what came in, the second what became of it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<MessageKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Envelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requested: Option<Place>,
    #[serde(default, rename = "final", skip_serializing_if = "Option::is_none")]
    final_: Option<Final>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished: Option<Place>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptEnd>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepMark>,
}

impl Part {
    fn add(&mut self, other: Self) {
        self.key = self.key.take().or(other.key);
        self.request = self.request.take().or(other.request);
        self.unreadable = self.unreadable.take().or(other.unreadable);
        self.requested = self.requested.or(other.requested);
        self.final_ = self.final_.take().or(other.final_);
        self.finished = self.finished.or(other.finished);
        self.attempts.extend(other.attempts);
        self.steps.extend(other.steps);
    }
}

/// The text that was streamed is in the answer; how the turn went is kept.
fn without_text(mut final_: Final) -> Final {
    let is_kept = |event: &Event| match event.body {
        EventBody::Delivered { .. } | EventBody::Acknowledged | EventBody::Error { .. } => true,
        EventBody::Text { .. } | EventBody::Worker { .. } | EventBody::Reset { .. } => false,
    };
    final_.tail.retain(is_kept);
    final_
}

/// What is to be written of a finished message.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) key: MessageKey,
    pub(super) request: Option<Stored<Envelope>>,
    pub(super) unreadable: Option<Stored<String>>,
    pub(super) final_: Stored<Final>,
    pub(super) attempts: Vec<AttemptEnd>,
    pub(super) steps: Vec<StepMark>,
}

/// How many of the steps have so many bytes as JSON, at most.
fn fitting(steps: &[StepMark], mut room: usize) -> usize {
    let fits = |step: &&StepMark| {
        // With the comma behind it.
        let size = serde_json::to_string(step).map_or(usize::MAX, |step| step.len() + 1);
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    steps.iter().take_while(fits).count()
}

/// Its payloads: one, or two where one would be larger than `max`. Steps are listed as far as they fit beside the rest.
pub(super) fn payloads(finished: Finished, max: usize) -> Result<Vec<Bytes>> {
    let Finished { key, request, unreadable, final_, attempts, mut steps } = finished;
    let requested = request.as_ref().map(|stored| Place { seq: stored.seq, at: stored.at });
    let unread = unreadable.as_ref().map(|stored| Place { seq: stored.seq, at: stored.at });
    let mut first = Part {
        key: Some(key),
        request: request.map(|stored| stored.value),
        unreadable: unreadable.map(|stored| stored.value),
        requested: requested.or(unread),
        ..Part::default()
    };
    let mut second = Part {
        finished: Some(Place { seq: final_.seq, at: final_.at }),
        final_: Some(without_text(final_.value)),
        attempts,
        ..Part::default()
    };
    let mut parts = [encode(&first)?, encode(&second)?];
    if !steps.is_empty() {
        let [before, after] = [0, 1].map(|part: usize| parts[part].len());
        // A list has a name as well.
        let room = max.saturating_sub(before.min(after) + 16);
        steps.truncate(fitting(&steps, room));
        if before < after {
            first.steps = steps;
            parts[0] = encode(&first)?;
        } else {
            second.steps = steps;
            parts[1] = encode(&second)?;
        }
    }
    if parts.iter().map(Bytes::len).sum::<usize>() > max {
        return Ok(parts.into());
    }
    std::mem::swap(&mut first, &mut second);
    second.add(first);
    Ok(vec![encode(&second)?])
}

/// A message from its payloads.
pub(super) fn read<'a>(
    subject: &str,
    (agent, conversation): (AgentName, ConversationTag),
    seq: u64,
    payloads: impl IntoIterator<Item = &'a Bytes>,
) -> Result<Archived> {
    let malformed =
        |cause: String| BrokerError::Malformed { subject: subject.to_owned(), seq, cause };
    let mut whole = Part::default();
    for payload in payloads {
        whole.add(serde_json::from_slice(payload).map_err(|error| malformed(error.to_string()))?);
    }
    let Part { key, request, unreadable, requested, final_, finished, attempts, steps } = whole;
    let (Some(key), Some(final_), Some(finished)) = (key, final_, finished) else {
        return Err(malformed("it has no name or no final state".to_owned()));
    };
    if key.agent != agent {
        return Err(malformed(format!("it is of agent {}", key.agent)));
    }
    Ok(Archived {
        key,
        conversation,
        seq,
        request: request.zip(requested).map(|(value, Place { seq, at })| Stored { value, seq, at }),
        final_: Stored { value: final_, seq: finished.seq, at: finished.at },
        attempts,
        steps,
        unreadable: unreadable.zip(requested).map(|(bytes, Place { seq, at })| Stored {
            value: bytes,
            seq,
            at,
        }),
    })
}

#[cfg(test)]
mod tests {
    use common::message::{Kind, Outcome};
    use common::{ConversationId, MessageId, SenderName};

    use super::*;

    fn finished(text: &str) -> Finished {
        let at = Timestamp::from_millis;
        let value = Envelope {
            message_id: MessageId::new("m").expect("valid"),
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            kind: Kind::Chat,
            conversation_id: ConversationId::new("c").expect("valid"),
            message: text.to_owned(),
            created_at: at(1),
            request_id: None,
            deadline: None,
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent: None,
            scheduled_for: None,
            deliver_at: None,
        };
        let event = |seq, body| Event { seq, at: at(seq), body };
        let final_ = Final {
            status: Outcome::Completed,
            response: Some(format!("answer to {text}")),
            reason: None,
            attempts: 1,
            incarnation: Some(1),
            at: at(3),
            tail: vec![
                event(1, EventBody::Delivered { incarnation: 1 }),
                event(2, EventBody::Text { text: format!("answer to {text}") }),
            ],
        };
        Finished {
            key: value.key(),
            request: Some(Stored { value, seq: 5, at: at(2) }),
            unreadable: None,
            final_: Stored { value: final_, seq: 6, at: at(4) },
            attempts: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn names() -> (AgentName, ConversationTag) {
        let request = finished("x").request.expect("it has one").value;
        let tag = request.tag();
        (request.agent, tag)
    }

    #[test]
    fn a_message_is_read_as_it_was_but_for_the_text_that_was_streamed() {
        for (text, max, parts) in [("x".to_owned(), 1000, 1), ("x".repeat(600), 1500, 2)] {
            let written = payloads(finished(&text), max).expect("it encodes");
            assert_eq!(written.len(), parts);
            let read = read("s", names(), 9, &written).expect("what we wrote");
            let Finished { key, request, mut final_, .. } = finished(&text);
            final_.value.tail.truncate(1);
            assert_eq!((read.key, read.request, read.final_), (key, request, final_));
            assert_eq!(read.seq, 9);
        }
    }

    #[test]
    fn steps_are_listed_as_far_as_they_fit() {
        let step = |n: u64| StepMark {
            key: format!("step {n}"),
            bytes: n,
            attempt: 1,
            at: Timestamp::from_millis(n),
            result: None,
        };
        let steps: Vec<StepMark> = (0..100).map(step).collect();
        let listed = |text: &str, max: usize| {
            let written = payloads(Finished { steps: steps.clone(), ..finished(text) }, max);
            let written = written.expect("it encodes");
            assert!(written.iter().all(|part| part.len() <= max), "{max}");
            let read = read("s", names(), 9, &written).expect("what we wrote").steps;
            assert_eq!(read, steps[..read.len()]);
            (written.len(), read.len())
        };
        assert_eq!(listed("x", 100_000), (1, 100));
        let (parts, some) = listed("x", 4_000);
        assert!(parts == 2 && (10..100).contains(&some), "{some}");
        // Both parts are nearly full.
        assert_eq!(listed(&"x".repeat(2_000), 2_500).0, 2);
    }

    #[test]
    fn half_a_message_or_another_agents_is_malformed() {
        let written = payloads(finished("x"), 10).expect("it encodes");
        assert!(read("s", names(), 9, &written[..1]).is_err());
        assert!(read("s", names(), 9, &written[1..]).is_err());
        let other = (AgentName::new("b").expect("valid"), names().1);
        assert!(read("s", other, 9, &written).is_err());
    }
}
