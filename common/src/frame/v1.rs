//! Frames of version 1, which is read and not written.

use serde::Deserialize;

use super::{ConsumerId, Frame, IncarnationExit, NodeCommandBody, RunningIncarnation, ShimReport};
use crate::{AgentName, MessageId, NodeName, SenderName};
use std::time::Duration;

#[derive(Debug, Deserialize)]
pub enum ShimCommand {
    Begin { horizon: u64 },
    Drain { within: Duration },
    Cancel { sender: SenderName, message_id: MessageId },
    Ping,
}

impl From<ShimCommand> for super::ShimCommand {
    fn from(before: ShimCommand) -> Self {
        match before {
            ShimCommand::Begin { horizon } => {
                Self::Begin { horizon, floor: 0, consumer: ConsumerId::default() }
            }
            ShimCommand::Drain { within } => Self::Drain { within },
            ShimCommand::Cancel { sender, message_id } => Self::Cancel { sender, message_id },
            ShimCommand::Ping => Self::Ping,
        }
    }
}

impl Frame for super::ShimCommand {
    type Before = ShimCommand;
}

impl Frame for ShimReport {
    type Before = Self;
}

#[derive(Debug, Deserialize)]
pub struct NodeCommand {
    term: u64,
    body: NodeCommandBody,
}

impl From<NodeCommand> for super::NodeCommand {
    fn from(NodeCommand { term, body }: NodeCommand) -> Self {
        Self { term, instance: None, number: 0, body }
    }
}

impl Frame for super::NodeCommand {
    type Before = NodeCommand;
}

#[derive(Debug, Deserialize)]
pub enum NodeReport {
    Running(NodeStatus),
    Exited(IncarnationExit),
    StartFailed { agent: AgentName, incarnation: u64, reason: String },
    Preparing { agent: AgentName, incarnation: u64, doing: String },
}

#[derive(Debug, Deserialize)]
pub struct NodeStatus {
    node: NodeName,
    instance: u64,
    term: u64,
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
                succeeds: Vec::new(),
                term: status.term,
                // What it has taken it does not say: it is believed, as it was.
                seen: (status.term, u64::MAX),
                runtimes: status.runtimes,
                labels: status.labels,
                draining: status.draining,
                running: status.running,
                exits: status.exits,
            }),
            NodeReport::Exited(exit) => Self::Exited { instance: None, exit },
            NodeReport::StartFailed { agent, incarnation, reason } => {
                Self::StartFailed { instance: None, agent, incarnation, reason }
            }
            NodeReport::Preparing { agent, incarnation, doing } => {
                Self::Preparing { instance: None, agent, incarnation, doing }
            }
        }
    }
}

impl Frame for super::NodeReport {
    type Before = NodeReport;
}
