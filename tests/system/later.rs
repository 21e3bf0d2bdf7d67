//! Messages that are delivered later, end to end: a real broker, supervisors that are killed, clocks that are wrong, and workers that write down
//! what they are sent.

use std::collections::BTreeMap;
use std::time::Duration;

use common::Timestamp;
use serde_json::{Value, json};
use system_tests::chaos::JumpingClock;
use system_tests::harness::{Fleet, eventually};

use crate::http;

const WORKER: &str = r#"import json, sys
print(json.dumps({"type": "ready"}), flush=True)
for line in sys.stdin:
    line = json.loads(line)
    if line["type"] == "shutdown":
        break
    if line["type"] == "chat":
        with open(sys.argv[1], "a") as seen:
            seen.write(json.dumps(line) + "\n")
        print(json.dumps({"type": "chat_done", "messageId": line["messageId"], "response": "done"}), flush=True)
"#;

/// A fleet of agents whose workers write down what they see.
fn writing(agents: &[&str]) -> Fleet {
    let fleet = Fleet::new(&[]);
    std::fs::write(fleet.souls().join("seen.py"), WORKER).expect("written");
    for agent in agents {
        let seen = fleet.home().with_file_name(format!("seen-{agent}.jsonl"));
        let soul = format!(
            "MODEL test/model\nSOUL test agent\nCONCURRENCY 4\nWORKER [\"python3\", \"seen.py\", \"{}\"]\n",
            seen.display()
        );
        let _path = fleet.soul(agent, &soul);
    }
    fleet
}

