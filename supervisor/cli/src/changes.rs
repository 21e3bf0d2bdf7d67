//! What differs between two specs, field by field.

use common::spec::AgentSpec;
use serde::Serialize;
use serde_json::Value;

/// The field that names the archive of the soul's folder.
const FILES: &str = "files";

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    /// Where: `attempts`, `env.LANG`.
    pub(crate) field: String,
    /// What it was; none if it was not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Value>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Value>,
}

/// The differences, in the order of the fields' names.
pub(crate) fn between(before: &AgentSpec, after: &AgentSpec) -> Vec<Change> {
    let value = |spec: &AgentSpec| serde_json::to_value(spec).unwrap_or_default();
    let mut changes = Vec::new();
    compare(String::new(), Some(&value(before)), Some(&value(after)), &mut changes);
    changes
}

fn compare(field: String, before: Option<&Value>, after: Option<&Value>, to: &mut Vec<Change>) {
    if before == after {
        return;
    }
    let maps = (before.and_then(Value::as_object), after.and_then(Value::as_object));
    // What names an archive is one value.
    let (Some(old), Some(new)) = (if field == FILES { (None, None) } else { maps }) else {
        return to.push(Change { field, before: before.cloned(), after: after.cloned() });
    };
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let field = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
        compare(field, old.get(name), new.get(name), to);
    }
}

/// The names of the fields, for a cell of a table.
pub(crate) fn fields(changes: &[Change]) -> String {
    changes.iter().map(|change| change.field.as_str()).collect::<Vec<_>>().join(", ")
}

/// The changes as lines, `-` before what was and `+` before what is.
pub(crate) fn lines(changes: &[Change]) -> Vec<String> {
    let line = |sign: char, field: &str, value: &Value| match value.as_str() {
        Some(text) => format!("  {sign} {field}: {text}"),
        None => format!("  {sign} {field}: {value}"),
    };
    let mut lines = Vec::new();
    for Change { field, before, after } in changes {
        // The digests tell nobody anything.
        if field == FILES {
            lines.push("  ~ files: the archive of the soul's folder has changed".to_owned());
            continue;
        }
        if field == "content" {
            lines.push("  ~ content: files that WORKER or SKILL name have changed".to_owned());
            continue;
        }
        lines.extend(before.iter().map(|value| line('-', field, value)));
        lines.extend(after.iter().map(|value| line('+', field, value)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::AgentName;

    #[test]
    fn every_field_that_differs_is_named() {
        let before = AgentSpec::new(AgentName::new("a").expect("valid"), "m/m", "You.");
        assert!(between(&before, &before).is_empty());
        let mut after = before.clone();
        after.attempts = 5;
        after.env.insert("LANG".to_owned(), "C".to_owned());
        after.image = Some("a:1".to_owned());
        let changes = between(&before, &after);
        assert_eq!(fields(&changes), "attempts, env, image");
        assert_eq!(
            lines(&changes),
            ["  - attempts: 3", "  + attempts: 5", "  + env: {\"LANG\":\"C\"}", "  + image: a:1"]
        );
        let mut other = after.clone();
        other.env.insert("LANG".to_owned(), "de".to_owned());
        assert_eq!(lines(&between(&after, &other)), ["  - env.LANG: C", "  + env.LANG: de"]);
    }
}
