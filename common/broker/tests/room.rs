//! Storage that fills up: new messages are refused while there is room for the final states of those that are open.

use broker::{Broker, BrokerError, FinalOutcome, SendOutcome};
use common::control::{ControlEvent, ControlRecord};
use common::message::{DeadLetter, Envelope};
use serde_json::{Value, json};

use crate::support::{SOON, Server, agent, completed, envelope, soon};

const JOURNAL: &str = "MOZART_test_JOURNAL";

async fn api(client: &async_nats::Client, what: &str, body: Value) -> Value {
    let answer = client.request(format!("$JS.API.{what}"), body.to_string().into()).await;
    let answer: Value = serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON");
    assert_eq!(answer["error"], Value::Null);
    answer
}

async fn limit(client: &async_nats::Client, max_bytes: u64) {
    let info = api(client, &format!("STREAM.INFO.{JOURNAL}"), json!({})).await;
    let mut config = info["config"].clone();
    config["max_bytes"] = max_bytes.into();
    api(client, &format!("STREAM.UPDATE.{JOURNAL}"), config).await;
}

/// Sends until that is refused; what was stored.
async fn fill(broker: &Broker, text: &str) -> Vec<Envelope> {
    let mut stored = Vec::new();
    loop {
        let mut envelope = envelope("a", &format!("m{}", stored.len()));
        text.clone_into(&mut envelope.message);
        match broker.send(&envelope, SOON).await {
            Ok(SendOutcome::Stored { .. }) => stored.push(envelope),
            Err(BrokerError::Full(_)) => return stored,
            other => panic!("{other:?}"),
        }
    }
}

async fn settle(broker: &Broker, envelope: &Envelope) {
    let response = "x".repeat(envelope.message.len());
    let (key, tag) = (envelope.key(), envelope.tag());
    let final_ = broker.publish_final(&key, &tag, &completed(&response), "1.1", SOON).await;
    assert_eq!(final_.expect("stored"), FinalOutcome::Won);
}

#[tokio::test]
async fn a_full_journal_takes_the_final_states_of_all_that_are_open_and_refuses_new_messages() {
    let server = Server::start().await;
    let (broker, client) = (server.broker().await, server.client().await);
    // Before the first message: what is known of the room is a few seconds old at most.
    limit(&client, 1 << 20).await;
    let stored = fill(&broker, "short").await;
    assert!(stored.len() > 400, "{}", stored.len());

    // The same again is no new message, and needs no room; another under its name is still a conflict.
    let again = broker.send(&stored[7], SOON).await.expect("an answer");
    assert_eq!(again, SendOutcome::Already { seq: 8 });
    let other = Envelope { message: "other".into(), ..stored[7].clone() };
    let conflict = SendOutcome::Conflict { stored: Box::new(stored[7].clone()) };
    assert_eq!(broker.send(&other, SOON).await.expect("an answer"), conflict);
    // Nor is there room for those that do not know yet.
    let error = server.broker().await.send(&envelope("a", "new"), SOON).await;
    let error = error.expect_err("there is no room");
    assert!(error.to_string().contains("the journal holds"), "{error}");
    assert_eq!(broker::failure("sending", error).code, 9);

    for envelope in &stored {
        settle(&broker, envelope).await;
    }
    let scan = broker.open_requests(&agent("a"), 1, 1).await.expect("an answer");
    assert_eq!(scan.total, 0);
    // Now that nothing is open only the watermark counts, and below it there is room again.
    let more = async { while broker.send(&envelope("a", "one"), SOON).await.is_err() {} };
    soon(more).await;
    settle(&broker, &envelope("a", "one")).await;
    fill_up(&broker).await;
    limit(&client, 2 << 20).await;
    let more = async { while broker.send(&envelope("a", "last"), SOON).await.is_err() {} };
    soon(more).await;
}

/// Answers as it goes, until the watermark.
async fn fill_up(broker: &Broker) {
    for n in 0.. {
        let envelope = envelope("a", &format!("up{n}"));
        match broker.send(&envelope, SOON).await {
            Ok(_) => settle(broker, &envelope).await,
            Err(error) => {
                assert!(matches!(error, BrokerError::Full(_)), "{error}");
                assert!(error.to_string().contains("are reserved for answers"), "{error}");
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_full_account_takes_final_states_dead_letters_and_control_records() {
    let server = Server::start_configured(
        "accounts { A { jetstream { max_file: 48MB }, users: [ { user: a, password: a } ] } }\n\
         no_auth_user: a\n",
    )
    .await;
    let broker = server.broker().await;
    let stored = fill(&broker, &"x".repeat(100_000)).await;
    assert!(stored.len() > 100, "{}", stored.len());
    let error = broker.send(&envelope("a", "new"), SOON).await.expect_err("there is no room");
    assert!(error.to_string().contains("the account holds"), "{error}");

    // Those that follow are small: a twentieth of 48 MB is left.
    for envelope in &stored {
        let small = Envelope { message: "x".into(), ..envelope.clone() };
        settle(&broker, &small).await;
    }
    let letter = DeadLetter::new(stored[0].clone(), &completed("x"), [], Vec::new());
    assert!(broker.bury(&letter).await.expect("stored"));
    let record = ControlRecord {
        id: None,
        at: common::Timestamp::from_millis(1),
        term: None,
        author: "me".into(),
        event: ControlEvent::AgentStopped { agent: agent("a") },
    };
    broker.append_control(&record).await.expect("stored");
}
