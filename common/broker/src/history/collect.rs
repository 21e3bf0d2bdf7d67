//! Reading a journal in order for what has been finished long enough.

use std::collections::{BTreeMap, VecDeque};

use common::message::MessageKey;
use common::subject::{JournalSubject, Subjects};
use common::{ConversationTag, Timestamp};

use super::plan::Held;
use crate::api::{Record, StreamInfo};
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::quiet::Quiet;
use crate::read::Reader;

/// The most messages that are archived at once. Each has a record or two, and a part of the index of its own at worst.
pub(super) const MESSAGES: usize = 400;
/// The most bytes of them.
pub(super) const BYTES: usize = 4 << 20;
/// Requests are kept up to so many bytes until their final states are read: most come soon after.
const KEPT: usize = 8 << 20;
/// How much is read at once.
const PAGE: u32 = 1 << 20;
/// A finished message, as the journal has it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: MessageKey,
    pub(super) conversation: ConversationTag,
    /// None if it was no longer there.
    pub(super) request: Option<Record>,
    pub(super) final_: Record,
}

impl Pair {
    /// When it was asked.
    pub(super) fn asked(&self) -> Timestamp {
        self.request.as_ref().map_or(self.final_.at, |request| request.at)
    }

    /// Its first record in the journal.
    fn first(&self) -> u64 {
        self.request.as_ref().map_or(self.final_.seq, |request| request.seq)
    }

    pub(super) fn bytes(&self) -> usize {
        self.request.as_ref().map_or(0, |request| request.payload.len()) + self.final_.payload.len()
    }
}

/// What is archived by now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    /// What was stored before this,
    pub(super) at: Timestamp,
    /// and what was stored before that, if more finished messages come after it
    pub(super) settled: Timestamp,
    /// than these.
    pub(super) hot: u64,
}

impl Until {
    /// Whether a record's time has come; so many records are after it.
    fn has_come(&self, record: &Record, after: u64) -> bool {
        // A finished message has two records.
        record.at < self.at || (record.at < self.settled && after / 2 >= self.hot)
    }
}

/// One journal stream, read up to a sequence.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// When the stream was made: another one of its name has sequences of its own.
    made: String,
    /// Everything before this was read.
    next: u64,
    /// Whether nothing more was due when this was last looked at in a round.
    dry: bool,
    held: Held,
    recent: Recent,
    /// In the middle of a page, as long as what comes next may be due.
    reader: Option<Reader>,
    /// Finished messages, in the order of their final states.
    ready: VecDeque<Pair>,
    /// Whether what comes next is not due yet, and when it was stored.
    waits_for: Option<Timestamp>,
}

/// The last requests read.
#[derive(Debug, Default)]
struct Recent {
    records: BTreeMap<u64, Record>,
    bytes: usize,
}

impl Recent {
    fn add(&mut self, record: Record) {
        self.bytes += record.payload.len();
        self.records.insert(record.seq, record);
        while self.bytes > KEPT
            && let Some((_, oldest)) = self.records.pop_first()
        {
            self.bytes -= oldest.payload.len();
        }
    }

    fn take(&mut self, seq: u64) -> Option<Record> {
        let record = self.records.remove(&seq)?;
        self.bytes -= record.payload.len();
        Some(record)
    }
}

impl Shard {
    /// Before this, everything has been taken.
    pub(super) fn settled(&self) -> u64 {
        let ready = self.ready.iter().map(Pair::first).min();
        [self.held.first(), ready].into_iter().flatten().min().unwrap_or(self.next)
    }

    /// When the next message was finished.
    pub(super) fn finished(&self) -> Option<Timestamp> {
        self.ready.front().map(|pair| pair.final_.at)
    }

    /// The next message.
    pub(super) fn take(&mut self) -> Option<Pair> {
        self.ready.pop_front()
    }

    /// Begins a round.
    ///
    /// # Errors
    /// When the stream is not the one that was read.
    pub(super) fn begin(&mut self, stream: &str, info: &StreamInfo) -> Result<()> {
        let is_other = !self.made.is_empty() && self.made != info.created;
        if is_other || info.state.last_seq.saturating_add(1) < self.next {
            return Err(BrokerError::Other(format!("{stream} is not the one that was read")));
        }
        self.made.clone_from(&info.created);
        self.dry = false;
        Ok(())
    }

    /// Reads on until there is a next message, if one is due.
    pub(super) async fn fill(
        &mut self,
        broker: &Broker,
        stream: &str,
        info: &StreamInfo,
        until: &Until,
    ) -> Result<()> {
        let is_early = self.waits_for.is_some_and(|at| at >= until.at);
        let is_early = is_early && info.state.messages / 2 <= until.hot;
        if self.dry || is_early || !self.ready.is_empty() {
            return Ok(());
        }
        self.next = self.next.max(info.state.first_seq).max(1);
        self.waits_for = None;
        let last = info.state.last_seq;
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                let (wire, stream) = (broker.wire(), stream.to_owned());
                let reader = Reader::new(wire, stream, ">".to_owned(), self.next, last);
                reader.of(broker.replicas()).pages(PAGE)
            }
        };
        while self.ready.is_empty() {
            let Some(record) = reader.next().await? else {
                self.dry = true;
                return Ok(());
            };
            if !until.has_come(&record, last.saturating_sub(record.seq)) {
                // What was read of what comes after it would be old by the time it is due.
                self.waits_for = Some(record.at);
                self.dry = true;
                return Ok(());
            }
            let seq = record.seq;
            let pair = self.read(broker, stream, record).await?;
            self.next = seq + 1;
            self.ready.extend(pair);
        }
        self.reader = Some(reader);
        Ok(())
    }

    /// A record; with a final state, the message that it finishes.
    async fn read(
        &mut self,
        broker: &Broker,
        stream: &str,
        record: Record,
    ) -> Result<Option<Pair>> {
        let Some(named) = broker.subjects().parse_journal(&record.subject) else {
            // Nobody's: it goes with what is around it.
            static NOBODYS: Quiet = Quiet::new();
            let Record { seq, subject, .. } = &record;
            if !Subjects::is_filler(subject)
                && let Some(others) = NOBODYS.count()
            {
                tracing::warn!(
                    "record {seq} of {stream} is on {subject}, which names no message{others}"
                );
            }
            return Ok(None);
        };
        let JournalSubject { key, conversation, is_final } = named;
        if !is_final {
            self.held.request(&key, record.seq);
            self.recent.add(record);
            return Ok(None);
        }
        let request = match self.held.finish(&key) {
            None => None,
            Some(seq) => match self.recent.take(seq) {
                Some(request) => Some(request),
                None => Some(fetch(broker, stream, &key, seq).await?),
            },
        };
        Ok(Some(Pair { key, conversation, request, final_: record }))
    }
}

/// A request that was read long ago.
async fn fetch(broker: &Broker, stream: &str, key: &MessageKey, seq: u64) -> Result<Record> {
    let Some(record) = broker.wire().at(stream, seq).await? else {
        // Of a server that lags; or somebody removed it.
        return Err(BrokerError::Other(format!("request {seq} of {stream} is gone")));
    };
    let named = broker.subjects().parse_journal(&record.subject);
    if named.is_some_and(|named| named.key == *key) {
        return Ok(record);
    }
    Err(BrokerError::Other(format!("request {seq} of {stream} is another one's")))
}
