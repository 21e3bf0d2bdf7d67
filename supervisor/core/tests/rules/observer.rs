//! The leader's eyes.

mod standstill;
mod succession;

use common::Timestamp;
use common::control::ControlEvent;
use common::frame::{Heartbeat, IncarnationExit, NodeStatus, RunningIncarnation};
use common::shim::Exit;
use supervisor_core::{Action, Ears, Observer, Outcome, ShimReady};

use crate::fleet::{Fleet, code, mender, node_name, soul};

/// The term of the leader whose eyes they are.
const TERM: u64 = 1;

fn eyes(now_ms: u64) -> Observer {
    Observer::new(TERM, now_ms)
}

/// Looks around once a second, and says when something followed.
fn look(eyes: &mut Observer, fleet: &Fleet, from: u64, to: u64) -> Vec<(u64, Outcome)> {
    let seconds = (from..=to).step_by(1_000);
    seconds
        .flat_map(|now| eyes.tick(&fleet.state, now).into_iter().map(move |out| (now, out)))
        .collect()
}

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
        succeeds: Vec::new(),
        term: TERM,
        seen: (TERM, u64::MAX),
        runtimes: vec!["process".into()],
        labels: Vec::new(),
        capacity: common::Capacity::default(),
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
        capacity: status.capacity,
    })
}

fn running() -> Fleet {
    Fleet::with_mender(soul("mender", "v1"))
}

#[test]
fn a_report_that_says_nothing_new_is_silent() {
    let fleet = running();
    let mut eyes = eyes(0);
    for second in 1..30 {
        assert_eq!(eyes.node_report(&fleet.state, second * 1_000, &report(&[1])), []);
        assert_eq!(eyes.tick(&fleet.state, second * 1_000), []);
    }
}

#[test]
fn a_node_is_news_when_it_is_new_restarted_or_relabelled() {
    let fleet = Fleet::without_nodes();
    let mut eyes = eyes(0);
    assert_eq!(eyes.node_report(&fleet.state, 1, &report(&[])), [seen(&report(&[]))]);
    assert_eq!(eyes.node_report(&fleet.state, 2, &report(&[])), [], "its record is on the way");
    assert_eq!(eyes.node_report(&fleet.state, 6_000, &report(&[])), [seen(&report(&[]))]);

    let fleet = running();
    let mut relabelled = report(&[1]);
    relabelled.labels.push(("zone".into(), "b".into()));
    assert_eq!(
        Observer::new(TERM, 0).node_report(&fleet.state, 1, &relabelled),
        [seen(&relabelled)]
    );
}

#[test]
fn a_node_that_drains_and_one_that_does_so_no_more_are_news() {
    let mut fleet = running();
    let mut draining = report(&[1]);
    draining.draining = true;
    let record = Outcome::Record(ControlEvent::NodeDraining { node: node_name("alpha") });
    assert_eq!(eyes(0).node_report(&fleet.state, 1, &draining), [record]);
    fleet.drain("alpha");
    assert_eq!(eyes(0).node_report(&fleet.state, 1, &draining), []);
    assert_eq!(eyes(0).node_report(&fleet.state, 1, &report(&[1])), [seen(&report(&[]))]);
}

#[test]
fn ten_seconds_of_silence_lose_a_node() {
    let fleet = running();
    let mut eyes = eyes(0);
    assert_eq!(look(&mut eyes, &fleet, 0, 5_000), []);
    eyes.node_report(&fleet.state, 5_000, &report(&[1]));
    // Once: its record is on the way.
    assert_eq!(look(&mut eyes, &fleet, 6_000, 19_000), [(15_000, lost())]);
    assert_eq!(look(&mut eyes, &fleet, 20_000, 20_000), [(20_000, lost())], "it did not arrive");
}

#[test]
fn a_new_leader_counts_silence_from_its_own_beginning() {
    let fleet = running();
    let mut eyes = eyes(1_000_000);
    assert_eq!(look(&mut eyes, &fleet, 1_000_000, 1_010_000), [(1_010_000, lost())]);
}

