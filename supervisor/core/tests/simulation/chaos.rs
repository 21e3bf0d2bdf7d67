//! What goes wrong, and what people do meanwhile.

use std::time::Duration;

use common::control::{ControlEvent, ControlRecord};
use common::spec::{AgentSpec, Replace, RestartPolicy, Sanctum};
use common::{AgentName, Timestamp};

use crate::world::{CHAOS, Event, TWIN, UPGRADE, World};

const AGENTS: [&str; 4] = ["able", "baker", "charlie", "delta"];

impl World {
    pub(crate) fn chaos(&mut self) {
        if self.calm {
            return;
        }
        // At first people fill the fleet; then things happen every other second.
        let next = if self.now < 500 { 100 } else { self.rng.between(50, 2_500) };
        self.later(next, Event::Chaos);
        if self.now < 500 || self.rng.percent(40) {
            return self.somebody_wants();
        }
        self.outcome.faults += 1;
        let (host, replica) = (self.rng.index(3), self.rng.index(3));
        let long = self.rng.between(1_000, 20_000);
        match self.rng.between(0, 16) {
            0 => {
                self.note(|| format!("host {host} crashes"));
                self.hosts[host].crash();
                self.hosts[host].unwell_until(self.now + long);
                self.later(long, Event::HostStarts(host));
            }
            1 => {
                self.note(|| format!("node {host} restarts, its incarnations live on"));
                self.hosts[host].is_up = false;
                self.hosts[host].unwell_until(self.now + long / 4);
                self.later(long / 4, Event::HostStarts(host));
            }
            2 => {
                // Some for so long that others have taken over for good.
                let long = if self.rng.percent(40) { long * 3 } else { long };
                self.note(|| format!("host {host} is cut off for {long} ms"));
                self.hosts[host].cut_off_until = self.now + long;
                self.hosts[host].unwell_until(self.now + long);
            }
            3 => {
                self.note(|| format!("host {host} is frozen for {long} ms"));
                let long = self.until_calm(long);
                self.hosts[host].frozen_until = self.now + long;
                self.hosts[host].unwell_until(self.now + long);
            }
            4 => {
                self.note(|| format!("node {host} is paused for {long} ms"));
                let long = self.until_calm(long);
                self.hosts[host].paused_until = self.now + long;
                self.hosts[host].unwell_until(self.now + long);
            }
            5 => self.drain(host, long),
            6 => {
                self.note(|| format!("replica {replica} crashes"));
                self.replicas[replica].crash();
                self.later(long / 2, Event::ReplicaStarts(replica));
            }
            7..=9 => {
                // Some for longer than everything that anybody waits for.
                let long = if long < 4_000 { long * 15 } else { long };
                self.note(|| format!("replica {replica} stands still for {long} ms"));
                self.replicas[replica].paused_until = self.now + self.until_calm(long);
            }
            10 => {
                self.note(|| format!("replica {replica} is cut off for {long} ms"));
                self.replicas[replica].cut_off_until = self.now + long;
            }
            11 | 15 | 16 => {
                self.note(|| "the lease's bucket is made anew".to_owned());
                self.broker.forget_lease();
            }
            12 => self.twin(long),
            13 => {
                self.note(|| format!("what node {host} reports is late for {long} ms"));
                self.hosts[host].late_until = self.now + long;
            }
            _ => {
                self.note(|| "the broker restarts, with another clock".to_owned());
                self.broker.forget_consumers();
                self.log_clock = self.rng.between(0, 7_200_000);
            }
        }
    }

    /// Whoever stands still goes on when all is calm, at the latest.
    fn until_calm(&self, long: u64) -> u64 {
        long.min(CHAOS.saturating_sub(self.now))
    }

    /// A clone of the first host is started: another process, one name.
    fn twin(&mut self, long: u64) {
        if self.hosts[TWIN].is_up {
            return;
        }
        self.note(|| format!("a second node 0 is there for {long} ms"));
        let instance = self.fresh();
        let now = self.now;
        self.hosts[TWIN].start(instance, now);
        self.later(long, Event::HostStops(TWIN));
    }

