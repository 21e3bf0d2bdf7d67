//! What nodes can take, and where folders are.

use common::api::AgentState;
use common::control::ControlEvent;
use common::snapshot::Logged;
use common::spec::{AgentSpec, Sanctum};
use supervisor_core::{Action, allocate, allocate_beside, explain, place, restore, snapshot};

use crate::fleet::{Fleet, NOTHING, code, mender, node_name, soul, stop_first};

const GIB: u64 = 1 << 30;

fn sized(mut spec: AgentSpec, memory: u64) -> AgentSpec {
    spec.limits.memory = Some(memory);
    spec
}

fn pinned(mut spec: AgentSpec) -> AgentSpec {
    let (host, path) = ("/srv".into(), "/data".into());
    spec.sanctums.push(Sanctum { host, path, read_only: false, shared: false });
    spec
}

#[test]
fn limits_count_against_what_a_node_can_take() {
    let mut fleet = Fleet::without_nodes();
    fleet.node_for("alpha", "memory=4g");
    fleet.node_for("beta", "memory=1g,agents=1");
    fleet.apply(sized(soul("a", "v1"), 3 * GIB + GIB / 2));
    let place = |fleet: &Fleet, memory| place(&fleet.state, &sized(soul("x", "v1"), memory));
    assert_eq!(place(&fleet, GIB), Ok(node_name("beta")));
    assert_eq!(place(&fleet, GIB / 2), Ok(node_name("beta")));
    fleet.apply(soul("b", "v1"));
    let why = "no node can run it: alpha has 512 MiB free of 4 GiB, 1 GiB is needed, \
               beta has its 1 agent";
    assert_eq!(place(&fleet, GIB), Err(why.to_owned()));
    // What has no LIMIT takes nothing but its place.
    assert_eq!(supervisor_core::place(&fleet.state, &soul("x", "v1")), Ok(node_name("alpha")));
}

#[test]
fn what_waits_for_room_starts_when_there_is_some() {
    let mut fleet = Fleet::without_nodes();
    fleet.node_for("alpha", "memory=4g");
    fleet.apply(sized(soul("a", "v1"), 3 * GIB));
    assert_eq!(fleet.apply(sized(soul("mender", "v1"), 2 * GIB)), NOTHING);
    let why = "no node can run it: alpha has 1 GiB free of 4 GiB, 2 GiB is needed";
    assert_eq!((fleet.agent_state(), fleet.reason()), (AgentState::Error, why));
    let lines = explain(&fleet.state, &mender()).join(" ");
    let said = "Placement: alpha has 1 GiB free of 4 GiB, 2 GiB is needed.";
    assert!(lines.contains(said), "{lines}");
    let gone = |agent: &str| ControlEvent::IncarnationExited {
        agent: agent.parse().expect("valid"),
        incarnation: 1,
        exit: code(0),
        clean: true,
    };
    fleet.record(ControlEvent::AgentStopped { agent: "a".parse().expect("valid") });
    let actions = fleet.record(gone("a"));
    assert!(actions.contains(&"start mender.1 g1 on alpha".to_owned()), "{actions:?}");
    // So does a node that can take more.
    fleet.apply(sized(soul("c", "v1"), 3 * GIB));
    assert_eq!(fleet.node_for("alpha", "memory=5g")[0], "start c.1 g1 on alpha");
}

#[test]
fn a_full_laptop_replaces_what_it_runs() {
    let mut fleet = Fleet::without_nodes();
    fleet.node_for("alpha", "memory=4g,agents=2");
    fleet.apply(sized(soul("a", "v1"), 2 * GIB));
    fleet.apply(sized(soul("mender", "v1"), 2 * GIB));
    fleet.ready(1);
    // The old one goes when the new one is ready: only the larger of them counts.
    assert_eq!(fleet.replace()[0], "start mender.2 g1 on alpha beside");
    assert_eq!(fleet.state.node(&node_name("alpha")).map(|node| node.load.memory), Some(4 * GIB));
    fleet.ready(2);
    fleet.drained(1);
    assert_eq!(
        fleet.apply(sized(soul("mender", "v2"), GIB))[0],
        "start mender.3 g2 on alpha beside"
    );
    // A larger one does not fit.
    fleet.apply(sized(soul("mender", "v3"), 3 * GIB));
    let why = "generation 3 waits: no node can run it: alpha has 2 GiB free of 4 GiB, 3 GiB is needed; \
               generation 1 keeps running";
    assert_eq!((fleet.agent_state(), fleet.reason()), (AgentState::Running, why));
}

