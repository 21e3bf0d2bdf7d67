//! The control log: followed without a gap, whatever happens to the server.

use broker::{Broker, ControlFollower, ControlItem};
use common::Timestamp;
use common::control::{ControlEvent, ControlRecord};

use crate::support::{Server, agent, soon};

fn record(name: &str, at: u64) -> ControlRecord {
    ControlRecord {
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
    let (record, id) = (record(name, at), format!("{name}-{at}"));
    let appended = broker.append_control(&record, &id).await;
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
async fn a_record_that_does_not_parse_is_shown_and_passed() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let subject = broker.subjects().control(&agent("a"));
    broker.tell(subject, "{".into()).await.expect("told");
    broker.flush(crate::support::SOON).await.expect("flushed");
    append(&broker, "a", 1).await;
    let mut follower = broker.follow_control(1, None).await.expect("following");
    let item = next(&mut follower).await;
    assert!(matches!(item, ControlItem::Malformed { seq: 1, .. }), "{item:?}");
    let item = next(&mut follower).await;
    assert!(matches!(item, ControlItem::Record { seq: 2, .. }), "{item:?}");
}

#[tokio::test]
async fn killed_servers_leave_no_gap_and_nothing_twice() {
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
            let expected = ControlItem::Record { seq: at, record: Box::new(record("a", at)) };
            assert_eq!(next(&mut follower).await, expected);
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
