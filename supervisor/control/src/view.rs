//! The state as clients see it: rows of `ps`, and who leads.

use broker::{BrokerError, FirstOpen};
use common::api::{
    AgentDetail, AgentRow, AgentState, Counts, DrainRow, Hello, NodeRow, NodeState, PlacementRow,
    StayRow,
};
use common::{AgentName, NodeName, Timestamp};
use supervisor_core::{Agent, Desired, Drain, Node, NodePhase, Phase, State};
use tokio::time::{Instant, timeout_at};

use super::reads::Reads;

/// What a supervisor reports about itself and the fleet. `holder`: who holds the lease, as far as it knows.
pub(super) fn hello(id: &str, holder: Option<String>, state: &State) -> Hello {
    let in_phase = |phase| {
        let nodes = state.nodes().filter(move |node| node.phase == phase);
        nodes.map(|node| node.name.to_string()).collect()
    };
    Hello {
        supervisor: id.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        leader: state.leader().map(|leader| leader.supervisor.clone()),
        holder,
        unreadable: state.unreadable().map(|what| format!("record {}: {}", what.seq, what.why)),
        term: state.term(),
        nodes: in_phase(NodePhase::Up),
        draining: in_phase(NodePhase::Draining),
        lost: in_phase(NodePhase::Lost),
    }
}

/// A node as clients see it; `whole`: with the agents that run there.
pub(super) fn node(state: &State, node: &Node, whole: bool) -> NodeRow {
    let runs_there = |agent: &&Agent| {
        let all = agent.current.iter().chain(&agent.next).chain(&agent.retiring);
        all.into_iter().any(|incarnation| incarnation.node == node.name)
    };
    let agents = whole.then(|| {
        let agents = state.agents().filter(runs_there);
        agents.map(|agent| agent.name.clone()).collect()
    });
    let (unusable, runtimes) =
        node.runtimes.iter().cloned().partition(|one| supervisor_core::unusable(one).is_some());
    NodeRow {
        node: node.name.clone(),
        state: match node.phase {
            NodePhase::Up => NodeState::Up,
            NodePhase::Draining => NodeState::Draining,
            NodePhase::Lost => NodeState::Lost,
        },
        incarnations: node.incarnations,
        runtimes,
        unusable,
        labels: node.labels.clone(),
        capacity: node.capacity,
        used: node.load,
        lost_at: node.lost_at,
        drain: supervisor_core::drain(state, &node.name).map(drain),
        failed: supervisor_core::failed(state, node).cloned().collect(),
        agents,
        pinned: if whole { pinned(state, &node.name) } else { Vec::new() },
    }
}

/// The agents whose SANCTUMs are on a node.
pub(super) fn pinned(state: &State, node: &NodeName) -> Vec<AgentName> {
    let there = state.agents().filter(|agent| agent.pinned_to() == Some(node));
    there.map(|agent| agent.name.clone()).collect()
}

fn drain(drain: Drain) -> DrainRow {
    let stay = |(agent, reason)| StayRow { agent, reason };
    DrainRow {
        parallel: drain.parallel,
        moving: drain.moving,
        waiting: drain.waiting,
        staying: drain.staying.into_iter().map(stay).collect(),
    }
}

/// What the broker last told of an agent's messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    messages: u64,
    /// Those that are open.
    open: u64,
    oldest: Option<Timestamp>,
}

impl Counted {
    /// What a row tells, if it tells anything.
    pub(super) fn of(row: &AgentRow) -> Option<Self> {
        (row.counts != Counts::Unknown).then_some(Self {
            messages: row.message_count,
            open: row.inbox + row.inflight,
            oldest: row.oldest,
        })
    }
}

