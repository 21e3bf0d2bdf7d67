//! Leadership: the newest term decides; what came before is read, not obeyed.

use common::Timestamp;
use common::control::{ControlEvent, ControlRecord, Timer};
use supervisor_core::{Action, State, step};

use crate::fleet::{Fleet, NOTHING, code, mender, soul};

#[test]
fn the_newest_term_wins() {
    let mut fleet = Fleet::new();
    let leader = |fleet: &Fleet| fleet.state.leader().map(|leader| leader.run.clone());
    let earlier = fleet.elect();
    let first = leader(&fleet);
    let term = fleet.elect();
    assert!(term > earlier);
    assert_eq!((fleet.state.term(), leader(&fleet) == first), (term, false));
    // Whatever term an election names: its own sequence is the term.
    let (supervisor, run) = ("s".to_owned(), "r".to_owned());
    fleet.fold(Some(1), ControlEvent::LeaderElected { supervisor, run, rules: 2 });
    assert_eq!((fleet.state.term(), leader(&fleet)), (term + 1, Some("r".to_owned())));
}

#[test]
fn time_is_the_logs_and_never_goes_back() {
    // The harness gives every record an author's clock that is off by hours.
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.later(5_000).exited(1, code(1));
    let tried = fleet.mender().next_try;
    assert_eq!(tried.map(Timestamp::as_millis), Some(fleet.now + 1_000));
    // The log's own clock steps back: the fold's does not.
    let before = fleet.state.at();
    fleet.now -= 60_000;
    fleet.stop();
    assert_eq!(fleet.state.at(), before);
}

#[test]
fn what_it_cannot_read_makes_a_replica_a_follower() {
    let newer_rules = |fleet: &mut Fleet| fleet.elect_by(supervisor_core::RULES + 1);
    let older_rules = |fleet: &mut Fleet| fleet.elect_by(supervisor_core::OLDEST_RULES - 1);
    let unknown = |fleet: &mut Fleet| drop(fleet.record(ControlEvent::Unknown));
    let unparsed = |fleet: &mut Fleet| {
        let at = Timestamp::from_millis(fleet.now);
        fleet.seq += 1;
        supervisor_core::skip(&mut fleet.state, fleet.seq, at, Some("a new field".to_owned()));
    };
    let all: [fn(&mut Fleet); 4] = [newer_rules, older_rules, unknown, unparsed];
    for happens in all {
        let mut fleet = Fleet::with_mender(soul("mender", "v1"));
        assert_eq!(fleet.state.unreadable(), None);
        happens(&mut fleet);
        let seq = fleet.seq;
        assert_eq!(fleet.state.unreadable().map(|what| what.seq), Some(seq));
        // The first one is named, whatever follows.
        fleet.elect();
        assert_eq!(fleet.state.unreadable().map(|what| what.seq), Some(seq));
    }
    // What no version writes means nothing to anybody.
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let before = fleet.state.clone();
    supervisor_core::skip(&mut fleet.state, fleet.seq + 1, before.at(), None);
    assert_eq!((fleet.state.unreadable(), fleet.state.seq()), (None, before.seq() + 1));
    assert!(before.agents().eq(fleet.state.agents()));
}

#[test]
fn a_number_is_in_the_record_that_allocates_it() {
    let mut fleet = Fleet::new();
    fleet.node("beta");
    let term = Some(fleet.term);
    let spec = Box::new(soul("mender", "v1"));
    let applied = ControlEvent::AgentApplied { spec, force: false, asked: None };
    assert_eq!(fleet.fold(None, applied), [Action::Allocate { agent: mender() }]);
    assert_eq!(fleet.resume(), ["allocate mender"], "a new leader does it");
    let place = |incarnation, generation, node: &str| ControlEvent::IncarnationAllocated {
        agent: mender(),
        incarnation,
        generation,
        node: crate::fleet::node_name(node),
    };
    // Not of the generation that was asked for; on a node that nobody knows: it is asked for again.
    assert_eq!(fleet.fold(term, place(1, 2, "beta")), []);
    assert_eq!(fleet.fold(term, place(1, 1, "gamma")), [Action::Allocate { agent: mender() }]);
    // The number is the record's, also where a build that counts otherwise wrote it.
    let started = fleet.record(place(5, 1, "beta"));
    assert_eq!(started, ["start mender.5 g1 on beta", "timer ready mender.5 +60000"]);
    assert_eq!(fleet.record(place(6, 1, "beta")), NOTHING, "nobody asks any more");
    // Never a number again, nor one below.
    fleet.exited(5, code(1));
    fleet.later(1_000).fold(
        term,
        ControlEvent::TimerFired {
            agent: mender(),
            timer: Timer::Restart,
            incarnation: 5,
            said: None,
        },
    );
    assert_eq!(fleet.record(place(5, 1, "beta")), NOTHING);
    assert_eq!(fleet.record(place(6, 1, "alpha"))[0], "start mender.6 g1 on alpha");
}

