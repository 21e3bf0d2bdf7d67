//! The records of the control log: facts and decisions about agents, JSON in CONTROL, folded by every supervisor.

use serde::{Deserialize, Serialize};

use crate::shim::Exit;
use crate::spec::AgentSpec;
use crate::{AgentName, Capacity, NodeName, ScheduleId, Timestamp};

/// A record as the log stores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ControlRecord {
    /// What its author calls it, once and for all: a record that is written again has the same id, and is folded once. None in
    /// records of the first two versions of the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When, by its author's clock: shown to people, and nothing is decided by it. The fold's time is the log's own.
    pub at: Timestamp,
    /// The leader's term, in records that only a leader may write, other than its election: the sequence of that is the term.
    /// The fold ignores records of an older one.
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
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
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

    /// Move it to a node, as `REPLACE` says: the next start is there, if it can be. One whose SANCTUM is elsewhere is stopped first, and its
    /// SANCTUM is copied there (rules of version 5): the sequence of this record is the number of that copy.
    AgentMoved {
        /// The agent.
        agent: AgentName,
        /// Where it is to run. Later starts may be elsewhere: that is what `REQUIRE` is for.
        to: NodeName,
    },
    /// A schedule of an agent is paused: its occurrences are skipped (rules of version 7). It stays so as long as the agent has the schedule.
    SchedulePaused {
        /// The agent.
        agent: AgentName,
        /// The schedule.
        schedule: ScheduleId,
    },
    /// It goes on, with the next occurrence.
    ScheduleResumed {
        /// The agent.
        agent: AgentName,
        /// The schedule.
        schedule: ScheduleId,
    },
    /// A node takes no more incarnations, and its agents are moved to others, so many at a time. It stays so when it is restarted.
    NodeDrained {
        /// The node.
        node: NodeName,
        /// How many agents are moved at a time, at least 1.
        parallel: u32,
    },
    /// A node that was drained takes incarnations again.
    NodeUndrained {
        /// The node.
        node: NodeName,
    },
    /// A node that is lost is forgotten. What is pinned to it is pinned no more: its data is lost with the node.
    NodeRemoved {
        /// The node.
        node: NodeName,
    },

    /// Messages of an agent are erased on request: a record before, with what was found, and one when it is done, with what was erased. Shown, and
    /// ignored by the fold. What was in them is not on record.
    MessagesForgotten {
        /// The agent, which need not exist any more.
        agent: AgentName,
        /// Who asked for it: a user and a host.
        by: String,
        /// Whether it is done.
        done: bool,
        /// Whether this was about one of its conversations; else about all of them.
        conversation: bool,
        /// Only what was stored before this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Timestamp>,
        /// How many messages.
        messages: u64,
        /// How many records of all streams.
        records: u64,
        /// Their bytes.
        bytes: u64,
    },

    /// The fleet was restored from a backup. Nothing runs that the log knows of, and no number is given again that an incarnation may have
    /// had since the backup was taken.
    FleetRestored {
        /// The backup's id.
        backup: String,
        /// When it was taken.
        taken: Timestamp,
        /// No incarnation of any agent gets this number or a lower one.
        incarnations: u64,
    },

    // What the leader saw or decided: ignored unless their term is the newest.
    /// The SANCTUMs of an agent that is being moved are on the node that it is moved to: it starts there from now on.
    SanctumMoved {
        /// The agent.
        agent: AgentName,
        /// Which copy: the sequence of its [`ControlEvent::AgentMoved`].
        copy: u64,
        /// The folders that were copied, by their paths: the node that they were on still has them. Not among them is what both nodes see.
        copied: Vec<String>,
    },
    /// The SANCTUMs of an agent could not be moved: it starts again where they are.
    SanctumNotMoved {
        /// The agent.
        agent: AgentName,
        /// Which copy.
        copy: u64,
        /// Why.
        reason: String,
    },
    /// The node that the SANCTUMs of an agent were moved from has renamed what it still had.
    SanctumKept {
        /// The agent.
        agent: AgentName,
        /// Which copy.
        copy: u64,
        /// Where that is now.
        folders: Vec<String>,
    },
    /// A supervisor took the lease. The sequence of this record is its term: it rises with every election, whatever became of
    /// the lease.
    LeaderElected {
        /// Its id.
        supervisor: String,
        /// This run of it: two processes with one id are two leaders.
        #[serde(default)]
        run: String,
        /// The version of the rules by which the log is folded from here on.
        #[serde(default = "first_rules")]
        rules: u32,
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
        /// What it can take.
        #[serde(default, skip_serializing_if = "Capacity::is_unbounded")]
        capacity: Capacity,
    },
    /// A node shuts down in order: its incarnations end without being crashes, and start again where it, or another, is seen.
    NodeDraining {
        /// The node.
        node: NodeName,
    },
    /// No report for too long.
    NodeLost {
        /// The node.
        node: NodeName,
    },
    /// A start that the fold asked for has its number and its place.
    IncarnationAllocated {
        /// The agent.
        agent: AgentName,
        /// Its number, greater than that of every earlier one.
        incarnation: u64,
        /// The generation of its spec.
        generation: u64,
        /// Where it is to run.
        node: NodeName,
    },
    /// An incarnation that counted as gone with its node is back, unharmed, and nothing has taken its place.
    IncarnationReturned {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// The generation of its spec.
        generation: u64,
        /// Where it runs.
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
    /// An incarnation runs, but its shim was silent for too long: it is ended, and counts as crashed.
    #[cfg_attr(feature = "schema", schema(rename_all = "camelCase"))]
    IncarnationHung {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// For how long, in seconds.
        silent_for: u64,
    },
    /// An incarnation has been up for 60 s and finished a turn: its agent's restart count starts over.
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
        /// Of one that is late with being ready: the last line of its worker's output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        said: Option<String>,
    },
    /// Written by a newer version: kept and shown. A replica that meets it follows from then on, and leads no more.
    #[serde(other)]
    Unknown,
}

