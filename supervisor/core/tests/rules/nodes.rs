//! Placement; nodes that are lost, go down, come back.

use common::api::AgentState;
use common::control::{ControlEvent, Timer};
use common::spec::{AgentSpec, Sanctum};
use supervisor_core::{Action, place};

use crate::fleet::{Fleet, NOTHING, agent_name, code, mender, node_name, soul, stop_first};

fn with_folder(mut spec: AgentSpec) -> AgentSpec {
    let (host, path) = ("/srv".into(), "/data".into());
    let sanctum = Sanctum { host, path, read_only: false, shared: true };
    spec.sanctums.push(sanctum);
    spec
}

#[test]
fn an_agent_goes_to_the_node_with_the_fewest_incarnations_that_can_run_it() {
    let mut fleet = Fleet::without_nodes();
    fleet.node_with("alpha", "process", &[]);
    fleet.node_with("beta", "process", &[("gpu", "yes")]);
    fleet.node_with("gamma", "docker", &[("gpu", "yes")]);
    for (agent, node) in [("a", "alpha"), ("b", "beta"), ("c", "gamma")] {
        assert_eq!(place(&fleet.state, &soul(agent, "v1")), Ok(node_name(node)));
        fleet.apply(soul(agent, "v1"));
    }
    let mut spec = soul("mender", "v1");
    spec.require.insert("gpu".into(), "yes".into());
    assert_eq!(place(&fleet.state, &spec), Ok(node_name("beta")));
    spec.image = Some("python:3".into());
    assert_eq!(place(&fleet.state, &spec), Ok(node_name("gamma")));
    spec.require.insert("zone".into(), "b".into());
    let why = "no node can run it: alpha and beta have no docker or podman that answers, \
               gamma has no label zone=b";
    assert_eq!(place(&fleet.state, &spec), Err(why.into()));
}

#[test]
fn an_engine_that_cannot_be_used_is_named_with_the_reason() {
    let mut fleet = Fleet::without_nodes();
    fleet.node_with("alpha", "docker: network x not found", &[]);
    let mut spec = soul("mender", "v1");
    let why = "no node can run it: alpha cannot use docker: network x not found";
    assert_eq!(place(&fleet.state, &spec), Err(why.into()));
    spec.image = Some("python:3".into());
    assert_eq!(place(&fleet.state, &spec), Err(why.into()));
    // It says so when that has changed.
    fleet.node_with("alpha", "docker", &[]);
    assert_eq!(place(&fleet.state, &spec), Ok(node_name("alpha")));
}

#[test]
fn a_node_on_which_a_start_just_failed_is_the_last_choice_for_that_agent() {
    let mut fleet = Fleet::new();
    fleet.node("beta");
    fleet.apply(soul("other", "v1"));
    // `beta` is the emptiest, and fails.
    assert_eq!(fleet.apply(soul("mender", "v1"))[0], "start mender.1 g1 on beta");
    fleet.start_failed(1, "no image");
    assert_eq!(fleet.later(1_000).fire(Timer::Restart, 1)[0], "start mender.2 g1 on alpha");
    // So does one on which it did not become ready, or ended before that.
    fleet.exited(2, code(1));
    fleet.node("gamma");
    assert_eq!(fleet.later(2_200).fire(Timer::Restart, 2)[0], "start mender.3 g1 on gamma");
    fleet.later(60_000).fire(Timer::Ready, 3);
    // It failed everywhere: then the emptiest it is again.
    assert_eq!(fleet.later(5_000).fire(Timer::Restart, 3)[0], "start mender.4 g1 on beta");
    // Another agent goes by the numbers.
    assert_eq!(place(&fleet.state, &soul("third", "v1")), Ok(node_name("alpha")));
}

