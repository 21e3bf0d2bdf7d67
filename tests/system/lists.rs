//! Lists of much: each shows what fits a screen, costs what it shows, and says how to go on.

use std::time::{Duration, SystemTime};

use broker::Broker;
use common::control::{ControlEvent, ControlRecord};
use common::message::{AttemptEnd, DeadLetter};
use common::{AgentName, NodeName};
use futures_util::future::join_all;
use serde_json::{Value, json};
use system_tests::harness::{Fleet, Output, eventually, message};

use crate::roles::{broker_at, fleet_at, free_port, server_at};

const ECHO: &str = "MODEL test/model\nSOUL You repeat.\nCONCURRENCY 4";

/// Writes records of an agent that there is not.
async fn fill(broker: &Broker, agent: &str, records: u64) {
    let agent = AgentName::new(agent).expect("valid");
    let numbers: Vec<u64> = (0..records).collect();
    for some in numbers.chunks(500) {
        let appends = some.iter().map(|_| {
            let record = ControlRecord {
                id: None,
                at: SystemTime::now().into(),
                term: None,
                author: "test".to_owned(),
                event: ControlEvent::AgentStarted { agent: agent.clone() },
            };
            async move { broker.append_control(&record).await.expect("appended") }
        });
        join_all(appends).await;
    }
}

/// The place that a list says to go on from.
fn place(output: &Output) -> Option<String> {
    let place = output.stderr.lines().find_map(|line| line.split("--before ").nth(1))?;
    Some(place.split(' ').next().expect("a word").to_owned())
}

fn rows(output: &Output) -> Vec<Value> {
    output.json().as_array().expect("an array").clone()
}

fn numbers(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["seq"].as_u64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_log_is_read_from_its_end_page_by_page() {
    let fleet = Fleet::with(&[("echo", ECHO)]).await;
    let broker = fleet.broker().await;
    let before = broker.control_last_seq().await.expect("an answer");
    fill(&broker, "ghost", 3_000).await;
    let last = broker.control_last_seq().await.expect("an answer");

    let shown = fleet.cli(["events"]).await.ok();
    assert_eq!(shown.stdout.lines().count(), 50, "{shown}");
    assert!(shown.stdout.lines().last().expect("a line").contains(&format!("#{last}")));
    assert_eq!(place(&shown), Some((last - 49).to_string()));
    let json = fleet.cli(["events", "-o", "json"]).await.ok();
    assert_eq!(numbers(&rows(&json)), (last - 999..=last).collect::<Vec<_>>());
    for option in ["--limit", "--tail"] {
        let three = fleet.cli(["events", "-o", "json", option, "3"]).await.ok();
        assert_eq!(numbers(&rows(&three)), [last - 2, last - 1, last], "{option}");
    }

    // All of it, and of one agent.
    let (mut all, mut at) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["events", "-o", "json", "--limit", "1400"];
        args.extend(at.iter().flat_map(|place| ["--before", place.as_str()]));
        let page = fleet.cli(args).await.ok();
        all.splice(0..0, numbers(&rows(&page)));
        at = place(&page);
        if at.is_none() {
            break;
        }
    }
    assert_eq!(all, (1..=last).collect::<Vec<_>>());
    let of_echo = fleet.cli(["events", "echo", "-o", "json", "--limit", "1"]).await.ok();
    let of_echo = rows(&of_echo);
    assert_eq!(of_echo[0]["agent"], "echo");
    assert!(numbers(&of_echo)[0] <= before);
    fleet.cli(["events", "--before", "5", "--follow"]).await.exit(2).says("--follow");

    // Followed, it begins with the last of the stored ones.
    let args = ["events", "ghost", "--follow", "--limit", "2", "-o", "json"];
    let mut followed = fleet.spawn_cli(args);
    for seq in [last - 1, last] {
        assert_eq!(followed.json().await.expect("a record")["seq"], seq);
    }
    fill(&broker, "ghost", 1).await;
    assert_eq!(followed.json().await.expect("a record")["seq"], last + 1);
}

