//! What the fleet knows by name: users and tokens. One key each in the lease's bucket, which none of them can read.

use async_nats::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{Published, header};
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::encode;
use crate::lease::is_marker;
use crate::wire::CALL;

impl Broker {
    /// Adds something. False: there is one of this name.
    pub(crate) async fn add_named<T: Serialize + DeserializeOwned + PartialEq>(
        &self,
        key: &str,
        value: &T,
    ) -> Result<bool> {
        let subject = self.lease_subject(key);
        let headers = || {
            let mut headers = HeaderMap::new();
            headers.insert(header::EXPECTED_LAST, "0");
            headers
        };
        let payload = encode(value)?;
        let (published, tries) = self.wire().publish(subject, headers, payload, CALL).await?;
        match published {
            Published::Stored(_) | Published::Duplicate(_) => Ok(true),
            // Ours, if an earlier try stored it and its answer was lost.
            Published::WrongLast if tries > 1 => {
                Ok(self.named::<T>(key).await?.is_some_and(|there| there == *value))
            }
            Published::WrongLast => Ok(false),
        }
    }

    pub(crate) async fn named<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let record = self.wire().last(&self.lease_stream(), &self.lease_subject(key)).await?;
        record.filter(|record| !is_marker(record)).map(|record| record.parse()).transpose()
    }

    /// All of a kind, by name.
    pub(crate) async fn all_named<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>> {
        let (stream, filter) = (self.lease_stream(), self.lease_subject(&format!("{kind}.*")));
        let index = self.wire().index(&stream, &filter).await?;
        let mut all = Vec::new();
        for subject in index.subjects.keys() {
            if let Some(record) = self.wire().last(&stream, subject).await?
                && !is_marker(&record)
            {
                all.push(record.parse()?);
            }
        }
        Ok(all)
    }

    /// Removes something. False: there was none.
    pub(crate) async fn remove_named(&self, key: &str) -> Result<bool> {
        Ok(self.wire().purge(&self.lease_stream(), &self.lease_subject(key)).await? > 0)
    }
}
