//! A fleet in a few words: records in, actions out as one line each.
//!
//! Actions read like `start mender.1 g1 on alpha`, `timer ready mender.1 +60000` (milliseconds from now),
//! `stop mender.1 within 30000`, `admit mender.1 from 7 after -`, `cancel ready mender.1`.

use std::time::Duration;

use common::api::AgentState;
use common::control::{ControlEvent, ControlRecord, Timer};
use common::shim::Exit;
use common::spec::{AgentSpec, Replace};
use common::{AgentName, Capacity, NodeName, Timestamp};
use supervisor_core::{Action, Agent, State, allocate, step};

pub(crate) fn agent_name(name: &str) -> AgentName {
    AgentName::new(name).expect("a valid name")
}

pub(crate) fn node_name(name: &str) -> NodeName {
    NodeName::new(name).expect("a valid name")
}

/// A spec with a given identity, so that another identity is another spec.
pub(crate) fn soul(name: &str, identity: &str) -> AgentSpec {
    AgentSpec::new(agent_name(name), "test/model", identity)
}

pub(crate) fn stop_first(mut spec: AgentSpec) -> AgentSpec {
    spec.replace = Some(Replace::StopFirst);
    spec
}

pub(crate) fn code(code: i32) -> Exit {
    Exit { code: Some(code), ..Exit::default() }
}

pub(crate) fn signal(signal: i32) -> Exit {
    Exit { signal: Some(signal), ..Exit::default() }
}

pub(crate) struct Fleet {
    pub(crate) state: State,
    pub(crate) now: u64,
    pub(crate) term: u64,
    pub(crate) seq: u64,
}

impl Fleet {
    /// A leader, and no node.
    pub(crate) fn without_nodes() -> Self {
        let mut fleet = Self { state: State::default(), now: 1_000_000, term: 0, seq: 0 };
        fleet.elect();
        fleet
    }

    /// A leader, and the node `alpha` with the runtime `process`.
    pub(crate) fn new() -> Self {
        let mut fleet = Self::without_nodes();
        fleet.node("alpha");
        fleet
    }

    /// `mender` runs as incarnation 1 of generation 1 on `alpha`.
    pub(crate) fn with_mender(spec: AgentSpec) -> Self {
        let mut fleet = Self::new();
        fleet.apply(spec);
        fleet.ready(1);
        assert_eq!(fleet.agent_state(), AgentState::Running);
        fleet
    }

    pub(crate) fn later(&mut self, millis: u64) -> &mut Self {
        self.now += millis;
        self
    }

    // === Records ===

    pub(crate) fn record(&mut self, event: ControlEvent) -> Vec<String> {
        let term = event.is_leaders().then_some(self.term);
        self.record_of(term, event)
    }

    pub(crate) fn record_of(&mut self, term: Option<u64>, event: ControlEvent) -> Vec<String> {
        let actions = self.fold(term, event);
        self.lead(actions)
    }

    /// What a record alone leads to.
    pub(crate) fn fold(&mut self, term: Option<u64>, event: ControlEvent) -> Vec<Action> {
        self.seq += 1;
        let at = Timestamp::from_millis(self.now);
        // An author's clock decides nothing.
        let odd = Timestamp::from_millis(self.seq.wrapping_mul(7_777_777) % 3_000_000);
        let record = ControlRecord { id: None, at: odd, term, author: "test".into(), event };
        step(&mut self.state, self.seq, at, &record)
    }

    /// Does the leader's part: a start that is asked for gets its number and its place at once.
    fn lead(&mut self, actions: Vec<Action>) -> Vec<String> {
        let mut lines = Vec::new();
        for action in actions {
            let Action::Allocate { agent } = &action else {
                lines.push(self.line(&action));
                continue;
            };
            if let Some(event) = allocate(&self.state, agent) {
                lines.extend(self.record(event));
            }
        }
        lines
    }

    /// The term is the sequence of the election.
    pub(crate) fn elect(&mut self) -> u64 {
        self.elect_by(supervisor_core::RULES);
        self.term
    }

