//! The handover, request by request: between any two of them its leader may be deposed, stand still or die, and another one may
//! do the same.

use common::AgentName;
use common::control::ControlEvent;

use crate::Flaw;
use crate::world::{Event, World};

/// One handover under way.
#[derive(Debug, Clone)]
pub(crate) struct Handover {
    pub(crate) replica: usize,
    /// The run of the replica, and its term.
    pub(crate) run: u64,
    pub(crate) term: u64,
    pub(crate) agent: AgentName,
    pub(crate) incarnation: u64,
    pub(crate) over: Vec<u64>,
    pub(crate) step: Step,
}

/// What is asked of the broker next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Claim,
    /// Takes the consumer away from the nth of those before.
    Delete(usize),
    Create,
    /// Looks again who is admitted.
    Check(u64),
}

impl World {
    /// A request arrives at the broker.
    pub(crate) fn broker_does(&mut self, mut one: Handover) -> Result<(), String> {
        let (agent, incarnation) = (one.agent.clone(), one.incarnation);
        let fenced = self.flaw != Flaw::NoFence;
        one.step = match one.step {
            Step::Claim if fenced && !self.broker.claim(&agent, incarnation) => {
                self.outcome.too_late += 1;
                return Ok(());
            }
            Step::Claim => Step::Delete(0),
            Step::Delete(nth) => match one.over.get(nth) {
                Some(previous) => {
                    self.broker.delete_consumer(&agent, *previous, self.flaw);
                    Step::Delete(nth + 1)
                }
                None => Step::Create,
            },
            Step::Create => Step::Check(self.broker.create_consumer(&agent, incarnation)),
            Step::Check(_) if fenced && !self.broker.is_admitted(&agent, incarnation) => {
                self.outcome.too_late += 1;
                self.broker.delete_consumer(&agent, incarnation, Flaw::None);
                return Ok(());
            }
            Step::Check(made) => {
                self.outcome.admissions += 1;
                let replica = one.replica;
                self.send(Event::Begin { agent: agent.clone(), incarnation, made });
                if !one.over.is_empty() {
                    self.send(Event::Admitted { replica, agent, incarnation });
                }
                return Ok(());
            }
        };
        // The answer, and the next request: not of one that leads no more. Books are opened and closed in between.
        let longest = if self.rng.percent(20) { 2_000 } else { 300 };
        let takes = if self.calm { 1 } else { self.rng.between(1, longest) };
        self.later(takes, Event::Answered(one));
        Ok(())
    }

    /// The broker's answer arrives at the leader.
    pub(crate) fn broker_answered(&mut self, one: Handover) {
        let replica = &self.replicas[one.replica];
        let goes_on = replica.run == one.run && replica.leads(self.now) == Some(one.term);
        if goes_on && replica.is_reachable(self.now) {
            self.send(Event::Asked(one));
        }
    }

    pub(crate) fn handed_over(&mut self, index: usize, agent: AgentName, incarnation: u64) {
        let event = ControlEvent::IncarnationBegun { agent, incarnation };
        if let Some(term) = self.replicas[index].leads(self.now) {
            self.say(index, Some(term), event);
        }
    }

    /// A shim is told to take messages.
    pub(crate) fn begin(
        &mut self,
        agent: &AgentName,
        incarnation: u64,
        made: u64,
    ) -> Result<(), String> {
        let key = (agent.clone(), incarnation);
        let now = self.now;
        let is_there = self.broker.consumer(agent, incarnation) == Some(made);
        for host in self.hosts.iter_mut().filter(|host| host.is_reachable(now)) {
            let worker = host.workers.get_mut(&key);
            let waits =
                |worker: &&mut crate::node::Worker| worker.is_ready && worker.stops_at.is_none();
            if let Some(worker) = worker.filter(waits).filter(|_| is_there) {
                worker.consumer.get_or_insert(made);
                worker.begun_at = worker.begun_at.min(now);
                worker.heard_at = now;
                let begun = self.begun.entry(agent.clone()).or_default();
                if incarnation > begun.0 {
                    *begun = (incarnation, now);
                }
            }
        }
        let workers = self.hosts.iter().flat_map(|host| &host.workers);
        let taking: Vec<_> = workers
            .filter(|((of, number), worker)| {
                of == agent
                    && worker.consumer.is_some()
                    && self.broker.consumer(of, *number) == worker.consumer
            })
            .map(|((_, number), _)| number)
            .collect();
        if taking.len() > 1 {
            return Err(format!("incarnations {taking:?} of {agent} take messages"));
        }
        Ok(())
    }
}
