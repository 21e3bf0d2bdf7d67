//! Crashes: policies, delays, quarantine, starts that fail.

use std::time::Duration;

use common::api::AgentState;
use common::control::{ControlEvent, Timer};
use common::shim::Exit;
use common::spec::{AgentSpec, RestartPolicy};

use crate::fleet::{Fleet, NOTHING, code, mender, signal, soul, stop_first};

fn policy(policy: RestartPolicy) -> AgentSpec {
    let mut spec = soul("mender", "v1");
    spec.restart.policy = policy;
    spec
}

/// Restarts at once, at most three times in ten minutes.
fn hasty() -> AgentSpec {
    let mut spec = soul("mender", "v1");
    spec.restart.max = 3;
    spec.restart.backoff_first = Duration::ZERO;
    spec
}

fn quarantined() -> Fleet {
    let mut fleet = Fleet::with_mender(hasty());
    for incarnation in 1..=4 {
        fleet.later(10).exited(incarnation, code(1));
    }
    fleet
}

#[test]
fn never_leaves_it_in_error_with_the_reason() {
    let mut fleet = Fleet::with_mender(policy(RestartPolicy::Never));
    assert_eq!(fleet.exited(1, signal(9)), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert_eq!(fleet.reason(), "worker: exit code 137 (signal 9)");
    assert_eq!(fleet.next_try(), None);
    assert_eq!(fleet.start(), ["start mender.2 g1 on alpha", "timer ready mender.2 +60000"]);
}

#[test]
fn on_failure_is_complete_after_exit_code_0_and_restarts_after_another() {
    let mut fleet = Fleet::with_mender(policy(RestartPolicy::OnFailure));
    assert_eq!(fleet.exited(1, code(0)), NOTHING);
    assert_eq!(fleet.agent_state(), AgentState::Stopped);
    assert_eq!(fleet.reason(), "completed: exit code 0");

    let mut fleet = Fleet::with_mender(policy(RestartPolicy::OnFailure));
    assert_eq!(fleet.exited(1, code(3)), ["timer restart mender.1 +1000"]);

    // As a stranger's `docker stop` ends it: that was not its own wish.
    let mut fleet = Fleet::with_mender(policy(RestartPolicy::OnFailure));
    let stopped = Exit { reason: Some("stopped".into()), ..code(0) };
    assert_eq!(fleet.exited(1, stopped), ["timer restart mender.1 +1000"]);
}

#[test]
fn one_that_hangs_is_ended_and_followed_by_another_whatever_its_end_then_says() {
    let mut fleet = Fleet::with_mender(policy(RestartPolicy::OnFailure));
    assert_eq!(fleet.hung(1), ["stop mender.1 within 0", "timer drain mender.1 +5000"]);
    assert_eq!(fleet.hung(1), NOTHING, "once");
    // It was only paused: woken, it ends in order, which is no completion.
    let expected = ["cancel drain mender.1", "timer restart mender.1 +1000"];
    assert_eq!(fleet.exited(1, code(0)), expected);
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert_eq!(fleet.reason(), "worker: hung: no heartbeat from its shim for 30s");
}

#[test]
fn always_restarts_after_exit_code_0_too() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.exited(1, code(0)), ["timer restart mender.1 +1000"]);
}

#[test]
fn the_delay_doubles_with_each_crash_and_begins_anew_once_stable() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    for (incarnation, plain) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000)] {
        fleet.exited(incarnation, code(1));
        let wait = fleet.next_try().expect("it waits");
        assert!(wait.abs_diff(plain) <= plain / 10, "{incarnation}: {wait}");
        fleet.later(wait).fire(Timer::Restart, incarnation);
        fleet.ready(incarnation + 1);
    }
    assert_eq!(fleet.mender().restart_count, 4);
    assert_eq!(fleet.later(60_000).stable(4), NOTHING, "an earlier one says nothing about this");
    assert_eq!(fleet.mender().restart_count, 4);
    assert_eq!(fleet.stable(5), NOTHING);
    assert_eq!(fleet.mender().restart_count, 0);
    assert_eq!(fleet.exited(5, code(1)), ["timer restart mender.5 +1000"]);
}

#[test]
fn without_a_delay_it_starts_at_once_and_without_a_timer() {
    let mut fleet = Fleet::with_mender(hasty());
    let actions = fleet.exited(1, code(1));
    assert_eq!(actions, ["start mender.2 g1 on alpha", "timer ready mender.2 +60000"]);
    assert_eq!(fleet.reason(), "worker: exit code 1");
}

#[test]
fn more_restarts_than_max_within_the_period_are_quarantined() {
    let mut fleet = quarantined();
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert!(fleet.mender().is_quarantined());
    assert_eq!(fleet.reason(), "quarantined: 3 restarts within 10m; last: exit code 1");
    assert_eq!((fleet.next_try(), fleet.current(), fleet.mender().incarnation), (None, 0, 4));
    assert_eq!(fleet.later(3_600_000).fire(Timer::Restart, 4), NOTHING);
}

