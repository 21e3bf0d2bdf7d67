//! The labels of containers: which node they belong to, and which incarnation they are.

use std::collections::HashMap;

use common::AgentName;
use common::frame::StartIncarnation;

use super::EngineOptions;

const NAMESPACE: &str = "dev.mozart.namespace";
pub(crate) const FLEET: &str = "dev.mozart.fleet";
pub(crate) const NODE: &str = "dev.mozart.node";
/// Which data folder: a copy of one has the same node.
const FOLDER: &str = "dev.mozart.folder";
const AGENT: &str = "dev.mozart.agent";
const GENERATION: &str = "dev.mozart.generation";
const INCARNATION: &str = "dev.mozart.incarnation";

/// What the labels of a container of ours say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The agent.
    pub agent: AgentName,
    /// The generation.
    pub generation: u64,
    /// The incarnation.
    pub incarnation: u64,
}

/// The labels of an incarnation's container.
pub(super) fn of(options: &EngineOptions, start: &StartIncarnation) -> HashMap<String, String> {
    let mut labels = of_node(options);
    labels.extend([
        (AGENT.to_owned(), start.agent.to_string()),
        (GENERATION.to_owned(), start.generation.to_string()),
        (INCARNATION.to_owned(), start.incarnation.to_string()),
    ]);
    labels
}

/// The labels of whatever a node makes.
pub(super) fn of_node(options: &EngineOptions) -> HashMap<String, String> {
    HashMap::from([
        (NAMESPACE.to_owned(), options.namespace.to_string()),
        (FLEET.to_owned(), options.fleet.clone()),
        (NODE.to_owned(), options.node.to_string()),
        (FOLDER.to_owned(), options.folder.clone()),
    ])
}

/// The filter of what belongs to a node: the engine applies it, so that nobody else's is even seen.
pub(super) fn filter(options: &EngineOptions) -> HashMap<String, Vec<String>> {
    let labels = [
        (FLEET, options.fleet.clone()),
        (NODE, options.node.to_string()),
        (FOLDER, options.folder.clone()),
    ];
    let labels = labels.into_iter().map(|(name, value)| format!("{name}={value}"));
    HashMap::from([("label".to_owned(), labels.collect())])
}

/// Whether labels say that a container is this node's.
pub(super) fn are_ours(options: &EngineOptions, labels: &HashMap<String, String>) -> bool {
    labels.get(FLEET) == Some(&options.fleet)
        && labels.get(NODE).is_some_and(|node| node == options.node.as_str())
        && labels.get(FOLDER) == Some(&options.folder)
}

/// Reads the labels of an incarnation's container; none for what is something else.
pub(crate) fn read(labels: &HashMap<String, String>) -> Option<Label> {
    let number = |name: &str| labels.get(name)?.parse().ok();
    Some(Label {
        agent: AgentName::new(labels.get(AGENT)?.as_str()).ok()?,
        generation: number(GENERATION)?,
        incarnation: number(INCARNATION)?,
    })
}
