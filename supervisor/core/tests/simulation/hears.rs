//! What a supervisor hears.

use common::control::ControlEvent;
use common::frame::{Heartbeat, IncarnationExit, NodeStatus};
use common::{AgentName, NodeName};
use supervisor_core::{Action, Outcome, ShimReady};

use crate::Flaw;
use crate::replica::Replica;
use crate::world::World;

impl World {
    /// Lets a leader look at something, and does what follows.
    pub(crate) fn sees(
        &mut self,
        index: usize,
        look: impl FnOnce(&mut Replica, u64) -> Vec<Outcome>,
    ) {
        let replica = &mut self.replicas[index];
        let (Some(term), true) = (replica.leads(self.now), replica.is_up) else {
            return;
        };
        let clock = replica.clock(self.now);
        for outcome in look(replica, clock) {
            match outcome {
                Outcome::Record(event) => self.say(index, Some(term), event),
                Outcome::Do(Action::Stop { .. } | Action::Dismiss { .. })
                    if self.flaw == Flaw::LeaveOrphans => {}
                Outcome::Do(action) => self.perform(index, vec![action]),
            }
        }
    }

    /// As [`World::sees`], of something that came over the network.
    fn hears(&mut self, index: usize, look: impl FnOnce(&mut Replica, u64) -> Vec<Outcome>) {
        if self.replicas[index].is_reachable(self.now) {
            self.sees(index, look);
        }
    }

    pub(crate) fn hears_report(&mut self, index: usize, status: &NodeStatus) {
        let replica = &mut self.replicas[index];
        if replica.is_up && replica.is_reachable(self.now) {
            let clock = replica.clock(self.now);
            replica.ears.heard(&status.node, clock);
        }
        self.hears(index, |replica, clock| {
            replica.observer.node_report(&replica.state, clock, status)
        });
    }

    pub(crate) fn hears_exit(
        &mut self,
        index: usize,
        node: &NodeName,
        instance: u64,
        exit: &IncarnationExit,
    ) {
        self.hears(index, |replica, _| {
            replica.observer.exited(&replica.state, node, Some(instance), exit)
        });
    }

    pub(crate) fn hears_failure(
        &mut self,
        index: usize,
        node: &NodeName,
        instance: u64,
        (agent, incarnation): (&AgentName, u64),
    ) {
        self.hears(index, |replica, _| {
            let (state, instance) = (&replica.state, Some(instance));
            replica.observer.start_failed(state, node, instance, agent, incarnation, "no program")
        });
    }

    pub(crate) fn hears_heartbeat(&mut self, index: usize, agent: &AgentName, incarnation: u64) {
        let beat = Heartbeat { finished: 1, ..Heartbeat::default() };
        self.hears(index, |replica, clock| {
            replica.observer.shim_heartbeat(&replica.state, clock, agent, incarnation, &beat)
        });
    }

    pub(crate) fn hears_ready(&mut self, index: usize, agent: &AgentName, incarnation: u64) {
        self.hears(index, |replica, clock| {
            let state = &replica.state;
            replica.observer.shim_heard(state, clock, agent, incarnation);
            match replica.observer.shim_ready(state, agent, incarnation) {
                ShimReady::LogReady => {
                    let agent = agent.clone();
                    let floor = state.seq();
                    vec![Outcome::Record(ControlEvent::IncarnationReady {
                        agent,
                        incarnation,
                        floor,
                    })]
                }
                ShimReady::AdmitAgain => {
                    let admit = state.agent(agent).and_then(supervisor_core::Agent::admit);
                    admit.into_iter().map(Outcome::Do).collect()
                }
                ShimReady::Dismiss => {
                    vec![Outcome::Do(Action::Dismiss { agent: agent.clone(), incarnation })]
                }
                ShimReady::Ignore => Vec::new(),
            }
        });
    }
}
