//! Messages: sending, reading, following and cancelling them.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use broker::{Cursor, Stored};
use common::api::{ApiError, MessageDetail, MessageRow};
use common::message::{Envelope, Final, MAX_TEXT, Status};
use common::users::Scope;
use common::{AgentName, MessageId, TraceParent, failure};
use mozart_client::answer::Answer;
use mozart_client::cancel::cancel as cancel_message;
use mozart_client::explain::Explanation;
use mozart_client::journal::{self, Statuses, Wanted};
use mozart_client::reference::MessageRef;
use mozart_client::send::{self, Draft, Known, Sent};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Given, Page, Params, named, page, time};
use crate::Api;
use crate::caller::Caller;
use crate::problem::{Document, Problem};
use crate::sse::{self, Place};

/// The namespace of the ids of messages that are sent with a key: the same key of the same token is always the same message.
const KEYED: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_5e64_9264_6964_656d_706f);
/// The longest key.
const KEY: usize = 255;
/// How long storing may take.
const STORE: Duration = Duration::from_secs(30);
/// The longest wait for an answer.
const WAIT: Duration = Duration::from_secs(600);

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, post))
        .routes(routes!(show))
        .routes(routes!(events))
        .routes(routes!(cancel))
        .routes(routes!(explain))
}

/// A message to an agent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Message {
    /// The agent.
    agent: String,
    /// The text.
    message: String,
    /// The conversation, whose messages are answered one after the other [default: one of its own].
    conversation_id: Option<String>,
    /// The message's id [default: a new one, or one made of `Idempotency-Key`].
    message_id: Option<String>,
    /// Expires when no worker has started it within this time: `30s`.
    deadline: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Waiting {
    /// Wait this long for the answer, such as `30s`; ten minutes at most
    wait: Option<String>,
}

/// The id of a message that is sent with a key; none without one.
pub(super) fn keyed(caller: &Caller, headers: &HeaderMap) -> Result<Option<MessageId>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=KEY).contains(&key.len()));
    let Some(key) = key else {
        let cause = format!("expected 1 to {KEY} printable ASCII characters");
        return Err(Problem::usage("the Idempotency-Key is none", cause, "a UUID, for example"));
    };
    let name = format!("{}\n{key}", caller.name());
    Ok(Some(Uuid::new_v5(&KEYED, name.as_bytes()).into()))
}

