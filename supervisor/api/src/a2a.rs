//! What clients of A2A 1.0 send and expect: an agent has a card, a task is a message, its answer the task's only artifact. Pure.

use common::message::{Envelope, Status};
use common::{AgentName, Timestamp};
use mozart_client::stream::Item;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::growing::{Next, Sent};

/// The version of the protocol that is spoken.
pub(crate) const VERSION: &str = "1.0";
/// The only artifact of a task.
const ARTIFACT: &str = "reply";
/// What every error of A2A itself says about its kind.
const DOMAIN: &str = "a2a-protocol.org";

/// A call: JSON-RPC 2.0.
#[derive(Debug, Deserialize)]
pub(crate) struct Call {
    #[serde(default)]
    jsonrpc: String,
    #[serde(default)]
    pub(crate) id: Value,
    #[serde(default)]
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) params: Value,
}

impl Call {
    /// Reads a call.
    ///
    /// # Errors
    /// When it is not JSON, or no call.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, (Value, Fault)> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            (Value::Null, Fault::new(Kind::NotJson, format!("the request is not JSON: {error}")))
        })?;
        let id = value["id"].clone();
        let is_id = id.is_null() || id.is_string() || id.is_number();
        let no_call = |why: String| Fault::new(Kind::NoCall, why);
        if !is_id {
            return Err((Value::Null, no_call("id: expected a string or a number".to_owned())));
        }
        let call: Self = serde_json::from_value(value)
            .map_err(|error| (id.clone(), no_call(format!("the request is no call: {error}"))))?;
        if call.jsonrpc != "2.0" || call.method.is_empty() {
            return Err((id, no_call("expected jsonrpc \"2.0\" and a method".to_owned())));
        }
        Ok(call)
    }

    /// Its parameters.
    ///
    /// # Errors
    /// When they are others.
    pub(crate) fn params<T: serde::de::DeserializeOwned>(&self) -> Result<T, Fault> {
        let params = if self.params.is_null() { json!({}) } else { self.params.clone() };
        serde_json::from_value(params)
            .map_err(|error| Fault::new(Kind::Params, format!("the parameters: {error}")))
    }
}

/// The kinds of errors that a call can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NotJson,
    NoCall,
    NoMethod,
    Params,
    Internal,
    NoTask,
    NotCancelable,
    NoPush,
    Unsupported,
    ContentType,
    NoExtendedCard,
    Version,
}

impl Kind {
    fn code(self) -> (i32, &'static str) {
        match self {
            Self::NotJson => (-32700, "PARSE_ERROR"),
            Self::NoCall => (-32600, "INVALID_REQUEST"),
            Self::NoMethod => (-32601, "METHOD_NOT_FOUND"),
            Self::Params => (-32602, "INVALID_PARAMS"),
            Self::Internal => (-32603, "INTERNAL_ERROR"),
            Self::NoTask => (-32001, "TASK_NOT_FOUND"),
            Self::NotCancelable => (-32002, "TASK_NOT_CANCELABLE"),
            Self::NoPush => (-32003, "PUSH_NOTIFICATION_NOT_SUPPORTED"),
            Self::Unsupported => (-32004, "UNSUPPORTED_OPERATION"),
            Self::ContentType => (-32005, "CONTENT_TYPE_NOT_SUPPORTED"),
            Self::NoExtendedCard => (-32007, "EXTENDED_AGENT_CARD_NOT_CONFIGURED"),
            Self::Version => (-32009, "VERSION_NOT_SUPPORTED"),
        }
    }
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    kind: Kind,
    message: String,
}

impl Fault {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    fn object(&self) -> Value {
        let (code, reason) = self.kind.code();
        let info = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": DOMAIN,
        });
        json!({ "code": code, "message": self.message, "data": [info] })
    }
}

impl From<common::api::ApiError> for Fault {
    fn from(error: common::api::ApiError) -> Self {
        let kind = match error.code {
            common::failure::USAGE | common::failure::CONFLICT => Kind::Params,
            // Too large; a full disk is no fault of who asks.
            common::failure::LIMIT if error.what.contains("too large") => Kind::Params,
            common::failure::NOT_FOUND => Kind::NoTask,
            _ => Kind::Internal,
        };
        Self::new(kind, sentence(&error))
    }
}

