//! The worker protocol: newline-delimited JSON on the worker's stdin and stdout.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::spec::WorkerInit;

/// The longest line that is read from a worker, in bytes. A longer one is cut and logged.
pub const MAX_LINE: usize = 1 << 20;

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

/// Why a line is not protocol.
#[derive(Debug, thiserror::Error)]
pub enum NotProtocol {
    /// Not a JSON object with a `type`: a log line.
    #[error("not a JSON object with a \"type\"")]
    NotJson,
    /// The type is known, but a field that it needs is missing.
    #[error("`{kind}` without `{field}`")]
    Missing {
        /// The type.
        kind: &'static str,
        /// The field.
        field: &'static str,
    },
    /// An event of more than [`MAX_DEPTH`] levels.
    #[error("an event of more than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Every field that any line may have: parsed in one pass, whatever the order.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    message_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    conversation_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    request_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    to_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    response: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default, borrow)]
    event: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct TextEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    text: Option<Cow<'a, str>>,
}

/// Parses a line of the worker's stdout, without its newline.
///
/// # Errors
/// When the line is not protocol: it is then a log line.
pub fn parse(line: &[u8]) -> Result<FromWorker<'_>, NotProtocol> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|_| NotProtocol::NotJson)?;
    let missing = |kind, field| NotProtocol::Missing { kind, field };
    let turn = TurnRef { message_id: line.message_id, conversation_id: line.conversation_id };
    Ok(match &*line.kind {
        "ready" => FromWorker::Ready,
        "event" => {
            let raw = line.event.ok_or(missing("event", "event"))?.get();
            match serde_json::from_str::<TextEvent<'_>>(raw) {
                Ok(TextEvent { kind, text: Some(text) }) if kind == "text" => {
                    FromWorker::Text { turn, text }
                }
                _ => FromWorker::Event { turn, event: shallow(raw)? },
            }
        }
        "ack" => FromWorker::Ack { turn },
        "chat_done" => FromWorker::Done { turn, response: line.response },
        "route_done" => {
            let message_id = turn.message_id.or(line.request_id);
            let response = Some(line.response.unwrap_or_default());
            FromWorker::Done { turn: TurnRef { message_id, ..turn }, response }
        }
        "route_request" => FromWorker::RouteRequest {
            turn,
            request_id: line.request_id.ok_or(missing("route_request", "requestId"))?,
            to_id: line.to_id.ok_or(missing("route_request", "toId"))?,
            message: line.message.ok_or(missing("route_request", "message"))?,
            timeout_ms: line.timeout_ms,
        },
        "error" => FromWorker::Error {
            turn,
            error: line.error.ok_or(missing("error", "error"))?,
            retryable: line.retryable,
        },
        "progress" => FromWorker::Progress { turn },
        _ => FromWorker::Unknown { kind: line.kind },
    })
}

fn shallow(raw: &str) -> Result<Value, NotProtocol> {
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
    // This fails beyond 128 levels, which bounds the recursion above.
    let event = serde_json::from_str(raw).map_err(|_| NotProtocol::NotJson)?;
    if depth(&event) > MAX_DEPTH { Err(NotProtocol::TooDeep) } else { Ok(event) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(message: &'static str) -> TurnRef<'static> {
        TurnRef { message_id: Some(message.into()), conversation_id: None }
    }

    #[test]
    fn the_seeds_lines_parse() {
        assert_eq!(parse(br#"{"type":"ready"}"#).expect("protocol"), FromWorker::Ready);
        assert_eq!(
            parse(
                br#"{"type":"event","conversationId":"c","event":{"type":"text","text":"a\nb"}}"#
            )
            .expect("protocol"),
            FromWorker::Text {
                turn: TurnRef { message_id: None, conversation_id: Some("c".into()) },
                text: "a\nb".into()
            }
        );
        assert_eq!(
            parse(br#"{"type":"ack","messageId":"m"}"#).expect("protocol"),
            FromWorker::Ack { turn: turn("m") }
        );
        assert_eq!(
            parse(br#"{"type":"chat_done","messageId":"m"}"#).expect("protocol"),
            FromWorker::Done { turn: turn("m"), response: None }
        );
        assert_eq!(
            parse(br#"{"type":"route_done","requestId":"m","response":"r"}"#).expect("protocol"),
            FromWorker::Done { turn: turn("m"), response: Some("r".into()) }
        );
    }

    #[test]
    fn other_events_are_kept_and_unknown_types_named() {
        let line = br#"{"type":"event","messageId":"m","event":{"type":"tool","name":"x"}}"#;
        let event = serde_json::json!({"type": "tool", "name": "x"});
        assert_eq!(parse(line).expect("protocol"), FromWorker::Event { turn: turn("m"), event });
        assert_eq!(
            parse(br#"{"type":"dance"}"#).expect("protocol"),
            FromWorker::Unknown { kind: "dance".into() }
        );
    }

    #[test]
    fn nonsense_is_a_log_line() {
        for line in [&b"hello"[..], b"", b"[]", b"{}", b"\xff\xfe", b"{\"type\":1}", b"null"] {
            assert!(parse(line).is_err(), "{line:?}");
        }
        let error = parse(br#"{"type":"error"}"#).expect_err("no error field");
        assert_eq!(error.to_string(), "`error` without `error`");
    }
}
