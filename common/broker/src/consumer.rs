//! The consumer of one incarnation, and the shim's end of it.
//!
//! Its state is in memory, which doubles the throughput of many agents; what a broker restart loses is in the journal. Acks are
//! plain publishes: fencing is the consumer's name and the compare-and-set of the final state, never the ack.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::frame::ask::ShimAsk;
use common::{AgentName, Timestamp};
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::json;

use crate::api::{code, header};
use crate::asked;
use crate::connection::{Broker, queued};
use crate::error::{BrokerError, Result};
use crate::inbox::Inbox;
use crate::wire::{CALL, Wire};

/// Requests that an incarnation holds or that are on their way to it, at most: what its consumer gives out without an ack. Far
/// above any CONCURRENCY, so that a conversation with many messages does not hold up the others; a shim keeps little of each.
pub const WINDOW: u32 = 4096;

/// How long a delivery may go without an ack or a sign of progress, in nanoseconds.
const ACK_WAIT: u64 = 30_000_000_000;

/// A consumer that does not answer for this long, while its stream's leader does, counts as gone: it is on one server only.
const ANSWERS: Duration = Duration::from_secs(1);

/// How often a consumer that does not answer gets another name before the caller is told.
const RENAMES: usize = 3;

/// The backstop: attempts are counted by the journal's readers, not by the broker.
const MAX_DELIVER: u32 = 20;

/// A consumer's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerState {
    /// The stream sequence that it was made to begin with.
    pub start: u64,
    /// Everything up to this stream sequence is acked.
    pub ack_floor: u64,
    /// The last stream sequence that was given out.
    pub delivered: u64,
    /// How many deliveries it has made.
    pub given: u64,
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
    #[serde(default)]
    config: Config,
    delivered: Position,
    ack_floor: Position,
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    num_ack_pending: u64,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    opt_start_seq: u64,
}

#[derive(Deserialize)]
struct Position {
    stream_seq: u64,
    #[serde(default)]
    consumer_seq: u64,
}

#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    total: usize,
    #[serde(default)]
    consumers: Option<Vec<String>>,
}

impl From<Info> for ConsumerState {
    fn from(info: Info) -> Self {
        Self {
            start: info.config.opt_start_seq,
            ack_floor: info.ack_floor.stream_seq,
            delivered: info.delivered.stream_seq,
            given: info.delivered.consumer_seq,
            pending: info.num_pending,
            ack_pending: info.num_ack_pending,
            created: info.created,
        }
    }
}

/// An answer of which only errors matter.
#[derive(Deserialize)]
struct Done {}

