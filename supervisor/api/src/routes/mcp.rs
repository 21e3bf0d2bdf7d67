//! The fleet as tools of the Model Context Protocol.

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Router, body::Body};
use mcp::Who;

use crate::Api;
use crate::caller::Caller;
use crate::gate;

/// Where clients of the protocol look.
const PATH: &str = "/mcp";

pub(super) fn router(api: &Api) -> Router<Api> {
    let tools = mcp::http(gate::BODY, api.stop.clone());
    Router::new()
        .route_service(PATH, tools)
        .route_layer(middleware::from_fn_with_state(Api::clone(api), enter))
}

/// Tells the tools who uses them, and takes the request whole: that has its own time.
async fn enter(caller: Caller, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let bytes = match gate::body(body).await {
        Ok(bytes) => bytes,
        Err(problem) => return problem.into_response(),
    };
    let door = format!("api.{}", caller.name());
    let Caller { token, client } = caller;
    parts.extensions.insert(Who { client, scope: token.scope, agents: token.agents, door });
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}
