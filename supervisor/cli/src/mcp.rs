//! `mozart mcp`.

use ::mcp::Who;
use clap::Args;
use common::AgentName;
use common::api::ApiError;
use common::users::Scope;

use super::client::Client;
use crate::args::Global;

/// `mozart mcp`.
#[derive(Debug, Args)]
pub struct McpArgs {
    /// Only this agent; repeatable [default: all]
    #[arg(long = "agent", value_name = "AGENT")]
    agents: Vec<AgentName>,
}

/// Serves the tools until stdin is closed. Stdout is the protocol's alone.
///
/// # Errors
/// When the broker cannot be reached, or whoever started us does not speak the protocol.
pub(crate) async fn run(global: &Global, args: &McpArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let scope = client.broker.user().map_or(Scope::Admin, |user| user.scope);
    let agents = args.agents.clone();
    let client = (*client).clone().only(agents);
    let who = Who { client, scope, house: None, door: "mcp".to_owned() };
    ::mcp::stdio(who).await.map(|()| 0)
}
