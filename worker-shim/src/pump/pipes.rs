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
/// A worker that has closed a pipe of the protocol can do nothing any more: it is ended, unless it ends by itself within this.
const MUTE: Duration = Duration::from_secs(5);

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
    /// When the worker closed its stdin or stdout.
    mute_since: Option<Instant>,
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
            mute_since: None,
            last_line: Instant::now(),
        }
    }

    /// The ends to read, and stdin while something waits for it.
    pub(super) fn parts(&mut self) -> (In<'_>, In<'_>, Option<&pipe::Sender>) {
        let stdin = self.worker.stdin.as_ref().filter(|_| !self.outgoing.is_empty());
        (
            (&mut self.worker.stdout, &mut self.stdout),
            (&mut self.worker.stderr, &mut self.stderr),
            stdin,
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
        if self.worker.stdin.is_none() {
            return Written::All;
        }
        match serde_json::to_vec(line) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                self.outgoing.extend(bytes);
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
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Written::Some,
                // It closed its stdin: its end, or its silence, decides.
                Err(_) => {
                    self.close();
                    self.mute_since.get_or_insert_with(Instant::now);
                    return Written::Closed;
                }
            }
        }
        if self.outgoing.capacity() > KEPT {
            self.outgoing.shrink_to(KEPT);
        }
        Written::All
    }

    /// Closes the worker's stdin; what it has not read is gone.
    pub(super) fn close(&mut self) {
        self.outgoing.clear();
        self.worker.stdin = None;
    }

    /// Whether bytes came; else that end is closed.
    pub(super) fn stdout_read(&mut self, read: &std::io::Result<usize>) -> bool {
        let came = matches!(read, Ok(1..));
        if !came {
            self.stdout_open = false;
            self.mute_since.get_or_insert_with(Instant::now);
        }
        came
    }

    /// The same for stderr.
    pub(super) fn stderr_read(&mut self, read: &std::io::Result<usize>) -> bool {
        self.stderr_open = matches!(read, Ok(1..));
        self.stderr_open
    }

    /// When a worker that closed a pipe is ended.
    pub(super) fn mute_until(&self) -> Option<Instant> {
        self.mute_since.map(|since| since + MUTE)
    }

    /// It is ended now: once.
    pub(super) fn unmute(&mut self) {
        self.mute_since = None;
    }
}
