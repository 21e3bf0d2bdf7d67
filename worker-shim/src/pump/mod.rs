//! The shim's one loop: pipes, broker, signals and timers in; the book and the standing decide; pipes and broker out.

mod acks;
mod broker_side;
mod deeds;
mod end;
mod event;
mod histories;
mod patience;
mod pipes;
mod questions;
mod refusals;
mod stage;
mod start;
mod tasks;
mod worker_side;

pub(crate) use self::histories::Unread;
pub(crate) use self::start::run;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Broker, Inbox, Passed};
use common::frame::ShimReport;
use common::shim::{Exit, ShimConfig};
use rustix::process::Signal;

use self::acks::Acks;
use self::event::{Event, Sources};
use self::histories::Histories;
use self::pipes::Pipes;
use self::questions::Questions;
use self::refusals::Refusals;
use self::stage::{Due, Ending};
use self::tasks::Tasks;
use crate::book::{Book, Do};
use crate::child;
use crate::clock::{Clock, boot_ms, boot_us, micros};
use crate::logs::Logs;
use crate::publish;
use crate::secrets::Secrets;
use crate::standing::{Input, Standing};

const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// Another number of open turns is reported after so long, if it still is another one: `ps` shows it. Short turns cost nothing.
const CHANGE_AFTER: Duration = Duration::from_millis(500);
/// A third of the consumer's ack_wait of 30 s.
const KEEP_EVERY: Duration = Duration::from_secs(10);

struct Pump {
    config: ShimConfig,
    secrets: Arc<Secrets>,
    /// How often the kernel had killed for memory here before the worker started.
    memory_kills: u64,
    clock: Clock,
    broker: Broker,
    book: Book,
    standing: Standing,
    pipes: Pipes,
    logs: Logs,
    inbox: Option<Inbox>,
    /// Deliveries of the consumer that came or were looked for, when the next pull begins.
    given: Option<u64>,
    /// What the last pull ended with, until it was looked up.
    passed: Option<Passed>,
    tasks: Tasks,
    acks: Acks,
    questions: Questions,
    histories: Histories,
    /// When turns could last not be counted; none if they can.
    uncounted: Option<Instant>,
    ending: Ending,
    /// Whether there is a connection.
    up: bool,
    /// Whether the worker has said that it takes messages.
    ready: bool,
    heartbeat_at: Instant,
    /// The open turns that the last heartbeat told of, and when another number of them is to be told.
    told: (usize, Option<Instant>),
    keep_at: Instant,
    refusals: Refusals,
    /// What the consumer had beyond the last delivery.
    beyond: u64,
    /// The repeated requests that were told.
    repeated: u64,
}

impl Pump {
    async fn go(mut self, mut from: Sources) -> u8 {
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        // A child that ended before we listened has sent its signal already.
        let mut exit = child::reap(self.pipes.worker.pid);
        while exit.is_none() {
            let wake = self.wake();
            if sleep.deadline().into_std() != wake {
                sleep.as_mut().reset(wake.into());
            }
            let event = self.next(&mut from, sleep.as_mut()).await;
            exit = self.handle(event).await;
            self.flush().await;
        }
        self.end(exit.unwrap_or_default(), from).await
    }

    /// Takes what happened; the worker's end, if it was that.
    async fn handle(&mut self, event: Event) -> Option<Exit> {
        match event {
            Event::StoodStill(us) => {
                tracing::warn!("suspended for {:?}", Duration::from_micros(us));
                // Its turns did not: what they said meanwhile is still to be read.
                self.book.stood_still(us);
                self.stand(Input::StoodStill).await;
            }
            Event::Link(link) => {
                self.up = link.up;
                self.stand(Input::Link(link.up.then_some(link.epoch))).await;
            }
            Event::Child => return child::reap(self.pipes.worker.pid),
            Event::Terminate => self.drain(self.config.spec.timeout.drain).await,
            Event::Command(frame) => self.command(&frame).await,
            Event::Timer => self.tick().await,
            Event::Done(done) => self.done(done).await,
            Event::Item(item) => self.item(item).await,
            Event::Stdout(read) => {
                if self.pipes.stdout_read(&read) {
                    self.take_lines().await;
                } else {
                    // It can answer nothing any more.
                    self.book.stop();
                }
            }
            Event::Stderr(read) => {
                if self.pipes.stderr_read(&read) {
                    self.take_log_lines();
                }
            }
            Event::Writable => self.write(),
            Event::StdinClosed => self.stdin_closed(),
        }
        None
    }

    /// Whether the worker's output waits in its pipe, because what it said before cannot be stored yet: not its fault.
    fn is_deaf(&self) -> bool {
        self.logs.is_full() || self.book.is_congested()
    }

    /// When the standing wants to be told the time.
    fn standing_due(&self) -> Instant {
        let left = self.standing.due_us().saturating_sub(boot_us());
        Instant::now() + Duration::from_micros(left)
    }

