//! What only the leader has: its observer, its timers, and the work in progress. Dropped when it no longer leads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use broker::{Moment, TransientMessage};
use common::control::{ControlEvent, ControlRecord, Timer};
use common::frame::{NodeCommandBody, NodeReport, ShimReport};
use common::{AgentName, NodeName, codec};
use supervisor_core::{Action, Ears, Observer, Outcome, ShimReady, State, resume};
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use super::admit::{Prepared, What};
use super::archive::Keeping;
use super::carry::Carries;
use super::deadlines::Deadlines;
use super::later::Later;
use super::queue::{Limits, Queue, Turn};
use super::schedules::Schedules;
use super::sweep::Sweep;
use super::timers::Timers;
use super::{Done, Supervisor};

/// A node's report that is older than this, in milliseconds, says nothing about now.
const FRESH: u64 = 2_000;

/// What a node does before an incarnation can start.
#[derive(Debug, Clone)]
pub(super) struct Preparing {
    incarnation: u64,
    /// When that was heard.
    at: u64,
    pub(super) doing: String,
}

impl Preparing {
    /// Whether it is still going on.
    pub(super) fn is_fresh(&self, incarnation: u64, now_ms: u64) -> bool {
        self.incarnation == incarnation && now_ms.saturating_sub(self.at) < 2 * FRESH
    }
}

/// A timer whose record did not get into the log fires again after this time.
const AGAIN: Duration = Duration::from_secs(1);
/// What a worker said that is not ready in time is looked up within this; else it is left out.
const SAYS_WITHIN: Duration = Duration::from_millis(500);

/// A leadership.
pub(super) struct Leading {
    /// The lease, as it was taken.
    pub(super) tenure: u64,
    /// It ends then, unless it is renewed.
    pub(super) until: Moment,
    /// It acts only once it has read its own election back from the log: then it knows all that was decided before. The
    /// election's sequence is the term.
    term: Option<u64>,
    /// Whether its election is on its way to the log.
    electing: bool,
    /// The number of its last command.
    number: u64,
    pub(super) observer: Observer,
    pub(super) timers: Timers,
    pub(super) pending: VecDeque<Action>,
    /// Places that were given out and are not on record yet.
    pub(super) given: BTreeMap<AgentName, NodeName>,
    /// Incarnations whose readiness is on its way into the log.
    pub(super) readied: BTreeSet<(AgentName, u64)>,
    /// What is to be done for agents through the broker.
    pub(super) queue: Queue<(AgentName, What)>,
    /// What has its turn; a dropped guard ends it.
    pub(super) turns: BTreeMap<Turn, DropGuard>,
    /// The last incarnation of each agent that took over in this leadership, whether that is on record yet or not.
    pub(super) swapped: BTreeMap<AgentName, u64>,
    /// Consumers made before their incarnations are ready.
    pub(super) prepared: BTreeMap<AgentName, Prepared>,
    pub(super) sweep: Sweep,
    pub(super) deadlines: Deadlines,
    pub(super) schedules: Schedules,
    /// What is delivered later; none before it acts.
    pub(super) later: Option<Later>,
    /// What was asked about SANCTUMs that are copied.
    pub(super) carries: Carries,
    /// What is kept, and for how long.
    pub(super) keeping: Option<Keeping>,
}

impl Leading {
    pub(super) fn new(tenure: u64, until: Moment, now_ms: u64, limits: Limits) -> Self {
        Self {
            tenure,
            until,
            term: None,
            electing: false,
            number: 0,
            observer: Observer::new(0, now_ms),
            timers: Timers::default(),
            pending: VecDeque::new(),
            given: BTreeMap::new(),
            readied: BTreeSet::new(),
            queue: Queue::new(limits),
            turns: BTreeMap::new(),
            swapped: BTreeMap::new(),
            prepared: BTreeMap::new(),
            sweep: Sweep::default(),
            deadlines: Deadlines::default(),
            schedules: Schedules::default(),
            later: None,
            carries: Carries::new(),
            keeping: None,
        }
    }

