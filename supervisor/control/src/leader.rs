//! What only the leader has: its eyes, its timers, what is under way. Gone when it leads no more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use broker::TransientMessage;
use common::control::{ControlEvent, ControlRecord, Timer};
use common::shim::{NodeCommandBody, NodeReport, ShimReport};
use common::{AgentName, Timestamp, codec};
use supervisor_core::{Action, Observer, Outcome, ShimReady, State, resume};
use tokio_util::sync::DropGuard;

use super::Supervisor;
use super::admit::Prepared;
use super::sweep::Sweep;
use super::timers::Timers;

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

/// A leadership.
pub(super) struct Leading {
    pub(super) term: u64,
    /// It acts only once it has read its own term back from the log: then it knows all that was decided before.
    pub(super) acting: bool,
    /// Whether its election is on its way to the log.
    electing: bool,
    pub(super) observer: Observer,
    pub(super) timers: Timers,
    pub(super) pending: VecDeque<Action>,
    /// Incarnations whose floor is being looked for, or whose readiness is on its way into the log.
    pub(super) finding: BTreeSet<(AgentName, u64)>,
    /// Incarnations that are being admitted; a dropped guard ends the try.
    pub(super) admitting: BTreeMap<AgentName, (u64, DropGuard)>,
    /// The last incarnation of each agent that took over in this leadership, whether that is on record yet or not.
    pub(super) swapped: BTreeMap<AgentName, u64>,
    /// Consumers made before their incarnations are ready.
    pub(super) prepared: BTreeMap<AgentName, Prepared>,
    pub(super) sweep: Sweep,
}

impl Leading {
    pub(super) fn new(term: u64, now_ms: u64) -> Self {
        Self {
            term,
            acting: false,
            electing: false,
            observer: Observer::new(now_ms),
            timers: Timers::default(),
            pending: VecDeque::new(),
            finding: BTreeSet::new(),
            admitting: BTreeMap::new(),
            swapped: BTreeMap::new(),
            prepared: BTreeMap::new(),
            sweep: Sweep::default(),
        }
    }

    /// A record was folded; `actions` follow from it.
    /// The result says whether this leadership acts from now on.
    pub(super) fn folded(
        &mut self,
        state: &State,
        record: &ControlRecord,
        actions: Vec<Action>,
    ) -> bool {
        if let ControlEvent::IncarnationReady { agent, incarnation, .. } = &record.event {
            self.finding.remove(&(agent.clone(), *incarnation));
        }
        let begins = matches!(record.event, ControlEvent::LeaderElected { .. });
        if begins {
            self.acting = record.term == Some(self.term);
        }
        if self.acting {
            self.pending.extend(if begins { resume(state) } else { actions });
        }
        begins && self.acting
    }
}

impl Leading {
    /// A record did not get into the log, as when the broker is away for long. Reports of nodes and shims come again by
    /// themselves; a timer and the election would be lost for ever.
    pub(super) fn unsaid(&mut self, record: &ControlRecord, now: Timestamp) {
        self.finding.clear();
        if record.term != Some(self.term) {
            return;
        }
        if let ControlEvent::TimerFired { agent, timer, incarnation } = &record.event {
            self.timers.set((agent.clone(), *timer, *incarnation), now.after(AGAIN), now);
        } else if let ControlEvent::LeaderElected { .. } = record.event {
            self.electing = false;
        }
    }
}

impl Supervisor {
    /// Writes this leadership's term into the log, unless that is done or under way.
    pub(super) fn elect(&mut self) {
        let waits = |leading: &&mut Leading| !leading.acting && !leading.electing;
        let Some(leading) = self.leading.as_mut().filter(waits) else { return };
        // Deposed, as the log says: the lease will say so too.
        if leading.term < self.state.term() {
            return;
        }
        leading.electing = true;
        let (term, supervisor) = (leading.term, self.id.clone());
        self.append(ControlEvent::LeaderElected { supervisor }, Some(term), None);
    }

    /// This leadership, if it may act.
    pub(super) fn acting(&mut self) -> Option<&mut Leading> {
        self.leading.as_mut().filter(|leading| leading.acting)
    }

