//! The pump's worker side: lines in and out of the pipes.

use std::io::{self, ErrorKind};
use std::time::{Instant, SystemTime};

use common::worker::{self, FromWorker, NotProtocol, ToWorker};

use super::{Pump, Stage};
use crate::book::Now;
use crate::lines::Line;

/// What is kept of the buffer for lines to the worker, once they are written.
const KEPT: usize = 64 * 1024;

impl Pump {
    pub(super) fn tell(&mut self, line: &ToWorker) {
        if self.worker.stdin.is_none() {
            return;
        }
        match serde_json::to_vec(line) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                self.outgoing.extend(bytes);
                self.write();
            }
            Err(error) => tracing::error!("a line for the worker: {error}"),
        }
    }

    pub(super) fn write(&mut self) {
        let Some(stdin) = &self.worker.stdin else {
            return;
        };
        while !self.outgoing.is_empty() {
            match stdin.try_write(self.outgoing.as_slices().0) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It closed its stdin: its end, or its silence, decides.
                Err(_) => {
                    self.outgoing.clear();
                    self.worker.stdin = None;
                    // Whatever else is begun would reach nobody and cost an attempt.
                    self.book.stop();
                    self.mute_since.get_or_insert_with(Instant::now);
                    return;
                }
            }
        }
        if self.outgoing.capacity() > KEPT {
            self.outgoing.shrink_to(KEPT);
        }
        if matches!(self.stage, Stage::Stopping { .. }) {
            self.worker.stdin = None;
        }
    }

    pub(super) fn read_stdout(&mut self, read: &io::Result<usize>) {
        match read {
            Ok(count) if *count > 0 => self.take_lines(),
            Ok(_) | Err(_) => {
                self.stdout_open = false;
                self.mute_since.get_or_insert_with(Instant::now);
            }
        }
    }

    pub(super) fn take_lines(&mut self) {
        self.last_line = Instant::now();
        let now = self.now();
        // Out of the pump while its lines are read: they go to the rest of it.
        let mut lines = std::mem::take(&mut self.stdout);
        while let Some(line) = lines.next() {
            match line {
                Line::Whole(line) => self.take_line(now, line),
                Line::Cut(line) => {
                    let turn = self.book.only_open().map(ToString::to_string);
                    let note = b"a line longer than 1 MiB was cut; it began:";
                    self.logs.push(now.at, "shim", note, turn.clone());
                    let line = self.secrets.hide(line);
                    self.logs.push(now.at, "stdout", &line[..line.len().min(200)], turn);
                }
            }
        }
        self.stdout = lines;
    }

    fn take_line(&mut self, now: Now, line: &[u8]) {
        let error = match worker::parse(line) {
            Ok(FromWorker::Ready) => {
                if !self.ready {
                    self.ready = true;
                    self.ready_again = Some(Instant::now());
                }
                return;
            }
            Ok(line) => {
                let todo = self.book.line(now, self.secrets.hide_in(line));
                return self.perform(todo);
            }
            Err(error) => error,
        };
        let turn = self.book.only_open().map(ToString::to_string);
        match error {
            NotProtocol::Missing { .. } | NotProtocol::TooDeep => {
                self.logs.push(now.at, "shim", error.to_string().as_bytes(), turn.clone());
            }
            NotProtocol::NotJson => {}
        }
        if !line.is_empty() {
            self.logs.push(now.at, "stdout", &self.secrets.hide(line), turn);
        }
    }

    /// What the worker wrote after its last newline, once it is gone.
    pub(super) fn take_rest(&mut self) {
        let now = self.now();
        let (mut stdout, mut stderr) =
            (std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr));
        if let Some(Line::Whole(line)) = stdout.rest() {
            self.take_line(now, line);
        }
        if let Some(Line::Whole(line)) = stderr.rest() {
            self.logs.push(now.at, "stderr", &self.secrets.hide(line), None);
        }
    }

    pub(super) fn read_stderr(&mut self, read: &io::Result<usize>) {
        match read {
            Ok(count) if *count > 0 => self.take_log_lines(),
            Ok(_) | Err(_) => self.stderr_open = false,
        }
    }

    pub(super) fn take_log_lines(&mut self) {
        let at = SystemTime::now().into();
        while let Some(line) = self.stderr.next() {
            let (Line::Whole(line) | Line::Cut(line)) = line;
            let turn = self.book.only_open().map(ToString::to_string);
            self.logs.push(at, "stderr", &self.secrets.hide(line), turn);
        }
    }
}
