//! Forgetting: what was said to an agent and what it answered is erased from every stream, and from the files of the server.
//!
//! Only what is finished is forgotten. Of each message its events and its dead letter go first, then its request and its final state, in this
//! order: forgetting that was interrupted finds the message again, and no message ever looks open that is not.
//!
//! An archiver may be about to copy what it has read before. So HISTORY gets a record, which is removed at once: a copy that was prepared
//! before that is refused by its compare-and-set, and its author reads the journal anew. What was copied before is found in HISTORY.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use async_nats::HeaderMap;
use bytes::Bytes;
use common::message::{DeadLetter, Envelope, MessageKey};
use common::subject::Filled;
use common::{AgentName, ConversationId, ConversationTag, MessageId, Timestamp};
use futures_util::future::try_join_all;

use crate::api::{Published, Record};
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::events::CONVERSATION;
use crate::history::Archived;
use crate::logs;
use crate::read::Reader;
use crate::wire::CALL;

/// So many messages are erased together.
const TOGETHER: usize = 64;

/// It is looked again whether all is gone, and tried again, so many times.
const ROUNDS: usize = 3;

/// What is to be forgotten.
#[derive(Debug, Clone)]
pub struct Forget {
    /// Messages to this agent;
    pub agent: AgentName,
    /// only those of this conversation; one without a name has that of its only message;
    pub conversation: Option<ConversationId>,
    /// only those that the broker stored before this.
    pub before: Option<Timestamp>,
}

/// What was forgotten, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Finished messages.
    pub messages: u64,
    /// Messages that have no final state yet: they stay.
    pub open: u64,
    /// What it was, by stream.
    pub streams: BTreeMap<&'static str, Erased>,
}

/// Records of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// How many.
    pub records: u64,
    /// Their payloads' bytes.
    pub bytes: u64,
}

impl Forgotten {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Erased {
        self.streams.values().fold(Erased::default(), |sum, one| Erased {
            records: sum.records + one.records,
            bytes: sum.bytes + one.bytes,
        })
    }

    fn add(&mut self, stream: &'static str, bytes: usize) {
        let erased = self.streams.entry(stream).or_default();
        erased.records += 1;
        erased.bytes += bytes as u64;
    }
}

/// A finished message and its records, by stream, in the order in which they go.
struct Found {
    key: MessageKey,
    records: Vec<u64>,
}

/// A request that was read, and whether its message is one of those wanted.
struct Asked {
    seq: u64,
    bytes: usize,
    wanted: bool,
}

/// The ends of the streams when it began: what comes later is of messages that are not forgotten.
struct Ends {
    events: u64,
    logs: u64,
    dead: u64,
    journal: u64,
}

impl Broker {
    /// Counts what [`Broker::forget`] would erase.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn forgettable(&self, what: &Forget) -> Result<Forgotten> {
        self.forgettable_by(what, self.clock().await?).await
    }

    async fn forgettable_by(&self, what: &Forget, started: Timestamp) -> Result<Forgotten> {
        let mut forgetting = Forgetting::new(self, what, started, false);
        forgetting.round(&mut |_| {}).await?;
        Ok(forgetting.done)
    }

    /// Erases what is wanted. `told` hears of it as it goes. About 100 to 200 records a second of large streams (`remove.rs`).
    ///
    /// # Errors
    /// When the broker does not answer: what is not erased by then is found by the next call. When something is left at the end.
    pub async fn forget(
        &self,
        what: &Forget,
        mut told: impl FnMut(&Forgotten),
    ) -> Result<Forgotten> {
        let started = self.clock().await?;
        let mut forgetting = Forgetting::new(self, what, started, true);
        for _ in 0..ROUNDS {
            forgetting.round(&mut told).await?;
            let left = self.forgettable_by(what, started).await?;
            if left.total() == Erased::default() {
                let shard = self.subjects().shard(&what.agent);
                let filled =
                    [Filled::Journal(shard), Filled::History, Filled::Events, Filled::Logs];
                for filled in filled.into_iter().chain([Filled::Dead]) {
                    self.drop_bytes(filled).await?;
                }
                return Ok(forgetting.done);
            }
        }
        Err(BrokerError::other("records keep coming back: is another program writing them?"))
    }
}

