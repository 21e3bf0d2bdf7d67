//! A supervisor: the shell around the fold, in small. It has a clock of its own, and stands still at times.

use std::collections::BTreeMap;

use common::control::{ControlEvent, ControlRecord, Timer};
use common::{AgentName, Timestamp};
use supervisor_core::{Action, Ears, Observer, State, resume};

use crate::Flaw;
use crate::broker::BELIEF;
use crate::handover::{Handover, Step};
use crate::log::fold;
use crate::node::Command;
use crate::world::{Event, World};

/// How often a supervisor looks around, renews its lease, or looks whether it is free, in milliseconds.
const TICK: u64 = 100;
const RENEW: u64 = 700;
const LOOK: u64 = 400;

/// An election that another one came after is written again this often, in milliseconds.
const ELECT_AGAIN: u64 = 500;

pub(crate) struct Replica {
    pub(crate) name: String,
    /// This process of it.
    pub(crate) run: u64,
    /// The newest rules that it folds.
    pub(crate) build: u32,
    pub(crate) is_up: bool,
    pub(crate) state: State,
    pub(crate) snapshot: String,
    pub(crate) observer: Observer,
    /// What it hears whether it leads or not.
    pub(crate) ears: Ears,
    pub(crate) role: Role,
    /// How far its own clock, which only goes forward, is ahead of the true time; and its wall clock, before or behind it.
    pub(crate) ahead: u64,
    wall: i64,
    /// Until when the lease is its own, by its own clock.
    lease_until: u64,
    asks_at: u64,
    elects_at: u64,
    /// When it read the last record, by its own clock.
    read_at: u64,
    /// It does nothing before this time, and what comes meanwhile waits, or is lost.
    pub(crate) paused_until: u64,
    /// It reaches nothing before this time.
    pub(crate) cut_off_until: u64,
    pub(crate) timers: BTreeMap<(AgentName, Timer, u64), u64>,
    /// Records that the log has not confirmed; repeated until it does.
    pub(crate) outbox: BTreeMap<u64, ControlRecord>,
    next_out: u64,
    /// The number of its last command.
    number: u64,
    /// It met what it cannot read.
    pub(crate) follows_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Follower,
    /// It has the lease, and has not read its election back.
    Holder,
    Leader {
        term: u64,
    },
}

impl Replica {
    pub(crate) fn new(index: usize, ahead: u64, wall: i64) -> Self {
        Self {
            // Two of them are started with one id.
            name: if index < 2 { "supervisor".into() } else { format!("supervisor-{index}") },
            run: index as u64,
            build: supervisor_core::OLDEST_RULES,
            is_up: true,
            state: State::default(),
            snapshot: String::new(),
            observer: Observer::new(0, ahead),
            ears: Ears::new(ahead),
            role: Role::Follower,
            ahead,
            wall,
            lease_until: 0,
            asks_at: 0,
            elects_at: 0,
            read_at: 0,
            paused_until: 0,
            cut_off_until: 0,
            timers: BTreeMap::new(),
            outbox: BTreeMap::new(),
            next_out: 0,
            number: 0,
            follows_only: false,
        }
    }

    /// Its own clock.
    pub(crate) fn clock(&self, now: u64) -> u64 {
        now + self.ahead
    }

    /// The log's time, as far as it knows.
    fn log_time(&self, now: u64) -> u64 {
        self.state.at().as_millis() + self.clock(now).saturating_sub(self.read_at)
    }

    /// The term in which it acts now.
    pub(crate) fn leads(&self, now: u64) -> Option<u64> {
        match self.role {
            Role::Leader { term } if self.clock(now) < self.lease_until && self.is_up => Some(term),
            Role::Leader { .. } | Role::Holder | Role::Follower => None,
        }
    }

    pub(crate) fn is_reachable(&self, now: u64) -> bool {
        self.is_up && now >= self.cut_off_until
    }

    pub(crate) fn step_down(&mut self) {
        self.role = Role::Follower;
        self.lease_until = 0;
        self.timers.clear();
        self.outbox.clear();
    }

    /// Dies; what it had in memory is gone, its last snapshot is not.
    pub(crate) fn crash(&mut self) {
        self.is_up = false;
        self.step_down();
        self.state = serde_json::from_str(&self.snapshot).unwrap_or_default();
    }

