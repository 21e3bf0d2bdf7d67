//! LATER: messages that are to be delivered later. Each waits here until it is due and given to the journal, or cancelled.
//!
//! Which of the two happens, a record decides that is stored by a compare-and-set on the request: `given`, or a final state. What is given is then
//! stored in the journal, unless it is there or in HISTORY, and only then removed here, the request before the decision. So whoever dies in
//! between, the next one goes on; and of several that try at once, all do the same.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::message::{Envelope, Final, MessageKey};
use common::subject::{JournalSubject, LaterKind};
use common::{ConversationTag, Timestamp};
use tokio::time::Instant;

use crate::api::{Published, Record, StreamInfo, code, header};
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::follow::{End, Followed, Follower, Source};
use crate::inbox::believe;
use crate::journal::{AUTHOR, SendOutcome, Stored, already, encode, first_of, read_final};
use crate::streams::LATER_RECORDS;
use crate::wire::{CALL, pause};

/// When a message is to be delivered, in milliseconds since 1970: who follows the stream reads no bodies.
const DELIVER_AT: &str = "Mozart-Deliver-At";

/// New messages are refused from here on: what waits needs room for what is decided about it, and several may be sent at once.
const MOST: u64 = LATER_RECORDS / 100 * 45;

/// The content of a decision to give a message to the journal: its subject says it all.
const GIVEN: &[u8] = b"{}";

/// What a [`LaterFollower`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaterItem {
    /// A message that waits.
    Request {
        /// Its sequence.
        seq: u64,
        /// When it was stored.
        at: Timestamp,
        /// Its name.
        key: MessageKey,
        /// Its conversation.
        conversation: ConversationTag,
        /// When it is to be delivered, as its sender says beside it.
        deliver_at: Timestamp,
    },
    /// It is decided that a message goes into the journal.
    Given {
        /// The sequence of the decision.
        seq: u64,
        /// The message.
        key: MessageKey,
    },
    /// A message was cancelled.
    Final {
        /// The sequence of the final state.
        seq: u64,
        /// When it was stored.
        at: Timestamp,
        /// The message.
        key: MessageKey,
    },
    /// A record that means nothing.
    Unknown {
        /// Its sequence.
        seq: u64,
    },
    /// Everything that was stored when the follower began has been seen (once).
    CaughtUp,
}

/// What has become of a message that was due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Giving {
    /// It is in the journal, or has been, and is no more in LATER.
    Done,
    /// The journal has another message of this name, which counts; it is no more in LATER.
    Other,
    /// It is to be delivered only then.
    NotYet(Timestamp),
    /// It was cancelled.
    Ended,
    /// It is not there any more.
    Gone,
    /// Nobody can read it: why.
    Unreadable(String),
}

/// What has become of a message that was to be cancelled.
#[derive(Debug, Clone, PartialEq)]
pub enum LaterEnd {
    /// It is cancelled.
    Won,
    /// It has another final state.
    Lost(Box<Final>),
    /// It is on its way to the journal, or there.
    Given,
    /// It is not there any more.
    Gone,
}

/// A run through LATER.
#[derive(Debug)]
pub struct LaterFollower {
    inner: Follower,
    broker: Broker,
}

/// The headers of a record that is stored only while the last one of a message is at a sequence.
fn after(subjects: &str, seq: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::EXPECTED_LAST, seq.to_string());
    headers.insert(header::EXPECTED_OF, subjects);
    headers
}

impl Broker {
    pub(crate) fn later_stream(&self) -> String {
        self.subjects().stream("LATER")
    }