#[test]
fn a_report_that_does_not_know_the_command_says_nothing_about_it() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    fleet.ready(1);
    let mut eyes = eyes(0);
    eyes.told(&mender(), 1, 7);
    let mut late = report(&[]);
    late.seen = (TERM, 6);
    // However long such reports are on their way. The command may have been lost: the node is asked, with a later number.
    let ask = Outcome::Do(Action::Ask { node: node_name("alpha") });
    for now in (1_000..9_000).step_by(1_000) {
        assert_eq!(eyes.node_report(&fleet.state, now, &late), std::slice::from_ref(&ask));
    }
    late.seen = (TERM, 7);
    assert_eq!(eyes.node_report(&fleet.state, 9_000, &late), []);
    assert_eq!(eyes.node_report(&fleet.state, 10_000, &late), []);
    assert_eq!(eyes.node_report(&fleet.state, 11_000, &late), [gone(1)]);
}

#[test]
fn a_node_that_has_not_heard_of_the_leader_is_asked_before_it_is_believed() {
    let fleet = running();
    let mut eyes = eyes(0);
    let mut late = report(&[]);
    late.seen = (TERM - 1, 99);
    let ask = Outcome::Do(Action::Ask { node: node_name("alpha") });
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &late), std::slice::from_ref(&ask));
    assert_eq!(eyes.node_report(&fleet.state, 1_500, &late), []);
    for now in (2_000..9_000).step_by(1_000) {
        assert_eq!(eyes.node_report(&fleet.state, now, &late), std::slice::from_ref(&ask));
    }
}

fn twin(running: &[u64]) -> NodeStatus {
    NodeStatus { instance: 2, ..report(running) }
}

#[test]
fn a_second_node_of_a_name_is_refused_while_the_first_reports() {
    let fleet = running();
    let mut eyes = eyes(0);
    let refused = Outcome::Do(Action::Refuse { node: node_name("alpha"), instance: 2 });
    let mut said = Vec::new();
    for now in (1_000..60_000).step_by(1_000) {
        assert_eq!(eyes.node_report(&fleet.state, now, &report(&[1])), []);
        // It runs nothing, runs the same, knows of ends: nothing of it counts.
        let mut other = twin(if now % 2_000 == 0 { &[] } else { &[1, 9] });
        other.exits.push(exit(1));
        said.extend(eyes.node_report(&fleet.state, now + 100, &other));
        assert_eq!(eyes.exited(&fleet.state, &node_name("alpha"), Some(2), &exit(1)), []);
        let failed =
            eyes.start_failed(&fleet.state, &node_name("alpha"), Some(2), &mender(), 1, "");
        assert_eq!(failed, []);
        eyes.shim_heard(&fleet.state, now + 200, &mender(), 1);
        assert_eq!(eyes.tick(&fleet.state, now + 200), []);
    }
    assert!(said.len() >= 10 && said.iter().all(|out| *out == refused), "{said:?}");
}

#[test]
fn a_node_that_was_started_anew_takes_over_once_its_predecessor_is_silent() {
    let fleet = running();
    let mut eyes = eyes(0);
    eyes.node_report(&fleet.state, 1_000, &report(&[1]));
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &twin(&[1])), []);
    assert_eq!(eyes.node_report(&fleet.state, 3_000, &twin(&[1])), []);
    assert_eq!(eyes.node_report(&fleet.state, 4_000, &twin(&[1])), [seen(&twin(&[]))]);
    // A new leader gives the one that is on record as long.
    let mut eyes = Observer::new(TERM, 10_000);
    assert_eq!(eyes.node_report(&fleet.state, 11_000, &twin(&[1])), []);
    assert_eq!(eyes.node_report(&fleet.state, 12_000, &twin(&[1])), []);
    assert_eq!(eyes.node_report(&fleet.state, 13_000, &twin(&[1])), [seen(&twin(&[]))]);
    // Nobody is refused for a word that was on its way.
    let mut eyes = Observer::new(TERM, 0);
    eyes.node_report(&fleet.state, 1_000, &twin(&[1]));
    eyes.node_report(&fleet.state, 1_500, &report(&[1]));
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &twin(&[1])), []);
}

