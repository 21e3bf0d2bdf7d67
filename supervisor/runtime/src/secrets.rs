//! The values of SECRETs.

use std::collections::BTreeMap;

use common::NodeName;
use common::spec::AgentSpec;

/// The values of a soul's SECRETs, from the environment of this process.
///
/// # Errors
/// Which one is not set.
pub(crate) fn secrets(
    spec: &AgentSpec,
    node: &NodeName,
) -> Result<BTreeMap<String, String>, String> {
    let value = |name: &String| match std::env::var(name) {
        Ok(value) => Ok((name.clone(), value)),
        Err(std::env::VarError::NotPresent) => {
            Err(format!("SECRET {name} is not set in the environment of node `{node}`"))
        }
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(format!("SECRET {name} of node `{node}` is not UTF-8"))
        }
    };
    spec.secrets.iter().map(value).collect()
}
