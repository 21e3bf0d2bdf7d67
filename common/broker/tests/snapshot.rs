//! Snapshots of the control log: whole and of this log, or not believed; and what the log may lose for them.

use async_nats::HeaderMap;
use broker::{Broker, Loaded};
use common::Timestamp;
use common::control::{ControlEvent, ControlRecord};
use common::snapshot::{Doubt, Logged, SnapshotHead};
use serde_json::json;

use crate::support::{SOON, Server, agent, is_alone, soon};

fn record(name: &str, at: u64) -> ControlRecord {
    ControlRecord {
        id: Some(format!("{name}-{at}")),
        at: Timestamp::from_millis(at),
        term: None,
        author: "test".into(),
        event: ControlEvent::AgentStarted { agent: agent(name) },
    }
}

/// Appends so many records about an agent.
async fn append(broker: &Broker, name: &str, records: std::ops::RangeInclusive<u64>) {
    for at in records {
        broker.append_control(&record(name, at)).await.expect("appended");
    }
}

/// The head of a snapshot as of a record that is in the log now.
async fn head(broker: &Broker, seq: u64) -> SnapshotHead {
    let mut log = broker.follow_control(seq, None).await.expect("following");
    let item = soon(log.next()).await.expect("an item");
    let broker::ControlItem::Record { seq: found, at, record } = item else { panic!("{item:?}") };
    assert_eq!(found, seq);
    SnapshotHead { format: 1, seq, last: Logged { at, id: record.id }, term: 5, rules: 3 }
}

/// Some content of so many bytes.
fn content(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| b'a' + ((n * 7 + seed) % 26) as u8).collect()
}

/// Writes a snapshot of more than two chunks.
async fn write(broker: &Broker, seq: u64) -> Vec<u8> {
    let json = content(seq, 600_000);
    let head = head(broker, seq).await;
    broker.write_snapshot(&head, json.clone().into()).await.expect("written");
    json
}

async fn load(broker: &Broker) -> Loaded<Vec<u8>> {
    let loaded = broker.load_snapshot(|_, json| Ok(json.to_vec())).await;
    loaded.expect("an answer")
}

/// What is found, and what is doubted.
async fn found(broker: &Broker) -> (Option<u64>, Vec<(u64, Doubt)>) {
    let loaded = load(broker).await;
    (loaded.found.map(|(head, _)| head.seq), loaded.doubted)
}

async fn api(server: &Server, what: &str, body: serde_json::Value) -> serde_json::Value {
    let subject = format!("$JS.API.{what}");
    let answer = server.client().await.request(subject, body.to_string().into()).await;
    let answer = serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON");
    let answer: serde_json::Value = answer;
    assert_eq!(answer["error"], json!(null), "{what}");
    answer
}

async fn messages(server: &Server) -> u64 {
    let info = api(server, "STREAM.INFO.MOZART_test_SNAPSHOTS", json!({})).await;
    info["state"]["messages"].as_u64().expect("a number")
}

/// A record of SNAPSHOTS, out of it.
async fn remove(server: &Server, seq: u64) {
    let body = json!({ "seq": seq, "no_erase": true });
    api(server, "STREAM.MSG.DELETE.MOZART_test_SNAPSHOTS", body).await;
}

#[tokio::test]
async fn a_snapshot_comes_back_as_it_was_written_also_after_a_kill() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let loaded = load(&broker).await;
    assert!(loaded.found.is_none() && loaded.doubted.is_empty() && loaded.is_whole());
    append(&broker, "a", 1..=4).await;
    let json = write(&broker, 3).await;
    assert_eq!(messages(&server).await, 3, "chunks of 256 KiB");
    let again = write(&broker, 3).await;
    assert_eq!((again, messages(&server).await), (json.clone(), 3), "a second time is once");
    server.kill_and_revive().await;
    let loaded = load(&broker).await;
    let (read, text) = loaded.found.expect("it is there");
    assert_eq!((read, text), (head(&broker, 3).await, json));
    assert_eq!((loaded.extent.first, loaded.extent.last), (1, 4));
    assert_eq!(loaded.doubted, []);
}

