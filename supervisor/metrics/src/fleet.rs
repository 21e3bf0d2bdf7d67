//! What a supervisor counts, and what only the leader knows.

use std::sync::Arc;
use std::time::Duration;

use common::figures::{Figures, Spread};
use common::schedule::{Fate, Occurrences};
use common::security::Refusal;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::durations::Durations;
use super::shown::{Board, Shown};
use super::{Counters, add};

/// The numbers of a supervisor. Clones are the same numbers.
#[derive(Debug, Clone)]
pub struct Fleet {
    started: Counter,
    finished: Counters,
    attempts: Counter,
    redeliveries: Counter,
    dead_letters: Counter,
    lost_finals: Counter,
    questions: Counter,
    retries: Counter,
    first_text: Shared,
    whole: Shared,
    starts: Counter,
    exits: Counters,
    nodes_lost: Counter,
    elections: Counter,
    refusals: Counters,
    runs: Counter,
    skips: Counters,
    lateness: Shared,
    leader: Gauge,
    term: Gauge,
    connected: Gauge,
    board: Board,
}

/// A histogram that the registry and whoever adds to it share.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<Durations>);

impl prometheus_client::encoding::EncodeMetric for Shared {
    fn encode(
        &self,
        encoder: prometheus_client::encoding::MetricEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> prometheus_client::metrics::MetricType {
        self.0.metric_type()
    }
}

/// Why occurrences of schedules were not sent.
const SKIPS: [&str; 8] =
    ["missed", "overlap", "stopped", "quarantined", "paused", "restored", "other", MERGED];
/// They were missed, and the one that was sent stands for them.
const MERGED: &str = "merged";
const OUTCOMES: [&str; 4] = ["completed", "failed", "cancelled", "expired"];
/// How incarnations end.
const CAUSES: [&str; 5] = ["stopped", "failed", "out_of_memory", "hung", "not_started"];
const REFUSALS: [Refusal; 7] = [
    Refusal::Login,
    Refusal::Connection,
    Refusal::Publish,
    Refusal::Subscribe,
    Refusal::Question,
    Refusal::Change,
    Refusal::Flood,
];

impl Fleet {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let started = counter(
            "mozart_messages_started",
            "Messages that a worker was given for the first time",
        );
        let attempts = counter(
            "mozart_attempts",
            "Attempts that workers began; beyond those of mozart_messages_started they are repeated ones",
        );
        let redeliveries = counter(
            "mozart_redeliveries",
            "Deliveries of messages that the broker had given out before",
        );
        let dead_letters = counter(
            "mozart_dead_letters",
            "Messages that were given up and stored as dead letters",
        );
        let lost_finals = counter(
            "mozart_lost_finals",
            "Answers that had no effect, since the message had a final state already",
        );
        let questions = counter("mozart_questions", "Questions that agents asked each other");
        let retries =
            counter("mozart_publish_retries", "Requests to the broker that shims repeated");
        let starts = counter(
            "mozart_incarnation_starts",
            "Incarnations that were given a node, restarts among them",
        );
        let nodes_lost = counter(
            "mozart_nodes_lost",
            "Nodes that were silent for so long that their agents were started elsewhere",
        );
        let elections = counter("mozart_leader_elections", "Elections that this supervisor won");
        let runs =
            counter("mozart_schedule_runs", "Occurrences of schedules whose message was sent");
        let mut counters = |name: &str, help: &str, label, values: &[&'static str]| {
            let counters = Counters::default();
            // A number that has not risen yet is 0, and not missing.
            values.iter().for_each(|value| add(&counters, label, value, 0));
            registry.register(name, help, counters.clone());
            counters
        };
        let finished = counters(
            "mozart_messages_finished",
            "Messages that got their final state, by what it was",
            "outcome",
            &OUTCOMES,
        );
        let exits = counters(
            "mozart_incarnation_exits",
            "Incarnations that ended or could not be started, by cause",
            "cause",
            &CAUSES,
        );
        let refusals = counters(
            "mozart_refusals",
            "What was refused to agents, users, nodes and strangers, as far as this supervisor refused it, by kind",
            "kind",
            &REFUSALS.map(Refusal::as_str),
        );
        let skips = counters(
            "mozart_schedule_skips",
            "Occurrences of schedules whose message was not sent, by the reason",
            "reason",
            &SKIPS,
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let leader = gauge("mozart_leader", "Whether this supervisor leads: 1 or 0");
        let term = gauge(
            "mozart_leader_term",
            "The newest term that this supervisor has read in the control log",
        );
        let connected = gauge(
            "mozart_supervisor_connected",
            "Whether this supervisor is connected to the broker: 1 or 0",
        );
        let [first_text, whole, lateness] =
            [Shared::default(), Shared::default(), Shared::default()];
        registry.register_with_unit(
            "mozart_message_first_text",
            "From when a message was stored until the first text of its answer",
            Unit::Seconds,
            first_text.clone(),
        );
        registry.register_with_unit(
            "mozart_message_duration",
            "From when a message was stored until it was stored that it is completed or failed",
            Unit::Seconds,
            whole.clone(),
        );
        registry.register_with_unit(
            "mozart_schedule_lateness",
            "From the time of an occurrence until it was decided that its message is sent, its jitter included",
            Unit::Seconds,
            lateness.clone(),
        );
        let board = Board::default();
        registry.register_collector(Box::new(board.clone()));
        Self {
            started,
            finished,
            attempts,
            redeliveries,
            dead_letters,
            lost_finals,
            questions,
            retries,
            first_text,
            whole,
            starts,
            exits,
            nodes_lost,
            elections,
            refusals,
            runs,
            skips,
            lateness,
            leader,
            term,
            connected,
            board,
        }
    }

