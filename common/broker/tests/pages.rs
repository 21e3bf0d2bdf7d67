//! Pages of the control log and of the dead letters: what comes before a page costs nothing, and no record is missed or met twice.

use async_nats::Client;
use broker::{Beginning, Broker, ControlItem, DeadLetters};
use common::Timestamp;
use common::control::{ControlEvent, ControlRecord};
use common::message::DeadLetter;
use futures_util::StreamExt as _;
use futures_util::future::join_all;

use crate::dead::letter;
use crate::support::{SOON, Server, agent, key, message, soon};

/// Appends records of these numbers, of agents `a` and `b`: one in ten is b's. The sequences of those, in order.
async fn fill(broker: &Broker, from: u64, to: u64) -> Vec<u64> {
    let mut of_b = Vec::new();
    let numbers: Vec<u64> = (from..to).collect();
    for some in numbers.chunks(200) {
        let appends = some.iter().map(|number| {
            let name = if number % 10 == 0 { "b" } else { "a" };
            let record = ControlRecord {
                id: Some(number.to_string()),
                at: Timestamp::from_millis(*number),
                term: None,
                author: "test".into(),
                event: ControlEvent::AgentStarted { agent: agent(name) },
            };
            async move {
                (broker.append_control(&record).await.expect("appended").seq, name == "b")
            }
        });
        let appended = join_all(appends).await;
        of_b.extend(appended.iter().filter(|(_, is_b)| *is_b).map(|(seq, _)| *seq));
    }
    of_b.sort_unstable();
    of_b
}

/// The sequences of a page, and whether there are earlier ones.
async fn page(broker: &Broker, of: Option<&str>, before: u64, limit: u64) -> (Vec<u64>, bool) {
    let of = of.map(agent);
    let page = soon(broker.control_page(of.as_ref(), before, limit)).await;
    let (mut page, mut seqs) = (page.expect("a page"), Vec::new());
    while let Some(item) = soon(page.next()).await.expect("an item") {
        match item {
            ControlItem::Record { seq, .. } | ControlItem::Malformed { seq, .. } => seqs.push(seq),
            ControlItem::CaughtUp => {}
        }
    }
    (seqs, page.has_earlier())
}

/// How many answers the server gives while something is done.
async fn answers<T>(client: &Client, done: impl Future<Output = T>) -> (T, u64) {
    let mut heard = client.subscribe("_INBOX.>").await.expect("a subscription");
    client.flush().await.expect("flushed");
    let done = done.await;
    client.publish("_INBOX.end.of.this", "".into()).await.expect("published");
    let mut count = 0;
    while let Some(message) = soon(heard.next()).await
        && message.subject.as_str() != "_INBOX.end.of.this"
    {
        count += 1;
    }
    (done, count)
}

#[tokio::test]
async fn a_page_of_the_control_log_costs_the_same_however_long_the_log_is() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let client = server.client().await;
    assert_eq!(page(&broker, None, u64::MAX, 50).await, (vec![], false));
    fill(&broker, 0, 300).await;
    let ((seqs, more), short) = answers(&client, page(&broker, None, u64::MAX, 50)).await;
    assert_eq!((seqs, more), ((251..=300).collect(), true));
    let all_of_b = fill(&broker, 300, 5_000).await;
    let ((seqs, more), long) = answers(&client, page(&broker, None, u64::MAX, 50)).await;
    assert_eq!((seqs, more), ((4_951..=5_000).collect(), true));
    assert!(long <= 300 && short <= 300, "{short} answers, then {long}");
    // In the middle, and of an agent that has one record in ten.
    let of_b = answers(&client, page(&broker, Some("b"), 3_000, 50)).await;
    let ((seqs, more), sparse) = of_b;
    let before = all_of_b.partition_point(|seq| *seq < 3_000);
    assert_eq!(seqs, all_of_b[before - 50..before]);
    assert!(more && sparse <= 300, "{sparse} answers");
}

#[tokio::test]
async fn pages_of_the_control_log_are_the_log() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let of_b = fill(&broker, 0, 700).await;
    broker.tell(broker.subjects().control(&agent("a")), "{".into()).await.expect("told");
    broker.flush(SOON).await.expect("flushed");
    for (of, expected) in [(None, (1..=701).collect()), (Some("b"), of_b)] {
        let mut all = Vec::new();
        let mut before = u64::MAX;
        loop {
            let (seqs, more) = page(&broker, of, before, 37).await;
            before = seqs[0];
            assert!(seqs.len() == 37 || !more, "{seqs:?}");
            all.splice(0..0, seqs);
            if !more {
                break;
            }
        }
        assert_eq!(all, expected);
    }
    assert_eq!(page(&broker, None, 1, 5).await, (vec![], false));
    assert_eq!(page(&broker, None, 0, 5).await, (vec![], false));
    assert_eq!(page(&broker, None, u64::MAX, u64::MAX).await.0.len(), 701);
    // What was trimmed is not earlier.
    broker.trim_control(600).await.expect("trimmed");
    let (seqs, more) = page(&broker, None, u64::MAX, 500).await;
    assert_eq!((seqs[0], seqs.len(), more), (600, 102, false));
}

async fn bury(broker: &Broker, names: impl IntoIterator<Item = (&str, String)>) {
    for (agent, id) in names {
        assert!(broker.bury(&letter(agent, &id)).await.expect("an answer"), "{id}");
    }
}

