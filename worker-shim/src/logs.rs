//! Log lines on their way to LOGS: collected for a moment, bounded, the last few kept for dead letters.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::Timestamp;
use common::log::LogLine;

/// Lines wait this long for company.
const COLLECT: Duration = Duration::from_millis(50);
/// More bytes than this waiting stop the worker's pipe.
const FULL: usize = 512 * 1024;
/// More bytes than this waiting are not kept: what comes here past a stopped pipe, such as the shim's own notes, is bounded too.
const DROPPED: usize = 2 * FULL;
/// The longest line that is kept, in bytes.
const LONGEST: usize = 16 * 1024;
/// Lines that a dead letter shows.
const LAST: usize = 20;
/// The most lines of one publish: with [`LONGEST`] they fit the broker's 1 MiB, and JSON's escapes too where lines are usual.
const BATCH_BYTES: usize = 128 * 1024;

/// An incarnation's log keeps its last so many bytes,
const KEPT: usize = 8 << 20;
/// and what is beyond is removed so many bytes at a time.
const SLACK: usize = 2 << 20;
/// Records of an incarnation, at most: the broker keeps no more either.
const RECORDS: usize = 10_000;

/// The worker's log.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    pending: VecDeque<LogLine>,
    bytes: usize,
    due: Option<Instant>,
    last: VecDeque<String>,
    dropped: u64,
    /// Whether lines are on their way.
    under_way: bool,
    /// Whether any have been: nobody confirms them.
    sent: bool,
    /// The sizes of the records that the broker has, the oldest first, and their sum.
    stored: VecDeque<usize>,
    stored_bytes: usize,
}

impl Logs {
    pub(crate) fn push(&mut self, at: Timestamp, stream: &str, bytes: &[u8], turn: Option<String>) {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]).into_owned();
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(text.clone());
        if self.bytes > DROPPED {
            self.dropped += 1;
            return;
        }
        self.bytes += text.len() + 64;
        let stream = stream.to_owned();
        self.pending.push_back(LogLine { at, stream, text, message_id: turn, incarnation: 0 });
        self.due.get_or_insert_with(|| Instant::now() + COLLECT);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes > FULL
    }

    /// Whether nothing is left to publish.
    pub(crate) fn are_stored(&self) -> bool {
        self.pending.is_empty() && !self.under_way
    }

    pub(crate) fn were_sent(&self) -> bool {
        self.sent
    }

    /// When [`Self::take`] should be called.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.under_way)
    }

    /// What was taken last is with the server, in records of these sizes; `trimmed`: and what [`Self::keep`] left out is gone.
    pub(crate) fn taken(&mut self, sizes: Vec<usize>, trimmed: bool) {
        self.under_way = false;
        if trimmed && let Some(keep) = self.keep() {
            self.drop_stored(self.stored.len() - keep);
        }
        self.stored_bytes += sizes.iter().sum::<usize>();
        self.stored.extend(sizes);
        self.drop_stored(self.stored.len().saturating_sub(RECORDS));
    }

    fn drop_stored(&mut self, count: usize) {
        self.stored_bytes -= self.stored.drain(..count).sum::<usize>();
    }

    /// How many of the records that the broker has are to stay; none while all are.
    pub(crate) fn keep(&self) -> Option<usize> {
        if self.stored_bytes <= KEPT + SLACK {
            return None;
        }
        let mut bytes = 0;
        let fits = |size: &&usize| {
            bytes += **size;
            bytes <= KEPT
        };
        Some(self.stored.iter().rev().take_while(fits).count())
    }

    /// The next lines to publish, one batch at a time; then [`Self::taken`].
    pub(crate) fn take(&mut self) -> Option<Vec<LogLine>> {
        if self.under_way || self.pending.is_empty() {
            return None;
        }
        self.under_way = true;
        self.sent = true;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(line) = self.pending.pop_front() {
            bytes += line.text.len() + 64;
            batch.push(line);
            if bytes > BATCH_BYTES {
                break;
            }
        }
        self.bytes -= bytes;
        if self.dropped > 0 {
            let text =
                format!("{} lines of the log were dropped", std::mem::take(&mut self.dropped));
            let at = std::time::SystemTime::now().into();
            let stream = "shim".to_owned();
            batch.push(LogLine { at, stream, text, message_id: None, incarnation: 0 });
        }
        self.due = (!self.pending.is_empty()).then(Instant::now);
        Some(batch)
    }

    /// The last lines, oldest first.
    pub(crate) fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_what_is_kept_the_oldest_records_go_a_few_at_a_time() {
        let mut logs = Logs::default();
        let record = 128 * 1024;
        for n in 0..KEPT / record {
            assert_eq!(logs.keep(), None, "{n}");
            logs.taken(vec![record], false);
        }
        logs.taken(vec![SLACK], false);
        assert_eq!(logs.keep(), None);
        logs.taken(vec![1], false);
        let keep = logs.keep();
        assert_eq!(keep, Some((KEPT - SLACK - 1) / record + 2));
        // Not done: it is asked for again.
        logs.taken(vec![1], false);
        assert_eq!(logs.keep(), Some((KEPT - SLACK - 2) / record + 3));
        logs.taken(vec![5], true);
        assert_eq!(logs.keep(), None);
        assert!(logs.stored_bytes <= KEPT + 5);
    }

    #[test]
    fn no_more_records_are_remembered_than_the_broker_keeps() {
        let mut logs = Logs::default();
        for _ in 0..RECORDS + 10 {
            logs.taken(vec![1], false);
        }
        assert_eq!((logs.stored.len(), logs.stored_bytes), (RECORDS, RECORDS));
    }
}
