//! What holds after any sequence of records, sensible or not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::control::{ControlEvent, ControlRecord, Timer};
use common::shim::Exit;
use common::spec::{AgentSpec, Replace, RestartPolicy, Sanctum};
use common::{AgentName, Capacity, Load, NodeName, Timestamp};
use proptest::prelude::*;
use supervisor_core::{
    Action, Agent, Carry, Desired, Hold, Moving, NodePhase, Phase, State, allocate, drain, resume,
    step,
};

/// A record to be: incarnations and terms are chosen among those that mean something when it is written.
#[derive(Debug, Clone)]
struct Move {
    kind: u8,
    agent: u8,
    node: u8,
    variant: u8,
    /// Which incarnation, counted back from the highest.
    back: u8,
    stale: bool,
    later: u16,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (0..46_u8, 0..2_u8, 0..3_u8, 0..8_u8, 0..3_u8, 0..12_u8, 0..20_000_u16).prop_map(
        |(kind, agent, node, variant, back, stale, later)| {
            let stale = stale == 0;
            Move { kind, agent, node, variant, back, stale, later }
        },
    );
    prop::collection::vec(one, 1..150)
}

fn agent_name(index: u8) -> AgentName {
    AgentName::new(format!("agent-{index}")).expect("valid")
}

fn node_name(index: u8) -> NodeName {
    NodeName::new(format!("node-{index}")).expect("valid")
}

fn spec(agent: AgentName, variant: u8) -> AgentSpec {
    let mut spec = AgentSpec::new(agent, "test/model", format!("v{}", variant % 4));
    spec.replace =
        Some(if variant.is_multiple_of(2) { Replace::StartFirst } else { Replace::StopFirst });
    // One node in three has the label: some generations can run where others cannot.
    if variant >= 6 {
        spec.require.insert("gpu".into(), "yes".into());
    }
    // Two of them are too much for some nodes.
    spec.limits.memory = variant.is_multiple_of(3).then_some(u64::from(variant) << 20);
    if variant == 3 || variant == 4 {
        let (host, path) = ("/srv".into(), "/data".into());
        spec.sanctums.push(Sanctum { host, path, read_only: false, shared: false });
    }
    spec.restart.max = 3;
    match variant % 4 {
        0 => {}
        1 => spec.restart.backoff_first = Duration::ZERO,
        2 => spec.restart.policy = RestartPolicy::OnFailure,
        _ => spec.restart.policy = RestartPolicy::Never,
    }
    spec
}

impl Move {
    fn generation(&self, state: &State) -> u64 {
        let agent = agent_name(self.agent);
        let newest = state.agent(&agent).map_or(1, |agent| agent.generation);
        newest.saturating_sub(u64::from(self.variant % 2))
    }

