//! A histogram that is fed with spreads that others have counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use common::figures::{BOUNDS_MS, CLASSES, Spread};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Durations in seconds.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    counts: [AtomicU64; CLASSES],
    sum_ms: AtomicU64,
}

/// Milliseconds in seconds.
#[expect(clippy::cast_precision_loss, reason = "a sum of durations need not be exact")]
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

impl Durations {
    pub(crate) fn add(&self, spread: &Spread) {
        for (all, more) in self.counts.iter().zip(spread.counts) {
            all.fetch_add(more, Ordering::Relaxed);
        }
        self.sum_ms.fetch_add(spread.sum_ms, Ordering::Relaxed);
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = BOUNDS_MS.iter().map(|ms| seconds(*ms)).chain([f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.sum_ms.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
