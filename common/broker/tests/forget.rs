//! What is forgotten is in no stream and in no file any more, and all else is.

use std::time::Duration;

use broker::{Archiver, Broker, EventBatch, Forget, Forgotten, SendOutcome};
use common::event::{Event, EventBody, sequence};
use common::log::LogLine;
use common::message::{DeadLetter, Envelope};
use common::{ConversationId, Timestamp};

use crate::history::{AT_ONCE, archive, finish, records, stop_after};
use crate::support::{
    SOON, Server, agent, completed, drop_namespace, envelope, is_alone, message, soon,
};

fn conversation(name: &str) -> ConversationId {
    ConversationId::new(name).expect("valid")
}

fn all_of(name: &str) -> Forget {
    Forget { agent: agent(name), conversation: None, before: None }
}

/// Everything that there can be of a message, but for its final state: each of it with the words `of <id>.`.
async fn say(broker: &Broker, name: &str, id: &str, of: &str) -> Envelope {
    let mut envelope = envelope(name, id);
    envelope.conversation_id = conversation(of);
    envelope.message = format!("the text of {id}.");
    let sent = soon(broker.send(&envelope, SOON)).await.expect("an answer");
    assert!(matches!(sent, SendOutcome::Stored { .. }), "{sent:?}");
    let at = Timestamp::from_millis(1);
    let text = EventBody::Text { text: format!("the event of {id}.") };
    let batch = EventBatch {
        agent: agent(name),
        sender: envelope.sender.clone(),
        message_id: message(id),
        conversation_id: conversation(of),
        incarnation: 1,
        attempt: 1,
        events: vec![Event { seq: sequence(1, 1), at, body: text }],
    };
    soon(broker.publish_events(&batch)).await.expect("stored");
    let line = LogLine {
        at,
        stream: "stderr".into(),
        text: format!("the log of {id}."),
        message_id: Some(id.into()),
        incarnation: 1,
    };
    broker.publish_logs(&agent(name), 1, &[line]).await.expect("told");
    let mut letter = DeadLetter {
        envelope: envelope.clone(),
        reason: format!("the letter of {id}."),
        attempts: Vec::new(),
        log: Vec::new(),
        at,
        redriven_as: None,
        cut: false,
    };
    soon(broker.bury(&letter)).await.expect("stored");
    let there = soon(broker.dead_letter(&envelope.key())).await.expect("an answer");
    // What is replaced is in the file, too.
    letter.reason = format!("the second letter of {id}.");
    let is_replaced = broker.rebury(&letter, there.expect("it is there").seq).await;
    assert!(is_replaced.expect("an answer"));
    soon(broker.flush(SOON)).await.expect("an answer");
    envelope
}

async fn said(broker: &Broker, name: &str, id: &str, of: &str) {
    let envelope = say(broker, name, id, of).await;
    finish(broker, &envelope).await;
}

async fn forget(broker: &Broker, what: &Forget) -> Forgotten {
    let would = soon(broker.forgettable(what)).await.expect("an answer");
    let done = soon(broker.forget(what, |_| {})).await.expect("it goes");
    assert_eq!((would.messages, would.open), (done.messages, done.open), "{would:?}, {done:?}");
    assert_eq!(would.total().records, done.total().records, "{would:?}, {done:?}");
    done
}

/// Whether anything of a message is in the server's files.
fn is_there(server: &Server, id: &str) -> bool {
    server.stored(&format!("of {id}."))
}

