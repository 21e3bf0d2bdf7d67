//! HISTORY: finished messages that have left the journal, and how they are found.
//!
//! The journal costs the server memory for every subject, and every message has subjects of its own: so it holds what is open and what
//! has just finished. [`Archiver`] copies the rest to HISTORY, where a conversation is one subject, and removes it from the journal. INDEX
//! tells where in HISTORY a message is ([`index`]).

mod archive;
mod asked;
pub(crate) mod batch;
mod collect;
pub(crate) mod commit;
mod cursor;
mod index;
mod keep;
mod list;
mod parts;
mod plan;
mod record;
mod scan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use common::MessageId;
use common::message::MessageKey;
use futures_util::StreamExt as _;

use crate::api::Record;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::read::Reader;

pub use archive::{ArchiveOptions, Archiver, Except, Round};
pub(crate) use asked::asks;
pub use cursor::Cursor;
use index::IndexId;
pub use list::{ListQuery, Listed, Listing};
pub(crate) use parts::{Parts, id_of};
pub use record::Archived;
pub use scan::{JournalItem, JournalScan};

/// Which part of a message a record is, where it has two.
const PART: &str = "Mozart-Part";
const FIRST: &str = "1";
const SECOND: &str = "2";

/// What is looked up by a beginning of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// The messages whose ids begin so.
    Found(BTreeSet<MessageId>),
    /// It begins no UUID, or too many.
    Unclear,
}

impl Broker {
    pub(crate) fn history_stream(&self) -> String {
        self.subjects().stream("HISTORY")
    }

    pub(crate) fn index_stream(&self) -> String {
        self.subjects().stream("INDEX")
    }

    /// The finished messages of this id that have left the journal: more than one if several agents were sent the same id.
    ///
    /// Reads what the index holds of about the seconds in which the message was sent.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn archived(&self, id: &MessageId) -> Result<Vec<Archived>> {
        let mut found = Vec::new();
        for seq in self.places_of(id).await? {
            let archived = self.archived_at(seq).await?;
            found.extend(archived.filter(|archived| archived.key.message_id == *id));
        }
        Ok(found)
    }

    /// The finished message of this name, if it has left the journal.
    ///
    /// # Errors
    /// As [`Broker::archived`].
    pub async fn archived_of(&self, key: &MessageKey) -> Result<Option<Archived>> {
        let all = self.archived(&key.message_id).await?;
        // The same id may have been sent again, long after.
        Ok(all.into_iter().rfind(|archived| archived.key == *key))
    }

    /// The ids of messages that have left the journal and begin so.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn archived_ids(&self, beginning: &str) -> Result<Beginning> {
        let Some((ids, slots)) = index::beginning(beginning) else { return Ok(Beginning::Unclear) };
        let mut found = BTreeSet::new();
        for slot in slots {
            for seq in self.indexed(&slot, &ids).await? {
                let archived = self.archived_at(seq).await?;
                found.extend(archived.map(|archived| archived.key.message_id));
                // Two tell as much as all of them.
                if found.len() > 1 {
                    return Ok(Beginning::Found(found));
                }
            }
        }
        Ok(Beginning::Found(found))
    }

    /// The sequences in HISTORY that a part of the index has for ids in a range, oldest first.
    async fn indexed(&self, bucket: &str, ids: &RangeInclusive<IndexId>) -> Result<BTreeSet<u64>> {
        let (stream, subject) = (self.index_stream(), self.subjects().index(bucket));
        let reader = Reader::new(self.wire(), stream, subject, 1, u64::MAX).of(self.replicas());
        let records = reader.rest().await?;
        let of = |record: &Record| {
            let wanted = index::wanted(&record.payload, |id| ids.contains(id));
            wanted.collect::<Vec<_>>()
        };
        Ok(records.iter().flat_map(of).collect())
    }

    /// The finished messages of these ids that have left the journal. Each part of the index is read once.
    pub(crate) async fn archived_all(
        &self,
        ids: impl Iterator<Item = &MessageId>,
    ) -> Result<HashMap<MessageId, Vec<Archived>>> {
        /// Messages that are read at once.
        const AT_ONCE: usize = 16;
        let mut parts: BTreeMap<String, BTreeSet<IndexId>> = BTreeMap::new();
        for id in ids {
            parts.entry(index::bucket(id)).or_default().insert(IndexId::of(id));
        }
        let mut seqs = BTreeSet::new();
        for (part, ids) in parts {
            let (stream, subject) = (self.index_stream(), self.subjects().index(&part));
            let mut reader =
                Reader::new(self.wire(), stream, subject, 1, u64::MAX).of(self.replicas());
            while let Some(record) = reader.next().await? {
                seqs.extend(index::wanted(&record.payload, |id| ids.contains(id)));
            }
        }
        let read = seqs.into_iter().map(|seq| {
            let broker = self.clone();
            async move { broker.archived_at(seq).await }
        });
        let mut read = futures_util::stream::iter(read).buffered(AT_ONCE);
        let mut found: HashMap<MessageId, Vec<Archived>> = HashMap::new();
        while let Some(archived) = read.next().await {
            if let Some(archived) = archived? {
                found.entry(archived.key.message_id.clone()).or_default().push(archived);
            }
        }
        Ok(found)
    }

    /// What HISTORY has at a sequence, if it is still there.
    async fn archived_at(&self, seq: u64) -> Result<Option<Archived>> {
        // That nothing is there is confirmed: a message that is taken for lost may be sent again.
        let stream = self.history_stream();
        let reader = Reader::new(self.wire(), stream, ">".to_owned(), seq, seq + 1);
        let mut records = reader.of(self.replicas()).rest().await?;
        if records.first().is_none_or(|first| first.seq != seq) {
            return Ok(None);
        }
        let is_whole = matches!(&records[..], [first, second, ..] if parts::belongs(first, second));
        records.truncate(if is_whole { 2 } else { 1 });
        if parts::is_half(&records) {
            return Ok(None);
        }
        self.read_archived(&records).map(Some)
    }

    /// Where the index has messages of this id.
    pub(crate) async fn places_of(&self, id: &MessageId) -> Result<BTreeSet<u64>> {
        let whole = IndexId::of(id);
        self.indexed(&index::bucket(id), &(whole..=whole)).await
    }

    /// Up to which sequence HISTORY is indexed.
    pub(crate) async fn indexed_until(&self) -> Result<u64> {
        let stream = self.index_stream();
        let last = match self.wire().last_seq(&stream).await? {
            0 => None,
            seq => self.wire().at(&stream, seq).await?,
        };
        Ok(last.and_then(|last| last.header(commit::UNTIL)?.parse().ok()).unwrap_or(0))
    }

    /// A message from its records.
    pub(crate) fn read_archived(&self, records: &[Record]) -> Result<Archived> {
        let Some(first) = records.first() else {
            return Err(BrokerError::other("a message without records"));
        };
        let Some(names) = self.subjects().parse_history(&first.subject) else {
            let cause = "not a subject of HISTORY".to_owned();
            return Err(BrokerError::Malformed {
                subject: first.subject.clone(),
                seq: first.seq,
                cause,
            });
        };
        record::read(&first.subject, names, first.seq, records.iter().map(|record| &record.payload))
    }
}
