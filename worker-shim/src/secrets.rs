//! Keeps the values of SECRETs out of everything that a worker says: logs, events, answers.
//!
//! A worker may print its environment, and an agent may be talked into revealing it. A value is found as it is, as JSON and URLs write
//! it, and in base64, also if an answer contains it in pieces. In any other encoding it is not found.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use common::question::Question;
use common::worker::FromWorker;
use memchr::memmem::Finder;
use serde_json::Value;

/// Shorter values, in bytes, are not looked for: `1` or `true` would be found everywhere.
const SHORTEST: usize = 6;

/// The secrets that must not be published.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<(Finder<'static>, String)>);

impl Secrets {
    /// The values, by the names that stand in their place.
    pub(crate) fn new(values: &BTreeMap<String, String>) -> Self {
        let mut patterns: Vec<(String, String)> = Vec::new();
        for (name, value) in values {
            // A key of several lines is printed as lines.
            let lines = value.lines().map(|line| line.trim().to_owned());
            for form in forms(value).into_iter().chain(forms(value.trim())).chain(lines) {
                if form.len() >= SHORTEST && !patterns.iter().any(|(known, _)| *known == form) {
                    patterns.push((form, format!("[SECRET {name}]")));
                }
            }
        }
        // The longest first: one value may be the beginning of another.
        patterns.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        let finder =
            |(form, name): (String, String)| (Finder::new(form.as_bytes()).into_owned(), name);
        Self(patterns.into_iter().map(finder).collect())
    }

    /// What a worker says, with the names in place of the values. After it is decoded: there are many ways to write a string in
    /// JSON. But for texts, which are pieces: whoever joins them looks for values ([`Self::text`], [`Self::begun`]).
    pub(crate) fn hide_in<'a>(&self, line: FromWorker<'a>) -> FromWorker<'a> {
        if self.0.is_empty() {
            return line;
        }
        match line {
            FromWorker::Event { turn, mut event } => {
                self.value(&mut event);
                FromWorker::Event { turn, event }
            }
            FromWorker::Done { turn, response } => {
                FromWorker::Done { turn, response: response.map(|text| self.text(text)) }
            }
            FromWorker::RouteRequest { turn, request_id, to_id, message, timeout_ms } => {
                // It is stored with the question; its answer names it as it is stored.
                let (request_id, message) = (self.text(request_id), self.text(message));
                FromWorker::RouteRequest { turn, request_id, to_id, message, timeout_ms }
            }
            FromWorker::Error { turn, error, retryable, retry_after_ms } => {
                FromWorker::Error { turn, error: self.text(error), retryable, retry_after_ms }
            }
            FromWorker::Question { turn, mut question } => {
                // Whoever answers chooses among the options as they are stored.
                let Question { request_id, text, options, default, .. } = &mut *question;
                for said in [request_id, text].into_iter().chain(options).chain(default) {
                    *said = self.text(Cow::Borrowed(said)).into_owned();
                }
                FromWorker::Question { turn, question }
            }
            FromWorker::Step { turn, key, result } => {
                // Both are given back as they are stored.
                let (key, result) = (self.text(key), self.json(result));
                FromWorker::Step { turn, key, result }
            }
            FromWorker::BadStep { turn, key, why } => FromWorker::BadStep {
                turn,
                key: key.map(|key| self.text(key)),
                why: self.text(why.into()).into(),
            },
            FromWorker::BadRequest { kind, request_id, why } => {
                FromWorker::BadRequest { kind, request_id, why: self.text(why.into()).into() }
            }
            FromWorker::Unknown { kind } => FromWorker::Unknown { kind: self.text(kind) },
            line @ (FromWorker::Ready
            | FromWorker::HistoryRequest { .. }
            | FromWorker::Text { .. }
            | FromWorker::TooDeep { .. }
            | FromWorker::Ack { .. }
            | FromWorker::Progress { .. }) => line,
        }
    }

    /// How many bytes at the end of a text may be the beginning of a value.
    pub(crate) fn begun(&self, text: &str) -> usize {
        let text = text.as_bytes();
        let begun = |finder: &Finder<'_>| {
            let value = finder.needle();
            let mut end = &text[text.len() - text.len().min(value.len() - 1)..];
            while let Some(at) = memchr::memchr(value[0], end) {
                end = &end[at..];
                if value.starts_with(end) {
                    return end.len();
                }
                end = &end[1..];
            }
            0
        };
        self.0.iter().map(|(finder, _)| begun(finder)).max().unwrap_or(0)
    }

    /// A text, with the names in place of the values.
    pub(crate) fn text<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        match self.hide(text.as_bytes()) {
            Cow::Borrowed(_) => text,
            Cow::Owned(hidden) => String::from_utf8_lossy(&hidden).into_owned().into(),
        }
    }

    /// JSON, with the names in place of the values in its strings: as it is where there are none.
    fn json<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        let Ok(mut value) = serde_json::from_str::<Value>(&text) else { return self.text(text) };
        let before = value.clone();
        self.value(&mut value);
        if value == before { text } else { value.to_string().into() }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(Cow::Borrowed(text)).into_owned(),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                let hidden = std::mem::take(fields).into_iter().map(|(name, mut field)| {
                    self.value(&mut field);
                    (self.text(name.into()).into_owned(), field)
                });
                *fields = hidden.collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// The line, with the names in place of the values.
    pub(crate) fn hide<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let mut line = Cow::Borrowed(line);
        for (finder, name) in &self.0 {
            let Some(first) = finder.find(&line) else { continue };
            let mut hidden = line[..first].to_vec();
            let mut rest = &line[first..];
            while let Some(at) = finder.find(rest) {
                hidden.extend_from_slice(&rest[..at]);
                hidden.extend_from_slice(name.as_bytes());
                rest = &rest[at + finder.needle().len()..];
            }
            hidden.extend_from_slice(rest);
            line = Cow::Owned(hidden);
        }
        line
    }
}

