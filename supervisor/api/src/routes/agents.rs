//! Agents.

use axum::Json;
use axum::extract::Path;
use axum::http::Uri;
use common::AgentName;
use common::api::{AgentDetail, AgentRow, Applied, Query as Ask, SoulSource};
use common::users::Scope;
use mozart_client::explain::Explanation;
use mozart_client::rollout::{self, Generation};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Given, Page, Params, named, page};
use crate::Api;
use crate::caller::Caller;
use crate::problem::{Document, Problem};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, apply))
        .routes(routes!(show, remove))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(restart))
        .routes(routes!(replace))
        .routes(routes!(rollback))
        .routes(routes!(generations))
        .routes(routes!(explain))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// At most so many: 100, unless said otherwise, and 1000 at most
    limit: Option<usize>,
    /// Only agents whose names come after this one
    after: Option<String>,
}

/// Lists agents, as `mozart ps -a`
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", params(Which),
    responses((status = 200, description = "agents", body = [AgentRow]), (status = "default", body = Document, description = "an error")))]
async fn list(
    caller: Caller,
    uri: Uri,
    params: Params<Which>,
) -> Result<Page<Vec<AgentRow>>, Problem> {
    let Params(Which { limit, after }) = params;
    let limit = page(limit);
    let after = after.as_deref().map(named::<AgentName>).transpose()?;
    if !caller.client.agents().is_empty() {
        let (items, next) = own_page(&caller, after.as_ref(), limit).await?;
        return Ok(Page { items, next, uri });
    }
    let mut pages = caller.client.pages(after, false);
    let (mut items, mut last) = (Vec::new(), None);
    while items.len() < limit
        && let Some(rows) = pages.next(limit - items.len()).await?
    {
        last = rows.last().map(|row| row.agent.to_string());
        items.extend(rows);
    }
    let next = last.filter(|_| pages.has_more()).map(|last| ("after", last));
    Ok(Page { items, next, uri })
}

/// A page of the only agents that the caller sees: whatever else there is, they alone are asked for.
async fn own_page(
    caller: &Caller,
    after: Option<&AgentName>,
    limit: usize,
) -> Result<(Vec<AgentRow>, Option<(&'static str, String)>), Problem> {
    let client = &caller.client;
    let mut names: Vec<&AgentName> = client.agents().iter().collect();
    names.sort();
    names.dedup();
    names.retain(|name| after.is_none_or(|after| *name > after));
    let (mut items, mut last) = (Vec::new(), None);
    for name in names {
        if items.len() == limit {
            return Ok((items, last.map(|last: &AgentName| ("after", last.to_string()))));
        }
        items.extend(client.row(name, false).await?);
        last = Some(name);
    }
    Ok((items, None))
}

/// A soul as text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Soul {
    /// The agent's name.
    name: String,
    /// The text of the `.soul` file. Files beside it, and folders of this host, it cannot name: `mozart apply` stores those.
    text: String,
}

/// Souls.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Souls {
    /// All of them are registered, or none.
    souls: Vec<Soul>,
    /// Make new generations even if nothing has changed.
    #[serde(default)]
    force: bool,
}

/// Registers souls, as `mozart apply`
#[utoipa::path(post, path = "/api/v1/agents", tag = "agents", request_body = Souls,
    responses((status = 200, description = "what became of each", body = [Applied]), (status = "default", body = Document, description = "an error")))]
async fn apply(
    caller: Caller,
    Given(Souls { souls, force }): Given<Souls>,
) -> Result<Json<Vec<Applied>>, Problem> {
    caller.may(Scope::Operate)?;
    let mut sources = Vec::new();
    for Soul { name, text } in souls {
        let name: AgentName = named(&name)?;
        caller.reach(&name)?;
        let path = format!("/http/{name}.soul");
        sources.push(SoulSource { name, path, text, content: None, files: None });
    }
    Ok(Json(caller.client.change(&Ask::Apply { souls: sources, force }).await?))
}

/// Shows everything known about an agent, as `mozart inspect`
#[utoipa::path(get, path = "/api/v1/agents/{agent}", tag = "agents", params(("agent" = String, Path, description = "its name")),
    responses((status = 200, description = "the agent", body = AgentDetail), (status = "default", body = Document, description = "an error")))]
async fn show(
    caller: Caller,
    Path(agent): Path<String>,
) -> Result<Json<Box<AgentDetail>>, Problem> {
    let agent = reached(&caller, &agent, Scope::Read)?;
    Ok(Json(caller.client.inspect(agent).await?))
}

/// An agent that the caller may do something with.
pub(super) fn reached(caller: &Caller, agent: &str, needs: Scope) -> Result<AgentName, Problem> {
    let agent = named(agent)?;
    caller.may(needs)?;
    caller.reach(&agent)?;
    Ok(agent)
}

async fn change(
    caller: &Caller,
    agent: &str,
    ask: impl FnOnce(AgentName) -> Ask,
) -> Result<Json<Vec<Applied>>, Problem> {
    let agent = reached(caller, agent, Scope::Operate)?;
    Ok(Json(caller.client.change(&ask(agent)).await?))
}

