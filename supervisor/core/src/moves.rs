//! An agent moves to another node: by a replacement whose place is chosen.

use common::NodeName;

use crate::life::Life;
use crate::state::{Desired, Hold, Incarnation, Moving, Phase};

impl Life<'_> {
    /// Somebody wants it on a node. Where it is started later is not decided by this.
    pub(crate) fn moved(&mut self, to: &NodeName, seq: u64) {
        if self.agent.removing || self.takes_its_sanctum(to, seq) {
            return;
        }
        let agent = &mut *self.agent;
        if agent.desired == Desired::Stopped {
            return;
        }
        let lasts = |one: &&Incarnation| one.phase != Phase::Draining;
        let last = agent.next.as_ref().or(agent.current.as_ref().filter(lasts));
        if agent.wanted.is_none() && last.is_some_and(|one| one.node == *to) {
            agent.moving = None;
            return;
        }
        agent.moving = Some(Moving::To(to.clone()));
        if agent.wanted.is_some() {
            return self.place_anew();
        }
        match agent.next.as_ref().map(|next| next.phase) {
            // It takes over first.
            Some(Phase::Ready) => {}
            Some(Phase::Starting | Phase::Draining) => {
                self.retire_next();
                self.relocate();
            }
            None if agent.current.is_some() => self.relocate(),
            None if agent.hold == Some(Hold::NoNode) => {
                agent.hold = None;
                self.begin(None);
            }
            // At its next start.
            None => {}
        }
    }

    /// Its node is drained: it is replaced on another one.
    pub(crate) fn leave(&mut self, node: &NodeName) {
        self.agent.moving = Some(Moving::From(node.clone()));
        self.relocate();
    }

    fn relocate(&mut self) {
        // What kept the last replacement from being ready is tried again; another generation is not.
        if !self.agent.is_rolled_back() {
            self.agent.given_up = None;
        }
        self.replace();
    }

    /// Where somebody wants it is not where it can be: it is not moved. The result says why.
    pub(crate) fn unable_to_move(&mut self) -> Option<String> {
        let Some(Moving::To(to)) = &self.agent.moving else { return None };
        let why = self.world.refuses(to, self.agent)?;
        let said = format!("not moved to {to}: {to} {why}");
        self.agent.moving = None;
        Some(said)
    }

    /// Whether nothing but a move is the reason for a replacement of what runs.
    pub(crate) fn only_moves(&self) -> bool {
        let current = self.agent.current.as_ref();
        let is_it =
            |one: &Incarnation| one.generation == self.agent.target && one.phase != Phase::Draining;
        current.is_some_and(is_it)
    }

    /// It stays where it is.
    pub(crate) fn not_moved(&mut self, why: Option<String>) {
        let number = self.agent.current.as_ref().map_or(0, |one| one.number);
        self.agent.moving = None;
        self.agent.hold = None;
        self.agent.reason = match why {
            Some(why) => Some(format!("{why}; incarnation {number} keeps running")),
            None => self.agent.given_up.clone(),
        };
    }
}
