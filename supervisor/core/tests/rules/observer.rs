//! The leader's eyes.

use common::Timestamp;
use common::control::ControlEvent;
use common::shim::{Exit, Heartbeat, IncarnationExit, NodeStatus, RunningIncarnation};
use supervisor_core::{Action, Observer, Outcome, ShimReady};

use crate::fleet::{Fleet, code, mender, node_name, soul};

fn report(running: &[u64]) -> NodeStatus {
    let running = running.iter().map(|incarnation| RunningIncarnation {
        agent: mender(),
        generation: 1,
        incarnation: *incarnation,
        started_at: Timestamp::default(),
        pid: 1,
    });
    NodeStatus {
        node: node_name("alpha"),
        instance: 1,
        term: 1,
        runtimes: vec!["process".into()],
        labels: Vec::new(),
        draining: false,
        running: running.collect(),
        exits: Vec::new(),
    }
}

fn exit(incarnation: u64) -> IncarnationExit {
    IncarnationExit {
        agent: mender(),
        incarnation,
        exit: code(1),
        clean: true,
        finished: 0,
        at: Timestamp::default(),
    }
}

fn exited(incarnation: u64) -> Outcome {
    Outcome::Record(ControlEvent::IncarnationExited {
        agent: mender(),
        incarnation,
        exit: code(1),
        clean: true,
    })
}

fn gone(incarnation: u64) -> Outcome {
    let exit = Exit { reason: Some("gone".into()), ..Exit::default() };
    Outcome::Record(ControlEvent::IncarnationExited {
        agent: mender(),
        incarnation,
        exit,
        clean: false,
    })
}

fn stop(incarnation: u64) -> Outcome {
    Outcome::Do(Action::Stop {
        node: node_name("alpha"),
        agent: mender(),
        incarnation,
        within: std::time::Duration::from_secs(5),
    })
}

fn lost() -> Outcome {
    Outcome::Record(ControlEvent::NodeLost { node: node_name("alpha") })
}

fn seen(status: &NodeStatus) -> Outcome {
    Outcome::Record(ControlEvent::NodeSeen {
        node: status.node.clone(),
        instance: status.instance,
        runtimes: status.runtimes.clone(),
        labels: status.labels.clone(),
    })
}

fn running() -> Fleet {
    Fleet::with_mender(soul("mender", "v1"))
}

#[test]
fn a_report_that_says_nothing_new_is_silent() {
    let fleet = running();
    let mut eyes = Observer::new(0);
    for second in 1..30 {
        assert_eq!(eyes.node_report(&fleet.state, second * 1_000, &report(&[1])), []);
        assert_eq!(eyes.tick(&fleet.state, second * 1_000), []);
    }
}

#[test]
fn a_node_is_news_when_it_is_new_restarted_or_relabelled() {
    let fleet = Fleet::without_nodes();
    let mut eyes = Observer::new(0);
    assert_eq!(eyes.node_report(&fleet.state, 1, &report(&[])), [seen(&report(&[]))]);
    assert_eq!(eyes.node_report(&fleet.state, 2, &report(&[])), [], "its record is on the way");
    assert_eq!(eyes.node_report(&fleet.state, 6_000, &report(&[])), [seen(&report(&[]))]);

    let fleet = running();
    let mut restarted = report(&[1]);
    restarted.instance = 2;
    assert_eq!(Observer::new(0).node_report(&fleet.state, 1, &restarted), [seen(&restarted)]);
    let mut relabelled = report(&[1]);
    relabelled.labels.push(("zone".into(), "b".into()));
    assert_eq!(Observer::new(0).node_report(&fleet.state, 1, &relabelled), [seen(&relabelled)]);
}

#[test]
fn a_node_that_drains_and_one_that_does_so_no_more_are_news() {
    let mut fleet = running();
    let mut draining = report(&[1]);
    draining.draining = true;
    let record = Outcome::Record(ControlEvent::NodeDraining { node: node_name("alpha") });
    assert_eq!(Observer::new(0).node_report(&fleet.state, 1, &draining), [record]);
    fleet.drain("alpha");
    assert_eq!(Observer::new(0).node_report(&fleet.state, 1, &draining), []);
    assert_eq!(Observer::new(0).node_report(&fleet.state, 1, &report(&[1])), [seen(&report(&[]))]);
}

