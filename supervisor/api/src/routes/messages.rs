//! Messages: sending, reading, following and cancelling them.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use broker::{Cursor, Found};
use common::api::{ApiError, MessageDetail, MessageRow};
use common::message::{Envelope, MAX_TEXT, Status};
use common::users::Scope;
use common::{AgentName, ConversationId, MessageId, Timestamp, TraceParent, failure, later};
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
use crate::Door;
use crate::caller::Caller;
use crate::problem::{Document, Problem};
use crate::sse::{self, Place};
use crate::waiting::Wait;

/// The namespace of the ids of messages that are sent with a key: the same key of the same token is always the same message.
const KEYED: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_5e64_9264_6964_656d_706f);
/// The longest key.
const KEY: usize = 255;
/// How long storing may take.
pub(super) const STORE: Duration = Duration::from_secs(30);
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
    /// Expires when no worker has started it within this time, from when it is delivered: `30s`.
    deadline: Option<String>,
    /// Not delivered before this time, by the broker's clock, as RFC 3339 has it: `2026-12-01T10:00:00Z`; at most a year ahead [default: at once].
    deliver_at: Option<String>,
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

/// The conversation of a message that begins one, at a door whose clients are told its name to go on with. Not the message's own id: a
/// message whose conversation has that name is filed under no conversation, and would not be found as its first turn.
pub(super) fn own_conversation(message: &MessageId) -> ConversationId {
    let name = format!("{message}.0");
    ConversationId::new(name).unwrap_or_else(|_| ConversationId::from(message))
}

fn moment(text: &str) -> Result<Timestamp, Problem> {
    later::parse_time(text)
        .map_err(|cause| Problem::usage("deliverAt is no time", cause, "2026-12-01T10:00:00Z"))
}

/// What is to be sent, and whether it may have been sent before.
fn draft(
    caller: &Caller,
    headers: &HeaderMap,
    given: Message,
) -> Result<(Envelope, bool), Problem> {
    let Message { agent, message, conversation_id, message_id, deadline, deliver_at } = given;
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
        deliver_at: deliver_at.as_deref().map(moment).transpose()?,
    };
    Ok((draft.envelope(), is_named))
}

/// Sends a message, as `mozart send`; with `Accept: text/event-stream`, also streams the answer
///
/// Answered when the message is on disk. A wait counts as an open stream does. The same key, or id, with the same content is the same message, however often it is sent; with other
/// content it is a conflict.
#[utoipa::path(post, path = "/api/v1/messages", tag = "messages", request_body = Message,
    params(Waiting, ("Idempotency-Key" = Option<String>, Header, description = "the same key of the same token is the same message")),
    responses(
        (status = 201, description = "it is stored; with `wait`, the answer", content((Sent = "application/json"), (String = "text/event-stream"))),
        (status = 200, description = "it had been stored before", body = Sent),
        (status = 202, description = "it is stored, and there is no answer yet after `wait`", body = Sent),
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
    api.feed.require(client, &envelope.agent).await?;
    if is_named {
        send::only_here(client, &envelope).await?;
    }
    let key = envelope.key();
    if sse::is_wanted(&headers) {
        let open = sse::open(&api, &caller)?;
        let mut watch = api.watch(&key).await?;
        let known = store(&api, &caller, &envelope, is_named, Door::Api).await?;
        watch.stored(known).await?;
        let response = sse::of_message(&api, &caller, open, watch, key, Place::default());
        return Ok(named_in(created(known, response), &envelope));
    }
    let is_waited = wait.is_some();
    let wait = match wait {
        Some(wait) => Some((Wait::open(&api, &caller, &key).await?, Instant::now() + wait)),
        None => None,
    };
    let known = store(&api, &caller, &envelope, is_named, Door::Api).await?;
    let envelope = send::as_stored(broker, envelope, known).await?;
    let final_ = match wait {
        Some((wait, deadline)) => wait.answered(known, deadline).await?,
        None => None,
    };
    let status = match (&final_, known) {
        (Some(final_), _) => final_.status.into(),
        (None, Known::New) if !is_waited => Status::Pending,
        (None, _) => journal::status(broker, &envelope).await?,
    };
    let sent = Json(Sent::new(&envelope, status, final_.as_ref())).into_response();
    let mut response = created(known, sent);
    if is_waited && final_.is_none() {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(named_in(response, &envelope))
}

pub(super) async fn store(
    api: &Api,
    caller: &Caller,
    envelope: &Envelope,
    is_named: bool,
    door: Door,
) -> Result<Known, Problem> {
    let stored = send::store(&caller.client.broker, envelope, is_named, STORE).await;
    api.accepted(door, stored.as_ref().ok());
    stored.map_err(|error| not_stored(envelope, error))
}

/// That a message is not stored, or may not be.
pub(super) fn not_stored(envelope: &Envelope, mut error: ApiError) -> Problem {
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
    responses((status = 200, description = "messages", body = [MessageRow]), (status = "default", body = Document, description = "an error")))]
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

/// A message that the caller may see. One of another agent is not there for them, unless they name that agent.
pub(crate) async fn one(caller: &Caller, message: &str) -> Result<Found, Problem> {
    Ok(reached(caller, message)?.seen(&caller.client).await?)
}

/// How a message is named, of an agent that the caller may reach.
pub(super) fn reached(caller: &Caller, message: &str) -> Result<MessageRef, Problem> {
    let message: MessageRef = named(message)?;
    message.agent.as_ref().map_or(Ok(()), |agent| caller.reach(agent))?;
    Ok(message)
}

/// Shows a message with everything that happened to it, as `mozart journal show`
#[utoipa::path(get, path = "/api/v1/messages/{message}", tag = "messages",
    params(("message" = String, Path, description = "ID, AGENT/ID or AGENT/SENDER/ID, with %2F for each slash")),
    responses((status = 200, description = "the message", body = MessageDetail), (status = "default", body = Document, description = "an error")))]
async fn show(caller: Caller, Path(message): Path<String>) -> Result<Json<MessageDetail>, Problem> {
    let found = one(&caller, &message).await?;
    Ok(Json(journal::detail_of(&caller.client.broker, found).await?))
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
    let stored = one(&caller, &message).await?.request;
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
    let stored = one(&caller, &message).await?.request;
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
    responses((status = 200, description = "why it is as it is", body = Explanation), (status = "default", body = Document, description = "an error")))]
async fn explain(
    caller: Caller,
    Path(message): Path<String>,
) -> Result<Json<Explanation>, Problem> {
    let stored = one(&caller, &message).await?.request;
    Ok(Json(mozart_client::explain::of_message(&caller.client, stored).await?))
}
