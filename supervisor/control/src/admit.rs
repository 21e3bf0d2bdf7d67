//! The handover: an incarnation's consumer takes the place of the one before, then its shim is told to begin.
//!
//! After a crash nobody takes messages any more, so the new consumer is prepared while the new shim starts: then nothing but the
//! record and the word to begin lies between `ready` and the first turn.

use broker::{Admission, Admitted, Broker, BrokerError, Retries, WINDOW};
use common::AgentName;
use common::codec;
use common::control::ControlEvent;
use common::frame::{ConsumerId, ShimCommand};
use supervisor_core::Predecessor;

use tokio_util::sync::CancellationToken;

use super::reads::Reads;
use super::settle::{Open, charge};
use super::{Done, Supervisor};

/// A consumer made before its incarnation was ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prepared {
    pub(super) incarnation: u64,
    /// Everything before it is settled.
    pub(super) floor: u64,
    /// Nothing after it had been given out to the incarnation before.
    pub(super) horizon: u64,
}

/// What became of a handover.
enum Handed {
    /// It is done; `swapped`: there was something to take over.
    Over { swapped: bool },
    /// A later incarnation was admitted.
    TooLate,
}

/// What an incarnation takes over.
struct Handover {
    agent: AgentName,
    incarnation: u64,
    floor: u64,
    /// Who took messages before, oldest first: as a rule one.
    over: Vec<Predecessor>,
    /// Whether that is on record as still to be done.
    unrecorded: bool,
    concurrency: usize,
    prepared: Option<Prepared>,
    reads: Reads,
}

impl Supervisor {
    /// Makes the consumer of an incarnation that takes over from one that has ended.
    pub(super) fn prepare(&mut self, agent: &AgentName, incarnation: u64) {
        let Some(known) = self.state.agent(agent) else { return };
        let (Some(previous), Some(leading)) = (known.begun, self.leading.as_mut()) else { return };
        let stale = leading.prepared.remove(agent);
        let (reads, agent, floor) = (self.reads.clone(), agent.clone(), known.floor);
        self.task(async move {
            let made = prepare(&reads, &agent, incarnation, previous, floor, stale).await;
            match made {
                Ok(prepared) => Done::Prepared { agent, prepared },
                // The handover does it then.
                Err(error) => {
                    tracing::debug!("preparing {agent}-{incarnation}: {error}");
                    Done::Nothing
                }
            }
        });
    }

    pub(super) fn prepared(&mut self, agent: AgentName, prepared: Prepared) {
        if let Some(leading) = &mut self.leading {
            leading.prepared.insert(agent, prepared);
        }
    }

    fn prepared_for(&self, agent: &AgentName, incarnation: u64) -> Option<Prepared> {
        let prepared = self.leading.as_ref()?.prepared.get(agent).copied();
        prepared.filter(|prepared| prepared.incarnation == incarnation)
    }

    /// Looks for the sequence before which everything is settled, for an incarnation that became ready.
    pub(super) fn find_floor(&mut self, agent: AgentName, incarnation: u64) {
        if let Some(prepared) = self.prepared_for(&agent, incarnation) {
            return self.floor_found(agent, incarnation, prepared.floor);
        }
        let Some(known) = self.state.agent(&agent) else { return };
        let (reads, previous, floor) = (self.reads.clone(), known.begun, known.floor);
        self.task(async move {
            let mut retries =
                Retries::new(format!("finding the start sequence of {agent}-{incarnation}"));
            loop {
                match find_floor(&reads, &agent, previous, floor).await {
                    Ok(floor) => return Done::Floor { agent, incarnation, floor },
                    Err(error) => retries.pause(&error).await,
                }
            }
        });
    }

    pub(super) fn floor_found(&mut self, agent: AgentName, incarnation: u64, floor: u64) {
        self.decide(ControlEvent::IncarnationReady { agent, incarnation, floor });
    }

