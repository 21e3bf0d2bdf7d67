//! The state as clients see it: rows of `ps`, and who leads.

use broker::{BrokerError, FirstOpen};
use common::api::{AgentDetail, AgentRow, AgentState, Hello};
use supervisor_core::{Agent, Desired, NodePhase, Phase, State};
use tokio::time::{Instant, timeout_at};

use super::reads::Reads;

/// What a supervisor says of itself and of the fleet. `holder`: who holds the lease, as far as it knows.
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
    }
}

/// An agent's row, but for what only the broker knows. `open`: its shim's open turns; `messages`: how many it had when they were last
/// counted; `doing`: what its node does before it can start.
pub(super) fn row(agent: &Agent, open: u32, messages: u64, doing: Option<&str>) -> AgentRow {
    let shown = agent.current.as_ref().or(agent.next.as_ref());
    let running = agent.current.as_ref().filter(|one| one.phase == Phase::Ready);
    let doing = doing.filter(|_| agent.state() != AgentState::Running);
    AgentRow {
        agent: agent.name.clone(),
        state: agent.state(),
        reason: doing.map(str::to_owned).or_else(|| agent.reason.clone()),
        generation: agent.generation,
        incarnation: agent.incarnation,
        restart_count: agent.restart_count,
        message_count: messages,
        node: shown.map(|one| one.node.to_string()),
        started_at: agent.started_at,
        inbox: 0,
        inflight: u64::from(open),
        oldest: None,
        last_exit: agent.last_exit.as_ref().map(common::shim::Exit::describe),
        next_try: agent.next_try,
        running_incarnation: running.map(|one| one.number),
        running_generation: running.map(|one| one.generation),
        given_up: agent.given_up.clone(),
    }
}

/// Everything that the log knows about an agent, with its row.
pub(super) fn detail(agent: &Agent, row: AgentRow) -> AgentDetail {
    AgentDetail {
        id: agent.name.clone(),
        row,
        config: agent.spec.clone(),
        desired_running: agent.desired == Desired::Running,
        exit: agent.last_exit.clone(),
    }
}

/// With so many messages waiting, the consumer's own count is what is shown: it counts what has ended and is not acknowledged yet, too.
const MANY: u64 = 64;

/// Adds what only the broker knows. Where it does not answer, the figures stay as they are. What it has to go through all of an agent's
/// messages for is left out where it is not there `soon`: how many there are, and since when the oldest is open.
pub(super) async fn fill(
    reads: &Reads,
    mut row: AgentRow,
    begun: Option<u64>,
    floor: u64,
    soon: Instant,
) -> AgentRow {
    let broker = &reads.broker;
    let consumer = match begun {
        Some(begun) => broker.consumer(&row.agent, begun).await.ok().flatten(),
        None => None,
    };
    let waiting = consumer.map(|consumer| consumer.pending + consumer.ack_pending);
    row.inbox = waiting.map_or(row.inbox, |waiting| waiting.saturating_sub(row.inflight));
    if let Some(count) = by(soon, reads.counted(broker.count_messages(&row.agent))).await {
        row.message_count = count;
    }
    if waiting == Some(0) {
        return row;
    }
    let from = consumer.map_or(floor, |consumer| consumer.ack_floor + 1);
    let open = match by(soon, reads.first_open(&row.agent, from)).await {
        Some(FirstOpen::At(_, at)) => {
            row.oldest = Some(at);
            if waiting.is_some_and(|waiting| waiting > MANY) {
                return row;
            }
            // By counting, a little wrong while messages end: no agent is idle because of that.
            by(soon, reads.counted(broker.count_open(&row.agent))).await.map(|open| open.max(1))
        }
        Some(FirstOpen::NoneBefore(_)) => Some(0),
        None => None,
    };
    if let Some(open) = open {
        row.inbox = open.saturating_sub(row.inflight);
    }
    row
}

/// What the broker says by then; after that it is not even asked.
async fn by<T>(until: Instant, asked: impl Future<Output = Result<T, BrokerError>>) -> Option<T> {
    if Instant::now() >= until {
        return None;
    }
    timeout_at(until, asked).await.ok()?.ok()
}
