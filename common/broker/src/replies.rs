//! REPLIES: answers that go into the inboxes of callers piece by piece, each piece once, whichever process sends it.
//!
//! A piece is stored on a subject that names the inbox, and the server republishes what it has stored to the inbox. Storing is a compare-and-set on
//! the piece before: so whoever stores it, and however often, it is sent once, and the last record of the subject says how far the answer has got
//! and who is at it. The stream keeps that record alone, and none once the answer is whole.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::Timestamp;
use common::message::MessageKey;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::api::{Published, Record, header};
use crate::callers::error_headers;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::wire::CALL;

const STATE: &str = "Mozart-Reply";
/// How long an answer may stay where it is: whoever answers says earlier that it goes on.
pub(crate) const KEPT: Duration = Duration::from_secs(900);
/// On a cluster, the pieces come from the server that stores them, and the end from ours: between them is this time.
const ON_CLUSTERS: Duration = Duration::from_millis(250);
/// How long a piece waits for a broker that does not answer. Callers do not wait longer for a sign of life.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a piece is stored anew after the server has forgotten the one before.
const ANEW: u32 = 3;

/// How far an answer has got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplyState {
    /// The process that answers, by its run id.
    pub holder: String,
    /// Which message's answer it is.
    pub key: MessageKey,
    /// When it was asked.
    pub at: Timestamp,
    /// How many bytes of the answer's text were sent,
    #[serde(default)]
    pub sent: u64,
    /// and their digest.
    #[serde(default)]
    pub digest: String,
    /// Whether all was sent but for the end.
    #[serde(default)]
    pub over: bool,
    /// How often it was written.
    #[serde(default)]
    writes: u64,
}

impl ReplyState {
    /// Of an answer that begins.
    #[must_use]
    pub fn new(holder: &str, key: MessageKey, at: Timestamp) -> Self {
        let (holder, digest) = (holder.to_owned(), String::new());
        Self { holder, key, at, sent: 0, digest, over: false, writes: 0 }
    }
}

/// An answer that this process sends, until another one takes it over.
#[derive(Debug)]
pub struct Reply {
    broker: Broker,
    inbox: String,
    /// The sequence of its last record; 0: there is none.
    seq: u64,
    /// How far it has got. What is changed here is stored with the next piece.
    pub state: ReplyState,
}

impl Reply {
    /// Sends a piece. False: another process has taken over, and it was not sent.
    ///
    /// # Errors
    /// When the broker does not answer, or has no room: whether it was sent is not known.
    pub async fn say(&mut self, piece: Bytes) -> Result<bool> {
        self.put(piece, &HeaderMap::new()).await
    }

    /// Sends an error, which is the last piece. False: as for [`Reply::say`].
    ///
    /// # Errors
    /// As for [`Reply::say`].
    pub async fn fail(&mut self, code: u16, description: &str, body: Bytes) -> Result<bool> {
        self.state.over = true;
        self.put(body, &error_headers(code, description)).await
    }

    /// Ends the answer: a message without content and headers, and nothing is kept.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn end(self) -> Result<()> {
        let Self { broker, inbox, .. } = self;
        if broker.is_clustered() {
            tokio::time::sleep(ON_CLUSTERS).await;
        }
        broker.tell(inbox.clone(), Bytes::new()).await?;
        // On the same connection, and so after it. If that does not happen, whoever takes over ends it again, which no caller hears.
        let subject = broker.subjects().reply(&inbox);
        broker.wire().purge(&broker.replies_stream(), &subject).await.map(|_| ())
    }

    async fn put(&mut self, piece: Bytes, more: &HeaderMap) -> Result<bool> {
        self.state.writes += 1;
        let state = serde_json::to_string(&self.state).map_err(BrokerError::other)?;
        let subject = self.broker.subjects().reply(&self.inbox);
        let deadline = Instant::now() + PATIENCE;
        let mut forgotten = 0;
        while forgotten < ANEW {
            let headers = || {
                let mut headers = more.clone();
                headers.insert(header::EXPECTED_LAST, self.seq.to_string());
                headers.insert(STATE, state.as_str());
                headers
            };
            let wire = self.broker.wire();
            let published = match wire.publish(subject.clone(), headers, piece.clone(), CALL).await
            {
                // Asked again, it is the same piece.
                Err(BrokerError::Timeout(_)) if Instant::now() < deadline => continue,
                published => published?.0,
            };
            if let Published::Stored(seq) | Published::Duplicate(seq) = published {
                self.seq = seq;
                return Ok(true);
            }
            let Some((there, seq)) = self.broker.reply_to(&self.inbox).await? else {
                // Another process has ended it, unless the server has forgotten all of it.
                if wire.last_seq(&self.broker.replies_stream()).await? >= self.seq {
                    return Ok(false);
                }
                self.seq = 0;
                forgotten += 1;
                continue;
            };
            if there.holder != self.state.holder {
                return Ok(false);
            }
            self.seq = seq;
            if there.writes == self.state.writes {
                // An earlier try of this very piece: its answer was lost.
                return Ok(true);
            }
            // What the server has forgotten when it was killed is sent already: it goes on from what it knows.
            forgotten += 1;
        }
        Ok(false)
    }
}