    /// None where the fleet's supervisors are of an earlier version, and have not made it.
    async fn later_info(&self) -> Result<Option<StreamInfo>> {
        match self.wire().stream_info(&self.later_stream(), CALL).await? {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.err_code == code::STREAM_NOT_FOUND => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there are any records.
    pub(crate) async fn has_later(&self) -> Result<bool> {
        Ok(self.later_info().await?.is_some_and(|info| info.state.messages > 0))
    }

    /// The last record of a message, and what it is.
    pub(crate) async fn last_later(&self, key: &MessageKey) -> Result<Option<(LaterKind, Record)>> {
        if !self.has_later().await? {
            return Ok(None);
        }
        let filter = self.subjects().later_of(key);
        let record = self.wire().last(&self.later_stream(), &filter).await?;
        Ok(record.and_then(|record| {
            let (_, kind) = self.subjects().parse_later(&record.subject)?;
            Some((kind, record))
        }))
    }

    /// A message that waits, or that was cancelled while it did.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn later_request(&self, key: &MessageKey) -> Result<Option<Stored<Envelope>>> {
        if !self.has_later().await? {
            return Ok(None);
        }
        let filter = self.subjects().later_request_of(key);
        let record = self.wire().last(&self.later_stream(), &filter).await?;
        record.as_ref().map(Stored::parse).transpose()
    }

    /// Stores a message that is to be delivered later: compare-and-set against "no such message here". Whether it is in the journal, the caller
    /// looks up before, if it may have been sent before.
    ///
    /// # Errors
    /// Too large, full, or no answer in time: then it may be stored, and sending it again is harmless. When the fleet's supervisors would not deliver it.
    pub async fn send_later(&self, envelope: &Envelope, timeout: Duration) -> Result<SendOutcome> {
        let Some(deliver_at) = envelope.deliver_at else {
            return Err(BrokerError::other("a message without a time of delivery"));
        };
        let key = envelope.key();
        let payload = encode(envelope)?;
        self.check_size(payload.len())?;
        let Some(info) = self.later_info().await? else {
            let why = "the fleet's supervisors are of a version that delivers no messages later";
            return Err(BrokerError::Refused(why.to_owned()));
        };
        let room = match info.state.messages >= MOST {
            true => {
                let waiting = info.state.messages;
                Err(BrokerError::Full(format!("{waiting} messages are waiting to be delivered")))
            }
            false => self.take_room(self.subjects().shard(&key.agent), payload.len()).await,
        };
        if let Err(full) = room {
            // What is stored already takes no room.
            let there = self.later_request(&key).await?.ok_or(full)?;
            return Ok(already(there, envelope));
        }
        let mut condition = first_of(&self.subjects().later_of(&key));
        condition.insert(DELIVER_AT, deliver_at.as_millis().to_string());
        let subject = self.subjects().later(&key, &envelope.tag(), LaterKind::Request);
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let sent =
                self.wire().publish(subject.clone(), || condition.clone(), payload.clone(), left);
            let (published, tries) = sent.await?;
            if let Published::Stored(seq) | Published::Duplicate(seq) = published {
                return Ok(SendOutcome::Stored { seq });
            }
            if let Some(there) = self.message_of(&key).await? {
                return Ok(if tries > 1 && there.value == *envelope {
                    // An earlier try of this very call: its answer was lost.
                    SendOutcome::Stored { seq: there.seq }
                } else {
                    already(there, envelope)
                });
            }
            // Refused, and not there: another write is still on its way through the cluster.
            pause(deadline, timeout).await?;
        }
    }

