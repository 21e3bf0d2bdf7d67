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

    /// What was taken last is with the server.
    pub(crate) fn taken(&mut self) {
        self.under_way = false;
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
