//! What was refused to somebody who may not do it: for the operator to see.

use serde::{Deserialize, Serialize};

use crate::{AgentName, NodeName, SenderName, Timestamp};

/// One refusal, or several alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityEvent {
    /// When, by the clock of who refused it.
    pub at: Timestamp,
    /// What was refused.
    pub kind: Refusal,
    /// The agent that tried it, as its login says; none if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Its incarnation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// The user who tried it, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<SenderName>,
    /// The node that tried it, if it has a login of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// What was tried, and why it was refused.
    pub detail: String,
    /// Who refused it: a supervisor, or the nats-server of a host.
    pub by: String,
    /// How many others of this kind, by the same agent, came since the last such event and are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// To connect: a wrong password, or that of an incarnation that was replaced or has ended.
    Login,
    /// To stay connected: the incarnation was replaced or has ended.
    Connection,
    /// To publish to a subject that is not its own.
    Publish,
    /// To listen on one.
    Subscribe,
    /// To be told of another agent's messages, or files.
    Question,
    /// To change what is beyond the user's scope.
    Change,
    /// To publish that much.
    Flood,
}

impl Refusal {
    /// As people read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Connection => "connection",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Question => "question",
            Self::Change => "change",
            Self::Flood => "flood",
        }
    }
}
