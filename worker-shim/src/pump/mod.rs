//! The shim's one loop: pipes, broker, signals and timers in; the book decides; pipes and broker out.

mod broker_side;
mod deeds;
mod end;
mod start;
mod worker_side;

pub(crate) use self::start::run;

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, Inbox, InboxItem, Link, Subscription};
use common::AgentName;
use common::shim::{ShimConfig, ShimReport};
use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, BoxFuture};
use futures_util::stream::FuturesUnordered;
use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use crate::book::{Book, Do, Now};
use crate::child::{self, Worker};
use crate::lines::Lines;
use crate::logs::Logs;
use crate::publish::{self, Done};
use crate::secrets::Secrets;

/// Requests on their way or held, at most: enough that a pull is rare, few enough to hold in memory.
pub(crate) const WINDOW: u32 = 64;
/// The supervisor repeats `Begin` for every `Ready`, and the shim `Ready` until then.
const READY_EVERY: Duration = Duration::from_millis(250);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// A third of the consumer's ack_wait of 30 s.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// Acks wait this long for a final state to ride with.
const ACK_WITHIN: Duration = Duration::from_millis(20);
/// An idle worker that was told to shut down gets SIGTERM after this time,
const TERM_AFTER: Duration = Duration::from_millis(100);
/// and SIGKILL after this.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// A worker that has closed a pipe of the protocol can do nothing any more: it is ended, unless it ends by itself within this.
const MUTE: Duration = Duration::from_secs(5);
/// How long the last words may take once the worker is gone.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// A worker's questions that wait for an answer, at most.
const QUESTIONS: usize = 256;

type Task = BoxFuture<'static, Done>;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// No new turns; the open ones may finish until then.
    Draining {
        until: Instant,
    },
    /// The worker was told to exit.
    Stopping {
        since: Instant,
        termed: bool,
    },
}

struct Pump {
    config: ShimConfig,
    secrets: Secrets,
    /// How often the kernel had killed for memory here before the worker started.
    memory_kills: u64,
    started: Instant,
    broker: Broker,
    book: Book,
    worker: Worker,
    stdout: Lines,
    stderr: Lines,
    stdout_open: bool,
    stderr_open: bool,
    outgoing: VecDeque<u8>,
    logs: Logs,
    logs_busy: bool,
    /// Whether lines of the log have gone out: nobody confirms them.
    logged: bool,
    /// When the worker closed its stdin or stdout.
    mute_since: Option<Instant>,
    link: Link,
    inbox: Option<Inbox>,
    /// Whether there is a consumer to pull from, as far as is known: it outlives a connection, and the inbox does not.
    consumer: bool,
    /// Requests up to this one may have been given out to another incarnation.
    horizon: u64,
    ready: bool,
    begun: bool,
    /// Whether that was said while it was not known what the last connection had lost.
    told_to_begin: bool,
    ready_again: Option<Instant>,
    /// Open while this incarnation is known to be the current one.
    gate: watch::Sender<bool>,
    tasks: FuturesUnordered<Task>,
    /// Tasks that nobody waits for at the end: look-ups, and whether this incarnation is the current one.
    optional: usize,
    /// Whether the latter is under way.
    checking: bool,
    acks: Vec<String>,
    acks_due: Option<Instant>,
    heartbeat_at: Instant,
    keep_at: Instant,
    last_line: Instant,
    questions: usize,
    /// The questions of turns, by their messages' sequences and attempts.
    asking: Vec<(u64, u32, AbortHandle)>,
    /// Agents that answered a question, and when they last did; at most [`QUESTIONS`].
    answered: HashMap<AgentName, Instant>,
    refused: u64,
    stage: Stage,
    end_reason: Option<String>,
    /// Whether it was told to drain.
    stopped: bool,
}

impl Pump {
    fn now(&self) -> Now {
        let us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now { us, at: SystemTime::now().into() }
    }

    async fn go(mut self, mut signals: start::Signalled, mut commands: Subscription) -> u8 {
        let mut link = self.broker.link();
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        // A child that ended before we listened has sent its signal already.
        let mut exit = child::reap(self.worker.pid);
        while exit.is_none() {
            let wake = self.wake();
            if sleep.deadline().into_std() != wake {
                sleep.as_mut().reset(wake.into());
            }
            let reading = self.stdout_open && !self.is_deaf();
            let logging = self.stderr_open && !self.logs.is_full();
            let writing = self.worker.stdin.as_ref().filter(|_| !self.outgoing.is_empty());
            tokio::select! {
                _ = signals.child.recv() => exit = child::reap(self.worker.pid),
                _ = signals.term.recv() => self.drain(self.config.spec.timeout.drain),
                _ = signals.int.recv() => self.drain(self.config.spec.timeout.drain),
                // Read as a stream: a read that leaves room means an empty pipe, and is not tried once more.
                read = self.worker.stdout.read_buf(self.stdout.space()), if reading => self.read_stdout(&read),
                read = self.worker.stderr.read_buf(self.stderr.space()), if logging => self.read_stderr(&read),
                Some(_) = writable(writing) => self.write(),
                item = next_item(&mut self.inbox) => self.item(item).await,
                Some(done) = self.tasks.next(), if !self.tasks.is_empty() => self.done(done).await,
                Some(message) = commands.next() => self.command(&message.payload).await,
                Ok(()) = link.changed() => {
                    let now = *link.borrow_and_update();
                    self.link(now);
                }
                () = &mut sleep => self.tick().await,
            }
            self.flush().await;
        }
        self.end(exit.unwrap_or_default()).await
    }

