//! The fleet's id, and the secret that only those know who have its password.

use async_nats::HeaderMap;
use bytes::Bytes;
use uuid::Uuid;

use crate::api::header;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::lease::is_marker;

impl Broker {
    /// What distinguishes this fleet from every other one, also on an engine that several share: derived from its secret, which it does
    /// not reveal.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn fleet_id(&self) -> Result<String> {
        if let Some(node) = self.as_node() {
            return self.fleet_id_as_node(&node).await;
        }
        let secret = self.fleet_secret().await?;
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("fleet {secret}").as_bytes());
        let id = id.simple().to_string();
        Ok(id.get(..12).unwrap_or(&id).to_owned())
    }

    /// The fleet's secret: 32 random bytes in hex, created by the first caller.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn fleet_secret(&self) -> Result<String> {
        let (stream, subject) = (self.lease_stream(), self.lease_subject("secret"));
        let wire = self.wire();
        loop {
            if let Some(record) = wire.last(&stream, &subject).await?
                && !is_marker(&record)
            {
                return String::from_utf8(record.payload.into()).map_err(BrokerError::other);
            }
            let headers = || {
                let mut headers = HeaderMap::new();
                headers.insert(header::EXPECTED_LAST, "0");
                headers
            };
            let secret = Bytes::from(random_hex()?);
            // Whether ours or another's is first: the next look tells.
            wire.publish(subject.clone(), headers, secret, crate::wire::CALL).await?;
        }
    }

    /// Separates this fleet from the one that its data is a copy of. Only while nothing of it runs.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn renew_fleet_secret(&self) -> Result<()> {
        let secret = Bytes::from(random_hex()?);
        let subject = self.lease_subject("secret");
        // Twice is as good as once.
        let published = self.wire().publish(subject, HeaderMap::new, secret, crate::wire::CALL);
        published.await.map(|_| ())
    }
}

fn random_hex() -> Result<String> {
    let mut random = [0_u8; 32];
    let mut filled = 0;
    while filled < random.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled +=
            rustix::rand::getrandom(&mut random[filled..], flags).map_err(BrokerError::other)?;
    }
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
