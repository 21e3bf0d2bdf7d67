//! Copying a namespace, and filling another one: everything in its order, with its times, and nobody uses what is not whole.

use broker::{Broker, BrokerError, Copied, Part, SendOutcome, StreamOptions};
use common::control::{ControlEvent, ControlRecord};
use common::message::DeadLetter;
use common::{Namespace, Timestamp};

use crate::support::{SOON, Server, agent, completed, envelope, key, soon};

const FIRST: u64 = 1_000_000;

fn options(journal_shards: u32) -> StreamOptions {
    StreamOptions { journal_shards, replicas: None }
}

/// A connection that restores to a namespace.
async fn begin(server: &Server, namespace: &str, shards: u32) -> Broker {
    let mut to = server.options();
    to.namespace = Namespace::new(namespace).expect("valid");
    Broker::begin_restore(&to, &options(shards), FIRST).await.expect("it is empty")
}

fn record(event: ControlEvent) -> ControlRecord {
    let (id, at) = (None, Timestamp::from_millis(1));
    ControlRecord { id, at, term: None, author: "test".into(), event }
}

async fn send(broker: &Broker, agent: &str, id: &str) -> Timestamp {
    let sent = broker.send(&envelope(agent, id), SOON).await.expect("sent");
    assert!(matches!(sent, SendOutcome::Stored { .. }), "{sent:?}");
    let stored = broker.request_of(&key(agent, id)).await.expect("an answer").expect("it is there");
    stored.at
}

/// All records of a stream.
async fn all(broker: &Broker, part: Part) -> Vec<Copied> {
    let extract = broker.extract(part).await.expect("an answer").expect("it is there");
    let mut copying = broker.copy(part, extract.first, extract.last);
    let mut records = Vec::new();
    while let Some(record) = copying.next().await.expect("an answer") {
        records.push(record);
    }
    records
}

#[tokio::test]
async fn a_namespace_that_is_being_restored_is_refused_until_that_has_ended() {
    let server = Server::start().await;
    let restoring = begin(&server, "test", 2).await;
    let extent = restoring.control_extent().await.expect("an answer");
    assert_eq!((extent.first, extent.last), (FIRST, FIRST - 1));
    let refused = |error: BrokerError| {
        assert!(matches!(&error, BrokerError::Restoring(name) if name == "test"), "{error}");
    };
    refused(Broker::connect(&server.options()).await.expect_err("it is not whole"));
    // A supervisor that starts meanwhile.
    let made = Broker::connect_and_create(&server.options(), &options(2)).await;
    refused(made.expect_err("it is not whole"));

    // It was interrupted: what it has left is removed.
    let mut filler = restoring.fill_part(Part::Journal(0)).await.expect("an answer");
    let shard = (0..9).find(|n| restoring.subjects().shard(&agent(&format!("a{n}"))) == 0);
    let subject = format!("journal.a{}.user.m1.c1.request", shard.expect("one of them"));
    let (headers, payload) = (Vec::new(), "{}".into());
    let at = Timestamp::from_millis(1);
    filler.add(Copied { seq: 1, at, subject, headers, payload }).await.expect("added");
    assert_eq!(filler.end().await.expect("stored"), 1);
    let restoring = begin(&server, "test", 2).await;
    assert_eq!(all(&restoring, Part::Journal(0)).await, []);

    restoring.end_restore().await.expect("ended");
    let broker = Broker::connect(&server.options()).await.expect("it is whole");
    assert_eq!(broker.subjects().shards(), 2);
    // The streams are what a supervisor would have made.
    let config = async |name: &str| {
        let subject = format!("$JS.API.STREAM.INFO.{name}");
        let answer = server.client().await.request(subject, "".into()).await.expect("an answer");
        let mut info: serde_json::Value = serde_json::from_slice(&answer.payload).expect("JSON");
        for own in ["name", "subjects", "republish", "first_seq"] {
            info["config"].as_object_mut().expect("an object").remove(own);
        }
        info["config"].take()
    };
    let _fresh = server.broker_in("fresh", 2).await;
    for stream in ["CONTROL", "JOURNAL_1", "HISTORY", "FILES", "DEAD", "ATTEMPTS", "LOGS"] {
        let restored = config(&format!("MOZART_test_{stream}")).await;
        assert_eq!(restored, config(&format!("MOZART_fresh_{stream}")).await, "{stream}");
    }
    let made = Broker::connect_and_create(&server.options(), &options(1)).await;
    assert_eq!(made.expect("a supervisor starts").subjects().shards(), 2);
    let stopped = ControlEvent::AgentStopped { agent: agent("a") };
    let appended = broker.append_control(&record(stopped)).await.expect("appended");
    assert_eq!(appended.seq, FIRST);
}

