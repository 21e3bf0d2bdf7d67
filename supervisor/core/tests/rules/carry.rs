//! Moves that take the SANCTUM along.

use common::api::AgentState;
use common::control::ControlEvent;
use common::spec::Sanctum;
use supervisor_core::{CarryEnd, State, explain};

use crate::fleet::{Fleet, NOTHING, code, mender, node_name, soul};

/// `mender` runs on `alpha` and has its SANCTUM there; `beta` is there, too.
fn pinned() -> Fleet {
    let mut spec = soul("mender", "v1");
    let (host, path) = ("/srv/data".into(), "/data".into());
    spec.sanctums.push(Sanctum { host, path, read_only: false, shared: false });
    let mut fleet = Fleet::with_mender(spec);
    fleet.node("beta");
    fleet
}

impl Fleet {
    /// The number of the last copy.
    fn copy(&self) -> u64 {
        self.mender().carry.as_ref().map_or(0, |carry| carry.copy)
    }

    fn moved(&mut self, copy: u64) -> Vec<String> {
        let copied = vec!["/srv/data".into()];
        self.record(ControlEvent::SanctumMoved { agent: mender(), copy, copied })
    }

    fn not_moved(&mut self, copy: u64) -> Vec<String> {
        let reason = "full".into();
        self.record(ControlEvent::SanctumNotMoved { agent: mender(), copy, reason })
    }

    fn open(&self) -> usize {
        State::carrying(&self.state).count()
    }

    /// It runs on a node, and nowhere else.
    fn runs_on(&mut self, number: u64, node: &str) {
        self.ready(number);
        let one = self.mender().current.clone().expect("it runs");
        assert_eq!((one.number, one.node), (number, node_name(node)));
        assert_eq!(self.mender().pin, Some(node_name(node)));
        assert_eq!(self.agent_state(), AgentState::Running);
    }
}

#[test]
fn it_is_stopped_first_and_started_where_its_sanctum_is_once_that_is_there() {
    let mut fleet = pinned();
    assert_eq!(fleet.move_to("beta")[0], "stop mender.1 within 30000");
    let copy = fleet.copy();
    assert_eq!(fleet.moved(copy), NOTHING, "it still runs");
    assert!(!fleet.exited(1, code(0)).iter().any(|line| line.starts_with("start")));
    assert_eq!(fleet.agent_state(), AgentState::Starting);
    assert_eq!(fleet.reason(), "its SANCTUM is being moved from alpha to beta");
    // Whatever happens meanwhile starts nothing.
    for event in [
        ControlEvent::AgentRestarted { agent: mender() },
        ControlEvent::AgentReplaced { agent: mender() },
        ControlEvent::AgentStarted { agent: mender() },
        ControlEvent::AgentMoved { agent: mender(), to: node_name("beta") },
    ] {
        assert_eq!(fleet.record(event), NOTHING);
    }
    assert_eq!(fleet.node("gamma"), NOTHING);
    assert_eq!(fleet.force(fleet.mender().spec.clone()), NOTHING);
    assert_eq!(fleet.returned(1, "alpha"), NOTHING);
    assert_eq!(fleet.moved(copy + 1), NOTHING, "of another copy");
    assert_eq!((fleet.open(), fleet.current()), (1, 0));
    assert_eq!(fleet.moved(copy)[0], "start mender.2 g2 on beta");
    assert_eq!(fleet.moved(copy), NOTHING, "once");
    assert_eq!(fleet.not_moved(copy), NOTHING, "too late");
    fleet.runs_on(2, "beta");
    assert_eq!(fleet.returned(1, "alpha"), NOTHING);
    // What is left is renamed.
    assert_eq!(fleet.open(), 1);
    let folders = vec!["/srv/data.moved".into()];
    fleet.record(ControlEvent::SanctumKept { agent: mender(), copy, folders });
    assert_eq!(fleet.open(), 0);
    let lines = explain(&fleet.state, &mender()).join(" ");
    assert!(lines.contains("alpha keeps the previous copy as /srv/data.moved"), "{lines}");
    // And it stays there.
    fleet.lose("beta");
    assert!(fleet.reason().starts_with("waits for node beta, which is away"), "{}", fleet.reason());
}

#[test]
fn a_copy_that_is_given_up_leaves_it_where_it_was() {
    // Somebody could not copy it, a node is lost, somebody wants it back.
    type Ends = fn(&mut Fleet) -> Vec<String>;
    let ends: [(Ends, &str); 3] = [
        (|fleet| fleet.not_moved(fleet.copy()), "full"),
        (|fleet| fleet.lose("beta"), "node beta is lost"),
        (|fleet| fleet.move_to("alpha"), "a move to alpha was requested"),
    ];
    for (end, why) in ends {
        let mut fleet = pinned();
        fleet.move_to("beta");
        fleet.exited(1, code(0));
        let copy = fleet.copy();
        assert_eq!(end(&mut fleet)[0], "start mender.2 g1 on alpha", "{why}");
        let failed = Some(CarryEnd::Failed { reason: why.to_owned() });
        assert_eq!(fleet.mender().carry.as_ref().and_then(|carry| carry.end.clone()), failed);
        assert_eq!(fleet.moved(copy), NOTHING, "too late");
        assert_eq!(fleet.open(), 0);
        fleet.runs_on(2, "alpha");
    }
    // The node that has it: it waits for that.
    let mut fleet = pinned();
    fleet.move_to("beta");
    fleet.exited(1, code(0));
    fleet.lose("alpha");
    assert!(fleet.reason().starts_with("waits for node alpha"), "{}", fleet.reason());
    assert_eq!(fleet.node("alpha")[0], "start mender.2 g1 on alpha");
}

#[test]
fn a_node_that_could_not_start_it_any_more_does_not_get_it() {
    let mut fleet = pinned();
    fleet.move_to("beta");
    fleet.exited(1, code(0));
    fleet.record(ControlEvent::NodeDrained { node: node_name("beta"), parallel: 1 });
    let copy = fleet.copy();
    assert_eq!(fleet.moved(copy)[0], "start mender.2 g1 on alpha");
    fleet.runs_on(2, "alpha");
    // And is not even asked for it.
    assert_eq!(fleet.move_to("beta"), NOTHING);
    assert_eq!(fleet.reason(), "not moved to beta: beta is drained");
    assert_eq!((fleet.open(), fleet.copy()), (0, copy));
}

#[test]
fn one_that_is_stopped_moves_and_stays_stopped_and_one_that_is_removed_does_not_move() {
    let mut fleet = pinned();
    fleet.stop();
    fleet.exited(1, code(0));
    assert_eq!(fleet.move_to("beta"), NOTHING);
    let copy = fleet.copy();
    assert_eq!(fleet.moved(copy), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Stopped);
    assert_eq!(fleet.start()[0], "start mender.2 g1 on beta");
    fleet.runs_on(2, "beta");
    fleet.move_to("alpha");
    fleet.remove();
    fleet.exited(2, code(0));
    assert_eq!(fleet.open(), 0);
    let copy = fleet.seq;
    assert_eq!(fleet.moved(copy), NOTHING);
    let pin = fleet.state.tombstone(&mender()).and_then(|buried| buried.pin.clone());
    assert_eq!(pin, Some(node_name("beta")));
}

#[test]
fn by_the_rules_before_nothing_is_copied() {
    let mut fleet = pinned();
    fleet.elect_by(4);
    fleet.move_to("beta");
    assert_eq!((fleet.copy(), fleet.open()), (0, 0));
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Running, 1));
}
