//! The records of the journal: the message, its one final state, and what readers derive from both.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventBody};
use crate::trace::{self, TraceParent};
use crate::{AgentName, ConversationId, ConversationTag, MessageId, SenderName, Timestamp};

/// The largest message text that `send` accepts, in bytes. The broker's `max_payload` is 1 MiB; the rest is room for the
/// envelope and for JSON's escapes, which the encoded size is checked against as well.
pub const MAX_TEXT: usize = 1 << 20;

/// The largest encoded record, in bytes: 1 MiB of the broker's `max_payload` less 4 KiB for headers.
pub const MAX_RECORD: usize = (1 << 20) - 4096;

/// Agent-to-agent chains longer than this are refused: they are loops.
pub const MAX_HOPS: u8 = 16;

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Sent by a person or a program.
    Chat,
    /// Sent by another agent, which waits for the response.
    Route,
    /// Sent by a schedule.
    Trigger,
}

/// The message that made an agent send this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// Whose message it was.
    pub agent: AgentName,
    /// Its sender.
    pub sender: SenderName,
    /// Its id.
    pub message_id: MessageId,
}

/// A message as the journal stores it: subject `journal.<agent>.<sender>.<message>.<conversation>.request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// The id; with agent and sender it names the message.
    pub message_id: MessageId,
    /// Who is to answer.
    pub agent: AgentName,
    /// Who sent it.
    pub sender: SenderName,
    /// What kind of message it is.
    pub kind: Kind,
    /// The ordering key; the message's own id when the sender gave none.
    pub conversation_id: ConversationId,
    /// The text.
    pub message: String,
    /// When the sender made it, by the sender's clock.
    pub created_at: Timestamp,
    /// The caller's own id of a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// After this time nobody waits for the answer: a message that has not started ends as `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// How many agents handed the question on.
    #[serde(default)]
    pub hops: u8,
    /// The message that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Every message that waits for this one, the first question first, `cause` last: how a callee sees that an answer
    /// would have to wait for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<Cause>,
    /// The dead message that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<MessageId>,
    /// The span of whoever sent it: the message's own spans are its children. A retry with the same id may have another.
    #[serde(
        default,
        deserialize_with = "trace::if_valid",
        skip_serializing_if = "Option::is_none"
    )]
    pub traceparent: Option<TraceParent>,
    /// The nominal time of the occurrence that a schedule sent it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
    /// Not to be delivered before this time, by the broker's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
}

impl Envelope {
    /// Whether both are the same message, so that a retry with the same id is harmless. Times are ignored, since a retry is later.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.agent == other.agent
            && self.sender == other.sender
            && self.message_id == other.message_id
            && self.kind == other.kind
            && self.conversation_id == other.conversation_id
            && self.message == other.message
            && self.request_id == other.request_id
    }

    /// Its conversation in a subject.
    #[must_use]
    pub fn tag(&self) -> ConversationTag {
        ConversationTag::of(&self.conversation_id, &self.message_id)
    }

    /// The message's name.
    #[must_use]
    pub fn key(&self) -> MessageKey {
        MessageKey {
            agent: self.agent.clone(),
            sender: self.sender.clone(),
            message_id: self.message_id.clone(),
        }
    }
}

/// What names a message in the journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageKey {
    /// Who is to answer.
    pub agent: AgentName,
    /// Who sent it.
    pub sender: SenderName,
    /// The id.
    pub message_id: MessageId,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The worker answered.
    Completed,
    /// The attempts are used up, or the worker said that it cannot.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// Its deadline passed before an answer.
    Expired,
}

/// The one final state of a message: subject `journal.<agent>.<sender>.<message>.<conversation>.final`, stored once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Final {
    /// How it ended.
    pub status: Outcome,
    /// The whole answer, when completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// Why, when it is anything but completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many attempts were made, this one included.
    pub attempts: u32,
    /// The incarnation that answered; none when a person or the supervisor ended the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// When, by the author's clock.
    pub at: Timestamp,
    /// The last events of the turn, when they had not been published yet: a short answer costs no event of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<Event>,
}

