//! The control log: followed without a gap, whatever happens to the server.

use std::time::Duration;

use broker::{Broker, ControlFollower, ControlItem, Extent};
use common::Timestamp;
use common::control::{ControlEvent, ControlRecord};

use crate::support::{Server, agent, is_alone, soon};

fn record(name: &str, at: u64) -> ControlRecord {
    ControlRecord {
        id: Some(format!("{name}-{at}")),
        at: Timestamp::from_millis(at),
        term: None,
        author: "test".into(),
        event: ControlEvent::AgentStarted { agent: agent(name) },
    }
}

async fn next(follower: &mut ControlFollower) -> ControlItem {
    soon(follower.next()).await.expect("an item")
}

async fn append(broker: &Broker, name: &str, at: u64) -> u64 {
    let appended = broker.append_control(&record(name, at)).await;
    appended.expect("appended").seq
}

#[tokio::test]
async fn a_follower_is_told_once_that_it_caught_up() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let mut empty = broker.follow_control(1, None).await.expect("following");
    assert_eq!(next(&mut empty).await, ControlItem::CaughtUp);
    for at in 1..=3 {
        append(&broker, "a", at).await;
    }
    for seq in 1..=3 {
        let item = next(&mut empty).await;
        assert!(matches!(item, ControlItem::Record { seq: s, .. } if s == seq), "{item:?}");
    }

    let mut late = broker.follow_control(2, None).await.expect("following");
    for seq in 2..=3 {
        let item = next(&mut late).await;
        assert!(matches!(item, ControlItem::Record { seq: s, .. } if s == seq), "{item:?}");
    }
    assert_eq!(next(&mut late).await, ControlItem::CaughtUp);
    assert_eq!(append(&broker, "a", 4).await, 4);
    let item = next(&mut late).await;
    assert!(matches!(item, ControlItem::Record { seq: 4, .. }), "{item:?}");
    assert_eq!(broker.control_last_seq().await.expect("an answer"), 4);
}

#[tokio::test]
async fn one_agents_part_holds_nothing_else() {
    let server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1).await;
    append(&broker, "b", 2).await;
    append(&broker, "a", 3).await;
    let followed = broker.follow_control(1, Some(&agent("a"))).await;
    let mut follower = followed.expect("following");
    for seq in [1, 3] {
        let item = next(&mut follower).await;
        assert!(matches!(item, ControlItem::Record { seq: s, .. } if s == seq), "{item:?}");
    }
    assert_eq!(next(&mut follower).await, ControlItem::CaughtUp);
    let last = broker.last_control(&agent("a")).await.expect("an answer");
    assert_eq!(last, Some(record("a", 3)));
    let none = broker.last_control(&agent("c")).await.expect("an answer");
    assert_eq!(none, None);
}

#[tokio::test]
async fn an_append_that_is_repeated_is_one_record() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    assert_eq!(append(&broker, "a", 1).await, 1);
    assert_eq!(append(&broker, "a", 1).await, 1);
    server.kill_and_revive().await;
    assert_eq!(append(&broker, "a", 1).await, 1);
    assert_eq!(broker.control_last_seq().await.expect("an answer"), 1);
}

#[tokio::test]
async fn a_record_that_does_not_parse_is_shown_as_far_as_it_can_be() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let subject = broker.subjects().control(&agent("a"));
    for payload in ["{", "{\"type\":\"leaderElected\",\"rules\":\"new\"}"] {
        broker.tell(subject.clone(), payload.into()).await.expect("told");
    }
    broker.flush(crate::support::SOON).await.expect("flushed");
    append(&broker, "a", 1).await;
    let mut follower = broker.follow_control(1, None).await.expect("following");
    for (expected, type_) in [(1, None), (2, Some("leaderElected"))] {
        let item = next(&mut follower).await;
        let ControlItem::Malformed { seq, subject: of, kind, .. } = item else {
            panic!("{item:?}");
        };
        assert_eq!((seq, of, kind.as_deref()), (expected, subject.clone(), type_));
    }
    let item = next(&mut follower).await;
    assert!(matches!(item, ControlItem::Record { seq: 3, .. }), "{item:?}");
}

