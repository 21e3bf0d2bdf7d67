//! The fleet as tools of the Model Context Protocol.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::Response;
use common::api::ApiError;
use futures_util::StreamExt as _;
use mcp::{House, Who};
use mozart_client::feed::Feed;
use mozart_client::send::Known;

use crate::Api;
use crate::Door;
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

/// This process, for one who uses the tools.
#[derive(Debug)]
struct Serving {
    api: Api,
    caller: Caller,
}

impl House for Serving {
    fn wait(&self) -> Result<Box<dyn Send>, ApiError> {
        match sse::open(&self.api, &self.caller) {
            Ok(open) => Ok(Box::new(open)),
            Err(problem) => Err(problem.error().clone()),
        }
    }

    fn accepted(&self) {
        self.api.accepted(Door::Mcp, Some(&Known::New));
    }

    fn feed(&self) -> &Feed {
        &self.api.feed
    }
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
    let (client, scope) = (caller.client.clone(), caller.token.scope);
    let house = Some(Arc::new(Serving { api, caller }) as Arc<dyn House>);
    parts.extensions.insert(Who { client, scope, house, door });
    let response = tokio::select! {
        response = next.run(Request::from_parts(parts, Body::from(bytes))) => response,
        over = &mut over => return Err(over.into()),
    };
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| !kind.as_bytes().starts_with(b"text/event-stream")) {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = body.into_data_stream().take_until(over);
    Ok(Response::from_parts(parts, Body::from_stream(body)))
}