    /// Starts as another process, maybe of a newer build.
    pub(crate) fn start(&mut self, run: u64, build: u32, clock: u64) {
        (self.is_up, self.run, self.build, self.follows_only) = (true, run, build, false);
        self.ears = Ears::new(clock);
        if self.state.rules() > build {
            self.follows_only = true;
        }
    }

    pub(crate) fn take_snapshot(&mut self) {
        self.snapshot = serde_json::to_string(&self.state).expect("a state is plain");
    }

    /// It runs again: nobody's silence counts that it did not listen to, and a lease that is over is none.
    pub(crate) fn awake(&mut self, now: u64, flaw: Flaw) {
        let clock = self.clock(now);
        if flaw == Flaw::CountStandstill && self.role != Role::Follower {
            // It looks at its lease after the next round trip.
            self.lease_until = self.lease_until.max(clock + 500);
        }
        if self.role != Role::Follower && clock >= self.lease_until {
            self.step_down();
        }
        if flaw != Flaw::CountStandstill {
            self.ears.awake(clock);
        }
        let gap = if flaw == Flaw::CountStandstill {
            self.observer.pretend(clock);
            0
        } else {
            self.observer.awake(clock)
        };
        let judged = self.timers.iter_mut().filter(|((_, timer, _), _)| *timer != Timer::Restart);
        judged.for_each(|(_, at)| *at += gap);
    }
}

/// A leader that does not notice that it stood still.
trait Pretend {
    fn pretend(&mut self, clock: u64);
}

impl Pretend for Observer {
    fn pretend(&mut self, clock: u64) {
        for before in (0..100).rev() {
            self.awake(clock.saturating_sub(before * 1_000));
        }
    }
}

// === What it does by itself ===

impl World {
    pub(crate) fn replica_ticks(&mut self, index: usize) -> Result<(), String> {
        self.later(TICK, Event::Replica(index));
        let now = self.now;
        let replica = &mut self.replicas[index];
        if !replica.is_up {
            return Ok(());
        }
        let reaches = replica.is_reachable(now);
        let clock = replica.clock(now);
        replica.observer.link(reaches, clock);
        replica.ears.link(reaches, clock);
        if reaches {
            self.competes(index);
            self.folds(index)?;
            if self.rng.percent(2) {
                self.replicas[index].take_snapshot();
            }
        }
        self.timers_fire(index);
        if self.rng.percent(10) || self.replicas[index].clock(now).is_multiple_of(1_000) {
            self.looks_around(index);
        }
        if self.rng.percent(20) {
            self.repeats(index);
        }
        Ok(())
    }

    fn competes(&mut self, index: usize) {
        let now = self.now;
        let replica = &mut self.replicas[index];
        let clock = replica.clock(now);
        // Whoever has not read what there is does not ask for more.
        let is_behind = replica.state.seq() + 20 < self.log.last_seq();
        let waits = is_behind && replica.role == Role::Follower;
        if replica.follows_only || waits || clock < replica.asks_at {
            return;
        }
        replica.asks_at = clock + if replica.role == Role::Follower { LOOK } else { RENEW };
        let run = replica.run;
        self.send(Event::LeaseAsked { replica: index, run, sent: clock });
    }

    /// The broker answers about the lease.
    pub(crate) fn lease_asked(&mut self, replica: usize, run: u64, sent: u64) {
        let granted = self.broker.take_or_renew(run, self.now);
        let lives = self.replicas.iter().any(|one| one.is_up && one.run == run);
        if granted && !lives {
            self.held_by_the_dead = Some(self.now);
        }
        self.send(Event::LeaseAnswered { replica, run, sent, granted });
    }

    pub(crate) fn lease_answered(&mut self, index: usize, run: u64, sent: u64, granted: bool) {
        let now = self.now;
        let replica = &mut self.replicas[index];
        if !replica.is_reachable(now) || replica.run != run || replica.follows_only {
            return;
        }
        let until = sent + BELIEF;
        if !granted {
            // An answer may be late: what was granted after it was asked holds.
            if until > replica.lease_until {
                replica.step_down();
            }
        } else if until > replica.clock(now) {
            replica.lease_until = replica.lease_until.max(until);
            if replica.role == Role::Follower {
                replica.role = Role::Holder;
                self.elect(index);
            }
        }
    }

