//! The context of an agent while one record is folded: the nodes, the time, the actions so far.

use std::collections::BTreeMap;
use std::time::Duration;

use common::control::Timer;
use common::spec::AgentSpec;
use common::{AgentName, Load, NodeName, Timestamp};

use crate::action::Action;
use crate::placement::{Need, able, refusal, unfit, without_data};
use crate::state::{Agent, Incarnation, Node, NodePhase, Phase, Wanted};

/// How long after its drain time an incarnation is told to stop again. The node kills by itself when the drain time is over.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// How often it is told again after that.
const STOP_AGAIN: Duration = Duration::from_secs(10);

/// For how long a start that failed counts against its node.
pub(crate) const FAILURE_COUNTS: Duration = Duration::from_secs(600);

/// The nodes, the time of the record, and the actions that it leads to.
pub(crate) struct World<'a> {
    pub(crate) nodes: &'a mut BTreeMap<NodeName, Node>,
    pub(crate) at: Timestamp,
    pub(crate) rules: u32,
    /// What the agent took of the nodes before this record.
    pub(crate) own: BTreeMap<NodeName, Load>,
    pub(crate) actions: &'a mut Vec<Action>,
}

impl World<'_> {
    /// Whether any node can take an incarnation of the agent's target.
    ///
    /// # Errors
    /// Why none can.
    pub(crate) fn place(&self, agent: &Agent) -> Result<(), String> {
        able(self.nodes, self.need(agent, agent.target_spec())).map(|_| ())
    }

    /// Asks for the start of a generation whose spec the agent has.
    ///
    /// # Errors
    /// Why no node can run it.
    pub(crate) fn want(&mut self, agent: &mut Agent, wanted: Wanted) -> Result<(), String> {
        let spec = agent.spec_of(wanted.generation).unwrap_or(&agent.spec);
        able(self.nodes, self.need(agent, spec))?;
        agent.wanted = Some(wanted);
        self.actions.push(Action::Allocate { agent: agent.name.clone() });
        Ok(())
    }

    fn need<'a>(&'a self, agent: &'a Agent, spec: &'a AgentSpec) -> Need<'a> {
        Need::of(agent, spec, &self.own, self.rules)
    }

    /// Whether a node takes a start of this spec.
    pub(crate) fn takes(&self, node: &NodeName, agent: &Agent, spec: &AgentSpec) -> bool {
        let need = self.need(agent, spec);
        let is_pinned_elsewhere =
            need.pin.is_some_and(|pin| pin != node && self.nodes.contains_key(pin));
        !is_pinned_elsewhere
            && need.to.is_none_or(|to| to == node)
            && self.nodes.get(node).is_some_and(|node| refusal(node, need).is_none())
    }

    /// Whether a node may go on with what has been running there all the time: it takes no more room than it did.
    pub(crate) fn takes_back(&self, node: &NodeName, spec: &AgentSpec) -> bool {
        self.nodes.get(node).is_some_and(|node| unfit(node, spec).is_none())
    }

    /// Whether any node takes a start of this spec.
    pub(crate) fn has_room(&self, agent: &Agent, spec: &AgentSpec) -> bool {
        able(self.nodes, self.need(agent, spec)).is_ok()
    }

    /// Why a node does not take a start of the agent's target.
    pub(crate) fn refuses(&self, node: &NodeName, agent: &Agent) -> Option<String> {
        let need = self.need(agent, agent.target_spec());
        let elsewhere = need.pin.filter(|pin| *pin != node && self.nodes.contains_key(*pin));
        match (self.nodes.get(node), elsewhere) {
            (None, _) => Some("was removed".to_owned()),
            (_, Some(pin)) => Some(without_data(pin)),
            (Some(node), None) => refusal(node, need),
        }
    }

    /// Why a node could not start the agent's target if it had its SANCTUM.
    pub(crate) fn has_no_room_for(&self, node: &NodeName, agent: &Agent) -> Option<String> {
        let need = Need { pin: None, to: None, ..self.need(agent, agent.target_spec()) };
        match self.nodes.get(node) {
            None => Some("was removed".to_owned()),
            Some(node) => refusal(node, need),
        }
    }

    /// Whether a node is there; none if it is not known.
    pub(crate) fn phase_of(&self, node: &NodeName) -> Option<NodePhase> {
        self.nodes.get(node).map(|node| node.phase)
    }

    /// Starts an incarnation that has its number and its place.
    pub(crate) fn start(
        &mut self,
        agent: &mut Agent,
        number: u64,
        generation: u64,
        node: &NodeName,
        warm: bool,
    ) -> Incarnation {
        let spec = agent.spec_of(generation).unwrap_or(&agent.spec);
        let deadline = self.at.after(spec.timeout.ready);
        agent.incarnation = number;
        agent.home = Some(node.clone());
        self.count(node, |load| load.saturating_add(1));
        let instance = self.instance_of(node);
        self.actions.push(Action::Start {
            node: node.clone(),
            instance,
            agent: agent.name.clone(),
            generation,
            incarnation: number,
            warm,
        });
        self.set_timer(&agent.name, Timer::Ready, number, deadline);
        Incarnation {
            number,
            generation,
            node: node.clone(),
            instance,
            phase: Phase::Starting,
            started_at: self.at,
            deadline: Some(deadline),
            within: Duration::ZERO,
            floor: 0,
            hung: None,
        }
    }

    /// Takes up an incarnation that came back with its node.
    pub(crate) fn take_up(
        &mut self,
        agent: &Agent,
        number: u64,
        generation: u64,
        node: &NodeName,
    ) -> Incarnation {
        self.count(node, |load| load.saturating_add(1));
        Incarnation {
            number,
            generation,
            node: node.clone(),
            instance: self.instance_of(node),
            phase: Phase::Ready,
            started_at: self.at,
            deadline: None,
            within: Duration::ZERO,
            floor: agent.floor,
            hung: None,
        }
    }

    /// A start failed there.
    pub(crate) fn start_failed(&mut self, agent: &AgentName, node: &NodeName) {
        let at = self.at;
        if let Some(node) = self.nodes.get_mut(node).filter(|_| self.rules >= 2) {
            node.failures.retain(|_, failed| at.since(*failed) < FAILURE_COUNTS);
            node.failures.insert(agent.clone(), at);
        }
    }

    /// A start succeeded there.
    pub(crate) fn start_succeeded(&mut self, agent: &AgentName, node: &NodeName) {
        let at = self.at;
        if let Some(node) = self.nodes.get_mut(node).filter(|_| self.rules >= 2) {
            node.failures.remove(agent);
            node.succeeded = Some(at);
        }
    }

    /// Tells an incarnation to finish its turns and end. One that is being told already is left alone.
    pub(crate) fn drain(&mut self, agent: &AgentName, one: &mut Incarnation, within: Duration) {
        if one.phase == Phase::Draining {
            return;
        }
        self.cancel_timer_of(agent, one);
        one.phase = Phase::Draining;
        one.within = within;
        self.stop(agent, one, within.saturating_add(DRAIN_GRACE));
    }

    /// Tells an overdue incarnation again to stop, this time at once.
    pub(crate) fn stop_again(&mut self, agent: &AgentName, one: &mut Incarnation) {
        one.within = Duration::ZERO;
        self.stop(agent, one, STOP_AGAIN);
    }

    fn stop(&mut self, agent: &AgentName, one: &mut Incarnation, overdue: Duration) {
        let deadline = self.at.after(overdue);
        one.deadline = Some(deadline);
        self.actions.push(Action::Stop {
            node: one.node.clone(),
            agent: agent.clone(),
            incarnation: one.number,
            within: one.within,
        });
        self.set_timer(agent, Timer::Drain, one.number, deadline);
    }

    /// Takes note that an incarnation is gone.
    pub(crate) fn gone(&mut self, agent: &AgentName, one: &Incarnation) {
        self.cancel_timer_of(agent, one);
        self.count(&one.node, |load| load.saturating_sub(1));
    }

    /// Cancels the timer that the incarnation's phase runs under.
    pub(crate) fn cancel_timer_of(&mut self, agent: &AgentName, one: &Incarnation) {
        let timer = match one.phase {
            Phase::Starting => Timer::Ready,
            Phase::Draining => Timer::Drain,
            Phase::Ready => return,
        };
        self.cancel_timer(agent, timer, one.number);
    }

    pub(crate) fn set_timer(
        &mut self,
        agent: &AgentName,
        timer: Timer,
        incarnation: u64,
        at: Timestamp,
    ) {
        self.actions.push(Action::SetTimer { agent: agent.clone(), timer, incarnation, at });
    }

    pub(crate) fn cancel_timer(&mut self, agent: &AgentName, timer: Timer, incarnation: u64) {
        self.actions.push(Action::CancelTimer { agent: agent.clone(), timer, incarnation });
    }

    /// The process that speaks for a node.
    pub(crate) fn instance_of(&self, node: &NodeName) -> u64 {
        self.nodes.get(node).map_or(0, |node| node.instance)
    }

    pub(crate) fn is_draining(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|node| node.phase == NodePhase::Draining)
    }

    fn count(&mut self, node: &NodeName, change: impl FnOnce(u32) -> u32) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.incarnations = change(node.incarnations);
        }
    }
}
