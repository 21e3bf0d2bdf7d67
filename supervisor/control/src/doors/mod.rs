//! Who may connect, and what shims may ask: answered by every supervisor, whether it leads or not. Nothing here waits for the supervisor's own
//! loop, and nothing there for this.

mod asks;
mod floods;
mod live;
mod logins;
mod refusals;

use std::sync::Arc;

use broker::{AuthKey, Broker};
use common::api::ApiError;
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use live::Live;
pub use refusals::{Refusals, Refused};

use asks::Asks;
use logins::Doorkeeper;

/// What both need.
#[derive(Clone)]
pub(crate) struct Doors {
    /// The supervisor's id, for the record.
    pub(crate) id: String,
    /// Connections for what is asked and answered.
    pub(crate) broker: Broker,
    /// Makes the tokens of incarnations.
    pub(crate) secret: Uuid,
    pub(crate) live: Arc<Live>,
    /// Whether this supervisor leads.
    pub(crate) leads: watch::Receiver<bool>,
}

/// The token of an incarnation: of its command subject, and its password. Every supervisor can compute it, and nobody else.
pub(crate) fn token(secret: Uuid, agent: &common::AgentName, incarnation: u64) -> String {
    let name = format!("{agent}/{incarnation}");
    Uuid::new_v5(&secret, name.as_bytes()).simple().to_string()
}

impl Doors {
    /// Answers until it is dropped; without a key, for questions only.
    ///
    /// # Errors
    /// When the client is closed.
    pub(crate) async fn keep(self, key: Option<AuthKey>) -> Result<(), ApiError> {
        let asks = Asks::open(self.clone()).await?;
        let Some(key) = key else { return asks.answer().await };
        let logins = Doorkeeper::open(self, key).await?;
        tokio::select! {
            ended = asks.answer() => ended,
            ended = logins.keep() => ended,
        }
    }
}
