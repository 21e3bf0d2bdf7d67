//! Frames of version 2, which is read and not written: a node did not say what it can take.

use serde::Deserialize;

use super::{Frame, IncarnationExit, NodeCommand, RunningIncarnation, ShimCommand, ShimReport};
use crate::{AgentName, Capacity, NodeName};

impl Frame for ShimCommand {
    type Before = Self;
}

impl Frame for ShimReport {
    type Before = Self;
}

impl Frame for NodeCommand {
    type Before = Self;
}

#[derive(Debug, Deserialize)]
pub enum NodeReport {
    Running(NodeStatus),
    Exited { instance: Option<u64>, exit: IncarnationExit },
    StartFailed { instance: Option<u64>, agent: AgentName, incarnation: u64, reason: String },
    Preparing { instance: Option<u64>, agent: AgentName, incarnation: u64, doing: String },
}

#[derive(Debug, Deserialize)]
pub struct NodeStatus {
    node: NodeName,
    instance: u64,
    succeeds: Vec<u64>,
    term: u64,
    seen: (u64, u64),
    runtimes: Vec<String>,
    labels: Vec<(String, String)>,
    draining: bool,
    running: Vec<RunningIncarnation>,
    exits: Vec<IncarnationExit>,
}

impl From<NodeReport> for super::NodeReport {
    fn from(before: NodeReport) -> Self {
        match before {
            NodeReport::Running(status) => Self::Running(super::NodeStatus {
                node: status.node,
                instance: status.instance,
                succeeds: status.succeeds,
                term: status.term,
                seen: status.seen,
                runtimes: status.runtimes,
                labels: status.labels,
                // It takes whatever it is given, as it did.
                capacity: Capacity::default(),
                draining: status.draining,
                running: status.running,
                exits: status.exits,
            }),
            NodeReport::Exited { instance, exit } => Self::Exited { instance, exit },
            NodeReport::StartFailed { instance, agent, incarnation, reason } => {
                Self::StartFailed { instance, agent, incarnation, reason }
            }
            NodeReport::Preparing { instance, agent, incarnation, doing } => {
                Self::Preparing { instance, agent, incarnation, doing }
            }
        }
    }
}

impl Frame for super::NodeReport {
    type Before = NodeReport;
}
