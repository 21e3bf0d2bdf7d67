//! The journal: requests, final states, and reading both.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::frame::ask::ShimAsk;
use common::message::{Envelope, Final, MessageKey, Outcome};
use common::{AgentName, ConversationTag, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::api::{Published, Record, header};
use crate::asked;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::find::Standing;
use crate::quiet::Quiet;
use crate::wire::pause;

/// The outcome of a [`Broker::send`].
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
    /// Another message already has this id.
    Conflict {
        /// That message.
        stored: Box<Envelope>,
    },
}

/// The outcome of a [`Broker::publish_final`].
#[derive(Debug, Clone, PartialEq)]
pub enum FinalOutcome {
    /// Ours is the final state.
    Won,
    /// Another one was first.
    Lost(Box<Final>),
    /// The message no longer exists, neither in the journal nor in HISTORY.
    Gone,
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

/// Who stored a final state: makes a repeated try of one's own recognisable.
pub(crate) const AUTHOR: &str = "Mozart-Author";

/// The headers of a record that is stored only while nothing is on `subjects`. That makes a repeat harmless by itself: a message
/// id would add nothing but 257 bytes of the server's memory for as long as the stream remembers ids.
pub(crate) fn first_of(subjects: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::EXPECTED_LAST, "0");
    headers.insert(header::EXPECTED_OF, subjects);
    headers
}

/// What a message is to another one of its name, which was there before.
pub(crate) fn already(there: Stored<Envelope>, envelope: &Envelope) -> SendOutcome {
    if there.value.same_content(envelope) {
        SendOutcome::Already { seq: there.seq }
    } else {
        SendOutcome::Conflict { stored: Box::new(there.value) }
    }
}

/// What cannot be parsed is final nevertheless: its subject says so, and no other can be stored. To its readers the message
/// failed, with what is wrong as the reason.
pub(crate) fn read_final(record: &Record) -> Stored<Final> {
    static UNREADABLE: Quiet = Quiet::new();
    Stored::parse(record).unwrap_or_else(|error| {
        if let Some(others) = UNREADABLE.count() {
            tracing::error!("cannot read a final state: {error}{others}");
        }
        let value = Final {
            status: Outcome::Failed,
            response: None,
            reason: Some(error.to_string()),
            attempts: 0,
            incarnation: None,
            at: record.at,
            tail: Vec::new(),
        };
        Stored { value, seq: record.seq, at: record.at }
    })
}

