//! What callers of the Synadia Agent Protocol 0.3 send and expect. Pure.

use bytes::Bytes;
use common::api::{AgentRow, ApiError};
use common::subject::{SAP_KIND, SAP_SERVICE, Subjects};
use common::{MessageId, Timestamp, failure};
use serde_json::{Value, json};

/// The version of the protocol.
const VERSION: &str = "0.3";
/// The longest prompt.
const PAYLOAD: &str = "1MB";
/// Seconds between heartbeats.
pub(super) const INTERVAL: u64 = 30;

/// What a caller asks of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) text: String,
    /// The conversation; none: one of its own.
    pub(super) conversation: Option<String>,
}

/// Why a request is refused, by the codes of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) why: String,
    /// In how many seconds it is worth another try.
    retry: Option<u64>,
}

impl Refusal {
    pub(super) fn new(code: u16, why: impl Into<String>) -> Self {
        Self { code, why: why.into(), retry: None }
    }

    /// What is worth another try.
    pub(super) fn later(why: impl Into<String>) -> Self {
        Self { retry: Some(5), ..Self::new(429, why) }
    }

    /// Of a prompt whose message is stored, and goes on.
    pub(super) fn stored(mut self, message: &MessageId) -> Self {
        self.why = format!("{}; message {message} is stored, and goes on", self.why);
        self
    }

    pub(super) fn body(&self) -> Bytes {
        let mut body = json!({ "error": self.code.to_string(), "message": self.why });
        if let Some(retry) = self.retry {
            body["retry_after_s"] = retry.into();
        }
        body.to_string().into()
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let why = crate::a2a::sentence(&error);
        match error.code {
            failure::USAGE => Self::new(400, why),
            failure::NOT_FOUND => Self::new(404, why),
            failure::CONFLICT => Self::new(409, why),
            failure::DENIED => Self::new(403, why),
            failure::LIMIT => Self::later(why),
            _ => Self::new(500, why),
        }
    }
}

/// Reads a prompt: JSON where it begins like an object, else a text.
///
/// # Errors
/// 400 when it is neither, or empty.
pub(super) fn prompt(payload: &[u8]) -> Result<Prompt, Refusal> {
    let bad = |why: &str| Refusal::new(400, why);
    let text = std::str::from_utf8(payload).map_err(|_| bad("the prompt is not UTF-8"))?;
    if !text.trim_start().starts_with('{') {
        let is_empty = text.trim().is_empty();
        let prompt = Prompt { text: text.to_owned(), conversation: None };
        return if is_empty { Err(bad("the prompt is empty")) } else { Ok(prompt) };
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|error| bad(&format!("the prompt is no JSON: {error}")))?;
    let text = value["prompt"].as_str().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| bad("prompt: expected a text"))?;
    if value["attachments"].as_array().is_some_and(|all| !all.is_empty()) {
        return Err(bad("attachments: agents take text only"));
    }
    let conversation = match &value["conversation"] {
        Value::Null => None,
        Value::String(name) => Some(name.clone()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err(bad("conversation: expected a text"));
        }
    };
    Ok(Prompt { text: text.to_owned(), conversation })
}

/// That the prompt is on disk, or that it is still being worked on.
pub(super) fn ack() -> Bytes {
    json!({ "type": "status", "data": "ack" }).to_string().into()
}

/// A piece of the answer.
pub(super) fn response(text: &str) -> Bytes {
    json!({ "type": "response", "data": text }).to_string().into()
}

/// What both kinds of discovery say of an agent.
fn about(subjects: &Subjects, row: &AgentRow) -> Value {
    json!({
        "id": subjects.sap_instance(&row.agent),
        "name": SAP_SERVICE,
        "version": env!("CARGO_PKG_VERSION"),
        "metadata": {
            "agent": SAP_KIND, "owner": subjects.namespace(), "session": row.agent,
            "protocol_version": VERSION,
        },
    })
}

/// That an agent is there.
pub(super) fn pong(subjects: &Subjects, row: &AgentRow) -> Bytes {
    let mut pong = about(subjects, row);
    pong["type"] = "io.nats.micro.v1.ping_response".into();
    pong.to_string().into()
}

/// The prompt's endpoint.
fn endpoint(subjects: &Subjects, row: &AgentRow) -> Value {
    json!({
        "name": "prompt", "subject": subjects.sap_prompt(&row.agent), "queue_group": SAP_SERVICE,
        "metadata": { "max_payload": PAYLOAD, "attachments_ok": "false", "mozart_durable": "1" },
    })
}

/// What an agent is.
pub(super) fn info(subjects: &Subjects, row: &AgentRow) -> Bytes {
    let mut info = about(subjects, row);
    info["type"] = "io.nats.micro.v1.info_response".into();
    info["description"] = format!("{} of the fleet {}", row.agent, subjects.namespace()).into();
    info["endpoints"] = json!([
        endpoint(subjects, row),
        {
            "name": "status", "subject": subjects.sap_status(&row.agent),
            "queue_group": SAP_SERVICE, "metadata": null,
        },
    ]);
    info.to_string().into()
}

/// How an agent is: its heartbeat, and the answer to whoever asks.
pub(super) fn beat(subjects: &Subjects, row: &AgentRow, now: Timestamp) -> Bytes {
    json!({
        "agent": SAP_KIND, "owner": subjects.namespace(), "session": row.agent,
        "instance_id": subjects.sap_instance(&row.agent), "ts": now, "interval_s": INTERVAL,
        "protocol_version": VERSION,
        "mozart": {
            "state": row.state, "reason": row.reason, "generation": row.generation,
            "incarnation": row.incarnation, "restarts": row.restart_count,
        },
    })
    .to_string()
    .into()
}

/// A text in pieces of so many bytes at most, between letters.
pub(super) fn pieces(text: &str, most: usize) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while rest.len() > most {
        let at = (1..=most).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (piece, more) = rest.split_at(at);
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_a_text_or_an_object() {
        let read = |payload: &[u8]| prompt(payload).map(|it| (it.text, it.conversation));
        let plain = |text: &str| Ok((text.to_owned(), None));
        assert_eq!(read(b" hi {"), plain(" hi {"));
        assert_eq!(read(br#" {"prompt":"hi","more":1,"attachments":[]}"#), plain("hi"));
        let talk = Ok(("hi".to_owned(), Some("c".to_owned())));
        assert_eq!(read(br#"{"prompt":"hi","conversation":"c"}"#), talk);
        for bad in [
            &b""[..],
            b"  ",
            b"\xff",
            b"{",
            br#"{"prompt":""}"#,
            br#"{"prompt":3}"#,
            br#"{"prompt":"x","conversation":3}"#,
            br#"{"prompt":"x","attachments":[{"filename":"a","content":"YQ=="}]}"#,
        ] {
            assert_eq!(prompt(bad).map_err(|refusal| refusal.code), Err(400), "{bad:?}");
        }
    }

    #[test]
    fn a_long_text_comes_in_pieces_of_whole_letters() {
        assert_eq!(pieces("aäb", 2), ["a", "ä", "b"]);
        assert_eq!(pieces("abcd", 2), ["ab", "cd"]);
        assert_eq!(pieces("", 2), [""]);
        assert_eq!(pieces("ää", 10), ["ää"]);
    }
}
