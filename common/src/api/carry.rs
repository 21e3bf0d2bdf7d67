//! What has become of the SANCTUM of an agent that is moved.

use serde::{Deserialize, Serialize};

use crate::NodeName;

/// A copy of an agent's SANCTUM to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CarryRow {
    /// Its number: that of the record that asked for it.
    pub copy: u64,
    /// The node that had it.
    pub from: NodeName,
    /// The node that gets it.
    pub to: NodeName,
    /// What has become of it.
    pub state: CarryState,
    /// How many bytes were copied, while that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Of so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The folders that were copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copied: Vec<String>,
    /// Where the node that it came from keeps the previous copy; none until it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Vec<String>>,
}

/// What has become of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CarryState {
    /// It waits for the agent to stop, or is under way.
    Copying,
    /// The agent runs from the copy, or is about to.
    Moved,
    /// It was given up: the agent stays where it was.
    Failed,
}
