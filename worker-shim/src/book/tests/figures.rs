//! What is counted, and which spans are told.

use common::message::Kind;
use common::trace::{self, Share};

use super::*;

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn traceparents(todo: &[Do]) -> Vec<Option<String>> {
    let told = |act: &Do| match act {
        Do::Tell(ToWorker::Chat { traceparent, .. } | ToWorker::Route { traceparent, .. }) => {
            Some(traceparent.map(|parent| parent.to_string()))
        }
        _ => None,
    };
    todo.iter().filter_map(told).collect()
}

/// A message that was stored half a second before it came.
fn arrive(desk: &mut Desk, seq: u64, envelope: Envelope) -> Vec<Do> {
    let age = Duration::from_millis(500);
    let reply = format!("reply {seq}");
    let arrival = Arrival { seq, envelope, reply, check: false, left: None, age };
    desk.book.deliver(desk.now(), arrival)
}

#[test]
fn an_answer_is_counted_with_its_times_since_the_broker_had_the_message() {
    let mut desk = Desk::new(1);
    arrive(&mut desk, 5, envelope("m", "c"));
    desk.after(SECOND);
    assert_eq!(desk.book.oldest_ms(desk.now()), 1500);
    desk.line(text("m", "a"));
    desk.after(2 * SECOND);
    desk.line(text("m", "b"));
    let todo = desk.line(done("m", "ab"));
    desk.stored(&todo, true);
    let figures = &desk.book.figures;
    assert_eq!((figures.started, figures.attempts, figures.completed), (1, 1, 1));
    assert_eq!((figures.first_text.count(), figures.first_text.sum_ms), (1, 1500));
    assert_eq!((figures.whole.count(), figures.whole.sum_ms), (1, 3500));
    assert_eq!(desk.book.oldest_ms(desk.now()), 0);
}

#[test]
fn another_attempt_is_no_other_message_and_the_first_text_stays_the_first() {
    let mut desk = Desk::new(1);
    arrive(&mut desk, 5, envelope("m", "c"));
    desk.line(text("m", "a"));
    desk.line(error("m", true));
    desk.publish(true);
    desk.after(SECOND);
    let todo = desk.line(done("m", "late"));
    desk.stored(&todo, true);
    let figures = &desk.book.figures;
    assert_eq!((figures.started, figures.attempts, figures.failed), (1, 2, 0));
    assert_eq!((figures.first_text.sum_ms, figures.whole.sum_ms), (500, 1500));
}

#[test]
fn every_end_is_counted_once_as_what_it_was() {
    let mut desk = Desk::new(1);
    arrive(&mut desk, 1, envelope("fails", "a"));
    let todo = desk.line(error("fails", false));
    desk.stored(&todo, true);
    arrive(&mut desk, 2, envelope("loses", "b"));
    let todo = desk.line(done("loses", "x"));
    desk.stored(&todo, false);
    arrive(&mut desk, 3, envelope("open", "c"));
    arrive(&mut desk, 4, envelope("waits", "d"));
    for message in ["open", "waits", "open"] {
        desk.book.cancel(desk.now(), &sender("user"), &id(message));
    }
    let figures = &desk.book.figures;
    assert_eq!((figures.failed, figures.lost_finals, figures.cancelled), (1, 1, 2));
    assert_eq!((figures.completed, figures.whole.count(), figures.first_text.count()), (0, 1, 0));
}

#[test]
fn a_worker_is_told_of_its_turn_where_traces_are_exported_and_else_of_the_sender() {
    let mut given = envelope("m", "c");
    given.traceparent = Some(GIVEN.parse().expect("valid"));
    let mut desk = Desk::new(2);
    assert_eq!(traceparents(&desk.deliver_as(1, given.clone(), false)), [Some(GIVEN.to_owned())]);
    assert_eq!(traceparents(&desk.deliver(2, "n", "d")), [None]);
    let mut desk = Desk::new(2);
    desk.book.rules.traces = Some(Share::ALL);
    let turn = trace::of_turn(&given, 1, Some(Share::ALL)).map(|parent| parent.to_string());
    let told = desk.deliver_as(1, given.clone(), false);
    assert_eq!(traceparents(&told), std::slice::from_ref(&turn));
    let route = Envelope { kind: Kind::Route, ..envelope("n", "d") };
    assert!(matches!(&*traceparents(&desk.deliver_as(2, route, false)), [Some(_)]));
    // Whom it asks is told of the same span.
    let asks = FromWorker::RouteRequest {
        turn: super::turn("m"),
        request_id: "r".into(),
        to_id: "other".into(),
        message: "?".into(),
        timeout_ms: None,
    };
    let todo = desk.line(asks);
    let [Do::Ask(question)] = &*todo else { panic!("{todo:?}") };
    let asker = question.asker.as_ref().expect("it is known");
    assert_eq!(asker.traceparent.map(|parent| parent.to_string()), turn);
}
