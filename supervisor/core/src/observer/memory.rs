//! What the leader remembers in memory. Everything here may be forgotten at any time: it is then reported or done once more.

use std::collections::BTreeMap;

use common::control::ControlEvent;
use common::{AgentName, NodeName};

use crate::state::State;

/// For how long, in milliseconds, a thing said is not said again: its record may still be on its way to the fold.
const SAY_AGAIN: u64 = 5_000;

/// A node that has not heard of this leadership is asked this often, in milliseconds.
const ASK_AGAIN: u64 = 1_000;

/// Entries of what nobody speaks about any more are dropped after this, in milliseconds.
const FORGET: u64 = 60_000;

#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// The latest time that anything was heard of.
    now_ms: u64,
    nodes: BTreeMap<NodeName, u64>,
    /// Processes of nodes: when each was first and last heard.
    processes: BTreeMap<(NodeName, u64), (u64, u64)>,
    incarnations: BTreeMap<(AgentName, u64), Seen>,
    said: BTreeMap<About, u64>,
}

/// What was said: one entry for each thing that can be news.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    NodeUp(NodeName),
    NodeDown(NodeName),
    NodeLost(NodeName),
    Ended(AgentName, u64),
    Drained(AgentName, u64),
    Hung(AgentName, u64),
    Stable(AgentName, u64),
    Returned(AgentName, u64),
    Start(AgentName, u64),
    Stop(NodeName, AgentName, u64),
    Dismiss(AgentName, u64),
    Ask(NodeName),
    Refused(NodeName, u64),
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    up_since: Option<u64>,
    absent_since: Option<u64>,
    /// Since when its node says that it runs.
    runs_since: Option<u64>,
    /// When its shim was last heard of.
    shim: Option<u64>,
    /// The number of the last command about it.
    told: u64,
}

impl Memory {
    /// `nodes`: when each was last heard.
    pub(super) fn at(now_ms: u64, nodes: BTreeMap<NodeName, u64>) -> Self {
        Self { now_ms, nodes, ..Self::default() }
    }

    pub(super) fn now(&self) -> u64 {
        self.now_ms
    }

    /// Time goes forward only, in whatever order reports are handed in. The result is how far it went.
    pub(super) fn it_is(&mut self, now_ms: u64) -> u64 {
        let gap = now_ms.saturating_sub(self.now_ms);
        self.now_ms = self.now_ms.max(now_ms);
        gap
    }

    /// Nothing was heard for a while because nobody listened: what had lasted until then has lasted for no time.
    pub(super) fn begin_anew(&mut self) {
        for seen in self.incarnations.values_mut() {
            seen.up_since = None;
            seen.absent_since = None;
            seen.runs_since = None;
        }
        // Who was there then may be there still.
        for (first, _) in self.processes.values_mut() {
            *first = self.now_ms;
        }
    }

    /// A process of a node was heard; the result is when it was first.
    pub(super) fn heard_process(&mut self, node: &NodeName, instance: u64) -> u64 {
        let now_ms = self.now_ms;
        let heard = self.processes.entry((node.clone(), instance)).or_insert((now_ms, now_ms));
        heard.1 = now_ms;
        heard.0
    }

    pub(super) fn last_heard_process(&self, node: &NodeName, instance: u64) -> Option<u64> {
        self.processes.get(&(node.clone(), instance)).map(|(_, last)| *last)
    }

    pub(super) fn told(&mut self, agent: &AgentName, incarnation: u64, number: u64) {
        self.incarnation(agent, incarnation).told = number;
    }

    pub(super) fn told_of(&self, agent: &AgentName, incarnation: u64) -> u64 {
        self.incarnations.get(&(agent.clone(), incarnation)).map_or(0, |seen| seen.told)
    }

    pub(super) fn heard(&mut self, node: &NodeName) {
        self.nodes.insert(node.clone(), self.now_ms);
    }

    pub(super) fn last_heard(&self, node: &NodeName) -> Option<u64> {
        self.nodes.get(node).copied()
    }

    /// Since when the incarnation has been heard of as running.
    pub(super) fn up_since(&mut self, agent: &AgentName, incarnation: u64) -> u64 {
        let now_ms = self.now_ms;
        let seen = self.incarnation(agent, incarnation);
        *seen.up_since.get_or_insert(now_ms)
    }

    /// For how long the incarnation has been missing, in milliseconds: 0 the first time.
    pub(super) fn absent_for(&mut self, agent: &AgentName, incarnation: u64) -> u64 {
        let now_ms = self.now_ms;
        let seen = self.incarnation(agent, incarnation);
        now_ms.saturating_sub(*seen.absent_since.get_or_insert(now_ms))
    }

    /// The shim of the incarnation was heard of.
    pub(super) fn heard_shim(&mut self, agent: &AgentName, incarnation: u64) {
        let now_ms = self.now_ms;
        self.incarnation(agent, incarnation).shim = Some(now_ms);
    }

    /// When the shim of the incarnation was last heard of; now, if that is asked for the first time.
    pub(super) fn last_heard_shim(&mut self, agent: &AgentName, incarnation: u64) -> u64 {
        let now_ms = self.now_ms;
        *self.incarnation(agent, incarnation).shim.get_or_insert(now_ms)
    }

    /// Its node says that the incarnation runs.
    pub(super) fn runs(&mut self, agent: &AgentName, incarnation: u64) {
        let now_ms = self.now_ms;
        self.incarnation(agent, incarnation).runs_since.get_or_insert(now_ms);
    }

