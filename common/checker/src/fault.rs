//! What can be wrong with a journal, in words.

use std::time::Duration;

use common::message::MessageKey;
use common::{AgentName, ConversationId, MessageId};

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its sender was told that it is stored.
    #[error("{} was accepted, and is not in the journal", name(.0))]
    Lost(MessageKey),
    /// The journal holds another text or conversation than its sender gave.
    #[error("{} is not what its sender sent", name(.0))]
    Altered(MessageKey),
    /// A request without a final state.
    #[error("{} has no final state", name(.0))]
    Open(MessageKey),
    /// More than one final state.
    #[error("{} has several final states, at {seqs:?}", name(key))]
    Doubled {
        /// Whose.
        key: MessageKey,
        /// Where they are in the stream.
        seqs: Vec<u64>,
    },
    /// More than one request.
    #[error("{} was stored more than once", name(.0))]
    StoredTwice(MessageKey),
    /// A final state of a message that nobody sent.
    #[error("{} has a final state, and no request", name(.0))]
    FinalOfNothing(MessageKey),
    /// Runs or a dead letter of a message that nobody sent.
    #[error("{} was run or buried, and is not in the journal", name(.0))]
    Stray(MessageKey),
    /// More runs than its agent's ATTEMPTS.
    #[error(
        "{} ran {on_record} times on record and {witnessed} times by its workers' own count: {allowed} are allowed",
        name(key)
    )]
    RanTooOften {
        /// Whose.
        key: MessageKey,
        /// By EVENTS, and by the final state.
        on_record: u32,
        /// By what the workers wrote down.
        witnessed: u32,
        /// By the soul.
        allowed: u32,
    },
    /// The response is not the function of the message that the worker computes.
    #[error("{} was answered {found:?} in place of {expected:?}", name(key))]
    WrongAnswer {
        /// Whose.
        key: MessageKey,
        /// What the worker says to it.
        expected: String,
        /// What the journal holds.
        found: Option<String>,
    },
    /// Completed, and no worker ever saw it.
    #[error("{} is completed, and no worker has seen it", name(.0))]
    AnsweredByNobody(MessageKey),
    /// Failed, and no worker ever saw it: attempts were charged that never were. (No rule for agents that refuse messages
    /// themselves, such as a question that would wait for itself.)
    #[error("{} was given up, and no worker has seen it", name(.0))]
    GivenUpUnseen(MessageKey),
    /// Expired before its deadline, or cancelled though nobody asked for that.
    #[error("{} is cancelled, or expired before its time", name(.0))]
    EndedEarly(MessageKey),
    /// Failed, and DEAD does not know it.
    #[error("{} failed, and has no dead letter", name(.0))]
    NoDeadLetter(MessageKey),
    /// A dead letter of a message that did not fail.
    #[error("{} has a dead letter, and did not fail", name(.0))]
    NeedlesslyDead(MessageKey),
    /// Two messages of a conversation, stored or answered in the wrong order.
    #[error("in conversation {conversation} of {agent}, {later} came before {earlier}")]
    OutOfOrder {
        /// Whose conversation.
        agent: AgentName,
        /// Which.
        conversation: ConversationId,
        /// The message that should have come first.
        earlier: MessageId,
        /// The message that did.
        later: MessageId,
    },
    /// Run by a worker, and the journal does not know it.
    #[error("message {message} was run by {agent}, and is not in the journal")]
    RanUnstored {
        /// By whom.
        agent: AgentName,
        /// Which.
        message: MessageId,
    },
    /// A request that nobody can read, and that was not refused.
    #[error("{} cannot be read by anybody, and was not refused", name(.0))]
    GarbageTaken(MessageKey),
    /// Several workers had the number of one incarnation.
    #[error("incarnation {incarnation} of {agent} had several workers: {pids:?}")]
    RunTwice {
        /// Whose.
        agent: AgentName,
        /// Its number.
        incarnation: u64,
        /// The workers' process ids.
        pids: Vec<u32>,
    },
    /// A turn that began after the next incarnation had begun.
    #[error(
        "incarnation {incarnation} of {agent} began message {message} {late_by:?} after incarnation {successor} had begun its first"
    )]
    LateTurn {
        /// Whose.
        agent: AgentName,
        /// What it began.
        message: MessageId,
        /// The one that should have stopped.
        incarnation: u64,
        /// The one that had begun.
        successor: u64,
        /// How long before.
        late_by: Duration,
    },
    /// A record that does not parse.
    #[error("the journal holds a record that does not parse: {0}")]
    Malformed(String),
}

impl Fault {
    /// The messages that it is about, as (agent, message).
    #[must_use]
    pub fn messages(&self) -> Vec<(AgentName, MessageId)> {
        match self {
            Self::Lost(key)
            | Self::Altered(key)
            | Self::Open(key)
            | Self::StoredTwice(key)
            | Self::FinalOfNothing(key)
            | Self::Stray(key)
            | Self::AnsweredByNobody(key)
            | Self::GivenUpUnseen(key)
            | Self::EndedEarly(key)
            | Self::NoDeadLetter(key)
            | Self::NeedlesslyDead(key)
            | Self::GarbageTaken(key)
            | Self::Doubled { key, .. }
            | Self::RanTooOften { key, .. }
            | Self::WrongAnswer { key, .. } => vec![(key.agent.clone(), key.message_id.clone())],
            Self::OutOfOrder { agent, earlier, later, .. } => {
                vec![(agent.clone(), earlier.clone()), (agent.clone(), later.clone())]
            }
            Self::RanUnstored { agent, message } | Self::LateTurn { agent, message, .. } => {
                vec![(agent.clone(), message.clone())]
            }
            Self::Malformed(_) | Self::RunTwice { .. } => Vec::new(),
        }
    }
}

fn name(key: &MessageKey) -> String {
    format!("message {} to {}", key.message_id, key.agent)
}