/// The trace that the caller is in. One that is damaged is no reason to send nothing.
pub(super) fn traced(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

/// What is to be sent, and whether it may have been sent before.
fn draft(
    caller: &Caller,
    headers: &HeaderMap,
    given: Message,
) -> Result<(Envelope, bool), Problem> {
    let Message { agent, message, conversation_id, message_id, deadline } = given;
    let agent: AgentName = named(&agent)?;
    caller.reach(&agent)?;
    if message.len() > MAX_TEXT {
        let cause = format!("its text has {} bytes", message.len());
        return Err(Problem::from(send::too_large(&cause)).with(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let id = message_id.as_deref().map(named::<MessageId>).transpose()?;
    let id = match (id, keyed(caller, headers)?) {
        (Some(_), Some(_)) => {
            let cause = "it has both messageId and the header Idempotency-Key";
            return Err(Problem::usage(
                "which message this is, is not clear",
                cause,
                "one of them",
            ));
        }
        (id, key) => id.or(key),
    };
    let is_named = id.is_some();
    let draft = Draft {
        agent,
        sender: caller.name().clone(),
        text: message,
        conversation: conversation_id.as_deref().map(named).transpose()?,
        id,
        deadline: deadline.as_deref().map(time).transpose()?,
        traceparent: traced(headers),
    };
    Ok((draft.envelope(), is_named))
}

/// The same id for another agent is another message to the journal; to whoever named it, it is a conflict.
pub(super) async fn is_elsewhere(caller: &Caller, envelope: &Envelope) -> Result<(), Problem> {
    use broker::Attempt as _;
    let id = &envelope.message_id;
    let found =
        caller.client.broker.find(id).await.attempt(format!("cannot look up message {id}"))?;
    let other = found.iter().map(|stored| &stored.value);
    let other =
        other.filter(|one| one.sender == envelope.sender).find(|one| one.agent != envelope.agent);
    let Some(other) = other else { return Ok(()) };
    let what = format!("another message has the id {id}");
    let cause = format!("it is to {}", other.agent);
    Err(failure::error(failure::CONFLICT, what, cause, "another key").into())
}

/// Sends a message, as `mozart send`; with `Accept: text/event-stream`, also streams the answer
///
/// Answered when the message is on disk. The same key, or id, with the same content is the same message, however often it is sent; with other
/// content it is a conflict.
#[utoipa::path(post, path = "/api/v1/messages", tag = "messages", request_body = Message,
    params(Waiting, ("Idempotency-Key" = Option<String>, Header, description = "the same key of the same token is the same message")),
    responses(
        (status = 201, description = "it is stored; with `wait`, the answer", content((Object = "application/json"), (String = "text/event-stream"))),
        (status = 200, description = "it had been stored before", body = Object),
        (status = 202, description = "it is stored, and there is no answer yet after `wait`", body = Object),
        (status = "default", body = Document, description = "an error")))]
async fn post(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    params: Params<Waiting>,
    Given(given): Given<Message>,
) -> Result<Response, Problem> {
    caller.may(Scope::Send)?;
    let wait = params.0.wait.as_deref().map(time).transpose()?.map(|wait| wait.min(WAIT));
    let (envelope, is_named) = draft(&caller, &headers, given)?;
    let (client, broker) = (&caller.client, &caller.client.broker);
    mozart_client::agents::require(client, &envelope.agent).await?;
    if is_named {
        is_elsewhere(&caller, &envelope).await?;
    }
    let key = envelope.key();
    if sse::is_wanted(&headers) {
        let open = sse::open(&api, &caller)?;
        let mut watch = api.watch(&key).await?;
        let known = store(&caller, &envelope, is_named).await?;
        if known == Known::Already {
            watch.look().await?;
        }
        let response = sse::of_message(&api, &caller, open, watch, key, Place::default());
        return Ok(named_in(created(known, response), &envelope));
    }
    let answer = match wait {
        Some(_) => Some(Answer::listen(broker, &key).await?),
        None => None,
    };
    let deadline = wait.map(|wait| Instant::now() + wait);
    let known = store(&caller, &envelope, is_named).await?;
    let final_ = match (answer, deadline) {
        (Some(answer), Some(deadline)) => answered(&api, answer, known, deadline).await?,
        (Some(_) | None, _) => None,
    };
    let status = match (&final_, known) {
        (Some(final_), _) => final_.status.into(),
        (None, Known::New) if wait.is_none() => Status::Pending,
        (None, _) => journal::status(broker, &envelope).await?,
    };
    let sent = Json(Sent::new(&envelope, status, final_.as_ref())).into_response();
    let mut response = created(known, sent);
    if wait.is_some() && final_.is_none() {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(named_in(response, &envelope))
}

pub(super) async fn store(
    caller: &Caller,
    envelope: &Envelope,
    is_named: bool,
) -> Result<Known, Problem> {
    let stored = send::store(&caller.client.broker, envelope, is_named, STORE).await;
    stored.map_err(|mut error| {
        match error.code {
            failure::TIMEOUT => {
                error.try_ = format!("send it again with messageId {}", envelope.message_id);
            }
            failure::CONFLICT => error.try_ = "another key, or another messageId".to_owned(),
            _ => {}
        }
        let is_size = error.code == failure::LIMIT && error.what.contains("too large");
        let problem = Problem::from(error);
        if is_size { problem.with(StatusCode::PAYLOAD_TOO_LARGE) } else { problem }
    })
}

fn created(known: Known, mut response: Response) -> Response {
    *response.status_mut() = match known {
        Known::New => StatusCode::CREATED,
        Known::Already => StatusCode::OK,
    };
    response
}

/// The answer says which message it is about.
pub(super) fn named_in(mut response: Response, envelope: &Envelope) -> Response {
    let Envelope { agent, sender, message_id, .. } = envelope;
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(message_id.as_str()) {
        headers.insert("mozart-message-id", id);
    }
    let location = format!("/api/v1/messages/{agent}%2F{sender}%2F{message_id}");
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// The final state, if there is one in time.
pub(super) async fn answered(
    api: &Api,
    mut answer: Answer,
    known: Known,
    deadline: Instant,
) -> Result<Option<Final>, ApiError> {
    if known == Known::Already
        && let Some(final_) = answer.look().await?
    {
        return Ok(Some(final_));
    }
    tokio::select! {
        final_ = answer.final_() => return Ok(Some(final_)),
        () = tokio::time::sleep_until(deadline) => {}
        () = api.stop.cancelled() => {}
    }
    // What ended in the last moment has ended.
    answer.look().await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only messages to this agent
    agent: Option<String>,
    /// Only messages from this sender
    sender: Option<String>,
    /// Only messages of this conversation (needs agent)
    conversation: Option<String>,
    /// Only messages with these statuses, with commas between them; `open` is any that is not final
    status: Option<String>,
    /// Only messages sent within this time, such as `1h`
    since: Option<String>,
    /// At most so many: 100, unless said otherwise, and 1000 at most
    limit: Option<usize>,
    /// Only those before the place that an earlier page ended with
    before: Option<String>,
}

fn statuses(text: &str) -> Result<Vec<Statuses>, Problem> {
    let one = |word: &str| {
        if word == "open" {
            return Ok(Statuses::Open);
        }
        let status = serde_json::from_value(serde_json::Value::from(word));
        status.map(Statuses::One).map_err(|_| {
            let cause = "expected open, pending, delivered, acknowledged, completed, failed, cancelled or expired";
            Problem::usage(format!("there is no status {word:?}"), cause, "check the spelling")
        })
    };
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(one).collect()
}

/// Lists the newest messages, oldest first, as `mozart journal ls`
#[utoipa::path(get, path = "/api/v1/messages", tag = "messages", params(Which),
    responses((status = 200, description = "messages", body = [Object]), (status = "default", body = Document, description = "an error")))]
async fn list(
    caller: Caller,
    uri: Uri,
    params: Params<Which>,
) -> Result<Page<Vec<MessageRow>>, Problem> {
    let Params(Which { agent, sender, conversation, status, since, limit, before }) = params;
    let agent = agent.as_deref().map(named::<AgentName>).transpose()?;
    caller.reach_all(agent.as_ref())?;
    if conversation.is_some() && agent.is_none() {
        let cause = "a conversation belongs to one agent";
        return Err(Problem::usage("conversation needs agent", cause, "agent=NAME"));
    }
    let wanted = Wanted {
        agent,
        conversation: conversation.as_deref().map(named).transpose()?,
        sender: sender.as_deref().map(named).transpose()?,
        statuses: statuses(status.as_deref().unwrap_or_default())?,
        since: since.as_deref().map(time).transpose()?,
        before: before.as_deref().map(named::<Cursor>).transpose()?,
        limit: page(limit),
    };
    let journal::Page { rows, older, .. } = journal::list(&caller.client.broker, &wanted).await?;
    let next = older.map(|older| ("before", older.to_string()));
    Ok(Page { items: rows, next, uri })
}

/// A message that the caller may see.
async fn one(caller: &Caller, message: &str) -> Result<(MessageRef, Stored<Envelope>), Problem> {
    let message: MessageRef = named(message)?;
    let stored = message.resolve(&caller.client.broker).await?;
    caller.reach(&stored.value.agent)?;
    Ok((message, stored))
}

/// Shows a message with everything that happened to it, as `mozart journal show`
#[utoipa::path(get, path = "/api/v1/messages/{message}", tag = "messages",
    params(("message" = String, Path, description = "ID, AGENT/ID or AGENT/SENDER/ID, with %2F for each slash")),
    responses((status = 200, description = "the message", body = Object), (status = "default", body = Document, description = "an error")))]
