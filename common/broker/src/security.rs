//! SECURITY: what was refused, for 30 days.

use async_nats::HeaderMap;
use common::AgentName;
use common::security::SecurityEvent;

use crate::back::BackReader;
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::encode;
use crate::wire::CALL;

impl Broker {
    pub(crate) fn security_stream(&self) -> String {
        self.subjects().stream("SECURITY")
    }

    /// Records a refusal.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn record_refusal(&self, event: &SecurityEvent) -> Result<()> {
        let subject = self.subjects().security(event.agent.as_ref());
        self.wire().publish(subject, HeaderMap::new, encode(event)?, CALL).await.map(|_| ())
    }

    /// The last refusals, oldest first: of an agent, or of all and of those who are none. What cannot be read is left out.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn refusals(
        &self,
        agent: Option<&AgentName>,
        limit: usize,
    ) -> Result<Vec<SecurityEvent>> {
        let filter = match agent {
            Some(agent) => self.subjects().security(Some(agent)),
            None => self.subjects().security_filter(),
        };
        let of = (self.security_stream(), filter);
        let page = limit.min(1000) as u64;
        let mut reader = BackReader::new(self.wire(), of, self.replicas(), None, page).await?;
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(record) = reader.next().await?
        {
            found.extend(record.parse().ok());
        }
        found.reverse();
        Ok(found)
    }
}
