//! Links that sign a browser in: by the hash of their secret, for a short time, and once.

use std::time::Duration;

use async_nats::HeaderMap;
use common::tokens::Link;

use crate::api::{Published, header};
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::journal::encode;
use crate::wire::CALL;

fn key(hash: &str) -> String {
    format!("link.{hash}")
}

impl Broker {
    /// Stores a link, by the hash of its secret, for some time.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn add_link(&self, hash: &str, link: &Link, ttl: Duration) -> Result<()> {
        let headers = || {
            let mut headers = HeaderMap::new();
            headers.insert(header::EXPECTED_LAST, "0");
            headers.insert(header::TTL, format!("{}s", ttl.as_secs().max(1)));
            headers
        };
        let (subject, payload) = (self.lease_subject(&key(hash)), encode(link)?);
        let (published, tries) = self.wire().publish(subject, headers, payload, CALL).await?;
        match published {
            Published::Stored(_) | Published::Duplicate(_) => Ok(()),
            // Ours: an earlier try stored it, and its answer was lost.
            Published::WrongLast if tries > 1 => Ok(()),
            Published::WrongLast => Err(BrokerError::other("the link is taken")),
        }
    }

    /// Whether there is a link.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn has_link(&self, hash: &str) -> Result<bool> {
        Ok(self.named::<Link>(&key(hash)).await?.is_some())
    }

    /// Uses a link up. None: there is none, or no longer. Of several who try, one has it.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn take_link(&self, hash: &str) -> Result<Option<Link>> {
        let link = self.named(&key(hash)).await?;
        // The server says to one of them alone that it removed a record.
        Ok(if link.is_some() && self.remove_named(&key(hash)).await? { link } else { None })
    }
}
