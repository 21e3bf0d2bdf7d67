//! What differs between two specs, field by field.

use common::soul;
use common::spec::AgentSpec;
pub(crate) use mozart_client::changes::{Change, between};

/// The field that names the archive of the soul's folder.
const FILES: &str = "files";
/// The field that names the content of the files that WORKER and SKILL name.
const CONTENT: &str = "content";

/// The instructions that differ, for a cell of a table.
pub(crate) fn instructions(changes: &[Change]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for change in changes {
        let name = instruction(&change.field);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // Where other files are named, or those of the folder are others, so is their content.
    if names.len() > 1 {
        let is_said = names.iter().any(|name| [FILES, "WORKER", "SKILL"].contains(name));
        names.retain(|name| *name != CONTENT || !is_said);
    }
    let shown = names.into_iter().map(|name| if name == CONTENT { FILES } else { name });
    shown.collect::<Vec<_>>().join(", ")
}

/// The instruction of a soul that a field comes from.
fn instruction(field: &str) -> &str {
    match field.split('.').next().unwrap_or(field) {
        "model" => "MODEL",
        "identity" => "SOUL",
        "ifThen" => "IF",
        "schedule" => "SCHEDULE",
        "skills" => "SKILL",
        "sanctums" => "SANCTUM",
        "worker" => "WORKER",
        "image" => "IMAGE",
        "env" => "ENV",
        "secrets" => "SECRET",
        "limits" => "LIMIT",
        "concurrency" => "CONCURRENCY",
        "attempts" | "retry" => "ATTEMPTS",
        "timeout" => "TIMEOUT",
        "restart" => "RESTART",
        "replace" => "REPLACE",
        "keep" => "KEEP",
        "memory" => "MEMORY",
        "labels" => "LABEL",
        "require" => "REQUIRE",
        "sourcePath" => "path",
        // What no instruction says: the files.
        other => other,
    }
}

/// The changes as lines of a soul, `-` before what was and `+` before what is.
pub(crate) fn lines(before: &AgentSpec, after: &AgentSpec) -> Vec<String> {
    let (old, new) = (soul::render(before), soul::render(after));
    let mut old: Vec<&str> = old.lines().collect();
    let mut added: Vec<&str> = Vec::new();
    for line in new.lines() {
        match old.iter().position(|other| *other == line) {
            Some(same) => {
                old.remove(same);
            }
            None => added.push(line),
        }
    }
    let word = |line: &str| line.split(' ').next().map(str::to_owned);
    let mut lines = Vec::new();
    for line in old {
        lines.push(format!("  - {line}"));
        // What takes its place stands below it.
        let same: Vec<&str> = added.extract_if(.., |new| word(new) == word(line)).collect();
        lines.extend(same.iter().map(|line| format!("  + {line}")));
    }
    lines.extend(added.iter().map(|line| format!("  + {line}")));
    if before.source_path != after.source_path {
        lines.push(format!("  ~ path: {}", after.source_path));
    }
    // The digests tell nobody anything.
    let names_others = (&before.worker, &before.skills) != (&after.worker, &after.skills);
    if before.files != after.files {
        lines.push("  ~ files of the soul's folder".to_owned());
    } else if before.content != after.content && !names_others {
        lines.push("  ~ files that WORKER or SKILL name".to_owned());
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
        assert_eq!(instructions(&changes), "ATTEMPTS, ENV, IMAGE");
        assert_eq!(
            lines(&before, &after),
            ["  - ATTEMPTS 3", "  + ATTEMPTS 5", "  + IMAGE a:1", "  + ENV LANG=C"]
        );
        // Files: in the words of whoever edits them, and each change once.
        let mut edited = before.clone();
        edited.content = Some("x".to_owned());
        assert_eq!(lines(&before, &edited), ["  ~ files that WORKER or SKILL name"]);
        assert_eq!(instructions(&between(&before, &edited)), "files");
        edited.worker = Some(vec!["other".to_owned()]);
        assert_eq!(
            lines(&before, &edited),
            ["  + WORKER [\"other\"]"],
            "another file is another content"
        );
        assert_eq!(instructions(&between(&before, &edited)), "WORKER");
        let mut other = after.clone();
        other.env.insert("LANG".to_owned(), "de".to_owned());
        assert_eq!(lines(&after, &other), ["  - ENV LANG=C", "  + ENV LANG=de"]);
        other.restart.max = 0;
        other.retry.first = std::time::Duration::from_millis(200);
        let expected = [
            "  - ENV LANG=C",
            "  + ENV LANG=de",
            "  - ATTEMPTS 5",
            "  + ATTEMPTS 5 backoff=200ms..30s",
            "  - RESTART always max=10/10m backoff=1s..60s",
            "  + RESTART always max=0/10m backoff=1s..60s",
        ];
        let shown = lines(&after, &other);
        assert_eq!(shown.len(), expected.len(), "{shown:?}");
        for (shown, expected) in shown.iter().zip(expected) {
            // Minutes may be written in another unit.
            assert_eq!(shown.split(' ').nth(3), expected.split(' ').nth(3), "{shown}");
        }
        // An internal name stands nowhere.
        for field in
            serde_json::to_value(&after).expect("plain").as_object().expect("fields").keys()
        {
            let is_file = ["name", "content", "files"].contains(&field.as_str());
            assert!(is_file || instruction(field) != field, "{field}");
        }
    }
}