#[tokio::test]
async fn the_newest_that_is_whole_is_used_and_the_others_are_named() {
    let server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1..=9).await;
    for seq in [3, 6, 9] {
        write(&broker, seq).await;
    }
    assert_eq!(found(&broker).await, (Some(9), vec![]));
    // A chunk of the newest is missing: its records are 7 to 9.
    remove(&server, 8).await;
    let missing =
        |of: u64, chunk: u64| (of, Doubt::Damaged(format!("chunk {chunk} of 3 is missing")));
    assert_eq!(found(&broker).await, (Some(6), vec![missing(9, 2)]));
    // And one of the next has another content.
    let stolen = api(&server, "STREAM.MSG.GET.MOZART_test_SNAPSHOTS", json!({ "seq": 6 })).await;
    assert_eq!(stolen["message"]["subject"], "mozart.test.snapshot.6");
    let taken = server.client().await;
    let got =
        taken.request("$JS.API.DIRECT.GET.MOZART_test_SNAPSHOTS", r#"{"seq":6}"#.into()).await;
    let got = got.expect("an answer");
    remove(&server, 6).await;
    let mut headers = HeaderMap::new();
    for (name, values) in got.headers.expect("headers").iter() {
        if name.to_string().starts_with("Mozart-") {
            headers.insert(name.clone(), values[0].clone());
        }
    }
    let mut payload = got.payload.to_vec();
    payload[10] ^= 1;
    let put = taken.request_with_headers("mozart.test.snapshot.6", headers, payload.into()).await;
    put.expect("stored");
    let checksum = Doubt::Damaged("its checksum is not that of its content".into());
    assert_eq!(found(&broker).await, (Some(3), vec![missing(9, 2), (6, checksum)]));
    remove(&server, 1).await;
    let (none, doubted) = found(&broker).await;
    assert_eq!((none, doubted.len()), (None, 3));
    assert!(load(&broker).await.is_whole(), "the log begins with its first record");
}

#[tokio::test]
async fn a_write_that_was_cut_off_is_none_and_its_repetition_is_one() {
    let server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1..=3).await;
    let json = write(&broker, 2).await;
    // As if its writer had been killed after a chunk, and after two.
    for left in [3, 2] {
        remove(&server, left).await;
        let (none, doubted) = found(&broker).await;
        let missing = Doubt::Damaged(format!("chunk {left} of 3 is missing"));
        assert_eq!((none, doubted), (None, vec![(2, missing)]));
    }
    // The server forgets ids of chunks after two minutes; another leader's are new at once, since it takes a later one.
    write(&broker, 3).await;
    let loaded = load(&broker).await;
    assert_eq!(loaded.found.expect("whole").0.seq, 3);
    assert_eq!(loaded.doubted, []);
    assert_ne!(json, load(&broker).await.found.expect("whole").1);
}

#[tokio::test]
async fn what_the_reader_does_not_know_is_skipped() {
    let server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1..=3).await;
    write(&broker, 2).await;
    let newer = SnapshotHead { rules: 4, ..head(&broker, 3).await };
    broker.write_snapshot(&newer, "{}".into()).await.expect("written");
    let known = |head: &SnapshotHead, _: &[u8]| match head.rules {
        ..=3 => Ok(()),
        rules => Err(Doubt::Rules(rules)),
    };
    let loaded = broker.load_snapshot(known).await.expect("an answer");
    assert_eq!(loaded.found.expect("the one before").0.seq, 2);
    assert_eq!(loaded.doubted, [(3, Doubt::Rules(4))]);
    let (_, judged) = broker.judge_snapshots(known).await.expect("an answer");
    assert_eq!(judged, [(2, None), (3, Some(Doubt::Rules(4)))]);
}

