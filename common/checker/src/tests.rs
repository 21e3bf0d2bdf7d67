//! Every rule, broken on purpose.

use common::message::{Kind, Outcome};
use common::{SenderName, Timestamp};

use super::*;

/// When everything was stored.
const STORED: u64 = 10_000_000;

fn key(id: &str) -> MessageKey {
    MessageKey {
        agent: AgentName::new("echo").unwrap(),
        sender: SenderName::new("user").unwrap(),
        message_id: MessageId::new(id).unwrap(),
    }
}

fn request(seq: u64, id: &str) -> Placed<Envelope> {
    let MessageKey { agent, sender, message_id } = key(id);
    let value = Envelope {
        message_id,
        agent,
        sender,
        kind: Kind::Chat,
        conversation_id: ConversationId::new("c").unwrap(),
        message: format!("text of {id}"),
        created_at: Timestamp::from_millis(0),
        request_id: None,
        deadline: None,
        hops: 0,
        cause: None,
        path: Vec::new(),
        redrive_of: None,
        traceparent: None,
        scheduled_for: None,
        deliver_at: None,
    };
    Placed { seq, at: Timestamp::from_millis(STORED), value }
}

fn answer(id: &str) -> String {
    format!("answer to {id}")
}

fn final_(seq: u64, id: &str) -> Placed<Final> {
    let value = Final {
        status: Outcome::Completed,
        response: Some(answer(id)),
        reason: None,
        attempts: 1,
        incarnation: Some(1),
        at: Timestamp::from_millis(0),
        tail: Vec::new(),
    };
    Placed { seq, at: Timestamp::from_millis(STORED), value }
}

/// A turn of an incarnation's one worker.
fn turn(incarnation: u64, began: u64) -> Turn {
    Turn { pid: 100, incarnation, began, born: incarnation }
}

/// Three messages of one conversation, each answered, all well.
fn facts() -> Facts {
    let mut facts = Facts::default();
    for (at, id) in (1..).zip(["a", "b", "c"]) {
        let life = Life {
            requests: vec![request(at, id)],
            finals: vec![final_(at + 10, id)],
            runs: BTreeSet::from([Run { attempt: 1, incarnation: 1 }]),
            witnessed: vec![turn(1, at)],
            with_shims: BTreeSet::new(),
            dead: false,
            garbage: 0,
        };
        facts.lives.insert(key(id), life);
        facts.accepted.push(Accepted {
            key: key(id),
            conversation_id: ConversationId::new("c").unwrap(),
            text: format!("text of {id}"),
            answer: answer(id),
        });
    }
    facts.attempts.insert(AgentName::new("echo").unwrap(), 3);
    facts
}

/// The faults after something was done to the life of message `b`.
fn after(breaks: impl FnOnce(&mut Life)) -> Vec<Fault> {
    let mut facts = facts();
    breaks(facts.lives.get_mut(&key("b")).unwrap());
    judge(&facts).faults
}

#[test]
fn a_fleet_that_is_well_has_no_faults() {
    let verdict = judge(&facts());
    assert_eq!(verdict.faults, []);
    assert_eq!((verdict.accepted, verdict.stored, verdict.completed), (3, 3, 3));
    assert_eq!((verdict.failed, verdict.repeated, verdict.unwitnessed), (0, 0, vec![]));
}

#[test]
fn an_accepted_message_that_is_not_in_the_journal_is_lost() {
    let mut facts = facts();
    facts.lives.remove(&key("b"));
    assert_eq!(judge(&facts).faults, [Fault::Lost(key("b"))]);
}

#[test]
fn a_final_state_of_nothing_is_seen() {
    let faults = after(|life| life.requests.clear());
    assert_eq!(faults, [Fault::Lost(key("b")), Fault::FinalOfNothing(key("b"))]);
}

#[test]
fn a_run_of_nothing_is_seen() {
    let mut facts = facts();
    facts.lives.insert(key("x"), Life { dead: true, ..Life::default() });
    assert_eq!(judge(&facts).faults, [Fault::Stray(key("x"))]);
}

