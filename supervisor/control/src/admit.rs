//! The handover: an incarnation's consumer takes the place of the one before, then its shim is told to begin.
//!
//! After a crash nobody takes messages any more, so the new consumer is prepared while the new shim starts: then nothing but the
//! record and the word to begin lies between `ready` and the first turn.

use broker::{Admission, Admitted, BrokerError, Moment, WINDOW};
use common::control::ControlEvent;
use common::frame::{ConsumerId, ShimCommand};
use common::{AgentName, Timestamp, codec};
use futures_util::future::BoxFuture;
use supervisor_core::{Action, Incarnation, Phase, Predecessor};
use tokio_util::sync::CancellationToken;

use super::queue::{Asked, Limits, Next, Turn};
use super::reads::Reads;
use super::settle::{Open, charge};
use super::{Done, Supervisor};

/// So much is done for agents at once: enough to keep the broker busy, also while some of it waits for a server of a cluster that is gone.
/// It must not fill the broker's queue of requests: whoever waits there, waits behind all of it.
const AT_ONCE: usize = 128;

/// The limits of the queue, with so many journal streams: one of them that does not answer takes its own share of the turns only.
pub(super) fn limits(streams: u32) -> Limits {
    let streams = usize::try_from(streams).unwrap_or(usize::MAX).max(1);
    Limits { most: AT_ONCE, of_lane: (AT_ONCE / streams).max(1) }
}

/// What is done for an agent in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// The consumer of an incarnation is made before that is ready.
    Prepare,
    /// The sequence is looked for with which an incarnation that became ready begins.
    Floor,
    /// An incarnation takes over.
    Handover,
}

/// A turn that has ended.
pub(super) struct Ended {
    /// That of the leadership that gave it.
    tenure: u64,
    turn: Turn,
    agent: AgentName,
    what: What,
    incarnation: u64,
    tries: u32,
    came: Result<Came, BrokerError>,
}

/// The result of a turn.
enum Came {
    Prepared(Prepared),
    /// Everything before it is settled.
    Floor(u64),
    /// It took over; `swapped`: there was something to take over.
    Over {
        swapped: bool,
    },
    /// It is for another to do: a later incarnation was admitted, or what is done for that has ended this.
    Nothing,
}

type Work = BoxFuture<'static, Result<Came, BrokerError>>;

/// A consumer made before its incarnation was ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prepared {
    pub(super) incarnation: u64,
    /// Everything before it is settled.
    pub(super) floor: u64,
    /// Nothing after it had been given out to the incarnation before.
    pub(super) horizon: u64,
    /// When the consumer was made.
    created: Timestamp,
}

/// A consumer that takes the place of others.
struct Swapped {
    /// Nothing after it had been given out to others.
    horizon: u64,
    /// Everything before it is settled.
    floor: u64,
    /// When the consumer was made: by that the shim knows it from another one of the name.
    created: Timestamp,
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
    /// Where its shim is told.
    subject: String,
}

impl Supervisor {
    /// Makes the consumer of an incarnation that takes over from one that has ended.
    pub(super) fn prepare(&mut self, agent: &AgentName, incarnation: u64) {
        self.ask(agent.clone(), What::Prepare, incarnation);
    }

    /// Looks for the sequence before which everything is settled, for an incarnation that became ready.
    pub(super) fn find_floor(&mut self, agent: AgentName, incarnation: u64) {
        if let Some(prepared) = self.prepared_for(&agent, incarnation) {
            return self.floor_found(agent, incarnation, prepared.floor);
        }
        self.too_late_to_prepare(&agent);
        self.ask(agent, What::Floor, incarnation);
    }

    /// Hands the agent's messages to an incarnation.
    pub(super) fn admit(&mut self, agent: AgentName, incarnation: u64) {
        self.too_late_to_prepare(&agent);
        self.ask(agent, What::Handover, incarnation);
    }

