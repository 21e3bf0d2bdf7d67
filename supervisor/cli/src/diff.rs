//! What `apply` would do: new agents, changed ones, and those that are to be removed.

use std::path::{Path, PathBuf};

use broker::Attempt as _;
use common::AgentName;
use common::api::{ApiError, Query, Reply, SoulSource};
use common::failure;
use common::soul;
use common::spec::AgentSpec;
use runtime::home::Home;
use serde::Serialize;

use super::changes::{self, Change};
use super::client::{Client, unexpected};
use super::files::{self, FileChange};
use super::output;

/// What becomes of an agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    agent: AgentName,
    /// `new`, `changed`, `unchanged`, `removed`.
    what: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Change>,
    /// The files that differ; none if nothing is known of those before.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<FileChange>>,
    /// The changes as people read them.
    #[serde(skip)]
    lines: Vec<String>,
}

impl Planned {
    fn new(agent: AgentName, what: &'static str) -> Self {
        Self { agent, what, changes: Vec::new(), files: None, lines: Vec::new() }
    }
}

/// Shows what `apply` would do to these souls, and to the agents that `--prune` would remove.
///
/// # Errors
/// When no supervisor answers.
pub(crate) async fn show(
    client: &Client,
    souls: &[SoulSource],
    pruned: &[AgentName],
    home: &Home,
) -> Result<(), ApiError> {
    let stores = client.broker.stores_files().await.attempt("cannot compare the files")?;
    let mut plan = Vec::new();
    for soul in souls {
        let wanted = soul::parse(soul.name.clone(), Path::new(&soul.path), &soul.text);
        let wanted = wanted.map_err(|errors| {
            failure::error(failure::USAGE, "the soul is invalid", errors.plain(), "")
        })?;
        let packed = if stores { files::would_store(soul, home).await? } else { None };
        let files = packed.as_ref().map(|packed| packed.files.clone());
        let wanted = AgentSpec { content: soul.content.clone(), files, ..wanted };
        let agent = soul.name.clone();
        let Some(known) = known(client, &agent).await? else {
            plan.push(Planned::new(agent, "new"));
            continue;
        };
        let changes = changes::between(&known, &wanted);
        let what = if changes.is_empty() { "unchanged" } else { "changed" };
        let files = match known.files == wanted.files {
            true => None,
            false => files::changes(&client.broker, known.files.as_ref(), packed.as_ref()).await,
        };
        let lines = changes::lines(&known, &wanted);
        plan.push(Planned { agent, what, changes, files, lines });
    }
    plan.extend(pruned.iter().map(|agent| Planned::new(agent.clone(), "removed")));
    if client.json() {
        return output::json(&plan);
    }
    for Planned { agent, what, files, lines, .. } in &plan {
        output::line(format!("{agent}: {what}"))?;
        for line in lines {
            output::line(line)?;
        }
        for FileChange { path, what } in files.iter().flatten() {
            output::line(format!("    {what}: {path}"))?;
        }
    }
    Ok(())
}

/// The newest spec of an agent; none if there is no such agent.
async fn known(client: &Client, agent: &AgentName) -> Result<Option<AgentSpec>, ApiError> {
    match client.ask(&Query::Inspect { agent: agent.clone() }).await {
        Ok(Reply::Inspect(detail)) => Ok(Some(detail.config)),
        Ok(other) => Err(unexpected(&other)),
        Err(error) if error.code == failure::NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

/// The agents that were applied from these folders but no longer have a soul there. Others are not removed.
///
/// # Errors
/// When no supervisor answers.
pub(crate) async fn left_out(
    client: &Client,
    paths: &[PathBuf],
    souls: &[SoulSource],
) -> Result<Vec<AgentName>, ApiError> {
    let folders: Vec<PathBuf> = paths
        .iter()
        .filter(|path| path.is_dir())
        .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        .collect();
    let mut left_out = Vec::new();
    for row in client.brief_rows(None).await? {
        if souls.iter().any(|soul| soul.name == row.agent) {
            continue;
        }
        let Some(spec) = known(client, &row.agent).await? else { continue };
        if folders.iter().any(|folder| is_soul_of(Path::new(&spec.source_path), folder)) {
            left_out.push(row.agent);
        }
    }
    Ok(left_out)
}

/// Whether a file is where the souls of a folder are: `<folder>/<agent>.soul` or `<folder>/<agent>/agent.soul`.
fn is_soul_of(file: &Path, folder: &Path) -> bool {
    let above = file.parent();
    above == Some(folder)
        || (file.file_name() == Some("agent.soul".as_ref())
            && above.and_then(Path::parent) == Some(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soul_belongs_to_the_folder_in_which_apply_would_find_it() {
        let of = |file: &str| is_soul_of(Path::new(file), Path::new("/fleet"));
        assert!(of("/fleet/a.soul") && of("/fleet/a/agent.soul"));
        assert!(!of("/fleet/deep/a.soul") && !of("/other/a.soul") && !of("/fleet2/a.soul"));
    }
}
