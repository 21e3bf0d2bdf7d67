//! The streams of a namespace.

use broker::{Broker, BrokerError, StreamOptions};
use serde_json::{Value, json};

use crate::support::{SOON, Server, agent, completed, envelope, is_alone, message};

async fn config(client: &async_nats::Client, stream: &str) -> Value {
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    let answer = client.request(subject, "".into()).await.expect("an answer");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    answer["config"].clone()
}

async fn update(client: &async_nats::Client, config: &Value) {
    let name = config["name"].as_str().expect("a name");
    let subject = format!("$JS.API.STREAM.UPDATE.{name}");
    let answer = client.request(subject, config.to_string().into()).await.expect("an answer");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(answer["error"], Value::Null);
}

#[tokio::test]
async fn a_new_namespace_has_no_streams_until_somebody_makes_them() {
    let server = Server::start().await;
    let error = Broker::connect(&server.options()).await.expect_err("new");
    assert!(matches!(error, BrokerError::NoStreams(name) if name == "test"));
    server.broker().await;
    let broker = Broker::connect(&server.options()).await.expect("made");
    assert_eq!(broker.subjects().shards(), 1);
}

#[tokio::test]
async fn the_shard_count_of_what_exists_wins() {
    let server = Server::start().await;
    assert_eq!(server.broker_of(4).await.subjects().shards(), 4);
    assert_eq!(server.broker_of(1).await.subjects().shards(), 4);
    let broker = Broker::connect(&server.options()).await.expect("made");
    assert_eq!(broker.subjects().shards(), 4);
}

#[tokio::test]
async fn two_that_create_at_once_agree_on_the_shards() {
    let server = Server::start().await;
    let (one, four) = tokio::join!(server.broker_of(1), server.broker_of(4));
    let shards = one.subjects().shards();
    assert_eq!(four.subjects().shards(), shards);
    let stored = one.send(&envelope("a", "m1"), SOON).await;
    stored.expect("stored");
    let found = four.find(&message("m1")).await.expect("a search");
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn another_format_is_left_alone() {
    let server = Server::start().await;
    server.broker().await;
    let client = server.client().await;
    let mut control = config(&client, "MOZART_test_CONTROL").await;
    control["metadata"]["mozart-format"] = "3".into();
    update(&client, &control).await;
    let known = |result: Result<Broker, BrokerError>| match result {
        Err(BrokerError::TooNew { found: 3, known }) => known,
        other => panic!("{other:?}"),
    };
    known(Broker::connect(&server.options()).await);
    let streams = StreamOptions { journal_shards: 1, replicas: None };
    known(Broker::connect_and_create(&server.options(), &streams).await);
    assert_eq!(config(&client, "MOZART_test_CONTROL").await["metadata"]["mozart-format"], "3");

    control["metadata"]["mozart-format"] = "1".into();
    update(&client, &control).await;
    for error in [
        Broker::connect(&server.options()).await.expect_err("older"),
        Broker::connect_and_create(&server.options(), &streams).await.expect_err("older"),
    ] {
        assert!(matches!(error, BrokerError::Outdated { found: 1, known: 2 }), "{error}");
    }
}

#[tokio::test]
async fn what_differs_is_brought_up_to_date_and_what_an_operator_tuned_stays() {
    let server = Server::start().await;
    server.broker().await;
    let client = server.client().await;
    let name = "MOZART_test_JOURNAL";
    let mut journal = config(&client, name).await;
    let republish = journal["republish"].clone();
    let fields = journal.as_object_mut().expect("an object");
    fields.remove("republish");
    fields.insert("max_age".into(), json!(3_600_000_000_000_u64));
    update(&client, &journal).await;
    server.broker().await;
    let journal = config(&client, name).await;
    assert_eq!(journal["republish"], republish);
    assert_eq!(journal["max_age"], json!(3_600_000_000_000_u64));
}

#[tokio::test]
async fn the_server_took_what_the_design_stands_on() {
    let server = Server::start().await;
    server.broker_of(4).await;
    let client = server.client().await;
    let events = config(&client, "MOZART_test_EVENTS").await;
    let attempts = config(&client, "MOZART_test_ATTEMPTS").await;
    // For one replica alone.
    assert_eq!(events["persist_mode"] == "async", is_alone());
    assert_eq!(attempts["persist_mode"] == "async", is_alone());
    assert_eq!(attempts["allow_msg_ttl"], true);
    let lease = config(&client, "KV_MOZART_test_LEASE").await;
    assert_eq!(lease["allow_msg_ttl"], true);
    let journal = config(&client, "MOZART_test_JOURNAL_3").await;
    assert_eq!(journal["max_consumers"], 20_000);
    assert_eq!(journal["discard"], "new");
    assert_eq!(journal["retention"], "limits");
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_pending_is_dropped_for_it() {
    // Room for the streams themselves, since those with a bound set it aside, and little more.
    let server = Server::start_configured("jetstream { max_file_store: 24MB }").await;
    let broker = server.broker().await;
    let mut stored = 0;
    let error = loop {
        let mut large = envelope("a", &format!("m{stored}"));
        large.message = "x".repeat(900_000);
        match broker.send(&large, SOON).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BrokerError::Full(_)), "{error}");
    assert!(stored > 0);
    let count = broker.count_requests(&agent("a")).await.expect("a count");
    assert_eq!(count, stored);
    // An account without bounds does not see the server's: a large answer is refused as well, and tried again until there is room.
    let (m0, large) = (envelope("a", "m0"), completed(&"x".repeat(900_000)));
    let answer = broker.publish_final(&m0.key(), &m0.tag(), &large, "1.1", SOON).await;
    let error = answer.expect_err("there is no room");
    assert!(matches!(error, BrokerError::Full(_)) && error.passes(), "{error}");
}
