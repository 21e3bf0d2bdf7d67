//! What clients of OpenAI's API send and expect: an agent is a model, a message a completion. Pure.

use std::fmt::Write as _;

use mozart_client::stream::Item;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::growing::{Growing, Grown};

/// A request for a completion; what is not understood is ignored, as clients expect.
#[derive(Debug, Deserialize)]
pub(crate) struct Completion {
    pub(crate) model: String,
    pub(crate) messages: Vec<Turn>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<Value>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    prompt_cache_key: Option<String>,
    #[serde(default)]
    metadata: Option<Value>,
}

/// A message of the conversation, as the client has it.
#[derive(Debug, Deserialize)]
pub(crate) struct Turn {
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) content: Value,
}

impl Turn {
    /// Its text: a string, or the texts of its parts.
    fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let texts = parts.iter().filter_map(|part| part["text"].as_str());
                texts.collect::<Vec<_>>().join("\n")
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
        }
    }

    fn is_instruction(&self) -> bool {
        ["system", "developer"].contains(&self.role.as_str())
    }
}

impl Completion {
    /// The conversation that the body names; none if it names none.
    pub(crate) fn conversation(&self) -> Option<&str> {
        let metadata = self.metadata.as_ref().and_then(|all| all["conversation_id"].as_str());
        metadata.or(self.prompt_cache_key.as_deref()).or(self.user.as_deref())
    }

    /// The last answer that the client has; none if it has none.
    pub(crate) fn last_answer(&self) -> Option<String> {
        self.messages.iter().rfind(|turn| turn.role == "assistant").map(Turn::text)
    }

    /// Whether the client wants figures at the end of a stream.
    pub(crate) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options["include_usage"] == true)
    }

    /// What the agent is told. One that has the conversation gets what is new in it; another one all of it.
    pub(crate) fn text(&self, has_conversation: bool) -> String {
        told(&self.messages, has_conversation)
    }
}

/// What an agent is told of these. One that has the conversation gets what is new in it; another one all of it.
pub(crate) fn told(turns: &[Turn], has_conversation: bool) -> String {
    let last = turns.iter().rposition(|turn| turn.role == "assistant");
    let new = match last {
        Some(last) if has_conversation => &turns[last + 1..],
        Some(_) | None => turns,
    };
    // The client says it each time; to the agent it is said once.
    let is_told = has_conversation && last.is_some();
    let new: Vec<&Turn> = new.iter().filter(|turn| !is_told || !turn.is_instruction()).collect();
    if let [only] = new.as_slice() {
        return only.text();
    }
    if new.iter().all(|turn| turn.role == "user") {
        return new.iter().map(|turn| turn.text()).collect::<Vec<_>>().join("\n\n");
    }
    let mut text = String::new();
    for turn in new {
        let gap = if text.is_empty() { "" } else { "\n\n" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{gap}{}: {}", turn.role, turn.text());
    }
    text
}

/// An error within a stream: the client raises it.
fn error(message: &str) -> String {
    let error = json!({ "message": message, "type": "server_error", "param": null, "code": null });
    json!({ "error": error }).to_string()
}

/// Tokens are not counted.
fn usage() -> Value {
    json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 })
}

/// A completion that is answered whole.
pub(crate) fn whole(id: &str, model: &str, created: u64, text: &str) -> Value {
    json!({
        "id": id, "object": "chat.completion", "created": created, "model": model,
        "choices": [{
            "index": 0, "logprobs": null, "finish_reason": "stop",
            "message": { "role": "assistant", "content": text, "refusal": null },
        }],
        "usage": usage(),
    })
}

/// A model.
pub(crate) fn model(id: &str, created: u64) -> Value {
    json!({ "id": id, "object": "model", "created": created, "owned_by": "mozart" })
}

/// A completion that is answered piece by piece.
#[derive(Debug)]
pub(crate) struct Pieces {
    id: String,
    model: String,
    created: u64,
    usage: bool,
    text: Growing,
    is_begun: bool,
}

impl Pieces {
    pub(crate) fn new(id: String, model: String, created: u64, usage: bool) -> Self {
        Self { id, model, created, usage, text: Growing::default(), is_begun: false }
    }