    fn event(&self, state: &State) -> ControlEvent {
        let agent = agent_name(self.agent);
        let node = node_name(self.node);
        let highest = state.agent(&agent).map_or(0, |agent| agent.incarnation);
        let incarnation = highest.saturating_sub(u64::from(self.back));
        let exit = Exit { code: Some(i32::from(self.variant) - 1), ..Exit::default() };
        match self.kind {
            0..=2 => {
                let spec = Box::new(spec(agent, self.variant));
                ControlEvent::AgentApplied { spec, force: self.back == 0, asked: None }
            }
            3 => ControlEvent::AgentStarted { agent },
            4 => ControlEvent::AgentStopped { agent },
            5 => ControlEvent::AgentRestarted { agent },
            6 => ControlEvent::AgentReplaced { agent },
            7 => ControlEvent::AgentRemoved { agent },
            8 | 9 => ControlEvent::NodeSeen {
                node,
                instance: u64::from(self.variant),
                runtimes: vec!["process".into()],
                labels: if self.node == 2 {
                    vec![("gpu".into(), "yes".into())]
                } else {
                    Vec::new()
                },
                capacity: Capacity {
                    agents: (self.back == 1).then_some(1),
                    memory: (self.back == 2).then_some(9 << 20),
                    milli_cpus: None,
                },
            },
            10 => ControlEvent::NodeDraining { node },
            11 => ControlEvent::NodeLost { node },
            12..=14 => ControlEvent::IncarnationReady { agent, incarnation, floor: 3 },
            15..=17 => {
                ControlEvent::IncarnationExited { agent, incarnation, exit, clean: self.back == 0 }
            }
            18 => ControlEvent::StartFailed { agent, incarnation, reason: "no".into() },
            19 => ControlEvent::IncarnationStable { agent, incarnation },
            20 => ControlEvent::TimerFired { agent, timer: Timer::Ready, incarnation, said: None },
            21 => ControlEvent::TimerFired { agent, timer: Timer::Drain, incarnation, said: None },
            22 => {
                ControlEvent::TimerFired { agent, timer: Timer::Restart, incarnation, said: None }
            }
            23 => ControlEvent::IncarnationBegun { agent, incarnation },
            25 => ControlEvent::IncarnationDrained { agent, incarnation },
            26 => ControlEvent::MessagesForgotten {
                agent,
                by: "ada@host".into(),
                done: false,
                conversation: false,
                before: None,
                messages: 1,
                records: 2,
                bytes: 3,
            },
            24 => ControlEvent::IncarnationHung { agent, incarnation, silent_for: 30 },
            27 | 28 => ControlEvent::IncarnationReturned {
                agent,
                incarnation,
                generation: self.generation(state),
                node,
            },
            // As the leader answers; or as one that knew less would.
            29..=34 => supervisor_core::allocate(state, &agent).unwrap_or(
                ControlEvent::IncarnationAllocated {
                    agent,
                    incarnation: (highest + 1).saturating_sub(u64::from(self.back)),
                    generation: self.generation(state),
                    node,
                },
            ),
            35 | 36 => ControlEvent::NodeDrained { node, parallel: 1 },
            37 => ControlEvent::NodeUndrained { node },
            38 => ControlEvent::NodeRemoved { node },
            39 => ControlEvent::AgentMoved { agent, to: node },
            41 => ControlEvent::AgentMoved { agent, to: node },
            42 | 43 => {
                let copy = copy_of(state, &agent, self.back);
                let copied = if self.back == 0 { vec!["/srv".into()] } else { Vec::new() };
                ControlEvent::SanctumMoved { agent, copy, copied }
            }
            44 => {
                let copy = copy_of(state, &agent, self.back);
                ControlEvent::SanctumNotMoved { agent, copy, reason: "no".into() }
            }
            45 => {
                let copy = copy_of(state, &agent, 0);
                ControlEvent::SanctumKept { agent, copy, folders: vec!["/old".into()] }
            }
            _ => ControlEvent::LeaderElected {
                supervisor: "s".into(),
                run: self.variant.to_string(),
                // Builds become newer.
                rules: state.rules().max(1 + u32::from(self.variant % 6)),
            },
        }
    }
}

/// The number of an agent's last copy, or one that there never was.
fn copy_of(state: &State, agent: &AgentName, back: u8) -> u64 {
    let carry = state.agent(agent).and_then(|agent| agent.carry.as_ref());
    carry.map_or(0, |carry| carry.copy).saturating_sub(u64::from(back / 2))
}

/// A log with its fold, and what the actions so far have promised.
#[derive(Default)]
struct Run {
    state: State,
    log: Vec<(Timestamp, ControlRecord)>,
    now: u64,
    started: BTreeMap<AgentName, u64>,
    admitted: BTreeMap<AgentName, u64>,
    /// What each incarnation was started for.
    generations: BTreeMap<(AgentName, u64), u64>,
    timers: BTreeSet<(AgentName, Timer, u64, Timestamp)>,
}

impl Run {
    fn of(moves: &[Move]) -> Self {
        let mut run = Self::default();
        for one in moves {
            run.make(one);
        }
        run
    }

