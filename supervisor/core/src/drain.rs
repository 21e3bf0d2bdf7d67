//! Drained nodes: their agents are moved to others, so many at a time, by whoever leads.
//!
//! It is decided by the fold, after every record: whoever asked for the drain need not be there any more.

use common::{AgentName, NodeName};

use crate::placement::{Need, able, fails, names};
use crate::state::{Agent, Desired, Moving, NodePhase, Phase, State};

/// What has become of a drain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drain {
    /// How many agents are moved at a time.
    pub parallel: u32,
    /// Those that end there, or are not ready elsewhere yet.
    pub moving: Vec<AgentName>,
    /// Those that wait for their turn.
    pub waiting: Vec<AgentName>,
    /// Those that stay there, and why.
    pub staying: Vec<(AgentName, String)>,
}

/// What has become of the drain of a node; none if it is not drained.
#[must_use]
pub fn drain(state: &State, name: &NodeName) -> Option<Drain> {
    let node = state.node(name)?;
    let mut drain = Drain { parallel: node.drained?, ..Drain::default() };
    let counts = |agent: &&Agent| is_on(agent, name) || is_leaving(agent, name);
    for agent in state.agents().filter(counts) {
        let of = || agent.name.clone();
        if !runs_on(agent, name) || !(agent.is_settled() || is_new(agent)) {
            drain.moving.push(of());
            continue;
        }
        match leaves(state, agent) {
            Ok(()) => drain.waiting.push(of()),
            Err(why) => drain.staying.push((of(), why)),
        }
    }
    Some(drain)
}

fn is_on(agent: &Agent, node: &NodeName) -> bool {
    agent.incarnations().any(|one| one.node == *node)
}

/// Whether it was moved away and does not take messages elsewhere yet.
fn is_leaving(agent: &Agent, node: &NodeName) -> bool {
    let leaves = matches!(&agent.moving, Some(Moving::From(from)) if from == node);
    leaves && !agent.is_settled()
}

fn runs_on(agent: &Agent, node: &NodeName) -> bool {
    agent.current.as_ref().is_some_and(|one| one.node == *node)
}

/// Whether an agent can leave the drained node that it runs on.
///
/// # Errors
/// Why it cannot.
pub(crate) fn leaves(state: &State, agent: &Agent) -> Result<(), String> {
    let own = agent.loads();
    let need = Need { to: None, ..Need::of(agent, agent.target_spec(), &own, state.rules) };
    if need.pin.is_some() {
        return Err("its SANCTUM is there".to_owned());
    }
    let able = able(&state.nodes, need)?;
    let failed: Vec<_> = able
        .iter()
        .filter(|node| fails(node, &agent.name, state.at))
        .map(|node| &node.name)
        .collect();
    if failed.len() < able.len() {
        return Ok(());
    }
    // It is tried again once that does not count any more.
    Err(format!("it did not become ready on {}", names(&failed)))
}

/// Those of the agents of drained nodes that are to leave now. Those that have done so are noted.
pub(crate) fn next(state: &mut State) -> Vec<(AgentName, NodeName)> {
    let is_drained = |node: &&crate::Node| node.drained.is_some();
    let drained: Vec<_> = state.nodes.values().filter(is_drained).cloned().collect();
    let has_left = |moving: &mut Moving| match moving {
        Moving::From(node) => !drained.iter().any(|known| known.name == *node),
        Moving::To(_) => false,
    };
    for agent in state.agents.values_mut() {
        let is_over = agent.is_settled() || agent.desired == Desired::Stopped;
        agent
            .moving
            .take_if(|moving| has_left(moving) || is_over && matches!(moving, Moving::From(_)));
    }
    let mut next = Vec::new();
    for node in drained.iter().filter(|node| node.phase == NodePhase::Up) {
        let name = &node.name;
        let is_busy = |agent: &&Agent| {
            let is_replaced = runs_on(agent, name) && !agent.is_settled() && !is_new(agent);
            agent.desired == Desired::Running && (is_leaving(agent, name) || is_replaced)
        };
        let busy = state.agents().filter(is_busy).count();
        let parallel = usize::try_from(node.drained.unwrap_or(1)).unwrap_or(usize::MAX).max(1);
        let may_go = |agent: &&Agent| {
            agent.desired == Desired::Running
                && runs_on(agent, name)
                && (agent.is_settled() || is_new(agent))
                && leaves(state, agent).is_ok()
        };
        let going = state.agents().filter(may_go).take(parallel.saturating_sub(busy));
        next.extend(going.map(|agent| (agent.name.clone(), name.clone())));
    }
    next
}

/// Whether its only incarnation takes no messages yet: that one is given up.
fn is_new(agent: &Agent) -> bool {
    let starts = agent.current.as_ref().is_some_and(|one| one.phase == Phase::Starting);
    starts && agent.wanted.is_none() && agent.next.is_none()
}
