//! Turns: retries, deadlines, cancels, the worker's end.

use common::message::Outcome;

use super::*;

#[test]
fn a_retryable_error_is_tried_again_after_a_while_before_the_rest_of_its_conversation() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m1", "c");
    desk.deliver(2, "m2", "c");
    assert_eq!(desk.line(error("m1", true)), []);
    let (events, _) = desk.publish(true);
    assert!(matches!(bodies(&events)[..], [EventBody::Delivered { .. }, EventBody::Error { .. }]));
    assert_eq!(desk.book.next_us(), Some(desk.us + SECOND));
    assert_eq!(desk.after(SECOND - 1), []);
    assert_eq!(told(&desk.after(1)), ["m1"]);
    let todo = desk.line(done("m1", "x"));
    let (_, final_) = settle(&todo);
    assert_eq!((final_.attempts, final_.tail[0].seq), (2, 1_000_001));
    assert_eq!(told(&desk.stored(&todo, true)), ["m2"]);
}

#[test]
fn a_retry_waits_for_the_events_of_the_attempt_before() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.line(error("m", true));
    let batches = desk.book.take_batches(desk.now(), true);
    assert_eq!(batches.len(), 1);
    assert!(!desk.book.is_idle());
    assert_eq!(told(&desk.after(5 * SECOND)), [""; 0]);
    let now = desk.now();
    assert_eq!(told(&desk.book.batch_stored(now, 1)), ["m"]);
}

#[test]
fn another_conversation_goes_on_while_one_waits_for_its_retry() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.deliver(2, "other", "d");
    assert_eq!(told(&desk.line(error("m", true))), ["other"]);
}

#[test]
fn an_error_that_is_not_retryable_is_the_end() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let todo = desk.line(error("m", false));
    let (_, final_) = settle(&todo);
    assert_eq!((final_.status, final_.reason.as_deref()), (Outcome::Failed, Some("no luck")));
    assert!(matches!(
        bodies(&final_.tail)[..],
        [EventBody::Delivered { .. }, EventBody::Error { .. }]
    ));
}

#[test]
fn the_last_attempts_error_fails_the_message_which_is_then_buried() {
    let mut desk = Desk::new(1);
    let mut todo = desk.deliver(1, "m", "c");
    for attempt in 1..=3 {
        assert_eq!(told(&todo), ["m"], "attempt {attempt}");
        todo = desk.line(error("m", true));
        if attempt < 3 {
            desk.publish(true);
            todo = desk.after(60 * SECOND);
        }
    }
    assert_eq!(settle(&todo).1.attempts, 3);
    let todo = desk.stored(&todo, true);
    let [Do::Bury { envelope, final_, reply }] = &*todo else { panic!("{todo:?}") };
    assert_eq!(
        (envelope.message_id.as_str(), final_.attempts, reply.as_str()),
        ("m", 3, "reply 1")
    );
    assert!(desk.book.is_idle());
}

#[test]
fn a_turn_without_progress_is_cancelled_then_its_worker_is_ended() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    assert_eq!(desk.after(60 * SECOND - 1), []);
    assert_eq!(cancelled(&desk.after(1)), ["m"]);
    desk.line(FromWorker::Progress { turn: TurnRef::default() });
    assert_eq!(desk.after(5 * SECOND - 1), [], "progress comes too late");
    let todo = desk.after(1);
    assert_eq!(todo, [Do::EndWorker { reason: "turn timed out after 60s".into() }]);
    assert_eq!(desk.after(60 * SECOND), [], "once");
    desk.book.worker_exited(desk.now(), "turn timed out after 60s (exit code 137 (signal 9))");
    assert_eq!(desk.book.open(), 0);
}

#[test]
fn progress_starts_the_deadline_anew() {
    for line in [
        FromWorker::Progress { turn: TurnRef::default() },
        FromWorker::Progress { turn: turn("m") },
        text("m", "a"),
        FromWorker::Ack { turn: turn("m") },
    ] {
        let mut desk = Desk::new(1);
        desk.deliver(1, "m", "c");
        assert_eq!(desk.after(59 * SECOND), []);
        desk.line(line);
        assert_eq!(desk.after(59 * SECOND), []);
        assert_eq!(cancelled(&desk.after(SECOND)), ["m"]);
    }
}

#[test]
fn a_turn_may_answer_in_its_grace() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.after(60 * SECOND);
    let todo = desk.line(done("m", "just in time"));
    assert_eq!(settle(&todo).1.status, Outcome::Completed);
}

