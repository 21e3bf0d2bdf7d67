//! EVENTS: what happens between a request and its final state.

use async_nats::HeaderMap;
use common::event::{self, Event};
use common::message::MessageKey;
use common::{AgentName, ConversationId, MessageId, SenderName, Timestamp};

use crate::api::{Published, header};
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::follow::{End, Followed, Follower, Source};
use crate::read::Reader;
use crate::record::Record;
use crate::wire::CALL;

/// The most bytes of stored events that are held for one reader.
const PART: u32 = 128 << 10;

const INCARNATION: &str = "Mozart-Incarnation";
const ATTEMPT: &str = "Mozart-Attempt";
const SEQ: &str = "Mozart-Seq";
pub(crate) const CONVERSATION: &str = "Mozart-Conversation";

/// Events of one message that go out as one EVENTS message.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch {
    /// Whose message it is.
    pub agent: AgentName,
    /// Who sent it.
    pub sender: SenderName,
    /// The message.
    pub message_id: MessageId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Who says so.
    pub incarnation: u64,
    /// In which attempt.
    pub attempt: u32,
    /// The events, in order.
    pub events: Vec<Event>,
}

impl EventBatch {
    /// The message's name.
    #[must_use]
    pub fn key(&self) -> MessageKey {
        MessageKey {
            agent: self.agent.clone(),
            sender: self.sender.clone(),
            message_id: self.message_id.clone(),
        }
    }
}

fn headers(batch: &EventBatch) -> HeaderMap {
    let seq = batch.events.first().map_or(0, |event| event.seq);
    let EventBatch { agent, sender, message_id, attempt, incarnation, .. } = batch;
    let id = format!("{agent}.{sender}.{message_id}.{attempt}.{incarnation}.{seq}");
    let mut headers = HeaderMap::new();
    headers.insert(header::MESSAGE_ID, id);
    headers.insert(INCARNATION, incarnation.to_string());
    headers.insert(ATTEMPT, attempt.to_string());
    headers.insert(SEQ, seq.to_string());
    headers.insert(CONVERSATION, batch.conversation_id.as_str());
    headers
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &'static str) -> Option<T> {
    headers.get(name)?.as_str().parse().ok()
}

/// The stored events of a message, in stream order.
#[derive(Debug)]
pub struct StoredEvents {
    reader: Reader,
    broker: Broker,
}

