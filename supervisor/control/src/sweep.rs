//! The sweeper: finds messages that are neither final nor on their way to anybody, and has their consumer recreated.
//!
//! It is the backstop behind redelivery and `max_deliver`: all agents within seconds, but only those that seem to have nothing to do, and of
//! them only the journals of those that were given something since the last look. So its cost is that of what happens, not of what there is.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::BrokerError;
use common::api::AgentState;
use common::{AgentName, Timestamp};
use futures_util::StreamExt as _;

use super::reads::Reads;
use super::{Done, Supervisor};

/// A message that is open for longer, while its agent has nothing to do, is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Consumers of incarnations that are no more are looked for this often, in ticks of a second.
const CONSUMERS_EVERY: u32 = 60;

/// All agents are looked at within so many ticks, but no more than this many in one.
const ROUND: usize = 10;
const MOST: usize = 200;
/// How many of them at once.
const AT_ONCE: usize = 8;

/// How far each agent's journal has been swept.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    ticks: u32,
    after: Option<AgentName>,
    busy: bool,
    checked: BTreeMap<AgentName, Checked>,
}

/// What a look at an agent found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    /// Nothing is open before this sequence.
    from: u64,
    /// What its consumer had given out when nothing was open at all; none if something was. As long as it gives out nothing more, there
    /// is nothing to look for.
    delivered: Option<u64>,
}

/// An agent that seems to have nothing to do.
struct Idle {
    agent: AgentName,
    incarnation: u64,
    checked: Checked,
}

impl Supervisor {
    /// Sweeps the next agents, in the order of names.
    pub(super) fn sweep_next(&mut self) {
        let state = &self.state;
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.term().is_some()) else {
            return;
        };
        let sweep = &mut leading.sweep;
        sweep.ticks = (sweep.ticks + 1) % CONSUMERS_EVERY;
        if sweep.ticks == 0 {
            return self.list_consumers();
        }
        if sweep.busy {
            return;
        }
        let after = sweep.after.take();
        let count = state.agents().count().div_ceil(ROUND).clamp(1, MOST);
        let rest =
            state.agents().filter(|agent| after.as_ref().is_none_or(|name| agent.name > *name));
        let next: Vec<_> = rest.take(count).collect();
        sweep.after = next.last().map(|agent| agent.name.clone());
        let heartbeats = &self.heartbeats;
        let idle: Vec<_> = next
            .into_iter()
            .filter_map(|agent| {
                let (number, heartbeat) = heartbeats.get(&agent.name)?;
                let incarnation = agent.begun.filter(|begun| begun == number)?;
                let is_idle = heartbeat.held == 0 && agent.state() == AgentState::Running;
                let nothing = Checked { from: 1, delivered: None };
                let checked = sweep.checked.get(&agent.name).copied().unwrap_or(nothing);
                is_idle.then(|| Idle { agent: agent.name.clone(), incarnation, checked })
            })
            .collect();
        if idle.is_empty() {
            return;
        }
        sweep.busy = true;
        let (reads, now) = (self.reads.clone(), self.now());
        self.task(async move {
            let looks = idle.into_iter().map(|idle| {
                let reads = reads.clone();
                async move { check(&reads, idle, now).await }
            });
            let looks = futures_util::stream::iter(looks).buffer_unordered(AT_ONCE);
            Done::Swept(looks.filter_map(std::future::ready).collect().await)
        });
    }

    /// Looks for consumers without an incarnation.
    fn list_consumers(&mut self) {
        let broker = self.broker.clone();
        self.task(async move {
            match broker.consumers().await {
                Ok(consumers) => Done::Consumers(consumers),
                Err(error) => {
                    tracing::warn!("cannot list stale consumers: {error}");
                    Done::Nothing
                }
            }
        });
    }

    /// Deletes the consumers of removed agents, and of incarnations before the one in force: what a leader's death in the middle
    /// of a handover may leave. The list is older than the state: a consumer is made only after its agent is on record.
    pub(super) fn drop_consumers(&mut self, consumers: Vec<(AgentName, u64)>) {
        if self.acting().is_none() {
            return;
        }
        let is_stale = |(agent, incarnation): &(AgentName, u64)| {
            self.state.agent(agent).is_none_or(|known| *incarnation < known.begun.unwrap_or(0))
        };
        let stale: Vec<_> = consumers.into_iter().filter(is_stale).collect();
        let broker = self.broker.clone();
        self.task(async move {
            for (agent, incarnation) in stale {
                tracing::info!("deleted the stale consumer of {agent}-{incarnation}");
                if let Err(error) = broker.delete_consumer(&agent, incarnation).await {
                    tracing::warn!("cannot delete the consumer of {agent}-{incarnation}: {error}");
                }
            }
            Done::Nothing
        });
    }

    pub(super) fn swept(&mut self, checked: Vec<(AgentName, Checked)>) {
        let Some(leading) = &mut self.leading else { return };
        leading.sweep.busy = false;
        leading.sweep.checked.extend(checked);
    }
}

/// Checks one agent; none if the broker does not tell.
async fn check(reads: &Reads, idle: Idle, now: Timestamp) -> Option<(AgentName, Checked)> {
    let agent = idle.agent.clone();
    match look(reads, idle, now).await {
        Ok(checked) => Some((agent, checked)),
        Err(error) => {
            tracing::warn!("cannot sweep {agent}: {error}");
            None
        }
    }
}

async fn look(
    reads: &Reads,
    Idle { agent, incarnation, checked }: Idle,
    now: Timestamp,
) -> Result<Checked, BrokerError> {
    let broker = &reads.broker;
    let Some(consumer) = broker.consumer(&agent, incarnation).await? else { return Ok(checked) };
    let is_busy = consumer.pending > 0 || consumer.ack_pending > 0;
    if is_busy || checked.delivered == Some(consumer.delivered) {
        return Ok(checked);
    }
    let scan = reads.open_requests(&agent, checked.from.max(1), 1).await?;
    let Some((seq, key, at)) = scan.open.first() else {
        return Ok(Checked { from: scan.last_seq + 1, delivered: Some(consumer.delivered) });
    };
    if now.since(*at) > STUCK && *seq <= consumer.delivered {
        tracing::warn!(
            "message {} of {agent} has been open since {at} but is not pending in the consumer: recreating the consumer",
            key.message_id
        );
        // The shim finds it gone and says ready; the handover then begins with what is open.
        broker.delete_consumer(&agent, incarnation).await?;
    }
    Ok(Checked { from: *seq, delivered: None })
}
