//! A node's process that was to start an incarnation, and died.

use super::*;

/// A successor that was told nothing as yet.
fn successor(succeeds: &[u64], running: &[u64]) -> NodeStatus {
    NodeStatus { succeeds: succeeds.to_vec(), seen: (0, 0), ..twin(running) }
}

#[test]
fn what_a_dead_process_was_to_start_is_given_up_with_the_first_word_of_its_successor() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    let first = |eyes: &mut Observer, status: &NodeStatus| {
        let mut out = eyes.node_report(&fleet.state, 1_000, status);
        out.retain(|one| *one == gone(1));
        out
    };
    for (what, status, expected) in [
        ("known to be dead, and nothing is there", successor(&[7, 1], &[]), vec![gone(1)]),
        ("dead, and it started it before", successor(&[1], &[1]), vec![]),
        ("silent, and maybe alive", successor(&[7], &[]), vec![]),
        (
            "its own: the command may be on its way",
            NodeStatus { instance: 1, ..successor(&[7], &[]) },
            vec![],
        ),
    ] {
        let mut eyes = eyes(0);
        // The leader's own command was for the one that is dead.
        eyes.told(&mender(), 1, 5);
        assert_eq!(first(&mut eyes, &status), expected, "{what}");
    }
    // How it ended is known better by whoever says so, once he is known as the one who speaks.
    let mut eyes = eyes(0);
    let ended = NodeStatus { exits: vec![exit(1)], ..successor(&[1], &[]) };
    let out = eyes.node_report(&fleet.state, 1_000, &ended);
    assert!(!out.contains(&gone(1)), "{out:?}");
}

#[test]
fn what_runs_is_not_given_up_so_soon() {
    // A container engine's list may be late.
    let fleet = running();
    let out = eyes(0).node_report(&fleet.state, 1_000, &successor(&[1], &[]));
    assert!(!out.contains(&gone(1)), "{out:?}");
}

#[test]
fn its_number_is_given_up_and_that_is_no_crash() {
    let mut fleet = Fleet::new();
    fleet.apply(soul("mender", "v1"));
    // In the order in which the leader says it: the process, then what went with the one before.
    let mut eyes = eyes(0);
    let mut out = eyes.node_report(&fleet.state, 1_000, &successor(&[1], &[]));
    out.retain(|one| matches!(one, Outcome::Record(_)));
    assert_eq!(out, [seen(&twin(&[])), gone(1)]);
    fleet.node_of("alpha", 2);
    let Outcome::Record(event) = gone(1) else { panic!("it is a record") };
    let next = fleet.record(event);
    assert!(next.contains(&"start mender.2 g1 on alpha".to_owned()), "{next:?}");
}

fn stopped(incarnation: u64) -> IncarnationExit {
    let reason = Some(Exit::STOPPED.to_owned());
    IncarnationExit { exit: Exit { reason, ..code(0) }, ..exit(incarnation) }
}

fn draining() -> Outcome {
    Outcome::Record(ControlEvent::NodeDraining { node: node_name("alpha") })
}

#[test]
fn what_went_down_with_a_process_that_could_not_say_so_is_no_crash() {
    let fleet = running();
    let found = |succeeds: &[u64], exits: Vec<IncarnationExit>, runs: &[u64]| {
        let status = NodeStatus { exits, ..successor(succeeds, runs) };
        let mut out = eyes(0).node_report(&fleet.state, 1_000, &status);
        out.retain(|one| matches!(one, Outcome::Record(_)));
        out
    };
    let stops = |record: &Outcome| *record == draining();
    assert!(!found(&[1], vec![exit(1)], &[]).iter().any(stops), "it crashed");
    assert!(!found(&[7], vec![stopped(1)], &[]).iter().any(stops), "maybe another one's");
    assert!(!found(&[1], vec![stopped(1)], &[9]).iter().any(stops), "something goes on");
    let out = found(&[1], vec![stopped(1)], &[]);
    assert_eq!(out.len(), 3, "{out:?}");
    assert_eq!((&out[0], &out[2]), (&draining(), &seen(&twin(&[]))));
    let mut fleet = running();
    for record in out {
        let Outcome::Record(event) = record else { panic!("it is a record") };
        fleet.record(event);
    }
    let agent = fleet.state.agent(&mender()).expect("it is there");
    assert_eq!((agent.restart_count, agent.incarnation), (0, 2));
}

#[test]
fn what_ended_with_a_node_that_was_going_down_is_no_crash_however_late_it_is_told() {
    let mut fleet = running();
    fleet.record(ControlEvent::NodeDraining { node: node_name("alpha") });
    let status = NodeStatus { exits: vec![exit(1)], ..successor(&[1], &[]) };
    let mut out = eyes(0).node_report(&fleet.state, 1_000, &status);
    out.retain(|one| matches!(one, Outcome::Record(_)));
    assert_eq!(out, [exited(1), seen(&twin(&[]))]);
}
