//! Snapshots of the control log: a supervisor goes on from the newest good one, and whatever is wrong with it is said.

use std::time::SystemTime;

use broker::reference::client;
use broker::{Broker, ControlItem};
use common::AgentName;
use common::control::{ControlEvent, ControlRecord};
use common::snapshot::{Logged, SnapshotHead};
use futures_util::future::join_all;
use serde_json::{Value, json};
use system_tests::harness::{Child, Fleet, Signal, eventually, flaky};

use crate::roles::{apply, broker_at, fleet_at, free_port, server_at};

/// A leader takes one after so many records.
const EVERY: u64 = 10_000;

/// Writes so many records that change nothing: of an agent that there is not.
async fn fill(broker: &Broker, records: u64) {
    let agent = AgentName::new("ghost").expect("valid");
    let from = broker.control_last_seq().await.expect("an answer");
    let numbers: Vec<u64> = (0..records).collect();
    for some in numbers.chunks(500) {
        let appends = some.iter().map(|number| {
            let record = ControlRecord {
                id: Some(format!("fill.{from}.{number}")),
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

/// The sequences of the snapshots that are whole and of this log; and how many others there are.
async fn snapshots(broker: &Broker) -> (Vec<u64>, usize) {
    let judged = broker.judge_snapshots(|_, _| Ok(())).await.expect("an answer").1;
    let all = judged.len();
    let good = judged.into_iter().filter(|(_, doubt)| doubt.is_none());
    let good: Vec<u64> = good.map(|(seq, _)| seq).collect();
    let others = all - good.len();
    (good, others)
}

/// Waits for a snapshot that is newer than any so far, and for what it makes needless to be gone.
async fn next_snapshot(broker: &Broker, before: &[u64]) -> Vec<u64> {
    eventually("there is another snapshot, and no more than two", async || {
        let (good, others) = snapshots(broker).await;
        let is_new = good.last() > before.last();
        if is_new && good.len() <= 2 && others == 0 { Ok(good) } else { Err(format!("{good:?}")) }
    })
    .await
}

async fn said(role: &Child, words: &str) {
    eventually(&format!("it says {words:?}"), async || {
        let said = role.complaints();
        if said.contains(words) { Ok(()) } else { Err(said) }
    })
    .await;
}

/// Starts a supervisor, and waits until it follows the log and leads.
async fn supervisor(fleet: &Fleet, id: &str) -> Child {
    let supervisor = fleet.spawn_cli(["supervisor", "--id", id]);
    said(&supervisor, "follows the log up to").await;
    said(&supervisor, "holds the lease").await;
    supervisor
}

/// How many agents a supervisor knows.
async fn rows(fleet: &Fleet) -> usize {
    fleet.json(["ps", "-a"]).await.as_array().map_or(0, Vec::len)
}

/// Kills it, and starts another one.
async fn restarted(fleet: &Fleet, supervisor: Child, id: &str) -> Child {
    supervisor.signal(Signal::KILL);
    let _killed = supervisor.output().await;
    self::supervisor(fleet, id).await
}

#[tokio::test]
async fn a_fleet_goes_on_from_a_snapshot_when_its_records_are_gone() {
    let port = free_port();
    let fleet = fleet_at(port);
    fleet.soul("b", &flaky(""));
    let _server = server_at(&fleet, port, "");
    let mut leader = supervisor(&fleet, "s1").await;
    let _node = fleet.spawn_cli(["node", "--name", "n"]);
    apply(&fleet).await;
    for agent in ["a", "b"] {
        let _row = fleet.wait_state(agent, "running").await;
    }
    let shim = fleet.shim("a");
    let broker = broker_at(port).await;
    let mut good = Vec::new();
    for _ in 0..3 {
        fill(&broker, EVERY).await;
        good = next_snapshot(&broker, &good).await;
    }
    assert_eq!(good.len(), 2, "{good:?}");
    let extent = broker.control_extent().await.expect("an answer");
    assert_eq!(extent.first, 1, "nothing is thirty days old");
    let whole = fleet.cli(["events", "--tail", "1"]).await.ok();
    assert!(!whole.stderr.contains("begins with"), "{whole}");

    // All that was ever said of the agents.
    broker.trim_control(good[1]).await.expect("trimmed");
    leader = restarted(&fleet, leader, "s2").await;
    said(&leader, &format!("supervisor s2 continues from snapshot {} ", good[1])).await;
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    assert_eq!(fleet.shim("a"), shim, "nobody restarted it");
    let _row = fleet.wait_state("a", "running").await;
    let unknown = fleet.cli(["send", "nobody", "x"]).await.exit(3);
    unknown.says("no agent");
    let explained = fleet.cli(["explain", "a"]).await.ok();
    assert!(explained.stdout.contains("All its messages are final."), "{explained}");
    let events = fleet.cli(["events"]).await.ok();
    events.says(&format!("note: the control log begins with record #{}", good[1]));
    // What a worker asks goes to an agent of which the log holds nothing.
    assert_eq!(fleet.ask("b", "ask a say hi").await, "hi");
    // The fold goes on: the agent is stopped, and started again as the next incarnation.
    let _stopped = fleet.cli(["stop", "a"]).await.ok();
    let _row = fleet.wait_state("a", "stopped").await;
    let _started = fleet.cli(["start", "a"]).await.ok();
    let _row = fleet.wait_state("a", "running").await;
    assert_eq!(fleet.ask("a", "say again").await, "again");
}

#[tokio::test]
async fn what_is_wrong_with_a_snapshot_is_said_and_the_one_before_is_used() {
    let port = free_port();
    let fleet = fleet_at(port);
    let _server = server_at(&fleet, port, "");
    let mut leader = supervisor(&fleet, "s1").await;
    apply(&fleet).await;
    let broker = broker_at(port).await;
    let mut good = Vec::new();
    for _ in 0..2 {
        fill(&broker, EVERY).await;
        good = next_snapshot(&broker, &good).await;
    }
    let [older, newer] = good[..] else { panic!("{good:?}") };

    // Another version has taken one, as of a later record.
    fill(&broker, 1).await;
    let last = broker.control_last_seq().await.expect("an answer");
    let mut log = broker.follow_control(last, None).await.expect("following");
    let ControlItem::Record { seq, at, record } = log.next().await.expect("an item") else {
        panic!("no record");
    };
    let last = Logged { at, id: record.id };
    let head = SnapshotHead { format: 1, seq, last, term: 1, rules: 99 };
    broker.write_snapshot(&head, "{}".into()).await.expect("written");
    leader = restarted(&fleet, leader, "s2").await;
    said(&leader, &format!("supervisor s2 skips snapshot {seq} ")).await;
    said(&leader, "it is of rules 99, which this build does not fold").await;
    assert!(leader.complaints().contains("ERROR"), "{}", leader.complaints());
    said(&leader, &format!("continues from snapshot {newer} ")).await;

    // And the newest of ours has lost a chunk.
    broker.drop_snapshot(seq).await.expect("removed");
    let raw = client::connect(format!("127.0.0.1:{port}")).await.expect("a client");
    let subject = broker.subjects().snapshot(newer);
    let stream = broker.subjects().stream("SNAPSHOTS");
    let purge = json!({ "filter": subject }).to_string();
    let first = raw
        .request(format!("$JS.API.DIRECT.GET.{stream}.{subject}"), "".into())
        .await
        .expect("an answer");
    let chunks = first.headers.as_ref().and_then(|headers| headers.get("Mozart-Snapshot-Chunks"));
    let chunks: usize = chunks.expect("a header").as_str().parse().expect("a number");
    if chunks == 1 {
        // It is small: a piece of it stands in for it.
        let mut headers = client::HeaderMap::new();
        for (name, values) in first.headers.expect("headers").iter() {
            if name.to_string().starts_with("Mozart-") {
                headers.insert(name.clone(), values[0].clone());
            }
        }
        let cut = first.payload.slice(..first.payload.len() - 1);
        raw.request(format!("$JS.API.STREAM.PURGE.{stream}"), purge.into()).await.expect("purged");
        raw.request_with_headers(subject, headers, cut).await.expect("stored");
    } else {
        let gone = json!({ "filter": subject, "keep": 1 }).to_string();
        raw.request(format!("$JS.API.STREAM.PURGE.{stream}"), gone.into()).await.expect("purged");
    }
    let (left, damaged) = snapshots(&broker).await;
    assert_eq!((left, damaged), (vec![older], 1));
    leader = restarted(&fleet, leader, "s3").await;
    said(&leader, &format!("supervisor s3 skips snapshot {newer} ")).await;
    said(&leader, "it is damaged: ").await;
    said(&leader, &format!("continues from snapshot {older} ")).await;
    assert_eq!(rows(&fleet).await, 1);
    // It is far enough behind: a new one takes the place of the damaged one.
    let good = next_snapshot(&broker, &[newer]).await;
    assert_eq!(good[0], older);
    said(&leader, &format!("removed snapshot {newer} of the control log: it is damaged")).await;

    // Without any, the log alone is as good as long as it is whole.
    for seq in good {
        broker.drop_snapshot(seq).await.expect("removed");
    }
    leader = restarted(&fleet, leader, "s4").await;
    assert!(!leader.complaints().contains("continues from"), "{}", leader.complaints());
    assert_eq!(rows(&fleet).await, 1);
    let good = next_snapshot(&broker, &[]).await;
    leader.signal(Signal::KILL);
    let _killed = leader.output().await;

    // Trimmed, with a snapshot that covers it and then without.
    broker.trim_control(good[0] + 1).await.expect("trimmed");
    let leader = supervisor(&fleet, "s5").await;
    said(&leader, &format!("continues from snapshot {} ", good[0])).await;
    assert_eq!(rows(&fleet).await, 1);
    leader.signal(Signal::KILL);
    let _killed = leader.output().await;
    broker.trim_control(good[0] + 2).await.expect("trimmed");
    let refused = fleet.cli(["supervisor", "--id", "s6"]).await.exit(4);
    let refused = refused.says(&format!("skips snapshot {} ", good[0]));
    refused.says(&format!("the control log begins with record {}", good[0] + 2));
}

/// Bounds how many records the stream of snapshots takes; -1 is no bound.
async fn bound(raw: &client::Client, stream: &str, records: i64) {
    let ask = async |what: &str, body: String| {
        let subject = format!("$JS.API.STREAM.{what}.{stream}");
        let answer = raw.request(subject, body.into()).await.expect("an answer");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        assert_eq!(answer["error"], Value::Null);
        answer
    };
    let mut config = ask("INFO", String::new()).await["config"].clone();
    config["max_msgs"] = records.into();
    ask("UPDATE", config.to_string()).await;
}

#[tokio::test]
async fn a_leader_that_dies_between_two_chunks_leaves_nothing_that_is_believed() {
    let port = free_port();
    let fleet = fleet_at(port);
    // Some megabytes of state.
    for number in 0..39 {
        let soul = format!("MODEL test/model\nSOUL {}\n", "words ".repeat(16_000));
        fleet.soul(&format!("big{number}"), &soul);
    }
    let _server = server_at(&fleet, port, "");
    let leader = supervisor(&fleet, "s1").await;
    apply(&fleet).await;
    let broker = broker_at(port).await;
    let raw = client::connect(format!("127.0.0.1:{port}")).await.expect("a client");
    // It comes as far as the fifth chunk, and is killed there.
    let stream = broker.subjects().stream("SNAPSHOTS");
    bound(&raw, &stream, 5).await;
    fill(&broker, EVERY).await;
    said(&leader, "cannot write snapshot").await;
    leader.signal(Signal::KILL);
    let said_last = leader.output().await.stderr;
    assert!(!said_last.contains("panicked"), "{said_last}");
    assert_eq!(snapshots(&broker).await, (vec![], 1));
    bound(&raw, &stream, -1).await;

    let leader = supervisor(&fleet, "s2").await;
    said(&leader, "it is damaged: chunk 6 of ").await;
    assert!(!leader.complaints().contains("continues from"), "{}", leader.complaints());
    assert_eq!(rows(&fleet).await, 40);
    // The next one is whole, and the rest of the other is removed.
    let good = next_snapshot(&broker, &[]).await;
    assert_eq!(good.len(), 1);
    let leader = restarted(&fleet, leader, "s3").await;
    said(&leader, &format!("continues from snapshot {} ", good[0])).await;
    assert_eq!(rows(&fleet).await, 40);
}
