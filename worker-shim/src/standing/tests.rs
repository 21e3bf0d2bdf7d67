//! The machine as tables: in every state, what every input leads to and what is to be done; then runs of several inputs.

use super::*;

const NOW: u64 = 1_000_000_000;
const SECOND: u64 = 1_000_000;

fn consumer(created: u64) -> Consumer {
    Consumer { name: "me-4".into(), created: Some(Timestamp::from_millis(created)) }
}

fn ours() -> Consumer {
    consumer(1)
}

fn another() -> Consumer {
    consumer(2)
}

fn admission(consumer: Consumer) -> Admission {
    Admission { consumer, horizon: 70, floor: 50 }
}

/// Where a machine is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The worker is not ready yet.
    Starting,
    New,
    Current,
    /// With the question for what was lost under way.
    Doubtful,
    Gone,
    /// Current, and told to stop.
    Stopped,
    StoppedDoubtful,
    /// Without a connection.
    Cut,
    CutNew,
}

const ALL: [At; 9] = [
    At::Starting,
    At::New,
    At::Current,
    At::Doubtful,
    At::Gone,
    At::Stopped,
    At::StoppedDoubtful,
    At::Cut,
    At::CutNew,
];

fn machine(at: At) -> Standing {
    let mut it = Standing::new(NOW - SECOND, Some(1), 1);
    it.reached(u64::MAX - SILENCE_US);
    let mut take = |input| {
        let _deeds = it.handle(NOW - SECOND, input);
    };
    if at == At::Starting {
        return it;
    }
    take(Input::WorkerReady);
    match at {
        At::Starting | At::New => {}
        At::CutNew => take(Input::Link(None)),
        At::Current | At::Doubtful | At::Gone | At::Stopped | At::StoppedDoubtful | At::Cut => {
            take(Input::Begin(admission(ours())));
        }
    }
    match at {
        At::Doubtful => take(Input::PullEnded),
        At::Gone => {
            take(Input::PullEnded);
            take(Input::Looked { look: 1, found: Found::Gone });
        }
        At::Stopped => take(Input::Stop),
        At::StoppedDoubtful => {
            take(Input::Stop);
            take(Input::PullEnded);
        }
        At::Cut => take(Input::Link(None)),
        At::Starting | At::New | At::Current | At::CutNew => {}
    }
    it
}

fn look(look: u64) -> Deed {
    Deed::Look { look, consumer: ours(), lost: true }
}

fn look_at_another(look: u64) -> Deed {
    Deed::Look { look, consumer: another(), lost: true }
}

fn there(consumer: Consumer) -> Input {
    Input::Looked { look: 1, found: Found::There(consumer) }
}

fn tick(heard_us: u64) -> Input {
    Input::Tick { heard_us, idle: true }
}

/// What every state makes of an input: the rows of one table. States that are not named stay as they are and do nothing.
fn table(input: &Input, rows: &[(At, State, &[Deed])]) {
    for at in ALL {
        let mut it = machine(at);
        // A moment later than anything before, and before anything is due.
        it.ready_at_us = it.ready_at_us.map(|_| NOW + SECOND);
        let before = it.state;
        let deeds = it.handle(NOW, input.clone());
        let row = rows.iter().find(|(row, ..)| *row == at);
        let (state, expected) = row.map_or((before, &[][..]), |(_, state, deeds)| (*state, *deeds));
        assert_eq!((it.state, &*deeds), (state, expected), "{at:?}: {input:?}");
    }
}

