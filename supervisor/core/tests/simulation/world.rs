//! Time, the queue of what is to happen, and a network that loses, repeats and reorders.

use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::time::Duration;

use common::control::ControlRecord;
use common::shim::{IncarnationExit, NodeStatus};
use common::{AgentName, NodeName, Timestamp};

use crate::Flaw;
use crate::broker::Broker;
use crate::log::Log;
use crate::node::Host;
use crate::replica::Replica;
use crate::rng::{Rng, Trace};

/// Until when things go wrong, and until when the fleet must have converged, in milliseconds.
const CHAOS: u64 = 90_000;
const END: u64 = CHAOS + 60_000;

/// Something that happens.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Replica(usize),
    ReplicaStarts(usize),
    Append { record: Box<ControlRecord>, from: Option<(usize, u64)> },
    Confirmed { replica: usize, out: u64 },
    Start { node: NodeName, term: u64, agent: AgentName, generation: u64, incarnation: u64 },
    Stop { node: NodeName, term: u64, agent: AgentName, incarnation: u64, within: Duration },
    Admit { replica: usize, agent: AgentName, incarnation: u64, over: Vec<u64> },
    Admitted { replica: usize, agent: AgentName, incarnation: u64 },
    Begin { agent: AgentName, incarnation: u64 },
    Report { replica: usize, status: Box<NodeStatus> },
    Exited { replica: usize, node: NodeName, exit: Box<IncarnationExit> },
    StartFailed { replica: usize, node: NodeName, agent: AgentName, incarnation: u64 },
    ShimReady { replica: usize, agent: AgentName, incarnation: u64 },
    Heartbeat { replica: usize, agent: AgentName, incarnation: u64 },
    Host(usize),
    HostStarts(usize),
    HostStops(usize),
    Worker { host: usize, agent: AgentName, incarnation: u64, id: u64, does: Does },
    Chaos,
    Calm,
}

/// What an incarnation does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    BecomeReady,
    Crash,
    EndIfTold,
    Tick,
}

struct Due {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    /// The earliest is the greatest: the heap gives it first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) flaw: Flaw,
    pub(crate) calm: bool,
    pub(crate) log: Log,
    pub(crate) broker: Broker,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) hosts: Vec<Host>,
    /// Where each number was started: a number on two hosts is no fence.
    pub(crate) started: BTreeMap<(AgentName, u64), usize>,
    pub(crate) next_id: u64,
    pub(crate) outcome: Outcome,
    trace: Trace,
    verbose: bool,
    queue: BinaryHeap<Due>,
    order: u64,
}

impl World {
    pub(crate) fn new(seed: u64, flaw: Flaw, verbose: bool) -> Self {
        let mut world = Self {
            now: 0,
            rng: Rng::new(seed),
            flaw,
            calm: false,
            log: Log::default(),
            broker: Broker::default(),
            replicas: (0..3).map(Replica::new).collect(),
            hosts: ["alpha", "beta", "gamma"].into_iter().map(Host::new).collect(),
            started: BTreeMap::new(),
            next_id: 0,
            outcome: Outcome::default(),
            trace: Trace::default(),
            verbose,
            queue: BinaryHeap::new(),
            order: 0,
        };
        for index in 0..3 {
            let offset = world.rng.between(1, 99);
            world.later(offset, Event::Replica(index));
            world.later(offset * 10, Event::Host(index));
        }
        world.later(10, Event::Chaos);
        world.later(CHAOS, Event::Calm);
        world
    }

