//! What a worker asks people in the course of its turns.

use ::broker::QuestionState;
use common::RequestTag;
use common::question::{Answered, Asked, Question};
use common::worker::ToWorker;

use super::*;
use crate::people::{Act, Acted};

fn question(request_id: &str) -> Question {
    Question {
        request_id: request_id.to_owned(),
        text: "Go?".to_owned(),
        options: Vec::new(),
        default: None,
        timeout_ms: 3_600_000,
    }
}

fn line<'a>(message: &'a str, request_id: &str) -> FromWorker<'a> {
    FromWorker::Question { turn: turn(message), question: Box::new(question(request_id)) }
}

/// What is to be done about which question, in which attempt.
fn acts(todo: &[Do]) -> Vec<(Act, &str, u32)> {
    todo.iter()
        .filter_map(|act| match act {
            Do::AskPerson { person, .. } => {
                let Asked { question, attempt, .. } = &person.asked;
                Some((person.act, question.request_id.as_str(), *attempt))
            }
            _ => None,
        })
        .collect()
}

/// What the worker is told: the question's id, and the answer or what is wrong.
fn answers(todo: &[Do]) -> Vec<(&str, Result<&str, &str>)> {
    todo.iter()
        .filter_map(|act| match act {
            Do::Tell(ToWorker::Answer { request_id, text, error, .. }) => {
                let answer = error.as_deref().map_or(Ok(text.as_str()), Err);
                Some((request_id.as_deref().unwrap_or_default(), answer))
            }
            _ => None,
        })
        .collect()
}

fn closes(todo: &[Do]) -> bool {
    todo.iter().any(|act| matches!(act, Do::CloseQuestions { .. }))
}

fn open(request_id: &str) -> Acted {
    let (question, conversation_id) = (question(request_id), envelope("m", "c").conversation_id);
    let asked = Asked { question, attempt: 1, incarnation: 7, conversation_id };
    let until = Timestamp::from_millis(3_600_000);
    Acted::Is(Box::new(QuestionState::Open { asked, until }), Duration::from_secs(3600))
}

fn answered(request_id: &str) -> Acted {
    let answered = Answered::by(question(request_id), "yes", "ada", "w".to_owned());
    Acted::Is(Box::new(QuestionState::Answered(answered)), Duration::ZERO)
}

/// A turn that waits for a person.
fn waiting() -> Desk {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    assert_eq!(acts(&desk.line(line("m", "q"))), [(Act::Ask, "q", 1)]);
    let now = desk.now();
    assert_eq!(desk.book.person(now, (1, 1), "q", open("q")), []);
    desk
}

#[test]
fn a_turn_that_waits_for_a_person_runs_out_of_no_time_until_it_is_answered() {
    let mut desk = waiting();
    for _ in 0..20 {
        let todo = desk.after(100 * SECOND);
        assert_eq!(cancelled(&todo), [""; 0]);
        assert_eq!(acts(&todo), [(Act::Look, "q", 1)], "a push may be lost");
        let now = desk.now();
        assert_eq!(desk.book.person(now, (1, 1), "q", open("q")), []);
    }
    let now = desk.now();
    let pushed = desk.book.answered(now, &sender("user"), &id("m"), &RequestTag::of("q"));
    assert_eq!(acts(&pushed), [(Act::Look, "q", 1)]);
    let todo = desk.book.person(now, (1, 1), "q", answered("q"));
    assert_eq!(answers(&todo), [("q", Ok("yes"))]);
    assert_eq!(cancelled(&desk.after(59 * SECOND)), [""; 0]);
    assert_eq!(cancelled(&desk.after(2 * SECOND)), ["m"], "its own time goes on");
}

#[test]
fn nobody_answers_in_time() {
    let mut desk = waiting();
    assert_eq!(acts(&desk.after(3600 * SECOND)), [(Act::End, "q", 1)]);
    let now = desk.now();
    let nobody = Answered::nobody(question("q"), "w".to_owned());
    let acted = Acted::Is(Box::new(QuestionState::Answered(nobody)), Duration::ZERO);
    let todo = desk.book.person(now, (1, 1), "q", acted);
    assert_eq!(answers(&todo), [("q", Err("nobody answered within 3600s"))]);
    assert_eq!(settle(&desk.line(done("m", "so be it"))).1.response.as_deref(), Some("so be it"));
}

