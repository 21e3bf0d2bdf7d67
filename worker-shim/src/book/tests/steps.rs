//! What a worker stores in the course of its turns.

use ::broker::{Recalled, StepEnd, Stepped};
use common::step::{Json, Step};
use common::worker::{Damage, ToWorker};

use super::*;

fn step<'a>(message: &'a str, key: &'a str, result: &'a str) -> FromWorker<'a> {
    FromWorker::Step { turn: turn(message), key: key.into(), result: result.into() }
}

fn stored(last: u64) -> Result<Stepped, String> {
    Ok(Stepped { last, found: Vec::new(), end: StepEnd::Stored })
}

/// The keys of the steps that are to be stored, each with the record before it and its attempt.
fn sent(todo: &[Do]) -> Vec<(&str, u64, u32)> {
    todo.iter()
        .filter_map(|act| match act {
            Do::Store { step, after, of, .. } => Some((step.key.as_str(), *after, of.attempt)),
            _ => None,
        })
        .collect()
}

/// What the worker is told of its steps: the key, and what is wrong with it or not.
fn answers(todo: &[Do]) -> Vec<(Option<&str>, Option<&str>)> {
    todo.iter()
        .filter_map(|act| match act {
            Do::Tell(ToWorker::StepStored { key, error, .. }) => {
                Some((key.as_deref(), error.as_deref()))
            }
            _ => None,
        })
        .collect()
}

/// The keys of the steps that come with a turn.
fn given(todo: &[Do]) -> Vec<&str> {
    let steps = todo.iter().filter_map(|act| match act {
        Do::Tell(ToWorker::Chat { steps, .. }) => Some(steps),
        _ => None,
    });
    steps.flatten().map(|step| step.key.as_str()).collect()
}

fn recalled(keys: &[&str], last: u64) -> Recalled {
    let step = |key: &&str| Step {
        key: (*key).to_owned(),
        result: Json::new("1".to_owned()).expect("JSON"),
    };
    Recalled { steps: keys.iter().map(step).collect(), last }
}

#[test]
fn steps_are_stored_one_after_the_other_and_the_final_state_after_them() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    assert_eq!(sent(&desk.line(step("m", "a", "1"))), [("a", 0, 1)]);
    assert_eq!(desk.line(step("m", "b", "2")), []);
    let todo = desk.line(done("m", "answer"));
    assert_eq!(todo, [], "its steps are not stored yet");
    let now = desk.now();
    let todo = desk.book.stepped(now, 1, 1, stored(5));
    assert_eq!(sent(&todo), [("b", 5, 1)]);
    assert_eq!(answers(&todo), [], "its turn is over");
    let todo = desk.book.stepped(now, 1, 1, stored(6));
    assert_eq!(settle(&todo).1.response.as_deref(), Some("answer"));
    assert_eq!(desk.book.stepped(now, 1, 1, stored(6)), []);
}

#[test]
fn a_turn_that_waits_for_its_step_runs_out_of_no_time() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.line(step("m", "a", "1"));
    assert_eq!(cancelled(&desk.after(600 * SECOND)), [""; 0]);
    let now = desk.now();
    assert_eq!(answers(&desk.book.stepped(now, 1, 1, stored(5))), [(Some("a"), None)]);
    assert_eq!(cancelled(&desk.after(59 * SECOND)), [""; 0]);
    assert_eq!(cancelled(&desk.after(2 * SECOND)), ["m"]);
}

#[test]
fn the_next_attempt_waits_for_the_steps_of_the_last_and_gets_them() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.line(step("m", "a", "1"));
    desk.line(error("m", true));
    desk.publish(true);
    assert_eq!(desk.after(60 * SECOND), [], "a step is on its way");
    let now = desk.now();
    let todo = desk.book.stepped(now, 1, 1, stored(5));
    let [Do::Recall { seq: 1, of }] = &*todo else { panic!("{todo:?}") };
    assert_eq!((of.attempt, of.incarnation), (2, 7));
    let todo = desk.book.recalled(now, 1, recalled(&["a"], 5));
    assert_eq!((told(&todo), given(&todo)), (vec!["m".to_owned()], vec!["a"]));
    let todo = desk.line(step("m", "a", "2"));
    assert!(
        matches!(&*todo, [Do::Tell(ToWorker::StepStored { duplicate: true, error: None, .. })]),
        "{todo:?}"
    );
    assert_eq!(sent(&desk.line(step("m", "b", "2"))), [("b", 5, 2)]);
}

#[test]
fn a_turn_that_stored_nothing_is_tried_again_without_a_look() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.line(error("m", true));
    desk.publish(true);
    assert_eq!(told(&desk.after(SECOND)), ["m"]);
    // Nor is one whose look-up has found nothing.
    let mut desk = Desk::new(1);
    desk.deliver_as(1, envelope("m", "c"), true);
    assert_eq!(told(&desk.looked_up(1, None, 1)), ["m"]);
}

