//! Questions of workers to people.

use axum::Json;
use axum::extract::Path;
use axum::http::Uri;
use common::api::{AnswerTaken, QuestionPage};
use common::question::OpenQuestion;
use common::users::Scope;
use common::{AgentName, MessageId};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Given, Page, Params, named, page};
use crate::Api;
use crate::caller::Caller;
use crate::problem::{Document, Problem};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(answer))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those of this agent
    agent: Option<String>,
    /// At most so many: 100, unless said otherwise, and 300 at most
    limit: Option<usize>,
    /// Only those after the place that an earlier page ended with
    after: Option<u64>,
}

/// Lists the questions that are open, oldest first, as `mozart questions`
#[utoipa::path(get, path = "/api/v1/questions", tag = "questions", params(Which),
    responses((status = 200, description = "questions", body = [OpenQuestion]), (status = "default", body = Document, description = "an error")))]
async fn list(
    caller: Caller,
    uri: Uri,
    params: Params<Which>,
) -> Result<Page<Vec<OpenQuestion>>, Problem> {
    let Params(Which { agent, limit, after }) = params;
    let agent = agent.as_deref().map(named::<AgentName>).transpose()?;
    caller.reach_all(agent.as_ref())?;
    let listed = caller.client.question_page(agent, after.unwrap_or(0), page(limit)).await?;
    let QuestionPage { rows: items, next } = listed;
    Ok(Page { items, next: next.map(|next| ("after", next.to_string())), uri })
}

/// An answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Answer {
    /// The answer; of a question with options, one of them.
    text: String,
}

/// Answers a question: the first answer counts
#[utoipa::path(post, path = "/api/v1/questions/{agent}/{message}/{request}/answer", tag = "questions",
    params(("agent" = String, Path, description = "the agent"), ("message" = String, Path, description = "the message's id"),
        ("request" = String, Path, description = "the question's `requestId`, with %2F for each slash")),
    request_body = Answer,
    responses((status = 200, description = "the answer is stored, and the worker gets it", body = AnswerTaken), (status = "default", body = Document, description = "an error")))]
async fn answer(
    caller: Caller,
    Path((agent, message, request)): Path<(String, String, String)>,
    Given(Answer { text }): Given<Answer>,
) -> Result<Json<AnswerTaken>, Problem> {
    let (agent, message): (AgentName, MessageId) = (named(&agent)?, named(&message)?);
    caller.may(Scope::Send)?;
    caller.reach(&agent)?;
    let by = caller.name().to_string();
    let of = Some((agent, message));
    Ok(Json(caller.client.answer_question(of, request, text, by).await?))
}
