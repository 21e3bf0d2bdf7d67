//! Numbers for metrics: what shims tell is added up, and what the leader knows is shown.
//!
//! Each report is counted by one supervisor, whichever: the numbers of all of them together are those of the fleet. What a leader knows is
//! shown by the leader alone.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use broker::{Attempt as _, Broker, BrokerError, StreamFigures};
use common::api::{AgentState, ApiError};
use common::control::{ControlEvent, ControlRecord};
use common::figures::Queue;
use common::{AgentName, Timestamp};
use futures_util::StreamExt as _;
use metrics::{Backlog, Cause, Fleet, Shown, Stream};
use supervisor_core::{NodePhase, State};
use tokio::sync::watch;

use super::reads::Reads;
use super::{Done, Supervisor};

/// One of the supervisors gets each report.
const GROUP: &str = "figures";
/// How often streams are asked for their sizes.
const STREAMS_EVERY: Duration = Duration::from_secs(15);
/// How often what waits for agents that do not run is counted, in ticks of a second; and for how many of them at a time.
const DOWN_EVERY: u32 = 15;
const DOWN_MOST: usize = 100;
/// How many of these at once.
const AT_ONCE: usize = 4;
/// What a shim said of its queue is old after this, in milliseconds: three of its heartbeats.
const OLD: u64 = 15_000;
/// Agents that are shown by name, at most.
const NAMED: usize = 100;

/// Adds up what shims tell, and keeps the sizes of the streams, for as long as it is polled.
///
/// # Errors
/// When the client is closed.
pub(super) async fn hear(
    broker: &Broker,
    fleet: Option<Fleet>,
    streams: watch::Sender<Vec<StreamFigures>>,
    mut leads: watch::Receiver<bool>,
) -> Result<(), ApiError> {
    let Some(fleet) = fleet else { return std::future::pending().await };
    let reports = broker.subjects().shim_reports();
    let reports = broker.subscribe(reports, Some(GROUP)).await;
    let mut reports = reports.attempt("cannot listen to the figures of agents")?;
    let counting = async {
        while let Some(report) = reports.next().await {
            if let Some(figures) = report.told.figures() {
                fleet.count(&figures);
            }
        }
    };
    let asking = async {
        loop {
            if leads.wait_for(|leads| *leads).await.is_err() {
                return std::future::pending().await;
            }
            streams.send_replace(broker.stream_figures().await);
            tokio::time::sleep(STREAMS_EVERY).await;
        }
    };
    tokio::select! {
        () = counting => Ok(()),
        () = asking => Ok(()),
    }
}

/// What waits for agents that do not run, as far as it was counted.
#[derive(Debug, Default)]
pub(super) struct Waits {
    ticks: u32,
    busy: bool,
    /// Who was counted last.
    after: Option<AgentName>,
    known: BTreeMap<AgentName, Wait>,
}

/// What waits for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// Nothing is open before this sequence.
    from: u64,
    messages: u64,
    oldest: Option<Timestamp>,
}

impl Supervisor {
    /// A shim has told what waits at it.
    pub(super) fn queue_told(&mut self, agent: &AgentName, queue: Queue) {
        if self.metrics.is_some() {
            self.queues.insert(agent.clone(), (self.now_ms(), queue));
        }
    }

    /// A record was folded: a leader counts it, and nobody else does.
    pub(super) fn count_record(&self, record: &ControlRecord) {
        let leads = self.leading.as_ref().is_some_and(|leading| leading.term().is_some());
        let Some(fleet) = self.metrics.as_ref().filter(|_| leads) else { return };
        #[expect(clippy::wildcard_enum_match_arm, reason = "only some records are counted")]
        match &record.event {
            ControlEvent::IncarnationAllocated { .. } => fleet.allocated(),
            ControlEvent::IncarnationExited { exit, .. } => fleet.ended(match exit {
                exit if exit.out_of_memory => Cause::OutOfMemory,
                exit if exit.was_asked_for() || !exit.is_failure() => Cause::Stopped,
                _ => Cause::Failed,
            }),
            ControlEvent::IncarnationHung { .. } => fleet.ended(Cause::Hung),
            ControlEvent::StartFailed { .. } => fleet.ended(Cause::NotStarted),
            ControlEvent::NodeLost { .. } => fleet.node_lost(),
            ControlEvent::LeaderElected { .. } => fleet.elected(),
            _ => {}
        }
    }

