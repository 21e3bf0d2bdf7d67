//! Keeps the values of SECRETs out of whatever a worker says: logs, events, answers.
//!
//! A worker may print its environment, and an agent may be talked into telling it. Only whole values within one line are found: a
//! value that is told in pieces is told.

use std::borrow::Cow;
use std::collections::BTreeMap;

use memchr::memmem::Finder;

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
    quoted.trim_matches('"').to_owned()
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
    fn a_short_value_is_left_alone() {
        assert_eq!(hide(&[("FLAG", "true")], "true to itself"), "true to itself");
        assert_eq!(hide(&[("EMPTY", "")], "nothing"), "nothing");
    }
}
