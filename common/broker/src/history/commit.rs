//! Writes finished messages to HISTORY and INDEX, and finds out how far that got.
//!
//! A record of HISTORY says which final state of which journal it was made from, and these are archived in the order of the journal: so the
//! last one tells what is archived, exactly, whoever archived it and whenever. A record of INDEX says up to where HISTORY is indexed, and
//! repeats those marks: what a crash left unindexed is read from HISTORY once.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use common::MessageId;

use super::batch::{self, New};
use super::collect::Pair;
use super::index::{self, IndexId};
use super::record::{Finished, payloads};
use super::{FIRST, PART, SECOND};
use crate::api::Record;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::inbox::believe;
use crate::journal::{Stored, read_final};
use crate::read::Reader;

/// Which final state a record was made from: `<shard>:<sequence>:<when the journal stream was made>`.
pub(crate) const ORIGIN: &str = "Mozart-Origin";
/// Up to where HISTORY is indexed.
pub(super) const UNTIL: &str = "Mozart-Until";
/// What is archived of each journal stream, as [`ORIGIN`], separated by blanks.
const MARKS: &str = "Mozart-Marks";
/// The id that a record of HISTORY is indexed by.
pub(super) const ID: &str = "Mozart-Id";

/// How much is kept of a request that cannot be read.
const UNREADABLE: usize = 64 << 10;
/// The longest text of an attempt's end.
const END: usize = 1 << 10;

/// What is archived of a journal stream: everything up to a final state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The final state's sequence.
    pub(super) seq: u64,
    /// When the stream was made. Another one of its name has sequences of its own.
    pub(super) made: String,
}

/// The marks, by shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks(BTreeMap<u32, Mark>);

impl Marks {
    fn write(&self) -> String {
        let mark = |(shard, mark): (&u32, &Mark)| format!("{shard}:{}:{}", mark.seq, mark.made);
        self.0.iter().map(mark).collect::<Vec<_>>().join(" ")
    }

    fn read(text: &str) -> Self {
        let mark = |word: &str| {
            let mut parts = word.splitn(3, ':');
            let shard = parts.next()?.parse().ok()?;
            let seq = parts.next()?.parse().ok()?;
            Some((shard, Mark { seq, made: parts.next()?.to_owned() }))
        };
        Self(text.split(' ').filter_map(mark).collect())
    }

    /// What is archived of a shard whose stream was made then.
    pub(super) fn of(&self, shard: u32, made: &str) -> u64 {
        let mark = self.0.get(&shard).filter(|mark| mark.made == made);
        mark.map_or(0, |mark| mark.seq)
    }

    /// A final state is archived. They are not in the order of the journal where they are archived together: the furthest counts, as
    /// long as the stream is the same.
    pub(super) fn add(&mut self, shard: u32, mark: Mark) {
        let known = self.0.entry(shard).or_default();
        if known.made != mark.made || known.seq < mark.seq {
            *known = mark;
        }
    }

    fn of_one(shard: u32, seq: u64, made: &str) -> Self {
        Self(BTreeMap::from([(shard, Mark { seq, made: made.to_owned() })]))
    }
}

/// How far archiving got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The last sequence of HISTORY: all of it is indexed.
    pub(super) last: u64,
    /// The last sequence of INDEX.
    index: u64,
    pub(super) marks: Marks,
}

/// Which final state a record of HISTORY was made from.
pub(crate) fn origins(header: &str) -> Vec<(u32, u64, String)> {
    let marks = Marks::read(header).0;
    marks.into_iter().map(|(shard, Mark { seq, made })| (shard, seq, made)).collect()
}

