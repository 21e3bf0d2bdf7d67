//! What workers ask people: one answer each, and a list of what is open.

use std::collections::BTreeMap;

use broker::{AnswerEnd, Broker, QuestionState};
use common::RequestTag;
use common::message::{Envelope, MessageKey};
use common::question::{Answered, Asked, Question};

use crate::history::{archive, finish, records, send};
use crate::support::{SOON, Server, agent, envelope, key, soon};

fn question(id: &str, text: &str) -> Question {
    Question {
        request_id: id.to_owned(),
        text: text.to_owned(),
        options: Vec::new(),
        default: None,
        timeout_ms: 3_600_000,
    }
}

fn asked(of: &Envelope, question: Question, attempt: u32) -> Asked {
    let conversation_id = of.conversation_id.clone();
    Asked { question, attempt, incarnation: attempt.into(), conversation_id }
}

async fn ask(broker: &Broker, of: &Envelope, id: &str, text: &str, attempt: u32) -> QuestionState {
    let asked = asked(of, question(id, text), attempt);
    soon(broker.ask_person(&of.key(), &asked, SOON)).await.expect("an answer")
}

fn by(who: &str, id: &str, text: &str) -> Answered {
    Answered::by(question(id, "?"), text, who, format!("{who}'s {text}"))
}

async fn answer(broker: &Broker, of: &Envelope, answered: &Answered) -> AnswerEnd {
    let key = of.key();
    let answering = broker.answer_question(&key, &of.conversation_id, answered, SOON);
    soon(answering).await.expect("an answer")
}

/// The agents, messages and ids of what is open.
async fn open(broker: &Broker) -> Vec<String> {
    let (open, next) = soon(broker.open_questions(None, 0, 100, 1 << 20)).await.expect("a list");
    assert_eq!(next, None);
    let name = |it: common::question::OpenQuestion| {
        format!("{}/{}/{}", it.agent, it.message_id, it.request_id)
    };
    open.into_iter().map(name).collect()
}

async fn state(broker: &Broker, key: &MessageKey, id: &str) -> QuestionState {
    soon(broker.question(key, &RequestTag::of(id))).await.expect("an answer")
}

#[tokio::test]
async fn the_first_question_of_an_id_and_the_first_answer_count() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let m = send(&broker, "a", "m").await;
    assert_eq!(state(&broker, &m.key(), "q").await, QuestionState::Unknown);
    let QuestionState::Open { asked, until } = ask(&broker, &m, "q", "First?", 1).await else {
        panic!("it is open");
    };
    assert_eq!(asked.question.text, "First?");
    let again = ask(&broker, &m, "q", "Second?", 2).await;
    assert_eq!(again, QuestionState::Open { asked, until }, "it is the same one");
    assert_eq!(open(&broker).await, ["a/m/q"]);

    let (ada, bob) = (by("ada", "q", "yes"), by("bob", "q", "no"));
    let (first, second) = tokio::join!(answer(&broker, &m, &ada), answer(&broker, &m, &bob));
    let counts = match (first, second) {
        (AnswerEnd::Stored, AnswerEnd::Already(first)) => {
            assert_eq!(*first, ada);
            ada
        }
        (AnswerEnd::Already(first), AnswerEnd::Stored) => {
            assert_eq!(*first, bob);
            bob
        }
        both => panic!("one of them counts: {both:?}"),
    };
    assert_eq!(answer(&broker, &m, &counts).await, AnswerEnd::Stored, "a repetition is none");
    assert_eq!(state(&broker, &m.key(), "q").await, QuestionState::Answered(counts.clone()));
    assert_eq!(open(&broker).await, [""; 0]);
    // An attempt that asks again gets it, also one that does not know that it is not the first.
    for attempt in [3, 1] {
        let again = ask(&broker, &m, "q", "Third?", attempt).await;
        assert_eq!(again, QuestionState::Answered(counts.clone()));
        assert_eq!(open(&broker).await, [""; 0]);
    }
    assert_eq!(records(&server, "QUESTIONS").await.0, 1, "the answer alone");
    let late = soon(broker.questions_named(None, None, "q")).await.expect("an answer");
    assert_eq!((late.open, late.answered), (vec![], vec![(m.key(), counts)]));
}

