//! One incarnation takes over from another.

use common::api::AgentState;
use common::control::Timer;

use crate::fleet::{Fleet, NOTHING, code, mender, signal, soul, stop_first};

/// Incarnation 1 of generation 1 runs, incarnation 2 of generation 2 starts beside it.
fn replacing() -> Fleet {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let actions = fleet.apply(soul("mender", "v2"));
    assert_eq!(actions, ["start mender.2 g2 on alpha beside", "timer ready mender.2 +60000"]);
    assert_eq!(fleet.agent_state(), AgentState::Running);
    fleet
}

/// As [`replacing`], and the new one is ready while the old one drains.
fn swapping() -> Fleet {
    let mut fleet = replacing();
    let expected =
        ["cancel ready mender.2", "stop mender.1 within 30000", "timer drain mender.1 +35000"];
    assert_eq!(fleet.ready(2), expected);
    assert_eq!(fleet.agent_state(), AgentState::Running);
    fleet
}

#[test]
fn start_first_admits_the_new_one_when_the_old_one_has_ended() {
    let mut fleet = swapping();
    let expected = ["cancel drain mender.1", "admit mender.2 from 14 after 1 clean"];
    assert_eq!(fleet.exited(1, code(0)), expected);
    assert_eq!(fleet.agent_state(), AgentState::Running);
    assert_eq!((fleet.current(), fleet.mender().restart_count), (2, 0));
    let older: Vec<_> = fleet.mender().older.keys().collect();
    assert_eq!(older, [&1], "the old spec is kept for a rollback");
}

#[test]
fn start_first_admits_the_new_one_as_soon_as_the_old_one_has_drained() {
    let mut fleet = swapping();
    assert_eq!(fleet.drained(2), NOTHING, "not that one");
    assert_eq!(fleet.drained(1), ["admit mender.2 from 14 after 1 clean"]);
    assert_eq!(fleet.drained(1), NOTHING, "once");
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Running, 2));
    // Its end changes nothing any more, whatever it was.
    assert_eq!(fleet.exited(1, signal(9)), ["cancel drain mender.1"]);
    assert_eq!((fleet.agent_state(), fleet.mender().restart_count), (AgentState::Running, 0));
}

#[test]
fn one_that_has_drained_and_that_nobody_follows_is_waited_for() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.stop();
    assert_eq!(fleet.drained(1), NOTHING);
    assert_eq!(fleet.exited(1, code(0)), ["cancel drain mender.1"]);
    assert_eq!(fleet.agent_state(), AgentState::Stopped);
}

#[test]
fn a_crash_of_the_old_one_while_the_new_one_is_ready_admits_it_at_once() {
    let mut fleet = swapping();
    let expected = ["cancel drain mender.1", "admit mender.2 from 14 after 1"];
    assert_eq!(fleet.exited(1, signal(9)), expected);
    assert_eq!(fleet.mender().restart_count, 0);
}

#[test]
fn a_crash_of_the_old_one_while_the_new_one_starts_leaves_the_new_one_alone() {
    let mut fleet = replacing();
    assert_eq!(fleet.exited(1, code(1)), NOTHING);
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Starting, 2));
    assert_eq!(fleet.reason(), "worker: exit code 1");
    assert_eq!(fleet.ready(2), ["cancel ready mender.2", "admit mender.2 from 14 after 1 clean"]);
    assert_eq!(fleet.mender().restart_count, 0);
}

#[test]
fn a_new_one_that_ends_is_rolled_back() {
    let mut fleet = replacing();
    assert_eq!(fleet.exited(2, code(1)), ["cancel ready mender.2"]);
    assert_eq!(fleet.agent_state(), AgentState::Running);
    assert_eq!(fleet.reason(), "generation 2 not ready: exit code 1; generation 1 keeps running");
    assert_eq!((fleet.mender().generation, fleet.mender().restart_count), (2, 0));
    let lines = supervisor_core::explain(&fleet.state, &mender());
    assert!(lines.iter().any(|line| line.contains("`mozart replace mender` retries it as it is")));
    let said = lines.iter().filter(|line| line.contains("did not become ready"));
    assert_eq!(said.count(), 1, "{lines:?}");
}

#[test]
fn a_new_one_that_is_not_ready_in_time_is_rolled_back() {
    let mut fleet = replacing();
    let expected =
        ["cancel ready mender.2", "stop mender.2 within 0", "timer drain mender.2 +5000"];
    assert_eq!(fleet.later(60_000).fire(Timer::Ready, 2), expected);
    let reason = "generation 2 not ready: not ready within 60s; generation 1 keeps running";
    assert_eq!(fleet.reason(), reason);
    assert_eq!(fleet.ready(2), NOTHING);
    assert_eq!(fleet.exited(2, signal(9)), ["cancel drain mender.2"]);
    assert_eq!(fleet.agent_state(), AgentState::Running);
}

#[test]
fn after_a_roll_back_a_crash_restarts_what_was_running() {
    let mut fleet = replacing();
    fleet.exited(2, code(1));
    fleet.exited(1, code(1));
    let actions = fleet.later(1_000).fire(Timer::Restart, 2);
    assert_eq!(actions, ["start mender.3 g1 on alpha", "timer ready mender.3 +60000"]);
    assert_eq!(fleet.mender().spec_of(1).map(|spec| spec.identity.as_str()), Some("v1"));
    fleet.ready(3);
    assert_eq!(fleet.reason(), "generation 2 not ready: exit code 1; generation 1 keeps running");
}

