//! Everything that is known about a message: for whoever looks for the reason of a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use broker::{Broker, ControlItem};
use common::control::{ControlEvent, ControlRecord};
use common::{AgentName, MessageId, Timestamp};
use tokio::time::timeout;

use super::Problem;
use super::storm::{Reasons, Struck};
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

/// Agents of which incarnations ended that were given no reason to: a supervisor that restarts what it should adopt, or that takes its
/// own standstill for others' silence.
pub(super) async fn needless(
    broker: &Broker,
    agents: &[AgentName],
    struck: &Struck,
) -> Result<Vec<(AgentName, String)>, Problem> {
    let none = Reasons::default();
    let mut found = Vec::new();
    for agent in agents {
        let reasons = struck.reasons.get(agent.as_str()).unwrap_or(&none);
        let ends = ends(control(broker, agent).await?.into_iter().map(|(_, record)| record));
        found.extend(unasked(&ends, reasons).map(|problem| (agent.clone(), problem)));
    }
    Ok(found)
}

/// The incarnations that ended: when, and how. A number that was never ready and of which no process is known is not among them:
/// its node was killed before it could say whether it had started it, and another number took its place.
fn ends(records: impl Iterator<Item = ControlRecord>) -> BTreeMap<u64, (Timestamp, String)> {
    let (mut ends, mut ready) = (BTreeMap::new(), BTreeSet::new());
    for record in records {
        if let ControlEvent::IncarnationReady { incarnation, .. } = record.event {
            ready.insert(incarnation);
        } else if let ControlEvent::IncarnationExited { incarnation, exit, .. } = record.event
            && (ready.contains(&incarnation) || exit.code.is_some() || exit.signal.is_some())
        {
            ends.entry(incarnation).or_insert_with(|| (record.at, exit.describe()));
        }
    }
    ends
}

/// What is wrong with an agent's ends, if anything is: of the incarnations that were not hit themselves, only so many may have ended as
/// somebody asked for new ones.
fn unasked(ends: &BTreeMap<u64, (Timestamp, String)>, reasons: &Reasons) -> Option<String> {
    let Reasons { hit, asked } = reasons;
    let unhit: Vec<_> = ends.iter().filter(|(number, _)| !hit.contains(number)).collect();
    (unhit.len() > *asked).then(|| {
        let told = unhit.iter().map(|(number, (at, exit))| format!("{number} at {at}: {exit}"));
        let told: Vec<_> = told.collect();
        format!(
            "{} incarnations ended that nothing had hit, and {asked} were asked to ({})",
            told.len(),
            told.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::shim::Exit;

    fn ended(numbers: &[u64]) -> BTreeMap<u64, (Timestamp, String)> {
        let end = |number: &u64| (*number, (Timestamp::from_millis(0), "hung".to_owned()));
        numbers.iter().map(end).collect()
    }

    fn record(event: ControlEvent) -> ControlRecord {
        let at = Timestamp::from_millis(0);
        ControlRecord { at, term: Some(1), author: "s".to_owned(), event }
    }

    #[test]
    fn a_number_under_which_nothing_is_known_to_have_run_did_not_end() {
        let agent = || AgentName::new("a").expect("valid");
        let gone = |incarnation, code| {
            let exit = Exit { code, reason: Some("gone".to_owned()), ..Exit::default() };
            record(ControlEvent::IncarnationExited {
                agent: agent(),
                incarnation,
                exit,
                clean: false,
            })
        };
        let ready = ControlEvent::IncarnationReady { agent: agent(), incarnation: 1, floor: 1 };
        let log = [record(ready), gone(1, None), gone(2, None), gone(3, Some(1))];
        let numbers: Vec<_> = ends(log.into_iter()).into_keys().collect();
        assert_eq!(numbers, [1, 3]);
    }

    #[test]
    fn an_incarnation_that_was_hit_or_asked_may_end() {
        let reasons = Reasons { hit: [1, 3].into(), asked: 1 };
        assert_eq!(unasked(&ended(&[1, 2, 3]), &reasons), None);
        assert_eq!(unasked(&ended(&[]), &Reasons::default()), None);
    }

    #[test]
    fn one_that_ends_for_no_reason_is_seen() {
        let problem = unasked(&ended(&[1]), &Reasons::default()).unwrap();
        assert!(problem.starts_with("1 incarnations ended"), "{problem}");
        assert!(problem.contains("1 at ") && problem.contains("hung"), "{problem}");
    }

    #[test]
    fn a_reason_of_one_is_none_of_another_however_often_it_was_hit() {
        let reasons = Reasons { hit: [1, 2, 3].into(), asked: 0 };
        assert!(unasked(&ended(&[1, 4]), &reasons).is_some());
        let reasons = Reasons { hit: [1].into(), asked: 1 };
        assert!(unasked(&ended(&[2, 3]), &reasons).is_some());
    }
}
