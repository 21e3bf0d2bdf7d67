//! The worker and its pipes: lines out, lines in, and the state of either end.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use common::worker::{MAX_LINE, ToWorker};
use tokio::net::unix::pipe;

use crate::child::Worker;
use crate::lines::Lines;

/// What is kept of the buffer for lines to the worker, once they are written.
const KEPT: usize = 64 * 1024;
/// While more than this waits for a worker that does not read, in bytes, it is not listened to and starts no turn: each of its
/// lines may be answered with one.
const BACKED_UP: usize = 64 * 1024;
/// A longer line of its stderr is shown in pieces, in bytes.
const LOG_LINE: usize = crate::logs::LONGEST;
/// A worker that has closed a pipe of the protocol can do nothing any more: it is ended, unless it ends by itself within this,
const MUTE: Duration = Duration::from_secs(5);
/// or within this where it has nothing to finish.
const MUTE_IDLE: Duration = Duration::from_secs(1);
/// What a pipe holds, in bytes: what was written before that was read.
const HOLDS: u64 = 64 * 1024;

/// The worker with its pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) worker: Worker,
    pub(super) stdout: Lines,
    pub(super) stderr: Lines,
    pub(super) stdout_open: bool,
    pub(super) stderr_open: bool,
    /// Lines that the worker has not read yet.
    outgoing: VecDeque<u8>,
    /// How many bytes were put before it, and how many of them were written to its pipe.
    told: u64,
    written: u64,
    /// Where the lines end that give it a turn, and the ids of their messages: those that it may not have read.
    turns: VecDeque<(u64, String)>,
    /// When the worker closed its stdin or stdout, and which.
    mute_since: Option<(Instant, &'static str)>,
    pub(super) last_line: Instant,
}

/// A pipe to read, and where to.
type In<'a> = (&'a mut pipe::Receiver, &'a mut Lines);

/// What came of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it.
    All,
    /// As much as the pipe takes.
    Some,
    /// The worker has closed its stdin.
    Closed,
}

impl Pipes {
    pub(super) fn new(worker: Worker) -> Self {
        Self {
            worker,
            stdout: Lines::protocol(MAX_LINE),
            stderr: Lines::log(LOG_LINE),
            stdout_open: true,
            stderr_open: true,
            outgoing: VecDeque::new(),
            told: 0,
            written: 0,
            turns: VecDeque::new(),
            mute_since: None,
            last_line: Instant::now(),
        }
    }

    /// The ends to read, stdin, and stdin while something waits for it.
    pub(super) fn parts(&mut self) -> (In<'_>, In<'_>, [Option<&pipe::Sender>; 2]) {
        let stdin = self.worker.stdin.as_ref();
        (
            (&mut self.worker.stdout, &mut self.stdout),
            (&mut self.worker.stderr, &mut self.stderr),
            [stdin, stdin.filter(|_| !self.outgoing.is_empty())],
        )
    }

    /// Whether the worker leaves its stdin unread.
    pub(super) fn is_backed_up(&self) -> bool {
        self.room() == 0
    }

    /// How much more may be put before it, in bytes.
    pub(super) fn room(&self) -> usize {
        BACKED_UP.saturating_sub(self.outgoing.len())
    }

    /// Puts a line before the worker.
    pub(super) fn tell(&mut self, line: &ToWorker) -> Written {
        let turn = match line {
            ToWorker::Chat { message_id, .. } | ToWorker::Route { message_id, .. } => {
                Some(message_id.clone())
            }
            ToWorker::Init { .. }
            | ToWorker::RouteResponse { .. }
            | ToWorker::StepStored { .. }
            | ToWorker::Answer { .. }
            | ToWorker::HistoryResponse { .. }
            | ToWorker::Cancel { .. }
            | ToWorker::Shutdown {} => None,
        };
        if self.worker.stdin.is_none() {
            // A turn that was begun along with the one that met the closed end.
            let Some(id) = turn else { return Written::All };
            self.turns.push_back((u64::MAX, id));
            return Written::Closed;
        }
        match serde_json::to_vec(line) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                self.told += bytes.len() as u64;
                self.outgoing.extend(bytes);
                self.turns.extend(turn.map(|id| (self.told, id)));
            }
            Err(error) => tracing::error!("cannot encode a line for the worker: {error}"),
        }
        self.write()
    }

    /// Writes what fits into the pipe.
    pub(super) fn write(&mut self) -> Written {
        let Some(stdin) = &self.worker.stdin else {
            return Written::All;
        };
        while !self.outgoing.is_empty() {
            match stdin.try_write(self.outgoing.as_slices().0) {
                Ok(count) => {
                    self.outgoing.drain(..count);
                    self.written += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Written::Some,
                // It closed its stdin: its end, or its silence, decides.
                Err(_) => {
                    self.mute("stdin");
                    return Written::Closed;
                }
            }
        }
        while self.turns.front().is_some_and(|(end, _)| end + HOLDS <= self.written) {
            self.turns.pop_front();
        }
        if self.outgoing.capacity() > KEPT {
            self.outgoing.shrink_to(KEPT);
        }
        Written::All
    }

    /// The worker has closed one of its ends.
    pub(super) fn mute(&mut self, end: &'static str) {
        self.mute_since.get_or_insert_with(|| (Instant::now(), end));
    }

    /// Closes the worker's stdin; what it has not read is gone. Yields the messages of the turns among that.
    pub(super) fn close(&mut self) -> Vec<String> {
        let unread = self.worker.stdin.take().map(|stdin| {
            // Also what is in the pipe, of which the worker will read nothing any more.
            rustix::io::ioctl_fionread(&stdin).unwrap_or(0)
        });
        self.outgoing.clear();
        let read = self.written.saturating_sub(unread.unwrap_or(0));
        self.turns.drain(..).filter(|(end, _)| *end > read).map(|(_, id)| id).collect()
    }

    /// Whether bytes came; else that end is closed.
    pub(super) fn stdout_read(&mut self, read: &std::io::Result<usize>) -> bool {
        let came = matches!(read, Ok(1..));
        if !came {
            self.stdout_open = false;
            self.mute("stdout");
        }
        came
    }

    /// The same for stderr.
    pub(super) fn stderr_read(&mut self, read: &std::io::Result<usize>) -> bool {
        self.stderr_open = matches!(read, Ok(1..));
        self.stderr_open
    }

    /// When a worker that closed a pipe is ended. `idle`: no turn is open.
    pub(super) fn mute_until(&self, idle: bool) -> Option<Instant> {
        self.mute_since.map(|(since, _)| since + if idle { MUTE_IDLE } else { MUTE })
    }

    /// It is ended now: once. Yields the end that it closed.
    pub(super) fn unmute(&mut self) -> Option<&'static str> {
        self.mute_since.take().map(|(_, end)| end)
    }
}