/// A consumer's figures; none if it does not exist.
pub(crate) async fn info(
    wire: &Wire,
    stream: &str,
    consumer: &str,
) -> Result<Option<ConsumerState>> {
    let what = format!("CONSUMER.INFO.{stream}.{consumer}");
    let answer = match wire.api::<Info>(&what, &json!({}), ANSWERS).await {
        // The one server that has it says nothing. If the stream's leader does, it is that server that is gone.
        Err(BrokerError::Timeout(_)) => {
            wire.stream_info(stream, ANSWERS).await??;
            return Ok(None);
        }
        answer => answer?,
    };
    match answer {
        Ok(info) => Ok(Some(info.into())),
        Err(error) if error.err_code == code::CONSUMER_NOT_FOUND => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Broker {
    /// Creates the consumer of an incarnation (`ack_wait` 30 s, `max_deliver` 20 as the backstop, at most `window` unacked), filtered to the agent's requests
    /// from `start_seq` on; its figures. One that exists already stays as it is. One that exists and does not answer gets a successor under
    /// another name.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub async fn create_consumer(
        &self,
        agent: &AgentName,
        incarnation: u64,
        start_seq: u64,
        window: u32,
    ) -> Result<ConsumerState> {
        let mut name = self.consumer_name(agent, incarnation).await?;
        // Each name may be given to a server that is gone. Whoever asks again begins with the last one.
        for _ in 0..RENAMES {
            if let Some(made) = self.create_named(agent, &name, start_seq, window).await? {
                return Ok(made);
            }
            name = self.rename_consumer(agent, incarnation, &name).await?;
        }
        let made = self.create_named(agent, &name, start_seq, window).await?;
        made.ok_or(BrokerError::Timeout(ANSWERS))
    }

    /// None: there is one of this name, and it does not answer.
    async fn create_named(
        &self,
        agent: &AgentName,
        name: &str,
        start_seq: u64,
        window: u32,
    ) -> Result<Option<ConsumerState>> {
        let stream = self.journal_stream(agent);
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
        match self.wire().api::<Info>(&what, &config, CALL).await {
            // On a cluster the name is given at once also to one whose server is gone.
            Ok(Ok(made)) if self.replicas() == 1 => return Ok(Some(made.into())),
            Ok(Ok(_)) => {}
            Ok(Err(error))
                if [code::CONSUMER_EXISTS, code::CONSUMER_NAME_EXISTS]
                    .contains(&error.err_code) => {}
            Ok(Err(error)) => return Err(error.into()),
            // If there is one of this name and just this configuration, its server is to answer, and may be gone.
            Err(BrokerError::Timeout(_)) if self.replicas() > 1 => {
                // Whoever answers this leads. One that was given to a server which is gone is not listed as long as that has not answered.
                let names = self.names(stream.clone()).await?;
                if !names.iter().any(|there| there == name) {
                    // Or the request was lost with an election.
                    match self.wire().api::<Info>(&what, &config, ANSWERS).await {
                        Err(BrokerError::Timeout(_)) => return Ok(None),
                        Err(error) => return Err(error),
                        Ok(Err(error))
                            if ![code::CONSUMER_EXISTS, code::CONSUMER_NAME_EXISTS]
                                .contains(&error.err_code) =>
                        {
                            return Err(error.into());
                        }
                        Ok(_) => {}
                    }
                }
            }
            Err(error) => return Err(error),
        }
        let there = info(self.wire(), &stream, name).await?;
        if there.is_none() && self.replicas() == 1 {
            // A server alone always answers for what it has: it was deleted just now.
            return Err(BrokerError::Other(format!(
                "consumer {name} was deleted right after it was created"
            )));
        }
        Ok(there)
    }

    /// Where the name of an incarnation's consumer is kept, once it is another than the first.
    fn renamed_subject(&self, agent: &AgentName, incarnation: u64) -> String {
        self.lease_subject(&format!("consumer.{agent}.{incarnation}"))
    }

    /// The name of an incarnation's consumer.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn consumer_name(&self, agent: &AgentName, incarnation: u64) -> Result<String> {
        let first = self.subjects().consumer(agent, incarnation);
        // With one server there is nobody who could say that another one does not answer.
        if self.replicas() == 1 {
            return Ok(first);
        }
        let subject = self.renamed_subject(agent, incarnation);
        match self.wire().last(&self.lease_stream(), &subject).await {
            Ok(Some(record)) => {
                String::from_utf8(record.payload.into()).map_err(BrokerError::other)
            }
            // A user may not look: as a rule it has its first name.
            Ok(None) | Err(BrokerError::Forbidden(_)) => Ok(first),
            Err(error) => Err(error),
        }
    }

    /// Another name for an incarnation's consumer, since the one of the first name does not answer; the first caller chooses it.
    async fn rename_consumer(
        &self,
        agent: &AgentName,
        incarnation: u64,
        silent: &str,
    ) -> Result<String> {
        tracing::warn!(consumer = silent, "the consumer does not answer: creating another one");
        let (stream, subject) = (self.lease_stream(), self.renamed_subject(agent, incarnation));
        let there = self.wire().last(&stream, &subject).await?;
        if let Some(record) = there.as_ref().filter(|record| record.payload != silent.as_bytes()) {
            return String::from_utf8(record.payload.to_vec()).map_err(BrokerError::other);
        }
        let names: Vec<_> = self.subjects().consumers_of(agent, incarnation).collect();
        let next = names.iter().position(|name| name == silent).map_or(0, |at| at + 1);
        let name = names.get(next).or(names.first()).cloned().unwrap_or_default();
        let headers = || {
            let mut headers = HeaderMap::new();
            let expected = there.as_ref().map_or(0, |record| record.seq);
            headers.insert(header::EXPECTED_LAST, expected.to_string());
            headers
        };
        self.wire().publish(subject, headers, name.clone().into(), CALL).await?;
        // Whether ours or another's was first: what is there now counts.
        self.consumer_name(agent, incarnation).await
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
        let name = self.consumer_name(agent, incarnation).await?;
        info(self.wire(), &self.journal_stream(agent), &name).await
    }

    /// The same, for the incarnation itself; none once a later one was admitted. The server that has a consumer does not know that it was deleted
    /// while it is cut off from the others, nor for a moment afterwards.
    ///
    /// # Errors
    /// When the broker, or for a shim with a login of its own no supervisor, answers.
    pub async fn consumer_of_current(
        &self,
        agent: &AgentName,
        incarnation: u64,
    ) -> Result<Option<ConsumerState>> {
        if let Some(told) = self.asked(|| ShimAsk::Consumer).await? {
            return asked::consumer(&told);
        }
        let there = self.consumer(agent, incarnation).await?;
        let is_alone = self.replicas() == 1;
        if is_alone || there.is_none() {
            return Ok(there);
        }
        let admitted = self.admitted(agent).await?;
        // A leader of the bucket that is cut off has what was there before.
        self.wire().stream_info(&self.lease_stream(), CALL).await??;
        let is_replaced = admitted.is_some_and(|admitted| admitted.incarnation > incarnation);
        Ok(there.filter(|_| !is_replaced))
    }

    /// Deletes a consumer: its incarnation's pulls and acks have no effect from now on. It is fine if it does not exist.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn delete_consumer(&self, agent: &AgentName, incarnation: u64) -> Result<()> {
        let first = self.subjects().consumer(agent, incarnation);
        let name = self.consumer_name(agent, incarnation).await?;
        self.delete_named(agent, &name).await?;
        if name != first {
            self.delete_named(agent, &first).await?;
            let renamed = self.renamed_subject(agent, incarnation);
            self.wire().purge(&self.lease_stream(), &renamed).await?;
        }
        Ok(())
    }

    async fn delete_named(&self, agent: &AgentName, name: &str) -> Result<()> {
        let stream = self.journal_stream(agent);
        let what = format!("CONSUMER.DELETE.{stream}.{name}");
        let patience = if self.replicas() == 1 { CALL } else { ANSWERS };
        match self.wire().api::<Done>(&what, &json!({}), patience).await {
            Ok(Ok(Done {})) => Ok(()),
            Ok(Err(error)) if error.err_code == code::CONSUMER_NOT_FOUND => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            // The server that has it is gone and says nothing; that it is deleted is what the others agree on without it.
            Err(error @ BrokerError::Timeout(_)) if self.replicas() > 1 => {
                let names = self.names(stream).await?;
                if names.iter().any(|there| there == name) { Err(error) } else { Ok(()) }
            }
            Err(error) => Err(error),
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
    /// `consumer`: its name, as whoever made it has told it. `given`: how many deliveries the consumer had made when the caller last looked for what never came
    /// ([`ConsumerState::given`]), so that one which was lost since then is noticed.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn pull(
        &self,
        agent: &AgentName,
        consumer: String,
        window: u32,
        given: Option<u64>,
    ) -> Result<Inbox> {
        Inbox::open(self, agent, consumer, window, given).await
    }

    /// Settles a delivery. Not awaited by the server: a lost ack is a redelivery, which the shim answers from the journal.
    ///
    /// # Errors
    /// When the client's queue stays full for 1 s.
    pub async fn ack(&self, reply: &str) -> Result<()> {
        self.answer(reply, Bytes::from_static(b"+ACK")).await
    }

    /// Keeps a delivery from being redelivered for another `ack_wait`.
    ///
    /// # Errors
    /// As [`Broker::ack`].
    pub async fn in_progress(&self, reply: &str) -> Result<()> {
        self.answer(reply, Bytes::from_static(b"+WPI")).await
    }

    async fn answer(&self, reply: &str, how: Bytes) -> Result<()> {
        queued(self.wire().client.publish(reply.to_owned(), how)).await
    }
}
