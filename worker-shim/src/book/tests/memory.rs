//! The number of turns before a message.

use super::*;

/// The numbers that the worker is told with its messages.
fn turns(todo: &[Do]) -> Vec<Option<u64>> {
    let turn = |act: &Do| match act {
        Do::Tell(ToWorker::Chat { turn, .. }) => Some(*turn),
        _ => None,
    };
    todo.iter().filter_map(turn).collect()
}

fn asked(todo: &[Do]) -> Vec<u64> {
    let asked = |act: &Do| match act {
        Do::CountTurns { seq, .. } => Some(*seq),
        _ => None,
    };
    todo.iter().filter_map(asked).collect()
}

fn desk(concurrency: usize) -> Desk {
    let mut desk = Desk::new(concurrency);
    desk.book.rules.memory = true;
    desk
}

/// The worker answers, and that is stored.
fn answered(desk: &mut Desk, message: &str) -> Vec<Do> {
    let todo = desk.line(done(message, "x"));
    desk.stored(&todo, true)
}

#[test]
fn a_conversation_is_asked_for_once_and_counted_from_then_on() {
    let mut desk = desk(1);
    let todo = desk.deliver(1, "m1", "c");
    assert_eq!((asked(&todo), told(&todo).len()), (vec![1], 0));
    // Nothing else takes its slot.
    assert!(asked(&desk.deliver(2, "m2", "c")).is_empty());
    let now = desk.now();
    assert_eq!(turns(&desk.book.counted(now, 1, Some(7))), [Some(7)]);
    // The same attempt again, and the next message.
    assert!(turns(&desk.line(error("m1", true))).is_empty());
    let _published = desk.publish(true);
    assert_eq!(turns(&desk.after(SECOND)), [Some(7)]);
    assert_eq!(turns(&answered(&mut desk, "m1")), [Some(8)]);
    assert!(answered(&mut desk, "m2").len() == 1);
    assert_eq!(turns(&desk.deliver(3, "m3", "c")), [Some(9)]);
}

#[test]
fn a_conversation_of_its_own_a_question_and_a_soul_without_memory_ask_for_nothing() {
    let mut desk = desk(3);
    assert_eq!(turns(&desk.deliver(1, "m1", "m1")), [Some(0)]);
    let mut question = envelope("m2", "c");
    question.kind = Kind::Route;
    assert_eq!(told(&desk.deliver_as(2, question, false)), ["m2"]);
    desk.book.rules.memory = false;
    assert_eq!(turns(&desk.deliver(3, "m3", "d")), [None]);
}

#[test]
fn without_an_answer_the_message_goes_without_the_number() {
    let mut desk = desk(1);
    let _asked = desk.deliver(1, "m1", "c");
    let now = desk.now();
    assert_eq!(turns(&desk.book.counted(now, 1, None)), [None]);
    let _done = answered(&mut desk, "m1");
    assert_eq!(asked(&desk.deliver(2, "m2", "c")), [2]);
}

#[test]
fn what_others_finish_is_asked_for_again() {
    let mut desk = desk(1);
    let _asked = desk.deliver(1, "m1", "c");
    let now = desk.now();
    let _told = desk.book.counted(now, 1, Some(0));
    // Cancelled while it waits: whether it was counted is not known.
    let _waits = desk.deliver(2, "m2", "c");
    let _left = desk.book.cancel(now, &sender("user"), &id("m2"));
    let _done = answered(&mut desk, "m1");
    assert_eq!(asked(&desk.deliver(3, "m3", "c")), [3]);
    // The final state of another counts, not ours.
    let _told = desk.book.counted(now, 3, Some(2));
    let todo = desk.line(done("m3", "x"));
    let _left = desk.stored(&todo, false);
    assert_eq!(asked(&desk.deliver(4, "m4", "c")), [4]);
    // One that is cancelled meanwhile is not told.
    let _left = desk.book.cancel(now, &sender("user"), &id("m4"));
    assert!(told(&desk.book.counted(now, 4, Some(3))).is_empty());
    // One that is final when it comes.
    let _look = desk.deliver_as(5, envelope("m5", "c"), true);
    let _left = desk.looked_up(5, Some(final_(Outcome::Completed)), 0);
    assert_eq!(asked(&desk.deliver(6, "m6", "c")), [6]);
}