#[tokio::test]
async fn a_snapshot_of_another_log_is_not_believed() {
    let server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1..=4).await;
    write(&broker, 3).await;
    // The log is made anew.
    api(&server, "STREAM.DELETE.MOZART_test_CONTROL", json!({})).await;
    let broker = server.broker().await;
    assert_eq!(found(&broker).await, (None, vec![(3, Doubt::Beyond { last: 0 })]));
    append(&broker, "b", 1..=2).await;
    assert_eq!(found(&broker).await, (None, vec![(3, Doubt::Beyond { last: 2 })]));
    append(&broker, "b", 3..=9).await;
    assert_eq!(found(&broker).await, (None, vec![(3, Doubt::OtherLog)]));
    // The same records at another time are another log.
    api(&server, "STREAM.DELETE.MOZART_test_CONTROL", json!({})).await;
    let broker = server.broker().await;
    append(&broker, "a", 1..=4).await;
    assert_eq!(found(&broker).await, (None, vec![(3, Doubt::OtherLog)]));
}

#[tokio::test]
async fn a_trimmed_log_needs_a_snapshot_that_covers_what_is_gone() {
    let server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1..=10).await;
    write(&broker, 5).await;
    // The record that the snapshot ends with stays, and then goes as well.
    for (first, gone) in [(5, 4), (6, 1)] {
        assert_eq!(broker.trim_control(first).await.expect("trimmed"), gone);
        let loaded = load(&broker).await;
        assert_eq!((loaded.extent.first, loaded.is_whole()), (first, true));
        assert_eq!(loaded.found.expect("it covers").0.seq, 5);
    }
    broker.trim_control(7).await.expect("trimmed");
    let loaded = load(&broker).await;
    assert_eq!(loaded.doubted, [(5, Doubt::Gap { first: 7 })]);
    assert!(loaded.found.is_none() && !loaded.is_whole());
}

#[tokio::test]
async fn a_removed_snapshot_leaves_the_others() {
    let server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1..=3).await;
    write(&broker, 2).await;
    write(&broker, 3).await;
    broker.drop_snapshot(2).await.expect("removed");
    broker.drop_snapshot(2).await.expect("it may be gone already");
    assert_eq!(found(&broker).await, (Some(3), vec![]));
    assert_eq!(messages(&server).await, 3);
}

#[tokio::test]
async fn the_first_record_that_is_young_is_found_by_the_logs_own_time() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let before = broker.clock().await.expect("it tells");
    assert_eq!(broker.control_since(before).await.expect("an answer"), 1, "the next one");
    append(&broker, "a", 1..=3).await;
    let third = head(&broker, 3).await.last.at;
    // Times are told in milliseconds: the next record must not share one.
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(2));
    while broker.clock().await.expect("it tells") <= third {
        tick.tick().await;
    }
    let between = broker.clock().await.expect("it tells");
    append(&broker, "a", 4..=6).await;
    let since = async |at| broker.control_since(at).await.expect("an answer");
    assert_eq!(since(before).await, 1);
    assert_eq!(since(Timestamp::default()).await, 1);
    assert_eq!(since(between).await, 4);
    assert_eq!(since(between.after(SOON)).await, 7);
    broker.trim_control(3).await.expect("trimmed");
    assert_eq!(since(before).await, 3);
}

