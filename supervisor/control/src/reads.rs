//! Reading journals without delaying what must not wait.
//!
//! The server works off a connection's requests one after the other, and the lease and the log may not wait behind a journal: so it is
//! read over a connection of its own. And not all journals at once, when all are asked for: as after a restart of the broker, which
//! forgets the consumers. Only reading takes a turn: an agent whose consumer does not answer holds up no other.

use std::sync::Arc;

use broker::{Broker, BrokerError, FirstOpen, OpenScan, Requested};
use common::AgentName;
use tokio::sync::Semaphore;

/// Journals that are read at once.
const AT_ONCE: usize = 16;

/// Counts of messages that are asked for at once. The server makes them one after the other, and what comes over the same connection
/// waits.
const COUNTS: usize = 8;

/// A second connection to the broker.
#[derive(Debug, Clone)]
pub(super) struct Reads {
    pub(super) broker: Broker,
    turns: Arc<Semaphore>,
    counts: Arc<Semaphore>,
}

impl Reads {
    pub(super) fn new(broker: Broker) -> Self {
        let [turns, counts] = [AT_ONCE, COUNTS].map(|most| Arc::new(Semaphore::new(most)));
        Self { broker, turns, counts }
    }

    /// What is open in an agent's journal, as [`Broker::open_requests`] says.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(super) async fn open_requests(
        &self,
        agent: &AgentName,
        from: u64,
        limit: usize,
    ) -> Result<OpenScan, BrokerError> {
        // Nobody closes it.
        let _turn = self.turns.acquire().await;
        self.broker.open_requests(agent, from, limit).await
    }

    /// The first open request of an agent, as [`Broker::first_open`] says.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(super) async fn first_open(
        &self,
        agent: &AgentName,
        from: u64,
    ) -> Result<FirstOpen, BrokerError> {
        let _turn = self.turns.acquire().await;
        self.broker.first_open(agent, from).await
    }

    /// An agent's requests from one sequence to another, as [`Broker::requests_between`] says.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(super) async fn requests_between(
        &self,
        agent: &AgentName,
        from: u64,
        to: u64,
    ) -> Result<(Vec<Requested>, bool), BrokerError> {
        let _turn = self.turns.acquire().await;
        self.broker.requests_between(agent, from, to).await
    }

    /// Asks for a count, a few at once.
    pub(super) async fn counted<T>(&self, count: impl Future<Output = T>) -> T {
        let _turn = self.counts.acquire().await;
        count.await
    }
}
