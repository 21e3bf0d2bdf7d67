//! The hosts that run incarnations, as the log says.

use std::collections::{BTreeMap, BTreeSet};

use common::{AgentName, Capacity, Load, NodeName, Timestamp};
use serde::{Deserialize, Serialize};

/// A host that runs incarnations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its process: another number after each start of it.
    pub instance: u64,
    /// What it can run: `process`, `docker`, `podman`; `docker: REASON` is an engine that it cannot use.
    pub runtimes: BTreeSet<String>,
    /// Its labels, for `REQUIRE`.
    pub labels: BTreeMap<String, String>,
    /// What it can take.
    #[serde(default)]
    pub capacity: Capacity,
    /// What of that is taken, by the LIMITs of the agents that run there or are about to.
    #[serde(default)]
    pub load: Load,
    /// Whether it is there.
    pub phase: NodePhase,
    /// Since when it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
    /// Whether it takes no incarnations because somebody drained it: how many of its agents are moved at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<u32>,
    /// How many incarnations the fold has placed there and not seen ended.
    pub incarnations: u32,
    /// Agents whose last start there failed, and when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<AgentName, Timestamp>,
    /// When an incarnation last became ready there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<Timestamp>,
}

/// Whether a node takes incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodePhase {
    /// It does.
    Up,
    /// It shuts down in order, with all it runs.
    Draining,
    /// It was silent for too long; what it ran counts as gone.
    Lost,
}