impl Broker {
    pub(crate) fn replies_stream(&self) -> String {
        self.subjects().stream("REPLIES")
    }

    /// Begins an answer with its first piece. None: another one goes to this inbox.
    ///
    /// # Errors
    /// As for [`Reply::say`].
    pub async fn begin_reply(
        &self,
        inbox: &str,
        state: ReplyState,
        piece: Bytes,
    ) -> Result<Option<Reply>> {
        let mut reply = Reply { broker: self.clone(), inbox: inbox.to_owned(), seq: 0, state };
        Ok(reply.say(piece).await?.then_some(reply))
    }

    /// Takes over an answer from a process that is gone, with a piece that says so. None: another one was first, or it has ended.
    ///
    /// # Errors
    /// As for [`Reply::say`].
    pub async fn take_reply(
        &self,
        inbox: &str,
        from: &str,
        holder: &str,
        piece: Bytes,
    ) -> Result<Option<Reply>> {
        let Some((mut state, seq)) = self.reply_to(inbox).await? else { return Ok(None) };
        if state.holder != from {
            return Ok(None);
        }
        state.holder = holder.to_owned();
        let mut reply = Reply { broker: self.clone(), inbox: inbox.to_owned(), seq, state };
        // After the last piece there is none: only the end is missing, which may come twice.
        let is_ours = reply.state.over || reply.say(piece).await?;
        Ok(is_ours.then_some(reply))
    }

    /// How far the answer to an inbox has got; none if there is none under way.
    ///
    /// # Errors
    /// [`BrokerError::Malformed`] when its record cannot be read: a later version may have written it. When the broker does not answer.
    pub async fn reply_to_state(&self, inbox: &str) -> Result<Option<ReplyState>> {
        Ok(self.reply_to(inbox).await?.map(|(state, _)| state))
    }

    /// Whether an answer is on its way to an inbox, whether or not its record can be read.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn is_reply_open(&self, inbox: &str) -> Result<bool> {
        let subject = self.subjects().reply(inbox);
        Ok(self.wire().last(&self.replies_stream(), &subject).await?.is_some())
    }

    async fn reply_to(&self, inbox: &str) -> Result<Option<(ReplyState, u64)>> {
        let subject = self.subjects().reply(inbox);
        let record = self.wire().last(&self.replies_stream(), &subject).await?;
        record.map(|record| Ok((state_of(&record)?, record.seq))).transpose()
    }

    /// The inboxes that answers are on their way to.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn open_replies(&self) -> Result<Vec<String>> {
        let stream = self.replies_stream();
        if self.wire().stream_info(&stream, CALL).await??.state.messages == 0 {
            return Ok(Vec::new());
        }
        let index = self.wire().index(&stream, &self.subjects().replies_filter()).await?;
        let inboxes = index.subjects.keys().filter_map(|it| self.subjects().parse_reply(it));
        Ok(inboxes.map(str::to_owned).collect())
    }
}

fn state_of(record: &Record) -> Result<ReplyState> {
    let state = record.header(STATE).unwrap_or_default();
    serde_json::from_str(state).map_err(|error| BrokerError::Malformed {
        subject: record.subject.clone(),
        seq: record.seq,
        cause: error.to_string(),
    })
}