    fn drain(&mut self, host: usize, back_after: u64) {
        self.note(|| format!("node {host} goes down in order"));
        self.hosts[host].draining = true;
        let back = 3_000 + back_after;
        self.hosts[host].unwell_until(self.now + back);
        let keys: Vec<_> = self.hosts[host].workers.keys().cloned().collect();
        for (agent, incarnation) in keys {
            self.tell_to_end(host, agent, incarnation, 2_000);
        }
        self.later(3_000, Event::HostStops(host));
        self.later(back, Event::HostStarts(host));
    }

    fn somebody_wants(&mut self) {
        let name = AGENTS[self.rng.index(AGENTS.len())];
        let agent = AgentName::new(name).expect("a valid name");
        let host = self.rng.index(3);
        let node = self.hosts[host].name.clone();
        let event = match self.rng.between(0, if self.now < 500 { 3 } else { 17 }) {
            0..=3 => {
                let force = self.rng.percent(30);
                let spec = Box::new(self.some_spec(agent));
                ControlEvent::AgentApplied { spec, force, asked: None }
            }
            4 => ControlEvent::AgentStopped { agent },
            5 | 6 => ControlEvent::AgentStarted { agent },
            7 | 8 => ControlEvent::AgentReplaced { agent },
            9 | 10 => ControlEvent::AgentRestarted { agent },
            12 | 13 => ControlEvent::AgentMoved { agent, to: node },
            14 | 15 => ControlEvent::NodeDrained { node, parallel: 1 },
            16 => ControlEvent::NodeUndrained { node },
            17 => ControlEvent::NodeRemoved { node },
            _ => ControlEvent::AgentRemoved { agent },
        };
        // Whatever the clock of whoever wrote it shows.
        let at = Timestamp::from_millis(self.rng.between(0, 10_000_000_000));
        let id = Some(format!("cli.{}", self.fresh()));
        let record = ControlRecord { id, at, term: None, author: "cli".into(), event };
        let times = if self.rng.percent(20) { 2 } else { 1 };
        for _ in 0..times {
            let delay = self.rng.between(1, 5_000);
            self.later(delay, Event::Append { record: Box::new(record.clone()), from: None });
        }
    }

    fn some_spec(&mut self, agent: AgentName) -> AgentSpec {
        let mut spec = AgentSpec::new(agent, "test/model", format!("v{}", self.rng.between(1, 3)));
        let stops_first = self.rng.percent(40);
        spec.replace = Some(if stops_first { Replace::StopFirst } else { Replace::StartFirst });
        if self.rng.percent(20) {
            let (host, path) = ("/srv".into(), "/data".into());
            spec.sanctums.push(Sanctum { host, path, read_only: false, shared: false });
        }
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

    pub(crate) fn replica_starts(&mut self, index: usize) {
        if self.replicas[index].is_up {
            return;
        }
        let run = self.fresh();
        // A fleet is not restarted all at once: from here on, whoever starts is of the newer build.
        let newer = self.now > UPGRADE;
        let build = if newer { supervisor_core::RULES } else { self.replicas[index].build };
        let clock = self.replicas[index].clock(self.now);
        self.replicas[index].start(run, build, clock);
    }

    /// The network heals, everybody is back, and nobody wants anything more.
    pub(crate) fn calm_down(&mut self) {
        self.note(|| "calm".to_owned());
        self.calm = true;
        let now = self.now;
        self.hosts[TWIN].crash();
        // One node stays drained if it is.
        for host in 0..2 {
            let node = self.hosts[host].name.clone();
            let (id, at) = (Some(format!("cli.{}", self.fresh())), Timestamp::default());
            let event = ControlEvent::NodeUndrained { node };
            let record = ControlRecord { id, at, term: None, author: "cli".into(), event };
            // After the last wish that is still on its way.
            self.later(6_000, Event::Append { record: Box::new(record), from: None });
        }
        for index in 0..TWIN {
            let instance = self.fresh();
            let host = &mut self.hosts[index];
            (host.cut_off_until, host.frozen_until, host.paused_until) = (0, 0, 0);
            host.draining = false;
            if !host.is_up {
                host.start(instance, now);
            }
        }
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            replica.paused_until = 0;
            replica.cut_off_until = 0;
            if replica.build < supervisor_core::RULES {
                replica.crash();
            }
            if !replica.is_up {
                self.replica_starts(index);
            }
        }
    }
}
