//! A new generation that never becomes ready gives way to the last one that was.

use common::api::AgentState;
use common::control::{ControlEvent, Timer};
use common::spec::{AgentSpec, RestartPolicy};
use supervisor_core::{Hold, State, explain};

use crate::fleet::{Fleet, NOTHING, code, mender, signal, soul, stop_first};

fn v(identity: &str) -> AgentSpec {
    stop_first(soul("mender", identity))
}

/// Generation 1 has stopped, and incarnation 2 of generation 2 starts in its place.
fn replaced() -> Fleet {
    let mut fleet = Fleet::with_mender(v("v1"));
    fleet.apply(v("v2"));
    let actions = fleet.exited(1, code(0));
    assert_eq!(actions[1..], ["start mender.2 g2 on alpha", "timer ready mender.2 +60000"]);
    fleet
}

/// The newest generation, the one to run, and what an explicit rollback leads to.
fn generations(fleet: &Fleet) -> (u64, u64, Option<u64>) {
    let mender = fleet.mender();
    (mender.generation, mender.target, mender.last_good().map(|(generation, _)| generation))
}

#[test]
fn with_stop_first_a_generation_that_is_never_ready_gives_way_at_once() {
    let old_again = ["start mender.3 g1 on alpha", "timer ready mender.3 +60000"];
    type End = fn(&mut Fleet) -> Vec<String>;
    let ends: [(&str, End); 4] = [
        ("exit code 1", |fleet| fleet.exited(2, code(1))),
        ("exit code 0", |fleet| fleet.exited(2, code(0))),
        ("exit code 137 (signal 9)", |fleet| fleet.exited(2, signal(9))),
        ("no program `pyhton3`", |fleet| fleet.start_failed(2, "no program `pyhton3`")),
    ];
    for (why, end) in ends {
        let mut fleet = replaced();
        let actions = end(&mut fleet);
        assert_eq!(actions, ["cancel ready mender.2", old_again[0], old_again[1]], "{why}");
        let reason = format!("generation 2 not ready: {why}; generation 1 runs again");
        assert_eq!(fleet.reason(), reason);
        assert_eq!(generations(&fleet), (2, 1, None));
        fleet.ready(3);
        assert_eq!((fleet.agent_state(), fleet.reason()), (AgentState::Running, reason.as_str()));
        assert_eq!((fleet.next_try(), fleet.mender().restart_count), (None, 0), "it is no crash");
        let last = fleet.mender().last_exit.as_ref().map(common::shim::Exit::describe);
        assert_eq!(last.as_deref(), Some(why));
    }
}

#[test]
fn with_stop_first_one_that_is_not_ready_in_time_ends_before_the_old_one_starts() {
    let mut fleet = replaced();
    let expected =
        ["cancel ready mender.2", "stop mender.2 within 0", "timer drain mender.2 +5000"];
    assert_eq!(fleet.later(60_000).fire(Timer::Ready, 2), expected);
    let reason = "generation 2 not ready: not ready within 60s; generation 1 runs again";
    assert_eq!((fleet.agent_state(), fleet.reason()), (AgentState::Starting, reason));
    assert_eq!(fleet.ready(2), NOTHING);
    let expected =
        ["cancel drain mender.2", "start mender.3 g1 on alpha", "timer ready mender.3 +60000"];
    assert_eq!(fleet.exited(2, signal(9)), expected);
    assert_eq!(fleet.reason(), reason);
}

#[test]
fn a_restart_policy_does_not_keep_the_old_one_from_coming_back() {
    for policy in [RestartPolicy::Never, RestartPolicy::OnFailure] {
        let mut fleet = Fleet::with_mender(v("v1"));
        let mut next = v("v2");
        next.restart.policy = policy;
        fleet.apply(next);
        fleet.exited(1, code(0));
        assert_eq!(fleet.exited(2, code(0))[1], "start mender.3 g1 on alpha", "{policy:?}");
    }
}

#[test]
fn what_the_node_did_is_not_the_generations_fault() {
    let mut fleet = replaced();
    fleet.node("beta");
    assert_eq!(fleet.lose("alpha")[1], "start mender.3 g2 on beta");
    fleet.node("gamma");
    fleet.drain("beta");
    assert_eq!(fleet.exited(3, code(1))[1], "start mender.4 g2 on gamma");
    assert_eq!(generations(&fleet), (2, 2, Some(1)));
    // But no incarnation of it was ready, so the next end is.
    assert_eq!(fleet.exited(4, code(1))[1], "start mender.5 g1 on gamma");
}

#[test]
fn a_generation_that_was_ready_once_restarts_and_is_never_rolled_back() {
    let mut fleet = replaced();
    fleet.ready(2);
    assert_eq!(fleet.exited(2, code(1)), ["timer restart mender.2 +1000"]);
    fleet.later(1_000).fire(Timer::Restart, 2);
    assert_eq!(fleet.exited(3, code(1))[1][..24], *"timer restart mender.3 +");
    assert_eq!(generations(&fleet), (2, 2, Some(1)));
    let hint = "Generation 1 was ready before: `mozart replace mender --rollback` goes back to it.";
    assert!(explain(&fleet.state, &mender()).iter().any(|line| line == hint));
}

