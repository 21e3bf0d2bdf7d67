//! Leadership: the newest term decides; what came before is read, not obeyed.

use common::Timestamp;
use common::control::{ControlEvent, ControlRecord, Timer};
use supervisor_core::{State, step};

use crate::fleet::{Fleet, NOTHING, code, mender, soul};

#[test]
fn the_newest_term_wins() {
    let mut fleet = Fleet::new();
    fleet.elect(5);
    assert_eq!((fleet.state.term(), fleet.state.leader()), (5, Some("supervisor-5")));
    fleet.elect(4);
    assert_eq!((fleet.state.term(), fleet.state.leader()), (5, Some("supervisor-5")));
}

#[test]
fn a_deposed_leader_writes_but_does_not_decide() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.elect(2);
    let before = fleet.state.clone();
    let exited = ControlEvent::IncarnationExited {
        agent: mender(),
        incarnation: 1,
        exit: code(1),
        clean: true,
    };
    let lost = ControlEvent::NodeLost { node: crate::fleet::node_name("alpha") };
    for event in [exited, lost] {
        for term in [None, Some(1), Some(3)] {
            assert_eq!(fleet.record_of(term, event.clone()), NOTHING);
        }
    }
    assert!(before.agents().eq(fleet.state.agents()));
    assert!(before.nodes().eq(fleet.state.nodes()));
}

#[test]
fn what_people_want_needs_no_term() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.elect(2);
    assert_eq!(fleet.stop().len(), 2);
}

#[test]
fn a_record_that_was_folded_already_changes_nothing() {
    let event =
        ControlEvent::AgentApplied { spec: Box::new(soul("a", "v1")), force: true, asked: None };
    let at = Timestamp::from_millis(1);
    let record = ControlRecord { at, term: None, author: "cli".into(), event };
    let mut state = State::default();
    step(&mut state, 7, &record);
    let once = state.clone();
    assert_eq!(step(&mut state, 7, &record), []);
    assert_eq!(step(&mut state, 3, &record), []);
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
