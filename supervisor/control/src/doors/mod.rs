//! Who may connect, and what shims and nodes may ask: answered by every supervisor, whether it leads or not. Nothing here waits for the supervisor's own
//! loop, and nothing there for this.

mod asks;
mod floods;
mod live;
mod logins;
mod nodes;
mod refusals;

use std::sync::Arc;
use std::time::Duration;

use broker::{AuthKey, Broker};
use common::api::ApiError;
use metrics::Fleet;
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use live::Live;
pub use refusals::{Refusals, Refused};

use asks::Asks;
use logins::Doorkeeper;
use nodes::NodeAsks;

/// How far a login or a question may be ahead of what this supervisor has read of the log.
const AHEAD: Duration = Duration::from_secs(2);
/// Where answers may go: an inbox, or what a server puts in its place between accounts. Nobody who asks has the right to write to anything else.
const INBOXES: [&str; 2] = ["_INBOX.", "_R_."];
/// One of the supervisors gets each question.
const GROUP: &str = "supervisors";

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
    /// Where its numbers go.
    pub(crate) metrics: Option<Fleet>,
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
        let nodes = NodeAsks::open(self.clone()).await?;
        let logins = async {
            match key {
                Some(key) => Doorkeeper::open(self, key).await?.keep().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = asks.answer() => ended,
            ended = nodes.answer() => ended,
            ended = logins => ended,
        }
    }
}
