//! The pump's worker side: lines in and out of the pipes.

use std::time::{Instant, SystemTime};

use common::worker::{self, FromWorker, NotProtocol, ToWorker};

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
            // It was told to exit, and has read that.
            Written::All if self.ending.is_stopping() => self.pipes.close(),
            Written::All | Written::Some => {}
            // Whatever else is begun would reach nobody and cost an attempt.
            Written::Closed => self.book.stop(),
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
                    let turn = self.book.only_open().map(ToString::to_string);
                    let note = b"a line longer than 1 MiB was cut; it began:";
                    self.logs.push(now.at, "shim", note, turn.clone());
                    let line = self.secrets.hide(line);
                    self.logs.push(now.at, "stdout", &line[..line.len().min(200)], turn);
                }
            }
        }
        self.pipes.stdout = lines;
        ready
    }

    fn take_line(&mut self, now: Now, line: &[u8]) -> bool {
        let error = match worker::parse(line) {
            Ok(FromWorker::Ready) => return true,
            Ok(line) => {
                let todo = self.book.line(now, self.secrets.hide_in(line));
                self.perform(todo);
                return false;
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
        false
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
            self.logs.push(now.at, "stderr", &self.secrets.hide(line), None);
        }
    }

    pub(super) fn take_log_lines(&mut self) {
        let at = SystemTime::now().into();
        while let Some(line) = self.pipes.stderr.next() {
            let (Line::Whole(line) | Line::Cut(line)) = line;
            let turn = self.book.only_open().map(ToString::to_string);
            self.logs.push(at, "stderr", &self.secrets.hide(line), turn);
        }
    }
}
