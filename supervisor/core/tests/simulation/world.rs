//! Time, the queue of what is to happen, and a network that loses, repeats and reorders.

use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

use common::control::{ControlEvent, ControlRecord};
use common::frame::{IncarnationExit, NodeStatus};
use common::{AgentName, NodeName, Timestamp};

use crate::Flaw;
use crate::broker::Broker;
use crate::handover::Handover;
use crate::log::Log;
use crate::node::{Command, Host};
use crate::replica::Replica;
use crate::rng::{Rng, Trace};

/// Until when things go wrong, and until when the fleet must have converged, in milliseconds.
pub(crate) const CHAOS: u64 = 90_000;
const END: u64 = CHAOS + 60_000;

/// From when on supervisors that start are of the newer build.
pub(crate) const UPGRADE: u64 = 30_000;

/// Within this time of calm somebody leads, in milliseconds: a supervisor that stood still until then begins to watch the lease when it goes
/// on, and the leader may have renewed it and crashed a moment before.
const LEADER: u64 = 6_000;

/// The host that is a clone of the first.
pub(crate) const TWIN: usize = 3;

/// Something that happens.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Replica(usize),
    ReplicaStarts(usize),
    Append {
        record: Box<ControlRecord>,
        from: Option<(usize, u64, u64)>,
    },
    Confirmed {
        replica: usize,
        run: u64,
        out: u64,
    },
    LeaseAsked {
        replica: usize,
        run: u64,
        sent: u64,
    },
    LeaseAnswered {
        replica: usize,
        run: u64,
        sent: u64,
        granted: bool,
    },
    ToHost {
        host: usize,
        term: u64,
        instance: Option<u64>,
        number: u64,
        command: Command,
    },
    Asked(Handover),
    Answered(Handover),
    Admitted {
        replica: usize,
        agent: AgentName,
        incarnation: u64,
    },
    Begin {
        agent: AgentName,
        incarnation: u64,
        made: u64,
    },
    Dismissed {
        agent: AgentName,
        incarnation: u64,
    },
    Reports(Box<NodeStatus>),
    Report {
        replica: usize,
        status: Box<NodeStatus>,
    },
    Exited {
        replica: usize,
        node: NodeName,
        instance: u64,
        exit: Box<IncarnationExit>,
    },
    StartFailed {
        replica: usize,
        node: NodeName,
        instance: u64,
        agent: AgentName,
        incarnation: u64,
    },
    ShimReady {
        replica: usize,
        agent: AgentName,
        incarnation: u64,
    },
    Heartbeat {
        replica: usize,
        agent: AgentName,
        incarnation: u64,
    },
    Host(usize),
    HostStarts(usize),
    HostStops(usize),
    Worker {
        host: usize,
        agent: AgentName,
        incarnation: u64,
        id: u64,
        does: Does,
    },
    Chaos,
    Calm,
    SomebodyLeads,
    Upgrade(usize),
    /// Every supervisor stands still for so long.
    Standstill(u64),
}

impl Event {
    /// Until when it waits, because whoever it is for does not run.
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there is waits for nobody")]
    fn waits_until(&self, world: &World) -> u64 {
        if let Some(replica) = self.replica() {
            return world.replicas[replica].paused_until;
        }
        match self {
            Self::Host(host) | Self::ToHost { host, .. } => {
                let host = &world.hosts[*host];
                host.paused_until.max(host.frozen_until)
            }
            Self::Worker { host, .. } => world.hosts[*host].frozen_until,
            _ => 0,
        }
    }

    /// The replica that it comes to.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else there is comes to no replica"
    )]
    fn replica(&self) -> Option<usize> {
        match self {
            Self::Replica(replica)
            | Self::Confirmed { replica, .. }
            | Self::LeaseAnswered { replica, .. }
            | Self::Answered(Handover { replica, .. })
            | Self::Admitted { replica, .. }
            | Self::Report { replica, .. }
            | Self::Exited { replica, .. }
            | Self::StartFailed { replica, .. }
            | Self::ShimReady { replica, .. }
            | Self::Heartbeat { replica, .. } => Some(*replica),
            _ => None,
        }
    }

    /// Whether it goes on by itself, and is not lost by a pause.
    fn is_own(&self) -> bool {
        matches!(self, Self::Replica(_) | Self::Host(_) | Self::Worker { .. })
    }
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
    /// The latest incarnation of each agent that began to take messages, and when.
    pub(crate) begun: BTreeMap<AgentName, (u64, u64)>,
    /// How far the log's own clock is ahead of the true time.
    pub(crate) log_clock: u64,
    /// Since when the leader of the newest term has led without a standstill.
    pub(crate) led_since: Option<u64>,
    /// When the lease was last renewed for a supervisor that had crashed: its request was still on its way.
    pub(crate) held_by_the_dead: Option<u64>,
    /// Which instance of each node is on record, and since when.
    pub(crate) speaks: BTreeMap<NodeName, (u64, u64)>,
    pub(crate) next_id: u64,
    pub(crate) outcome: Outcome,
    trace: Trace,
    verbose: bool,
    queue: BinaryHeap<Due>,
    order: u64,
}