#[tokio::test]
async fn nothing_of_an_agent_is_in_any_file_and_all_of_the_others_is() {
    let server = Server::start().await;
    let broker = server.broker().await;
    for (name, id) in [("a", "cold-a"), ("b", "cold-b")] {
        said(&broker, name, id, "c").await;
    }
    assert_eq!(archive(&broker).await, 2);
    for (name, id) in [("a", "hot-a"), ("b", "hot-b")] {
        said(&broker, name, id, "c").await;
    }
    let open = say(&broker, "a", "open-a", "c").await;
    let done = forget(&broker, &all_of("a")).await;
    assert_eq!((done.messages, done.open), (2, 1));
    for id in ["cold-a", "hot-a"] {
        assert!(!is_there(&server, id), "{id}: {done:?}");
    }
    for id in ["cold-b", "hot-b", "open-a"] {
        assert!(is_there(&server, id), "{id}");
    }
    // Its events stay with the open message.
    assert_eq!(broker.events(&open.key()).await.expect("an answer").len(), 1);
    // Archiving goes on as before.
    finish(&broker, &open).await;
    assert_eq!(archive(&broker).await, 2);
    let done = forget(&broker, &all_of("a")).await;
    assert_eq!((done.messages, done.open), (1, 0));
    assert!(!is_there(&server, "open-a"));
    assert_eq!(forget(&broker, &all_of("a")).await, Forgotten::default());
    assert!(is_there(&server, "cold-b") && is_there(&server, "hot-b"));
}

#[tokio::test]
async fn one_conversation_goes_and_the_others_stay() {
    let server = Server::start().await;
    let broker = server.broker().await;
    for id in ["in-1", "out-1", "alone-1", "alone-2"] {
        said(&broker, "a", id, id.strip_suffix("-1").unwrap_or(id)).await;
    }
    // Messages without a named conversation are conversations of their own.
    for id in ["own-1", "own-2"] {
        said(&broker, "a", id, id).await;
    }
    archive(&broker).await;
    for id in ["in-2", "out-2"] {
        said(&broker, "a", id, &id[..id.len() - 2]).await;
    }
    for id in ["own-3", "own-4"] {
        said(&broker, "a", id, id).await;
    }
    // Of another conversation: it is not among what is kept of this one.
    say(&broker, "a", "open-1", "open").await;
    for (of, count) in [("in", 2), ("own-1", 1), ("own-3", 1), ("nothing", 0)] {
        let what = Forget { conversation: Some(conversation(of)), ..all_of("a") };
        let done = forget(&broker, &what).await;
        assert_eq!((done.messages, done.open), (count, 0), "{of}");
    }
    for id in ["in-1", "in-2", "own-1", "own-3"] {
        assert!(!is_there(&server, id), "{id}");
    }
    for id in ["out-1", "out-2", "own-2", "own-4", "alone-1", "alone-2", "open-1"] {
        assert!(is_there(&server, id), "{id}");
    }
}

