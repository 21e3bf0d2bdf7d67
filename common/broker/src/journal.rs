//! The journal: requests, final states, and reading both.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::message::{Envelope, Final, MessageKey};
use common::{AgentName, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::api::{Published, Record, header};
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::wire::pause;

/// What became of a [`Broker::send`].
#[derive(Debug, Clone, PartialEq)]
pub enum SendOutcome {
    /// On disk, new.
    Stored {
        /// Its sequence in the agent's journal stream.
        seq: u64,
    },
    /// The same message was there already.
    Already {
        /// Its sequence.
        seq: u64,
    },
    /// Another message with this id is there.
    Conflict {
        /// What is there.
        stored: Box<Envelope>,
    },
}

/// What became of a [`Broker::publish_final`].
#[derive(Debug, Clone, PartialEq)]
pub enum FinalOutcome {
    /// Ours is the final state.
    Won,
    /// Another one was first.
    Lost(Box<Final>),
}

/// A record with its place in the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// The record.
    pub value: T,
    /// Its sequence.
    pub seq: u64,
    /// When the broker stored it.
    pub at: Timestamp,
}

impl<T: DeserializeOwned> Stored<T> {
    pub(crate) fn parse(record: &Record) -> Result<Self> {
        Ok(Self { value: record.parse()?, seq: record.seq, at: record.at })
    }
}

pub(crate) fn encode(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(BrokerError::other)
}

/// The headers of a record that may be stored once, on a subject that has none.
pub(crate) fn once(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::MESSAGE_ID, id);
    headers.insert(header::EXPECTED_LAST, "0");
    headers
}

impl Broker {
    /// Stores a message: compare-and-set against "nothing there" plus its id, repeated within `timeout` until the broker answers.
    ///
    /// # Errors
    /// Too large, full, or no answer in time: then it may be stored, and sending it again is harmless.
    pub async fn send(&self, envelope: &Envelope, timeout: Duration) -> Result<SendOutcome> {
        let Envelope { agent, sender, message_id, .. } = envelope;
        let payload = encode(envelope)?;
        self.check_size(payload.len())?;
        let subject = self.subjects().request(agent, sender, message_id);
        let id = format!("{agent}.{sender}.{message_id}");
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (published, tries) =
                self.wire().publish(subject.clone(), || once(&id), payload.clone(), left).await?;
            if let Published::Stored(seq) = published {
                return Ok(SendOutcome::Stored { seq });
            }
            if let Some(there) = self.request_of(&envelope.key()).await? {
                let seq = there.seq;
                return Ok(if tries > 1 && there.value == *envelope {
                    // An earlier try of this very call: its answer was lost.
                    SendOutcome::Stored { seq }
                } else if there.value.same_content(envelope) {
                    SendOutcome::Already { seq }
                } else {
                    SendOutcome::Conflict { stored: Box::new(there.value) }
                });
            }
            // Refused, and not there: another write to the subject is still on its way through the cluster.
            pause(deadline, timeout).await?;
        }
    }

    /// Stores a message's final state, if it has none. `author` must differ between any two that may try at once
    /// (such as `<incarnation>.<attempt>`): it makes a repeated try of one's own recognisable.
    ///
    /// # Errors
    /// As [`Broker::send`].
    pub async fn publish_final(
        &self,
        key: &MessageKey,
        final_: &Final,
        author: &str,
        timeout: Duration,
    ) -> Result<FinalOutcome> {
        let MessageKey { agent, sender, message_id } = key;
        if author.contains(['\r', '\n']) {
            return Err(BrokerError::other("an author with a line break"));
        }
        let payload = encode(final_)?;
        self.check_size(payload.len())?;
        let subject = self.subjects().final_(agent, sender, message_id);
        let id = format!("{agent}.{sender}.{message_id}.final.{author}");
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (published, _) =
                self.wire().publish(subject.clone(), || once(&id), payload.clone(), left).await?;
            match published {
                Published::Stored(_) | Published::Duplicate(_) => return Ok(FinalOutcome::Won),
                Published::WrongLast => {}
            }
            if let Some(there) = self.last_journal(agent, &subject).await? {
                return if there.header(header::MESSAGE_ID) == Some(&id) {
                    Ok(FinalOutcome::Won)
                } else {
                    Ok(FinalOutcome::Lost(Box::new(there.parse()?)))
                };
            }
            pause(deadline, timeout).await?;
        }
    }

    async fn last_journal(&self, agent: &AgentName, subject: &str) -> Result<Option<Record>> {
        let stream = self.journal_stream(agent);
        self.wire().last(&stream, subject).await
    }

    /// The name of the stream that holds an agent's journal.
    pub(crate) fn journal_stream(&self, agent: &AgentName) -> String {
        let subjects = self.subjects();
        subjects.journal_stream(subjects.shard(agent))
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn request_of(&self, key: &MessageKey) -> Result<Option<Stored<Envelope>>> {
        let subject = self.subjects().request(&key.agent, &key.sender, &key.message_id);
        let record = self.last_journal(&key.agent, &subject).await?;
        record.as_ref().map(Stored::parse).transpose()
    }

    /// Reads a message's final state, from the stream's leader.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn final_of(&self, key: &MessageKey) -> Result<Option<Stored<Final>>> {
        let subject = self.subjects().final_(&key.agent, &key.sender, &key.message_id);
        let record = self.last_journal(&key.agent, &subject).await?;
        record.as_ref().map(Stored::parse).transpose()
    }
}