/// An error on one line.
pub(crate) fn sentence(error: &common::api::ApiError) -> String {
    let parts = [("", &error.what), ("", &error.cause), ("try ", &error.try_)];
    let said = parts.iter().filter(|(_, part)| !part.is_empty());
    said.map(|(before, part)| format!("{before}{part}")).collect::<Vec<_>>().join("; ")
}

/// The answer to a call.
pub(crate) fn answer(id: &Value, result: Result<Value, Fault>) -> Value {
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(fault) => json!({ "jsonrpc": "2.0", "id": id, "error": fault.object() }),
    }
}

/// The parameters of `SendMessage` and `SendStreamingMessage`. What is not understood is ignored, as the protocol demands.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sending {
    pub(crate) message: Message,
    #[serde(default)]
    pub(crate) configuration: Configuration,
}

/// A message of the protocol.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    #[serde(default)]
    pub(crate) message_id: String,
    #[serde(default)]
    role: Value,
    #[serde(default)]
    parts: Vec<Value>,
    #[serde(default)]
    pub(crate) context_id: String,
    #[serde(default)]
    pub(crate) task_id: String,
}

impl Message {
    /// Its text.
    ///
    /// # Errors
    /// When it has none, or more than text.
    pub(crate) fn text(&self) -> Result<String, Fault> {
        if self.role.as_str().is_some_and(|role| role == "ROLE_AGENT") {
            return Err(Fault::new(Kind::Params, "message.role: expected ROLE_USER"));
        }
        if self.message_id.is_empty() {
            return Err(Fault::new(Kind::Params, "message.messageId: expected an id"));
        }
        let mut texts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            match part["text"].as_str() {
                Some(text) => texts.push(text),
                None => return Err(Fault::new(Kind::ContentType, "agents take text parts only")),
            }
        }
        let text = texts.join("\n");
        if text.is_empty() {
            return Err(Fault::new(Kind::Params, "message.parts: expected a text"));
        }
        Ok(text)
    }
}

/// How a message is to be answered.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Configuration {
    pub(crate) return_immediately: bool,
    pub(crate) history_length: Option<i64>,
}

/// The parameters of what is about one task.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OfTask {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) history_length: Option<i64>,
}

/// The card of an agent. `base`: where it is reached, `description`: what it says of itself.
pub(crate) fn card(agent: &AgentName, base: &str, description: &str, generation: u64) -> Value {
    json!({
        "name": agent,
        "description": description,
        "version": generation.to_string(),
        "supportedInterfaces": [{
            "url": format!("{base}{}", path(agent)),
            "protocolBinding": "JSONRPC",
            "protocolVersion": VERSION,
        }],
        "capabilities": { "streaming": true, "pushNotifications": false },
        "securitySchemes": { "token": { "httpAuthSecurityScheme": { "scheme": "Bearer" } } },
        "securityRequirements": [{ "schemes": { "token": { "list": [] } } }],
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{ "id": "chat", "name": "Chat", "description": description, "tags": ["chat"] }],
    })
}

/// Where an agent is reached.
pub(crate) fn path(agent: &AgentName) -> String {
    format!("/a2a/{agent}")
}

/// The state of a task, by the status of its message.
pub(crate) fn state(status: Status) -> &'static str {
    match status {
        Status::Pending => "TASK_STATE_SUBMITTED",
        Status::Delivered | Status::Acknowledged => "TASK_STATE_WORKING",
        Status::Completed => "TASK_STATE_COMPLETED",
        Status::Failed | Status::Expired => "TASK_STATE_FAILED",
        Status::Cancelled => "TASK_STATE_CANCELED",
    }
}

/// A message as a task.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) envelope: &'a Envelope,
    pub(crate) status: Status,
    pub(crate) at: Timestamp,
    /// The answer, as far as there is one.
    pub(crate) text: &'a str,
    /// Why there is none.
    pub(crate) reason: Option<&'a str>,
    /// How many of its messages are shown: there is one.
    pub(crate) history: Option<i64>,
}

impl Task<'_> {
    pub(crate) fn object(&self) -> Value {
        let Self { envelope, status, at, text, reason, history } = self;
        let (id, context) = (&envelope.message_id, &envelope.conversation_id);
        let mut task = json!({
            "id": id,
            "contextId": context,
            "status": status_object(envelope, *status, *at, *reason),
            "metadata": { "mozart": { "agent": envelope.agent, "sender": envelope.sender } },
        });
        if !text.is_empty() || *status == Status::Completed {
            task["artifacts"] =
                json!([{ "artifactId": ARTIFACT, "name": ARTIFACT, "parts": [{ "text": text }] }]);
        }
        if history.is_none_or(|length| length > 0) {
            task["history"] = json!([{
                "messageId": id, "contextId": context, "taskId": id, "role": "ROLE_USER",
                "parts": [{ "text": envelope.message }],
            }]);
        }
        task
    }
}

