//! The fold: one record in, actions out.

use common::control::{ControlEvent, ControlRecord};
use common::shim::Exit;
use common::spec::AgentSpec;
use common::{AgentName, NodeName, Timestamp};

use crate::action::Action;
use crate::life::{End, Life};
use crate::state::{Agent, Leader, Node, NodePhase, State, Unreadable};
use crate::world::World;
use crate::{OLDEST_RULES, RULES};

/// Folds a record into the state and says what it leads to. The same log gives the same states and actions on every replica.
///
/// `seq` and `at` are the log's own: its sequence, and when the log stored it. The log's clock may step back; the fold's time
/// does not.
///
/// A record that was folded already (`seq` not above the state's, or an id that was just folded), that a deposed leader wrote, or
/// that speaks of an incarnation that no longer exists changes nothing.
pub fn step(state: &mut State, seq: u64, at: Timestamp, record: &ControlRecord) -> Vec<Action> {
    if !pass(state, seq, at) {
        return Vec::new();
    }
    let is_new = record.id.as_ref().is_none_or(|id| state.recent.note(id));
    if !is_new && state.rules >= 3 {
        return Vec::new();
    }
    let mut actions = Vec::new();
    if let ControlEvent::LeaderElected { supervisor, run, rules } = &record.event {
        state.term = seq;
        state.leader = Some(Leader { supervisor: supervisor.clone(), run: run.clone() });
        state.rules = *rules;
        if !(OLDEST_RULES..=RULES).contains(rules) {
            let known = format!("this build folds {OLDEST_RULES} to {RULES}");
            unreadable(state, format!("it is of rules {rules}, {known}"));
        }
        return actions;
    }
    if record.event == ControlEvent::Unknown {
        unreadable(state, "it is of a type that this build does not know".to_owned());
    } else if !record.event.is_leaders() || record.term == Some(state.term) {
        Fold { state, actions: &mut actions }.event(&record.event);
    }
    actions
}

/// Passes over what is at a sequence and is no record that this build can read. `newer` says why, if it may mean something to
/// another build; none if it means nothing to anybody.
pub fn skip(state: &mut State, seq: u64, at: Timestamp, newer: Option<String>) {
    if pass(state, seq, at)
        && let Some(why) = newer
    {
        unreadable(state, why);
    }
}

/// Moves on to a sequence; not if it was passed before.
fn pass(state: &mut State, seq: u64, at: Timestamp) -> bool {
    let is_new = seq > state.seq;
    if is_new {
        state.seq = seq;
        state.at = state.at.max(at);
    }
    is_new
}

fn unreadable(state: &mut State, why: String) {
    let seq = state.seq;
    state.unreadable.get_or_insert(Unreadable { seq, why });
}

struct Fold<'a> {
    state: &'a mut State,
    actions: &'a mut Vec<Action>,
}

