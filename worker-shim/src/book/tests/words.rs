//! What the worker says, and what becomes of it: events, answers, nonsense.

use common::message::{MAX_RECORD, Outcome};
use common::worker::MAX_EVENT;

use super::*;

#[test]
fn a_quick_answer_carries_its_events_and_costs_no_publish() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.line(text("m", "hel"));
    desk.line(text("m", "lo"));
    let todo = desk.line(FromWorker::Done { turn: turn("m"), response: None });
    let (_, final_) = settle(&todo);
    assert_eq!(final_.response.as_deref(), Some("hello"));
    let seqs: Vec<_> = final_.tail.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(desk.publish(true).0, []);
}

#[test]
fn events_go_out_soon_together_and_a_silent_turn_is_on_record_after_a_moment() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    assert_eq!(desk.book.next_us(), Some(desk.us + 20_000));
    desk.us += 1000;
    desk.line(text("m", "a"));
    desk.us += 1000;
    desk.line(text("m", "b"));
    assert_eq!(desk.publish(false).0, []);
    assert_eq!(desk.book.next_us(), Some(desk.us + 1000));
    desk.us += 1000;
    assert_eq!(desk.publish(false).0.len(), 3);
    assert_eq!(desk.book.next_us(), Some(SECOND + 2000 + 60 * SECOND), "the deadline is next");
}

#[test]
fn one_batch_is_under_way_at_a_time_and_the_final_waits_for_it() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    desk.line(text("m", "a"));
    let batches = desk.book.take_batches(desk.now(), true);
    assert_eq!(batches[0].events.len(), 2);
    desk.line(text("m", "b"));
    assert!(desk.book.take_batches(desk.now(), true).is_empty());
    assert_eq!(desk.line(done("m", "x")), []);
    let now = desk.now();
    let todo = desk.book.batch_stored(now, 1);
    let (_, final_) = settle(&todo);
    assert_eq!(final_.tail.iter().map(|event| event.seq).collect::<Vec<_>>(), [3]);
}

#[test]
fn many_unpublished_events_go_before_the_final_in_batches() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let piece = "x".repeat(100_000);
    for _ in 0..5 {
        desk.line(text("m", &piece));
    }
    assert!(desk.book.is_congested());
    assert_eq!(desk.line(FromWorker::Done { turn: turn("m"), response: None }), []);
    let mut seqs = Vec::new();
    let todo = loop {
        let (events, todo) = desk.publish(false);
        seqs.extend(events.iter().map(|event| event.seq));
        if !todo.is_empty() {
            break todo;
        }
        assert!(seqs.len() < 7, "it ends");
    };
    let (_, final_) = settle(&todo);
    seqs.extend(final_.tail.iter().map(|event| event.seq));
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
    assert_eq!(final_.response.map(|text| text.len()), Some(500_000));
    assert!(!desk.book.is_congested());
}

#[test]
fn every_batch_fits_a_record_whatever_the_escapes() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let piece = "\u{1}".repeat(200_000);
    for _ in 0..4 {
        desk.line(text("m", &piece));
    }
    let mut texts = 0;
    while desk.book.next_us().is_some_and(|us| us < 10 * SECOND) {
        let batches = desk.book.take_batches(desk.now(), true);
        for batch in batches {
            assert!(common::event::encode(&batch.events).len() <= MAX_RECORD);
            for event in &batch.events {
                if let EventBody::Text { text } = &event.body {
                    texts += text.len();
                }
            }
            desk.book.batch_stored(desk.now(), batch.seq);
        }
    }
    assert_eq!(texts, 800_000);
}

#[test]
fn an_answer_that_does_not_fit_a_record_fails_the_message() {
    for (answer, fits) in [
        ("x".repeat(1_000_000), true),
        ("x".repeat(MAX_RECORD), false),
        ("\u{1}".repeat(200_000), false),
    ] {
        let mut desk = Desk::new(1);
        desk.deliver(1, "m", "c");
        let todo = desk.line(done("m", &answer));
        let (_, final_) = settle(&todo);
        assert_eq!(notes(&todo), usize::from(!fits), "what is refused is noted in the log");
        let status = if fits { Outcome::Completed } else { Outcome::Failed };
        assert_eq!(final_.status, status);
        assert!(serde_json::to_vec(&final_).expect("JSON").len() <= MAX_RECORD);
    }
}

