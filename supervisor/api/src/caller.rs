//! Whoever makes a request, and what they may do.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use common::tokens::Token;
use common::users::Scope;
use common::{AgentName, SenderName};
use mozart_client::Client;

use crate::Api;
use crate::problem::Problem;

/// Whoever has shown a token. A handler that takes no caller is open to everybody.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) token: Token,
    /// The connection, in the name of the token.
    pub(crate) client: Client,
}

impl Caller {
    pub(crate) fn new(api: &Api, token: Token) -> Self {
        let client = api.client.on_behalf(token.scope, token.name.clone());
        let client = client.only(token.agents.clone());
        Self { token, client }
    }

    /// Its name: the sender of its messages.
    pub(crate) fn name(&self) -> &SenderName {
        &self.token.name
    }

    /// Demands a scope.
    ///
    /// # Errors
    /// 403 when the token has a lesser one.
    pub(crate) fn may(&self, needs: Scope) -> Result<(), Problem> {
        let Token { name, scope, .. } = &self.token;
        if *scope >= needs {
            return Ok(());
        }
        let cause = format!("token {name} has scope {scope}, and it needs {needs}");
        let try_ = format!("a token of `mozart token create NAME --scope {needs}`");
        Err(Problem::denied("the request is not allowed", cause, try_))
    }

    /// Whether the token is good for an agent.
    pub(crate) fn sees(&self, agent: &AgentName) -> bool {
        self.client.sees(agent)
    }

    /// Demands that the token is good for an agent.
    ///
    /// # Errors
    /// 403 when it is not.
    pub(crate) fn reach(&self, agent: &AgentName) -> Result<(), Problem> {
        if self.sees(agent) {
            return Ok(());
        }
        let agents: Vec<_> = self.token.agents.iter().map(AgentName::as_str).collect();
        let cause = format!("token {} is good for {} only", self.token.name, agents.join(", "));
        Err(Problem::denied("the request is not allowed", cause, "a token for that agent"))
    }

    /// Demands that the token is good for a list: of an agent, or of all of them.
    ///
    /// # Errors
    /// 403 when it is not.
    pub(crate) fn reach_all(&self, agent: Option<&AgentName>) -> Result<(), Problem> {
        match agent {
            Some(agent) => self.reach(agent),
            None if self.token.agents.is_empty() => Ok(()),
            None => {
                let agents: Vec<_> = self.token.agents.iter().map(AgentName::as_str).collect();
                let cause =
                    format!("token {} is good for {} only", self.token.name, agents.join(", "));
                let try_ = "name the agent, where there is a parameter for it";
                Err(Problem::denied("the request is not allowed", cause, try_))
            }
        }
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, Problem> {
        // The gate has put it there.
        parts.extensions.get::<Self>().cloned().ok_or_else(crate::gate::no_token)
    }
}