    /// Hands the agent's messages to an incarnation.
    pub(super) fn admit(
        &mut self,
        agent: AgentName,
        incarnation: u64,
        floor: u64,
        mut over: Vec<Predecessor>,
    ) {
        let Some(leading) = self.acting() else { return };
        let unrecorded = !over.is_empty();
        // Done already, and the record of it is on its way: its books are not opened again, the new shim may be writing in them.
        if leading.swapped.get(&agent) == Some(&incarnation) {
            over.clear();
        }
        if leading.admitting.get(&agent).is_some_and(|(under_way, _)| *under_way >= incarnation) {
            return;
        }
        // Ends an older handover that is still tried; and the end of this leadership ends this one.
        let current = CancellationToken::new();
        leading.admitting.insert(agent.clone(), (incarnation, current.clone().drop_guard()));
        let concurrency =
            self.state.agent(&agent).map_or(1, |known| known.spec.concurrency as usize);
        let broker = self.broker.clone();
        let subject = broker.subjects().shim_command(&agent, &self.token(&agent, incarnation));
        let prepared = self.prepared_for(&agent, incarnation);
        let reads = self.reads.clone();
        let over =
            Handover { agent, incarnation, floor, over, unrecorded, concurrency, prepared, reads };
        self.task(async move {
            let admitted = current.run_until_cancelled(over.until_done(&broker, &subject)).await;
            match admitted {
                Some(Handed::Over { swapped }) => {
                    Done::Admitted { agent: over.agent, incarnation, swapped }
                }
                // To whoever came later: that is on record, and this leader will read it.
                Some(Handed::TooLate) | None => Done::Nothing,
            }
        });
    }

    pub(super) fn admitted(&mut self, agent: AgentName, incarnation: u64, swapped: bool) {
        let Some(leading) = &mut self.leading else { return };
        if leading.admitting.get(&agent).is_some_and(|(done, _)| *done == incarnation) {
            leading.admitting.remove(&agent);
        }
        if leading.prepared.get(&agent).is_some_and(|one| one.incarnation <= incarnation) {
            leading.prepared.remove(&agent);
        }
        if swapped {
            leading.swapped.insert(agent.clone(), incarnation);
            self.decide(ControlEvent::IncarnationBegun { agent, incarnation });
        }
    }
}

async fn prepare(
    reads: &Reads,
    agent: &AgentName,
    incarnation: u64,
    previous: u64,
    known: u64,
    stale: Option<Prepared>,
) -> Result<Prepared, BrokerError> {
    let broker = &reads.broker;
    if let Some(stale) = stale {
        broker.delete_consumer(agent, stale.incarnation).await?;
    }
    let floor = find_floor(reads, agent, Some(previous), known).await?;
    let (created, horizon) = tokio::join!(
        broker.create_consumer(agent, incarnation, floor, WINDOW),
        broker.journal_last_seq(agent)
    );
    created?;
    Ok(Prepared { incarnation, floor, horizon: horizon? })
}

/// The first sequence that may not be settled.
async fn find_floor(
    reads: &Reads,
    agent: &AgentName,
    previous: Option<u64>,
    known: u64,
) -> Result<u64, BrokerError> {
    if let Some(previous) = previous
        && let Some(consumer) = reads.broker.consumer(agent, previous).await?
    {
        return Ok(known.max(consumer.ack_floor + 1));
    }
    // No consumer remembers: the journal does.
    let scan = reads.open_requests(agent, known.max(1), 1).await?;
    Ok(scan.open.first().map_or(scan.last_seq + 1, |(seq, ..)| *seq))
}

impl Handover {
    /// Tries until it is done; the result is that of [`Self::perform`].
    async fn until_done(&self, broker: &Broker, subject: &str) -> Handed {
        let Self { agent, incarnation, .. } = self;
        let mut retries = Retries::new(format!("the handover to {agent}-{incarnation}"));
        loop {
            match self.perform(broker, subject).await {
                Ok(handed) => return handed,
                // Also of what does not pass by itself: nobody but its leader can serve an agent, and somebody may repair it.
                Err(error) => retries.pause(&error).await,
            }
        }
    }

