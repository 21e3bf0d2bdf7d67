//! Reading the journal: by id, in order, and what is still open in it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;

use common::message::{Envelope, Final, MessageKey};
use common::subject::JournalSubject;
use common::{AgentName, ConversationTag, MessageId, Timestamp};
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use crate::api::{Index, Record};
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::inbox::{Unreadable, believe};
use crate::journal::{Stored, read_final};
use crate::read::Reader;
use crate::wire::{CALL, pause};

/// One item of a journal scan.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalItem {
    /// Whose it is.
    pub key: MessageKey,
    /// Its conversation's tag.
    pub conversation: ConversationTag,
    /// Its sequence in the stream of its shard.
    pub seq: u64,
    /// When the broker stored it.
    pub at: Timestamp,
    /// Request or final state; both none in a headers-only scan.
    pub request: Option<Envelope>,
    /// See `request`.
    pub final_: Option<Final>,
    /// Whether it is the final state.
    pub is_final: bool,
}

/// An open request: its sequence, its name, and when the broker stored it.
type OpenRequest = (u64, MessageKey, Timestamp);

/// What is open in an agent's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenScan {
    /// Requests without a final state, oldest first, at most as many as asked for.
    pub open: Vec<(u64, MessageKey, Timestamp)>,
    /// How many there are.
    pub total: u64,
    /// The first one that is before the sequence asked for, where something went wrong with that: looked for among few only.
    pub earlier: Option<u64>,
    /// The last sequence of the stream when the scan began: what came later is not looked at.
    pub last_seq: u64,
}

/// Open requests, as far as they were asked for, and how many there are.
struct Found {
    open: Vec<OpenRequest>,
    total: u64,
    earlier: Option<u64>,
}

/// How many bytes of requests are read at once: on a slow connection little more than one of them comes in time.
const MOST: u32 = 1 << 20;

/// So many open requests are got one by one; more are met by reading on from the floor.
const FEW: usize = 64;
/// How many of these at once.
const AT_ONCE: usize = 16;

/// A request as the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its sequence in the stream of its shard.
    pub seq: u64,
    /// When the broker stored it.
    pub at: Timestamp,
    /// The message.
    pub envelope: Envelope,
}

/// What the journal holds in the place of a request.
#[derive(Debug, Clone)]
pub enum Requested {
    /// A request.
    Request(Box<Request>),
    /// One that nobody can read, with no ack of its own.
    Unreadable(Box<Unreadable>),
}

impl Requested {
    /// Its sequence in the stream of its shard.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self {
            Self::Request(request) => request.seq,
            Self::Unreadable(unreadable) => unreadable.seq,
        }
    }
}

