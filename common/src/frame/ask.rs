//! What shims and nodes ask of the supervisors: what they need to know, and have no right to read by themselves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Frame;
use crate::message::MessageKey;
use crate::{AgentName, ConversationId, RequestTag, Timestamp};

/// From a shim, on `shim.<agent>.<incarnation>.ask`. Each can be repeated without harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShimAsk {
    /// The time, as every answer tells it.
    Time,
    /// The state of a message.
    Standing(MessageKey),
    /// The last record of a message in the journal, of one kind.
    Last {
        /// The message.
        key: MessageKey,
        /// Its final state; else its request.
        is_final: bool,
    },
    /// A message's request, in the journal or in HISTORY.
    Message(MessageKey),
    /// What is on record about a message's attempts.
    Mark(MessageKey),
    /// The shim's own consumer.
    Consumer,
    /// The requests to the agent from one sequence to another, both included.
    Between {
        /// The first sequence.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// Store the dead letter of a message that has failed.
    Bury {
        /// The message.
        key: MessageKey,
        /// Its final state, in JSON.
        final_: Vec<u8>,
        /// The worker's last lines.
        log: Vec<String>,
    },
    /// Remove the older records of the incarnation's log.
    TrimLog {
        /// How many stay.
        keep: u64,
    },
    /// Whether events and attempts can be stored now.
    TakesAttempts {
        /// How long their streams may take to tell.
        within: Duration,
    },
    /// Whether there is an agent of this name.
    IsRegistered(AgentName),
    /// How much room a stream of the journal has for requests.
    Room(u32),
    /// The records of a message's steps after a sequence.
    Steps {
        /// The message.
        key: MessageKey,
        /// The sequence.
        after: u64,
    },
    /// The finished messages of a conversation with the agent, the newest first.
    Turns {
        /// The conversation.
        conversation: ConversationId,
        /// Only what comes before: what an earlier answer ended with.
        before: Option<String>,
        /// How many, at most.
        limit: u32,
    },
    /// How many finished messages a conversation with the agent has.
    CountTurns(ConversationId),
    /// What there is of a question to a person.
    Question {
        /// The message.
        key: MessageKey,
        /// The tag of the question's id.
        tag: RequestTag,
    },
    /// Remove what was asked in the course of a message and is not open any more.
    CloseQuestions(MessageKey),
    /// When the leader of the agent's journal last heard most of its servers.
    Reach,
}

/// The answer to a [`ShimAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimAnswer {
    /// The broker's clock, as the supervisor knows it.
    pub at: Timestamp,
    /// The rest.
    pub told: Told,
}

/// What a [`ShimAnswer`] tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// It is done, or there was nothing to do.
    Done,
    /// There is no such thing.
    Nothing,
    /// Yes or no.
    Is(bool),
    /// The message has no final state.
    Open,
    /// A record: JSON, as the journal has it.
    Record(ToldRecord),
    /// Requests, or records of steps or of a question, oldest first, and whether there may be more.
    Records(Vec<ToldRecord>, bool),
    /// The attempts on record.
    Mark {
        /// The last attempt.
        attempt: u32,
        /// Its incarnation.
        incarnation: u64,
        /// Whether it has ended without an answer.
        ended: bool,
    },
    /// The figures of a consumer.
    Consumer {
        /// The sequence that it was made to begin with.
        start: u64,
        /// Everything up to this sequence is acked.
        ack_floor: u64,
        /// The last sequence that was given out.
        delivered: u64,
        /// How many deliveries it has made.
        given: u64,
        /// Requests not given out yet.
        pending: u64,
        /// Given out and not acked.
        ack_pending: u64,
        /// When it was made.
        created: Timestamp,
    },
    /// Room for requests.
    Room {
        /// In bytes.
        left: u64,
        /// Why it is not more.
        cause: String,
    },
    /// It cannot be done, however often it is asked for.
    Refused(String),
    /// Finished messages of a conversation.
    Turns {
        /// In JSON; those whose texts do not fit the answer without them.
        turns: Vec<u8>,
        /// Where those before them begin; none if there are none.
        next: Option<String>,
    },
    /// So many.
    Count(u64),
    /// So long ago; none if no leader answers.
    Reached(Option<Duration>),
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldRecord {
    /// Its subject.
    pub subject: String,
    /// Its sequence.
    pub seq: u64,
    /// When the broker stored it.
    pub at: Timestamp,
    /// Who stored it, of a final state.
    pub author: Option<String>,
    /// Its content.
    pub payload: Vec<u8>,
}

/// From a node with a login of its own, on `node.<name>.ask`. Each can be repeated without harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeAsk {
    /// What it has to know of the fleet.
    Fleet,
    /// The newest term.
    Term,
    /// A part of the files that an incarnation is to start with on this node.
    Files {
        /// The agent.
        agent: AgentName,
        /// The incarnation.
        incarnation: u64,
        /// The number of a chunk; none: what is said of all of it.
        chunk: Option<u64>,
    },
}

/// The answer to a [`NodeAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// The broker's clock, as the supervisor knows it.
    pub at: Timestamp,
    /// The rest.
    pub told: NodeTold,
}

/// What a [`NodeAnswer`] tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeTold {
    /// The fleet.
    Fleet {
        /// Its id.
        id: String,
        /// How many streams the journal has.
        shards: u32,
        /// How many replicas the streams have.
        replicas: u32,
    },
    /// The newest term.
    Term(u64),
    /// What is stored; none if nothing is.
    Stored(Option<Vec<u8>>),
    /// It cannot be done, however often it is asked for.
    Refused(String),
}

impl Frame for NodeAsk {
    type Before = Self;
}

impl Frame for NodeAnswer {
    type Before = Self;
}

impl Frame for ShimAsk {
    type Before = Self;
}

impl Frame for ShimAnswer {
    type Before = Self;
}
