//! Users of a fleet: people and programs, each with a login of its own and with a scope.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{AgentName, SenderName, Timestamp};

/// What a user may do. Each scope includes those before it, but for [`Scope::Node`]: nothing else has its rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Be the node of this name, and nothing else.
    Node,
    /// See everything of the fleet.
    Read,
    /// Send messages in its own name, and cancel those.
    Send,
    /// Apply, start, stop and remove agents; drain nodes; cancel and redrive messages of others.
    Operate,
    /// Everything, also what erases messages, and to add users.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Node, Self::Read, Self::Send, Self::Operate, Self::Admin];

    /// As people write it, and as it is in subjects.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Read => "read",
            Self::Send => "send",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| "expected node, read, send, operate or admin".to_owned())
    }
}

/// A user, as the fleet knows it: no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Its name: also the sender of its messages.
    pub name: SenderName,
    /// Its public key.
    pub key: String,
    /// What it may do.
    pub scope: Scope,
    /// The agents that it may send to; none is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<AgentName>,
    /// When it was added.
    pub at: Timestamp,
    /// Who added it.
    pub by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert!("Read".parse::<Scope>().is_err());
        assert!(
            Scope::Node < Scope::Read && Scope::Read < Scope::Send && Scope::Operate < Scope::Admin
        );
    }
}
