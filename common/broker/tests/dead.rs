//! Dead letters.

use common::Timestamp;
use common::message::{AttemptEnd, DeadLetter};

use crate::support::{Server, agent, envelope, key, message, namesakes};

pub(crate) fn letter(name: &str, id: &str) -> DeadLetter {
    DeadLetter {
        envelope: envelope(name, id),
        reason: "exit code 1".into(),
        attempts: vec![AttemptEnd { attempt: 1, incarnation: 7, error: "exit code 1".into() }],
        log: vec!["panic".into()],
        at: Timestamp::from_millis(5),
        redriven_as: None,
        cut: false,
    }
}

#[tokio::test]
async fn a_letter_is_buried_once_redriven_once_and_gone_when_dropped() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (a, m1) = (agent("a"), key("a", "m1"));
    let first = letter("a", "m1");
    assert!(broker.bury(&first).await.expect("an answer"));
    assert!(!broker.bury(&first).await.expect("an answer"));
    assert!(broker.bury(&letter("b", "m1")).await.expect("an answer"));
    let there = broker.dead_letter(&m1).await.expect("an answer");
    let there = there.expect("it is there");
    assert_eq!(there.value, first);

    let mut redriven = first.clone();
    redriven.redriven_as = Some(message("m2"));
    assert!(broker.rebury(&redriven, there.seq).await.expect("an answer"));
    assert!(!broker.rebury(&first, there.seq).await.expect("an answer"));

    let all = async |of| {
        let mut letters = broker.dead_letters(of).await.expect("an answer");
        let mut all = Vec::new();
        while let Some(stored) = letters.next().await.expect("an answer") {
            all.push(stored.value);
        }
        all
    };
    assert_eq!(all(None).await.len(), 2);
    assert_eq!(all(Some(&a)).await, [redriven]);

    assert!(broker.drop_dead_letter(&m1).await.expect("an answer"));
    assert!(!broker.drop_dead_letter(&m1).await.expect("an answer"));
    assert_eq!(broker.dead_letter(&m1).await.expect("an answer"), None);
    // Whoever is late with the same letter does not bring it back.
    assert!(!broker.bury(&first).await.expect("an answer"));
    assert_eq!(broker.dead_letter(&m1).await.expect("an answer"), None);
    // It may die again.
    let mut later = first;
    later.at = Timestamp::from_millis(6);
    assert!(broker.bury(&later).await.expect("an answer"));
}

#[tokio::test]
async fn messages_of_one_id_have_their_own_letter_each() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let letters: Vec<_> = namesakes()
        .into_iter()
        .map(|envelope| DeadLetter { envelope, ..letter("a", "m1") })
        .collect();
    for letter in &letters {
        assert!(broker.bury(letter).await.expect("an answer"));
    }
    for letter in &letters {
        let there = broker.dead_letter(&letter.envelope.key()).await.expect("an answer");
        assert_eq!(there.expect("it is there").value, *letter);
    }
}

#[tokio::test]
async fn a_letter_that_does_not_fit_is_cut_where_it_matters_least() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let log: Vec<String> = (0..20).map(|n| format!("{n} {}", "l".repeat(16_000))).collect();
    let ends: Vec<AttemptEnd> = (1..=40)
        .map(|attempt| AttemptEnd { attempt, incarnation: 7, error: "e".repeat(8_000) })
        .collect();
    for (id, size, whole) in
        [("m1", 850_000, true), ("m2", 1_020_000, true), ("m3", 1_044_000, false)]
    {
        let mut large = letter("a", id);
        (large.log, large.attempts) = (log.clone(), ends.clone());
        large.envelope.message = "m".repeat(size);
        assert!(broker.bury(&large).await.expect("it is stored"), "{id}");
        let there = broker.dead_letter(&key("a", id)).await.expect("an answer");
        let there = there.expect("it is there").value;
        assert_eq!(there.cut, !whole, "{id}");
        assert_eq!(there.envelope.message == large.envelope.message, whole, "{id}");
        assert_eq!(there.reason.contains("in the journal"), !whole, "{id}");
        assert_eq!(there.attempts.last().map(|end| end.attempt), Some(40), "{id}");
        // Again, it is the same letter.
        assert!(!broker.bury(&large).await.expect("an answer"), "{id}");
    }
}