    /// Swaps the consumers and tells the shim to begin.
    ///
    /// A leader that is deposed and does not know it may do this beside its successor. So the incarnation is admitted before
    /// anything is done, which only the latest one can be, and that is looked at again after its consumer was made: whoever is
    /// late finds out, and removes its own consumer and no other.
    async fn perform(&self, broker: &Broker, subject: &str) -> Result<Handed, BrokerError> {
        let (agent, incarnation) = (&self.agent, self.incarnation);
        let consumer = broker.subjects().consumer(agent, incarnation);
        let wanted = Admitted { incarnation, consumer };
        if let Admission::Lost(later) = broker.admit(agent, &wanted).await? {
            return Ok(self.too_late(later.incarnation));
        }
        let prepared = match (self.over.as_slice(), self.prepared) {
            // It has ended and its books are settled: its consumer serves nobody, and may go after the new one has begun.
            ([Predecessor { incarnation, clean: true }], Some(prepared)) => {
                Some((*incarnation, prepared.horizon))
            }
            _ => None,
        };
        let (horizon, floor) = match prepared {
            Some((_, horizon)) => (horizon, self.floor),
            None => self.swap(broker).await?,
        };
        if let Some(later) = broker.admitted(agent).await?
            && later.incarnation > incarnation
        {
            broker.delete_consumer(agent, incarnation).await?;
            return Ok(self.too_late(later.incarnation));
        }
        self.begin(broker, subject, horizon, floor).await?;
        if let Some((previous, _)) = prepared {
            broker.delete_consumer(agent, previous).await?;
        }
        Ok(Handed::Over { swapped: self.unrecorded })
    }

    fn too_late(&self, later: u64) -> Handed {
        let Self { agent, incarnation, .. } = self;
        tracing::warn!("{agent}-{incarnation} is not admitted: {agent}-{later} is newer");
        Handed::TooLate
    }

    async fn begin(
        &self,
        broker: &Broker,
        subject: &str,
        horizon: u64,
        floor: u64,
    ) -> Result<(), BrokerError> {
        let Self { agent, incarnation, .. } = self;
        // By its creation the shim knows it from another one of the name.
        let Some(made) = broker.consumer(agent, *incarnation).await? else {
            return Err(BrokerError::Other(format!("{agent}-{incarnation} has no consumer")));
        };
        let name = broker.subjects().consumer(agent, *incarnation);
        let created = made.created.as_millis().saturating_mul(1_000_000);
        let consumer = ConsumerId { name, created };
        let frame = codec::encode(&ShimCommand::Begin { horizon, floor, consumer })
            .map_err(|error| BrokerError::Other(error.to_string()))?;
        broker.tell(subject.to_owned(), frame.into()).await
    }

    /// Puts the new consumer in the place of the old ones; the result is the horizon and the floor. Done before, it changes nothing.
    async fn swap(&self, broker: &Broker) -> Result<(u64, u64), BrokerError> {
        let (agent, mut start) = (&self.agent, self.floor.max(1));
        for previous in &self.over {
            start = self.settle(broker, *previous, start).await?;
        }
        if let Some(made) = broker.consumer(agent, self.incarnation).await? {
            start = made.start;
        } else {
            if self.over.is_empty() {
                // The agent's first incarnation, or one whose consumer the broker forgot or the sweeper removed: it begins with what is
                // open, also where that is before the floor.
                let scan = self.reads.open_requests(agent, start, 1).await?;
                start = scan.earlier.or(scan.open.first().map(|first| first.0)).unwrap_or(start);
            }
            broker.create_consumer(agent, self.incarnation, start, WINDOW).await?;
        }
        Ok((broker.journal_last_seq(agent).await?, start.min(self.floor)))
    }

    /// Takes the consumer away from one that took messages before, and settles its books; the result is where the next begins.
    async fn settle(
        &self,
        broker: &Broker,
        previous: Predecessor,
        from: u64,
    ) -> Result<u64, BrokerError> {
        let (agent, Predecessor { incarnation, clean }) = (&self.agent, previous);
        let known = broker.consumer(agent, incarnation).await?;
        // What it has settled since the floor was found.
        let from = known.map_or(from, |consumer| from.max(consumer.ack_floor + 1));
        if !clean {
            // While the consumer still tells what was given out: so that a try that ends half way can be repeated.
            let delivered = known.map(|consumer| consumer.delivered);
            let concurrency = self.concurrency;
            charge(&self.reads, &Open { agent, incarnation, from, delivered, concurrency }).await?;
        }
        // From here on its pulls and acks find nobody, wherever it may still run.
        broker.delete_consumer(agent, incarnation).await?;
        Ok(from)
    }
}
