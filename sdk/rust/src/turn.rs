//! A message that is being answered.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Answer;
use crate::error::Error;
use crate::line::Begun;
use crate::link::{Link, Reply};

/// The longest name of a request or a step, in bytes.
const LONGEST: usize = 256;
/// What the ids of steps begin with,
pub(crate) const STEP: &str = "step ";
/// and those of questions to people.
pub(crate) const QUESTION: &str = "question ";

/// The soul of the agent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// `MODEL`.
    pub model: String,
    /// `SOUL`.
    pub identity: String,
    /// The rest: `ifThen`, `schedule`, `skills`, `sanctums`.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// A finished message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// The message.
    pub message_id: String,
    /// Who sent it.
    #[serde(rename = "fromId")]
    pub sender: String,
    /// `chat`, `route` or `trigger`.
    pub kind: String,
    /// The text.
    pub message: String,
    /// The answer, when completed.
    pub response: Option<String>,
    /// `completed`, `failed`, `cancelled` or `expired`.
    pub status: String,
    /// Why, when it is not completed.
    pub reason: Option<String>,
    /// When it was stored: RFC 3339, UTC.
    pub at: String,
}

/// A page of what was said in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The newest first.
    pub turns: Vec<Past>,
    /// The place of the page before; none if this is the first one.
    pub next: Option<String>,
}

/// How another agent is asked.
#[derive(Debug, Clone, Default)]
pub struct Asking<'a> {
    /// How long the answer is worth waiting for; else as long as the turn lasts.
    pub timeout: Option<Duration>,
    /// The same in every attempt; else the nth question of a turn is the nth one of every attempt.
    pub key: Option<&'a str>,
}

/// How a person is asked.
#[derive(Debug, Clone, Default)]
pub struct Questioning<'a> {
    /// What can be answered; nothing for any text.
    pub options: &'a [&'a str],
    /// How long the answer is waited for.
    pub timeout: Option<Duration>,
    /// The answer if there is none in time; without it, there is an error then.
    pub default: Option<&'a str>,
    /// As of [`Asking`].
    pub key: Option<&'a str>,
}

/// What a person has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The text.
    pub text: String,
    /// Whether nobody did, and it is the default.
    pub is_default: bool,
}

/// A message that is being answered. Once it is cancelled, whatever is called here is an error.
pub struct Turn {
    /// The message.
    pub message_id: String,
    /// Its conversation; `None` for a question from another agent.
    pub conversation_id: Option<String>,
    /// Who sent it.
    pub sender: String,
    /// The text.
    pub text: String,
    /// Whether another agent asks.
    pub is_route: bool,
    /// How many turns the conversation had before this one; `None` if that is not known.
    pub number: Option<u64>,
    /// The time that a message from a schedule is for: RFC 3339, UTC.
    pub scheduled_for: Option<String>,
    /// The span that the worker's own are children of.
    pub traceparent: Option<String>,
    /// The soul.
    pub agent: Arc<Agent>,
    /// Which start of the agent this is.
    pub incarnation: u64,
    link: Arc<Link>,
    said: Mutex<String>,
    asked: AtomicU64,
    steps: Mutex<BTreeMap<String, Value>>,
    /// A step of a key is run by one thread at a time.
    running: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
}

impl Turn {
    pub(crate) fn new(
        link: Arc<Link>,
        agent: Arc<Agent>,
        incarnation: u64,
        begun: Begun,
        is_route: bool,
    ) -> Self {
        link.open(&begun.message_id);
        let steps = begun.steps.into_iter().map(|step| (step.key, step.result)).collect();
        Self {
            message_id: begun.message_id,
            conversation_id: begun.conversation_id,
            sender: begun.from_id,
            text: begun.message,
            is_route,
            number: begun.turn,
            scheduled_for: begun.scheduled_for,
            traceparent: begun.traceparent,
            agent,
            incarnation,
            link,
            said: Mutex::default(),
            asked: AtomicU64::new(0),
            steps: Mutex::new(steps),
            running: Mutex::default(),
        }
    }