#[tokio::test]
async fn what_a_trimmed_log_holds_no_more_of_is_told_by_the_snapshot() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let fleet = |term| ControlRecord {
        id: None,
        term,
        event: ControlEvent::LeaderElected { supervisor: "s".into(), run: "r".into(), rules: 3 },
        ..record("a", 1)
    };
    broker.append_control(&fleet(None)).await.expect("appended");
    append(&broker, "a", 1..=9).await;
    assert_eq!(broker.newest_term().await.expect("an answer"), 1);
    let head = SnapshotHead { term: 1, ..head(&broker, 8).await };
    let json = json!({ "agents": { "quiet": {} }, "other": 1 }).to_string();
    broker.write_snapshot(&head, json.into()).await.expect("written");
    broker.trim_control(8).await.expect("trimmed");
    // Elections are about no agent, and there is no such record left.
    assert_eq!(broker.newest_term().await.expect("an answer"), 1);
    for (name, there) in [("quiet", true), ("b", false)] {
        let known = broker.agent_in_snapshot(&agent(name)).await.expect("an answer");
        assert_eq!(known, Some((8, there)));
    }
    // A leader's record of a term whose election is gone, and one of a term that came later.
    let lost = |term| {
        let event = ControlEvent::NodeLost { node: "n".parse().expect("valid") };
        ControlRecord { event, ..fleet(Some(term)) }
    };
    broker.append_control(&lost(1)).await.expect("appended");
    assert_eq!(broker.newest_term().await.expect("an answer"), 1);
    let elected = broker.append_control(&fleet(None)).await.expect("appended").seq;
    broker.append_control(&lost(1)).await.expect("appended");
    assert_eq!(broker.newest_term().await.expect("an answer"), elected);
}

#[tokio::test]
async fn a_look_back_begins_at_the_end_and_stops_where_it_is_told_to() {
    let server = Server::start().await;
    let broker = server.broker().await;
    // More than one step back, and other agents' records between.
    let (a, b) = (agent("a"), agent("b"));
    let appends = (1..=3_000_u64).map(|at| {
        let (broker, name) = (&broker, if at % 3 == 0 { "a" } else { "b" });
        async move { broker.append_control(&record(name, at)).await.expect("appended") }
    });
    let appended = futures_util::future::join_all(appends).await;
    let mut expected: Vec<u64> = appended.iter().map(|appended| appended.seq).collect();
    expected.sort_unstable();
    assert_eq!(expected, (1..=3_000).collect::<Vec<_>>());
    let mut seen = Vec::new();
    let all = |seq, _, record: &ControlRecord| {
        assert_eq!(record.event.agent(), Some(&a));
        seen.push(seq);
        None::<()>
    };
    assert_eq!(broker.look_back(&a, 1, all).await.expect("an answer"), None);
    assert_eq!(seen.len(), 1_000);
    assert!(seen.is_sorted_by(|one, other| one > other), "the newest first");
    // Not beyond where it is to end, and not beyond what is found.
    let newest = seen[0];
    let mut looked = 0;
    let one = |seq, _, _: &ControlRecord| {
        looked += 1;
        Some(seq)
    };
    assert_eq!(broker.look_back(&a, 1, one).await.expect("an answer"), Some(newest));
    assert_eq!(looked, 1);
    let oldest = broker.look_back(&b, 2_900, |seq, _, _| (seq < 2_900).then_some(seq)).await;
    assert_eq!(oldest.expect("an answer"), None);
    broker.trim_control(2_990).await.expect("trimmed");
    let gone = broker.look_back(&b, 1, |seq, _, _| (seq < 2_990).then_some(seq)).await;
    assert_eq!(gone.expect("an answer"), None);
    let none = broker.look_back(&agent("c"), 1, |seq, _, _| Some(seq)).await;
    assert_eq!(none.expect("an answer"), None);
}

#[tokio::test]
async fn a_fleet_of_a_version_without_snapshots_has_none() {
    if !is_alone() {
        // One server is enough to tell.
        return;
    }
    let server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1..=2).await;
    api(&server, "STREAM.DELETE.MOZART_test_SNAPSHOTS", json!({})).await;
    let loaded = load(&broker).await;
    assert!(loaded.found.is_none() && loaded.doubted.is_empty() && loaded.is_whole());
    assert_eq!(broker.agent_in_snapshot(&agent("a")).await.expect("an answer"), None);
}