struct Forgetting<'a> {
    broker: &'a Broker,
    what: &'a Forget,
    /// What was finished later stays: an agent may be at work.
    started: Timestamp,
    erase: bool,
    done: Forgotten,
    /// Messages without final states, and those that got one since.
    open: HashSet<MessageKey>,
    /// Hashes of the ids of what is forgotten: their log lines go, too.
    ids: HashSet<u64>,
    hashes: RandomState,
}

impl<'a> Forgetting<'a> {
    fn new(broker: &'a Broker, what: &'a Forget, started: Timestamp, erase: bool) -> Self {
        Self {
            broker,
            what,
            started,
            erase,
            done: Forgotten::default(),
            open: HashSet::new(),
            ids: HashSet::new(),
            hashes: RandomState::new(),
        }
    }

    async fn round(&mut self, told: &mut impl FnMut(&Forgotten)) -> Result<()> {
        let broker = self.broker;
        let wire = broker.wire();
        // Before the journal is read: what has events by now has its request there.
        let streams = [
            broker.events_stream(),
            broker.subjects().stream("LOGS"),
            broker.subjects().stream("DEAD"),
        ];
        let ends = try_join_all(streams.iter().map(|stream| wire.last_seq(stream))).await?;
        let journal = wire.last_seq(&broker.journal_stream(&self.what.agent)).await?;
        let [events, logs, dead] = ends[..] else {
            return Err(BrokerError::other("three streams have three ends"));
        };
        let ends = Ends { events, logs, dead, journal };
        if self.erase && self.what.conversation.is_some() {
            // Which log lines belong to it, only its messages tell.
            let mut known = Forgetting::new(broker, self.what, self.started, false);
            known.messages(&ends, &mut |_| {}).await?;
            (self.ids, self.hashes) = (known.ids, known.hashes);
            self.logs(ends.logs).await?;
            told(&self.done);
        }
        self.messages(&ends, told).await?;
        self.done.open = self.open.len() as u64;
        self.events(ends.events).await?;
        self.dead(ends.dead).await?;
        if !self.erase || self.what.conversation.is_none() {
            self.logs(ends.logs).await?;
        }
        told(&self.done);
        Ok(())
    }

    /// Messages in the journal, and then in HISTORY.
    async fn messages(&mut self, ends: &Ends, told: &mut impl FnMut(&Forgotten)) -> Result<()> {
        self.open.clear();
        self.journal(ends.journal, told).await?;
        if self.erase {
            self.fence().await?;
        }
        self.history(told).await
    }

    async fn journal(&mut self, end: u64, told: &mut impl FnMut(&Forgotten)) -> Result<()> {
        let agent = &self.what.agent;
        let subjects = self.broker.subjects();
        let filter = subjects.journal_of(agent);
        let stream = self.broker.journal_stream(agent);
        let reader = Reader::new(self.broker.wire(), stream.clone(), filter, 1, end);
        let mut reader = reader.of(self.broker.replicas());
        let mut asked: HashMap<MessageKey, Asked> = HashMap::new();
        let mut found = Vec::new();
        while let Some(record) = reader.next().await? {
            let Some(named) = subjects.parse_journal(&record.subject) else { continue };
            let is_wanted = self.is_wanted(&named.conversation, &named.key.message_id, record.at);
            if named.is_final && record.at > self.started {
                continue;
            }
            if !named.is_final {
                let wanted = is_wanted && self.is_of_conversation(&record);
                let (seq, bytes) = (record.seq, record.payload.len());
                asked.insert(named.key, Asked { seq, bytes, wanted });
                continue;
            }
            let request = asked.remove(&named.key);
            // A final state without its request: the request went first, in a round that was interrupted.
            if request.as_ref().map_or(is_wanted, |request| request.wanted) {
                self.done.messages += 1;
                let request = request.map(|request| (request.seq, request.bytes));
                let both = request.into_iter().chain([(record.seq, record.payload.len())]);
                let mut records = Vec::new();
                for (seq, bytes) in both {
                    self.done.add("JOURNAL", bytes);
                    records.push(seq);
                }
                found.push(Found { key: named.key, records });
            }
            if found.len() == TOGETHER {
                self.erase_messages(&stream, std::mem::take(&mut found)).await?;
                told(&self.done);
            }
        }
        self.erase_messages(&stream, found).await?;
        self.open = asked.into_keys().collect();
        Ok(())
    }

