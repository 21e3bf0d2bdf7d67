//! A supervisor: the shell around the fold, in small.

use std::collections::BTreeMap;

use common::AgentName;
use common::NodeName;
use common::control::{ControlEvent, ControlRecord, Timer};
use common::shim::{Heartbeat, IncarnationExit, NodeStatus};
use supervisor_core::{Action, Observer, Outcome, ShimReady, State, resume};

use crate::Flaw;
use crate::broker::LEASE;
use crate::log::fold;
use crate::world::{Event, World};

/// How often a supervisor looks around, in milliseconds.
const TICK: u64 = 100;

pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) is_up: bool,
    pub(crate) state: State,
    pub(crate) snapshot: String,
    pub(crate) observer: Observer,
    pub(crate) role: Role,
    pub(crate) lease: u64,
    /// Until when it believes in its lease: longer than it should, sometimes.
    pub(crate) believes_until: u64,
    /// It neither folds nor renews before this time, and acts nevertheless.
    pub(crate) stalled_until: u64,
    /// It reaches nothing before this time.
    pub(crate) cut_off_until: u64,
    pub(crate) timers: BTreeMap<(AgentName, Timer, u64), u64>,
    /// Records that the log has not confirmed; repeated until it does.
    pub(crate) outbox: BTreeMap<u64, ControlRecord>,
    pub(crate) next_out: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Follower,
    /// It has the lease, and has not read its election back.
    Elected {
        term: u64,
    },
    Leader {
        term: u64,
    },
}

