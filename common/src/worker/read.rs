//! Reads the worker's lines: protocol, log lines, and damaged lines that were meant as protocol.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::repair::repair;
use super::{FromWorker, MAX_DEPTH, TurnRef};
use crate::question::{Question, USUAL_TIMEOUT_MS};
use crate::step::{MAX_KEY, MAX_RESULT};

/// The types that this version knows.
const TYPES: [&str; 8] =
    ["ready", "event", "ack", "chat_done", "route_done", "route_request", "error", "progress"];
/// Another one, which means less by itself.
const STEP: &str = "step";
/// Those that ask for something which is no part of an answer: damaged ones harm no turn.
const REQUESTS: [&str; 2] = ["history_request", QUESTION];
/// The type of a question to a person.
const QUESTION: &str = "question";
/// Those that end a turn.
const ENDS: [&str; 3] = ["chat_done", "route_done", "error"];

/// Those that say something of a turn.
const OF_TURNS: [&str; 4] = ["event", "chat_done", "route_done", "route_request"];

/// Some editors and libraries begin a text with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How far a damaged line is searched for what it is about, in bytes: from its start, and back from its end.
const NEAR_START: usize = 64 * 1024;
const NEAR_END: usize = 4 * 1024;

/// Why a line, or a part of it, is not protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotProtocol {
    /// It is a log line.
    Log,
    /// It was meant as protocol: without it, an answer may be incomplete.
    Damaged(Damage),
}

/// A line that was meant as protocol, as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong with it.
    pub why: String,
    /// Which turn it was about.
    pub turn: TurnRef<'static>,
    /// Whether the worker has ended that turn.
    pub ends: bool,
    /// The key of the step that it was; none if it was something else. An answer lacks nothing for want of a step.
    pub step: Option<String>,
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
    error: Option<&'a RawValue>,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default, borrow)]
    event: Option<&'a RawValue>,
    /// Looked at in a `step` only: other lines may have whatever they like under these names.
    #[serde(default, borrow)]
    key: Option<&'a RawValue>,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    /// These in a `history_request` only.
    #[serde(default, borrow)]
    before: Option<&'a RawValue>,
    #[serde(default, borrow)]
    limit: Option<&'a RawValue>,
    /// These in a `question` only.
    #[serde(default, borrow)]
    text: Option<&'a RawValue>,
    #[serde(default, borrow)]
    options: Option<&'a RawValue>,
    #[serde(default, borrow)]
    default: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct TextEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    text: Option<Cow<'a, str>>,
}

