//! The fleet: who leads, nodes, and what happened.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use broker::{Attempt as _, ControlItem};
use common::api::{Hello, NodeRow, Query as Ask};
use common::users::Scope;
use common::{AgentName, NodeName};
use serde::Deserialize;
use serde_json::value::to_raw_value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Given, Page, Params, named, page};
use crate::Api;
use crate::caller::Caller;
use crate::problem::{Document, Problem};
use crate::sse::{self, Numbered};

const WHAT: &str = "cannot read the control log";

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(fleet))
        .routes(routes!(nodes))
        .routes(routes!(node))
        .routes(routes!(drain))
        .routes(routes!(undrain))
        .routes(routes!(events))
}

/// Shows who leads, and which nodes there are
#[utoipa::path(get, path = "/api/v1/fleet", tag = "fleet",
    responses((status = 200, description = "what a supervisor says", body = Hello), (status = "default", body = Document, description = "an error")))]
async fn fleet(caller: Caller) -> Result<Json<Hello>, Problem> {
    caller.reach_all(None)?;
    Ok(Json(caller.client.hello().await?))
}

/// Lists nodes, as `mozart node ls`
#[utoipa::path(get, path = "/api/v1/nodes", tag = "fleet",
    responses((status = 200, description = "nodes", body = [NodeRow]), (status = "default", body = Document, description = "an error")))]
async fn nodes(caller: Caller) -> Result<Json<Vec<NodeRow>>, Problem> {
    caller.reach_all(None)?;
    Ok(Json(caller.client.nodes().await?))
}

/// Shows a node, and the agents that run there
#[utoipa::path(get, path = "/api/v1/nodes/{node}", tag = "fleet", params(("node" = String, Path, description = "its name")),
    responses((status = 200, description = "the node", body = NodeRow), (status = "default", body = Document, description = "an error")))]
async fn node(caller: Caller, Path(node): Path<String>) -> Result<Json<NodeRow>, Problem> {
    let node: NodeName = named(&node)?;
    caller.reach_all(None)?;
    Ok(Json(caller.client.node(&node).await?))
}

/// How a node is drained.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Drain {
    /// How many agents are moved at a time [default: 1].
    parallel: Option<u32>,
}

/// Moves a node's agents to other nodes, and starts none there any more
#[utoipa::path(post, path = "/api/v1/nodes/{node}/drain", tag = "fleet", params(("node" = String, Path, description = "its name")), request_body = Drain,
    responses((status = 202, description = "it is requested; the node shows how far it is"), (status = "default", body = Document, description = "an error")))]
async fn drain(
    caller: Caller,
    Path(node): Path<String>,
    Given(Drain { parallel }): Given<Drain>,
) -> Result<StatusCode, Problem> {
    let node = named(&node)?;
    caller.may(Scope::Operate)?;
    caller.reach_all(None)?;
    let parallel = parallel.unwrap_or(1).clamp(1, 1_000);
    caller.client.tell(&Ask::Drain { node, parallel }).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Lets a drained node take agents again
#[utoipa::path(post, path = "/api/v1/nodes/{node}/undrain", tag = "fleet", params(("node" = String, Path, description = "its name")),
    responses((status = 204, description = "it does"), (status = "default", body = Document, description = "an error")))]
async fn undrain(caller: Caller, Path(node): Path<String>) -> Result<StatusCode, Problem> {
    let node = named(&node)?;
    caller.may(Scope::Operate)?;
    caller.reach_all(None)?;
    caller.client.tell(&Ask::Undrain { node }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only records about this agent
    agent: Option<String>,
    /// At most so many: 100, unless said otherwise, and 1000 at most
    limit: Option<usize>,
    /// Only records before the one with this number
    before: Option<u64>,
    /// In a stream, only records after the one with this number [default: those that are yet to come]
    from: Option<String>,
}

/// Reads the control log, as `mozart events`; with `Accept: text/event-stream`, follows it
#[utoipa::path(get, path = "/api/v1/events", tag = "fleet", params(Which,
        ("Last-Event-ID" = Option<String>, Header, description = "in a stream, only records after this one")),
    responses(
        (status = 200, description = "records, oldest first", content((Vec<Numbered> = "application/json"), (String = "text/event-stream"))),
        (status = "default", body = Document, description = "an error")))]
async fn events(
    State(api): State<Api>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    params: Params<Which>,
) -> Result<Response, Problem> {
    let Params(Which { agent, limit, before, from }) = params;
    let agent = agent.as_deref().map(named::<AgentName>).transpose()?;
    caller.reach_all(agent.as_ref())?;
    let broker = &caller.client.broker;
    if sse::is_wanted(&headers) {
        let open = sse::open(&api, &caller)?;
        let after = match sse::known::<u64>(&headers, from.as_deref())? {
            Some(after) => after,
            None => broker.control_last_seq().await.attempt(WHAT)?,
        };
        let log =
            broker.follow_control(after.saturating_add(1), agent.as_ref()).await.attempt(WHAT)?;
        return Ok(sse::of_control(&api, &caller, open, log));
    }
    let extent = broker.control_extent().await.attempt(WHAT)?;
    let before = before.unwrap_or(u64::MAX).min(extent.last + 1);
    let records = broker.control_page(agent.as_ref(), before, page(limit) as u64).await;
    let mut records = records.attempt(WHAT)?;
    let (mut items, mut first) = (Vec::new(), None);
    while let Some(item) = records.next().await.attempt(WHAT)? {
        let ControlItem::Record { seq, record, .. } = item else { continue };
        first.get_or_insert(seq);
        items.extend(to_raw_value(&Numbered { seq, record: &record }).ok());
    }
    let next = first.filter(|_| records.has_earlier()).map(|first| ("before", first.to_string()));
    Ok(Page { items, next, uri }.into_response())
}
