//! The leader's eyes: what nodes and shims report, turned into records, and only into those that say something new.
//!
//! What it remembers is this leader's own and is not in the log: when it last heard of whom, what it has just said. A new
//! leader begins with an empty memory and counts silence from then on. Time is an argument: milliseconds of a clock that only
//! goes forward.

mod incarnations;
mod memory;

use common::AgentName;

use common::control::ControlEvent;
use common::shim::{Heartbeat, NodeStatus};

use crate::action::Action;
use crate::state::{Incarnation, Node, NodePhase, Phase, State};
use memory::Memory;

/// A node that is silent for this long, in milliseconds, is lost.
const SILENCE: u64 = 10_000;

/// A shim that is silent for this long, in milliseconds, hangs: six of its heartbeats.
const SHIM_SILENCE: u64 = 30_000;

/// How long an incarnation must have been up, in milliseconds, for its agent to be stable.
const STABLE: u64 = 60_000;

/// What follows from a report.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Append this, with the leader's term.
    Record(ControlEvent),
    /// Do this; it needs no record.
    Do(Action),
}

/// What follows from a shim's `ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShimReady {
    /// It is expected: find where its consumer starts, and append [`ControlEvent::IncarnationReady`].
    LogReady,
    /// It was admitted, but does not know, or its consumer is gone: perform [`crate::Agent::admit`] again.
    AdmitAgain,
    /// It is to wait, or to stop.
    Ignore,
}

/// What the leader has heard and said lately.
#[derive(Debug, Clone)]
pub struct Observer {
    /// Since when its own link has been up; none while it is down.
    link_since: Option<u64>,
    memory: Memory,
}

