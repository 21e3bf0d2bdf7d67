//! The values of SECRETs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use common::api::ApiError;
use common::spec::AgentSpec;
use common::{NodeName, failure};

/// The largest file that is read, in bytes.
const MOST: u64 = 1 << 20;

/// The values of a soul's SECRETs: from the file that the node was given, read again for each start, else from the environment of this
/// process.
///
/// # Errors
/// Which one is not set, or that the file cannot be read. Nothing of what the file says.
pub(crate) fn secrets(
    spec: &AgentSpec,
    node: &NodeName,
    file: Option<&Path>,
) -> Result<BTreeMap<String, String>, String> {
    if spec.secrets.is_empty() {
        return Ok(BTreeMap::new());
    }
    let given = file.map(read).transpose()?.unwrap_or_default();
    let value = |name: &String| {
        if let Some(value) = given.get(name) {
            return Ok((name.clone(), value.clone()));
        }
        let nor = file.map(|file| format!(", nor in {}", file.display())).unwrap_or_default();
        match std::env::var(name) {
            Ok(value) => Ok((name.clone(), value)),
            Err(std::env::VarError::NotPresent) => {
                Err(format!("SECRET {name} is not set in the environment of node `{node}`{nor}"))
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("SECRET {name} of node `{node}` is not UTF-8"))
            }
        }
    };
    spec.secrets.iter().map(value).collect()
}

/// Whether a file of `NAME=VALUE` lines can be read.
///
/// # Errors
/// Why not.
pub fn check(file: &Path) -> Result<(), ApiError> {
    read(file).map(drop).map_err(|cause| {
        let try_ = "a readable file of NAME=VALUE lines";
        failure::error(failure::USAGE, "cannot use the --env-file", cause, try_)
    })
}

/// What a file of `NAME=VALUE` lines sets. No error quotes a line: it may be a secret.
fn read(file: &Path) -> Result<BTreeMap<String, String>, String> {
    let failed = |why: &str| format!("cannot read the --env-file {}: {why}", file.display());
    let mut bytes = Vec::new();
    // A device may have no end.
    let read = File::open(file).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    let read = read.map_err(|error| failed(&error.to_string()))?;
    if read as u64 > MOST {
        return Err(failed("it is larger than 1 MiB"));
    }
    parse(&bytes).map_err(|(line, why)| failed(&format!("line {line} {why}")))
}

/// A value is taken as it is written, like docker's `--env-file` does, except for quotes around all of it: a secret may have any character,
/// and nothing in it is expanded. The error: which line, and what is wrong with it.
fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>, (usize, &'static str)> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut set = BTreeMap::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |why| (number + 1, why);
        let line = std::str::from_utf8(line).map_err(|_invalid| wrong("is not UTF-8"))?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let (name, value) = line.split_once('=').ok_or(wrong("is not NAME=VALUE"))?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(is_name)
        {
            return Err(wrong("has no valid name before its `=`"));
        }
        if value.contains('\0') {
            return Err(wrong("has a NUL byte, which no variable can have"));
        }
        let inner = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
        let value = inner('"').or_else(|| inner('\'')).unwrap_or(value);
        set.insert(name.to_owned(), value.to_owned());
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::AgentName;

    #[test]
    fn a_file_is_read_for_each_start_and_never_quoted() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let file = temp.path().join("env");
        let mut spec = AgentSpec::new(AgentName::new("a").expect("valid"), "m/m", "You.");
        let node = NodeName::new("n").expect("valid");
        let get = |spec: &AgentSpec| secrets(spec, &node, Some(&file));
        assert_eq!(get(&spec), Ok(BTreeMap::new()), "it is not needed");
        spec.secrets = vec!["MOZART_TEST_KEY".to_owned()];
        assert!(get(&spec).expect_err("no file").contains("--env-file"));
        for (text, value) in [
            ("# a comment\nMOZART_TEST_KEY=one\n", "one"),
            ("export MOZART_TEST_KEY='two words'\nOTHER=x\n", "two words"),
        ] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(get(&spec).expect("set")["MOZART_TEST_KEY"], value);
        }
        std::fs::write(&file, "OTHER=x\n").expect("written");
        let missing = get(&spec).expect_err("not set");
        assert!(missing.contains("MOZART_TEST_KEY is not set") && missing.contains("nor in"));
        std::fs::write(&file, "A=b\ngeheim geheim\n").expect("written");
        let bad = get(&spec).expect_err("not NAME=VALUE");
        assert!(!bad.contains("geheim") && bad.contains("line 2 is not NAME=VALUE"), "{bad}");
        assert!(check(&file).expect_err("bad").cause.contains("line 2"));
        assert!(check(temp.path()).is_err(), "a folder");
        let endless = check(Path::new("/dev/zero")).expect_err("it has no end");
        assert!(endless.cause.contains("larger than 1 MiB"), "{endless:?}");
    }

    #[test]
    fn a_value_is_what_is_written() {
        for value in [
            "pa$word1",
            "a${HOME}b",
            r"C:\new",
            "pw #1",
            "#x",
            "it's",
            "a b",
            " a ",
            "a=b",
            "",
            "a\"b",
        ] {
            let set = parse(format!("\u{feff}# x\n\nK={value}\r\n").as_bytes());
            assert_eq!(set.expect("valid")["K"], value);
        }
        for (written, value) in
            [("\"a b\"", "a b"), ("'a$b'", "a$b"), ("\"", "\""), ("'a\"", "'a\"")]
        {
            assert_eq!(parse(format!("K={written}").as_bytes()).expect("valid")["K"], value);
        }
        for (text, why) in [
            (&b"K=1\nK"[..], (2, "is not NAME=VALUE")),
            (b"K=\xff", (1, "is not UTF-8")),
            (b"1K=x", (1, "has no valid name before its `=`")),
            (b"K L=x", (1, "has no valid name before its `=`")),
            (b"K=a\0b", (1, "has a NUL byte, which no variable can have")),
        ] {
            assert_eq!(parse(text), Err(why));
        }
    }
}