impl Replica {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            name: format!("supervisor-{index}"),
            is_up: true,
            state: State::default(),
            snapshot: String::new(),
            observer: Observer::new(0, 0),
            role: Role::Follower,
            lease: 0,
            believes_until: 0,
            stalled_until: 0,
            cut_off_until: 0,
            timers: BTreeMap::new(),
            outbox: BTreeMap::new(),
            next_out: 0,
        }
    }

    /// The term in which it acts now.
    pub(crate) fn leads(&self, now: u64) -> Option<u64> {
        match self.role {
            Role::Leader { term } if now < self.believes_until && self.is_up => Some(term),
            Role::Leader { .. } | Role::Elected { .. } | Role::Follower => None,
        }
    }

    pub(crate) fn is_reachable(&self, now: u64) -> bool {
        self.is_up && now >= self.cut_off_until
    }

    pub(crate) fn step_down(&mut self) {
        self.role = Role::Follower;
        self.timers.clear();
        self.outbox.clear();
    }

    /// Dies; what it had in memory is gone, its last snapshot is not.
    pub(crate) fn crash(&mut self) {
        self.is_up = false;
        self.step_down();
        self.state = serde_json::from_str(&self.snapshot).unwrap_or_default();
    }

    pub(crate) fn take_snapshot(&mut self) {
        self.snapshot = serde_json::to_string(&self.state).expect("a state is plain");
    }

    /// Puts a record into the outbox; returns its place there.
    pub(crate) fn say(&mut self, term: u64, now: u64, event: ControlEvent) -> u64 {
        let at = common::Timestamp::from_millis(now);
        let author = self.name.clone();
        self.next_out += 1;
        self.outbox.insert(self.next_out, ControlRecord { at, term: Some(term), author, event });
        self.next_out
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
        replica.observer.link(reaches, now);
        if reaches && now >= replica.stalled_until {
            self.competes(index);
            self.folds(index)?;
            if self.rng.percent(2) {
                self.replicas[index].take_snapshot();
            }
        }
        self.timers_fire(index);
        if self.rng.percent(10) {
            self.looks_around(index);
        }
        if self.rng.percent(20) {
            self.repeats(index);
        }
        Ok(())
    }

    fn competes(&mut self, index: usize) {
        let is_candidate = self.replicas[index].role != Role::Follower || self.rng.percent(10);
        if !is_candidate {
            return;
        }
        let lease = self.broker.take_or_renew(index, self.now);
        let too_long = if self.calm { 0 } else { self.rng.between(0, 4_000) };
        let replica = &mut self.replicas[index];
        let Some(term) = lease else {
            return replica.step_down();
        };
        replica.believes_until = replica.believes_until.max(self.now + LEASE + too_long);
        let is_known = replica.lease == term && replica.role != Role::Follower;
        replica.lease = term;
        if !is_known {
            replica.step_down();
            replica.role = Role::Elected { term };
            let supervisor = replica.name.clone();
            let run = term.to_string();
            self.say(index, term, ControlEvent::LeaderElected { supervisor, run, rules: 2 });
        }
    }

    fn folds(&mut self, index: usize) -> Result<(), String> {
        let pace = self.rng.between(1, 20);
        for _ in 0..pace {
            let replica = &mut self.replicas[index];
            let Some((mut at, record)) = self.log.record(replica.state.seq() + 1).cloned() else {
                break;
            };
            if self.flaw == Flaw::OwnClock && index == 1 {
                at = at.after(std::time::Duration::from_millis(1));
            }
            let seq = replica.state.seq() + 1;
            let actions = fold(&mut replica.state, seq, at, &record, self.flaw);
            self.log.compare(&replica.state, &actions)?;
            self.folded(index, &record, actions);
        }
        Ok(())
    }

    fn folded(&mut self, index: usize, record: &ControlRecord, actions: Vec<Action>) {
        let replica = &mut self.replicas[index];
        let newest = replica.state.term();
        match replica.role {
            Role::Leader { term } if newest > term => replica.step_down(),
            Role::Elected { term } if matches!(&record.event, ControlEvent::LeaderElected { run, .. } if *run == term.to_string()) =>
            {
                let term = newest;
                replica.role = Role::Leader { term };
                replica.observer = Observer::new(term, self.now);
                self.outcome.elections += 1;
                if self.flaw != Flaw::NoResume {
                    let outstanding = resume(&self.replicas[index].state);
                    self.perform(index, outstanding);
                }
            }
            Role::Leader { .. } => self.perform(index, actions),
            Role::Elected { .. } | Role::Follower => {}
        }
    }

    fn timers_fire(&mut self, index: usize) {
        let Some(term) = self.replicas[index].leads(self.now) else {
            return;
        };
        let now = self.now;
        let due = self.replicas[index].timers.extract_if(.., |_, at| *at <= now);
        let due: Vec<_> = due.map(|(timer, _)| timer).collect();
        for (agent, timer, incarnation) in due {
            self.say(index, term, ControlEvent::TimerFired { agent, timer, incarnation });
        }
    }

    fn looks_around(&mut self, index: usize) {
        self.sees(index, |replica, now| replica.observer.tick(&replica.state, now));
    }

    /// What the log has not confirmed is written again: a timeout does not mean that it was not stored.
    fn repeats(&mut self, index: usize) {
        let outs: Vec<_> = self.replicas[index].outbox.keys().copied().collect();
        for out in outs {
            self.write(index, out);
        }
    }

    fn say(&mut self, index: usize, term: u64, event: ControlEvent) {
        let out = self.replicas[index].say(term, self.now, event);
        self.write(index, out);
    }

    fn write(&mut self, index: usize, out: u64) {
        let replica = &self.replicas[index];
        if replica.is_reachable(self.now)
            && let Some(record) = replica.outbox.get(&out)
        {
            let record = Box::new(record.clone());
            self.send(Event::Append { record, from: Some((index, out)) });
        }
    }

    fn perform(&mut self, index: usize, actions: Vec<Action>) {
        let Some(term) = self.replicas[index].leads(self.now) else {
            return;
        };
        for action in actions {
            let replica = &mut self.replicas[index];
            let event = match action {
                Action::Allocate { agent } => {
                    if let Some(event) = supervisor_core::allocate(&replica.state, &agent) {
                        self.say(index, term, event);
                    }
                    continue;
                }
                Action::Ask { .. } | Action::Refuse { .. } | Action::Dismiss { .. } => continue,
                Action::SetTimer { agent, timer, incarnation, at } => {
                    if self.flaw != Flaw::NoTimers {
                        replica.timers.insert((agent, timer, incarnation), at.as_millis());
                    }
                    continue;
                }
                Action::CancelTimer { agent, timer, incarnation } => {
                    replica.timers.remove(&(agent, timer, incarnation));
                    continue;
                }
                Action::Start { node, agent, generation, incarnation, .. } => {
                    Event::Start { node, term, agent, generation, incarnation }
                }
                Action::Stop { node, agent, incarnation, within } => {
                    Event::Stop { node, term, agent, incarnation, within }
                }
                Action::Admit { agent, incarnation, previous, earlier, .. } => {
                    let mut over: Vec<_> = previous.into_iter().collect();
                    if self.flaw != Flaw::ForgetEarlier {
                        over.extend(earlier.iter().map(|one| one.incarnation));
                    }
                    Event::Admit { replica: index, agent, incarnation, over }
                }
            };
            if replica.is_reachable(self.now) {
                self.send(event);
            }
        }
    }
}

