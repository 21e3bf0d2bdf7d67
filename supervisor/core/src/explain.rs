//! Why an agent is as it is, in plain sentences.

use common::AgentName;

use crate::state::{Agent, Desired, Hold, Incarnation, NodePhase, Phase, State};

/// Why an agent is as it is, most important first. Empty if there is no such agent and never was.
#[must_use]
pub fn explain(state: &State, name: &AgentName) -> Vec<String> {
    let Some(agent) = state.agent(name) else {
        return match state.tombstone(name) {
            Some(tombstone) => vec![format!(
                "{name} was removed; it had {} incarnations of {} generations, and its messages are still in the journal.",
                tombstone.incarnation, tombstone.generation
            )],
            None => Vec::new(),
        };
    };
    let mut lines = vec![headline(agent)];
    lines.extend(agent.current.as_ref().map(|one| about(state, agent, one)));
    lines.extend(agent.next.as_ref().map(|one| {
        let takes_over = match one.phase {
            Phase::Ready => {
                "is ready, and takes over when the one before it has finished its turns"
            }
            Phase::Starting | Phase::Draining => {
                "starts beside it, and takes over once it is ready"
            }
        };
        format!(
            "Incarnation {} of generation {} on {} {takes_over}.",
            one.number, one.generation, one.node
        )
    }));
    lines.extend(agent.wanted.as_ref().map(|wanted| {
        format!(
            "Generation {} is to start: the leading supervisor gives it a number and a node.",
            wanted.generation
        )
    }));
    lines.extend(agent.retiring.iter().map(|one| {
        format!(
            "Incarnation {} on {} was given up, is told to stop, and takes no messages.",
            one.number, one.node
        )
    }));
    lines.extend(what_next(agent));
    lines.extend(way_back(agent));
    if let Some(given_up) = agent.given_up.as_ref().filter(|_| agent.is_rolled_back()) {
        lines.push(format!(
            "The newest spec was rolled back: {given_up}. `mozart replace {name}` tries it again."
        ));
    }
    if agent.restart_count > 0 {
        lines.push(format!(
            "It was restarted {} times since it was last stable (60s up and one finished turn).",
            agent.restart_count
        ));
    }
    if let Some(exit) = &agent.last_exit {
        lines.push(format!("Its worker last ended with: {}.", exit.describe()));
    }
    lines
}

/// An earlier generation, where the one that is to run was ready once and is down now: that is not rolled back by itself.
fn way_back(agent: &Agent) -> Option<String> {
    let is_down = match agent.hold {
        Some(Hold::Backoff | Hold::GivenUp | Hold::Quarantined) => agent.current.is_none(),
        Some(Hold::NoNode | Hold::Completed) | None => false,
    };
    let (generation, _) = agent.last_good().filter(|_| is_down)?;
    let name = &agent.name;
    Some(format!(
        "Generation {generation} was ready before: `mozart replace {name} --rollback` goes back to it."
    ))
}

fn headline(agent: &Agent) -> String {
    let state = agent.state().as_str();
    let mut line = format!("{} is {state}", agent.name);
    if let Some(since) = agent.started_at {
        line.push_str(&format!(" since {since}"));
    }
    if let Some(reason) = &agent.reason {
        line.push_str(&format!(": {reason}"));
    }
    line.push('.');
    line
}

fn about(state: &State, agent: &Agent, one: &Incarnation) -> String {
    let does = match one.phase {
        Phase::Ready => "takes its messages".to_owned(),
        Phase::Starting => match one.deadline {
            Some(at) => format!("is starting, and must say ready before {at}"),
            None => "is starting".to_owned(),
        },
        Phase::Draining => match (agent.removing, agent.desired) {
            (true, _) => "finishes its turns; the agent is then removed".to_owned(),
            (_, Desired::Stopped) => "finishes its turns, and stops".to_owned(),
            (_, Desired::Running) => "finishes its turns; a new one follows".to_owned(),
        },
    };
    let phase = state.node(&one.node).map(|node| node.phase);
    let node = match phase {
        Some(NodePhase::Up) | None => String::new(),
        Some(NodePhase::Draining) => " (which goes down)".to_owned(),
        Some(NodePhase::Lost) => " (which is lost)".to_owned(),
    };
    format!(
        "Incarnation {} of generation {} on {}{node} {does}.",
        one.number, one.generation, one.node
    )
}

fn what_next(agent: &Agent) -> Option<String> {
    let name = &agent.name;
    match (agent.desired, agent.hold) {
        (Desired::Stopped, _) if agent.removing => None,
        (Desired::Stopped, _) => Some(format!("It was stopped; `mozart start {name}` starts it.")),
        (Desired::Running, Some(Hold::Backoff)) => {
            agent.next_try.map(|at| format!("It is started again at {at}."))
        }
        (Desired::Running, Some(Hold::NoNode)) => {
            Some("It is tried again whenever a node is seen.".to_owned())
        }
        (Desired::Running, Some(Hold::Completed | Hold::GivenUp)) => {
            Some(format!("Its RESTART policy leaves it at that; `mozart start {name}` starts it."))
        }
        (Desired::Running, Some(Hold::Quarantined)) => {
            Some(format!("It is not started again by itself; `mozart start {name}` releases it."))
        }
        (Desired::Running, None) => None,
    }
}
