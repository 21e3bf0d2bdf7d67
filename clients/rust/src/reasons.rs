//! Why a message is in its current state, in plain sentences. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::EventBatch;
use common::api::AgentState;
use common::event::EventBody;
use common::message::{DeadLetter, Envelope, Final, MessageKey, Outcome};
use common::question::OpenQuestion;
use common::spec::Retry;
use common::step::StepMark;
use common::words::count;
use common::{MessageId, Timestamp};
use supervisor_core::Agent;

use common::words;

/// What is known about a message.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) request: Envelope,
    pub(crate) final_: Option<Final>,
    pub(crate) batches: Vec<EventBatch>,
    pub(crate) dead: Option<DeadLetter>,
    /// Its agent; none if it was removed.
    pub(crate) agent: Option<Agent>,
    /// How the agent's incarnations ended.
    pub(crate) exits: BTreeMap<u64, String>,
    /// The agent's messages before it that are not final: whether they are of the same conversation, and which.
    pub(crate) ahead: Vec<(bool, MessageId)>,
    pub(crate) now: Timestamp,
}

/// One attempt, as far as it is on record.
struct Attempt {
    number: u32,
    incarnation: u64,
    last: Timestamp,
    error: Option<String>,
}

/// What a message's worker has stored; none if it has stored nothing.
pub(crate) fn steps(steps: &[StepMark]) -> Option<String> {
    /// So many are named.
    const NAMED: usize = 10;
    let bytes: u64 = steps.iter().map(|step| step.bytes).sum();
    let mut names: Vec<String> = steps
        .iter()
        .take(NAMED)
        .map(|step| format!("{:?}", words::one_line(&step.key, 40)))
        .collect();
    if steps.len() > NAMED {
        names.push(format!("{} more", steps.len() - NAMED));
    }
    (!steps.is_empty()).then(|| {
        format!(
            "{} stored, with {} of results: {}.",
            count(steps.len() as u64, "step is", "steps are"),
            words::bytes(bytes),
            names.join(", ")
        )
    })
}

/// What a turn waits for a person to answer; of those that are open, the ones of a message.
pub(crate) fn asks(open: &[OpenQuestion], of: &MessageKey) -> Vec<String> {
    let of_it = |one: &&OpenQuestion| one.sender == of.sender && one.message_id == of.message_id;
    let mine = open.iter().filter(of_it);
    mine.map(|one| {
        format!(
            "It waits for a person to answer {:?}, asked at {}, until {}: `mozart answer {}/{}/{} TEXT`.",
            words::one_line(&one.text, 200),
            one.asked,
            one.until,
            one.agent,
            one.message_id,
            words::one_line(&one.request_id, 80)
        )
    })
    .collect()
}

/// Why the message is in its current state, most important first.
pub(crate) fn message(facts: &Facts) -> Vec<String> {
    let attempts = attempts(&facts.batches);
    let mut lines = match &facts.final_ {
        Some(final_) => vec![ended(facts, final_)],
        None => open(facts, attempts.last()),
    };
    lines.push(origin(&facts.request));
    let final_attempt = facts.final_.as_ref().map(|final_| final_.attempts);
    for (index, attempt) in attempts.iter().enumerate() {
        let is_last = index + 1 == attempts.len();
        lines.extend(one_attempt(facts, attempt, is_last, final_attempt));
    }
    lines.extend(facts.dead.as_ref().map(|letter| dead(facts, letter)));
    lines
}

fn attempts(batches: &[EventBatch]) -> Vec<Attempt> {
    let mut attempts: BTreeMap<(u32, u64), Attempt> = BTreeMap::new();
    for batch in batches {
        let (number, incarnation) = (batch.attempt, batch.incarnation);
        let attempt = attempts.entry((number, incarnation)).or_insert_with(|| Attempt {
            number,
            incarnation,
            last: Timestamp::default(),
            error: None,
        });
        for event in &batch.events {
            attempt.last = attempt.last.max(event.at);
            if let EventBody::Error { error } = &event.body {
                attempt.error = Some(error.clone());
            }
        }
    }
    attempts.into_values().collect()
}

fn ended(facts: &Facts, final_: &Final) -> String {
    let (id, agent) = (&facts.request.message_id, &facts.request.agent);
    let after = took(final_.at.since(facts.request.created_at));
    let reason = final_.reason.as_deref().unwrap_or("no reason was recorded");
    let attempts = times(final_.attempts);
    match final_.status {
        Outcome::Completed => {
            format!(
                "Message {id} was answered by {agent} in {attempts}, {after} after it was sent."
            )
        }
        Outcome::Failed => format!("Message {id} to {agent} failed after {attempts}: {reason}."),
        Outcome::Cancelled => {
            format!("Message {id} to {agent} was cancelled {after} after it was sent: {reason}.")
        }
        Outcome::Expired => {
            format!("Message {id} to {agent} was not answered before its deadline: {reason}.")
        }
    }
}

fn open(facts: &Facts, last: Option<&Attempt>) -> Vec<String> {
    let (id, name) = (&facts.request.message_id, &facts.request.agent);
    let is_current = |attempt: &&Attempt| {
        attempt.error.is_none() && !facts.exits.contains_key(&attempt.incarnation)
    };
    if let Some(attempt) = last.filter(is_current) {
        let quiet = took(facts.now.since(attempt.last));
        let mut line = format!(
            "Message {id} is being answered by {name}: attempt {} in incarnation {}; the last event was {quiet} ago.",
            attempt.number, attempt.incarnation
        );
        if let Some(agent) = &facts.agent {
            let patience = humantime::format_duration(agent.spec.timeout.turn);
            line.push_str(&format!(" The attempt is given up after {patience} without progress."));
            if agent.state() == AgentState::Stopping {
                line.push_str(&format!(
                    " {name} is being stopped: what it does not finish waits for `mozart start {name}`."
                ));
            }
        }
        return vec![line];
    }
    let since = took(facts.now.since(facts.request.created_at));
    let mut lines = vec![format!(
        "Message {id} to {name} has been waiting for {since}: {}.",
        waits(facts, last)
    )];
    if let Some(last) = last {
        let tried = match last.number {
            1 => "once".to_owned(),
            more => format!("{more} times"),
        };
        lines.push(format!("It was tried {tried} before; another attempt follows."));
    }
    lines
}

