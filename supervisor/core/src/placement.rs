//! Where an incarnation runs. The leader decides it, and the record says so: what the fold asks is only whether any node can.

use std::collections::BTreeMap;

use common::control::ControlEvent;
use common::spec::AgentSpec;
use common::{AgentName, Load, NodeName, Timestamp};

use crate::state::{Agent, Moving, Node, NodePhase, State};
use crate::world::FAILURE_COUNTS;

/// As many agents as have failed on a node since anything last became ready there make it one that fails everybody.
const FAILS_EVERYBODY: usize = 2;

/// The first rules by which LIMITs and SANCTUMs have a say in it.
pub(crate) const WITH_ROOM: u32 = 4;

/// What is to be placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need<'a> {
    pub(crate) spec: &'a AgentSpec,
    /// The only node that has its data.
    pub(crate) pin: Option<&'a NodeName>,
    /// The only node that somebody wants it on.
    pub(crate) to: Option<&'a NodeName>,
    /// What its agent takes of the nodes already: where another incarnation of it runs, one replaces the other, and only the larger of them
    /// counts. A laptop that is full could replace nothing otherwise.
    pub(crate) own: &'a BTreeMap<NodeName, Load>,
    pub(crate) rules: u32,
}

impl<'a> Need<'a> {
    /// The next start of an agent.
    pub(crate) fn of(
        agent: &'a Agent,
        spec: &'a AgentSpec,
        own: &'a BTreeMap<NodeName, Load>,
        rules: u32,
    ) -> Self {
        let to = match &agent.moving {
            Some(Moving::To(node)) => Some(node),
            Some(Moving::From(_)) | None => None,
        };
        let pin = agent.pinned_by(spec).filter(|_| rules >= WITH_ROOM);
        Self { spec, pin, to, own, rules }
    }
}

/// The record that gives the start which an agent waits for its number and its place; none if it waits for none, or no node can
/// take it.
#[must_use]
pub fn allocate(state: &State, agent: &AgentName) -> Option<ControlEvent> {
    allocate_beside(state, agent, &BTreeMap::new())
}

/// The same, by a leader that has given out places which it has not read back yet: many starts that are due at once are spread, too.
#[must_use]
pub fn allocate_beside(
    state: &State,
    agent: &AgentName,
    given: &BTreeMap<AgentName, NodeName>,
) -> Option<ControlEvent> {
    let agent = state.agent(agent)?;
    let generation = agent.wanted.as_ref()?.generation;
    let own = agent.loads();
    let need = Need::of(agent, agent.spec_of(generation)?, &own, state.rules);
    let node = choose(state, need, agent.home.as_ref(), given).ok()?;
    Some(ControlEvent::IncarnationAllocated {
        agent: agent.name.clone(),
        incarnation: agent.incarnation.saturating_add(1),
        generation,
        node,
    })
}

/// The node that takes the first incarnation of a spec.
///
/// # Errors
/// Why none can, node by node.
pub fn place(state: &State, spec: &AgentSpec) -> Result<NodeName, String> {
    let own = BTreeMap::new();
    let need = Need { spec, pin: None, to: None, own: &own, rules: state.rules };
    choose(state, need, None, &BTreeMap::new())
}

/// An agent with folders goes back to where they are. Otherwise the node with the fewest incarnations takes it; the last choice
/// are those on which it just failed itself, and those on which everybody fails: they are the emptiest for that very reason.
fn choose(
    state: &State,
    need: Need<'_>,
    home: Option<&NodeName>,
    given: &BTreeMap<AgentName, NodeName>,
) -> Result<NodeName, String> {
    let has_folders = !need.spec.sanctums.is_empty();
    able(&state.nodes, need)?
        .into_iter()
        .min_by_key(|node| {
            let away = home != Some(&node.name);
            let failed = fails(node, &need.spec.name, state.at);
            let is_bad = fails_everybody(node, state.at);
            let given = given.values().filter(|given| **given == node.name).count();
            let incarnations = given.saturating_add(node.incarnations as usize);
            (has_folders && away, failed, is_bad, incarnations, away, &node.name)
        })
        .map(|node| node.name.clone())
        .ok_or_else(|| "no node can run it: there are no nodes".to_owned())
}

