//! What the log says, folded: agents, their incarnations, nodes, the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use common::api::AgentState;
use common::shim::Exit;
use common::spec::{AgentSpec, millis};
use common::{AgentName, Load, NodeName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::carry::Carry;
pub use crate::host::{Node, NodePhase};
use crate::recent::Recent;
use crate::scheduled::Scheduled;

/// The fleet, as of one sequence of the log.
///
/// A snapshot of it is JSON: specs leave out what is not set, which only a self-describing format can read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The sequence of the last record that was folded.
    pub(crate) seq: u64,
    /// The log's time, as of that record.
    #[serde(default)]
    pub(crate) at: Timestamp,
    pub(crate) term: u64,
    pub(crate) leader: Option<Leader>,
    /// The rules by which records are folded.
    #[serde(default = "first_rules")]
    pub(crate) rules: u32,
    /// What a record that is stored twice is known by.
    #[serde(default)]
    pub(crate) recent: Recent,
    /// The first record that this build cannot read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unreadable: Option<Unreadable>,
    pub(crate) agents: BTreeMap<AgentName, Agent>,
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    /// What outlives removed agents, so that no number is ever given twice under one name.
    pub(crate) tombstones: BTreeMap<AgentName, Tombstone>,
    /// No incarnation gets this number or a lower one: of a fleet that was restored from a backup. 0: of one that was not.
    #[serde(default, skip_serializing_if = "crate::restored::is_zero")]
    pub(crate) base: u64,
    /// The agents of whose SANCTUMs something is to be done: follows from `agents`, so that nobody looks through all of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) carrying: BTreeSet<AgentName>,
    /// When the fleet was restored from a backup: what schedules have sent before is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restored: Option<Timestamp>,
}

/// The rules before the first election.
const fn first_rules() -> u32 {
    crate::OLDEST_RULES
}

impl Default for State {
    fn default() -> Self {
        Self {
            seq: 0,
            at: Timestamp::default(),
            term: 0,
            leader: None,
            rules: first_rules(),
            recent: Recent::default(),
            unreadable: None,
            agents: BTreeMap::new(),
            nodes: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            base: 0,
            carrying: BTreeSet::new(),
            restored: None,
        }
    }
}

impl State {
    /// An agent.
    #[must_use]
    pub fn agent(&self, name: &AgentName) -> Option<&Agent> {
        self.agents.get(name)
    }

    /// All agents, by name.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    /// Those whose names come after one, in the order of their names.
    pub fn agents_after(&self, name: Option<&AgentName>) -> impl Iterator<Item = &Agent> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.agents.range::<AgentName, _>((from, Bound::Unbounded)).map(|(_, agent)| agent)
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All nodes ever seen, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The newest term that the log knows: the sequence of the last election; 0 before the first.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The supervisor that holds the newest term.
    #[must_use]
    pub fn leader(&self) -> Option<&Leader> {
        self.leader.as_ref()
    }

    /// The log's time: that of the last record folded, never less than that of one before it.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The rules by which records are folded now.
    #[must_use]
    pub fn rules(&self) -> u32 {
        self.rules
    }

    /// The first record that this build cannot read, if it met one. What it knows from there on is a guess: it must not lead.
    #[must_use]
    pub fn unreadable(&self) -> Option<&Unreadable> {
        self.unreadable.as_ref()
    }

    /// The sequence of the last record folded: a snapshot is continued after it.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What is left of a removed agent.
    #[must_use]
    pub fn tombstone(&self, name: &AgentName) -> Option<&Tombstone> {
        self.tombstones.get(name)
    }
}

/// Who holds a term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leader {
    /// The supervisor's id.
    pub supervisor: String,
    /// The run of it.
    pub run: String,
}

/// A record that this build cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unreadable {
    /// Its sequence.
    pub seq: u64,
    /// What is wrong with it.
    pub why: String,
}

