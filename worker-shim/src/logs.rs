//! Log lines on their way to LOGS: collected for a moment, bounded, the last few kept for dead letters.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Timestamp;
use common::log::{LogLine, TRIMMED};
use common::words::count;

use crate::secrets::Secrets;

/// Lines wait this long for company.
const COLLECT: Duration = Duration::from_millis(50);
/// More bytes than this waiting stop the worker's pipe.
const FULL: usize = 512 * 1024;
/// More bytes than this waiting are not kept: what comes here past a stopped pipe, such as the shim's own notes, is bounded too.
const DROPPED: usize = 2 * FULL;
/// The longest line that is kept, in bytes, without the names of secrets in it.
pub(crate) const LONGEST: usize = 16 * 1024;
/// Of a line that is more than twice as long, so many bytes are kept of its beginning, and [`LONGEST`] of its end.
const SHOWN: usize = 4 * LONGEST;
/// What stands at the end of a piece that is not the last one of its line.
const CONTINUES: &str = " [continues]";
/// The stream whose long lines come in pieces.
const STDERR: &str = "stderr";
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
    /// What must not be shown.
    secrets: Arc<Secrets>,
    /// The end of a piece of stderr that may be the beginning of a secret.
    held: String,
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
    /// Whether it is still to be said that older lines were removed, and how many records came since it was.
    untold: bool,
    since_told: usize,
}

impl Logs {
    pub(crate) fn new(secrets: Arc<Secrets>) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// A line, or what is left of one whose beginning was taken.
    pub(crate) fn push(&mut self, at: Timestamp, stream: &str, bytes: &[u8], turn: Option<String>) {
        let held = if stream == STDERR { std::mem::take(&mut self.held) } else { String::new() };
        let text = self.legible(held, bytes);
        let (mut rest, left_out) = both_ends(&text);
        let parts = std::iter::from_fn(|| {
            let (part, more) = rest.split_at(rest.floor_char_boundary(LONGEST));
            rest = more;
            (!part.is_empty()).then_some((part, !more.is_empty()))
        });
        // An empty line is one, too.
        let parts = parts.collect::<Vec<_>>();
        if parts.is_empty() && left_out.is_none() {
            self.keep_line(at, stream, String::new(), turn.clone());
        }
        for (part, more) in parts {
            let more = more || left_out.is_some();
            self.keep_line(
                at,
                stream,
                format!("{part}{}", if more { CONTINUES } else { "" }),
                turn.clone(),
            );
        }
        if let Some((bytes, end)) = left_out {
            self.keep_line(at, stream, format!("[{bytes} bytes left out]"), turn.clone());
            self.keep_line(at, stream, end.to_owned(), turn);
        }
    }

    /// A piece of a line of stderr, with more to come. What may be the beginning of a secret waits for that.
    pub(crate) fn push_piece(&mut self, at: Timestamp, bytes: &[u8], turn: Option<String>) {
        let held = std::mem::take(&mut self.held);
        let mut text = self.legible(held, bytes);
        self.held = text.split_off(text.len() - self.secrets.begun(&text));
        text.push_str(CONTINUES);
        self.keep_line(at, STDERR, text, turn);
    }

    /// What is shown of bytes that come after a text.
    fn legible(&self, mut text: String, bytes: &[u8]) -> String {
        text.push_str(&String::from_utf8_lossy(bytes));
        self.secrets.text(text.into()).into_owned()
    }

    fn keep_line(&mut self, at: Timestamp, stream: &str, text: String, turn: Option<String>) {
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
            self.untold = true;
        }
        self.stored_bytes += sizes.iter().sum::<usize>();
        self.since_told += sizes.len();
        self.stored.extend(sizes);
        let excess = self.stored.len().saturating_sub(RECORDS);
        // The line that says so is dropped as well in the end.
        self.untold |= excess > 0 && self.since_told >= RECORDS / 2;
        self.drop_stored(excess);
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
        if std::mem::take(&mut self.untold) {
            self.since_told = 0;
            batch.push(own_line(TRIMMED.to_owned()));
        }
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
            let dropped = count(std::mem::take(&mut self.dropped), "line", "lines");
            batch.push(own_line(format!("dropped {dropped} of the log")));
        }
        self.due = (!self.pending.is_empty()).then(Instant::now);
        Some(batch)
    }

    /// The last lines, oldest first.
    pub(crate) fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}