#[test]
fn what_another_incarnation_has_stored_is_read_before_the_turn_begins() {
    let mut desk = Desk::new(1);
    desk.deliver_as(1, envelope("m", "c"), true);
    let now = desk.now();
    let todo = desk.book.looked_up(now, 1, None, 1, true);
    assert!(matches!(&*todo, [Do::Recall { seq: 1, .. }]), "{todo:?}");
    assert_eq!(desk.deliver(2, "other", "d"), [], "the slot is taken");
    let todo = desk.book.recalled(now, 1, recalled(&["a", "b"], 9));
    assert_eq!(given(&todo), ["a", "b"]);
    assert_eq!(sent(&desk.line(step("m", "c", "1"))), [("c", 9, 2)]);
}

#[test]
fn a_step_that_cannot_be_stored_is_refused_and_its_turn_goes_on() {
    let mut desk = Desk::new(2);
    desk.deliver(1, "m", "c");
    desk.deliver(2, "n", "d");
    let todo = desk.line(step("stranger", "a", "1"));
    assert!(answers(&todo)[0].1.is_some_and(|why| why.contains("no open turn")), "{todo:?}");
    let unclear =
        FromWorker::Step { turn: TurnRef::default(), key: "a".into(), result: "1".into() };
    assert!(answers(&desk.line(unclear))[0].1.is_some());
    let bad = FromWorker::BadStep { turn: turn("m"), key: None, why: "no key".to_owned() };
    assert_eq!(answers(&desk.line(bad)), [(None, Some("no key"))]);
    let damage =
        Damage { why: "cut".to_owned(), turn: turn("m"), ends: false, step: Some("a".to_owned()) };
    let todo = desk.book.damaged(desk.now(), &damage, "damaged", true);
    assert_eq!(answers(&todo), [(Some("a"), Some("cut"))]);
    assert_eq!(cancelled(&todo), [""; 0]);
    // One that the broker does not take may be sent again.
    desk.line(step("m", "a", "1"));
    let now = desk.now();
    let todo = desk.book.stepped(now, 1, 1, Err("full".to_owned()));
    assert_eq!(answers(&todo), [(Some("a"), Some("full"))]);
    assert_eq!(sent(&desk.line(step("m", "a", "1"))), [("a", 0, 1)]);
    assert_eq!(settle(&desk.line(done("n", "x"))).0, 2, "the other turn is none the worse");
}

#[test]
fn what_waits_to_be_stored_slows_the_worker_down() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let large = format!("\"{}\"", "x".repeat(100_000));
    for key in ["a", "b", "c"] {
        desk.line(step("m", key, &large));
        assert!(!desk.book.is_congested(), "one is on its way");
    }
    desk.line(step("m", "d", &large));
    assert!(desk.book.is_congested());
    let now = desk.now();
    desk.book.stepped(now, 1, 1, stored(1));
    assert!(!desk.book.is_congested());
}

#[test]
fn the_last_steps_of_a_worker_that_dies_are_waited_for() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.line(step("m", "a", "1"));
    let now = desk.now();
    desk.book.worker_exited(now, "gone");
    desk.publish(true);
    assert!(!desk.book.is_idle());
    desk.book.stepped(now, 1, 1, stored(5));
    assert!(desk.book.is_idle());
}

fn fenced() -> Result<Stepped, String> {
    Ok(Stepped { last: 9, found: Vec::new(), end: StepEnd::Fenced(8) })
}

#[test]
fn a_message_that_a_later_incarnation_works_on_gets_nothing_from_this_one() {
    // Its turn goes on and fails, or answers: neither counts.
    for ends in [error("m", false), done("m", "late")] {
        let mut desk = Desk::new(1);
        desk.deliver(1, "m", "c");
        desk.line(step("m", "a", "1"));
        let now = desk.now();
        let todo = desk.book.stepped(now, 1, 1, fenced());
        let told = answers(&todo);
        assert!(told[0].1.is_some_and(|why| why.contains("incarnation 8")), "{todo:?}");
        assert!(matches!(&todo[0], Do::Tell(ToWorker::StepStored { retryable: false, .. })));
        assert_eq!(cancelled(&todo), ["m"]);
        assert!(answers(&desk.line(step("m", "b", "1")))[0].1.is_some());
        let todo = desk.line(ends);
        assert!(matches!(&*todo, [Do::Ack { .. }]), "{todo:?}");
    }
    // Its worker has ended it while the step was on its way.
    for ends in [error("m", false), error("m", true), done("m", "late")] {
        let mut desk = Desk::new(1);
        desk.deliver(1, "m", "c");
        desk.line(step("m", "a", "1"));
        assert_eq!(desk.line(ends), []);
        desk.publish(true);
        assert_eq!(told(&desk.deliver(2, "n", "c")), [""; 0], "of the same conversation");
        let now = desk.now();
        let todo = desk.book.stepped(now, 1, 1, fenced());
        assert!(matches!(todo[0], Do::Ack { .. }), "{todo:?}");
        assert_eq!(told(&todo), ["n"]);
        assert_eq!(desk.book.held(), 1);
    }
}
