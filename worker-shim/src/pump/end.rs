//! The pump's end: draining, the worker's exit, the last records, the exit file.

use std::io::Write as _;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use common::figures::Figures;
use common::shim::{EXIT_KEY, Exit, ShimConfig, ShimExit};
use common::worker::ToWorker;
use rustix::process::Signal;

use super::Pump;
use super::event::{Event, Sources};
use super::patience::Patience;
use crate::standing::Input;
use crate::{cause, child, memory};

/// How long the broker may take to answer, where it matters whether it does.
const ANSWERS: Duration = Duration::from_secs(1);
/// What is read of a dead worker's pipes, in reads: more than a pipe holds, and not forever if others go on writing.
const PIPEFULS: usize = 64;

impl Pump {
    /// Takes no more messages, and ends once the open turns have.
    pub(super) async fn drain(&mut self, within: Duration) {
        if !self.ending.is_running() {
            return;
        }
        self.ending.drain(within);
        self.book.stop();
        if let Some(inbox) = &mut self.inbox {
            inbox.close();
        }
        self.stand(Input::Stop).await;
    }

    /// Tells the worker to exit.
    pub(super) fn shut_down(&mut self) {
        if self.ending.is_stopping() {
            return;
        }
        self.book.stop();
        self.ending.shut_down();
        self.tell(&ToWorker::Shutdown {});
    }

    /// The worker is gone: its last lines, the attempts of its open turns, the log, then the exit file.
    pub(super) async fn end(mut self, mut exit: Exit, from: Sources) -> u8 {
        let at = SystemTime::now().into();
        exit.reason = self.ending.reason.take();
        if self.ending.asked && exit.code == Some(0) {
            // Else an end that somebody asked for would be a worker's that has nothing more to do.
            exit.reason.get_or_insert_with(|| Exit::STOPPED.to_owned());
        }
        exit.out_of_memory =
            exit.signal == Some(Signal::KILL.as_raw()) && memory::kills() > self.memory_kills;
        if !self.ready && matches!(exit.code, Some(126 | 127)) {
            exit.reason = exit.reason.or_else(|| self.shells_cause());
        }
        self.drain_pipes();
        self.close_stdin();
        self.stand(Input::Stop).await;
        let todo = self.book.worker_exited(self.clock.now(), &exit.describe());
        self.perform(todo);
        // Our own children hold no message: they go while the last words are on their way.
        child::sweep(self.pipes.worker.pid);
        let clean = self.last_words(from).await;
        let code = match (exit.code, exit.signal) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 1,
        };
        leave(&self.config, &ShimExit { exit, finished: self.book.finished, clean, at });
        u8::try_from(code & 0xff).unwrap_or(1)
    }

    /// What is wrong with the program that a shell could not start.
    fn shells_cause(&self) -> Option<String> {
        let [shell, _, line] = self.config.spec.worker.as_deref()? else { return None };
        let program = cause::first_word(line).filter(|_| shell == "/bin/sh")?;
        cause::of(program, &super::start::path(&self.config))
    }

    /// Reads what the worker wrote before it ended. What it left running may hold the pipes open: no waiting for their end.
    fn drain_pipes(&mut self) {
        // Past the runtime, which would not read before it has heard that there is something. The pipes do not block.
        for _ in 0..PIPEFULS {
            let space = rustix::buffer::spare_capacity(self.pipes.stdout.space());
            match rustix::io::read(&self.pipes.worker.stdout, space) {
                Ok(count) if count > 0 => {
                    // A worker that is gone is ready for nothing.
                    let _ready = self.read_lines();
                }
                _ => break,
            }
        }
        for _ in 0..PIPEFULS {
            let space = rustix::buffer::spare_capacity(self.pipes.stderr.space());
            match rustix::io::read(&self.pipes.worker.stderr, space) {
                Ok(count) if count > 0 => self.take_log_lines(),
                _ => break,
            }
        }
        self.take_rest();
    }

    /// Whether all that is left to say was stored. The pipes are closed and questions need no answer any more, so nothing but the broker
    /// and the clock has anything to say any more.
    async fn last_words(&mut self, mut from: Sources) -> bool {
        let mut patience = Patience::begin(Instant::now(), self.ending.asked);
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        self.pipes.stdout_open = false;
        self.pipes.stderr_open = false;
        loop {
            let batches = self.book.take_batches(self.clock.now(), true);
            self.publish_batches(batches);
            self.publish_logs();
            if self.book.is_idle() && self.logs.are_stored() && self.tasks.needed() == 0 {
                break;
            }
            if patience.due() <= Instant::now() {
                let is_there = patience.asks() && self.broker.takes_attempts(ANSWERS).await;
                if patience.ends(Instant::now(), is_there) {
                    return false;
                }
            }
            // Nothing else has a time any more.
            sleep.as_mut().reset(self.standing_due().min(patience.due()).into());
            let event = self.next(&mut from, sleep.as_mut()).await;
            match event {
                Event::Link(_) | Event::Done(_) | Event::StoodStill(_) | Event::Item(_) => {
                    let _exit = self.handle(event).await;
                }
                Event::Timer => {
                    let heard_us = self.heard_us();
                    self.stand(Input::Tick { heard_us, idle: false }).await;
                }
                Event::Terminate => patience.told(Instant::now()),
                Event::Child
                | Event::Command(_)
                | Event::Stdout(_)
                | Event::Stderr(_)
                | Event::Writable
                | Event::StdinClosed => {}
            }
        }
        // Everything else was confirmed; and a lost ack is a look-up for the next incarnation.
        self.acks.send(&self.broker).await;
        let has_figures = self.book.figures != Figures::default();
        if has_figures {
            self.heartbeat().await;
        }
        if (self.logs.were_sent() || has_figures)
            && let Err(error) = self.broker.flush(Duration::from_secs(1)).await
        {
            tracing::warn!("the last log lines and figures may be lost: {error}");
        }
        true
    }
}

