//! What supervisors, nodes and shims tell each other: transient, in the codec's frames.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{AgentName, NodeName, SenderName, Timestamp};

/// To a shim, on `shim.<agent>.<token>.command`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShimCommand {
    /// Take messages from the consumer, from now on. Sent as often as the shim says [`ShimReport::Ready`].
    Begin {
        /// Requests up to this sequence of the agent's journal stream may have been given out before: look for their final states and attempts.
        horizon: u64,
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
}

/// From a shim, on `shim.<agent>.<incarnation>.report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShimReport {
    /// The worker is ready and the shim has no consumer yet, or lost it. Repeated until [`ShimCommand::Begin`].
    Ready,
    /// Alive. Every 5 s, and after a [`ShimCommand::Ping`].
    Heartbeat(Heartbeat),
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
    Exited(IncarnationExit),
    /// An incarnation could not be started.
    StartFailed {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// What is wrong and what helps.
        reason: String,
    },
}

/// A node's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// This process of it, random: tells a restarted node from a silent one.
    pub instance: u64,
    /// The newest term that it obeys.
    pub term: u64,
    /// `process`, `docker`, `podman`.
    pub runtimes: Vec<String>,
    /// Its labels, for `REQUIRE`.
    pub labels: Vec<(String, String)>,
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
    /// The shim's process id, for the `process` runtime.
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

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Its exit code.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal that killed it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether the kernel killed it for its memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// More, in words: `not ready within 60s`, `turn timed out`.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Exit {
    /// As people write it: `exit code 1`, `signal 9 (SIGKILL)`, with the reason in front where there is one. A signal is also
    /// shown as the exit code 128 + n that a shell would report.
    #[must_use]
    pub fn describe(&self) -> String {
        let how = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("exit code {} (signal {signal})", 128 + signal),
            (None, None) => "gone".to_owned(),
        };
        let how = if self.out_of_memory { format!("{how}, out of memory") } else { how };
        let is_bare = self.code.is_none() && self.signal.is_none() && !self.out_of_memory;
        match &self.reason {
            Some(reason) if is_bare => reason.clone(),
            Some(reason) => format!("{reason} ({how})"),
            None => how,
        }
    }
}

/// What a shim leaves in its run folder when it ends, for the node: the process runtime's exit file, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimExit {
    /// How the worker ended.
    pub exit: Exit,
    /// Turns that were finished.
    pub finished: u64,
    /// Whether every open turn's attempt is on record.
    pub clean: bool,
    /// When the worker ended.
    pub at: Timestamp,
}

/// What a shim is told at its start: a file in JSON that only its user can read, removed once read. Its path is in
/// [`CONFIG_ENV`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimConfig {
    /// The broker's address, with credentials.
    pub url: String,
    /// A credentials file.
    #[serde(default)]
    pub creds: Option<String>,
    /// The fleet.
    pub namespace: crate::Namespace,
    /// The incarnation.
    pub incarnation: u64,
    /// The generation.
    pub generation: u64,
    /// The token of its command subject.
    pub token: String,
    /// The agent.
    pub spec: crate::spec::AgentSpec,
    /// The worker's working directory; the shim's own when it is none.
    #[serde(default)]
    pub workdir: Option<String>,
    /// Where to leave a [`ShimExit`].
    pub exit_file: String,
}

/// The environment variable with the path of the [`ShimConfig`].
pub const CONFIG_ENV: &str = "MOZART_SHIM_CONFIG";

/// The environment variable that labels every process of an incarnation: `<namespace>/<node>/<agent>/<generation>/<incarnation>`.
pub const LABEL_ENV: &str = "MOZART_INCARNATION";
