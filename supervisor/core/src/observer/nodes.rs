//! Nodes: which process a name belongs to, and what is new about it.

use common::NodeName;
use common::control::ControlEvent;
use common::frame::NodeStatus;

use super::memory::About;
use super::{Observer, Outcome};
use crate::action::Action;
use crate::state::{Node, NodePhase, State};

/// A node's process that is silent for this long, in milliseconds, gives way to another one of its name: three of its reports.
const GIVES_WAY: u64 = 3_000;

/// A process that is heard this long, in milliseconds, after another one of its name was first: both are there.
const BOTH: u64 = 1_500;

impl Observer {
    /// Whether the process that reports is the one that speaks for its name. A second one is not heard while the first reports,
    /// and is told so once it is certain that both are there: a cloned machine, or a copied data folder.
    pub(super) fn is_the_one(
        &mut self,
        state: &State,
        status: &NodeStatus,
        out: &mut Vec<Outcome>,
    ) -> bool {
        let known = state.node(&status.node).filter(|known| known.phase != NodePhase::Lost);
        let Some(known) = known.filter(|known| known.instance != status.instance) else {
            self.memory.heard_process(&status.node, status.instance);
            return true;
        };
        let (node, now) = (&status.node, self.memory.now());
        let first_heard = self.memory.heard_process(node, status.instance);
        // Its own folder's lock says so: nobody need be waited for.
        if status.succeeds.contains(&known.instance) {
            return true;
        }
        let heard = self.memory.last_heard_process(node, known.instance);
        // One that was not heard yet had as long as this leader has listened.
        let since = heard.or(self.attentive_since()).unwrap_or(now);
        if now.saturating_sub(since) >= GIVES_WAY {
            return true;
        }
        let both = heard.is_some_and(|heard| heard >= first_heard.saturating_add(BOTH));
        let instance = status.instance;
        if both && self.memory.may(About::Refused(node.clone(), instance)) {
            out.push(Outcome::Do(Action::Refuse { node: node.clone(), instance }));
        }
        false
    }

    /// Whether what is said by a process of a node counts. `None` is a process that does not say which it is.
    pub(super) fn speaks_for(state: &State, node: &NodeName, instance: Option<u64>) -> bool {
        let known = state.node(node);
        known.is_none_or(|known| instance.is_none_or(|instance| known.instance == instance))
    }

    /// A sign of life of a node, whatever it says: also of one that speaks a version that cannot be read.
    pub fn node_heard(&mut self, now_ms: u64, node: &NodeName) {
        self.awake(now_ms);
        self.memory.heard(node);
    }
}

/// What the log does not know yet about a node.
pub(super) fn news(known: Option<&Node>, status: &NodeStatus) -> Vec<ControlEvent> {
    let draining = || ControlEvent::NodeDraining { node: status.node.clone() };
    let seen = || ControlEvent::NodeSeen {
        node: status.node.clone(),
        instance: status.instance,
        runtimes: status.runtimes.clone(),
        labels: status.labels.clone(),
        capacity: status.capacity,
    };
    let is_as_known = |node: &Node| {
        node.instance == status.instance
            && node.capacity == status.capacity
            && node.runtimes.iter().eq(sorted(&status.runtimes).iter())
            && node
                .labels
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .eq(sorted(&status.labels))
    };
    let is_another = known.is_some_and(|node| node.instance != status.instance);
    match (known.map(|node| node.phase), status.draining) {
        // What it took over ends with it: first it must be known as the one who says so.
        (Some(NodePhase::Up | NodePhase::Draining), true) if is_another => vec![seen(), draining()],
        (Some(NodePhase::Up), true) => vec![draining()],
        (Some(NodePhase::Up), false) if known.is_some_and(is_as_known) => Vec::new(),
        (_, false) => vec![seen()],
        // One that goes down need not come up first.
        (None | Some(NodePhase::Draining | NodePhase::Lost), true) => Vec::new(),
    }
}

fn sorted<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort();
    items.dedup();
    items
}
