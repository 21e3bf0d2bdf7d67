//! What is still open in the journal.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use common::frame::ask::ShimAsk;
use common::message::{Envelope, MessageKey};
use common::subject::JournalSubject;
use common::{AgentName, Timestamp};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use crate::api::{Index, Record};
use crate::asked;
use crate::connection::Broker;
use crate::error::Result;
use crate::inbox::{Unreadable, believe};
use crate::read::Reader;
use crate::wire::{CALL, pause};

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
/// The same where few of them are wanted.
const LITTLE: u32 = 128 << 10;

/// How many requests are read one by one before all of them are requested.
const NEAR: usize = 16;

/// How many open requests are read one by one; more are found by reading on from the floor.
const FEW: usize = 64;
/// How many of these at once.
const AT_ONCE: usize = 16;

/// The request of a message, unless its final state is there too.
fn unless_ended((_, request, ended): (MessageKey, Option<String>, bool)) -> Option<String> {
    request.filter(|_| !ended)
}

/// The first open request from a sequence on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstOpen {
    /// It is here, and since then.
    At(u64, Timestamp),
    /// There is none before this sequence.
    NoneBefore(u64),
}

impl FirstOpen {
    /// Everything before this sequence is settled.
    #[must_use]
    pub fn floor(self) -> u64 {
        match self {
            Self::At(seq, _) | Self::NoneBefore(seq) => seq,
        }
    }
}

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

    /// The first request without a final state from a sequence on, before which all are settled. As a rule that is among the next few: then
    /// it costs as little where many more are open.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn first_open(&self, agent: &AgentName, from_seq: u64) -> Result<FirstOpen> {
        let (stream, requests) = (self.journal_stream(agent), self.subjects().requests_of(agent));
        let mut next = from_seq.max(1);
        // In a cluster only the index comes from a leader that is known to be one.
        let steps = if self.wire().client.server_info().cluster.is_some() { 0 } else { NEAR };
        for _ in 0..steps {
            let body = serde_json::json!({ "seq": next, "next_by_subj": requests });
            let Some(request) = self.wire().get(&stream, &body, CALL).await? else {
                return Ok(FirstOpen::NoneBefore(next));
            };
            if let Some(subject) = self.subjects().parse_journal(&request.subject) {
                let final_ = self.subjects().final_of(&subject.key);
                if self.wire().last_within(&stream, &final_, CALL).await?.is_none() {
                    return Ok(FirstOpen::At(request.seq, request.at));
                }
            }
            next = request.seq + 1;
        }
        let scan = self.open_requests(agent, next, 1).await?;
        let first = scan.open.first();
        Ok(first.map_or(FirstOpen::NoneBefore(scan.last_seq + 1), |(seq, _, at)| {
            FirstOpen::At(*seq, *at)
        }))
    }

    /// How many messages of an agent are open, by counting: a little wrong while some of them end.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn count_open(&self, agent: &AgentName) -> Result<u64> {
        let stream = self.journal_stream(agent);
        let finals = self.subjects().finals_of(agent);
        let (requests, finals) =
            tokio::try_join!(self.count_requests(agent), self.wire().first(&stream, &finals, 1),)?;
        Ok(requests.saturating_sub(finals.map_or(0, |(_, more)| more + 1)))
    }

    /// The subjects of the requests without a final state.
    fn open_of(&self, index: Index) -> Vec<String> {
        let mut open: Vec<String> = Vec::new();
        // What there is of a message is side by side in the order of subjects: nothing is kept of those that are final.
        let mut message: Option<(MessageKey, Option<String>, bool)> = None;
        for subject in index.subjects.into_keys() {
            let Some(JournalSubject { key, is_final, .. }) =
                self.subjects().parse_journal(&subject)
            else {
                continue;
            };
            match &mut message {
                Some((of, request, ended)) if *of == key => {
                    *ended |= is_final;
                    if !is_final {
                        *request = Some(subject);
                    }
                }
                _ => {
                    let request = (!is_final).then_some(subject);
                    open.extend(message.replace((key, request, is_final)).and_then(unless_ended));
                }
            }
        }
        open.extend(message.and_then(unless_ended));
        open
    }

    /// Where open requests are, one by one: those within a range, and how many these are. None if one is not there.
    async fn get_open(
        &self,
        stream: &str,
        open: Vec<String>,
        within: RangeInclusive<u64>,
    ) -> Result<Option<Found>> {
        // Each with what it needs: futures that borrow from a closure's argument cannot be sent to another thread.
        let records = open.into_iter().map(|subject| {
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
        left: Vec<String>,
        within: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Option<Found>> {
        let mut left: HashSet<String> = left.into_iter().collect();
        let (stream, filter) = (self.journal_stream(agent), self.subjects().requests_of(agent));
        let (from, until) = (*within.start(), *within.end());
        let reader =
            Reader::new(self.wire(), stream.clone(), filter, from, until).of(self.replicas());
        let mut reader = reader.pages(if limit < FEW { LITTLE } else { MOST });
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
            if left.remove(&record.subject)
                && let Some(subject) = self.subjects().parse_journal(&record.subject)
            {
                open.push((record.seq, subject.key, record.at));
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
        let between = || ShimAsk::Between { from: from_seq, to: to_seq };
        let (records, more) = match self.asked(between).await? {
            Some(told) => asked::records(told)?,
            None => self.records_between(agent, from_seq, to_seq, MOST).await?,
        };
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

    /// The same, as they are stored, up to about so many bytes.
    pub(crate) async fn records_between(
        &self,
        agent: &AgentName,
        from_seq: u64,
        to_seq: u64,
        most: u32,
    ) -> Result<(Vec<Record>, bool)> {
        let (stream, filter) = (self.journal_stream(agent), self.subjects().requests_of(agent));
        let mut reader = Reader::new(self.wire(), stream, filter, from_seq, to_seq)
            .of(self.replicas())
            .pages(most);
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut more = false;
        while let Some(record) = reader.next().await? {
            bytes += record.payload.len();
            records.push(record);
            if bytes > most as usize {
                more = true;
                break;
            }
        }
        Ok((records, more))
    }

    /// How many messages an agent has had, as far as they are kept.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn count_messages(&self, agent: &AgentName) -> Result<u64> {
        let (stream, filter) = (self.history_stream(), self.subjects().history_of(agent));
        let (hot, cold) =
            tokio::try_join!(self.count_requests(agent), self.wire().first(&stream, &filter, 1))?;
        // A message of two records counts twice: there are few.
        Ok(hot + cold.map_or(0, |(_, more)| more + 1))
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