    pub(crate) fn elect_by(&mut self, rules: u32) {
        let run = format!("run-{}", self.seq);
        let supervisor = "supervisor".to_owned();
        let actions = self.fold(None, ControlEvent::LeaderElected { supervisor, run, rules });
        assert_eq!(actions, []);
        self.term = self.seq;
    }

    pub(crate) fn node(&mut self, name: &str) -> Vec<String> {
        self.node_with(name, "process", &[])
    }

    pub(crate) fn node_with(
        &mut self,
        name: &str,
        runtime: &str,
        labels: &[(&str, &str)],
    ) -> Vec<String> {
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        self.record(ControlEvent::NodeSeen {
            node: node_name(name),
            instance: 1,
            runtimes: vec![runtime.into()],
            labels,
            capacity: Capacity::default(),
        })
    }

    /// A node that can take so much.
    pub(crate) fn node_for(&mut self, name: &str, capacity: &str) -> Vec<String> {
        self.record(ControlEvent::NodeSeen {
            node: node_name(name),
            instance: 1,
            runtimes: vec!["process".into()],
            labels: Vec::new(),
            capacity: capacity.parse().expect("a capacity"),
        })
    }

    /// Another process of a node.
    pub(crate) fn node_of(&mut self, name: &str, instance: u64) -> Vec<String> {
        self.record(ControlEvent::NodeSeen {
            node: node_name(name),
            instance,
            runtimes: vec!["process".into()],
            labels: Vec::new(),
            capacity: Capacity::default(),
        })
    }

    pub(crate) fn returned(&mut self, incarnation: u64, node: &str) -> Vec<String> {
        self.record(ControlEvent::IncarnationReturned {
            agent: mender(),
            incarnation,
            generation: 1,
            node: node_name(node),
        })
    }

    pub(crate) fn lose(&mut self, node: &str) -> Vec<String> {
        self.record(ControlEvent::NodeLost { node: node_name(node) })
    }

    pub(crate) fn drain(&mut self, node: &str) -> Vec<String> {
        self.record(ControlEvent::NodeDraining { node: node_name(node) })
    }

    pub(crate) fn apply(&mut self, spec: AgentSpec) -> Vec<String> {
        let spec = Box::new(spec);
        self.record(ControlEvent::AgentApplied { spec, force: false, asked: None })
    }

    pub(crate) fn force(&mut self, spec: AgentSpec) -> Vec<String> {
        let spec = Box::new(spec);
        self.record(ControlEvent::AgentApplied { spec, force: true, asked: None })
    }

    pub(crate) fn start(&mut self) -> Vec<String> {
        self.record(ControlEvent::AgentStarted { agent: mender() })
    }

    pub(crate) fn stop(&mut self) -> Vec<String> {
        self.record(ControlEvent::AgentStopped { agent: mender() })
    }

    pub(crate) fn restart(&mut self) -> Vec<String> {
        self.record(ControlEvent::AgentRestarted { agent: mender() })
    }

    pub(crate) fn replace(&mut self) -> Vec<String> {
        self.record(ControlEvent::AgentReplaced { agent: mender() })
    }

    pub(crate) fn remove(&mut self) -> Vec<String> {
        self.record(ControlEvent::AgentRemoved { agent: mender() })
    }

    /// Ready, with a floor of seven times the incarnation.
    pub(crate) fn ready(&mut self, incarnation: u64) -> Vec<String> {
        let floor = incarnation * 7;
        self.record(ControlEvent::IncarnationReady { agent: mender(), incarnation, floor })
    }

    /// The handover to an incarnation is done.
    pub(crate) fn begun(&mut self, incarnation: u64) -> Vec<String> {
        self.record(ControlEvent::IncarnationBegun { agent: mender(), incarnation })
    }

    pub(crate) fn exited(&mut self, incarnation: u64, exit: Exit) -> Vec<String> {
        let clean = exit.code.is_some();
        self.record(ControlEvent::IncarnationExited { agent: mender(), incarnation, exit, clean })
    }

    pub(crate) fn start_failed_of(&mut self, agent: &str, incarnation: u64) -> Vec<String> {
        let (agent, reason) = (agent_name(agent), "no".into());
        self.record(ControlEvent::StartFailed { agent, incarnation, reason })
    }

