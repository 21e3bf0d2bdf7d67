//! The queries of clients to the supervisors (`query`, JSON), and the JSON of the command line that scripts rely on.

mod carry;
mod node;
mod question;
mod schedule;

use serde::{Deserialize, Serialize};

pub use self::carry::{CarryRow, CarryState};
pub use self::node::{DrainRow, MoveRow, NodeRow, NodeState, PlacementRow, StayRow};
pub use self::question::{AnswerTaken, AnswerTo, QuestionPage, Reading};
pub use self::schedule::{SchedulePage, ScheduleRow};
use crate::event::Event;
use crate::files::Files;
use crate::message::{Cause, Kind, Status};
use crate::shim::Exit;
use crate::spec::AgentSpec;
use crate::step::StepMark;
use crate::{AgentName, ConversationId, MessageId, NodeName, ScheduleId, SenderName, Timestamp};

/// A request on `query`. Any supervisor answers; replies are [`Reply`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "op")]
pub enum Query {
    /// Registers souls: all, or none if one is wrong.
    Apply {
        /// The souls.
        souls: Vec<SoulSource>,
        /// Make new generations even if nothing changed.
        force: bool,
    },
    /// Runs an agent; releases a quarantine.
    Start {
        /// The agent.
        agent: AgentName,
    },
    /// Stops an agent.
    Stop {
        /// The agent.
        agent: AgentName,
    },
    /// Stops and starts an agent.
    Restart {
        /// The agent.
        agent: AgentName,
    },
    /// Starts a new incarnation as `REPLACE` says.
    Replace {
        /// The agent.
        agent: AgentName,
        /// Of a new generation, with this `IMAGE`, unless that is what it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
    },
    /// Makes a new generation with the spec of the one that was ready before the one that is to run now, or of another one.
    Rollback {
        /// The agent.
        agent: AgentName,
        /// The generation to go back to, as the control log has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Box<Earlier>>,
    },
    /// Stops and forgets an agent.
    Remove {
        /// The agent.
        agent: AgentName,
    },
    /// Lists agents, in the order of their names.
    Ps {
        /// One agent only.
        agent: Option<AgentName>,
        /// Leaves out what only the journal knows (`messageCount`, `inbox`, `oldest`), and `asks`: for clients that ask repeatedly.
        #[serde(default)]
        brief: bool,
        /// Only those whose names come after this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<AgentName>,
        /// At most so many, and no more than fit the reply, which is then a [`Reply::PsPage`]. Without it all of them are sent, or an
        /// error where they do not fit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
        /// Of a page: only those that are [in trouble](AgentRow::is_in_trouble). A supervisor of an earlier version tells of all of them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_trouble: bool,
    },
    /// Lists nodes, in the order of their names.
    Nodes {
        /// One node only, with its agents.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeName>,
    },
    /// Moves an agent to a node, as `REPLACE` says.
    Move {
        /// The agent.
        agent: AgentName,
        /// The node.
        to: NodeName,
    },
    /// What has become of the last copy of an agent's SANCTUM to another node.
    Carried {
        /// The agent.
        agent: AgentName,
    },
    /// Lists schedules, in the order of agents and ids.
    Schedules {
        /// Those of one agent only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<AgentName>,
        /// Only those after this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<(AgentName, ScheduleId)>,
        /// At most so many, and no more than fit the reply.
        limit: usize,
    },
    /// Pauses a schedule, or lets it go on.
    PauseSchedule {
        /// The agent.
        agent: AgentName,
        /// The schedule.
        schedule: ScheduleId,
        /// Whether it is to be paused.
        paused: bool,
    },
    /// Sends the prompt of a schedule now, besides its occurrences.
    RunSchedule {
        /// The agent.
        agent: AgentName,
        /// The schedule.
        schedule: ScheduleId,
        /// The id of the message: a request that is repeated sends it once.
        message_id: MessageId,
    },
    /// Lists the questions to people that are open, in the order in which they were asked.
    Questions {
        /// Those of one agent only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<AgentName>,
        /// Only those after this place.
        #[serde(default)]
        after: u64,
        /// At most so many, and no more than fit the reply.
        limit: usize,
    },
    /// Answers a question.
    Answer(AnswerTo),
    /// Moves the agents of a node to others, and starts none there any more.
    Drain {
        /// The node.
        node: NodeName,
        /// How many agents are moved at a time.
        parallel: u32,
    },
    /// Lets a drained node take agents again.
    Undrain {
        /// The node.
        node: NodeName,
    },
    /// Forgets a node that is lost.
    RemoveNode {
        /// The node.
        node: NodeName,
        /// Although agents are pinned to it, which then start elsewhere without their data.
        force: bool,
    },
    /// Which moves would even out the nodes.
    Rebalance,
    /// Everything known about one agent.
    Inspect {
        /// The agent.
        agent: AgentName,
    },
    /// Tells the shim that a message became final: give up its turn.
    Cancelled {
        /// The agent.
        agent: AgentName,
        /// Who sent the message.
        sender: SenderName,
        /// The message.
        message_id: MessageId,
    },
    /// Who answers, and who leads.
    Hello,
}

