//! The broker's side: what comes, in which order it goes to the worker, and when it is acknowledged.

use std::collections::VecDeque;

use common::message::{Cause, Kind, Outcome};
use common::worker::ToWorker;

use super::*;

#[test]
fn a_message_goes_to_the_worker_and_its_answer_to_the_journal_then_the_ack() {
    let mut desk = Desk::new(1);
    let todo = desk.deliver(5, "m", "c");
    assert_eq!(
        todo,
        [Do::Tell(ToWorker::Chat {
            message_id: "m".into(),
            from_id: "user".into(),
            message: "text of m".into(),
            conversation_id: "c".into(),
            turn: None,
            scheduled_for: None,
            traceparent: None,
            steps: Vec::new(),
        })]
    );
    let todo = desk.line(done("m", "answer"));
    let (seq, final_) = settle(&todo);
    assert_eq!((seq, final_.status, final_.attempts), (5, Outcome::Completed, 1));
    assert_eq!((final_.response.as_deref(), final_.incarnation), (Some("answer"), Some(7)));
    assert!(!desk.book.is_idle());
    assert_eq!(desk.stored(&todo, true), [Do::Ack { reply: "reply 5".into() }]);
    assert!(desk.book.is_idle());
    assert_eq!((desk.book.held(), desk.book.finished, desk.book.lost_finals), (0, 1, 0));
}

#[test]
fn a_route_is_told_with_the_message_id_as_its_request_id() {
    let mut desk = Desk::new(1);
    let mut asked = envelope("m", "m");
    asked.kind = Kind::Route;
    asked.request_id = Some("the caller's own".into());
    let todo = desk.deliver_as(1, asked, false);
    let [Do::Tell(ToWorker::Route { message_id, request_id, .. })] = &*todo else {
        panic!("{todo:?}");
    };
    assert_eq!((message_id.as_str(), request_id.as_str()), ("m", "m"));
}

#[test]
fn a_conversation_has_one_turn_and_the_next_only_once_the_final_is_stored() {
    let mut desk = Desk::new(9);
    assert_eq!(told(&desk.deliver(1, "a1", "a")), ["a1"]);
    assert_eq!(told(&desk.deliver(2, "a2", "a")), [""; 0]);
    assert_eq!(told(&desk.deliver(3, "b1", "b")), ["b1"]);
    let answered = desk.line(done("a1", "x"));
    assert_eq!(told(&answered), [""; 0], "its final is not stored yet");
    assert_eq!(told(&desk.stored(&answered, true)), ["a2"]);
}

#[test]
fn as_many_conversations_side_by_side_as_the_soul_says_oldest_first() {
    let mut desk = Desk::new(2);
    for (seq, message) in [(1, "a"), (2, "b")] {
        assert_eq!(told(&desk.deliver(seq, message, message)), [message]);
    }
    assert_eq!(told(&desk.deliver(3, "c", "c")), [""; 0]);
    assert_eq!(told(&desk.deliver(4, "d", "d")), [""; 0]);
    assert_eq!(
        told(&desk.line(done("b", ""))),
        ["c"],
        "the slot is free before the final is stored"
    );
    assert_eq!(desk.book.open(), 2);
}

#[test]
fn what_comes_late_takes_its_place_in_journal_order_behind_what_the_worker_has() {
    let mut desk = Desk::new(1);
    desk.deliver(5, "m5", "c");
    desk.deliver(9, "m9", "c");
    let todo = desk.deliver(3, "m3", "c");
    assert!(
        matches!(&*todo, [Do::LookUp { seq: 3, .. }]),
        "it may have been here before: {todo:?}"
    );
    desk.looked_up(3, None, 0);
    let answered = desk.line(done("m5", ""));
    assert_eq!(told(&desk.stored(&answered, true)), ["m3"]);
}

#[test]
fn a_message_that_is_looked_up_holds_its_conversation_only() {
    let mut desk = Desk::new(1);
    let todo = desk.deliver_as(1, envelope("m1", "c"), true);
    assert_eq!(todo, [Do::LookUp { seq: 1, key: envelope("m1", "c").key() }]);
    assert_eq!(told(&desk.deliver(2, "m2", "c")), [""; 0]);
    assert_eq!(told(&desk.deliver(3, "other", "d")), ["other"]);
    desk.line(done("other", ""));
    assert_eq!(told(&desk.looked_up(1, None, 0)), ["m1"]);
}