impl Broker {
    /// Indexes what HISTORY holds and no index tells of.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn index_history(&self) -> Result<()> {
        self.archive_progress().await.map(drop)
    }

    /// How far archiving got. Indexes what is not yet.
    pub(super) async fn archive_progress(&self) -> Result<Progress> {
        let (history, index) = (self.history_stream(), self.index_stream());
        let last = self.wire().last_seq(&history).await?;
        let mut end = self.wire().last_seq(&index).await?;
        let indexed = match end {
            0 => None,
            seq => self.wire().at(&index, seq).await?,
        };
        let until = indexed.as_ref().and_then(|record| record.header(UNTIL)?.parse().ok());
        let mut until: u64 = until.unwrap_or(0);
        let marks = indexed.as_ref().and_then(|record| record.header(MARKS));
        let mut marks = marks.map(Marks::read).unwrap_or_default();
        if until > last {
            // Another HISTORY, or an older copy of it.
            until = 0;
        }
        if until < last {
            tracing::info!("indexing HISTORY from {} to {last}", until + 1);
        }
        let reader = Reader::new(self.wire(), history, ">".to_owned(), until + 1, last);
        let mut reader = reader.of(self.replicas());
        let mut entries = Entries::default();
        while let Some(record) = reader.next().await? {
            let origin = record.header(ORIGIN).map(Marks::read).unwrap_or_default();
            for (shard, mark) in origin.0 {
                marks.add(shard, mark);
            }
            if let Some(id) = record.header(ID).and_then(|id| MessageId::new(id).ok()) {
                entries.add(&id, record.seq);
            }
            until = record.seq;
            if entries.count >= super::collect::MESSAGES {
                let entries = std::mem::take(&mut entries);
                end = self.write_index(entries, until, &marks, end).await?;
            }
        }
        if entries.count > 0 {
            end = self.write_index(entries, until, &marks, end).await?;
        }
        Ok(Progress { last, index: end, marks })
    }

    /// Copies messages to HISTORY, in the order in which they were asked, reads them back, and indexes them. Each comes with its shard, and
    /// with when that journal stream was made.
    pub(super) async fn archive(
        &self,
        mut pairs: Vec<(u32, String, Pair)>,
        progress: &mut Progress,
    ) -> Result<()> {
        pairs.sort_by_key(|(.., pair)| pair.asked());
        let mut records = Vec::new();
        let mut entries = Entries::default();
        let has_steps = self.has_steps().await?;
        for (shard, made, pair) in pairs {
            let origin = Marks::of_one(shard, pair.final_.seq, &made);
            progress.marks.add(shard, Mark { seq: pair.final_.seq, made });
            let id = pair.key.message_id.clone();
            entries.add(&id, progress.last + 1 + records.len() as u64);
            records.extend(self.records(pair, &id, &origin, has_steps).await?);
        }
        for some in split(&records) {
            let after = progress.last;
            let last = batch::write(self.wire(), some, after).await?;
            self.read_back(some, after).await?;
            if last != after + some.len() as u64 {
                return Err(BrokerError::other("HISTORY has gaps"));
            }
            progress.last = last;
        }
        let Progress { last, index, marks } = &mut *progress;
        *index = self.write_index(entries, *last, marks, *index).await?;
        Ok(())
    }

    /// The records of a message.
    async fn records(
        &self,
        pair: Pair,
        id: &MessageId,
        origin: &Marks,
        has_steps: bool,
    ) -> Result<Vec<New>> {
        let subject = self.subjects().history(&pair.key.agent, &pair.conversation);
        let mut finished = self.finished(pair).await?;
        if has_steps {
            finished.steps = self.steps(&finished.key, false).await?;
        }
        // They have fewer headers than what is sent by others.
        let payloads = payloads(finished, self.max_record() + 2048)?;
        let parts = if payloads.len() > 1 { [Some(FIRST), Some(SECOND)] } else { [None, None] };
        let records = payloads.into_iter().zip(parts).map(|(payload, part)| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.write());
            if let Some(part) = part {
                headers.insert(PART, part);
            }
            if part != Some(SECOND) {
                headers.insert(ID, id.as_str());
            }
            New { subject: subject.clone(), headers, payload }
        });
        Ok(records.collect())
    }

    async fn finished(&self, pair: Pair) -> Result<Finished> {
        let Pair { key, request, final_, .. } = pair;
        let final_ = read_final(&final_);
        let mut attempts = Vec::new();
        if final_.value.attempts > 1 {
            let batches = self.events(&key).await?;
            let history = batches.into_iter().flat_map(|batch| {
                batch.events.into_iter().map(move |event| (batch.incarnation, event))
            });
            attempts = common::message::attempt_ends(&final_.value, history);
            for end in &mut attempts {
                end.error.truncate(end.error.floor_char_boundary(END));
            }
        }
        let mut unreadable = None;
        let request = request.and_then(|record| {
            let named = self.subjects().parse_journal(&record.subject)?;
            match believe(named, &record.payload) {
                Ok(value) => Some(Stored { value, seq: record.seq, at: record.at }),
                Err(_) => {
                    let text = &record.payload[..record.payload.len().min(UNREADABLE)];
                    let value = String::from_utf8_lossy(text).into_owned();
                    unreadable = Some(Stored { value, seq: record.seq, at: record.at });
                    None
                }
            }
        });
        Ok(Finished { key, request, unreadable, final_, attempts, steps: Vec::new() })
    }

    /// Nothing leaves the journal that was not read back.
    async fn read_back(&self, written: &[New], after: u64) -> Result<()> {
        let (stream, until) = (self.history_stream(), after + written.len() as u64);
        let reader = Reader::new(self.wire(), stream, ">".to_owned(), after + 1, until);
        let read = reader.of(self.replicas()).rest().await?;
        let same = |(written, read): (&New, &Record)| {
            written.subject == read.subject && written.payload == read.payload
        };
        if read.len() == written.len() && written.iter().zip(&read).all(same) {
            return Ok(());
        }
        Err(BrokerError::other("HISTORY does not have what was written to it"))
    }

    /// Only onto the sequence that its author knows: up to where HISTORY is indexed never goes back.
    async fn write_index(
        &self,
        entries: Entries,
        until: u64,
        marks: &Marks,
        after: u64,
    ) -> Result<u64> {
        let marks = marks.write();
        let record = |(bucket, entries): (String, Vec<(IndexId, u64)>)| {
            let mut headers = HeaderMap::new();
            headers.insert(UNTIL, until.to_string());
            headers.insert(MARKS, marks.as_str());
            New {
                subject: self.subjects().index(&bucket),
                headers,
                payload: index::encode(&entries),
            }
        };
        let records: Vec<_> = entries.buckets.into_iter().map(record).collect();
        batch::write(self.wire(), &records, after).await
    }
}