    async fn history(&mut self, told: &mut impl FnMut(&Forgotten)) -> Result<()> {
        let agent = &self.what.agent;
        let (subjects, wire) = (self.broker.subjects(), self.broker.wire());
        let stream = self.broker.history_stream();
        let end = wire.last_seq(&stream).await?;
        let mut ranges = Vec::new();
        match &self.what.conversation {
            None => ranges.push((subjects.history_of(agent), 1, end)),
            Some(conversation) => {
                let tag = ConversationTag::of_conversation(conversation);
                ranges.push((subjects.history(agent, &tag), 1, end));
                // Those that are conversations of their own share a subject: the index knows where this one is.
                let alone = subjects.history(agent, &ConversationTag::none());
                if let Ok(id) = MessageId::new(conversation.as_str()) {
                    let there = self.broker.archived(&id).await?;
                    ranges.extend(there.iter().map(|it| (alone.clone(), it.seq, it.seq + 1)));
                }
            }
        }
        for (filter, from, until) in ranges {
            let reader = Reader::new(wire, stream.clone(), filter, from, until);
            self.history_of(&stream, reader.of(self.broker.replicas()), told).await?;
        }
        Ok(())
    }

    async fn history_of(
        &mut self,
        stream: &str,
        mut reader: Reader,
        told: &mut impl FnMut(&Forgotten),
    ) -> Result<()> {
        let subjects = self.broker.subjects();
        let mut found = Vec::new();
        while let Some(first) = reader.next().await? {
            let mut records = vec![first];
            if records.iter().any(|first| self.broker.is_first_part(first)) {
                records.extend(reader.next().await?);
            }
            let read = self.broker.read_archived(&records);
            let wanted = match &read {
                Ok(archived) => self.is_wanted_of_history(archived),
                // Whatever it is, it is the agent's.
                Err(_) => records.iter().any(|record| {
                    let named = subjects.parse_history(&record.subject);
                    named.is_some_and(|(_, tag)| self.is_of(&tag) && self.is_before(record.at))
                }),
            };
            if !wanted {
                continue;
            }
            self.done.messages += 1;
            for record in &records {
                self.done.add("HISTORY", record.payload.len());
            }
            let seqs = records.iter().map(|record| record.seq).collect();
            match read {
                Ok(archived) => found.push(Found { key: archived.key, records: seqs }),
                Err(_) if self.erase => self.broker.remove(stream, seqs, true).await?,
                Err(_) => {}
            }
            if found.len() == TOGETHER {
                self.erase_messages(stream, std::mem::take(&mut found)).await?;
                told(&self.done);
            }
        }
        self.erase_messages(stream, found).await
    }

    /// Erases messages, all their first records before all their second ones. What belongs to them goes before.
    async fn erase_messages(&mut self, stream: &str, found: Vec<Found>) -> Result<()> {
        for Found { key, .. } in &found {
            self.ids.insert(self.hashes.hash_one(&key.message_id));
        }
        // The rest of what belongs to them is found by looking at what there is of the agent.
        if self.what.before.is_some() {
            for Found { key, .. } in &found {
                let (events, dead) =
                    (self.broker.subjects().events(key), self.broker.subjects().dead(key));
                let later = |this: &Self, record: &Record| !this.is_before(record.at);
                self.all("EVENTS", events, u64::MAX, later).await?;
                self.all("DEAD", dead, u64::MAX, later).await?;
            }
        }
        if !self.erase {
            return Ok(());
        }
        let firsts = found.iter().filter_map(|found| found.records.first().copied());
        self.broker.remove(stream, firsts.collect(), true).await?;
        let rest = found.iter().flat_map(|found| found.records.iter().skip(1).copied());
        self.broker.remove(stream, rest.collect(), true).await
    }

    /// From here on, what an archiver has prepared is refused.
    async fn fence(&self) -> Result<()> {
        let subject = self.broker.subjects().filler(Filled::History, 0);
        let wire = self.broker.wire();
        let stored = wire.publish(subject, HeaderMap::new, Bytes::new(), CALL).await?;
        if let Published::Stored(seq) | Published::Duplicate(seq) = stored.0 {
            wire.delete(&self.broker.history_stream(), seq, false).await?;
        }
        Ok(())
    }

