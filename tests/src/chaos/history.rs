//! Everything that is known about a message: for whoever looks for the reason of a fault.

use std::io::Write;

use broker::Broker;
use checker::Facts;
use common::{AgentName, MessageId, Timestamp};

use super::Problem;
use super::ends::control;
use super::storm::Struck;

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
            lines.push((request.at, format!("journal  {} {}", request.seq, json(&request.value))));
        }
        for final_ in &life.finals {
            lines.push((final_.at, format!("journal  {} {}", final_.seq, json(&final_.value))));
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
    for (seq, at, record) in control(broker, Some(agent)).await? {
        if near(&at) {
            lines.push((at, format!("control  {seq} {}", json(&record))));
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