/// A value in its own form and in those that programs write of themselves.
fn forms(value: &str) -> Vec<String> {
    let quoted = Value::from(value).to_string();
    // Without the quotes around it, and no others.
    let json = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    let mut forms = vec![value.to_owned(), json.to_owned(), ascii(json)];
    forms.push(forms[2].replace('/', "\\/"));
    // In URLs, with a slash as it is and without, with digits of either case, and in forms with `+` for a blank.
    for (kept, is_lower) in [("-_.~", false), ("-_.~/", false), ("-_.~", true), ("-_.~/", true)] {
        let byte = |byte: u8| match char::from(byte) {
            c if c.is_ascii_alphanumeric() || kept.contains(c) => c.to_string(),
            _ if is_lower => format!("%{byte:02x}"),
            _ => format!("%{byte:02X}"),
        };
        let url: String = value.bytes().map(byte).collect();
        forms.extend([url.replace("%20", "+"), url]);
    }
    // In base64 it depends on how many bytes of something else stand before it.
    for before in 0..3 {
        let bytes = [&b"\0\0"[..before], value.as_bytes()].concat();
        // Those that are its own alone: six bits each.
        let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&bytes);
            forms.push(encoded.get(own.clone()).unwrap_or_default().to_owned());
        }
    }
    forms
}