#[tokio::test]
async fn only_a_namespace_without_agents_and_messages_is_restored_to() {
    let server = Server::start().await;
    let broker = server.broker_of(1).await;
    // As a supervisor leaves it that has just been there.
    let elected = ControlEvent::LeaderElected { supervisor: "s".into(), run: "r".into(), rules: 4 };
    broker.append_control(&record(elected)).await.expect("appended");
    Broker::may_restore(&server.options()).await.expect("nobody would miss it");

    let refused = async |what: &str| {
        let error = Broker::begin_restore(&server.options(), &options(1), FIRST).await;
        let error = error.expect_err("it is in use").to_string();
        assert!(error.contains(what) && error.contains("namespace test"), "{error}");
        Broker::may_restore(&server.options()).await.expect_err("it is in use");
    };
    send(&broker, "a", "m1").await;
    refused("JOURNAL").await;
    assert!(broker.request_of(&key("a", "m1")).await.expect("an answer").is_some(), "untouched");

    let other = server.broker_in("other", 1).await;
    let stopped = ControlEvent::AgentStopped { agent: agent("a") };
    other.append_control(&record(stopped)).await.expect("appended");
    let mut to = server.options();
    to.namespace = Namespace::new("other").expect("valid");
    let error = Broker::may_restore(&to).await.expect_err("there is an agent");
    assert!(error.to_string().contains("1 agents"), "{error}");
}

#[tokio::test]
async fn records_come_back_in_their_order_with_their_times_also_to_another_number_of_shards() {
    let server = Server::start().await;
    let from = server.broker_of(2).await;
    let mut asked = Vec::new();
    for agent in ["a", "b", "c"] {
        for id in ["m1", "m2", "m3"] {
            asked.push((key(agent, id), send(&from, agent, id).await));
        }
        let key = key(agent, "m1");
        let tag = envelope(agent, "m1").conversation_id;
        let tag = common::ConversationTag::of(&tag, &key.message_id);
        from.publish_final(&key, &tag, &completed("yes"), "a-1", SOON).await.expect("stored");
    }
    let answered = from.final_of(&key("a", "m1")).await.expect("an answer").expect("it is there");
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;

    for (namespace, shards) in [("one", 1), ("three", 3), ("five", 5)] {
        let to = begin(&server, namespace, shards).await;
        for shard in 0..2 {
            for record in all(&from, Part::Journal(shard)).await {
                let agent = record.subject.split('.').nth(1).expect("an agent").parse();
                let part = Part::Journal(to.subjects().shard(&agent.expect("a name")));
                let mut filler = to.fill_part(part).await.expect("an answer");
                filler.add(record).await.expect("added");
                filler.end().await.expect("stored");
            }
        }
        to.end_restore().await.expect("ended");
        for (key, at) in &asked {
            let there = to.request_of(key).await.expect("an answer").expect("it is there");
            assert_eq!(there.at, *at, "{key:?}");
        }
        let there = to.final_of(&key("a", "m1")).await.expect("an answer").expect("it is there");
        assert_eq!((there.at, there.value), (answered.at, answered.value.clone()));
        let open = to.open_requests(&agent("b"), 1, 9).await.expect("an answer").open;
        let ids: Vec<_> = open.iter().map(|(_, key, _)| key.message_id.as_str()).collect();
        assert_eq!(ids, ["m2", "m3"]);
        // And once more from there: as they were in the first.
        let of_agent = async |broker: &Broker| {
            let shard = broker.subjects().shard(&agent("a"));
            let mut records = all(broker, Part::Journal(shard)).await;
            records.retain(|record| record.subject.starts_with("journal.a."));
            records.iter_mut().for_each(|record| record.seq = 0);
            records
        };
        assert_eq!(of_agent(&to).await, of_agent(&from).await);
    }
}