#[test]
fn a_look_up_that_finds_a_final_state_ends_in_an_ack() {
    let mut desk = Desk::new(1);
    desk.deliver_as(1, envelope("m1", "c"), true);
    desk.deliver(2, "m2", "c");
    let todo = desk.looked_up(1, Some(final_(Outcome::Completed)), 1);
    assert_eq!((acked(&todo), told(&todo)), (vec!["reply 1"], vec!["m2".to_owned()]));
    assert_eq!(desk.looked_up(1, None, 0), [], "once");
}

#[test]
fn a_look_up_that_finds_a_failed_message_buries_it_before_the_ack() {
    let mut desk = Desk::new(1);
    desk.deliver_as(1, envelope("m", "c"), true);
    let todo = desk.looked_up(1, Some(final_(Outcome::Failed)), 3);
    let [Do::Bury { reply, .. }] = &*todo else { panic!("{todo:?}") };
    assert_eq!(reply, "reply 1");
}

#[test]
fn attempts_on_record_count() {
    let mut desk = Desk::new(1);
    desk.deliver_as(1, envelope("m", "c"), true);
    assert_eq!(told(&desk.looked_up(1, None, 2)), ["m"]);
    let (events, _) = desk.publish(true);
    assert!(
        matches!(
            bodies(&events)[..],
            [EventBody::Reset { attempt: 3 }, EventBody::Delivered { incarnation: 7 }]
        ),
        "{events:?}"
    );
    assert_eq!(events[0].seq, 2_000_001);
}

#[test]
fn attempts_used_up_on_record_fail_without_a_turn() {
    let mut desk = Desk::new(1);
    desk.deliver_as(1, envelope("m", "c"), true);
    let todo = desk.looked_up(1, None, 3);
    let (_, final_) = settle(&todo);
    assert_eq!((final_.status, final_.attempts, final_.incarnation), (Outcome::Failed, 3, None));
    assert_eq!(final_.reason.as_deref(), Some("gave up after 3 attempts"));
    assert_eq!(told(&todo), [""; 0]);
    let todo = desk.stored(&todo, true);
    assert!(matches!(&*todo, [Do::Bury { .. }]), "{todo:?}");
}

#[test]
fn a_redelivery_of_what_is_held_only_gives_room_back_and_the_new_reply_is_acked() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let todo = desk.arrive(1, envelope("m", "c"), "again", true);
    assert_eq!(todo, [Do::Release]);
    assert_eq!(desk.book.replies().collect::<Vec<_>>(), ["again"]);
    let todo = desk.line(done("m", ""));
    assert_eq!(acked(&desk.stored(&todo, true)), ["again"]);
}

#[test]
fn a_redelivery_of_what_is_settled_is_acked_and_long_ago_looked_up() {
    let mut desk = Desk::new(1);
    for seq in 1..=1025 {
        let message = format!("m{seq}");
        assert_eq!(told(&desk.deliver(seq, &message, "c")), [message.as_str()]);
        let todo = desk.line(done(&message, ""));
        desk.stored(&todo, true);
    }
    assert_eq!(acked(&desk.deliver(2, "m2", "c")), ["reply 2"]);
    let todo = desk.deliver(1, "m1", "c");
    assert!(matches!(&*todo, [Do::LookUp { seq: 1, .. }]), "{todo:?}");
}

#[test]
fn a_final_that_lost_is_counted_acked_and_not_buried() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let todo = desk.line(error("m", false));
    assert_eq!(settle(&todo).1.status, Outcome::Failed);
    assert_eq!(acked(&desk.stored(&todo, false)), ["reply 1"]);
    assert_eq!(desk.book.lost_finals, 1);
}

#[test]
fn what_was_fetched_from_the_journal_has_no_reply_until_it_comes() {
    let mut desk = Desk::new(1);
    desk.arrive(1, envelope("m", "c"), "", true);
    assert_eq!(desk.book.replies().count(), 0);
    desk.deliver(1, "m", "c");
    assert_eq!(desk.book.replies().collect::<Vec<_>>(), ["reply 1"]);
}

