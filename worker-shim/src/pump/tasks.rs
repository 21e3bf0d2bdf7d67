//! Work in progress: publishes, look-ups, questions. All of it is polled by the pump itself: nothing proceeds while the pump
//! does not know whether it may.

use broker::Broker;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::publish::{Done, Gate};

/// The tasks and the gate that they pass.
pub(super) struct Tasks {
    broker: Broker,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Tasks that nobody waits for at the end: look-ups.
    optional: usize,
    /// Open while this incarnation is known to be the current one.
    gate: watch::Sender<bool>,
}

impl Tasks {
    pub(super) fn new(broker: Broker) -> Self {
        Self {
            broker,
            running: FuturesUnordered::new(),
            optional: 0,
            gate: watch::Sender::new(true),
        }
    }

    pub(super) fn broker(&self) -> Broker {
        self.broker.clone()
    }

    pub(super) fn gate(&self) -> Gate {
        Gate::new(self.gate.subscribe())
    }

    pub(super) fn open(&self, open: bool) {
        self.gate.send_replace(open);
    }

    pub(super) fn start(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        self.running.push(Box::pin(task));
    }

    /// Starts one that leads to nothing any more once the worker is gone.
    pub(super) fn look(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        self.optional += 1;
        self.start(task);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) async fn next(&mut self) -> Option<Done> {
        let done = self.running.next().await?;
        match done {
            Done::LookedUp { .. }
            | Done::Fetched { .. }
            | Done::Recalled { .. }
            | Done::Counted { .. }
            | Done::Person { .. }
            | Done::Closed
            | Done::Finished(_)
            | Done::Looked { .. } => self.optional -= 1,
            Done::Settled { .. }
            | Done::Batch { .. }
            | Done::Stepped { .. }
            | Done::Logs { .. }
            | Done::Buried { .. }
            | Done::Refused { .. }
            | Done::Answered { .. }
            | Done::HistoryRead { .. }
            | Done::NotAsked => {}
        }
        Some(done)
    }

    /// How many must come to their end.
    pub(super) fn needed(&self) -> usize {
        self.running.len() - self.optional
    }
}