/// The timers of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Timer {
    /// The delay before the next start.
    Restart,
    /// The time to say ready.
    Ready,
    /// The time to drain and be gone.
    Drain,
}

fn first_rules() -> u32 {
    1
}

/// What a record of the log is to a build that reads it.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// A record. One of an unknown type is [`ControlEvent::Unknown`].
    Record(Box<ControlRecord>),
    /// A record that this build cannot read: a newer one wrote it.
    Newer(String),
    /// Nothing that any version writes: whatever it was, it means nothing to anybody.
    Damaged(String),
}

/// Reads a record's bytes.
///
/// Every version writes an object with an `author` and a `type`. What is no such thing is damaged for every build alike, and can be
/// skipped; what is one and cannot be parsed means something to another version.
#[must_use]
pub fn read(bytes: &[u8]) -> Reading {
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(rename = "author")]
        _author: String,
        #[serde(rename = "type")]
        _type: String,
    }
    match serde_json::from_slice(bytes) {
        Ok(record) => Reading::Record(Box::new(record)),
        Err(error) if serde_json::from_slice::<Envelope>(bytes).is_ok() => {
            Reading::Newer(error.to_string())
        }
        Err(error) => Reading::Damaged(error.to_string()),
    }
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
            | Self::AgentMoved { agent, .. }
            | Self::SchedulePaused { agent, .. }
            | Self::ScheduleResumed { agent, .. }
            | Self::SanctumMoved { agent, .. }
            | Self::SanctumNotMoved { agent, .. }
            | Self::SanctumKept { agent, .. }
            | Self::MessagesForgotten { agent, .. }
            | Self::IncarnationAllocated { agent, .. }
            | Self::IncarnationReturned { agent, .. }
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
            | Self::NodeDrained { .. }
            | Self::NodeUndrained { .. }
            | Self::NodeRemoved { .. }
            | Self::FleetRestored { .. }
            | Self::Unknown => None,
        }
    }

    /// What a record says about whether its agent is registered; none if it says nothing of that.
    #[must_use]
    pub fn is_registered(&self) -> Option<bool> {
        match self {
            Self::AgentApplied { .. }
            | Self::AgentStarted { .. }
            | Self::AgentStopped { .. }
            | Self::AgentRestarted { .. }
            | Self::AgentReplaced { .. }
            | Self::AgentMoved { .. }
            | Self::SchedulePaused { .. }
            | Self::ScheduleResumed { .. } => Some(true),
            Self::AgentRemoved { .. } => Some(false),
            // An incarnation may end after its agent was removed, and messages may be forgotten then.
            Self::MessagesForgotten { .. }
            | Self::LeaderElected { .. }
            | Self::NodeSeen { .. }
            | Self::NodeDraining { .. }
            | Self::NodeLost { .. }
            | Self::NodeDrained { .. }
            | Self::NodeUndrained { .. }
            | Self::NodeRemoved { .. }
            | Self::IncarnationAllocated { .. }
            | Self::IncarnationReturned { .. }
            | Self::IncarnationReady { .. }
            | Self::IncarnationBegun { .. }
            | Self::IncarnationExited { .. }
            | Self::StartFailed { .. }
            | Self::IncarnationDrained { .. }
            | Self::IncarnationHung { .. }
            | Self::IncarnationStable { .. }
            | Self::TimerFired { .. }
            | Self::SanctumMoved { .. }
            | Self::SanctumNotMoved { .. }
            | Self::SanctumKept { .. }
            | Self::FleetRestored { .. }
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
            | Self::AgentMoved { .. }
            | Self::SchedulePaused { .. }
            | Self::ScheduleResumed { .. }
            | Self::NodeDrained { .. }
            | Self::NodeUndrained { .. }
            | Self::NodeRemoved { .. }
            | Self::MessagesForgotten { .. }
            | Self::FleetRestored { .. }
            | Self::Unknown => false,
            Self::LeaderElected { .. }
            | Self::NodeSeen { .. }
            | Self::NodeDraining { .. }
            | Self::NodeLost { .. }
            | Self::IncarnationAllocated { .. }
            | Self::IncarnationReturned { .. }
            | Self::IncarnationReady { .. }
            | Self::IncarnationBegun { .. }
            | Self::IncarnationDrained { .. }
            | Self::IncarnationExited { .. }
            | Self::StartFailed { .. }
            | Self::IncarnationHung { .. }
            | Self::IncarnationStable { .. }
            | Self::SanctumMoved { .. }
            | Self::SanctumNotMoved { .. }
            | Self::SanctumKept { .. }
            | Self::TimerFired { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_version_writes_is_damaged_and_what_a_newer_one_may_have_written_is_not() {
        let damaged =
            ["", "garbage", "\u{0}", "null", "[]", "7", "{}", r#"{"type":"agentStopped"}"#];
        for bytes in damaged {
            assert!(matches!(read(bytes.as_bytes()), Reading::Damaged(_)), "{bytes:?}");
        }
        assert!(matches!(read(&[0xff, 0x00, 0x7f]), Reading::Damaged(_)));
        // A known type with other fields.
        let newer =
            r#"{"at":"2026-01-01T00:00:00Z","author":"s","type":"agentStopped","agents":["a"]}"#;
        assert!(matches!(read(newer.as_bytes()), Reading::Newer(_)));
        // An agent's name by rules that this build does not have.
        let newer =
            r#"{"at":"2026-01-01T00:00:00Z","author":"s","type":"agentStopped","agent":"A/B"}"#;
        assert!(matches!(read(newer.as_bytes()), Reading::Newer(_)));
        let unknown = r#"{"at":"2026-01-01T00:00:00Z","author":"s","type":"agentPainted"}"#;
        let Reading::Record(record) = read(unknown.as_bytes()) else { panic!("it is a record") };
        assert_eq!(record.event, ControlEvent::Unknown);
    }
}
