//! Where an incarnation runs.

use std::collections::BTreeMap;

use common::NodeName;
use common::spec::AgentSpec;

use crate::state::{Node, NodePhase, State};

/// The node that takes the next incarnation of a spec: one that can run it, with the fewest incarnations.
///
/// # Errors
/// Why none can, node by node.
pub fn place(state: &State, spec: &AgentSpec) -> Result<NodeName, String> {
    choose(&state.nodes, spec, None)
}

/// As [`place`]; an agent with folders goes back to where they are, any other one only if that node is no fuller.
pub(crate) fn choose(
    nodes: &BTreeMap<NodeName, Node>,
    spec: &AgentSpec,
    home: Option<&NodeName>,
) -> Result<NodeName, String> {
    let mut refusals = Vec::new();
    let mut able = Vec::new();
    for node in nodes.values() {
        match refusal(node, spec) {
            None => able.push(node),
            Some(why) => refusals.push(format!("{} {why}", node.name)),
        }
    }
    let has_folders = !spec.sanctums.is_empty();
    able.into_iter()
        .min_by_key(|node| {
            let away = home != Some(&node.name);
            (has_folders && away, node.incarnations, away, &node.name)
        })
        .map(|node| node.name.clone())
        .ok_or_else(|| {
            if refusals.is_empty() {
                "no node can run it: no node is there".to_owned()
            } else {
                format!("no node can run it: {}", refusals.join(", "))
            }
        })
}

fn refusal(node: &Node, spec: &AgentSpec) -> Option<String> {
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
