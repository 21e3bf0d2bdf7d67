//! The leader's lease: a key with a time to live, taken and renewed by compare-and-set with raw publishes (the client's KV calls
//! drop the time to live).

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::api::{Published, Record, header};
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::encode;

const KEY: &str = "leader";
const OPERATION: &str = "KV-Operation";
const MARKER: &str = "Nats-Marker-Reason";

/// What an attempt to take or renew the lease came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// Ours.
    Held {
        /// The revision at which we first took it: the term. Rises with every change of leader.
        term: u64,
    },
    /// Another one's.
    Other {
        /// The holder's id.
        holder: String,
    },
}

/// One supervisor's view of the lease.
#[derive(Debug)]
pub struct Lease {
    broker: Broker,
    holder: String,
    ttl: Duration,
    ours: Option<Tenure>,
    /// Another one's revision, and since when by our own clock: it may be taken over when it does not change for a
    /// time to live, whether or not the server lets it expire.
    seen: Option<(u64, Instant)>,
}

/// What we hold.
#[derive(Debug, Clone, Copy)]
struct Tenure {
    term: u64,
    revision: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Value {
    holder: String,
}

/// What is stored under the key.
enum Stored {
    /// Nobody's: compare against this revision.
    Free(u64),
    Of(String, u64),
}

impl Broker {
    /// Prepares to compete for the lease.
    #[must_use]
    pub fn lease(&self, holder: &str, ttl: Duration) -> Lease {
        Lease { broker: self.clone(), holder: holder.to_owned(), ttl, ours: None, seen: None }
    }

    pub(crate) fn lease_stream(&self) -> String {
        format!("KV_{}", self.subjects().lease_bucket())
    }

    pub(crate) fn lease_subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.subjects().lease_bucket())
    }
}

impl Lease {
    /// Takes the lease if it is free or expired, renews it if it is ours. An ambiguous answer is resolved by reading.
    ///
    /// # Errors
    /// When the broker does not answer: whether we hold it is unknown, the caller's own clock decides how long to go on.
    pub async fn take_or_renew(&mut self) -> Result<LeaseState> {
        if let Some(ours) = self.ours
            && let Some(revision) = self.write(ours.revision).await?
        {
            return Ok(self.held(ours.term, revision));
        }
        // Not ours before, or another write than the one we know of was the last.
        let (expected, other) = match self.read().await? {
            Stored::Free(revision) => (revision, None),
            Stored::Of(holder, revision) if holder == self.holder => {
                // Ours: a write whose answer was lost, perhaps of an earlier tenure that this process knows nothing of.
                match self.ours {
                    Some(ours) => return Ok(self.held(ours.term, revision)),
                    None => (revision, None),
                }
            }
            Stored::Of(holder, revision) => (revision, Some(holder)),
        };
        self.ours = None;
        if let Some(holder) = other
            && !self.is_stale(expected)
        {
            return Ok(LeaseState::Other { holder });
        }
        match self.write(expected).await? {
            Some(revision) => Ok(self.held(revision, revision)),
            None => match self.read().await? {
                Stored::Of(holder, revision) if holder == self.holder => {
                    Ok(self.held(revision, revision))
                }
                Stored::Of(holder, revision) => {
                    self.is_stale(revision);
                    Ok(LeaseState::Other { holder })
                }
                // It came and went between two looks: whoever it was, it is not ours.
                Stored::Free(_) => Ok(LeaseState::Other { holder: String::new() }),
            },
        }
    }

    /// Gives the lease up, if it is ours.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn release(&mut self) -> Result<()> {
        let Some(ours) = self.ours.take() else {
            return Ok(());
        };
        let headers = || {
            let mut headers = self.headers(ours.revision);
            headers.insert(OPERATION, "DEL");
            headers
        };
        // Not the last one any more: then it is not ours to give up.
        self.publish(headers, Bytes::new()).await.map(|_| ())
    }

    fn held(&mut self, term: u64, revision: u64) -> LeaseState {
        self.ours = Some(Tenure { term, revision });
        self.seen = None;
        LeaseState::Held { term }
    }

    /// Whether another one's revision has not changed for a time to live, by our own clock.
    fn is_stale(&mut self, revision: u64) -> bool {
        match self.seen {
            Some((seen, since)) if seen == revision => since.elapsed() > self.ttl,
            Some(_) | None => {
                self.seen = Some((revision, Instant::now()));
                false
            }
        }
    }

    fn headers(&self, expected: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::EXPECTED_LAST, expected.to_string());
        // Whole seconds, and at least one: less the server does not take.
        let seconds = self.ttl.as_millis().div_ceil(1000).max(1);
        headers.insert(header::TTL, format!("{seconds}s"));
        headers
    }

    /// Writes our value over a revision; none if that is not the last one.
    async fn write(&self, expected: u64) -> Result<Option<u64>> {
        let value = encode(&Value { holder: self.holder.clone() })?;
        match self.publish(|| self.headers(expected), value).await? {
            Published::Stored(revision) | Published::Duplicate(revision) => Ok(Some(revision)),
            Published::WrongLast => Ok(None),
        }
    }

    async fn publish(&self, headers: impl Fn() -> HeaderMap, value: Bytes) -> Result<Published> {
        // An answer that comes later than this is of no use to the holder.
        let timeout = (self.ttl / 4).clamp(Duration::from_millis(250), Duration::from_secs(2));
        let subject = self.broker.lease_subject(KEY);
        let wire = self.broker.wire();
        Ok(wire.publish(subject, headers, value, timeout).await?.0)
    }

    async fn read(&self) -> Result<Stored> {
        let subject = self.broker.lease_subject(KEY);
        let stream = self.broker.lease_stream();
        let Some(record) = self.broker.wire().last(&stream, &subject).await? else {
            return Ok(Stored::Free(0));
        };
        if is_marker(&record) {
            return Ok(Stored::Free(record.seq));
        }
        let value: Value = record.parse()?;
        Ok(Stored::Of(value.holder, record.seq))
    }
}

/// Whether a record says that the key was deleted, or expired.
pub(crate) fn is_marker(record: &Record) -> bool {
    record.header(OPERATION).is_some() || record.header(MARKER).is_some()
}
