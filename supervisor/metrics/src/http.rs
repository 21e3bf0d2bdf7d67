//! What a process of the API counts.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Counters, add};

/// The numbers of the API. Clones are the same numbers.
#[derive(Debug, Clone)]
pub struct Http {
    requests: Counters,
    durations: Histogram,
    streams: Gauge,
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
            "Streams of events that this process of the API has open",
            streams.clone(),
        );
        Self { requests, durations, streams }
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

    /// A stream was opened.
    pub fn opened(&self) {
        self.streams.inc();
    }

    /// A stream has ended.
    pub fn closed(&self) {
        self.streams.dec();
    }
}