/// Reads a line of the worker's stdout, without its newline: one object as a rule. What is damaged is repaired where nothing of it has to
/// be guessed: a byte order mark is skipped, invalid UTF-8 and lone surrogates become U+FFFD, `NaN` becomes `null`, and of several objects
/// each is taken.
pub fn read(line: &[u8], take: &mut dyn FnMut(Result<FromWorker<'_>, NotProtocol>)) {
    let line = without_marks(line);
    if let Ok(said) = parse(line) {
        return take(Ok(said));
    }
    if !is_meant(line) {
        // What a progress bar wrote before it is overwritten on a terminal.
        return match line.iter().rposition(|byte| *byte == b'\r') {
            Some(at) if is_meant(&line[at + 1..]) => read(&line[at + 1..], take),
            _ => match bad_request(line) {
                Some(bad) => take(Ok(bad)),
                None => take(Err(hidden(line).map_or(NotProtocol::Log, NotProtocol::Damaged))),
            },
        };
    }
    let repaired = repair(line);
    let mut rest = repaired.trim();
    while !rest.is_empty() {
        if !rest.starts_with('{') {
            let why = "it is not a whole JSON object: write each object on one line".to_owned();
            return take(Err(NotProtocol::Damaged(damage(rest.as_bytes(), why))));
        }
        let mut objects = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
        match objects.next() {
            Some(Ok(object)) => {
                let object = object.get().as_bytes();
                take(match parse(object) {
                    Ok(said) => Ok(said),
                    Err(_) if !is_meant(object) => Err(NotProtocol::Log),
                    Err(why) => Err(NotProtocol::Damaged(damage(object, why))),
                });
            }
            Some(Err(error)) => {
                let why = format!("it is not JSON: {error}");
                return take(Err(NotProtocol::Damaged(damage(rest.as_bytes(), why))));
            }
            None => return,
        }
        rest = rest[objects.byte_offset()..].trim_start();
    }
}

/// A line without what some libraries write before a text: byte order marks, and the half of a newline in UTF-16.
fn without_marks(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = line.strip_prefix(BYTE_ORDER_MARK).or_else(|| line.strip_prefix(b"\0")) {
        line = rest;
    }
    line
}

/// A line of the protocol that stands behind other text, or is in another encoding. It would be lost as a log line, and a piece of an
/// answer with it.
fn hidden(line: &[u8]) -> Option<Damage> {
    let start = &line[..line.len().min(NEAR_START)];
    if start.contains(&0) {
        let plain = start.iter().copied().filter(|byte| *byte != 0);
        let plain: Vec<u8> = plain.skip_while(|byte| matches!(byte, 0xfe | 0xff)).collect();
        let why = "it is not UTF-8, but UTF-16 as it seems";
        return is_meant(&plain).then(|| damage(&plain, why.to_owned()));
    }
    let at = start.iter().position(|byte| *byte == b'{')?;
    let (before, rest) = line.split_at(at);
    // After a blank, it is what a program logs of what it has sent.
    before.last().filter(|byte| !byte.is_ascii_whitespace())?;
    let kind = kind(rest).filter(|kind| OF_TURNS.contains(kind))?;
    // Programs log objects that have a type, too.
    let names_turn = ["messageId", "conversationId", "requestId"];
    let is_of_turn = names_turn.into_iter().any(|name| field(rest, name).next().is_some());
    let has_event = kind == "event" && rest.windows(8).any(|key| key == b"\"event\":");
    let why = "other text stands before it: write each object on its own line, and logs to stderr";
    (is_of_turn || has_event).then(|| damage(rest, why.to_owned()))
}

/// One object.
fn parse(object: &[u8]) -> Result<FromWorker<'_>, String> {
    let line: Line<'_> = serde_json::from_slice(object).map_err(|error| error.to_string())?;
    let missing = |field| format!("a line of type `{}` without `{field}`", line.kind);
    let turn = TurnRef { message_id: line.message_id, conversation_id: line.conversation_id };
    Ok(match &*line.kind {
        "ready" => FromWorker::Ready,
        "event" => {
            let raw = line.event.ok_or_else(|| missing("event"))?.get();
            match serde_json::from_str::<TextEvent<'_>>(raw) {
                Ok(TextEvent { kind, text: Some(text) }) if kind == "text" => {
                    FromWorker::Text { turn, text }
                }
                _ => match serde_json::from_str::<Value>(raw) {
                    Ok(event) if depth(&event) > MAX_DEPTH => FromWorker::TooDeep { turn },
                    Ok(event) => match event["type"].as_str() {
                        Some("text") => return Err("its `text` is not one string".to_owned()),
                        Some(_) => FromWorker::Event { turn, event },
                        None => return Err("its event has no `type`".to_owned()),
                    },
                    // At 128 levels the parser gives up; there is no other way to know.
                    Err(error) if error.to_string().contains("recursion limit") => {
                        FromWorker::TooDeep { turn }
                    }
                    Err(error) => return Err(error.to_string()),
                },
            }
        }
        "ack" => FromWorker::Ack { turn },
        "chat_done" => FromWorker::Done { turn, response: line.response },
        "route_done" => {
            let message_id = turn.message_id.or(line.request_id);
            FromWorker::Done { turn: TurnRef { message_id, ..turn }, response: line.response }
        }
        "route_request" => FromWorker::RouteRequest {
            turn,
            request_id: line.request_id.ok_or_else(|| missing("requestId"))?,
            to_id: line.to_id.ok_or_else(|| missing("toId"))?,
            message: line.message.ok_or_else(|| missing("message"))?,
            timeout_ms: line.timeout_ms,
        },
        "history_request" => FromWorker::HistoryRequest {
            request_id: line.request_id.ok_or_else(|| missing("requestId"))?,
            conversation_id: turn.conversation_id.ok_or_else(|| missing("conversationId"))?,
            before: optional(line.before, "before", "the `next` of an earlier answer")?,
            limit: optional(line.limit, "limit", "a whole number")?,
        },
        // Programs log objects of this type, too: those of the protocol have an id.
        QUESTION if line.request_id.is_some() || turn.message_id.is_some() => {
            let question = Question {
                request_id: line.request_id.ok_or_else(|| missing("requestId"))?.into(),
                text: optional(line.text, "text", "a string")?.ok_or_else(|| missing("text"))?,
                options: optional(line.options, "options", "a list of strings")?
                    .unwrap_or_default(),
                default: optional(line.default, "default", "a string")?,
                timeout_ms: line.timeout_ms.unwrap_or(USUAL_TIMEOUT_MS),
            };
            FromWorker::Question { turn, question: Box::new(question) }
        }
        "error" => {
            let said = line.error.map(|error| match serde_json::from_str(error.get()) {
                Ok(Text(text)) => text,
                Err(_) => error.get().into(),
            });
            let error = said.or(line.message).unwrap_or("the worker gave no reason".into());
            let retry_after_ms = line.retry_after_ms;
            let retryable = line.retryable || retry_after_ms.is_some();
            FromWorker::Error { turn, error, retryable, retry_after_ms }
        }
        "progress" => FromWorker::Progress { turn },
        "step" if line.key.is_some() || line.result.is_some() => step(turn, line.key, line.result),
        _ => FromWorker::Unknown { kind: line.kind },
    })
}

/// A field that may be missing or `null`.
fn optional<'a, T: Deserialize<'a>>(
    field: Option<&'a RawValue>,
    name: &str,
    expected: &str,
) -> Result<Option<T>, String> {
    let Some(field) = field else { return Ok(None) };
    serde_json::from_str(field.get()).map_err(|_| format!("`{name}` is not {expected}"))
}