    /// It runs again, maybe after a suspension: timeouts do not count the time in which it received nothing.
    pub(super) fn awake(&mut self, now_ms: u64) {
        let gap = self.observer.awake(now_ms);
        if gap > 0 {
            tracing::warn!("the supervisor was suspended for {gap} ms: all timeouts start over");
            self.timers.postpone(Duration::from_millis(gap));
        }
    }

    /// When it has something to do, though nothing else happens.
    pub(super) fn due(&self) -> Option<Moment> {
        // One that does not act yet takes nothing from its queue.
        let queue = self.term.and_then(|_| self.queue.due());
        self.timers.next().into_iter().chain(queue).min()
    }

    /// The term in which it acts.
    pub(super) fn term(&self) -> Option<u64> {
        self.term
    }

    /// The number of its next command.
    pub(super) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// A record was folded; `actions` follow from it. `run` is this supervisor's.
    /// The result says whether this leadership acts from now on.
    pub(super) fn folded(
        &mut self,
        state: &State,
        run: &str,
        now_ms: u64,
        ears: &Ears,
        record: &ControlRecord,
        actions: Vec<Action>,
    ) -> bool {
        if let ControlEvent::IncarnationReady { agent, incarnation, .. } = &record.event {
            self.readied.remove(&(agent.clone(), *incarnation));
        }
        if let ControlEvent::IncarnationAllocated { agent, .. } = &record.event {
            self.given.remove(agent);
        }
        let ControlEvent::LeaderElected { run: elected, .. } = &record.event else {
            if self.term.is_some() {
                self.pending.extend(actions);
            }
            return false;
        };
        if state.term() != state.seq() {
            // Stored twice, and folded once: no new term.
            return false;
        }
        self.electing = false;
        self.pending.clear();
        self.given.clear();
        self.timers = Timers::default();
        if elected != run {
            // Whoever that was, the lease is ours: it is written once more.
            self.term = None;
            return false;
        }
        self.term = Some(state.term());
        self.number = 0;
        self.observer = Observer::after(state.term(), now_ms, ears);
        self.pending.extend(resume(state));
        true
    }
}

impl Leading {
    /// A record did not get into the log, as when the broker is away for long. Most reports of nodes and shims come again by
    /// themselves; a timer, the election, and a start that failed would be lost.
    pub(super) fn unsaid(&mut self, record: &ControlRecord) {
        self.readied.clear();
        if let ControlEvent::LeaderElected { .. } = record.event {
            self.electing = false;
        }
        if record.term.is_none() || record.term != self.term {
            return;
        }
        self.observer.unsaid(&record.event);
        if let ControlEvent::TimerFired { agent, timer, incarnation, .. } = &record.event {
            self.timers.set((agent.clone(), *timer, *incarnation), AGAIN);
        } else if let ControlEvent::IncarnationAllocated { agent, .. } = &record.event {
            self.given.remove(agent);
            self.pending.push_back(Action::Allocate { agent: agent.clone() });
        }
    }
}

impl Supervisor {
    /// Writes this leadership into the log, unless that is done or under way.
    pub(super) fn elect(&mut self) {
        let waits = |leading: &&mut Leading| leading.term.is_none() && !leading.electing;
        let Some(leading) = self.leading.as_mut().filter(waits) else { return };
        leading.electing = true;
        let (supervisor, run) = (self.id.clone(), self.run.to_string());
        let rules = supervisor_core::RULES;
        self.append(ControlEvent::LeaderElected { supervisor, run, rules }, None, None);
    }

    /// This leadership, if it may act: its election is on record, and its lease not over.
    pub(super) fn acting(&mut self) -> Option<&mut Leading> {
        let now = Moment::now();
        self.leading.as_mut().filter(|leading| leading.term.is_some() && leading.until > now)
    }

    /// Appends a record of the leader; nothing, if this is none.
    pub(super) fn decide(&mut self, event: ControlEvent) {
        if let Some(term) = self.acting().and_then(|leading| leading.term) {
            self.append(event, Some(term), None);
        }
    }