/// A line of the shim.
fn own_line(text: String) -> LogLine {
    let at = std::time::SystemTime::now().into();
    LogLine { at, stream: "shim".to_owned(), text, message_id: None, incarnation: 0 }
}

/// A text, and where it is far too long for a log: its beginning, how much is left out, and its end.
fn both_ends(text: &str) -> (&str, Option<(usize, &str)>) {
    if text.len() <= 2 * SHOWN {
        return (text, None);
    }
    let begins = &text[..text.floor_char_boundary(SHOWN)];
    let ends = &text[text.ceil_char_boundary(text.len() - LONGEST)..];
    (begins, Some((text.len() - begins.len() - ends.len(), ends)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(logs: &mut Logs) -> Vec<String> {
        std::iter::from_fn(|| {
            let lines = logs.take()?;
            logs.taken(Vec::new(), false);
            Some(lines)
        })
        .flatten()
        .map(|line| line.text)
        .collect()
    }

    #[test]
    fn a_long_line_is_shown_in_pieces_and_its_end_is_never_lost() {
        let mut logs = Logs::default();
        let at = Timestamp::from_millis(0);
        logs.push(at, "stdout", b"", None);
        logs.push(at, "stdout", "\u{e4}".repeat(LONGEST / 2 + 1).as_bytes(), None);
        assert_eq!(
            texts(&mut logs),
            ["".to_owned(), "\u{e4}".repeat(LONGEST / 2) + CONTINUES, "\u{e4}".to_owned()]
        );
        logs.push(at, "stdout", &[&vec![b'x'; 1 << 20][..], b"the end"].concat(), None);
        let lines = texts(&mut logs);
        assert_eq!(lines.len(), SHOWN / LONGEST + 2);
        assert!(lines.last().is_some_and(|line| line.ends_with("the end")));
        let left_out = (1 << 20) + 7 - SHOWN - LONGEST;
        assert_eq!(lines[lines.len() - 2], format!("[{left_out} bytes left out]"));
        assert!(logs.last().last().is_some_and(|line| line.ends_with("the end")));
    }

    #[test]
    fn a_secret_that_is_cut_in_two_is_none_the_less_hidden() {
        let values = [("KEY".into(), "sk-123456".into())];
        let mut logs = Logs::new(Arc::new(Secrets::new(&values.into())));
        let at = Timestamp::from_millis(0);
        logs.push_piece(at, b"it is sk-12", None);
        logs.push(at, "stdout", b"between", None);
        logs.push(at, "stderr", b"3456, sk-", None);
        assert_eq!(
            texts(&mut logs),
            [&format!("it is {CONTINUES}"), "between", "[SECRET KEY], sk-"]
        );
    }

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
    fn a_log_whose_beginning_is_gone_says_so_before_its_next_line() {
        let mut logs = Logs::default();
        let at = Timestamp::from_millis(0);
        logs.taken(vec![KEPT, SLACK, 1], false);
        logs.push(at, "stderr", b"one", None);
        assert_eq!(texts(&mut logs), ["one"], "nothing is removed yet");
        logs.taken(vec![1], true);
        logs.push(at, "stderr", b"two", None);
        assert_eq!(texts(&mut logs), [TRIMMED, "two"]);
        logs.push(at, "stderr", b"three", None);
        assert_eq!(texts(&mut logs), ["three"], "once");
        let mut logs = Logs::default();
        logs.taken(vec![1; RECORDS + 1], false);
        logs.push(at, "stderr", b"one", None);
        assert_eq!(texts(&mut logs), [TRIMMED, "one"]);
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
