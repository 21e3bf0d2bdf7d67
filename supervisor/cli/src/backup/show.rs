//! What a backup holds, and what was restored, for people and for programs.

use std::path::Path;

use common::api::ApiError;
use common::message::MessageKey;
use common::{AgentName, NodeName, Timestamp};
use serde::Serialize;

use super::chain::{Chain, Checked};
use super::manifest::{End, Head, Mark};
use crate::args::Output;
use crate::client::Client;
use crate::{output, table};

/// Open messages that are listed for people.
const LISTED: usize = 20;

/// A backup that was taken, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Taken<'a> {
    pub(super) file: &'a Path,
    pub(super) size: u64,
    pub(super) sha256: &'a str,
    #[serde(flatten)]
    pub(super) head: &'a Head,
    #[serde(flatten)]
    pub(super) end: &'a End,
}

/// Tells what was backed up; on stderr, where the backup itself is on stdout.
///
/// # Errors
/// When stdout is closed.
pub(super) fn taken(client: &Client, taken: &Taken<'_>, is_stdout: bool) -> Result<(), ApiError> {
    let Taken { file, size, end, .. } = taken;
    let records: u64 = end.parts.iter().map(|mark| mark.records).sum();
    let text = format!(
        "{}: {}, {}, {}",
        file.display(),
        table::count(end.agents, "agent", "agents"),
        table::count(records, "record", "records"),
        table::bytes(*size)
    );
    if is_stdout {
        output::note(text);
        return Ok(());
    }
    let written = if client.json() { output::json(taken) } else { output::line(&text) };
    output::result(written, || format!("{} was written", file.display()))
}

/// What is in some files.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    files: Vec<Taken<'a>>,
    agents: Vec<Agent>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Agent {
    agent: AgentName,
    generation: u64,
    desired_running: bool,
    /// The node that its SANCTUM is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_to: Option<NodeName>,
}

/// Shows what files hold.
///
/// # Errors
/// When stdout is closed.
pub(super) fn listed(output: Output, chain: &Chain) -> Result<(), ApiError> {
    fn taken(file: &Checked) -> Taken<'_> {
        let Checked { path, length, head, end, sha256, .. } = file;
        Taken { file: path, size: *length, sha256, head, end }
    }
    let files: Vec<_> = chain.files.iter().map(taken).collect();
    let agents = chain.state.1.agents().map(|agent| Agent {
        agent: agent.name.clone(),
        generation: agent.generation,
        desired_running: agent.desired == supervisor_core::Desired::Running,
        pinned_to: agent.pinned_to().cloned(),
    });
    let agents = agents.collect();
    if output == Output::Json {
        return output::json(&Listed { files, agents });
    }
    for Taken { file, size, head, end, .. } in &files {
        let kind = match &head.after {
            Some(after) => format!("continues {}", after.id),
            None => "complete".to_owned(),
        };
        output::line(format!(
            "{}: backup {}, {kind}, taken {}, namespace {}, mozart {}, {}, {}",
            file.display(),
            head.id,
            head.taken,
            head.namespace,
            head.mozart,
            table::count(end.agents, "agent", "agents"),
            table::bytes(*size)
        ))?;
        let row = |mark: &Mark| {
            vec![mark.stream.clone(), mark.records.to_string(), table::bytes(mark.bytes)]
        };
        output::line(table::table(&["STREAM", "RECORDS", "BYTES"], end.parts.iter().map(row)))?;
    }
    Ok(())
}

/// An open message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Open {
    #[serde(flatten)]
    pub(super) key: MessageKey,
    /// When it was stored.
    pub(super) at: Timestamp,
}

/// What was restored, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restored {
    pub(super) backup: String,
    pub(super) taken: Timestamp,
    pub(super) namespace: String,
    pub(super) agents: u64,
    pub(super) records: u64,
    /// No incarnation gets this number or a lower one.
    pub(super) incarnations: u64,
    /// No term is this one or a lower one.
    pub(super) term: u64,
    /// What had no final state when the backup was taken: if it was answered since, it is answered again.
    pub(super) open: Vec<Open>,
    /// Agents that can start only on a node that their SANCTUM is on.
    pub(super) pinned: Vec<(AgentName, NodeName)>,
}

/// Tells what was restored.
///
/// # Errors
/// When stdout is closed.
pub(super) fn restored(output: Output, restored: &Restored) -> Result<(), ApiError> {
    if output == Output::Json {
        return output::json(restored);
    }
    output::line(format!(
        "restored {} and {} from backup {} of {}",
        table::count(restored.agents, "agent", "agents"),
        table::count(restored.records, "record", "records"),
        restored.backup,
        restored.taken
    ))?;
    if !restored.open.is_empty() {
        output::note(format!(
            "{} had no final state in the backup; if it was answered since, it is answered again:",
            table::count(restored.open.len() as u64, "message", "messages")
        ));
        let row = |Open { key, at }: &Open| {
            vec![
                key.agent.to_string(),
                key.sender.to_string(),
                key.message_id.to_string(),
                at.to_string(),
            ]
        };
        let rows = restored.open.iter().take(LISTED).map(row);
        output::line(table::table(&["AGENT", "SENDER", "MESSAGE", "SENT"], rows))?;
        if restored.open.len() > LISTED {
            output::note(format!("the first {LISTED}; -o json lists all of them"));
        }
    }
    for (agent, node) in &restored.pinned {
        output::note(format!(
            "{agent} starts only on node {node}, where its SANCTUM is; `mozart node rm {node}` frees it"
        ));
    }
    Ok(())
}
