//! The fleet as tools of the Model Context Protocol, so that an assistant can work with agents: over HTTP, beneath whatever serves that, and
//! over stdin and stdout. It keeps nothing: a tool that waits can be called again with the id of the message, at any process.

mod ask;
mod asked;
mod fleet;
mod shown;
mod tools;
mod who;

use std::sync::Arc;

use common::api::ApiError;
use common::failure;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;

pub use tools::Tools;
pub use who::{House, Who};

/// What answers over HTTP.
pub type Http = StreamableHttpService<Tools, NeverSessionManager>;

/// The service over HTTP. Whoever asks is a [`Who`] among the extensions of the request; hosts, origins and tokens are checked before.
/// `most`: the longest request, in bytes.
#[must_use]
pub fn http(most: usize, stop: CancellationToken) -> Http {
    // Without sessions: any process answers any request, of clients of all versions of the protocol.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(most)
        .with_cancellation_token(stop);
    StreamableHttpService::new(
        || Ok(Tools::of_requests()),
        Arc::new(NeverSessionManager::default()),
        config,
    )
}

/// Serves on stdin and stdout, until stdin is closed.
///
/// # Errors
/// 1 when whoever is at the other end does not speak the protocol.
pub async fn stdio(who: Who) -> Result<(), ApiError> {
    let failed = |cause: String| {
        let what = "the session over stdin and stdout ended";
        let try_ =
            "`mozart mcp` is started by an MCP client; the documentation has its configuration";
        failure::error(failure::FAILED, what, cause, try_)
    };
    let serving = rmcp::serve_server(Tools::of(who), rmcp::transport::stdio()).await;
    let serving = match serving {
        Ok(serving) => serving,
        // Whoever started us has gone, before it said anything.
        Err(rmcp::service::ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(failed(error.to_string())),
    };
    serving.waiting().await.map(drop).map_err(|error| failed(error.to_string()))
}
