//! Nodes, as supervisors show them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AgentName, Capacity, Load, NodeName, Timestamp};

/// A host that runs agents, as the control log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// Its name.
    pub node: NodeName,
    /// Whether it takes agents.
    pub state: NodeState,
    /// Incarnations that run there, or are about to.
    pub incarnations: u32,
    /// What it can run agents in: `process`, `docker`, `podman`.
    pub runtimes: Vec<String>,
    /// Engines that answer there and cannot be used, with the reason: `docker: network x not found`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusable: Vec<String>,
    /// Its labels, for `REQUIRE`.
    pub labels: BTreeMap<String, String>,
    /// What it can take.
    #[serde(default)]
    pub capacity: Capacity,
    /// What of that the LIMITs of its agents take.
    #[serde(default)]
    pub used: Load,
    /// Since when it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
    /// Whether it is drained, and what has become of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainRow>,
    /// Agents whose last start there failed lately: it is the last choice for them.
    #[serde(default)]
    pub failed: Vec<AgentName>,
    /// The agents that run there; only where one node was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<AgentName>>,
    /// The agents whose SANCTUMs are there; only where one node was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<AgentName>,
}

/// What has become of the drain of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DrainRow {
    /// How many agents are moved at a time.
    pub parallel: u32,
    /// Agents that are being moved, or end there.
    pub moving: Vec<AgentName>,
    /// Agents that wait for their turn.
    pub waiting: Vec<AgentName>,
    /// Agents that stay there.
    pub staying: Vec<StayRow>,
}

/// An agent that stays on a drained node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StayRow {
    /// The agent.
    pub agent: AgentName,
    /// Why.
    pub reason: String,
}

/// A move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoveRow {
    /// The agent.
    pub agent: AgentName,
    /// Where it runs.
    pub from: NodeName,
    /// Where it is to run.
    pub to: NodeName,
}

/// Nodes that are alike to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlacementRow {
    /// The nodes.
    pub nodes: Vec<NodeName>,
    /// Why they cannot run it, in words that go on after a node's name; none if they can.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub text: String,
}

/// Whether a node takes agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum NodeState {
    /// It does.
    Up,
    /// It shuts down in order, with all that it runs.
    Draining,
    /// It was silent for too long: what it ran counts as gone.
    Lost,
}

impl NodeState {
    /// As tables show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}
