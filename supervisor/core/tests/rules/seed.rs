//! The rows of the behaviour to reproduce that the core decides.

use common::api::AgentState;
use common::control::Timer;

use crate::fleet::{Fleet, NOTHING, code, signal, soul, stop_first};

#[test]
fn a_new_agent_is_started_and_runs_once_ready() {
    let mut fleet = Fleet::new();
    let actions = fleet.apply(soul("mender", "v1"));
    assert_eq!(actions, ["start mender.1 g1 on alpha", "timer ready mender.1 +60000"]);
    assert_eq!(fleet.agent_state(), AgentState::Starting);

    let actions = fleet.later(200).ready(1);
    assert_eq!(actions, ["cancel ready mender.1", "admit mender.1 from 7 after -"]);
    assert_eq!(fleet.agent_state(), AgentState::Running);
    assert_eq!(fleet.mender().started_at.map(|at| at.as_millis()), Some(fleet.now));
}

#[test]
fn replacing_shuts_down_the_existing_one_before_spawning_a_new_one() {
    let mut fleet = Fleet::with_mender(stop_first(soul("mender", "v1")));
    let actions = fleet.apply(stop_first(soul("mender", "v2")));
    assert_eq!(actions, ["stop mender.1 within 30000", "timer drain mender.1 +35000"]);
    assert_eq!(fleet.agent_state(), AgentState::Starting);

    let actions = fleet.exited(1, code(0));
    let expected =
        ["cancel drain mender.1", "start mender.2 g2 on alpha", "timer ready mender.2 +60000"];
    assert_eq!(actions, expected);
    assert_eq!(fleet.ready(2), ["cancel ready mender.2", "admit mender.2 from 14 after 1 clean"]);
    assert_eq!(fleet.agent_state(), AgentState::Running);
}

#[test]
fn an_old_ones_exit_does_not_trigger_a_restart_when_replaced() {
    let mut fleet = Fleet::with_mender(stop_first(soul("mender", "v1")));
    fleet.apply(stop_first(soul("mender", "v2")));
    fleet.exited(1, signal(9));
    fleet.ready(2);

    assert_eq!(fleet.exited(1, code(137)), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Running);
    assert_eq!(fleet.mender().restart_count, 0);
}

#[test]
fn a_restart_timer_is_cancelled_on_replacement() {
    for exit in [code(1), code(137), signal(9)] {
        let mut fleet = Fleet::with_mender(soul("mender", "v1"));
        fleet.exited(1, exit);
        let actions = fleet.later(50).apply(soul("mender", "v2"));
        let expected = [
            "cancel restart mender.1",
            "start mender.2 g2 on alpha",
            "timer ready mender.2 +60000",
        ];
        assert_eq!(actions, expected);
        fleet.ready(2);

        // The timer had fired already and its record was on the way.
        assert_eq!(fleet.later(1_500).fire(Timer::Restart, 1), NOTHING);
        assert_eq!(fleet.agent_state(), AgentState::Running);
        assert_eq!(fleet.mender().restart_count, 0);
        assert_eq!(fleet.mender().incarnation, 2, "exactly one start");
    }
}

#[test]
fn a_crash_triggers_a_restart_one_second_later_and_it_recovers() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.exited(1, code(1)), ["timer restart mender.1 +1000"]);
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert_eq!(fleet.reason(), "worker: exit code 1");
    assert_eq!(fleet.next_try(), Some(1_000));

    let actions = fleet.later(1_000).fire(Timer::Restart, 1);
    assert_eq!(actions, ["start mender.2 g1 on alpha", "timer ready mender.2 +60000"]);
    assert_eq!(fleet.agent_state(), AgentState::Starting);
    assert_eq!(fleet.next_try(), None);
    fleet.ready(2);
    assert_eq!(fleet.agent_state(), AgentState::Running);
    assert_eq!(fleet.mender().restart_count, 1);
    assert_eq!(fleet.reason(), "");
}

#[test]
fn a_stop_prevents_a_restart_after_a_crash() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.stop(), ["stop mender.1 within 30000", "timer drain mender.1 +35000"]);
    assert_eq!(fleet.agent_state(), AgentState::Stopping);
    assert_eq!(fleet.exited(1, code(137)), ["cancel drain mender.1"]);
    assert_eq!(fleet.agent_state(), AgentState::Stopped);
    assert_eq!(fleet.fire(Timer::Restart, 1), NOTHING);
    assert_eq!(fleet.mender().restart_count, 0);
}

#[test]
fn a_stop_between_a_crash_and_its_restart_cancels_the_restart() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.exited(1, code(1));
    assert_eq!(fleet.stop(), ["cancel restart mender.1"]);
    assert_eq!(fleet.fire(Timer::Restart, 1), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Stopped);
}