/// What a message waits for. `last`: its last attempt.
fn waits(facts: &Facts, last: Option<&Attempt>) -> String {
    let name = &facts.request.agent;
    let Some(agent) = &facts.agent else {
        return format!(
            "agent {name} no longer exists; `mozart cancel {}` cancels the message",
            facts.request.message_id
        );
    };
    let reason = agent.reason.as_deref().map(supervisor_core::reworded);
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    match agent.state() {
        AgentState::Stopped => {
            format!("{name} is stopped{reason}; `mozart start {name}` starts it")
        }
        AgentState::Stopping => {
            format!("{name} is stopping{reason}; `mozart start {name}` starts it again")
        }
        AgentState::Starting => format!("{name} is starting{reason}"),
        AgentState::Error if agent.is_quarantined() => {
            let reason = reason.replacen("(quarantined: ", "(", 1);
            format!("{name} is quarantined{reason}; `mozart start {name}` releases it")
        }
        AgentState::Error => match agent.next_try {
            Some(at) => format!("{name} is down{reason}, and is restarted at {at}"),
            None => format!("{name} is down{reason}"),
        },
        AgentState::Running => delayed(facts, agent, last).unwrap_or_else(|| queue(facts, agent)),
    }
}

/// That the shim of the last attempt delays the next one. When its worker asked for another delay than that of ATTEMPTS is not on
/// record.
fn delayed(facts: &Facts, agent: &Agent, last: Option<&Attempt>) -> Option<String> {
    let held = |last: &&Attempt| last.error.is_some() && agent.begun == Some(last.incarnation);
    let last = last.filter(held)?;
    let Retry { first, max } = agent.spec_of(generation(agent)).unwrap_or(&agent.spec).retry;
    let doubled = 2_u32.checked_pow(last.number.saturating_sub(1)).unwrap_or(u32::MAX);
    let delay = first.saturating_mul(doubled).min(max);
    let (at, next) = (last.last.after(delay), last.number + 1);
    let worker_asks = "`retryAfterMs` of its worker's error, which is not on record";
    Some(if facts.now < at {
        let delay = humantime::format_duration(delay);
        format!(
            "attempt {next} begins at {at}, after the backoff of {delay} (ATTEMPTS), or after {worker_asks}"
        )
    } else {
        format!(
            "attempt {next} is delayed: the backoff (ATTEMPTS) ended at {at}, so that it waits for {worker_asks}, or until {} is free",
            agent.name
        )
    })
}

/// The generation that takes messages.
fn generation(agent: &Agent) -> u64 {
    agent.current.as_ref().map_or(agent.generation, |one| one.generation)
}

fn queue(facts: &Facts, agent: &Agent) -> String {
    let conversation = &facts.request.conversation_id;
    let mut same = facts.ahead.iter().filter(|(same, _)| *same);
    if let Some((_, first)) = same.next() {
        let more = match same.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        return format!(
            "it comes after {first}{more} of the same conversation ({conversation}), one turn at a time"
        );
    }
    let places = agent.spec.concurrency;
    match facts.ahead.first() {
        Some((_, first)) if facts.ahead.len() >= places as usize => format!(
            "{} answers {places} at a time (CONCURRENCY), and {} are ahead of it, the first is {first}",
            agent.name,
            facts.ahead.len()
        ),
        _ => format!("nothing blocks it; {} receives it next", agent.name),
    }
}

fn origin(request: &Envelope) -> String {
    let mut line = format!("It was sent by {} at {}", request.sender, request.created_at);
    if let Some(cause) = &request.cause {
        line.push_str(&format!(
            ", to answer {}/{}/{}",
            cause.agent, cause.sender, cause.message_id
        ));
    }
    if let Some(dead) = &request.redrive_of {
        line.push_str(&format!(", and repeats the dead message {dead}"));
    }
    line.push('.');
    line
}

fn one_attempt(
    facts: &Facts,
    attempt: &Attempt,
    is_last: bool,
    final_attempt: Option<u32>,
) -> Option<String> {
    let Attempt { number, incarnation, .. } = attempt;
    let how = match (&attempt.error, facts.exits.get(incarnation)) {
        (Some(error), _) => format!("ended with: {}", words::one_line(error, 300)),
        (None, _) if final_attempt == Some(*number) => return None,
        (None, Some(exit)) => format!("ended with its incarnation: {exit}"),
        (None, None) if is_last => return None,
        (None, None) => "ended without reporting an error".to_owned(),
    };
    Some(format!("Attempt {number} in incarnation {incarnation} {how}."))
}

fn dead(facts: &Facts, letter: &DeadLetter) -> String {
    let id = &facts.request.message_id;
    match &letter.redriven_as {
        Some(again) => format!("It was sent again as {again}."),
        None => {
            format!("It is a dead letter: `mozart dead show {id}`, `mozart dead redrive {id}`.")
        }
    }
}

fn times(attempts: u32) -> String {
    count(attempts.into(), "attempt", "attempts")
}

/// Two digits are enough for people.
fn took(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1_000 => format!("{millis}ms"),
        millis @ 1_000..10_000 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        _ => words::short(duration),
    }
}

#[cfg(test)]
#[path = "reasons_tests.rs"]
mod tests;