#[tokio::test]
async fn what_is_older_than_a_moment_goes_with_all_that_came_of_it() {
    let server = Server::start().await;
    let broker = server.broker().await;
    said(&broker, "a", "cold", "c").await;
    archive(&broker).await;
    let asked_before = say(&broker, "a", "asked", "c").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = Some(broker.clock().await.expect("its time"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Its answer comes after that moment.
    finish(&broker, &asked_before).await;
    said(&broker, "a", "later", "c").await;
    let done = forget(&broker, &Forget { before, ..all_of("a") }).await;
    assert_eq!(done.messages, 2);
    for id in ["cold", "asked"] {
        assert!(!is_there(&server, id), "{id}");
    }
    assert!(is_there(&server, "later"));
}

/// An archiver has read what is forgotten before it copies it.
#[tokio::test]
async fn an_archiver_that_is_under_way_does_not_bring_back_what_is_forgotten() {
    let server = Server::start().await;
    let mut came_to_its_end = false;
    for steps in 1..400 {
        let namespace = format!("n{steps}");
        let broker = server.broker_in(&namespace, 1).await;
        for id in [1, 2] {
            let id = format!("{namespace}-{id}");
            let mut envelope = envelope("a", &id);
            envelope.message = format!("the text of {id}.");
            soon(broker.send(&envelope, SOON)).await.expect("stored");
            finish(&broker, &envelope).await;
        }
        // A conversation of its own is found by its id.
        let first =
            Forget { conversation: Some(conversation(&format!("{namespace}-1"))), ..all_of("a") };
        let mut archiver = Archiver::new(broker.clone(), AT_ONCE);
        {
            let mut round = std::pin::pin!(archiver.round());
            came_to_its_end = stop_after(steps, round.as_mut()).await;
            let done = soon(broker.forget(&first, |_| {})).await.expect("it goes");
            assert!(done.messages >= 1, "after {steps} steps: {done:?}");
            if !came_to_its_end {
                // It may be refused.
                let _round = soon(round).await;
            }
        }
        let _round = soon(archiver.round()).await;
        archive(&broker).await;
        let left = broker.forgettable(&all_of("a")).await.expect("an answer");
        assert_eq!(left.messages, 1, "after {steps} steps: {left:?}");
        // Of a cluster, the files of one server say little of a moment.
        if is_alone() {
            assert!(!is_there(&server, &format!("{namespace}-1")), "after {steps} steps");
            assert!(is_there(&server, &format!("{namespace}-2")), "after {steps} steps");
        }
        drop_namespace(&broker).await;
        if came_to_its_end {
            break;
        }
    }
    assert!(came_to_its_end, "a round has an end");
}

/// What was archived leaves its bytes in the journal's file, as long as anything beside them is still there.
#[tokio::test]
async fn bytes_of_what_left_the_journal_before_leave_its_files() {
    if !is_alone() {
        return;
    }
    let server = Server::start().await;
    let broker = server.broker().await;
    let open = say(&broker, "b", "open", "c").await;
    said(&broker, "a", "m1", "c").await;
    assert_eq!(archive(&broker).await, 1);
    // It is in HISTORY and, though removed, in the journal's file.
    assert_eq!(forget(&broker, &all_of("a")).await.messages, 1);
    assert!(!is_there(&server, "m1"));
    assert!(is_there(&server, "open"));
    assert_eq!(records(&server, "JOURNAL").await.0, 1);
    finish(&broker, &open).await;
    assert_eq!(archive(&broker).await, 1);
}

/// A message of two records in HISTORY, that was asked before a moment and answered after it.
async fn long(broker: &Broker, id: &str) -> Forget {
    let mut envelope = envelope("a", id);
    envelope.message = format!("{} of {id}.", "x".repeat(400_000));
    soon(broker.send(&envelope, SOON)).await.expect("stored");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let before = Some(broker.clock().await.expect("its time"));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let answer = completed(&format!("{} of {id}.", "y".repeat(400_000)));
    let (key, tag) = (envelope.key(), envelope.tag());
    soon(broker.publish_final(&key, &tag, &answer, "1.1", SOON)).await.expect("stored");
    Forget { conversation: Some(conversation(id)), before, ..all_of("a") }
}

#[tokio::test]
async fn forgetting_that_is_stopped_anywhere_is_finished_by_the_same_again() {
    let server = Server::start().await;
    let mut came_to_its_end = false;
    for steps in (1..1000).step_by(11) {
        let namespace = format!("n{steps}");
        let broker = server.broker_in(&namespace, 1).await;
        let (cold, hot) = (format!("{namespace}-c"), format!("{namespace}-h"));
        let of_cold = long(&broker, &cold).await;
        assert_eq!(archive(&broker).await, 1);
        let of_hot = long(&broker, &hot).await;
        came_to_its_end = true;
        for what in [&of_cold, &of_hot] {
            came_to_its_end &= stop_after(steps, broker.forget(what, |_| {})).await;
        }
        // No message looks open that is not.
        let scan = broker.open_requests(&agent("a"), 1, 10).await.expect("a scan");
        assert_eq!(scan.total, 0, "after {steps} steps");
        for what in [&of_cold, &of_hot] {
            soon(broker.forget(what, |_| {})).await.expect("it goes");
        }
        assert!(!is_there(&server, &cold) && !is_there(&server, &hot), "after {steps} steps");
        drop_namespace(&broker).await;
        if came_to_its_end {
            break;
        }
    }
    assert!(came_to_its_end, "it has an end");
}