async fn bury(broker: &Broker, agent: &str, id: &str) {
    let letter = DeadLetter {
        envelope: message(agent, id, &format!("text of {id}")),
        reason: "exit code 1".to_owned(),
        attempts: vec![AttemptEnd { attempt: 1, incarnation: 1, error: "exit code 1".to_owned() }],
        log: Vec::new(),
        at: SystemTime::now().into(),
        redriven_as: None,
        cut: false,
    };
    assert!(broker.bury(&letter).await.expect("an answer"), "{id}");
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["messageId"].as_str().expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_in_pages_and_redriven_once() {
    let fleet = Fleet::with(&[("echo", ECHO), ("other", ECHO)]).await;
    let broker = fleet.broker().await;
    let expected: Vec<String> = (0..120).map(|n| format!("m{n:03}")).collect();
    for id in &expected {
        bury(&broker, "echo", id).await;
    }
    bury(&broker, "other", "m000").await;
    let shown = fleet.cli(["dead", "ls"]).await.ok();
    assert_eq!(shown.stdout.lines().count(), 51, "{shown}");
    shown.says("for older ones, add --before ");
    let (mut all, mut before) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["dead", "ls", "--agent", "echo", "-o", "json", "--limit", "50"];
        args.extend(before.iter().flat_map(|place| ["--before", place.as_str()]));
        let page = fleet.cli(args).await.ok();
        let page_rows = rows(&page);
        all.splice(0..0, ids(&page_rows).into_iter().map(str::to_owned));
        before = place(&page);
        if before.is_none() {
            break;
        }
    }
    assert_eq!(all, expected);

    // By its names, and by how its id begins.
    bury(&broker, "other", "solo-1").await;
    assert_eq!(fleet.json(["dead", "show", "solo"]).await["messageId"], "solo-1");
    fleet.cli(["dead", "show", "m04"]).await.exit(3).says("several ids begin like this");
    fleet.cli(["dead", "show", "m000"]).await.exit(3).says("echo/user/m000, other/user/m000");
    assert_eq!(fleet.json(["dead", "show", "other/m000"]).await["agent"], "other");
    fleet.cli(["dead", "show", "other/m001"]).await.exit(3).says("no dead letter m001");

    // Each is sent again once, however often it is asked for.
    let redriven = fleet.json(["dead", "redrive", "--all"]).await;
    let redriven = redriven.as_array().expect("an array").clone();
    assert_eq!(redriven.len(), 122);
    let again = fleet.cli(["dead", "redrive", "--all", "-o", "json"]).await.ok();
    assert_eq!(again.json(), serde_json::json!([]));
    let _said = again.says("122 dead letters were redriven before");
    let _idle = fleet.cli(["wait", "echo", "--for", "idle"]).await.ok();
    let sent = fleet.json(["journal", "ls", "--agent", "echo"]).await;
    assert_eq!(sent.as_array().map(Vec::len), Some(120));
    let listed = fleet.json(["dead", "ls"]).await;
    assert!(listed.as_array().expect("an array").iter().all(|one| one["redrivenAs"].is_string()));

    // And what is dropped is named.
    let dropped = fleet.cli(["dead", "drop", "--agent", "echo"]).await.ok();
    let mut dropped: Vec<&str> = dropped.stdout.lines().collect();
    dropped.sort_unstable();
    assert_eq!(dropped, expected);
    let left = fleet.json(["dead", "ls"]).await;
    assert_eq!(ids(left.as_array().expect("an array")), ["m000", "solo-1"]);
    assert_eq!(fleet.json(["dead", "drop", "--all"]).await, json!(["m000", "solo-1"]));
    assert_eq!(fleet.json(["dead", "drop", "--all"]).await, json!([]));
}

/// So many agents, of which none can be started.
fn souls(fleet: &Fleet, count: usize) {
    for number in 0..count {
        let soul = "MODEL test/model\nSOUL You wait.\nREQUIRE moon=full\n";
        fleet.soul(&format!("agent-{number:05}"), soul);
    }
}

