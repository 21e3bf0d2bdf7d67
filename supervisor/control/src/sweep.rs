//! The sweeper: finds messages that are neither final nor on their way to anybody, and has their consumer made anew.
//!
//! It is the backstop behind redelivery and `max_deliver`: one agent a tick, only those that seem to have nothing to do.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::BrokerError;
use common::api::AgentState;
use common::{AgentName, Timestamp};

use super::reads::Reads;
use super::{Done, Supervisor};

/// A message that is open for longer, while its agent has nothing to do, is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Consumers of incarnations that are no more are looked for this often, in ticks of a second.
const CONSUMERS_EVERY: u32 = 60;

/// How far each agent's journal has been swept.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    ticks: u32,
    after: Option<AgentName>,
    busy: bool,
    checked: BTreeMap<AgentName, u64>,
}

impl Supervisor {
    /// Sweeps the next agent, in the order of names, one at a time.
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
        let next =
            state.agents().find(|agent| after.as_ref().is_none_or(|after| agent.name > *after));
        let Some(agent) = next else { return };
        sweep.after = Some(agent.name.clone());
        let idle = self
            .heartbeats
            .get(&agent.name)
            .is_some_and(|(number, heartbeat)| agent.begun == Some(*number) && heartbeat.held == 0);
        let Some(incarnation) =
            agent.begun.filter(|_| idle && agent.state() == AgentState::Running)
        else {
            return;
        };
        sweep.busy = true;
        let (agent, from) = (agent.name.clone(), sweep.checked.get(&agent.name).copied());
        let (reads, now) = (self.reads.clone(), self.now());
        let from = from.unwrap_or(1).max(1);
        self.task(async move {
            let checked = check(&reads, &agent, incarnation, from, now).await;
            let checked =
                checked.inspect_err(|error| tracing::warn!("cannot sweep {agent}: {error}"));
            Done::Swept { agent, checked: checked.ok() }
        });
    }

    /// Looks for consumers that serve nobody.
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

    pub(super) fn swept(&mut self, agent: AgentName, checked: Option<u64>) {
        let Some(leading) = &mut self.leading else { return };
        leading.sweep.busy = false;
        if let Some(checked) = checked {
            leading.sweep.checked.insert(agent, checked);
        }
    }
}

/// Checks one agent; the result is the sequence before which nothing is open.
async fn check(
    reads: &Reads,
    agent: &AgentName,
    incarnation: u64,
    from: u64,
    now: Timestamp,
) -> Result<u64, BrokerError> {
    let broker = &reads.broker;
    let Some(consumer) = broker.consumer(agent, incarnation).await? else { return Ok(from) };
    if consumer.pending > 0 || consumer.ack_pending > 0 {
        return Ok(from);
    }
    let scan = reads.open_requests(agent, from, 1).await?;
    let Some((seq, key, at)) = scan.open.first() else { return Ok(scan.last_seq + 1) };
    if now.since(*at) > STUCK && *seq <= consumer.delivered {
        tracing::warn!(
            "message {} of {agent} is open since {at} but not pending in the consumer: recreating the consumer",
            key.message_id
        );
        // The shim finds it gone and says ready; the handover then begins with what is open.
        broker.delete_consumer(agent, incarnation).await?;
    }
    Ok(*seq)
}
