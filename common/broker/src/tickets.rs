//! Tickets that let a host join the cluster: one key each, which expires, and which the first host to use it writes its name into.

use std::time::Duration;

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::api::{Published, header};
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::encode;
use crate::lease::is_marker;
use crate::wire::CALL;

/// Who has used a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ticket {
    #[serde(default)]
    by: Option<String>,
}

/// What a ticket is worth to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admit {
    /// It may join.
    Granted,
    /// There is no such ticket, or no longer.
    Unknown,
    /// Another host has used it.
    Used,
}

impl Broker {
    fn ticket_subject(&self, hash: &str) -> String {
        self.lease_subject(&format!("join.{hash}"))
    }

    /// Stores a ticket, by the hash of its token, for some time.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn issue_ticket(&self, hash: &str, ttl: Duration) -> Result<()> {
        self.write_ticket(hash, &Ticket { by: None }, 0, ttl).await.map(|_| ())
    }

    /// Uses a ticket for the host `by`: the first one has it. The same host may come again, as after an answer that was lost.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn use_ticket(&self, hash: &str, by: &str, ttl: Duration) -> Result<Admit> {
        loop {
            let subject = self.ticket_subject(hash);
            let Some(record) = self.wire().last(&self.lease_stream(), &subject).await? else {
                return Ok(Admit::Unknown);
            };
            if is_marker(&record) {
                return Ok(Admit::Unknown);
            }
            match record.parse::<Ticket>()?.by {
                Some(user) if user == by => return Ok(Admit::Granted),
                Some(_) => return Ok(Admit::Used),
                None => {}
            }
            let used = Ticket { by: Some(by.to_owned()) };
            if self.write_ticket(hash, &used, record.seq, ttl).await? {
                return Ok(Admit::Granted);
            }
        }
    }

    async fn write_ticket(
        &self,
        hash: &str,
        ticket: &Ticket,
        expected: u64,
        ttl: Duration,
    ) -> Result<bool> {
        let headers = || {
            let mut headers = HeaderMap::new();
            headers.insert(header::EXPECTED_LAST, expected.to_string());
            headers.insert(header::TTL, format!("{}s", ttl.as_secs().max(1)));
            headers
        };
        let (subject, value) = (self.ticket_subject(hash), encode(ticket)?);
        let (published, _) = self.wire().publish(subject, headers, value, CALL).await?;
        // Not the last one any more: an earlier try of ours, or another host. The next look tells.
        Ok(!matches!(published, Published::WrongLast))
    }
}
