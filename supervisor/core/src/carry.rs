//! The SANCTUM of an agent that is moved: copied to its new node while nothing of the agent runs, and the pin follows.
//!
//! Nothing of the agent is started from when the move is recorded until the copy is there or given up. The pin is moved by the record that
//! says that the copy is complete, so that there is always exactly one node on which the agent may start.

use std::path::Path;

use common::{AgentName, NodeName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::life::Life;
use crate::placement::{Need, refusal, waits};
use crate::state::{Agent, NodePhase, State};

/// The first rules by which a move takes the SANCTUM along.
pub(crate) const WITH_CARRY: u32 = 5;

/// A copy of an agent's SANCTUMs to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Carry {
    /// Its number: the sequence of the record that asked for it.
    pub copy: u64,
    /// The node that has them.
    pub from: NodeName,
    /// The node that is to have them.
    pub to: NodeName,
    /// What has become of it; none while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<CarryEnd>,
}

/// What has become of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CarryEnd {
    /// It was given up.
    Failed {
        /// Why.
        reason: String,
    },
    /// It is complete, and the agent starts from it.
    Moved {
        /// When.
        at: Timestamp,
        /// The folders that were copied.
        copied: Vec<String>,
        /// Where the node that it was made from keeps them; none until it has said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Vec<String>>,
    },
}

impl Carry {
    /// Whether it is under way: nothing of the agent may start.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.end.is_none()
    }

    /// Whether something is to be done about it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match &self.end {
            None => true,
            Some(CarryEnd::Moved { kept, .. }) => kept.is_none(),
            Some(CarryEnd::Failed { .. }) => false,
        }
    }
}

/// A folder of an agent that its next node must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Its path, the same on every node.
    pub path: String,
    /// Whether the agent only reads it: it is copied where it is missing, and left where it is.
    pub read_only: bool,
}

/// The folders that a move takes along: of all generations that may be started, and none that every host has.
#[must_use]
pub fn folders(agent: &Agent) -> Vec<Folder> {
    let mut folders: Vec<Folder> = Vec::new();
    for sanctum in agent.specs().flat_map(|spec| &spec.sanctums).filter(|one| !one.shared) {
        match folders.iter_mut().find(|known| known.path == sanctum.host) {
            Some(known) => known.read_only &= sanctum.read_only,
            None => {
                folders.push(Folder { path: sanctum.host.clone(), read_only: sanctum.read_only })
            }
        }
    }
    folders
}

/// Another agent on a node with a SANCTUM in, around or at one of these folders: it would lose its data.
#[must_use]
pub fn others_in<'a>(
    state: &'a State,
    agent: &AgentName,
    node: &NodeName,
    folders: &[String],
) -> Option<&'a AgentName> {
    let is_near = |path: &str| {
        let path = Path::new(path);
        folders.iter().any(|one| path.starts_with(one) || Path::new(one).starts_with(path))
    };
    let uses = |other: &&Agent| {
        let is_there = other.pin.as_ref() == Some(node)
            || other.pin.is_none() && other.incarnations().any(|one| one.node == *node);
        let mut sanctums = other.specs().flat_map(|spec| &spec.sanctums);
        other.name != *agent && is_there && sanctums.any(|one| is_near(&one.host))
    };
    state.agents().find(uses).map(|other| &other.name)
}

/// Why the SANCTUM of an agent cannot be moved to a node; none if it can, or there is nothing to move.
#[must_use]
pub fn cannot_carry(state: &State, agent: &Agent, to: &NodeName) -> Option<String> {
    let pin = agent.pinned_to().filter(|pin| *pin != to)?;
    if let Some(node) = state.node(pin).filter(|node| node.phase != NodePhase::Up) {
        return Some(format!("it {}", waits(node, "is draining")));
    }
    let own = agent.loads();
    let need =
        Need { to: None, pin: None, ..Need::of(agent, agent.target_spec(), &own, state.rules) };
    state.node(to).and_then(|node| refusal(node, need)).map(|why| format!("{to} {why}"))
}

impl State {
    /// The agents of whose SANCTUMs something is to be done: to be copied, or what is left of them to be renamed.
    pub fn carrying(&self) -> impl Iterator<Item = &Agent> {
        self.carrying.iter().filter_map(|name| self.agents.get(name))
    }
}

impl Agent {
    /// Whether its SANCTUM is being copied to another node.
    #[must_use]
    pub fn is_carried(&self) -> bool {
        self.carry.as_ref().is_some_and(Carry::is_under_way)
    }
}

