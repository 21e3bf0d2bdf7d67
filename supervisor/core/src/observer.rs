//! The leader's view: turns the reports of nodes and shims into records, but only into those that say something new.
//!
//! What it remembers is not in the log: when it last heard from each node and shim, and what it has just reported. A new
//! leader knows when it heard the nodes while it followed ([`Ears`]), gives them some seconds more, and counts the silence of shims from then
//! on. Time is an argument: milliseconds of a clock that only goes forward, also while the machine sleeps.
//!
//! The time during which the leader itself was suspended does not count as silence of others. A gap between two moments at which it ran (a
//! stopped process, a closed lid, a frozen virtual machine) restarts every time window, as a lost link does.

mod ears;
mod incarnations;
mod memory;
mod nodes;

use common::{AgentName, NodeName};

use common::control::ControlEvent;
use common::frame::{Heartbeat, NodeStatus};

pub use ears::Ears;

use crate::action::Action;
use crate::state::{Incarnation, NodePhase, Phase, State};
use memory::Memory;

/// A node that is silent for this long, in milliseconds, is lost.
const SILENCE: u64 = 10_000;

/// For so long, in milliseconds, a new leader gives nodes a chance to be heard, however long it has not heard them while it followed: four of
/// their reports. Its server may have been cut off from the others until just now.
const CHANCE: u64 = 4_000;

/// A shim that is silent for this long, in milliseconds, hangs: six of its heartbeats.
const SHIM_SILENCE: u64 = 30_000;

/// A shim that runs and is silent for this long, in milliseconds, two heartbeats and a bit, while its node is not: it hangs, or it is the
/// leader that does not hear it.
const UNHEARD: u64 = 11_000;

/// A node that was heard this long ago, in milliseconds, is heard: it reports every second.
const LATELY: u64 = 3_000;

/// It looks around once a second. Two moments at which it ran that are further apart than this, in milliseconds: it stood still
/// in between.
const STANDSTILL: u64 = 2_000;

/// How long it must have listened, in milliseconds, before an incarnation that has not said ready is late: a shim says it every
/// 2.5 s at least.
const LISTENED: u64 = 5_000;

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
    /// It has ended, and may never hear that from its node: tell it.
    Dismiss,
    /// It is to wait, or to stop.
    Ignore,
}

/// What the leader has recently heard and reported.
#[derive(Debug, Clone)]
pub struct Observer {
    /// The term of the leader.
    term: u64,
    /// Since when its own link has been up; none while it is down.
    link_since: Option<u64>,
    /// Since when it has been running.
    awake_since: u64,
    /// Since when it leads.
    leads_since: u64,
    memory: Memory,
}

impl Observer {
    /// Starts with a link that is up, and before anything was heard.
    #[must_use]
    pub fn new(term: u64, now_ms: u64) -> Self {
        Self::after(term, now_ms, &Ears::new(now_ms))
    }

    /// The same, with what this supervisor has heard until now.
    #[must_use]
    pub fn after(term: u64, now_ms: u64, ears: &Ears) -> Self {
        let Ears { link_since, awake_since, nodes, .. } = ears.clone();
        let memory = Memory::at(now_ms, nodes);
        Self { term, link_since, awake_since, leads_since: now_ms, memory }
    }

    /// The leader runs now. To be called before anything else is handled, since nothing was received during a suspension. The
    /// result is how long it was suspended, in milliseconds.
    pub fn awake(&mut self, now_ms: u64) -> u64 {
        let gap = self.memory.it_is(now_ms);
        if gap < STANDSTILL {
            return 0;
        }
        self.awake_since = now_ms;
        self.memory.begin_anew();
        gap
    }

    /// Since when it has heard all there was to hear of nodes, as a leader or before; none while its link is down.
    fn hears_nodes_since(&self) -> Option<u64> {
        self.link_since.map(|since| since.max(self.awake_since))
    }

    /// Since when it has heard all there was to hear as a leader; none while its link is down.
    fn attentive_since(&self) -> Option<u64> {
        self.hears_nodes_since().map(|since| since.max(self.leads_since))
    }

    /// Whether it has listened for long enough to say that an incarnation has not become ready.
    #[must_use]
    pub fn has_listened(&self, now_ms: u64) -> bool {
        self.attentive_since().is_some_and(|since| now_ms.saturating_sub(since) >= LISTENED)
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
        self.awake(now_ms);
        let mut out = Vec::new();
        if !self.is_the_one(state, status, &mut out) {
            return out;
        }
        self.memory.heard(&status.node);
        self.went_down(state, status, &mut out);
        for event in nodes::news(state.node(&status.node), status) {
            out.extend(self.news(event));
        }
        for exit in &status.exits {
            out.extend(self.exited(state, &status.node, Some(status.instance), exit));
        }
        if status.seen.0 < self.term && self.memory.may_ask(&status.node) {
            out.push(Outcome::Do(Action::Ask { node: status.node.clone() }));
        }
        self.orphans(state, status, &mut out);
        // What it says of the others counts once the log knows it as the one who speaks for its name.
        if Self::speaks_for(state, &status.node, Some(status.instance)) {
            self.unwanted(state, status, &mut out);
            self.absent(state, status, &mut out);
        }
        out
    }

