//! A host: the process of its node, and the incarnations with their shims.

use std::collections::BTreeMap;
use std::time::Duration;

use common::frame::{IncarnationExit, NodeStatus, RunningIncarnation};
use common::shim::Exit;
use common::{AgentName, Capacity, NodeName, Timestamp};

use crate::Flaw;
use crate::world::{Does, Event, World};

/// How long an end is reported, in milliseconds.
const REPORT_EXITS: u64 = 20_000;

/// How late reports are that are late, in milliseconds.
const LATE: u64 = 5_000;

/// A shim that has heard nothing from the broker for this long, in milliseconds, starts no turn.
const GATE: u64 = 8_000;

pub(crate) struct Host {
    pub(crate) name: NodeName,
    pub(crate) instance: u64,
    /// The node's process is there. Its incarnations may outlive it.
    pub(crate) is_up: bool,
    /// Nothing gets in or out before this time.
    pub(crate) cut_off_until: u64,
    /// Nothing on it runs before this time.
    pub(crate) frozen_until: u64,
    /// What its node reports before this time is on its way for long.
    pub(crate) late_until: u64,
    /// The node's process alone does not run before this time.
    pub(crate) paused_until: u64,
    /// Since when all of it has been well.
    pub(crate) well_since: u64,
    pub(crate) draining: bool,
    pub(crate) workers: BTreeMap<(AgentName, u64), Worker>,
    pub(crate) exits: Vec<IncarnationExit>,
    term: u64,
    seen: (u64, u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) generation: u64,
    pub(crate) started_at: u64,
    /// Tells it from one that ran under the same number before: what was planned for that one is void.
    pub(crate) id: u64,
    pub(crate) is_ready: bool,
    pub(crate) ready_at: u64,
    /// The making of the consumer from which its shim was told to take messages, until it notices that it must not any more.
    pub(crate) consumer: Option<u64>,
    pub(crate) begun_at: u64,
    /// When its shim last heard from the broker.
    pub(crate) heard_at: u64,
    /// When it is killed, once it was told to stop.
    pub(crate) stops_at: Option<u64>,
}

impl Worker {
    /// One that waits for the word to begin.
    pub(crate) fn ready() -> Self {
        Self {
            generation: 1,
            started_at: 0,
            id: 0,
            is_ready: true,
            ready_at: 0,
            consumer: None,
            begun_at: u64::MAX,
            heard_at: 0,
            stops_at: None,
        }
    }
}

/// What a leader tells a node.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    Start { agent: AgentName, generation: u64, incarnation: u64 },
    Stop { agent: AgentName, incarnation: u64, within: Duration },
    List,
    Refused,
}

impl Host {
    pub(crate) fn new(name: &str, instance: u64) -> Self {
        Self {
            name: NodeName::new(name).expect("a valid name"),
            instance,
            is_up: true,
            cut_off_until: 0,
            frozen_until: 0,
            paused_until: 0,
            late_until: 0,
            well_since: 0,
            draining: false,
            workers: BTreeMap::new(),
            exits: Vec::new(),
            term: 0,
            seen: (0, 0),
        }
    }

    pub(crate) fn is_reachable(&self, now: u64) -> bool {
        now >= self.cut_off_until && now >= self.frozen_until
    }

    /// Whether all of it has been well for as long.
    pub(crate) fn is_well_for(&self, now: u64, millis: u64) -> bool {
        self.is_up && !self.draining && now >= self.well_since.saturating_add(millis)
    }

    /// It is not well before this time.
    pub(crate) fn unwell_until(&mut self, at: u64) {
        self.well_since = self.well_since.max(at);
    }

    /// The node's process starts anew; it has forgotten what it was told.
    pub(crate) fn start(&mut self, instance: u64, now: u64) {
        self.is_up = true;
        self.draining = false;
        self.instance = instance;
        self.term = 0;
        self.seen = (0, 0);
        self.unwell_until(now);
    }

    /// The host dies with all it runs.
    pub(crate) fn crash(&mut self) {
        self.is_up = false;
        self.workers.clear();
        self.exits.clear();
    }

    fn status(&mut self, now: u64, flaw: Flaw) -> NodeStatus {
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
            succeeds: Vec::new(),
            term: self.term,
            seen: if flaw == Flaw::IgnoreSeen { (u64::MAX, u64::MAX) } else { self.seen },
            runtimes: vec!["process".into()],
            labels: Vec::new(),
            // Two of them are room for all agents.
            capacity: Capacity { agents: Some(2), ..Capacity::default() },
            draining: self.draining,
            running: running.collect(),
            exits: self.exits.clone(),
        }
    }
}

// === What a node is told ===