impl Broker {
    /// Finds messages by id alone, in all shards.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn find(&self, message: &MessageId) -> Result<Vec<Stored<Envelope>>> {
        let subjects = self.subjects();
        let shards = (0..subjects.shards()).map(|shard| {
            let filter = subjects.request_anywhere(message, shard);
            let stream = subjects.journal_stream(shard);
            let reader = Reader::new(self.wire(), stream, filter, 1, u64::MAX);
            reader.of(self.replicas()).rest()
        });
        let found = try_join_all(shards).await?;
        found
            .iter()
            .flatten()
            // What is not on its own agent's shard, or not an envelope, is not one of ours.
            .filter(|record| subjects.parse_journal(&record.subject).is_some())
            .filter_map(|record| match Stored::parse(record) {
                Err(BrokerError::Malformed { .. }) => None,
                parsed => Some(parsed),
            })
            .collect()
    }

    /// Reads requests and finals in order: of one agent, or of all shards one after the other. `headers_only` leaves the bodies out.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn scan(
        &self,
        agent: Option<&AgentName>,
        from_seq: u64,
        headers_only: bool,
    ) -> Result<JournalScan> {
        let subjects = self.subjects();
        let parts: Vec<(String, String)> = match agent {
            Some(agent) => vec![(self.journal_stream(agent), subjects.journal_of(agent))],
            // With a filter the server counts what is left anew for every batch.
            None => (0..subjects.shards())
                .map(|shard| (subjects.journal_stream(shard), ">".to_owned()))
                .collect(),
        };
        let ends = parts.iter().map(|(stream, _)| self.wire().last_seq(stream));
        let ends = try_join_all(ends).await?;
        let readers = parts
            .into_iter()
            .zip(ends)
            .map(|((stream, filter), end)| {
                Reader::new(self.wire(), stream, filter, from_seq, end).of(self.replicas())
            })
            .collect();
        Ok(JournalScan { broker: self.clone(), readers, headers_only })
    }

    /// What has no final state among an agent's requests from a sequence on, before which all are settled; lists the first `limit`.
    ///
    /// The broker's index of subjects tells which: no record of a finished message is read. Nothing counts as settled because a server
    /// does not have it.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn open_requests(
        &self,
        agent: &AgentName,
        from_seq: u64,
        limit: usize,
    ) -> Result<OpenScan> {
        let stream = self.journal_stream(agent);
        let deadline = Instant::now() + CALL;
        loop {
            let index = self.wire().index(&stream, &self.subjects().journal_of(agent)).await?;
            let last_seq = index.last_seq;
            let open = self.open_of(index);
            let found = if open.len() <= FEW {
                self.get_open(&stream, open, from_seq..=last_seq).await?
            } else {
                self.read_open(agent, open, from_seq..=last_seq, limit).await?
            };
            if let Some(Found { mut open, total, earlier }) = found {
                open.truncate(limit);
                return Ok(OpenScan { open, total, earlier, last_seq });
            }
            // What the index names is not there: it was purged just now, or a server answered that is behind.
            pause(deadline, CALL).await?;
        }
    }

    /// The requests without a final state, with their subjects.
    fn open_of(&self, index: Index) -> HashMap<MessageKey, String> {
        let (mut requests, mut finals) = (HashMap::new(), HashSet::new());
        for subject in index.subjects.into_keys() {
            match self.subjects().parse_journal(&subject) {
                Some(JournalSubject { key, is_final: true, .. }) => {
                    finals.insert(key);
                }
                Some(JournalSubject { key, .. }) => {
                    requests.insert(key, subject);
                }
                None => {}
            }
        }
        requests.retain(|key, _| !finals.contains(key));
        requests
    }

    /// Where open requests are, one by one: those within a range, and how many these are. None if one is not there.
    async fn get_open(
        &self,
        stream: &str,
        open: HashMap<MessageKey, String>,
        within: RangeInclusive<u64>,
    ) -> Result<Option<Found>> {
        // Each with what it needs: futures that borrow from a closure's argument cannot be sent to another thread.
        let records = open.into_values().map(|subject| {
            let (wire, stream) = (self.wire().clone(), stream.to_owned());
            async move { wire.last_within(&stream, &subject, CALL).await }
        });
        let records = futures_util::stream::iter(records).buffer_unordered(AT_ONCE);
        let records: Vec<_> = records.try_collect().await?;
        let Some(records) = records.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let before = records.iter().map(|record| record.seq).filter(|seq| seq < within.start());
        let earlier = before.min();
        let within = records.iter().filter(|record| within.contains(&record.seq));
        let named = within.filter_map(|record| {
            let subject = self.subjects().parse_journal(&record.subject)?;
            Some((record.seq, subject.key, record.at))
        });
        let mut open: Vec<_> = named.collect();
        open.sort_unstable_by_key(|(seq, ..)| *seq);
        let total = open.len() as u64;
        Ok(Some(Found { open, total, earlier }))
    }

    /// The same of more of them, by reading on from the floor, up to a limit.
    async fn read_open(
        &self,
        agent: &AgentName,
        mut left: HashMap<MessageKey, String>,
        within: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Option<Found>> {
        let (stream, filter) = (self.journal_stream(agent), self.subjects().requests_of(agent));
        let (from, until) = (*within.start(), *within.end());
        let reader =
            Reader::new(self.wire(), stream.clone(), filter, from, until).of(self.replicas());
        let mut reader = reader.pages(MOST);
        let total = left.len() as u64;
        let mut open = Vec::new();
        while open.len() < limit {
            let Some(record) = reader.next().await? else {
                // The rest must be before the floor: a few of them tell.
                let few = left.into_iter().take(FEW).collect();
                let rest = self.get_open(&stream, few, within).await?;
                let rest = rest.filter(|rest| rest.open.is_empty());
                let total = open.len() as u64;
                return Ok(rest.map(|Found { earlier, .. }| Found { open, total, earlier }));
            };
            let subject = self.subjects().parse_journal(&record.subject);
            if let Some(key) = subject.map(|subject| subject.key)
                && left.remove(&key).is_some()
            {
                open.push((record.seq, key, record.at));
            }
        }
        Ok(Some(Found { open, total, earlier: None }))
    }

    /// An agent's requests from one sequence to another, both included, whatever became of them: the first of them, and whether
    /// there may be more, where all would be too much at once. What has no name is left out.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn requests_between(
        &self,
        agent: &AgentName,
        from_seq: u64,
        to_seq: u64,
    ) -> Result<(Vec<Requested>, bool)> {
        let (stream, filter) = (self.journal_stream(agent), self.subjects().requests_of(agent));
        let mut reader = Reader::new(self.wire(), stream, filter, from_seq, to_seq)
            .of(self.replicas())
            .pages(MOST);
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut more = false;
        while let Some(record) = reader.next().await? {
            bytes += record.payload.len();
            records.push(record);
            if bytes > MOST as usize {
                more = true;
                break;
            }
        }
        let requests = records.iter().filter_map(|record| {
            let named = self.subjects().parse_journal(&record.subject)?;
            let (seq, at) = (record.seq, record.at);
            Some(match believe(named, &record.payload) {
                Ok(envelope) => Requested::Request(Box::new(Request { seq, at, envelope })),
                Err(unbelieved) => {
                    Requested::Unreadable(Box::new(unbelieved.named(seq, String::new())))
                }
            })
        });
        Ok((requests.collect(), more))
    }

    /// How many requests an agent has in the journal.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn count_requests(&self, agent: &AgentName) -> Result<u64> {
        let filter = self.subjects().requests_of(agent);
        let stream = self.journal_stream(agent);
        let first = self.wire().first(&stream, &filter, 1).await?;
        Ok(first.map_or(0, |(_, more)| more + 1))
    }

    /// The last sequence of the agent's journal stream.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn journal_last_seq(&self, agent: &AgentName) -> Result<u64> {
        self.wire().last_seq(&self.journal_stream(agent)).await
    }
}

