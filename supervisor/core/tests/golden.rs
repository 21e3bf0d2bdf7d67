//! Logs that were written by this version and by those before it: every later build folds them alike.
//!
//! `tests/logs/<name>.jsonl` is a log, a record a line with its sequence and the log's time; `<name>.json` beside it is what it
//! comes to: the state, and every action on the way. A build may know more of a state than was known then, and nothing else than
//! was known. With `MOZART_GOLDEN=write` a log that has no expectation yet gets one; one that has keeps it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::Timestamp;
use common::control::{ControlEvent, ControlRecord};
use common::snapshot::Logged;
use serde::Deserialize;
use serde_json::{Value, json};
use supervisor_core::{Action, SNAPSHOT_FORMAT, State, restore, snapshot, step};

#[derive(Deserialize)]
struct Line {
    seq: u64,
    at: Timestamp,
    record: ControlRecord,
}

fn logs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/logs");
    let files = std::fs::read_dir(folder).expect("the logs are there");
    let mut logs: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    logs.sort();
    logs
}

/// An action in words that stay, whatever becomes of its type.
fn words(action: &Action) -> String {
    match action {
        Action::Allocate { agent } => format!("allocate {agent}"),
        Action::Ask { node } => format!("ask {node}"),
        Action::Refuse { node, instance } => format!("refuse {node} {instance}"),
        Action::Dismiss { agent, incarnation } => format!("dismiss {agent}-{incarnation}"),
        Action::Start { node, instance, agent, generation, incarnation, warm } => {
            format!("start {agent}-{incarnation} of {generation} on {node} {instance} warm {warm}")
        }
        Action::Stop { node, agent, incarnation, within } => {
            format!("stop {agent}-{incarnation} on {node} within {}", within.as_millis())
        }
        Action::Admit { agent, incarnation, floor, previous, previous_clean, earlier } => {
            let earlier: Vec<_> = earlier.iter().map(|one| (one.incarnation, one.clean)).collect();
            format!(
                "admit {agent}-{incarnation} from {floor} after {previous:?} {previous_clean} {earlier:?}"
            )
        }
        Action::SetTimer { agent, timer, incarnation, at } => {
            format!("timer {timer:?} {agent}-{incarnation} at {}", at.as_millis())
        }
        Action::CancelTimer { agent, timer, incarnation } => {
            format!("cancel {timer:?} {agent}-{incarnation}")
        }
    }
}

/// What a log comes to.
fn fold(log: &str) -> Value {
    let (mut state, mut actions) = (State::default(), Vec::new());
    for line in log.lines() {
        let Line { seq, at, record } = serde_json::from_str(line).expect(line);
        let todo = step(&mut state, seq, at, &record);
        actions.extend(todo.iter().map(|action| format!("{seq}: {}", words(action))));
    }
    json!({ "state": serde_json::to_value(&state).expect("plain"), "actions": actions })
}

/// Everything that was expected is there, as it was; there may be more in an object.
fn holds(expected: &Value, found: &Value, place: &str) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                let there = found.get(key).unwrap_or(&Value::Null);
                holds(value, there, &format!("{place}.{key}"));
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            assert_eq!(expected.len(), found.len(), "{place}");
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                holds(expected, found, &format!("{place}[{index}]"));
            }
        }
        _ => assert_eq!(expected, found, "{place}"),
    }
}

#[test]
fn every_log_of_an_earlier_version_folds_alike() {
    let logs = logs();
    assert!(logs.len() >= 3, "the logs are kept: {logs:?}");
    for path in logs {
        let found = fold(&std::fs::read_to_string(&path).expect("readable"));
        let beside = path.with_extension("json");
        if !beside.exists() && std::env::var_os("MOZART_GOLDEN").is_some_and(|set| set == "write") {
            let text = serde_json::to_string_pretty(&found).expect("plain") + "\n";
            std::fs::write(&beside, text).expect("writable");
        }
        let expected = std::fs::read_to_string(&beside).expect("an expectation beside the log");
        let expected: Value = serde_json::from_str(&expected).expect("JSON");
        holds(&expected, &found, &path.display().to_string());
    }
}