#[tokio::test]
async fn what_is_open_is_listed_in_pages_and_counted_and_what_is_not_is_removed() {
    let server = Server::start().await;
    let broker = server.broker().await;
    assert_eq!(open(&broker).await, [""; 0]);
    let (m, n, o) = (
        send(&broker, "a", "m").await,
        send(&broker, "a", "n").await,
        send(&broker, "b", "o").await,
    );
    for (of, id) in [(&m, "q1"), (&m, "q2"), (&n, "q1"), (&o, "q1")] {
        ask(&broker, of, id, "Go?", 1).await;
    }
    assert_eq!(open(&broker).await, ["a/m/q1", "a/m/q2", "a/n/q1", "b/o/q1"]);
    for (most, bytes) in [(1, 1 << 20), (100, 1)] {
        let (mut after, mut pages) = (Some(0), 0);
        while let Some(from) = after {
            let page = broker.open_questions(None, from, most, bytes);
            let (rows, next) = soon(page).await.expect("a page");
            assert!(rows.len() <= 1, "{rows:?}");
            (after, pages) = (next, pages + rows.len());
        }
        assert_eq!(pages, 4);
    }
    let (of_b, _) =
        soon(broker.open_questions(Some(&agent("b")), 0, 9, 1 << 20)).await.expect("a list");
    assert_eq!(of_b.len(), 1);
    let count = || async { soon(broker.count_questions(None)).await.expect("counts") };
    assert_eq!(count().await, BTreeMap::from([(agent("a"), 3), (agent("b"), 1)]));
    let named = soon(broker.questions_named(Some(&agent("a")), None, "q1")).await.expect("some");
    assert_eq!(named.open.len(), 2);

    // One has ended, and nobody has closed what it asked; and one was answered by somebody who died before the question was removed.
    finish(&broker, &m).await;
    let client = server.client().await;
    let tag = RequestTag::of("q1");
    let subject = broker.subjects().answer(&o.key(), &tag);
    let text = serde_json::to_vec(&by("ada", "q1", "yes")).expect("it encodes");
    let stored = client.request(subject, text.into()).await.expect("an answer");
    assert!(!String::from_utf8_lossy(&stored.payload).contains("error"), "{stored:?}");
    assert_eq!(count().await, BTreeMap::from([(agent("a"), 1)]));
    assert_eq!(open(&broker).await, ["a/n/q1"]);
    assert_eq!(records(&server, "QUESTIONS").await.0, 2, "what is open, and the answer");
}

#[tokio::test]
async fn questions_leave_with_their_message_and_what_comes_late_is_swept() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (m, n) = (send(&broker, "a", "m").await, send(&broker, "a", "n").await);
    for of in [&m, &n] {
        ask(&broker, of, "q", "Go?", 1).await;
    }
    answer(&broker, &m, &by("ada", "q", "yes")).await;
    finish(&broker, &m).await;
    assert_eq!(archive(&broker).await, 1);
    assert_eq!(state(&broker, &m.key(), "q").await, QuestionState::Unknown);
    assert_eq!(open(&broker).await, ["a/n/q"]);
    ask(&broker, &m, "late", "Go?", 1).await;
    assert_eq!(archive(&broker).await, 0);
    assert_eq!(state(&broker, &m.key(), "late").await, QuestionState::Unknown);
    assert_eq!(state(&broker, &key("a", "nobody"), "q").await, QuestionState::Unknown);
    assert_eq!(open(&broker).await, ["a/n/q"]);
    assert_eq!(envelope("a", "n").key(), n.key());
}