/// A scan under way; reads up to what was stored when it began.
#[derive(Debug)]
pub struct JournalScan {
    broker: Broker,
    readers: VecDeque<Reader>,
    headers_only: bool,
}

impl JournalScan {
    /// The next item; none at the end.
    ///
    /// # Errors
    /// When the broker does not answer, or a record does not parse: the scan can go on after that one.
    pub async fn next(&mut self) -> Result<Option<JournalItem>> {
        while let Some(reader) = self.readers.front_mut() {
            match reader.next().await? {
                Some(record) => return self.item(&record).map(Some),
                None => self.readers.pop_front(),
            };
        }
        Ok(None)
    }

    fn item(&self, record: &Record) -> Result<JournalItem> {
        let subjects = self.broker.subjects();
        let Some(subject) = subjects.parse_journal(&record.subject) else {
            return Err(BrokerError::Malformed {
                subject: record.subject.clone(),
                seq: record.seq,
                cause: "not a journal subject".into(),
            });
        };
        let (mut request, mut final_) = (None, None);
        if !self.headers_only {
            if subject.is_final {
                final_ = Some(read_final(record).value);
            } else {
                request = Some(record.parse()?);
            }
        }
        Ok(JournalItem {
            key: subject.key,
            conversation: subject.conversation,
            seq: record.seq,
            at: record.at,
            request,
            final_,
            is_final: subject.is_final,
        })
    }
}