fn status_object(
    envelope: &Envelope,
    status: Status,
    at: Timestamp,
    reason: Option<&str>,
) -> Value {
    let mut object = json!({ "state": state(status), "timestamp": at });
    if let Some(reason) = reason {
        let id = &envelope.message_id;
        object["message"] = json!({
            "messageId": format!("{id}.status"), "contextId": envelope.conversation_id,
            "taskId": id, "role": "ROLE_AGENT", "parts": [{ "text": reason }],
        });
    }
    object
}

/// A task as it goes on: what is told of each item, after the snapshot that the reader has got.
#[derive(Debug)]
pub(crate) struct Updates {
    envelope: Envelope,
    /// The text that the reader has.
    sent: Sent,
    /// Whether the reader knows that it is being worked on.
    is_working: bool,
    is_over: bool,
}

impl Updates {
    /// For a reader who has a snapshot with this text and status.
    pub(crate) fn after(envelope: Envelope, text: String, status: Status) -> Self {
        let is_working = status != Status::Pending;
        Self { envelope, sent: Sent::of(text), is_working, is_over: false }
    }

    /// What is told of an item.
    pub(crate) fn item(&mut self, item: &Item, now: Timestamp) -> Vec<Result<Value, Fault>> {
        let mut out = Vec::new();
        if self.is_over {
            return out;
        }
        let is_done = matches!(item, Item::Done { .. });
        if !is_done && !std::mem::replace(&mut self.is_working, true) {
            out.push(Ok(self.status(Status::Acknowledged, now, None)));
        }
        match item {
            Item::Text { text, .. } => {
                let is_first = self.sent.text().is_empty();
                match self.sent.hear(text) {
                    // An attempt that repeats what another one said adds nothing yet.
                    Next::Same => {}
                    Next::More(more) => out.push(Ok(self.tell(&more, !is_first, false))),
                    Next::Other => {
                        self.sent.replace(text);
                        out.push(Ok(self.tell(self.sent.text(), false, false)));
                    }
                }
            }
            Item::Reset { .. } => self.sent.reset(),
            Item::Event { .. } | Item::Error { .. } => {}
            Item::Done { status, response, reason, .. } => {
                self.is_over = true;
                if *status == Status::Completed {
                    out.push(Ok(self.whole(response.as_deref().unwrap_or_default())));
                }
                if status.is_final() {
                    out.push(Ok(self.status(*status, now, reason.as_deref())));
                } else {
                    let why = "the agent was stopped or removed; the task is still open";
                    out.push(Err(Fault::new(Kind::Internal, why)));
                }
            }
        }
        out
    }

    /// Tells what of the answer the reader does not have, or all of it where that is something else.
    fn whole(&mut self, answer: &str) -> Value {
        let is_first = self.sent.text().is_empty();
        match self.sent.whole(answer) {
            Next::Same => self.tell("", !is_first, true),
            Next::More(more) => self.tell(&more, !is_first, true),
            Next::Other => self.tell(answer, false, true),
        }
    }

    /// A piece of the answer, or, where it is not appended, all of it.
    fn tell(&self, text: &str, append: bool, last: bool) -> Value {
        json!({ "artifactUpdate": {
            "taskId": self.envelope.message_id, "contextId": self.envelope.conversation_id,
            "artifact": { "artifactId": ARTIFACT, "name": ARTIFACT, "parts": [{ "text": text }] },
            "append": append, "lastChunk": last,
        } })
    }

    fn status(&self, status: Status, at: Timestamp, reason: Option<&str>) -> Value {
        json!({ "statusUpdate": {
            "taskId": self.envelope.message_id, "contextId": self.envelope.conversation_id,
            "status": status_object(&self.envelope, status, at, reason),
        } })
    }
}

/// Adds items to the text of an attempt.
pub(crate) fn hear(text: &mut String, items: &[Item]) {
    for item in items {
        match item {
            Item::Text { text: more, .. } => text.push_str(more),
            Item::Reset { .. } => text.clear(),
            Item::Event { .. } | Item::Error { .. } | Item::Done { .. } => {}
        }
    }
}

#[cfg(test)]
#[path = "a2a_tests.rs"]
mod tests;