#[test]
fn what_a_process_says_of_incarnations_counts_once_the_log_knows_it() {
    let mut fleet = running();
    let mut eyes = eyes(0);
    eyes.node_report(&fleet.state, 1_000, &report(&[1]));
    // Its first record is on its way for long, or is lost.
    let mut said: Vec<_> = (4_000..30_000)
        .step_by(1_000)
        .flat_map(|now| eyes.node_report(&fleet.state, now, &twin(&[9])))
        .collect();
    said.dedup();
    assert_eq!(said, [seen(&twin(&[]))]);
    fleet.node_of("alpha", 2);
    let said = [30_000, 31_000, 32_000].map(|now| eyes.node_report(&fleet.state, now, &twin(&[])));
    assert_eq!(said, [vec![], vec![], vec![gone(1)]]);
}

#[test]
fn a_node_that_knows_its_predecessor_to_be_dead_takes_over_at_once() {
    let fleet = running();
    let mut eyes = eyes(0);
    eyes.node_report(&fleet.state, 1_000, &report(&[1]));
    let next = NodeStatus { succeeds: vec![7, 1], ..twin(&[1]) };
    assert_eq!(eyes.node_report(&fleet.state, 1_100, &next), [seen(&twin(&[]))]);
    // One that ends what it took over is the one who says so.
    let mut eyes = Observer::new(TERM, 2_000);
    let ends = NodeStatus { draining: true, ..next };
    let draining = Outcome::Record(ControlEvent::NodeDraining { node: node_name("alpha") });
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &ends), [seen(&twin(&[])), draining]);
    // Not by the death of somebody else.
    let mut eyes = Observer::new(TERM, 2_000);
    let stranger = NodeStatus { succeeds: vec![7], ..twin(&[1]) };
    assert_eq!(eyes.node_report(&fleet.state, 2_100, &stranger), []);
}

#[test]
fn what_comes_back_with_its_node_is_taken_up_and_not_stopped() {
    let mut fleet = running();
    fleet.lose("alpha");
    let mut eyes = eyes(0);
    let returned = Outcome::Record(ControlEvent::IncarnationReturned {
        agent: mender(),
        incarnation: 1,
        generation: 1,
        node: node_name("alpha"),
    });
    let out = eyes.node_report(&fleet.state, 1_000, &report(&[1]));
    assert_eq!(out, [seen(&report(&[])), returned], "in this order");
}

#[test]
fn what_comes_back_goes_on_until_its_successor_takes_messages() {
    let mut fleet = running();
    fleet.node("beta");
    fleet.lose("alpha");
    fleet.node("alpha");
    let mut eyes = eyes(0);
    // Incarnation 2 starts on another node.
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &report(&[1])), []);
    let beat = Heartbeat::default();
    assert_eq!(eyes.shim_heartbeat(&fleet.state, 1_000, &mender(), 1, &beat), []);
    fleet.ready(2);
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &report(&[1])), [stop(1)]);
}

#[test]
fn what_comes_back_and_may_run_beside_nothing_is_stopped_at_once() {
    let mut fleet = Fleet::with_mender(crate::fleet::stop_first(soul("mender", "v1")));
    fleet.node("beta");
    fleet.lose("alpha");
    fleet.node("alpha");
    assert_eq!(eyes(0).node_report(&fleet.state, 1_000, &report(&[1])), [stop(1)]);
}

