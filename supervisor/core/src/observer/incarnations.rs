//! Incarnations, as nodes report them: which ended, which must not run, which should and do not.

use std::collections::BTreeSet;
use std::time::Duration;

use common::control::ControlEvent;
use common::shim::{Exit, IncarnationExit, NodeStatus};
use common::{AgentName, NodeName};

use super::{Observer, Outcome};
use crate::action::Action;
use crate::resume;
use crate::state::{Incarnation, NodePhase, Phase, State};

/// How long, in milliseconds, an incarnation must be missing from its node's reports to be gone: a report may have been on its
/// way when the incarnation started.
const ABSENT: u64 = 2_000;

/// How long one that is not wanted may settle its books. It has no consumer any more.
const UNWANTED: Duration = Duration::from_secs(5);

impl Observer {
    /// A node says that an incarnation ended.
    pub fn exited(
        &mut self,
        state: &State,
        node: &NodeName,
        exit: &IncarnationExit,
    ) -> Vec<Outcome> {
        if known(state, node, &exit.agent, exit.incarnation).is_none() {
            return Vec::new();
        }
        self.news(ControlEvent::IncarnationExited {
            agent: exit.agent.clone(),
            incarnation: exit.incarnation,
            exit: exit.exit.clone(),
            clean: exit.clean,
        })
    }

    /// A node says that it could not start an incarnation.
    pub fn start_failed(
        &mut self,
        state: &State,
        node: &NodeName,
        agent: &AgentName,
        incarnation: u64,
        reason: &str,
    ) -> Vec<Outcome> {
        if known(state, node, agent, incarnation).is_none() {
            return Vec::new();
        }
        self.news(ControlEvent::StartFailed {
            agent: agent.clone(),
            incarnation,
            reason: reason.to_owned(),
        })
    }

    /// Whatever runs there and should not is stopped: it was replaced while the node was away, or nobody knows it.
    pub(super) fn unwanted(&mut self, state: &State, status: &NodeStatus, out: &mut Vec<Outcome>) {
        for running in &status.running {
            if known(state, &status.node, &running.agent, running.incarnation).is_some() {
                self.memory.present(&running.agent, running.incarnation);
                continue;
            }
            let (agent, incarnation) = (&running.agent, running.incarnation);
            if self.memory.may_stop(&status.node, agent, incarnation) {
                out.push(Outcome::Do(Action::Stop {
                    node: status.node.clone(),
                    agent: agent.clone(),
                    incarnation,
                    within: UNWANTED,
                }));
            }
        }
    }

    /// Whatever should run there and does not is started again, if it is still to say ready, and has ended otherwise.
    pub(super) fn absent(&mut self, state: &State, status: &NodeStatus, out: &mut Vec<Outcome>) {
        let running = status.running.iter().map(|one| (&one.agent, one.incarnation));
        let ended = status.exits.iter().map(|one| (&one.agent, one.incarnation));
        let reported: BTreeSet<_> = running.chain(ended).collect();
        // A lost node's incarnations are gone already; the fold has let go of them.
        let is_there = state.node(&status.node).is_some_and(|node| node.phase != NodePhase::Lost);
        if !is_there {
            return;
        }
        for agent in state.agents() {
            for one in agent.incarnations() {
                if one.node != status.node || reported.contains(&(&agent.name, one.number)) {
                    continue;
                }
                if self.memory.absent_for(&agent.name, one.number) < ABSENT {
                    continue;
                }
                match one.phase {
                    Phase::Starting => {
                        if self.memory.may_start(&agent.name, one.number) {
                            out.push(Outcome::Do(resume::start(agent, one)));
                        }
                    }
                    Phase::Ready | Phase::Draining => {
                        out.extend(self.news(gone(&agent.name, one)));
                    }
                }
            }
        }
    }
}

fn known<'a>(
    state: &'a State,
    node: &NodeName,
    agent: &AgentName,
    incarnation: u64,
) -> Option<&'a Incarnation> {
    let one = state.agent(agent)?.incarnation(incarnation)?;
    (one.node == *node).then_some(one)
}

fn gone(agent: &AgentName, one: &Incarnation) -> ControlEvent {
    ControlEvent::IncarnationExited {
        agent: agent.clone(),
        incarnation: one.number,
        exit: Exit { reason: Some("gone".to_owned()), ..Exit::default() },
        clean: false,
    }
}