    /// When the next timer is due.
    fn wake(&self) -> Instant {
        let book = self.book.next_us().map(|us| self.clock.instant(us));
        let standing = Some(self.standing_due());
        let mute = self.pipes.mute_until(self.book.open() == 0);
        let mute = mute.filter(|_| !self.ending.is_stopping());
        let always = self.heartbeat_at.min(self.keep_at);
        [self.told.1, book, standing, self.logs.due(), self.ending.due_at(), mute, self.acks.due()]
            .into_iter()
            .flatten()
            .fold(always, Ord::min)
    }

    /// The last word of the consumer to a pull.
    fn heard_us(&self) -> u64 {
        let quiet = self.inbox.as_ref().map_or(u64::MAX, |inbox| micros(inbox.quiet()));
        boot_us().saturating_sub(quiet)
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let todo = self.book.tick(self.clock.now(), self.is_deaf());
        self.perform(todo);
        let idle = self.book.open() == 0;
        self.stand(Input::Tick { heard_us: self.heard_us(), idle }).await;
        if self.told.1.is_some_and(|at| at <= now) {
            self.told.1 = None;
            if self.book.open() != self.told.0 {
                self.heartbeat().await;
            }
        }
        if self.heartbeat_at <= now {
            for words in self.refusals.due(boot_ms()) {
                self.note(&words);
            }
            self.heartbeat().await;
        }
        if self.keep_at <= now {
            self.keep_at = now + KEEP_EVERY;
            self.keep().await;
        }
        let mute = self.pipes.mute_until(self.book.open() == 0);
        if !self.ending.is_stopping()
            && mute.is_some_and(|until| until <= now)
            && let Some(end) = self.pipes.unmute()
        {
            let reason = format!("the worker closed its {end}, but did not exit");
            self.perform(vec![Do::EndWorker { reason }]);
        }
        match self.ending.due() {
            Due::Nothing => {}
            Due::DrainedTooLong => {
                self.note("draining took too long: ending the worker with its turns open");
                self.shut_down();
            }
            Due::Term => self.pipes.worker.signal(Signal::TERM),
            Due::Kill => self.pipes.worker.signal(Signal::KILL),
        }
    }

    /// Keeps what is held from being redelivered.
    async fn keep(&mut self) {
        if self.up {
            for reply in self.book.replies() {
                if self.broker.in_progress(reply).await.is_err() {
                    break;
                }
            }
        }
        self.questions.forget(&self.book);
        let abandoned = self.questions.abandoned();
        if !abandoned.is_empty() && self.up {
            self.tasks.look(publish::finished(self.tasks.broker(), abandoned));
        }
    }

    /// After every step: what has become due to go out.
    async fn flush(&mut self) {
        if self.told.1.is_none() && self.book.open() != self.told.0 {
            self.told.1 = Some(Instant::now() + CHANGE_AFTER);
        }
        let batches = self.book.take_batches(self.clock.now(), false);
        self.publish_batches(batches);
        if self.logs.due().is_some_and(|due| due <= Instant::now()) {
            self.publish_logs();
        }
        if self.acks.are_due() {
            self.acks.send(&self.broker).await;
        }
        // What does not fit before a worker that reads slowly is given to it as it reads.
        loop {
            let todo = self.book.make_room(self.clock.now(), self.pipes.room());
            if todo.is_empty() {
                break;
            }
            self.perform(todo);
        }
        if let Some(inbox) = &mut self.inbox {
            // Whom the worker has asked may ask back: that must not wait behind what waits.
            inbox.hold_back(self.book.has_enough() && !self.questions.are_asked());
        }
        if self.ending.is_draining() && self.book.is_idle() {
            // Whoever takes over need not wait for the end of the worker, and of a container around it.
            self.acks.send(&self.broker).await;
            self.report(&ShimReport::Drained).await;
            self.shut_down();
        }
    }

    fn publish_batches(&mut self, batches: Vec<crate::book::Batch>) {
        for batch in batches {
            let events = broker::EventBatch {
                agent: self.config.spec.name.clone(),
                sender: batch.sender,
                message_id: batch.message_id,
                conversation_id: batch.conversation_id,
                incarnation: self.config.incarnation,
                attempt: batch.attempt,
                events: batch.events,
            };
            let (broker, gate) = (self.tasks.broker(), self.tasks.gate());
            self.tasks.start(publish::events(broker, gate, batch.seq, events));
        }
    }

    fn publish_logs(&mut self) {
        let Some(lines) = self.logs.take() else { return };
        let (agent, incarnation) = (self.config.spec.name.clone(), self.config.incarnation);
        let keep = self.logs.keep();
        self.tasks.start(publish::logs(self.tasks.broker(), agent, incarnation, lines, keep));
    }
}
