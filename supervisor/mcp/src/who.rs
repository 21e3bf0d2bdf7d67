//! Whoever uses the tools, and what they may do.

use std::fmt::Debug;
use std::sync::Arc;

use common::api::ApiError;
use common::message::MessageKey;
use common::users::Scope;
use common::{AgentName, SenderName, failure};
use mozart_client::Client;
use mozart_client::feed::Feed;
use mozart_client::watch::Watch;

/// The process that serves tools to many.
pub trait House: Debug + Send + Sync {
    /// Counts a call that waits for an answer, until what is yielded is dropped.
    ///
    /// # Errors
    /// 9 when whoever calls has too many requests open.
    fn wait(&self) -> Result<Box<dyn Send>, ApiError>;

    /// A message was stored, and not before.
    fn accepted(&self);

    /// The control log, as all streams of the process follow it.
    fn feed(&self) -> &Feed;
}

/// Whoever uses the tools.
#[derive(Debug, Clone)]
pub struct Who {
    /// The connection, in their name, for the agents that they may see.
    pub client: Client,
    /// What they may do.
    pub scope: Scope,
    /// The process that serves them among others; none: it serves them alone.
    pub house: Option<Arc<dyn House>>,
    /// By way of what they came, as the journal names it: `api.ana`.
    pub door: String,
}

impl Who {
    /// Their name: the sender of their messages.
    pub(crate) fn name(&self) -> SenderName {
        self.client.sender()
    }

    /// Opens what the stream of a message is read from.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn watch(&self, key: &MessageKey) -> Result<Watch, ApiError> {
        let feed = self.house.as_ref().map(|house| house.feed());
        Watch::open_with(&self.client.broker, key, feed).await
    }

    /// Counts a call that waits, until what is yielded is dropped.
    ///
    /// # Errors
    /// 9 when there are too many.
    pub(crate) fn wait(&self) -> Result<Option<Box<dyn Send>>, ApiError> {
        self.house.as_ref().map(|house| house.wait()).transpose()
    }

    /// Demands a scope.
    ///
    /// # Errors
    /// 7 when they have a lesser one.
    pub(crate) fn may(&self, needs: Scope) -> Result<(), ApiError> {
        if self.scope >= needs {
            return Ok(());
        }
        let cause = format!("{} has scope {}, and it needs {needs}", self.name(), self.scope);
        let try_ = format!("a token or user with scope {needs}");
        Err(failure::error(failure::DENIED, "the tool is not allowed", cause, try_))
    }

    /// Whether they may see an agent.
    pub(crate) fn sees(&self, agent: &AgentName) -> bool {
        self.client.sees(agent)
    }

    /// Demands that they may see an agent.
    ///
    /// # Errors
    /// 7 when they may not.
    pub(crate) fn reach(&self, agent: &AgentName) -> Result<(), ApiError> {
        if self.sees(agent) {
            return Ok(());
        }
        let agents: Vec<_> = self.client.agents().iter().map(AgentName::as_str).collect();
        let cause = format!("{} may reach {} only", self.name(), agents.join(", "));
        Err(failure::error(
            failure::DENIED,
            "the tool is not allowed",
            cause,
            "one of these agents",
        ))
    }
}