    /// A consumer that is not being made yet is made by the handover.
    fn too_late_to_prepare(&mut self, agent: &AgentName) {
        if let Some(leading) = &mut self.leading {
            leading.queue.forget(&(agent.clone(), What::Prepare));
        }
    }

    /// It is done when its turn comes.
    fn ask(&mut self, agent: AgentName, what: What, incarnation: u64) {
        let lane = self.broker.subjects().shard(&agent);
        let Some(leading) = self.acting() else { return };
        if let Asked::Instead(earlier) = leading.queue.ask((agent, what), lane, incarnation) {
            leading.turns.remove(&earlier);
        }
    }

    /// Begins what has its turn now.
    pub(super) fn take_turns(&mut self) {
        loop {
            let Some(leading) = self.acting() else { return };
            let Some(next) = leading.queue.next(Moment::now()) else { return };
            let Next { turn, key: (agent, what), incarnation, tries } = next;
            let work = self.work(&agent, what, incarnation);
            let Some(leading) = &mut self.leading else { return };
            let Some(work) = work else {
                leading.queue.done(turn);
                continue;
            };
            // What is done instead ends it, and the end of this leadership.
            let given_up = CancellationToken::new();
            leading.turns.insert(turn, given_up.clone().drop_guard());
            let tenure = leading.tenure;
            self.task(async move {
                let came = given_up.run_until_cancelled_owned(work).await;
                let came = came.unwrap_or(Ok(Came::Nothing));
                Done::Turn(Ended { tenure, turn, agent, what, incarnation, tries, came })
            });
        }
    }

    /// What is to be done in a turn, as things are by now; none if that is nothing any more.
    fn work(&mut self, agent: &AgentName, what: What, incarnation: u64) -> Option<Work> {
        let known = self.state.agent(agent)?;
        let (previous, floor) = (known.begun, known.floor);
        let is_starting = |one: &Incarnation| one.phase == Phase::Starting;
        let starts = known.incarnation(incarnation).is_some_and(is_starting);
        let (reads, of) = (self.reads.clone(), agent.clone());
        match what {
            What::Prepare => {
                let previous = previous.filter(|_| starts)?;
                let stale = self.leading.as_mut()?.prepared.remove(agent);
                Some(Box::pin(async move {
                    let made = prepare(&reads, &of, incarnation, previous, floor, stale).await;
                    made.map(Came::Prepared)
                }))
            }
            What::Floor => starts.then_some(Box::pin(async move {
                find_floor(&reads, &of, previous, floor).await.map(Came::Floor)
            })),
            What::Handover => {
                let over = self.handover(agent, incarnation)?;
                Some(Box::pin(async move { over.perform(&reads).await }))
            }
        }
    }

    /// What an incarnation has to take over; none if it is not its turn any more.
    fn handover(&self, agent: &AgentName, incarnation: u64) -> Option<Handover> {
        let known = self.state.agent(agent)?;
        let Some(Action::Admit { floor, previous, previous_clean: clean, earlier, .. }) =
            known.admit().filter(|_| known.begun == Some(incarnation))
        else {
            return None;
        };
        let previous = previous.map(|incarnation| Predecessor { incarnation, clean });
        let mut over: Vec<_> = earlier.into_iter().chain(previous).collect();
        let unrecorded = !over.is_empty();
        // Done already, and the record of it is on its way: its books are not opened again, the new shim may be writing in them.
        if self.leading.as_ref()?.swapped.get(agent) == Some(&incarnation) {
            over.clear();
        }
        let subjects = self.broker.subjects();
        Some(Handover {
            agent: agent.clone(),
            incarnation,
            floor,
            over,
            unrecorded,
            concurrency: known.spec.concurrency as usize,
            prepared: self.prepared_for(agent, incarnation),
            subject: subjects.shim_command(agent, &self.token(agent, incarnation)),
        })
    }