#[test]
fn a_turn_that_timed_out_and_gives_up_has_another_attempt() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.after(60 * SECOND);
    assert_eq!(desk.line(error("m", false)), []);
    let (events, _) = desk.publish(true);
    let said = EventBody::Error { error: "turn timed out after 60s: no luck".into() };
    assert_eq!(bodies(&events).last(), Some(&&said));
    assert_eq!(told(&desk.after(SECOND)), ["m"]);
}

#[test]
fn silence_is_not_held_against_a_worker_that_nobody_listens_to() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.us += 60 * SECOND;
    let now = desk.now();
    assert_eq!(desk.book.tick(now, true), []);
    assert_eq!(desk.after(59 * SECOND), []);
    assert_eq!(cancelled(&desk.after(SECOND)), ["m"]);
}

#[test]
fn a_cancel_takes_what_waits_out_at_once() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m1", "c");
    desk.deliver(2, "m2", "c");
    desk.deliver_as(3, envelope("m3", "c"), true);
    for (seq, message) in [(2, "m2"), (3, "m3")] {
        let now = desk.now();
        let todo = desk.book.cancel(now, &sender("user"), &id(message));
        assert_eq!(todo, [Do::Ack { reply: format!("reply {seq}") }]);
    }
    assert_eq!(desk.looked_up(3, None, 0), [], "its look-up comes too late");
    assert_eq!(desk.book.held(), 1);
}

#[test]
fn a_cancelled_turn_is_told_once_says_nothing_more_and_ends_in_an_ack() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.deliver(2, "next", "c");
    let now = desk.now();
    assert_eq!(cancelled(&desk.book.cancel(now, &sender("user"), &id("m"))), ["m"]);
    assert_eq!(desk.book.cancel(now, &sender("user"), &id("m")), []);
    desk.publish(true);
    desk.line(text("m", "more"));
    assert_eq!(desk.publish(true).0, []);
    let todo = desk.line(error("m", true));
    assert_eq!((acked(&todo), told(&todo)), (vec!["reply 1"], vec!["next".to_owned()]));
}

#[test]
fn a_cancelled_turn_that_goes_on_and_on_is_ended_with_its_worker() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let now = desk.now();
    desk.book.cancel(now, &sender("user"), &id("m"));
    for _ in 0..59 {
        assert_eq!(desk.after(SECOND), []);
        desk.line(text("m", "and on"));
    }
    assert_eq!(cancelled(&desk.after(SECOND)), [""; 0], "it was told");
    assert!(matches!(&*desk.after(5 * SECOND), [Do::EndWorker { .. }]));
    let now = desk.now();
    assert_eq!(acked(&desk.book.worker_exited(now, "gone")), ["reply 1"], "no attempt is charged");
}

#[test]
fn a_cancel_while_the_final_is_stored_changes_nothing() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let todo = desk.line(done("m", "x"));
    let now = desk.now();
    assert_eq!(desk.book.cancel(now, &sender("user"), &id("m")), []);
    assert_eq!(acked(&desk.stored(&todo, false)), ["reply 1"]);
}

#[test]
fn a_cancel_of_another_senders_message_is_not_ours() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let now = desk.now();
    assert_eq!(desk.book.cancel(now, &sender("other"), &id("m")), []);
}

#[test]
fn what_was_cancelled_before_it_came_is_looked_up() {
    let mut desk = Desk::new(1);
    let now = desk.now();
    desk.book.cancel(now, &sender("user"), &id("m"));
    assert!(matches!(&*desk.deliver(1, "m", "c"), [Do::LookUp { .. }]));
    assert_eq!(acked(&desk.looked_up(1, Some(final_(Outcome::Cancelled)), 0)), ["reply 1"]);
    for n in 0..10_000 {
        desk.book.cancel(now, &sender("user"), &id(&format!("x{n}")));
    }
    assert_eq!(desk.book.cancelled.len(), super::super::CANCELLED, "bounded");
}

#[test]
fn the_workers_end_charges_the_turns_that_were_open_and_no_others() {
    let mut desk = Desk::new(2);
    desk.deliver(1, "a1", "a");
    desk.deliver(2, "a2", "a");
    desk.deliver(3, "b", "b");
    desk.deliver_as(4, envelope("looked", "d"), true);
    let now = desk.now();
    assert_eq!(desk.book.worker_exited(now, "exit code 1"), []);
    let batches = desk.book.take_batches(now, true);
    let ended: Vec<_> = batches.iter().map(|batch| (batch.seq, batch.attempt)).collect();
    assert_eq!(ended, [(1, 1), (3, 1)]);
    for batch in batches {
        let said = EventBody::Error { error: "exit code 1".into() };
        assert_eq!(bodies(&batch.events).last(), Some(&&said));
        assert!(!desk.book.is_idle());
        assert_eq!(desk.book.batch_stored(now, batch.seq), []);
    }
    assert!(desk.book.is_idle(), "the rest is the next incarnation's");
    assert_eq!(desk.after(60 * SECOND), []);
}