/// Agents whose last start on a node failed lately.
pub fn failed<'a>(state: &'a State, node: &'a Node) -> impl Iterator<Item = &'a AgentName> {
    let lately = node.failures.iter().filter(|(_, at)| counts(**at, state.at));
    lately.map(|(agent, _)| agent)
}

/// Whether the last start of an agent on a node failed lately.
pub(crate) fn fails(node: &Node, agent: &AgentName, now: Timestamp) -> bool {
    node.failures.get(agent).is_some_and(|at| counts(*at, now))
}

fn counts(failed: Timestamp, now: Timestamp) -> bool {
    now.since(failed) < FAILURE_COUNTS
}

fn fails_everybody(node: &Node, now: Timestamp) -> bool {
    let since = |at: &&Timestamp| counts(**at, now) && Some(**at) > node.succeeded;
    node.failures.values().filter(since).count() >= FAILS_EVERYBODY
}

/// The nodes that can take a start, at least one.
///
/// # Errors
/// Why none can, node by node.
pub(crate) fn able<'a>(
    nodes: &'a BTreeMap<NodeName, Node>,
    need: Need<'_>,
) -> Result<Vec<&'a Node>, String> {
    // A node that is not known any more has nothing.
    if let Some(node) = need.pin.and_then(|pin| nodes.get(pin)) {
        return match refusal(node, need) {
            None => Ok(vec![node]),
            Some(why) => Err(waits(node, &why)),
        };
    }
    let mut able = Vec::new();
    let mut refusals = Reasons::default();
    for node in nodes.values().filter(|node| need.to.is_none_or(|to| *to == node.name)) {
        match refusal(node, need) {
            None => able.push(node),
            Some(why) => refusals.add(why, &node.name),
        }
    }
    if !able.is_empty() {
        return Ok(able);
    }
    let mut words = refusals.sentences();
    if words.is_empty() {
        words.push("there are no nodes".to_owned());
    }
    Err(format!("no node can run it: {}", words.join(", ")))
}

/// That an agent waits for the only node that has its data.
pub(crate) fn waits(node: &Node, why: &str) -> String {
    let is = match (node.phase, node.lost_at) {
        (NodePhase::Lost, Some(at)) => format!("is away since {at}"),
        (NodePhase::Lost, None) => "is away".to_owned(),
        (NodePhase::Up | NodePhase::Draining, _) => why.to_owned(),
    };
    format!("waits for node {}, which {is}, because its SANCTUM is there", node.name)
}

/// Nodes by what keeps an agent from them.
#[derive(Debug, Default)]
struct Reasons<'a>(Vec<(String, Vec<&'a NodeName>)>);

impl<'a> Reasons<'a> {
    fn add(&mut self, why: String, node: &'a NodeName) {
        match self.0.iter_mut().find(|(known, _)| *known == why) {
            Some((_, nodes)) => nodes.push(node),
            None => self.0.push((why, vec![node])),
        }
    }

    fn sentences(&self) -> Vec<String> {
        self.0.iter().map(|(why, nodes)| refused(why, nodes)).collect()
    }
}

/// That nodes cannot run it for one reason: a line, however many there are.
fn refused(why: &str, nodes: &[&NodeName]) -> String {
    if let [only] = nodes {
        return format!("{only} {why}");
    }
    let why = match why.split_once(' ') {
        Some(("is", rest)) => format!("are {rest}"),
        Some(("has", rest)) => format!("have {rest}"),
        Some(("does", rest)) => format!("do {rest}"),
        _ => why.to_owned(),
    };
    format!("{} {why}", names(nodes))
}

/// Nodes, of many only the first ones.
pub(crate) fn names(nodes: &[&NodeName]) -> String {
    const NAMED: usize = 3;
    let named: Vec<_> = nodes.iter().take(NAMED).map(ToString::to_string).collect();
    match (nodes.len().saturating_sub(NAMED), named.split_last()) {
        (0, Some((last, []))) => last.clone(),
        (0, Some((last, first))) => format!("{} and {last}", first.join(", ")),
        (1, _) => format!("{} and 1 other", named.join(", ")),
        (more, _) => format!("{} and {more} others", named.join(", ")),
    }
}

