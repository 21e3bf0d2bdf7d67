//! Where an incarnation runs. The leader decides it, and the record says so: what the fold asks is only whether any node can.

use std::collections::BTreeMap;

use common::control::ControlEvent;
use common::spec::AgentSpec;
use common::{AgentName, NodeName, Timestamp};

use crate::state::{Node, NodePhase, State};
use crate::world::FAILURE_COUNTS;

/// As many agents as have failed on a node since anything last became ready there make it one that fails everybody.
const FAILS_EVERYBODY: usize = 2;

/// The record that gives the start which an agent waits for its number and its place; none if it waits for none, or no node can
/// take it.
#[must_use]
pub fn allocate(state: &State, agent: &AgentName) -> Option<ControlEvent> {
    let agent = state.agent(agent)?;
    let generation = agent.wanted.as_ref()?.generation;
    let node = choose(state, agent.spec_of(generation)?, agent.home.as_ref()).ok()?;
    Some(ControlEvent::IncarnationAllocated {
        agent: agent.name.clone(),
        incarnation: agent.incarnation.saturating_add(1),
        generation,
        node,
    })
}

/// The node that takes the next incarnation of a spec.
///
/// # Errors
/// Why none can, node by node.
pub fn place(state: &State, spec: &AgentSpec) -> Result<NodeName, String> {
    choose(state, spec, None)
}

/// An agent with folders goes back to where they are. Otherwise the node with the fewest incarnations takes it; the last choice
/// are those on which it just failed itself, and those on which everybody fails: they are the emptiest for that very reason.
fn choose(state: &State, spec: &AgentSpec, home: Option<&NodeName>) -> Result<NodeName, String> {
    let has_folders = !spec.sanctums.is_empty();
    able(&state.nodes, spec)?
        .into_iter()
        .min_by_key(|node| {
            let away = home != Some(&node.name);
            let failed = node.failures.get(&spec.name).is_some_and(|at| counts(*at, state.at));
            let is_bad = fails_everybody(node, state.at);
            (has_folders && away, failed, is_bad, node.incarnations, away, &node.name)
        })
        .map(|node| node.name.clone())
        .ok_or_else(|| "no node can run it: there are no nodes".to_owned())
}

/// Agents whose last start on a node failed lately.
pub fn failed<'a>(state: &'a State, node: &'a Node) -> impl Iterator<Item = &'a AgentName> {
    let lately = node.failures.iter().filter(|(_, at)| counts(**at, state.at));
    lately.map(|(agent, _)| agent)
}

fn counts(failed: Timestamp, now: Timestamp) -> bool {
    now.since(failed) < FAILURE_COUNTS
}

fn fails_everybody(node: &Node, now: Timestamp) -> bool {
    let since = |at: &&Timestamp| counts(**at, now) && Some(**at) > node.succeeded;
    node.failures.values().filter(since).count() >= FAILS_EVERYBODY
}

/// The nodes that can run a spec, at least one.
///
/// # Errors
/// Why none can, node by node.
pub(crate) fn able<'a>(
    nodes: &'a BTreeMap<NodeName, Node>,
    spec: &AgentSpec,
) -> Result<Vec<&'a Node>, String> {
    let mut refusals: Vec<(String, Vec<&NodeName>)> = Vec::new();
    let mut able = Vec::new();
    for node in nodes.values() {
        let Some(why) = refusal(node, spec) else {
            able.push(node);
            continue;
        };
        match refusals.iter_mut().find(|(known, _)| *known == why) {
            Some((_, nodes)) => nodes.push(&node.name),
            None => refusals.push((why, vec![&node.name])),
        }
    }
    if !able.is_empty() {
        return Ok(able);
    }
    let mut words: Vec<_> = refusals.iter().map(|(why, nodes)| refused(why, nodes)).collect();
    if words.is_empty() {
        words.push("there are no nodes".to_owned());
    }
    Err(format!("no node can run it: {}", words.join(", ")))
}

/// That nodes cannot run it for one reason: a line, however many there are.
fn refused(why: &str, nodes: &[&NodeName]) -> String {
    const NAMED: usize = 3;
    let [first, others @ ..] = nodes else { return String::new() };
    if others.is_empty() {
        return format!("{first} {why}");
    }
    let why = match why.split_once(' ') {
        Some(("is", rest)) => format!("are {rest}"),
        Some(("has", rest)) => format!("have {rest}"),
        _ => why.to_owned(),
    };
    let named: Vec<_> = nodes.iter().take(NAMED).map(ToString::to_string).collect();
    match (nodes.len().saturating_sub(NAMED), named.split_last()) {
        (0, Some((last, first))) => format!("{} and {last} {why}", first.join(", ")),
        (1, _) => format!("{} and 1 other {why}", named.join(", ")),
        (more, _) => format!("{} and {more} others {why}", named.join(", ")),
    }
}

/// Why a node cannot run a spec; none if it can.
pub(crate) fn refusal(node: &Node, spec: &AgentSpec) -> Option<String> {
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
        return Some(format!("has no {words}"));
    }
    spec.require
        .iter()
        .find(|(key, value)| node.labels.get(*key) != Some(value))
        .map(|(key, value)| format!("has no label {key}={value}"))
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
    }
}