/// Leaves the exit for the node: in a file, written aside and renamed, so that it is never half there, or on a full disk over what the node
/// has set aside for it; in a container as a line of stdout, which the engine keeps.
pub(super) fn leave(config: &ShimConfig, exit: &ShimExit) {
    let written = match &config.exit_file {
        Some(path) => serde_json::to_vec(exit).map_err(std::io::Error::other).and_then(|bytes| {
            let aside = format!("{path}.new");
            let whole = std::fs::write(&aside, &bytes);
            whole.and_then(|()| std::fs::rename(&aside, path)).or_else(|error| {
                // Nobody reads it.
                let _gone = std::fs::remove_file(&aside);
                over(path, bytes).map_err(|_| error)
            })
        }),
        None => {
            let line = format!("{}\n", serde_json::json!({ EXIT_KEY: exit }));
            std::io::stdout().lock().write_all(line.as_bytes())
        }
    };
    if let Err(error) = written {
        tracing::error!("cannot write the exit record: {error}");
    }
}

/// Writes over a file that is large enough for it, and takes no more space by that; the rest of it is blanks.
fn over(path: &str, mut bytes: Vec<u8>) -> std::io::Result<()> {
    let mut file = std::fs::File::options().write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if bytes.len() > length {
        return Err(std::io::ErrorKind::StorageFull.into());
    }
    bytes.resize(length, b' ');
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_written_over_what_was_set_aside_and_over_nothing_smaller() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let path = temp.path().join("exit.json");
        let path = path.to_str().expect("text");
        assert!(over(path, b"{}".to_vec()).is_err(), "nothing was set aside");
        std::fs::write(path, " ".repeat(8)).expect("written");
        over(path, br#"{"a":1}"#.to_vec()).expect("it fits");
        assert_eq!(std::fs::read(path).expect("there"), br#"{"a":1} "#);
        assert!(over(path, vec![b'x'; 9]).is_err());
        assert_eq!(std::fs::read(path).expect("there"), br#"{"a":1} "#);
    }
}
