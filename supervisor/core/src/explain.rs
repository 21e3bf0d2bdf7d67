//! The state of an agent and its reasons, in plain sentences.

use common::AgentName;
use common::api::AgentState;
use common::shim::Exit;
use common::words::count;

use crate::reword::reworded;
use crate::state::{Agent, Desired, Hold, Incarnation, Moving, NodePhase, Phase, State};

/// The state of an agent and its reasons, most important first. Empty if there is no such agent and never was.
#[must_use]
pub fn explain(state: &State, name: &AgentName) -> Vec<String> {
    let Some(agent) = state.agent(name) else {
        return match state.tombstone(name) {
            Some(tombstone) => vec![format!(
                "{name} was removed; it had {} of {}, and its messages are still in the journal.",
                count(tombstone.incarnation, "incarnation", "incarnations"),
                count(tombstone.generation, "generation", "generations"),
            )],
            None => Vec::new(),
        };
    };
    let mut lines = vec![headline(agent)];
    lines.extend(agent.current.as_ref().map(|one| about(state, agent, one)));
    lines.extend(agent.next.as_ref().map(|one| {
        let takes_over = match one.phase {
            Phase::Ready => "is ready, and takes over once the current one has drained",
            Phase::Starting | Phase::Draining => {
                "is starting alongside it, and takes over once it is ready"
            }
        };
        format!(
            "Incarnation {} of generation {} on {} {takes_over}.",
            one.number, one.generation, one.node
        )
    }));
    lines.extend(agent.wanted.as_ref().map(|wanted| {
        format!(
            "Generation {} is waiting to be scheduled by the leading supervisor.",
            wanted.generation
        )
    }));
    lines.extend(agent.retiring.iter().map(|one| {
        format!(
            "Incarnation {} on {} was given up. It is being stopped, and receives no messages.",
            one.number, one.node
        )
    }));
    lines.extend(what_next(agent));
    lines.extend(place(state, agent));
    lines.extend(way_back(agent));
    if let Some(given_up) = agent.given_up.as_ref().filter(|_| agent.is_rolled_back()) {
        let generation = agent.generation;
        let given_up = reworded(given_up);
        let why = given_up.strip_prefix(&format!("generation {generation} was given up: "));
        let why = why.unwrap_or(&given_up);
        lines.push(format!(
            "Generation {generation} was rolled back: {why}. Correct what is wrong and `mozart apply` it; `mozart replace {name}` retries it as it is."
        ));
    }
    // How often one that is quarantined was restarted is said already.
    let restarts = agent.restarts_done();
    if restarts > 0 && !agent.is_quarantined() {
        lines.push(format!(
            "It was restarted {} without becoming stable (60s up and one finished turn).",
            count(restarts.into(), "time", "times")
        ));
    }
    lines
}

/// Where it can run, and why not elsewhere.
fn place(state: &State, agent: &Agent) -> Vec<String> {
    let mut lines = Vec::new();
    match &agent.moving {
        Some(Moving::To(node)) => lines.push(format!("It is being moved to {node}.")),
        Some(Moving::From(node)) => {
            lines.push(format!("It is being moved away from {node}, which is drained."));
        }
        None => {
            let on = agent.current.as_ref().and_then(|one| state.node(&one.node));
            let on = on.filter(|node| node.drained.is_some() && agent.is_settled());
            lines.extend(on.and_then(|node| {
                let why = crate::drain::leaves(state, agent).err()?;
                Some(format!("It stays on {}, which is drained: {why}.", node.name))
            }));
        }
    }
    lines.extend(agent.carry.as_ref().and_then(crate::carry::words));
    if let Some(pin) = agent.pinned_to() {
        lines.push(format!("It runs only on {pin}, because its SANCTUM is there."));
    }
    let verdicts = crate::placement::verdicts(state, agent);
    if state.nodes().count() > 1 || verdicts.iter().any(|verdict| verdict.why.is_some()) {
        let words: Vec<_> = verdicts.iter().map(crate::Verdict::words).collect();
        lines.push(format!("Placement: {}.", words.join("; ")));
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
    let state = match (agent.state(), agent.hold) {
        (AgentState::Error, Some(Hold::Backoff)) => "is waiting to restart",
        (AgentState::Error, Some(Hold::NoNode)) => "cannot be placed",
        (AgentState::Error, Some(Hold::Quarantined)) => "is quarantined",
        (AgentState::Error, _) => "is in error",
        (AgentState::Starting, _) => "is starting",
        (AgentState::Running, _) if agent.started_at.is_some() => "has been running",
        (AgentState::Running, _) => "is running",
        (AgentState::Stopping, _) => "is stopping",
        (AgentState::Stopped, _) => "is stopped",
    };
    let mut line = format!("{} {state}", agent.name);
    if let Some(since) = agent.started_at {
        line.push_str(&format!(" since {since}"));
    }
    // Why a generation was rolled back has a sentence of its own.
    let is_said = agent.state() == AgentState::Running && agent.is_rolled_back();
    if let Some(reason) = agent.reason.as_deref().filter(|_| !is_said).map(reworded) {
        line.push_str(&match reason.split_once(": ") {
            Some(("worker", exit)) if exit.starts_with("exit code ") => {
                format!(": its worker ended with {exit}")
            }
            Some(("worker", Exit::NOT_FOUND)) => format!(": its worker {}", Exit::NOT_FOUND),
            Some(("worker", why)) => format!(": {why}"),
            Some(("quarantined", why)) => format!(": {why}"),
            _ => format!(": {reason}"),
        });
    }
    line.push('.');
    line
}

fn about(state: &State, agent: &Agent, one: &Incarnation) -> String {
    let does = match one.phase {
        Phase::Ready => "receives its messages".to_owned(),
        Phase::Starting => match one.deadline {
            Some(at) => format!("is starting, and must be ready before {at}"),
            None => "is starting".to_owned(),
        },
        Phase::Draining => match (agent.removing, agent.desired) {
            (true, _) => "is draining; the agent is then removed".to_owned(),
            (_, Desired::Stopped) => "is draining, and then stops".to_owned(),
            (_, Desired::Running) => "is draining; a new one follows".to_owned(),
        },
    };
    let phase = state.node(&one.node).map(|node| node.phase);
    let node = match phase {
        Some(NodePhase::Up) | None => String::new(),
        Some(NodePhase::Draining) => " (draining)".to_owned(),
        Some(NodePhase::Lost) => " (lost)".to_owned(),
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
            agent.next_try.map(|at| match agent.good.contains(&agent.target) {
                true => format!("It will be restarted at {at}."),
                false => format!(
                    "It has never been ready, and will be restarted at {at}. Correct what is wrong; `mozart apply` of the corrected soul, or `mozart restart {name}`, starts it at once."
                ),
            })
        }
        (Desired::Running, Some(Hold::NoNode)) => {
            Some("It will be placed as soon as a node can run it.".to_owned())
        }
        (Desired::Running, Some(Hold::Completed | Hold::GivenUp)) => {
            Some(format!("Its RESTART policy does not restart it; `mozart start {name}` does."))
        }
        (Desired::Running, Some(Hold::Quarantined)) => {
            Some(format!(
                "It is not restarted automatically: correct what is wrong; `mozart start {name}` then releases it."
            ))
        }
        (Desired::Running, None) => None,
    }
}