#[test]
fn the_workers_end_in_the_last_attempt_fails_the_message() {
    let mut desk = Desk::new(1);
    desk.deliver_as(1, envelope("m", "c"), true);
    desk.looked_up(1, None, 2);
    let now = desk.now();
    let todo = desk.book.worker_exited(now, "exit code 9");
    let (_, final_) = settle(&todo);
    assert_eq!((final_.attempts, final_.reason.as_deref()), (3, Some("exit code 9")));
    assert!(matches!(&*desk.stored(&todo, true), [Do::Bury { .. }]));
}

#[test]
fn no_turn_begins_while_the_broker_owes_an_answer_for_a_second() {
    // Of events that are under way.
    let mut desk = Desk::new(3);
    desk.deliver(1, "m1", "a");
    let batches = desk.book.take_batches(desk.now(), true);
    assert_eq!(batches.len(), 1);
    desk.us += SECOND - 1;
    assert_eq!(told(&desk.deliver(2, "m2", "b")), ["m2"], "it may still be on its way");
    desk.us += 1;
    assert_eq!(told(&desk.deliver(3, "m3", "c")), [""; 0]);
    assert_eq!(told(&desk.after(10 * SECOND)), [""; 0]);
    let now = desk.now();
    assert_eq!(told(&desk.book.batch_stored(now, 1)), ["m3"]);

    // Of a final state.
    let mut desk = Desk::new(1);
    desk.deliver(1, "m1", "a");
    let todo = desk.line(done("m1", "x"));
    desk.us += SECOND;
    assert_eq!(told(&desk.deliver(2, "m2", "b")), [""; 0]);
    assert_eq!(told(&desk.stored(&todo, true)), ["m2"]);
}

#[test]
fn a_broker_that_is_slow_holds_up_no_turn() {
    let mut desk = Desk::new(3);
    for (seq, message) in [(1, "m1"), (2, "m2")] {
        desk.deliver(seq, message, message);
    }
    // Each answer takes 1.6 s, and they come in turn.
    let batches = desk.book.take_batches(desk.now(), true);
    assert_eq!(batches.len(), 2);
    desk.us += 8 * SECOND / 10;
    let now = desk.now();
    desk.book.batch_stored(now, 1);
    desk.us += 8 * SECOND / 10;
    assert_eq!(told(&desk.deliver(3, "m3", "m3")), ["m3"], "one answered 0.8 s ago");
}

#[test]
fn a_worker_that_knows_when_another_attempt_may_help_is_heard() {
    let again = |ms| FromWorker::Error {
        turn: turn("m"),
        error: "busy".into(),
        retryable: true,
        retry_after_ms: Some(ms),
    };
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.line(again(90_000));
    desk.publish(true);
    assert_eq!(told(&desk.after(89 * SECOND)), [""; 0]);
    assert_eq!(told(&desk.after(SECOND)), ["m"]);
    desk.line(again(0));
    desk.publish(true);
    assert_eq!(told(&desk.after(1_000)), ["m"], "at once, nearly");
    let todo = desk.line(again(1));
    assert_eq!(settle(&todo).1.status, Outcome::Failed, "there are three");
}

#[test]
fn a_message_that_the_worker_never_got_is_charged_no_attempt() {
    let mut desk = Desk::new(3);
    for (seq, message) in [(1, "had"), (2, "unread")] {
        desk.deliver(seq, message, message);
    }
    desk.book.stop();
    desk.book.not_given("unread");
    desk.book.not_given("unknown");
    assert_eq!(desk.book.open(), 1);
    let now = desk.now();
    assert_eq!(told(&desk.book.worker_exited(now, "exit code 1")), [""; 0]);
    let (events, _) = desk.publish(true);
    assert!(matches!(bodies(&events)[..], [EventBody::Delivered { .. }, EventBody::Error { .. }]));
}

#[test]
fn an_attempt_that_is_on_record_stays_one() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let (events, _) = desk.publish(true);
    assert_eq!(events.len(), 1);
    desk.book.stop();
    desk.book.not_given("m");
    assert_eq!(desk.book.open(), 1);
}