#[test]
fn ten_seconds_of_silence_lose_a_node() {
    let fleet = running();
    let mut eyes = Observer::new(0);
    eyes.node_report(&fleet.state, 5_000, &report(&[1]));
    assert_eq!(eyes.tick(&fleet.state, 14_999), []);
    assert_eq!(eyes.tick(&fleet.state, 15_000), [lost()]);
    assert_eq!(eyes.tick(&fleet.state, 16_000), [], "its record is on the way");
}

#[test]
fn a_new_leader_counts_silence_from_its_own_beginning() {
    let fleet = running();
    let mut eyes = Observer::new(1_000_000);
    assert_eq!(eyes.tick(&fleet.state, 1_009_999), []);
    assert_eq!(eyes.tick(&fleet.state, 1_010_000), [lost()]);
}

#[test]
fn its_own_blindness_is_nobodys_silence() {
    let fleet = running();
    let mut eyes = Observer::new(0);
    eyes.node_report(&fleet.state, 1_000, &report(&[1]));
    eyes.link(false, 2_000);
    assert_eq!(eyes.tick(&fleet.state, 60_000), []);
    eyes.link(true, 60_000);
    eyes.link(true, 65_000);
    assert_eq!(eyes.tick(&fleet.state, 69_999), [], "the whole window must be seen");
    assert_eq!(eyes.tick(&fleet.state, 70_000), [lost()]);
}

#[test]
fn an_exit_is_said_once_and_again_only_if_it_did_not_arrive() {
    let mut fleet = running();
    let mut eyes = Observer::new(0);
    let mut status = report(&[]);
    status.exits.push(exit(1));
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &status), [exited(1)]);
    assert_eq!(eyes.exited(&fleet.state, &node_name("alpha"), &exit(1)), []);
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &status), []);
    assert_eq!(eyes.node_report(&fleet.state, 6_000, &status), [exited(1)]);
    fleet.exited(1, code(1));
    assert_eq!(eyes.node_report(&fleet.state, 60_000, &status), []);
    assert_eq!(eyes.exited(&fleet.state, &node_name("alpha"), &exit(1)), []);
}

#[test]
fn what_another_node_says_about_an_incarnation_is_ignored() {
    let fleet = running();
    let mut eyes = Observer::new(0);
    assert_eq!(eyes.exited(&fleet.state, &node_name("beta"), &exit(1)), []);
    let beta = node_name("beta");
    assert_eq!(eyes.start_failed(&fleet.state, &beta, &mender(), 1, "no"), []);
    assert_eq!(eyes.start_failed(&fleet.state, &node_name("alpha"), &mender(), 1, "no").len(), 1);
}

#[test]
fn a_running_one_that_is_missing_twice_in_two_seconds_is_gone() {
    let fleet = running();
    let mut eyes = Observer::new(0);
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &report(&[])), []);
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &report(&[])), []);
    assert_eq!(eyes.node_report(&fleet.state, 3_000, &report(&[])), [gone(1)]);

    let mut eyes = Observer::new(0);
    eyes.node_report(&fleet.state, 1_000, &report(&[]));
    eyes.node_report(&fleet.state, 2_000, &report(&[1]));
    assert_eq!(eyes.node_report(&fleet.state, 3_500, &report(&[])), [], "it was there meanwhile");
}

#[test]
fn a_starting_one_that_is_missing_is_started_again() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    let start = Outcome::Do(Action::Start {
        node: node_name("alpha"),
        agent: mender(),
        generation: 1,
        incarnation: 1,
        warm: false,
    });
    let mut eyes = Observer::new(0);
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &report(&[])), []);
    assert_eq!(eyes.node_report(&fleet.state, 3_000, &report(&[])), [start]);
    assert_eq!(eyes.node_report(&fleet.state, 4_000, &report(&[])), []);

    // Its end is on the way to the log: it stays ended.
    let mut status = report(&[]);
    status.exits.push(exit(1));
    assert_eq!(eyes.node_report(&fleet.state, 5_000, &status), [exited(1)]);
    assert_eq!(eyes.node_report(&fleet.state, 9_900, &report(&[])), []);
}

#[test]
fn what_must_not_run_is_stopped() {
    let mut fleet = running();
    fleet.lose("alpha");
    fleet.node("alpha");
    let mut eyes = Observer::new(0);
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &report(&[1, 2])), [stop(1)]);
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &report(&[1, 2])), []);
    assert_eq!(eyes.node_report(&fleet.state, 6_000, &report(&[1, 2])), [stop(1)]);
    assert_eq!(eyes.node_report(&fleet.state, 7_000, &report(&[2])), []);
}