#[test]
fn a_message_expires_when_its_deadline_passes_and_not_when_a_worker_is_free() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "first", "c");
    let (_, todo) = desk.publish(true);
    assert_eq!(todo, []);
    for (seq, name, conversation) in [(2, "late", "d"), (3, "behind", "c")] {
        let mut late = envelope(name, conversation);
        late.deadline = Some(Timestamp::from_millis(2000));
        desk.deliver_as(seq, late, false);
    }
    assert_eq!(desk.book.next_us(), Some(2 * SECOND));
    assert_eq!(desk.after(SECOND - 1), []);
    let todo = desk.after(1);
    let expired: Vec<_> = todo
        .iter()
        .filter_map(|act| match act {
            Do::Settle { seq, final_, .. } => Some((*seq, final_.status, final_.attempts)),
            _ => None,
        })
        .collect();
    assert_eq!(expired, [(2, Outcome::Expired, 0), (3, Outcome::Expired, 0)]);
    assert_eq!(acked(&desk.stored(&todo[..1], true)), ["reply 2"]);
    assert_eq!(desk.book.open(), 1);
    let first = desk.line(done("first", "x"));
    assert_eq!(settle(&first).0, 1);
}

#[test]
fn a_deadline_that_passes_while_nothing_may_be_published_is_minded_later() {
    let mut desk = Desk::new(1);
    desk.book.pause();
    let mut late = envelope("late", "d");
    late.deadline = Some(Timestamp::from_millis(2000));
    desk.deliver_as(1, late, true);
    assert_eq!(desk.book.next_us(), None);
    assert_eq!(desk.after(2 * SECOND), []);
    let now = desk.now();
    assert_eq!(told(&desk.book.resume(now)), [""; 0]);
    // It may be final already.
    assert_eq!(desk.after(0), []);
    let todo = desk.looked_up(1, None, 1);
    assert_eq!((settle(&todo).1.status, settle(&todo).1.attempts), (Outcome::Expired, 1));
}

#[test]
fn paused_starts_nothing_and_resumed_all_that_waits() {
    let mut desk = Desk::new(2);
    desk.deliver(1, "open", "a");
    desk.book.pause();
    assert_eq!(desk.deliver(2, "next", "b"), []);
    let todo = desk.line(done("open", "x"));
    assert_eq!(settle(&todo).0, 1, "an open turn may end");
    let now = desk.now();
    assert_eq!(told(&desk.book.resume(now)), ["next"]);
}

#[test]
fn stopped_starts_nothing_more() {
    let mut desk = Desk::new(1);
    desk.book.stop();
    assert_eq!(desk.deliver(1, "m", "c"), []);
    assert!(desk.book.is_idle());
    let now = desk.now();
    assert_eq!(desk.book.resume(now), []);
}

#[test]
fn the_same_id_of_two_senders_is_two_messages_one_after_the_other() {
    let mut desk = Desk::new(9);
    desk.deliver(1, "m", "c");
    let mut other = envelope("m", "d");
    other.sender = sender("other");
    assert_eq!(desk.deliver_as(2, other, false), []);
    let first = desk.line(done("m", "one"));
    assert_eq!((settle(&first).0, told(&first)), (1, vec!["m".to_owned()]));
    desk.stored(&first, true);
    let second = desk.line(done("m", "two"));
    assert_eq!((settle(&second).0, settle(&second).1.response.as_deref()), (2, Some("two")));
    assert_eq!(acked(&desk.stored(&second, true)), ["reply 2"]);
}

/// A question that another agent hands back while it works on the question of `of`.
fn question(message: &str, of: &[&str]) -> Envelope {
    let mut envelope = envelope(message, message);
    envelope.kind = Kind::Route;
    let cause =
        |text: &&str| Cause { agent: agent(), sender: sender("user"), message_id: id(text) };
    envelope.path = of.iter().map(cause).collect();
    envelope
}

#[test]
fn a_question_back_to_an_agent_whose_every_turn_waits_for_it_is_refused() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    let todo = desk.deliver_as(2, question("q", &["m"]), false);
    let (seq, refused) = settle(&todo);
    assert_eq!((seq, refused.status), (2, Outcome::Failed));
    assert!(refused.reason.as_deref().is_some_and(|why| why.starts_with("deadlock")));
}

