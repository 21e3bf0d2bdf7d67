//! Schedules.

use axum::Json;
use axum::extract::Path;
use axum::http::{StatusCode, Uri};
use common::api::ScheduleRow;
use common::schedule::Occurrences;
use common::users::Scope;
use common::{AgentName, MessageId, ScheduleId};
use mozart_client::ShownSchedule;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::agents::reached;
use super::{Page, Params, named, page};
use crate::Api;
use crate::caller::Caller;
use crate::problem::{Document, Problem};

/// Records of one answer, unless fewer are asked for, and at most.
const HISTORY: u64 = 20;
const MOST: u64 = 200;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(history))
        .routes(routes!(run))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those of this agent
    agent: Option<String>,
    /// At most so many: 100, unless said otherwise, and 1000 at most
    limit: Option<usize>,
    /// Only those after this one, AGENT/SCHEDULE
    after: Option<String>,
}

fn place(text: &str) -> Result<(AgentName, ScheduleId), Problem> {
    let Some((agent, schedule)) = text.split_once('/') else {
        let what = format!("there is no schedule {text:?}");
        return Err(Problem::usage(
            what,
            "expected AGENT/SCHEDULE",
            "leave it out to begin at the start",
        ));
    };
    Ok((named(agent)?, named(schedule)?))
}

/// Lists schedules with their next times and what became of the last occurrence, as `mozart schedule ls`
#[utoipa::path(get, path = "/api/v1/schedules", tag = "schedules", params(Which),
    responses((status = 200, description = "schedules", body = [ShownSchedule]), (status = "default", body = Document, description = "an error")))]
async fn list(
    caller: Caller,
    uri: Uri,
    params: Params<Which>,
) -> Result<Page<Vec<ShownSchedule>>, Problem> {
    let Params(Which { agent, limit, after }) = params;
    let agent = agent.as_deref().map(named::<AgentName>).transpose()?;
    caller.reach_all(agent.as_ref())?;
    let after = after.as_deref().map(place).transpose()?;
    let (client, limit) = (&caller.client, page(limit));
    let mut pages = client.schedules_after(agent, after);
    let (mut rows, mut last) = (Vec::new(), None);
    while rows.len() < limit
        && let Some(more) = pages.next_of(limit - rows.len()).await?
    {
        last = more.last().map(|row| format!("{}%2F{}", row.agent, row.schedule));
        rows.extend(more);
    }
    let next = last.filter(|_| pages.has_more()).map(|last| ("after", last));
    let items = client.shown_schedules(rows, client.broker.now()).await?;
    Ok(Page { items, next, uri })
}

/// The schedule of an agent that the caller may do something with: its id, or the beginning of it.
async fn one(
    caller: &Caller,
    agent: &str,
    schedule: &str,
    needs: Scope,
) -> Result<ScheduleRow, Problem> {
    let agent = reached(caller, agent, needs)?;
    Ok(caller.client.schedule(&agent, Some(schedule)).await?)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Newest {
    /// At most so many: 20, unless said otherwise, and 200 at most
    limit: Option<u64>,
}

/// Shows what became of each occurrence, newest first, as `mozart schedule history`
#[utoipa::path(get, path = "/api/v1/agents/{agent}/schedules/{schedule}/history", tag = "schedules",
    params(("agent" = String, Path, description = "its name"), ("schedule" = String, Path, description = "its id, or the beginning of it"), Newest),
    responses((status = 200, description = "records", body = [Occurrences]), (status = "default", body = Document, description = "an error")))]
async fn history(
    caller: Caller,
    Path((agent, schedule)): Path<(String, String)>,
    params: Params<Newest>,
) -> Result<Json<Vec<Occurrences>>, Problem> {
    let limit = params.0.limit.unwrap_or(HISTORY).clamp(1, MOST);
    let row = one(&caller, &agent, &schedule, Scope::Read).await?;
    Ok(Json(caller.client.schedule_history(&row.agent, &row.schedule, limit).await?))
}

/// A prompt that was sent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Ran {
    agent: AgentName,
    schedule: ScheduleId,
    /// The message.
    message_id: MessageId,
}

/// Sends the prompt of a schedule now, besides its occurrences
#[utoipa::path(post, path = "/api/v1/agents/{agent}/schedules/{schedule}/run", tag = "schedules",
    params(("agent" = String, Path, description = "its name"), ("schedule" = String, Path, description = "its id, or the beginning of it")),
    responses((status = 201, description = "it is stored", body = Ran), (status = "default", body = Document, description = "an error")))]
async fn run(
    caller: Caller,
    Path((agent, schedule)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Ran>), Problem> {
    let ScheduleRow { agent, schedule, .. } =
        one(&caller, &agent, &schedule, Scope::Operate).await?;
    let message_id = caller.client.run_schedule(agent.clone(), schedule.clone()).await?;
    Ok((StatusCode::CREATED, Json(Ran { agent, schedule, message_id })))
}

/// A schedule that was paused, or goes on.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Paused {
    agent: AgentName,
    schedule: ScheduleId,
    paused: bool,
}

async fn set(
    caller: &Caller,
    agent: &str,
    schedule: &str,
    paused: bool,
) -> Result<Json<Paused>, Problem> {
    let ScheduleRow { agent, schedule, .. } = one(caller, agent, schedule, Scope::Operate).await?;
    let _applied = caller.client.pause_schedule(agent.clone(), schedule.clone(), paused).await?;
    Ok(Json(Paused { agent, schedule, paused }))
}

/// Pauses a schedule: its occurrences are skipped until it is resumed
#[utoipa::path(post, path = "/api/v1/agents/{agent}/schedules/{schedule}/pause", tag = "schedules",
    params(("agent" = String, Path, description = "its name"), ("schedule" = String, Path, description = "its id, or the beginning of it")),
    responses((status = 200, description = "it is paused", body = Paused), (status = "default", body = Document, description = "an error")))]
async fn pause(
    caller: Caller,
    Path((agent, schedule)): Path<(String, String)>,
) -> Result<Json<Paused>, Problem> {
    set(&caller, &agent, &schedule, true).await
}

/// Resumes a schedule that is paused, from the next occurrence on
#[utoipa::path(post, path = "/api/v1/agents/{agent}/schedules/{schedule}/resume", tag = "schedules",
    params(("agent" = String, Path, description = "its name"), ("schedule" = String, Path, description = "its id, or the beginning of it")),
    responses((status = 200, description = "it goes on", body = Paused), (status = "default", body = Document, description = "an error")))]
async fn resume(
    caller: Caller,
    Path((agent, schedule)): Path<(String, String)>,
) -> Result<Json<Paused>, Problem> {
    set(&caller, &agent, &schedule, false).await
}