#[test]
fn a_shim_that_is_ready_is_logged_admitted_again_or_left_waiting() {
    let mut fleet = Fleet::new();
    let mut eyes = Observer::new(0);
    let ready = |eyes: &mut Observer, fleet: &Fleet, incarnation| {
        eyes.shim_ready(&fleet.state, &mender(), incarnation)
    };
    assert_eq!(ready(&mut eyes, &fleet, 1), ShimReady::Ignore);
    fleet.apply(soul("mender", "v1"));
    assert_eq!(ready(&mut eyes, &fleet, 1), ShimReady::LogReady);
    fleet.ready(1);
    assert_eq!(ready(&mut eyes, &fleet, 1), ShimReady::AdmitAgain);
    let again = fleet.mender().admit();
    let floor = 7;
    let admit = Action::Admit {
        agent: mender(),
        incarnation: 1,
        floor,
        previous: None,
        previous_clean: false,
        earlier: Vec::new(),
    };
    assert_eq!(again, Some(admit));

    fleet.apply(soul("mender", "v2"));
    assert_eq!(ready(&mut eyes, &fleet, 2), ShimReady::LogReady);
    fleet.ready(2);
    assert_eq!(ready(&mut eyes, &fleet, 2), ShimReady::Ignore, "its turn comes");
    assert_eq!(ready(&mut eyes, &fleet, 1), ShimReady::Ignore, "its turn is over");
}

#[test]
fn a_restarted_agent_is_stable_after_a_minute_and_a_turn_once() {
    let mut fleet = running();
    fleet.exited(1, code(1));
    fleet.later(1_000).fire(common::control::Timer::Restart, 1);
    fleet.ready(2);
    let mut eyes = Observer::new(0);
    let idle = Heartbeat::default();
    let busy = Heartbeat { finished: 1, ..idle.clone() };
    let mut beat = |fleet: &Fleet, at, incarnation, beat: &Heartbeat| {
        eyes.shim_heartbeat(&fleet.state, at, &mender(), incarnation, beat)
    };
    assert_eq!(beat(&fleet, 1_000, 2, &busy), []);
    assert_eq!(beat(&fleet, 60_999, 2, &busy), []);
    assert_eq!(beat(&fleet, 61_000, 2, &idle), [], "without a turn it proves nothing");
    assert_eq!(beat(&fleet, 61_000, 1, &busy), [], "an earlier one says nothing");
    let stable = ControlEvent::IncarnationStable { agent: mender(), incarnation: 2 };
    assert_eq!(beat(&fleet, 61_000, 2, &busy), [Outcome::Record(stable)]);
    assert_eq!(beat(&fleet, 62_000, 2, &busy), []);
    fleet.stable(2);
    assert_eq!(beat(&fleet, 90_000, 2, &busy), []);
}

#[test]
fn a_shim_that_is_silent_on_a_node_that_is_not_hangs() {
    let fleet = running();
    let mut eyes = Observer::new(0);
    let (agent, incarnation) = (mender(), 1);
    let hangs =
        Outcome::Record(ControlEvent::IncarnationHung { agent, incarnation, silent_for: 30 });
    let second = |eyes: &mut Observer, second: u64, beats: bool| {
        let now = second * 1_000;
        assert_eq!(eyes.node_report(&fleet.state, now, &report(&[1])), []);
        if beats {
            let beat = Heartbeat::default();
            assert_eq!(eyes.shim_heartbeat(&fleet.state, now, &mender(), 1, &beat), []);
        }
        eyes.tick(&fleet.state, now)
    };
    for at in 1..=40 {
        assert_eq!(second(&mut eyes, at, at % 5 == 0), [], "it beats");
    }
    for at in 41..70 {
        assert_eq!(second(&mut eyes, at, false), [], "not long enough");
    }
    assert_eq!(second(&mut eyes, 70, false), [hangs]);
    assert_eq!(second(&mut eyes, 71, false), [], "it is said once");
}

#[test]
fn a_blind_leader_kills_no_shim() {
    let fleet = running();
    let mut eyes = Observer::new(0);
    assert_eq!(eyes.tick(&fleet.state, 1_000), []);
    eyes.link(false, 2_000);
    assert_eq!(eyes.tick(&fleet.state, 60_000), []);
    eyes.link(true, 60_000);
    assert_eq!(eyes.node_report(&fleet.state, 60_000, &report(&[1])), []);
    assert_eq!(eyes.tick(&fleet.state, 61_000), []);
}
