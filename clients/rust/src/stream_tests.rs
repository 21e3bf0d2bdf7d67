use common::event::ATTEMPT_STRIDE as STRIDE;
use common::{AgentName, ConversationId, MessageId, SenderName, Timestamp};

use super::*;

/// The numbers of the second attempt.
fn second(index: u64) -> u64 {
    STRIDE + index
}

fn at(seq: u64, body: EventBody) -> Event {
    Event { seq, at: Timestamp::from_millis(seq), body }
}

fn delivered(seq: u64, incarnation: u64) -> Event {
    at(seq, EventBody::Delivered { incarnation })
}

fn text(seq: u64, text: &str) -> Event {
    at(seq, EventBody::Text { text: text.to_owned() })
}

fn error(seq: u64, error: &str) -> Event {
    at(seq, EventBody::Error { error: error.to_owned() })
}

fn reset(attempt: u32) -> Event {
    at(sequence(attempt, 1), EventBody::Reset { attempt })
}

fn batch(incarnation: u64, events: &[Event]) -> EventBatch {
    EventBatch {
        agent: AgentName::new("a").expect("valid"),
        sender: SenderName::new("user").expect("valid"),
        message_id: MessageId::new("m").expect("valid"),
        conversation_id: ConversationId::new("c").expect("valid"),
        incarnation,
        attempt: attempt_of(events[0].seq),
        events: events.to_vec(),
    }
}

fn completed(response: &str, attempts: u32, incarnation: u64, tail: &[Event]) -> Final {
    Final {
        status: Outcome::Completed,
        response: Some(response.to_owned()),
        reason: None,
        attempts,
        incarnation: Some(incarnation),
        at: Timestamp::from_millis(9),
        tail: tail.to_vec(),
    }
}

fn failed(reason: &str, attempts: u32, tail: &[Event]) -> Final {
    Final {
        status: Outcome::Failed,
        response: None,
        reason: Some(reason.to_owned()),
        ..completed("", attempts, 1, tail)
    }
}

/// What a reader wrote down, as short words: `text`, `!error`, `reset 2`, `=status`.
fn words(items: &[Item]) -> Vec<String> {
    let word = |item: &Item| match item {
        Item::Text { text, .. } => text.clone(),
        Item::Event { event, .. } => event.to_string(),
        Item::Error { error, .. } => format!("!{error}"),
        Item::Reset { attempt, .. } => format!("reset {attempt}"),
        Item::Done { status, .. } => format!("={}", status.as_str()),
    };
    items.iter().map(word).collect()
}

#[test]
fn a_short_answer_comes_whole_with_its_final_state() {
    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    let tail = [delivered(1, 1), text(2, "a"), text(3, "b")];
    assert_eq!(stream.finally(completed("ab", 1, 1, &tail), &mut out), Next::End);
    assert_eq!(words(&out), ["a", "b", "=completed"]);
    assert_eq!(stream.last(), 3);
}

#[test]
fn live_events_are_shown_once_and_in_order() {
    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    let events = [delivered(1, 1), text(2, "a"), text(3, "b"), text(4, "c")];
    assert_eq!(stream.live(batch(1, &events[..2]), &mut out), Next::Wait);
    assert_eq!(stream.live(batch(1, &events[..3]), &mut out), Next::Wait);
    assert_eq!(stream.live(batch(1, &events[1..3]), &mut out), Next::Wait);
    assert_eq!(stream.finally(completed("abc", 1, 1, &events[2..]), &mut out), Next::Read);
    assert_eq!(stream.stored(vec![batch(1, &events[..3])], &mut out), Next::End);
    assert_eq!(words(&out), ["a", "b", "c", "=completed"]);
}

