//! The responses of OpenAI's API: a response is a message, its id that of the message, and its events follow from what is stored. Pure.
//!
//! The number of an event says what its reader has: 0 to 4 are the events before the text, then the bytes of the text are counted, then the
//! events after it. So any process goes on after any number, however often the message was attempted, and in whichever pieces its text came.

use common::MessageId;
use common::message::{Envelope, Final, Outcome, Status};
use mozart_client::stream::Item;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::growing::{Growing, Grown};
use crate::openai::{Turn, told};

/// How the id of a response begins; then follows that of its message.
const RESPONSE: &str = "resp_";
/// The number of the event before the text.
const HEAD: u64 = 4;

/// A request for a response; what is not understood is ignored, as clients expect.
#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    pub(crate) model: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    instructions: Option<String>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    #[serde(default)]
    pub(crate) background: Option<bool>,
    #[serde(default)]
    pub(crate) previous_response_id: Option<String>,
    #[serde(default)]
    conversation: Value,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    prompt_cache_key: Option<String>,
    #[serde(default)]
    metadata: Option<Value>,
}

impl Asked {
    /// The conversation that is named as such; none if none is.
    pub(crate) fn conversation(&self) -> Option<&str> {
        self.conversation.as_str().or_else(|| self.conversation["id"].as_str())
    }

    /// The conversation that other fields name; none if they name none.
    pub(crate) fn hint(&self) -> Option<&str> {
        let metadata = self.metadata.as_ref().and_then(|all| all["conversation_id"].as_str());
        metadata.or(self.prompt_cache_key.as_deref()).or(self.user.as_deref())
    }

