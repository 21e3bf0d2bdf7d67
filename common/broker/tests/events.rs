//! Events: stored once, read back in order, followed over the server's death.

use broker::EventBatch;
use common::event::{Event, EventBody, sequence};
use common::{ConversationId, Timestamp};

use crate::support::{Server, agent, is_alone, key, message, namesakes, soon};

pub(crate) fn batch(attempt: u32, from: u64, bodies: Vec<EventBody>) -> EventBatch {
    let events = bodies.into_iter().zip(from..).map(|(body, index)| Event {
        seq: sequence(attempt, index),
        at: Timestamp::from_millis(index),
        body,
    });
    EventBatch {
        agent: agent("a"),
        sender: key("a", "m1").sender,
        message_id: message("m1"),
        conversation_id: ConversationId::new("c:1").expect("valid"),
        incarnation: u64::from(attempt) + 6,
        attempt,
        events: events.collect(),
    }
}

pub(crate) fn text(text: &str) -> EventBody {
    EventBody::Text { text: text.into() }
}

#[tokio::test]
async fn events_that_are_published_again_are_stored_once() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let first = batch(1, 1, vec![EventBody::Acknowledged, text("a"), text("b")]);
    let second = batch(1, 4, vec![text("c")]);
    broker.publish_events(&first).await.expect("stored");
    broker.publish_events(&second).await.expect("stored");
    broker.publish_events(&first).await.expect("harmless");
    broker.publish_events(&second).await.expect("harmless");
    let events = broker.events(&key("a", "m1")).await;
    assert_eq!(events.expect("an answer"), [first, second]);
}

#[tokio::test]
async fn the_first_and_the_last_events_are_read_without_those_between() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let key = key("a", "m1");
    assert_eq!(broker.last_events(&key).await.expect("an answer"), None);
    let all: Vec<EventBatch> = (1..=5).map(|n| batch(1, n, vec![text("x")])).collect();
    for batch in &all {
        broker.publish_events(batch).await.expect("stored");
    }
    let first = broker.first_events(&key, 2).await.expect("an answer");
    assert_eq!(first, all[..2]);
    assert_eq!(broker.first_events(&key, 9).await.expect("an answer"), all);
    assert_eq!(broker.last_events(&key).await.expect("an answer").as_ref(), all.last());
}

#[tokio::test]
async fn messages_of_one_id_have_their_own_events_each() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let mut batches = Vec::new();
    for (n, envelope) in namesakes().into_iter().enumerate() {
        let mut batch = batch(1, 1, vec![text(&n.to_string())]);
        (batch.agent, batch.sender) = (envelope.agent, envelope.sender);
        broker.publish_events(&batch).await.expect("stored");
        batches.push(batch);
    }
    for batch in batches {
        let stored = broker.events(&batch.key()).await.expect("an answer");
        assert_eq!(stored, [batch]);
    }
}

#[tokio::test]
async fn a_follower_sees_stored_and_live_events_over_killed_servers() {
    if !is_alone() {
        // A cluster keeps EVENTS in memory: with all of its servers it loses all of them.
        return;
    }
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let of = |n: u64| batch(1, n, vec![text(&n.to_string())]);
    let m1 = key("a", "m1");
    let mut followers = Vec::new();
    // EVENTS is not synced: a killed server may lose the last ones and give their numbers again. What it lost was
    // followed before, what comes after it is followed nevertheless.
    for round in 0..4 {
        for n in round * 50 + 1..=round * 50 + 50 {
            broker.publish_events(&of(n)).await.expect("stored");
        }
        if followers.is_empty() {
            followers.push(broker.follow_events(&m1).await.expect("following"));
        }
        for follower in &mut followers {
            for n in round * 50 + 1..=round * 50 + 50 {
                assert_eq!(soon(follower.next()).await.expect("events"), of(n));
            }
        }
        server.kill_and_revive().await;
    }
}

#[tokio::test]
async fn what_does_not_look_like_events_is_passed_over() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let m1 = key("a", "m1");
    let subject = broker.subjects().events(&m1);
    broker.tell(subject, "{}".into()).await.expect("told");
    let ours = batch(1, 1, vec![text("a")]);
    broker.publish_events(&ours).await.expect("stored");
    let stored = broker.events(&m1).await.expect("an answer");
    assert_eq!(stored, std::slice::from_ref(&ours));
    let mut follower = broker.follow_events(&m1).await.expect("following");
    assert_eq!(soon(follower.next()).await.expect("events"), ours);
}