#[test]
fn a_gap_is_filled_from_the_store() {
    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    let events = [delivered(1, 1), text(2, "a"), text(3, "b"), text(4, "c")];
    assert_eq!(stream.live(batch(1, &events[..2]), &mut out), Next::Wait);
    assert_eq!(stream.live(batch(1, &events[3..]), &mut out), Next::Read);
    assert_eq!(words(&out), ["a"]);
    let all = vec![batch(1, &events[..2]), batch(1, &events[2..])];
    assert_eq!(stream.stored(all, &mut out), Next::Wait);
    assert_eq!(words(&out), ["a", "b", "c"]);
}

#[test]
fn a_final_state_that_overtakes_its_events_waits_for_them() {
    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    let events = [delivered(1, 1), text(2, "a"), text(3, "b")];
    assert_eq!(stream.finally(completed("ab", 1, 1, &[]), &mut out), Next::Read);
    assert!(out.is_empty());
    assert_eq!(stream.stored(vec![batch(1, &events)], &mut out), Next::End);
    assert_eq!(words(&out), ["a", "b", "=completed"]);
}

#[test]
fn when_all_texts_were_seen_nothing_is_read_again() {
    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    stream.live(batch(1, &[delivered(1, 1), text(2, "ab")]), &mut out);
    assert_eq!(stream.finally(completed("ab", 1, 1, &[]), &mut out), Next::End);
    assert_eq!(words(&out), ["ab", "=completed"]);
}

#[test]
fn a_crash_is_the_end_for_whoever_does_not_follow() {
    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    let crash = [delivered(1, 1), text(2, "a"), error(3, "exit code 1")];
    assert_eq!(stream.live(batch(1, &crash), &mut out), Next::End);
    assert_eq!(words(&out), ["a", "!exit code 1", "=delivered"]);
    assert_eq!(stream.live(batch(2, &[reset(2)]), &mut out), Next::End);
    assert_eq!(out.len(), 3);
}

#[test]
fn a_follower_sees_the_error_then_reset_then_the_next_attempt() {
    let (mut stream, mut out) = (Stream::new(true, 0), Vec::new());
    let crash = [delivered(1, 1), text(2, "a"), error(3, "exit code 1")];
    assert_eq!(stream.live(batch(1, &crash), &mut out), Next::Wait);
    let next = [reset(2), delivered(second(2), 2), text(second(3), "b")];
    assert_eq!(stream.live(batch(2, &next), &mut out), Next::Wait);
    // Late words of the broken attempt.
    assert_eq!(stream.live(batch(1, &[text(4, "late")]), &mut out), Next::Wait);
    let final_ = completed("bc", 2, 2, &[text(second(4), "c")]);
    assert_eq!(stream.finally(final_, &mut out), Next::End);
    assert_eq!(words(&out), ["a", "!exit code 1", "reset 2", "b", "c", "=completed"]);
}

#[test]
fn a_shim_that_died_without_a_word_breaks_its_attempt_all_the_same() {
    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    stream.live(batch(1, &[delivered(1, 1), text(2, "a")]), &mut out);
    assert_eq!(stream.exited(7, "signal 9", &mut out), Next::Wait);
    assert_eq!(stream.exited(1, "signal 9", &mut out), Next::End);
    assert_eq!(words(&out), ["a", "!signal 9", "=delivered"]);

    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    stream.live(batch(1, &[delivered(1, 1), text(2, "a")]), &mut out);
    assert_eq!(stream.live(batch(2, &[reset(2)]), &mut out), Next::End);
    assert_eq!(words(&out), ["a", "!attempt 1 was interrupted", "=delivered"]);
}

#[test]
fn the_same_attempt_in_a_newer_incarnation_begins_anew() {
    let (mut stream, mut out) = (Stream::new(true, 0), Vec::new());
    stream.live(batch(1, &[delivered(1, 1), text(2, "a")]), &mut out);
    stream.live(batch(2, &[delivered(1, 2), text(2, "b")]), &mut out);
    stream.live(batch(1, &[text(3, "late")]), &mut out);
    assert_eq!(words(&out), ["a", "reset 1", "b"]);
}

