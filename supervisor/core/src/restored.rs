//! A state that goes on from a backup: in a log with other sequences, with other streams, and where nothing of it runs.

use common::{AgentName, Load};

use crate::scheduled::WITH_SCHEDULES;
use crate::state::{Agent, Hold, NodePhase, State, Tombstone};

impl State {
    /// The same state, as of a log in which every record has a sequence that is greater by so much.
    #[must_use]
    pub fn shifted(mut self, by: u64) -> Self {
        self.seq = self.seq.saturating_add(by);
        if self.term > 0 {
            self.term = self.term.saturating_add(by);
        }
        self
    }

    /// No incarnation gets this number or a lower one; 0 of a fleet that was never restored.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The highest number that an incarnation of any agent got.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        let agents = self.agents.values().map(|agent| agent.incarnation);
        let removed = self.tombstones.values().map(|buried| buried.incarnation);
        agents.chain(removed).max().unwrap_or(0).max(self.base)
    }

    /// The names that ever had messages: of agents, and of those that were removed.
    pub fn names(&self) -> impl Iterator<Item = &AgentName> {
        self.agents.keys().chain(self.tombstones.keys())
    }
}

/// Begins anew with what is wanted. What ran since the backup had numbers up to `incarnations`.
pub(crate) fn begin(state: &mut State, incarnations: u64) {
    state.base = state.base.max(incarnations);
    state.leader = None;
    if state.rules >= WITH_SCHEDULES {
        state.restored = Some(state.at);
    }
    let (removed, agents): (Vec<_>, Vec<_>) =
        std::mem::take(&mut state.agents).into_iter().partition(|(_, agent)| agent.removing);
    state.agents.extend(agents);
    // The last of them has ended by now.
    state.tombstones.extend(removed.into_iter().map(|(name, agent)| (name, agent.buried())));
    for agent in state.agents.values_mut() {
        alone(agent, state.base);
    }
    for buried in state.tombstones.values_mut() {
        let Tombstone { generation, incarnation, pin, .. } = std::mem::take(buried);
        let incarnation = incarnation.max(state.base);
        *buried = Tombstone { generation, incarnation, pin, ..Tombstone::default() };
    }
    state.carrying.clear();
    for node in state.nodes.values_mut() {
        node.phase = NodePhase::Lost;
        node.lost_at = Some(state.at);
        node.incarnations = 0;
        node.load = Load::default();
        node.failures.clear();
    }
}

/// Nothing of it runs, and nothing is known of its journal.
fn alone(agent: &mut Agent, base: u64) {
    if matches!(agent.hold, Some(Hold::Backoff | Hold::NoNode)) {
        agent.hold = None;
        agent.reason = agent.given_up.clone();
    }
    agent.incarnation = agent.incarnation.max(base);
    agent.retiring.clear();
    (agent.current, agent.next, agent.wanted, agent.moving) = (None, None, None, None);
    (agent.next_try, agent.started_at) = (None, None);
    agent.carry = None;
    (agent.floor, agent.begun, agent.begun_clean, agent.admission) = (0, None, false, None);
    agent.tidy();
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) const fn is_zero(number: &u64) -> bool {
    *number == 0
}