    /// Shows what is known now.
    pub(super) fn show_metrics(&mut self) {
        let Some(fleet) = self.metrics.clone() else { return };
        let term = self.leading.as_ref().and_then(|leading| leading.term());
        fleet.knows(self.state.term());
        fleet.leads(term);
        fleet.is_connected(self.broker.link().borrow().up);
        if term.is_none() {
            self.waits = Waits::default();
            return fleet.show(None);
        }
        self.count_waits();
        let (now, now_ms) = (self.now(), self.now_ms());
        let queues = queues(&self.queues, &self.waits, &self.state, now, now_ms);
        let turns = self.heartbeats.values().map(|(_, beat)| u64::from(beat.open)).sum();
        let later = self.leading.as_ref().and_then(|leading| leading.later.as_ref());
        let later = later.map_or(0, super::later::Later::waiting);
        let shown = shown(&self.state, queues, turns, &self.streams.borrow());
        fleet.show(Some(Shown { later, ..shown }));
    }

    /// Counts what waits for some of the agents that do not run.
    fn count_waits(&mut self) {
        let waits = &mut self.waits;
        waits.ticks = (waits.ticks + 1) % DOWN_EVERY;
        if waits.ticks != 1 || waits.busy {
            return;
        }
        let state = &self.state;
        let is_down = |agent: &&supervisor_core::Agent| agent.incarnations().next().is_none();
        waits.known.retain(|name, _| state.agent(name).as_ref().is_some_and(is_down));
        let after = waits.after.take();
        let next = state.agents().filter(is_down);
        let next = next.filter(|agent| after.as_ref().is_none_or(|after| agent.name > *after));
        let next: Vec<(AgentName, u64)> = next
            .take(DOWN_MOST)
            .map(|agent| {
                let known = waits.known.get(&agent.name).map_or(1, |known| known.from);
                (agent.name.clone(), known.max(agent.floor).max(1))
            })
            .collect();
        // At the end of the names, it begins with the first again.
        waits.after = next.last().map(|(name, _)| name.clone()).filter(|_| next.len() == DOWN_MOST);
        if next.is_empty() {
            return;
        }
        waits.busy = true;
        let reads = self.reads.clone();
        self.task(async move {
            let counts = next.into_iter().map(|(agent, from)| {
                let reads = reads.clone();
                async move {
                    let wait = count(&reads, &agent, from).await;
                    wait.inspect_err(|error| tracing::debug!("what waits for {agent}: {error}"))
                        .ok()
                        .map(|wait| (agent, wait))
                }
            });
            let counts = futures_util::stream::iter(counts).buffer_unordered(AT_ONCE);
            Done::Waits(counts.filter_map(std::future::ready).collect().await)
        });
    }

    pub(super) fn waits_counted(&mut self, counted: Vec<(AgentName, Wait)>) {
        self.waits.busy = false;
        self.waits.known.extend(counted);
    }
}

async fn count(reads: &Reads, agent: &AgentName, from: u64) -> Result<Wait, BrokerError> {
    let first = reads.first_open(agent, from).await?;
    let (messages, oldest) = match first {
        broker::FirstOpen::NoneBefore(_) => (0, None),
        broker::FirstOpen::At(_, at) => {
            (reads.counted(reads.broker.count_open(agent)).await?.max(1), Some(at))
        }
    };
    Ok(Wait { from: first.floor(), messages, oldest })
}