#[test]
fn another_text_is_seen() {
    let faults = after(|life| life.requests[0].value.message.push('!'));
    assert_eq!(faults, [Fault::Altered(key("b"))]);
}

#[test]
fn a_missing_final_state_is_seen() {
    assert_eq!(after(|life| life.finals.clear()), [Fault::Open(key("b"))]);
}

#[test]
fn a_message_that_nobody_was_told_of_needs_a_final_state_too() {
    let mut facts = facts();
    facts.accepted.retain(|accepted| accepted.key != key("b"));
    facts.lives.get_mut(&key("b")).unwrap().finals.clear();
    assert_eq!(judge(&facts).faults, [Fault::Open(key("b"))]);
}

#[test]
fn a_second_final_state_is_seen_even_if_it_says_the_same() {
    let faults = after(|life| life.finals.push(final_(12, "b")));
    assert_eq!(faults, [Fault::Doubled { key: key("b"), seqs: vec![12, 12] }]);
}

#[test]
fn a_second_request_is_seen() {
    let faults = after(|life| life.requests.push(request(2, "b")));
    assert_eq!(faults, [Fault::StoredTwice(key("b"))]);
}

#[test]
fn too_many_runs_are_seen_by_the_worker_s_own_count() {
    let faults = after(|life| life.witnessed = vec![turn(1, 2); 4]);
    let (key, on_record, witnessed, allowed) = (key("b"), 1, 4, 3);
    assert_eq!(faults, [Fault::RanTooOften { key, on_record, witnessed, allowed }]);
}

#[test]
fn too_many_runs_are_seen_by_their_number() {
    let faults = after(|life| life.runs = BTreeSet::from([Run { attempt: 4, incarnation: 1 }]));
    assert!(matches!(faults[..], [Fault::RanTooOften { on_record: 4, .. }]), "{faults:?}");
}

#[test]
fn too_many_runs_are_seen_when_several_have_one_number() {
    let run = |incarnation| Run { attempt: 1, incarnation };
    let faults = after(|life| life.runs = (1..=4).map(run).collect());
    assert!(matches!(faults[..], [Fault::RanTooOften { on_record: 4, .. }]), "{faults:?}");
}

#[test]
fn too_many_runs_are_seen_in_the_final_state() {
    let faults = after(|life| life.finals[0].value.attempts = 4);
    assert!(matches!(faults[..], [Fault::RanTooOften { on_record: 4, .. }]), "{faults:?}");
}

#[test]
fn as_many_runs_as_allowed_are_no_fault() {
    let run = |attempt| Run { attempt, incarnation: 1 };
    let faults = after(|life| {
        life.runs = (1..=3).map(run).collect();
        life.witnessed = vec![turn(1, 2); 3];
        life.finals[0].value.attempts = 3;
    });
    assert_eq!(faults, []);
}

#[test]
fn swapped_answers_are_seen() {
    let faults = after(|life| life.finals[0].seq = 10);
    assert!(
        matches!(&faults[..], [Fault::OutOfOrder { earlier, later, .. }]
            if earlier.as_str() == "a" && later.as_str() == "b"),
        "{faults:?}"
    );
}

#[test]
fn messages_stored_in_another_order_than_sent_are_seen() {
    let mut facts = facts();
    facts.accepted.swap(0, 1);
    let faults = judge(&facts).faults;
    assert!(
        matches!(&faults[..], [Fault::OutOfOrder { earlier, later, .. }]
            if earlier.as_str() == "b" && later.as_str() == "a"),
        "{faults:?}"
    );
}

#[test]
fn conversations_do_not_wait_for_each_other() {
    let mut facts = facts();
    for (key, life) in &mut facts.lives {
        life.requests[0].value.conversation_id = ConversationId::from(&key.message_id);
        life.finals[0].seq = 20 - life.finals[0].seq;
    }
    for accepted in &mut facts.accepted {
        accepted.conversation_id = ConversationId::from(&accepted.key.message_id);
    }
    assert_eq!(judge(&facts).faults, []);
}

