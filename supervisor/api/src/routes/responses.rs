//! The responses of OpenAI's API.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use broker::Attempt as _;
use common::message::{Envelope, Outcome, Status};
use common::users::Scope;
use common::{AgentName, ConversationId, MessageId, failure};
use mozart_client::journal;
use mozart_client::send::{self, Draft, Known, NotNext};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fold::{Previous, repeated};
use super::messages::{STORE, keyed, not_stored, own_conversation, store, traced};
use super::openai::{agent, failed, header_conversation, labelled, late, patience, ready};
use super::{Given, Params, named};
use crate::Api;
use crate::Door;
use crate::caller::Caller;
use crate::problem::Problem;
use crate::responses::{self, About, Asked, Telling};
use crate::sse;
use crate::waiting::Wait;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(retrieve))
        .routes(routes!(cancel))
        .routes(routes!(input_items))
}

fn no_response(id: &str) -> Problem {
    let what = format!("no response with the id {id:?}");
    let cause = "there is no message of that id, or it is no longer kept";
    let error = failure::error(failure::NOT_FOUND, what, cause, "check the id");
    Problem::from(error).coded("response_not_found")
}

/// The message of a response, whoever sent it; one of the caller's own, where several have the id.
async fn stored(caller: &Caller, id: &str) -> Result<broker::Stored<Envelope>, Problem> {
    let message = responses::message_of(id).ok_or_else(|| no_response(id))?;
    let what = format!("cannot look up response {id}");
    let mut found = caller.client.broker.find(&message).await.attempt(what)?;
    found.retain(|stored| caller.sees(&stored.value.agent));
    let own = found.iter().position(|stored| stored.value.sender == *caller.name());
    match (own, found.len()) {
        (Some(own), _) => Ok(found.swap_remove(own)),
        (None, 1) => Ok(found.swap_remove(0)),
        (None, _) => Err(no_response(id)),
    }
}

/// The conversation that a response is to be part of; none if it is one of its own.
async fn conversation(
    caller: &Caller,
    headers: &HeaderMap,
    asked: &Asked,
    agent: &AgentName,
) -> Result<Option<ConversationId>, Problem> {
    let named_by = header_conversation(headers).or(asked.conversation());
    let Some(previous) = asked.previous_response_id.as_deref() else {
        let name = named_by.or(asked.hint()).filter(|name| !name.is_empty());
        return name.map(named).transpose();
    };
    let previous = stored(caller, previous).await?.value;
    let what = "the conversation is not clear";
    if previous.agent != *agent {
        let cause = format!("previous_response_id is a response of {}", previous.agent);
        return Err(Problem::usage(what, cause, "the model that gave the response before"));
    }
    if named_by.is_some_and(|name| name != previous.conversation_id.as_str()) {
        let cause = "previous_response_id is of another conversation than the one that is named";
        return Err(Problem::usage(what, cause, "one of them"));
    }
    Ok(Some(previous.conversation_id))
}

/// Stores what is asked: where it goes on from a response, as the next message after that one. If others have followed it, it is refused: the
/// agent remembers them, too.
async fn keep(
    api: &Api,
    caller: &Caller,
    envelope: &Envelope,
    is_named: bool,
    previous: Option<&MessageId>,
) -> Result<Known, Problem> {
    let Some(previous) = previous else {
        return store(api, caller, envelope, is_named, Door::OpenAi).await;
    };
    let broker = &caller.client.broker;
    let stored = send::store_after(broker, envelope, previous, is_named, STORE).await;
    api.accepted(Door::OpenAi, stored.as_ref().ok());
    stored.map_err(|refused| match refused {
        NotNext::Failed(error) => not_stored(envelope, error),
        NotNext::After(other) => {
            let cause = format!("the conversation has gone on: message {other} came after it");
            let try_ =
                "the id of the last response, or a new conversation with all of its messages";
            Problem::usage("previous_response_id is not the last response", cause, try_)
        }
    })
}

/// Creates a response as an agent: whole, as a stream, or in the background
#[utoipa::path(post, path = "/v1/responses", tag = "openai", request_body = Object,
    responses((status = 200, description = "the response", content((Object = "application/json"), (String = "text/event-stream")))))]