#[test]
fn a_shim_that_is_over_is_told_so_whoever_leads() {
    let mut fleet = running();
    fleet.node("beta");
    fleet.lose("alpha");
    fleet.ready(2);
    // Its node never comes back.
    let dismiss = Outcome::Do(Action::Dismiss { agent: mender(), incarnation: 1 });
    let mut eyes = eyes(0);
    let beat = Heartbeat::default();
    let mut says = |now| eyes.shim_heartbeat(&fleet.state, now, &mender(), 1, &beat);
    assert_eq!(says(1_000), std::slice::from_ref(&dismiss));
    assert_eq!(says(2_000), [], "not too often");
    assert_eq!(says(6_000), [dismiss]);
    assert_eq!(eyes.shim_ready(&fleet.state, &mender(), 1), ShimReady::Ignore);
    let mut eyes = Observer::new(TERM, 0);
    assert_eq!(eyes.shim_ready(&fleet.state, &mender(), 1), ShimReady::Dismiss);
    assert_eq!(eyes.shim_ready(&fleet.state, &mender(), 9), ShimReady::Ignore, "nobody's number");
    // Of an agent that was removed, too; of one that nobody knows, nothing is known.
    fleet.remove();
    fleet.exited(2, code(0));
    let mut eyes = Observer::new(TERM, 0);
    assert_eq!(eyes.shim_ready(&fleet.state, &mender(), 2), ShimReady::Dismiss);
    let nobody = crate::fleet::agent_name("nobody");
    assert_eq!(eyes.shim_ready(&fleet.state, &nobody, 1), ShimReady::Ignore);
}

#[test]
fn a_frame_that_cannot_be_read_is_a_sign_of_life() {
    let fleet = running();
    let mut eyes = eyes(0);
    for now in (1_000..90_000).step_by(1_000) {
        eyes.node_heard(now, &node_name("alpha"));
        eyes.shim_heard(&fleet.state, now, &mender(), 1);
        assert_eq!(eyes.tick(&fleet.state, now), []);
    }
}

#[test]
fn an_exit_is_said_once_and_again_only_if_it_did_not_arrive() {
    let mut fleet = running();
    let mut eyes = eyes(0);
    let mut status = report(&[]);
    status.exits.push(exit(1));
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &status), [exited(1)]);
    assert_eq!(eyes.exited(&fleet.state, &node_name("alpha"), None, &exit(1)), []);
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &status), []);
    assert_eq!(eyes.node_report(&fleet.state, 6_000, &status), [exited(1)]);
    fleet.exited(1, code(1));
    assert_eq!(eyes.node_report(&fleet.state, 60_000, &status), []);
    assert_eq!(eyes.exited(&fleet.state, &node_name("alpha"), None, &exit(1)), []);
}

#[test]
fn what_another_node_says_about_an_incarnation_is_ignored() {
    let fleet = running();
    let mut eyes = eyes(0);
    assert_eq!(eyes.exited(&fleet.state, &node_name("beta"), None, &exit(1)), []);
    let beta = node_name("beta");
    assert_eq!(eyes.start_failed(&fleet.state, &beta, None, &mender(), 1, "no"), []);
    assert_eq!(
        eyes.start_failed(&fleet.state, &node_name("alpha"), None, &mender(), 1, "no").len(),
        1
    );
}

#[test]
fn a_running_one_that_is_missing_twice_in_two_seconds_is_gone() {
    let fleet = running();
    let mut eyes = eyes(0);
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &report(&[])), []);
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &report(&[])), []);
    assert_eq!(eyes.node_report(&fleet.state, 3_000, &report(&[])), [gone(1)]);

    let mut eyes = Observer::new(TERM, 0);
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
        instance: 1,
        agent: mender(),
        generation: 1,
        incarnation: 1,
        warm: false,
    });
    let mut eyes = eyes(0);
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &report(&[])), []);
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &report(&[])), []);
    assert_eq!(eyes.node_report(&fleet.state, 3_000, &report(&[])), [start]);
    assert_eq!(eyes.node_report(&fleet.state, 4_000, &report(&[])), []);

    // Its end is on the way to the log: it stays ended.
    let mut status = report(&[]);
    status.exits.push(exit(1));
    assert_eq!(eyes.node_report(&fleet.state, 5_000, &status), [exited(1)]);
    assert_eq!(eyes.node_report(&fleet.state, 9_900, &report(&[])), []);
}