#[test]
fn a_cancelled_turn_waits_for_nobody_and_ends_in_its_time() {
    let mut desk = waiting();
    let now = desk.now();
    let todo = desk.book.cancel(now, &sender("user"), &id("m"));
    assert_eq!(cancelled(&todo), ["m"]);
    assert_eq!(answers(&todo), [("q", Err("its turn was cancelled"))]);
    assert_eq!(answers(&desk.line(line("m", "q2"))), [("q2", Err("its turn was cancelled"))]);
    let ends = |todo: &[Do]| todo.iter().any(|act| matches!(act, Do::EndWorker { .. }));
    desk.after(61 * SECOND);
    assert!(ends(&desk.after(6 * SECOND)), "it hangs");
    assert!(closes(&desk.line(error("m", false))));
}

#[test]
fn the_questions_of_a_message_are_closed_once_it_has_ended_and_only_then() {
    let mut desk = waiting();
    let todo = desk.line(error("m", true));
    assert!(!closes(&todo), "the next attempt asks again");
    let now = desk.now();
    assert_eq!(desk.book.person(now, (1, 1), "q", answered("q")), [], "its turn is over");
    desk.publish(true);
    assert_eq!(told(&desk.after(2 * SECOND)), ["m"]);
    assert_eq!(acts(&desk.line(line("m", "q"))), [(Act::Ask, "q", 2)]);
    let now = desk.now();
    let todo = desk.book.person(now, (1, 2), "q", answered("q"));
    assert_eq!(answers(&todo), [("q", Ok("yes"))]);
    desk.line(done("m", "answer"));
    desk.publish(true);
    let todo = desk.book.settled(now, 1, true, final_(Outcome::Completed));
    assert!(closes(&todo), "{todo:?}");
    // A message that asks nothing has nothing to close.
    desk.deliver(2, "n", "c");
    desk.line(done("n", "answer"));
    let todo = desk.book.settled(now, 2, true, final_(Outcome::Completed));
    assert!(!closes(&todo), "{todo:?}");
}

#[test]
fn what_cannot_be_asked_is_said_and_harms_no_turn() {
    let mut desk = Desk::new(2);
    desk.deliver(1, "m", "c");
    desk.deliver(2, "n", "d");
    let nowhere =
        FromWorker::Question { turn: TurnRef::default(), question: Box::new(question("q")) };
    let todo = desk.line(nowhere);
    let why = "it belongs to no open turn: name its `messageId`";
    assert_eq!((acts(&todo), answers(&todo)), (vec![], vec![("q", Err(why))]));
    let empty = Question { text: String::new(), ..question("q") };
    let todo = desk.line(FromWorker::Question { turn: turn("m"), question: Box::new(empty) });
    assert_eq!(answers(&todo), [("q", Err("`text` is empty"))]);
    let bad = FromWorker::BadRequest {
        kind: "question".into(),
        request_id: Some("q".into()),
        why: "cut".to_owned(),
    };
    assert_eq!(answers(&desk.line(bad)), [("q", Err("cut"))]);
    assert_eq!(acts(&desk.line(line("m", "q"))), [(Act::Ask, "q", 1)]);
    let todo = desk.line(line("m", "q"));
    assert_eq!(answers(&todo).len(), 1, "it is open: {todo:?}");
    assert_eq!(acts(&desk.line(line("n", "q"))), [(Act::Ask, "q", 1)], "of another message");
    let now = desk.now();
    let todo = desk.book.person(now, (1, 1), "q", Acted::Refused("full".to_owned()));
    assert_eq!(answers(&todo), [("q", Err("full"))]);
    assert_eq!(settle(&desk.line(done("m", "whole"))).1.response.as_deref(), Some("whole"));
}