    /// A shim says that its worker is ready and that it has no consumer.
    pub fn shim_ready(&mut self, state: &State, agent: &AgentName, incarnation: u64) -> ShimReady {
        let Some(agent) = state.agent(agent) else {
            let is_over = self.may_dismiss(state, agent, incarnation);
            return if is_over { ShimReady::Dismiss } else { ShimReady::Ignore };
        };
        let phase_of = |one: &Option<Incarnation>| {
            one.as_ref().filter(|one| one.number == incarnation).map(|one| one.phase)
        };
        match (phase_of(&agent.current), phase_of(&agent.next)) {
            (Some(Phase::Starting), _) | (_, Some(Phase::Starting)) => ShimReady::LogReady,
            (Some(Phase::Ready), _) if agent.begun == Some(incarnation) => ShimReady::AdmitAgain,
            _ if self.may_dismiss(state, &agent.name, incarnation) => ShimReady::Dismiss,
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
        self.awake(now_ms);
        if self.may_dismiss(state, agent, incarnation) {
            let agent = agent.clone();
            return vec![Outcome::Do(Action::Dismiss { agent, incarnation })];
        }
        if !self.shim_heard(state, now_ms, agent, incarnation) {
            return Vec::new();
        }
        let Some(agent) = state.agent(agent) else {
            return Vec::new();
        };
        if agent.restart_count == 0 {
            return Vec::new();
        }
        let since = self.memory.up_since(&agent.name, incarnation);
        let event = ControlEvent::IncarnationStable { agent: agent.name.clone(), incarnation };
        let is_stable = now_ms.saturating_sub(since) >= STABLE && heartbeat.finished > 0;
        if is_stable { self.news(event) } else { Vec::new() }
    }

    /// A sign of life of a shim, whatever it says: also of one that speaks a version that cannot be read. The result says
    /// whether it is of the incarnation that takes messages.
    pub fn shim_heard(
        &mut self,
        state: &State,
        now_ms: u64,
        agent: &AgentName,
        incarnation: u64,
    ) -> bool {
        self.awake(now_ms);
        let Some(known) = state.agent(agent) else { return false };
        let of_it = |one: &&Incarnation| one.number == incarnation;
        let current = known.current.as_ref().filter(of_it);
        if current.or(known.next.as_ref().filter(of_it)).is_some() {
            self.memory.heard_shim(agent, incarnation);
        }
        current.is_some_and(|one| one.phase == Phase::Ready)
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

    /// What follows from a report did not get on record: what is not reported again must not count as said.
    pub fn unsaid(&mut self, event: &ControlEvent) {
        self.memory.unsay(event);
    }

    /// Time passes. Call it about once a second.
    pub fn tick(&mut self, state: &State, now_ms: u64) -> Vec<Outcome> {
        self.awake(now_ms);
        self.memory.tidy(state);
        let (Some(since), Some(hears_nodes)) = (self.attentive_since(), self.hears_nodes_since())
        else {
            return Vec::new();
        };
        let mut out = Vec::new();
        let had_a_chance = now_ms.saturating_sub(since) >= CHANCE;
        for node in state.nodes().filter(|node| node.phase != NodePhase::Lost) {
            let heard = self.memory.last_heard(&node.name).unwrap_or(hears_nodes);
            let silent = now_ms.saturating_sub(heard.max(hears_nodes));
            let event = ControlEvent::NodeLost { node: node.name.clone() };
            if silent >= SILENCE && had_a_chance {
                out.extend(self.news(event));
            }
        }
        self.hung_shims(state, now_ms, since, &mut out);
        out
    }

    /// A shim that is silent on a node that is not hangs: as a paused container does, or one without a network.
    fn hung_shims(&mut self, state: &State, now_ms: u64, since: u64, out: &mut Vec<Outcome>) {
        for agent in state.agents() {
            let Some(one) = agent.current.as_ref().filter(|one| one.phase == Phase::Ready) else {
                continue;
            };
            let is_up = state.node(&one.node).is_some_and(|node| node.phase == NodePhase::Up);
            let heard = self.memory.last_heard_shim(&agent.name, one.number).max(since);
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

    /// How long, in milliseconds, a shim has been silent that runs, as its node says, which is heard; the longest such silence, if any is
    /// long. Hosts may not reach each other that both reach a third one: then it is another server that hears both.
    #[must_use]
    pub fn unheard(&self, state: &State, now_ms: u64) -> Option<u64> {
        let since = self.attentive_since()?;
        let incarnations = state.agents().flat_map(|agent| {
            let those = agent.current.iter().chain(&agent.next);
            those.map(|one| (&agent.name, one))
        });
        let heard = |node: &NodeName| {
            let heard = self.memory.last_heard(node);
            heard.is_some_and(|heard| now_ms.saturating_sub(heard) < LATELY)
        };
        let running =
            incarnations.filter(|(_, one)| one.phase != Phase::Draining && heard(&one.node));
        running
            .filter_map(|(agent, one)| self.memory.last_heard_running(agent, one.number))
            .map(|last| now_ms.saturating_sub(last.max(since)))
            .filter(|silent| *silent >= UNHEARD)
            .max()
    }

    /// The record, unless it was said a moment ago.
    fn news(&mut self, event: ControlEvent) -> Vec<Outcome> {
        if self.memory.may_say(&event) { vec![Outcome::Record(event)] } else { Vec::new() }
    }
}
