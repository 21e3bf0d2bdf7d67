//! The worker protocol: newline-delimited JSON on the worker's stdin and stdout.

mod read;
mod repair;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::read::{Damage, NotProtocol, read, too_long};
use crate::message::{Kind, MAX_RECORD, Outcome};
use crate::question::Question;
use crate::spec::WorkerInit;
use crate::step::{Json, Step};
use crate::{MessageId, SenderName, Timestamp, TraceParent};

/// The longest line that is read from a worker, in bytes: an answer of the largest size has room, also where every character is
/// escaped (`\u00e4` for two bytes).
pub const MAX_LINE: usize = 8 << 20;

/// The largest event that is taken from a worker, in bytes of JSON: with its number and its time it fits a record.
pub const MAX_EVENT: usize = MAX_RECORD - 4096;

/// The deepest event that is taken from a worker, in levels of arrays and objects. It is stored some levels deeper, in records
/// that `serde_json` reads to 128 levels: one that is deeper would make its message's final state unreadable.
pub const MAX_DEPTH: usize = 64;

/// A line for the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", tag = "type")]
pub enum ToWorker {
    /// The first line: who the worker is.
    Init {
        /// The soul.
        agent: WorkerInit,
        /// Which start of the agent this is.
        incarnation: u64,
    },
    /// A chat or a trigger.
    Chat {
        /// The message.
        message_id: String,
        /// Who sent it.
        from_id: String,
        /// The text.
        message: String,
        /// The ordering key.
        conversation_id: String,
        /// How many turns this conversation had before; none where that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turn: Option<u64>,
        /// Of a trigger, the nominal time that its schedule has sent it for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scheduled_for: Option<Timestamp>,
        /// The span that the worker's own are children of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<TraceParent>,
        /// What earlier attempts have stored.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        steps: Vec<Step>,
    },
    /// A question from another agent.
    Route {
        /// The message.
        message_id: String,
        /// Equals `message_id`.
        request_id: String,
        /// The agent that asks.
        from_id: String,
        /// The text.
        message: String,
        /// As of a chat.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<TraceParent>,
        /// As of a chat.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        steps: Vec<Step>,
    },
    /// The answer to the worker's own question.
    RouteResponse {
        /// The id that the worker gave its question.
        request_id: String,
        /// The answer; empty when there is an `error`.
        response: String,
        /// Why there is no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A step is on disk; or it is not, and why.
    StepStored {
        /// The message; none if the step did not say of which turn it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
        /// Its key, where it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Another one with this key was stored before, and counts.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
        /// The result of that one, if the worker cannot know it: it was stored by an earlier incarnation since this turn began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Json>,
        /// Why it is not stored.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Whether the same may work later: nobody answered in time, or there was no room.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        retryable: bool,
    },
    /// The answer to a question to a person, or why there is none.
    Answer {
        /// The message; none if the question did not say of which turn it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
        /// The id that the worker gave its question, as far as it can be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_id: Option<String>,
        /// The answer; empty when there is an `error`.
        text: String,
        /// Why there is no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Nobody has answered in time: it is the question's own default.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_default: bool,
    },
    /// What was said in a conversation, or why that is not known.
    HistoryResponse {
        /// The id that the worker gave its request.
        request_id: String,
        /// Finished messages, the newest first.
        turns: Vec<PastTurn>,
        /// What `before` is in the request for those that come before them; none if there are none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
        /// Why there is no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Whether the same may work later: nobody answered in time, or there was no room.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        retryable: bool,
    },
    /// Give up this turn.
    Cancel {
        /// The message.
        message_id: String,
    },
    /// Finish and exit.
    Shutdown {},
}

/// A line from the worker, borrowed from the line's bytes where that is possible.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker<'a> {
    /// Ready for messages.
    Ready,
    /// A piece of an answer.
    Text {
        /// Which turn it belongs to.
        turn: TurnRef<'a>,
        /// The piece.
        text: Cow<'a, str>,
    },
    /// Something to show that is not text.
    Event {
        /// Which turn it belongs to.
        turn: TurnRef<'a>,
        /// The worker's event, with its own `type`.
        event: Value,
    },
    /// An event of more than [`MAX_DEPTH`] levels, which is left out.
    TooDeep {
        /// Which turn it belongs to.
        turn: TurnRef<'a>,
    },
    /// The worker has the message.
    Ack {
        /// Which turn.
        turn: TurnRef<'a>,
    },
    /// The answer is complete: `chat_done`, or `route_done`.
    Done {
        /// Which turn.
        turn: TurnRef<'a>,
        /// The answer; without it, the turn's texts joined.
        response: Option<Cow<'a, str>>,
    },
    /// A question to another agent.
    RouteRequest {
        /// The turn that asks; needed when several are open.
        turn: TurnRef<'a>,
        /// The worker's own id of the question.
        request_id: Cow<'a, str>,
        /// The agent to ask.
        to_id: Cow<'a, str>,
        /// The text.
        message: Cow<'a, str>,
        /// How long the answer is worth waiting for, in milliseconds.
        timeout_ms: Option<u64>,
    },
    /// A question to a person.
    Question {
        /// Which turn.
        turn: TurnRef<'a>,
        /// The question, which may be beyond a limit.
        question: Box<Question>,
    },
    /// What was said in a conversation?
    HistoryRequest {
        /// The worker's own id of the request.
        request_id: Cow<'a, str>,
        /// The conversation.
        conversation_id: Cow<'a, str>,
        /// Only what comes before: the `next` of an earlier answer.
        before: Option<Cow<'a, str>>,
        /// How many messages, at most.
        limit: Option<u64>,
    },
    /// The turn failed.
    Error {
        /// Which turn.
        turn: TurnRef<'a>,
        /// Why.
        error: Cow<'a, str>,
        /// Whether another attempt may help.
        retryable: bool,
        /// When it may, in milliseconds from now.
        retry_after_ms: Option<u64>,
    },
    /// The result of a step is to be stored.
    Step {
        /// Which turn.
        turn: TurnRef<'a>,
        /// The worker's name for it.
        key: Cow<'a, str>,
        /// What came of it, as JSON.
        result: Cow<'a, str>,
    },
    /// A step that cannot be stored. Its turn is none the worse for it.
    BadStep {
        /// Which turn.
        turn: TurnRef<'a>,
        /// Its key, where it has one.
        key: Option<Cow<'a, str>>,
        /// What is wrong with it.
        why: String,
    },
    /// Still working on it: extends the turn's deadline.
    Progress {
        /// Which turn; all open ones when it says neither.
        turn: TurnRef<'a>,
    },
    /// A request for something that is no part of an answer, and cannot be taken. It harms no turn.
    BadRequest {
        /// Its type.
        kind: Cow<'a, str>,
        /// The worker's own id of the request, as far as it can be read.
        request_id: Option<Cow<'a, str>>,
        /// What is wrong with it.
        why: String,
    },
    /// A type that this version does not know: logged, not fatal.
    Unknown {
        /// The type.
        kind: Cow<'a, str>,
    },
}

/// A finished message of a conversation, as a worker is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastTurn {
    /// The message.
    pub message_id: MessageId,
    /// Who sent it.
    pub from_id: SenderName,
    /// What kind of message it was.
    pub kind: Kind,
    /// The text.
    pub message: String,
    /// The answer, when completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// How it ended.
    pub status: Outcome,
    /// Why, when it is anything but completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was stored.
    pub at: Timestamp,
}

/// How a line names its turn. `route_done` may say `requestId` alone, which then is the message's id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TurnRef<'a> {
    /// The message.
    pub message_id: Option<Cow<'a, str>>,
    /// The conversation: enough when only one of its turns is open.
    pub conversation_id: Option<Cow<'a, str>>,
}
