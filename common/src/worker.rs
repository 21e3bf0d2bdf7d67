//! The worker protocol: newline-delimited JSON on the worker's stdin and stdout.

mod read;
mod repair;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::read::{Damage, NotProtocol, read, too_long};
use crate::TraceParent;
use crate::message::MAX_RECORD;
use crate::spec::WorkerInit;

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
        /// The span that the worker's own are children of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<TraceParent>,
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
    /// Still working on it: extends the turn's deadline.
    Progress {
        /// Which turn; all open ones when it says neither.
        turn: TurnRef<'a>,
    },
    /// A type that this version does not know: logged, not fatal.
    Unknown {
        /// The type.
        kind: Cow<'a, str>,
    },
}

/// How a line names its turn. `route_done` may say `requestId` alone, which then is the message's id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TurnRef<'a> {
    /// The message.
    pub message_id: Option<Cow<'a, str>>,
    /// The conversation: enough when only one of its turns is open.
    pub conversation_id: Option<Cow<'a, str>>,
}
