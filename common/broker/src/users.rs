//! Users of the fleet.

use common::SenderName;
use common::users::User;

use crate::connection::Broker;
use crate::error::Result;

fn key(name: &SenderName) -> String {
    format!("user.{name}")
}

impl Broker {
    /// Adds a user. False: there is one of this name.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn add_user(&self, user: &User) -> Result<bool> {
        self.add_named(&key(&user.name), user).await
    }

    /// A user.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn user_named(&self, name: &SenderName) -> Result<Option<User>> {
        self.named(&key(name)).await
    }

    /// All users, by name.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn users(&self) -> Result<Vec<User>> {
        self.all_named("user").await
    }

    /// Removes a user. False: there was none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn revoke_user(&self, name: &SenderName) -> Result<bool> {
        self.remove_named(&key(name)).await
    }
}