async fn create(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Given(asked): Given<Asked>,
) -> Result<Response, Problem> {
    caller.may(Scope::Send)?;
    let agent = agent(&caller, &asked.model).await?;
    let conversation = conversation(&caller, &headers, &asked, &agent).await?;
    let text = asked.text(conversation.is_some()).map_err(|kind| {
        Problem::usage(format!("the input has {kind:?}"), "an agent is told text", "input_text")
    })?;
    ready(&text)?;
    let key = keyed(&caller, &headers)?;
    let is_keyed = key.is_some();
    let has_conversation = conversation.is_some();
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
    let mut envelope = draft.envelope();
    if !has_conversation {
        envelope.conversation_id = own_conversation(&envelope.message_id);
    }
    let previous = asked.previous_response_id.as_deref().and_then(responses::message_of);
    let mut repeats = None;
    if is_keyed {
        send::only_here(&caller.client, &envelope).await?;
    } else {
        let own: Option<fn(&MessageId) -> ConversationId> =
            (!has_conversation).then_some(own_conversation);
        let previous = Previous { message: previous.as_ref(), answer: None };
        repeats = repeated(&caller, &headers, &envelope, own, previous).await?;
    }
    let is_named = is_keyed || repeats.is_some();
    let envelope = repeats.unwrap_or(envelope);
    let about = About::new(envelope.clone(), &asked);
    let message = envelope.key();
    let keeping = keep(&api, &caller, &envelope, is_named, previous.as_ref());
    let response = if asked.stream == Some(true) {
        let open = sse::open(&api, &caller)?;
        let mut watch = api.watch(&message).await?;
        watch.stored(keeping.await?).await?;
        sse::of_response(&api, &caller, open, watch, Telling::new(about, None))
    } else if asked.background == Some(true) {
        let shown = match keeping.await? {
            Known::New => about.open(Status::Pending),
            Known::Already => shown(&caller, &envelope, &about).await?,
        };
        Json(shown).into_response()
    } else {
        let wait = Wait::open(&api, &caller, &message).await?;
        let deadline = patience(&headers);
        match wait.answered(keeping.await?, deadline).await? {
            Some(final_) if final_.status == Outcome::Completed => {
                Json(about.ended(&final_)).into_response()
            }
            Some(final_) => failed(&envelope, &final_),
            None => late(&envelope),
        }
    };
    Ok(labelled(response, &envelope))
}

/// A response as it is now.
async fn shown(caller: &Caller, request: &Envelope, about: &About) -> Result<Value, Problem> {
    let broker = &caller.client.broker;
    let what = format!("cannot look up message {}", request.message_id);
    if let Some(final_) = broker.outcome_of(&request.key()).await.attempt(what)? {
        return Ok(about.ended(&final_.value));
    }
    Ok(about.open(journal::status(broker, request).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Retrieving {
    /// Whether to stream it, from the start or after an event
    stream: Option<bool>,
    /// Only what comes after the event with this number
    starting_after: Option<u64>,
}

/// Retrieves a response, or streams it from any of its events on
#[utoipa::path(get, path = "/v1/responses/{response}", tag = "openai",
    params(("response" = String, Path, description = "the id of the response"), Retrieving),
    responses((status = 200, description = "the response", content((Object = "application/json"), (String = "text/event-stream")))))]
async fn retrieve(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params<Retrieving>,
) -> Result<Response, Problem> {
    let Params(Retrieving { stream, starting_after }) = params;
    let request = stored(&caller, &id).await?.value;
    let about = About::stored(request.clone());
    if stream != Some(true) {
        let response = Json(shown(&caller, &request, &about).await?).into_response();
        return Ok(labelled(response, &request));
    }
    let open = sse::open(&api, &caller)?;
    let mut watch = api.watch(&request.key()).await?;
    watch.look().await?;
    let telling = Telling::new(about, starting_after);
    Ok(labelled(sse::of_response(&api, &caller, open, watch, telling), &request))
}

/// Cancels a response; one that is over is returned as it is
#[utoipa::path(post, path = "/v1/responses/{response}/cancel", tag = "openai",
    params(("response" = String, Path, description = "the id of the response")),
    responses((status = 200, description = "the response", body = Object)))]
async fn cancel(caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::Send)?;
    let stored = stored(&caller, &id).await?;
    let request = stored.value.clone();
    if request.sender != *caller.name() {
        caller.may(Scope::Operate)?;
    }
    let door = format!("api.{}", caller.name());
    match mozart_client::cancel::cancel(&caller.client, stored, &door).await {
        Ok(_) => {}
        Err(error) if error.code == failure::CONFLICT => {}
        Err(error) => return Err(error.into()),
    }
    let about = About::stored(request.clone());
    let response = Json(shown(&caller, &request, &about).await?).into_response();
    Ok(labelled(response, &request))
}

/// Lists what a response was asked
#[utoipa::path(get, path = "/v1/responses/{response}/input_items", tag = "openai",
    params(("response" = String, Path, description = "the id of the response")),
    responses((status = 200, description = "a list", body = Object)))]
async fn input_items(caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let request = stored(&caller, &id).await?.value;
    Ok(Json(About::stored(request).input()))
}
