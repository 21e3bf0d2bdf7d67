//! Tokens of the HTTP API, by their hashes.

use common::SenderName;
use common::tokens::Token;

use crate::connection::Broker;
use crate::error::Result;

fn key(name: &SenderName) -> String {
    format!("token.{name}")
}

impl Broker {
    /// Adds a token. False: there is one of this name.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn add_token(&self, token: &Token) -> Result<bool> {
        self.add_named(&key(&token.name), token).await
    }

    /// A token.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn token_named(&self, name: &SenderName) -> Result<Option<Token>> {
        self.named(&key(name)).await
    }

    /// All tokens, by name.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        self.all_named("token").await
    }

    /// Removes a token. False: there was none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn revoke_token(&self, name: &SenderName) -> Result<bool> {
        self.remove_named(&key(name)).await
    }
}