#[test]
fn a_deposed_leader_writes_but_does_not_decide() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let term = fleet.elect();
    let before = fleet.state.clone();
    let exited = ControlEvent::IncarnationExited {
        agent: mender(),
        incarnation: 1,
        exit: code(1),
        clean: true,
    };
    let lost = ControlEvent::NodeLost { node: crate::fleet::node_name("alpha") };
    for event in [exited, lost] {
        for term in [None, Some(1), Some(term - 1), Some(term + 1)] {
            assert_eq!(fleet.record_of(term, event.clone()), NOTHING);
        }
    }
    assert!(before.agents().eq(fleet.state.agents()));
    assert!(before.nodes().eq(fleet.state.nodes()));
}

#[test]
fn what_people_want_needs_no_term() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.elect();
    assert_eq!(fleet.stop().len(), 2);
}

#[test]
fn a_record_that_was_folded_already_changes_nothing() {
    let event =
        ControlEvent::AgentApplied { spec: Box::new(soul("a", "v1")), force: true, asked: None };
    let at = Timestamp::from_millis(1);
    let record = ControlRecord { id: None, at, term: None, author: "cli".into(), event };
    let mut state = State::default();
    step(&mut state, 7, at, &record);
    let once = state.clone();
    assert_eq!(step(&mut state, 7, at, &record), []);
    assert_eq!(step(&mut state, 3, at, &record), []);
    assert_eq!(state, once);
    assert_eq!(state.seq(), 7);
}

#[test]
fn a_new_leader_finds_all_that_is_outstanding() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.resume(), NOTHING, "what runs is left alone");
    fleet.exited(1, code(1));
    assert_eq!(fleet.resume(), ["timer restart mender.1 +1000"]);
    let actions = fleet.later(1_000).fire(Timer::Restart, 1);
    assert_eq!(fleet.resume(), actions);
    fleet.ready(2);
    let actions = fleet.stop();
    assert_eq!(fleet.resume(), actions);
}

#[test]
fn a_record_that_was_stored_twice_counts_once() {
    // The rules before these counted it twice, and what was written under them still is.
    for (rules, generation) in [(2, 3), (supervisor_core::RULES, 2)] {
        let mut fleet = Fleet::with_mender(soul("mender", "v1"));
        fleet.elect_by(rules);
        let at = Timestamp::from_millis(fleet.now);
        let spec = Box::new(soul("mender", "v2"));
        let event = ControlEvent::AgentApplied { spec, force: true, asked: None };
        let id = Some("run.1".to_owned());
        let record = ControlRecord { id, at, term: None, author: "cli".into(), event };
        let mut state = fleet.state;
        for _ in 0..2 {
            let seq = state.seq() + 1;
            step(&mut state, seq, at, &record);
        }
        let mender = state.agent(&mender()).expect("it is there");
        assert_eq!(mender.generation, generation, "rules {rules}");
    }
}

#[test]
fn another_archive_is_another_generation_where_all_that_may_lead_see_it() {
    let of = |bytes| {
        let sha256 = common::files::Sha256::of([7; 32]);
        let mut soul = soul("mender", "v1");
        soul.files = Some(common::files::Files { sha256, bytes });
        soul
    };
    for (rules, generation) in [(3, 1), (supervisor_core::RULES, 2)] {
        let mut fleet = Fleet::with_mender(of(1));
        fleet.elect_by(rules);
        fleet.apply(of(1));
        assert_eq!(fleet.mender().generation, 1);
        fleet.apply(of(2));
        assert_eq!(fleet.mender().generation, generation, "rules {rules}");
        let last = fleet.mender().specs().last().and_then(|spec| spec.files.clone());
        assert_eq!(last.map(|files| files.bytes), Some(1), "what runs is needed");
    }
}
