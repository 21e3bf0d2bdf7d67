//! The leader's lease: a key with a time to live, taken and renewed by compare-and-set with raw publishes (the client's KV calls
//! drop the time to live).
//!
//! It says who may lead, and until when by the holder's own clock. It says nothing of terms: its revisions start over with a new
//! bucket, the control log's sequences do not.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::api::{Published, Record, header};
use crate::clock::Moment;
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::encode;

const KEY: &str = "leader";
const OPERATION: &str = "KV-Operation";
const MARKER: &str = "Nats-Marker-Reason";

/// The part of the time to live that a holder leaves unused, since its clock may be slower than the others'.
const MARGIN: u32 = 4;

/// The result of an attempt to take or renew the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// Ours.
    Held {
        /// Another number with each time that we took it, and not only renewed it.
        tenure: u64,
        /// Until this moment, whatever happens: three quarters of the time to live, from before the renewal was sent.
        until: Moment,
    },
    /// Another one's.
    Other {
        /// The holder's id; empty if that is not known.
        holder: String,
    },
}

/// One supervisor's view of the lease.
#[derive(Debug)]
pub struct Lease {
    broker: Broker,
    holder: Holder,
    ttl: Duration,
    /// Whether a claim of our id and another run is that of a process which is known to be dead.
    succeeds: bool,
    ours: Option<Tenure>,
    /// Another one's revision, and since when by our own clock: it may be taken over when it does not change for a
    /// time to live, whether or not the server lets it expire.
    seen: Option<(Claim, Moment)>,
}

/// What we hold.
#[derive(Debug, Clone, Copy)]
struct Tenure {
    /// The revision at which we took it.
    since: u64,
    revision: u64,
}

/// Whose the lease is: a process, not an id, since two may be started with one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    holder: String,
    /// Random, of one process.
    #[serde(default)]
    run: String,
}

/// A holder's write. Holder and revision: a bucket that was recreated counts from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    of: Holder,
    revision: u64,
}

/// What is stored under the key.
enum Stored {
    /// Nobody's: compare against this revision.
    Free(u64),
    Of(Claim),
}

impl Broker {
    /// Prepares to compete for the lease. `run`: random, of this process.
    #[must_use]
    pub fn lease(&self, id: &str, run: &str, ttl: Duration) -> Lease {
        Lease {
            broker: self.clone(),
            holder: Holder { holder: id.to_owned(), run: run.to_owned() },
            ttl,
            succeeds: false,
            ours: None,
            seen: None,
        }
    }

    /// Who holds the lease; none if nobody does. Reads, and takes part in nothing.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn lease_holder(&self) -> Result<Option<String>> {
        const PATIENCE: Duration = Duration::from_secs(8);
        Ok(match self.lease("", "", PATIENCE).read().await? {
            Stored::Free(_) => None,
            Stored::Of(claim) => Some(claim.of.holder),
        })
    }

    pub(crate) fn lease_stream(&self) -> String {
        format!("KV_{}", self.subjects().lease_bucket())
    }

    pub(crate) fn lease_subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.subjects().lease_bucket())
    }
}

impl Lease {
    /// Takes over the claim of an earlier process of the same id at once. Only for a caller that knows that no such process runs any more,
    /// as by a lock that both hold.
    #[must_use]
    pub fn succeeding(mut self) -> Self {
        self.succeeds = true;
        self
    }

    /// Takes the lease if it is free or expired, renews it if it is ours. An ambiguous answer is resolved by reading.
    ///
    /// # Errors
    /// When the broker does not answer: whether we hold it is unknown, and it is ours until the moment that was told last.
    pub async fn take_or_renew(&mut self) -> Result<LeaseState> {
        // From before anything is sent: whatever the server stores, it stores later.
        let began = Moment::now();
        let expected = match self.read().await? {
            // Perhaps by a write whose answer was lost. Nobody wrote in between: that would be the last one now.
            Stored::Of(claim) if claim.of == self.holder => claim.revision,
            Stored::Of(claim) if !self.is_predecessors(&claim) && !self.is_stale(&claim) => {
                return Ok(self.others(claim));
            }
            Stored::Free(revision) | Stored::Of(Claim { revision, .. }) => {
                self.ours = None;
                revision
            }
        };
        if let Some(revision) = self.write(expected).await? {
            return Ok(self.held(revision, began));
        }
        match self.read().await? {
            // An earlier try of this very write: its answer was lost.
            Stored::Of(claim) if claim.of == self.holder => Ok(self.held(claim.revision, began)),
            Stored::Of(claim) => {
                self.is_stale(&claim);
                Ok(self.others(claim))
            }
            // It came and went between two looks: whoever it was, it is not ours.
            Stored::Free(_) => {
                self.ours = None;
                Ok(LeaseState::Other { holder: String::new() })
            }
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

    /// Ours: renewed if it was before, else taken.
    fn held(&mut self, revision: u64, began: Moment) -> LeaseState {
        let since = self.ours.map_or(revision, |ours| ours.since);
        self.ours = Some(Tenure { since, revision });
        self.seen = None;
        LeaseState::Held { tenure: since, until: began.after(self.ttl - self.ttl / MARGIN) }
    }

    fn others(&mut self, claim: Claim) -> LeaseState {
        self.ours = None;
        LeaseState::Other { holder: claim.of.holder }
    }

    /// Whether another one's claim has not changed for a time to live, by our own clock. That we saw it before and see it again
    /// is not proof enough, we may have been stopped in between: the compare-and-set is.
    fn is_stale(&mut self, claim: &Claim) -> bool {
        match &self.seen {
            Some((seen, since)) if seen == claim => Moment::now().since(*since) > self.ttl,
            Some(_) | None => {
                self.seen = Some((claim.clone(), Moment::now()));
                false
            }
        }
    }

    fn is_predecessors(&self, claim: &Claim) -> bool {
        self.succeeds && claim.of.holder == self.holder.holder
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
        let value = encode(&self.holder)?;
        match self.publish(|| self.headers(expected), value).await? {
            Published::Stored(revision) | Published::Duplicate(revision) => Ok(Some(revision)),
            Published::WrongLast => Ok(None),
        }
    }

    async fn publish(&self, headers: impl Fn() -> HeaderMap, value: Bytes) -> Result<Published> {
        let subject = self.broker.lease_subject(KEY);
        let wire = self.broker.wire();
        Ok(wire.publish(subject, headers, value, self.patience()).await?.0)
    }

    /// An answer that comes later than this is of no use to the holder.
    fn patience(&self) -> Duration {
        (self.ttl / 4).clamp(Duration::from_millis(250), Duration::from_secs(2))
    }

    async fn read(&self) -> Result<Stored> {
        let subject = self.broker.lease_subject(KEY);
        let stream = self.broker.lease_stream();
        let wire = self.broker.wire();
        let Some(record) = wire.last_within(&stream, &subject, self.patience()).await? else {
            return Ok(Stored::Free(0));
        };
        if is_marker(&record) {
            return Ok(Stored::Free(record.seq));
        }
        Ok(Stored::Of(Claim { of: record.parse()?, revision: record.seq }))
    }
}

/// Whether a record says that the key was deleted, or expired.
pub(crate) fn is_marker(record: &Record) -> bool {
    record.header(OPERATION).is_some() || record.header(MARKER).is_some()
}
