//! How much one token may ask of this process: requests a second, and requests that stay open: streams, and waits for answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::SenderName;

/// Requests that may be made now, filled up as time passes.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// Takes one; else how long until there is one.
    fn take(&mut self, (rate, burst): (u32, u32), now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * f64::from(rate)).min(f64::from(burst));
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / f64::from(rate.max(1))))
    }
}

/// How many requests of each sender are open, of so many at most.
#[derive(Debug)]
pub(crate) struct Counts {
    most: u32,
    open: Arc<Mutex<BTreeMap<SenderName, u32>>>,
}

impl Counts {
    pub(crate) fn new(most: u32) -> Self {
        Self { most, open: Arc::default() }
    }

    /// How many one sender may have open.
    pub(crate) fn most(&self) -> u32 {
        self.most
    }

    /// Counts one until what is yielded is dropped; else how many are open, which is all that may be.
    pub(crate) fn open(
        &self,
        sender: &SenderName,
        metrics: Option<&metrics::Http>,
    ) -> Result<OpenStream, u32> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(sender.clone()).or_default();
        if *count >= self.most {
            return Err(*count);
        }
        *count += 1;
        if let Some(metrics) = metrics {
            metrics.opened();
        }
        let (open, sender) = (Arc::clone(&self.open), sender.clone());
        Ok(OpenStream { metrics: metrics.cloned(), open, sender })
    }
}

/// What each token has used.
#[derive(Debug)]
pub(crate) struct Quotas {
    rate: (u32, u32),
    buckets: Mutex<BTreeMap<SenderName, Bucket>>,
    /// Streams, and waits for answers.
    pub(crate) streams: Counts,
}

/// Tokens whose requests are counted: beyond that the counts start anew.
const MOST: usize = 10_000;

impl Quotas {
    /// `rate`: requests a second, and at once. `streams`: streams and waits at a time.
    pub(crate) fn new(rate: (u32, u32), streams: u32) -> Self {
        Self { rate, buckets: Mutex::default(), streams: Counts::new(streams) }
    }

    /// Counts a request; else in how long it may be made.
    pub(crate) fn request(&self, token: &SenderName, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST && !buckets.contains_key(token) {
            buckets.clear();
        }
        let full = || Bucket { left: f64::from(self.rate.1), at: now };
        buckets.entry(token.clone()).or_insert_with(full).take(self.rate, now)
    }
}

/// A stream or wait that counts.
#[derive(Debug)]
pub(crate) struct OpenStream {
    metrics: Option<metrics::Http>,
    open: Arc<Mutex<BTreeMap<SenderName, u32>>>,
    sender: SenderName,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.closed();
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.sender) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> SenderName {
        SenderName::new(name).expect("valid")
    }

    #[test]
    fn a_token_has_a_burst_and_then_a_rate_of_its_own() {
        let quotas = Quotas::new((10, 3), 1);
        let start = Instant::now();
        let ask = |who: &str, after: u64| {
            quotas.request(&name(who), start + Duration::from_millis(after)).is_ok()
        };
        assert_eq!([ask("a", 0), ask("a", 0), ask("a", 0), ask("a", 0)], [true, true, true, false]);
        assert!(ask("b", 0), "another's are not counted");
        assert!(ask("a", 150));
        assert!(!ask("a", 150));
        let wait = quotas.request(&name("a"), start + Duration::from_millis(150));
        let wait = wait.expect_err("too early");
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
    }

    #[test]
    fn a_request_counts_while_it_is_open() {
        let counts = Counts::new(1);
        let open = counts.open(&name("a"), None).expect("the first");
        assert_eq!(counts.open(&name("a"), None).expect_err("the second"), 1);
        assert!(counts.open(&name("b"), None).is_ok());
        drop(open);
        assert!(counts.open(&name("a"), None).is_ok());
    }
}