#[test]
fn a_reader_who_knows_the_beginning_sees_exactly_what_follows() {
    let crash = [delivered(1, 1), text(2, "a"), text(3, "b"), error(4, "exit code 1")];
    let next = [reset(2), delivered(second(2), 2), text(second(3), "c")];
    let read = |from| {
        let (mut stream, mut out) = (Stream::new(true, from), Vec::new());
        stream.live(batch(1, &crash), &mut out);
        stream.live(batch(2, &next), &mut out);
        stream.finally(completed("c", 2, 2, &[]), &mut out);
        words(&out)
    };
    assert_eq!(read(0), ["a", "b", "!exit code 1", "reset 2", "c", "=completed"]);
    assert_eq!(read(2), ["b", "!exit code 1", "reset 2", "c", "=completed"]);
    assert_eq!(read(4), ["reset 2", "c", "=completed"]);
    assert_eq!(read(second(1)), ["c", "=completed"]);
    assert_eq!(read(second(3)), ["=completed"]);
}

/// Two incarnations have begun the first attempt: the second one takes back what the first one said.
#[test]
fn a_reader_of_an_earlier_incarnation_of_the_attempt_is_told_to_forget_it() {
    let first = [delivered(1, 1), text(2, "a"), text(3, "b"), text(4, "c")];
    let again = [delivered(1, 2), text(2, "x"), text(3, "y")];
    let read = |from, of: Option<u64>| {
        let (mut stream, mut out) = (Stream::after(true, from, of), Vec::new());
        let all = vec![batch(1, &first), batch(2, &again)];
        assert_eq!(stream.stored(all, &mut out), Next::Wait);
        stream.live(batch(2, &[text(4, "z")]), &mut out);
        stream.finally(completed("xyz", 1, 2, &[]), &mut out);
        words(&out)
    };
    let whole = ["reset 1", "x", "y", "z", "=completed"];
    assert_eq!(read(0, None), [["a", "b", "c"].as_slice(), &whole].concat());
    assert_eq!(read(3, None), [["c"].as_slice(), &whole].concat());
    assert_eq!(read(4, None), whole);
    assert_eq!(read(3, Some(1)), [["c"].as_slice(), &whole].concat());
    // Whose position is one of the second incarnation has each event once.
    assert_eq!(read(0, Some(2)), ["x", "y", "z", "=completed"]);
    assert_eq!(read(2, Some(2)), ["y", "z", "=completed"]);
    assert_eq!(read(4, Some(2)), ["=completed"]);
}

#[test]
fn a_later_attempt_is_known_whatever_incarnations_began_the_first() {
    let first = [delivered(1, 1), text(2, "a")];
    let again = [delivered(1, 2), text(2, "b"), error(3, "no")];
    let next = [reset(2), delivered(second(2), 3), text(second(3), "c")];
    for (from, expected) in [(second(3), vec![]), (second(0), vec!["reset 2", "c"])] {
        let (mut stream, mut out) = (Stream::new(true, from), Vec::new());
        let all = vec![batch(1, &first), batch(2, &again), batch(3, &next)];
        assert_eq!(stream.stored(all, &mut out), Next::Wait);
        assert_eq!(words(&out), expected, "{from}");
    }
}

#[test]
fn an_answer_that_the_worker_gave_whole_is_shown() {
    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    assert_eq!(stream.finally(completed("all", 1, 1, &[delivered(1, 1)]), &mut out), Next::End);
    assert_eq!(words(&out), ["all", "=completed"]);
}

#[test]
fn events_that_are_lost_for_good_are_mended_from_the_answer() {
    let (mut stream, mut out) = (Stream::new(false, 0), Vec::new());
    stream.live(batch(1, &[delivered(1, 1), text(2, "a")]), &mut out);
    let lost = completed("abc", 1, 1, &[text(4, "c")]);
    assert_eq!(stream.finally(lost, &mut out), Next::Read);
    assert_eq!(stream.stored(Vec::new(), &mut out), Next::End);
    assert_eq!(words(&out), ["a", "c", "reset 1", "abc", "=completed"]);
}

