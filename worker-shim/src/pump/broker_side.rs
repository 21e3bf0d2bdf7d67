//! The pump's broker side: is this incarnation current, what comes in, what is reported.

use std::time::Instant;

use broker::{InboxItem, Link};
use common::codec;
use common::message::Envelope;
use common::shim::{Heartbeat, ShimCommand, ShimReport};
use common::worker::ToWorker;

use super::{HEARTBEAT_EVERY, Pump, QUESTIONS, READY_EVERY, Stage, WINDOW};
use crate::publish::{self, Done};

impl Pump {
    pub(super) fn link(&mut self, now: Link) {
        let before = std::mem::replace(&mut self.link, now);
        if now.up && now.epoch == before.epoch {
            return;
        }
        // Another incarnation may take over meanwhile: say nothing, and start nothing, before that is known.
        self.close_gate();
        if now.epoch != before.epoch {
            // What was on its way is lost, and later messages must not overtake it: nothing comes before that is known too.
            self.inbox = None;
        }
        if now.up && self.ready {
            self.ready_again = Some(Instant::now());
        } else if now.up {
            self.open_gate();
        }
    }

    fn close_gate(&mut self) {
        self.begun = false;
        self.gate.send_replace(false);
        self.book.pause();
    }

    fn open_gate(&mut self) {
        self.gate.send_replace(true);
        let todo = self.book.resume(self.now());
        self.perform(todo);
    }

    pub(super) async fn report(&mut self, report: &ShimReport) {
        if !self.link.up {
            // It would wait in the client, and be old when it comes.
            return;
        }
        let subject =
            self.broker.subjects().shim_report(&self.config.spec.name, self.config.incarnation);
        match codec::encode(report) {
            Ok(frame) => {
                if let Err(error) = self.broker.tell(subject, frame.into()).await {
                    tracing::warn!("reporting: {error}");
                }
            }
            Err(error) => tracing::error!("reporting: {error}"),
        }
    }

    pub(super) async fn report_ready(&mut self) {
        let waiting = !self.begun && !matches!(self.stage, Stage::Stopping { .. });
        self.ready_again = waiting.then(|| Instant::now() + READY_EVERY);
        if waiting {
            self.check_current();
            self.report(&ShimReport::Ready).await;
        }
    }

    /// With its consumer still there, this incarnation is the current one, whether a supervisor answers or not.
    pub(super) fn check_current(&mut self) {
        if self.begun || self.checking || !self.consumer || !self.link.up {
            return;
        }
        self.checking = true;
        self.optional += 1;
        let (agent, incarnation) = (self.config.spec.name.clone(), self.config.incarnation);
        let (broker, epoch, highest) = (self.broker.clone(), self.link.epoch, self.book.highest());
        self.task(publish::current(broker, agent, incarnation, epoch, highest));
    }

    async fn current(&mut self, epoch: u64, lost: Option<Vec<(u64, Envelope)>>) {
        self.checking = false;
        if self.begun {
            return;
        }
        if epoch != self.link.epoch {
            self.ready_again = Some(Instant::now());
            return;
        }
        let told = std::mem::take(&mut self.told_to_begin);
        let Some(lost) = lost else {
            self.consumer = false;
            if told {
                // It was made anew behind this look: whatever was lost, it gives out again, in order.
                self.begin().await;
            }
            return;
        };
        for (seq, envelope) in lost {
            let todo = self.book.deliver(self.now(), seq, envelope, String::new(), true);
            self.perform(todo);
        }
        self.begin().await;
    }

    /// Takes messages from the consumer.
    async fn begin(&mut self) {
        if self.inbox.is_none() && self.stage == Stage::Running {
            let agent = &self.config.spec.name;
            match self.broker.pull(agent, self.config.incarnation, WINDOW).await {
                Ok(inbox) => self.inbox = Some(inbox),
                Err(error) => {
                    tracing::error!("pulling: {error}");
                    self.ready_again = Some(Instant::now() + READY_EVERY);
                    return;
                }
            }
        }
        self.consumer = true;
        self.told_to_begin = false;
        self.begun = true;
        self.ready_again = None;
        self.open_gate();
    }