    pub(super) async fn node_report(&mut self, message: &TransientMessage) {
        let Some(node) = self.broker.subjects().parse_node_report(&message.subject) else { return };
        let report: NodeReport = match codec::decode(&message.payload) {
            Ok(report) => report,
            Err(error) => {
                if let Some(others) = self.unread.nodes.count(self.now_ms()) {
                    tracing::warn!("cannot read a report of node {node}: {error}{others}");
                }
                return self.node_heard(&node);
            }
        };
        self.ears.heard(&node, self.now_ms());
        if let NodeReport::Running(status) = &report {
            // A node speaks for itself only.
            if status.node != node {
                return;
            }
            self.nodes.insert(node.clone(), (self.now_ms(), status.clone()));
        }
        if let NodeReport::Preparing { agent, incarnation, doing, .. } = report {
            // Of incarnations that are to start there: another node may still be busy with an earlier one.
            let known = self.state.agent(&agent).and_then(|known| known.incarnation(incarnation));
            if known.is_some_and(|known| known.node == node) {
                let at = self.now_ms();
                self.preparing.insert(agent, Preparing { incarnation, at, doing });
            }
            return;
        }
        let outcomes = self.observe(|observer, state, now| match report {
            NodeReport::Running(status) => observer.node_report(state, now, &status),
            NodeReport::Exited { instance, exit } => observer.exited(state, &node, instance, &exit),
            NodeReport::StartFailed { instance, agent, incarnation, reason } => {
                observer.start_failed(state, &node, instance, &agent, incarnation, &reason)
            }
            NodeReport::Preparing { .. } => Vec::new(),
        });
        self.follow(outcomes.unwrap_or_default()).await;
    }

    /// What cannot be read is a sign of life nevertheless: a node of another version is not a lost one.
    fn node_heard(&mut self, node: &NodeName) {
        self.ears.heard(node, self.now_ms());
        self.observe(|observer, _, now| observer.node_heard(now, node));
    }

    /// Passes something to the leader's observer; none if this is not the leader.
    fn observe<T>(&mut self, look: impl FnOnce(&mut Observer, &State, u64) -> T) -> Option<T> {
        let now_ms = self.now_ms();
        let leading = self.leading.as_mut().filter(|leading| leading.term.is_some())?;
        Some(look(&mut leading.observer, &self.state, now_ms))
    }

    /// A new leader need not wait for the nodes' next reports: it has heard them while it followed, and asks for more.
    pub(super) async fn hear_nodes_again(&mut self) {
        let now = self.now_ms();
        self.nodes.retain(|_, (heard, _)| now.saturating_sub(*heard) < FRESH);
        let heard: Vec<_> = self.nodes.values().map(|(_, status)| status.clone()).collect();
        for status in heard {
            let outcomes =
                self.observe(|observer, state, now| observer.node_report(state, now, &status));
            self.follow(outcomes.unwrap_or_default()).await;
        }
        let everybody = self.broker.subjects().all_nodes_command();
        self.tell_nodes(everybody, None, NodeCommandBody::List).await;
    }

    pub(super) async fn shim_report(&mut self, message: &TransientMessage) {
        let subjects = self.broker.subjects();
        let Some((agent, incarnation)) = subjects.parse_shim_report(&message.subject) else {
            return;
        };
        let report = match codec::decode(&message.payload) {
            Ok(report) => report,
            Err(error) => {
                if let Some(others) = self.unread.shims.count(self.now_ms()) {
                    tracing::warn!(
                        "cannot read a report of {agent}-{incarnation}: {error}{others}"
                    );
                }
                self.observe(|eyes, state, now| eyes.shim_heard(state, now, &agent, incarnation));
                return;
            }
        };
        // Also one that waits for its consumer is there.
        self.observe(|eyes, state, now| eyes.shim_heard(state, now, &agent, incarnation));
        match report {
            ShimReport::Ready => self.shim_ready(agent, incarnation).await,
            ShimReport::Drained => {
                let outcomes =
                    self.observe(|eyes, state, _| eyes.shim_drained(state, &agent, incarnation));
                self.follow(outcomes.unwrap_or_default()).await;
            }
            ShimReport::Heartbeat(heartbeat) => {
                self.queue_told(&agent, message.told.queue());
                let outcomes = self.observe(|eyes, state, now| {
                    eyes.shim_heartbeat(state, now, &agent, incarnation, &heartbeat)
                });
                self.follow(outcomes.unwrap_or_default()).await;
                let known = self.heartbeats.get(&agent).map_or(0, |(known, _)| *known);
                if self.state.agent(&agent).is_some() && incarnation >= known {
                    self.heartbeats.insert(agent, (incarnation, heartbeat));
                }
            }
        }
    }

