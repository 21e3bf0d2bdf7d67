//! Answers into inboxes: each piece is there once, whoever sends it, and nothing is kept.

use std::time::Duration;

use broker::{Broker, Reply, ReplyState, Subscription};
use bytes::Bytes;
use common::Timestamp;

use crate::support::{Server, key, soon};

const INBOX: &str = "_INBOX.agents.x.y";

fn state(holder: &str) -> ReplyState {
    ReplyState::new(holder, key("a", "m1"), Timestamp::from_millis(1))
}

async fn begin(broker: &Broker, holder: &str) -> Option<Reply> {
    broker.begin_reply(INBOX, state(holder), "ack".into()).await.expect("an answer")
}

/// What has come up to the end, which has no content.
async fn heard(inbox: &mut Subscription) -> Vec<Bytes> {
    let mut heard = Vec::new();
    loop {
        let message = soon(inbox.next()).await.expect("it is open");
        if message.payload.is_empty() {
            return heard;
        }
        heard.push(message.payload);
    }
}

#[tokio::test]
async fn a_piece_is_told_once_by_whoever_holds_the_answer() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let mut inbox = broker.subscribe(INBOX.to_owned(), None).await.expect("an inbox");
    let mut first = begin(&broker, "first").await.expect("it is free");
    assert!(begin(&broker, "other").await.is_none(), "one answer for an inbox");
    (first.state.sent, first.state.digest) = (3, "d".to_owned());
    assert!(first.say("one".into()).await.expect("an answer"));
    assert_eq!(broker.open_replies().await.expect("an answer"), [INBOX]);

    // Another process takes it over, and knows how far it is. The first one is not gone after all: what it says is not told.
    let taken = broker.take_reply(INBOX, "first", "second", "ack".into()).await;
    let mut second = taken.expect("an answer").expect("it is there");
    assert_eq!((second.state.sent, second.state.digest.as_str()), (3, "d"));
    assert!(!first.say("late".into()).await.expect("an answer"));
    let again = broker.take_reply(INBOX, "first", "third", "ack".into()).await;
    assert!(again.expect("an answer").is_none(), "it was taken before");
    assert!(second.say("two".into()).await.expect("an answer"));
    second.end().await.expect("an answer");
    assert_eq!(heard(&mut inbox).await, ["ack", "one", "ack", "two"]);
    assert!(broker.open_replies().await.expect("an answer").is_empty(), "nothing is kept");
    assert!(begin(&broker, "third").await.is_some(), "the inbox is free again");
}

#[tokio::test]
async fn after_an_error_only_the_end_is_missing() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let mut inbox = broker.subscribe(INBOX.to_owned(), None).await.expect("an inbox");
    let mut reply = begin(&broker, "first").await.expect("it is free");
    assert!(reply.fail(500, "no", "{}".into()).await.expect("an answer"));
    let taken = broker.take_reply(INBOX, "first", "second", "ack".into()).await;
    let taken = taken.expect("an answer").expect("it is there");
    assert!(taken.state.over);
    taken.end().await.expect("an answer");
    assert_eq!(heard(&mut inbox).await, ["ack", "{}"]);
}

#[tokio::test]
async fn what_the_server_has_forgotten_is_not_told_again() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let mut reply = begin(&broker, "first").await.expect("it is free");
    assert!(reply.say("one".into()).await.expect("an answer"));
    server.kill_and_revive().await;
    let mut inbox = broker.subscribe(INBOX.to_owned(), None).await.expect("an inbox");
    broker.flush(Duration::from_secs(20)).await.expect("it is back");
    // Whether the server still knows of the last piece or not: its holder goes on after it.
    assert!(reply.say("two".into()).await.expect("an answer"));
    reply.end().await.expect("an answer");
    assert_eq!(heard(&mut inbox).await, ["two"]);
}