    pub(super) async fn node_report(&mut self, message: &TransientMessage) {
        let Some(node) = self.broker.subjects().parse_node_report(&message.subject) else { return };
        let report: NodeReport = match codec::decode(&message.payload) {
            Ok(report) => report,
            Err(error) => return tracing::warn!("report of node {node}: {error}"),
        };
        if let NodeReport::Running(status) = &report {
            // A node speaks for itself only.
            if status.node != node {
                return;
            }
            self.nodes.insert(node.clone(), (self.now_ms(), status.clone()));
        }
        if let NodeReport::Preparing { agent, incarnation, doing } = report {
            // Of incarnations that are to start there: another node may still be busy with an earlier one.
            let known = self.state.agent(&agent).and_then(|known| known.incarnation(incarnation));
            if known.is_some_and(|known| known.node == node) {
                let at = self.now_ms();
                self.preparing.insert(agent, Preparing { incarnation, at, doing });
            }
            return;
        }
        let (now, state) = (self.now_ms(), &self.state);
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.acting) else { return };
        let outcomes = match report {
            NodeReport::Running(status) => leading.observer.node_report(state, now, &status),
            NodeReport::Exited(exit) => leading.observer.exited(state, &node, &exit),
            NodeReport::StartFailed { agent, incarnation, reason } => {
                leading.observer.start_failed(state, &node, &agent, incarnation, &reason)
            }
            NodeReport::Preparing { .. } => Vec::new(),
        };
        self.follow(outcomes).await;
    }

    /// A new leader need not wait for the nodes' next reports: it has heard them while it followed, and asks for more.
    pub(super) async fn hear_nodes_again(&mut self) {
        let (now, state) = (self.now_ms(), &self.state);
        self.nodes.retain(|_, (heard, _)| now.saturating_sub(*heard) < FRESH);
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.acting) else { return };
        let mut outcomes = Vec::new();
        for (_, status) in self.nodes.values() {
            outcomes.extend(leading.observer.node_report(state, now, status));
        }
        self.follow(outcomes).await;
        let everybody = self.broker.subjects().all_nodes_command();
        self.tell_nodes(everybody, NodeCommandBody::List).await;
    }

    pub(super) async fn shim_report(&mut self, message: &TransientMessage) {
        let subjects = self.broker.subjects();
        let Some((agent, incarnation)) = subjects.parse_shim_report(&message.subject) else {
            return;
        };
        let report = match codec::decode(&message.payload) {
            Ok(report) => report,
            Err(error) => return tracing::warn!("report of {agent}-{incarnation}: {error}"),
        };
        let now = self.now_ms();
        match report {
            ShimReport::Ready => self.shim_ready(agent, incarnation).await,
            ShimReport::Drained => {
                if let Some(leading) = self.leading.as_mut().filter(|leading| leading.acting) {
                    let (state, observer) = (&self.state, &mut leading.observer);
                    let outcomes = observer.shim_drained(state, &agent, incarnation);
                    self.follow(outcomes).await;
                }
            }
            ShimReport::Heartbeat(heartbeat) => {
                if let Some(leading) = self.leading.as_mut().filter(|leading| leading.acting) {
                    let (state, observer) = (&self.state, &mut leading.observer);
                    let outcomes =
                        observer.shim_heartbeat(state, now, &agent, incarnation, &heartbeat);
                    self.follow(outcomes).await;
                }
                let known = self.heartbeats.get(&agent).map_or(0, |(known, _)| *known);
                if self.state.agent(&agent).is_some() && incarnation >= known {
                    self.heartbeats.insert(agent, (incarnation, heartbeat));
                }
            }
        }
    }

    async fn shim_ready(&mut self, agent: AgentName, incarnation: u64) {
        let state = &self.state;
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.acting) else { return };
        let key = (agent, incarnation);
        match leading.observer.shim_ready(state, &key.0, incarnation) {
            ShimReady::LogReady => {
                if leading.finding.insert(key.clone()) {
                    self.find_floor(key.0, incarnation);
                }
            }
            ShimReady::AdmitAgain => {
                let again = state.agent(&key.0).and_then(supervisor_core::Agent::admit);
                if let Some(action) = again {
                    self.perform(action).await;
                }
            }
            ShimReady::Ignore => {}
        }
    }

    /// Does what follows from a report.
    pub(super) async fn follow(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Record(event) => {
                    if let Some(term) = self.acting().map(|leading| leading.term) {
                        self.append(event, Some(term), None);
                    }
                }
                Outcome::Do(action) => self.perform(action).await,
            }
        }
    }

    pub(super) async fn tick(&mut self) {
        self.elect();
        let (now, state) = (self.now_ms(), &self.state);
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.acting) else { return };
        let outcomes = leading.observer.tick(state, now);
        self.follow(outcomes).await;
        self.sweep_next();
    }

    /// Timers that are due become records: the fold decides what they mean. While a node still prepares a start, as by pulling an
    /// image, the time to say ready has not begun.
    pub(super) fn fire_timers(&mut self) {
        let (now_ms, now) = (self.now_ms(), self.now());
        let Some(leading) = self.leading.as_mut() else { return };
        let due = leading.timers.due(std::time::Instant::now());
        if !leading.acting {
            return;
        }
        let term = leading.term;
        let (waiting, due): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(agent, timer, incarnation)| {
                let preparing = self.preparing.get(agent);
                *timer == Timer::Ready
                    && preparing.is_some_and(|known| known.is_fresh(*incarnation, now_ms))
            });
        for key in waiting {
            let ready = self.state.agent(&key.0).map_or(AGAIN, |agent| agent.spec.timeout.ready);
            leading.timers.set(key, now.after(ready), now);
        }
        for (agent, timer, incarnation) in due {
            self.append(ControlEvent::TimerFired { agent, timer, incarnation }, Some(term), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(term: u64, event: ControlEvent) -> ControlRecord {
        ControlRecord { at: Timestamp::default(), term: Some(term), author: "s".into(), event }
    }

    #[test]
    fn a_timer_that_is_not_on_record_fires_again() {
        let agent = AgentName::new("a").expect("valid");
        let fired = ControlEvent::TimerFired { agent, timer: Timer::Restart, incarnation: 1 };
        let mut leading = Leading::new(7, 0);
        leading.unsaid(&record(6, fired.clone()), Timestamp::default());
        assert!(leading.timers.next().is_none(), "an earlier leadership's is not ours");
        leading.unsaid(&record(7, fired), Timestamp::default());
        assert!(leading.timers.next().is_some());
    }

    #[test]
    fn an_election_that_is_not_on_record_is_written_again() {
        let mut leading = Leading::new(7, 0);
        leading.electing = true;
        let elected = ControlEvent::LeaderElected { supervisor: "s".into() };
        leading.unsaid(&record(7, elected), Timestamp::default());
        assert!(!leading.electing);
    }
}
