//! What differs between two specs, field by field.

use common::spec::AgentSpec;
use serde::Serialize;
use serde_json::Value;

/// The field that names the archive of the soul's folder.
const FILES: &str = "files";
/// A field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Where: `attempts`, `env.LANG`.
    pub field: String,
    /// What it was; none if it was not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// The differences, in the order of the fields' names.
pub fn between(before: &AgentSpec, after: &AgentSpec) -> Vec<Change> {
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