/// An agent's row, but for what only the broker knows. `inflight`: its shim's open turns; `counted`: what the broker last told; `doing`:
/// what its node does before it can start.
pub(super) fn row(
    agent: &Agent,
    inflight: u32,
    counted: Option<Counted>,
    doing: Option<&str>,
    reported: bool,
) -> AgentRow {
    let inflight = u64::from(inflight);
    let shown = agent.current.as_ref().or(agent.next.as_ref());
    let running = agent.current.as_ref().filter(|one| one.phase == Phase::Ready);
    let doing = doing.filter(|_| agent.state() != AgentState::Running);
    AgentRow {
        agent: agent.name.clone(),
        state: agent.state(),
        reason: doing
            .map(str::to_owned)
            .or_else(|| agent.reason.as_deref().map(supervisor_core::reworded)),
        generation: agent.generation,
        incarnation: agent.incarnation,
        restart_count: agent.restarts_done(),
        message_count: counted.map_or(0, |counted| counted.messages),
        node: shown.map(|one| one.node.to_string()),
        started_at: agent.started_at,
        inbox: counted.map_or(0, |counted| counted.open.saturating_sub(inflight)),
        inflight,
        oldest: counted.and_then(|counted| counted.oldest),
        asks: 0,
        counts: if counted.is_some() { Counts::Earlier } else { Counts::Unknown },
        last_exit: agent.last_exit.as_ref().map(common::shim::Exit::words),
        last_exit_at: agent.last_exit_at,
        next_try: agent.next_try,
        reported: reported || running.is_none(),
        running_incarnation: running.map(|one| one.number),
        running_generation: running.map(|one| one.generation),
        given_up: agent.given_up.as_deref().map(supervisor_core::reworded),
        target_generation: agent.target,
        quarantined: agent.is_quarantined(),
    }
}

/// Everything that the log knows about an agent, with its row.
pub(super) fn detail(state: &State, agent: &Agent, row: AgentRow) -> AgentDetail {
    let ready = agent.current.as_ref().filter(|one| one.phase == Phase::Ready);
    let runs = ready.map_or(agent.target, |one| one.generation);
    let earlier = agent.spec_of(runs).filter(|_| runs != agent.generation);
    AgentDetail {
        id: agent.name.clone(),
        running_config: earlier.cloned().map(Box::new),
        row,
        config: agent.spec.clone(),
        desired_running: agent.desired == Desired::Running,
        exit: agent.last_exit.clone(),
        placement: supervisor_core::verdicts(state, agent)
            .into_iter()
            .map(|verdict| PlacementRow {
                text: verdict.words(),
                nodes: verdict.nodes,
                reason: verdict.why,
            })
            .collect(),
        pinned_to: agent.pinned_to().cloned(),
    }
}

/// With so many messages waiting, the consumer's own count is what is shown: it counts what has ended and is not acknowledged yet, too.
const MANY: u64 = 64;

/// Adds what only the broker knows. Where it does not answer `soon`, the figures stay as they are.
pub(super) async fn fill(
    reads: &Reads,
    mut row: AgentRow,
    begun: Option<u64>,
    floor: u64,
    soon: Instant,
) -> AgentRow {
    let broker = &reads.broker;
    let consumer = match begun {
        Some(begun) => by(soon, broker.consumer(&row.agent, begun)).await.flatten(),
        None => None,
    };
    if let Some(count) = by(soon, reads.counted(broker.count_messages(&row.agent))).await {
        row.message_count = count;
    }
    let waiting = consumer.map(|consumer| consumer.pending + consumer.ack_pending);
    let from = consumer.map_or(floor, |consumer| consumer.ack_floor + 1);
    let told = match waiting {
        Some(0) => Some((0, None)),
        _ => open(reads, &row.agent, from, waiting, soon).await,
    };
    if let Some((open, oldest)) = told {
        row.inbox = open.saturating_sub(row.inflight);
        row.oldest = oldest;
        row.counts = Counts::Current;
    }
    row
}

/// How many messages are open, and since when the oldest is. `waiting`: what the consumer counts.
async fn open(
    reads: &Reads,
    agent: &AgentName,
    from: u64,
    waiting: Option<u64>,
    soon: Instant,
) -> Option<(u64, Option<Timestamp>)> {
    match by(soon, reads.first_open(agent, from)).await? {
        FirstOpen::NoneBefore(_) => Some((0, None)),
        FirstOpen::At(_, oldest) => {
            let many = waiting.filter(|waiting| *waiting > MANY);
            let open = match many {
                Some(many) => many,
                // By counting, a little wrong while messages end: no agent is idle because of that.
                None => by(soon, reads.counted(reads.broker.count_open(agent))).await?.max(1),
            };
            Some((open, Some(oldest)))
        }
    }
}

/// What the broker says by then; after that it is not even asked.
pub(super) async fn by<T>(
    until: Instant,
    asked: impl Future<Output = Result<T, BrokerError>>,
) -> Option<T> {
    if Instant::now() >= until {
        return None;
    }
    timeout_at(until, asked).await.ok()?.ok()
}