    fn prepared_for(&self, agent: &AgentName, incarnation: u64) -> Option<Prepared> {
        let prepared = self.leading.as_ref()?.prepared.get(agent).copied();
        prepared.filter(|prepared| prepared.incarnation == incarnation)
    }

    pub(super) fn turn_ended(&mut self, ended: Ended) {
        let Ended { tenure, turn, agent, what, incarnation, tries, came } = ended;
        let Some(leading) = self.leading.as_mut().filter(|it| it.tenure == tenure) else { return };
        // One that was given up says nothing of what is done in its place.
        let is_wanted = leading.turns.remove(&turn).is_some();
        let came = match came {
            Ok(came) => came,
            // The handover does it then.
            Err(error) if what == What::Prepare => {
                tracing::debug!("preparing {agent}-{incarnation}: {error}");
                Came::Nothing
            }
            // Also of what does not pass by itself: nobody but its leader can serve an agent, and somebody may repair it.
            Err(error) => {
                let until = Moment::now().after(broker::pause_after(tries));
                if leading.queue.failed(turn, until) {
                    tracing::warn!(
                        "{} {agent}-{incarnation} failed, retrying: {error}",
                        what.name()
                    );
                }
                if what == What::Handover {
                    // What was prepared may be what is missing.
                    leading.prepared.remove(&agent);
                }
                return;
            }
        };
        leading.queue.done(turn);
        match came {
            Came::Prepared(prepared) if is_wanted => drop(leading.prepared.insert(agent, prepared)),
            Came::Floor(floor) if is_wanted => self.floor_found(agent, incarnation, floor),
            Came::Over { swapped } if is_wanted => self.admitted(agent, incarnation, swapped),
            Came::Prepared(_) | Came::Floor(_) | Came::Over { .. } | Came::Nothing => {}
        }
    }

    fn floor_found(&mut self, agent: AgentName, incarnation: u64, floor: u64) {
        let Some(leading) = &mut self.leading else { return };
        leading.readied.insert((agent.clone(), incarnation));
        self.decide(ControlEvent::IncarnationReady { agent, incarnation, floor });
    }

    fn admitted(&mut self, agent: AgentName, incarnation: u64, swapped: bool) {
        let Some(leading) = &mut self.leading else { return };
        if leading.prepared.get(&agent).is_some_and(|one| one.incarnation <= incarnation) {
            leading.prepared.remove(&agent);
        }
        if swapped {
            leading.swapped.insert(agent.clone(), incarnation);
            self.decide(ControlEvent::IncarnationBegun { agent, incarnation });
        }
    }
}

impl What {
    /// In the log.
    fn name(self) -> &'static str {
        match self {
            Self::Prepare => "preparing",
            Self::Floor => "finding the start sequence of",
            Self::Handover => "the handover to",
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
    Ok(Prepared { incarnation, floor, horizon: horizon?, created: created?.created })
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
    Ok(reads.first_open(agent, known).await?.floor())
}

impl Handover {
    /// Swaps the consumers, and tells the shim to begin.
    ///
    /// A leader that was deposed and does not know it may do this at the same time as its successor. So the incarnation is admitted before
    /// anything is done, which only the latest one can be, and that is looked at again after its consumer was made: whoever is
    /// late finds out, and removes its own consumer and no other.
    async fn perform(&self, reads: &Reads) -> Result<Came, BrokerError> {
        let (agent, incarnation, broker) = (&self.agent, self.incarnation, &reads.broker);
        let consumer = broker.subjects().consumer(agent, incarnation);
        let wanted = Admitted { incarnation, consumer };
        if let Admission::Lost(later) = broker.admit(agent, &wanted).await? {
            return Ok(self.too_late(later.incarnation));
        }
        let prepared = match (self.over.as_slice(), self.prepared) {
            // It has ended and its books are settled: its consumer serves nobody, and may go after the new one has begun.
            (
                [Predecessor { incarnation, clean: true }],
                Some(Prepared { horizon, created, .. }),
            ) => Some((*incarnation, Swapped { horizon, floor: self.floor, created })),
            _ => None,
        };
        let (previous, swapped) = match prepared {
            Some((previous, prepared)) => (Some(previous), prepared),
            None => (None, self.swap(reads).await?),
        };
        if let Some(later) = broker.admitted(agent).await?
            && later.incarnation > incarnation
        {
            broker.delete_consumer(agent, incarnation).await?;
            return Ok(self.too_late(later.incarnation));
        }
        self.begin(reads, swapped).await?;
        if let Some(previous) = previous {
            broker.delete_consumer(agent, previous).await?;
        }
        Ok(Came::Over { swapped: self.unrecorded })
    }

