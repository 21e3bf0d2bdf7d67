//! The control log, followed once for all streams of a process: what ends or breaks the stream of an answer is rare, and the same for all its
//! readers, so that none needs a consumer of its own on the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{Broker, BrokerError, ControlFollower, ControlItem};
use common::AgentName;
use common::control::ControlEvent;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::watch::ends_streams;

/// As many records are kept for a reader who is late. One who is later follows the log by itself.
const KEPT: usize = 1024;
/// The pause after a failure, such as that of a broker that refuses a consumer.
const AGAIN: Duration = Duration::from_secs(1);

/// A record that ends streams, or breaks an attempt off.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    seq: u64,
    agent: AgentName,
    pub(crate) event: Arc<ControlEvent>,
}

/// What the readers of a process share.
#[derive(Debug, Clone)]
pub struct Feed {
    changes: broadcast::Sender<Change>,
    /// From which sequence on it tells what happens; 0: it tells nothing yet.
    begun: Arc<AtomicU64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { changes: broadcast::Sender::new(KEPT), begun: Arc::default() }
    }
}

impl Feed {
    /// Follows the log for whoever reads, until it is dropped.
    pub async fn run(&self, broker: &Broker) {
        let mut next = None;
        loop {
            if let Err(error) = self.follow(broker, &mut next).await {
                tracing::warn!("cannot follow the control log for open streams: {error}");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow(&self, broker: &Broker, next: &mut Option<u64>) -> Result<(), BrokerError> {
        let from = match *next {
            Some(next) => next,
            None => broker.control_last_seq().await? + 1,
        };
        *next = Some(from);
        let mut log = broker.follow_control(from, None).await?;
        if self.begun.load(Ordering::Relaxed) == 0 {
            self.begun.store(from, Ordering::Relaxed);
        }
        loop {
            let ControlItem::Record { seq, record, .. } = log.next().await? else { continue };
            *next = Some(seq + 1);
            if !ends_streams(&record.event) {
                continue;
            }
            if let Some(agent) = record.event.agent().cloned() {
                // Nobody reads: then nobody is told.
                let _nobody =
                    self.changes.send(Change { seq, agent, event: Arc::new(record.event) });
            }
        }
    }
}

/// What happens to one agent from now on.
#[derive(Debug)]
pub(crate) struct Changes {
    broker: Broker,
    agent: AgentName,
    /// The first sequence that is news.
    from: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Shared(broadcast::Receiver<Change>),
    /// It missed some: what comes next is in the log.
    Behind,
    Own(Box<ControlFollower>),
}

impl Changes {
    /// Opens them: from a feed, if there is one.
    pub(crate) async fn of(
        broker: &Broker,
        agent: &AgentName,
        feed: Option<&Feed>,
    ) -> Result<Self, BrokerError> {
        // First: what is stored after the look is heard.
        let shared = feed.map(|feed| feed.changes.subscribe());
        let from = broker.control_last_seq().await? + 1;
        let tells = |feed: &Feed| (1..=from).contains(&feed.begun.load(Ordering::Relaxed));
        let source = match shared.filter(|_| feed.is_some_and(tells)) {
            Some(shared) => Source::Shared(shared),
            None => Source::Own(Box::new(broker.follow_control(from, Some(agent)).await?)),
        };
        Ok(Self { broker: broker.clone(), agent: agent.clone(), from, source })
    }

    /// The next one. Cancel safe.
    ///
    /// # Errors
    /// What the broker says.
    pub(crate) async fn next(&mut self) -> Result<Arc<ControlEvent>, BrokerError> {
        loop {
            match &mut self.source {
                Source::Shared(shared) => match shared.recv().await {
                    Ok(Change { seq, agent, event }) if agent == self.agent && seq >= self.from => {
                        self.from = seq + 1;
                        return Ok(event);
                    }
                    Ok(_) => {}
                    // On record before anything is waited for: whoever waits for this may give up meanwhile, and ask again.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => self.source = Source::Behind,
                },
                Source::Behind => {
                    let own = self.broker.follow_control(self.from, Some(&self.agent)).await?;
                    self.source = Source::Own(Box::new(own));
                }
                Source::Own(own) => {
                    if let ControlItem::Record { seq, record, .. } = own.next().await? {
                        self.from = seq + 1;
                        return Ok(Arc::new(record.event));
                    }
                }
            }
        }
    }
}
