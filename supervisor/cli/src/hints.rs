//! Warnings about valid instructions of a soul that may not do what their author expects.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use broker::LONGEST_KEPT;
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
    // With IMAGE it runs in a container, or not at all.
    if spec.limits != Limits::default() && spec.image.is_none() {
        hints.push(
            "LIMIT applies to containers; an agent that runs as a process is not limited"
                .to_owned(),
        );
    }
    for sanctum in spec.sanctums.iter().filter(|it| !exists(Path::new(&it.host))) {
        hints.push(format!("SANCTUM {}: there is no such folder on this host", sanctum.host));
    }
    let folder = Path::new(&spec.source_path).parent().unwrap_or(Path::new(""));
    for skill in spec.skills.iter().filter(|skill| !exists(&folder.join(skill))) {
        hints.push(format!("SKILL {skill}: there is no such file or folder on this host"));
    }
    let kept = [("events", spec.keep.events), ("logs", spec.keep.logs)];
    for (what, _) in kept.iter().filter(|(_, age)| age.is_some_and(|age| age > LONGEST_KEPT)) {
        hints.push(format!("KEEP {what}: the fleet keeps {what} for 72 hours at most"));
    }
    hints.extend(missing(spec, exists).map(|file| {
        format!("WORKER {}: there is no such file; the agent will not start", file.display())
    }));
    // A path may have a newline in it.
    hints.iter().map(|hint| common::words::in_line(hint).into_owned()).collect()
}

/// Programs and scripts that WORKER names and that are not there. Those of an agent with an image are in it.
fn missing(spec: &AgentSpec, exists: impl Fn(&Path) -> bool) -> impl Iterator<Item = PathBuf> {
    const SCRIPTS: [&str; 11] =
        ["py", "js", "mjs", "cjs", "ts", "sh", "rb", "pl", "php", "lua", "jar"];
    let folder = Path::new(&spec.source_path).parent().unwrap_or(Path::new(""));
    let worker = spec.worker.as_deref().filter(|_| spec.image.is_none()).unwrap_or_default();
    let named = worker.iter().enumerate().filter(|(at, word)| {
        let extension = Path::new(word).extension().and_then(OsStr::to_str);
        // A program without a path is looked for in PATH, a word with blanks is a command for a shell, and `--file=x.py` an option.
        let is_program = *at == 0 && word.contains('/');
        let is_script = *at > 0 && extension.is_some_and(|it| SCRIPTS.contains(&it));
        (is_program || is_script) && !word.contains(char::is_whitespace) && !word.starts_with('-')
    });
    let paths = named.map(move |(_, word)| folder.join(word));
    paths.filter(move |path| !exists(path))
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
    use common::spec::Sanctum;
    use std::time::Duration;

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
        spec.keep.events = Some(Duration::from_secs(72 * 3600));
        spec.keep.logs = Some(Duration::from_secs(73 * 3600));
        let (host, path) = ("/srv/gone".to_owned(), "/data".to_owned());
        spec.sanctums.push(Sanctum { host, path, read_only: false, shared: false });
        spec.skills.push("nope".to_owned());
        let hints = of(&spec, |_| false);
        let begins = ["ENV PATH: `$PATH`", "LIMIT", "SANCTUM /srv/gone", "SKILL nope", "KEEP logs"];
        assert_eq!(hints.len(), begins.len(), "{hints:?}");
        for (hint, begin) in hints.iter().zip(begins) {
            assert!(hint.starts_with(begin), "{hint}");
        }
        spec.image = Some("python:3".to_owned());
        let hints = of(&spec, |_| false);
        assert!(!hints.iter().any(|hint| hint.starts_with("LIMIT")), "{hints:?}");
    }

    #[test]
    fn a_worker_that_is_not_there_is_named() {
        let named = |worker: &[&str], image: Option<&str>| {
            let mut spec = spec();
            spec.source_path = "/souls/a.soul".to_owned();
            spec.worker = Some(worker.iter().map(|word| (*word).to_owned()).collect());
            spec.image = image.map(ToOwned::to_owned);
            missing(&spec, |path| path == "/souls/there.py").collect::<Vec<_>>()
        };
        assert_eq!(named(&["python3", "gone.py"], None), [Path::new("/souls/gone.py")]);
        assert_eq!(named(&["./bin/gone", "x"], None), [Path::new("/souls/./bin/gone")]);
        assert_eq!(named(&["node", "/opt/gone.mjs"], None), [Path::new("/opt/gone.mjs")]);
        for fine in [
            &["python3", "there.py"][..],
            &["cat"],
            &["sh", "-c", "exec python3 gone.py"],
            &["run", "--file=gone.py", "v1.2", "data.json"],
        ] {
            assert_eq!(named(fine, None), Vec::<PathBuf>::new(), "{fine:?}");
        }
        assert_eq!(named(&["python3", "gone.py"], Some("image")), Vec::<PathBuf>::new());
    }
}