// === What it hears ===

impl World {
    /// Lets a leader look at something, and does what follows.
    fn sees(&mut self, index: usize, look: impl FnOnce(&mut Replica, u64) -> Vec<Outcome>) {
        let replica = &mut self.replicas[index];
        let (Some(term), true) = (replica.leads(self.now), replica.is_up) else {
            return;
        };
        for outcome in look(replica, self.now) {
            match outcome {
                Outcome::Record(event) => self.say(index, term, event),
                Outcome::Do(Action::Stop { .. }) if self.flaw == Flaw::LeaveOrphans => {}
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
        self.hears(index, |replica, now| replica.observer.node_report(&replica.state, now, status));
    }

    pub(crate) fn hears_exit(&mut self, index: usize, node: &NodeName, exit: &IncarnationExit) {
        self.hears(index, |replica, _| replica.observer.exited(&replica.state, node, None, exit));
    }

    pub(crate) fn hears_failure(
        &mut self,
        index: usize,
        node: &NodeName,
        agent: &AgentName,
        incarnation: u64,
    ) {
        self.hears(index, |replica, _| {
            replica.observer.start_failed(
                &replica.state,
                node,
                None,
                agent,
                incarnation,
                "no program",
            )
        });
    }

    pub(crate) fn hears_heartbeat(&mut self, index: usize, agent: &AgentName, incarnation: u64) {
        let beat = Heartbeat { finished: 1, ..Heartbeat::default() };
        self.hears(index, |replica, now| {
            replica.observer.shim_heartbeat(&replica.state, now, agent, incarnation, &beat)
        });
    }

    pub(crate) fn handed_over(&mut self, index: usize, agent: AgentName, incarnation: u64) {
        let event = ControlEvent::IncarnationBegun { agent, incarnation };
        self.hears(index, |_, _| vec![Outcome::Record(event)]);
    }

    pub(crate) fn hears_ready(&mut self, index: usize, agent: &AgentName, incarnation: u64) {
        self.hears(index, |replica, now| {
            match replica.observer.shim_ready(&replica.state, agent, incarnation) {
                ShimReady::LogReady => {
                    let agent = agent.clone();
                    let floor = now;
                    vec![Outcome::Record(ControlEvent::IncarnationReady {
                        agent,
                        incarnation,
                        floor,
                    })]
                }
                ShimReady::AdmitAgain => {
                    let admit = replica.state.agent(agent).and_then(supervisor_core::Agent::admit);
                    admit.into_iter().map(Outcome::Do).collect()
                }
                ShimReady::Dismiss | ShimReady::Ignore => Vec::new(),
            }
        });
    }
}
