//! A scan of all messages in order: those that have left the journal first.

use std::collections::{HashSet, VecDeque};

use common::message::{Envelope, Final, MessageKey};
use common::subject::Subjects;
use common::{AgentName, ConversationTag, Timestamp};
use futures_util::future::try_join_all;

use super::parts::{Parts, is_half};
use super::record::Archived;
use crate::api::Record;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::journal::read_final;
use crate::read::Reader;

/// One item of a scan: a request or a final state.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalItem {
    /// Whose it is.
    pub key: MessageKey,
    /// Its conversation's tag.
    pub conversation: ConversationTag,
    /// Its sequence in the journal stream of its shard, also where it no longer exists.
    pub seq: u64,
    /// When the broker stored it.
    pub at: Timestamp,
    /// Request or final state.
    pub request: Option<Envelope>,
    /// See `request`.
    pub final_: Option<Final>,
    /// Whether it is the final state.
    pub is_final: bool,
}

/// A scan under way; reads up to what was stored when it began.
///
/// What is archived while it goes on may be met in HISTORY, in the journal, or in both: so HISTORY is read once more at the end, and
/// what was met before is left out. For that, 24 bytes of each record that was met are kept.
#[derive(Debug)]
pub struct JournalScan {
    broker: Broker,
    agent: Option<AgentName>,
    parts: VecDeque<Part>,
    met: HashSet<Place>,
    /// Whether the journal is still to come: what is met twice until then is in HISTORY twice.
    is_first: bool,
    /// Read, and not given yet.
    ready: VecDeque<Result<JournalItem>>,
}

/// Shard, sequence and time: a journal that was recreated has the same sequences again.
type Place = (u32, u64, Timestamp);

#[derive(Debug)]
enum Part {
    History(Parts),
    Journal(Reader),
    /// What has come to HISTORY after this sequence.
    Since(u64),
}

impl Broker {
    /// Reads requests and final states in order: of one agent, or of all. First what has left the journal, then the journal, one shard
    /// after the other.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn scan(&self, agent: Option<&AgentName>) -> Result<JournalScan> {
        let subjects = self.subjects();
        let journals: Vec<(String, String)> = match agent {
            Some(agent) => vec![(self.journal_stream(agent), subjects.journal_of(agent))],
            // With a filter the server counts what is left anew for every batch.
            None => (0..subjects.shards())
                .map(|shard| (subjects.journal_stream(shard), ">".to_owned()))
                .collect(),
        };
        let archived = self.wire().last_seq(&self.history_stream()).await?;
        let ends = journals.iter().map(|(stream, _)| self.wire().last_seq(stream));
        let ends = try_join_all(ends).await?;
        let mut parts = VecDeque::from([Part::History(self.history_from(agent, 1, archived))]);
        parts.extend(journals.into_iter().zip(ends).map(|((stream, filter), end)| {
            let reader = Reader::new(self.wire(), stream, filter, 1, end);
            Part::Journal(reader.of(self.replicas()))
        }));
        parts.push_back(Part::Since(archived));
        Ok(JournalScan {
            broker: self.clone(),
            agent: agent.cloned(),
            parts,
            met: HashSet::new(),
            is_first: true,
            ready: VecDeque::new(),
        })
    }

    fn history_from(&self, agent: Option<&AgentName>, from: u64, until: u64) -> Parts {
        let subjects = self.subjects();
        let filter = agent.map_or_else(|| ">".to_owned(), |agent| subjects.history_of(agent));
        let reader = Reader::new(self.wire(), self.history_stream(), filter, from, until);
        Parts::new(reader.of(self.replicas()))
    }
}

impl JournalScan {
    /// The next item; none at the end.
    ///
    /// # Errors
    /// When the broker does not answer, or a record cannot be parsed: the scan can go on after that one.
    pub async fn next(&mut self) -> Result<Option<JournalItem>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return item.map(Some);
            }
            let Some(part) = self.parts.front_mut() else { return Ok(None) };
            match part {
                Part::Since(archived) => {
                    let from = *archived + 1;
                    let last = self.broker.wire().last_seq(&self.broker.history_stream()).await?;
                    let reader = self.broker.history_from(self.agent.as_ref(), from, last);
                    self.parts.pop_front();
                    if last >= from {
                        self.parts.push_front(Part::History(reader));
                    }
                }
                Part::History(parts) => {
                    let Some(records) = parts.next().await? else {
                        self.parts.pop_front();
                        continue;
                    };
                    let is_filler = |first: &Record| Subjects::is_filler(&first.subject);
                    if records.first().is_some_and(is_filler) || is_half(&records) {
                        continue;
                    }
                    let archived = self.broker.read_archived(&records)?;
                    self.archived(archived);
                }
                Part::Journal(reader) => {
                    self.is_first = false;
                    match reader.next().await? {
                        None => {
                            self.parts.pop_front();
                        }
                        Some(record) if Subjects::is_filler(&record.subject) => {}
                        Some(record) => {
                            let item = self.stored(&record);
                            self.ready.extend(item);
                        }
                    }
                }
            }
        }
    }

    /// A record of the journal; none if it was met in HISTORY.
    fn stored(&mut self, record: &Record) -> Option<Result<JournalItem>> {
        let malformed = |cause: String| {
            Some(Err(BrokerError::Malformed {
                subject: record.subject.clone(),
                seq: record.seq,
                cause,
            }))
        };
        let subjects = self.broker.subjects();
        let Some(subject) = subjects.parse_journal(&record.subject) else {
            return malformed("not a journal subject".to_owned());
        };
        if !self.met.insert((subjects.shard(&subject.key.agent), record.seq, record.at)) {
            return None;
        }
        let (mut request, mut final_) = (None, None);
        if subject.is_final {
            final_ = Some(read_final(record).value);
        } else {
            match record.parse() {
                Ok(parsed) => request = Some(parsed),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(JournalItem {
            key: subject.key,
            conversation: subject.conversation,
            seq: record.seq,
            at: record.at,
            request,
            final_,
            is_final: subject.is_final,
        }))
    }

    /// The two items of a message in HISTORY, unless they were met in the journal.
    fn archived(&mut self, archived: Archived) {
        let Archived { key, conversation, request, final_, unreadable, .. } = archived;
        let subjects = self.broker.subjects();
        let shard = subjects.shard(&key.agent);
        let item = |seq, at| JournalItem {
            key: key.clone(),
            conversation: conversation.clone(),
            seq,
            at,
            request: None,
            final_: None,
            is_final: false,
        };
        if let Some(request) = request
            && self.met.insert((shard, request.seq, request.at))
        {
            let request_of = item(request.seq, request.at);
            self.ready.push_back(Ok(JournalItem { request: Some(request.value), ..request_of }));
        }
        if let Some(unreadable) = unreadable
            && self.met.insert((shard, unreadable.seq, unreadable.at))
        {
            let subject = subjects.request(&key, &conversation);
            let cause = "it is no request".to_owned();
            self.ready.push_back(Err(BrokerError::Malformed {
                subject,
                seq: unreadable.seq,
                cause,
            }));
        }
        if !self.met.insert((shard, final_.seq, final_.at)) {
            if self.is_first {
                let subject = subjects.final_(&key, &conversation);
                let cause = "it was archived twice".to_owned();
                let double = BrokerError::Malformed { subject, seq: final_.seq, cause };
                self.ready.push_back(Err(double));
            }
        } else {
            let final_of = item(final_.seq, final_.at);
            let final_ = Some(final_.value);
            self.ready.push_back(Ok(JournalItem { final_, is_final: true, ..final_of }));
        }
    }
}
