//! Incarnations that ended, and nodes that were given up: each of them for a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker::{Broker, ControlItem};
use common::control::{ControlEvent, ControlRecord};
use common::{AgentName, Timestamp};
use tokio::time::timeout;

use super::Problem;
use super::storm::{Away, HUNG, Reasons, Struck};

/// Records with their sequences, and the log's time.
type Log = Vec<(u64, Timestamp, ControlRecord)>;

/// The control log: of an agent, or all of it.
pub(super) async fn control(broker: &Broker, agent: Option<&AgentName>) -> Result<Log, Problem> {
    let mut follower = broker.follow_control(1, agent).await?;
    let mut records = Vec::new();
    loop {
        match timeout(Duration::from_secs(10), follower.next()).await?? {
            ControlItem::Record { seq, at, record } => records.push((seq, at, *record)),
            ControlItem::Malformed { .. } => {}
            ControlItem::CaughtUp => return Ok(records),
        }
    }
}

/// Agents of which incarnations ended that were given no reason to, and nodes that were given up though they were there: a supervisor
/// that restarts what it should adopt, or that takes its own standstill for others' silence.
pub(super) fn needless(log: &Log, agents: &[AgentName], struck: &Struck) -> Vec<String> {
    let (lost, mut found) = lost(log, &struck.away);
    let unheard = unheard(&struck.away);
    let none = Reasons::default();
    for agent in agents {
        let reasons = struck.reasons.get(agent.as_str()).unwrap_or(&none);
        let mut hit = reasons.hit.clone();
        for others in [&lost, &unheard] {
            hit.extend(others.get(agent.as_str()).into_iter().flatten());
        }
        let of_agent = log.iter().filter(|(_, _, record)| record.event.agent() == Some(agent));
        let ends = ends(of_agent.map(|(_, at, record)| (*at, record)));
        let problem = unasked(&ends, &Reasons { hit, asked: reasons.asked });
        found.extend(problem.map(|problem| format!("{agent}: {problem}")));
    }
    found
}

/// Records that are stored more than once: while a cluster's leader changes, it may not know of a message id what the one before was
/// just about to store.
pub(super) fn repeated(log: &Log) -> Vec<String> {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut repeated = Vec::new();
    for (seq, _, record) in log {
        // With its id and its author's time, no record is as another.
        let text = serde_json::to_string(record).unwrap_or_default();
        if let Some(first) = seen.insert(text.clone(), *seq) {
            repeated.push(format!("{first} and {seq}: {text}"));
        }
    }
    repeated
}

/// Incarnations by their agents.
type Numbers = BTreeMap<String, BTreeSet<u64>>;

/// What was on nodes that were given up while they were away, and what is wrong with those that were given up otherwise.
fn lost(log: &Log, away: &[Away]) -> (Numbers, Vec<String>) {
    let mut on: BTreeMap<&str, Vec<(&AgentName, u64)>> = BTreeMap::new();
    let (mut numbers, mut problems) = (Numbers::new(), Vec::new());
    for (_, at, record) in log {
        if let ControlEvent::IncarnationAllocated { agent, incarnation, node, .. } = &record.event {
            on.entry(node.as_str()).or_default().push((agent, *incarnation));
        } else if let ControlEvent::NodeLost { node } = &record.event {
            let name = format!("node {node}");
            let mut its = away.iter().filter(|away| away.who == name);
            if !its.any(|away| (away.from..=away.until).contains(at)) {
                problems.push(format!("{name} was given up at {at}, and was there"));
            }
            for (agent, incarnation) in on.get(node.as_str()).into_iter().flatten() {
                numbers.entry(agent.to_string()).or_default().insert(*incarnation);
            }
        }
    }
    (numbers, problems)
}

