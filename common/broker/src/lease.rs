//! The leader's lease: a key with a time to live, taken and renewed by compare-and-set with raw publishes (the client's KV calls
//! drop the time to live).

use std::time::Duration;

use crate::connection::Broker;
use crate::error::Result;

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
pub struct Lease {}

impl Broker {
    /// Prepares to compete for the lease.
    #[must_use]
    pub fn lease(&self, _holder: &str, _ttl: Duration) -> Lease {
        todo!()
    }
}

impl Lease {
    /// Takes the lease if it is free or expired, renews it if it is ours. An ambiguous answer is resolved by reading.
    ///
    /// # Errors
    /// When the broker does not answer: whether we hold it is unknown, the caller's own clock decides how long to go on.
    pub async fn take_or_renew(&mut self) -> Result<LeaseState> {
        todo!()
    }

    /// Gives the lease up, if it is ours.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn release(&mut self) -> Result<()> {
        todo!()
    }
}
