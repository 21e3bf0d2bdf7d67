//! The servers of a cluster that Mozart runs: where each is reached, and which of them were removed for good. One key each.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::{Published, header};
use crate::connecting::open;
use crate::connection::{Broker, ConnectOptions};
use crate::error::{BrokerError, Result};
use crate::journal::encode;
use crate::wire::{CALL, Wire};

/// How long servers may take to say that they are there.
const THERE: Duration = Duration::from_secs(2);
/// How long the group may take to agree on a removal.
const REMOVES: Duration = Duration::from_secs(10);
/// JetStream's number for a server that does not belong to the group.
const NO_MEMBER: u64 = 10044;

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMember {
    /// Its name.
    pub server: String,
    /// Where clients reach it: `host:port`.
    pub address: String,
    /// Whether it was removed: then it never belongs to the cluster again.
    #[serde(default)]
    pub removed: bool,
}

/// What became of a removal from the group of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It no longer belongs to the group.
    Done,
    /// It runs, and is left as it is.
    IsThere,
}

#[derive(Deserialize)]
struct Removed {
    #[serde(default)]
    error: Option<crate::api::ApiError>,
}

#[derive(Deserialize)]
struct Pong {
    server: PongServer,
}

#[derive(Deserialize)]
struct PongServer {
    name: String,
}

impl Broker {
    fn member_subject(&self, server: &str) -> String {
        self.lease_subject(&format!("member.{server}"))
    }

    /// Notes where a server is reached; returns what is known of it. One that was removed stays so.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn note_member(&self, server: &str, address: &str) -> Result<ClusterMember> {
        let wanted = ClusterMember {
            server: server.to_owned(),
            address: address.to_owned(),
            removed: false,
        };
        self.change_member(server, |known| match known {
            Some(known) if known.removed => known,
            Some(_) | None => wanted.clone(),
        })
        .await
    }

    /// Notes that a server was removed.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn note_removed_member(&self, server: &str) -> Result<ClusterMember> {
        let nowhere =
            ClusterMember { server: server.to_owned(), address: String::new(), removed: true };
        self.change_member(server, |known| match known {
            Some(known) => ClusterMember { removed: true, ..known },
            None => nowhere.clone(),
        })
        .await
    }

    async fn change_member(
        &self,
        server: &str,
        change: impl Fn(Option<ClusterMember>) -> ClusterMember,
    ) -> Result<ClusterMember> {
        let (stream, subject) = (self.lease_stream(), self.member_subject(server));
        loop {
            let there = self.wire().last(&stream, &subject).await?;
            let known = there.as_ref().map(|record| record.parse()).transpose()?;
            let wanted = change(known.clone());
            if known.as_ref() == Some(&wanted) {
                return Ok(wanted);
            }
            let headers = || {
                let mut headers = HeaderMap::new();
                let expected = there.as_ref().map_or(0, |record| record.seq);
                headers.insert(header::EXPECTED_LAST, expected.to_string());
                headers
            };
            let value = encode(&wanted)?;
            let (published, _) = self.wire().publish(subject.clone(), headers, value, CALL).await?;
            // Not the last one any more: an earlier try of ours, or another's. The next look tells.
            if !matches!(published, Published::WrongLast) {
                return Ok(wanted);
            }
        }
    }

    /// All servers that are known.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn members(&self) -> Result<Vec<ClusterMember>> {
        let records = self.wire().all_of(&self.lease_stream(), &self.member_subject("*")).await?;
        records.iter().map(crate::record::Record::parse).collect()
    }
}

/// Removes a server that is gone from the group of servers: the replicas that it had are given to others. `options` are those of the system
/// account.
///
/// # Errors
/// When the group has no leader, or nobody answers.
pub async fn remove_server(options: &ConnectOptions, server: &str) -> Result<Removal> {
    let wire = open(options, Instant::now() + options.timeout).await?;
    let removal = remove(&wire, server).await;
    if let Err(error) = wire.client.drain().await {
        tracing::debug!(%error, "the connection was closed already");
    }
    removal
}

async fn remove(wire: &Wire, server: &str) -> Result<Removal> {
    if there(wire).await?.contains(server) {
        return Ok(Removal::IsThere);
    }
    let body = serde_json::json!({ "peer": server }).to_string();
    let request = Request::new().payload(body.into()).timeout(None);
    let asked = wire.client.send_request("$JS.API.SERVER.REMOVE", request);
    let answer = match timeout(REMOVES, asked).await {
        Ok(answer) => answer.map_err(BrokerError::other)?,
        Err(_) => return Err(BrokerError::Timeout(REMOVES)),
    };
    let removed: Removed = serde_json::from_slice(&answer.payload).map_err(BrokerError::other)?;
    match removed.error {
        Some(error) if error.err_code != NO_MEMBER => Err(error.into()),
        Some(_) | None => Ok(Removal::Done),
    }
}

/// The names of the servers that run.
async fn there(wire: &Wire) -> Result<BTreeSet<String>> {
    let inbox = wire.client.new_inbox();
    let mut pongs = wire.client.subscribe(inbox.clone()).await.map_err(BrokerError::other)?;
    let asked = wire.client.publish_with_reply("$SYS.REQ.SERVER.PING", inbox, Bytes::new());
    asked.await.map_err(BrokerError::other)?;
    let until = Instant::now() + THERE;
    let mut names = BTreeSet::new();
    while let Ok(Some(pong)) = timeout_at(until, pongs.next()).await {
        if let Ok(Pong { server }) = serde_json::from_slice(&pong.payload) {
            names.insert(server.name);
        }
    }
    Ok(names)
}