/// Incarnations whose shims were with a server that hung for so long that they may be taken to do so themselves.
fn unheard(away: &[Away]) -> Numbers {
    let mut numbers = Numbers::new();
    for one in away.iter().filter(|one| one.until.since(one.from) >= HUNG) {
        let name = one.who.strip_prefix("shim ").and_then(|name| name.rsplit_once('-'));
        if let Some((agent, Ok(incarnation))) = name.map(|(agent, last)| (agent, last.parse())) {
            numbers.entry(agent.to_owned()).or_default().insert(incarnation);
        }
    }
    numbers
}

/// The incarnations that ended: when, and how. A number that was never ready and of which no process is known is not among them:
/// its node was killed before it could say whether it had started it, and another number took its place.
fn ends<'a>(
    records: impl Iterator<Item = (Timestamp, &'a ControlRecord)>,
) -> BTreeMap<u64, (Timestamp, String)> {
    let (mut ends, mut ready) = (BTreeMap::new(), BTreeSet::new());
    for (at, record) in records {
        if let ControlEvent::IncarnationReady { incarnation, .. } = record.event {
            ready.insert(incarnation);
        } else if let ControlEvent::IncarnationExited { incarnation, exit, .. } = &record.event
            && (ready.contains(incarnation) || exit.code.is_some() || exit.signal.is_some())
        {
            ends.entry(*incarnation).or_insert_with(|| (at, exit.describe()));
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
        ControlRecord { id: None, at, term: Some(1), author: "s".to_owned(), event }
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
        let at = Timestamp::from_millis(0);
        let numbers: Vec<_> = ends(log.iter().map(|record| (at, record))).into_keys().collect();
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

    fn away(who: &str, from: u64, until: u64) -> Away {
        let at = Timestamp::from_millis;
        Away { who: who.to_owned(), from: at(from), until: at(until) }
    }

    #[test]
    fn what_was_on_a_node_that_was_away_may_end_and_no_node_that_was_there_is_given_up() {
        let node = || common::NodeName::new("n0").expect("valid");
        let agent = AgentName::new("a-b").expect("valid");
        let allocated = |incarnation, name: &str| {
            record(ControlEvent::IncarnationAllocated {
                agent: agent.clone(),
                incarnation,
                generation: 1,
                node: common::NodeName::new(name).expect("valid"),
            })
        };
        let gone = record(ControlEvent::NodeLost { node: node() });
        let records = [allocated(1, "n0"), allocated(2, "n1"), gone, allocated(3, "n0")];
        let at = |index: usize| Timestamp::from_millis(1000 * index as u64);
        let log: Log =
            (1..).zip(records).enumerate().map(|(index, (seq, it))| (seq, at(index), it)).collect();
        let (numbers, problems) = lost(&log, &[away("node n0", 500, 2500)]);
        assert_eq!(numbers, Numbers::from([("a-b".to_owned(), BTreeSet::from([1]))]));
        assert_eq!(problems, Vec::<String>::new());
        for wrong in [away("node n1", 500, 2500), away("node n0", 2100, 2500)] {
            assert_eq!(lost(&log, &[wrong]).1.len(), 1);
        }
    }

    #[test]
    fn a_record_that_is_stored_twice_is_told() {
        let gone = |name: &str| {
            record(ControlEvent::NodeLost { node: common::NodeName::new(name).expect("valid") })
        };
        let records = [gone("n0"), gone("n1"), gone("n0")];
        let at = Timestamp::from_millis(0);
        let log: Log = (1..).zip(records).map(|(seq, it)| (seq, at, it)).collect();
        let repeated = repeated(&log);
        assert!(repeated.len() == 1 && repeated[0].starts_with("1 and 3: "), "{repeated:?}");
    }

    #[test]
    fn shims_of_a_server_that_hung_for_long_may_end() {
        let hung = u64::try_from(HUNG.as_millis()).expect("short");
        let all = [
            away("shim a-b-7", 0, hung),
            away("shim a-b-8", 0, hung - 1),
            away("node n0", 0, hung),
        ];
        assert_eq!(unheard(&all), Numbers::from([("a-b".to_owned(), BTreeSet::from([7]))]));
    }
}