/// An earlier generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Earlier {
    /// Its number.
    pub generation: u64,
    /// What it was.
    pub spec: AgentSpec,
}

/// A soul as text, parsed by the supervisor with the parser of `mozart validate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SoulSource {
    /// The agent's name, from the file's or folder's name.
    pub name: AgentName,
    /// The file, absolute.
    pub path: String,
    /// Its text.
    pub text: String,
    /// What the files are that it names: [`crate::spec::AgentSpec::content`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The archive of its folder, which is on the broker: [`crate::spec::AgentSpec::files`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
}

/// A reply on `query`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "result",
    content = "value"
)]
pub enum Reply {
    /// Done; for `Apply` and the lifecycle.
    Agents(Vec<Applied>),
    /// For `Ps` without a limit.
    Ps(Vec<AgentRow>),
    /// For `Ps` with a limit.
    PsPage(AgentPage),
    /// For `Inspect`.
    Inspect(Box<AgentDetail>),
    /// For `Hello`.
    Hello(Hello),
    /// For `Nodes`.
    Nodes(Vec<NodeRow>),
    /// For `Rebalance`.
    Moves(Vec<MoveRow>),
    /// For `Schedules`.
    Schedules(SchedulePage),
    /// For `Questions`.
    Questions(QuestionPage),
    /// For `Answer`.
    AnswerTaken(AnswerTaken),
    /// For `Carried`.
    Carried(Option<CarryRow>),
    /// For `Cancelled`, and what changes nodes.
    Done,
    /// It did not work.
    Error(ApiError),
}

/// What became of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The agent.
    pub agent: AgentName,
    /// Its generation now.
    pub generation: u64,
    /// Whether anything changed.
    pub changed: bool,
    /// Whether there was no such agent before.
    #[serde(default)]
    pub created: bool,
    /// The incarnation that was there before: what is started because of this has a higher number.
    #[serde(default)]
    pub previous_incarnation: u64,
}

/// An error with the exit code that the command line ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}")]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// Exit code, as in the command line's help.
    pub code: u8,
    /// What did not work.
    pub what: String,
    /// Why.
    #[serde(default)]
    pub cause: String,
    /// What to try.
    #[serde(default, rename = "try")]
    pub try_: String,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The supervisor's id.
    pub supervisor: String,
    /// Its version.
    pub version: String,
    /// The supervisor that was elected last, as the log says. It may be long gone.
    pub leader: Option<String>,
    /// The supervisor that holds the lease now, as far as this one knows; none if nobody does.
    #[serde(default)]
    pub holder: Option<String>,
    /// The nodes that are lost.
    #[serde(default)]
    pub lost: Vec<String>,
    /// The first record of the control log that this one cannot read, and why: it never leads.
    #[serde(default)]
    pub unreadable: Option<String>,
    /// The term.
    pub term: u64,
    /// Nodes that are there.
    pub nodes: Vec<String>,
    /// Nodes that finish what runs there, and then go.
    #[serde(default)]
    pub draining: Vec<String>,
}

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum AgentState {
    /// Its worker is not ready yet.
    Starting,
    /// Its worker takes messages.
    Running,
    /// Its worker is gone and will be started again, or is quarantined: see the reason.
    Error,
    /// It is to stop, and something of it still runs: it finishes its open turns.
    Stopping,
    /// Stopped on purpose, or done: nothing of it runs.
    Stopped,
}