#[test]
fn a_wrong_answer_is_seen() {
    let faults = after(|life| life.finals[0].value.response = Some("answer to a".into()));
    assert!(matches!(faults[..], [Fault::WrongAnswer { .. }]), "{faults:?}");
    let faults = after(|life| life.finals[0].value.response = None);
    assert!(matches!(faults[..], [Fault::WrongAnswer { found: None, .. }]), "{faults:?}");
}

#[test]
fn an_answer_without_a_worker_is_seen() {
    assert_eq!(after(|life| life.witnessed.clear()), [Fault::AnsweredByNobody(key("b"))]);
}

#[test]
fn a_message_given_up_without_a_run_is_seen() {
    let faults = after(|life| {
        life.finals[0].value.status = Outcome::Failed;
        life.witnessed.clear();
        life.dead = true;
    });
    assert_eq!(faults, [Fault::GivenUpUnseen(key("b"))]);
    let unknowable = |with_shims: &dyn Fn(&Life) -> BTreeSet<Run>| {
        after(|life| {
            life.finals[0].value.status = Outcome::Failed;
            life.witnessed.clear();
            life.dead = true;
            life.with_shims = with_shims(life);
        })
    };
    assert_eq!(unknowable(&|life| life.runs.clone()), [], "its shims died with it");
    let but_one = unknowable(&|life| life.runs.iter().skip(1).copied().collect());
    assert_eq!(but_one, [Fault::GivenUpUnseen(key("b"))]);
}

#[test]
fn a_failed_message_needs_a_dead_letter_and_only_that_one() {
    let fails = |life: &mut Life| {
        life.finals[0].value.status = Outcome::Failed;
        life.finals[0].value.response = None;
    };
    assert_eq!(after(fails), [Fault::NoDeadLetter(key("b"))]);
    assert_eq!(after(|life| life.dead = true), [Fault::NeedlesslyDead(key("b"))]);
    let faults = after(|life| {
        fails(life);
        life.dead = true;
    });
    assert_eq!(faults, []);
}

#[test]
fn a_record_that_does_not_parse_is_seen() {
    let facts = Facts { malformed: vec!["x".into()], ..facts() };
    assert_eq!(judge(&facts).faults, [Fault::Malformed("x".into())]);
}

/// The faults with a request that nobody can read, after something was done to its life.
fn injected(confirmed: bool, breaks: impl FnOnce(&mut Life)) -> Vec<Fault> {
    let mut facts = facts();
    let mut refused = final_(20, "x");
    refused.value.status = Outcome::Failed;
    let mut life = Life { finals: vec![refused], garbage: 1, ..Life::default() };
    breaks(&mut life);
    facts.lives.insert(key("x"), life);
    facts.injected.insert(key("x"), confirmed);
    let verdict = judge(&facts);
    assert_eq!(verdict.refused, usize::from(verdict.faults.is_empty() && confirmed));
    verdict.faults
}

#[test]
fn a_request_that_nobody_can_read_is_refused_once() {
    assert_eq!(injected(true, |_| ()), []);
    assert_eq!(injected(true, |life| life.finals.clear()), [Fault::Open(key("x"))]);
    let faults = injected(true, |life| life.finals.push(life.finals[0].clone()));
    assert_eq!(faults, [Fault::Doubled { key: key("x"), seqs: vec![20, 20] }]);
    assert_eq!(injected(true, |life| life.garbage = 2), [Fault::StoredTwice(key("x"))]);
}

#[test]
fn an_injected_request_is_lost_only_if_it_was_confirmed() {
    let gone = |life: &mut Life| *life = Life::default();
    assert_eq!(injected(true, gone), [Fault::Lost(key("x"))]);
    assert_eq!(injected(false, gone), []);
}

#[test]
fn a_request_that_nobody_can_read_and_somebody_ran_is_seen() {
    let taken = [Fault::GarbageTaken(key("x"))];
    assert_eq!(injected(true, |life| life.finals[0].value.status = Outcome::Completed), taken);
    assert_eq!(injected(true, |life| life.witnessed.push(turn(1, 5))), taken);
}

