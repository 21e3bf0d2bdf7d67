//! The connection: what a person is told when it does not come about, and what it survives.

use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, BrokerError, ConnectOptions, StreamOptions};
use bytes::Bytes;
use common::Timestamp;
use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{SOON, Server, envelope, soon};

const STREAMS: StreamOptions = StreamOptions { journal_shards: 1, replicas: None };

fn options_at(url: String, timeout: Duration) -> ConnectOptions {
    ConnectOptions {
        url,
        creds: None,
        ca: None,
        name: "test".into(),
        namespace: common::Namespace::new("test").expect("valid"),
        timeout,
        shim: None,
    }
}

#[tokio::test]
async fn a_closed_port_is_unreachable_within_the_timeout_and_no_password_is_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let url = format!("nats://me:sesame@127.0.0.1:{port}");
    let began = Instant::now();
    let options = options_at(url, Duration::from_millis(500));
    let error = Broker::connect(&options).await.expect_err("nobody listens");
    assert!(matches!(error, BrokerError::Unreachable { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(!error.to_string().contains("sesame"), "{error}");
    assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_starts_late_is_waited_for() {
    let mut server = Server::start().await;
    server.kill().await;
    let options = server.options();
    let connecting = Broker::connect_and_create(&options, &STREAMS);
    let (broker, ()) = tokio::join!(connecting, server.revive());
    broker.expect("it came");
}

#[tokio::test]
async fn a_server_that_hangs_leaves_time_for_the_others() {
    let server = Server::start().await;
    // The system accepts for it; nobody ever says a word.
    let hung = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = hung.local_addr().expect("bound");
    let url = format!("nats://{at},{}", server.options().url);
    let options = options_at(url, Duration::from_secs(3));
    // Which is tried first is drawn each time.
    for _ in 0..6 {
        Broker::connect_and_create(&options, &STREAMS).await.expect("one of the two answers");
    }
}

#[tokio::test]
async fn an_old_server_is_refused_by_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("bound"));
    let old_server = async {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let info = "INFO {\"server_id\":\"x\",\"version\":\"2.10.27\",\"max_payload\":1048576,\"headers\":true}\r\n";
        socket.write_all(info.as_bytes()).await.expect("sent");
        let mut buffer = [0; 4096];
        while let Ok(1..) = socket.read(&mut buffer).await {
            if socket.write_all(b"PONG\r\n").await.is_err() {
                break;
            }
        }
    };
    let options = options_at(url, SOON);
    let error = tokio::select! {
        answer = Broker::connect(&options) => answer.expect_err("too old"),
        () = old_server => panic!("the client is to say something"),
    };
    let expected = "nats-server 2.10.27 is too old, 2.12 or newer is needed";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_server_without_jetstream_is_told_apart() {
    let server = Server::start_plain().await;
    let error =
        Broker::connect_and_create(&server.options(), &STREAMS).await.expect_err("no JetStream");
    assert!(matches!(error, BrokerError::NoJetStream), "{error}");
}

#[tokio::test]
async fn an_account_without_jetstream_is_told_apart() {
    let server = Server::start_configured(
        "accounts { A { users: [ { user: a, password: b } ] }, J { jetstream: enabled } }",
    )
    .await;
    let mut options = server.options();
    options.url = server.url().replace("nats://", "nats://a:b@");
    let error = Broker::connect(&options).await.expect_err("no JetStream");
    assert!(matches!(error, BrokerError::NoJetStream), "{error}");
}

#[tokio::test]
async fn credentials_in_the_address_are_used_and_wrong_ones_denied() {
    let server =
        Server::start_configured("authorization { user: me, password: \"se@same\" }").await;
    let mut options = server.options();
    options.url = server.url().replace("nats://", "nats://me:se%40same@");
    Broker::connect_and_create(&options, &STREAMS).await.expect("let in");

    options.url = server.url().replace("nats://", "nats://me:wrong@");
    let error = Broker::connect(&options).await.expect_err("refused");
    assert!(matches!(error, BrokerError::Denied { .. }), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn the_link_counts_how_often_the_connection_came_up() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let mut link = broker.link();
    assert_eq!((link.borrow().up, link.borrow().epoch), (true, 1));
    server.kill().await;
    soon(link.wait_for(|link| !link.up)).await.expect("open");
    server.revive().await;
    let up = soon(link.wait_for(|link| link.up)).await.expect("open");
    assert_eq!(up.epoch, 2);
    assert_eq!(broker.server_version().split('.').count(), 3);
}

#[tokio::test]
async fn a_question_reaches_one_of_a_group_and_nobody_is_told_at_once() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let subject = broker.subjects().query();
    let error = broker.ask(subject.clone(), Bytes::new(), SOON).await.expect_err("nobody");
    assert_eq!(error.to_string(), "the broker said: no responders");

    let subscribe = || broker.subscribe(subject.clone(), Some("supervisors"));
    let (mut one, mut two) =
        (subscribe().await.expect("subscribed"), subscribe().await.expect("subscribed"));
    broker.flush(SOON).await.expect("flushed");
    let answering = async {
        let asked = tokio::select! {
            asked = one.next() => asked,
            asked = two.next() => asked,
        };
        let asked = asked.expect("a question");
        assert_eq!(asked.payload, "who?");
        let reply = asked.reply.expect("somebody waits");
        broker.tell(reply, "me".into()).await.expect("told");
    };
    let (answer, ()) =
        soon(async { tokio::join!(broker.ask(subject.clone(), "who?".into(), SOON), answering) })
            .await;
    assert_eq!(answer.expect("an answer"), "me");
}

#[tokio::test]
async fn a_record_that_cannot_fit_is_refused_before_it_is_sent() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let mut large = envelope("a", "m1");
    large.message = "x".repeat(1 << 20);
    let error = broker.send(&large, SOON).await.expect_err("too large");
    assert!(matches!(error, BrokerError::TooLarge { .. }), "{error}");

    large.message = "x".repeat(broker.max_record() - 1024);
    broker.send(&large, SOON).await.expect("the largest fits");
    let there = broker.request_of(&large.key()).await.expect("an answer");
    assert_eq!(there.expect("it is there").value, large);
}

#[tokio::test]
async fn the_servers_clock_is_told_and_that_of_its_own_machine_is_ours() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let before = Timestamp::from(SystemTime::now());
    let theirs = broker.clock().await.expect("it tells");
    let after = Timestamp::from(SystemTime::now());
    assert!(before <= theirs && theirs <= after, "{before} {theirs} {after}");
    assert!(!broker.server_id().is_empty());
}

#[tokio::test]
async fn a_try_that_got_no_answer_does_not_set_the_servers_clock_forward() {
    // JetStream is played: the first question is lost, the second is answered at once.
    let server = Server::start_plain().await;
    let client = server.client().await;
    let mut questions = client.subscribe("$JS.API.STREAM.INFO.*").await.expect("subscribed");
    client.flush().await.expect("flushed");
    let jetstream = async {
        let _lost = questions.next().await.expect("a question");
        let again = questions.next().await.expect("the same one");
        let config = json!({ "num_replicas": 1, "metadata": { "mozart-format": "2", "mozart-shards": "1" } });
        let info = json!({ "config": config, "ts": Timestamp::from(SystemTime::now()) });
        let reply = again.reply.expect("somebody waits");
        client.publish(reply, info.to_string().into()).await.expect("answered");
    };
    let options = server.options();
    let (broker, ()) = soon(async { tokio::join!(Broker::connect(&options), jetstream) }).await;
    let broker = broker.expect("connected");
    let ahead = broker.now().since(SystemTime::now().into());
    assert!(ahead < Duration::from_millis(300), "{ahead:?}");
}