/// JSON in ASCII, as Python and others write it.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hide(secrets: &[(&str, &str)], line: &str) -> String {
        let values = secrets.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let hidden = Secrets::new(&values.collect()).hide(line.as_bytes()).into_owned();
        String::from_utf8(hidden).expect("UTF-8")
    }

    #[test]
    fn every_occurrence_of_a_value_becomes_its_name() {
        let secrets = [("KEY", "sk-123456"), ("LONGER", "sk-123456-and-more")];
        assert_eq!(
            hide(&secrets, "a sk-123456 b sk-123456-and-more c sk-123456"),
            "a [SECRET KEY] b [SECRET LONGER] c [SECRET KEY]"
        );
        assert_eq!(hide(&secrets, "nothing to hide"), "nothing to hide");
    }

    #[test]
    fn a_value_is_found_as_json_writes_it_and_line_by_line() {
        let secrets = [("PEM", "-----BEGIN\nabc\"def\n-----END---\n")];
        let line = r#"{"text":"-----BEGIN\nabc\"def\n-----END---"}"#;
        assert_eq!(hide(&secrets, line), r#"{"text":"[SECRET PEM]"}"#);
        assert_eq!(hide(&secrets, "  abc\"def"), "  [SECRET PEM]");
    }

    #[test]
    fn what_is_said_is_searched_however_it_was_written() {
        let values = [("KEY", "sk-ä/+123"), ("QUOTED", "\"sk-999999\"")];
        let values = values.into_iter().map(|(name, value)| (name.into(), value.into()));
        let secrets = Secrets::new(&values.collect());
        for line in [
            r#"{"type":"chat_done","messageId":"m","response":"it is sk-\u00e4\/\u002B123."}"#,
            r#"{"type":"event","messageId":"m","event":{"type":"x","a":[{"sk-ä/+123":"sk-ä/+123"}]}}"#,
            r#"{"type":"error","messageId":"m","error":"sk-ä/+123","retryable":true}"#,
            r#"{"type":"route_request","requestId":"q","toId":"b","message":"\"sk-999999\""}"#,
            r#"{"type":"sk-\u00e4\/\u002B123"}"#,
            r#"{"type":"route_request","requestId":"q-sk-ä/+123","toId":"b","message":"m"}"#,
            r#"{"type":"step","messageId":"m","key":"k","result":{"a":["sk-\u00e4\/\u002B123"]}}"#,
            r#"{"type":"step","messageId":"m","key":"sk-ä/+123"}"#,
            r#"{"type":"question","requestId":"q","text":"is it sk-\u00e4\/\u002B123?"}"#,
            r#"{"type":"question","requestId":"q","text":"t","options":["sk-ä/+123"]}"#,
            r#"{"type":"question","requestId":"q","text":"t","default":"sk-ä/+123"}"#,
        ] {
            let mut hidden = String::new();
            common::worker::read(line.as_bytes(), &mut |said| {
                hidden = format!("{:?}", secrets.hide_in(said.expect("protocol")));
            });
            assert!(!hidden.contains("123") && !hidden.contains("999"), "{hidden}");
            assert!(hidden.contains("[SECRET "), "{hidden}");
        }
    }

    #[test]
    fn a_value_is_found_in_the_forms_that_programs_write() {
        let secrets = [("KEY", "pä/ss+w0rd!")];
        for line in [
            r#"{"key": "p\u00e4/ss+w0rd!"}"#,
            r#"{"key": "p\u00e4\/ss+w0rd!"}"#,
            "https://x/?key=p%C3%A4%2Fss%2Bw0rd%21&more",
        ] {
            let hidden = hide(&secrets, line);
            assert!(hidden.contains("[SECRET KEY]") && !hidden.contains("w0rd"), "{hidden}");
        }
        let two_words = [("KEY", "p@ss wörd")];
        for line in ["k=p%40ss+w%C3%B6rd", "k=p%40ss%20w%C3%B6rd", "k=p%40ss%20w%c3%b6rd"] {
            assert_eq!(hide(&two_words, line), "k=[SECRET KEY]", "{line}");
        }
        for user in ["", "a", "ab", "abc", "abcd"] {
            for after in ["", "1", "12"] {
                let text = format!("{user}:{}{after}", secrets[0].1);
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let hidden = hide(&secrets, &format!("Basic {}", engine.encode(&text)));
                    assert!(hidden.contains("[SECRET KEY]"), "{user} {after}: {hidden}");
                }
            }
        }
    }

    #[test]
    fn the_beginning_of_a_value_is_known_at_a_texts_end() {
        let values = [("KEY".into(), "aab-aac-1".into())];
        let secrets = Secrets::new(&values.into());
        for (text, begun) in
            [("", 0), ("x", 0), ("a", 1), ("xaa", 2), ("aaa", 2), ("aab-", 4), ("aab-aa", 6)]
        {
            assert_eq!(secrets.begun(text), begun, "{text}");
        }
        assert_eq!(secrets.begun("aab-aac-"), 8);
        assert_eq!(Secrets::default().begun("aab"), 0);
    }

    #[test]
    fn a_short_value_is_left_alone() {
        assert_eq!(hide(&[("FLAG", "true")], "true to itself"), "true to itself");
        assert_eq!(hide(&[("EMPTY", "")], "nothing"), "nothing");
    }
}