#[test]
fn a_question_back_waits_or_is_answered_where_that_is_no_deadlock() {
    let mut desk = Desk::new(2);
    desk.deliver(1, "m", "c");
    assert_eq!(told(&desk.deliver_as(2, question("q", &["m"]), false)), ["q"], "a slot is free");
    let mut desk = Desk::new(2);
    desk.deliver(1, "m", "c");
    desk.deliver(2, "n", "d");
    assert_eq!(desk.deliver_as(3, question("q", &["m"]), false), [], "`n` will end");
    let todo = desk.deliver_as(4, question("r", &["m", "n"]), false);
    assert_eq!(settle(&todo).0, 4, "both wait for it");
}

#[test]
fn the_last_attempt_after_another_incarnations_has_the_worker_for_itself() {
    let mut desk = Desk::new(3);
    assert_eq!(told(&desk.deliver(1, "m", "m")), ["m"]);
    desk.deliver_as(2, envelope("suspect", "suspect"), true);
    assert_eq!(told(&desk.looked_up(2, None, 2)), Vec::<String>::new(), "`m` is with the worker");
    assert_eq!(told(&desk.deliver(3, "n", "n")), Vec::<String>::new(), "the older one comes first");
    // What an open turn waits for must not wait for the suspect, which waits for that turn.
    assert_eq!(told(&desk.deliver_as(4, question("q", &["m"]), false)), ["q"]);
    desk.line(done("q", "x"));
    let todo = desk.line(done("m", "x"));
    assert_eq!(told(&todo), ["suspect"]);
    assert_eq!(told(&desk.deliver(5, "o", "o")), Vec::<String>::new());
    assert_eq!(told(&desk.deliver_as(6, question("r", &["suspect"]), false)), ["r"]);
    desk.line(done("r", "x"));
    assert_eq!(told(&desk.line(done("suspect", "x"))), ["n", "o"]);
}

#[test]
fn earlier_attempts_and_those_of_this_incarnation_go_side_by_side() {
    let mut desk = Desk::new(3);
    desk.deliver(1, "m", "m");
    desk.deliver_as(2, envelope("second", "second"), true);
    assert_eq!(told(&desk.looked_up(2, None, 1)), ["second"], "its second of three");
    // A worker that says that it failed did not die of it.
    desk.line(error("m", true));
    desk.publish(true);
    desk.after(SECOND);
    desk.line(error("m", true));
    desk.publish(true);
    assert_eq!(told(&desk.after(2 * SECOND)), ["m"], "its third of three");
}

#[test]
fn a_long_conversation_holds_up_no_other_and_only_so_much_text_is_kept() {
    let mut desk = Desk::new(2);
    let long = |seq: u64| {
        let mut envelope = envelope(&format!("m{seq}"), "c");
        envelope.message = "x".repeat(10_000);
        envelope
    };
    desk.deliver_as(1, long(1), false);
    for seq in 2..=4000 {
        assert_eq!(desk.deliver_as(seq, long(seq), false), []);
    }
    assert!(desk.book.texts <= 1 << 20);
    assert_eq!(told(&desk.deliver(4001, "other", "d")), ["other"]);
    for seq in 1..=4000 {
        let message = format!("m{seq}");
        let todo = desk.line(done(&message, "x"));
        let mut todo = desk.stored(&todo, true);
        if let Some(Do::Fetch { seq, key }) =
            todo.iter().find(|act| matches!(act, Do::Fetch { .. }))
        {
            assert_eq!(key.message_id, id(&format!("m{seq}")));
            let (now, seq) = (desk.now(), *seq);
            todo = desk.book.fetched(now, seq, Some("x".repeat(10_000)));
        }
        if seq < 4000 {
            let [Do::Tell(ToWorker::Chat { message_id, message, .. })] = &todo[todo.len() - 1..]
            else {
                panic!("{todo:?}");
            };
            assert_eq!((message_id.as_str(), message.len()), (&*format!("m{}", seq + 1), 10_000));
        }
    }
    desk.line(done("other", "x"));
    assert!(desk.book.texts < 100_000, "{}", desk.book.texts);
}

