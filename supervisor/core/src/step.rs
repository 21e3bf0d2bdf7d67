//! The fold: one record in, actions out.

use common::control::{ControlEvent, ControlRecord};
use common::shim::Exit;
use common::spec::AgentSpec;
use common::{AgentName, NodeName, Timestamp};

use crate::action::Action;
use crate::life::{End, Life};
use crate::state::{Agent, Node, NodePhase, State};
use crate::world::World;

/// Folds a record into the state and says what it leads to. The same log gives the same states and actions on every replica.
///
/// A record that was folded already (`seq` not above the state's), that a deposed leader wrote, or that speaks of an
/// incarnation that is not there any more changes nothing.
pub fn step(state: &mut State, seq: u64, record: &ControlRecord) -> Vec<Action> {
    if seq <= state.seq {
        return Vec::new();
    }
    state.seq = seq;
    let mut actions = Vec::new();
    if let ControlEvent::LeaderElected { supervisor } = &record.event {
        if let Some(term) = record.term.filter(|term| *term > state.term) {
            state.term = term;
            state.leader = Some(supervisor.clone());
        }
        return actions;
    }
    if record.event.is_leaders() && record.term != Some(state.term) {
        return actions;
    }
    Fold { state, at: record.at, actions: &mut actions }.event(&record.event);
    actions
}

struct Fold<'a> {
    state: &'a mut State,
    at: Timestamp,
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
                let node = Node {
                    name: node.clone(),
                    instance: *instance,
                    runtimes: runtimes.iter().cloned().collect(),
                    labels: labels.iter().cloned().collect(),
                    phase: NodePhase::Up,
                    incarnations: self.state.node(node).map_or(0, |node| node.incarnations),
                };
                self.state.nodes.insert(node.name.clone(), node);
                self.on_all(|life| life.node_seen());
            }
            ControlEvent::NodeDraining { node } => {
                if let Some(node) = self.state.nodes.get_mut(node)
                    && node.phase == NodePhase::Up
                {
                    node.phase = NodePhase::Draining;
                }
            }
            ControlEvent::NodeLost { node } => self.lost(node),
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
            ControlEvent::TimerFired { agent, timer, incarnation } => {
                self.on(agent, |life| life.timer(*timer, *incarnation))
            }
            ControlEvent::LeaderElected { .. } | ControlEvent::Unknown => {}
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
        let Some(agent) = self.state.agents.get_mut(name) else {
            return;
        };
        let world = World { nodes: &mut self.state.nodes, at: self.at, actions: self.actions };
        act(&mut Life { agent, world });
        agent.tidy();
        if agent.removing && agent.incarnations().next().is_none() {
            let tombstone = agent.buried();
            self.state.agents.remove(name);
            self.state.tombstones.insert(name.clone(), tombstone);
        }
    }
}
