//! What a node counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Counters, add};

/// The numbers of a node. Clones are the same numbers.
#[derive(Debug, Clone)]
pub struct Node {
    starts: Counter,
    failures: Counter,
    exits: Counters,
    running: Gauge,
    starting: Gauge,
    engine: Gauge,
    connected: Gauge,
}

const CAUSES: [&str; 3] = ["stopped", "failed", "out_of_memory"];

impl Node {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let starts = counter("mozart_node_starts", "Incarnations that this node started");
        let failures =
            counter("mozart_node_start_failures", "Incarnations that this node could not start");
        let exits = Counters::default();
        CAUSES.iter().for_each(|cause| add(&exits, "cause", cause, 0));
        registry.register(
            "mozart_node_exits",
            "Incarnations that ended on this node, by cause",
            exits.clone(),
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let running = gauge("mozart_node_incarnations", "Incarnations that run on this node");
        let starting = gauge(
            "mozart_node_incarnations_starting",
            "Incarnations that this node is preparing, as by pulling an image",
        );
        let engine = gauge(
            "mozart_node_engine_up",
            "Whether this node's container engine answers: 1 or 0; 0 also where it has none",
        );
        let connected =
            gauge("mozart_node_connected", "Whether this node is connected to the broker: 1 or 0");
        Self { starts, failures, exits, running, starting, engine, connected }
    }

    /// An incarnation was started.
    pub fn started(&self) {
        self.starts.inc();
    }

    /// One could not be started.
    pub fn not_started(&self) {
        self.failures.inc();
    }

    /// One ended: told to, or for its memory, or else.
    pub fn ended(&self, was_asked_for: bool, out_of_memory: bool) {
        let cause = match (was_asked_for, out_of_memory) {
            (true, _) => "stopped",
            (false, true) => "out_of_memory",
            (false, false) => "failed",
        };
        add(&self.exits, "cause", cause, 1);
    }

    /// What there is now.
    pub fn show(&self, running: usize, starting: usize, engine: bool, connected: bool) {
        let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.running.set(count(running));
        self.starting.set(count(starting));
        self.engine.set(i64::from(engine));
        self.connected.set(i64::from(connected));
    }
}