/// A line that asks for something and cannot be taken.
fn bad_request(line: &[u8]) -> Option<FromWorker<'_>> {
    let kind = field(line, "type").next().filter(|kind| REQUESTS.contains(kind))?;
    let names = |name| field(line, name).next().is_some();
    let is_ours = kind != QUESTION || names("requestId") || names("messageId");
    (is_ours && line.trim_ascii_start().starts_with(b"{")).then(|| {
        let why = parse(line).err().unwrap_or_default();
        let request_id = field(line, "requestId").next().map(Cow::Borrowed);
        FromWorker::BadRequest { kind: kind.into(), request_id, why }
    })
}

/// A step's result. What is wrong with one is told to the worker, whose turn goes on.
fn step<'a>(
    turn: TurnRef<'a>,
    key: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
) -> FromWorker<'a> {
    let bad = |turn, key, why: String| FromWorker::BadStep { turn, key, why };
    let Some(key) = key else { return bad(turn, None, "a `step` without `key`".to_owned()) };
    let Ok(Text(key)) = serde_json::from_str(key.get()) else {
        return bad(turn, None, "its `key` is not a string".to_owned());
    };
    if key.is_empty() || key.len() > MAX_KEY {
        let why = format!("a `key` of {} bytes: 1 to {MAX_KEY} are accepted", key.len());
        return bad(turn, None, why);
    }
    let result = result.map_or("null", RawValue::get);
    if result.len() > MAX_RESULT {
        let why = format!(
            "a `result` of {} bytes: at most {MAX_RESULT} are accepted; store a reference to it",
            result.len()
        );
        return bad(turn, Some(key), why);
    }
    let too_deep = || format!("a `result` of more than {MAX_DEPTH} levels of nesting");
    let fault = match serde_json::from_str::<Value>(result) {
        Ok(value) => (depth(&value) > MAX_DEPTH).then(too_deep),
        // At 128 levels the parser gives up, and names no other kind of error for it.
        Err(error) if error.to_string().starts_with("recursion limit") => Some(too_deep()),
        Err(error) => Some(format!("a `result` that other programs could not read: {error}")),
    };
    if let Some(why) = fault {
        return bad(turn, Some(key), why);
    }
    FromWorker::Step { turn, key, result: result.into() }
}

/// A string that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Its levels of arrays and objects. The parser's own limit bounds the recursion.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// What a line of more than [`super::MAX_LINE`] bytes is, of which this is the beginning.
#[must_use]
pub fn too_long(begins: &[u8]) -> NotProtocol {
    if !is_meant(begins) {
        return NotProtocol::Log;
    }
    let why = format!("it is longer than {} MiB", super::MAX_LINE >> 20);
    NotProtocol::Damaged(damage(begins, why))
}

/// What a line that cannot be taken was about.
fn damage(line: &[u8], why: String) -> Damage {
    let kind = kind(line);
    let id = |name| field(line, name).next().map(|id| Cow::Owned(id.to_owned()));
    let message_id = id("messageId")
        .or_else(|| id("requestId").filter(|_| kind.is_some_and(|kind| kind == "route_done")));
    Damage {
        why,
        turn: TurnRef { message_id, conversation_id: id("conversationId") },
        ends: kind.is_some_and(|kind| ENDS.contains(&kind)),
        step: kind.filter(|kind| *kind == STEP).and(field(line, "key").next()).map(str::to_owned),
    }
}

/// Whether a line that is not valid was meant to be: an object, or a line of one that stands on several, with a type that is known.
fn is_meant(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    let begins = [&b"{"[..], b"\"type\"", b"'type'"];
    begins.iter().any(|begin| line.starts_with(begin)) && kind(line).is_some()
}

fn kind(line: &[u8]) -> Option<&str> {
    // Programs log their steps, too: one of the protocol has a key.
    let is_step = |kind: &str| kind == STEP && field(line, "key").next().is_some();
    field(line, "type").find(|kind| TYPES.contains(kind) || is_step(kind))
}

/// The values of a field, wherever it stands: `"name": "value"`, also in single quotes.
fn field<'a>(line: &'a [u8], name: &'static str) -> impl Iterator<Item = &'a str> {
    /// The longest value that is looked for.
    const LONGEST: usize = 256;
    let start = &line[..line.len().min(NEAR_START)];
    let end = &line[start.len().max(line.len().saturating_sub(NEAR_END))..];
    [start, end].into_iter().flat_map(move |part| {
        let ends = part.windows(name.len() + 2).enumerate().filter_map(move |(at, window)| {
            let (quote, rest) = window.split_first()?;
            let named = rest.strip_suffix(&[*quote])? == name.as_bytes();
            (named && matches!(quote, b'"' | b'\'')).then_some(at + window.len())
        });
        ends.filter_map(move |end| {
            let value = part[end..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
            let (quote, value) = value.split_first().filter(|(quote, _)| b"\"'".contains(quote))?;
            let length = value.iter().take(LONGEST).position(|byte| byte == quote)?;
            std::str::from_utf8(&value[..length]).ok()
        })
    })
}

#[cfg(test)]
mod tests;