fn names(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["agent"].as_str().expect("a name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_agents_are_listed_though_they_fit_no_message() {
    let port = free_port();
    let fleet = fleet_at(port);
    souls(&fleet, 5_000);
    let _server = server_at(&fleet, port, "");
    let _supervisor = fleet.spawn_cli(["supervisor", "--id", "s1"]);
    eventually("a supervisor answers", async || {
        let said = fleet.cli(["ps"]).await;
        if said.code == 0 { Ok(()) } else { Err(said.to_string()) }
    })
    .await;
    let applied = fleet.json(["apply", "."]).await;
    assert_eq!(applied.as_array().map(Vec::len), Some(5_001));
    let mut expected: Vec<String> = (0..5_000).map(|n| format!("agent-{n:05}")).collect();
    expected.insert(0, "a".to_owned());

    let all = fleet.cli(["ps", "-o", "json"]).await.ok();
    assert_eq!(names(&rows(&all)), expected);
    assert_eq!(all.stderr, "");
    assert!(all.stdout.len() > 1 << 20, "it would fit: {} bytes", all.stdout.len());
    let table = fleet.cli(["ps"]).await.ok();
    assert_eq!(table.stdout.lines().count(), 5_002);
    assert_eq!(table.stdout.lines().filter(|line| line.starts_with("AGENT")).count(), 1);

    // A part of it.
    let args = ["ps", "-o", "json", "--limit", "3", "--after", "agent-01233"];
    let part = fleet.cli(args).await.ok();
    assert_eq!(names(&rows(&part)), ["agent-01234", "agent-01235", "agent-01236"]);
    part.says("add --after agent-01236");
    let end = fleet.cli(["ps", "-o", "json", "--limit", "9", "--after", "agent-04997"]).await.ok();
    assert_eq!(names(&rows(&end)), ["agent-04998", "agent-04999"]);
    assert_eq!(end.stderr, "");
    let named = fleet.json(["ps", "agent-04999", "agent-00001"]).await;
    assert_eq!(names(named.as_array().expect("rows")), ["agent-00001", "agent-04999"]);
    fleet.cli(["ps", "agent-04999", "agent-0499"]).await.exit(3).says("did you mean");
    fleet.cli(["ps", "a", "--limit", "1"]).await.exit(2).says("--limit");
    fleet.cli(["ps", "--limit", "0"]).await.exit(2).says("--limit");

    // What else asks for agents.
    assert_eq!(fleet.json(["inspect", "agent-02500"]).await["agent"], "agent-02500");
    let wait = ["wait", "agent-02500", "--timeout", "1s"];
    fleet.cli(wait).await.exit(5).says("agent-02500 is not running");
    let stopped = fleet.cli(["stop", "agent-02500"]).await.ok();
    assert_eq!(stopped.stdout, "agent-02500\n");
    let _stopped = fleet.cli(["wait", "agent-02500", "--for", "stopped"]).await.ok();
    assert_eq!(fleet.json(["ps"]).await.as_array().map(Vec::len), Some(5_000));
    assert_eq!(fleet.json(["ps", "-a"]).await.as_array().map(Vec::len), Some(5_001));
    let checked = fleet.cli(["doctor", "-o", "json"]).await;
    assert!(!checked.stdout.contains("too large"), "{checked}");
    // A client of the version before is told what to do.
    let broker = broker_at(port).await;
    let asked = broker.subjects().query();
    let answer = broker.ask(asked, r#"{"op":"ps"}"#.into(), Duration::from_secs(10)).await;
    let answer = String::from_utf8_lossy(&answer.expect("an answer")).into_owned();
    assert!(answer.contains("the answer is too large"), "{}", &answer[..answer.len().min(200)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_reports_that_cannot_be_read_is_a_line() {
    let port = free_port();
    let fleet = fleet_at(port);
    let _server = server_at(&fleet, port, "");
    let supervisor = fleet.spawn_cli(["supervisor", "--id", "s1"]);
    eventually("it leads", async || {
        let said = supervisor.complaints();
        if said.contains("holds the lease") { Ok(()) } else { Err(said) }
    })
    .await;
    let broker = broker_at(port).await;
    let node = NodeName::new("n").expect("valid");
    let agent = AgentName::new("ghost").expect("valid");
    let subjects = broker.subjects();
    for _ in 0..500 {
        for subject in [subjects.node_report(&node), subjects.shim_report(&agent, 1)] {
            broker.tell(subject, "garbage".into()).await.expect("told");
        }
    }
    broker.flush(Duration::from_secs(10)).await.expect("flushed");
    let told = [
        "cannot read a report of node n: ",
        "cannot read 499 more reports of nodes",
        "cannot read a report of ghost-1: ",
        "cannot read 499 more reports of agents",
    ];
    eventually("all of them are told of", async || {
        let said = supervisor.complaints();
        if told.iter().all(|words| said.contains(words)) { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(supervisor.complaints().matches("cannot read").count(), told.len());
}

#[tokio::test]
async fn an_apply_is_answered_when_all_of_it_is_known() {
    // They start nowhere.
    let soul = "MODEL test/model\nSOUL You repeat.\nREQUIRE nowhere=yes\n";
    let names: Vec<String> = (0..1000).map(|n| format!("a{n:04}")).collect();
    let souls: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), soul)).collect();
    let mut fleet = Fleet::new(&[]);
    fleet.up(&[]).await;
    for (name, text) in souls {
        fleet.soul(name, text);
    }
    let _applied = fleet.cli(["apply".as_ref(), fleet.souls().as_os_str()]).await.ok();
    let rows = fleet.json(["ps"]).await;
    assert_eq!(rows.as_array().map(Vec::len), Some(names.len()));
}
