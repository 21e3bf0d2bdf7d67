//! The pump's worker side: lines in and out of the pipes.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use common::worker::{self, Damage, FromWorker, NotProtocol, ToWorker};

use super::Pump;
use super::pipes::Written;
use crate::book::Now;
use crate::lines::Line;
use crate::standing::Input;

impl Pump {
    pub(super) fn tell(&mut self, line: &ToWorker) {
        let written = self.pipes.tell(line);
        self.written(written);
    }

    pub(super) fn write(&mut self) {
        let written = self.pipes.write();
        self.written(written);
    }

    fn written(&mut self, written: Written) {
        match written {
            // It was told to exit, and may still read that and what came before.
            Written::All if self.ending.is_stopping() => drop(self.pipes.close()),
            Written::All | Written::Some => {}
            Written::Closed => self.stdin_closed(),
        }
    }

    /// The worker reads nothing any more: whatever else is begun would reach nobody and cost an attempt.
    pub(super) fn stdin_closed(&mut self) {
        self.pipes.mute("stdin");
        self.book.stop();
        self.close_stdin();
    }

    /// Closes the worker's stdin. The turns that it has not read were never with it.
    pub(super) fn close_stdin(&mut self) {
        for id in self.pipes.close() {
            self.book.not_given(&id);
        }
    }

    pub(super) async fn take_lines(&mut self) {
        if self.read_lines() && !self.ready {
            self.ready = true;
            self.stand(Input::WorkerReady).await;
        }
    }

    /// Takes the lines that have come; whether the worker says that it is ready.
    pub(super) fn read_lines(&mut self) -> bool {
        self.pipes.last_line = Instant::now();
        let now = self.clock.now();
        let mut ready = false;
        // Out of the pump while its lines are read: they go to the rest of it.
        let mut lines = std::mem::take(&mut self.pipes.stdout);
        while let Some(line) = lines.next() {
            match line {
                Line::Whole(line) => ready |= self.take_line(now, line),
                Line::Cut(line) => {
                    self.note("a line longer than 8 MiB was cut; it began:");
                    self.log("stdout", &line[..line.len().min(200)]);
                    if let NotProtocol::Damaged(damage) = worker::too_long(line) {
                        self.damaged(now, &damage, line, false);
                    }
                }
            }
        }
        self.pipes.stdout = lines;
        ready
    }

    fn take_line(&mut self, now: Now, line: &[u8]) -> bool {
        let secrets = Arc::clone(&self.secrets);
        let (mut ready, mut taken) = (false, true);
        worker::read(line, &mut |said| match said {
            Ok(FromWorker::Ready) => ready = true,
            Ok(said) => {
                // Whoever asks why it is not ready is shown the line itself.
                taken &= self.ready || !matches!(said, FromWorker::Unknown { .. });
                let todo = self.book.line(now, secrets.hide_in(said));
                self.perform(todo);
            }
            Err(NotProtocol::Log) => taken = false,
            Err(NotProtocol::Damaged(damage)) => {
                taken = false;
                self.damaged(now, &damage, line, true);
            }
        });
        if !taken && !line.is_empty() {
            self.log("stdout", line);
        }
        ready
    }

    /// A line was meant as protocol and cannot be taken. `again`: another attempt may help.
    fn damaged(&mut self, now: Now, damage: &Damage, line: &[u8], again: bool) {
        let begins = self.beginning(line);
        let error =
            format!("the worker's output is damaged: {}; the line begins: {begins}", damage.why);
        // The parser quotes what it did not expect.
        let error = self.secrets.text(error.into());
        let todo = self.book.damaged(now, damage, &error, again);
        self.perform(todo);
    }

    /// The beginning of a line, to be quoted.
    fn beginning(&self, line: &[u8]) -> String {
        /// In characters.
        const QUOTED: usize = 120;
        /// In bytes: a value that begins in what is quoted is found.
        const SEARCHED: usize = 16 * 1024;
        let line = String::from_utf8_lossy(&line[..line.len().min(SEARCHED)]);
        let line = self.secrets.text(line);
        let mut quoted: String = line.chars().take(QUOTED).flat_map(legible).collect();
        if line.chars().nth(QUOTED).is_some() {
            quoted.push('…');
        }
        quoted
    }

    /// What the worker wrote after its last newline, once it is gone.
    pub(super) fn take_rest(&mut self) {
        let now = self.clock.now();
        let (mut stdout, mut stderr) =
            (std::mem::take(&mut self.pipes.stdout), std::mem::take(&mut self.pipes.stderr));
        if let Some(Line::Whole(line)) = stdout.rest() {
            self.take_line(now, line);
        }
        if let Some(Line::Whole(line)) = stderr.rest() {
            self.logs.push(now.at, "stderr", line, None);
        }
    }

    pub(super) fn take_log_lines(&mut self) {
        let at = SystemTime::now().into();
        while let Some(line) = self.pipes.stderr.next() {
            let turn = self.book.only_open().map(ToString::to_string);
            match line {
                Line::Whole(line) => self.logs.push(at, "stderr", line, turn),
                Line::Cut(piece) => self.logs.push_piece(at, piece, turn),
            }
        }
    }
}

/// A character as it is quoted within a line: no control characters.
fn legible(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}
