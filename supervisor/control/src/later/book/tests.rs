use std::time::Duration;

use common::{ConversationId, MessageId, SenderName};
use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn key(agent: &str, id: u64) -> MessageKey {
    MessageKey {
        agent: AgentName::new(agent).expect("valid"),
        sender: SenderName::new("user").expect("valid"),
        message_id: MessageId::new(format!("m{id}")).expect("valid"),
    }
}

fn tag(conversation: &str) -> ConversationTag {
    match conversation {
        "" => ConversationTag::none(),
        id => ConversationTag::of_conversation(&ConversationId::new(id).expect("valid")),
    }
}

fn add(book: &mut Book, seq: u64, conversation: &str, due: u64) {
    let shard = u32::from(conversation == "c");
    book.request(seq, at(seq), (key("a", seq), tag(conversation)), at(due), shard);
}

fn seqs(jobs: &[Job]) -> Vec<u64> {
    jobs.iter().map(|job| job.seq).collect()
}

#[test]
fn what_is_due_comes_in_order_and_one_of_a_conversation_at_a_time() {
    let mut book = Book::default();
    for (seq, conversation, due) in
        [(1, "c", 30), (2, "c", 10), (3, "", 20), (4, "c", 10), (5, "d", 25), (6, "", 99)]
    {
        add(&mut book, seq, conversation, due);
    }
    assert_eq!(book.next(), Some(at(10)));
    assert_eq!(book.take(at(9), 10), []);
    let first = book.take(at(30), 10);
    assert_eq!(seqs(&first), [2, 3, 5]);
    assert_eq!((book.take(at(30), 10), book.working()), (vec![], 3));
    assert_eq!(book.next(), Some(at(99)), "nothing else to do before");
    book.done(&first[0]);
    let second = book.take(at(30), 10);
    assert_eq!(seqs(&second), [4], "then by the order in which they were stored");
    // A new one that is due before the others.
    add(&mut book, 7, "c", 5);
    assert_eq!(book.take(at(30), 10), [], "one of it is being worked on");
    book.done(&second[0]);
    let third = book.take(at(30), 10);
    assert_eq!(seqs(&third), [7]);
    book.done(&third[0]);
    assert_eq!(seqs(&book.take(at(30), 10)), [1]);
    assert_eq!(book.len(), 4, "two that wait, and two that are worked on: 1, 3, 5, 6");
}

#[test]
fn what_has_failed_is_not_overtaken() {
    let mut book = Book::default();
    add(&mut book, 1, "c", 10);
    add(&mut book, 2, "c", 11);
    let job = book.take(at(20), 1).pop().expect("one");
    book.again(job, at(50));
    assert_eq!(book.take(at(49), 9), []);
    assert_eq!(book.next(), Some(at(50)));
    let job = book.take(at(50), 9).pop().expect("one");
    assert_eq!(job.seq, 1);
    book.not_yet(job, at(70));
    assert_eq!(seqs(&book.take(at(60), 9)), [2], "it is due before the other one now");
}

#[test]
fn a_part_of_the_journal_that_takes_nothing_is_tried_by_one_at_a_time_and_holds_up_no_other() {
    let mut book = Book::default();
    for seq in 1..=4 {
        add(&mut book, seq, "", 10);
    }
    add(&mut book, 5, "c", 20);
    let second = |seconds: u64| at(seconds * 1000);
    let mut jobs = book.take(second(1), 2);
    assert_eq!(seqs(&jobs), [1, 2]);
    // Both at once: that is one failure.
    book.not_taken(jobs.remove(0), second(1));
    book.not_taken(jobs.remove(0), second(1));
    let others = book.take(second(1), 9);
    assert_eq!(seqs(&others), [5]);
    book.done(&others[0]);
    let mut tried = second(1);
    for pause in [2, 4, 8, 16, 16] {
        let due = tried.after(Duration::from_secs(pause));
        assert_eq!((book.next(), book.take(at(due.as_millis() - 1), 9)), (Some(due), vec![]));
        let mut jobs = book.take(due, 9);
        assert_eq!((seqs(&jobs), book.next()), (vec![1], None));
        book.not_taken(jobs.remove(0), due);
        tried = due;
    }
    // One that waits there is cancelled.
    book.ended(&key("a", 3), 9, tried);
    let due = book.next().expect("it is tried");
    let jobs = book.take(due, 9);
    book.done(&jobs[0]);
    assert_eq!(seqs(&book.take(due, 9)), [2, 4]);
    assert_eq!((book.len(), book.next()), (2, None));
}

#[test]
fn what_fails_for_a_reason_of_its_own_lets_the_others_go_on() {
    let mut book = Book::default();
    for seq in 1..=3 {
        add(&mut book, seq, "", 10);
    }
    let job = book.take(at(10), 1).pop().expect("one");
    book.not_taken(job, at(10));
    assert_eq!(book.take(at(11), 9), []);
    let due = book.next().expect("it is tried");
    let job = book.take(due, 9).pop().expect("one");
    book.again(job, at(99_000));
    assert_eq!(seqs(&book.take(due, 9)), [2, 3]);
}

