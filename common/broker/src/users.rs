//! Users of the fleet: one key each in the lease's bucket, which none of them can read.

use async_nats::HeaderMap;
use common::SenderName;
use common::users::User;

use crate::api::{Published, header};
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::encode;
use crate::lease::is_marker;
use crate::wire::CALL;

impl Broker {
    fn user_subject(&self, name: &str) -> String {
        self.lease_subject(&format!("user.{name}"))
    }

    /// Adds a user. False: there is one of this name.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn add_user(&self, user: &User) -> Result<bool> {
        let subject = self.user_subject(user.name.as_str());
        let headers = || {
            let mut headers = HeaderMap::new();
            headers.insert(header::EXPECTED_LAST, "0");
            headers
        };
        let payload = encode(user)?;
        let (published, tries) = self.wire().publish(subject, headers, payload, CALL).await?;
        match published {
            Published::Stored(_) | Published::Duplicate(_) => Ok(true),
            // Ours, if an earlier try stored it and its answer was lost.
            Published::WrongLast if tries > 1 => {
                Ok(self.user_named(&user.name).await?.is_some_and(|there| there == *user))
            }
            Published::WrongLast => Ok(false),
        }
    }

    /// A user.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn user_named(&self, name: &SenderName) -> Result<Option<User>> {
        let subject = self.user_subject(name.as_str());
        let record = self.wire().last(&self.lease_stream(), &subject).await?;
        record.filter(|record| !is_marker(record)).map(|record| record.parse()).transpose()
    }

    /// All users, by name.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn users(&self) -> Result<Vec<User>> {
        let stream = self.lease_stream();
        let index = self.wire().index(&stream, &self.user_subject("*")).await?;
        let mut users = Vec::new();
        for subject in index.subjects.keys() {
            if let Some(record) = self.wire().last(&stream, subject).await?
                && !is_marker(&record)
            {
                users.push(record.parse()?);
            }
        }
        Ok(users)
    }

    /// Removes a user. False: there was none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn revoke_user(&self, name: &SenderName) -> Result<bool> {
        let subject = self.user_subject(name.as_str());
        Ok(self.wire().purge(&self.lease_stream(), &subject).await? > 0)
    }
}
