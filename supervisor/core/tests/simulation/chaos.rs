//! What goes wrong, and what people do meanwhile.

use std::time::Duration;

use common::control::{ControlEvent, ControlRecord};
use common::spec::{AgentSpec, Replace, RestartPolicy};
use common::{AgentName, Timestamp};

use crate::world::{Event, World};

const AGENTS: [&str; 4] = ["able", "baker", "charlie", "delta"];

impl World {
    pub(crate) fn chaos(&mut self) {
        if self.calm {
            return;
        }
        // At first people fill the fleet; then things happen every other second.
        let next = if self.now < 500 { 100 } else { self.rng.between(50, 2_500) };
        self.later(next, Event::Chaos);
        if self.now < 500 || self.rng.percent(45) {
            return self.somebody_wants();
        }
        self.outcome.faults += 1;
        let (host, replica) = (self.rng.index(3), self.rng.index(3));
        let long = self.rng.between(1_000, 20_000);
        match self.rng.between(0, 9) {
            0 => {
                self.note(|| format!("host {host} crashes"));
                self.hosts[host].crash();
                self.later(long, Event::HostStarts(host));
            }
            1 => {
                self.note(|| format!("node {host} restarts, its incarnations live on"));
                self.hosts[host].is_up = false;
                self.later(long / 4, Event::HostStarts(host));
            }
            2 | 3 => {
                self.note(|| format!("host {host} is cut off for {long} ms"));
                self.hosts[host].cut_off_until = self.now + long;
            }
            4 => self.drain(host, long),
            5 => {
                self.note(|| format!("replica {replica} crashes"));
                self.replicas[replica].crash();
                self.later(long / 2, Event::ReplicaStarts(replica));
            }
            6 | 7 => {
                self.note(|| format!("replica {replica} stalls for {long} ms"));
                self.replicas[replica].stalled_until = self.now + long;
            }
            8 => {
                self.note(|| format!("replica {replica} is cut off for {long} ms"));
                self.replicas[replica].cut_off_until = self.now + long;
            }
            _ => {
                self.note(|| "the broker restarts".to_owned());
                self.broker.forget_consumers();
            }
        }
    }

    fn drain(&mut self, host: usize, back_after: u64) {
        self.note(|| format!("node {host} goes down in order"));
        self.hosts[host].draining = true;
        let keys: Vec<_> = self.hosts[host].workers.keys().cloned().collect();
        for (agent, incarnation) in keys {
            self.tell_to_end(host, agent, incarnation, 2_000);
        }
        self.later(3_000, Event::HostStops(host));
        self.later(3_000 + back_after, Event::HostStarts(host));
    }

    fn somebody_wants(&mut self) {
        let name = AGENTS[self.rng.index(AGENTS.len())];
        let agent = AgentName::new(name).expect("a valid name");
        let event = match self.rng.between(0, if self.now < 500 { 3 } else { 11 }) {
            0..=3 => {
                let force = self.rng.percent(30);
                let spec = Box::new(self.some_spec(agent));
                ControlEvent::AgentApplied { spec, force, asked: None }
            }
            4 => ControlEvent::AgentStopped { agent },
            5 | 6 => ControlEvent::AgentStarted { agent },
            7 | 8 => ControlEvent::AgentReplaced { agent },
            9 | 10 => ControlEvent::AgentRestarted { agent },
            _ => ControlEvent::AgentRemoved { agent },
        };
        let at = Timestamp::from_millis(self.now);
        let record = ControlRecord { at, term: None, author: "cli".into(), event };
        let delay = self.rng.between(1, 200);
        self.later(delay, Event::Append { record: Box::new(record), from: None });
    }

    fn some_spec(&mut self, agent: AgentName) -> AgentSpec {
        let mut spec = AgentSpec::new(agent, "test/model", format!("v{}", self.rng.between(1, 3)));
        let stops_first = self.rng.percent(40);
        spec.replace = Some(if stops_first { Replace::StopFirst } else { Replace::StartFirst });
        spec.timeout.ready = Duration::from_secs(4);
        spec.timeout.drain = Duration::from_secs(2);
        spec.restart.max = if self.rng.percent(40) { 4 } else { 0 };
        spec.restart.backoff_first = Duration::from_millis(500 * self.rng.between(0, 2));
        spec.restart.backoff_max = Duration::from_secs(5);
        if self.rng.percent(20) {
            spec.restart.policy = RestartPolicy::OnFailure;
        }
        spec
    }

    /// The network heals, everybody is back, and nobody wants anything more.
    pub(crate) fn calm_down(&mut self) {
        self.note(|| "calm".to_owned());
        self.calm = true;
        for host in &mut self.hosts {
            host.cut_off_until = 0;
            host.draining = false;
            if !host.is_up {
                host.start();
            }
        }
        for replica in &mut self.replicas {
            replica.is_up = true;
            replica.stalled_until = 0;
            replica.cut_off_until = 0;
        }
    }
}