#[tokio::test]
async fn what_is_open_after_a_restore_is_told_and_what_has_moved_is_not() {
    let server = Server::start().await;
    let to = begin(&server, "test", 1).await;
    for id in ["m1", "m2", "m3"] {
        send(&to, "a", id).await;
        let letter = DeadLetter {
            envelope: envelope("a", id),
            reason: "no".into(),
            attempts: Vec::new(),
            log: Vec::new(),
            at: Timestamp::from_millis(1),
            redriven_as: None,
            cut: false,
        };
        if id != "m3" {
            assert!(to.bury(&letter).await.expect("an answer"));
        }
    }
    // m1 was moved while the backup was taken: its request had been read by then.
    let payload = serde_json::json!({
        "key": key("a", "m1"),
        "final": completed("yes"),
        "finished": { "seq": 2, "at": Timestamp::from_millis(1) },
    });
    let moved = Copied {
        seq: 1,
        at: Timestamp::from_millis(1),
        subject: "history.a.c".into(),
        headers: vec![("Mozart-Id".into(), "m1".into()), ("Mozart-Origin".into(), "0:2:x".into())],
        payload: payload.to_string().into_bytes().into(),
    };
    let origin = moved.origin().expect("it has one");
    assert_eq!((origin.shard, origin.seq, origin.made.as_str()), (0, 2, "x"));
    let mut filler = to.fill_part(Part::History).await.expect("an answer");
    filler.add(moved).await.expect("added");
    filler.end().await.expect("stored");
    to.index_history().await.expect("indexed");

    let open = to.open_after_restore(&agent("a")).await.expect("an answer");
    let ids: Vec<_> = open.iter().map(|(key, _)| key.message_id.as_str()).collect();
    assert_eq!(ids, ["m2", "m3"]);
    assert!(to.request_of(&key("a", "m1")).await.expect("an answer").is_none());
    assert!(to.archived_of(&key("a", "m1")).await.expect("an answer").is_some());
    // The letter of one that is finished stays.
    let letter = async |id| to.dead_letter(&key("a", id)).await.expect("an answer").is_some();
    assert_eq!((letter("m1").await, letter("m2").await), (true, false));
}

/// Many records of one agent, the nth with its number in it.
fn many(count: u64) -> impl Iterator<Item = Copied> {
    (1..=count).map(|seq| Copied {
        seq,
        at: Timestamp::from_millis(seq),
        subject: format!("journal.a.user.m{seq}.c.request"),
        headers: Vec::new(),
        payload: seq.to_string().into_bytes().into(),
    })
}

#[tokio::test]
async fn a_server_that_dies_meanwhile_gets_each_record_once() {
    // One that is written in batches, and one that is not.
    for part in [Part::Journal(0), Part::Attempts] {
        let mut server = Server::start().await;
        let to = begin(&server, "test", 1).await;
        let mut filler = to.fill_part(part).await.expect("an answer");
        for mut record in many(3_000) {
            // What a stream that is not synced has confirmed may be lost with the server.
            if record.seq == 1_200 && part != Part::Attempts {
                server.kill_and_revive().await;
            }
            if part == Part::Attempts {
                record.subject = format!("attempts.a.user.m{}", record.seq);
            }
            soon(filler.add(record)).await.expect("added");
        }
        assert_eq!(soon(filler.end()).await.expect("stored"), 3_000);
        let there = all(&to, part).await;
        let numbers: Vec<_> = there.iter().map(|record| record.at.as_millis()).collect();
        assert_eq!(numbers, (1..=3_000).collect::<Vec<_>>(), "{part}");
    }
}

#[tokio::test]
async fn a_stream_that_somebody_else_writes_to_is_not_filled() {
    let server = Server::start().await;
    let to = begin(&server, "test", 1).await;
    let mut filler = to.fill_part(Part::Journal(0)).await.expect("an answer");
    for record in many(10) {
        filler.add(record).await.expect("added");
    }
    for id in 0..20 {
        send(&to, "b", &format!("m{id}")).await;
    }
    let error = filler.end().await.expect_err("it has other records").to_string();
    assert!(error.contains("has other records"), "{error}");
}
