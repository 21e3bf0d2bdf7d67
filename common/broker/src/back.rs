//! Reading a stream from its end: the newest records first, whatever comes before them.
//!
//! Direct gets only go forward. So each page is found by counting: the server tells how many records of a filter come after a sequence
//! without reading them, and a few such answers tell where the last hundred begin.

use crate::api::{Record, StreamState};
use crate::error::Result;
use crate::read::Reader;
use crate::wire::{CALL, Wire};

/// A page has at most this many times as many records as are wanted.
const SLACK: u64 = 4;

/// The last records of a filter before a place, in the stream's order. They are read in pages, however many are wanted.
#[derive(Debug)]
pub(crate) struct Last {
    reader: Reader,
    /// Records that are read and not wanted: places are found by counting, and not to the record.
    skip: u64,
    has_earlier: bool,
}

impl Last {
    /// The next one; none at the place.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>> {
        while self.skip > 0 {
            self.skip -= 1;
            if self.reader.next().await?.is_none() {
                return Ok(None);
            }
        }
        self.reader.next().await
    }

    /// Whether the filter has others before them.
    pub(crate) fn has_earlier(&self) -> bool {
        self.has_earlier
    }
}

/// A read under way, towards the start.
#[derive(Debug)]
pub(crate) struct BackReader {
    wire: Wire,
    stream: String,
    filter: String,
    replicas: usize,
    /// Everything from here on was read.
    before: u64,
    first: u64,
    /// How many records a page should have.
    page: u64,
    /// In the stream's order.
    records: Vec<Record>,
    /// Whether the next one is the last of a subject, which the server finds at once.
    is_last: bool,
}

impl BackReader {
    /// Reads the filter's records before a sequence, or from the end, in pages of about so many.
    pub(crate) async fn new(
        wire: &Wire,
        (stream, filter): (String, String),
        replicas: usize,
        before: Option<u64>,
        page: u64,
    ) -> Result<Self> {
        let StreamState { first_seq, last_seq, .. } = wire.stream_info(&stream, CALL).await??.state;
        let is_last = before.is_none() && !filter.contains(['*', '>']);
        let before = before.unwrap_or(u64::MAX).min(last_seq + 1);
        Ok(Self {
            wire: wire.clone(),
            stream,
            filter,
            replicas,
            before,
            first: first_seq.max(1),
            page: page.max(1),
            records: Vec::new(),
            is_last,
        })
    }

    /// Reads only what comes after a sequence.
    pub(crate) fn after(mut self, seq: u64) -> Self {
        self.first = self.first.max(seq.saturating_add(1));
        self
    }

    /// The sequence before which it reads on.
    pub(crate) fn before(&self) -> u64 {
        self.before
    }

    /// The next one; none at the start.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>> {
        // Where others are newer, it is all that is wanted: no page need be found by counting.
        if std::mem::take(&mut self.is_last) {
            match self.wire.last(&self.stream, &self.filter).await? {
                Some(last) if (self.first..self.before).contains(&last.seq) => {
                    self.before = last.seq;
                    return Ok(Some(last));
                }
                // Stored meanwhile.
                Some(last) if last.seq >= self.before => {}
                Some(_) | None => self.before = self.first,
            }
        }
        while self.records.is_empty() && self.before > self.first {
            let (from, count) = self.begin().await?;
            let (stream, filter) = (self.stream.clone(), self.filter.clone());
            let reader = Reader::new(&self.wire, stream, filter, from, self.before - 1);
            let reader = reader.expecting(count);
            self.records = reader.of(self.replicas).rest().await?;
            self.before = from;
        }
        Ok(self.records.pop())
    }

    /// The page that comes next, in the stream's order.
    pub(crate) async fn last(self) -> Result<Last> {
        let is_empty = self.before <= self.first;
        let (from, count) = if is_empty { (self.before, 0) } else { self.begin().await? };
        let skip = count.saturating_sub(self.page);
        let has_earlier =
            skip > 0 || (!is_empty && self.count(self.first).await? > self.count(from).await?);
        let until = self.before.saturating_sub(1);
        let reader = Reader::new(&self.wire, self.stream, self.filter, from, until);
        Ok(Last { reader: reader.of(self.replicas).expecting(count), skip, has_earlier })
    }

    /// Where the next page begins, and how many records it has.
    async fn begin(&self) -> Result<(u64, u64)> {
        let after = self.count(self.before).await?;
        let all = self.count(self.first).await?.saturating_sub(after);
        let most = self.page.saturating_mul(SLACK);
        if all <= most {
            return Ok((self.first, all));
        }
        // As if they were evenly spread; else further, and back.
        let sequences = self.before - self.first;
        let mut width = (sequences / all).max(1).saturating_mul(self.page);
        let (mut far, mut near) = (self.first, self.before);
        let mut count_of_far = all;
        loop {
            let from = self.before.saturating_sub(width).clamp(far, near);
            let count = self.count(from).await?.saturating_sub(after);
            if count < self.page {
                near = from;
            } else if count > most {
                (far, count_of_far) = (from, count);
            } else {
                return Ok((from, count));
            }
            if near <= far + 1 {
                return Ok((far, count_of_far));
            }
            width = if far == self.first && count < self.page {
                width.saturating_mul(2).min(self.before - far)
            } else {
                self.before - (far + (near - far) / 2)
            };
        }
    }

    /// How many records there are from a sequence on.
    async fn count(&self, from: u64) -> Result<u64> {
        let first = self.wire.first(&self.stream, &self.filter, from).await?;
        Ok(first.map_or(0, |(_, more)| more + 1))
    }
}