    pub(crate) fn run(mut self) -> Outcome {
        let result = loop {
            let Some(due) = self.queue.pop().filter(|due| due.at <= END) else {
                break self.verdict();
            };
            self.now = due.at;
            if let Err(violation) = self.happen(due.event) {
                break Err(violation);
            }
        };
        self.outcome.violation = result.err().map(|why| format!("after {} ms: {why}", self.now));
        self.outcome.records = self.log.last_seq();
        self.outcome.trace = self.trace.0;
        self.outcome
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Replica(index) => self.replica_ticks(index)?,
            Event::ReplicaStarts(index) => self.replicas[index].is_up = true,
            Event::Append { record, from } => self.append(*record, from)?,
            Event::Confirmed { replica, out } => {
                if self.replicas[replica].is_reachable(self.now) {
                    self.replicas[replica].outbox.remove(&out);
                }
            }
            Event::Start { node, term, agent, generation, incarnation } => {
                self.start(&node, term, agent, generation, incarnation)?;
            }
            Event::Stop { node, term, agent, incarnation, within } => {
                self.stop(&node, term, &agent, incarnation, within);
            }
            Event::Admit { replica, agent, incarnation, over } => {
                self.admit(replica, agent, incarnation, &over)?;
            }
            Event::Admitted { replica, agent, incarnation } => {
                self.handed_over(replica, agent, incarnation);
            }
            Event::Begin { agent, incarnation } => self.begin(&agent, incarnation)?,
            Event::Report { replica, status } => self.hears_report(replica, &status),
            Event::Exited { replica, node, exit } => self.hears_exit(replica, &node, &exit),
            Event::StartFailed { replica, node, agent, incarnation } => {
                self.hears_failure(replica, &node, &agent, incarnation);
            }
            Event::ShimReady { replica, agent, incarnation } => {
                self.hears_ready(replica, &agent, incarnation);
            }
            Event::Heartbeat { replica, agent, incarnation } => {
                self.hears_heartbeat(replica, &agent, incarnation);
            }
            Event::Host(index) => self.host_reports(index),
            Event::HostStarts(index) => self.hosts[index].start(),
            Event::HostStops(index) => self.hosts[index].is_up = false,
            Event::Worker { host, agent, incarnation, id, does } => {
                self.worker_does(host, agent, incarnation, id, does);
            }
            Event::Chaos => self.chaos(),
            Event::Calm => self.calm_down(),
        }
        Ok(())
    }

    fn append(&mut self, record: ControlRecord, from: Option<(usize, u64)>) -> Result<(), String> {
        if let Some((replica, out)) = from {
            self.send(Event::Confirmed { replica, out });
        }
        self.note(|| format!("log: {:?} {:?}", record.term, record.event));
        let at = Timestamp::from_millis(self.now);
        self.log.append(at, record, self.flaw)
    }

    /// Happens after some milliseconds, for certain.
    pub(crate) fn later(&mut self, millis: u64, event: Event) {
        self.order += 1;
        self.queue.push(Due { at: self.now + millis, order: self.order, event });
    }

    /// Goes through the network: later, maybe never, maybe twice, maybe after what was sent later.
    pub(crate) fn send(&mut self, event: Event) {
        if self.calm {
            let delay = self.rng.between(1, 20);
            return self.later(delay, event);
        }
        if self.rng.percent(8) {
            self.outcome.lost += 1;
            return;
        }
        if self.rng.percent(8) {
            let delay = self.delay();
            self.later(delay, event.clone());
        }
        let delay = self.delay();
        self.later(delay, event);
    }

    fn delay(&mut self) -> u64 {
        let longest = if self.rng.percent(5) { 2_000 } else { 40 };
        self.rng.between(1, longest)
    }

    /// Goes to every supervisor: who leads is not the sender's to know.
    pub(crate) fn tell_replicas(&mut self, event: impl Fn(usize) -> Event) {
        for replica in 0..self.replicas.len() {
            self.send(event(replica));
        }
    }

    pub(crate) fn host_of(&self, name: &NodeName) -> usize {
        self.hosts.iter().position(|host| host.name == *name).unwrap_or(0)
    }

    /// Part of the trace that a seed determines.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let line = format!("{:>7} {}", self.now, what());
        if self.verbose {
            println!("{line}");
        }
        self.trace.add(&line);
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) trace: u64,
    pub(crate) records: u64,
    pub(crate) elections: u64,
    pub(crate) starts: u64,
    pub(crate) admissions: u64,
    pub(crate) crashes: u64,
    pub(crate) faults: u64,
    pub(crate) lost: u64,
    pub(crate) stale_commands: u64,
    pub(crate) running: u64,
    pub(crate) resting: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.trace = self.trace.rotate_left(1) ^ other.trace;
        self.records += other.records;
        self.elections += other.elections;
        self.starts += other.starts;
        self.admissions += other.admissions;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.lost += other.lost;
        self.stale_commands += other.stale_commands;
        self.running += other.running;
        self.resting += other.resting;
    }

    /// Whether each kind of thing happened, on average at least so often a run.
    pub(crate) fn is_eventful(&self, runs: u64) -> bool {
        self.elections >= 2 * runs
            && self.starts >= 10 * runs
            && self.admissions >= 5 * runs
            && self.faults >= 10 * runs
            && self.running >= runs
            && self.stale_commands > 0
            && self.resting > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "trace {:016x}; {} records, {} elections, {} starts, {} admissions, {} crashes, \
             {} faults, {} packets lost, {} commands of deposed leaders refused; \
             at the end {} agents run, {} rest",
            self.trace,
            self.records,
            self.elections,
            self.starts,
            self.admissions,
            self.crashes,
            self.faults,
            self.lost,
            self.stale_commands,
            self.running,
            self.resting
        )
    }
}