    /// Adds what a shim has counted.
    pub fn count(&self, figures: &Figures) {
        let Figures { completed, failed, cancelled, expired, .. } = *figures;
        for (value, count) in OUTCOMES.into_iter().zip([completed, failed, cancelled, expired]) {
            add(&self.finished, "outcome", value, count);
        }
        self.started.inc_by(figures.started);
        self.attempts.inc_by(figures.attempts);
        self.redeliveries.inc_by(figures.redelivered);
        self.dead_letters.inc_by(figures.dead_letters);
        self.lost_finals.inc_by(figures.lost_finals);
        self.questions.inc_by(figures.questions);
        self.retries.inc_by(figures.retries);
        self.first_text.0.add(&figures.first_text);
        self.whole.0.add(&figures.whole);
    }

    /// The leader has stored that a message expired.
    pub fn expired(&self) {
        add(&self.finished, "outcome", "expired", 1);
    }

    /// An incarnation was given a node.
    pub fn allocated(&self) {
        self.starts.inc();
    }

    /// An incarnation ended. `cause`: one of a few words.
    pub fn ended(&self, cause: Cause) {
        add(&self.exits, "cause", CAUSES[cause as usize], 1);
    }

    /// A node is lost.
    pub fn node_lost(&self) {
        self.nodes_lost.inc();
    }

    /// This supervisor was elected.
    pub fn elected(&self) {
        self.elections.inc();
    }

    /// It is on record what becomes of occurrences. A record that is written once more, to say that its message is stored, counts once.
    pub fn scheduled(&self, record: &Occurrences) {
        match &record.fate {
            Fate::Ran { .. } if !record.stored => {
                self.runs.inc();
                add(&self.skips, "reason", MERGED, record.count.saturating_sub(1));
                let mut late = Spread::default();
                late.add(record.nominal.map_or(Duration::ZERO, |at| record.at.since(at)));
                self.lateness.0.add(&late);
            }
            Fate::Skipped { reason, .. } => {
                add(&self.skips, "reason", (*reason).into(), record.count);
            }
            Fate::Ran { .. } | Fate::Requested { .. } | Fate::Unknown => {}
        }
    }

    /// Something was refused.
    pub fn refused(&self, kind: Refusal) {
        add(&self.refusals, "kind", kind.as_str(), 1);
    }

    /// The term in which it leads; none while it does not.
    pub fn leads(&self, term: Option<u64>) {
        self.leader.set(i64::from(term.is_some()));
        if let Some(term) = term {
            self.knows(term);
        }
    }

    /// The newest term.
    pub fn knows(&self, term: u64) {
        self.term.set(i64::try_from(term).unwrap_or(i64::MAX));
    }

    /// Whether there is a connection.
    pub fn is_connected(&self, is: bool) {
        self.connected.set(i64::from(is));
    }

    /// What the leader knows; none from one that does not lead.
    pub fn show(&self, shown: Option<Shown>) {
        self.board.put(shown);
    }
}

/// How an incarnation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was told to.
    Stopped,
    /// Its worker ended by itself, or was killed.
    Failed,
    /// It was killed for its memory.
    OutOfMemory,
    /// Its shim was silent for too long.
    Hung,
    /// It could not be started.
    NotStarted,
}