#[test]
fn a_text_that_is_being_read_has_its_slot_and_one_that_is_gone_ends_its_message() {
    let mut desk = Desk::new(1);
    let mut large = envelope("large", "c");
    large.message = "x".repeat(2 << 20);
    let todo = desk.deliver_as(1, large, false);
    assert!(matches!(&*todo, [Do::Fetch { seq: 1, .. }]), "{todo:?}");
    assert_eq!(desk.deliver(2, "next", "d"), []);
    let now = desk.now();
    let todo = desk.book.fetched(now, 1, None);
    let (seq, final_) = settle(&todo);
    assert_eq!((seq, final_.status, final_.attempts), (1, Outcome::Failed, 0));
    assert_eq!(told(&todo), ["next"]);
}

/// Which messages are to be looked up.
fn look_ups(todo: &[Do]) -> Vec<u64> {
    let seq = |act: &Do| match act {
        Do::LookUp { seq, .. } => Some(*seq),
        _ => None,
    };
    todo.iter().filter_map(seq).collect()
}

#[test]
fn a_few_messages_are_looked_up_before_their_turn_and_each_once() {
    for concurrency in [1, 4, 20] {
        let mut desk = Desk::new(concurrency);
        let ahead = 2 * concurrency + 4;
        let mut asked = VecDeque::new();
        for seq in 1..=1000 {
            let conversation = format!("c{seq}");
            let id = format!("m{seq}");
            asked.extend(look_ups(&desk.deliver_as(seq, envelope(&id, &conversation), true)));
        }
        assert_eq!(asked.len(), ahead);
        let (mut seen, mut open) = (0, VecDeque::new());
        while let Some(seq) = asked.pop_front() {
            seen += 1;
            assert_eq!(seq, seen, "the oldest first");
            let todo = desk.looked_up(seq, None, 0);
            asked.extend(look_ups(&todo));
            open.extend(told(&todo));
            assert!(seen as usize + asked.len() <= 1000);
            // Turns begin and end, when all that was asked for is known.
            while asked.is_empty()
                && let Some(message) = open.pop_front()
            {
                let ended = desk.line(done(&message, "x"));
                let stored = desk.stored(&ended, true);
                for todo in [ended, stored] {
                    asked.extend(look_ups(&todo));
                    open.extend(told(&todo));
                }
            }
        }
        assert_eq!((seen, desk.book.held()), (1000, 0));
    }
}

#[test]
fn a_long_conversation_that_is_looked_up_keeps_no_other_from_being_it() {
    let mut desk = Desk::new(2);
    let mut asked = Vec::new();
    for seq in 1..=100 {
        asked.extend(look_ups(&desk.deliver_as(seq, envelope(&format!("m{seq}"), "long"), true)));
    }
    for seq in [101, 102] {
        let (id, conversation) = (format!("m{seq}"), format!("c{seq}"));
        asked.extend(look_ups(&desk.deliver_as(seq, envelope(&id, &conversation), true)));
    }
    assert_eq!(asked, (1..=8).collect::<Vec<_>>());
    let mut begun = Vec::new();
    for seq in asked {
        let todo = desk.looked_up(seq, None, 0);
        begun.extend(told(&todo));
        for seq in look_ups(&todo).into_iter().filter(|seq| *seq > 100) {
            begun.extend(told(&desk.looked_up(seq, None, 0)));
        }
    }
    assert_eq!(begun, ["m1", "m101"], "the second turn is of another conversation");
}

#[test]
fn a_question_back_is_looked_up_however_much_waits_before_it() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    for seq in 2..=1000 {
        desk.deliver_as(seq, envelope(&format!("m{seq}"), &format!("c{seq}")), true);
    }
    assert!(desk.book.has_enough());
    let todo = desk.deliver_as(1001, question("q", &["m"]), true);
    assert_eq!(look_ups(&todo), [1001]);
    assert_eq!(settle(&desk.looked_up(1001, None, 0)).0, 1001);
}

#[test]
fn a_question_back_is_refused_however_much_waits_before_it() {
    let mut desk = Desk::new(1);
    desk.deliver(1, "m", "c");
    for seq in 2..=1000 {
        assert_eq!(desk.deliver(seq, &format!("m{seq}"), "c"), []);
    }
    let todo = desk.deliver_as(1001, question("q", &["m"]), false);
    assert_eq!(settle(&todo).0, 1001);
}