/// Why a node cannot take a start; none if it can.
pub(crate) fn refusal(node: &Node, need: Need<'_>) -> Option<String> {
    if node.drained.is_some() && node.phase == NodePhase::Up {
        return Some("is drained".to_owned());
    }
    unfit(node, need.spec).or_else(|| {
        let own = need.own.get(&node.name).copied().unwrap_or_default();
        let others = node.load.minus(own);
        let lacks = node.capacity.lacks(others, Load::of(&need.spec.limits));
        lacks.filter(|_| need.rules >= WITH_ROOM)
    })
}

/// A runtime that a node has and cannot use, which it reports as `docker: network x not found`: its name, and why.
#[must_use]
pub fn unusable(runtime: &str) -> Option<(&str, &str)> {
    runtime.split_once(": ")
}

/// Why a node cannot run a spec, however much room it has; none if it can.
pub(crate) fn unfit(node: &Node, spec: &AgentSpec) -> Option<String> {
    match node.phase {
        NodePhase::Lost => return Some("is lost".to_owned()),
        NodePhase::Draining => return Some("is draining".to_owned()),
        NodePhase::Up => {}
    }
    let (needed, words): (&[&str], _) = if spec.image.is_some() {
        (&["docker", "podman"], "docker or podman that answers")
    } else {
        // Whatever a node offers: it puts those that need no image where it runs things.
        (&["process", "docker", "podman"], "runtime that answers")
    };
    if !needed.iter().any(|runtime| node.runtimes.contains(*runtime)) {
        // Why its engine cannot be used, if there is one.
        let why = node.runtimes.iter().find_map(|runtime| unusable(runtime));
        return Some(match why.filter(|(engine, _)| needed.contains(engine)) {
            Some((engine, why)) => format!("cannot use {engine}: {why}"),
            None => format!("has no {words}"),
        });
    }
    spec.require
        .iter()
        .find(|(key, value)| node.labels.get(*key) != Some(value))
        .map(|(key, value)| format!("has no label {key}={value}"))
}

/// Why an agent cannot run on a node, in words that go on after the node's name; none if it can, or there is no such node.
#[must_use]
pub fn cannot_run(state: &State, agent: &Agent, node: &NodeName) -> Option<String> {
    let own = agent.loads();
    let need = Need { to: None, ..Need::of(agent, agent.target_spec(), &own, state.rules) };
    let node = state.node(node)?;
    match need.pin.filter(|pin| **pin != node.name) {
        Some(pin) => Some(without_data(pin)),
        None => refusal(node, need),
    }
}

/// That a node is not the one that an agent's data is on.
pub(crate) fn without_data(pin: &NodeName) -> String {
    format!("does not have its SANCTUM, which is on {pin}")
}

/// Nodes that are alike to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The nodes, by name.
    pub nodes: Vec<NodeName>,
    /// Why they cannot run it, in words that go on after a node's name; none: they can.
    pub why: Option<String>,
}

impl Verdict {
    /// In words: one short line, however many nodes there are.
    #[must_use]
    pub fn words(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().collect();
        refused(self.why.as_deref().unwrap_or("can run it"), &nodes)
    }
}

/// Which nodes can run an agent, and why others cannot: first those that can.
#[must_use]
pub fn verdicts(state: &State, agent: &Agent) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    for node in state.nodes() {
        let why = cannot_run(state, agent, &node.name);
        match verdicts.iter_mut().find(|known| known.why == why) {
            Some(known) => known.nodes.push(node.name.clone()),
            None => verdicts.push(Verdict { nodes: vec![node.name.clone()], why }),
        }
    }
    verdicts.sort_by_key(|verdict| verdict.why.is_some());
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_is_said_once_for_however_many_nodes() {
        let names: Vec<_> =
            (1..=50).map(|n| NodeName::new(format!("n{n}")).expect("valid")).collect();
        let names: Vec<_> = names.iter().collect();
        let said = |why, count: usize| refused(why, &names[..count]);
        assert_eq!(said("is lost", 1), "n1 is lost");
        assert_eq!(said("is lost", 2), "n1 and n2 are lost");
        assert_eq!(said("has no label a=b", 3), "n1, n2 and n3 have no label a=b");
        assert_eq!(said("is draining", 4), "n1, n2, n3 and 1 other are draining");
        assert_eq!(said("has no label a=b", 50), "n1, n2, n3 and 47 others have no label a=b");
        assert_eq!(said("does not have it", 2), "n1 and n2 do not have it");
    }
}