/// The ids of what an agent's worker was sent, in this order.
fn seen(fleet: &Fleet, agent: &str) -> Vec<String> {
    let path = fleet.home().with_file_name(format!("seen-{agent}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| text_of(&line, "messageId").to_owned()).collect()
}

fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn time(value: &Value, field: &str) -> Timestamp {
    serde_json::from_value(value[field].clone()).unwrap_or_else(|_| panic!("{field} of {value}"))
}

async fn cancelled(fleet: &Fleet, message: &str, reason: &str) {
    let detail = fleet.wait_status(message, "cancelled").await;
    assert_eq!((detail.row.reason.as_deref(), detail.row.attempts), (Some(reason), 0));
}

#[tokio::test]
async fn a_message_waits_until_its_time_and_is_found_until_then_and_after() {
    let mut fleet = writing(&["a"]);
    fleet.all_up().await;
    let sent = fleet.json(["send", "a", "hello", "--in", "6s", "--conversation", "c"]).await;
    let id = text_of(&sent, "messageId").to_owned();
    let due = time(&sent, "deliverAt");
    assert_eq!(text_of(&sent, "status"), "pending");

    // Everybody finds it.
    let row = fleet.show(&id[..13]).await.row;
    assert_eq!((row.status.as_str(), row.deliver_at), ("pending", Some(due)));
    for more in [&["--status", "pending"][..], &["--agent", "a"], &[]] {
        let listed = fleet.json(["journal", "ls"].iter().chain(more)).await;
        assert_eq!(listed[0]["deliverAt"], sent["deliverAt"], "{more:?}: {listed}");
    }
    let listed = fleet.cli(["journal", "ls", "--status", "open"]).await.ok();
    assert!(listed.stdout.contains("pending (at "), "{listed}");
    let explained = fleet.cli(["explain", &id]).await.ok();
    assert!(explained.stdout.contains("It waits to be delivered at"), "{explained}");
    assert_eq!(seen(&fleet, "a"), Vec::<String>::new());

    let detail = fleet.wait_status(&id, "completed").await;
    assert_eq!((detail.row.deliver_at, detail.row.attempts), (Some(due), 1));
    let begun = detail.history.first().expect("it was delivered").at;
    assert!(begun >= due, "{begun} is before {due}");
    assert!(begun.since(due) < Duration::from_secs(5), "{begun} is long after {due}");
    assert_eq!(seen(&fleet, "a"), std::slice::from_ref(&id));
    let listed = fleet.json(["journal", "ls"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    // Nothing is left of it where it waited.
    let broker = fleet.broker().await;
    eventually("LATER is empty", async || match broker.end_of_later().await.expect("an answer") {
        0 => Ok(()),
        seq => Err(format!("it ends with {seq}")),
    })
    .await;

    // A time that has passed is now.
    let past = fleet.send_with("a", "hello", &["--at", "2020-01-01T00:00:00Z"]).await;
    let _done = fleet.wait_status(&past, "completed").await;

    // Wrong uses say what is wrong.
    let bad = |options: &'static [&'static str]| {
        let args: Vec<&str> = ["send", "a", "hello"].iter().chain(options).copied().collect();
        fleet.cli(args)
    };
    bad(&["--at", "tomorrow"]).await.exit(2).says("2026-12-01T10:00:00Z");
    bad(&["--in", "soon"]).await.exit(2).says("expected a time such as 30s");
    bad(&["--in", "1m", "--at", "10:00"]).await.exit(2).says("cannot be used with");
    bad(&["--in", "9000h"]).await.exit(2).says("more than a year ahead");
    bad(&["--at", "9999-01-01T00:00:00Z"]).await.exit(2).says("more than a year ahead");
}

#[tokio::test]
async fn a_message_that_waits_is_one_message_and_can_be_cancelled() {
    let mut fleet = writing(&["a", "b"]);
    fleet.all_up().await;
    let later = ["send", "a", "hello", "--id", "m1", "--in", "1h"];
    let waiting = fleet.spawn_cli(later.iter().chain(&["--wait", "--timeout", "60s"]));
    eventually("it is stored", async || {
        let shown = fleet.cli(["journal", "show", "m1"]).await;
        if shown.stderr.is_empty() { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    // The same one again, whenever: the first counts. Another one of its id is refused.
    for more in [&["--in", "2h"][..], &[]] {
        let again = ["send", "a", "hello", "--id", "m1"];
        let same = fleet.json(again.iter().chain(more)).await;
        let shown = fleet.show("m1").await.row.deliver_at;
        assert_eq!((Some(time(&same, "deliverAt")), &same["status"]), (shown, &"pending".into()));
        let other = ["send", "a", "other", "--id", "m1"];
        fleet.cli(other.iter().chain(more)).await.exit(4).says("its text differs");
    }
    assert_eq!(seen(&fleet, "a"), Vec::<String>::new());

    let _cancelled = fleet.cli(["cancel", "m1"]).await.ok();
    waiting.output().await.exit(1).says("was cancelled");
    cancelled(&fleet, "m1", "cancelled by the user").await;
    fleet.cli(["cancel", "m1"]).await.exit(4).says("already cancelled");
    let explained = fleet.cli(["explain", "m1"]).await.ok();
    assert!(explained.stdout.contains("cancelled"), "{explained}");
    let listed = fleet.json(["journal", "ls", "--status", "cancelled"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    // It is not sent anew.
    let again = fleet.json(["send", "a", "hello", "--id", "m1"]).await;
    assert_eq!(text_of(&again, "status"), "cancelled");

    // One that was delivered is cancelled as any other: it has ended.
    let sent = fleet.send_with("a", "hello", &["--in", "2s"]).await;
    let _done = fleet.wait_status(&sent, "completed").await;
    fleet.cli(["cancel", &sent]).await.exit(4).says("already completed");

    // Without its agent it is not delivered, whoever has the name next.
    let of_b = fleet.send_with("b", "hello", &["--in", "6s"]).await;
    let _removed = fleet.cli(["rm", "b"]).await.ok();
    cancelled(&fleet, &of_b, "agent b was removed").await;
    let path = fleet.souls().join("b.soul");
    let _again = fleet.cli(["apply", path.to_str().expect("text")]).await.ok();
    let new = fleet.send_with("b", "hello", &["--in", "6s"]).await;
    let _done = fleet.wait_status(&new, "completed").await;
    assert_eq!(seen(&fleet, "b"), [new]);

    // What was cancelled is forgotten as what has ended otherwise.
    let forgotten = fleet.json(["forget", "a"]).await;
    assert!(forgotten["messages"].as_u64() >= Some(2), "{forgotten}");
    fleet.cli(["journal", "show", "m1"]).await.exit(3).says("no message");
}

#[tokio::test]
async fn over_http_a_message_waits_as_well() {
    let (fleet, http) = http::fleet(&[("a", &system_tests::harness::flaky(""))]).await;
    let broker = fleet.broker().await;
    let due = broker.clock().await.expect("its time").after(Duration::from_secs(5)).to_string();
    let body = json!({ "agent": "a", "message": "say hello", "messageId": "m1", "deliverAt": due });
    let sent = http.post("/api/v1/messages", body.clone()).await.is(201).json();
    assert_eq!((&sent["status"], &sent["deliverAt"]), (&"pending".into(), &json!(due)));
    let shown = http.get("/api/v1/messages/m1").await.is(200).json();
    assert_eq!((&shown["status"], &shown["deliverAt"]), (&"pending".into(), &json!(due)));
    let _again = http.post("/api/v1/messages", body).await.is(200);
    let _done = fleet.wait_status("m1", "completed").await;
    let shown = http.get("/api/v1/messages/m1").await.is(200).json();
    assert_eq!(shown["response"], "hello");
    for (bad, says) in [("10:00", "is no time"), ("2999-01-01T00:00:00Z", "more than a year")] {
        let body = json!({ "agent": "a", "message": "x", "deliverAt": bad });
        let said = http.post("/api/v1/messages", body).await.problem(400).json();
        assert!(said.to_string().contains(says), "{said}");
    }
}

/// Sends messages of some conversations that are due within some time, not in the order in which they are; by their ids, in the order in which
/// they are to come.
async fn send_many(fleet: &Fleet, agents: &[&str], each: u64, over: u64) -> Expected {
    let broker = fleet.broker().await;
    let start = broker.clock().await.expect("its time").after(Duration::from_secs(4));
    let mut expected = Expected::new();
    for n in 0..each {
        // Each number below `each` once, if it is a prime, and none in order.
        let place = (n * 7 + 3) % each;
        let due = start.after(Duration::from_millis(place * over * 1000 / each));
        for agent in agents {
            let id = format!("{agent}-{n}");
            let args = ["send", agent, "hello", "--id", &id, "--conversation", "c", "--at"];
            let due_text = due.to_string();
            let _sent = fleet.cli(args.into_iter().chain([due_text.as_str()])).await.ok();
            expected.entry((*agent).to_owned()).or_default().push((due, id));
        }
    }
    expected.values_mut().for_each(|messages| messages.sort());
    expected
}

type Expected = BTreeMap<String, Vec<(Timestamp, String)>>;

/// Every message came once, in order, and not before its time.
async fn verdict(fleet: &Fleet, expected: &Expected) {
    for (agent, messages) in expected {
        for (due, id) in messages {
            let detail = fleet.wait_status(id, "completed").await;
            let begun = detail.history.first().map_or(detail.row.updated_at, |event| event.at);
            // The events have the time of the shim's host: the same one here.
            assert!(begun.after(Duration::from_millis(50)) >= *due, "{id}: {begun} < {due}");
        }
        let ids: Vec<&String> = messages.iter().map(|(_, id)| id).collect();
        assert_eq!(seen(fleet, agent).iter().collect::<Vec<_>>(), ids, "{agent}");
    }
    let broker = fleet.broker().await;
    eventually("LATER is empty", async || match broker.end_of_later().await.expect("an answer") {
        0 => Ok(()),
        seq => Err(format!("it ends with {seq}")),
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_is_killed_again_and_again_delivers_each_message_once_and_in_order() {
    let agents = ["a", "b", "c"];
    let mut fleet = writing(&agents);
    fleet.all_up().await;
    let expected = send_many(&fleet, &agents, 23, 20).await;
    for round in 0..10_u64 {
        // Different moments of what it does: a test of time needs time.
        tokio::time::sleep(Duration::from_millis(700 + 331 * round % 1500)).await;
        fleet.kill_up().await;
        fleet.up(&[]).await;
    }
    verdict(&fleet, &expected).await;
}

#[tokio::test]
async fn what_was_due_while_everything_was_down_comes_in_order_afterwards() {
    let mut fleet = writing(&["a"]);
    fleet.all_up().await;
    let expected = send_many(&fleet, &["a"], 11, 12).await;
    let _down = fleet.cli(["down"]).await.ok();
    let _ended = fleet.take_up().output().await;
    // Half of them are due by then.
    tokio::time::sleep(Duration::from_secs(6)).await;
    fleet.all_up().await;
    verdict(&fleet, &expected).await;
}

#[tokio::test]
async fn only_the_clock_of_the_broker_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = JumpingClock::prepare(folder.path()).expect("a C compiler");
    let mut fleet = writing(&["a"]);
    for (name, value) in clock.env() {
        fleet = fleet.env(name, &value);
    }
    fleet.all_up().await;
    assert!(clock.is_in(fleet.up_pid()), "a static `mozart` keeps its clock");
    let broker = fleet.broker().await;
    for (seconds, conversation) in [(3600, "c"), (-3600, "d")] {
        clock.jump(seconds).expect("written");
        let before = broker.clock().await.expect("its time");
        let more = ["--in", "5s", "--conversation", conversation];
        let id = fleet.send_with("a", "hello", &more).await;
        let due = fleet.show(&id).await.row.deliver_at.expect("a time");
        assert!(due.since(before) < Duration::from_secs(10), "{due} of {before}");
        // Nobody sees it earlier than it is due, as the broker has it.
        loop {
            let is_seen = seen(&fleet, "a").contains(&id);
            let now = broker.clock().await.expect("its time");
            assert!(!is_seen || now >= due, "{now} is before {due}");
            assert!(now.since(due) < Duration::from_secs(10), "it does not come");
            if is_seen {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
