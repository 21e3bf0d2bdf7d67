//! How long things are kept, and that what is erased is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{Archiver, Except};
use common::event::EventBody;

use crate::events::batch;
use crate::history::{AT_ONCE, archive, finished, one, records, send};
use crate::support::{Server, agent, key, message, soon};

#[tokio::test]
async fn what_is_older_than_it_is_kept_goes_and_the_index_with_it() {
    let server = Server::start().await;
    let broker = server.broker().await;
    for agent in ["a", "b"] {
        finished(&broker, agent, &[&format!("{agent}-old")]).await;
    }
    archive(&broker).await;
    let age = Duration::from_millis(1500);
    tokio::time::sleep(age).await;
    for agent in ["a", "b"] {
        finished(&broker, agent, &[&format!("{agent}-new")]).await;
    }
    archive(&broker).await;
    let hour = Duration::from_secs(3600);
    assert_eq!(broker.drop_history(None, hour).await.expect("an answer"), 0);
    assert_eq!(broker.drop_history(Some(&agent("a")), hour).await.expect("an answer"), 0);
    assert_eq!(broker.drop_history(Some(&agent("c")), age).await.expect("an answer"), 0);
    // One agent's.
    assert_eq!(broker.drop_history(Some(&agent("a")), age).await.expect("an answer"), 1);
    assert_eq!(broker.archived(&message("a-old")).await.expect("an answer"), []);
    for id in ["b-old", "a-new", "b-new"] {
        one(&broker, id).await;
    }
    // All.
    assert_eq!(broker.drop_history(None, age).await.expect("an answer"), 1);
    assert_eq!(broker.archived(&message("b-old")).await.expect("an answer"), []);
    one(&broker, "a-new").await;
    let (index, first) = records(&server, "INDEX").await;
    assert!(index > 0 && first > 1, "{index} records from {first}");
    // To the last one.
    assert_eq!(broker.drop_history(None, Duration::ZERO).await.expect("an answer"), 2);
    finished(&broker, "a", &["a-last"]).await;
    assert_eq!(archive(&broker).await, 1);
    one(&broker, "a-last").await;
}

#[tokio::test]
async fn a_history_of_a_size_loses_its_oldest() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let ids: Vec<String> = (0..50).map(|n| format!("m{n}")).collect();
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    finished(&broker, "a", &all).await;
    archive(&broker).await;
    assert_eq!(broker.bound_history(1 << 30).await.expect("an answer"), 0);
    let bytes = async || {
        let client = server.client().await;
        let info = client.request("$JS.API.STREAM.INFO.MOZART_test_HISTORY", "".into()).await;
        let info: serde_json::Value =
            serde_json::from_slice(&info.expect("an answer").payload).expect("JSON");
        info["state"]["bytes"].as_u64().expect("a number")
    };
    let half = bytes().await / 2;
    let dropped = broker.bound_history(half).await.expect("an answer");
    assert!((20..=30).contains(&dropped), "{dropped}");
    assert!(bytes().await <= half + half / 10);
    assert_eq!(broker.archived(&message("m0")).await.expect("an answer"), []);
    one(&broker, "m49").await;
}

#[tokio::test]
async fn of_whom_nothing_is_kept_no_text_is_left() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let open = send(&broker, "a", "open").await;
    finished(&broker, "a", &["secret-1"]).await;
    finished(&broker, "b", &["kept"]).await;
    finished(&broker, "a", &["secret-2"]).await;
    assert!(server.stored("text of secret-1"));
    let mut archiver = Archiver::new(broker.clone(), AT_ONCE);
    archiver.except(Except { unkept: BTreeSet::from([agent("a")]), ..Except::default() });
    let round = soon(archiver.round()).await.expect("a round");
    assert_eq!((round.archived, round.removed), (1, 3));
    assert_eq!(records(&server, "HISTORY").await.0, 1);
    assert_eq!(broker.request_of(&open.key()).await.expect("an answer").expect("open").seq, 1);
    for text in ["text of secret-1", "answer to secret-2"] {
        assert!(!server.stored(text), "{text} is still in a file");
    }
    assert!(server.stored("text of kept") && server.stored("text of open"));
}

#[tokio::test]
async fn what_is_erased_is_in_no_file() {
    let server = Server::start().await;
    let broker = server.broker().await;
    for agent_name in ["a", "b"] {
        let text = EventBody::Text { text: format!("words of {agent_name}") };
        let mut events = batch(1, 1, vec![EventBody::Delivered { incarnation: 7 }, text]);
        events.agent = agent(agent_name);
        broker.publish_events(&events).await.expect("stored");
    }
    let written = async |text: &str, is: bool| {
        soon(async {
            while server.stored(text) != is {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    written("words of a", true).await;
    let hour = Duration::from_secs(3600);
    assert_eq!(broker.erase_traces(&agent("a"), hour).await.expect("an answer"), 0);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(broker.erase_traces(&agent("a"), Duration::ZERO).await.expect("an answer"), 1);
    written("words of a", false).await;
    written("words of b", true).await;
    assert_eq!(broker.events(&key("b", "m1")).await.expect("an answer").len(), 1);
    assert_eq!(broker.events(&key("a", "m1")).await.expect("an answer"), []);
}

#[tokio::test]
async fn what_was_kept_before_it_was_not_to_be_is_erased_as_well() {
    let server = Server::start().await;
    let broker = server.broker().await;
    for name in ["a", "b"] {
        finished(&broker, name, &[&format!("{name}-1"), &format!("{name}-2")]).await;
    }
    archive(&broker).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let hour = Duration::from_secs(3600);
    assert_eq!(broker.erase_traces(&agent("a"), hour).await.expect("an answer"), 2);
    for (id, is_there) in [("a-1", false), ("a-2", false), ("b-1", true), ("b-2", true)] {
        assert_eq!(server.stored(&format!("answer to {id}")), is_there, "{id}");
    }
}
