//! Everything that is known about a message: for whoever looks for the reason of a fault.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use broker::{Broker, ControlItem};
use common::control::{ControlEvent, ControlRecord};
use common::{AgentName, MessageId, Timestamp};
use tokio::time::timeout;

use super::Problem;
use super::storm::Struck;
use crate::checker::Facts;

/// What happened so long before and after a message is told with it, in milliseconds.
const AROUND: u64 = 5_000;
/// Lines of a log longer than this are cut.
const LINE: usize = 400;

/// Tells the history of a message.
pub(super) async fn tell(
    out: &mut impl Write,
    broker: &Broker,
    facts: &Facts,
    struck: &Struck,
    (agent, message): &(AgentName, MessageId),
) -> Result<(), Problem> {
    writeln!(out, "\n--- message {message} to {agent}")?;
    // (time, what), of all sources.
    let mut lines: Vec<(Timestamp, String)> = Vec::new();
    for (key, life) in facts.lives.iter().filter(|(key, _)| key.message_id == *message) {
        for request in &life.requests {
            let at = request.value.created_at;
            lines.push((at, format!("journal  {} {}", request.seq, json(&request.value))));
        }
        for final_ in &life.finals {
            lines.push((
                final_.value.at,
                format!("journal  {} {}", final_.seq, json(&final_.value)),
            ));
        }
        writeln!(
            out,
            "from {}, run by {:?}, dead letter: {}",
            key.sender, life.witnessed, life.dead
        )?;
        for batch in broker.events(key).await? {
            let (incarnation, attempt) = (batch.incarnation, batch.attempt);
            let who = format!("events   incarnation {incarnation} attempt {attempt}");
            let events = batch.events.iter();
            lines.extend(events.map(|event| (event.at, format!("{who} {}", json(event)))));
        }
        if let Some(letter) = broker.dead_letter(key).await? {
            lines.push((letter.at, format!("dead     {}", json(&letter.value))));
        }
    }
    let first = lines.iter().map(|(at, _)| at.as_millis()).min().unwrap_or_default();
    let last = lines.iter().map(|(at, _)| at.as_millis()).max().unwrap_or_default();
    let near =
        |at: &Timestamp| (first.saturating_sub(AROUND)..=last + AROUND).contains(&at.as_millis());
    for (seq, record) in control(broker, agent).await? {
        if near(&record.at) {
            lines.push((record.at, format!("control  {seq} {}", json(&record))));
        }
    }
    let blows = struck.log.iter().filter(|(at, what)| {
        let fleet = !what.contains("agent-");
        near(at) && (fleet || what.contains(agent.as_str()))
    });
    lines.extend(blows.map(|(at, what)| (*at, format!("storm    {what}"))));
    lines.sort_by_key(|(at, _)| *at);
    for (at, line) in lines {
        let end = line.floor_char_boundary(LINE);
        writeln!(out, "{at} {}", &line[..end])?;
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| error.to_string())
}

/// The control log of an agent.
async fn control(broker: &Broker, agent: &AgentName) -> Result<Vec<(u64, ControlRecord)>, Problem> {
    let mut follower = broker.follow_control(1, Some(agent)).await?;
    let mut records = Vec::new();
    loop {
        match timeout(Duration::from_secs(10), follower.next()).await?? {
            ControlItem::Record { seq, record, .. } => records.push((seq, *record)),
            ControlItem::Malformed { .. } => {}
            ControlItem::CaughtUp => return Ok(records),
        }
    }
}

/// Agents of which more incarnations ended than were given a reason to: a supervisor that restarts what it should adopt.
pub(super) async fn needless(
    broker: &Broker,
    agents: &[AgentName],
    struck: &Struck,
) -> Result<Vec<(AgentName, String)>, Problem> {
    let mut found = Vec::new();
    for agent in agents {
        let mut ends = BTreeMap::new();
        for (_, record) in control(broker, agent).await? {
            if let ControlEvent::IncarnationExited { incarnation, exit, .. } = record.event {
                ends.entry(incarnation).or_insert((record.at, exit));
            }
        }
        let reasons = struck.reasons.get(agent.as_str()).copied().unwrap_or_default();
        if ends.len() > reasons {
            let ends: Vec<_> = ends
                .iter()
                .map(|(number, (at, exit))| format!("{number} at {at}: {}", exit.describe()))
                .collect();
            let count = ends.len();
            let problem = format!(
                "{count} incarnations ended, and {reasons} were given a reason to ({})",
                ends.join("; ")
            );
            found.push((agent.clone(), problem));
        }
    }
    Ok(found)
}