    /// Ends a message that waits, whose request is at a sequence. `author` must differ between any two that may try at once: it makes a repeated
    /// try of one's own recognisable.
    ///
    /// # Errors
    /// When the broker does not answer, or has no room.
    pub async fn end_later(
        &self,
        (key, conversation): (&MessageKey, &ConversationTag),
        request: u64,
        final_: &Final,
        author: &str,
        timeout: Duration,
    ) -> Result<LaterEnd> {
        if author.contains(['\r', '\n']) {
            return Err(BrokerError::other("an author with a line break"));
        }
        let payload = encode(final_)?;
        let subject = self.subjects().later(key, conversation, LaterKind::Final);
        let headers = || {
            let mut headers = after(&self.subjects().later_of(key), request);
            headers.insert(AUTHOR, author);
            headers
        };
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let sent = self.wire().publish(subject.clone(), headers, payload.clone(), left);
            match sent.await?.0 {
                Published::Stored(_) | Published::Duplicate(_) => return Ok(LaterEnd::Won),
                Published::WrongLast => {}
            }
            match self.last_later(key).await? {
                Some((LaterKind::Final, record)) if record.header(AUTHOR) == Some(author) => {
                    return Ok(LaterEnd::Won);
                }
                Some((LaterKind::Final, record)) => {
                    return Ok(LaterEnd::Lost(Box::new(read_final(&record).value)));
                }
                Some((LaterKind::Given, _)) => return Ok(LaterEnd::Given),
                Some((LaterKind::Request, record)) if record.seq == request => {}
                Some((LaterKind::Request, _)) | None => return Ok(LaterEnd::Gone),
            }
            pause(deadline, timeout).await?;
        }
    }

    /// Gives a message that is due to the journal, whose request is at a sequence. Repeating it is harmless, also for several at once.
    ///
    /// # Errors
    /// When the broker does not answer, or the journal has no room: it is to be repeated.
    pub async fn give_later(
        &self,
        (key, conversation): (&MessageKey, &ConversationTag),
        request: u64,
        now: Timestamp,
    ) -> Result<Giving> {
        let stream = self.later_stream();
        let filter = self.subjects().later_request_of(key);
        // That there is none is confirmed, which a look at the sequence would not be.
        let record = self.wire().last(&stream, &filter).await?;
        let Some(record) = record.filter(|record| record.seq == request) else {
            return self.given_before(key).await;
        };
        let named = JournalSubject {
            key: key.clone(),
            conversation: conversation.clone(),
            is_final: false,
        };
        let envelope = match believe(named, &record.payload) {
            Ok(envelope) => envelope,
            Err(error) => return Ok(Giving::Unreadable(error.reason().to_owned())),
        };
        // What is decided is given, whatever the time is by now: it cannot be cancelled any more.
        if let Some(at) = envelope.deliver_at.filter(|at| *at > now)
            && !self.is_given(key).await?
        {
            return Ok(Giving::NotYet(at));
        }
        // As long as there is no room, it can be cancelled.
        if let Err(full) =
            self.take_room(self.subjects().shard(&key.agent), record.payload.len()).await
            && !self.is_given(key).await?
        {
            return Err(full);
        }
        let Some(decision) = self.decide_later(key, conversation, request).await? else {
            return self.given_before(key).await;
        };
        let is_ours = self.put_in_journal(&envelope, record.payload).await?;
        // The request first: alone it would be one that waits. Whoever has the message forgotten later finds no bytes of it here.
        self.remove(&stream, vec![request], true).await?;
        self.remove(&stream, vec![decision], false).await?;
        Ok(if is_ours { Giving::Done } else { Giving::Other })
    }

    /// Whether it is decided that a message goes into the journal.
    async fn is_given(&self, key: &MessageKey) -> Result<bool> {
        Ok(matches!(self.last_later(key).await?, Some((LaterKind::Given, _))))
    }

    /// Decides that a message goes into the journal. The sequence of the decision, whoever made it; none: it was cancelled, or is gone.
    async fn decide_later(
        &self,
        key: &MessageKey,
        conversation: &ConversationTag,
        request: u64,
    ) -> Result<Option<u64>> {
        let subject = self.subjects().later(key, conversation, LaterKind::Given);
        let headers = || after(&self.subjects().later_of(key), request);
        let decided = self.wire().publish(subject, headers, Bytes::from_static(GIVEN), CALL);
        match decided.await?.0 {
            Published::Stored(seq) | Published::Duplicate(seq) => return Ok(Some(seq)),
            Published::WrongLast => {}
        }
        match self.last_later(key).await? {
            Some((LaterKind::Given, record)) => Ok(Some(record.seq)),
            Some((LaterKind::Request, record)) if record.seq == request => {
                Err(BrokerError::other("another write to LATER is on its way"))
            }
            Some((LaterKind::Request | LaterKind::Final, _)) | None => Ok(None),
        }
    }

    /// What there is of a message whose request is not there, or is not to be given. A decision without a request is left of one that is in
    /// the journal.
    async fn given_before(&self, key: &MessageKey) -> Result<Giving> {
        Ok(match self.last_later(key).await? {
            Some((LaterKind::Final, _)) => Giving::Ended,
            Some((LaterKind::Given, record)) => {
                self.remove(&self.later_stream(), vec![record.seq], false).await?;
                Giving::Done
            }
            Some((LaterKind::Request, _)) | None => Giving::Gone,
        })
    }

    /// Stores a message in the journal, as it is, unless it has been there. False: another message has its name there.
    async fn put_in_journal(&self, envelope: &Envelope, payload: Bytes) -> Result<bool> {
        let key = envelope.key();
        let there = match self.request_of(&key).await? {
            Some(there) => Some(there),
            None => self.archived_of(&key).await?.and_then(|archived| archived.request),
        };
        if let Some(there) = there {
            return Ok(there.value.same_content(envelope));
        }
        self.take_room(self.subjects().shard(&key.agent), payload.len()).await?;
        let subject = self.subjects().request(&key, &envelope.tag());
        let MessageKey { agent, sender, message_id } = &key;
        let headers = || {
            let mut headers = first_of(&self.subjects().request_of(&key));
            // The condition alone holds while the message is in the journal. One who stood still between the look and this may come later.
            headers.insert(header::MESSAGE_ID, format!("later.{agent}.{sender}.{message_id}"));
            headers
        };
        match self.wire().publish(subject, headers, payload, CALL).await?.0 {
            Published::Stored(_) | Published::Duplicate(_) => Ok(true),
            Published::WrongLast => match self.request_of(&key).await? {
                Some(there) => Ok(there.value.same_content(envelope)),
                // It is on its way through the cluster, or left just now.
                None => Err(BrokerError::other("another write to the journal is on its way")),
            },
        }
    }

    /// The sequence of a message's request, as long as that is there.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn place_in_later(&self, key: &MessageKey) -> Result<Option<u64>> {
        let filter = self.subjects().later_request_of(key);
        let last = self.wire().last(&self.later_stream(), &filter).await?;
        Ok(last.map(|record| record.seq))
    }

    /// Removes records of messages that were cancelled long ago, requests before their final states.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_later(&self, requests: Vec<u64>, finals: Vec<u64>) -> Result<()> {
        let stream = self.later_stream();
        self.remove(&stream, requests, true).await?;
        self.remove(&stream, finals, true).await
    }

    /// The sequence of the last record that there is; 0: there is none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn end_of_later(&self) -> Result<u64> {
        let filter = self.subjects().later_filter();
        let last = self.wire().last_within(&self.later_stream(), &filter, CALL).await?;
        Ok(last.map_or(0, |record| record.seq))
    }

    /// Follows what is to be delivered later, without the bodies: everything that is stored, then what comes.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn follow_later(&self) -> Result<LaterFollower> {
        let source = Source {
            stream: self.later_stream(),
            filter: self.subjects().later_filter(),
            from: 1,
            end: End::Thinned,
            bare: true,
        };
        let inner = Follower::start(self.wire(), source).await?;
        Ok(LaterFollower { inner, broker: self.clone() })
    }
}

impl LaterFollower {
    /// The next item. Waits forever. Cancel safe.
    ///
    /// # Errors
    /// When it cannot continue.
    pub async fn next(&mut self) -> Result<LaterItem> {
        let (seq, at, message) = match self.inner.next().await? {
            Followed::CaughtUp => return Ok(LaterItem::CaughtUp),
            Followed::Message { seq, at, message } => (seq, at, message),
        };
        let parsed = self.broker.subjects().parse_later(&message.subject);
        let Some((JournalSubject { key, conversation, .. }, kind)) = parsed else {
            return Ok(LaterItem::Unknown { seq });
        };
        Ok(match kind {
            LaterKind::Given => LaterItem::Given { seq, key },
            LaterKind::Final => LaterItem::Final { seq, at, key },
            LaterKind::Request => {
                let headers = message.headers.as_ref();
                let said = headers.and_then(|headers| headers.get(DELIVER_AT));
                // What is not said beside it, its body tells when it is looked at.
                let said = said.and_then(|said| said.as_str().parse().ok()).unwrap_or(0);
                let deliver_at = Timestamp::from_millis(said);
                LaterItem::Request { seq, at, key, conversation, deliver_at }
            }
        })
    }
}
