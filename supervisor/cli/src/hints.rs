//! What a valid soul says that will not do what its author may expect.

use std::path::Path;

use common::spec::{AgentSpec, Limits};

/// The hints, a sentence each. `exists`: whether a path of this host is there.
pub(crate) fn of(spec: &AgentSpec, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut hints = Vec::new();
    for (name, value) in &spec.env {
        if let Some(reference) = reference(value) {
            hints.push(format!(
                "ENV {name}: `{reference}` is passed on as it is written; variables are not expanded"
            ));
        }
    }
    if spec.limits != Limits::default() {
        hints.push(
            "LIMIT applies to containers; an agent that runs as a process is not limited"
                .to_owned(),
        );
    }
    if !spec.schedule.is_empty() {
        hints.push(
            "SCHEDULE is passed to the worker; Mozart itself does not send its prompts yet"
                .to_owned(),
        );
    }
    for sanctum in spec.sanctums.iter().filter(|it| !exists(Path::new(&it.host))) {
        hints.push(format!("SANCTUM {}: there is no such folder on this host", sanctum.host));
    }
    hints
}

/// The first reference to a variable, as a shell would read it: `$NAME` or `${NAME}`.
fn reference(value: &str) -> Option<&str> {
    for (at, _) in value.match_indices('$') {
        let rest = &value[at..];
        let named = |text: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let length = text.find(|c| !plain(c)).unwrap_or(text.len());
            let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            is_name.then_some(length)
        };
        let length = match rest.strip_prefix("${") {
            Some(name) => {
                named(name).filter(|length| name[*length..].starts_with('}')).map(|it| it + 3)
            }
            None => named(&rest[1..]).map(|it| it + 1),
        };
        if let Some(length) = length {
            return Some(&rest[..length]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use common::AgentName;
    use common::spec::{Sanctum, Schedule};

    use super::*;

    fn spec() -> AgentSpec {
        AgentSpec::new(AgentName::new("a").expect("valid"), "test/model", "test agent")
    }

    #[test]
    fn references_are_found_and_nothing_else() {
        assert_eq!(reference("/x:$PATH"), Some("$PATH"));
        assert_eq!(reference("a ${HOME}/b"), Some("${HOME}"));
        for value in ["5 $", "$5", "cost: $ 7", "${", "${-x}", "a$", ""] {
            assert_eq!(reference(value), None, "{value}");
        }
    }

    #[test]
    fn what_does_not_act_is_said() {
        assert_eq!(of(&spec(), |_| true), [""; 0]);
        let mut spec = spec();
        spec.env.insert("PATH".to_owned(), "/x:$PATH".to_owned());
        spec.limits.memory = Some(1 << 20);
        let (cron, prompt) = ("0 9 * * *".to_owned(), "report".to_owned());
        spec.schedule.push(Schedule { cron, tz: None, prompt });
        let (host, path) = ("/srv/gone".to_owned(), "/data".to_owned());
        spec.sanctums.push(Sanctum { host, path, read_only: false });
        let hints = of(&spec, |_| false);
        let begins = ["ENV PATH: `$PATH`", "LIMIT", "SCHEDULE", "SANCTUM /srv/gone"];
        assert_eq!(hints.len(), begins.len(), "{hints:?}");
        for (hint, begin) in hints.iter().zip(begins) {
            assert!(hint.starts_with(begin), "{hint}");
        }
    }
}