async fn show(caller: Caller, Path(message): Path<String>) -> Result<Json<MessageDetail>, Problem> {
    let message: MessageRef = named(&message)?;
    let detail = journal::detail(&caller.client.broker, &message).await?;
    caller.reach(&detail.row.agent)?;
    Ok(Json(detail))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct From {
    /// Only what comes after the event with this id; the header Last-Event-ID takes precedence
    from: Option<String>,
}

/// Streams what happens to a message until it is final, as `mozart attach`
///
/// The id of an event is its position. Whoever comes back with it, to this or another process, goes on with the next one; after the last
/// one, the answer is 204.
#[utoipa::path(get, path = "/api/v1/messages/{message}/events", tag = "messages",
    params(("message" = String, Path, description = "ID, AGENT/ID or AGENT/SENDER/ID, with %2F for each slash"), From,
        ("Last-Event-ID" = Option<String>, Header, description = "the id of the last event that is known")),
    responses(
        (status = 200, description = "events: a line of `mozart chat -o json` each", body = String, content_type = "text/event-stream"),
        (status = 204, description = "there is nothing after it"),
        (status = "default", body = Document, description = "an error")))]
async fn events(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Path(message): Path<String>,
    params: Params<From>,
) -> Result<Response, Problem> {
    let known = sse::known::<sse::Known>(&headers, params.0.from.as_deref())?;
    let place = match known {
        None => Place::default(),
        Some(sse::Known::UpTo(place)) => place,
        Some(sse::Known::Done) => return Ok(sse::nothing()),
    };
    let (_, stored) = one(&caller, &message).await?;
    let open = sse::open(&api, &caller)?;
    let key = stored.value.key();
    let mut watch = api.watch(&key).await?;
    watch.look().await?;
    let response = sse::of_message(&api, &caller, open, watch, key, place);
    Ok(named_in(response, &stored.value))
}