    /// Whether the worker's output waits in its pipe, because what it said before cannot be stored yet.
    fn is_deaf(&self) -> bool {
        self.logs.is_full() || self.book.is_congested()
    }

    /// When the next timer is due.
    fn wake(&self) -> Instant {
        let book =
            self.book.next_us().map(|us| self.started + Duration::from_micros(us.min(1 << 50)));
        let logs = self.logs.due().filter(|_| !self.logs_busy);
        let stage = match self.stage {
            Stage::Running => None,
            Stage::Draining { until } => Some(until),
            Stage::Stopping { since, termed } => {
                Some(since + if termed { KILL_AFTER } else { TERM_AFTER })
            }
        };
        let mute = match self.stage {
            Stage::Stopping { .. } => None,
            Stage::Running | Stage::Draining { .. } => self.mute_since.map(|since| since + MUTE),
        };
        let always = self.heartbeat_at.min(self.keep_at);
        [book, logs, stage, mute, self.ready_again, self.acks_due]
            .into_iter()
            .flatten()
            .fold(always, Ord::min)
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let todo = self.book.tick(self.now(), self.is_deaf());
        self.perform(todo);
        if self.ready_again.is_some_and(|at| at <= now) {
            self.report_ready().await;
        }
        if self.heartbeat_at <= now {
            self.heartbeat().await;
        }
        if self.keep_at <= now {
            self.keep_at = now + KEEP_EVERY;
            self.keep().await;
        }
        if self.mute_since.is_some_and(|since| since + MUTE <= now)
            && !matches!(self.stage, Stage::Stopping { .. })
        {
            self.mute_since = None;
            let reason = "the worker closed its stdin or stdout and stayed".to_owned();
            self.perform(vec![Do::EndWorker { reason }]);
        }
        match self.stage {
            Stage::Draining { until } if until <= now => {
                self.note("draining took too long: ending the worker with its turns open");
                self.shut_down();
            }
            Stage::Stopping { since, termed: false } if since + TERM_AFTER <= now => {
                self.worker.signal(Signal::TERM);
                self.stage = Stage::Stopping { since, termed: true };
            }
            Stage::Stopping { since, termed: true } if since + KILL_AFTER <= now => {
                self.worker.signal(Signal::KILL);
                self.stage = Stage::Stopping { since: now, termed: true };
            }
            Stage::Running | Stage::Draining { .. } | Stage::Stopping { .. } => {}
        }
    }

    /// Keeps what is held from being redelivered.
    async fn keep(&mut self) {
        if self.link.up {
            for reply in self.book.replies() {
                if self.broker.in_progress(reply).await.is_err() {
                    break;
                }
            }
        }
        self.forget_questions();
    }

    /// Gives up the questions of turns that are over: they would pile up where nobody answers, and another attempt asks anew.
    fn forget_questions(&mut self) {
        self.asking.retain(|(seq, attempt, question)| {
            let open = self.book.is_open(*seq, *attempt);
            if !open {
                question.abort();
            }
            open
        });
    }

    /// After every step: what has become due to go out.
    async fn flush(&mut self) {
        let batches = self.book.take_batches(self.now(), false);
        self.publish_batches(batches);
        if self.logs.due().is_some_and(|due| due <= Instant::now()) {
            self.publish_logs();
        }
        if self.acks_due.is_some_and(|due| due <= Instant::now()) || self.acks.len() >= 16 {
            self.send_acks().await;
        }
        if matches!(self.stage, Stage::Draining { .. }) && self.book.is_idle() {
            // Whoever takes over need not wait for the end of the worker, and of a container around it.
            self.send_acks().await;
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
            let gate = self.gate.subscribe();
            self.task(publish::events(self.broker.clone(), gate, batch.seq, events));
        }
    }

    fn task(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        self.tasks.push(Box::pin(task));
    }

    fn publish_logs(&mut self) {
        if self.logs_busy || self.logs.is_empty() {
            return;
        }
        self.logs_busy = true;
        self.logged = true;
        let lines = self.logs.take();
        let (agent, incarnation) = (self.config.spec.name.clone(), self.config.incarnation);
        self.task(publish::logs(self.broker.clone(), agent, incarnation, lines));
    }

    async fn send_acks(&mut self) {
        self.acks_due = None;
        for reply in self.acks.drain(..) {
            // A lost ack is a redelivery, which the journal answers.
            if let Err(error) = self.broker.ack(&reply).await {
                tracing::warn!("acking: {error}");
                break;
            }
        }
        self.acks.clear();
    }
}

async fn next_item(inbox: &mut Option<Inbox>) -> InboxItem {
    match inbox {
        Some(inbox) => inbox.next().await,
        None => std::future::pending().await,
    }
}

async fn writable(stdin: Option<&tokio::net::unix::pipe::Sender>) -> Option<()> {
    stdin?.writable().await.ok()
}