    /// What the agent is told: with a conversation what is new in it, else all of it.
    ///
    /// # Errors
    /// The type of an input that an agent cannot be given.
    pub(crate) fn text(&self, has_conversation: bool) -> Result<String, String> {
        let mut turns = Vec::new();
        let instructions = self.instructions.as_ref().filter(|text| !text.is_empty());
        if let Some(text) = instructions.filter(|_| self.previous_response_id.is_none()) {
            turns.push(turn("system", Value::from(text.as_str())));
        }
        match &self.input {
            Value::String(text) => turns.push(turn("user", Value::from(text.as_str()))),
            Value::Array(items) => {
                for item in items {
                    turns.extend(read(item)?);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
        }
        if turns.iter().all(|turn| turn.role == "system") {
            return Ok(String::new());
        }
        Ok(told(&turns, has_conversation))
    }
}

fn turn(role: &str, content: Value) -> Turn {
    Turn { role: role.to_owned(), content }
}

/// An item of the input; none for what the model has said to itself.
fn read(item: &Value) -> Result<Option<Turn>, String> {
    let kind = item["type"].as_str().unwrap_or("message");
    match kind {
        "message" => {
            let parts = item["content"].as_array();
            let others = parts.into_iter().flatten().filter_map(|part| part["type"].as_str());
            let texts = ["input_text", "output_text", "text", "refusal"];
            if let Some(other) = others.into_iter().find(|kind| !texts.contains(kind)) {
                return Err(other.to_owned());
            }
            Ok(Some(turn(item["role"].as_str().unwrap_or("user"), item["content"].clone())))
        }
        "function_call_output" => Ok(Some(turn("tool", item["output"].clone()))),
        _ => Ok(None),
    }
}

/// The message of a response; none if the id is none of ours.
pub(crate) fn message_of(response: &str) -> Option<MessageId> {
    MessageId::new(response.strip_prefix(RESPONSE)?).ok()
}

/// Whose response it is, and what was asked for.
#[derive(Debug, Clone)]
pub(crate) struct About {
    request: Envelope,
    background: bool,
    previous: Option<String>,
}

impl About {
    /// One that was just asked for.
    pub(crate) fn new(request: Envelope, asked: &Asked) -> Self {
        let background = asked.background == Some(true);
        Self { request, background, previous: asked.previous_response_id.clone() }
    }

    /// One that is looked up. All go on by themselves, and can be cancelled.
    pub(crate) fn stored(request: Envelope) -> Self {
        Self { request, background: true, previous: None }
    }

    fn id(&self) -> String {
        format!("{RESPONSE}{}", self.request.message_id)
    }

    fn item_id(&self) -> String {
        format!("msg_{}", self.request.message_id)
    }

    fn part(text: &str) -> Value {
        json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
    }

    fn item(&self, status: &str, content: &[Value]) -> Value {
        json!({
            "id": self.item_id(), "type": "message", "role": "assistant", "status": status, "content": content,
        })
    }

    /// The response while there is no answer yet.
    pub(crate) fn open(&self, status: Status) -> Value {
        let status = if status == Status::Pending { "queued" } else { "in_progress" };
        self.object(status, None, Value::Null)
    }

    /// The response with its answer.
    fn whole(&self, text: &str) -> Value {
        self.object("completed", Some(text), Value::Null)
    }

    /// The response without an answer.
    fn over(&self, status: Status, reason: Option<&str>) -> Value {
        let message = failure(status, reason);
        if status == Status::Cancelled {
            return self.object("cancelled", None, Value::Null);
        }
        self.object("failed", None, json!({ "code": "server_error", "message": message }))
    }

    /// The response in the end.
    pub(crate) fn ended(&self, final_: &Final) -> Value {
        match final_.status {
            Outcome::Completed => self.whole(final_.response.as_deref().unwrap_or_default()),
            Outcome::Failed | Outcome::Cancelled | Outcome::Expired => {
                self.over(final_.status.into(), final_.reason.as_deref())
            }
        }
    }

    /// What was asked.
    pub(crate) fn input(&self) -> Value {
        let id = format!("in_{}", self.request.message_id);
        let content = json!([{ "type": "input_text", "text": self.request.message }]);
        let item = json!({ "id": id, "type": "message", "role": "user", "status": "completed", "content": content });
        json!({ "object": "list", "data": [item], "first_id": id, "last_id": id, "has_more": false })
    }

    fn object(&self, status: &str, text: Option<&str>, error: Value) -> Value {
        let output: Vec<Value> =
            text.iter().map(|text| self.item("completed", &[Self::part(text)])).collect();
        json!({
            "id": self.id(), "object": "response", "status": status, "error": error, "output": output,
            "created_at": self.request.created_at.as_millis() / 1_000,
            "model": self.request.agent.as_str(), "background": self.background,
            "previous_response_id": self.previous,
            "conversation": { "id": self.request.conversation_id.as_str() },
            "incomplete_details": null, "instructions": null, "max_output_tokens": null, "metadata": {},
            "parallel_tool_calls": false, "reasoning": { "effort": null, "summary": null }, "store": true,
            "temperature": null, "text": { "format": { "type": "text" } }, "tool_choice": "none", "tools": [],
            "top_p": null, "truncation": "disabled",
            // Tokens are not counted.
            "usage": {
                "input_tokens": 0, "input_tokens_details": { "cached_tokens": 0 },
                "output_tokens": 0, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 0,
            },
        })
    }
}

/// Why there is no answer, in words.
fn failure(status: Status, reason: Option<&str>) -> String {
    let reason = reason.map(|why| format!(": {why}")).unwrap_or_default();
    format!("the message is {}{reason}", status.as_str())
}

/// An event: its type, and its data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) kind: &'static str,
    pub(crate) data: Value,
}

/// The events of a response, after the one that its reader knows.
#[derive(Debug)]
pub(crate) struct Telling {
    about: About,
    /// The number of the last event that the reader has; none: it has nothing.
    known: Option<u64>,
    text: Growing,
    is_begun: bool,
}

impl Telling {
    pub(crate) fn new(about: About, known: Option<u64>) -> Self {
        Self { about, known, text: Growing::default(), is_begun: false }
    }

    /// The events with which it begins.
    pub(crate) fn begin(&self) -> Vec<Told> {
        let queued = self.about.open(Status::Pending);
        let mut out = Vec::new();
        self.tell(0, "response.created", json!({ "response": queued }), &mut out);
        self.tell(1, "response.queued", json!({ "response": queued }), &mut out);
        out
    }

