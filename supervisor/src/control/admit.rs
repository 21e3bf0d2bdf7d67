//! The handover: an incarnation's consumer takes the place of the one before, then its shim is told to begin.

use std::time::Duration;

use broker::{Broker, BrokerError};
use common::AgentName;
use common::control::ControlEvent;
use common::shim::ShimCommand;

use super::settle::{Open, charge};
use super::{Done, Supervisor};

/// Requests on their way to a shim or held by it, at most: the same as the shim's own window.
const WINDOW: u32 = 64;
/// The pause before a failed handover is tried again.
const PAUSE: Duration = Duration::from_millis(200);

impl Supervisor {
    /// Looks for the sequence before which everything is settled, for an incarnation that became ready.
    pub(super) fn find_floor(&mut self, agent: AgentName, incarnation: u64) {
        let Some(known) = self.state.agent(&agent) else { return };
        let (broker, previous, floor) = (self.broker.clone(), known.begun, known.floor);
        self.task(async move {
            loop {
                match find_floor(&broker, &agent, previous, floor).await {
                    Ok(floor) => return Done::Floor { agent, incarnation, floor },
                    Err(error) => {
                        tracing::warn!("where {agent}-{incarnation} begins: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }

    pub(super) fn floor_found(&mut self, agent: AgentName, incarnation: u64, floor: u64) {
        let Some(leading) = self.acting() else { return };
        leading.finding.remove(&(agent.clone(), incarnation));
        let term = leading.term;
        self.append(ControlEvent::IncarnationReady { agent, incarnation, floor }, Some(term), None);
    }

    /// Hands the agent's messages to an incarnation.
    pub(super) fn admit(
        &mut self,
        agent: AgentName,
        incarnation: u64,
        floor: u64,
        previous: Option<u64>,
        previous_clean: bool,
    ) {
        let Some(leading) = self.acting() else { return };
        if !leading.admitting.insert((agent.clone(), incarnation)) {
            return;
        }
        let concurrency =
            self.state.agent(&agent).map_or(1, |known| known.spec.concurrency as usize);
        let previous = previous.map(|number| (number, previous_clean));
        let broker = self.broker.clone();
        let subject = broker.subjects().shim_command(&agent, &self.token(&agent, incarnation));
        self.task(async move {
            loop {
                let over = handover(&broker, &agent, incarnation, floor, previous, concurrency);
                let done = match over.await {
                    Ok(horizon) => match common::codec::encode(&ShimCommand::Begin { horizon }) {
                        Ok(frame) => broker.tell(subject.clone(), frame.into()).await,
                        Err(error) => Err(BrokerError::Other(error.to_string())),
                    },
                    Err(error) => Err(error),
                };
                match done {
                    Ok(()) => return Done::Admitted { agent, incarnation },
                    Err(error) => {
                        tracing::warn!("handing over to {agent}-{incarnation}: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }

    pub(super) fn admitted(&mut self, agent: &AgentName, incarnation: u64) {
        if let Some(leading) = &mut self.leading {
            leading.admitting.remove(&(agent.clone(), incarnation));
        }
    }
}

/// The first sequence that may not be settled.
async fn find_floor(
    broker: &Broker,
    agent: &AgentName,
    previous: Option<u64>,
    known: u64,
) -> Result<u64, BrokerError> {
    if let Some(previous) = previous
        && let Some(consumer) = broker.consumer(agent, previous).await?
    {
        return Ok(known.max(consumer.ack_floor + 1));
    }
    // No consumer remembers: the journal does.
    let scan = broker.open_requests(agent, known.max(1), 1).await?;
    Ok(scan.open.first().map_or(scan.last_seq + 1, |(seq, ..)| *seq))
}

/// Swaps the consumers; the result is the horizon for the shim.
async fn handover(
    broker: &Broker,
    agent: &AgentName,
    incarnation: u64,
    floor: u64,
    previous: Option<(u64, bool)>,
    concurrency: usize,
) -> Result<u64, BrokerError> {
    if broker.consumer(agent, incarnation).await?.is_some() {
        // Done before, and the shim missed it.
        return broker.journal_last_seq(agent).await;
    }
    let mut start = floor.max(1);
    if let Some((previous, clean)) = previous.filter(|(previous, _)| *previous != incarnation) {
        let known = broker.consumer(agent, previous).await?;
        let delivered = known.map(|consumer| consumer.delivered);
        if let Some(consumer) = known {
            // Everything since the floor was found.
            start = start.max(consumer.ack_floor + 1);
        }
        broker.delete_consumer(agent, previous).await?;
        if !clean {
            let open = Open { agent, incarnation: previous, from: start, delivered, concurrency };
            charge(broker, &open).await?;
        }
    } else if let Some(first) = broker.open_requests(agent, start, 1).await?.open.first() {
        // The broker forgot this incarnation's consumer: it goes on with what is still open.
        start = first.0;
    }
    broker.create_consumer(agent, incarnation, start, WINDOW).await?;
    broker.journal_last_seq(agent).await
}
