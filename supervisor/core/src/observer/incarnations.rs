//! Incarnations, as nodes report them: which ended, which must not run, which should and do not.

use std::collections::BTreeSet;
use std::time::Duration;

use common::control::ControlEvent;
use common::frame::{IncarnationExit, NodeStatus};
use common::shim::Exit;
use common::{AgentName, NodeName};

use super::memory::About;
use super::{Observer, Outcome};
use crate::action::Action;
use crate::carry::WITH_CARRY;
use crate::placement::unfit;
use crate::resume;
use crate::state::{Agent, Incarnation, NodePhase, Phase, State};

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
        instance: Option<u64>,
        exit: &IncarnationExit,
    ) -> Vec<Outcome> {
        let speaks = Self::speaks_for(state, node, instance);
        if !speaks || known(state, node, &exit.agent, exit.incarnation).is_none() {
            return Vec::new();
        }
        self.news(exited(exit))
    }

    /// A node says that it could not start an incarnation.
    pub fn start_failed(
        &mut self,
        state: &State,
        node: &NodeName,
        instance: Option<u64>,
        agent: &AgentName,
        incarnation: u64,
        reason: &str,
    ) -> Vec<Outcome> {
        let speaks = Self::speaks_for(state, node, instance);
        if !speaks || known(state, node, agent, incarnation).is_none() {
            return Vec::new();
        }
        self.news(ControlEvent::StartFailed {
            agent: agent.clone(),
            incarnation,
            reason: reason.to_owned(),
        })
    }

    /// A command about an incarnation was sent, with this number: a report that does not know it says nothing about that one.
    pub fn told(&mut self, agent: &AgentName, incarnation: u64, number: u64) {
        self.memory.told(agent, incarnation, number);
    }

    /// Whether the shim of an incarnation is to be told that it is over: not while it may go on, and not more often than is of use.
    pub(super) fn may_dismiss(
        &mut self,
        state: &State,
        agent: &AgentName,
        incarnation: u64,
    ) -> bool {
        is_over(state, agent, incarnation)
            && self.memory.may(About::Dismiss(agent.clone(), incarnation))
    }

    /// Whatever runs there and should not is stopped: it was replaced while the node was away, or nobody knows it. What came back
    /// with its node goes on if nothing has taken its place, and else until something has.
    pub(super) fn unwanted(&mut self, state: &State, status: &NodeStatus, out: &mut Vec<Outcome>) {
        for running in &status.running {
            if known(state, &status.node, &running.agent, running.incarnation).is_some() {
                self.memory.present(&running.agent, running.incarnation);
                self.memory.runs(&running.agent, running.incarnation);
                continue;
            }
            let (agent, incarnation) = (&running.agent, running.incarnation);
            if let Some(known) = state.agent(agent) {
                let generation = running.generation;
                if state.rules() >= 2
                    && known.can_return(incarnation, generation)
                    && (state.rules() < WITH_CARRY
                        || !known.has_data_elsewhere(generation, &status.node))
                {
                    // Until the node takes it, it goes on as it is: a record that says more would be refused, again and again.
                    let takes = state.node(&status.node).zip(known.spec_of(generation));
                    // One that was lost is there again: that is recorded first.
                    if takes.is_some_and(|(node, spec)| {
                        node.phase == NodePhase::Lost || unfit(node, spec).is_none()
                    }) {
                        out.extend(self.news(ControlEvent::IncarnationReturned {
                            agent: agent.clone(),
                            incarnation,
                            generation,
                            node: status.node.clone(),
                        }));
                    }
                    continue;
                }
                if known.may_stay(incarnation) {
                    continue;
                }
            }
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

    /// An earlier process of the node went down with all that it ran, and could not say so, as on a full disk: its successor has found the
    /// ends. They come before it does: so they are no crashes.
    pub(super) fn went_down(&mut self, state: &State, status: &NodeStatus, out: &mut Vec<Outcome>) {
        let earlier = state.node(&status.node).filter(|known| {
            known.phase != NodePhase::Lost
                && known.instance != status.instance
                && status.succeeds.contains(&known.instance)
        });
        let Some(earlier) = earlier.filter(|_| !status.draining) else { return };
        let ended = status
            .exits
            .iter()
            .filter(|exit| known(state, &status.node, &exit.agent, exit.incarnation).is_some());
        if earlier.phase == NodePhase::Up {
            let is_over = status.running.is_empty();
            if !is_over || !ended.clone().any(|exit| exit.exit.was_asked_for()) {
                return;
            }
            out.extend(self.news(ControlEvent::NodeDraining { node: status.node.clone() }));
        }
        for exit in ended {
            out.extend(self.news(exited(exit)));
        }
    }

    /// What a process was to start that is dead, as the lock of its folder says, and that its successor did not find: no later word
    /// can bring it up.
    pub(super) fn orphans(&mut self, state: &State, status: &NodeStatus, out: &mut Vec<Outcome>) {
        let is_orphan = |one: &Incarnation| {
            one.phase == Phase::Starting
                && one.instance != status.instance
                && status.succeeds.contains(&one.instance)
        };
        for (agent, one) in missing(state, status).filter(|(_, one)| is_orphan(one)) {
            out.extend(self.news(gone(&agent.name, one)));
        }
    }

    /// Whatever should run there and does not is started again, if it is still to say ready, and has ended otherwise.
    pub(super) fn absent(&mut self, state: &State, status: &NodeStatus, out: &mut Vec<Outcome>) {
        for (agent, one) in missing(state, status) {
            // A report that was on its way when the incarnation was started knows nothing of it; and a command may be lost.
            // What the node answers to a later question tells the two apart.
            let told = self.memory.told_of(&agent.name, one.number);
            if status.seen < (self.term, told) {
                if self.memory.may_ask(&status.node) {
                    out.push(Outcome::Do(Action::Ask { node: status.node.clone() }));
                }
                continue;
            }
            if self.memory.absent_for(&agent.name, one.number) < ABSENT {
                continue;
            }
            match one.phase {
                // Whether the process that was to start it did so is known by nobody: its number is not used again.
                Phase::Starting if one.instance != status.instance => {
                    out.extend(self.news(gone(&agent.name, one)));
                }
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

/// What should run on a node that is there, and is not in its report. A lost node's incarnations are gone already.
fn missing<'a>(
    state: &'a State,
    status: &'a NodeStatus,
) -> impl Iterator<Item = (&'a Agent, &'a Incarnation)> {
    let running = status.running.iter().map(|one| (&one.agent, one.incarnation));
    let ended = status.exits.iter().map(|one| (&one.agent, one.incarnation));
    let reported: BTreeSet<_> = running.chain(ended).collect();
    let is_there = state.node(&status.node).is_some_and(|node| node.phase != NodePhase::Lost);
    let agents = is_there.then(|| state.agents()).into_iter().flatten();
    agents.flat_map(|agent| agent.incarnations().map(move |one| (agent, one))).filter(
        move |(agent, one)| {
            one.node == status.node && !reported.contains(&(&agent.name, one.number))
        },
    )
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

/// Whether an incarnation is over for good, as far as the log says.
fn is_over(state: &State, name: &AgentName, incarnation: u64) -> bool {
    match (state.agent(name), state.tombstone(name)) {
        (Some(agent), _) => {
            incarnation <= agent.incarnation
                && agent.incarnation(incarnation).is_none()
                && !agent.may_stay(incarnation)
                && !agent.can_return(incarnation, agent.target)
        }
        (None, Some(tombstone)) => incarnation <= tombstone.incarnation,
        (None, None) => false,
    }
}

fn exited(exit: &IncarnationExit) -> ControlEvent {
    ControlEvent::IncarnationExited {
        agent: exit.agent.clone(),
        incarnation: exit.incarnation,
        exit: exit.exit.clone(),
        clean: exit.clean,
    }
}

fn gone(agent: &AgentName, one: &Incarnation) -> ControlEvent {
    ControlEvent::IncarnationExited {
        agent: agent.clone(),
        incarnation: one.number,
        exit: Exit { reason: Some("gone".to_owned()), ..Exit::default() },
        clean: false,
    }
}
