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
    /// A start takes its time, as an image that is being pulled does. Every second, until it is done.
    Preparing {
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
            (None, Some(signal)) => {
                format!("exit code {} (signal {signal})", signal.saturating_add(128))
            }
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

/// What a shim leaves when it ends, for the node, in JSON: in the exit file of its run folder, or, in a container, as the last
/// line of its stdout.
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

/// What a shim is told at its start, in JSON: in a file that only its user can read, removed once read, whose path is in
/// [`CONFIG_ENV`]; or, in a container, on its stdin, so that it is nowhere on a disk and in nothing that an engine shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimConfig {
    /// The broker's address, with credentials.
    pub url: String,
    /// A credentials file.
    #[serde(default)]
    pub creds: Option<String>,
    /// The text of one, where the shim cannot see the node's files.
    #[serde(default)]
    pub creds_text: Option<String>,
    /// Values for the worker's environment that must not be seen anywhere else.
    #[serde(default)]
    pub secrets: std::collections::BTreeMap<String, String>,
    /// Whom the worker runs as; the shim's own user when it is none.
    #[serde(default)]
    pub user: Option<WorkerUser>,
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
    /// Where to leave a [`ShimExit`]; stdout when it is none.
    #[serde(default)]
    pub exit_file: Option<String>,
}

/// Whom a worker in a container runs as: never root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerUser {
    /// As the image says: a name or a number, with `:group` or without. Not used if it is root.
    #[serde(default)]
    pub image: Option<String>,
    /// The user and group, where the image says nothing.
    pub id: u32,
}

/// The word that starts a shim in a container: its configuration comes on stdin.
pub const CONTAINER: &str = "container";

/// The key of the line with which a shim in a container leaves its [`ShimExit`] on stdout.
pub const EXIT_KEY: &str = "mozartShimExit";

/// The environment variable with the path of the [`ShimConfig`].
pub const CONFIG_ENV: &str = "MOZART_SHIM_CONFIG";

/// The environment variable that labels every process of an incarnation: `<namespace>/<node>/<agent>/<generation>/<incarnation>`.
pub const LABEL_ENV: &str = "MOZART_INCARNATION";

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::MessageId;
    use crate::codec::{decode, encode};

    fn agent() -> AgentName {
        AgentName::new("ab").expect("valid")
    }

    fn exit(signal: Option<i32>) -> IncarnationExit {
        IncarnationExit {
            agent: agent(),
            incarnation: 7,
            exit: Exit { code: None, signal, out_of_memory: true, reason: Some("r".into()) },
            clean: true,
            finished: 300,
            at: Timestamp::from_millis(1_700_000_000_123),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut out, byte| {
            // Writing to a string cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    /// The bytes of version 1. One that changes breaks a fleet of mixed versions silently: change `codec::VERSION` with it.
    #[test]
    fn golden_bytes_of_every_frame() {
        fn golden<T>(frame: &T, bytes: &str)
        where
            T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
        {
            let encoded = encode(frame).expect("small");
            assert_eq!(hex(&encoded), bytes, "{frame:?}");
            assert_eq!(&decode::<T>(&encoded).expect("what was written"), frame);
        }

        let within = Duration::from_millis(1500);
        golden(&ShimCommand::Begin { horizon: 70_000 }, "0100fc70110100");
        golden(&ShimCommand::Drain { within }, "010101fc0065cd1d");
        let sender = SenderName::new("user").expect("valid");
        let message_id = MessageId::new("m1").expect("valid");
        golden(&ShimCommand::Cancel { sender, message_id }, "01020475736572026d31");
        golden(&ShimCommand::Ping, "0103");

        golden(&ShimReport::Ready, "0100");
        let heartbeat = Heartbeat {
            held: 1,
            open: 2,
            finished: 3,
            lost_finals: 4,
            refused: 5,
            quiet_ms: 6,
            worker_pid: 70_000,
        };
        golden(&ShimReport::Heartbeat(heartbeat), "0101010203040506fc70110100");
        golden(&ShimReport::Drained, "0102");

        let start = StartIncarnation {
            agent: agent(),
            generation: 3,
            incarnation: 7,
            token: "t0".into(),
            spec: "{}".into(),
        };
        let command = |body| NodeCommand { term: 9, body };
        golden(&command(NodeCommandBody::Start(Box::new(start))), "0109000261620307027430027b7d");
        let stop = NodeCommandBody::Stop { agent: agent(), incarnation: 7, within };
        golden(&command(stop), "0109010261620701fc0065cd1d");
        golden(&command(NodeCommandBody::List), "010902");

        let running = RunningIncarnation {
            agent: agent(),
            generation: 3,
            incarnation: 8,
            started_at: Timestamp::from_millis(1),
            pid: 4242,
        };
        let status = NodeStatus {
            node: NodeName::new("n1").expect("valid"),
            instance: u64::MAX,
            term: 9,
            runtimes: vec!["process".into()],
            labels: vec![("zone".into(), "eu".into())],
            draining: false,
            running: vec![running],
            exits: vec![exit(Some(9))],
        };
        golden(
            &NodeReport::Running(status),
            "0100026e31fdffffffffffffffff09010770726f6365737301047a6f6e650265750001026162030801fb921001026162070001120101017201fb2c01fd7b68e5cf8b010000",
        );
        golden(
            &NodeReport::Exited(exit(None)),
            "01010261620700000101017201fb2c01fd7b68e5cf8b010000",
        );
        let failed =
            NodeReport::StartFailed { agent: agent(), incarnation: 7, reason: "no".into() };
        golden(&failed, "010202616207026e6f");
        let preparing =
            NodeReport::Preparing { agent: agent(), incarnation: 7, doing: "pulling".into() };
        golden(&preparing, "0103026162070770756c6c696e67");
    }

    #[test]
    fn an_exit_is_described_in_words() {
        let exit = |code, signal, out_of_memory, reason: Option<&str>| Exit {
            code,
            signal,
            out_of_memory,
            reason: reason.map(Into::into),
        };
        for (exit, words) in [
            (exit(Some(1), None, false, None), "exit code 1"),
            (exit(None, Some(9), false, None), "exit code 137 (signal 9)"),
            (exit(None, Some(9), true, None), "exit code 137 (signal 9), out of memory"),
            (exit(Some(0), None, false, Some("stopped")), "stopped (exit code 0)"),
            (exit(None, None, false, Some("not ready within 60s")), "not ready within 60s"),
            (exit(None, None, false, None), "gone"),
            (exit(None, Some(i32::MAX), false, None), "exit code 2147483647 (signal 2147483647)"),
        ] {
            assert_eq!(exit.describe(), words);
        }
    }
}