impl StoredEvents {
    /// The next ones; none at the end.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn next(&mut self) -> Result<Option<EventBatch>> {
        while let Some(Record { subject, headers, payload, .. }) = self.reader.next().await? {
            if let Some(batch) = self.broker.event_batch(&subject, &headers, &payload) {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

impl Broker {
    pub(crate) fn events_stream(&self) -> String {
        self.subjects().stream("EVENTS")
    }

    /// Stores events, and what they say of the attempt, and waits for the broker's answers. The id
    /// `<agent>.<sender>.<message>.<attempt>.<incarnation>.<seq>` makes a repeat harmless.
    ///
    /// # Errors
    /// When the broker does not answer: repeat.
    pub async fn publish_events(&self, batch: &EventBatch) -> Result<()> {
        let payload = event::encode(&batch.events);
        self.check_size(payload.len())?;
        let subject = self.subjects().events(&batch.key());
        let headers = || headers(batch);
        let events = self.wire().publish(subject, headers, payload.into(), CALL);
        let (published, ()) = tokio::try_join!(events, self.mark(batch))?;
        match published.0 {
            Published::Stored(_) | Published::Duplicate(_) => Ok(()),
            Published::WrongLast => Err(BrokerError::other("wrong last sequence")),
        }
    }

    /// All stored events of a message, in stream order, with their incarnations and attempts.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn events(&self, key: &MessageKey) -> Result<Vec<EventBatch>> {
        let stored = self.stored_events(key).await?;
        Ok(stored.into_iter().map(|(_, batch)| batch).collect())
    }

    /// The same, with the times at which the broker stored them.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn stored_events(&self, key: &MessageKey) -> Result<Vec<(Timestamp, EventBatch)>> {
        let (stream, filter) = (self.events_stream(), self.subjects().events(key));
        let reader = Reader::new(self.wire(), stream, filter, 1, u64::MAX).of(self.replicas());
        let records = reader.rest().await?;
        Ok(records
            .iter()
            .filter_map(|record| {
                let batch = self.event_batch(&record.subject, &record.headers, &record.payload);
                Some((record.at, batch?))
            })
            .collect())
    }

    /// The stored events of a message, to be read a part at a time: whoever takes them slowly holds few.
    #[must_use]
    pub fn read_events(&self, key: &MessageKey) -> StoredEvents {
        let (stream, filter) = (self.events_stream(), self.subjects().events(key));
        let reader = Reader::new(self.wire(), stream, filter, 1, u64::MAX);
        StoredEvents { reader: reader.of(self.replicas()).pages(PART), broker: self.clone() }
    }

    /// The first stored events of a message, of so many records at most.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn first_events(&self, key: &MessageKey, records: usize) -> Result<Vec<EventBatch>> {
        let (stream, filter) = (self.events_stream(), self.subjects().events(key));
        let reader = Reader::new(self.wire(), stream, filter, 1, u64::MAX).of(self.replicas());
        // No more than that is sent: an answer may be long.
        let mut reader = reader.expecting(records as u64);
        let mut batches = Vec::new();
        while batches.len() < records
            && let Some(record) = reader.next().await?
        {
            let Record { subject, headers, payload, .. } = &record;
            batches.extend(self.event_batch(subject, headers, payload));
        }
        Ok(batches)
    }

    /// The last stored events of a message, as they were stored together; none if there are none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn last_events(&self, key: &MessageKey) -> Result<Option<EventBatch>> {
        let record = self.wire().last(&self.events_stream(), &self.subjects().events(key)).await?;
        Ok(record.and_then(|Record { subject, headers, payload, .. }| {
            self.event_batch(&subject, &headers, &payload)
        }))
    }

    /// Follows the events of a message, stored ones first, then live.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn follow_events(&self, key: &MessageKey) -> Result<EventFollower> {
        let source = Source {
            stream: self.events_stream(),
            filter: self.subjects().events(key),
            from: 1,
            end: End::Soft,
            bare: false,
        };
        Ok(EventFollower {
            inner: Follower::start(self.wire(), source).await?,
            broker: self.clone(),
        })
    }

    /// Whose events they are, by the subject; the rest by the headers. None if they are not ours.
    fn event_batch(
        &self,
        subject: &str,
        headers: &HeaderMap,
        payload: &[u8],
    ) -> Option<EventBatch> {
        let MessageKey { agent, sender, message_id } = self.subjects().parse_events(subject)?;
        let conversation = headers.get(CONVERSATION)?.as_str();
        Some(EventBatch {
            agent,
            sender,
            message_id,
            conversation_id: ConversationId::new(conversation).ok()?,
            incarnation: number(headers, INCARNATION)?,
            attempt: number(headers, ATTEMPT)?,
            events: event::decode(payload),
        })
    }
}

/// A run through EVENTS; survives the broker's restart.
#[derive(Debug)]
pub struct EventFollower {
    inner: Follower,
    broker: Broker,
}

impl EventFollower {
    /// The next batch. Waits for new ones forever. Cancel safe.
    ///
    /// # Errors
    /// When it cannot continue.
    pub async fn next(&mut self) -> Result<EventBatch> {
        loop {
            let Followed::Message { seq, message, .. } = self.inner.next().await? else {
                continue;
            };
            let headers = message.headers.unwrap_or_default();
            match self.broker.event_batch(&message.subject, &headers, &message.payload) {
                Some(batch) => return Ok(batch),
                None => tracing::debug!(seq, subject = %message.subject, "not events"),
            }
        }
    }
}