#[test]
fn restarts_that_are_older_than_the_period_do_not_count() {
    let mut fleet = Fleet::with_mender(hasty());
    for incarnation in 1..=9 {
        fleet.later(301_000).exited(incarnation, code(1));
    }
    assert!(!fleet.mender().is_quarantined());
}

#[test]
fn a_maximum_of_0_is_without_a_bound() {
    let mut spec = hasty();
    spec.restart.max = 0;
    let mut fleet = Fleet::with_mender(spec);
    for incarnation in 1..=50 {
        fleet.exited(incarnation, code(1));
    }
    assert_eq!(fleet.current(), 51);
    assert!(fleet.mender().restarts.is_empty());
}

#[test]
fn start_and_a_changed_soul_release_a_quarantine() {
    let mut fleet = quarantined();
    assert_eq!(fleet.start(), ["start mender.5 g1 on alpha", "timer ready mender.5 +60000"]);
    assert_eq!(fleet.mender().restart_count, 0);
    fleet.exited(5, code(1));
    assert!(!fleet.mender().is_quarantined(), "the count begins anew");

    let mut fleet = quarantined();
    assert_eq!(fleet.apply(hasty()), NOTHING, "the same soul says nothing");
    let mut changed = hasty();
    changed.identity = "v2".into();
    assert_eq!(fleet.apply(changed), ["start mender.5 g2 on alpha", "timer ready mender.5 +60000"]);
    assert_eq!(fleet.reason(), "");
}

#[test]
fn not_ready_in_time_is_a_crash() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    let actions = fleet.later(60_000).fire(Timer::Ready, 1);
    let expected = [
        "cancel ready mender.1",
        "stop mender.1 within 0",
        "timer drain mender.1 +5000",
        "timer restart mender.1 +1000",
    ];
    assert_eq!(actions, expected);
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert_eq!(fleet.reason(), "not ready within 60s");

    // It says so too late: it is not the one any more.
    assert_eq!(fleet.ready(1), NOTHING);
    assert_eq!(fleet.exited(1, signal(9)), ["cancel drain mender.1"]);
    assert_eq!(fleet.mender().restart_count, 1);
    assert_eq!(fleet.later(1_000).fire(Timer::Restart, 1).len(), 2);
}

#[test]
fn who_is_not_ready_in_time_is_quoted() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    fleet.later(60_000).record(ControlEvent::TimerFired {
        agent: mender(),
        timer: Timer::Ready,
        incarnation: 1,
        said: Some("Ready!".to_owned()),
    });
    let reason = "not ready within 60s; the last line of its output: Ready!";
    assert_eq!(fleet.reason(), reason);
}

#[test]
fn with_stop_first_a_restart_waits_until_the_unready_one_is_gone() {
    let mut fleet = Fleet::new();
    fleet.apply(stop_first(soul("mender", "v1")));
    fleet.later(60_000).fire(Timer::Ready, 1);
    assert_eq!(fleet.later(1_000).fire(Timer::Restart, 1), NOTHING);
    let expected =
        ["cancel drain mender.1", "start mender.2 g1 on alpha", "timer ready mender.2 +60000"];
    assert_eq!(fleet.exited(1, signal(9)), expected);
    assert_eq!(fleet.reason(), "not ready within 60s");
}

#[test]
fn a_start_that_fails_is_a_crash_with_its_reason() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    let actions = fleet.start_failed(1, "no program `pyhton3`");
    assert_eq!(actions, ["cancel ready mender.1", "timer restart mender.1 +1000"]);
    assert_eq!(fleet.reason(), "no program `pyhton3`");
    let exit = fleet.mender().last_exit.clone().expect("an end");
    assert_eq!(exit.describe(), "no program `pyhton3`");
}

#[test]
fn a_ready_timer_that_fires_after_ready_changes_nothing() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let before = fleet.mender().clone();
    assert_eq!(fleet.fire(Timer::Ready, 1), NOTHING);
    assert_eq!(*fleet.mender(), before);
}

#[test]
fn explain_says_why_and_what_helps() {
    let fleet = quarantined();
    let lines = supervisor_core::explain(&fleet.state, &mender());
    let expected = [
        "mender is quarantined: 3 restarts within 10m; last: exit code 1.",
        "It is not restarted automatically: correct what is wrong; `mozart start mender` then releases it.",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_restart_that_is_yet_to_come_is_not_counted_as_done() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let told = |fleet: &Fleet| {
        let lines = supervisor_core::explain(&fleet.state, &mender());
        lines.into_iter().find(|line| line.starts_with("It was restarted "))
    };
    fleet.exited(1, code(1));
    assert_eq!(told(&fleet), None, "it waits for its first restart");
    fleet.fire(Timer::Restart, 1);
    let once = "It was restarted 1 time without becoming stable (60s up and one finished turn).";
    assert_eq!(told(&fleet).as_deref(), Some(once));
}
