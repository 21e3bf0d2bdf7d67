//! The values of SECRETs.

use std::collections::BTreeMap;
use std::path::Path;

use common::NodeName;
use common::spec::AgentSpec;

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

/// What a file of `NAME=VALUE` lines sets.
fn read(file: &Path) -> Result<BTreeMap<String, String>, String> {
    let failed = |why: &str| format!("cannot read the --env-file {}: {why}", file.display());
    let lines = dotenvy::from_path_iter(file).map_err(|error| failed(&error.to_string()))?;
    let mut set = BTreeMap::new();
    for line in lines {
        // The error quotes the line, which may be a secret.
        let (name, value) = line.map_err(|_quoted| failed("a line of it is not NAME=VALUE"))?;
        set.insert(name, value);
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
        std::fs::write(&file, "geheim geheim\n").expect("written");
        let bad = get(&spec).expect_err("not NAME=VALUE");
        assert!(!bad.contains("geheim"), "{bad}");
    }
}