/// An agent: what is wanted of it and what there is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its name.
    pub name: AgentName,
    /// The newest accepted spec.
    pub spec: AgentSpec,
    /// The number of the newest accepted spec, from 1.
    pub generation: u64,
    /// Whether people want it to run.
    pub desired: Desired,
    /// The highest incarnation ever allocated under this name; 0 is none. Never given again, also after a removal.
    pub incarnation: u64,
    /// The one that takes messages, or will as soon as it is ready, or still drains.
    pub current: Option<Incarnation>,
    /// The one that starts alongside `current` to take over from it.
    pub next: Option<Incarnation>,
    /// A start that is decided and has no number and no place yet: [`Action::Allocate`] asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Wanted>,
    /// Earlier ones that were given up, told to stop, and not seen ended yet.
    pub retiring: Vec<Incarnation>,
    /// Restarts since it was last stable.
    pub restart_count: u32,
    /// Why it is as it is, where that is not obvious.
    pub reason: Option<String>,
    /// When it is started next, while it waits after a crash.
    pub next_try: Option<Timestamp>,
    /// How its worker last ended by itself, or after a stop.
    pub last_exit: Option<Exit>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit_at: Option<Timestamp>,
    /// Since when it is running.
    pub started_at: Option<Timestamp>,
    /// The sequence of its journal stream before which everything is settled, as of the last admission.
    pub floor: u64,
    /// The incarnation whose consumer is in use: the last one admitted.
    pub begun: Option<u64>,
    /// Whether that one ended with its books settled.
    pub begun_clean: bool,
    /// What that one took over from.
    pub admission: Option<Admission>,
    /// Why nothing is being started, although it is wanted.
    pub hold: Option<Hold>,
    /// The generation to start: the newest, unless that one was rolled back.
    pub target: u64,
    /// Why the newest generation was rolled back.
    pub given_up: Option<String>,
    /// The last generations that were ready, of different specs: what a rollback can lead to.
    #[serde(default)]
    pub good: BTreeSet<u64>,
    /// Specs of earlier generations that still run or may be started again.
    pub older: BTreeMap<u64, AgentSpec>,
    /// Restarts within `RESTART`'s period, oldest first.
    pub restarts: Vec<Timestamp>,
    /// Where it was last started.
    pub home: Option<NodeName>,
    /// Where its SANCTUM is, once an incarnation with one that is writable and not shared was ready: nowhere else does one start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<NodeName>,
    /// Where it is being moved to, or from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
    /// The last copy of its SANCTUM to another node: under way, or what has become of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carry: Option<Carry>,
    /// To be forgotten once nothing of it runs.
    pub removing: bool,
    /// The schedules of the generation to start.
    #[serde(default, skip_serializing_if = "Scheduled::is_default")]
    pub scheduled: Scheduled,
}

