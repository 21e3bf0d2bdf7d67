//! Dead letters.

use axum::Json;
use axum::extract::Path;
use axum::http::{StatusCode, Uri};
use broker::{Attempt as _, Stored};
use common::AgentName;
use common::message::DeadLetter;
use common::users::Scope;
use mozart_client::dead::{self, Redriven, Shown};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::messages::reached;
use super::{Page, Params, named, page};
use crate::Api;
use crate::caller::Caller;
use crate::problem::{Document, Problem};

const WHAT: &str = "cannot read the dead letters";

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, drop_one))
        .routes(routes!(redrive))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those of this agent
    agent: Option<String>,
    /// At most so many: 100, unless said otherwise, and 1000 at most
    limit: Option<usize>,
    /// Only those before the place that an earlier page ended with
    before: Option<u64>,
}

fn json(letter: &DeadLetter) -> Result<Box<RawValue>, Problem> {
    to_raw_value(&Shown::new(letter)).map_err(|error| {
        common::failure::error(common::failure::FAILED, "cannot write JSON", error, "").into()
    })
}

/// Lists the newest dead letters, oldest first, as `mozart dead ls`
#[utoipa::path(get, path = "/api/v1/dead", tag = "dead letters", params(Which),
    responses((status = 200, description = "dead letters", body = [Shown]), (status = "default", body = Document, description = "an error")))]
async fn list(
    caller: Caller,
    uri: Uri,
    params: Params<Which>,
) -> Result<Page<Vec<Box<RawValue>>>, Problem> {
    let Params(Which { agent, limit, before }) = params;
    let agent = agent.as_deref().map(named::<AgentName>).transpose()?;
    caller.reach_all(agent.as_ref())?;
    let broker = &caller.client.broker;
    let mut letters =
        broker.dead_page(agent.as_ref(), before, page(limit) as u64).await.attempt(WHAT)?;
    let (mut items, mut first) = (Vec::new(), None);
    while let Some(Stored { value, seq, .. }) = letters.next().await.attempt(WHAT)? {
        first.get_or_insert(seq);
        items.push(json(&value)?);
    }
    let next = first.filter(|_| letters.has_earlier()).map(|first| ("before", first.to_string()));
    Ok(Page { items, next, uri })
}

async fn one(caller: &Caller, message: &str, needs: Scope) -> Result<Stored<DeadLetter>, Problem> {
    let message = reached(caller, message)?;
    caller.may(needs)?;
    Ok(dead::seen(&caller.client, &message).await?)
}

/// Shows a dead letter with every attempt and the worker's last log lines
#[utoipa::path(get, path = "/api/v1/dead/{message}", tag = "dead letters", params(("message" = String, Path, description = "its id")),
    responses((status = 200, description = "the dead letter", body = Shown), (status = "default", body = Document, description = "an error")))]
async fn show(caller: Caller, Path(message): Path<String>) -> Result<Json<Box<RawValue>>, Problem> {
    Ok(Json(json(&one(&caller, &message, Scope::Read).await?.value)?))
}

/// Sends a dead message again, once, as a new message that refers to the original
#[utoipa::path(post, path = "/api/v1/dead/{message}/redrive", tag = "dead letters", params(("message" = String, Path, description = "its id")),
    responses((status = 201, description = "the new message", body = Redriven), (status = "default", body = Document, description = "an error")))]
async fn redrive(
    caller: Caller,
    Path(message): Path<String>,
) -> Result<(StatusCode, Json<Redriven>), Problem> {
    let letter = one(&caller, &message, Scope::Operate).await?;
    Ok((StatusCode::CREATED, Json(dead::redrive(&caller.client, letter).await?)))
}

/// Removes a dead letter; the journal keeps the message
#[utoipa::path(delete, path = "/api/v1/dead/{message}", tag = "dead letters", params(("message" = String, Path, description = "its id")),
    responses((status = 204, description = "it is removed"), (status = "default", body = Document, description = "an error")))]
async fn drop_one(caller: Caller, Path(message): Path<String>) -> Result<StatusCode, Problem> {
    let letter = one(&caller, &message, Scope::Operate).await?.value;
    let what = format!("cannot drop dead letter {}", letter.envelope.message_id);
    let _dropped =
        caller.client.broker.drop_dead_letter(&letter.envelope.key()).await.attempt(what)?;
    Ok(StatusCode::NO_CONTENT)
}