    /// The data of the events for an item.
    pub(crate) fn item(&mut self, item: &Item) -> Vec<String> {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.is_begun, true) {
            out.push(self.chunk(json!({ "role": "assistant", "content": "" }), Value::Null));
        }
        match self.text.hear(item) {
            Grown::Nothing => {}
            Grown::More(text) => self.more(&text, &mut out),
            Grown::Whole(text) => {
                self.more(&text, &mut out);
                self.end(&mut out);
            }
            Grown::Broken(why) => out.push(error(&why)),
            Grown::Failed(status, reason) => {
                let reason = reason.map(|why| format!(": {why}")).unwrap_or_default();
                out.push(error(&format!("the message is {}{reason}", status.as_str())));
            }
        }
        out
    }

    fn more(&self, text: &str, out: &mut Vec<String>) {
        if !text.is_empty() {
            out.push(self.chunk(json!({ "content": text }), Value::Null));
        }
    }

    fn end(&self, out: &mut Vec<String>) {
        out.push(self.chunk(json!({}), json!("stop")));
        if self.usage {
            out.push(self.object(json!([]), usage()));
        }
        out.push("[DONE]".to_owned());
    }

    fn chunk(&self, delta: Value, finish: Value) -> String {
        let choice =
            json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
        self.object(json!([choice]), Value::Null)
    }

    fn object(&self, choices: Value, usage: Value) -> String {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": choices,
        });
        if self.usage {
            chunk["usage"] = usage;
        }
        chunk.to_string()
    }
}

#[cfg(test)]
mod tests {
    use common::message::Status;

    use super::*;

    fn completion(value: Value) -> Completion {
        serde_json::from_value(value).expect("valid")
    }

    #[test]
    fn an_agent_with_the_conversation_is_told_what_is_new() {
        let turn = |role: &str, text: &str| json!({ "role": role, "content": text });
        let messages = json!([
            turn("system", "Be brief."),
            turn("user", "one"),
            turn("assistant", "1"),
            turn("user", "two"),
        ]);
        let asked = completion(
            json!({ "model": "a", "messages": messages, "temperature": 1, "user": "u" }),
        );
        assert_eq!(asked.text(true), "two");
        assert_eq!(
            asked.text(false),
            "system: Be brief.\n\nuser: one\n\nassistant: 1\n\nuser: two"
        );
        assert_eq!(asked.conversation(), Some("u"));
        let first = json!([turn("developer", "Be brief."), { "role": "user", "content": [{ "type": "text", "text": "one" }] }]);
        let first = completion(
            json!({ "model": "a", "messages": first, "metadata": { "conversation_id": "c" } }),
        );
        assert_eq!(first.text(true), "developer: Be brief.\n\nuser: one");
        assert_eq!((first.conversation(), first.wants_usage()), (Some("c"), false));
        let alone = completion(json!({ "model": "a", "messages": [turn("user", "hi")] }));
        assert_eq!((alone.text(false).as_str(), alone.conversation()), ("hi", None));
    }

    fn text(text: &str) -> Item {
        Item::Text { text: text.to_owned(), seq: 1, attempt: 1 }
    }

    fn done(status: Status, response: Option<&str>) -> Item {
        let (response, reason) = (response.map(str::to_owned), None);
        Item::Done { status, response, reason, seq: 9, attempt: 1 }
    }

    /// What a client makes of it: the text, and whether it takes it for whole.
    fn read(items: &[Item]) -> (String, bool) {
        let mut pieces = Pieces::new("id".to_owned(), "a".to_owned(), 1, true);
        let lines: Vec<String> = items.iter().flat_map(|item| pieces.item(item)).collect();
        let whole = lines.last().is_some_and(|last| last == "[DONE]");
        let mut text = String::new();
        for line in lines.iter().filter(|line| *line != "[DONE]") {
            let chunk: Value = serde_json::from_str(line).expect("JSON");
            text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
            assert!(chunk["error"].is_null() || !whole, "{lines:?}");
        }
        (text, whole)
    }

    #[test]
    fn a_broken_answer_is_never_taken_for_a_whole_one() {
        let reset = || Item::Reset { seq: 5, attempt: 2, incarnation: None };
        let completed = |response| done(Status::Completed, Some(response));
        let whole = |items: &[Item]| read(items);
        assert_eq!(whole(&[text("a"), text("b"), completed("ab")]), ("ab".to_owned(), true));
        // The next attempt says the same: what was sent is not sent again.
        assert_eq!(
            whole(&[text("ab"), reset(), text("a"), text("bc"), completed("abc")]),
            ("abc".to_owned(), true)
        );
        assert_eq!(
            whole(&[text("ab"), reset(), text("x"), completed("x")]),
            ("ab".to_owned(), false)
        );
        assert_eq!(whole(&[text("ab"), reset(), completed("a")]), ("ab".to_owned(), false));
        assert_eq!(whole(&[text("ab"), done(Status::Failed, None)]), ("ab".to_owned(), false));
        assert_eq!(whole(&[text("ab")]), ("ab".to_owned(), false));
        assert_eq!(whole(&[completed("ab")]), ("ab".to_owned(), true), "answered whole");
    }
}
