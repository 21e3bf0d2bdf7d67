//! The fold: one record in, actions out.

use std::collections::BTreeMap;

use common::control::{ControlEvent, ControlRecord};
use common::shim::Exit;
use common::spec::AgentSpec;
use common::{AgentName, Load, NodeName, Timestamp};

use crate::action::Action;
use crate::carry::Carry;
use crate::drain;
use crate::life::{End, Life};
use crate::placement::WITH_ROOM;
use crate::restored;
use crate::scheduled::WITH_SCHEDULES;
use crate::state::{Agent, Hold, Leader, Node, NodePhase, State, Unreadable};
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
        let before = std::mem::replace(&mut state.rules, *rules);
        if before < WITH_ROOM && *rules >= WITH_ROOM {
            pin_all(state);
            // Whoever leads from here on finds what is to be done in the state.
            let mut fold =
                Fold { state: &mut *state, actions: &mut actions, room: Room::default() };
            fold.on_all_that(|agent| agent.wanted.is_some(), |life| life.fit());
            actions.clear();
        }
        if before < WITH_SCHEDULES && *rules >= WITH_SCHEDULES {
            // Nothing of them was sent before.
            let at = state.at;
            state.agents.values_mut().for_each(|agent| agent.schedule(at));
        }
        if !(OLDEST_RULES..=RULES).contains(rules) {
            let known = format!("this build folds {OLDEST_RULES} to {RULES}");
            unreadable(state, format!("it is of rules {rules}, {known}"));
        }
        return actions;
    }
    if record.event == ControlEvent::Unknown {
        unreadable(state, "it is of a type that this build does not know".to_owned());
    } else if !record.event.is_leaders() || record.term == Some(state.term) {
        Fold { state, actions: &mut actions, room: Room::default() }.fold(&record.event);
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

/// By the rules before, an agent with folders was only most often started where they were: that is where its data is now.
fn pin_all(state: &mut State) {
    for agent in state.agents.values_mut() {
        let spec = agent.current.as_ref().and_then(|one| agent.spec_of(one.generation));
        if agent.begun.is_some() && spec.unwrap_or(&agent.spec).pins().is_some() {
            agent.pin = agent.home.clone();
        }
    }
}

/// How what is taken of the nodes has changed by a record.
#[derive(Debug, Default)]
struct Room {
    more: bool,
    less: bool,
}

impl Room {
    /// Takes note of what an agent took of the nodes, and takes now.
    fn note(
        nodes: &mut BTreeMap<NodeName, Node>,
        before: &BTreeMap<NodeName, Load>,
        now: &BTreeMap<NodeName, Load>,
    ) -> Self {
        if before == now {
            return Self::default();
        }
        for (name, load) in before {
            if let Some(node) = nodes.get_mut(name) {
                node.load = node.load.minus(*load);
            }
        }
        for (name, load) in now {
            if let Some(node) = nodes.get_mut(name) {
                node.load = node.load.plus(*load);
            }
        }
        Self {
            more: before.iter().any(|(name, load)| now.get(name) != Some(load)),
            less: now.iter().any(|(name, load)| before.get(name) != Some(load)),
        }
    }
}

struct Fold<'a> {
    state: &'a mut State,
    actions: &'a mut Vec<Action>,
    room: Room,
}