impl Fold<'_> {
    fn event(mut self, event: &ControlEvent) {
        match event {
            ControlEvent::AgentApplied { spec, force, asked: _ } => self.applied(spec, *force),
            ControlEvent::AgentStarted { agent } => self.on(agent, |life| life.started()),
            ControlEvent::AgentStopped { agent } => self.on(agent, |life| life.stopped()),
            ControlEvent::AgentRestarted { agent } => self.on(agent, |life| life.restarted()),
            ControlEvent::AgentReplaced { agent } => self.on(agent, |life| life.replaced()),
            ControlEvent::AgentRemoved { agent } => self.on(agent, |life| life.removed()),
            ControlEvent::NodeSeen { node, instance, runtimes, labels } => {
                let known = self.state.nodes.remove(node);
                let node = Node {
                    name: node.clone(),
                    instance: *instance,
                    runtimes: runtimes.iter().cloned().collect(),
                    labels: labels.iter().cloned().collect(),
                    phase: NodePhase::Up,
                    incarnations: known.as_ref().map_or(0, |known| known.incarnations),
                    // A process that was started anew may have been mended.
                    succeeded: known.as_ref().and_then(|known| known.succeeded),
                    failures: known
                        .filter(|known| known.instance == *instance)
                        .map(|known| known.failures)
                        .unwrap_or_default(),
                };
                self.state.nodes.insert(node.name.clone(), node);
                self.on_all(|life| life.node_seen());
            }
            ControlEvent::NodeDraining { node } => {
                if let Some(node) = self.state.nodes.get_mut(node)
                    && node.phase == NodePhase::Up
                {
                    node.phase = NodePhase::Draining;
                    self.on_all(|life| life.place_anew());
                }
            }
            ControlEvent::NodeLost { node } => self.lost(node),
            ControlEvent::IncarnationAllocated { agent, incarnation, generation, node } => {
                self.on(agent, |life| life.allocated(*incarnation, *generation, node));
            }
            ControlEvent::IncarnationReturned { agent, incarnation, generation, node } => {
                self.on(agent, |life| life.returned(*incarnation, *generation, node));
            }
            ControlEvent::IncarnationReady { agent, incarnation, floor } => {
                self.on(agent, |life| life.ready(*incarnation, *floor))
            }
            ControlEvent::IncarnationBegun { agent, incarnation } => {
                self.on(agent, |life| life.begun(*incarnation));
            }
            ControlEvent::IncarnationExited { agent, incarnation, exit, clean } => {
                self.on(agent, |life| {
                    life.ended(*incarnation, End::Exited(exit.clone()), *clean);
                })
            }
            ControlEvent::StartFailed { agent, incarnation, reason } => self.on(agent, |life| {
                let exit = Exit { reason: Some(reason.clone()), ..Exit::default() };
                life.ended(*incarnation, End::NeverRan(exit), false);
            }),
            ControlEvent::IncarnationDrained { agent, incarnation } => {
                self.on(agent, |life| life.drained(*incarnation));
            }
            ControlEvent::IncarnationHung { agent, incarnation, silent_for } => {
                self.on(agent, |life| life.hung(*incarnation, *silent_for));
            }
            ControlEvent::IncarnationStable { agent, incarnation } => {
                self.on(agent, |life| life.stable(*incarnation));
            }
            ControlEvent::TimerFired { agent, timer, incarnation, said } => {
                self.on(agent, |life| life.timer(*timer, *incarnation, said.as_deref()));
            }
            ControlEvent::MessagesForgotten { .. }
            | ControlEvent::LeaderElected { .. }
            | ControlEvent::Unknown => {}
        }
    }

    fn applied(&mut self, spec: &AgentSpec, force: bool) {
        if self.state.agents.contains_key(&spec.name) {
            return self.on(&spec.name, |life| life.applied(spec, force));
        }
        let buried = self.state.tombstones.remove(&spec.name);
        let agent = Agent::new(spec.clone(), buried);
        self.state.agents.insert(spec.name.clone(), agent);
        self.on(&spec.name, |life| life.begin(None));
    }

    fn lost(&mut self, name: &NodeName) {
        let Some(node) = self.state.nodes.get_mut(name) else {
            return;
        };
        if node.phase != NodePhase::Lost {
            node.phase = NodePhase::Lost;
            self.on_all(|life| life.node_lost(name));
        }
    }

    fn on_all(&mut self, act: impl Fn(&mut Life<'_>)) {
        let names: Vec<_> = self.state.agents.keys().cloned().collect();
        for name in &names {
            self.on(name, &act);
        }
    }

    /// Lets an agent live through something; forgets it if that was the last of it.
    fn on(&mut self, name: &AgentName, act: impl FnOnce(&mut Life<'_>)) {
        let State { agents, nodes, at, rules, .. } = &mut *self.state;
        let Some(agent) = agents.get_mut(name) else {
            return;
        };
        let world = World { nodes, at: *at, rules: *rules, actions: self.actions };
        act(&mut Life { agent, world });
        agent.tidy();
        if agent.removing && agent.incarnations().next().is_none() {
            let tombstone = agent.buried();
            self.state.agents.remove(name);
            self.state.tombstones.insert(name.clone(), tombstone);
        }
    }
}