#[tokio::test]
async fn the_time_of_a_record_is_the_logs_whatever_its_author_says() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let before = broker.clock().await.expect("it tells");
    append(&broker, "a", 1).await;
    append(&broker, "a", u64::MAX / 2_000_000).await;
    let after = broker.clock().await.expect("it tells");
    let mut follower = broker.follow_control(1, None).await.expect("following");
    for _ in 0..2 {
        let item = next(&mut follower).await;
        let ControlItem::Record { at, .. } = item else {
            panic!("{item:?}");
        };
        assert!(before <= at && at <= after, "{before} {at} {after}");
    }
}

#[tokio::test]
async fn a_log_that_was_trimmed_says_so() {
    let server = Server::start().await;
    let broker = server.broker().await;
    assert_eq!(broker.control_extent().await.expect("told"), Extent { first: 1, last: 0 });
    for at in 1..=5 {
        append(&broker, "a", at).await;
    }
    assert_eq!(broker.control_extent().await.expect("told"), Extent { first: 1, last: 5 });
    let client = server.client().await;
    for (keep, first) in [(2, 4), (0, 6)] {
        let body = serde_json::json!({ "keep": keep }).to_string();
        let purge = "$JS.API.STREAM.PURGE.MOZART_test_CONTROL";
        client.request(purge, body.into()).await.expect("purged");
        let extent = Extent { first, last: 5 };
        assert_eq!(broker.control_extent().await.expect("told"), extent);
    }
}

#[tokio::test]
async fn a_follower_does_not_go_on_over_records_that_were_removed_meanwhile() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1).await;
    let mut follower = broker.follow_control(1, None).await.expect("following");
    next(&mut follower).await;
    assert_eq!(next(&mut follower).await, ControlItem::CaughtUp);
    server.kill_and_revive().await;
    // Before the follower looks: it is not polled.
    for at in 2..=3 {
        append(&broker, "a", at).await;
    }
    let client = server.client().await;
    let purge = "$JS.API.STREAM.PURGE.MOZART_test_CONTROL";
    client.request(purge, "{\"keep\":1}".into()).await.expect("purged");
    let error = soon(follower.next()).await.expect_err("record 2 is gone");
    assert!(error.to_string().contains("lost records"), "{error}");
}

#[tokio::test]
async fn killed_servers_leave_no_gap_and_nothing_twice() {
    if !is_alone() {
        // A cluster that was dead as a whole elects for longer than an append is repeated.
        return;
    }
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let mut follower = broker.follow_control(1, None).await.expect("following");
    assert_eq!(next(&mut follower).await, ControlItem::CaughtUp);
    const RECORDS: u64 = 600;
    let appending = async {
        for at in 1..=RECORDS {
            append(&broker, "a", at).await;
        }
    };
    let killing = async {
        let mut link = broker.link();
        for epoch in 2..=4 {
            server.kill_and_revive().await;
            let back = link.wait_for(|link| link.up && link.epoch >= epoch);
            soon(back).await.expect("open");
        }
    };
    let following = async {
        for at in 1..=RECORDS {
            let ControlItem::Record { seq, record: found, .. } = next(&mut follower).await else {
                panic!("not record {at}");
            };
            assert_eq!((seq, *found), (at, record("a", at)));
        }
    };
    tokio::join!(appending, killing, following);
}

#[tokio::test]
async fn what_was_stored_while_the_server_was_away_is_caught_up() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    // More than fit into one window of the server's flow control.
    let appends = (1..=20_000_u64).collect::<Vec<_>>();
    for chunk in appends.chunks(500) {
        let appends = chunk.iter().map(|at| append(&broker, "a", *at));
        futures_util::future::join_all(appends).await;
    }
    let mut follower = broker.follow_control(1, None).await.expect("following");
    for seq in 1..=20_000 {
        if seq == 7000 {
            server.kill_and_revive().await;
        }
        let item = next(&mut follower).await;
        assert!(matches!(item, ControlItem::Record { seq: s, .. } if s == seq), "{item:?}");
    }
    assert_eq!(next(&mut follower).await, ControlItem::CaughtUp);
}