impl AgentState {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Error => "error",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// What an earlier supervisor does not say.
fn yes() -> bool {
    true
}

/// A row of `ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentRow {
    /// The agent.
    pub agent: AgentName,
    /// What it is doing.
    pub state: AgentState,
    /// Why, where that is not obvious.
    pub reason: Option<String>,
    /// The generation of its spec.
    pub generation: u64,
    /// Its incarnation.
    pub incarnation: u64,
    /// Restarts since it was last stable, without one that is yet to come.
    pub restart_count: u32,
    /// Messages in the journal.
    pub message_count: u64,
    /// Where it runs.
    pub node: Option<String>,
    /// Since when it is running.
    pub started_at: Option<Timestamp>,
    /// Messages that wait.
    pub inbox: u64,
    /// Messages that its shim holds.
    pub inflight: u64,
    /// The oldest message that is not final.
    pub oldest: Option<Timestamp>,
    /// Questions to people that are open.
    #[serde(default)]
    pub asks: u64,
    /// How old `inbox` and `oldest` are.
    #[serde(default)]
    pub counts: Counts,
    /// How its worker last ended.
    pub last_exit: Option<String>,
    /// When that was.
    #[serde(default)]
    pub last_exit_at: Option<Timestamp>,
    /// When it is started next.
    pub next_try: Option<Timestamp>,
    /// Whether its node has said lately that it runs: after a crash of the host, the log may not know yet.
    #[serde(default = "yes")]
    pub reported: bool,
    /// The incarnation that takes its messages.
    #[serde(default)]
    pub running_incarnation: Option<u64>,
    /// The generation of that: an earlier one while the newest is not ready yet, or was rolled back.
    #[serde(default)]
    pub running_generation: Option<u64>,
    /// Why the last replacement was given up, until another is tried.
    #[serde(default)]
    pub given_up: Option<String>,
    /// The generation that is to run: an earlier one where the newest was given up.
    #[serde(default)]
    pub target_generation: u64,
    /// Whether too many restarts have ended in a quarantine, from which only somebody releases it.
    #[serde(default)]
    pub quarantined: bool,
}

impl AgentRow {
    /// Whether it does not run although it should, and may not come back by itself.
    #[must_use]
    pub fn is_in_trouble(&self) -> bool {
        self.quarantined || self.state == AgentState::Error
    }
}

/// How old the figures about an agent's messages are. They come from the broker, and a client does not wait for a busy one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Counts {
    /// The broker has told them for this answer.
    Current,
    /// They are what it told for an earlier one.
    Earlier,
    /// It has told none yet: they are 0.
    #[default]
    Unknown,
}

/// A page of `ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentPage {
    /// Its rows, in the order of the agents' names.
    pub rows: Vec<AgentRow>,
    /// Whether there are agents after the last of them.
    pub more: bool,
}

/// Everything known about one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentDetail {
    /// The agent's name.
    pub id: AgentName,
    /// Its row.
    #[serde(flatten)]
    pub row: AgentRow,
    /// Its spec.
    pub config: AgentSpec,
    /// That of the generation which runs, or is to run, where it is an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_config: Option<Box<AgentSpec>>,
    /// Desired to run.
    pub desired_running: bool,
    /// Its last end.
    pub exit: Option<Exit>,
    /// Which nodes can run it, and why others cannot.
    #[serde(default)]
    pub placement: Vec<PlacementRow>,
    /// The only node that it can run on, because its SANCTUM is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_to: Option<NodeName>,
}

impl AgentDetail {
    /// The spec that is in use: a newer one was given up, or is not ready yet.
    #[must_use]
    pub fn in_force(&self) -> &AgentSpec {
        self.running_config.as_deref().unwrap_or(&self.config)
    }
}

/// A message, as `journal ls` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MessageRow {
    /// The id.
    pub message_id: MessageId,
    /// Who is to answer.
    pub agent: AgentName,
    /// Who sent it.
    pub sender: SenderName,
    /// The ordering key.
    pub conversation_id: ConversationId,
    /// What kind.
    pub kind: Kind,
    /// The text.
    pub message: String,
    /// Its status.
    pub status: Status,
    /// Attempts so far.
    pub attempts: u32,
    /// The answer.
    pub response: Option<String>,
    /// Why, when it is final without an answer.
    pub reason: Option<String>,
    /// When it was sent.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// The message that led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The dead message that it repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<MessageId>,
    /// The nominal time of the occurrence that a schedule sent it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
    /// When it is to be delivered, if it was sent for later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
}

/// A message with everything that happened to it: `journal show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MessageDetail {
    /// The row.
    #[serde(flatten)]
    pub row: MessageRow,
    /// What happened, in order.
    pub history: Vec<Event>,
    /// The steps that its worker has stored, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepMark>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_versions_ask_is_understood() {
        let all =
            Query::Ps { agent: None, brief: false, after: None, limit: None, in_trouble: false };
        for earlier in [r#"{"op":"ps"}"#, r#"{"op":"ps","agent":null,"brief":false}"#] {
            assert_eq!(serde_json::from_str::<Query>(earlier).ok(), Some(all.clone()), "{earlier}");
        }
        // And what this one asks without a page is what they know.
        let text = serde_json::to_string(&all).expect("plain");
        assert_eq!(text, r#"{"op":"ps","agent":null,"brief":false}"#);
        let after = AgentName::new("a1").ok();
        let page = Query::Ps { agent: None, brief: true, after, limit: Some(7), in_trouble: false };
        let text = serde_json::to_string(&page).expect("plain");
        assert_eq!(text, r#"{"op":"ps","agent":null,"brief":true,"after":"a1","limit":7}"#);
    }
}