#[test]
fn texts_beyond_a_record_end_the_turn() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let piece = "x".repeat(600_000);
    assert_eq!(desk.line(text("m", &piece)), []);
    let todo = desk.line(text("m", &piece));
    assert_eq!((cancelled(&todo), notes(&todo)), (vec!["m".to_owned()], 1));
    assert_eq!(desk.book.open(), 0);
    let todo = loop {
        let (_, todo) = desk.publish(true);
        if !todo.is_empty() {
            break todo;
        }
    };
    assert_eq!(settle(&todo).1.status, Outcome::Failed);
}

#[test]
fn an_event_that_does_not_fit_is_left_out_which_is_said_and_the_turn_goes_on() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let around = tool("m", 0);
    let FromWorker::Event { event, .. } = &around else { panic!("{around:?}") };
    let most = MAX_EVENT - event.to_string().len();
    assert_eq!(desk.line(tool("m", most)), []);
    let (events, _) = desk.publish(true);
    assert_eq!(events.len(), 1, "delivered");
    let (events, _) = desk.publish(true);
    assert!(common::event::encode(&events).len() <= MAX_RECORD);
    for event in [tool("m", most + 1), FromWorker::TooDeep { turn: turn("m") }] {
        assert_eq!(notes(&desk.line(event)), 1);
        assert_eq!(published(&mut desk), ["omitted"]);
    }
    let todo = desk.line(done("m", "x"));
    assert_eq!(settle(&todo).1.status, Outcome::Completed);
}

#[test]
fn a_second_end_of_a_turn_is_noted_and_nothing_else() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let first = desk.line(done("m", "one"));
    for line in [done("m", "two"), error("m", true), text("m", "late")] {
        let todo = desk.line(line);
        assert_eq!((notes(&todo), todo.len()), (1, 1));
    }
    desk.stored(&first, true);
    assert_eq!(notes(&desk.line(done("m", "three"))), 1);
}

#[test]
fn turns_are_named_by_message_by_conversation_or_by_being_the_only_one() {
    let conversation =
        |text: &'static str| TurnRef { message_id: None, conversation_id: Some(text.into()) };
    let mut desk = Desk::new(2);
    desk.deliver(1, "a", "ca");
    desk.deliver(2, "b", "cb");
    let ended = |turn| FromWorker::Done { turn, response: None };
    for nobody in [turn("x"), turn("not a valid id"), conversation("x"), TurnRef::default()] {
        assert_eq!(notes(&desk.line(ended(nobody))), 1);
    }
    assert_eq!(settle(&desk.line(ended(conversation("cb")))).0, 2);
    assert_eq!(settle(&desk.line(ended(TurnRef::default()))).0, 1);
}

#[test]
fn a_question_names_the_turn_that_asks() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let ask = |turn| FromWorker::RouteRequest {
        turn,
        request_id: "r".into(),
        to_id: "you".into(),
        message: "?".into(),
        timeout_ms: None,
    };
    let asker = |todo: &[Do]| match todo {
        [Do::Ask(question)] => question.asker.as_ref().map(|asker| (asker.seq, asker.attempt)),
        _ => panic!("{todo:?}"),
    };
    assert_eq!(asker(&desk.line(ask(TurnRef::default()))), Some((1, 1)));
    assert_eq!(asker(&desk.line(ask(turn("unknown")))), None);
    assert!(desk.book.is_open(1, 1) && !desk.book.is_open(1, 2));
}

/// A broker that fails may forget that an attempt was made, and what it asked may have been answered and archived since.
#[test]
fn a_turn_that_may_not_be_the_first_asks_again_also_where_no_attempt_is_on_record() {
    let again = |desk: &mut Desk| {
        let ask = FromWorker::RouteRequest {
            turn: TurnRef::default(),
            request_id: "r".into(),
            to_id: "you".into(),
            message: "?".into(),
            timeout_ms: None,
        };
        match &desk.line(ask)[..] {
            [Do::Ask(question)] => question.asker.as_ref().map(|it| (it.attempt, it.again)),
            todo => panic!("{todo:?}"),
        }
    };
    let mut first = Desk::new(1);
    first.deliver(1, "m", "c");
    assert_eq!(again(&mut first), Some((1, false)));
    let mut later = Desk::new(1);
    later.deliver_as(1, envelope("m", "c"), true);
    later.looked_up(1, None, 0);
    assert_eq!(again(&mut later), Some((1, true)));
}