#[test]
fn begin_makes_a_new_one_current_and_every_other_look_first() {
    let pull = [Deed::Pull(ours()), Deed::Open];
    table(
        &Input::Begin(admission(ours())),
        &[
            // One that is not ready yet, or goes, is not asked for long: it is told again, or need not be.
            (At::New, State::Current, &pull),
            // Who was asked did not find it, and the leader has it.
            (At::Gone, State::Doubtful, &[Deed::Disputed, look(2)]),
            (At::CutNew, State::Doubtful, &[]),
        ],
    );
    let pull = [Deed::Pull(another()), Deed::Open];
    table(
        &Input::Begin(admission(another())),
        &[
            (At::New, State::Current, &pull),
            (At::Current, State::Doubtful, &[Deed::DropPull, Deed::Close, look_at_another(1)]),
            (At::Doubtful, State::Doubtful, &[look_at_another(2)]),
            (At::Gone, State::Doubtful, &[look_at_another(2)]),
            (At::Cut, State::Doubtful, &[Deed::DropPull]),
            (At::CutNew, State::Doubtful, &[]),
        ],
    );
}

#[test]
fn only_a_consumer_of_the_same_name_and_creation_makes_it_current_again() {
    table(
        &there(ours()),
        &[
            (At::Doubtful, State::Current, &[Deed::Pull(ours()), Deed::Open]),
            (At::StoppedDoubtful, State::Current, &[Deed::Open]),
        ],
    );
    table(
        &there(another()),
        &[(At::Doubtful, State::Gone, &[Deed::SayReady]), (At::StoppedDoubtful, State::Gone, &[])],
    );
    table(
        &Input::Looked { look: 1, found: Found::Gone },
        &[(At::Doubtful, State::Gone, &[Deed::SayReady]), (At::StoppedDoubtful, State::Gone, &[])],
    );
}

#[test]
fn a_consumer_that_does_not_answer_leaves_it_in_doubt_and_is_reported() {
    table(
        &Input::Looked { look: 1, found: Found::NoAnswer },
        &[(At::Doubtful, State::Doubtful, &[Deed::SayReady])],
    );
    let mut it = machine(At::Doubtful);
    it.handle(NOW, Input::Looked { look: 1, found: Found::NoAnswer });
    it.ready_at_us = Some(NOW + LOOK_AGAIN_US);
    assert_eq!(it.due_us(), NOW + LOOK_AGAIN_US);
    assert_eq!(it.handle(NOW + LOOK_AGAIN_US, tick(0)), [look(2), Deed::SayReady]);
    // It is said on, ever more rarely, and not anew with each look-up.
    let again = it.ready_at_us;
    it.handle(NOW + LOOK_AGAIN_US, Input::Looked { look: 2, found: Found::NoAnswer });
    assert_eq!((again.is_some(), it.ready_at_us), (true, again));
}

#[test]
fn an_answer_to_an_older_question_is_none() {
    table(&Input::Looked { look: 0, found: Found::There(ours()) }, &[]);
    table(&Input::Looked { look: 9, found: Found::There(ours()) }, &[]);
}

#[test]
fn a_pull_that_is_refused_closes_the_gate_until_the_consumer_was_looked_up() {
    table(
        &Input::PullEnded,
        &[
            (At::Current, State::Doubtful, &[Deed::Close, look(1)]),
            (At::Stopped, State::Doubtful, &[Deed::Close, look(1)]),
            (At::Doubtful, State::Doubtful, &[look(2)]),
            (At::StoppedDoubtful, State::Doubtful, &[look(2)]),
        ],
    );
}

#[test]
fn a_connection_that_breaks_closes_the_gate_and_a_new_one_begins_with_a_look() {
    table(
        &Input::Link(None),
        &[
            (At::Current, State::Doubtful, &[Deed::Close]),
            (At::Stopped, State::Doubtful, &[Deed::Close]),
        ],
    );
    table(
        &Input::Link(Some(2)),
        &[
            (At::New, State::New, &[Deed::SayReady]),
            (At::Gone, State::Gone, &[Deed::SayReady]),
            (At::Current, State::Doubtful, &[Deed::Close, Deed::DropPull, look(1)]),
            (At::Stopped, State::Doubtful, &[Deed::Close, Deed::DropPull, look(1)]),
            (At::Doubtful, State::Doubtful, &[look(2)]),
            (At::StoppedDoubtful, State::Doubtful, &[look(2)]),
            (At::Cut, State::Doubtful, &[Deed::DropPull, look(1)]),
            (At::CutNew, State::New, &[Deed::SayReady]),
        ],
    );
    // The same connection, after all: what was on its way is still to come.
    table(
        &Input::Link(Some(1)),
        &[(At::Cut, State::Doubtful, &[look(1)]), (At::CutNew, State::New, &[Deed::SayReady])],
    );
}