impl Agent {
    /// A new agent of which nothing runs yet. What an earlier agent of the name left behind goes on counting.
    pub(crate) fn new(spec: AgentSpec, buried: Option<Tombstone>) -> Self {
        let buried = buried.unwrap_or_default();
        let generation = buried.generation.saturating_add(1);
        Self {
            name: spec.name.clone(),
            spec,
            generation,
            desired: Desired::Running,
            incarnation: buried.incarnation,
            current: None,
            next: None,
            wanted: None,
            retiring: Vec::new(),
            restart_count: 0,
            reason: None,
            next_try: None,
            last_exit: None,
            last_exit_at: None,
            started_at: None,
            floor: buried.floor,
            begun: buried.begun,
            begun_clean: buried.begun_clean,
            admission: buried.admission,
            hold: None,
            target: generation,
            given_up: None,
            good: BTreeSet::new(),
            older: BTreeMap::new(),
            restarts: Vec::new(),
            home: None,
            pin: buried.pin,
            moving: None,
            carry: None,
            removing: false,
            scheduled: Scheduled::default(),
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> AgentState {
        if self.desired == Desired::Stopped {
            let runs = self.incarnations().next().is_some();
            return if runs { AgentState::Stopping } else { AgentState::Stopped };
        }
        match self.current.as_ref().map(|current| current.phase) {
            Some(Phase::Ready) => AgentState::Running,
            // The old one finishes its turns, the new one is ready: nobody who sends a message notices.
            Some(Phase::Draining) if self.next.is_some() => AgentState::Running,
            Some(Phase::Starting | Phase::Draining) => AgentState::Starting,
            None if self.wanted.is_some() => AgentState::Starting,
            None => match self.hold {
                Some(Hold::Backoff | Hold::NoNode | Hold::GivenUp | Hold::Quarantined) => {
                    AgentState::Error
                }
                Some(Hold::Completed) => AgentState::Stopped,
                None => AgentState::Starting,
            },
        }
    }

    /// Whether too many restarts ended in `quarantined`.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.hold == Some(Hold::Quarantined)
    }

    /// Restarts since it was last stable, without the one that is yet to come.
    #[must_use]
    pub fn restarts_done(&self) -> u32 {
        self.restart_count.saturating_sub(u32::from(self.next_try.is_some()))
    }

    /// Whether an earlier generation runs because the newest one did not become ready.
    #[must_use]
    pub fn is_rolled_back(&self) -> bool {
        self.target != self.generation
    }

    /// The spec of a generation that runs or may be started.
    #[must_use]
    pub fn spec_of(&self, generation: u64) -> Option<&AgentSpec> {
        if generation == self.generation { Some(&self.spec) } else { self.older.get(&generation) }
    }

    /// All specs that run or may be started.
    pub fn specs(&self) -> impl Iterator<Item = &AgentSpec> {
        std::iter::once(&self.spec).chain(self.older.values())
    }

    /// All incarnations that may still run, the retiring ones first.
    pub fn incarnations(&self) -> impl Iterator<Item = &Incarnation> {
        self.retiring.iter().chain(&self.current).chain(&self.next)
    }

    /// One of [`Agent::incarnations`].
    #[must_use]
    pub fn incarnation(&self, number: u64) -> Option<&Incarnation> {
        self.incarnations().find(|one| one.number == number)
    }

    /// The [`Action::Admit`] of the incarnation whose consumer is in use, to perform it again.
    #[must_use]
    pub fn admit(&self) -> Option<Action> {
        let admission = self.admission.as_ref()?;
        Some(Action::Admit {
            agent: self.name.clone(),
            incarnation: self.begun?,
            floor: self.floor,
            previous: admission.previous,
            previous_clean: admission.previous_clean,
            earlier: admission.earlier.clone(),
        })
    }

    /// The spec that the next start uses.
    pub(crate) fn target_spec(&self) -> &AgentSpec {
        self.spec_of(self.target).unwrap_or(&self.spec)
    }

    /// How long an incarnation of this generation may drain.
    pub(crate) fn drain_time(&self, generation: u64) -> Duration {
        self.spec_of(generation).unwrap_or(&self.spec).timeout.drain
    }

    /// Drops the specs that nothing refers to any more.
    pub(crate) fn tidy(&mut self) {
        let mut used: BTreeSet<u64> = self.incarnations().map(|one| one.generation).collect();
        used.insert(self.target);
        used.extend(self.wanted.as_ref().map(|wanted| wanted.generation));
        used.extend(&self.good);
        let newest = self.generation;
        self.older.retain(|generation, _| *generation != newest && used.contains(generation));
    }

    pub(crate) fn buried(&self) -> Tombstone {
        Tombstone {
            generation: self.generation,
            incarnation: self.incarnation,
            floor: self.floor,
            begun: self.begun,
            begun_clean: self.begun_clean,
            admission: self.admission.clone(),
            pin: self.pin.clone(),
        }
    }

    /// The only node that its next start can be on, because its SANCTUM is there.
    #[must_use]
    pub fn pinned_to(&self) -> Option<&NodeName> {
        self.pinned_by(self.target_spec())
    }

    /// The node that it is pinned to by the spec of a generation.
    pub(crate) fn pinned_by(&self, spec: &AgentSpec) -> Option<&NodeName> {
        spec.pins().and(self.pin.as_ref())
    }

    /// Whether an incarnation takes its messages, and none is to take over from it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let takes = self.current.as_ref().is_some_and(|one| one.phase == Phase::Ready);
        let waits = self.current.is_none() && self.hold.is_some();
        self.wanted.is_none() && self.next.is_none() && (takes || waits)
    }

