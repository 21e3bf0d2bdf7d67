//! The control log, followed once for all streams of a process: what ends or breaks the stream of an answer is rare, and the same for all its
//! readers, so that none needs a consumer of its own on the broker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Broker, BrokerError, ControlFollower, ControlItem};
use common::AgentName;
use common::api::ApiError;
use common::control::ControlEvent;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::agents;
use crate::client::Client;
use crate::watch::ends_streams;

/// As many records are kept for a reader who is late. One who is later follows the log by itself.
const KEPT: usize = 1024;
/// An agent that was there is so for this long, unless the log says that it was removed: a shim asks as seldom.
const KNOWN: Duration = Duration::from_secs(5);
/// As many agents are remembered.
const AGENTS: usize = 4096;
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
    /// Of each record, the agent that it is about; none if it is about the fleet.
    records: broadcast::Sender<Option<AgentName>>,
    /// From which sequence on it tells what happens; 0: it tells nothing yet.
    begun: Arc<AtomicU64>,
    known: Arc<Mutex<Known>>,
}

/// The agents that were there a moment ago.
#[derive(Debug, Default)]
struct Known {
    since: HashMap<AgentName, Instant>,
    /// How often one was removed: what was asked before that is no longer so.
    removed: u64,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            changes: broadcast::Sender::new(KEPT),
            records: broadcast::Sender::new(KEPT),
            begun: Arc::default(),
            known: Arc::default(),
        }
    }
}

impl Feed {
    /// When something is recorded from now on: for whoever then looks again, and looks from time to time anyway.
    #[must_use]
    pub fn records(&self) -> Records {
        Records(self.records.subscribe())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Demands that the agent is registered, as [`agents::require`]; the broker is not asked again for one that just was.
    ///
    /// # Errors
    /// As [`agents::require`].
    pub async fn require(&self, client: &Client, agent: &AgentName) -> Result<(), ApiError> {
        let removed = {
            let known = self.known();
            if known.since.get(agent).is_some_and(|since| since.elapsed() < KNOWN) {
                return Ok(());
            }
            known.removed
        };
        let asked = Instant::now();
        agents::require(client, agent).await?;
        let mut known = self.known();
        if known.removed == removed {
            if known.since.len() >= AGENTS {
                known.since.clear();
            }
            known.since.insert(agent.clone(), asked);
        }
        Ok(())
    }

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
            // Nobody looks: then nobody is told.
            let _nobody = self.records.send(record.event.agent().cloned());
            if let ControlEvent::AgentRemoved { agent, .. } = &record.event {
                let mut known = self.known();
                known.removed += 1;
                known.since.remove(agent);
            }
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

/// That something was recorded.
#[derive(Debug)]
pub struct Records(broadcast::Receiver<Option<AgentName>>);

impl Records {
    /// Waits for a record about an agent, or about anything where none is named. Cancel safe.
    pub async fn next(&mut self, wanted: Option<&AgentName>) {
        loop {
            match self.0.recv().await {
                Ok(agent) if wanted.is_none_or(|wanted| agent.as_ref() == Some(wanted)) => return,
                Ok(_) => {}
                // Among those that were missed there may be one.
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    /// Whether it is woken at once.
    fn is_woken(records: &mut Records, agent: Option<&AgentName>) -> bool {
        let next = std::pin::pin!(records.next(agent));
        next.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_record_wakes_those_that_look_at_its_agent_and_whoever_is_late() {
        let agent = |name: &str| AgentName::new(name).expect("valid");
        let feed = Feed::default();
        let (mut of_a, mut of_all) = (feed.records(), feed.records());
        let _heard = feed.records.send(Some(agent("b")));
        assert!(!is_woken(&mut of_a, Some(&agent("a"))), "another agent's");
        assert!(is_woken(&mut of_all, None));
        let _heard = feed.records.send(None);
        assert!(!is_woken(&mut of_a, Some(&agent("a"))), "the fleet's");
        assert!(is_woken(&mut of_all, None));
        for _record in 0..=KEPT {
            let _heard = feed.records.send(Some(agent("b")));
        }
        assert!(is_woken(&mut of_a, Some(&agent("a"))), "it missed some");
    }
}
