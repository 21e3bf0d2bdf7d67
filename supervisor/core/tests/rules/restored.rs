//! A fleet that goes on from a backup: nothing of it runs, and no number is given again.

use common::api::AgentState;
use common::control::ControlEvent;
use common::snapshot::Logged;
use common::spec::Sanctum;
use common::{AgentName, Timestamp};
use supervisor_core::{NodePhase, restore, snapshot};

use crate::fleet::{Fleet, NOTHING, agent_name, code, node_name, signal, soul};

const BASE: u64 = 1_000_000;

/// The log goes on behind other sequences, as a backup is restored.
fn restored(fleet: &mut Fleet) -> Vec<String> {
    fleet.state = fleet.state.clone().shifted(5_000);
    fleet.seq += 5_000;
    let taken = Timestamp::from_millis(fleet.now);
    let event = ControlEvent::FleetRestored { backup: "b".into(), taken, incarnations: BASE };
    let actions = fleet.record(event);
    fleet.elect();
    actions
}

fn number(fleet: &Fleet, agent: &str) -> u64 {
    fleet.state.agent(&agent_name(agent)).expect("it is there").incarnation
}

#[test]
fn what_ran_starts_anew_above_every_number_that_was_given() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let before = fleet.state.term();
    assert_eq!(restored(&mut fleet), NOTHING);
    assert!(fleet.state.term() > before + 5_000, "the term rises with the sequences");
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Error, 0));
    assert!(fleet.mender().admit().is_none(), "nothing is handed over");
    assert_eq!(fleet.mender().floor, 0, "the journal has other sequences");
    let alpha = fleet.state.node(&node_name("alpha")).expect("known");
    assert_eq!((alpha.phase, alpha.incarnations), (NodePhase::Lost, 0));

    let actions = fleet.node("alpha");
    assert_eq!(actions[0], format!("start mender.{} g1 on alpha", BASE + 1));
    let actions = fleet.ready(BASE + 1);
    assert!(
        actions.contains(&format!("admit mender.{} from {} after -", BASE + 1, 7 * (BASE + 1))),
        "{actions:?}"
    );
    // What is left of the one before says nothing any more.
    assert_eq!(fleet.exited(1, signal(9)), NOTHING);
    assert_eq!(fleet.returned(1, "alpha"), NOTHING);
}

#[test]
fn an_agent_that_the_backup_does_not_know_counts_above_it_too() {
    let mut fleet = Fleet::new();
    restored(&mut fleet);
    fleet.node("alpha");
    fleet.apply(soul("mender", "v1"));
    assert_eq!(number(&fleet, "mender"), BASE + 1);
}

#[test]
fn what_was_removed_and_what_was_being_removed_counts_above_it() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.apply(soul("other", "v1"));
    fleet.ready_of("other", 1);
    fleet.remove();
    fleet.exited(1, code(0));
    let other: AgentName = agent_name("other");
    fleet.record(ControlEvent::AgentRemoved { agent: other.clone() });
    restored(&mut fleet);
    assert!(fleet.state.agent(&other).is_none(), "nothing of it is left to end");
    fleet.node("alpha");
    for name in ["mender", "other"] {
        fleet.apply(soul(name, "v2"));
        assert_eq!(number(&fleet, name), BASE + 1, "{name}");
        let agent = fleet.state.agent(&agent_name(name)).expect("there");
        assert_eq!((agent.generation, agent.floor), (2, 0), "{name}");
    }
}

#[test]
fn what_was_stopped_or_held_stays_so_and_what_waited_for_a_restart_starts() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.stop();
    restored(&mut fleet);
    fleet.node("alpha");
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Stopped, 0));
    assert_eq!(fleet.start()[0], format!("start mender.{} g1 on alpha", BASE + 1));

    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.exited(1, code(1));
    assert!(fleet.next_try().is_some());
    restored(&mut fleet);
    assert_eq!(fleet.next_try(), None);
    assert_eq!(fleet.node("alpha")[0], format!("start mender.{} g1 on alpha", BASE + 1));
}

#[test]
fn data_stays_where_it_was() {
    let mut spec = soul("mender", "v1");
    let (host, path) = ("/srv".into(), "/data".into());
    spec.sanctums.push(Sanctum { host, path, read_only: false, shared: false });
    let mut fleet = Fleet::with_mender(spec);
    restored(&mut fleet);
    assert_eq!(fleet.node("beta"), NOTHING, "its SANCTUM is on alpha");
    assert!(fleet.reason().contains("alpha"), "{}", fleet.reason());
    assert_eq!(fleet.node("alpha")[0], format!("start mender.{} g1 on alpha", BASE + 1));
}

#[test]
fn generations_that_were_ready_can_be_gone_back_to() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.apply(soul("mender", "v2"));
    fleet.ready(2);
    fleet.exited(1, code(0));
    let before = fleet.mender().last_good().map(|(generation, _)| generation);
    assert_eq!(before, Some(1));
    restored(&mut fleet);
    assert_eq!(fleet.mender().last_good().map(|(generation, _)| generation), before);
    assert_eq!(fleet.node("alpha")[0], format!("start mender.{} g2 on alpha", BASE + 1));
}

#[test]
fn only_a_fleet_that_was_restored_has_snapshots_of_the_newest_layout() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    let of = |fleet: &Fleet| snapshot(&fleet.state, &Logged::default()).expect("a state");
    assert_eq!(of(&fleet).0.format, 3);
    restored(&mut fleet);
    let (head, json) = of(&fleet);
    assert_eq!(head.format, 6);
    assert_eq!(restore(&head, &json).as_ref().map(supervisor_core::State::base), Ok(BASE));
}
