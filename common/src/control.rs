//! The records of the control log: facts and decisions about agents, JSON in CONTROL, folded by every supervisor.

use serde::{Deserialize, Serialize};

use crate::shim::Exit;
use crate::spec::AgentSpec;
use crate::{AgentName, NodeName, Timestamp};

/// A record as the log stores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlRecord {
    /// When, by its author's clock: the only time that the fold knows.
    pub at: Timestamp,
    /// The leader's term, in records that only a leader may write. The fold ignores those of an older term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Who wrote it: a supervisor's id, or `cli`.
    pub author: String,
    /// What happened.
    #[serde(flatten)]
    pub event: ControlEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum ControlEvent {
    // What people want: any supervisor writes these for a client.
    /// A soul was registered.
    AgentApplied {
        /// The spec.
        spec: Box<AgentSpec>,
        /// Make a new generation even if nothing changed.
        force: bool,
        /// What was asked for, where that was no soul: `image nginx:2`, `rollback to generation 3`. Shown, and ignored by the fold.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
    },
    /// Run it; releases a quarantine.
    AgentStarted {
        /// The agent.
        agent: AgentName,
    },
    /// Stop it and keep it stopped.
    AgentStopped {
        /// The agent.
        agent: AgentName,
    },
    /// A new incarnation, the old one stopped first.
    AgentRestarted {
        /// The agent.
        agent: AgentName,
    },
    /// A new incarnation as `REPLACE` says.
    AgentReplaced {
        /// The agent.
        agent: AgentName,
    },
    /// Forget it, once it is stopped. Its messages stay in the journal.
    AgentRemoved {
        /// The agent.
        agent: AgentName,
    },

    // What the leader saw or decided: ignored unless their term is the newest.
    /// A supervisor took the lease.
    LeaderElected {
        /// Its id.
        supervisor: String,
    },
    /// A node reports for the first time, with another instance, or after it was lost.
    NodeSeen {
        /// The node.
        node: NodeName,
        /// Its process.
        instance: u64,
        /// What it can run.
        runtimes: Vec<String>,
        /// Its labels.
        labels: Vec<(String, String)>,
    },
    /// A node goes down in order: its incarnations end without being crashes, and start again where it, or another, is seen.
    NodeDraining {
        /// The node.
        node: NodeName,
    },
    /// No report for too long.
    NodeLost {
        /// The node.
        node: NodeName,
    },
    /// An incarnation's worker said ready for the first time.
    IncarnationReady {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// Its consumer starts at this sequence of the agent's journal stream: all before is settled.
        floor: u64,
    },
    /// An incarnation has its consumer, and the books of the one before are settled: that need not be done again.
    IncarnationBegun {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
    },
    /// An incarnation that was told to drain takes no more messages, has none open, and its books are settled: the one that is
    /// ready beside it takes over before its end is seen.
    IncarnationDrained {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
    },
    /// An incarnation is gone.
    IncarnationExited {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// How it ended.
        exit: Exit,
        /// Whether its shim settled its books.
        clean: bool,
    },
    /// An incarnation could not be started.
    StartFailed {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// Why.
        reason: String,
    },
    /// An incarnation is there, and nothing was heard of its shim for too long: it is ended, and counts as crashed.
    IncarnationHung {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// For how long, in seconds.
        silent_for: u64,
    },
    /// An incarnation has been up for 60 s and finished a turn: its agent's restart count begins anew.
    IncarnationStable {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
    },
    /// A timer that the fold asked for.
    TimerFired {
        /// The agent.
        agent: AgentName,
        /// Which.
        timer: Timer,
        /// The incarnation that it was set for.
        incarnation: u64,
    },
    /// Written by a newer version: kept, shown, ignored by the fold.
    #[serde(other)]
    Unknown,
}

/// The timers of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Timer {
    /// The delay before the next start.
    Restart,
    /// The time to say ready.
    Ready,
    /// The time to drain and be gone.
    Drain,
}

impl ControlEvent {
    /// The agent that the record is about; none for the fleet's.
    #[must_use]
    pub fn agent(&self) -> Option<&AgentName> {
        match self {
            Self::AgentApplied { spec, .. } => Some(&spec.name),
            Self::AgentStarted { agent }
            | Self::AgentStopped { agent }
            | Self::AgentRestarted { agent }
            | Self::AgentReplaced { agent }
            | Self::AgentRemoved { agent }
            | Self::IncarnationReady { agent, .. }
            | Self::IncarnationBegun { agent, .. }
            | Self::IncarnationDrained { agent, .. }
            | Self::IncarnationExited { agent, .. }
            | Self::StartFailed { agent, .. }
            | Self::IncarnationHung { agent, .. }
            | Self::IncarnationStable { agent, .. }
            | Self::TimerFired { agent, .. } => Some(agent),
            Self::LeaderElected { .. }
            | Self::NodeSeen { .. }
            | Self::NodeDraining { .. }
            | Self::NodeLost { .. }
            | Self::Unknown => None,
        }
    }

    /// Whether only a leader may write it.
    #[must_use]
    pub fn is_leaders(&self) -> bool {
        match self {
            Self::AgentApplied { .. }
            | Self::AgentStarted { .. }
            | Self::AgentStopped { .. }
            | Self::AgentRestarted { .. }
            | Self::AgentReplaced { .. }
            | Self::AgentRemoved { .. }
            | Self::Unknown => false,
            Self::LeaderElected { .. }
            | Self::NodeSeen { .. }
            | Self::NodeDraining { .. }
            | Self::NodeLost { .. }
            | Self::IncarnationReady { .. }
            | Self::IncarnationBegun { .. }
            | Self::IncarnationDrained { .. }
            | Self::IncarnationExited { .. }
            | Self::StartFailed { .. }
            | Self::IncarnationHung { .. }
            | Self::IncarnationStable { .. }
            | Self::TimerFired { .. } => true,
        }
    }
}