#[test]
fn its_own_standstill_is_a_doubt() {
    table(
        &Input::StoodStill,
        &[
            (At::Current, State::Doubtful, &[Deed::Close, look(1)]),
            (At::Stopped, State::Doubtful, &[Deed::Close, look(1)]),
            (At::Doubtful, State::Doubtful, &[look(2)]),
            (At::StoppedDoubtful, State::Doubtful, &[look(2)]),
        ],
    );
}

#[test]
fn silence_asks_first_and_closes_the_gate_then() {
    // A word a moment ago, and nothing is to be done.
    table(&tick(NOW), &[]);
    let mut it = machine(At::Current);
    let heard = NOW - SECOND;
    assert_eq!(it.due_us(), heard + AWAKE_EVERY_US);
    assert_eq!(it.stood_still(heard + 2 * SECOND), None);
    assert_eq!(it.due_us(), heard + LOOK_AFTER_US);
    let asks = [Deed::Look { look: 1, consumer: ours(), lost: false }];
    assert_eq!(it.handle(heard + LOOK_AFTER_US, tick(0)), asks);
    // No answer, and the last of them is the one that closes.
    let again = it.handle(heard + 5 * SECOND, Input::Looked { look: 1, found: Found::NoAnswer });
    assert_eq!((again, it.state), (vec![], State::Current));
    assert_eq!(it.handle(heard + SILENCE_US - 1, tick(0)).len(), 1);
    assert_eq!(it.state, State::Current);
    assert_eq!(it.handle(heard + SILENCE_US, tick(0)), [Deed::Close, look(3)]);
    // What a pull brings meanwhile proves nothing any more.
    assert_eq!(it.handle(heard + SILENCE_US + 1, tick(heard + SILENCE_US + 1)), []);
    assert_eq!(it.state, State::Doubtful);
    let found = Found::There(ours());
    assert_eq!(it.handle(heard + 9 * SECOND, Input::Looked { look: 3, found }), [Deed::Open]);
}

/// A consumer in the memory of a server that is cut off from the others says on and on that it exists.
#[test]
fn a_consumer_whose_server_is_cut_off_closes_the_gate_and_nobody_is_asked_meanwhile() {
    let mut it = machine(At::Current);
    it.reached_us = NOW - SECOND;
    let closes = NOW - SECOND + SILENCE_US;
    for now in (NOW..closes).step_by(1_000_000) {
        assert_eq!(it.stood_still(now), None);
        assert_eq!(it.handle(now, tick(now)), []);
        assert_eq!(it.state, State::Current);
    }
    assert!(it.due_us() <= closes);
    assert_eq!(it.handle(closes, tick(closes)), [Deed::Close]);
    for now in (closes..closes + 60 * SECOND).step_by(1_000_000) {
        assert_eq!(it.stood_still(now), None);
        assert_eq!(it.due_us(), now + LOOK_AGAIN_US, "it may be over");
        assert_eq!(it.handle(now, tick(now)), []);
    }
    // That it is in reach again does not say that nothing has happened meanwhile.
    let back = closes + 60 * SECOND;
    it.reached(back - SECOND);
    assert_eq!(it.handle(back, tick(back)), [look(1)]);
    assert_eq!(it.state, State::Doubtful);
    let found = Input::Looked { look: 1, found: Found::There(ours()) };
    assert_eq!(it.handle(back, found), [Deed::Open]);
    // Whoever found it reaches the leaders: that counts until there is an answer.
    let later = back + SILENCE_US;
    assert_eq!(it.handle(later - 1, tick(later - 1)), []);
    it.reached(back + SECOND);
    assert_eq!(it.handle(later, tick(later)), []);
    assert_eq!(it.handle(later + SECOND, tick(later + SECOND)), [Deed::Close]);
}

