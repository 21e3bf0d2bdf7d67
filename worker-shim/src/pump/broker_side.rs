//! The pump's broker side: is this incarnation current, what comes in, what is reported.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use broker::{InboxItem, Request, Requested, Unreadable};
use common::figures::{Figures, Queue};
use common::frame::{Heartbeat, ShimCommand, ShimReport};
use common::message::Envelope;
use common::worker::ToWorker;
use common::{Timestamp, codec};

use super::{HEARTBEAT_EVERY, Pump};
use crate::book::Arrival;
use crate::clock::{boot_ms, boot_us, micros};
use crate::publish::{self, Done, Look};
use crate::standing::{Admission, Consumer, Deed, Found, Input};

impl Pump {
    /// Tells the standing, and does what it says.
    pub(super) async fn stand(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let out_of_reach = micros(self.broker.out_of_reach());
            self.standing.reached(boot_us().saturating_sub(out_of_reach));
            for deed in self.standing.handle(boot_us(), input) {
                match deed {
                    Deed::Open => {
                        self.tasks.open(true);
                        let todo = self.book.resume(self.clock.now());
                        self.perform(todo);
                    }
                    Deed::Close => {
                        self.tasks.open(false);
                        self.book.pause();
                    }
                    Deed::SayReady => self.report(&ShimReport::Ready).await,
                    Deed::Look { look, consumer, lost } => self.look(look, consumer, lost),
                    Deed::Pull(Consumer { name, .. }) => {
                        let agent = &self.config.spec.name;
                        let given = self.given.take();
                        let pulling = self.broker.pull(agent, name, broker::WINDOW, given);
                        match pulling.await {
                            Ok(inbox) => self.inbox = Some(inbox),
                            Err(error) => {
                                tracing::warn!("cannot pull: {error}");
                                inputs.push_back(Input::PullEnded);
                            }
                        }
                    }
                    Deed::DropPull => self.inbox = None,
                    Deed::Disputed => self.broker.consumer_is_disputed(),
                    Deed::End => {
                        self.ending.reason = Some("it was not admitted within an hour".to_owned());
                        self.shut_down();
                    }
                }
            }
        }
    }

    fn look(&mut self, number: u64, consumer: Consumer, lost: bool) {
        let look = Look {
            number,
            agent: self.config.spec.name.clone(),
            incarnation: self.config.incarnation,
            name: consumer.name,
            passed: self.passed,
            after: lost.then(|| self.book.highest().max(self.standing.floor().saturating_sub(1))),
        };
        self.tasks.look(publish::look(self.tasks.broker(), look));
    }

    pub(super) async fn report(&mut self, report: &ShimReport) {
        let _sent = self.report_with(report, &Figures::default(), Queue::default()).await;
    }

    /// Whether it was sent, which is no proof that it came.
    async fn report_with(&mut self, report: &ShimReport, figures: &Figures, queue: Queue) -> bool {
        if !self.up {
            // It would wait in the client, and be old when it comes.
            return false;
        }
        let subject =
            self.broker.subjects().shim_report(&self.config.spec.name, self.config.incarnation);
        match codec::encode(report) {
            Ok(frame) => {
                let told = self.broker.tell_figures(subject, frame.into(), figures, queue).await;
                if let Err(error) = &told {
                    tracing::warn!("cannot send a report: {error}");
                }
                told.is_ok()
            }
            Err(error) => {
                tracing::error!("cannot send a report: {error}");
                false
            }
        }
    }

    /// What waits here.
    fn queue(&self) -> Queue {
        let (held, oldest_ms) = (self.book.held() as u64, self.book.oldest_ms(self.clock.now()));
        Queue { held, beyond: self.beyond, oldest_ms }
    }

    pub(super) async fn heartbeat(&mut self) {
        self.heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
        self.told.0 = self.book.open();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut figures = std::mem::take(&mut self.book.figures);
        let repeated = broker::repeated();
        figures.retries += repeated - std::mem::replace(&mut self.repeated, repeated);
        let report = ShimReport::Heartbeat(Heartbeat {
            held: count(self.book.held()),
            open: count(self.book.open()),
            finished: self.book.finished,
            lost_finals: self.book.lost_finals,
            refused: self.refusals.total(),
            quiet_ms: micros(self.pipes.last_line.elapsed()) / 1000,
            worker_pid: self.pipes.worker.pid.as_raw_nonzero().get().unsigned_abs(),
        });
        if !self.report_with(&report, &figures, self.queue()).await {
            // They are told next time.
            self.book.figures = figures;
        }
    }

    pub(super) async fn command(&mut self, frame: &[u8]) {
        match codec::decode(frame) {
            Ok(ShimCommand::Begin { horizon, floor, consumer }) => {
                let (agent, incarnation) = (&self.config.spec.name, self.config.incarnation);
                // A leader of the version before names none.
                let named = Some(consumer.name).filter(|name| !name.is_empty());
                let name =
                    named.unwrap_or_else(|| self.broker.subjects().consumer(agent, incarnation));
                let nanos = Some(consumer.created).filter(|nanos| *nanos > 0);
                let created = nanos.map(|nanos| Timestamp::from_millis(nanos / 1_000_000));
                let consumer = Consumer { name, created };
                self.stand(Input::Begin(Admission { consumer, horizon, floor })).await;
            }
            Ok(ShimCommand::Drain { within }) => self.drain(within).await,
            Ok(ShimCommand::Cancel { sender, message_id }) => {
                let todo = self.book.cancel(self.clock.now(), &sender, &message_id);
                self.perform(todo);
            }
            Ok(ShimCommand::Answered { sender, message_id, tag }) => {
                let todo = self.book.answered(self.clock.now(), &sender, &message_id, &tag);
                self.perform(todo);
            }
            Ok(ShimCommand::Ping) => self.heartbeat().await,
            Err(error) => {
                if let Some(words) = self.refusals.command(boot_ms(), error) {
                    tracing::warn!("{words}");
                }
            }
        }
    }

    pub(super) async fn item(&mut self, item: InboxItem) {
        match item {
            InboxItem::Delivery(delivery) => {
                let broker::Delivery { envelope, seq, at, delivered, pending, reply, .. } =
                    *delivery;
                self.beyond = pending;
                self.book.figures.redelivered += u64::from(delivered > 1);
                let check = seq <= self.standing.horizon() || delivered > 1;
                let (left, age) = (self.left(&envelope, at), self.age(at));
                let arrival = Arrival { seq, envelope, reply, check, left, age };
                let todo = self.book.deliver(self.clock.now(), arrival);
                self.perform(todo);
            }
            InboxItem::Unreadable(unreadable) => self.refuse(*unreadable),
            InboxItem::Refused { reason, payload } => {
                // The inbox never counted it as held: there is no room to give back.
                if let Some(words) = self.refusals.stranger(boot_ms(), &reason, payload.len()) {
                    self.note(&words);
                    tracing::warn!("{words}");
                }
            }
            InboxItem::Ended => {
                let passed = self.inbox.take().and_then(|inbox| inbox.passed());
                self.passed = passed.or(self.passed);
                self.stand(Input::PullEnded).await;
            }
        }
    }

    /// The journal has accepted it, so it gets its final state. One that came before is told of no second time.
    fn refuse(&mut self, unreadable: Unreadable) {
        if self.book.pass(unreadable.seq) {
            let (id, reason) = (&unreadable.key.message_id, &unreadable.reason);
            if let Some(words) = self.refusals.unreadable(boot_ms(), id, reason) {
                self.note(&words);
            }
        }
        let (broker, gate) = (self.tasks.broker(), self.tasks.gate());
        self.tasks.start(publish::refuse(broker, gate, unreadable));
    }

    pub(super) async fn done(&mut self, done: Done) {
        let now = self.clock.now();
        let todo = match done {
            Done::LookedUp { seq, final_, attempts, steps } => {
                self.book.looked_up(now, seq, final_, attempts, steps)
            }
            Done::Fetched { seq, text } => self.book.fetched(now, seq, text),
            Done::Settled { seq, won, final_ } => self.book.settled(now, seq, won, final_),
            Done::Recalled { seq, recalled } => self.book.recalled(now, seq, recalled),
            Done::Stepped { seq, attempt, ended } => self.book.stepped(now, seq, attempt, ended),
            Done::Person { of, request_id, acted } => self.book.person(now, of, &request_id, acted),
            Done::Closed => return,
            Done::Batch { seq } => self.book.batch_stored(now, seq),
            Done::Logs { sizes, trimmed } => return self.logs.taken(sizes, trimmed),
            Done::Answered { request_id, answer, key, is_final } => {
                self.questions.ended(&key, answer.is_ok(), is_final);
                if let Err(error) = &answer {
                    self.note(&format!("a question to {} was not answered: {error}", key.agent));
                }
                return self.answer(request_id, answer);
            }
            Done::Counted { seq, turns, asked } => {
                if asked {
                    self.uncounted = turns.is_none().then(Instant::now);
                }
                self.book.counted(now, seq, turns)
            }
            Done::HistoryRead { request_id, history } => {
                return self.history_read(request_id, history);
            }
            Done::NotAsked => return,
            Done::Finished(keys) => return self.questions.finished(&keys),
            Done::Buried { reply, stored } => {
                self.book.figures.dead_letters += u64::from(stored);
                return self.ack(reply);
            }
            Done::Refused { reply } => return self.ack(reply),
            Done::Looked { look, found, lost, again, given } => {
                if given.is_some() {
                    (self.given, self.passed) = (given, None);
                }
                return self.looked(look, found, lost, again).await;
            }
        };
        self.perform(todo);
    }

    /// What the consumer gave out and never came keeps its place: it is taken before anything else is.
    async fn looked(&mut self, look: Look, found: Found, lost: Vec<Requested>, again: Option<u64>) {
        for requested in lost {
            let Request { seq, at, envelope } = match requested {
                Requested::Request(request) => *request,
                Requested::Unreadable(unreadable) => {
                    self.refuse(*unreadable);
                    continue;
                }
            };
            let (left, age) = (self.left(&envelope, at), self.age(at));
            let arrival = Arrival { seq, envelope, reply: String::new(), check: true, left, age };
            let todo = self.book.deliver(self.clock.now(), arrival);
            self.perform(todo);
        }
        if again.is_some() {
            let look = Look { after: again, ..look };
            return self.tasks.look(publish::look(self.tasks.broker(), look));
        }
        self.stand(Input::Looked { look: look.number, found }).await;
    }

    /// How long somebody waits for the answer to a message that was stored at `at`. Its deadline and the time of its making are by
    /// its sender's clock, which may be any: what lies between them is what the sender meant. While nobody has told what the broker's clock
    /// shows, it has all of that time: late is better than early.
    fn left(&self, envelope: &Envelope, at: Timestamp) -> Option<Duration> {
        let within = envelope.deadline?.since(envelope.created_at);
        Some(within.saturating_sub(self.age(at)))
    }

    /// How long ago the broker's clock showed this, at least: nothing, where nobody has told what it shows.
    fn age(&self, at: Timestamp) -> Duration {
        self.broker.now_at_least().map(|now| now.since(at)).unwrap_or_default()
    }

    pub(super) fn answer(&mut self, request_id: String, answer: Result<String, String>) {
        let (response, error) = match answer {
            Ok(response) => (response, None),
            Err(error) => (String::new(), Some(error)),
        };
        self.tell(&ToWorker::RouteResponse { request_id, response, error });
    }
}