    fn elect(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        let clock = replica.clock(self.now);
        if clock < replica.elects_at {
            return;
        }
        replica.elects_at = clock + ELECT_AGAIN;
        let (supervisor, run, rules) =
            (replica.name.clone(), replica.run.to_string(), replica.build);
        self.say(index, None, ControlEvent::LeaderElected { supervisor, run, rules });
    }

    fn folds(&mut self, index: usize) -> Result<(), String> {
        let pace = self.rng.between(1, 20);
        for _ in 0..pace {
            let replica = &mut self.replicas[index];
            let seq = replica.state.seq() + 1;
            let Some(stored) = self.log.record(seq) else {
                break;
            };
            let record = stored.read();
            let own = self.flaw == Flaw::OwnTime && index == 1;
            let at = if own { record.at } else { stored.at };
            replica.read_at = replica.clock(self.now);
            let actions = fold(&mut replica.state, seq, at, &record, self.flaw);
            self.log.compare(&replica.state, &actions)?;
            self.folded(index, &record, actions);
        }
        if self.replicas[index].role == Role::Holder {
            self.elect(index);
        }
        Ok(())
    }

    fn folded(&mut self, index: usize, record: &ControlRecord, actions: Vec<Action>) {
        let now = self.now;
        let replica = &mut self.replicas[index];
        let ControlEvent::LeaderElected { run, rules, .. } = &record.event else {
            if let Role::Leader { .. } = replica.role {
                self.perform(index, actions);
            }
            return;
        };
        if *rules > replica.build {
            replica.follows_only = true;
            replica.step_down();
        }
        let is_taken = replica.state.term() == replica.state.seq();
        if replica.role == Role::Follower || !is_taken {
            return;
        }
        replica.timers.clear();
        if *run != replica.run.to_string() {
            replica.role = Role::Holder;
            return;
        }
        let term = replica.state.term();
        replica.role = Role::Leader { term };
        replica.number = 0;
        replica.observer = Observer::after(term, replica.clock(now), &replica.ears);
        self.outcome.elections += 1;
        if self.flaw != Flaw::NoResume {
            let outstanding = resume(&self.replicas[index].state);
            self.perform(index, outstanding);
        }
        let all: Vec<_> = (0..self.hosts.len()).collect();
        self.command(index, &all, None, &Command::List);
    }

    fn timers_fire(&mut self, index: usize) {
        let Some(term) = self.replicas[index].leads(self.now) else {
            return;
        };
        let replica = &mut self.replicas[index];
        let clock = replica.clock(self.now);
        let has_listened = replica.observer.has_listened(clock);
        let due = replica.timers.extract_if(.., |_, at| *at <= clock);
        let due: Vec<_> = due.map(|(timer, _)| timer).collect();
        for (agent, timer, incarnation) in due {
            if timer == Timer::Ready && !has_listened {
                let again = clock + 1_000;
                self.replicas[index].timers.insert((agent, timer, incarnation), again);
            } else {
                self.say(
                    index,
                    Some(term),
                    ControlEvent::TimerFired { agent, timer, incarnation, said: None },
                );
            }
        }
    }

    fn looks_around(&mut self, index: usize) {
        self.sees(index, |replica, clock| replica.observer.tick(&replica.state, clock));
        self.carries(index);
    }

    /// SANCTUMs that are moved arrive, or do not.
    fn carries(&mut self, index: usize) {
        let replica = &self.replicas[index];
        let Some(term) = replica.leads(self.now) else { return };
        let mut events = Vec::new();
        for one in replica.state.carrying() {
            let (agent, runs) = (one.name.clone(), one.incarnations().next().is_some());
            let Some(carry) = &one.carry else { continue };
            let (copy, copied) = (carry.copy, vec!["/srv".to_owned()]);
            events.extend(match &carry.end {
                None if runs => None,
                None if copy % 3 == 0 => {
                    let reason = "full".to_owned();
                    Some(ControlEvent::SanctumNotMoved { agent, copy, reason })
                }
                None => Some(ControlEvent::SanctumMoved { agent, copy, copied }),
                Some(_) => Some(ControlEvent::SanctumKept { agent, copy, folders: copied }),
            });
        }
        for event in events {
            self.say(index, Some(term), event);
        }
    }

    /// What the log has not confirmed is written again: a timeout does not mean that it was not stored.
    fn repeats(&mut self, index: usize) {
        let outs: Vec<_> = self.replicas[index].outbox.keys().copied().collect();
        for out in outs {
            self.write(index, out);
        }
    }