    fn too_late(&self, later: u64) -> Came {
        let Self { agent, incarnation, .. } = self;
        tracing::warn!("{agent}-{incarnation} is not admitted: {agent}-{later} is newer");
        // That is on record, and this leader will read it.
        Came::Nothing
    }

    async fn begin(&self, reads: &Reads, swapped: Swapped) -> Result<(), BrokerError> {
        let Swapped { horizon, floor, created } = swapped;
        let name = reads.broker.consumer_name(&self.agent, self.incarnation).await?;
        let created = created.as_millis().saturating_mul(1_000_000);
        let consumer = ConsumerId { name, created };
        let frame = codec::encode(&ShimCommand::Begin { horizon, floor, consumer })
            .map_err(|error| BrokerError::Other(error.to_string()))?;
        reads.broker.tell(self.subject.clone(), frame.into()).await
    }

    /// Puts the new consumer in the place of the old ones. Done before, it changes nothing.
    async fn swap(&self, reads: &Reads) -> Result<Swapped, BrokerError> {
        let (agent, mut start, broker) = (&self.agent, self.floor.max(1), &reads.broker);
        for previous in &self.over {
            start = self.settle(reads, *previous, start).await?;
        }
        let mut last = None;
        let there = broker.consumer(agent, self.incarnation).await?;
        if there.is_none() && self.over.is_empty() {
            // The agent's first incarnation, or one whose consumer the broker forgot or the sweeper removed: it begins with what is
            // open, also where that is before the floor.
            let scan = reads.open_requests(agent, start, 1).await?;
            start = scan.earlier.or(scan.open.first().map(|first| first.0)).unwrap_or(start);
            // What came since was given to nobody: there was no consumer. In a cluster there may be one that nobody hears.
            last = Some(scan.last_seq).filter(|_| broker.replicas() == 1);
        }
        let made = match there {
            Some(made) => made,
            None => broker.create_consumer(agent, self.incarnation, start, WINDOW).await?,
        };
        let horizon = match last {
            Some(last) => last,
            None => broker.journal_last_seq(agent).await?,
        };
        Ok(Swapped { horizon, floor: made.start.min(self.floor), created: made.created })
    }

    /// Takes the consumer away from one that took messages before, and settles its books; the result is where the next begins.
    async fn settle(
        &self,
        reads: &Reads,
        previous: Predecessor,
        from: u64,
    ) -> Result<u64, BrokerError> {
        let (agent, Predecessor { incarnation, clean }) = (&self.agent, previous);
        let broker = &reads.broker;
        let known = broker.consumer(agent, incarnation).await?;
        // What it has settled since the floor was found.
        let from = known.map_or(from, |consumer| from.max(consumer.ack_floor + 1));
        if !clean {
            // While the consumer still tells what was given out: so that a try that ends half way can be repeated.
            let delivered = known.map(|consumer| consumer.delivered);
            let concurrency = self.concurrency;
            charge(reads, &Open { agent, incarnation, from, delivered, concurrency }).await?;
        }
        // From here on its pulls and acks find nobody, wherever it may still run.
        broker.delete_consumer(agent, incarnation).await?;
        Ok(from)
    }
}