#[test]
fn a_node_that_fails_everybody_gets_nobody_until_it_has_a_success() {
    let mut fleet = Fleet::new();
    let name = |index: usize| format!("a{index}");
    for index in 0..4 {
        fleet.apply(soul(&name(index), "v1"));
    }
    fleet.node("beta");
    // The emptiest; and it stays so, since it fails.
    for index in 4..6 {
        assert_eq!(place(&fleet.state, &soul(&name(index), "v1")), Ok(node_name("beta")));
        fleet.apply(soul(&name(index), "v1"));
        fleet.start_failed_of(&name(index), 1);
    }
    assert_eq!(place(&fleet.state, &soul("a7", "v1")), Ok(node_name("alpha")), "a black hole");
    // Where nobody else can take one, it is tried nevertheless.
    fleet.drain("alpha");
    assert_eq!(place(&fleet.state, &soul("a7", "v1")), Ok(node_name("beta")));
    fleet.apply(soul("a7", "v1"));
    fleet.node("alpha");
    fleet.ready_of("a7", 1);
    assert_eq!(place(&fleet.state, &soul("a8", "v1")), Ok(node_name("beta")), "a success");
    assert_eq!(place(&fleet.state, &soul("a4", "v1")), Ok(node_name("alpha")), "it failed there");
    fleet.later(600_000).stable(1);
    assert_eq!(place(&fleet.state, &soul("a4", "v1")), Ok(node_name("beta")), "long ago");
}

#[test]
fn a_node_that_was_started_anew_is_tried_again() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("other", "v1"));
    fleet.node("beta");
    fleet.apply(soul("mender", "v1"));
    fleet.start_failed(1, "no image");
    assert_eq!(place(&fleet.state, &soul("mender", "v1")), Ok(node_name("alpha")));
    fleet.node_of("beta", 2);
    assert_eq!(place(&fleet.state, &soul("mender", "v1")), Ok(node_name("beta")));
}

#[test]
fn the_rules_before_count_no_failures_and_take_nothing_up_again() {
    let mut fleet = Fleet::without_nodes();
    fleet.elect_by(supervisor_core::OLDEST_RULES);
    fleet.node("alpha");
    fleet.apply(soul("other", "v1"));
    fleet.node("beta");
    fleet.apply(soul("mender", "v1"));
    fleet.start_failed(1, "no image");
    assert_eq!(place(&fleet.state, &soul("mender", "v1")), Ok(node_name("beta")));
    fleet.later(1_000).fire(Timer::Restart, 1);
    fleet.ready(2);
    fleet.drain("alpha");
    fleet.lose("beta");
    let up = fleet.node("beta");
    assert_eq!(up[0], "start mender.3 g1 on beta");
    assert_eq!(fleet.returned(2, "beta"), NOTHING);
    assert_eq!(fleet.current(), 3);
}

#[test]
fn what_comes_back_with_its_node_goes_on_if_nothing_has_taken_its_place() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.lose("alpha");
    assert_eq!(fleet.returned(1, "alpha"), NOTHING, "its node is not there");
    assert_eq!(fleet.agent_state(), AgentState::Error);
    // As the log has it when a node returns: it is seen, and what runs there is found, before a place is found for another.
    let term = Some(fleet.term);
    fleet.fold(term, seen("alpha"));
    assert_eq!(fleet.returned(1, "alpha"), NOTHING);
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Running, 1));
    assert_eq!((fleet.reason(), fleet.mender().restart_count), ("", 0));
    assert_eq!(fleet.state.node(&node_name("alpha")).map(|node| node.incarnations), Some(1));
    // The place that was found meanwhile comes too late.
    let place = ControlEvent::IncarnationAllocated {
        agent: mender(),
        incarnation: 2,
        generation: 1,
        node: node_name("alpha"),
    };
    assert_eq!(fleet.record(place), NOTHING);
    // Its consumer may be gone: it is admitted again like any other.
    assert!(fleet.mender().admit().is_some());
    // It is an incarnation like any other.
    assert_eq!(fleet.exited(1, code(1)), ["timer restart mender.1 +1000"]);
}