/// Stops and removes an agent; its messages stay in the journal
#[utoipa::path(delete, path = "/api/v1/agents/{agent}", tag = "agents", params(("agent" = String, Path, description = "its name")),
    responses((status = 200, description = "it is requested", body = [Applied]), (status = "default", body = Document, description = "an error")))]
async fn remove(caller: Caller, Path(agent): Path<String>) -> Result<Json<Vec<Applied>>, Problem> {
    change(&caller, &agent, |agent| Ask::Remove { agent }).await
}

/// Starts an agent; also releases a quarantine
#[utoipa::path(post, path = "/api/v1/agents/{agent}/start", tag = "agents", params(("agent" = String, Path, description = "its name")),
    responses((status = 200, description = "it is requested", body = [Applied]), (status = "default", body = Document, description = "an error")))]
async fn start(caller: Caller, Path(agent): Path<String>) -> Result<Json<Vec<Applied>>, Problem> {
    change(&caller, &agent, |agent| Ask::Start { agent }).await
}

/// Stops an agent and keeps it stopped
#[utoipa::path(post, path = "/api/v1/agents/{agent}/stop", tag = "agents", params(("agent" = String, Path, description = "its name")),
    responses((status = 200, description = "it is requested", body = [Applied]), (status = "default", body = Document, description = "an error")))]
async fn stop(caller: Caller, Path(agent): Path<String>) -> Result<Json<Vec<Applied>>, Problem> {
    change(&caller, &agent, |agent| Ask::Stop { agent }).await
}

/// Stops and starts an agent
#[utoipa::path(post, path = "/api/v1/agents/{agent}/restart", tag = "agents", params(("agent" = String, Path, description = "its name")),
    responses((status = 200, description = "it is requested", body = [Applied]), (status = "default", body = Document, description = "an error")))]
async fn restart(caller: Caller, Path(agent): Path<String>) -> Result<Json<Vec<Applied>>, Problem> {
    change(&caller, &agent, |agent| Ask::Restart { agent }).await
}

/// With what an agent is replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct With {
    /// A new generation with this image; the soul's file is not changed.
    image: Option<String>,
}

/// Starts a new incarnation as REPLACE in the soul says
#[utoipa::path(post, path = "/api/v1/agents/{agent}/replace", tag = "agents", params(("agent" = String, Path, description = "its name")), request_body = With,
    responses((status = 200, description = "it is requested", body = [Applied]), (status = "default", body = Document, description = "an error")))]
async fn replace(
    caller: Caller,
    Path(agent): Path<String>,
    Given(With { image }): Given<With>,
) -> Result<Json<Vec<Applied>>, Problem> {
    change(&caller, &agent, |agent| Ask::Replace { agent, image }).await
}

/// Where an agent goes back to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Back {
    /// The generation [default: the previous one that was ready].
    to_generation: Option<u64>,
}

/// Goes back to an earlier generation, as a new one
#[utoipa::path(post, path = "/api/v1/agents/{agent}/rollback", tag = "agents", params(("agent" = String, Path, description = "its name")), request_body = Back,
    responses((status = 200, description = "it is requested", body = [Applied]), (status = "default", body = Document, description = "an error")))]
async fn rollback(
    caller: Caller,
    Path(agent): Path<String>,
    Given(Back { to_generation }): Given<Back>,
) -> Result<Json<Vec<Applied>>, Problem> {
    let agent = reached(&caller, &agent, Scope::Operate)?;
    let to = match to_generation {
        Some(wanted) => Some(rollout::earlier(&caller.client, &agent, wanted).await?),
        None => None,
    };
    Ok(Json(caller.client.change(&Ask::Rollback { agent, to }).await?))
}

/// Lists an agent's generations, newest first, as `mozart rollout history`
#[utoipa::path(get, path = "/api/v1/agents/{agent}/generations", tag = "agents", params(("agent" = String, Path, description = "its name")),
    responses((status = 200, description = "generations", body = [Generation]), (status = "default", body = Document, description = "an error")))]
async fn generations(
    caller: Caller,
    Path(agent): Path<String>,
) -> Result<Json<Vec<Generation>>, Problem> {
    let agent = reached(&caller, &agent, Scope::Read)?;
    Ok(Json(rollout::generations(&caller.client, &agent).await?.1))
}

/// Explains the state of an agent, as `mozart explain`
#[utoipa::path(get, path = "/api/v1/agents/{agent}/explanation", tag = "agents", params(("agent" = String, Path, description = "its name")),
    responses((status = 200, description = "why it is as it is", body = Explanation), (status = "default", body = Document, description = "an error")))]
async fn explain(caller: Caller, Path(agent): Path<String>) -> Result<Json<Explanation>, Problem> {
    let agent = reached(&caller, &agent, Scope::Read)?;
    Ok(Json(mozart_client::explain::of_agent(&caller.client, &agent).await?))
}