impl Final {
    /// Whether both end a message alike. How the answer was streamed is left out: that is not kept forever.
    #[must_use]
    pub fn same_end(&self, other: &Self) -> bool {
        let without = |final_: &Self| Self { tail: Vec::new(), ..final_.clone() };
        without(self) == without(other)
    }
}

/// The status of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// On disk, not yet with a worker.
    Pending,
    /// A worker has it.
    Delivered,
    /// The worker has confirmed it.
    Acknowledged,
    /// Answered.
    Completed,
    /// Given up.
    Failed,
    /// Cancelled.
    Cancelled,
    /// Too late.
    Expired,
}

impl Status {
    /// Whether nothing can change it any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Delivered | Self::Acknowledged => false,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Expired => true,
        }
    }

    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Acknowledged => "acknowledged",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::Failed => Self::Failed,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Expired => Self::Expired,
        }
    }
}

/// A message that was given up: subject `dead.<agent>.<sender>.<message>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The message.
    pub envelope: Envelope,
    /// Why it was given up.
    pub reason: String,
    /// What every attempt ended with, oldest first.
    pub attempts: Vec<AttemptEnd>,
    /// The worker's last log lines.
    #[serde(default)]
    pub log: Vec<String>,
    /// When.
    pub at: Timestamp,
    /// The message that repeats it, once somebody redrove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven_as: Option<MessageId>,
    /// Whether the message did not fit here, and only its beginning is: all of it is in the journal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

impl DeadLetter {
    /// A letter from a message's final state and its history, as (incarnation, event) pairs in any order.
    #[must_use]
    pub fn new(
        envelope: Envelope,
        final_: &Final,
        history: impl IntoIterator<Item = (u64, Event)>,
        log: Vec<String>,
    ) -> Self {
        let reason = final_.reason.clone().unwrap_or_default();
        let attempts = every_attempt(final_, attempt_ends(final_, history));
        Self { envelope, reason, attempts, log, at: final_.at, redriven_as: None, cut: false }
    }
}

/// The most attempts that are listed although nothing of them is on record.
const MOST: u32 = 100;

/// Adds the attempts whose end is not on record: the broker did not take it, or a power cut took it.
fn every_attempt(final_: &Final, mut ends: Vec<AttemptEnd>) -> Vec<AttemptEnd> {
    let known: BTreeSet<u32> = ends.iter().map(|end| end.attempt).collect();
    // The last ones tell most, and a number may be damaged.
    let from = final_.attempts.saturating_sub(MOST);
    let missing = (from + 1..=final_.attempts).filter(|attempt| !known.contains(attempt));
    ends.extend(missing.map(|attempt| AttemptEnd {
        attempt,
        incarnation: final_.incarnation.filter(|_| attempt == final_.attempts).unwrap_or(0),
        error: "how it ended was not recorded".to_owned(),
    }));
    ends.sort_by_key(|end| end.attempt);
    ends
}

/// How a message's attempts ended that brought no answer, from its final state and its history.
pub fn attempt_ends(
    final_: &Final,
    history: impl IntoIterator<Item = (u64, Event)>,
) -> Vec<AttemptEnd> {
    let tail = final_.tail.iter().map(|event| (final_.incarnation.unwrap_or(0), event.clone()));
    let mut attempts = Vec::new();
    for (incarnation, event) in history.into_iter().chain(tail) {
        if let EventBody::Error { error } = event.body {
            let attempt = crate::event::attempt_of(event.seq);
            attempts.push(AttemptEnd { attempt, incarnation, error });
        }
    }
    attempts.sort_by_key(|end| (end.attempt, end.incarnation));
    attempts.dedup_by_key(|end| end.attempt);
    attempts
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AttemptEnd {
    /// Which attempt.
    pub attempt: u32,
    /// In which incarnation; 0 where that is not on record.
    pub incarnation: u64,
    /// What happened: `exit code 1`, `turn timed out after 10m`, the worker's own error.
    pub error: String,
}