    fn make(&mut self, one: &Move) {
        self.now += u64::from(one.later);
        let mut event = one.event(&self.state);
        if let ControlEvent::IncarnationReturned { agent, incarnation, generation, .. } = &mut event
            && let Some(known) = self.generations.get(&(agent.clone(), *incarnation))
        {
            // Of which generation it is, the node has from whoever started it: that is never another one.
            *generation = *known;
        }
        let elects = matches!(event, ControlEvent::LeaderElected { .. });
        let term = if one.stale {
            self.state.term().checked_sub(1)
        } else {
            event.is_leaders().then_some(self.state.term())
        };
        let at = Timestamp::from_millis(self.now);
        // An author's clock decides nothing.
        let odd = Timestamp::from_millis(u64::from(one.later).wrapping_mul(31_337));
        let record = ControlRecord { id: None, at: odd, term, author: "test".into(), event };
        self.log.push((at, record.clone()));
        let before = self.state.clone();
        let seq = self.log.len() as u64;
        let actions = step(&mut self.state, seq, at, &record);
        if elects {
            assert!(actions.is_empty());
            assert_eq!(self.state.term(), seq, "a term is the sequence of its election");
        }
        if record.event.is_leaders() && one.stale && !elects {
            assert!(actions.is_empty(), "a deposed leader decided");
            assert!(same(&before, &self.state), "a deposed leader changed something");
            return;
        }
        if let ControlEvent::TimerFired { agent, timer, incarnation, .. } = &record.event {
            self.timers.retain(|(of, which, number, _)| {
                (of, which, number) != (agent, timer, incarnation)
            });
        }
        for action in &actions {
            self.take(action);
        }
        for agent in self.state.agents() {
            for one in agent.incarnations() {
                let of = (agent.name.clone(), one.number);
                self.generations.entry(of).or_insert(one.generation);
            }
        }
        for agent in self.state.agents() {
            check_agent(&self.state, agent);
        }
        self.check_all(elects);
    }

    fn take(&mut self, action: &Action) {
        match action {
            Action::Start { node, agent, incarnation, generation, .. } => {
                let last = self.started.insert(agent.clone(), *incarnation).unwrap_or(0);
                assert!(*incarnation > last, "an incarnation number was given twice");
                let node = self.state.node(node).expect("it was placed there");
                assert_eq!(node.phase, NodePhase::Up);
                assert_eq!(node.drained, None, "a drained node gets a new incarnation");
                let agent = self.state.agent(agent).expect("it was started");
                let spec = agent.spec_of(*generation).expect("nobody knows what to start");
                if self.state.rules() >= 4 {
                    let ours = agent.incarnations().filter(|one| one.node == node.name);
                    let ours = ours.filter_map(|one| agent.spec_of(one.generation));
                    let ours =
                        ours.fold(Load::default(), |load, spec| load.max(Load::of(&spec.limits)));
                    let others = node.load.minus(ours);
                    assert_eq!(node.capacity.lacks(others, Load::of(&spec.limits)), None);
                    let pin = agent.pin.as_ref().filter(|_| spec.pins().is_some());
                    // Data on a node that was removed are waited for by nobody.
                    let pin = pin.filter(|pin| self.state.node(pin).is_some());
                    assert!(pin.is_none_or(|pin| *pin == node.name), "it is without its data");
                    assert!(!agent.is_carried(), "it was started while its data is copied");
                }
            }
            Action::Admit { agent, incarnation, .. } => {
                let last = self.admitted.insert(agent.clone(), *incarnation).unwrap_or(0);
                assert!(*incarnation > last, "an earlier incarnation was admitted later");
            }
            Action::SetTimer { agent, timer, incarnation, at } => {
                self.timers.insert((agent.clone(), *timer, *incarnation, *at));
            }
            Action::CancelTimer { agent, timer, incarnation } => {
                self.timers.retain(|(of, which, number, _)| {
                    (of, which, number) != (agent, timer, incarnation)
                });
            }
            Action::Stop { .. } => {}
            Action::Allocate { agent } => {
                let agent = self.state.agent(agent).expect("it asked");
                assert!(agent.wanted.is_some(), "asked for, and not wanted");
            }
            Action::Ask { .. } | Action::Refuse { .. } | Action::Dismiss { .. } => {
                unreachable!("the fold asks for none of these")
            }
        }
    }

