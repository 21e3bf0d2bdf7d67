//! The consumer of one incarnation, and the shim's end of it.
//!
//! State is in memory (it doubles the throughput of many agents); what a broker restart forgets, the journal knows. Acks are
//! plain publishes: fencing is the consumer's name and the compare-and-set of the final state, never the ack.

use bytes::Bytes;
use common::{AgentName, Timestamp};
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::json;

use crate::api::code;
use crate::connection::{Broker, queued};
use crate::error::{BrokerError, Result};
use crate::inbox::Inbox;
use crate::wire::{CALL, Wire};

/// Requests that an incarnation holds or that are on their way to it, at most: what its consumer gives out without an ack. Far
/// above any CONCURRENCY, so that a conversation with many messages does not hold up the others; a shim keeps little of each.
pub const WINDOW: u32 = 4096;

/// How long a delivery may go without an ack or a sign of progress, in nanoseconds.
const ACK_WAIT: u64 = 30_000_000_000;

/// The backstop: attempts are counted by the journal's readers, not by the broker.
const MAX_DELIVER: u32 = 20;

/// A consumer's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerState {
    /// Everything up to this stream sequence is acked.
    pub ack_floor: u64,
    /// The last stream sequence that was given out.
    pub delivered: u64,
    /// Requests not given out yet.
    pub pending: u64,
    /// Given out and not acked.
    pub ack_pending: u64,
    /// When the broker made it: tells it from another of its name.
    pub created: Timestamp,
}

#[derive(Deserialize)]
struct Info {
    created: Timestamp,
    delivered: Position,
    ack_floor: Position,
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    num_ack_pending: u64,
}

#[derive(Deserialize)]
struct Position {
    stream_seq: u64,
}

#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    total: usize,
    #[serde(default)]
    consumers: Option<Vec<String>>,
}

/// What is read of an answer that says nothing.
#[derive(Deserialize)]
struct Done {}

/// A consumer's figures; none if it does not exist.
pub(crate) async fn info(
    wire: &Wire,
    stream: &str,
    consumer: &str,
) -> Result<Option<ConsumerState>> {
    let what = format!("CONSUMER.INFO.{stream}.{consumer}");
    match wire.api::<Info>(&what, &json!({}), CALL).await? {
        Ok(info) => Ok(Some(ConsumerState {
            ack_floor: info.ack_floor.stream_seq,
            delivered: info.delivered.stream_seq,
            pending: info.num_pending,
            ack_pending: info.num_ack_pending,
            created: info.created,
        })),
        Err(error) if error.err_code == code::CONSUMER_NOT_FOUND => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Broker {
    /// Creates the consumer of an incarnation (`ack_wait` 30 s, `max_deliver` 20 as the backstop, at most `window` unacked), filtered to the agent's requests
    /// from `start_seq` on. Exists already: true as well.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub async fn create_consumer(
        &self,
        agent: &AgentName,
        incarnation: u64,
        start_seq: u64,
        window: u32,
    ) -> Result<()> {
        let stream = self.journal_stream(agent);
        let name = self.subjects().consumer(agent, incarnation);
        let filter = self.subjects().requests_of(agent);
        let config = json!({
            "stream_name": stream,
            "action": "create",
            "config": {
                "name": name,
                "durable_name": name,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": start_seq.max(1),
                "filter_subject": filter,
                "ack_policy": "explicit",
                "ack_wait": ACK_WAIT,
                "max_deliver": MAX_DELIVER,
                "max_ack_pending": window.max(1),
                "replay_policy": "instant",
                "mem_storage": true,
                "num_replicas": 1,
            },
        });
        let what = format!("CONSUMER.CREATE.{stream}.{name}.{filter}");
        match self.wire().api::<Done>(&what, &config, CALL).await? {
            Ok(Done {}) => Ok(()),
            Err(error)
                if [code::CONSUMER_EXISTS, code::CONSUMER_NAME_EXISTS]
                    .contains(&error.err_code) =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A consumer's figures; none if it does not exist.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn consumer(
        &self,
        agent: &AgentName,
        incarnation: u64,
    ) -> Result<Option<ConsumerState>> {
        let name = self.subjects().consumer(agent, incarnation);
        info(self.wire(), &self.journal_stream(agent), &name).await
    }

    /// Deletes a consumer: its incarnation's pulls and acks find nobody from now on. Not there: fine.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn delete_consumer(&self, agent: &AgentName, incarnation: u64) -> Result<()> {
        let stream = self.journal_stream(agent);
        let name = self.subjects().consumer(agent, incarnation);
        let what = format!("CONSUMER.DELETE.{stream}.{name}");
        match self.wire().api::<Done>(&what, &json!({}), CALL).await? {
            Ok(Done {}) => Ok(()),
            Err(error) if error.err_code == code::CONSUMER_NOT_FOUND => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of all incarnation consumers, as (agent, incarnation).
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn consumers(&self) -> Result<Vec<(AgentName, u64)>> {
        let subjects = self.subjects();
        let shards = (0..subjects.shards()).map(|shard| self.names(subjects.journal_stream(shard)));
        let names = try_join_all(shards).await?;
        Ok(names.iter().flatten().filter_map(|name| subjects.parse_consumer(name)).collect())
    }

    async fn names(&self, stream: String) -> Result<Vec<String>> {
        let what = format!("CONSUMER.NAMES.{stream}");
        let mut names = Vec::new();
        loop {
            let page: Names = self
                .wire()
                .api(&what, &json!({ "offset": names.len() }), CALL)
                .await?
                .map_err(BrokerError::from)?;
            let more = page.consumers.unwrap_or_default();
            let last = more.is_empty();
            names.extend(more);
            if last || names.len() >= page.total {
                return Ok(names);
            }
        }
    }

    /// Pulls from an incarnation's consumer, keeping at most `window` requests on their way or with the caller.
    /// Needs no answer from the broker: the first pull is on its way when this returns.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn pull(&self, agent: &AgentName, incarnation: u64, window: u32) -> Result<Inbox> {
        Inbox::open(self, agent, incarnation, window).await
    }

    /// Settles a delivery. Not awaited by the server: a lost ack is a redelivery, which the shim answers from the journal.
    ///
    /// # Errors
    /// When the client's queue stays full for 1 s.
    pub async fn ack(&self, reply: &str) -> Result<()> {
        self.settle(reply, Bytes::from_static(b"+ACK")).await
    }

    /// Keeps a delivery from being redelivered for another `ack_wait`.
    ///
    /// # Errors
    /// As [`Broker::ack`].
    pub async fn in_progress(&self, reply: &str) -> Result<()> {
        self.settle(reply, Bytes::from_static(b"+WPI")).await
    }

    async fn settle(&self, reply: &str, how: Bytes) -> Result<()> {
        queued(self.wire().client.publish(reply.to_owned(), how)).await
    }
}