#[test]
fn an_unknown_line_is_noted() {
    let mut desk = Desk::new(1);
    assert_eq!(notes(&desk.line(FromWorker::Unknown { kind: "dance".into() })), 1);
    assert_eq!(desk.line(FromWorker::Ready), []);
}

/// An event that is not text, of so many bytes.
fn tool(message: &str, bytes: usize) -> FromWorker<'_> {
    let event = serde_json::json!({"type": "tool", "data": "x".repeat(bytes)});
    FromWorker::Event { turn: turn(message), event }
}

/// Publishes whatever there is; the kinds of the worker's events.
fn published(desk: &mut Desk) -> Vec<String> {
    let mut kinds = Vec::new();
    loop {
        let (events, _) = desk.publish(true);
        if events.is_empty() {
            return kinds;
        }
        kinds.extend(events.iter().filter_map(|event| match &event.body {
            EventBody::Worker { event } => event["type"].as_str().map(str::to_owned),
            _ => None,
        }));
    }
}

#[test]
fn a_turn_that_says_too_much_leaves_the_rest_out_says_so_once_and_keeps_its_text() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let mut all = Vec::new();
    let mut said = 0;
    for _ in 0..100 {
        said += notes(&desk.line(tool("m", 100_000)));
        all.extend(published(&mut desk));
    }
    desk.line(text("m", "the answer"));
    assert_eq!(said, 1);
    assert_eq!(all.iter().filter(|kind| *kind == "tool").count(), 83, "8 MiB");
    assert_eq!(all.iter().filter(|kind| *kind == "omitted").count(), 1);
    let (events, _) = desk.publish(true);
    assert!(matches!(bodies(&events)[..], [EventBody::Text { .. }]), "{events:?}");
    let todo = desk.line(FromWorker::Done { turn: turn("m"), response: None });
    assert_eq!(settle(&todo).1.response.as_deref(), Some("the answer"));
}

#[test]
fn an_agent_that_says_too_much_over_many_turns_waits_for_more() {
    let mut desk = Desk::new(1);
    let mut turns = 0;
    let mut say = |desk: &mut Desk| {
        turns += 1;
        let message = format!("m{turns}");
        desk.deliver(turns, &message, "c");
        let mut tools = 0;
        for _ in 0..20 {
            desk.line(tool(&message, 400_000));
            tools += published(desk).iter().filter(|kind| *kind == "tool").count();
        }
        let todo = desk.line(done(&message, "x"));
        desk.stored(&todo, true);
        tools
    };
    for _ in 0..2 {
        assert_eq!(say(&mut desk), 20);
    }
    assert!(say(&mut desk) < 20, "16 MiB");
    assert_eq!(say(&mut desk), 0);
    desk.us += 10 * SECOND;
    assert!((1..3).contains(&say(&mut desk)), "64 KiB a second");
}

#[test]
fn an_ack_is_on_record_once() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    for _ in 0..1000 {
        desk.line(FromWorker::Ack { turn: turn("m") });
    }
    let (events, _) = desk.publish(true);
    assert_eq!(events.len(), 2, "delivered, acknowledged");
}

#[test]
fn no_turn_begins_for_a_worker_that_does_not_read() {
    let mut desk = Desk::new(9);
    let now = desk.now();
    assert_eq!(desk.book.make_room(now, 300), []);
    assert_eq!(told(&desk.deliver(1, "a", "a")), ["a"]);
    assert_eq!(told(&desk.deliver(2, "b", "b")), ["b"]);
    assert_eq!(desk.deliver(3, "c", "c"), []);
    assert_eq!(desk.book.make_room(now, 0), []);
    assert_eq!(told(&desk.book.make_room(now, 1)), ["c"]);
}