    fn check_all(&self, elects: bool) {
        // A new leader finds all that is outstanding, and nothing else.
        let again = resume(&self.state);
        let asks = |agent: &Agent| {
            let asked = Action::Allocate { agent: agent.name.clone() };
            again.iter().filter(|action| **action == asked).count()
        };
        for agent in self.state.agents() {
            assert_eq!(asks(agent), usize::from(agent.wanted.is_some()));
            for one in agent.incarnations() {
                let told = again.iter().any(|action| match action {
                    Action::Start { agent: of, incarnation, .. } => {
                        one.phase == Phase::Starting
                            && (of, *incarnation) == (&agent.name, one.number)
                    }
                    Action::Stop { agent: of, incarnation, .. } => {
                        one.phase == Phase::Draining
                            && (of, *incarnation) == (&agent.name, one.number)
                    }
                    Action::Allocate { .. }
                    | Action::Ask { .. }
                    | Action::Refuse { .. }
                    | Action::Dismiss { .. }
                    | Action::Admit { .. }
                    | Action::SetTimer { .. }
                    | Action::CancelTimer { .. } => false,
                });
                assert_eq!(told, one.phase != Phase::Ready, "{one:?}");
            }
        }
        let timers: BTreeSet<_> = again
            .iter()
            .filter_map(|action| match action {
                Action::SetTimer { agent, timer, incarnation, at } => {
                    Some((agent.clone(), *timer, *incarnation, *at))
                }
                Action::Allocate { .. }
                | Action::Ask { .. }
                | Action::Refuse { .. }
                | Action::Dismiss { .. }
                | Action::Start { .. }
                | Action::Stop { .. }
                | Action::Admit { .. }
                | Action::CancelTimer { .. } => None,
            })
            .collect();
        assert_eq!(timers, self.timers, "a new leader would keep other timers than the old one");
        let open = |agent: &&Agent| agent.carry.as_ref().is_some_and(Carry::is_open);
        let open: Vec<_> = self.state.agents().filter(open).map(|agent| &agent.name).collect();
        let known: Vec<_> = self.state.carrying().map(|agent| &agent.name).collect();
        assert_eq!(open, known, "copies that nobody would go on with");
        for node in self.state.nodes() {
            let all = self.state.agents().flat_map(Agent::incarnations);
            let there = all.filter(|one| one.node == node.name).count();
            assert_eq!(usize::try_from(node.incarnations), Ok(there));
            let load = self.state.agents().map(|agent| load_on(agent, &node.name));
            assert_eq!(node.load, load.fold(Load::default(), Load::plus));
            let leaves = |agent: &&Agent| {
                agent.moving == Some(Moving::From(node.name.clone())) && !agent.is_settled()
            };
            assert!(self.state.agents().filter(leaves).count() <= 1, "more than one at a time");
            if let Some(drain) = drain(&self.state, &node.name) {
                let is_up = node.phase == NodePhase::Up;
                // An election alone leads to nothing.
                let waits =
                    is_up && !elects && drain.moving.is_empty() && !drain.waiting.is_empty();
                assert!(!waits, "nobody moves, and some wait: {drain:?}");
            }
            assert!(there == 0 || node.phase != NodePhase::Lost);
        }
    }
}

fn load_on(agent: &Agent, node: &NodeName) -> Load {
    let there = agent.incarnations().filter(|one| one.node == *node);
    let specs = there.filter_map(|one| agent.spec_of(one.generation));
    specs.fold(Load::default(), |load, spec| load.max(Load::of(&spec.limits)))
}