#[test]
fn a_turn_of_a_message_that_is_not_stored_is_seen() {
    let mut facts = facts();
    let (agent, message) = (AgentName::new("echo").unwrap(), MessageId::new("x").unwrap());
    facts.unstored.insert((agent.clone(), message.clone()), vec![turn(1, 5)]);
    assert_eq!(judge(&facts).faults, [Fault::RanUnstored { agent, message }]);
}

#[test]
fn one_number_on_two_instances_is_seen() {
    for other in [Turn { pid: 101, ..turn(1, 2) }, Turn { born: 9, ..turn(1, 2) }] {
        let faults = after(|life| life.witnessed[0] = other);
        assert!(matches!(faults[..], [Fault::RunTwice { incarnation: 1, .. }]), "{faults:?}");
    }
    assert_eq!(after(|life| life.witnessed.push(turn(1, 3))), []);
}

#[test]
fn a_turn_that_begins_after_a_later_incarnation_has_begun_is_seen() {
    // `a` runs at 1, `c` at 3, by incarnation 1.
    let faults = after(|life| life.witnessed[0] = turn(2, 2));
    let [Fault::LateTurn { message, incarnation: 1, successor: 2, late_by, .. }] = &faults[..]
    else {
        panic!("{faults:?}");
    };
    assert_eq!((message.as_str(), late_by.as_nanos()), ("c", 1));
    // Not only the next one: any later one.
    let faults = after(|life| life.witnessed = vec![turn(5, 2), turn(4, 7)]);
    let mut late = Vec::new();
    for fault in &faults {
        if let Fault::LateTurn { incarnation, successor, .. } = fault {
            late.push((*incarnation, *successor));
        }
    }
    assert_eq!(late, [(4, 5), (1, 5)]);
}

#[test]
fn a_stopped_worker_that_reads_late_what_it_was_given_in_time_is_no_fault() {
    let run = Run { attempt: 1, incarnation: 1 };
    let second = Run { attempt: 2, incarnation: 2 };
    // `b` is given to incarnation 1 at 2, to 2 at 10; the first worker was stopped, and reads it at 11.
    let stored = |handed_out: &[(Run, u64)]| {
        after(|life| {
            life.runs = BTreeSet::from([run, second]);
            life.witnessed = vec![turn(1, 11), turn(2, 10)];
            life.believe_the_stream(handed_out);
        })
    };
    assert_eq!(stored(&[(run, 2), (second, 10)]), []);
    let late = [&[][..], &[(run, 11)], &[(second, 2)], &[(run, 2), (Run { attempt: 3, ..run }, 3)]];
    for handed_out in late {
        let faults = stored(handed_out);
        assert!(matches!(faults[..], [Fault::LateTurn { incarnation: 1, .. }, ..]), "{faults:?}");
    }
}

#[test]
fn a_later_incarnation_that_begins_when_the_earlier_one_has_stopped_is_no_fault() {
    assert_eq!(after(|life| life.witnessed.push(turn(2, 4))), []);
}

#[test]
fn a_message_that_is_cancelled_or_expires_before_its_time_is_seen() {
    let ends = |status, deadline: Option<u64>| {
        let mut facts = facts();
        let life = facts.lives.get_mut(&key("a")).unwrap();
        life.finals[0].value.status = status;
        life.finals[0].value.response = None;
        // By a clock that is an hour ahead of the broker's.
        let made = STORED + 3_600_000;
        life.requests[0].value.created_at = Timestamp::from_millis(made);
        let within = |within| Timestamp::from_millis(made + within);
        life.requests[0].value.deadline = deadline.map(within);
        judge(&facts).faults
    };
    assert_eq!(ends(Outcome::Expired, Some(0)), []);
    assert_eq!(ends(Outcome::Expired, Some(ESTIMATE)), []);
    let early = [Fault::EndedEarly(key("a"))];
    assert_eq!(ends(Outcome::Expired, Some(ESTIMATE + 1)), early);
    assert_eq!(ends(Outcome::Expired, None), early);
    assert_eq!(ends(Outcome::Cancelled, Some(0)), early);
}
