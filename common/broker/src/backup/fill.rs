//! Writing a stream for a restore: in order, many records at once, and each only after the one before it.

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::{Copied, Part};
use crate::api::Acknowledged;
use crate::connection::{Broker, queued};
use crate::error::{BrokerError, Result};
use crate::history::batch::{self, New};
use crate::record::STORED_AT;
use crate::wire::{CALL, pause};

/// What the sequence before a record has to be.
const EXPECTED: &str = "Nats-Expected-Last-Sequence";

/// The most records that are under way at once, and the most bytes of them.
const AT_ONCE: usize = 500;
const BYTES: usize = 4 << 20;

/// How often what the broker did not confirm is sent again.
const TRIES: u32 = 5;

/// A stream that nobody else writes to, while it is filled.
#[derive(Debug)]
pub struct Filler {
    broker: Broker,
    part: Part,
    stream: String,
    /// Its last sequence.
    last: u64,
    waiting: Vec<New>,
    bytes: usize,
}

impl Broker {
    /// Goes on with filling a stream after its last record. Nobody else may write to it.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn fill_part(&self, part: Part) -> Result<Filler> {
        let stream = part.stream(self.subjects());
        let last = self.wire().last_seq(&stream).await?;
        let (waiting, bytes) = (Vec::new(), 0);
        Ok(Filler { broker: self.clone(), part, stream, last, waiting, bytes })
    }
}

impl Filler {
    /// Writes a record behind the others. It is stored when a later call, or [`Filler::end`], returns.
    ///
    /// # Errors
    /// When its subject is none, or as [`Filler::end`].
    pub async fn add(&mut self, record: Copied) -> Result<()> {
        let Copied { subject, at, headers, payload, seq } = record;
        let Some(subject) = self.broker.subjects().absolute(&subject) else {
            return Err(BrokerError::Malformed { subject, seq, cause: "it names no agent".into() });
        };
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let (name, value) = (name.parse::<async_nats::HeaderName>(), value.parse());
            let (Ok(name), Ok(value)) = (name, value) else {
                let cause = "a header that is none".to_owned();
                return Err(BrokerError::Malformed { subject, seq, cause });
            };
            let value: async_nats::HeaderValue = value;
            all.append(name, value);
        }
        if self.part.keeps_time() {
            all.insert(STORED_AT, at.as_millis().to_string());
        }
        self.bytes += payload.len() + subject.len();
        self.waiting.push(New { subject, headers: all, payload });
        if self.waiting.len() >= AT_ONCE || self.bytes >= BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Waits until everything is stored. The last sequence.
    ///
    /// # Errors
    /// When the broker does not answer, has no room, or somebody else writes to the stream.
    pub async fn end(mut self) -> Result<u64> {
        self.flush().await?;
        Ok(self.last)
    }

    async fn flush(&mut self) -> Result<()> {
        let records = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let (begin, mut done, mut tries) = (self.last, 0, 0);
        let deadline = Instant::now() + 6 * CALL;
        while done < records.len() {
            let rest = records.get(done..).unwrap_or_default();
            let written = match self.part {
                // One sync for all of them.
                Part::Control
                | Part::Files
                | Part::Journal(_)
                | Part::History
                | Part::Steps
                | Part::Questions
                | Part::Dead
                | Part::Schedules
                | Part::Later => batch::write(self.broker.wire(), rest, self.last).await,
                // These are not synced at all, and take no batches then.
                Part::Attempts | Part::Events | Part::Logs => self.write(rest).await,
            };
            match written {
                Ok(last) => self.last = last,
                // Some of them may be stored: the next try begins after those.
                Err(error) => {
                    tries += 1;
                    if tries >= TRIES || matches!(error, BrokerError::Full(_)) {
                        return Err(error);
                    }
                    tracing::debug!(%error, "{} is filled on after a fault", self.stream);
                    pause(deadline, CALL).await?;
                    self.last = self.broker.wire().last_seq(&self.stream).await?;
                }
            }
            let there = self.last.checked_sub(begin).and_then(|there| usize::try_from(there).ok());
            done = match there.filter(|there| (done..=records.len()).contains(there)) {
                Some(there) => there,
                None => {
                    let stream = &self.stream;
                    let cause = format!(
                        "{stream} has other records than were written to it: somebody else writes, or its server has lost some"
                    );
                    return Err(BrokerError::Other(cause));
                }
            };
        }
        Ok(())
    }

    /// Sends records one behind the other, and then waits for all answers. Each is stored only if the one before it is the last.
    async fn write(&self, records: &[New]) -> Result<u64> {
        let client = &self.broker.wire().client;
        let deadline = Instant::now() + 2 * CALL;
        let epoch = self.broker.wire().up(deadline, CALL).await?;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(BrokerError::other)?;
        for (after, record) in (self.last..).zip(records) {
            let mut headers = record.headers.clone();
            headers.insert(EXPECTED, after.to_string());
            let payload: Bytes = record.payload.clone();
            let (subject, inbox) = (record.subject.clone(), inbox.clone());
            queued(client.publish_with_reply_and_headers(subject, inbox, headers, payload)).await?;
        }
        let mut last = self.last;
        for _ in records {
            let answer = tokio::select! {
                biased;
                answer = timeout_at(deadline, answers.next()) => answer,
                () = self.broker.wire().reconnected(epoch) => {
                    return Err(BrokerError::other("the connection was lost"));
                }
            };
            let Ok(answer) = answer else { return Err(BrokerError::Timeout(2 * CALL)) };
            let Some(answer) = answer else {
                return Err(BrokerError::other("the client is closed"));
            };
            last = last.max(Acknowledged::parse(&answer.payload)?);
        }
        Ok(last)
    }
}
