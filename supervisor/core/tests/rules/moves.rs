//! Drained nodes, moves, and what evens out.

use common::api::AgentState;
use common::control::ControlEvent;
use common::spec::Sanctum;
use supervisor_core::{drain, explain, rebalance};

use crate::fleet::{Fleet, NOTHING, agent_name, code, mender, node_name, soul, stop_first};

impl Fleet {
    fn drain_node(&mut self, node: &str, parallel: u32) -> Vec<String> {
        self.record(ControlEvent::NodeDrained { node: node_name(node), parallel })
    }

    fn undrain(&mut self, node: &str) -> Vec<String> {
        self.record(ControlEvent::NodeUndrained { node: node_name(node) })
    }

    pub(crate) fn move_to(&mut self, node: &str) -> Vec<String> {
        self.record(ControlEvent::AgentMoved { agent: mender(), to: node_name(node) })
    }

    fn drained_of(&mut self, agent: &str, incarnation: u64) -> Vec<String> {
        let agent = agent_name(agent);
        self.record(ControlEvent::IncarnationDrained { agent, incarnation })
    }

    fn exited_of(&mut self, agent: &str, incarnation: u64) -> Vec<String> {
        let (agent, exit, clean) = (agent_name(agent), code(0), true);
        self.record(ControlEvent::IncarnationExited { agent, incarnation, exit, clean })
    }

    /// Names of those that move, wait and stay.
    fn stand(&self, node: &str) -> [String; 3] {
        let drain = drain(&self.state, &node_name(node)).expect("it is drained");
        let names = |agents: &mut dyn Iterator<Item = String>| agents.collect::<Vec<_>>().join(" ");
        [
            names(&mut drain.moving.iter().map(ToString::to_string)),
            names(&mut drain.waiting.iter().map(ToString::to_string)),
            names(&mut drain.staying.iter().map(|(agent, why)| format!("{agent}: {why}"))),
        ]
    }

    fn node_of_agent(&self, agent: &str) -> String {
        let agent = self.state.agent(&agent_name(agent)).expect("it is there");
        agent.current.as_ref().map(|one| one.node.to_string()).unwrap_or_default()
    }
}

/// Three agents run on alpha, and beta is empty.
fn three() -> Fleet {
    let mut fleet = Fleet::new();
    for agent in ["a", "b", "c"] {
        fleet.apply(soul(agent, "v1"));
        fleet.ready_of(agent, 1);
    }
    fleet.node("beta");
    fleet
}

fn stands(moving: &str, waiting: &str, staying: &str) -> [String; 3] {
    [moving, waiting, staying].map(str::to_owned)
}

#[test]
fn a_drained_node_is_left_one_by_one_start_first() {
    let mut fleet = three();
    assert_eq!(fleet.drain_node("alpha", 1)[0], "start a.2 g1 on beta beside");
    assert_eq!(fleet.stand("alpha"), stands("a", "b c", ""));
    // The next one follows once this one takes messages there, and not before.
    assert_eq!(fleet.ready_of("a", 2)[1], "stop a.1 within 30000");
    assert_eq!(fleet.stand("alpha"), stands("a", "b c", ""));
    let actions = fleet.drained_of("a", 1);
    assert!(actions[0].starts_with("admit a.2"), "{actions:?}");
    assert_eq!(actions[1], "start b.2 g1 on beta beside");
    fleet.exited_of("a", 1);
    fleet.ready_of("b", 2);
    assert_eq!(fleet.exited_of("b", 1)[2], "start c.2 g1 on beta beside");
    fleet.ready_of("c", 2);
    fleet.exited_of("c", 1);
    assert_eq!(fleet.stand("alpha"), stands("", "", ""));
    // Nothing is started there, until it is undrained; not by its own restart either.
    assert_eq!(fleet.apply(soul("d", "v1"))[0], "start d.1 g1 on beta");
    fleet.node_of("alpha", 7);
    assert_eq!(fleet.apply(soul("e", "v1"))[0], "start e.1 g1 on beta");
    assert_eq!(fleet.undrain("alpha"), NOTHING);
    assert_eq!(fleet.apply(soul("f", "v1"))[0], "start f.1 g1 on alpha");
}