impl Broker {
    /// Stores a message: compare-and-set against "no such message of this agent and sender, in whatever conversation", repeated
    /// within `timeout` until the broker answers.
    ///
    /// It is refused before the journal is full: what is open needs room for its final state.
    ///
    /// # Errors
    /// Too large, full, or no answer in time: then it may be stored, and sending it again is harmless.
    pub async fn send(&self, envelope: &Envelope, timeout: Duration) -> Result<SendOutcome> {
        let condition = first_of(&self.subjects().request_of(&envelope.key()));
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(outcome) = self.send_if(envelope, &condition, left).await? {
                return Ok(outcome);
            }
            // Refused, and not there: another write to the subject is still on its way through the cluster.
            pause(deadline, timeout).await?;
        }
    }

    /// Stores a message as the next one of its conversation: compare-and-set against the last request there, by its sequence; 0: none is in the
    /// journal. None: it is another one, and nothing was stored. Whether the message was sent before, the caller looks up.
    ///
    /// # Errors
    /// As [`Broker::send`].
    pub async fn send_next(
        &self,
        envelope: &Envelope,
        last: u64,
        timeout: Duration,
    ) -> Result<Option<SendOutcome>> {
        let mut condition = HeaderMap::new();
        condition.insert(header::EXPECTED_LAST, last.to_string());
        let within = self.subjects().requests_within(&envelope.agent, &envelope.tag());
        condition.insert(header::EXPECTED_OF, within);
        self.send_if(envelope, &condition, timeout).await
    }

    /// The last request of a conversation, as far as it is in the journal.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn last_request_within(
        &self,
        agent: &AgentName,
        conversation: &ConversationTag,
    ) -> Result<Option<Stored<Envelope>>> {
        let within = self.subjects().requests_within(agent, conversation);
        let record = self.wire().last(&self.journal_stream(agent), &within).await?;
        record.as_ref().map(Stored::parse).transpose()
    }

    /// Stores a message under a condition. None: it is not met, and no message of that name is there.
    async fn send_if(
        &self,
        envelope: &Envelope,
        condition: &HeaderMap,
        timeout: Duration,
    ) -> Result<Option<SendOutcome>> {
        let key = envelope.key();
        let payload = encode(envelope)?;
        self.check_size(payload.len())?;
        let subject = self.subjects().request(&key, &envelope.tag());
        let shard = self.subjects().shard(&key.agent);
        if let Err(full) = self.take_room(shard, payload.len()).await {
            // What is stored already takes no room.
            let there = self.request_of(&key).await?.ok_or(full)?;
            return Ok(Some(already(there, envelope)));
        }
        let (published, tries) =
            self.wire().publish(subject, || condition.clone(), payload, timeout).await?;
        if let Published::Stored(seq) = published {
            return Ok(Some(SendOutcome::Stored { seq }));
        }
        let Some(there) = self.request_of(&key).await? else { return Ok(None) };
        Ok(Some(if tries > 1 && there.value == *envelope {
            // An earlier try of this very call: its answer was lost.
            SendOutcome::Stored { seq: there.seq }
        } else {
            already(there, envelope)
        }))
    }

    /// Stores a message that may have been sent before, however long ago: what has left the journal since is looked for first.
    ///
    /// # Errors
    /// As [`Broker::send`].
    pub async fn send_again(&self, envelope: &Envelope, timeout: Duration) -> Result<SendOutcome> {
        match self.message_of(&envelope.key()).await? {
            Some(there) => Ok(already(there, envelope)),
            None => self.send(envelope, timeout).await,
        }
    }

    /// Stores a message's final state, if it has none. `conversation` is that of its request; `author` must differ between any two that may try at once
    /// (such as `<incarnation>.<attempt>`): it makes a repeated try of one's own recognisable.
    ///
    /// Whoever has the request at hand uses [`Broker::settle`].
    ///
    /// # Errors
    /// As [`Broker::send`].
    pub async fn publish_final(
        &self,
        key: &MessageKey,
        conversation: &ConversationTag,
        final_: &Final,
        author: &str,
        timeout: Duration,
    ) -> Result<FinalOutcome> {
        let any = self.subjects().final_of(key);
        self.end(key, conversation, first_of(&any), final_, author, timeout).await
    }

    /// The same, and only while the request is where it was found, at that sequence: a message that has got its final state may have left
    /// the journal since, with its final state, and must not get another.
    ///
    /// # Errors
    /// As [`Broker::send`].
    pub async fn settle(
        &self,
        key: &MessageKey,
        conversation: &ConversationTag,
        request: u64,
        final_: &Final,
        author: &str,
        timeout: Duration,
    ) -> Result<FinalOutcome> {
        let mut only = HeaderMap::new();
        only.insert(header::EXPECTED_LAST, request.to_string());
        only.insert(header::EXPECTED_OF, self.subjects().message_of(key));
        self.end(key, conversation, only, final_, author, timeout).await
    }

    async fn end(
        &self,
        key: &MessageKey,
        conversation: &ConversationTag,
        condition: HeaderMap,
        final_: &Final,
        author: &str,
        timeout: Duration,
    ) -> Result<FinalOutcome> {
        if author.contains(['\r', '\n']) {
            return Err(BrokerError::other("an author with a line break"));
        }
        let payload = encode(final_)?;
        self.check_size(payload.len())?;
        let subject = self.subjects().final_(key, conversation);
        let headers = || {
            let mut headers = condition.clone();
            headers.insert(AUTHOR, author);
            headers
        };
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (published, _) =
                self.wire().publish(subject.clone(), headers, payload.clone(), left).await?;
            match published {
                Published::Stored(_) | Published::Duplicate(_) => {
                    self.clear_marks(key, final_).await;
                    return Ok(FinalOutcome::Won);
                }
                Published::WrongLast => {}
            }
            if let Some(there) = self.last_journal(key, true).await? {
                // Also those of an attempt that was still going when another's final state was stored.
                self.clear_marks(key, final_).await;
                return if there.header(AUTHOR) == Some(author) {
                    Ok(FinalOutcome::Won)
                } else {
                    Ok(FinalOutcome::Lost(Box::new(read_final(&there).value)))
                };
            }
            match self.standing_of(key).await? {
                Standing::Open => {}
                Standing::Final(there) => {
                    self.clear_marks(key, final_).await;
                    return Ok(FinalOutcome::Lost(Box::new(there.value)));
                }
                Standing::Gone => return Ok(FinalOutcome::Gone),
            }
            pause(deadline, timeout).await?;
        }
    }

    /// The final state of a message in the journal, or its request.
    pub(crate) async fn last_journal(
        &self,
        key: &MessageKey,
        is_final: bool,
    ) -> Result<Option<Record>> {
        if let Some(told) = self.asked(|| ShimAsk::Last { key: key.clone(), is_final }).await? {
            return asked::record(told);
        }
        let subjects = self.subjects();
        let subject = if is_final { subjects.final_of(key) } else { subjects.request_of(key) };
        self.wire().last(&self.journal_stream(&key.agent), &subject).await
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
        let record = self.last_journal(key, false).await?;
        record.as_ref().map(Stored::parse).transpose()
    }

    /// Reads a message's final state, from the stream's leader.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn final_of(&self, key: &MessageKey) -> Result<Option<Stored<Final>>> {
        let record = self.last_journal(key, true).await?;
        Ok(record.as_ref().map(read_final))
    }
}