/// Entries of the index, by its parts.
#[derive(Debug, Default)]
struct Entries {
    buckets: BTreeMap<String, Vec<(IndexId, u64)>>,
    count: usize,
}

impl Entries {
    fn add(&mut self, id: &MessageId, seq: u64) {
        self.buckets.entry(index::bucket(id)).or_default().push((IndexId::of(id), seq));
        self.count += 1;
    }
}

/// Batches that a server takes, the two records of a message in one.
fn split(records: &[New]) -> Vec<&[New]> {
    let (mut rest, mut batches) = (records, Vec::new());
    while !rest.is_empty() {
        let mut end = rest.len().min(batch::MOST);
        let is_second =
            |record: &New| record.headers.get(PART).is_some_and(|part| part.as_str() == SECOND);
        if rest.get(end).is_some_and(is_second) {
            end -= 1;
        }
        let (some, others) = rest.split_at(end);
        rest = others;
        batches.push(some);
    }
    batches
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(part: Option<&str>) -> New {
        let mut headers = HeaderMap::new();
        if let Some(part) = part {
            headers.insert(PART, part);
        }
        New { subject: String::new(), headers, payload: Bytes::new() }
    }

    #[test]
    fn marks_are_read_as_they_were_written() {
        let mut marks = Marks::default();
        assert_eq!(Marks::read(&marks.write()), marks);
        marks.add(0, Mark { seq: 7, made: "2026-11-29T12:00:00.1Z".into() });
        marks.add(3, Mark { seq: 9, made: "x".into() });
        assert_eq!(Marks::read(&marks.write()), marks);
        assert_eq!((marks.of(3, "x"), marks.of(3, "y"), marks.of(1, "x")), (9, 0, 0));
        assert_eq!(Marks::read("garbage 1:2 x:1:1"), Marks::default());
    }

    #[test]
    fn the_furthest_of_a_stream_counts_and_the_last_of_two() {
        let mut marks = Marks::default();
        for (seq, made, known) in [(7, "x", 7), (5, "x", 7), (2, "y", 2), (3, "y", 3), (1, "y", 3)]
        {
            marks.add(0, Mark { seq, made: made.into() });
            assert_eq!(marks.of(0, made), known);
        }
        assert_eq!(marks.of(0, "x"), 0);
    }

    #[test]
    fn two_records_of_one_message_are_written_together() {
        let mut records: Vec<_> = (0..batch::MOST - 1).map(|_| record(None)).collect();
        records.extend([record(Some(FIRST)), record(Some(SECOND)), record(None)]);
        let sizes: Vec<_> = split(&records).into_iter().map(<[New]>::len).collect();
        assert_eq!(sizes, [batch::MOST - 1, 3]);
        assert_eq!(split(&[]).len(), 0);
    }
}
