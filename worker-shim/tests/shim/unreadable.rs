//! Requests that nobody can read, and final states: the journal has accepted them, so each ends, and whoever waits hears of it.

use std::time::{Duration, Instant};

use common::message::{Final, Outcome};
use serde_json::Value;

use crate::cable;
use crate::support::{INCARNATION, Server, Shim, agent, envelope, key, soon, until};

/// The longest payload that a server takes.
const MAX_PAYLOAD: usize = 1 << 20;

/// Stores a record that no client of ours would.
async fn store(shim: &Shim, subject: String, body: Vec<u8>) {
    let answer = shim.broker.ask(subject, body.into(), Duration::from_secs(10)).await;
    let answer: Value = serde_json::from_slice(&answer.expect("an answer")).expect("JSON");
    assert!(answer["seq"].is_u64(), "{answer}");
}

async fn store_request(shim: &Shim, message: &str, body: Vec<u8>) {
    let envelope = envelope(message, message, "");
    let subject = shim.broker.subjects().request(&envelope.key(), &envelope.tag());
    store(shim, subject, body).await;
}

fn changed(message: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = serde_json::to_value(envelope(message, message, "greet")).expect("JSON");
    change(&mut value);
    value.to_string().into_bytes()
}

/// Requests that the journal takes and nobody can read, by name.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("garbage", b"garbage".to_vec()),
        ("empty", Vec::new()),
        ("bytes", vec![0xff, 0xfe, 0]),
        ("half", br#"{"messageId":"half"#.to_vec()),
        ("null", b"null".to_vec()),
        ("newer", changed("newer", |it| it["kind"] = "telepathy".into())),
        ("stolen", changed("stolen", |it| it["messageId"] = "another".into())),
        ("theirs", changed("theirs", |it| it["agent"] = "someone".into())),
        ("forged", changed("forged", |it| it["sender"] = "someone".into())),
        ("moved", changed("moved", |it| it["conversationId"] = "another".into())),
        ("deep", "[".repeat(100_000).into_bytes()),
        ("large", vec![b'x'; MAX_PAYLOAD - 4096]),
    ]
}

#[tokio::test]
async fn each_gets_one_final_state_of_which_its_sender_hears_and_is_acked() {
    let server = Server::start().await;
    let mut shim = Shim::start_at(&server, server.port, |_| {}).await;
    let mut heard = Vec::new();
    for (message, body) in bodies() {
        let done = shim.broker.subjects().done(&key(message));
        heard.push((message, shim.broker.subscribe(done, None).await.expect("a subscription")));
        store_request(&shim, message, body).await;
    }
    shim.send("m", "c", "greet").await;
    shim.admit().await;
    for (message, mut done) in heard {
        let final_ = soon(done.next()).await.expect("the broker is there");
        let final_: Final = serde_json::from_slice(&final_.payload).expect("a final state");
        assert_eq!((final_.status, final_.attempts), (Outcome::Failed, 0), "{message}");
        let reason = final_.reason.expect("a reason");
        assert!(reason.starts_with("the request cannot be read: "), "{message}: {reason}");
        assert_eq!(shim.final_of(message).await.expect("stored").reason, Some(reason));
    }
    shim.answer("m").await;
    assert_eq!(shim.witness(), ["m"]);
    // Nothing is left that a sweeper could find: all is final and acked.
    until(async || {
        let consumer = shim.broker.consumer(&agent(), INCARNATION).await.expect("an answer");
        consumer.filter(|consumer| (consumer.pending, consumer.ack_pending) == (0, 0))
    })
    .await;
    let open = shim.broker.open_requests(&agent(), 1, 1).await.expect("an answer");
    assert_eq!(open.total, 0);
    let heartbeat = shim.heartbeat_after(1).await;
    assert_eq!((heartbeat.refused, heartbeat.held), (bodies().len() as u64, 0));
}

#[tokio::test]
async fn a_record_larger_than_any_of_ours_that_can_be_read_is_a_message() {
    let server = Server::start().await;
    let shim = Shim::start(&server).await;
    let body = changed("m", |it| {
        it["message"] = format!("greet {}", "x".repeat(MAX_PAYLOAD - 4096)).into();
    });
    assert!(body.len() > shim.broker.max_record());
    store_request(&shim, "m", body).await;
    let final_ = shim.answer("m").await;
    assert_eq!((final_.status, final_.attempts), (Outcome::Completed, 1));
}

#[tokio::test]
async fn one_that_was_lost_with_a_connection_ends_as_soon_as_that_is_back() {
    let server = Server::start().await;
    let (cable, mut shim) = cable::deaf(&server).await;
    store_request(&shim, "garbage", b"garbage".to_vec()).await;
    shim.send("m1", "c", "greet").await;
    store_request(&shim, "newer", changed("newer", |it| it["kind"] = "telepathy".into())).await;
    shim.given_out(3).await;
    let cut = Instant::now();
    cable.cut();
    for message in ["garbage", "newer"] {
        let final_ = shim.answer(message).await;
        assert!(final_.reason.is_some_and(|reason| reason.contains("cannot be read")));
    }
    shim.answer("m1").await;
    let took = cut.elapsed();
    assert!(took < Duration::from_secs(20), "sooner than the broker would deliver again: {took:?}");
    assert_eq!(shim.witness(), ["m0", "m1"]);
    // Another connection finds nothing that would have to be refused again.
    cable.cut();
    shim.send("m2", "c", "greet").await;
    shim.answer("m2").await;
    assert_eq!(shim.heartbeat().await.refused, 2);
}

#[tokio::test]
async fn a_final_state_that_cannot_be_read_ends_its_message_and_holds_up_no_other() {
    let server = Server::start().await;
    let mut shim = Shim::start_at(&server, server.port, |_| {}).await;
    for message in ["m1", "m2"] {
        shim.send(message, "c", "greet").await;
    }
    let of = envelope("m1", "c", "");
    let subject = shim.broker.subjects().final_(&of.key(), &of.tag());
    store(&shim, subject, b"garbage".to_vec()).await;
    shim.admit().await;
    assert_eq!(shim.answer("m2").await.status, Outcome::Completed);
    let final_ = shim.final_of("m1").await.expect("there is one");
    assert_eq!(final_.status, Outcome::Failed);
    assert!(final_.reason.is_some_and(|reason| reason.contains("does not parse")));
    assert_eq!(shim.witness(), ["m2"]);
    until(async || {
        let consumer = shim.broker.consumer(&agent(), INCARNATION).await.expect("an answer");
        consumer.filter(|consumer| consumer.ack_pending == 0)
    })
    .await;
}