#[test]
fn after_a_roll_back_replace_and_the_same_soul_try_again() {
    let again = ["start mender.3 g2 on alpha beside", "timer ready mender.3 +60000"];
    let mut fleet = replacing();
    fleet.exited(2, code(1));
    assert_eq!(fleet.replace(), again);

    let mut fleet = replacing();
    fleet.exited(2, code(1));
    assert_eq!(fleet.apply(soul("mender", "v2")), again);
    assert_eq!(fleet.reason(), "");
}

#[test]
fn replace_takes_a_new_incarnation_of_the_same_generation() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let actions = fleet.replace();
    assert_eq!(actions, ["start mender.2 g1 on alpha beside", "timer ready mender.2 +60000"]);
    assert_eq!(fleet.replace(), NOTHING, "it is under way");
    fleet.exited(2, code(1));
    assert_eq!(fleet.reason(), "incarnation 2 not ready: exit code 1; incarnation 1 keeps running");
}

#[test]
fn replace_of_a_stopped_agent_is_nothing() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.stop();
    fleet.exited(1, code(0));
    assert_eq!(fleet.replace(), NOTHING);
}

#[test]
fn a_newer_soul_replaces_one_that_is_starting_beside() {
    let mut fleet = replacing();
    let expected = [
        "cancel ready mender.2",
        "stop mender.2 within 30000",
        "timer drain mender.2 +35000",
        "start mender.3 g3 on alpha beside",
        "timer ready mender.3 +60000",
    ];
    assert_eq!(fleet.apply(soul("mender", "v3")), expected);
    assert_eq!(fleet.ready(2), NOTHING);
    assert_eq!(fleet.exited(2, code(0)), ["cancel drain mender.2"]);
}

#[test]
fn a_newer_soul_during_a_swap_follows_after_it() {
    let mut fleet = swapping();
    assert_eq!(fleet.apply(soul("mender", "v3")), NOTHING);
    let expected = [
        "cancel drain mender.1",
        "admit mender.2 from 14 after 1 clean",
        "start mender.3 g3 on alpha beside",
        "timer ready mender.3 +60000",
    ];
    assert_eq!(fleet.exited(1, code(0)), expected);
}

#[test]
fn a_changed_soul_does_not_wait_for_one_that_never_took_messages() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    let expected = [
        "cancel ready mender.1",
        "stop mender.1 within 30000",
        "timer drain mender.1 +35000",
        "start mender.2 g2 on alpha",
        "timer ready mender.2 +60000",
    ];
    assert_eq!(fleet.apply(soul("mender", "v2")), expected);

    let mut fleet = Fleet::new();
    fleet.apply(stop_first(soul("mender", "v1")));
    let actions = fleet.apply(stop_first(soul("mender", "v2")));
    assert_eq!(actions, expected[..3], "with stop-first it does");
}

#[test]
fn a_stop_during_a_replacement_stops_both() {
    let mut fleet = replacing();
    let expected = [
        "cancel ready mender.2",
        "stop mender.2 within 30000",
        "timer drain mender.2 +35000",
        "stop mender.1 within 30000",
        "timer drain mender.1 +35000",
    ];
    assert_eq!(fleet.stop(), expected);
    assert_eq!(fleet.agent_state(), AgentState::Stopping);
    fleet.exited(1, code(0));
    assert_eq!(fleet.agent_state(), AgentState::Stopping);
    fleet.exited(2, code(0));
    assert_eq!(fleet.agent_state(), AgentState::Stopped);
    assert_eq!(fleet.resume(), NOTHING);
}

#[test]
fn a_new_leader_takes_up_a_swap() {
    let fleet = swapping();
    let outstanding = ["stop mender.1 within 30000", "timer drain mender.1 +35000"];
    assert_eq!(fleet.resume(), outstanding);
    let outstanding = ["start mender.2 g2 on alpha beside", "timer ready mender.2 +60000"];
    assert_eq!(replacing().resume(), outstanding);
}

#[test]
fn a_handover_that_is_on_record_need_not_be_done_again() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.exited(1, signal(9));
    fleet.later(1_000).fire(Timer::Restart, 1);
    assert_eq!(fleet.ready(2)[1], "admit mender.2 from 14 after 1");
    assert_eq!(fleet.begun(1), NOTHING, "an earlier one says nothing about this");
    assert_eq!(fleet.mender().admission.as_ref().and_then(|one| one.previous), Some(1));
    assert_eq!(fleet.begun(2), NOTHING);
    assert_eq!(fleet.mender().admission.as_ref().and_then(|one| one.previous), None);

    fleet.exited(2, code(0));
    fleet.later(3_000).fire(Timer::Restart, 2);
    assert_eq!(fleet.ready(3)[1], "admit mender.3 from 21 after 2 clean");
}

#[test]
fn a_handover_that_is_not_on_record_falls_to_the_next_one() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.exited(1, signal(9));
    fleet.later(1_000).fire(Timer::Restart, 1);
    fleet.ready(2);
    // Whoever was to hand over from 1 to 2 died, and 2 as well.
    fleet.exited(2, code(0));
    fleet.later(3_000).fire(Timer::Restart, 2);
    assert_eq!(fleet.ready(3)[1], "admit mender.3 from 21 after 2 clean and 1");

    fleet.remove();
    fleet.exited(3, code(0));
    fleet.apply(soul("mender", "v1"));
    let actions = fleet.ready(4);
    assert_eq!(
        actions[1], "admit mender.4 from 28 after 3 clean and 1 and 2",
        "a removal keeps it"
    );
    fleet.begun(4);
    assert_eq!(fleet.mender().admission, Some(supervisor_core::Admission::default()));
}