    /// Streams a piece of the answer.
    ///
    /// # Errors
    /// When the turn is cancelled.
    pub fn say(&self, text: &str) -> Result<(), Error> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        self.event(&json!({ "type": "text", "text": text }))
    }

    /// Streams something that is not text, such as a tool call: any object with a `type`.
    ///
    /// # Errors
    /// When the turn is cancelled.
    pub fn event(&self, event: &Value) -> Result<(), Error> {
        self.send(json!({ "type": "event", "event": event }))
    }

    /// Restarts the deadline of the turn.
    ///
    /// # Errors
    /// When the turn is cancelled.
    pub fn progress(&self) -> Result<(), Error> {
        self.send(json!({ "type": "progress" }))
    }

    /// Whether the turn was cancelled, or its deadline has passed: it should end soon.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.link.is_cancelled(&self.message_id)
    }

    /// Waits.
    ///
    /// # Errors
    /// As soon as the turn is cancelled.
    pub fn sleep(&self, duration: Duration) -> Result<(), Error> {
        match self.link.sleep(&self.message_id, duration) {
            true => Err(Error::cancelled()),
            false => Ok(()),
        }
    }

    /// Asks another agent, and waits for its answer. A question that was answered before a crash is not asked again.
    ///
    /// # Errors
    /// When there is no answer, or the turn is cancelled.
    pub fn ask(&self, agent: &str, text: &str, how: &Asking<'_>) -> Result<String, Error> {
        let id = self.request_id(how.key)?;
        let line = json!({
            "type": "route_request", "messageId": self.message_id, "requestId": id, "toId": agent, "message": text,
            "timeoutMs": millis(how.timeout),
        });
        match self.link.request(&self.message_id, asked(&id), &trimmed(line))? {
            Reply::Text(text) => Ok(text),
            Reply::Answered(_) | Reply::History(_) | Reply::Stored(_) => Err(of_another_kind()),
        }
    }

    /// Asks a person, and waits for the answer: `mozart questions`, `mozart answer`.
    ///
    /// # Errors
    /// When there is no answer in time and no default, or the turn is cancelled.
    pub fn question(&self, text: &str, how: &Questioning<'_>) -> Result<Answered, Error> {
        let id = self.request_id(how.key)?;
        let options = (!how.options.is_empty()).then_some(how.options);
        let line = json!({
            "type": "question", "messageId": self.message_id, "requestId": id, "text": text, "options": options,
            "timeoutMs": millis(how.timeout), "default": how.default,
        });
        match self.link.request(&self.message_id, questioned(&id), &trimmed(line))? {
            Reply::Answered(answered) => Ok(answered),
            Reply::Text(_) | Reply::History(_) | Reply::Stored(_) => Err(of_another_kind()),
        }
    }

    /// The finished messages of this conversation, the newest first: the last ones, or those before a page.
    ///
    /// # Errors
    /// When nobody answers, the soul has `MEMORY none`, the message is in no conversation, or the turn is cancelled.
    pub fn history(&self, limit: u32, before: Option<&str>) -> Result<History, Error> {
        let Some(conversation) = &self.conversation_id else {
            let why = "a question from another agent is in no conversation: name one";
            return Err(Error::new(why));
        };
        self.history_of(conversation, limit, before)
    }

    /// The finished messages of another conversation with this agent.
    ///
    /// # Errors
    /// As of [`Turn::history`].
    pub fn history_of(
        &self,
        conversation: &str,
        limit: u32,
        before: Option<&str>,
    ) -> Result<History, Error> {
        let id = format!("{}.h{}", self.message_id, self.link.number());
        let line = json!({
            "type": "history_request", "messageId": self.message_id, "requestId": id, "conversationId": conversation,
            "limit": limit, "before": before,
        });
        match self.link.request(&self.message_id, recalled(&id), &trimmed(line))? {
            Reply::History(history) => Ok(history),
            Reply::Text(_) | Reply::Answered(_) | Reply::Stored(_) => Err(of_another_kind()),
        }
    }

    /// The results of the steps that are stored, also by earlier attempts, by their keys.
    #[must_use]
    pub fn steps(&self) -> BTreeMap<String, Value> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs something once, and returns its result: in a later attempt, the result that was stored.
    ///
    /// It runs again if the worker dies before the result is stored; [`Turn::step_id`] makes that harmless where the effect takes such an id.
    ///
    /// # Errors
    /// What it fails with; when its result cannot be stored, or the turn is cancelled.
    pub fn step<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        run: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let running = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(running.entry(named(key.to_owned())?).or_default())
        };
        let _running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = self.stored(key, None) {
            return Ok(serde_json::from_value(stored)?);
        }
        if self.is_cancelled() {
            return Err(Error::cancelled());
        }
        let value = serde_json::to_value(run()?)?;
        // As the next attempt would get it, before it is too late.
        let result = serde_json::from_value(value.clone())?;
        let line =
            json!({ "type": "step", "messageId": self.message_id, "key": key, "result": value });
        match self.link.request(&self.message_id, stored(&self.message_id, key), &line)? {
            // The first one counts: a turn may run twice for a moment when its process is replaced.
            Reply::Stored(Some(first)) => {
                self.stored(key, Some(first.clone()));
                Ok(serde_json::from_value(first)?)
            }
            Reply::Stored(None) => {
                self.stored(key, Some(value));
                Ok(result)
            }
            Reply::Text(_) | Reply::Answered(_) | Reply::History(_) => Err(of_another_kind()),
        }
    }

    /// The same in every attempt, and of no other turn.
    #[must_use]
    pub fn step_id(&self, key: &str) -> String {
        format!("{}.{key}", self.message_id)
    }

    /// What is stored of a step; `result`: is stored from now on.
    fn stored(&self, key: &str, result: Option<Value>) -> Option<Value> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Some(result) => steps.insert(key.to_owned(), result),
            None => steps.get(key).cloned(),
        }
    }

    /// The same in every attempt.
    fn request_id(&self, key: Option<&str>) -> Result<String, Error> {
        let number = || (1 + self.asked.fetch_add(1, Ordering::Relaxed)).to_string();
        let key = key.map_or_else(number, str::to_owned);
        named(format!("{}.{key}", self.message_id))
    }

    fn send(&self, mut line: Value) -> Result<(), Error> {
        if self.is_cancelled() {
            return Err(Error::cancelled());
        }
        line["messageId"] = json!(self.message_id);
        self.link.send(&line);
        Ok(())
    }

    pub(crate) fn answer(self, answer: &dyn Fn(&Self) -> Answer) {
        self.link.send(&json!({ "type": "ack", "messageId": self.message_id }));
        let answered = catch_unwind(AssertUnwindSafe(|| answer(&self)));
        let answered = answered.unwrap_or_else(|panic| Err(Error::new(panicked(&*panic))));
        let answered = match self.is_cancelled() {
            true => Err(Error::cancelled()),
            false => answered,
        };
        let end = match answered {
            Ok(response) if self.is_route => {
                let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                json!({ "type": "route_done", "messageId": self.message_id, "requestId": self.message_id, "response": response.unwrap_or(said) })
            }
            Ok(response) => {
                json!({ "type": "chat_done", "messageId": self.message_id, "response": response })
            }
            Err(error) => json!({
                "type": "error", "messageId": self.message_id, "error": error.reason, "retryable": error.retry,
                "retryAfterMs": millis(error.after),
            }),
        };
        self.link.close(&self.message_id);
        self.link.send(&trimmed(end));
    }
}

// What names requests among those of all turns and kinds.

pub(crate) fn asked(request_id: &str) -> String {
    format!("route {request_id}")
}

pub(crate) fn questioned(request_id: &str) -> String {
    format!("{QUESTION}{request_id}")
}

pub(crate) fn recalled(request_id: &str) -> String {
    format!("history {request_id}")
}

pub(crate) fn stored(message_id: &str, key: &str) -> String {
    format!("{STEP}{message_id} {key}")
}

/// What a request or a step is called, if it can be.
fn named(name: String) -> Result<String, Error> {
    match name.len() {
        1..=LONGEST => Ok(name),
        _ => {
            let begin: String = name.chars().take(80).collect();
            Err(Error::new(format!("a name has 1 to {LONGEST} bytes: {begin:?}")))
        }
    }
}

fn of_another_kind() -> Error {
    Error::new("a reply of another kind")
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.map_or_else(
        || "the worker panicked".to_owned(),
        |text| format!("the worker panicked: {text}"),
    )
}

fn millis(duration: Option<Duration>) -> Option<u64> {
    duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Without the fields that have no value.
fn trimmed(mut line: Value) -> Value {
    if let Some(fields) = line.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    line
}
