//! A host: its node, and the incarnations with their shims.

use std::collections::BTreeMap;
use std::time::Duration;

use common::shim::{Exit, IncarnationExit, NodeStatus, RunningIncarnation};
use common::{AgentName, NodeName, Timestamp};

use crate::world::{Does, Event, World};

/// How long an end is reported, in milliseconds.
const REPORT_EXITS: u64 = 20_000;

pub(crate) struct Host {
    pub(crate) name: NodeName,
    pub(crate) instance: u64,
    /// The node process is there. Its incarnations may outlive it.
    pub(crate) is_up: bool,
    /// Nothing gets in or out before this time.
    pub(crate) cut_off_until: u64,
    pub(crate) draining: bool,
    pub(crate) workers: BTreeMap<(AgentName, u64), Worker>,
    pub(crate) exits: Vec<IncarnationExit>,
    term: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) generation: u64,
    pub(crate) started_at: u64,
    /// Tells it from one that ran under the same number before: what was planned for that one is void.
    pub(crate) id: u64,
    pub(crate) is_ready: bool,
    /// Its shim was told to take messages and has not noticed that it must not any more.
    pub(crate) has_begun: bool,
    /// When it is killed, once it was told to stop.
    pub(crate) stops_at: Option<u64>,
}

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: NodeName::new(name).expect("a valid name"),
            instance: 1,
            is_up: true,
            cut_off_until: 0,
            draining: false,
            workers: BTreeMap::new(),
            exits: Vec::new(),
            term: 0,
        }
    }

    pub(crate) fn is_reachable(&self, now: u64) -> bool {
        now >= self.cut_off_until
    }

    /// Whether the node obeys a command of this term.
    pub(crate) fn obeys(&mut self, term: u64) -> bool {
        self.term = self.term.max(term);
        term == self.term && self.is_up
    }

    /// The node process starts anew; it has forgotten what it was told.
    pub(crate) fn start(&mut self) {
        self.is_up = true;
        self.draining = false;
        self.instance += 1;
        self.term = 0;
    }

    /// The host dies with all it runs.
    pub(crate) fn crash(&mut self) {
        self.is_up = false;
        self.workers.clear();
        self.exits.clear();
    }

    pub(crate) fn status(&mut self, now: u64) -> NodeStatus {
        self.exits.retain(|exit| now < exit.at.as_millis() + REPORT_EXITS);
        let running =
            self.workers.iter().map(|((agent, incarnation), worker)| RunningIncarnation {
                agent: agent.clone(),
                generation: worker.generation,
                incarnation: *incarnation,
                started_at: Timestamp::from_millis(worker.started_at),
                pid: 1,
            });
        NodeStatus {
            node: self.name.clone(),
            instance: self.instance,
            term: self.term,
            seen: (u64::MAX, u64::MAX),
            runtimes: vec!["process".into()],
            labels: Vec::new(),
            draining: self.draining,
            running: running.collect(),
            exits: self.exits.clone(),
        }
    }
}

// === What a node is told ===

impl World {
    pub(crate) fn start(
        &mut self,
        node: &NodeName,
        term: u64,
        agent: AgentName,
        generation: u64,
        incarnation: u64,
    ) -> Result<(), String> {
        let index = self.host_of(node);
        let host = &mut self.hosts[index];
        if !host.is_reachable(self.now) || !self.obeys(index, term) {
            return Ok(());
        }
        let host = &mut self.hosts[index];
        let key = (agent, incarnation);
        if host.draining || host.workers.contains_key(&key) {
            return Ok(());
        }
        let (agent, _) = key.clone();
        if *self.started.entry(key.clone()).or_insert(index) != index {
            return Err(format!("{agent}.{incarnation} is started again, on another node"));
        }
        if !self.calm && self.rng.percent(5) {
            let node = node.clone();
            self.tell_replicas(|replica| Event::StartFailed {
                replica,
                node: node.clone(),
                agent: agent.clone(),
                incarnation,
            });
            return Ok(());
        }
        self.next_id += 1;
        self.outcome.starts += 1;
        let worker = Worker {
            generation,
            started_at: self.now,
            id: self.next_id,
            is_ready: false,
            has_begun: false,
            stops_at: None,
        };
        self.hosts[index].workers.insert(key, worker);
        self.note(|| format!("{node}: {agent}.{incarnation} g{generation} starts"));
        self.fate(index, agent, incarnation);
        Ok(())
    }

    fn fate(&mut self, host: usize, agent: AgentName, incarnation: u64) {
        let id = self.next_id;
        let does = |does| Event::Worker { host, agent: agent.clone(), incarnation, id, does };
        self.later(1_000, does(Does::Tick));
        if self.calm {
            return self.later(400, does(Does::BecomeReady));
        }
        match self.rng.between(0, 9) {
            0 => {
                let soon = self.rng.between(50, 2_000);
                self.later(soon, does(Does::Crash));
            }
            // It hangs, and never says ready.
            1 => {}
            chance => {
                let soon = self.rng.between(50, 2_500);
                self.later(soon, does(Does::BecomeReady));
                if chance < 7 {
                    let end = soon + self.rng.between(10, 15_000);
                    self.later(end, does(Does::Crash));
                }
            }
        }
    }

    pub(crate) fn stop(
        &mut self,
        node: &NodeName,
        term: u64,
        agent: &AgentName,
        incarnation: u64,
        within: Duration,
    ) {
        let index = self.host_of(node);
        if self.hosts[index].is_reachable(self.now) && self.obeys(index, term) {
            let within = u64::try_from(within.as_millis()).unwrap_or(0);
            self.tell_to_end(index, agent.clone(), incarnation, within);
        }
    }