#[test]
fn a_word_of_the_consumer_keeps_it_current() {
    for by_look in [true, false] {
        let mut it = machine(At::Current);
        for second in 0..60 {
            let now = NOW + second * SECOND;
            let heard = if by_look { 0 } else { now };
            for deed in it.handle(now, tick(heard)) {
                let Deed::Look { look, consumer, lost: false } = deed else { panic!("{deed:?}") };
                assert!(by_look, "the pull tells");
                let looked = Input::Looked { look, found: Found::There(consumer) };
                assert_eq!(it.handle(now, looked), []);
            }
            assert_eq!(it.state, State::Current);
        }
    }
}

#[test]
fn a_look_for_life_finds_out_that_it_was_replaced() {
    for found in [Found::Gone, Found::There(another())] {
        let mut it = machine(At::Current);
        let now = NOW + LOOK_AFTER_US;
        assert_eq!(it.handle(now, tick(0)).len(), 1);
        let deeds = it.handle(now, Input::Looked { look: 1, found });
        assert_eq!(deeds, [Deed::Close, Deed::DropPull, Deed::SayReady]);
        assert_eq!(it.state, State::Gone);
    }
}

#[test]
fn a_look_for_life_that_was_asked_before_a_doubt_does_not_end_it() {
    let mut it = machine(At::Current);
    let now = NOW + LOOK_AFTER_US;
    it.handle(now, tick(0));
    assert_eq!(it.handle(now, Input::StoodStill), [Deed::Close, look(2)]);
    assert_eq!(it.handle(now, Input::Looked { look: 1, found: Found::There(ours()) }), []);
    assert_eq!(it.state, State::Doubtful);
    let found = Found::There(ours());
    assert_eq!(it.handle(now, Input::Looked { look: 2, found }), [Deed::Open]);
}

#[test]
fn ready_is_said_until_it_is_admitted_and_not_by_one_that_stops() {
    table(
        &Input::WorkerReady,
        &[(At::Starting, State::New, &[Deed::SayReady]), (At::New, State::New, &[Deed::SayReady])],
    );
    let mut it = machine(At::New);
    assert_eq!(it.handle(NOW, tick(0)), [Deed::SayReady]);
    assert_eq!(it.handle(NOW + 1, tick(0)), []);
    // It was said before.
    let again = NOW + 2 * READY_AGAIN_US * 5 / 4;
    assert_eq!(it.handle(again, tick(0)), [Deed::SayReady]);
    it.handle(again, Input::Begin(admission(ours())));
    assert_eq!(it.handle(again + 2 * READY_MOST_US, tick(again + 2 * READY_MOST_US)), []);
    let mut it = machine(At::Gone);
    it.handle(NOW, Input::Stop);
    assert_eq!(it.handle(NOW + SECOND, tick(0)), []);
}

/// The pauses between the first times that it says ready.
fn pauses(it: &mut Standing, mut now: u64) -> Vec<u64> {
    assert_eq!(it.handle(now, Input::WorkerReady), [Deed::SayReady]);
    let mut pauses = Vec::new();
    while pauses.len() < 12 {
        let due = it.ready_at_us.expect("it goes on");
        assert_eq!(it.handle(due - 1, tick(0)), [], "too soon");
        assert_eq!(it.handle(due, tick(0)), [Deed::SayReady]);
        pauses.push(due - now);
        now = due;
    }
    pauses
}

#[test]
fn ready_is_said_ever_more_rarely_and_never_too_rarely_to_be_heard() {
    let said = pauses(&mut machine(At::Starting), NOW);
    for (pause, wanted) in said.iter().zip([1, 2, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8]) {
        let wanted = wanted * READY_AGAIN_US;
        assert!((wanted * 3 / 4..=wanted * 5 / 4).contains(pause), "{said:?}");
    }
    // Another one does not do so in step.
    assert_ne!(pauses(&mut Standing::new(NOW, Some(1), 2), NOW), said);
}