/// Every kind of record. A new one has no place in [`kind`] until it is added here, too.
const KINDS: [&str; 32] = [
    "agentApplied",
    "agentStarted",
    "agentStopped",
    "agentRestarted",
    "agentReplaced",
    "agentRemoved",
    "leaderElected",
    "nodeSeen",
    "nodeDraining",
    "nodeLost",
    "incarnationAllocated",
    "incarnationReturned",
    "incarnationReady",
    "incarnationBegun",
    "incarnationDrained",
    "incarnationExited",
    "startFailed",
    "incarnationHung",
    "incarnationStable",
    "timerFired",
    "unknown",
    FORGOTTEN,
    "agentMoved",
    "nodeDrained",
    "nodeUndrained",
    "nodeRemoved",
    "fleetRestored",
    "sanctumMoved",
    "sanctumNotMoved",
    "sanctumKept",
    "schedulePaused",
    "scheduleResumed",
];

/// A record for people: the fold takes nothing from it.
const FORGOTTEN: &str = "messagesForgotten";

fn kind(event: &ControlEvent) -> usize {
    match event {
        ControlEvent::AgentApplied { .. } => 0,
        ControlEvent::AgentStarted { .. } => 1,
        ControlEvent::AgentStopped { .. } => 2,
        ControlEvent::AgentRestarted { .. } => 3,
        ControlEvent::AgentReplaced { .. } => 4,
        ControlEvent::AgentRemoved { .. } => 5,
        ControlEvent::LeaderElected { .. } => 6,
        ControlEvent::NodeSeen { .. } => 7,
        ControlEvent::NodeDraining { .. } => 8,
        ControlEvent::NodeLost { .. } => 9,
        ControlEvent::IncarnationAllocated { .. } => 10,
        ControlEvent::IncarnationReturned { .. } => 11,
        ControlEvent::IncarnationReady { .. } => 12,
        ControlEvent::IncarnationBegun { .. } => 13,
        ControlEvent::IncarnationDrained { .. } => 14,
        ControlEvent::IncarnationExited { .. } => 15,
        ControlEvent::StartFailed { .. } => 16,
        ControlEvent::IncarnationHung { .. } => 17,
        ControlEvent::IncarnationStable { .. } => 18,
        ControlEvent::TimerFired { .. } => 19,
        ControlEvent::Unknown => 20,
        ControlEvent::MessagesForgotten { .. } => 21,
        ControlEvent::AgentMoved { .. } => 22,
        ControlEvent::NodeDrained { .. } => 23,
        ControlEvent::NodeUndrained { .. } => 24,
        ControlEvent::NodeRemoved { .. } => 25,
        ControlEvent::FleetRestored { .. } => 26,
        ControlEvent::SanctumMoved { .. } => 27,
        ControlEvent::SanctumNotMoved { .. } => 28,
        ControlEvent::SanctumKept { .. } => 29,
        ControlEvent::SchedulePaused { .. } => 30,
        ControlEvent::ScheduleResumed { .. } => 31,
    }
}

/// A kind whose records no log holds, or that change nothing in any, is not covered.
#[test]
fn the_logs_hold_every_kind_of_record_and_each_does_something() {
    let mut seen = BTreeSet::new();
    for path in logs() {
        let mut state = State::default();
        for line in std::fs::read_to_string(&path).expect("readable").lines() {
            let Line { seq, at, record } = serde_json::from_str(line).expect(line);
            let mut before = serde_json::to_value(&state).expect("plain");
            let todo = step(&mut state, seq, at, &record);
            let mut after = serde_json::to_value(&state).expect("plain");
            for state in [&mut before, &mut after] {
                // These move with every record.
                let state = state.as_object_mut().expect("an object");
                assert!(state.remove("seq").is_some() && state.remove("at").is_some());
            }
            if before != after || !todo.is_empty() {
                seen.insert(KINDS[kind(&record.event)]);
            }
        }
    }
    let mut expected = BTreeSet::from(KINDS);
    expected.remove(FORGOTTEN);
    assert_eq!(seen, expected);
}

