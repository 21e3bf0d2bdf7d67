//! Who is connected, and ending a connection: asked of the servers, over what their account exports.

use std::time::Duration;

use common::subject::Subjects;
use common::{AgentName, NodeName, SenderName};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::{AGENTS, APP, NODES, OPS};
use crate::connection::{Broker, queued};
use crate::error::{BrokerError, Result};

/// How long the servers may take to tell: how many there are is not known.
const WITHIN: Duration = Duration::from_secs(1);
/// Connections in one answer.
const PAGE: usize = 500;

/// Whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// That of an incarnation's shim.
    Shim(AgentName, u64),
    /// That of a user.
    User(SenderName),
    /// That of a node with a login of its own.
    Node(NodeName),
}

/// A connection of a shim, a user or a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Whose it is.
    pub who: Who,
    server: String,
    number: u64,
    /// What it has published so far: messages.
    pub messages: u64,
    /// The same, in bytes of content.
    pub bytes: u64,
}

impl Connection {
    /// One that has published nothing.
    #[must_use]
    pub fn new(who: Who, server: &str, number: u64) -> Self {
        Self { who, server: server.to_owned(), number, messages: 0, bytes: 0 }
    }

    /// The same, when it has published so much.
    #[must_use]
    pub fn with(self, messages: u64, bytes: u64) -> Self {
        Self { messages, bytes, ..self }
    }

    /// What tells it from all others: its server, and its number there.
    #[must_use]
    pub fn id(&self) -> (String, u64) {
        (self.server.clone(), self.number)
    }
}

impl Who {
    /// Who connects as a user of this name; none if it is of no fleet, or of another one.
    #[must_use]
    pub fn of(subjects: &Subjects, user: &str) -> Option<Self> {
        if let Some((agent, incarnation)) = subjects.parse_shim_user(user) {
            return Some(Self::Shim(agent, incarnation));
        }
        if let Some(node) = subjects.parse_node_user(user) {
            return Some(Self::Node(node));
        }
        subjects.parse_user(user).map(Self::User)
    }

    /// Whether these are a user's or a node's credentials of this name.
    #[must_use]
    pub fn has_name(&self, name: &SenderName) -> bool {
        match self {
            Self::Shim(..) => false,
            Self::User(user) => user == name,
            Self::Node(node) => node.as_str() == name.as_str(),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    server: Server,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(default)]
    total: usize,
    #[serde(default)]
    connections: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    cid: u64,
    #[serde(default)]
    authorized_user: String,
    #[serde(default)]
    in_msgs: u64,
    #[serde(default)]
    in_bytes: u64,
}

impl Broker {
    /// The connections of this fleet's shims, as far as their servers answer within a second.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn shim_connections(&self) -> Result<Vec<Connection>> {
        self.connections_of(AGENTS).await
    }

    /// Those of its users, and of the nodes with logins of their own.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn user_connections(&self) -> Result<Vec<Connection>> {
        let mut found = self.connections_of(OPS).await?;
        found.extend(self.connections_of(APP).await?);
        found.extend(self.connections_of(NODES).await?);
        Ok(found)
    }

    async fn connections_of(&self, account: &str) -> Result<Vec<Connection>> {
        let mut found = Vec::new();
        let mut offset = 0;
        loop {
            let more = self.connections_from(account, offset, &mut found).await?;
            offset += PAGE;
            if more <= offset {
                return Ok(found);
            }
        }
    }

    /// One page of each server; how many connections the server with most of them has.
    async fn connections_from(
        &self,
        account: &str,
        offset: usize,
        found: &mut Vec<Connection>,
    ) -> Result<usize> {
        let client = &self.wire().client;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(BrokerError::other)?;
        let body = json!({ "acc": account, "auth": true, "limit": PAGE, "offset": offset });
        let asked =
            client.publish_with_reply("$SYS.REQ.SERVER.PING.CONNZ", inbox, body.to_string().into());
        queued(asked).await?;
        let (deadline, mut most) = (Instant::now() + WITHIN, 0);
        while let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await {
            let Ok(answer) = serde_json::from_slice::<Answer>(&answer.payload) else { continue };
            most = most.max(answer.data.total);
            let server = answer.server.id;
            let known = answer.data.connections.into_iter().filter_map(|one| {
                let who = Who::of(self.subjects(), &one.authorized_user)?;
                Some(Connection::new(who, &server, one.cid).with(one.in_msgs, one.in_bytes))
            });
            found.extend(known);
        }
        Ok(most)
    }

    /// Ends a connection.
    ///
    /// # Errors
    /// When the server does not answer within a second.
    pub async fn kick(&self, connection: &Connection) -> Result<()> {
        let subject = format!("$SYS.REQ.SERVER.{}.KICK", connection.server);
        // Without anyone to answer, the server would not even look at it.
        let body = json!({ "cid": connection.number }).to_string();
        self.ask(subject, body.into(), WITHIN).await.map(|_| ())
    }
}
