//! Dead letters.

use common::Timestamp;
use common::message::{AttemptEnd, DeadLetter};

use crate::support::{Server, agent, envelope, key, message, namesakes};

fn letter(name: &str, id: &str) -> DeadLetter {
    DeadLetter {
        envelope: envelope(name, id),
        reason: "exit code 1".into(),
        attempts: vec![AttemptEnd { attempt: 1, incarnation: 7, error: "exit code 1".into() }],
        log: vec!["panic".into()],
        at: Timestamp::from_millis(5),
        redriven_as: None,
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

    let all = broker.dead_letters(None).await.expect("an answer");
    assert_eq!(all.len(), 2);
    let of_a = broker.dead_letters(Some(&a)).await.expect("an answer");
    let of_a: Vec<_> = of_a.into_iter().map(|stored| stored.value).collect();
    assert_eq!(of_a, [redriven]);

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
