//! What a supervisor hears of nodes, whether it leads or not: a leader that is new need not listen as long as one that has heard nothing yet.

use std::collections::BTreeMap;

use common::NodeName;

use super::STANDSTILL;

/// Nodes that were not heard for so long, in milliseconds, are dropped.
const FORGET: u64 = 60_000;

/// When each node was last heard, and since when all there was to hear was heard. Times are milliseconds, as the observer's.
#[derive(Debug, Clone)]
pub struct Ears {
    pub(super) link_since: Option<u64>,
    pub(super) awake_since: u64,
    pub(super) nodes: BTreeMap<NodeName, u64>,
    now_ms: u64,
}

impl Ears {
    /// Starts with a link that is up.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { link_since: Some(now_ms), awake_since: now_ms, nodes: BTreeMap::new(), now_ms }
    }

    /// The supervisor runs now: what it did not hear while it was suspended is nobody's silence.
    pub fn awake(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.now_ms) >= STANDSTILL {
            self.awake_since = now_ms;
        }
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Its own link went up or down.
    pub fn link(&mut self, up: bool, now_ms: u64) {
        self.link_since = if up { self.link_since.or(Some(now_ms)) } else { None };
    }

    /// A node was heard.
    pub fn heard(&mut self, node: &NodeName, now_ms: u64) {
        self.awake(now_ms);
        self.nodes.retain(|_, heard| now_ms.saturating_sub(*heard) < FORGET);
        self.nodes.insert(node.clone(), now_ms);
    }
}