/// A message that was cancelled.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Over {
    agent: String,
    message_id: String,
    status: &'static str,
}

/// Cancels a message
#[utoipa::path(post, path = "/api/v1/messages/{message}/cancel", tag = "messages",
    params(("message" = String, Path, description = "ID, AGENT/ID or AGENT/SENDER/ID, with %2F for each slash")),
    responses((status = 200, description = "no answer can come any more", body = Over), (status = "default", body = Document, description = "an error")))]
async fn cancel(caller: Caller, Path(message): Path<String>) -> Result<Json<Over>, Problem> {
    caller.may(Scope::Send)?;
    let (_, stored) = one(&caller, &message).await?;
    if stored.value.sender != *caller.name() {
        caller.may(Scope::Operate)?;
    }
    let door = format!("api.{}", caller.name());
    let cancelled = cancel_message(&caller.client, stored, &door).await?;
    let Envelope { agent, message_id, .. } = cancelled.request;
    let (agent, message_id) = (agent.to_string(), message_id.to_string());
    Ok(Json(Over { agent, message_id, status: "cancelled" }))
}

/// Explains the state of a message, as `mozart explain`
#[utoipa::path(get, path = "/api/v1/messages/{message}/explanation", tag = "messages",
    params(("message" = String, Path, description = "ID, AGENT/ID or AGENT/SENDER/ID, with %2F for each slash")),
    responses((status = 200, description = "why it is as it is", body = Object), (status = "default", body = Document, description = "an error")))]
async fn explain(
    caller: Caller,
    Path(message): Path<String>,
) -> Result<Json<Explanation>, Problem> {
    let (_, stored) = one(&caller, &message).await?;
    let Envelope { agent, sender, message_id, .. } = stored.value;
    let whole = format!("{agent}/{sender}/{message_id}");
    Ok(Json(mozart_client::explain::explain(&caller.client, &whole).await?))
}
