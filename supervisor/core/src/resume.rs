//! What a new leader does first.

use std::time::Duration;

use common::control::Timer;

use crate::action::Action;
use crate::state::{Agent, Incarnation, Phase, State};

/// Every action and timer that is outstanding, for a replica that becomes leader and is caught up. All of them may have been
/// performed before: each does the same twice as once.
///
/// Admissions are not among them: a shim without its consumer goes on saying ready, and the [`crate::Observer`] answers that
/// with [`crate::ShimReady::AdmitAgain`], so that a failover does not touch the consumers of a fleet that runs.
#[must_use]
pub fn resume(state: &State) -> Vec<Action> {
    let mut actions = Vec::new();
    for agent in state.agents() {
        if agent.wanted.is_some() {
            actions.push(Action::Allocate { agent: agent.name.clone() });
        }
        for one in agent.incarnations() {
            outstanding(agent, one, &mut actions);
        }
        if let Some(at) = agent.next_try {
            actions.push(Action::SetTimer {
                agent: agent.name.clone(),
                timer: Timer::Restart,
                incarnation: agent.incarnation,
                at,
            });
        }
    }
    actions
}

fn outstanding(agent: &Agent, one: &Incarnation, actions: &mut Vec<Action>) {
    let timer = match one.phase {
        Phase::Starting => {
            actions.push(start(agent, one));
            Timer::Ready
        }
        Phase::Draining => {
            actions.push(stop(agent, one, one.within));
            Timer::Drain
        }
        Phase::Ready => return,
    };
    if let Some(at) = one.deadline {
        actions.push(Action::SetTimer {
            agent: agent.name.clone(),
            timer,
            incarnation: one.number,
            at,
        });
    }
}

/// The start of an incarnation, once more.
pub(crate) fn start(agent: &Agent, one: &Incarnation) -> Action {
    Action::Start {
        node: one.node.clone(),
        instance: one.instance,
        agent: agent.name.clone(),
        generation: one.generation,
        incarnation: one.number,
        warm: agent.next.as_ref() == Some(one),
    }
}

fn stop(agent: &Agent, one: &Incarnation, within: Duration) -> Action {
    Action::Stop {
        node: one.node.clone(),
        agent: agent.name.clone(),
        incarnation: one.number,
        within,
    }
}
