//! What one node may use: its subjects, and its login.

use super::Subjects;
use crate::NodeName;

impl Subjects {
    /// Commands to a node.
    #[must_use]
    pub fn node_command(&self, node: &NodeName) -> String {
        format!("{}.node.{node}.command", self.prefix)
    }

    /// Commands to all nodes. No node can have this name.
    #[must_use]
    pub fn all_nodes_command(&self) -> String {
        format!("{}.node._all.command", self.prefix)
    }

    /// Reports of a node.
    #[must_use]
    pub fn node_report(&self, node: &NodeName) -> String {
        format!("{}.node.{node}.report", self.prefix)
    }

    /// Reports of all nodes.
    #[must_use]
    pub fn node_reports(&self) -> String {
        format!("{}.node.*.report", self.prefix)
    }

    /// The node in a subject of [`Self::node_report`].
    #[must_use]
    pub fn parse_node_report(&self, subject: &str) -> Option<NodeName> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".node.")?;
        NodeName::new(rest.strip_suffix(".report")?).ok()
    }

    /// What a node with a login of its own asks the supervisors. Nobody else may publish there.
    #[must_use]
    pub fn node_ask(&self, node: &NodeName) -> String {
        format!("{}.node.{node}.ask", self.prefix)
    }

    /// What all nodes ask.
    #[must_use]
    pub fn node_asks(&self) -> String {
        format!("{}.node.*.ask", self.prefix)
    }

    /// The node in a subject of [`Self::node_ask`].
    #[must_use]
    pub fn parse_node_ask(&self, subject: &str) -> Option<NodeName> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".node.")?;
        NodeName::new(rest.strip_suffix(".ask")?).ok()
    }

    /// As whom a node connects that has a login of its own.
    #[must_use]
    pub fn node_user(&self, node: &NodeName) -> String {
        format!("{}.node.{node}", self.prefix)
    }

    /// Parses what [`Self::node_user`] makes; none for users of other fleets.
    #[must_use]
    pub fn parse_node_user(&self, user: &str) -> Option<NodeName> {
        let name = user.strip_prefix(&self.prefix)?.strip_prefix(".node.")?;
        NodeName::new(name).ok()
    }

    /// Where such a node gets its answers.
    #[must_use]
    pub fn node_inbox(&self, node: &NodeName) -> String {
        format!("_INBOX.{}.node.{node}", self.prefix)
    }
}