#[test]
fn a_drain_moves_so_many_at_a_time() {
    let mut fleet = three();
    let actions = fleet.drain_node("alpha", 2);
    let starts: Vec<_> = actions.iter().filter(|action| action.starts_with("start")).collect();
    assert_eq!(starts, ["start a.2 g1 on beta beside", "start b.2 g1 on beta beside"]);
    assert_eq!(fleet.stand("alpha"), stands("a b", "c", ""));
}

#[test]
fn what_is_undrained_moves_nobody_more() {
    let mut fleet = three();
    fleet.drain_node("alpha", 1);
    fleet.undrain("alpha");
    fleet.ready_of("a", 2);
    fleet.exited_of("a", 1);
    assert_eq!(fleet.node_of_agent("a"), "beta", "what was under way goes on");
    assert_eq!(fleet.node_of_agent("b"), "alpha");
    assert_eq!(drain(&fleet.state, &node_name("alpha")), None);
}

#[test]
fn a_successor_that_is_not_ready_leaves_the_agent_where_it_is_and_the_others_go() {
    let mut fleet = three();
    fleet.drain_node("alpha", 1);
    let a = agent_name("a");
    let actions = fleet.start_failed_of("a", 2);
    assert!(actions.contains(&"start b.2 g1 on beta beside".to_owned()), "{actions:?}");
    assert_eq!(fleet.stand("alpha"), stands("b", "c", "a: it did not become ready on beta"));
    let lines = explain(&fleet.state, &a).join(" ");
    let said = "It stays on alpha, which is drained: it did not become ready on beta.";
    assert!(lines.contains(said), "{lines}");
    // Another node is another chance; so is some time.
    fleet.node("gamma");
    assert_eq!(fleet.stand("alpha"), stands("b", "a c", ""));
    fleet.ready_of("b", 2);
    let next = fleet.exited_of("b", 1);
    assert!(next.contains(&"start a.3 g1 on gamma beside".to_owned()), "{next:?}");
}

#[test]
fn what_no_other_node_can_run_stays_and_goes_on() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    assert_eq!(fleet.drain_node("alpha", 1), NOTHING);
    let why = "mender: no node can run it: alpha is drained";
    assert_eq!(fleet.stand("alpha"), stands("", "", why));
    assert_eq!((fleet.agent_state(), fleet.reason()), (AgentState::Running, ""));
    // As soon as one can, it goes.
    assert_eq!(fleet.node("beta")[0], "start mender.2 g1 on beta beside");
    // A drained node that is lost is like any other.
    fleet.lose("alpha");
    fleet.ready(2);
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Running, 2));
}

#[test]
fn stop_first_is_kept_and_an_agent_that_only_starts_begins_elsewhere() {
    let mut fleet = Fleet::new();
    fleet.apply(stop_first(soul("a", "v1")));
    fleet.ready_of("a", 1);
    fleet.apply(soul("b", "v1"));
    fleet.node("beta");
    assert_eq!(fleet.drain_node("alpha", 1)[0], "stop a.1 within 30000");
    // It counts until it takes messages elsewhere.
    assert_eq!(fleet.exited_of("a", 1)[1], "start a.2 g1 on beta");
    assert_eq!(fleet.stand("alpha"), stands("a", "b", ""));
    let actions = fleet.ready_of("a", 2);
    assert!(actions.contains(&"start b.2 g1 on beta".to_owned()), "{actions:?}");
}

#[test]
fn an_agent_that_is_moved_takes_over_on_that_node() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    for index in 0..3 {
        fleet.apply(soul(&format!("x{index}"), "v1"));
    }
    fleet.node("beta");
    fleet.node("gamma");
    fleet.apply(soul("y", "v1"));
    // Not the emptiest: the one that was asked for.
    assert_eq!(fleet.move_to("beta")[0], "start mender.2 g1 on beta beside");
    assert_eq!(fleet.move_to("beta"), NOTHING);
    // Another wish: what starts for the first one is given up.
    let actions = fleet.move_to("gamma");
    assert!(actions.contains(&"start mender.3 g1 on gamma beside".to_owned()), "{actions:?}");
    fleet.ready(3);
    fleet.drained(1);
    assert_eq!((fleet.current(), fleet.node_of_agent("mender")), (3, "gamma".to_owned()));
    assert_eq!(fleet.move_to("gamma"), NOTHING);
    assert_eq!(fleet.mender().moving, None);
}