    /// What it takes of each node: of several incarnations on one of them the largest, for one is there to replace the other.
    pub(crate) fn loads(&self) -> BTreeMap<NodeName, Load> {
        let mut loads = BTreeMap::<NodeName, Load>::new();
        for one in self.incarnations() {
            let spec = self.spec_of(one.generation).unwrap_or(&self.spec);
            let load = loads.entry(one.node.clone()).or_default();
            *load = load.max(Load::of(&spec.limits));
        }
        loads
    }
}

/// Why the next start of an agent is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Moving {
    /// Somebody wants it there.
    To(NodeName),
    /// It leaves a node that is drained.
    From(NodeName),
}

/// What people want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Desired {
    /// It is to run.
    Running,
    /// It is to be stopped and stay so.
    Stopped,
}

/// Why nothing is being started, although the agent is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// It crashed; the timer that starts it again runs.
    Backoff,
    /// No node can take it; tried again when a node is seen. A replacement may wait so beside a running incarnation.
    NoNode,
    /// Its worker finished, and `RESTART on-failure` leaves it at that.
    Completed,
    /// Its worker ended, and `RESTART never` leaves it at that.
    GivenUp,
    /// Too many restarts.
    Quarantined,
}

/// A start that is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// The generation to start.
    pub generation: u64,
    /// Whether it starts alongside the current one.
    pub beside: bool,
    /// Why a start is needed at all.
    pub cause: Option<String>,
}

/// One start of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incarnation {
    /// Its number: greater than that of every earlier one.
    pub number: u64,
    /// The generation of its spec.
    pub generation: u64,
    /// Where it runs.
    pub node: NodeName,
    /// The node's process that was to start it: under this number no other one does.
    #[serde(default)]
    pub instance: u64,
    /// How far it is.
    pub phase: Phase,
    /// When its start was decided.
    pub started_at: Timestamp,
    /// When it is overdue: the time of its `ready` timer while it starts, of its `drain` timer while it drains.
    pub deadline: Option<Timestamp>,
    /// How long it may drain, while it does.
    #[serde(with = "millis")]
    pub within: Duration,
    /// Where its consumer starts, once it is ready.
    pub floor: u64,
    /// Why it was ended, if it hung.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hung: Option<String>,
}

/// How far an incarnation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Its worker has not said ready.
    Starting,
    /// Its worker is ready.
    Ready,
    /// It was told to stop and is not gone yet.
    Draining,
}

/// What an admitted incarnation took over from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Admission {
    /// The incarnation admitted before; none once the handover is on record.
    pub previous: Option<u64>,
    /// Whether it ended with its books settled.
    pub previous_clean: bool,
    /// Those before it whose handover is not on record either, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Predecessor>,
}

/// An incarnation that took messages, and from which another is to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Predecessor {
    /// Its number.
    pub incarnation: u64,
    /// Whether it ended with its books settled.
    pub clean: bool,
}

/// What is remembered of a removed agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    /// Its last generation.
    pub generation: u64,
    /// Its highest incarnation.
    pub incarnation: u64,
    /// Where its journal is settled.
    pub floor: u64,
    /// The last incarnation that was admitted.
    pub begun: Option<u64>,
    /// Whether that one ended with its books settled.
    pub begun_clean: bool,
    /// What that one took over from.
    pub admission: Option<Admission>,
    /// Where its SANCTUM is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<NodeName>,
}
