//! What a process of the API counts.

use std::time::Duration;

use common::figures::BOUNDS_MS;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::durations::seconds;
use super::{Counters, add};

/// The numbers of the API. Clones are the same numbers.
#[derive(Debug, Clone)]
pub struct Http {
    requests: Counters,
    durations: Histogram,
    streams: Gauge,
    accepted: Counters,
    first_texts: Histogram,
    answers: Histogram,
}

/// By which of the API's protocols a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `/api/v1`.
    Api,
    /// `/v1`.
    OpenAi,
    /// `/mcp`.
    Mcp,
    /// `/a2a`.
    A2a,
    /// The Synadia Agent Protocol, on NATS.
    Sap,
}

impl Door {
    const ALL: [Self; 5] = [Self::Api, Self::OpenAi, Self::Mcp, Self::A2a, Self::Sap];

    const fn label(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::OpenAi => "openai",
            Self::Mcp => "mcp",
            Self::A2a => "a2a",
            Self::Sap => "sap",
        }
    }
}

/// Statuses by their first digit: paths and tokens would be series without end.
const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// In seconds.
const BOUNDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

impl Http {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let requests = Counters::default();
        STATUSES.iter().for_each(|status| add(&requests, "status", status, 0));
        registry.register(
            "mozart_api_requests",
            "Requests that this process of the API answered, by the first digit of the status",
            requests.clone(),
        );
        let durations = Histogram::new(BOUNDS);
        registry.register_with_unit(
            "mozart_api_request_duration",
            "From a request to the head of its answer, also where that waits for a final state",
            Unit::Seconds,
            durations.clone(),
        );
        let streams = Gauge::default();
        registry.register(
            "mozart_api_streams",
            "Streams of events, and waits for answers, that this process of the API has open",
            streams.clone(),
        );
        let accepted = Counters::default();
        Door::ALL.iter().for_each(|door| add(&accepted, "door", door.label(), 0));
        registry.register(
            "mozart_api_messages_accepted",
            "Messages that this process of the API has stored, by the protocol that they came by",
            accepted.clone(),
        );
        let mut answers = |name: &str, help: &str| {
            // As those of the supervisors.
            let histogram = Histogram::new(BOUNDS_MS.iter().map(|ms| seconds(*ms)));
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        let first_texts = answers(
            "mozart_api_first_text",
            "From when this process of the API had stored a message until it read the first text of the answer, where the sender follows it",
        );
        let answers = answers(
            "mozart_api_answer",
            "From when this process of the API had stored a message until it read its final state, where the sender waits or follows",
        );
        Self { requests, durations, streams, accepted, first_texts, answers }
    }

    /// A request was answered with this status.
    pub fn answered(&self, status: u16, took: Duration) {
        let status = match status {
            ..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        add(&self.requests, "status", status, 1);
        self.durations.observe(took.as_secs_f64());
    }

    /// A message was stored, and not before.
    pub fn accepted(&self, door: Door) {
        add(&self.accepted, "door", door.label(), 1);
    }

    /// The first text of an answer was read, so long after its message was stored.
    pub fn spoke(&self, after: Duration) {
        self.first_texts.observe(after.as_secs_f64());
    }

    /// The final state of a message was read, so long after it was stored.
    pub fn ended(&self, after: Duration) {
        self.answers.observe(after.as_secs_f64());
    }

    /// A stream or wait was opened.
    pub fn opened(&self) {
        self.streams.inc();
    }

    /// A stream or wait has ended.
    pub fn closed(&self) {
        self.streams.dec();
    }
}