#[test]
fn two_that_want_the_same_room_do_not_both_get_it() {
    let mut fleet = Fleet::without_nodes();
    fleet.node_for("alpha", "agents=1");
    let apply = |fleet: &mut Fleet, name| {
        let spec = Box::new(soul(name, "v1"));
        fleet.fold(None, ControlEvent::AgentApplied { spec, force: false, asked: None })
    };
    for name in ["a", "mender"] {
        let asked = Action::Allocate { agent: name.parse().expect("valid") };
        assert_eq!(apply(&mut fleet, name), [asked]);
    }
    // Both were given the same place before either is on record.
    let first = allocate(&fleet.state, &"a".parse().expect("valid")).expect("there is room");
    let second = allocate(&fleet.state, &mender()).expect("there is room");
    fleet.record(first);
    assert_eq!(fleet.record(second), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert_eq!(fleet.reason(), "no node can run it: alpha has its 1 agent");
}

#[test]
fn starts_that_are_due_at_once_are_spread() {
    let mut fleet = Fleet::new();
    fleet.node("beta");
    let spec = Box::new(soul("mender", "v1"));
    fleet.fold(None, ControlEvent::AgentApplied { spec, force: false, asked: None });
    let node = |given: &[&str]| {
        let of = |(index, node): (usize, &&str)| {
            (format!("a{index}").parse().expect("valid"), node_name(node))
        };
        match allocate_beside(&fleet.state, &mender(), &given.iter().enumerate().map(of).collect())
        {
            Some(ControlEvent::IncarnationAllocated { node, .. }) => node.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(node(&[]), "alpha");
    assert_eq!(node(&["alpha"]), "beta");
    assert_eq!(node(&["alpha", "beta"]), "alpha");
}

#[test]
fn what_an_earlier_build_wrote_is_counted_when_it_is_read() {
    let mut fleet = Fleet::without_nodes();
    fleet.node_for("alpha", "memory=4g");
    fleet.apply(sized(soul("a", "v1"), 3 * GIB));
    let (mut head, json) = snapshot(&fleet.state, &Logged::default()).expect("a state");
    let mut earlier: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    earlier["nodes"]["alpha"].as_object_mut().expect("an object").remove("load");
    let earlier = serde_json::to_vec(&earlier).expect("plain");
    head.format = 2;
    assert_eq!(restore(&head, &earlier), Ok(fleet.state));
}

#[test]
fn a_folder_that_is_written_to_pins_its_agent_once_it_was_ready() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("other", "v1"));
    fleet.node("beta");
    assert_eq!(fleet.apply(pinned(soul("mender", "v1")))[0], "start mender.1 g1 on beta");
    // Before it was ready it has written nothing that counts.
    fleet.lose("beta");
    assert_eq!(fleet.mender().pin, None);
    fleet.ready(2);
    assert_eq!(fleet.mender().pin, Some(node_name("alpha")));
    fleet.node("beta");
    fleet.lose("alpha");
    let at = fleet.state.at();
    let why =
        format!("waits for node alpha, which is away since {at}, because its SANCTUM is there");
    assert_eq!((fleet.agent_state(), fleet.reason()), (AgentState::Error, &*why));
    let lines = explain(&fleet.state, &mender()).join(" ");
    assert!(lines.contains("It runs only on alpha, because its SANCTUM is there."), "{lines}");
    let said = "Placement: alpha is lost; beta does not have its SANCTUM, which is on alpha.";
    assert!(lines.contains(said), "{lines}");
    assert_eq!(fleet.node("alpha")[0], "start mender.3 g1 on alpha");
}

#[test]
fn a_pin_outlives_generations_without_the_folder_and_the_removal() {
    let mut fleet = Fleet::with_mender(pinned(soul("mender", "v1")));
    fleet.node("beta");
    // Without the folder it may run anywhere; with it again, where that is.
    fleet.apply(soul("mender", "v2"));
    fleet.ready(2);
    fleet.exited(1, code(0));
    let on = |fleet: &Fleet| fleet.mender().current.as_ref().map(|one| one.node.clone());
    assert_eq!(on(&fleet), Some(node_name("beta")));
    let actions = fleet.apply(pinned(stop_first(soul("mender", "v3"))));
    assert_eq!(actions[0], "stop mender.2 within 30000");
    assert_eq!(fleet.exited(2, code(0))[1], "start mender.3 g3 on alpha");
    fleet.remove();
    fleet.exited(3, code(0));
    fleet.lose("alpha");
    assert_eq!(fleet.apply(pinned(soul("mender", "v1"))), NOTHING);
    assert!(
        fleet.reason().starts_with("waits for node alpha, which is away"),
        "{}",
        fleet.reason()
    );
}

#[test]
fn what_is_shared_or_only_read_pins_nothing() {
    let mut spec = pinned(soul("mender", "v1"));
    spec.sanctums[0].shared = true;
    let mut read = pinned(soul("mender", "v2"));
    read.sanctums[0].read_only = true;
    for spec in [spec, read] {
        let mut fleet = Fleet::with_mender(spec);
        fleet.node("beta");
        assert_eq!(fleet.mender().pin, None);
        assert_eq!(fleet.lose("alpha")[0], "start mender.2 g1 on beta");
    }
}

#[test]
fn a_pinned_agent_stays_on_a_drained_node_and_goes_on_when_that_was_only_out_of_sight() {
    let mut fleet = Fleet::with_mender(pinned(soul("mender", "v1")));
    fleet.node("beta");
    let drained = ControlEvent::NodeDrained { node: node_name("alpha"), parallel: 1 };
    assert_eq!(fleet.record(drained), NOTHING);
    let lines = explain(&fleet.state, &mender()).join(" ");
    assert!(
        lines.contains("It stays on alpha, which is drained: its SANCTUM is there."),
        "{lines}"
    );
    fleet.lose("alpha");
    fleet.node("alpha");
    let why = "waits for node alpha, which is drained, because its SANCTUM is there";
    assert_eq!(fleet.reason(), why);
    // No new incarnation, but the one that was there all the time.
    assert_eq!(fleet.returned(1, "alpha"), NOTHING);
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Running, 1));
    fleet.exited(1, code(1));
    fleet.later(1_000).fire(common::control::Timer::Restart, 1);
    assert_eq!(fleet.reason(), why);
    let undrained = ControlEvent::NodeUndrained { node: node_name("alpha") };
    assert_eq!(fleet.record(undrained)[0], "start mender.2 g1 on alpha");
}

#[test]
fn the_rules_before_know_neither_room_nor_pins_and_what_ran_by_them_is_pinned_where_it_was() {
    let mut fleet = Fleet::without_nodes();
    fleet.elect_by(3);
    fleet.node_for("alpha", "memory=1g");
    fleet.apply(pinned(sized(soul("mender", "v1"), 2 * GIB)));
    fleet.ready(1);
    fleet.node("beta");
    assert_eq!((fleet.agent_state(), fleet.mender().pin.clone()), (AgentState::Running, None));
    fleet.lose("alpha");
    fleet.ready(2);
    fleet.elect();
    assert_eq!(fleet.mender().pin, Some(node_name("beta")), "where it was started last");
    fleet.node("alpha");
    fleet.lose("beta");
    assert!(fleet.reason().starts_with("waits for node beta"), "{}", fleet.reason());
}