#[test]
fn a_move_that_cannot_be_is_dropped_and_says_why() {
    let mut fleet = Fleet::with_mender(soul("mender", "v1"));
    fleet.node("beta");
    fleet.lose("beta");
    assert_eq!(fleet.move_to("beta"), NOTHING);
    assert_eq!(fleet.reason(), "not moved to beta: beta is lost; incarnation 1 keeps running");
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Running, 1));
    assert_eq!(fleet.move_to("nowhere"), NOTHING);
    assert!(fleet.reason().starts_with("not moved to nowhere: nowhere was removed"));
    // One whose place is lost before it was given out.
    fleet.node("beta");
    fleet.fold(None, ControlEvent::AgentMoved { agent: mender(), to: node_name("beta") });
    assert!(fleet.mender().wanted.is_some());
    fleet.lose("beta");
    assert_eq!((fleet.agent_state(), fleet.current()), (AgentState::Running, 1));
    assert!(fleet.mender().wanted.is_none());
    // What was stopped is not moved.
    fleet.node("beta");
    fleet.stop();
    assert_eq!(fleet.move_to("beta"), NOTHING);
}

#[test]
fn a_move_of_stop_first_stops_first_and_starts_there() {
    let mut fleet = Fleet::with_mender(stop_first(soul("mender", "v1")));
    fleet.node("beta");
    fleet.node("gamma");
    assert_eq!(fleet.move_to("gamma")[0], "stop mender.1 within 30000");
    assert_eq!(fleet.exited(1, code(0))[1], "start mender.2 g1 on gamma");
    // If that is gone meanwhile, anywhere.
    fleet.ready(2);
    fleet.move_to("beta");
    fleet.lose("beta");
    assert_eq!(fleet.exited(2, code(0))[1], "start mender.3 g1 on gamma");
}

#[test]
fn a_node_is_removed_only_when_it_is_lost_and_frees_what_was_pinned_to_it() {
    let mut spec = soul("mender", "v1");
    let (host, path) = ("/srv".into(), "/data".into());
    spec.sanctums.push(Sanctum { host, path, read_only: false, shared: false });
    let mut fleet = Fleet::with_mender(spec);
    fleet.node("beta");
    let removed = || ControlEvent::NodeRemoved { node: node_name("alpha") };
    assert_eq!(fleet.record(removed()), NOTHING);
    assert!(fleet.state.node(&node_name("alpha")).is_some(), "it is there");
    fleet.lose("alpha");
    assert_eq!(fleet.agent_state(), AgentState::Error);
    assert_eq!(fleet.record(removed())[0], "start mender.2 g1 on beta");
    assert!(fleet.state.node(&node_name("alpha")).is_none());
    // One that is there after all is a new one.
    fleet.node("alpha");
    assert!(fleet.state.node(&node_name("alpha")).is_some());
}

#[test]
fn moves_even_out_what_can_be_moved_and_no_more() {
    let mut fleet = Fleet::new();
    for index in 0..5 {
        let name = format!("a{index}");
        let spec = soul(&name, "v1");
        fleet.apply(if index == 0 { stop_first(spec) } else { spec });
        fleet.ready_of(&name, 1);
    }
    assert_eq!(rebalance(&fleet.state), []);
    fleet.node("beta");
    fleet.node_for("gamma", "agents=1");
    let shifts = rebalance(&fleet.state);
    let words: Vec<_> =
        shifts.iter().map(|one| format!("{} {} {}", one.agent, one.from, one.to)).collect();
    assert_eq!(words, ["a1 alpha beta", "a2 alpha gamma", "a3 alpha beta"]);
    for (shift, incarnation) in shifts.into_iter().zip([2, 2, 2]) {
        let name = shift.agent.to_string();
        fleet.record(ControlEvent::AgentMoved { agent: shift.agent, to: shift.to });
        fleet.ready_of(&name, incarnation);
        fleet.exited_of(&name, 1);
    }
    assert_eq!(rebalance(&fleet.state), [], "it is even");
    // Nothing is moved to a drained node.
    fleet.node("delta");
    fleet.drain_node("delta", 1);
    assert_eq!(rebalance(&fleet.state), []);
}