fn check_agent(state: &State, agent: &Agent) {
    if agent.wanted.is_some() {
        assert!(allocate(state, &agent.name).is_some(), "no node takes what is wanted");
    }
    let waits = agent.hold == Some(Hold::NoNode) && agent.incarnations().next().is_none();
    if state.rules() >= 4 && waits && agent.wanted.is_none() {
        let able = supervisor_core::verdicts(state, agent).into_iter().find(|it| it.why.is_none());
        assert_eq!(able, None, "it waits for a node, and there is one");
    }
    let begun = agent.begun.unwrap_or(0);
    assert!(agent.retiring.iter().all(|one| one.number != begun), "it may still take messages");
    if let Some(next) = &agent.next {
        assert!(agent.current.is_some(), "a next one without a current one");
        assert!(next.number > begun, "a next one takes messages");
        assert_ne!(next.phase, Phase::Draining);
    }
    if let Some(current) = agent.current.as_ref().filter(|one| one.phase == Phase::Ready) {
        assert_eq!(current.number, begun, "a ready one was not admitted");
        assert!(!agent.begun_clean, "its books are not settled while it runs");
    }
    if let Some(wanted) = &agent.wanted {
        assert!(agent.spec_of(wanted.generation).is_some(), "nobody knows what to start");
        assert!(agent.next.is_none());
        assert_eq!(wanted.beside, agent.current.is_some(), "{wanted:?}");
    }
    assert_eq!(agent.hold == Some(Hold::Backoff), agent.next_try.is_some());
    assert!(agent.incarnations().all(|one| one.number <= agent.incarnation));
    assert!(agent.incarnations().all(|one| agent.spec_of(one.generation).is_some()));
    assert!(agent.good.len() <= 2, "more is kept than can be gone back to");
    assert!(agent.good.iter().all(|generation| agent.spec_of(*generation).is_some()));
    if agent.is_rolled_back() {
        assert!(agent.good.contains(&agent.target), "rolled back to what was never ready");
        assert!(!agent.good.contains(&agent.generation), "rolled back from what was ready");
        assert!(agent.given_up.is_some());
    }
    match agent.desired {
        Desired::Stopped => {
            assert!(agent.next.is_none() && agent.hold.is_none() && agent.wanted.is_none());
            assert!(agent.incarnations().all(|one| one.phase == Phase::Draining));
        }
        Desired::Running => {
            // While its SANCTUM is copied, the leader watches the copy.
            let is_carried = agent.carry.as_ref().is_some_and(|carry| carry.end.is_none());
            let waits = agent.hold.is_some()
                || agent.wanted.is_some()
                || !agent.retiring.is_empty()
                || is_carried;
            assert!(agent.current.is_some() || waits, "{} is forgotten", agent.name);
            assert!(!agent.removing);
        }
    }
    assert!(!supervisor_core::explain(state, &agent.name).is_empty());
}

fn same(one: &State, other: &State) -> bool {
    one.agents().eq(other.agents()) && one.nodes().eq(other.nodes()) && one.term() == other.term()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_after_every_record(moves in moves()) {
        Run::of(&moves);
    }

    #[test]
    fn a_snapshot_in_between_changes_nothing(moves in moves(), cut in any::<prop::sample::Index>()) {
        let run = Run::of(&moves);
        let cut = cut.index(run.log.len());
        let mut state = State::default();
        for (seq, (at, record)) in (1..).zip(&run.log[..cut]) {
            step(&mut state, seq, *at, record);
        }
        let snapshot = serde_json::to_string(&state).expect("a state is plain");
        let mut state: State = serde_json::from_str(&snapshot).expect("what we wrote");
        // The follower begins a little too early: what was folded already is skipped.
        let from = cut.saturating_sub(3);
        for (seq, (at, record)) in (from as u64 + 1..).zip(&run.log[from..]) {
            step(&mut state, seq, *at, record);
        }
        prop_assert_eq!(state, run.state);
    }

    #[test]
    fn records_survive_json_and_fold_the_same(moves in moves()) {
        let run = Run::of(&moves);
        let mut state = State::default();
        for (seq, (at, record)) in (1..).zip(&run.log) {
            let json = serde_json::to_string(record).expect("a record is plain");
            let record = serde_json::from_str(&json).expect("what we wrote");
            step(&mut state, seq, *at, &record);
        }
        prop_assert_eq!(state, run.state);
    }
}
