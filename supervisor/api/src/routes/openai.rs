//! OpenAI's API, as far as an agent can be a model.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use common::api::AgentRow;
use common::message::{Envelope, Final, Outcome};
use common::users::Scope;
use common::{AgentName, ConversationId, MessageId, failure};
use mozart_client::send::{self, Draft};
use serde_json::{Value, json};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fold::{Previous, number, repeated};
use super::messages::{keyed, named_in, store, traced};
use super::{Given, named};
use crate::Api;
use crate::Door;
use crate::caller::Caller;
use crate::openai::{self, Completion, Pieces};
use crate::problem::Problem;
use crate::sse;
use crate::waiting::Wait;

/// How long the client waits by default, which is how long it is answered at the latest.
const WAIT: Duration = Duration::from_secs(600);

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(models)).routes(routes!(model)).routes(routes!(complete))
}

fn shown(row: &AgentRow) -> Value {
    openai::model(row.agent.as_str(), row.started_at.map_or(0, |at| at.as_millis() / 1_000))
}

/// Lists agents as models
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses((status = 200, description = "models", body = Object)))]
async fn models(caller: Caller) -> Result<Json<Value>, Problem> {
    let rows = caller.client.seen_rows(true).await?;
    let data: Vec<_> = rows.iter().map(shown).collect();
    Ok(Json(json!({ "object": "list", "data": data })))
}

/// Shows an agent as a model
#[utoipa::path(get, path = "/v1/models/{model}", tag = "openai", params(("model" = String, Path, description = "the agent")),
    responses((status = 200, description = "the model", body = Object)))]
async fn model(caller: Caller, Path(model): Path<String>) -> Result<Json<Value>, Problem> {
    let agent = agent(&caller, &model).await?;
    let row = caller.client.row(&agent, true).await?.ok_or_else(|| no_model(&model))?;
    Ok(Json(shown(&row)))
}

fn no_model(model: &str) -> Problem {
    let what = format!("the model {model:?} does not exist");
    let cause = "there is no agent of that name";
    let error = failure::error(failure::NOT_FOUND, what, cause, "GET /v1/models");
    Problem::from(error).coded("model_not_found")
}

/// The agent that is meant by a model.
pub(super) async fn agent(caller: &Caller, model: &str) -> Result<AgentName, Problem> {
    let agent = AgentName::new(model).map_err(|_| no_model(model))?;
    caller.reach(&agent)?;
    match mozart_client::agents::exists(&caller.client.broker, &agent).await? {
        true => Ok(agent),
        false => Err(no_model(model)),
    }
}

/// The conversation that a header names; none if none does.
pub(super) fn header_conversation(headers: &HeaderMap) -> Option<&str> {
    let mut names = ["x-conversation-id", "x-openwebui-chat-id"].iter();
    names.find_map(|name| headers.get(*name)?.to_str().ok()).filter(|name| !name.is_empty())
}

/// The conversation: as a header names it, or the body.
fn conversation(
    headers: &HeaderMap,
    asked: &Completion,
) -> Result<Option<ConversationId>, Problem> {
    let name = header_conversation(headers).or(asked.conversation());
    name.filter(|name| !name.is_empty()).map(named).transpose()
}

/// Demands that there is something to answer, and that it fits.
///
/// # Errors
/// 400 when there is no text, 413 when there is too much.
pub(super) fn ready(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::usage(
            "there is nothing to answer",
            "no message has a text",
            "a message with role user",
        ));
    }
    if text.len() > common::message::MAX_TEXT {
        let cause = format!("its text has {} bytes", text.len());
        return Err(Problem::from(send::too_large(&cause)).with(StatusCode::PAYLOAD_TOO_LARGE));
    }
    Ok(())
}

/// Until when the client waits for an answer, as it says.
pub(super) fn patience(headers: &HeaderMap) -> Instant {
    let patience = number(headers, "x-stainless-read-timeout")
        .filter(|seconds| (1.0..600.0).contains(seconds));
    Instant::now() + patience.map_or(WAIT, Duration::from_secs_f64)
}

/// The answer to a request whose message has no answer.
pub(super) fn failed(envelope: &Envelope, final_: &Final) -> Response {
    let error = send::verdict(envelope, final_)
        .unwrap_or_else(|| failure::error(failure::FAILED, "there is no answer", "", ""));
    let mut response = Problem::from(error).into_response();
    // It was journaled, and is over: another try would be another message.
    response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    response
}

/// The answer to a request whose message has none in time.
pub(super) fn late(envelope: &Envelope) -> Response {
    let what = format!("no answer to {} in time", envelope.message_id);
    let try_ = "the same request again waits for the same answer";
    let cause = "the agent is still at it, or has not begun";
    Problem::from(failure::error(failure::TIMEOUT, what, cause, try_)).into_response()
}

/// The answer says which message and conversation it is about.
pub(super) fn labelled(mut response: Response, envelope: &Envelope) -> Response {
    let request = HeaderValue::from_str(envelope.message_id.as_str());
    let conversation = HeaderValue::from_str(envelope.conversation_id.as_str());
    for (name, value) in [("x-request-id", request), ("x-conversation-id", conversation)] {
        if let Ok(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    named_in(response, envelope)
}

/// Answers as an agent, whole or as a stream
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", request_body = Object,
    responses((status = 200, description = "the answer", content((Object = "application/json"), (String = "text/event-stream")))))]
async fn complete(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Given(asked): Given<Completion>,
) -> Result<Response, Problem> {
    caller.may(Scope::Send)?;
    let agent = agent(&caller, &asked.model).await?;
    let conversation = conversation(&headers, &asked)?;
    let text = asked.text(conversation.is_some());
    ready(&text)?;
    let has_conversation = conversation.is_some();
    let key = keyed(&caller, &headers)?;
    let is_named = key.is_some();
    let draft = Draft {
        agent,
        sender: caller.name().clone(),
        text,
        conversation,
        id: key,
        deadline: None,
        traceparent: traced(&headers),
        deliver_at: None,
    };
    let envelope = draft.envelope();
    let repeats = if is_named {
        send::only_here(&caller.client, &envelope).await?;
        None
    } else {
        let own: Option<fn(&MessageId) -> ConversationId> =
            (!has_conversation).then_some(|id| ConversationId::from(id));
        let answer = asked.last_answer();
        let previous = Previous { message: None, answer: answer.as_deref() };
        repeated(&caller, &headers, &envelope, own, previous).await?
    };
    let is_named = is_named || repeats.is_some();
    let envelope = repeats.unwrap_or(envelope);
    let created = envelope.created_at.as_millis() / 1_000;
    let id = format!("chatcmpl-{}", envelope.message_id);
    let message = envelope.key();
    let response = if asked.stream == Some(true) {
        let open = sse::open(&api, &caller)?;
        let mut watch = api.watch(&message).await?;
        let known = store(&api, &caller, &envelope, is_named, Door::OpenAi).await?;
        watch.stored(known).await?;
        let usage = asked.wants_usage();
        sse::of_completion(&api, &caller, open, watch, Pieces::new(id, asked.model, created, usage))
    } else {
        let wait = Wait::open(&api, &caller, &message).await?;
        let deadline = patience(&headers);
        let known = store(&api, &caller, &envelope, is_named, Door::OpenAi).await?;
        match wait.answered(known, deadline).await? {
            Some(final_) if final_.status == Outcome::Completed => {
                let text = final_.response.unwrap_or_default();
                Json(openai::whole(&id, &asked.model, created, &text)).into_response()
            }
            Some(final_) => failed(&envelope, &final_),
            None => late(&envelope),
        }
    };
    Ok(labelled(response, &envelope))
}