    async fn events(&mut self, end: u64) -> Result<()> {
        let filter = self.broker.subjects().events_of(&self.what.agent);
        self.all("EVENTS", filter, end, |this, record| {
            let key = this.broker.subjects().parse_events(&record.subject);
            let conversation = record.header(CONVERSATION);
            this.is_before(record.at)
                && key.is_none_or(|key| !this.open.contains(&key))
                && this
                    .what
                    .conversation
                    .as_ref()
                    .is_none_or(|wanted| conversation == Some(wanted.as_str()))
        })
        .await
    }

    async fn dead(&mut self, end: u64) -> Result<()> {
        let filter = self.broker.subjects().dead_of(&self.what.agent);
        self.all("DEAD", filter, end, |this, record| {
            let letter = record.parse::<DeadLetter>().ok();
            let conversation = letter.map(|letter| letter.envelope.conversation_id);
            this.is_before(record.at)
                && (this.what.conversation.is_none() || conversation == this.what.conversation)
        })
        .await
    }

    /// Log records; of a conversation, those with a line of one of its messages.
    async fn logs(&mut self, end: u64) -> Result<()> {
        let filter = self.broker.subjects().logs_of(&self.what.agent);
        self.all("LOGS", filter, end, |this, record| {
            let is_one = |line: common::log::LogLine| {
                let id = line.message_id.and_then(|id| MessageId::new(id).ok());
                id.is_some_and(|id| this.ids.contains(&this.hashes.hash_one(&id)))
            };
            this.is_before(record.at)
                && (this.what.conversation.is_none()
                    || logs::decode(&record.payload, 0).any(is_one))
        })
        .await
    }

    /// The records of a filter up to a sequence that are wanted.
    async fn all(
        &mut self,
        name: &'static str,
        filter: String,
        end: u64,
        is_wanted: impl Fn(&Self, &Record) -> bool,
    ) -> Result<()> {
        let stream = self.broker.subjects().stream(name);
        let reader = Reader::new(self.broker.wire(), stream.clone(), filter, 1, end);
        let mut reader = reader.of(self.broker.replicas());
        let mut seqs = Vec::new();
        while let Some(record) = reader.next().await? {
            if is_wanted(self, &record) {
                self.done.add(name, record.payload.len());
                seqs.push(record.seq);
            }
            if self.erase && seqs.len() == TOGETHER {
                self.broker.remove(&stream, std::mem::take(&mut seqs), true).await?;
            }
        }
        if self.erase { self.broker.remove(&stream, seqs, true).await } else { Ok(()) }
    }

    fn is_before(&self, at: Timestamp) -> bool {
        at <= self.started && self.what.before.is_none_or(|before| at < before)
    }

    /// Whether a tag may be that of the conversation.
    fn is_of(&self, tag: &ConversationTag) -> bool {
        let wanted = self.what.conversation.as_ref();
        wanted.is_none_or(|wanted| *tag == ConversationTag::of_conversation(wanted))
    }

    fn is_wanted(&self, tag: &ConversationTag, id: &MessageId, at: Timestamp) -> bool {
        let alone = self.what.conversation.as_ref().is_some_and(|wanted| {
            *tag == ConversationTag::none() && wanted.as_str() == id.as_str()
        });
        (alone || self.is_of(tag)) && self.is_before(at)
    }

    /// A tag is a hash: the request tells the conversation. One that nobody can read is taken by its tag.
    fn is_of_conversation(&self, request: &Record) -> bool {
        let Some(wanted) = &self.what.conversation else { return true };
        request.parse::<Envelope>().map_or(true, |it| it.conversation_id == *wanted)
    }

    fn is_wanted_of_history(&self, archived: &Archived) -> bool {
        let request = archived.request.as_ref();
        let at = request.map_or(archived.final_.at, |request| request.at);
        let conversation = request.map(|request| &request.value.conversation_id);
        let is_same = |wanted| conversation.is_none_or(|conversation| conversation == wanted);
        archived.final_.at <= self.started
            && self.is_wanted(&archived.conversation, &archived.key.message_id, at)
            && self.what.conversation.as_ref().is_none_or(is_same)
    }
}