impl Fold<'_> {
    fn fold(mut self, event: &ControlEvent) {
        self.event(event);
        if self.room.less {
            self.on_all_that(|agent| agent.wanted.is_some(), |life| life.fit());
        }
        if self.room.more {
            let waits = |agent: &Agent| agent.hold == Some(Hold::NoNode);
            self.on_all_that(waits, |life| life.try_again());
        }
        for (agent, node) in drain::next(self.state) {
            self.on(&agent, |life| life.leave(&node));
        }
    }

    fn event(&mut self, event: &ControlEvent) {
        match event {
            ControlEvent::AgentApplied { spec, force, asked: _ } => self.applied(spec, *force),
            ControlEvent::AgentStarted { agent } => self.on(agent, |life| life.started()),
            ControlEvent::AgentStopped { agent } => self.on(agent, |life| life.stopped()),
            ControlEvent::AgentRestarted { agent } => self.on(agent, |life| life.restarted()),
            ControlEvent::AgentReplaced { agent } => self.on(agent, |life| life.replaced()),
            ControlEvent::AgentRemoved { agent } => self.on(agent, |life| life.removed()),
            ControlEvent::AgentMoved { agent, to } => {
                let seq = self.state.seq;
                self.on(agent, |life| life.moved(to, seq));
            }
            ControlEvent::SanctumMoved { agent, copy, copied } => {
                self.on(agent, |life| life.sanctum_moved(*copy, copied));
            }
            ControlEvent::SanctumNotMoved { agent, copy, reason } => {
                self.on(agent, |life| life.sanctum_not_moved(*copy, reason));
            }
            ControlEvent::SanctumKept { agent, copy, folders } => {
                self.on(agent, |life| life.sanctum_kept(*copy, folders));
            }
            ControlEvent::SchedulePaused { agent, schedule } => {
                self.on(agent, |life| life.schedule_paused(schedule, true));
            }
            ControlEvent::ScheduleResumed { agent, schedule } => {
                self.on(agent, |life| life.schedule_paused(schedule, false));
            }
            ControlEvent::NodeDrained { node, parallel } => {
                if let Some(node) = self.state.nodes.get_mut(node) {
                    node.drained = Some((*parallel).max(1));
                    self.on_all(|life| life.place_anew());
                }
            }
            ControlEvent::NodeUndrained { node } => {
                let node = self.state.nodes.get_mut(node);
                if node.is_some_and(|node| node.drained.take().is_some()) {
                    self.room.more = true;
                }
            }
            ControlEvent::NodeRemoved { node } => self.node_removed(node),
            ControlEvent::FleetRestored { incarnations, .. } => {
                restored::begin(self.state, *incarnations);
                self.on_all(|life| life.go_on());
            }
            ControlEvent::NodeSeen { node, instance, runtimes, labels, capacity } => {
                let known = self.state.nodes.remove(node);
                let node = Node {
                    name: node.clone(),
                    instance: *instance,
                    runtimes: runtimes.iter().cloned().collect(),
                    labels: labels.iter().cloned().collect(),
                    capacity: *capacity,
                    load: known.as_ref().map(|known| known.load).unwrap_or_default(),
                    phase: NodePhase::Up,
                    lost_at: None,
                    drained: known.as_ref().and_then(|known| known.drained),
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
        let mut agent = Agent::new(spec.clone(), buried);
        agent.incarnation = agent.incarnation.max(self.state.base);
        self.state.agents.insert(spec.name.clone(), agent);
        self.on(&spec.name, |life| life.begin(None));
    }

    fn lost(&mut self, name: &NodeName) {
        let Some(node) = self.state.nodes.get_mut(name) else {
            return;
        };
        if node.phase != NodePhase::Lost {
            node.phase = NodePhase::Lost;
            node.lost_at = Some(self.state.at);
            self.on_all(|life| life.node_lost(name));
        }
    }

    /// Only one that is lost: nothing of it is known to run. What was pinned to it is free to start anew elsewhere.
    fn node_removed(&mut self, name: &NodeName) {
        if self.state.nodes.get(name).is_none_or(|node| node.phase != NodePhase::Lost) {
            return;
        }
        self.state.nodes.remove(name);
        self.on_all_that(|agent| agent.carry.is_some(), |life| life.sanctum_lost(name));
        let pins = self.state.agents.values_mut().map(|agent| &mut agent.pin);
        let buried = self.state.tombstones.values_mut().map(|buried| &mut buried.pin);
        for pin in pins.chain(buried) {
            pin.take_if(|pin| pin == name);
        }
        self.room.more = true;
    }

    fn on_all(&mut self, act: impl Fn(&mut Life<'_>)) {
        self.on_all_that(|_| true, act);
    }

    fn on_all_that(&mut self, is_one: impl Fn(&Agent) -> bool, act: impl Fn(&mut Life<'_>)) {
        let ones = self.state.agents.values().filter(|agent| is_one(agent));
        let names: Vec<_> = ones.map(|agent| agent.name.clone()).collect();
        for name in &names {
            self.on(name, &act);
        }
    }

    /// Lets an agent live through something; forgets it if that was the last of it.
    fn on(&mut self, name: &AgentName, act: impl FnOnce(&mut Life<'_>)) {
        let State { agents, nodes, at, rules, carrying, .. } = &mut *self.state;
        let Some(agent) = agents.get_mut(name) else {
            return;
        };
        let own = agent.loads();
        let world = World { nodes, at: *at, rules: *rules, own, actions: self.actions };
        let mut life = Life { agent, world };
        act(&mut life);
        let before = life.world.own;
        let change = Room::note(nodes, &before, &agent.loads());
        // By the rules before, that keeps nobody from anywhere.
        if *rules >= WITH_ROOM {
            self.room.more |= change.more;
            self.room.less |= change.less;
        }
        agent.tidy();
        if *rules >= WITH_SCHEDULES {
            agent.schedule(*at);
        }
        let is_open = agent.carry.as_ref().is_some_and(Carry::is_open);
        if is_open && !(agent.removing && agent.incarnations().next().is_none()) {
            if !carrying.contains(name) {
                carrying.insert(name.clone());
            }
        } else if !carrying.is_empty() {
            carrying.remove(name);
        }
        if agent.removing && agent.incarnations().next().is_none() {
            let tombstone = agent.buried();
            self.state.agents.remove(name);
            self.state.tombstones.insert(name.clone(), tombstone);
        }
    }
}
