//! Frames: the messages between supervisors, nodes and shims. Transient, and encoded by the codec.
//!
//! A change of any of these types takes the next version of the codec, and what the version before wrote is still read: `frame/v2.rs`.

pub mod ask;
pub mod carry;
mod v2;

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::shim::Exit;
use crate::{AgentName, Capacity, NodeName, SenderName, Timestamp};

/// What the codec writes in its newest version, and reads in the one before.
pub trait Frame: Serialize + DeserializeOwned {
    /// As the version before wrote it.
    type Before: DeserializeOwned + Into<Self>;
}

/// To a shim, on `shim.<agent>.<token>.command`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShimCommand {
    /// Take messages from the consumer, from now on. Sent as often as the shim says [`ShimReport::Ready`].
    Begin {
        /// Requests up to this sequence of the agent's journal stream may have been given out before: look for their final states and attempts.
        horizon: u64,
        /// Everything before this sequence is settled: nothing of it need be read.
        floor: u64,
        /// Which consumer: another one, or one recreated under its name, is not this incarnation's any more.
        consumer: ConsumerId,
    },
    /// Take no more messages, finish the open turns, exit.
    Drain {
        /// How long the open turns may take.
        within: Duration,
    },
    /// Give up a turn: its message is final already.
    Cancel {
        /// Who sent the message.
        sender: SenderName,
        /// The message.
        message_id: crate::MessageId,
    },
    /// Report now.
    Ping,
    /// A question to a person has an answer: look for it.
    Answered {
        /// Who sent the message.
        sender: SenderName,
        /// The message.
        message_id: crate::MessageId,
        /// The tag of the question's id.
        tag: crate::RequestTag,
    },
}

/// One life of a consumer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerId {
    /// Its name; empty is `<agent>-<incarnation>`.
    pub name: String,
    /// When it was made, by the broker's clock, in nanoseconds since 1970; 0 is not known.
    pub created: u64,
}

/// From a shim, on `shim.<agent>.<incarnation>.report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShimReport {
    /// The worker is ready and the shim has no consumer yet, or lost it. Repeated until [`ShimCommand::Begin`].
    Ready,
    /// Alive. Every 5 s, and after a [`ShimCommand::Ping`].
    Heartbeat(Heartbeat),
    /// It was told to drain and has: it takes no more messages, has none open, and its books are settled. Its end follows, and
    /// takes its time in a container.
    Drained,
}

/// A shim's own figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Messages taken from the consumer and not settled.
    pub held: u32,
    /// Turns with the worker.
    pub open: u32,
    /// Turns that this incarnation finished.
    pub finished: u64,
    /// Final states that another one had stored first.
    pub lost_finals: u64,
    /// Envelopes refused because subject, headers and body disagree.
    pub refused: u64,
    /// The worker's last sign of life, any line: milliseconds ago.
    pub quiet_ms: u64,
    /// The worker's process id.
    pub worker_pid: u32,
}

/// To a node, on `node.<node>.command`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCommand {
    /// The leader's term: a node refuses what is older than the newest it saw.
    pub term: u64,
    /// The process of the node that it is for; none for whichever is there, which is of use to [`NodeCommandBody::List`] only.
    pub instance: Option<u64>,
    /// Rises with every command of a leader, to whichever node.
    pub number: u64,
    /// What to do.
    pub body: NodeCommandBody,
}

/// What a node is to do. Every command may come twice and does the same as once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeCommandBody {
    /// Start an incarnation.
    Start(Box<StartIncarnation>),
    /// Stop one: SIGTERM (the shim then drains), after `within` SIGKILL.
    Stop {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// How long it may take.
        within: Duration,
    },
    /// Report now what runs.
    List,
    /// Another process uses this node's name, and this one is ignored while it does: it must report that as an error.
    Refused,
}

/// Everything that a node needs to start an incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartIncarnation {
    /// The agent.
    pub agent: AgentName,
    /// The generation of its spec.
    pub generation: u64,
    /// The incarnation.
    pub incarnation: u64,
    /// The token of the shim's command subject: 128 random bits in hex.
    pub token: String,
    /// The spec ([`crate::spec::AgentSpec`]) as JSON, which evolves where frames cannot.
    pub spec: String,
}

/// From a node, on `node.<node>.report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeReport {
    /// What runs here: every second, at start, and after [`NodeCommandBody::List`].
    Running(NodeStatus),
    /// An incarnation ended. Repeated with [`NodeReport::Running`] until the leader has logged it.
    Exited {
        /// The process of the node that says so.
        instance: Option<u64>,
        /// How.
        exit: IncarnationExit,
    },
    /// An incarnation could not be started.
    StartFailed {
        /// The process of the node that says so.
        instance: Option<u64>,
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// What is wrong and what to try.
        reason: String,
    },
    /// A start takes its time, as an image that is being pulled does. Every second, until it is done.
    Preparing {
        /// The process of the node that says so.
        instance: Option<u64>,
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// What is being done, with its progress.
        doing: String,
    },
}

/// A node's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// This process of it, random: tells a restarted node from a silent one.
    pub instance: u64,
    /// Earlier processes of it that are known to be dead, by the lock of the folder that they shared: the newest, last.
    pub succeeds: Vec<u64>,
    /// The newest term that it obeys.
    pub term: u64,
    /// The term and number of the newest command that it has taken: it says nothing about what a later one is about. So that it
    /// stays true of earlier ones, a start that comes after a later command was taken is dropped: it will be repeated.
    pub seen: (u64, u64),
    /// `process`, `docker`, `podman`; an engine that answers and cannot be used with the reason: `docker: network x not found`.
    pub runtimes: Vec<String>,
    /// Its labels, for `REQUIRE`.
    pub labels: Vec<(String, String)>,
    /// What it can take.
    pub capacity: Capacity,
    /// Whether the node is going down with all it runs.
    pub draining: bool,
    /// What runs.
    pub running: Vec<RunningIncarnation>,
    /// Ends that may not have been logged yet.
    pub exits: Vec<IncarnationExit>,
}

/// An incarnation that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningIncarnation {
    /// The agent.
    pub agent: AgentName,
    /// The generation.
    pub generation: u64,
    /// The incarnation.
    pub incarnation: u64,
    /// When it started.
    pub started_at: Timestamp,
    /// The shim's process id, for the `process` runtime; 0 for a container.
    pub pid: u32,
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncarnationExit {
    /// The agent.
    pub agent: AgentName,
    /// The incarnation.
    pub incarnation: u64,
    /// How its worker ended.
    pub exit: Exit,
    /// Whether the shim settled its books: the attempts of its open turns are in EVENTS.
    pub clean: bool,
    /// Turns that it finished.
    pub finished: u64,
    /// When.
    pub at: Timestamp,
}

#[cfg(test)]
#[path = "frame/golden.rs"]
mod golden;
