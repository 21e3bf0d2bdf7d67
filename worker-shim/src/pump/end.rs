//! The pump's end: draining, the worker's exit, the last words, the exit file.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use common::shim::{EXIT_KEY, Exit, ShimConfig, ShimExit};
use common::worker::ToWorker;
use futures_util::StreamExt as _;
use rustix::process::Signal;

use super::{LAST_WORDS, Pump, Stage};
use crate::{child, memory};

/// What is read of a dead worker's pipes, in reads: more than a pipe holds, and not for ever if others go on writing.
const PIPEFULS: usize = 64;

impl Pump {
    pub(super) fn drain(&mut self, within: Duration) {
        if self.stage != Stage::Running {
            return;
        }
        self.stage = Stage::Draining { until: Instant::now() + within };
        self.stopped = true;
        self.book.stop();
        self.ready_again = None;
        if let Some(inbox) = &mut self.inbox {
            inbox.close();
        }
    }

    pub(super) fn shut_down(&mut self) {
        if matches!(self.stage, Stage::Stopping { .. }) {
            return;
        }
        self.book.stop();
        self.tell(&ToWorker::Shutdown {});
        self.stage = Stage::Stopping { since: Instant::now(), termed: false };
        self.write();
    }

    /// The worker is gone: its last lines, the attempts of its open turns, the log, then the exit file.
    pub(super) async fn end(mut self, mut exit: Exit) -> u8 {
        let at = SystemTime::now().into();
        exit.reason = self.end_reason.take();
        if self.stopped && exit.code == Some(0) {
            // Else an end that somebody asked for would be a worker's that has nothing more to do.
            exit.reason.get_or_insert_with(|| "stopped".to_owned());
        }
        exit.out_of_memory =
            exit.signal == Some(Signal::KILL.as_raw()) && memory::kills() > self.memory_kills;
        self.worker.stdin = None;
        self.outgoing.clear();
        self.drain_pipes();
        let todo = self.book.worker_exited(self.now(), &exit.describe());
        self.perform(todo);
        // Our own children hold no message: they go while the last words are on their way.
        child::sweep(self.worker.pid);
        let deadline = tokio::time::Instant::now() + LAST_WORDS;
        let clean = tokio::time::timeout_at(deadline, self.last_words()).await.is_ok();
        let code = match (exit.code, exit.signal) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 1,
        };
        leave(&self.config, &ShimExit { exit, finished: self.book.finished, clean, at });
        u8::try_from(code & 0xff).unwrap_or(1)
    }

    /// Reads what the worker wrote before it ended. What it left running may hold the pipes open: no waiting for their end.
    pub(super) fn drain_pipes(&mut self) {
        // Past the runtime, which would not read before it has heard that there is something. The pipes do not block.
        for _ in 0..PIPEFULS {
            let space = rustix::buffer::spare_capacity(self.stdout.space());
            match rustix::io::read(&self.worker.stdout, space) {
                Ok(count) if count > 0 => self.take_lines(),
                _ => break,
            }
        }
        for _ in 0..PIPEFULS {
            let space = rustix::buffer::spare_capacity(self.stderr.space());
            match rustix::io::read(&self.worker.stderr, space) {
                Ok(count) if count > 0 => self.take_log_lines(),
                _ => break,
            }
        }
        self.take_rest();
    }

    pub(super) async fn last_words(&mut self) {
        let mut link = self.broker.link();
        self.check_current();
        loop {
            let batches = self.book.take_batches(self.now(), true);
            self.publish_batches(batches);
            self.publish_logs();
            if self.book.is_idle() && self.logs.is_empty() && !self.logs_busy && self.tasks_done() {
                break;
            }
            tokio::select! {
                Some(done) = self.tasks.next() => self.done(done).await,
                Ok(()) = link.changed() => {
                    let now = *link.borrow_and_update();
                    self.link(now);
                    self.check_current();
                }
            }
        }
        // Everything else was confirmed; and a lost ack is a look-up for the next incarnation.
        self.send_acks().await;
        if self.logged
            && let Err(error) = self.broker.flush(Duration::from_secs(1)).await
        {
            tracing::warn!("the last lines of the log may be lost: {error}");
        }
    }

    /// Questions of a worker that is gone need no answer, and look-ups lead to nothing any more; all other tasks count.
    pub(super) fn tasks_done(&self) -> bool {
        self.tasks.len() == self.questions + self.optional
    }
}

/// Leaves the exit for the node: in a file, written aside and renamed, so that it is never half there; in a container as a line
/// of stdout, which the engine keeps.
pub(super) fn leave(config: &ShimConfig, exit: &ShimExit) {
    let written = match &config.exit_file {
        Some(path) => serde_json::to_vec(exit).map_err(std::io::Error::other).and_then(|bytes| {
            let aside = format!("{path}.new");
            std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, path))
        }),
        None => {
            let line = format!("{}\n", serde_json::json!({ EXIT_KEY: exit }));
            std::io::stdout().lock().write_all(line.as_bytes())
        }
    };
    if let Err(error) = written {
        tracing::error!("cannot leave the exit: {error}");
    }
}
