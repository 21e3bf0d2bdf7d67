//! The pump's broker side: is this incarnation current, what comes in, what is reported.

use std::time::{Duration, Instant};

use broker::{InboxItem, Link};
use common::codec;
use common::shim::{Heartbeat, ShimCommand, ShimReport};
use common::worker::ToWorker;

use super::{HEARTBEAT_EVERY, Pump, READY_EVERY, Stage, WINDOW};
use crate::publish::Done;

impl Pump {
    pub(super) fn link(&mut self, before: Link, now: Link) {
        if !now.up || now.epoch != before.epoch {
            // Another incarnation may have taken over meanwhile: say nothing before that is known.
            self.gate.send_replace(false);
        }
        if now.up && self.ready {
            self.begun = false;
            self.ready_again = Some(Instant::now());
        } else if now.up {
            self.gate.send_replace(true);
        }
    }

    pub(super) async fn report(&self, report: &ShimReport) {
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
        self.ready_again = (!self.begun).then(|| Instant::now() + READY_EVERY);
        if self.begun {
            return;
        }
        self.report(&ShimReport::Ready).await;
        // With its consumer still there, this incarnation is the current one, whether a supervisor answers or not.
        if self.inbox.is_some() {
            let agent = self.config.spec.name.clone();
            let current = self.broker.consumer(&agent, self.config.incarnation);
            let current = tokio::time::timeout(Duration::from_secs(1), current).await;
            if let Ok(Ok(Some(_))) = current {
                self.begin(self.horizon).await;
            }
        }
    }

    pub(super) async fn begin(&mut self, horizon: u64) {
        self.begun = true;
        self.ready_again = None;
        self.gate.send_replace(true);
        if self.inbox.is_none() && self.stage == Stage::Running {
            self.horizon = horizon;
            let agent = &self.config.spec.name;
            match self.broker.pull(agent, self.config.incarnation, WINDOW).await {
                Ok(inbox) => self.inbox = Some(inbox),
                Err(error) => {
                    tracing::error!("pulling: {error}");
                    self.begun = false;
                    self.ready_again = Some(Instant::now() + READY_EVERY);
                }
            }
        }
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
            Ok(ShimCommand::Begin { horizon }) => self.begin(horizon).await,
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
            InboxItem::Refused { reason, payload } => {
                self.refused += 1;
                self.note(&format!("refused what is not a message of ours: {reason}"));
                tracing::warn!("refused {} bytes: {reason}", payload.len());
            }
            InboxItem::Gone => {
                self.inbox = None;
                self.begun = false;
                if self.stage == Stage::Running {
                    self.gate.send_replace(false);
                    self.report_ready().await;
                }
            }
        }
    }

    pub(super) fn done(&mut self, done: Done) {
        let now = self.now();
        let todo = match done {
            Done::LookedUp { seq, is_final, attempts } => {
                self.book.looked_up(now, seq, is_final, attempts)
            }
            Done::Settled { seq, won } => self.book.settled(now, seq, won),
            Done::Batch { seq } => self.book.batch_stored(now, seq),
            Done::Logs => {
                self.logs_busy = false;
                Vec::new()
            }
            Done::Answered { request_id, answer } => {
                self.questions -= 1;
                self.answer(request_id, answer);
                Vec::new()
            }
            Done::Buried => Vec::new(),
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
