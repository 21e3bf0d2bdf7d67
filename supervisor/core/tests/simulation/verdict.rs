//! Whether the fleet is at the end what people want it to be.

use common::api::AgentState;
use supervisor_core::{Agent, Desired, Hold, Phase};

use crate::world::World;

impl World {
    /// Judges the end of a run.
    pub(crate) fn verdict(&mut self) -> Result<(), String> {
        let state = self.log.state();
        for replica in &self.replicas {
            // One that has folded all has the judge's state: that is compared at every record.
            let unread = self.log.record(replica.state.seq() + 1);
            if unread.is_some_and(|(at, _)| at.as_millis() + 2_000 < self.now) {
                return Err(format!("{} did not converge: it is behind the log", replica.name));
            }
        }
        let mut wanted = Vec::new();
        for agent in state.agents() {
            self.judge(agent).map_err(|why| {
                let lines = supervisor_core::explain(&state, &agent.name).join(" ");
                format!("{} did not converge: {why}. {lines}", agent.name)
            })?;
            wanted.extend(agent.current.iter().map(|one| (agent.name.clone(), one.number)));
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
        let Some(current) = agent.current.as_ref().filter(|one| one.phase == Phase::Ready) else {
            return Err("it is not ready".to_owned());
        };
        if agent.state() != AgentState::Running || agent.incarnations().count() != 1 {
            return Err("not exactly one incarnation is there".to_owned());
        }
        if !agent.is_rolled_back() && current.generation != agent.generation {
            return Err("an old generation runs".to_owned());
        }
        let host = &self.hosts[self.host_of(&current.node)];
        let worker = host.workers.get(&(agent.name.clone(), current.number));
        if !worker.is_some_and(|worker| worker.has_begun) {
            return Err("its worker takes no messages".to_owned());
        }
        if !self.broker.has_consumer(&agent.name, current.number) {
            return Err("its consumer is not there".to_owned());
        }
        self.outcome.running += 1;
        Ok(())
    }
}
