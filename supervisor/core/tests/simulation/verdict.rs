//! Whether what happens is right while it happens, and whether the fleet is at the end what people want it to be.

use common::api::AgentState;
use common::control::{ControlEvent, ControlRecord, Timer};
use common::spec::Replace;
use common::{AgentName, NodeName};
use supervisor_core::{Agent, Desired, Hold, Phase, State};

use crate::node::{Host, Worker};
use crate::world::World;

/// What was decided may be on its way for this long, in milliseconds, before it is on record.
const ON_ITS_WAY: u64 = 12_000;

impl World {
    /// Judges a record that changed something: nothing that is well and can be reached ends without having been asked to.
    #[expect(clippy::wildcard_enum_match_arm, reason = "these four end what runs, and no others")]
    pub(crate) fn judge_ends(&self, record: &ControlRecord, before: &State) -> Result<(), String> {
        match &record.event {
            ControlEvent::NodeLost { node } => {
                let known = before.node(node).map(|known| known.instance);
                let host = self.hosts.iter().find(|host| Some(host.instance) == known);
                match host {
                    Some(host) if host.is_well_for(self.now, 10_000 + ON_ITS_WAY) => {
                        Err(format!("{node} counts as lost, and is there"))
                    }
                    _ => Ok(()),
                }
            }
            ControlEvent::IncarnationHung { agent, incarnation, .. } => {
                match self.worker(agent, *incarnation) {
                    Some((host, worker))
                        if host.is_well_for(self.now, 30_000 + ON_ITS_WAY)
                            && worker.stops_at.is_none()
                            && self.now > worker.ready_at.saturating_add(30_000 + ON_ITS_WAY) =>
                    {
                        Err(format!("{agent}.{incarnation} counts as hung, and is not"))
                    }
                    _ => Ok(()),
                }
            }
            ControlEvent::IncarnationExited { agent, incarnation, exit, .. }
                if exit.code.is_none() =>
            {
                let one = before.agent(agent).and_then(|agent| agent.incarnation(*incarnation));
                let speaks = one.and_then(|one| before.node(&one.node)).map(|node| node.instance);
                // What its double reported may have been believed a moment ago.
                let long = one.and_then(|one| self.speaks.get(&one.node));
                let long = long.is_some_and(|(_, since)| since + ON_ITS_WAY < self.now);
                match self.worker(agent, *incarnation) {
                    Some((host, _)) if long && Some(host.instance) == speaks => {
                        Err(format!("{agent}.{incarnation} counts as gone, and is there"))
                    }
                    _ => Ok(()),
                }
            }
            ControlEvent::TimerFired { agent, timer: Timer::Ready, incarnation, .. } => {
                match self.worker(agent, *incarnation) {
                    Some((host, worker))
                        if host.is_well_for(self.now, ON_ITS_WAY)
                            && self.now > worker.ready_at.saturating_add(ON_ITS_WAY)
                            && self
                                .led_since
                                .is_some_and(|since| self.now > since + ON_ITS_WAY) =>
                    {
                        Err(format!("{agent}.{incarnation} is late, and has long been ready"))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn worker(&self, agent: &AgentName, incarnation: u64) -> Option<(&Host, &Worker)> {
        let key = (agent.clone(), incarnation);
        self.hosts.iter().find_map(|host| Some((host, host.workers.get(&key)?)))
    }

    /// Somebody leads, some seconds after all is calm.
    pub(crate) fn somebody_leads(&self) -> Result<(), String> {
        let term = self.log.state().term();
        let leads = self.replicas.iter().any(|replica| replica.leads(self.now) == Some(term));
        if leads { Ok(()) } else { Err("nobody leads, and all is calm".to_owned()) }
    }

    /// Judges the end of a run.
    pub(crate) fn verdict(&mut self) -> Result<(), String> {
        self.somebody_leads()?;
        let state = self.log.state();
        for replica in &self.replicas {
            // One that has folded all has the judge's state: that is compared at every record.
            let unread = self.log.record(replica.state.seq() + 1);
            if unread.is_some_and(|stored| stored.really + 2_000 < self.now) {
                return Err(format!("{} did not converge: it is behind the log", replica.name));
            }
        }
        for node in state.nodes() {
            let drain = supervisor_core::drain(&state, &node.name).unwrap_or_default();
            if !(drain.moving.is_empty() && drain.waiting.is_empty()) {
                return Err(format!("{} did not converge: {drain:?}", node.name));
            }
        }
        let mut wanted = Vec::new();
        for agent in state.agents() {
            self.judge(agent).map_err(|why| {
                let lines = supervisor_core::explain(&state, &agent.name).join(" ");
                format!("{} did not converge: {why}. {lines}", agent.name)
            })?;
            wanted.extend(agent.current.iter().map(|one| (agent.name.clone(), one.number)));
            // What came back with its node goes on for as long as no node takes its successor: here, as that one is drained.
            let target = agent.spec_of(agent.target).unwrap_or(&agent.spec);
            let stays = agent.begun.filter(|_| {
                agent.current.is_none()
                    && agent.hold == Some(Hold::NoNode)
                    && target.replace_mode() == Replace::StartFirst
            });
            wanted.extend(stays.map(|number| (agent.name.clone(), number)));
        }
        let alive = self.hosts.iter().flat_map(|host| host.workers.keys());
        for key in alive {
            if !wanted.contains(key) {
                return Err(format!("did not converge: {}.{} is an orphan", key.0, key.1));
            }
        }
        Ok(())
    }

    fn judge(&mut self, agent: &Agent) -> Result<(), String> {
        if agent.desired == Desired::Stopped {
            return match agent.incarnations().next() {
                None if !agent.removing => Ok(()),
                _ => Err("it is not stopped".to_owned()),
            };
        }
        if let Some(Hold::Quarantined | Hold::Completed | Hold::GivenUp) = agent.hold {
            self.outcome.resting += 1;
            return match agent.incarnations().next() {
                None => Ok(()),
                Some(_) => Err("it rests, and something of it runs".to_owned()),
            };
        }
        let state = self.log.state();
        // Its data is where others have taken the room, or somebody drained the node.
        let is_taken = |node: &NodeName| {
            agent.pin.as_ref() == Some(node)
                && supervisor_core::cannot_run(&state, agent, node).is_some()
        };
        if agent.hold == Some(Hold::NoNode) && agent.pin.as_ref().is_some_and(is_taken) {
            self.outcome.resting += 1;
            return Ok(());
        }
        let Some(current) = agent.current.as_ref().filter(|one| one.phase == Phase::Ready) else {
            return Err("it is not ready".to_owned());
        };
        if agent.state() != AgentState::Running || agent.incarnations().count() != 1 {
            return Err("not exactly one incarnation is there".to_owned());
        }
        if !agent.is_rolled_back() && current.generation != agent.generation {
            return Err("an old generation runs".to_owned());
        }
        let worker = self.worker(&agent.name, current.number).map(|(_, worker)| worker.clone());
        let consumer = self.broker.consumer(&agent.name, current.number);
        if consumer.is_none() {
            return Err("its consumer is not there".to_owned());
        }
        if worker.is_none_or(|worker| worker.consumer != consumer) {
            return Err("its worker takes no messages".to_owned());
        }
        self.outcome.running += 1;
        Ok(())
    }
}