    pub(crate) fn say(&mut self, index: usize, term: Option<u64>, event: ControlEvent) {
        let replica = &mut self.replicas[index];
        // By its wall clock, which may be hours off.
        let at = (1_000_000_000_i64 + replica.wall).saturating_add_unsigned(self.now);
        let at = Timestamp::from_millis(u64::try_from(at).unwrap_or(0));
        let author = replica.name.clone();
        replica.next_out += 1;
        let id = Some(format!("{}.{}", replica.run, replica.next_out));
        replica.outbox.insert(replica.next_out, ControlRecord { id, at, term, author, event });
        let out = replica.next_out;
        self.write(index, out);
    }

    fn write(&mut self, index: usize, out: u64) {
        let replica = &self.replicas[index];
        if replica.is_reachable(self.now)
            && let Some(record) = replica.outbox.get(&out)
        {
            let record = Box::new(record.clone());
            let from = Some((index, replica.run, out));
            self.send(Event::Append { record, from });
        }
    }

    /// Commands the nodes of hosts, on one subject; the number of the command.
    fn command(
        &mut self,
        index: usize,
        hosts: &[usize],
        instance: Option<u64>,
        command: &Command,
    ) -> Option<u64> {
        let replica = &mut self.replicas[index];
        let term = replica.leads(self.now)?;
        replica.number += 1;
        let number = replica.number;
        if replica.is_reachable(self.now) {
            for host in hosts {
                let (host, command) = (*host, command.clone());
                self.send(Event::ToHost { host, term, instance, number, command });
            }
        }
        Some(number)
    }

    /// Commands the process that speaks for a node, about an incarnation. All of the name hear it.
    fn tell_node(
        &mut self,
        index: usize,
        node: &common::NodeName,
        instance: Option<u64>,
        (agent, incarnation): (&AgentName, u64),
        command: &Command,
    ) {
        let hosts = self.hosts_of(node);
        if let Some(number) = self.command(index, &hosts, instance, command) {
            self.replicas[index].observer.told(agent, incarnation, number);
        }
    }

    pub(crate) fn perform(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            let Some(term) = self.replicas[index].leads(self.now) else {
                return;
            };
            let replica = &mut self.replicas[index];
            match action {
                Action::SetTimer { agent, timer, incarnation, at } => {
                    if self.flaw != Flaw::NoTimers {
                        let after = at.as_millis().saturating_sub(replica.log_time(self.now));
                        let due = replica.clock(self.now) + after;
                        replica.timers.insert((agent, timer, incarnation), due);
                    }
                }
                Action::CancelTimer { agent, timer, incarnation } => {
                    replica.timers.remove(&(agent, timer, incarnation));
                }
                Action::Allocate { agent } => {
                    if let Some(event) = supervisor_core::allocate(&replica.state, &agent) {
                        self.say(index, Some(term), event);
                    }
                }
                Action::Ask { node } => {
                    let hosts = self.hosts_of(&node);
                    self.command(index, &hosts, None, &Command::List);
                }
                Action::Refuse { node, instance } => {
                    let hosts = self.hosts_of(&node);
                    self.command(index, &hosts, Some(instance), &Command::Refused);
                }
                Action::Dismiss { agent, incarnation } => {
                    if replica.is_reachable(self.now) {
                        self.send(Event::Dismissed { agent, incarnation });
                    }
                }
                Action::Start { node, instance, agent, generation, incarnation, .. } => {
                    let command = Command::Start { agent: agent.clone(), generation, incarnation };
                    let of = (&agent, incarnation);
                    self.tell_node(index, &node, Some(instance), of, &command);
                }
                Action::Stop { node, agent, incarnation, within } => {
                    let instance = replica.state.node(&node).map(|node| node.instance);
                    let command = Command::Stop { agent: agent.clone(), incarnation, within };
                    self.tell_node(index, &node, instance, (&agent, incarnation), &command);
                }
                Action::Admit { agent, incarnation, previous, earlier, .. } => {
                    let mut over: Vec<_> = previous.into_iter().collect();
                    over.extend(earlier.iter().map(|one| one.incarnation));
                    let (run, step) = (replica.run, Step::Claim);
                    let one =
                        Handover { replica: index, run, term, agent, incarnation, over, step };
                    if replica.is_reachable(self.now) {
                        self.send(Event::Asked(one));
                    }
                }
            }
        }
    }
}
