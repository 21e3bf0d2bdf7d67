//! Whether the broker can store records: it may answer and read, but no longer store.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;

use crate::api::header;
use crate::connection::Broker;
use crate::error::Result;

/// Beside the leader's key: a subject of its own, of which the last record is kept.
const KEY: &str = "probe";
/// How long the record stays.
const TTL: &str = "60s";

impl Broker {
    /// Stores a record of one byte, which goes away by itself; how long that took.
    ///
    /// # Errors
    /// When it is not stored within the time.
    pub async fn probe(&self, within: Duration) -> Result<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::TTL, TTL);
        let began = Instant::now();
        let subject = self.lease_subject(KEY);
        self.wire().publish(subject, || headers.clone(), "1".into(), within).await?;
        Ok(began.elapsed())
    }
}