#[test]
fn an_earlier_attempt_that_answers_first_replaces_what_was_shown() {
    let (mut stream, mut out) = (Stream::new(true, 0), Vec::new());
    stream.live(batch(1, &[delivered(1, 1), text(2, "a")]), &mut out);
    stream.live(batch(2, &[reset(2), delivered(second(2), 2), text(second(3), "x")]), &mut out);
    let final_ = completed("ab", 1, 1, &[text(3, "b")]);
    assert_eq!(stream.finally(final_, &mut out), Next::Read);
    assert_eq!(stream.stored(Vec::new(), &mut out), Next::End);
    assert_eq!(words(&out), ["a", "reset 2", "x", "reset 1", "ab", "=completed"]);
}

#[test]
fn a_failure_says_why_exactly_once() {
    let (mut stream, mut out) = (Stream::new(true, 0), Vec::new());
    stream.live(batch(1, &[delivered(1, 1)]), &mut out);
    let last = failed("exit code 1", 1, &[error(2, "exit code 1")]);
    assert_eq!(stream.finally(last, &mut out), Next::End);
    assert_eq!(words(&out), ["!exit code 1", "=failed"]);

    let (mut stream, mut out) = (Stream::new(true, 0), Vec::new());
    let cancelled = Final { status: Outcome::Cancelled, ..failed("cancelled", 0, &[]) };
    assert_eq!(stream.finally(cancelled, &mut out), Next::Read);
    assert_eq!(stream.stored(Vec::new(), &mut out), Next::End);
    assert_eq!(words(&out), ["!cancelled", "=cancelled"]);
}

#[test]
fn a_reader_who_is_sent_away_is_told_why() {
    let (mut stream, mut out) = (Stream::new(true, 0), Vec::new());
    stream.live(batch(1, &[delivered(1, 1), at(2, EventBody::Acknowledged)]), &mut out);
    assert_eq!(stream.close("a was stopped", &mut out), Next::End);
    assert_eq!(words(&out), ["!a was stopped", "=acknowledged"]);
    assert_eq!(stream.close("a was stopped", &mut out), Next::End);
    assert_eq!(out.len(), 2);
}

/// Whatever the pieces, their doubles and their order: the texts since the last reset are the answer.
#[test]
fn any_delivery_of_two_attempts_reads_as_the_answer() {
    let first: Vec<Event> = (2..8).map(|n| text(n, "x")).collect();
    let last: Vec<Event> = (3..9).map(|n| text(second(n), &n.to_string())).collect();
    for cut in 0..first.len() {
        for split in 0..last.len() {
            let mut all = vec![batch(1, &[delivered(1, 1)])];
            all.extend(first[..cut].iter().map(|event| batch(1, std::slice::from_ref(event))));
            all.push(batch(2, &[reset(2), delivered(second(2), 2)]));
            all.extend(last[..split].iter().map(|event| batch(2, std::slice::from_ref(event))));
            let (mut stream, mut out) = (Stream::new(true, 0), Vec::new());
            // Every other batch is lost on the way; the store has them.
            for lost in all.iter().step_by(2) {
                if stream.live(lost.clone(), &mut out) == Next::Read {
                    stream.stored(all.clone(), &mut out);
                }
            }
            if stream.finally(completed("345678", 2, 2, &last[split..]), &mut out) == Next::Read {
                assert_eq!(stream.stored(all.clone(), &mut out), Next::End);
            }
            let words = words(&out);
            let start =
                words.iter().rposition(|word| word.starts_with("reset")).map_or(0, |n| n + 1);
            assert_eq!(words[start..words.len() - 1].concat(), "345678", "{words:?}");
        }
    }
}