/// Folds lines into a state; the actions, in words.
fn go_on(state: &mut State, lines: &[Line]) -> Vec<String> {
    let mut actions = Vec::new();
    for Line { seq, at, record } in lines {
        let todo = step(state, *seq, *at, record);
        actions.extend(todo.iter().map(|action| format!("{seq}: {}", words(action))));
    }
    actions
}

#[test]
fn a_log_folds_alike_from_a_snapshot_after_any_of_its_records() {
    let mut taken = 0;
    for path in logs() {
        let text = std::fs::read_to_string(&path).expect("readable");
        let lines: Vec<Line> =
            text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let mut state = State::default();
        for (k, line) in lines.iter().enumerate() {
            let mut whole = state.clone();
            let expected = go_on(&mut whole, &lines[k..]);
            match snapshot(&state, &Logged::default()) {
                Some((head, json)) => {
                    let mut other = restore(&head, &json).expect("ours");
                    assert_eq!(go_on(&mut other, &lines[k..]), expected, "{path:?} from {k}");
                    assert_eq!(other, whole, "{path:?} from {k}");
                    taken += 1;
                }
                None => assert!(state.unreadable().is_some(), "{path:?} at {k}"),
            }
            let _todo = step(&mut state, line.seq, line.at, &line.record);
        }
    }
    assert!(taken > 500, "{taken}");
}

/// Every key of a state's JSON that some log gives, with numbers and names of agents and nodes left out, and without specs: those are read alike from
/// the log.
fn keys(value: &Value, place: &str, found: &mut BTreeSet<String>) {
    const NAMED: [&str; 7] =
        ["agents", "nodes", "tombstones", "failures", "older", "since", "paused"];
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let is_named = place.rsplit('.').next().is_some_and(|last| NAMED.contains(&last));
                let place = if is_named { format!("{place}.*") } else { format!("{place}.{key}") };
                let is_spec = place.ends_with(".spec") || place.ends_with(".older.*");
                found.insert(place.clone());
                if !is_spec && !place.ends_with(".labels") {
                    keys(value, &place, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, place, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn a_field_of_the_state_that_is_new_is_a_new_format_of_snapshots() {
    let mut found = BTreeSet::new();
    for path in logs() {
        let text = std::fs::read_to_string(&path).expect("readable");
        let mut state = State::default();
        for line in text.lines() {
            let Line { seq, at, record } = serde_json::from_str(line).expect(line);
            let _todo = step(&mut state, seq, at, &record);
            keys(&serde_json::to_value(&state).expect("plain"), "", &mut found);
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let path = folder.join(format!("format-{SNAPSHOT_FORMAT}.txt"));
    let found: String = found.iter().map(|key| format!("{key}\n")).collect();
    if !path.exists() && std::env::var_os("MOZART_GOLDEN").is_some_and(|set| set == "write") {
        std::fs::create_dir_all(&folder).expect("writable");
        std::fs::write(&path, &found).expect("writable");
    }
    let expected = std::fs::read_to_string(&path).expect("the fields of this format are listed");
    assert_eq!(
        found, expected,
        "another set of fields is another SNAPSHOT_FORMAT, with its own list"
    );
}

#[test]
fn a_fold_that_comes_to_something_else_is_noticed() {
    let expected = json!({ "a": [1, { "b": 2 }] });
    holds(&expected, &json!({ "a": [1, { "b": 2, "new": 3 }], "newer": 4 }), "");
    for other in [json!({ "a": [1] }), json!({ "a": [1, { "b": 3 }] }), json!({ "a": [1, {}] })] {
        let differs = std::panic::catch_unwind(|| holds(&expected, &other, ""));
        assert!(differs.is_err(), "{other}");
    }
}