#[test]
fn a_start_whose_failure_did_not_get_on_record_is_tried_again() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    let mut eyes = eyes(0);
    let alpha = node_name("alpha");
    let failed = eyes.start_failed(&fleet.state, &alpha, None, &mender(), 1, "the disk is full");
    let [Outcome::Record(failed)] = &failed[..] else { panic!("{failed:?}") };
    let starts = |eyes: &mut Observer, from: u64| {
        let reports = (from..from + 20_000).step_by(1_000);
        let told = reports.flat_map(|now| eyes.node_report(&fleet.state, now, &report(&[])));
        told.filter(|out| matches!(out, Outcome::Do(Action::Start { .. }))).count()
    };
    // While it is on its way, nothing is started.
    assert_eq!(starts(&mut eyes, 1_000), 0);
    eyes.unsaid(failed);
    assert!(starts(&mut eyes, 21_000) > 0);
}

#[test]
fn a_number_that_one_process_of_a_node_was_to_start_is_not_given_to_another() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    // The node is started anew before it has said what became of that.
    fleet.node_of("alpha", 2);
    let mut eyes = eyes(0);
    let mut anew = report(&[]);
    anew.instance = 2;
    for now in [1_000, 2_000] {
        assert_eq!(eyes.node_report(&fleet.state, now, &anew), []);
    }
    assert_eq!(eyes.node_report(&fleet.state, 3_000, &anew), [gone(1)]);
    // That is no crash, and nothing is rolled back for it.
    let exit = Exit { reason: Some("gone".into()), ..Exit::default() };
    assert_eq!(fleet.exited(1, exit)[1], "start mender.2 g1 on alpha");
    assert_eq!(fleet.mender().restart_count, 0);
}

#[test]
fn what_must_not_run_is_stopped() {
    let mut fleet = running();
    fleet.lose("alpha");
    fleet.node("alpha");
    fleet.ready(2);
    let mut eyes = eyes(0);
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &report(&[1, 2])), [stop(1)]);
    assert_eq!(eyes.node_report(&fleet.state, 2_000, &report(&[1, 2])), []);
    assert_eq!(eyes.node_report(&fleet.state, 6_000, &report(&[1, 2])), [stop(1)]);
    assert_eq!(eyes.node_report(&fleet.state, 7_000, &report(&[2])), []);
}

#[test]
fn a_shim_that_is_ready_is_logged_admitted_again_or_left_waiting() {
    let mut fleet = Fleet::new();
    let mut eyes = eyes(0);
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
    let mut eyes = eyes(0);
    let idle = Heartbeat::default();
    let busy = Heartbeat { finished: 1, ..idle.clone() };
    let mut beat = |fleet: &Fleet, at, incarnation, beat: &Heartbeat| {
        eyes.shim_heartbeat(&fleet.state, at, &mender(), incarnation, beat)
    };
    for second in 1..61 {
        assert_eq!(beat(&fleet, second * 1_000, 2, &busy), []);
    }
    assert_eq!(beat(&fleet, 61_000, 2, &idle), [], "without a turn it proves nothing");
    let dismiss = Outcome::Do(Action::Dismiss { agent: mender(), incarnation: 1 });
    assert_eq!(beat(&fleet, 61_000, 1, &busy), [dismiss], "an earlier one is over");
    let stable = ControlEvent::IncarnationStable { agent: mender(), incarnation: 2 };
    assert_eq!(beat(&fleet, 61_000, 2, &busy), [Outcome::Record(stable)]);
    assert_eq!(beat(&fleet, 62_000, 2, &busy), []);
    fleet.stable(2);
    for second in 63..90 {
        assert_eq!(beat(&fleet, second * 1_000, 2, &busy), []);
    }
}

#[test]
fn a_shim_that_is_silent_on_a_node_that_is_not_hangs() {
    let fleet = running();
    let mut eyes = eyes(0);
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
    let mut eyes = eyes(0);
    assert_eq!(eyes.tick(&fleet.state, 1_000), []);
    eyes.link(false, 2_000);
    assert_eq!(look(&mut eyes, &fleet, 2_000, 60_000), []);
    eyes.link(true, 60_000);
    assert_eq!(eyes.node_report(&fleet.state, 60_000, &report(&[1])), []);
    assert_eq!(eyes.tick(&fleet.state, 61_000), []);
}
