//! What the leader is to do. Every action may be performed twice, with the same effect as once.

use std::time::Duration;

use common::control::Timer;
use common::{AgentName, NodeName, Timestamp};

use crate::state::Predecessor;

/// An effect that the fold asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Give a start its number and its place: append [`crate::allocate`].
    Allocate {
        /// The agent.
        agent: AgentName,
    },
    /// Ask a node what it runs, so that it learns of this leadership.
    Ask {
        /// The node.
        node: NodeName,
    },
    /// Tell an instance of a node that another one of its name is at work, and that it is not to be one.
    Refuse {
        /// The node.
        node: NodeName,
        /// The instance.
        instance: u64,
    },
    /// Tell the shim of an incarnation that is over to end: its node may never come back to do so.
    Dismiss {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
    },
    /// Tell a node to start an incarnation. Its spec is [`crate::Agent::spec_of`] the generation.
    Start {
        /// The node.
        node: NodeName,
        /// The process of it, and no other: whether one before started it is not known to the next.
        instance: u64,
        /// The agent.
        agent: AgentName,
        /// The generation of the spec to run.
        generation: u64,
        /// The incarnation.
        incarnation: u64,
        /// Whether it starts while another one still takes messages.
        warm: bool,
    },
    /// Tell a node to stop an incarnation.
    Stop {
        /// The node.
        node: NodeName,
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// How long it may finish its turns.
        within: Duration,
    },
    /// Let an incarnation take messages: replace the consumers of all earlier ones by its own, and tell its shim to begin.
    ///
    /// An admission may arrive late, from a leader that was deposed meanwhile: where a consumer of a later incarnation is
    /// there already, it must do nothing.
    Admit {
        /// The agent.
        agent: AgentName,
        /// The incarnation. Greater than that of every `Admit` of the agent before.
        incarnation: u64,
        /// The sequence of the agent's journal stream before which everything is settled.
        floor: u64,
        /// The incarnation admitted before, whose consumer may still be there.
        previous: Option<u64>,
        /// Whether that one settled its books before it ended.
        previous_clean: bool,
        /// Those before it whose handover is not on record, oldest first: its leader or their successor may have died in the
        /// middle of it. Their consumers may still be there, and their books open.
        earlier: Vec<Predecessor>,
    },
    /// Append [`common::control::ControlEvent::TimerFired`] when it is time.
    SetTimer {
        /// The agent.
        agent: AgentName,
        /// Which.
        timer: Timer,
        /// The incarnation that it is for.
        incarnation: u64,
        /// When.
        at: Timestamp,
    },
    /// Forget a timer. One that fires nevertheless changes nothing.
    CancelTimer {
        /// The agent.
        agent: AgentName,
        /// Which.
        timer: Timer,
        /// The incarnation that it was for.
        incarnation: u64,
    },
}