async fn rest(mut letters: DeadLetters) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(stored) = soon(letters.next()).await.expect("a letter") {
        ids.push(stored.value.envelope.message_id.to_string());
    }
    ids
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages_from_the_newest() {
    let server = Server::start().await;
    let broker = server.broker().await;
    bury(&broker, (0..90).map(|n| (["a", "b", "c"][n % 3], format!("m{n}")))).await;
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let mut letters = broker.dead_page(None, before, 20).await.expect("a page");
        let (more, mut ids) = (letters.has_earlier(), Vec::new());
        let mut first = None;
        while let Some(stored) = letters.next().await.expect("a letter") {
            first.get_or_insert(stored.seq);
            ids.push(stored.value.envelope.message_id.to_string());
        }
        before = first;
        all.splice(0..0, ids);
        if !more {
            break;
        }
    }
    assert_eq!(all, (0..90).map(|n| format!("m{n}")).collect::<Vec<_>>());
    let of_b = broker.dead_page(Some(&agent("b")), None, 3).await.expect("a page");
    assert!(of_b.has_earlier());
    assert_eq!(rest(of_b).await, ["m82", "m85", "m88"]);
    let none = broker.dead_page(Some(&agent("d")), None, 3).await.expect("a page");
    assert!(!none.has_earlier());
    assert_eq!(rest(none).await, [""; 0]);
}

#[tokio::test]
async fn a_dead_letter_is_found_by_its_names_and_by_how_they_begin() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let names = [("a", "m1"), ("b", "m1"), ("a", "m12"), ("b", "other")];
    bury(&broker, names.map(|(agent, id)| (agent, id.to_owned()))).await;
    let client = server.client().await;
    let count = async |of: Option<&str>, id: &str| {
        let of = of.map(agent);
        let found = broker.dead_named(of.as_ref(), None, &message(id)).await.expect("an answer");
        assert!(found.iter().all(|stored| stored.value.envelope.message_id == message(id)));
        found.len()
    };
    assert_eq!((count(None, "m1").await, count(Some("a"), "m1").await), (2, 1));
    assert_eq!((count(None, "m12").await, count(None, "m").await), (1, 0));
    assert_eq!(count(Some("c"), "m1").await, 0);
    let begin = async |of: Option<&str>, beginning: &str| {
        let of = of.map(agent);
        let ids = broker.dead_ids(of.as_ref(), None, beginning).await.expect("an answer");
        let Beginning::Found(ids) = ids else { panic!("{ids:?}") };
        ids.into_iter().map(|id| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(begin(None, "m").await, ["m1", "m12"]);
    assert_eq!(begin(Some("b"), "m").await, ["m1"]);
    assert_eq!(begin(None, "x").await, [""; 0]);
    // Whatever else is there is not read for it.
    bury(&broker, (0..400).map(|n| ("c", format!("n{n}")))).await;
    let ((), asked) = answers(&client, async {
        assert_eq!(count(None, "m1").await, 2);
    })
    .await;
    assert!(asked < 10, "{asked} answers");
}

#[tokio::test]
async fn letters_that_are_replaced_while_they_are_read_come_once() {
    let server = Server::start().await;
    let broker = server.broker().await;
    // More than the server gives at once.
    let ids: Vec<String> = (0..1_300).map(|n| format!("m{n}")).collect();
    for some in ids.chunks(100) {
        join_all(some.iter().map(|id| bury(&broker, [("a", id.clone())]))).await;
    }
    let mut letters = broker.dead_letters(None).await.expect("letters");
    let mut seen = Vec::new();
    while let Some(stored) = soon(letters.next()).await.expect("a letter") {
        let id = stored.value.envelope.message_id.clone();
        let marked = DeadLetter { redriven_as: Some(message("again")), ..stored.value };
        assert!(broker.rebury(&marked, stored.seq).await.expect("an answer"), "{id}");
        seen.push(id.to_string());
    }
    assert_eq!(seen.len(), ids.len());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), ids.len());
}

#[tokio::test]
async fn what_is_dropped_is_what_was_there_and_was_not_replaced_meanwhile() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let of_a: Vec<String> = (0..600).map(|n| format!("m{n}")).collect();
    for some in of_a.chunks(100) {
        join_all(some.iter().map(|id| bury(&broker, [("a", id.clone())]))).await;
    }
    bury(&broker, [("b", "other".to_owned())]).await;
    let unreadable = broker.subjects().dead(&key("a", "unreadable"));
    broker.tell(unreadable, "garbage".into()).await.expect("told");
    broker.flush(SOON).await.expect("flushed");

    let of = agent("a");
    let mut dropping = broker.drop_dead_letters(Some(&of)).await.expect("begun");
    // Stored and replaced once it has begun.
    bury(&broker, [("a", "late".to_owned())]).await;
    let moved = broker.dead_letter(&key("a", "m7")).await.expect("an answer").expect("there");
    let again = DeadLetter { redriven_as: Some(message("again")), ..moved.value };
    assert!(broker.rebury(&again, moved.seq).await.expect("an answer"));
    let mut dropped = Vec::new();
    while let Some(keys) = soon(dropping.next()).await.expect("dropped") {
        dropped.extend(keys.into_iter().map(|key| key.message_id.to_string()));
    }
    let mut expected: Vec<String> = of_a.iter().filter(|id| *id != "m7").cloned().collect();
    expected.push("unreadable".to_owned());
    dropped.sort();
    expected.sort();
    assert_eq!(dropped, expected);
    let left = rest(broker.dead_letters(None).await.expect("letters")).await;
    assert_eq!(left, ["other", "late", "m7"]);
}