    pub(super) async fn heartbeat(&mut self) {
        self.heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let quiet = u64::try_from(self.last_line.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report(&ShimReport::Heartbeat(Heartbeat {
            held: count(self.book.held()),
            open: count(self.book.open()),
            finished: self.book.finished,
            lost_finals: self.book.lost_finals,
            refused: self.refused,
            quiet_ms: quiet,
            worker_pid: self.worker.pid.as_raw_nonzero().get().unsigned_abs(),
        }))
        .await;
    }

    pub(super) async fn command(&mut self, payload: &[u8]) {
        match codec::decode(payload) {
            Ok(ShimCommand::Begin { horizon, .. }) => {
                self.horizon = self.horizon.max(horizon);
                if self.consumer {
                    // It was not gone when last seen: what was lost with the connection comes first.
                    self.told_to_begin = true;
                    self.check_current();
                } else if self.ready && !self.begun {
                    self.begin().await;
                }
            }
            Ok(ShimCommand::Drain { within }) => self.drain(within),
            Ok(ShimCommand::Cancel { sender, message_id }) => {
                let todo = self.book.cancel(self.now(), &sender, &message_id);
                self.perform(todo);
            }
            Ok(ShimCommand::Ping) => self.heartbeat().await,
            Err(error) => tracing::warn!("command: {error}"),
        }
    }

    pub(super) async fn item(&mut self, item: InboxItem) {
        match item {
            InboxItem::Delivery(delivery) => {
                let check = delivery.seq <= self.horizon || delivery.delivered > 1;
                let now = self.now();
                let todo =
                    self.book.deliver(now, delivery.seq, delivery.envelope, delivery.reply, check);
                self.perform(todo);
            }
            InboxItem::Unreadable(unreadable) => {
                self.refused += 1;
                self.note(&format!(
                    "cannot read message {}: {}",
                    unreadable.key.message_id, unreadable.reason
                ));
                let gate = self.gate.subscribe();
                self.task(publish::refuse(self.broker.clone(), gate, *unreadable));
            }
            InboxItem::Refused { reason, payload } => {
                // The inbox never counted it as held: there is no room to give back.
                self.refused += 1;
                self.note(&format!("refused what is not a message of ours: {reason}"));
                tracing::warn!("refused {} bytes: {reason}", payload.len());
            }
            InboxItem::Gone => {
                self.inbox = None;
                self.consumer = false;
                if self.stage == Stage::Running {
                    self.close_gate();
                    self.report_ready().await;
                }
            }
        }
    }

    pub(super) async fn done(&mut self, done: Done) {
        let now = self.now();
        let todo = match done {
            Done::LookedUp { seq, final_, attempts } => {
                self.optional -= 1;
                self.book.looked_up(now, seq, final_, attempts)
            }
            Done::Settled { seq, won, final_ } => self.book.settled(now, seq, won, final_),
            Done::Batch { seq } => self.book.batch_stored(now, seq),
            Done::Logs => {
                self.logs_busy = false;
                return;
            }
            Done::Answered { request_id, answer, agent } => {
                self.questions -= 1;
                if answer.is_ok() && self.answered.len() < QUESTIONS {
                    self.answered.insert(agent, Instant::now());
                } else {
                    self.answered.remove(&agent);
                }
                return self.answer(request_id, answer);
            }
            Done::NotAsked => {
                self.questions -= 1;
                return;
            }
            Done::Buried { reply } | Done::Refused { reply } => return self.ack(reply),
            Done::Current { epoch, lost } => {
                self.optional -= 1;
                return self.current(epoch, lost).await;
            }
        };
        self.perform(todo);
    }

    pub(super) fn answer(&mut self, request_id: String, answer: Result<String, String>) {
        let (response, error) = match answer {
            Ok(response) => (response, None),
            Err(error) => (String::new(), Some(error)),
        };
        self.tell(&ToWorker::RouteResponse { request_id, response, error });
    }
}