#[test]
fn what_is_cancelled_is_taken_out_and_removed_once_it_is_old() {
    let mut book = Book::default();
    add(&mut book, 1, "c", 10);
    add(&mut book, 2, "c", 11);
    add(&mut book, 3, "", 90);
    let first = book.take(at(20), 9).pop().expect("one");
    book.ended(&key("a", 2), 8, at(21));
    book.ended(&key("a", 3), 9, at(22));
    book.ended(&key("a", 1), 10, at(23));
    assert_eq!(book.len(), 1, "that which is worked on");
    book.done(&first);
    assert_eq!((book.len(), book.next()), (0, None));
    // One whose request was removed before its final state was, or is there: the work on it ended before that was read.
    book.ended(&key("a", 77), 11, at(24));
    let old = |requests: &[u64], unknown: &[u64], finals: &[u64]| Old {
        requests: requests.to_vec(),
        unknown: unknown.iter().map(|seq| Arc::new(key("a", *seq))).collect(),
        finals: finals.to_vec(),
    };
    assert_eq!(book.old(at(23), 9, 1), old(&[2], &[], &[8]));
    assert_eq!(book.old(at(23), 9, 9), old(&[3], &[], &[9]));
    assert_eq!(book.old(at(0), 1, 9), old(&[1], &[], &[10]));
    assert_eq!(book.old(at(99), 9, 9), old(&[], &[77], &[11]));
}

#[test]
fn those_that_waited_for_one_that_is_cancelled_go_on() {
    let mut book = Book::default();
    (1..=3).for_each(|seq| add(&mut book, seq, "c", 10));
    let first = book.take(at(20), 9).pop().expect("one");
    book.done(&first);
    // The next one waits for its turn, and the last one for that.
    book.ended(&key("a", 2), 8, at(21));
    assert_eq!(seqs(&book.take(at(20), 9)), [3]);
}

#[test]
fn what_is_decided_is_due_whatever_the_time() {
    let mut book = Book::default();
    add(&mut book, 1, "c", 50);
    assert!(!book.given(&key("a", 9)), "what is left of one that is in the journal");
    assert!(book.given(&key("a", 1)));
    assert_eq!(seqs(&book.take(at(0), 9)), [1]);
    assert!(book.given(&key("a", 1)), "it is being worked on");
}

#[test]
fn the_messages_of_an_agent_that_is_removed_are_looked_at_at_once() {
    let mut book = Book::default();
    add(&mut book, 1, "", 50);
    book.request(2, at(2), (key("b", 2), tag("")), at(60), 0);
    book.hurry(|agent, _| agent.as_str() == "b");
    assert_eq!(seqs(&book.take(at(1), 9)), [2]);
}

proptest! {
    /// Whatever fails, is cancelled, or comes late: within a conversation nothing is given before what was due before it, and every message
    /// ends once.
    #[test]
    fn no_message_overtakes_another(
        steps in prop::collection::vec((0u8..11, 0u64..40, 0u8..3), 1..200),
    ) {
        let mut book = Book::default();
        let (mut now, mut next) = (0_u64, 0_u64);
        let mut open: BTreeMap<u64, (u8, u64)> = BTreeMap::new();
        let mut working: Vec<Job> = Vec::new();
        let mut given: HashSet<u64> = HashSet::new();
        let lines = ["", "c", "d"];
        let settle = |book: &mut Book, job: Job, open: &mut BTreeMap<u64, (u8, u64)>, given: &mut HashSet<u64>| {
            let Some((line, due)) = open.remove(&job.seq) else {
                book.done(&job);
                return Ok(());
            };
            if line > 0 {
                let earlier = open.iter().find(|(seq, of)| of.0 == line && (of.1, **seq) < (due, job.seq));
                prop_assert!(earlier.is_none(), "{earlier:?} was due before {}", job.seq);
            }
            prop_assert!(given.insert(job.seq), "{} twice", job.seq);
            book.done(&job);
            Ok(())
        };
        for (what, number, line) in steps {
            match what {
                0..=3 => {
                    next += 1;
                    // Not before what is given already.
                    let due = now + 1 + number;
                    add(&mut book, next, lines[usize::from(line)], due);
                    open.insert(next, (line, due));
                }
                4 | 5 => {
                    now += number;
                    working.extend(book.take(at(now), usize::from(line) + 1));
                }
                6 | 7 => {
                    if !working.is_empty() {
                        let job = working.remove(number as usize % working.len());
                        settle(&mut book, job, &mut open, &mut given)?;
                    }
                }
                8 => {
                    if !working.is_empty() {
                        let job = working.remove(number as usize % working.len());
                        book.again(job, at(now + number));
                    }
                }
                9 => {
                    if !working.is_empty() {
                        let job = working.remove(number as usize % working.len());
                        book.not_taken(job, at(now));
                    }
                }
                _ => {
                    let is_worked_on = |seq: u64| working.iter().any(|job| job.seq == seq);
                    let some = open.keys().nth(number as usize).copied();
                    if let Some(seq) = some.filter(|seq| !is_worked_on(*seq)) {
                        next += 1;
                        book.ended(&key("a", seq), next, at(now));
                        open.remove(&seq);
                    }
                }
            }
        }
        for job in std::mem::take(&mut working) {
            settle(&mut book, job, &mut open, &mut given)?;
        }
        loop {
            let jobs = book.take(at(u64::MAX), 2);
            if jobs.is_empty() {
                break;
            }
            for job in jobs {
                settle(&mut book, job, &mut open, &mut given)?;
            }
        }
        prop_assert!(open.is_empty(), "{open:?} never came");
        prop_assert_eq!((book.len(), book.working(), book.next()), (0, 0, None));
        prop_assert!(book.held.is_empty() && book.busy.is_empty());
    }
}
