//! The subjects on which the SANCTUM of an agent goes from one node to another.

use super::Subjects;
use crate::NodeName;

impl Subjects {
    /// What a node is asked about SANCTUMs that are moved.
    #[must_use]
    pub fn node_carry(&self, node: &NodeName) -> String {
        format!("{}.node.{node}.carry", self.prefix)
    }

    /// What a node is asked for the parts of one copy, by its number there.
    #[must_use]
    pub fn node_carry_parts(&self, node: &NodeName, session: u64) -> String {
        format!("{}.node.{node}.carry.{session}", self.prefix)
    }
}