    /// The events of an item.
    pub(crate) fn item(&mut self, item: &Item) -> Vec<Told> {
        let mut out = Vec::new();
        let from = self.text.sent().len();
        match self.text.hear(item) {
            Grown::Nothing => {}
            Grown::More(text) => self.more(from, &text, &mut out),
            Grown::Whole(text) => {
                self.more(from, &text, &mut out);
                self.whole(&mut out);
            }
            Grown::Broken(why) => self.error(&why, &mut out),
            Grown::Failed(status, reason) => {
                let response = self.about.over(status, reason.as_deref());
                let number = HEAD + self.text.sent().len() as u64 + 1;
                self.tell(number, "response.failed", json!({ "response": response }), &mut out);
                self.error(&failure(status, reason.as_deref()), &mut out);
            }
        }
        out
    }

    /// The events before the text, once it begins.
    fn head(&mut self, out: &mut Vec<Told>) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        let response = self.about.open(Status::Acknowledged);
        let item = self.about.item("in_progress", &[]);
        self.tell(2, "response.in_progress", json!({ "response": response }), out);
        self.tell(3, "response.output_item.added", json!({ "output_index": 0, "item": item }), out);
        let part = self.within(json!({ "part": About::part("") }));
        self.tell(HEAD, "response.content_part.added", part, out);
    }

    /// More text, from this byte of it on.
    fn more(&mut self, from: usize, text: &str, out: &mut Vec<Told>) {
        self.head(out);
        // What of it the reader has.
        let known = self.known.and_then(|known| known.checked_sub(HEAD)).unwrap_or(0);
        let known = usize::try_from(known).unwrap_or(usize::MAX).saturating_sub(from);
        if known >= text.len() {
            return;
        }
        let Some(new) = text.get(known..) else {
            let what = format!("there is no event {}", self.known.unwrap_or_default());
            self.error(&what, out);
            return;
        };
        let number = HEAD + (from + text.len()) as u64;
        let delta = self.within(json!({ "delta": new, "logprobs": [] }));
        self.tell(number, "response.output_text.delta", delta, out);
    }

    fn whole(&mut self, out: &mut Vec<Told>) {
        self.head(out);
        let text = self.text.sent();
        let part = About::part(text);
        let item = self.about.item("completed", std::slice::from_ref(&part));
        let end = HEAD + text.len() as u64;
        let done = self.within(json!({ "text": text, "logprobs": [] }));
        self.tell(end + 1, "response.output_text.done", done, out);
        self.tell(end + 2, "response.content_part.done", self.within(json!({ "part": part })), out);
        let done = json!({ "output_index": 0, "item": item });
        self.tell(end + 3, "response.output_item.done", done, out);
        let response = self.about.whole(text);
        self.tell(end + 4, "response.completed", json!({ "response": response }), out);
        if self.known.is_some_and(|known| known > end + 4) {
            self.error(&format!("there is no event {}", self.known.unwrap_or_default()), out);
        }
    }

    /// It breaks off: the client raises it. What follows is what the reader has, once it comes back.
    fn error(&self, message: &str, out: &mut Vec<Told>) {
        let error =
            json!({ "message": message, "type": "server_error", "param": null, "code": null });
        let number = HEAD + self.text.sent().len() as u64;
        let data = json!({
            "type": "error", "sequence_number": number, "code": "server_error", "message": message,
            "param": null, "error": error,
        });
        out.push(Told { kind: "error", data });
    }

    /// The data of an event about the text.
    fn within(&self, mut data: Value) -> Value {
        data["item_id"] = self.about.item_id().into();
        data["output_index"] = 0.into();
        data["content_index"] = 0.into();
        data
    }

    /// An event, unless the reader has it.
    fn tell(&self, number: u64, kind: &'static str, mut data: Value, out: &mut Vec<Told>) {
        if self.known.is_none_or(|known| number > known) {
            data["type"] = kind.into();
            data["sequence_number"] = number.into();
            out.push(Told { kind, data });
        }
    }
}

#[cfg(test)]
#[path = "responses_tests.rs"]
mod tests;
