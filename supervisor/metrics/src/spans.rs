//! What became of the spans of traces.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{Counters, add};

/// The numbers of exported traces. Clones are the same numbers.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    exported: Counter,
    dropped: Counters,
}

/// Why a trace is not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// More messages ended than could be read.
    Busy,
    /// The message could not be read.
    Unreadable,
    /// The receiver did not take it.
    Refused,
}

const REASONS: [&str; 3] = ["busy", "unreadable", "refused"];

impl Spans {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let spans = Self::default();
        REASONS.iter().for_each(|reason| add(&spans.dropped, "reason", reason, 0));
        registry.register(
            "mozart_trace_spans_exported",
            "Spans that the receiver of traces took",
            spans.exported.clone(),
        );
        registry.register(
            "mozart_traces_dropped",
            "Messages whose traces were not exported, by reason",
            spans.dropped.clone(),
        );
        spans
    }

    /// So many spans were taken.
    pub fn exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    /// The traces of so many messages were dropped.
    pub fn dropped(&self, why: Dropped, messages: u64) {
        add(&self.dropped, "reason", REASONS[why as usize], messages);
    }
}