#[test]
fn what_comes_back_too_late_stays_gone() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.node("beta");
    fleet.lose("alpha");
    fleet.node("alpha");
    assert_eq!((fleet.returned(1, "alpha"), fleet.current()), (vec![], 2), "another one starts");
    fleet.ready(2);
    assert_eq!((fleet.returned(1, "alpha"), fleet.current()), (vec![], 2), "another one runs");
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.lose("alpha");
    fleet.stop();
    fleet.node("alpha");
    assert_eq!((fleet.returned(1, "alpha"), fleet.current()), (vec![], 0), "it was stopped");
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.lose("alpha");
    fleet.apply(soul("mender", "v2"));
    let term = Some(fleet.term);
    fleet.fold(term, seen("alpha"));
    assert_eq!((fleet.returned(1, "alpha"), fleet.current()), (vec![], 0), "a newer one is wanted");
}

fn seen(node: &str) -> ControlEvent {
    ControlEvent::NodeSeen {
        node: node_name(node),
        instance: 1,
        runtimes: vec!["process".into()],
        labels: Vec::new(),
        capacity: common::Capacity::default(),
    }
}

#[test]
fn a_start_without_a_place_goes_where_it_can_when_the_nodes_change() {
    let mut fleet = Fleet::new();
    let spec = Box::new(soul("mender", "v1"));
    fleet.fold(None, ControlEvent::AgentApplied { spec, force: false, asked: None });
    assert_eq!(fleet.agent_state(), AgentState::Starting);
    // The only node goes away before the leader has found a place.
    assert_eq!(fleet.lose("alpha"), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert_eq!(fleet.node("beta")[0], "start mender.1 g1 on beta");
    // The same of one that is to start beside another.
    fleet.ready(1);
    fleet.node("gamma");
    let spec = Box::new(soul("mender", "v2"));
    fleet.fold(None, ControlEvent::AgentApplied { spec, force: false, asked: None });
    let asked = Action::Allocate { agent: mender() };
    let term = Some(fleet.term);
    let lost = ControlEvent::NodeLost { node: node_name("gamma") };
    assert_eq!(fleet.fold(term, lost), std::slice::from_ref(&asked));
    // And the one beside which it was to start ends: it is to start as the only one, without a delay.
    let exited = ControlEvent::IncarnationExited {
        agent: mender(),
        incarnation: 1,
        exit: code(1),
        clean: true,
    };
    assert_eq!(fleet.fold(term, exited), [asked]);
    assert_eq!(
        (fleet.agent_state(), fleet.reason()),
        (AgentState::Starting, "worker: exit code 1")
    );
    // Nobody wants it any more.
    fleet.stop();
    assert_eq!(supervisor_core::allocate(&fleet.state, &mender()), None);
    assert_eq!(fleet.resume(), NOTHING);
}

#[test]
fn without_a_node_it_waits_with_the_reason_until_one_is_seen() {
    let mut fleet = Fleet::without_nodes();
    assert_eq!(fleet.apply(soul("mender", "v1")), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert_eq!(fleet.reason(), "no node can run it: there are no nodes");
    assert_eq!(fleet.node_with("beta", "wasm", &[]), NOTHING);
    assert_eq!(fleet.reason(), "no node can run it: beta has no runtime that answers");
    let expected = ["start mender.1 g1 on alpha", "timer ready mender.1 +60000"];
    assert_eq!(fleet.node("alpha"), expected);
}

#[test]
fn agents_of_a_lost_node_start_elsewhere_at_once() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.node("beta");
    let actions = fleet.lose("alpha");
    assert_eq!(actions, ["start mender.2 g1 on beta", "timer ready mender.2 +60000"]);
    assert_eq!((fleet.reason(), fleet.mender().restart_count), ("node alpha lost", 0));
    // What it says when it returns comes too late.
    assert_eq!(fleet.exited(1, code(0)), NOTHING);
    assert_eq!(fleet.ready(2), ["cancel ready mender.2", "admit mender.2 from 14 after 1"]);
}

#[test]
fn agents_of_the_only_node_wait_for_it() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.lose("alpha"), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert_eq!(fleet.reason(), "node alpha lost; no node can run it: alpha is lost");
    assert_eq!(fleet.lose("alpha"), NOTHING);
    let expected = ["start mender.2 g1 on alpha", "timer ready mender.2 +60000"];
    assert_eq!(fleet.node("alpha"), expected);
}

