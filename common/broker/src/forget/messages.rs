//! Messages: in the journal, and in HISTORY.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::message::{Envelope, MessageKey};
use common::subject::{Filled, LaterKind};
use common::{ConversationTag, MessageId};

use super::{Forgetting, Forgotten, TOGETHER};
use crate::api::{Published, Record};
use crate::error::Result;
use crate::history::{Archived, Parts};
use crate::read::Reader;
use crate::wire::CALL;

/// A finished message and its records of a stream, in the order in which they go.
struct Found {
    id: MessageId,
    key: Option<MessageKey>,
    records: Vec<u64>,
}

/// A request that was read, and whether its message is one of those wanted.
struct Asked {
    seq: u64,
    bytes: usize,
    wanted: bool,
}

impl Forgetting<'_> {
    pub(super) async fn journal(
        &mut self,
        end: u64,
        told: &mut impl FnMut(&Forgotten),
    ) -> Result<()> {
        let agent = &self.what.agent;
        let filter = self.broker.subjects().journal_of(agent);
        let stream = self.broker.journal_stream(agent);
        self.stored("JOURNAL", (stream, filter), end, told).await
    }

    /// Messages of a stream that has their requests, and later their final states.
    pub(super) async fn stored(
        &mut self,
        name: &'static str,
        (stream, filter): (String, String),
        end: u64,
        told: &mut impl FnMut(&Forgotten),
    ) -> Result<()> {
        let subjects = self.broker.subjects();
        let reader = Reader::new(self.broker.wire(), stream.clone(), filter, 1, end);
        let mut reader = reader.of(self.broker.replicas());
        let mut asked: HashMap<MessageKey, Asked> = HashMap::new();
        let mut found = Vec::new();
        while let Some(record) = reader.next().await? {
            let named = match subjects.parse_later(&record.subject) {
                // It is open, and goes to the journal.
                Some((_, LaterKind::Given)) => continue,
                Some((named, LaterKind::Request | LaterKind::Final)) => Some(named),
                None => subjects.parse_journal(&record.subject),
            };
            let Some(named) = named else { continue };
            let may_be = self.may_be_of(&named.conversation, Some(named.key.message_id.as_str()));
            let (seq, bytes) = (record.seq, record.payload.len());
            if !named.is_final {
                let wanted =
                    may_be && self.is_before(record.at) && self.is_of_conversation(&record);
                asked.insert(named.key, Asked { seq, bytes, wanted });
                continue;
            }
            if record.at > self.started {
                continue;
            }
            let request = asked.remove(&named.key);
            // A final state without its request is what was left by one that was interrupted.
            if request.as_ref().map_or(may_be, |request| request.wanted) {
                self.done.messages += 1;
                let request = request.map(|request| (request.seq, request.bytes));
                let mut records = Vec::new();
                for (seq, bytes) in request.into_iter().chain([(seq, bytes)]) {
                    self.done.add(name, bytes);
                    records.push(seq);
                }
                let id = named.key.message_id.clone();
                found.push(Found { id, key: Some(named.key), records });
            }
            if found.len() == TOGETHER {
                self.erase_messages(&stream, std::mem::take(&mut found)).await?;
                told(&self.done);
            }
        }
        self.erase_messages(&stream, found).await?;
        self.done.open += asked.values().filter(|request| request.wanted).count() as u64;
        self.open.extend(asked.into_keys());
        Ok(())
    }

    pub(super) async fn history(&mut self, told: &mut impl FnMut(&Forgotten)) -> Result<()> {
        let agent = &self.what.agent;
        let (broker, subjects) = (self.broker, self.broker.subjects());
        let stream = broker.history_stream();
        let end = broker.wire().last_seq(&stream).await?;
        let mut ranges = Vec::new();
        match &self.what.conversation {
            None => ranges.push((subjects.history_of(agent), 1, end)),
            Some(conversation) => {
                let tag = ConversationTag::of_conversation(conversation);
                ranges.push((subjects.history(agent, &tag), 1, end));
                // Those that are conversations of their own share a subject: the index knows where this one is, if it is indexed.
                let alone = subjects.history(agent, &ConversationTag::none());
                if let Ok(id) = MessageId::new(conversation.as_str()) {
                    let places = broker.places_of(&id).await?;
                    ranges.extend(places.iter().map(|seq| (alone.clone(), *seq, seq + 1)));
                    let from = broker.indexed_until().await? + 1;
                    if from <= end {
                        ranges.push((alone, from, end));
                    }
                }
            }
        }
        let mut met = HashSet::new();
        for (filter, from, until) in ranges {
            let reader = Reader::new(broker.wire(), stream.clone(), filter, from, until);
            let parts = Parts::new(reader.of(broker.replicas()));
            self.history_of(&stream, parts, &mut met, told).await?;
        }
        Ok(())
    }

    async fn history_of(
        &mut self,
        stream: &str,
        mut parts: Parts,
        met: &mut HashSet<u64>,
        told: &mut impl FnMut(&Forgotten),
    ) -> Result<()> {
        let mut found = Vec::new();
        while let Some(records) = parts.next().await? {
            let is_new = records.first().is_some_and(|first| met.insert(first.seq));
            let read = self.broker.read_archived(&records).ok();
            let wanted = match &read {
                Some(archived) => self.is_wanted(archived),
                // Half of one, left by one that was interrupted; or nobody knows what it is.
                None => records.iter().any(|record| self.may_be_part(record)),
            };
            if !wanted || !is_new {
                continue;
            }
            self.done.messages += 1;
            for record in &records {
                self.done.add("HISTORY", record.payload.len());
            }
            // The second part first: by the first one it is found again.
            let seqs: Vec<u64> = records.iter().rev().map(|record| record.seq).collect();
            let id = match &read {
                Some(archived) => Some(archived.key.message_id.clone()),
                None => records.iter().find_map(crate::history::id_of),
            };
            match id {
                Some(id) => found.push(Found { id, key: read.map(|it| it.key), records: seqs }),
                None if self.erase => self.broker.remove(stream, seqs, true).await?,
                None => {}
            }
            if found.len() == TOGETHER {
                self.erase_messages(stream, std::mem::take(&mut found)).await?;
                told(&self.done);
            }
        }
        self.erase_messages(stream, found).await
    }

    fn may_be_part(&self, record: &Record) -> bool {
        let named = self.broker.subjects().parse_history(&record.subject);
        let id = crate::history::id_of(record);
        named.is_some_and(|(_, tag)| self.may_be_of(&tag, id.as_ref().map(MessageId::as_str)))
    }

    /// Erases messages, all their first records before all their second ones. What belongs to them goes before.
    async fn erase_messages(&mut self, stream: &str, found: Vec<Found>) -> Result<()> {
        for Found { id, key, .. } in &found {
            self.ids.insert(self.hashes.hash_one(id));
            self.ids.extend(key.as_ref().map(|key| self.hashes.hash_one(key)));
        }
        // The rest of what belongs to them is found by looking at what there is of the agent.
        if self.what.before.is_some() {
            for key in found.iter().filter_map(|found| found.key.as_ref()) {
                self.later_of(key).await?;
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
    pub(super) async fn fence(&self) -> Result<()> {
        let subject = self.broker.subjects().filler(Filled::History, 0);
        let wire = self.broker.wire();
        let stored = wire.publish(subject, HeaderMap::new, Bytes::new(), CALL).await?;
        if let Published::Stored(seq) | Published::Duplicate(seq) = stored.0 {
            wire.delete(&self.broker.history_stream(), seq, false).await?;
        }
        Ok(())
    }

    /// A tag is a hash: the request tells the conversation. One that nobody can read is taken by its tag.
    fn is_of_conversation(&self, request: &Record) -> bool {
        let Some(wanted) = &self.what.conversation else { return true };
        request.parse::<Envelope>().map_or(true, |it| it.conversation_id == *wanted)
    }

    fn is_wanted(&self, archived: &Archived) -> bool {
        let Archived { key, conversation, request, final_, .. } = archived;
        let at = request.as_ref().map_or(final_.at, |request| request.at);
        let told = request.as_ref().map(|request| &request.value.conversation_id);
        let is_same = |wanted| told.is_none_or(|told| told == wanted);
        final_.at <= self.started
            && self.may_be_of(conversation, Some(key.message_id.as_str()))
            && self.is_before(at)
            && self.what.conversation.as_ref().is_none_or(is_same)
    }
}
