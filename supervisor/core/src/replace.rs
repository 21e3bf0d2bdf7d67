//! One incarnation takes over from another: at most one of them takes messages.

use common::spec::Replace;

use crate::life::{End, Life};
use crate::state::{Admission, Hold, Incarnation, Moving, Phase, Predecessor, Wanted};

impl Life<'_> {
    /// Moves to a fresh incarnation of the target generation, as its `REPLACE` says.
    pub(crate) fn replace(&mut self) {
        let target = self.agent.target;
        if self.agent.wanted.as_ref().is_some_and(|wanted| wanted.generation == target) {
            return;
        }
        self.agent.wanted = None;
        if let Some(next) = &self.agent.next {
            // One that is ready takes over first; what it does not fulfil is looked at again then.
            if next.phase == Phase::Ready || next.generation == target {
                return;
            }
        }
        self.retire_next();
        if let Some(why) = self.unable_to_move()
            && self.only_moves()
        {
            return self.not_moved(Some(why));
        }
        let phase = self.agent.current.as_ref().map(|one| one.phase);
        if let (Some(Phase::Starting | Phase::Ready), Err(why)) =
            (phase, self.world.place(self.agent))
        {
            return self.wait_beside(&why);
        }
        match (phase, self.agent.target_spec().replace_mode()) {
            (None, _) => self.begin(None),
            // Its end starts the target.
            (Some(Phase::Draining), _) => {}
            (Some(Phase::Starting | Phase::Ready), Replace::StopFirst) => self.drain_current(),
            (Some(Phase::Starting), Replace::StartFirst) => {
                // It takes no messages yet, so nothing is lost by not waiting for its end.
                let current = self.agent.current.take();
                self.retire(current);
                self.begin(None);
            }
            (Some(Phase::Ready), Replace::StartFirst) => self.start_beside(),
        }
    }

    pub(crate) fn start_beside(&mut self) {
        if self.waits_for_its_sanctum() {
            return;
        }
        if let Some(why) = self.unable_to_move()
            && self.only_moves()
        {
            return self.not_moved(Some(why));
        }
        let wanted = Wanted { generation: self.agent.target, beside: true, cause: None };
        match self.world.want(self.agent, wanted) {
            Ok(()) => {
                self.agent.hold = None;
                self.agent.reason = None;
            }
            Err(why) => self.wait_beside(&why),
        }
    }

    /// No node can run the target: nothing that runs is stopped for it.
    fn wait_beside(&mut self, why: &str) {
        if self.agent.moving.is_some() && self.only_moves() {
            return self.not_moved(None);
        }
        let stays = match &self.agent.current {
            Some(current) if current.generation != self.agent.target => {
                format!("generation {}", current.generation)
            }
            Some(current) => format!("incarnation {}", current.number),
            None => "nothing".to_owned(),
        };
        self.agent.hold = Some(Hold::NoNode);
        self.agent.reason =
            Some(format!("{}; {stays} keeps running", waits(self.agent.target, why)));
    }

    /// The current one is gone: the next one becomes it, and takes messages if it is ready. One that has no place yet is asked
    /// for as the only one.
    pub(crate) fn promote(&mut self, cause: Option<String>) {
        self.agent.current = self.agent.next.take();
        if self.agent.current.is_none() {
            self.agent.started_at = None;
            return self.begin(cause);
        }
        let is_ready = |one: &Incarnation| one.phase == Phase::Ready;
        if self.agent.current.as_ref().is_some_and(is_ready) {
            self.admit();
            let current = self.agent.current.as_ref();
            let is_elsewhere = |one: &Incarnation| match &self.agent.moving {
                Some(Moving::To(node)) => one.node != *node,
                Some(Moving::From(_)) | None => false,
            };
            if current.is_some_and(|one| one.generation != self.agent.target || is_elsewhere(one)) {
                self.replace();
            }
        } else {
            self.agent.started_at = None;
            self.agent.reason = cause;
        }
    }

    /// The current one has finished its turns, and the next one is ready: it takes over before the end of the other is seen.
    pub(crate) fn drained(&mut self, number: u64) {
        let agent = &mut *self.agent;
        let is_ready = agent.next.as_ref().is_some_and(|next| next.phase == Phase::Ready);
        let is_done = |one: &mut Incarnation| {
            one.number == number && one.phase == Phase::Draining && one.hung.is_none()
        };
        let Some(done) = agent.current.take_if(|current| is_ready && is_done(current)) else {
            return;
        };
        if agent.begun == Some(number) {
            agent.begun_clean = true;
        }
        agent.retiring.push(done);
        self.promote(None);
    }

    /// Lets the current one take messages. Whoever did before has ended, or loses its consumer by this.
    pub(crate) fn admit(&mut self) {
        let agent = &mut *self.agent;
        let Some(current) = agent.current.as_mut() else {
            return;
        };
        current.phase = Phase::Ready;
        current.deadline = None;
        agent.floor = agent.floor.max(current.floor);
        let earlier = agent.admission.take().map(unsettled).unwrap_or_default();
        agent.admission =
            Some(Admission { previous: agent.begun, previous_clean: agent.begun_clean, earlier });
        agent.begun = Some(current.number);
        self.world.actions.extend(agent.admit());
        agent.begun_clean = false;
        agent.started_at = Some(self.world.at);
        // While the target waits for a node, the reason is that.
        if agent.hold != Some(Hold::NoNode) {
            agent.reason = agent.given_up.clone();
        }
    }

    /// The next one ended before it took over.
    pub(crate) fn next_gone(&mut self, gone: &Incarnation, end: &End) {
        let current = self.agent.current.as_ref();
        // A current one that drains is past saving: its end starts the target once more.
        let Some(current) = current.filter(|one| one.phase == Phase::Ready) else {
            return;
        };
        if self.went_with_its_node(gone, end) {
            return self.replace();
        }
        let exit = match end {
            End::Exited(_) | End::NeverRan(_) if self.world.is_draining(&gone.node) => None,
            End::NodeLost => None,
            End::Exited(exit) | End::NeverRan(exit) => Some(exit),
        };
        let Some(exit) = exit else {
            // Its node's fault, not its own.
            return self.replace();
        };
        let (what, stays) = if gone.generation == current.generation {
            (format!("incarnation {}", gone.number), format!("incarnation {}", current.number))
        } else {
            (
                format!("generation {}", gone.generation),
                format!("generation {}", current.generation),
            )
        };
        let generation = current.generation;
        self.give_up(generation, &what, exit, &format!("{stays} keeps running"));
    }

    /// Tells the current one to finish its turns and end.
    pub(crate) fn drain_current(&mut self) {
        let agent = &mut *self.agent;
        let within = match &agent.current {
            Some(current) => agent.drain_time(current.generation),
            None => return,
        };
        if let Some(current) = agent.current.as_mut() {
            self.world.drain(&agent.name, current, within);
        }
    }

    /// Lets go of the next one.
    pub(crate) fn retire_next(&mut self) {
        let next = self.agent.next.take();
        self.retire(next);
    }

    fn retire(&mut self, one: Option<Incarnation>) {
        if let Some(mut one) = one {
            let within = self.agent.drain_time(one.generation);
            self.world.drain(&self.agent.name, &mut one, within);
            self.agent.retiring.push(one);
        }
    }
}

/// That a generation waits for a node.
pub(crate) fn waits(generation: u64, why: &str) -> String {
    match why.strip_prefix("waits ") {
        Some(what) => format!("generation {generation} waits {what}"),
        None => format!("generation {generation} waits: {why}"),
    }
}

/// Handovers that are not on record, at most: each is one that its leader did not finish. Beyond it the oldest is left to the
/// sweep of consumers that serve nobody.
const UNSETTLED: usize = 16;

/// Whom a handover that is not on record was to take over from.
fn unsettled(handover: Admission) -> Vec<Predecessor> {
    let Admission { previous, previous_clean: clean, mut earlier } = handover;
    earlier.extend(previous.map(|incarnation| Predecessor { incarnation, clean }));
    let excess = earlier.len().saturating_sub(UNSETTLED);
    earlier.drain(..excess);
    earlier
}