/// What was asked meanwhile is repeated, and all of it is there when the server goes on.
#[tokio::test]
async fn a_follower_starts_at_a_server_that_stood_still() {
    let server = Server::start().await;
    let broker = server.broker().await;
    append(&broker, "a", 1).await;
    server.freeze();
    // Long enough for two more tries, and not for the call to be given up.
    let frozen = async {
        tokio::time::sleep(std::time::Duration::from_millis(4_500)).await;
        server.thaw();
    };
    let (follower, ()) = tokio::join!(soon(broker.follow_control(1, None)), frozen);
    let mut follower = follower.expect("following");
    let item = next(&mut follower).await;
    assert!(matches!(item, ControlItem::Record { seq: 1, .. }), "{item:?}");
    assert_eq!(next(&mut follower).await, ControlItem::CaughtUp);
}

#[tokio::test]
async fn the_newest_election_is_found_whatever_came_after_it() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let node: common::NodeName = "n".parse().expect("valid");
    let elected =
        || ControlEvent::LeaderElected { supervisor: "s".into(), run: "r".into(), rules: 1 };
    let lost = || ControlEvent::NodeLost { node: node.clone() };
    let mut seq = 0;
    let mut say = async |term: Option<u64>, event: ControlEvent| {
        seq += 1;
        let at = Timestamp::default();
        let record = ControlRecord { id: None, at, term, author: "test".into(), event };
        let appended = broker.append_control(&record).await.expect("appended");
        assert_eq!(appended.seq, seq);
        broker.newest_term().await.expect("an answer")
    };
    assert_eq!(broker.newest_term().await.expect("an answer"), 0);
    assert_eq!(say(None, elected()).await, 1);
    assert_eq!(say(None, record("a", 1).event).await, 1, "what is about agents does not matter");
    assert_eq!(say(Some(1), lost()).await, 1);
    assert_eq!(say(None, elected()).await, 4);
    // The one before may write for a while.
    assert_eq!(say(Some(1), lost()).await, 4);
    assert_eq!(say(Some(4), lost()).await, 4);
    // What cannot be, and what names no term.
    assert_eq!(say(Some(99), lost()).await, 4);
    assert_eq!(say(None, lost()).await, 4);
    assert_eq!(say(None, elected()).await, 9);
}

#[tokio::test]
async fn a_follower_that_the_server_refuses_for_a_while_goes_on_afterwards() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let client = server.client().await;
    let api = async |what: &str, body: serde_json::Value| {
        let answer = client.request(format!("$JS.API.{what}"), body.to_string().into()).await;
        let answer = answer.expect("an answer");
        serde_json::from_slice::<serde_json::Value>(&answer.payload).expect("JSON")
    };
    let none = || serde_json::json!({});
    // The log as it is, but with room for one consumer.
    let mut config = api("STREAM.INFO.MOZART_test_CONTROL", none()).await["config"].take();
    config["max_consumers"] = 1.into();
    api("STREAM.DELETE.MOZART_test_CONTROL", none()).await;
    let made = api("STREAM.CREATE.MOZART_test_CONTROL", config).await;
    assert_eq!(made["config"]["max_consumers"], 1, "{made}");
    let mut follower = broker.follow_control(1, None).await.expect("following");
    assert_eq!(next(&mut follower).await, ControlItem::CaughtUp);

    // The follower's own is gone, and somebody else has the only one that there may be.
    let listed = api("CONSUMER.NAMES.MOZART_test_CONTROL", none()).await;
    let own = listed["consumers"][0].as_str().expect("its consumer").to_owned();
    let deleted = api(&format!("CONSUMER.DELETE.MOZART_test_CONTROL.{own}"), none()).await;
    assert_eq!(deleted["success"], true, "{deleted}");
    let config = serde_json::json!({
        "stream_name": "MOZART_test_CONTROL",
        "config": { "durable_name": "other", "ack_policy": "explicit" },
    });
    let made = api("CONSUMER.DURABLE.CREATE.MOZART_test_CONTROL.other", config).await;
    assert_eq!(made["name"], "other", "{made}");

    let later = async {
        // It notices the silence of its own after 12 s, and is refused.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let gone = api("CONSUMER.DELETE.MOZART_test_CONTROL.other", none()).await;
        assert_eq!(gone["success"], true, "{gone}");
        append(&broker, "a", 1).await;
    };
    let (next, ()) =
        tokio::join!(tokio::time::timeout(Duration::from_secs(30), follower.next()), later);
    let item = next.expect("it follows again").expect("no error");
    assert!(matches!(item, ControlItem::Record { .. }), "{item:?}");
}