impl Life<'_> {
    /// It is to go where its SANCTUM is not: that is to be copied there. Whether this is so; otherwise it is a plain move.
    pub(crate) fn takes_its_sanctum(&mut self, to: &NodeName, seq: u64) -> bool {
        if self.world.rules < WITH_CARRY {
            return false;
        }
        if let Some(carry) = self.agent.carry.as_ref().filter(|carry| carry.is_under_way()) {
            if carry.to == *to {
                return true;
            }
            let said = format!("a move to {to} was requested");
            self.give_carry_up(&said);
            if self.agent.pin.as_ref() == Some(to) {
                self.go_on();
            }
        }
        let Some(from) = self.agent.pinned_to().filter(|pin| *pin != to).cloned() else {
            return false;
        };
        let is_there = |node| self.world.phase_of(node) == Some(NodePhase::Up);
        let refused = match self.world.has_no_room_for(to, self.agent) {
            Some(why) => Some(format!("{to} {why}")),
            None if is_there(&from) => None,
            None => Some(format!("{from}, which has its SANCTUM, is away")),
        };
        if let Some(why) = refused {
            self.agent.reason = Some(format!("not moved to {to}: {why}"));
            self.go_on();
            return true;
        }
        self.release();
        let agent = &mut *self.agent;
        (agent.wanted, agent.moving, agent.started_at) = (None, None, None);
        agent.carry = Some(Carry { copy: seq, from, to: to.clone(), end: None });
        self.retire_next();
        self.drain_current();
        let _waits = self.waits_for_its_sanctum();
        true
    }

    /// Whether nothing of it may start, because its SANCTUM is on its way.
    pub(crate) fn waits_for_its_sanctum(&mut self) -> bool {
        let Some(carry) = self.agent.carry.as_ref().filter(|carry| carry.is_under_way()) else {
            return false;
        };
        self.agent.reason =
            Some(format!("its SANCTUM is being moved from {} to {}", carry.from, carry.to));
        true
    }

    fn give_carry_up(&mut self, reason: &str) {
        if let Some(carry) = self.agent.carry.as_mut().filter(|carry| carry.is_under_way()) {
            carry.end = Some(CarryEnd::Failed { reason: reason.to_owned() });
            self.agent.reason = Some(format!("not moved to {}: {reason}", carry.to));
        }
    }

    /// One of the nodes is lost.
    pub(crate) fn carry_lost(&mut self, node: &NodeName) {
        let carry = self.agent.carry.as_ref();
        if carry.is_some_and(|carry| carry.from == *node || carry.to == *node) {
            self.give_carry_up(&format!("node {node} is lost"));
        }
    }

    /// The copy that is under way, by its number.
    fn is_copy(&self, copy: u64) -> bool {
        self.agent.carry.as_ref().is_some_and(|carry| carry.copy == copy && carry.is_under_way())
    }

    /// Its SANCTUM is where it is to be: it starts there from now on. Not if that node could not start it any more.
    pub(crate) fn sanctum_moved(&mut self, copy: u64, copied: &[String]) {
        if !self.is_copy(copy) || self.agent.incarnations().next().is_some() {
            return;
        }
        let Some(to) = self.agent.carry.as_ref().map(|carry| carry.to.clone()) else { return };
        if let Some(why) = self.world.has_no_room_for(&to, self.agent) {
            let reason = format!("{to} {why}");
            return self.sanctum_not_moved(copy, &reason);
        }
        let kept = copied.is_empty().then(Vec::new);
        let (at, copied) = (self.world.at, copied.to_vec());
        if let Some(carry) = &mut self.agent.carry {
            carry.end = Some(CarryEnd::Moved { at, copied, kept });
        }
        self.agent.pin = Some(to);
        self.agent.reason = self.agent.given_up.clone();
        self.go_on();
    }

    /// It stays where it is.
    pub(crate) fn sanctum_not_moved(&mut self, copy: u64, reason: &str) {
        if self.is_copy(copy) {
            self.give_carry_up(reason);
            self.go_on();
        }
    }

    /// The node that it left has renamed what it had.
    pub(crate) fn sanctum_kept(&mut self, number: u64, folders: &[String]) {
        if let Some(Carry { copy, end: Some(CarryEnd::Moved { kept, .. }), .. }) =
            &mut self.agent.carry
            && *copy == number
        {
            kept.get_or_insert_with(|| folders.to_vec());
        }
    }

    /// A node was removed, with whatever it still had.
    pub(crate) fn sanctum_lost(&mut self, node: &NodeName) {
        if let Some(Carry { from, end: Some(CarryEnd::Moved { kept, .. }), .. }) =
            &mut self.agent.carry
            && from == node
        {
            kept.get_or_insert_with(Vec::new);
        }
    }
}

/// What is to be said of a copy; nothing, if it is over and its rest renamed.
pub(crate) fn words(carry: &Carry) -> Option<String> {
    let Carry { from, to, .. } = carry;
    Some(match &carry.end {
        None => {
            format!("Its SANCTUM is being moved from {from} to {to}; it starts when that is done.")
        }
        Some(CarryEnd::Failed { reason }) => {
            format!("Its SANCTUM was not moved from {from} to {to}: {reason}.")
        }
        Some(CarryEnd::Moved { at, kept, .. }) => {
            let kept = kept.as_ref().filter(|kept| !kept.is_empty());
            let kept =
                kept.map(|kept| format!("; {from} keeps the previous copy as {}", kept.join(", ")));
            format!(
                "Its SANCTUM was moved from {from} to {to} at {at}{}.",
                kept.unwrap_or_default()
            )
        }
    })
}