/// What waits for each agent for which something does.
fn queues(
    told: &HashMap<AgentName, (u64, Queue)>,
    waits: &Waits,
    state: &State,
    now: Timestamp,
    now_ms: u64,
) -> Vec<Backlog> {
    let mut all: BTreeMap<&AgentName, Backlog> = BTreeMap::new();
    for (agent, (at, queue)) in told {
        let age = now_ms.saturating_sub(*at);
        if age > OLD || queue.held == 0 || state.agent(agent).is_none() {
            continue;
        }
        let messages = queue.held.saturating_add(queue.beyond);
        let oldest_ms = queue.oldest_ms.saturating_add(age);
        all.insert(agent, Backlog { agent: agent.to_string(), messages, oldest_ms });
    }
    for (agent, wait) in &waits.known {
        if wait.messages > 0 && !all.contains_key(agent) {
            let oldest = wait.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
            let oldest_ms = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
            let messages = wait.messages;
            all.insert(agent, Backlog { agent: agent.to_string(), messages, oldest_ms });
        }
    }
    all.into_values().collect()
}

const STATES: [AgentState; 5] = [
    AgentState::Starting,
    AgentState::Running,
    AgentState::Error,
    AgentState::Stopping,
    AgentState::Stopped,
];
const PHASES: [(NodePhase, &str); 3] =
    [(NodePhase::Up, "up"), (NodePhase::Draining, "draining"), (NodePhase::Lost, "lost")];

fn shown(
    state: &State,
    mut backlogs: Vec<Backlog>,
    turns: u64,
    streams: &[StreamFigures],
) -> Shown {
    let count = |is: AgentState| state.agents().filter(|agent| agent.state() == is).count() as u64;
    let failing = state.agents().filter(|agent| agent.state() == AgentState::Error);
    let nodes = |is: NodePhase| state.nodes().filter(|node| node.phase == is).count() as u64;
    let queue = backlogs.iter().fold(0_u64, |all, one| all.saturating_add(one.messages));
    let oldest_ms = backlogs.iter().map(|one| one.oldest_ms).max().unwrap_or(0);
    backlogs.sort_by_key(|one| std::cmp::Reverse(one.messages));
    backlogs.truncate(NAMED);
    Shown {
        agents: STATES.iter().map(|state| (state.as_str(), count(*state))).collect(),
        quarantined: state.agents().filter(|agent| agent.is_quarantined()).count() as u64,
        failing: failing.take(NAMED).map(|agent| agent.name.to_string()).collect(),
        nodes: PHASES.iter().map(|(phase, name)| (*name, nodes(*phase))).collect(),
        queue,
        oldest_ms,
        turns,
        later: 0,
        backlogs,
        streams: streams
            .iter()
            .map(|stream| Stream {
                name: stream.name.clone(),
                records: stream.records,
                bytes: stream.bytes,
                limit: stream.limit,
                last: stream.last,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_long_ago_and_of_agents_that_are_gone_is_not_shown() {
        let name = |name: &str| AgentName::new(name).expect("valid");
        let queue = Queue { held: 2, beyond: 3, oldest_ms: 100 };
        let told = HashMap::from([(name("a"), (1_000, queue))]);
        let (state, now) = (State::default(), Timestamp::from_millis(50_000));
        assert_eq!(queues(&told, &Waits::default(), &state, now, 2_000), [], "it was removed");
        let wait = Wait { from: 1, messages: 4, oldest: Some(Timestamp::from_millis(20_000)) };
        let waits = Waits { known: BTreeMap::from([(name("b"), wait)]), ..Waits::default() };
        let backlog = Backlog { agent: "b".into(), messages: 4, oldest_ms: 30_000 };
        let shown_queues = queues(&told, &waits, &state, now, 2_000);
        assert_eq!(shown_queues, [backlog]);
        let shown = shown(&state, shown_queues, 0, &[]);
        assert_eq!((shown.queue, shown.oldest_ms, shown.agents.len()), (4, 30_000, 5));
    }
}
