//! Lines that cannot be taken, and secrets that are told in pieces.

use common::worker::Damage;

use super::*;

impl Desk {
    fn damaged(&mut self, turn: TurnRef<'static>, ends: bool, again: bool) -> Vec<Do> {
        let damage = Damage { why: "no".into(), turn, ends, ..Damage::default() };
        self.book.damaged(self.now(), &damage, "it is damaged", again)
    }
}

fn reason(todo: &[Do]) -> (Outcome, Option<String>) {
    let (_, final_) = settle(todo);
    (final_.status, final_.reason)
}

/// The errors on record, after everything is published.
fn errors(desk: &mut Desk) -> Vec<String> {
    let (events, _) = desk.publish(true);
    let error = |event: &Event| match &event.body {
        EventBody::Error { error } => Some(error.clone()),
        _ => None,
    };
    events.iter().filter_map(error).collect()
}

#[test]
fn a_damaged_answer_ends_its_attempt_at_once() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let todo = desk.damaged(turn("m"), true, true);
    assert_eq!((notes(&todo), cancelled(&todo)), (1, vec![]));
    assert_eq!(errors(&mut desk), ["it is damaged"]);
    assert_eq!(told(&desk.after(SECOND)), ["m"], "the next attempt");
    desk.damaged(turn("m"), true, true);
    assert_eq!(errors(&mut desk), ["it is damaged"]);
    assert_eq!(told(&desk.after(2 * SECOND)), ["m"]);
    let todo = desk.damaged(turn("m"), true, true);
    assert_eq!(reason(&todo), (Outcome::Failed, Some("it is damaged".into())));
}

#[test]
fn what_no_attempt_can_mend_fails_the_message_at_once() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let todo = desk.damaged(turn("m"), false, false);
    assert_eq!(cancelled(&todo), ["m"], "the worker still has it");
    assert_eq!(reason(&todo), (Outcome::Failed, Some("it is damaged".into())));
}

#[test]
fn an_answer_of_which_a_piece_is_missing_is_none() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.line(text("m", "Done "));
    let todo = desk.damaged(turn("m"), false, true);
    assert_eq!(cancelled(&todo), ["m"]);
    assert_eq!(desk.book.open(), 1, "the worker has not ended it");
    assert_eq!(cancelled(&desk.damaged(turn("m"), false, true)), [""; 0], "it is told once");
    desk.line(text("m", "late"));
    assert_eq!(desk.line(done("m", "good")), []);
    assert_eq!(errors(&mut desk), ["it is damaged"]);
    assert_eq!(told(&desk.after(SECOND)), ["m"], "the next attempt");
    let todo = desk.line(done("m", "good"));
    assert_eq!(settle(&todo).1.response.as_deref(), Some("good"));
}

#[test]
fn a_worker_that_does_not_end_a_broken_turn_is_ended() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.damaged(turn("m"), false, true);
    // Also while it says that it works on it.
    desk.after(4 * SECOND);
    desk.line(FromWorker::Progress { turn: turn("m") });
    let todo = desk.after(SECOND);
    assert_eq!(todo, [Do::EndWorker { reason: "it is damaged".into() }]);
    let now = desk.now();
    desk.book.worker_exited(now, "signal 9");
    assert_eq!(errors(&mut desk), ["it is damaged"]);
}

#[test]
fn a_line_that_names_no_turn_breaks_each_that_is_open() {
    let mut desk = Desk::new(3);
    for (seq, message) in [(1, "a"), (2, "b")] {
        desk.deliver(seq, message, message);
    }
    let mut told = cancelled(&desk.damaged(TurnRef::default(), true, true));
    told.sort();
    assert_eq!(told, ["a", "b"]);
    assert_eq!(desk.line(done("a", "x")), []);
    assert_eq!(errors(&mut desk), ["it is damaged"]);
    // But not where it names one that is over.
    desk.deliver(3, "c", "c");
    let todo = desk.damaged(turn("gone"), true, true);
    assert_eq!((notes(&todo), todo.len()), (1, 1));
    assert_eq!(settle(&desk.line(done("c", "x"))).1.status, Outcome::Completed);
}

#[test]
fn a_cancelled_turn_is_only_noted() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let now = desk.now();
    desk.book.cancel(now, &sender("user"), &id("m"));
    let todo = desk.damaged(turn("m"), true, true);
    assert_eq!(notes(&todo), 1);
    assert_eq!(acked(&todo), ["reply 1"]);
}

#[test]
fn a_secret_that_is_told_in_pieces_is_hidden_in_the_pieces_and_in_the_answer() {
    let mut desk = Desk::with_secret(1, Some(("KEY".into(), "sk-123456".into())));
    desk.deliver(1, "m", "c");
    for piece in ["it is s", "k", "-123", "456", " and s", "k-12", "!"] {
        desk.line(text("m", piece));
    }
    desk.line(text("m", "sk-12"));
    let todo = desk.line(FromWorker::Done { turn: turn("m"), response: None });
    let (_, final_) = settle(&todo);
    let expected = "it is [SECRET KEY] and sk-12!sk-12";
    assert_eq!(final_.response.as_deref(), Some(expected));
    let streamed: String = final_
        .tail
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(streamed, expected);
}
