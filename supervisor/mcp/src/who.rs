//! Whoever uses the tools, and what they may do.

use common::api::ApiError;
use common::users::Scope;
use common::{AgentName, SenderName, failure};
use mozart_client::Client;

/// Whoever uses the tools.
#[derive(Debug, Clone)]
pub struct Who {
    /// The connection, in their name.
    pub client: Client,
    /// What they may do.
    pub scope: Scope,
    /// The agents that they may see; none: all of them.
    pub agents: Vec<AgentName>,
    /// By way of what they came, as the journal names it: `api.ana`.
    pub door: String,
}

impl Who {
    /// Their name: the sender of their messages.
    pub(crate) fn name(&self) -> SenderName {
        self.client.sender()
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
        self.agents.is_empty() || self.agents.contains(agent)
    }

    /// Demands that they may see an agent.
    ///
    /// # Errors
    /// 7 when they may not.
    pub(crate) fn reach(&self, agent: &AgentName) -> Result<(), ApiError> {
        if self.sees(agent) {
            return Ok(());
        }
        let agents: Vec<_> = self.agents.iter().map(AgentName::as_str).collect();
        let cause = format!("{} may reach {} only", self.name(), agents.join(", "));
        Err(failure::error(
            failure::DENIED,
            "the tool is not allowed",
            cause,
            "one of these agents",
        ))
    }
}