    /// When anything was last heard of the incarnation's shim, or since when it runs; none if nobody says that it does.
    pub(super) fn last_heard_running(&self, agent: &AgentName, incarnation: u64) -> Option<u64> {
        let seen = self.incarnations.get(&(agent.clone(), incarnation))?;
        Some(seen.runs_since?.max(seen.shim.unwrap_or_default()))
    }

    pub(super) fn present(&mut self, agent: &AgentName, incarnation: u64) {
        if let Some(seen) = self.incarnations.get_mut(&(agent.clone(), incarnation)) {
            seen.absent_since = None;
        }
    }

    fn incarnation(&mut self, agent: &AgentName, incarnation: u64) -> &mut Seen {
        self.incarnations.entry((agent.clone(), incarnation)).or_default()
    }

    /// Whether a record is worth writing now: not if it was written a moment ago.
    pub(super) fn may_say(&mut self, event: &ControlEvent) -> bool {
        let about = match event {
            ControlEvent::NodeSeen { node, .. } => About::NodeUp(node.clone()),
            ControlEvent::NodeDraining { node } => About::NodeDown(node.clone()),
            ControlEvent::NodeLost { node } => About::NodeLost(node.clone()),
            ControlEvent::IncarnationExited { agent, incarnation, .. }
            | ControlEvent::StartFailed { agent, incarnation, .. } => {
                About::Ended(agent.clone(), *incarnation)
            }
            ControlEvent::IncarnationDrained { agent, incarnation } => {
                About::Drained(agent.clone(), *incarnation)
            }
            ControlEvent::IncarnationHung { agent, incarnation, .. } => {
                About::Hung(agent.clone(), *incarnation)
            }
            ControlEvent::IncarnationStable { agent, incarnation } => {
                About::Stable(agent.clone(), *incarnation)
            }
            ControlEvent::IncarnationReturned { agent, incarnation, .. } => {
                About::Returned(agent.clone(), *incarnation)
            }
            ControlEvent::AgentApplied { .. }
            | ControlEvent::AgentStarted { .. }
            | ControlEvent::AgentStopped { .. }
            | ControlEvent::AgentRestarted { .. }
            | ControlEvent::AgentReplaced { .. }
            | ControlEvent::AgentRemoved { .. }
            | ControlEvent::AgentMoved { .. }
            | ControlEvent::SchedulePaused { .. }
            | ControlEvent::ScheduleResumed { .. }
            | ControlEvent::SanctumMoved { .. }
            | ControlEvent::SanctumNotMoved { .. }
            | ControlEvent::SanctumKept { .. }
            | ControlEvent::NodeDrained { .. }
            | ControlEvent::NodeUndrained { .. }
            | ControlEvent::NodeRemoved { .. }
            | ControlEvent::MessagesForgotten { .. }
            | ControlEvent::FleetRestored { .. }
            | ControlEvent::LeaderElected { .. }
            | ControlEvent::IncarnationAllocated { .. }
            | ControlEvent::IncarnationReady { .. }
            | ControlEvent::IncarnationBegun { .. }
            | ControlEvent::TimerFired { .. }
            | ControlEvent::Unknown => return true,
        };
        self.may(about)
    }

    /// What was said of a start that failed did not get on record, and its node says it once only: it counts as a start that was lost.
    pub(super) fn unsay(&mut self, event: &ControlEvent) {
        if let ControlEvent::StartFailed { agent, incarnation, .. } = event {
            self.said.remove(&About::Ended(agent.clone(), *incarnation));
        }
    }

    /// Whether a lost start is worth repeating now.
    pub(super) fn may_start(&mut self, agent: &AgentName, incarnation: u64) -> bool {
        let ended = About::Ended(agent.clone(), incarnation);
        // Its end is on the way to the fold: it must not come back to life meanwhile.
        !self.said.contains_key(&ended) && self.may(About::Start(agent.clone(), incarnation))
    }

    /// Whether a stop is worth repeating now.
    pub(super) fn may_stop(
        &mut self,
        node: &NodeName,
        agent: &AgentName,
        incarnation: u64,
    ) -> bool {
        let about = About::Stop(node.clone(), agent.clone(), incarnation);
        self.may(about)
    }

    /// Whether a node may be asked: it answers at once, so this need not wait for long.
    pub(super) fn may_ask(&mut self, node: &NodeName) -> bool {
        self.may_after(About::Ask(node.clone()), ASK_AGAIN)
    }

    pub(super) fn may(&mut self, about: About) -> bool {
        self.may_after(about, SAY_AGAIN)
    }

    fn may_after(&mut self, about: About, pause: u64) -> bool {
        let last = self.said.get(&about).copied();
        let may = last.is_none_or(|last| self.now_ms.saturating_sub(last) >= pause);
        if may {
            self.said.insert(about, self.now_ms);
        }
        may
    }

    /// Drops what is about incarnations that are no longer there.
    pub(super) fn tidy(&mut self, state: &State) {
        let now_ms = self.now_ms;
        self.said.retain(|_, at| now_ms.saturating_sub(*at) < FORGET);
        self.incarnations.retain(|(agent, number), _| {
            let agent = state.agent(agent);
            agent.is_some_and(|agent| agent.incarnation(*number).is_some())
        });
        self.processes.retain(|_, (_, last)| now_ms.saturating_sub(*last) < FORGET);
        self.nodes
            .retain(|node, at| state.node(node).is_some() || now_ms.saturating_sub(*at) < FORGET);
    }
}