impl World {
    pub(crate) fn node_is_told(
        &mut self,
        index: usize,
        term: u64,
        instance: Option<u64>,
        number: u64,
        command: Command,
    ) -> Result<(), String> {
        let (now, flaw) = (self.now, self.flaw);
        let host = &mut self.hosts[index];
        if !host.is_up || !host.is_reachable(now) {
            return Ok(());
        }
        let is_addressed = instance.is_none_or(|instance| instance == host.instance);
        if (!is_addressed && flaw != Flaw::AnyInstance) || term < host.term {
            self.outcome.stale_commands += 1;
            return Ok(());
        }
        host.term = term;
        // What it says about what it has taken must stay true: a start that a later command has overtaken comes too late.
        let is_late = (term, number) < host.seen && matches!(command, Command::Start { .. });
        host.seen = host.seen.max((term, number));
        if is_late {
            return Ok(());
        }
        match command {
            Command::Start { agent, generation, incarnation } => {
                return self.start(index, agent, generation, incarnation);
            }
            Command::Stop { agent, incarnation, within } => {
                let within = u64::try_from(within.as_millis()).unwrap_or(0);
                self.tell_to_end(index, agent, incarnation, within);
            }
            Command::List => self.report(index),
            Command::Refused => {
                // It says so aloud, and is heard once the other one is silent.
                self.outcome.refused += 1;
                let name = self.hosts[index].name.clone();
                self.note(|| format!("a second {name} is refused"));
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        index: usize,
        agent: AgentName,
        generation: u64,
        incarnation: u64,
    ) -> Result<(), String> {
        let host = &mut self.hosts[index];
        let key = (agent, incarnation);
        if host.draining || host.workers.contains_key(&key) {
            return Ok(());
        }
        // One that has ended here is not started again.
        let (agent, _) = key.clone();
        let ended =
            host.exits.iter().any(|exit| exit.agent == agent && exit.incarnation >= incarnation);
        if ended {
            return Ok(());
        }
        let (node, instance) = (host.name.clone(), host.instance);
        if *self.started.entry(key.clone()).or_insert(index) != index {
            return Err(format!("{agent}.{incarnation} is started again, on another node"));
        }
        if !self.calm && self.rng.percent(5) {
            self.tell_replicas(|replica| Event::StartFailed {
                replica,
                node: node.clone(),
                instance,
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
            ready_at: u64::MAX,
            heard_at: self.now,
            ..Worker::ready()
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
                if chance < 5 {
                    let end = soon + self.rng.between(10, 15_000);
                    self.later(end, does(Does::Crash));
                }
            }
        }
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

    /// A shim is told that its incarnation is over.
    pub(crate) fn dismissed(&mut self, agent: &AgentName, incarnation: u64) {
        let now = self.now;
        let key = (agent.clone(), incarnation);
        let there =
            |host: &crate::node::Host| host.is_reachable(now) && host.workers.contains_key(&key);
        if let Some(host) = self.hosts.iter().position(there) {
            self.outcome.dismissed += 1;
            self.tell_to_end(host, agent.clone(), incarnation, 5_000);
        }
    }
}

// === What incarnations and nodes do ===

impl World {
    pub(crate) fn host_reports(&mut self, index: usize) {
        self.later(1_000, Event::Host(index));
        self.report(index);
    }

    fn report(&mut self, index: usize) {
        let (now, flaw) = (self.now, self.flaw);
        let host = &mut self.hosts[index];
        if host.is_up && host.is_reachable(now) {
            let status = Box::new(host.status(now, flaw));
            if now < host.late_until {
                return self.later(LATE, Event::Reports(status));
            }
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
    ) -> Result<(), String> {
        let key = (agent.clone(), incarnation);
        let now = self.now;
        let worker = self.hosts[index].workers.get_mut(&key).filter(|worker| worker.id == id);
        let Some(worker) = worker else {
            return Ok(());
        };
        match does {
            Does::BecomeReady => {
                worker.is_ready = true;
                worker.ready_at = now;
            }
            Does::Crash if self.calm => {}
            Does::Crash => {
                self.outcome.crashes += 1;
                self.ends(index, key, 1);
            }
            Does::EndIfTold => {
                if worker.stops_at.is_some_and(|at| at <= now) {
                    self.ends(index, key, 143);
                }
            }
            Does::Tick => {
                if self.hosts[index].is_reachable(now) {
                    self.shim_says(index, agent.clone(), incarnation);
                }
                self.starts_a_turn(index, &key)?;
                self.later(1_000, Event::Worker { host: index, agent, incarnation, id, does });
            }
        }
        Ok(())
    }

    /// It holds messages that it was given before: while it does not know better, it starts their turns.
    fn starts_a_turn(&mut self, index: usize, key: &(AgentName, u64)) -> Result<(), String> {
        let gate = if self.flaw == Flaw::NoGate { u64::MAX } else { GATE };
        let Some(worker) = self.hosts[index].workers.get(key) else { return Ok(()) };
        let hears = self.now.saturating_sub(worker.heard_at) < gate;
        if worker.consumer.is_none() || worker.stops_at.is_some() || !hears {
            return Ok(());
        }
        self.outcome.turns += 1;
        // One whose node is lost may be well itself: cut off then, it goes on until its gate closes, and no longer.
        let (begun, at) = self.begun.get(&key.0).copied().unwrap_or_default();
        if begun > key.1 && self.now >= at + GATE {
            return Err(format!("{}.{} starts a turn after {begun} began", key.0, key.1));
        }
        Ok(())
    }

    fn shim_says(&mut self, index: usize, agent: AgentName, incarnation: u64) {
        let consumer = self.broker.consumer(&agent, incarnation);
        let now = self.now;
        let Some(worker) = self.hosts[index].workers.get_mut(&(agent.clone(), incarnation)) else {
            return;
        };
        worker.heard_at = now;
        // Its pulls find nobody, or a consumer that was made anew: it is not its own any more, and it asks for another.
        worker.consumer = worker.consumer.filter(|made| consumer == Some(*made));
        if !worker.is_ready || worker.stops_at.is_some() {
            return;
        }
        if worker.consumer.is_some() {
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
        let (node, instance) = (host.name.clone(), host.instance);
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
                instance,
                exit: exit.clone(),
            });
        }
    }
}