#[test]
fn a_stopped_agent_on_a_lost_node_is_stopped() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.stop();
    assert_eq!(fleet.lose("alpha"), ["cancel drain mender.1"]);
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Stopped, 0));
    fleet.remove();
    assert!(fleet.state.agent(&mender()).is_none());
}

#[test]
fn a_removed_agent_on_a_lost_node_is_gone() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.remove();
    fleet.lose("alpha");
    assert!(fleet.state.agent(&mender()).is_none());
}

#[test]
fn a_replacement_on_a_lost_node_is_tried_elsewhere() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.node("beta");
    fleet.apply(soul("mender", "v2"));
    assert_eq!(fleet.mender().next.as_ref().map(|one| &one.node), Some(&node_name("beta")));
    let expected = [
        "cancel ready mender.2",
        "start mender.3 g2 on alpha beside",
        "timer ready mender.3 +60000",
    ];
    assert_eq!(fleet.lose("beta"), expected);
}

#[test]
fn the_old_one_on_a_lost_node_gives_way_to_the_one_that_is_ready() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.node("beta");
    fleet.apply(soul("mender", "v2"));
    fleet.ready(2);
    let expected = ["cancel drain mender.1", "admit mender.2 from 14 after 1"];
    assert_eq!(fleet.lose("alpha"), expected);
}

#[test]
fn both_on_a_lost_node_are_gone() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.apply(soul("mender", "v2"));
    assert_eq!(fleet.lose("alpha"), ["cancel ready mender.2"]);
    let expected = ["start mender.3 g2 on alpha", "timer ready mender.3 +60000"];
    assert_eq!(fleet.node("alpha"), expected);
}

#[test]
fn a_replacement_that_finds_no_node_waits_while_the_old_one_runs() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let mut spec = soul("mender", "v2");
    spec.require.insert("gpu".into(), "yes".into());
    assert_eq!(fleet.apply(spec), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Running);
    let reason = "generation 2 waits: no node can run it: alpha has no label gpu=yes; \
                  generation 1 keeps running";
    assert_eq!(fleet.reason(), reason);
    let expected = ["start mender.2 g2 on beta beside", "timer ready mender.2 +60000"];
    assert_eq!(fleet.node_with("beta", "process", &[("gpu", "yes")]), expected);
    assert_eq!(fleet.reason(), "");
}

#[test]
fn a_node_that_goes_down_makes_no_crash_and_its_agents_start_elsewhere() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.drain("alpha"), NOTHING);
    fleet.node("beta");
    let expected = ["start mender.2 g1 on beta", "timer ready mender.2 +60000"];
    assert_eq!(fleet.exited(1, code(0)), expected);
    assert_eq!((fleet.reason(), fleet.mender().restart_count), ("node alpha is shutting down", 0));
}

#[test]
fn the_only_node_going_down_takes_its_agents_along_when_it_comes_back() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.drain("alpha");
    assert_eq!(fleet.exited(1, code(0)), NOTHING);
    let reason = "node alpha is shutting down; no node can run it: alpha is draining";
    assert_eq!(fleet.reason(), reason);
    let expected = ["start mender.2 g1 on alpha", "timer ready mender.2 +60000"];
    assert_eq!(fleet.node("alpha"), expected);
    assert_eq!(fleet.mender().restart_count, 0);
}

#[test]
fn an_agent_with_folders_returns_to_them() {
    let mut fleet = Fleet::with_mender(with_folder(soul("mender", "v1")));
    fleet.node("beta");
    fleet.apply(stop_first(soul("other", "v1")));
    assert_eq!(
        fleet.state.agent(&agent_name("other")).and_then(|one| one.home.clone()),
        Some(node_name("beta"))
    );
    fleet.apply(soul("third", "v1"));
    fleet.restart();
    let actions = fleet.exited(1, code(0));
    assert_eq!(actions[1], "start mender.2 g1 on alpha");
}

#[test]
fn a_known_node_that_is_seen_again_changes_nothing_for_what_it_runs() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.node("alpha"), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Running);
    assert_eq!(fleet.state.node(&node_name("alpha")).map(|node| node.incarnations), Some(1));
}