#[test]
fn whoever_has_news_says_ready_at_once_and_often_again() {
    for news in [Input::Link(Some(2)), Input::WorkerReady] {
        let mut it = machine(At::Starting);
        let late = NOW + 60 * SECOND;
        pauses(&mut it, NOW);
        assert_eq!(it.handle(late, news), [Deed::SayReady]);
        let again = it.ready_at_us.expect("it goes on") - late;
        assert!(again <= READY_AGAIN_US * 5 / 4, "{again}");
    }
    // A consumer that is gone once more.
    let mut it = machine(At::Gone);
    it.ready_pause_us = READY_MOST_US;
    it.handle(NOW, Input::Begin(admission(ours())));
    assert_eq!(it.handle(NOW, Input::Looked { look: 2, found: Found::Gone }), [Deed::SayReady]);
    assert!(it.ready_at_us.expect("it goes on") <= NOW + READY_AGAIN_US * 5 / 4);
}

#[test]
fn stop_keeps_what_it_has_and_pulls_no_more() {
    table(&Input::Stop, &[]);
}

#[test]
fn a_gap_in_its_own_looks_at_the_clock_is_a_standstill() {
    let mut it = machine(At::Current);
    assert_eq!(it.stood_still(NOW), None);
    assert_eq!(it.stood_still(NOW + AWAKE_EVERY_US + LATE_US), None, "busy");
    let thawed = NOW + AWAKE_EVERY_US + LATE_US + 11 * SECOND;
    assert_eq!(it.stood_still(thawed), Some(11 * SECOND));
    assert_eq!(it.stood_still(thawed + 1), None, "once");
}

#[test]
fn what_nobody_admits_ends_once_no_turn_is_open_and_what_is_current_never() {
    let late = NOW - SECOND + ORPHANED_US;
    for at in ALL {
        for idle in [true, false] {
            let mut it = machine(at);
            let ends = |it: &mut Standing, now| {
                it.handle(now, Input::Tick { heard_us: now, idle }).contains(&Deed::End)
            };
            assert!(!ends(&mut it, late - 1), "{at:?}");
            let admitted = matches!(at, At::Current | At::Stopped | At::StoppedDoubtful);
            assert_eq!(ends(&mut it, late), idle && !admitted, "{at:?}");
            assert!(!ends(&mut it, late + 1) || !idle, "once");
        }
    }
}

#[test]
fn the_highest_horizon_and_floor_count() {
    let mut it = machine(At::Current);
    assert_eq!((it.horizon(), it.floor()), (70, 50));
    for (horizon, floor) in [(60, 90), (80, 40)] {
        it.handle(NOW, Input::Begin(Admission { consumer: ours(), horizon, floor }));
    }
    assert_eq!((it.horizon(), it.floor()), (80, 90));
}

#[test]
fn a_creation_that_is_not_known_is_not_compared() {
    let unknown = Consumer { created: None, ..ours() };
    for (one, other, same) in [
        (ours(), ours(), true),
        (ours(), another(), false),
        (unknown.clone(), ours(), true),
        (ours(), unknown.clone(), true),
        (unknown.clone(), Consumer { name: "me-4b".into(), created: None }, false),
    ] {
        assert_eq!(one.is(&other), same, "{one:?} {other:?}");
    }
    // Once it is known it counts.
    let mut it = machine(At::New);
    it.handle(NOW, Input::Begin(admission(unknown)));
    it.handle(NOW, Input::PullEnded);
    it.handle(NOW, there(ours()));
    assert_eq!(it.state, State::Current);
    it.handle(NOW, Input::PullEnded);
    it.handle(NOW + LOOK_AGAIN_US, Input::Looked { look: 2, found: Found::There(another()) });
    assert_eq!(it.state, State::Gone);
}

#[test]
fn a_tick_leaves_nothing_due() {
    for at in ALL {
        let mut it = machine(at);
        for second in 0..100 {
            let now = NOW + second * SECOND;
            it.stood_still(now);
            it.handle(now, tick(0));
            assert!(it.due_us() > now, "{at:?} would spin");
        }
    }
}
