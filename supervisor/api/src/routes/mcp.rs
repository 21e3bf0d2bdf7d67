//! The fleet as tools of the Model Context Protocol.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::StreamExt as _;
use mcp::Who;

use crate::Api;
use crate::caller::Caller;
use crate::gate;
use crate::problem::Problem;
use crate::sse;

/// Where clients of the protocol look.
const PATH: &str = "/mcp";

pub(super) fn router(api: &Api) -> Router<Api> {
    let tools = mcp::http(gate::BODY, api.stop.clone());
    Router::new()
        .route_service(PATH, tools)
        .route_layer(middleware::from_fn_with_state(Api::clone(api), enter))
}

/// Tells the tools who uses them, and takes the request whole: that has its own time. It is answered for as long as the token holds.
async fn enter(
    State(api): State<Api>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let bytes = gate::body(body).await?;
    let mut over = Box::pin(sse::over(&api, &caller));
    let door = format!("api.{}", caller.name());
    let Caller { token, client } = caller;
    parts.extensions.insert(Who { client, scope: token.scope, agents: token.agents, door });
    let response = tokio::select! {
        response = next.run(Request::from_parts(parts, Body::from(bytes))) => response,
        error = &mut over => return Err(error.into()),
    };
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| !kind.as_bytes().starts_with(b"text/event-stream")) {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = body.into_data_stream().take_until(over);
    Ok(Response::from_parts(parts, Body::from_stream(body)))
}
