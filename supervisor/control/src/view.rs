//! The state as clients see it: rows of `ps`, and who leads.

use broker::FirstOpen;
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

/// An agent's row, but for what only the broker knows. `open`: its shim's open turns; `doing`: what its node does before it can start.
pub(super) fn row(agent: &Agent, open: u32, doing: Option<&str>) -> AgentRow {
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
        message_count: 0,
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

/// Adds what only the broker knows. Where it does not answer, the figures stay 0; how old the oldest open message is
/// is not shown where that is not found `soon`: among many finished ones, all have to be looked at.
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
    row.message_count = broker.count_messages(&row.agent).await.unwrap_or(0);
    let waiting = consumer.map(|consumer| consumer.pending + consumer.ack_pending);
    if waiting == Some(0) {
        return row;
    }
    let (counted, first) = tokio::join!(broker.count_open(&row.agent), async {
        let from = consumer.map_or(floor, |consumer| consumer.ack_floor + 1);
        timeout_at(soon, reads.first_open(&row.agent, from)).await
    });
    let counted = counted.unwrap_or(0);
    let open = match first {
        Ok(Ok(FirstOpen::At(_, at))) => {
            row.oldest = Some(at);
            counted.max(1)
        }
        Ok(Ok(FirstOpen::NoneBefore(_))) => 0,
        // Counting is a little wrong while messages end. An agent is not called idle because of that.
        Ok(Err(_)) | Err(_) => counted.max(u64::from(consumer.is_some())),
    };
    row.inbox = open.saturating_sub(row.inflight);
    row
}