#[test]
fn the_first_generation_has_nothing_to_go_back_to() {
    let mut fleet = Fleet::new();
    fleet.apply(v("v1"));
    assert_eq!(fleet.exited(1, code(1))[1], "timer restart mender.1 +1000");
    // Neither has the second, if the first was never ready.
    fleet.apply(v("v2"));
    assert_eq!(fleet.exited(2, code(1))[1], "timer restart mender.2 +1000");
    assert_eq!(generations(&fleet), (2, 2, None));
}

#[test]
fn what_ends_because_it_was_told_to_is_not_rolled_back() {
    let mut fleet = replaced();
    fleet.restart();
    assert_eq!(fleet.exited(2, code(143))[1], "start mender.3 g2 on alpha");
    fleet.stop();
    assert_eq!(fleet.exited(3, code(143)), ["cancel drain mender.3"]);
    assert_eq!(generations(&fleet), (2, 2, Some(1)));
}

#[test]
fn with_start_first_the_same_holds_while_the_old_one_waits_after_a_crash() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.exited(1, code(1));
    fleet.apply(soul("mender", "v2"));
    let expected =
        ["cancel ready mender.2", "start mender.3 g1 on alpha", "timer ready mender.3 +60000"];
    assert_eq!(fleet.exited(2, code(3)), expected);
    assert_eq!(fleet.reason(), "generation 2 not ready: exit code 3; generation 1 runs again");
    // The old one was ready once: it restarts as ever.
    assert_eq!(fleet.exited(3, code(1))[1], "timer restart mender.3 +1000");
}

#[test]
fn with_start_first_the_same_holds_while_the_old_one_starts_again() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.exited(1, code(1));
    fleet.later(1_000).fire(Timer::Restart, 1);
    let actions = fleet.apply(soul("mender", "v2"));
    assert_eq!(actions[3], "start mender.3 g2 on alpha");
    assert_eq!(fleet.exited(3, code(1))[1], "start mender.4 g1 on alpha");
}

#[test]
fn with_start_first_the_same_holds_when_the_old_one_ends_meanwhile() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.apply(soul("mender", "v2"));
    assert_eq!(fleet.exited(1, code(1)), NOTHING);
    assert_eq!(fleet.exited(2, code(1))[1], "start mender.3 g1 on alpha");
    assert_eq!(fleet.reason(), "generation 2 not ready: exit code 1; generation 1 runs again");
}

#[test]
fn after_a_rollback_replace_tries_the_newest_again_and_comes_back_again() {
    let mut fleet = replaced();
    fleet.exited(2, code(1));
    fleet.ready(3);
    assert_eq!(fleet.replace(), ["stop mender.3 within 30000", "timer drain mender.3 +35000"]);
    assert_eq!(fleet.exited(3, code(0))[1], "start mender.4 g2 on alpha");
    assert_eq!(fleet.exited(4, code(1))[1], "start mender.5 g1 on alpha");
    fleet.ready(5);
    fleet.replace();
    fleet.exited(5, code(0));
    fleet.ready(6);
    assert_eq!((generations(&fleet), fleet.reason()), ((2, 2, Some(1)), ""));
}

#[test]
fn the_last_two_good_generations_are_kept_and_no_more() {
    let mut fleet = Fleet::with_mender(v("v1"));
    let mut incarnation = 1;
    let mut next = |fleet: &mut Fleet, identity: &str, ready: bool| {
        fleet.force(v(identity));
        fleet.exited(incarnation, code(0));
        incarnation += 1;
        if ready {
            fleet.ready(incarnation);
        } else {
            fleet.exited(incarnation, code(1));
            incarnation += 1;
            fleet.ready(incarnation);
        }
    };
    next(&mut fleet, "v2", true);
    assert_eq!(generations(&fleet), (2, 2, Some(1)));
    next(&mut fleet, "v3", true);
    assert_eq!(generations(&fleet), (3, 3, Some(2)));
    next(&mut fleet, "bad", false);
    assert_eq!(generations(&fleet), (4, 3, Some(2)));
    assert_eq!(fleet.mender().older.keys().copied().collect::<Vec<_>>(), [2, 3]);
    // One that repeats the one before is no other one to go back to.
    next(&mut fleet, "v3", true);
    assert_eq!(generations(&fleet), (5, 5, Some(2)));
    // Back to the second, and from there to the third.
    next(&mut fleet, "v2", true);
    assert_eq!(generations(&fleet), (6, 6, Some(5)));
}

#[test]
fn a_removal_forgets_what_was_good() {
    let mut fleet = Fleet::with_mender(v("v1"));
    fleet.remove();
    fleet.apply(v("v2"));
    fleet.exited(1, code(0));
    assert_eq!(fleet.exited(2, code(1))[1], "timer restart mender.2 +1000");
    assert_eq!(generations(&fleet), (2, 2, None));
}

