//! What people want: apply, start, stop, restart, remove.

use common::api::AgentState;
use common::control::Timer;

use crate::fleet::{Fleet, NOTHING, code, mender, soul};

#[test]
fn the_same_soul_again_is_nothing_at_all() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let before = fleet.mender().clone();
    assert_eq!(fleet.apply(soul("mender", "v1")), NOTHING);
    assert_eq!(*fleet.mender(), before);
}

#[test]
fn force_makes_a_new_generation_of_the_same_soul() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let actions = fleet.force(soul("mender", "v1"));
    assert_eq!(actions, ["start mender.2 g2 on alpha beside", "timer ready mender.2 +60000"]);
    assert_eq!(fleet.mender().generation, 2);
}

#[test]
fn a_stopped_agent_takes_a_changed_soul_and_stays_stopped() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.stop();
    fleet.exited(1, code(0));
    assert_eq!(fleet.apply(soul("mender", "v2")), NOTHING);
    assert_eq!((fleet.agent_state(), fleet.mender().generation), (AgentState::Stopped, 2));
    assert_eq!(fleet.start(), ["start mender.2 g2 on alpha", "timer ready mender.2 +60000"]);
}

#[test]
fn start_is_nothing_while_it_runs() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.start(), NOTHING);
}

#[test]
fn start_while_it_waits_after_a_crash_does_not_wait() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.exited(1, code(1));
    let expected =
        ["cancel restart mender.1", "start mender.2 g1 on alpha", "timer ready mender.2 +60000"];
    assert_eq!(fleet.start(), expected);
}

#[test]
fn start_while_it_stops_starts_a_new_one_after_the_old_has_ended() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.stop();
    assert_eq!(fleet.start(), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Starting);
    let expected =
        ["cancel drain mender.1", "start mender.2 g1 on alpha", "timer ready mender.2 +60000"];
    assert_eq!(fleet.exited(1, code(0)), expected);
    assert_eq!(fleet.mender().restart_count, 0);
}

#[test]
fn stop_is_nothing_the_second_time() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.stop();
    assert_eq!(fleet.stop(), NOTHING);
}

#[test]
fn what_does_not_stop_in_time_is_told_again() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.stop();
    let again = ["stop mender.1 within 0", "timer drain mender.1 +10000"];
    assert_eq!(fleet.later(35_000).fire(Timer::Drain, 1), again);
    assert_eq!(fleet.later(10_000).fire(Timer::Drain, 1), again);
    assert_eq!(fleet.exited(1, code(0)), ["cancel drain mender.1"]);
    assert_eq!(fleet.fire(Timer::Drain, 1), NOTHING);
}

#[test]
fn restart_stops_first_and_counts_no_crash() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.exited(1, code(1));
    fleet.later(1_000).fire(Timer::Restart, 1);
    fleet.ready(2);
    assert_eq!(fleet.restart(), ["stop mender.2 within 30000", "timer drain mender.2 +35000"]);
    let expected =
        ["cancel drain mender.2", "start mender.3 g1 on alpha", "timer ready mender.3 +60000"];
    assert_eq!(fleet.exited(2, code(0)), expected);
    assert_eq!(fleet.mender().restart_count, 1);
}

#[test]
fn restart_starts_what_was_stopped() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.stop();
    fleet.exited(1, code(0));
    assert_eq!(fleet.restart(), ["start mender.2 g1 on alpha", "timer ready mender.2 +60000"]);
}

#[test]
fn a_removed_agent_is_gone_once_it_has_stopped() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.remove(), ["stop mender.1 within 30000", "timer drain mender.1 +35000"]);
    assert_eq!(fleet.agent_state(), AgentState::Stopping);
    assert_eq!(fleet.start(), NOTHING, "only an apply brings it back");
    assert_eq!(fleet.exited(1, code(0)), ["cancel drain mender.1"]);
    assert!(fleet.state.agent(&mender()).is_none());
}

#[test]
fn numbers_and_floor_outlive_a_removal() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.remove();
    fleet.exited(1, code(0));
    let actions = fleet.apply(soul("mender", "v1"));
    assert_eq!(actions, ["start mender.2 g2 on alpha", "timer ready mender.2 +60000"]);
    assert_eq!(fleet.mender().floor, 7);
    assert_eq!(fleet.ready(2), ["cancel ready mender.2", "admit mender.2 from 14 after 1 clean"]);
}

#[test]
fn an_apply_while_it_is_being_removed_revives_it() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.remove();
    assert_eq!(fleet.apply(soul("mender", "v1")), NOTHING);
    let expected =
        ["cancel drain mender.1", "start mender.2 g2 on alpha", "timer ready mender.2 +60000"];
    assert_eq!(fleet.exited(1, code(0)), expected);
}

#[test]
fn wishes_about_nobody_are_nothing() {
    let mut fleet = Fleet::new();
    assert_eq!(fleet.stop(), NOTHING);
    assert_eq!(fleet.start(), NOTHING);
    assert_eq!(fleet.remove(), NOTHING);
    assert_eq!(fleet.exited(1, code(0)), NOTHING);
    assert_eq!(fleet.state.agents().count(), 0);
}