impl Observer {
    /// Begins with a link that is up, and with nobody heard.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { link_since: Some(now_ms), memory: Memory::default() }
    }

    /// The leader's own link went up or down. Silence is counted only while it has been up all the time.
    pub fn link(&mut self, up: bool, now_ms: u64) {
        self.link_since = match (up, self.link_since) {
            (true, Some(since)) => Some(since),
            (true, None) => Some(now_ms),
            (false, _) => None,
        };
    }

    /// A node says what runs there.
    pub fn node_report(&mut self, state: &State, now_ms: u64, status: &NodeStatus) -> Vec<Outcome> {
        self.memory.it_is(now_ms);
        self.memory.heard(&status.node);
        let mut out = Vec::new();
        if let Some(event) = news_of_node(state.node(&status.node), status) {
            out.extend(self.news(event));
        }
        for exit in &status.exits {
            out.extend(self.exited(state, &status.node, exit));
        }
        self.unwanted(state, status, &mut out);
        self.absent(state, status, &mut out);
        out
    }

    /// A shim says that its worker is ready and that it has no consumer.
    pub fn shim_ready(&mut self, state: &State, agent: &AgentName, incarnation: u64) -> ShimReady {
        let Some(agent) = state.agent(agent) else {
            return ShimReady::Ignore;
        };
        let phase_of = |one: &Option<Incarnation>| {
            one.as_ref().filter(|one| one.number == incarnation).map(|one| one.phase)
        };
        match (phase_of(&agent.current), phase_of(&agent.next)) {
            (Some(Phase::Starting), _) | (_, Some(Phase::Starting)) => ShimReady::LogReady,
            (Some(Phase::Ready), _) if agent.begun == Some(incarnation) => ShimReady::AdmitAgain,
            _ => ShimReady::Ignore,
        }
    }

    /// A shim is alive. Its agent is stable, once, after 60 s up and one finished turn, if it was restarted before.
    pub fn shim_heartbeat(
        &mut self,
        state: &State,
        now_ms: u64,
        agent: &AgentName,
        incarnation: u64,
        heartbeat: &Heartbeat,
    ) -> Vec<Outcome> {
        let runs = |one: &Incarnation| one.number == incarnation && one.phase == Phase::Ready;
        let Some(agent) = state.agent(agent) else {
            return Vec::new();
        };
        if !agent.current.as_ref().is_some_and(runs) {
            return Vec::new();
        }
        self.memory.it_is(now_ms);
        self.memory.heard_shim(&agent.name, incarnation);
        if agent.restart_count == 0 {
            return Vec::new();
        }
        let since = self.memory.up_since(&agent.name, incarnation);
        let event = ControlEvent::IncarnationStable { agent: agent.name.clone(), incarnation };
        let is_stable = now_ms.saturating_sub(since) >= STABLE && heartbeat.finished > 0;
        if is_stable { self.news(event) } else { Vec::new() }
    }

    /// A shim says that it has drained: worth a record if another one waits for that.
    pub fn shim_drained(
        &mut self,
        state: &State,
        agent: &AgentName,
        incarnation: u64,
    ) -> Vec<Outcome> {
        let Some(agent) = state.agent(agent) else {
            return Vec::new();
        };
        let drains = |one: &Incarnation| one.number == incarnation && one.phase == Phase::Draining;
        let waits = agent.next.as_ref().is_some_and(|next| next.phase == Phase::Ready);
        if !waits || !agent.current.as_ref().is_some_and(drains) {
            return Vec::new();
        }
        self.news(ControlEvent::IncarnationDrained { agent: agent.name.clone(), incarnation })
    }

    /// Time passes. Call it about once a second.
    pub fn tick(&mut self, state: &State, now_ms: u64) -> Vec<Outcome> {
        self.memory.it_is(now_ms);
        self.memory.tidy(state);
        let Some(link_since) = self.link_since else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for node in state.nodes().filter(|node| node.phase != NodePhase::Lost) {
            let heard = self.memory.last_heard(&node.name).unwrap_or(link_since);
            let silent = now_ms.saturating_sub(heard.max(link_since));
            let event = ControlEvent::NodeLost { node: node.name.clone() };
            if silent >= SILENCE {
                out.extend(self.news(event));
            }
        }
        self.hung_shims(state, now_ms, link_since, &mut out);
        out
    }

    /// A shim that is silent on a node that is not hangs: as a paused container does, or one without a network.
    fn hung_shims(&mut self, state: &State, now_ms: u64, link_since: u64, out: &mut Vec<Outcome>) {
        for agent in state.agents() {
            let Some(one) = agent.current.as_ref().filter(|one| one.phase == Phase::Ready) else {
                continue;
            };
            let is_up = state.node(&one.node).is_some_and(|node| node.phase == NodePhase::Up);
            let heard = self.memory.last_heard_shim(&agent.name, one.number).max(link_since);
            let silent = now_ms.saturating_sub(heard);
            if is_up && silent >= SHIM_SILENCE {
                out.extend(self.news(ControlEvent::IncarnationHung {
                    agent: agent.name.clone(),
                    incarnation: one.number,
                    silent_for: silent / 1000,
                }));
            }
        }
    }

    /// The record, unless it was said a moment ago.
    fn news(&mut self, event: ControlEvent) -> Vec<Outcome> {
        if self.memory.may_say(&event) { vec![Outcome::Record(event)] } else { Vec::new() }
    }
}

/// What the log does not know yet about a node.
fn news_of_node(known: Option<&Node>, status: &NodeStatus) -> Option<ControlEvent> {
    let seen = || ControlEvent::NodeSeen {
        node: status.node.clone(),
        instance: status.instance,
        runtimes: status.runtimes.clone(),
        labels: status.labels.clone(),
    };
    let is_as_known = |node: &Node| {
        node.instance == status.instance
            && node.runtimes.iter().eq(sorted(&status.runtimes).iter())
            && node
                .labels
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .eq(sorted(&status.labels))
    };
    match (known.map(|node| node.phase), status.draining) {
        (Some(NodePhase::Up), true) => {
            Some(ControlEvent::NodeDraining { node: status.node.clone() })
        }
        (Some(NodePhase::Up), false) if known.is_some_and(is_as_known) => None,
        (_, false) => Some(seen()),
        // One that goes down need not come up first.
        (None | Some(NodePhase::Draining | NodePhase::Lost), true) => None,
    }
}

fn sorted<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort();
    items.dedup();
    items
}