    fn obeys(&mut self, index: usize, term: u64) -> bool {
        let obeys = self.hosts[index].obeys(term);
        if !obeys && self.hosts[index].is_up {
            self.outcome.stale_commands += 1;
        }
        obeys
    }

    pub(crate) fn tell_to_end(
        &mut self,
        host: usize,
        agent: AgentName,
        incarnation: u64,
        within: u64,
    ) {
        let takes = self.rng.between(0, within);
        let Some(worker) = self.hosts[host].workers.get_mut(&(agent.clone(), incarnation)) else {
            return;
        };
        let end = (self.now + takes).min(worker.stops_at.unwrap_or(u64::MAX));
        worker.stops_at = Some(end);
        let (id, does) = (worker.id, Does::EndIfTold);
        let wait = end.saturating_sub(self.now);
        self.later(wait, Event::Worker { host, agent, incarnation, id, does });
    }
}

// === What incarnations and nodes do ===

impl World {
    pub(crate) fn host_reports(&mut self, index: usize) {
        self.later(1_000, Event::Host(index));
        let host = &mut self.hosts[index];
        if host.is_up && host.is_reachable(self.now) {
            let status = Box::new(host.status(self.now));
            self.tell_replicas(|replica| Event::Report { replica, status: status.clone() });
        }
    }

    pub(crate) fn worker_does(
        &mut self,
        index: usize,
        agent: AgentName,
        incarnation: u64,
        id: u64,
        does: Does,
    ) {
        let key = (agent.clone(), incarnation);
        let worker = self.hosts[index].workers.get_mut(&key).filter(|worker| worker.id == id);
        let Some(worker) = worker else {
            return;
        };
        match does {
            Does::BecomeReady => worker.is_ready = true,
            Does::Crash if self.calm => {}
            Does::Crash => {
                self.outcome.crashes += 1;
                self.ends(index, key, 1);
            }
            Does::EndIfTold => {
                if worker.stops_at.is_some_and(|at| at <= self.now) {
                    self.ends(index, key, 143);
                }
            }
            Does::Tick => {
                let reaches = self.hosts[index].is_reachable(self.now);
                if reaches {
                    self.shim_says(index, agent.clone(), incarnation);
                }
                self.later(1_000, Event::Worker { host: index, agent, incarnation, id, does });
            }
        }
    }

    fn shim_says(&mut self, index: usize, agent: AgentName, incarnation: u64) {
        let has_consumer = self.broker.has_consumer(&agent, incarnation);
        let Some(worker) = self.hosts[index].workers.get_mut(&(agent.clone(), incarnation)) else {
            return;
        };
        // Its pulls find nobody: it notices that it lost its consumer, and asks for another.
        worker.has_begun &= has_consumer;
        if !worker.is_ready || worker.stops_at.is_some() {
            return;
        }
        if worker.has_begun {
            self.tell_replicas(|replica| Event::Heartbeat {
                replica,
                agent: agent.clone(),
                incarnation,
            });
        } else {
            self.tell_replicas(|replica| Event::ShimReady {
                replica,
                agent: agent.clone(),
                incarnation,
            });
        }
    }

    fn ends(&mut self, index: usize, key: (AgentName, u64), code: i32) {
        let host = &mut self.hosts[index];
        host.workers.remove(&key);
        let node = host.name.clone();
        let (agent, incarnation) = key;
        self.note(|| format!("{node}: {agent}.{incarnation} ends with {code}"));
        let host = &mut self.hosts[index];
        if !host.is_up {
            return;
        }
        let exit = IncarnationExit {
            agent,
            incarnation,
            exit: Exit { code: Some(code), ..Exit::default() },
            clean: code != 1,
            finished: 0,
            at: Timestamp::from_millis(self.now),
        };
        host.exits.push(exit.clone());
        if host.is_reachable(self.now) {
            let exit = Box::new(exit);
            self.tell_replicas(|replica| Event::Exited {
                replica,
                node: node.clone(),
                exit: exit.clone(),
            });
        }
    }
}

// === Taking messages ===

impl World {
    pub(crate) fn admit(
        &mut self,
        replica: usize,
        agent: AgentName,
        incarnation: u64,
        over: &[u64],
    ) -> Result<(), String> {
        if self.broker.admit(&agent, incarnation, over, self.flaw) {
            self.outcome.admissions += 1;
            let others = self.broker.others(&agent, incarnation);
            if !others.is_empty() {
                return Err(format!("{agent}.{incarnation} and {others:?} may take messages"));
            }
            if !over.is_empty() {
                self.send(Event::Admitted { replica, agent: agent.clone(), incarnation });
            }
            self.send(Event::Begin { agent, incarnation });
        }
        Ok(())
    }

    pub(crate) fn begin(&mut self, agent: &AgentName, incarnation: u64) -> Result<(), String> {
        let key = (agent.clone(), incarnation);
        let has_consumer = self.broker.has_consumer(agent, incarnation);
        let now = self.now;
        for host in self.hosts.iter_mut().filter(|host| host.is_reachable(now)) {
            if let Some(worker) = host.workers.get_mut(&key) {
                worker.has_begun |= worker.is_ready && worker.stops_at.is_none() && has_consumer;
            }
        }
        let workers = self.hosts.iter().flat_map(|host| &host.workers);
        let taking: Vec<_> = workers
            .filter(|((of, number), worker)| {
                of == agent && worker.has_begun && self.broker.has_consumer(of, *number)
            })
            .map(|((_, number), _)| number)
            .collect();
        if taking.len() > 1 {
            return Err(format!("incarnations {taking:?} of {agent} take messages"));
        }
        Ok(())
    }
}
