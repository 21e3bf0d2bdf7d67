//! The record of attempts: apart from the events, and gone with its message.

use broker::{AttemptMark, Broker, EventBatch};
use common::event::EventBody;
use common::message::{Final, MessageKey, Outcome};

use crate::events::{batch, text};
use crate::support::{SOON, Server, agent, completed, envelope, key, namesakes, soon};

async fn mark(broker: &Broker, key: &MessageKey) -> Option<AttemptMark> {
    broker.last_mark(key).await.expect("an answer")
}

fn delivered(attempt: u32) -> EventBatch {
    let incarnation = u64::from(attempt) + 6;
    batch(attempt, 1, vec![EventBody::Delivered { incarnation }, text("a")])
}

fn ended(attempt: u32) -> EventBatch {
    batch(attempt, 9, vec![text("b"), EventBody::Error { error: "x".into() }])
}

fn on_record(attempt: u32, ended: bool) -> Option<AttemptMark> {
    Some(AttemptMark { attempt, incarnation: u64::from(attempt) + 6, ended })
}

/// How many records ATTEMPTS holds.
async fn records(server: &Server) -> u64 {
    let client = server.client().await;
    let info = client.request("$JS.API.STREAM.INFO.MOZART_test_ATTEMPTS", "".into()).await;
    let info: serde_json::Value =
        serde_json::from_slice(&info.expect("an answer").payload).expect("JSON");
    info["state"]["messages"].as_u64().expect("a number")
}

#[tokio::test]
async fn the_mark_tells_the_furthest_attempt_and_whether_it_has_ended() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let m1 = key("a", "m1");
    assert_eq!(mark(&broker, &m1).await, None);
    let steps = [
        (delivered(1), on_record(1, false)),
        (batch(1, 3, vec![text("c")]), on_record(1, false)),
        (ended(1), on_record(1, true)),
        (delivered(2), on_record(2, false)),
        // Late words of the first.
        (ended(1), on_record(2, false)),
        (delivered(2), on_record(2, false)),
        (ended(2), on_record(2, true)),
    ];
    for (batch, expected) in steps {
        broker.publish_events(&batch).await.expect("stored");
        assert_eq!(mark(&broker, &m1).await, expected);
    }
}

#[tokio::test]
async fn messages_of_one_id_are_counted_apart() {
    let server = Server::start().await;
    let broker = server.broker().await;
    for (attempt, envelope) in (1..).zip(namesakes()) {
        let mut batch = delivered(attempt);
        (batch.agent, batch.sender) = (envelope.agent, envelope.sender);
        broker.publish_events(&batch).await.expect("stored");
    }
    for (attempt, envelope) in (1..).zip(namesakes()) {
        assert_eq!(mark(&broker, &envelope.key()).await, on_record(attempt, false));
    }
}

#[tokio::test]
async fn a_flood_of_events_takes_no_mark_with_it() {
    let server = Server::start().await;
    let broker = server.broker().await;
    broker.publish_events(&delivered(2)).await.expect("stored");
    // What a full EVENTS does with its oldest records, and more.
    let client = server.client().await;
    let purge = client.request("$JS.API.STREAM.PURGE.MOZART_test_EVENTS", "".into()).await;
    purge.expect("an answer");
    assert_eq!(broker.events(&key("a", "m1")).await.expect("an answer"), []);
    assert_eq!(mark(&broker, &key("a", "m1")).await, on_record(2, false));
}

#[tokio::test]
async fn the_marks_of_a_message_leave_with_its_final_state() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (envelope, other) = (envelope("a", "m1"), envelope("a", "m2"));
    let (key, tag) = (envelope.key(), envelope.tag());
    broker.publish_events(&delivered(1)).await.expect("stored");
    broker.publish_events(&ended(1)).await.expect("stored");
    let mut another = delivered(1);
    another.message_id = other.message_id.clone();
    broker.publish_events(&another).await.expect("stored");
    assert_eq!(records(&server).await, 3);
    let mut foreign = delivered(1);
    foreign.agent = agent("ab");
    broker.publish_events(&foreign).await.expect("stored");
    let marked = async || broker.marked(&agent("a")).await.expect("an answer");
    assert_eq!(marked().await, [key.clone(), other.key()].into());

    let final_ = completed("x");
    broker.publish_final(&key, &tag, &final_, "1.1", SOON).await.expect("stored");
    // Not awaited by whoever stored the final state.
    soon(async { while mark(&broker, &key).await.is_some() {} }).await;
    let gone = async { while records(&server).await != 2 {} };
    soon(gone).await;
    assert_eq!(marked().await, [other.key()].into());
    assert_eq!(mark(&broker, &other.key()).await, on_record(1, false));
}

#[tokio::test]
async fn a_message_that_was_answered_at_once_costs_attempts_nothing() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let key = key("a", "m1");
    let tag = envelope("a", "m1").tag();
    let final_ = Final { tail: delivered(1).events, ..completed("x") };
    broker.publish_final(&key, &tag, &final_, "1.1", SOON).await.expect("stored");
    let key = self::key("a", "m2");
    let never_run = Final { status: Outcome::Cancelled, attempts: 0, ..completed("") };
    broker.publish_final(&key, &tag, &never_run, "cli", SOON).await.expect("stored");
    broker.flush(SOON).await.expect("flushed");
    let client = server.client().await;
    let info = client.request("$JS.API.STREAM.INFO.MOZART_test_ATTEMPTS", "".into()).await;
    let info = String::from_utf8(info.expect("an answer").payload.to_vec()).expect("JSON");
    assert!(info.contains("\"last_seq\":0"), "{info}");
}