    async fn shim_ready(&mut self, agent: AgentName, incarnation: u64) {
        let judged = self.observe(|eyes, state, _| eyes.shim_ready(state, &agent, incarnation));
        match judged {
            Some(ShimReady::LogReady) => {
                let one = (agent, incarnation);
                if self.leading.as_ref().is_some_and(|leading| !leading.readied.contains(&one)) {
                    self.find_floor(one.0, incarnation);
                }
            }
            Some(ShimReady::AdmitAgain) => {
                self.admit(agent, incarnation);
            }
            Some(ShimReady::Dismiss) => {
                self.perform(Action::Dismiss { agent, incarnation }).await;
            }
            Some(ShimReady::Ignore) | None => {}
        }
    }

    /// Does what follows from a report.
    pub(super) async fn follow(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Record(event) => self.decide(event),
                Outcome::Do(action) => self.perform(action).await,
            }
        }
    }

    pub(super) async fn tick(&mut self) {
        self.elect();
        self.fire_timers();
        let outcomes = self.observe(|eyes, state, now| eyes.tick(state, now));
        self.follow(outcomes.unwrap_or_default()).await;
        match self.observe(|eyes, state, now| eyes.unheard(state, now)) {
            Some(Some(silent)) => self.broker.shims_unheard(Duration::from_millis(silent)),
            Some(None) | None => self.broker.shims_heard(),
        }
        self.sweep_next();
        self.expire_next();
        self.schedule_tick();
        self.tidy_schedules_sometimes();
        self.prune_sometimes();
        self.collect_files_sometimes();
        self.take_snapshot();
        self.show_metrics();
        for words in self.unread.due(self.now_ms()) {
            tracing::warn!("{words}");
        }
    }

    /// Timers that are due become records: the fold decides what they mean. While a node still prepares a start, as by pulling an
    /// image, the time to say ready has not begun. And nobody is late with it whom this leader has not listened to.
    pub(super) fn fire_timers(&mut self) {
        let now_ms = self.now_ms();
        let Some(leading) = self.leading.as_mut() else { return };
        let has_listened = leading.observer.has_listened(now_ms);
        let (mut fired, mut late) = (Vec::new(), Vec::new());
        for key in leading.timers.due(Moment::now()) {
            let (agent, timer, incarnation) = key.clone();
            if timer == Timer::Ready {
                let preparing = self.preparing.get(&agent);
                if preparing.is_some_and(|known| known.is_fresh(incarnation, now_ms)) {
                    let known = self.state.agent(&agent);
                    let ready = known.map_or(AGAIN, |agent| agent.spec.timeout.ready);
                    leading.timers.set(key, ready);
                    continue;
                }
                if !has_listened {
                    leading.timers.set(key, AGAIN);
                    continue;
                }
                late.push((agent, incarnation));
                continue;
            }
            fired.push(ControlEvent::TimerFired { agent, timer, incarnation, said: None });
        }
        for event in fired {
            self.decide(event);
        }
        for (agent, incarnation) in late {
            let broker = self.reads.broker.clone();
            self.task(async move {
                let said = timeout(SAYS_WITHIN, broker.last_line(&agent, incarnation)).await;
                let said = said.ok().and_then(Result::ok).flatten();
                Done::Late(ControlEvent::TimerFired {
                    agent,
                    timer: Timer::Ready,
                    incarnation,
                    said,
                })
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use common::Timestamp;

    use super::*;

    const LIMITS: Limits = Limits { most: 1, of_lane: 1 };

    fn record(term: Option<u64>, event: ControlEvent) -> ControlRecord {
        ControlRecord { id: None, at: Timestamp::default(), term, author: "s".into(), event }
    }

    fn elected(run: &str) -> ControlRecord {
        let (supervisor, run) = ("s".to_owned(), run.to_owned());
        record(None, ControlEvent::LeaderElected { supervisor, run, rules: supervisor_core::RULES })
    }

    /// A leadership that has read its election back, as record 7.
    fn leading() -> (Leading, State) {
        let (mut leading, mut state) =
            (Leading::new(1, Moment::now(), 0, LIMITS), State::default());
        let record = elected("mine");
        let actions = supervisor_core::step(&mut state, 7, Timestamp::default(), &record);
        assert!(leading.folded(&state, "mine", 0, &Ears::new(0), &record, actions));
        (leading, state)
    }

    #[test]
    fn a_timer_that_is_not_on_record_fires_again() {
        let agent = AgentName::new("a").expect("valid");
        let (timer, incarnation, said) = (Timer::Restart, 1, None);
        let fired = ControlEvent::TimerFired { agent, timer, incarnation, said };
        let (mut leading, _) = leading();
        leading.unsaid(&record(Some(6), fired.clone()));
        assert!(leading.timers.next().is_none(), "an earlier leadership's is not ours");
        leading.unsaid(&record(Some(7), fired));
        assert!(leading.timers.next().is_some());
    }

    #[test]
    fn a_place_that_is_not_on_record_is_found_again() {
        let agent = AgentName::new("a").expect("valid");
        let allocated = ControlEvent::IncarnationAllocated {
            agent: agent.clone(),
            incarnation: 1,
            generation: 1,
            node: NodeName::new("n").expect("valid"),
        };
        let (mut leading, _) = leading();
        leading.unsaid(&record(Some(7), allocated));
        assert_eq!(leading.pending, [Action::Allocate { agent }]);
    }

    #[test]
    fn an_election_that_is_not_on_record_is_written_again() {
        let mut leading = Leading::new(1, Moment::now(), 0, LIMITS);
        leading.electing = true;
        leading.unsaid(&elected("mine"));
        assert!(!leading.electing);
    }

    #[test]
    fn an_election_that_is_stored_twice_is_one_election() {
        let mut state = State::default();
        let mut leading = Leading::new(1, Moment::now(), 0, LIMITS);
        let mut fold = |leading: &mut Leading, seq, record: &ControlRecord| {
            let actions = supervisor_core::step(&mut state, seq, Timestamp::default(), record);
            leading.folded(&state, "mine", 0, &Ears::new(0), record, actions)
        };
        let ours = ControlRecord { id: Some("mine.1".into()), ..elected("mine") };
        assert!(fold(&mut leading, 7, &ours));
        let first = leading.next_number();
        assert!(!fold(&mut leading, 9, &ours));
        assert_eq!(leading.term(), Some(7));
        assert!(leading.next_number() > first, "numbers of one term never go back");
        // Another one's old one: it ends nothing.
        let another = ControlRecord { id: Some("other.1".into()), ..elected("another") };
        assert!(!fold(&mut leading, 10, &another));
        assert_eq!(leading.term(), None);
        let again = ControlRecord { id: Some("mine.2".into()), ..elected("mine") };
        assert!(fold(&mut leading, 11, &again));
        assert!(!fold(&mut leading, 12, &another));
        assert_eq!(leading.term(), Some(11));
    }

    #[test]
    fn the_term_is_the_sequence_of_its_own_election_and_another_ones_ends_it() {
        let (mut leading, mut state) = leading();
        assert_eq!(leading.term(), Some(7));
        // The same id, another process.
        let another = elected("another");
        let actions = supervisor_core::step(&mut state, 9, Timestamp::default(), &another);
        assert!(!leading.folded(&state, "mine", 0, &Ears::new(0), &another, actions));
        assert_eq!((leading.term(), leading.electing), (None, false), "it is written once more");
        let ours = elected("mine");
        let actions = supervisor_core::step(&mut state, 12, Timestamp::default(), &ours);
        assert!(leading.folded(&state, "mine", 0, &Ears::new(0), &ours, actions));
        assert_eq!(leading.term(), Some(12));
    }
}
