//! Keeps the values of SECRETs out of whatever a worker says: logs, events, answers.
//!
//! A worker may print its environment, and an agent may be talked into telling it. Only whole values within one line are found: a
//! value that is told in pieces is told.

use std::borrow::Cow;
use std::collections::BTreeMap;

use common::worker::FromWorker;
use memchr::memmem::Finder;
use serde_json::Value;

/// Shorter values, in bytes, are not looked for: `1` or `true` would be found everywhere.
const SHORTEST: usize = 6;

/// What must not be said.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Vec<(Finder<'static>, String)>);

impl Secrets {
    /// The values, by the names that stand in their place.
    pub(crate) fn new(values: &BTreeMap<String, String>) -> Self {
        let mut patterns: Vec<(String, String)> = Vec::new();
        for (name, value) in values {
            let mut forms = vec![value.trim().to_owned(), in_json(value)];
            // A key of several lines is printed as lines.
            forms.extend(value.lines().map(|line| line.trim().to_owned()));
            for form in forms {
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
    /// JSON.
    pub(crate) fn hide_in<'a>(&self, line: FromWorker<'a>) -> FromWorker<'a> {
        if self.0.is_empty() {
            return line;
        }
        match line {
            FromWorker::Text { turn, text } => FromWorker::Text { turn, text: self.text(text) },
            FromWorker::Event { turn, mut event } => {
                self.value(&mut event);
                FromWorker::Event { turn, event }
            }
            FromWorker::Done { turn, response } => {
                FromWorker::Done { turn, response: response.map(|text| self.text(text)) }
            }
            FromWorker::RouteRequest { turn, request_id, to_id, message, timeout_ms } => {
                let message = self.text(message);
                FromWorker::RouteRequest { turn, request_id, to_id, message, timeout_ms }
            }
            FromWorker::Error { turn, error, retryable } => {
                FromWorker::Error { turn, error: self.text(error), retryable }
            }
            line @ (FromWorker::Ready
            | FromWorker::Ack { .. }
            | FromWorker::Progress { .. }
            | FromWorker::Unknown { .. }) => line,
        }
    }

    fn text<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        match self.hide(text.as_bytes()) {
            Cow::Borrowed(_) => text,
            Cow::Owned(hidden) => String::from_utf8_lossy(&hidden).into_owned().into(),
        }
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

/// As it stands within a JSON string.
fn in_json(value: &str) -> String {
    let quoted = serde_json::Value::from(value.trim()).to_string();
    // Without the quotes around it, and no others.
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
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
        ] {
            let parsed = common::worker::parse(line.as_bytes()).expect("protocol");
            let hidden = format!("{:?}", secrets.hide_in(parsed));
            assert!(!hidden.contains("123") && !hidden.contains("999"), "{hidden}");
            assert!(hidden.contains("[SECRET "), "{hidden}");
        }
    }

    #[test]
    fn a_short_value_is_left_alone() {
        assert_eq!(hide(&[("FLAG", "true")], "true to itself"), "true to itself");
        assert_eq!(hide(&[("EMPTY", "")], "nothing"), "nothing");
    }
}