    pub(crate) fn ready_of(&mut self, agent: &str, incarnation: u64) -> Vec<String> {
        let agent = agent_name(agent);
        self.record(ControlEvent::IncarnationReady { agent, incarnation, floor: 1 })
    }

    pub(crate) fn start_failed(&mut self, incarnation: u64, reason: &str) -> Vec<String> {
        let reason = reason.into();
        self.record(ControlEvent::StartFailed { agent: mender(), incarnation, reason })
    }

    pub(crate) fn drained(&mut self, incarnation: u64) -> Vec<String> {
        self.record(ControlEvent::IncarnationDrained { agent: mender(), incarnation })
    }

    pub(crate) fn hung(&mut self, incarnation: u64) -> Vec<String> {
        let agent = mender();
        self.record(ControlEvent::IncarnationHung { agent, incarnation, silent_for: 30 })
    }

    pub(crate) fn stable(&mut self, incarnation: u64) -> Vec<String> {
        self.record(ControlEvent::IncarnationStable { agent: mender(), incarnation })
    }

    pub(crate) fn fire(&mut self, timer: Timer, incarnation: u64) -> Vec<String> {
        self.record(ControlEvent::TimerFired { agent: mender(), timer, incarnation, said: None })
    }

    // === Questions ===

    pub(crate) fn mender(&self) -> &Agent {
        self.state.agent(&mender()).expect("mender is there")
    }

    pub(crate) fn agent_state(&self) -> AgentState {
        self.mender().state()
    }

    pub(crate) fn reason(&self) -> &str {
        self.mender().reason.as_deref().unwrap_or_default()
    }

    /// The number of the current incarnation; 0 is none.
    pub(crate) fn current(&self) -> u64 {
        self.mender().current.as_ref().map_or(0, |one| one.number)
    }

    /// Milliseconds until the next try.
    pub(crate) fn next_try(&self) -> Option<u64> {
        self.mender().next_try.map(|at| at.as_millis() - self.now)
    }

    pub(crate) fn resume(&self) -> Vec<String> {
        supervisor_core::resume(&self.state).iter().map(|action| self.line(action)).collect()
    }

    fn line(&self, action: &Action) -> String {
        let millis = |of: &Duration| of.as_millis();
        match action {
            Action::Allocate { agent } => format!("allocate {agent}"),
            Action::Ask { node } => format!("ask {node}"),
            Action::Refuse { node, instance } => format!("refuse {node} {instance}"),
            Action::Dismiss { agent, incarnation } => format!("dismiss {agent}.{incarnation}"),
            Action::Start { node, agent, generation, incarnation, warm, .. } => {
                let beside = if *warm { " beside" } else { "" };
                format!("start {agent}.{incarnation} g{generation} on {node}{beside}")
            }
            Action::Stop { agent, incarnation, within, .. } => {
                format!("stop {agent}.{incarnation} within {}", millis(within))
            }
            Action::Admit { agent, incarnation, floor, previous, previous_clean, earlier } => {
                let after = match (previous, previous_clean) {
                    (None, _) => "-".to_owned(),
                    (Some(number), true) => format!("{number} clean"),
                    (Some(number), false) => format!("{number}"),
                };
                let earlier: String =
                    earlier.iter().map(|one| format!(" and {}", one.incarnation)).collect();
                format!("admit {agent}.{incarnation} from {floor} after {after}{earlier}")
            }
            Action::SetTimer { agent, timer, incarnation, at } => {
                let wait = at.as_millis().saturating_sub(self.now);
                format!("timer {} {agent}.{incarnation} +{wait}", word(*timer))
            }
            Action::CancelTimer { agent, timer, incarnation } => {
                format!("cancel {} {agent}.{incarnation}", word(*timer))
            }
        }
    }
}

pub(crate) fn mender() -> AgentName {
    agent_name("mender")
}

fn word(timer: Timer) -> &'static str {
    match timer {
        Timer::Restart => "restart",
        Timer::Ready => "ready",
        Timer::Drain => "drain",
    }
}

/// No actions.
pub(crate) const NOTHING: [&str; 0] = [];