impl World {
    pub(crate) fn new(seed: u64, flaw: Flaw, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let hour = 3_600_000;
        let replicas = (0..3).map(|index| {
            let wall = i64::try_from(rng.between(0, 2 * hour)).unwrap_or(0);
            Replica::new(index, rng.between(0, hour), wall - 3_600_000)
        });
        let replicas = replicas.collect();
        let hosts = (1..).zip(["alpha", "beta", "gamma", "alpha"]);
        let mut world = Self {
            now: 0,
            rng,
            flaw,
            calm: false,
            log: Log::default(),
            broker: Broker::default(),
            replicas,
            hosts: hosts.map(|(instance, name)| Host::new(name, instance)).collect(),
            started: BTreeMap::new(),
            begun: BTreeMap::new(),
            log_clock: 0,
            led_since: None,
            held_by_the_dead: None,
            speaks: BTreeMap::new(),
            next_id: 100,
            outcome: Outcome::default(),
            trace: Trace::default(),
            verbose,
            queue: BinaryHeap::new(),
            order: 0,
        };
        world.hosts[TWIN].is_up = false;
        for index in 0..world.replicas.len() {
            let offset = world.rng.between(1, 99);
            world.later(offset, Event::Replica(index));
        }
        for index in 0..world.hosts.len() {
            let offset = world.rng.between(1, 990);
            world.later(offset, Event::Host(index));
        }
        // By then everybody is of the newer build.
        for index in 0..world.replicas.len() {
            let at = UPGRADE + world.rng.between(1_000, 30_000);
            world.later(at, Event::Upgrade(index));
        }
        world.later(CHAOS + LEADER, Event::SomebodyLeads);
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
            let until = due.event.waits_until(&self);
            if until > self.now {
                // What was sent to whoever stands still waits for it, or is lost.
                if due.event.is_own() || !self.rng.percent(30) {
                    self.later(until - self.now, due.event);
                }
                continue;
            }
            if let Some(replica) = due.event.replica() {
                let (now, flaw) = (self.now, self.flaw);
                self.replicas[replica].awake(now, flaw);
            }
            if let Err(violation) = self.happen(due.event) {
                break Err(violation);
            }
        };
        self.outcome.violation = result.err().map(|why| format!("after {} ms: {why}", self.now));
        self.outcome.records = self.log.last_seq();
        if let Some(path) = std::env::var_os("MOZART_SIM_LOG") {
            std::fs::write(path, self.log.lines()).expect("the log is kept");
        }
        self.outcome.trace = self.trace.0;
        self.outcome
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Replica(index) => self.replica_ticks(index)?,
            Event::ReplicaStarts(index) => self.replica_starts(index),
            Event::Upgrade(index) => {
                self.replicas[index].crash();
                self.later(500, Event::ReplicaStarts(index));
            }
            Event::Append { record, from } => self.append(&record, from)?,
            Event::Confirmed { replica, run, out } => {
                let known = &mut self.replicas[replica];
                if known.is_reachable(self.now) && known.run == run {
                    known.outbox.remove(&out);
                }
            }
            Event::LeaseAsked { replica, run, sent } => self.lease_asked(replica, run, sent),
            Event::LeaseAnswered { replica, run, sent, granted } => {
                self.lease_answered(replica, run, sent, granted);
            }
            Event::ToHost { host, term, instance, number, command } => {
                self.node_is_told(host, term, instance, number, command)?;
            }
            Event::Asked(one) => self.broker_does(one)?,
            Event::Answered(one) => self.broker_answered(one),
            Event::Admitted { replica, agent, incarnation } => {
                self.handed_over(replica, agent, incarnation);
            }
            Event::Begin { agent, incarnation, made } => self.begin(&agent, incarnation, made)?,
            Event::Dismissed { agent, incarnation } => self.dismissed(&agent, incarnation),
            Event::Reports(status) => {
                self.tell_replicas(|replica| Event::Report { replica, status: status.clone() });
            }
            Event::Report { replica, status } => self.hears_report(replica, &status),
            Event::Exited { replica, node, instance, exit } => {
                self.hears_exit(replica, &node, instance, &exit);
            }
            Event::StartFailed { replica, node, instance, agent, incarnation } => {
                self.hears_failure(replica, &node, instance, (&agent, incarnation));
            }
            Event::ShimReady { replica, agent, incarnation } => {
                self.hears_ready(replica, &agent, incarnation);
            }
            Event::Heartbeat { replica, agent, incarnation } => {
                self.hears_heartbeat(replica, &agent, incarnation);
            }
            Event::Host(index) => self.host_reports(index),
            Event::HostStarts(index) => {
                let (instance, now) = (self.fresh(), self.now);
                if !self.hosts[index].is_up {
                    self.hosts[index].start(instance, now);
                }
            }
            Event::HostStops(index) => {
                if index == TWIN {
                    self.hosts[index].crash();
                }
                self.hosts[index].is_up = false;
            }
            Event::Worker { host, agent, incarnation, id, does } => {
                self.worker_does(host, agent, incarnation, id, does)?;
            }
            Event::Chaos => self.chaos(),
            Event::Calm => self.calm_down(),
            Event::SomebodyLeads => match self.held_by_the_dead.filter(|at| at + LEADER > self.now)
            {
                // What it sent while it lived came now.
                Some(at) => self.later(at + LEADER - self.now, Event::SomebodyLeads),
                None => self.somebody_leads()?,
            },
            Event::Standstill(long) => {
                let until = self.now + long;
                self.replicas.iter_mut().for_each(|replica| replica.paused_until = until);
            }
        }
        Ok(())
    }

    fn append(
        &mut self,
        record: &ControlRecord,
        from: Option<(usize, u64, u64)>,
    ) -> Result<(), String> {
        if let Some((replica, run, out)) = from {
            self.send(Event::Confirmed { replica, run, out });
        }
        self.note(|| format!("log: {:?} {:?}", record.term, record.event));
        let before = self.log.state();
        let at = Timestamp::from_millis(1_000_000 + self.now + self.log_clock);
        let changed = self.log.append(record, at, self.now, self.flaw)?;
        if self.log.state().term() != before.term() {
            self.led_since = Some(self.now);
        }
        if !changed {
            return Ok(());
        }
        if let ControlEvent::NodeSeen { node, instance, .. } = &record.event
            && self.speaks.get(node).is_none_or(|(known, _)| known != instance)
        {
            self.speaks.insert(node.clone(), (*instance, self.now));
        }
        self.judge_ends(record, &before)
    }

    /// A number that nothing else has.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
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
        // Some are on their way for longer than a report may be behind.
        let longest = match self.rng.between(0, 99) {
            0 => 6_000,
            1..=4 => 2_000,
            _ => 40,
        };
        self.rng.between(1, longest)
    }

    /// Goes to every supervisor: who leads is not the sender's to know.
    pub(crate) fn tell_replicas(&mut self, event: impl Fn(usize) -> Event) {
        for replica in 0..self.replicas.len() {
            self.send(event(replica));
        }
    }

    /// All hosts that call themselves so.
    pub(crate) fn hosts_of(&self, name: &NodeName) -> Vec<usize> {
        let named = |index: &usize| self.hosts[*index].name == *name;
        (0..self.hosts.len()).filter(named).collect()
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
    pub(crate) too_late: u64,
    pub(crate) dismissed: u64,
    pub(crate) refused: u64,
    pub(crate) turns: u64,
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
        self.too_late += other.too_late;
        self.dismissed += other.dismissed;
        self.refused += other.refused;
        self.turns += other.turns;
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
            && self.too_late > 0
            && self.dismissed > 0
            && self.refused > 0
            && self.turns >= 50 * runs
            // One in some 130 seeds.
            && (self.resting > 0 || runs < 1_000)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "trace {:016x}; {} records, {} elections, {} starts, {} admissions, {} crashes, \
             {} faults, {} packets lost, {} commands of deposed leaders refused, {} admissions too late, \
             {} shims dismissed, {} second nodes refused, {} turns; at the end {} agents run, {} rest",
            self.trace,
            self.records,
            self.elections,
            self.starts,
            self.admissions,
            self.crashes,
            self.faults,
            self.lost,
            self.stale_commands,
            self.too_late,
            self.dismissed,
            self.refused,
            self.turns,
            self.running,
            self.resting
        )
    }
}
