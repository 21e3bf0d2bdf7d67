//! Which moves even out the nodes: computed on request, and never done unasked.

use std::collections::{BTreeMap, BTreeSet};

use common::spec::Replace;
use common::{AgentName, Load, NodeName};

use crate::placement::{Need, refusal};
use crate::state::{Agent, Node, NodePhase, Phase, State};

/// A move that evens out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    /// The agent.
    pub agent: AgentName,
    /// Where it runs.
    pub from: NodeName,
    /// Where it would run.
    pub to: NodeName,
}

/// The moves after which no two nodes that could share their agents better differ by more than one agent. Only agents that run, are replaced
/// start-first and are pinned to no node are moved, each at most once.
#[must_use]
pub fn rebalance(state: &State) -> Vec<Shift> {
    let mut nodes: BTreeMap<NodeName, Node> = state
        .nodes()
        .filter(|node| node.phase == NodePhase::Up && node.drained.is_none())
        .map(|node| (node.name.clone(), node.clone()))
        .collect();
    let (mut shifts, mut moved) = (Vec::new(), BTreeSet::new());
    while let Some((shift, load)) = best(state, &nodes, &moved) {
        if let Some(from) = nodes.get_mut(&shift.from) {
            from.load = from.load.minus(load);
        }
        if let Some(to) = nodes.get_mut(&shift.to) {
            to.load = to.load.plus(load);
        }
        moved.insert(shift.agent.clone());
        shifts.push(shift);
    }
    shifts
}

/// The move from a node that has the most to one that has the fewest, among those that are possible.
fn best(
    state: &State,
    nodes: &BTreeMap<NodeName, Node>,
    moved: &BTreeSet<AgentName>,
) -> Option<(Shift, Load)> {
    let count = |node: &Node| node.load.agents;
    let mut pairs: Vec<(&Node, &Node)> = nodes
        .values()
        .flat_map(|from| nodes.values().map(move |to| (from, to)))
        .filter(|(from, to)| count(from) >= count(to).saturating_add(2))
        .collect();
    pairs.sort_by_key(|(from, to)| {
        (std::cmp::Reverse(count(from) - count(to)), &from.name, &to.name)
    });
    pairs.into_iter().find_map(|(from, to)| {
        let agent = state.agents().find(|agent| {
            !moved.contains(&agent.name) && may_move(agent, &from.name) && {
                let own = BTreeMap::new();
                let spec = agent.target_spec();
                refusal(to, Need { spec, pin: None, to: None, own: &own, rules: state.rules })
                    .is_none()
            }
        })?;
        let load = agent.loads().remove(&from.name)?;
        let (from, to) = (from.name.clone(), to.name.clone());
        Some((Shift { agent: agent.name.clone(), from, to }, load))
    })
}

fn may_move(agent: &Agent, from: &NodeName) -> bool {
    let runs = |one: &crate::Incarnation| one.node == *from && one.phase == Phase::Ready;
    let spec = agent.target_spec();
    agent.is_settled()
        && agent.retiring.is_empty()
        && agent.current.as_ref().is_some_and(runs)
        && agent.desired == crate::Desired::Running
        && spec.replace_mode() == Replace::StartFirst
        && spec.pins().is_none()
}