#[test]
fn a_snapshot_that_knows_no_good_generations_is_read() {
    let fleet = replaced();
    let mut json = serde_json::to_value(&fleet.state).expect("a state is plain");
    let good = json["agents"]["mender"].as_object_mut().and_then(|agent| agent.remove("good"));
    assert_eq!(good, Some(serde_json::json!([1])));
    let state: State = serde_json::from_value(json).expect("readable");
    assert_eq!(state.agent(&mender()).and_then(supervisor_core::Agent::last_good), None);
}

fn on_gpu(mut spec: AgentSpec) -> AgentSpec {
    spec.require.insert("gpu".into(), "yes".into());
    spec
}

#[test]
fn with_stop_first_nothing_is_stopped_for_a_generation_that_no_node_can_run() {
    let mut fleet = Fleet::with_mender(v("v1"));
    assert_eq!(fleet.apply(on_gpu(v("v2"))), NOTHING);
    let reason = "generation 2 waits: no node can run it: alpha has no label gpu=yes; \
                  generation 1 keeps running";
    assert_eq!((fleet.agent_state(), fleet.reason()), (AgentState::Running, reason));
    // Whatever node is seen, it is looked at anew.
    assert_eq!(fleet.node("beta"), NOTHING);
    let expected = ["stop mender.1 within 30000", "timer drain mender.1 +35000"];
    assert_eq!(fleet.node_with("gamma", "process", &[("gpu", "yes")]), expected);
    assert_eq!(fleet.exited(1, code(0))[1], "start mender.2 g2 on gamma");
}

#[test]
fn while_a_new_generation_waits_for_a_node_the_last_good_one_runs() {
    for spec in [soul("mender", "v1"), v("v1")] {
        let mut fleet = Fleet::with_mender(spec.clone());
        fleet.apply(on_gpu(AgentSpec { identity: "v2".into(), ..spec }));
        assert_eq!(fleet.exited(1, code(1)), ["timer restart mender.1 +1000"]);
        let again = ["start mender.2 g1 on alpha", "timer ready mender.2 +60000"];
        assert_eq!(fleet.later(1_000).fire(Timer::Restart, 1), again);
        let reason = "worker: exit code 1; generation 2 waits: no node can run it: \
                      alpha has no label gpu=yes; generation 1 runs";
        assert_eq!(fleet.reason(), reason);
        assert_eq!(fleet.node("beta"), NOTHING, "it is not started anew for nothing");
        fleet.ready(2);
        assert_eq!(fleet.agent_state(), AgentState::Running);
        assert!(fleet.reason().ends_with("generation 1 keeps running"), "{}", fleet.reason());
        assert!(!fleet.node_with("gamma", "process", &[("gpu", "yes")]).is_empty());
    }
}

#[test]
fn a_start_does_not_forget_that_the_newest_generation_waits() {
    let mut fleet = Fleet::with_mender(v("v1"));
    fleet.apply(on_gpu(v("v2")));
    fleet.exited(1, code(1));
    fleet.later(1_000).fire(Timer::Restart, 1);
    fleet.ready(2);
    fleet.stop();
    fleet.exited(2, code(0));
    // Nobody leads: what is asked for has no place yet.
    fleet.fold(None, ControlEvent::AgentRestarted { agent: mender() });
    assert!(fleet.mender().wanted.as_ref().is_some_and(|wanted| wanted.generation == 1));
    fleet.fold(None, ControlEvent::AgentStarted { agent: mender() });
    assert_eq!(fleet.mender().hold, Some(Hold::NoNode));
    let started = fleet.node_with("gamma", "process", &[("gpu", "yes")]);
    assert!(!started.is_empty(), "the newest one has a node");
}

#[test]
fn a_generation_that_was_ready_waits_for_its_node() {
    let mut fleet = Fleet::with_mender(v("v1"));
    fleet.node_with("beta", "process", &[("gpu", "yes")]);
    fleet.apply(on_gpu(v("v2")));
    fleet.exited(1, code(0));
    fleet.ready(2);
    assert_eq!(fleet.lose("beta"), NOTHING);
    assert_eq!((fleet.current(), fleet.agent_state()), (0, AgentState::Error));
}

#[test]
fn what_runs_meanwhile_starts_after_the_end_of_what_it_may_not_run_beside() {
    let mut fleet = Fleet::with_mender(v("v1"));
    fleet.exited(1, code(1));
    fleet.later(1_000).fire(Timer::Restart, 1);
    fleet.later(60_000).fire(Timer::Ready, 2);
    let actions = fleet.apply(on_gpu(soul("mender", "v2")));
    assert_eq!(actions, ["cancel restart mender.2"], "incarnation 2 is not gone yet");
    let expected =
        ["cancel drain mender.2", "start mender.3 g1 on alpha", "timer ready mender.3 +60000"];
    assert_eq!(fleet.exited(2, signal(9)), expected);
}
