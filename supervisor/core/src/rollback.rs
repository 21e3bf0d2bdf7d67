//! Rollback: a new generation that never becomes ready is replaced by the last one that was.

use common::NodeName;
use common::shim::Exit;
use common::spec::{AgentSpec, Replace};

use crate::life::Life;
use crate::replace::waits;
use crate::state::{Agent, Desired, Hold, Incarnation, Phase, Wanted};

/// Generations that are remembered as good: the one that runs, and the one before it.
const KEPT: usize = 2;

impl Agent {
    /// The generation that a rollback leads to: the last one that was ready, other than the one that is to run now.
    #[must_use]
    pub fn last_good(&self) -> Option<(u64, &AgentSpec)> {
        let other = |generation: &&u64| **generation != self.target;
        let generation = *self.good.iter().rev().find(other)?;
        Some((generation, self.spec_of(generation)?))
    }

    /// Whether an incarnation that counted as gone with its node may go on: the last that took messages, nothing has taken its
    /// place, and nothing of the agent runs.
    pub(crate) fn can_return(&self, number: u64, generation: u64) -> bool {
        self.desired == Desired::Running
            && !self.removing
            && self.incarnations().next().is_none()
            && !self.is_carried()
            && self.begun == Some(number)
            && self.target == generation
            && self.spec_of(generation).is_some()
            && matches!(self.hold, None | Some(Hold::NoNode | Hold::Backoff))
    }

    /// Whether what a generation needs is on another node than this one: what ran here works on data that have been moved away.
    pub(crate) fn has_data_elsewhere(&self, generation: u64, node: &NodeName) -> bool {
        let spec = self.spec_of(generation).unwrap_or(&self.spec);
        self.pinned_by(spec).is_some_and(|pin| pin != node)
    }

    /// Whether an incarnation that counted as gone goes on until another one takes messages: what is to come may run beside it.
    pub(crate) fn may_stay(&self, number: u64) -> bool {
        let comes = self.wanted.is_some()
            || self.current.as_ref().is_some_and(|one| one.phase == Phase::Starting)
            || matches!(self.hold, Some(Hold::NoNode | Hold::Backoff));
        self.desired == Desired::Running
            && !self.removing
            && self.begun == Some(number)
            && self.incarnation(number).is_none()
            && comes
            && self.target_spec().replace_mode() == Replace::StartFirst
    }

    /// Takes note that a generation was ready.
    pub(crate) fn was_ready(&mut self, generation: u64) {
        if self.good.contains(&generation) {
            return;
        }
        let mut good = std::mem::take(&mut self.good);
        // To go back to a generation that only repeats this one would change nothing.
        good.retain(|other| self.spec_of(*other) != self.spec_of(generation));
        good.insert(generation);
        while good.len() > KEPT {
            good.pop_first();
        }
        self.good = good;
    }
}

impl Life<'_> {
    /// The generation to go back to, now that this incarnation ended by its own fault: none if its generation was ever ready,
    /// or no other one was.
    pub(crate) fn way_back(&self, gone: &Incarnation) -> Option<u64> {
        let agent = &*self.agent;
        let never_ready = gone.phase == Phase::Starting
            && gone.generation == agent.target
            && !agent.good.contains(&gone.generation);
        let (generation, _) = agent.last_good().filter(|_| never_ready)?;
        Some(generation)
    }

    /// The current one, the only one there was, ended before it was ready: an earlier generation is started in its place.
    pub(crate) fn roll_back(&mut self, to: u64, gone: &Incarnation, exit: Exit) {
        let what = format!("generation {}", gone.generation);
        self.give_up(to, &what, &exit, &format!("generation {to} runs again"));
        self.ended_with(exit);
        self.begin(self.agent.given_up.clone());
    }

    /// No node can run the target, and nothing of the agent runs. A target that was never ready need not keep it so: the last
    /// good generation runs until a node can take the target. `cause` is why a start is needed, `why` what the nodes lack.
    pub(crate) fn begin_meanwhile(&mut self, cause: Option<String>, why: String) {
        let agent = &mut *self.agent;
        let is_new = !agent.good.contains(&agent.target);
        let good = agent.last_good().map(|(generation, _)| generation).filter(|_| is_new);
        let why_at_all = cause.clone();
        // What it waits for says that its node is away.
        let cause = cause.filter(|_| !why.starts_with("waits "));
        let cause = cause.map_or_else(String::new, |cause| format!("{cause}; "));
        agent.hold = Some(Hold::NoNode);
        agent.reason = Some(format!("{cause}{why}"));
        let Some(good) = good else { return };
        if self.is_blocked(good) {
            // The end of what blocks it begins anew.
            self.agent.hold = None;
            return;
        }
        let wanted = Wanted { generation: good, beside: false, cause: why_at_all };
        if self.world.want(self.agent, wanted).is_ok() {
            let target = self.agent.target;
            let reason = format!("{cause}{}; generation {good} runs", waits(target, &why));
            self.agent.reason = Some(reason);
        }
    }

    /// Aims at another generation, for the time being.
    pub(crate) fn give_up(&mut self, to: u64, what: &str, exit: &Exit, instead: &str) {
        self.agent.target = to;
        self.agent.given_up = Some(format!("{what} not ready: {}; {instead}", exit.describe()));
        self.agent.reason = self.agent.given_up.clone();
    }
}
