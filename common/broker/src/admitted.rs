//! Which incarnation of an agent may take messages, and through which consumer: one key an agent, changed by compare-and-set.
//!
//! Two leaders, one of which does not know yet that it was deposed, may admit at the same time. The key is written before the
//! consumer is created and read again afterwards: so the late one finds out, and removes only its own consumer.

use async_nats::HeaderMap;
use common::AgentName;
use serde::{Deserialize, Serialize};

use crate::api::{Published, header};
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::encode;
use crate::lease::is_marker;
use crate::wire::CALL;

/// Who takes an agent's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Admitted {
    /// The incarnation.
    pub incarnation: u64,
    /// The name of its consumer.
    pub consumer: String,
}

/// The outcome of a [`Broker::admit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Won,
    /// A later incarnation was admitted.
    Lost(Admitted),
}

impl Broker {
    fn admitted_subject(&self, agent: &AgentName) -> String {
        self.lease_subject(&format!("admitted.{agent}"))
    }

    /// Who was admitted last, as the bucket's leader knows it; with the revision.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn admitted(&self, agent: &AgentName) -> Result<Option<Admitted>> {
        Ok(self.read_admitted(agent).await?.1)
    }

    async fn read_admitted(&self, agent: &AgentName) -> Result<(u64, Option<Admitted>)> {
        let subject = self.admitted_subject(agent);
        match self.wire().last(&self.lease_stream(), &subject).await? {
            None => Ok((0, None)),
            Some(record) if is_marker(&record) => Ok((record.seq, None)),
            Some(record) => Ok((record.seq, Some(record.parse()?))),
        }
    }

    /// Admits an incarnation, unless a later one was. The same one may come again, through another consumer. Repeated, it is
    /// harmless.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn admit(&self, agent: &AgentName, wanted: &Admitted) -> Result<Admission> {
        let value = encode(wanted)?;
        loop {
            let (revision, there) = self.read_admitted(agent).await?;
            match there {
                Some(there) if there == *wanted => return Ok(Admission::Won),
                Some(there) if there.incarnation > wanted.incarnation => {
                    return Ok(Admission::Lost(there));
                }
                Some(_) | None => {}
            }
            let headers = || {
                let mut headers = HeaderMap::new();
                headers.insert(header::EXPECTED_LAST, revision.to_string());
                headers
            };
            let subject = self.admitted_subject(agent);
            match self.wire().publish(subject, headers, value.clone(), CALL).await?.0 {
                Published::Stored(_) | Published::Duplicate(_) => return Ok(Admission::Won),
                // Somebody was faster, or an earlier try of ours was stored: the next look tells.
                Published::WrongLast => {}
            }
        }
    }

    /// Forgets who was admitted: the agent was removed.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn forget_admitted(&self, agent: &AgentName) -> Result<()> {
        self.wire().purge(&self.lease_stream(), &self.admitted_subject(agent)).await.map(|_| ())
    }
}
