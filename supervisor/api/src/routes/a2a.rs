//! A2A 1.0 over JSON-RPC: every agent at a path of its own.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse as _, Response};
use broker::Attempt as _;
use common::api::{AgentDetail, ApiError};
use common::message::{Envelope, MAX_TEXT, Status};
use common::users::Scope;
use common::{AgentName, MessageId, failure};
use futures_util::stream;
use mozart_client::cancel::cancel as cancel_message;
use mozart_client::reference::MessageRef;
use mozart_client::send::{self, Draft, Known};
use mozart_client::stream::Stream as Reader;
use mozart_client::{journal, now};
use serde_json::{Value, json};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::messages::{named_in, own_conversation, traced};
use super::named;
use crate::Api;
use crate::Door;
use crate::a2a::{self, Call, Fault, Kind, OfTask, Sending, Task, Updates};
use crate::caller::Caller;
use crate::following::Following;
use crate::gate;
use crate::problem::{Document, Problem};
use crate::sse;
use crate::waiting::Wait;

/// The namespace of the ids of tasks: the same message of a client to an agent is always the same task.
const TASKS: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_5e64_9264_6132_6174_736b);
/// The namespace of the cards' tags.
const CARDS: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_5e64_9264_6132_6163_6172);
/// How long a call waits for the end of its task; then it is answered with the task as it is.
const WAIT: Duration = Duration::from_secs(600);
/// How long storing may take.
const STORE: Duration = Duration::from_secs(30);

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(only_card)).routes(routes!(card)).routes(routes!(call))
}

/// Shows the card of the only agent that the token sees
#[utoipa::path(get, path = "/.well-known/agent-card.json", tag = "a2a",
    responses((status = 200, description = "its card", body = Object), (status = "default", body = Document, description = "an error")))]
async fn only_card(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut seen = first_two(&caller).await?.into_iter();
    match (seen.next(), seen.next()) {
        (Some(only), None) => shown(&api, &caller, &headers, &only).await,
        (Some(first), Some(_)) => {
            let try_ = format!("GET {}/.well-known/agent-card.json", a2a::path(&first));
            let cause = "each agent has a card of its own, and there are several";
            Err(failure::error(failure::NOT_FOUND, "no such card", cause, try_).into())
        }
        (None, _) => {
            let try_ = "`mozart apply SOUL`";
            Err(failure::error(failure::NOT_FOUND, "no such card", "there is no agent", try_)
                .into())
        }
    }
}

/// The first agents that the caller sees: two tell as much as all of them.
async fn first_two(caller: &Caller) -> Result<Vec<AgentName>, Problem> {
    let client = &caller.client;
    if client.agents().is_empty() {
        let rows = client.pages(None, true).next(2).await?.unwrap_or_default();
        return Ok(rows.into_iter().map(|row| row.agent).collect());
    }
    let mut seen = Vec::new();
    for agent in client.agents() {
        if seen.len() < 2 && mozart_client::agents::exists(&client.broker, agent).await? {
            seen.push(agent.clone());
        }
    }
    Ok(seen)
}

/// Shows the card of an agent
#[utoipa::path(get, path = "/a2a/{agent}/.well-known/agent-card.json", tag = "a2a", params(("agent" = String, Path, description = "its name")),
    responses((status = 200, description = "its card", body = Object), (status = 304, description = "the one that is known"), (status = "default", body = Document, description = "an error")))]
async fn card(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Path(agent): Path<String>,
) -> Result<Response, Problem> {
    let agent: AgentName = named(&agent)?;
    caller.reach(&agent)?;
    shown(&api, &caller, &headers, &agent).await
}

async fn shown(
    api: &Api,
    caller: &Caller,
    headers: &HeaderMap,
    agent: &AgentName,
) -> Result<Response, Problem> {
    mozart_client::agents::require(&caller.client, agent).await?;
    // Without a supervisor there is nobody who knows more than that it exists.
    let detail = caller.client.inspect(agent.clone()).await.ok();
    let about = |detail: &AgentDetail| (detail.in_force().identity.clone(), detail.row.generation);
    let (identity, generation) = detail.as_deref().map_or_else(Default::default, about);
    let description = match identity.lines().next().unwrap_or_default().trim() {
        "" => format!("The agent {agent}"),
        first => first.to_owned(),
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let base = format!("{}://{host}", api.scheme);
    let body = a2a::card(agent, &base, &description, generation).to_string();
    let tag = format!("\"{}\"", Uuid::new_v5(&CARDS, body.as_bytes()));
    let is_known =
        headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    for (name, value) in [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "no-cache")] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// Takes a call: SendMessage, SendStreamingMessage, GetTask, CancelTask, SubscribeToTask
#[utoipa::path(post, path = "/a2a/{agent}", tag = "a2a", request_body = Object, params(("agent" = String, Path, description = "its name")),
    responses((status = 200, description = "JSON-RPC", content((Object = "application/json"), (String = "text/event-stream"))), (status = "default", body = Document, description = "an error")))]
async fn call(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let agent: AgentName = named(&agent)?;
    caller.reach(&agent)?;
    let headers = request.headers().clone();
    let body = gate::body(request.into_body()).await?;
    let call = match Call::parse(&body) {
        Ok(call) => call,
        Err((id, fault)) => return Ok(Json(a2a::answer(&id, Err(fault))).into_response()),
    };
    let version = headers.get("a2a-version").map(|value| value.to_str().unwrap_or("?").to_owned());
    let desk = Desk { api, caller, agent, headers, id: call.id.clone() };
    let result = match version.filter(|version| version.trim() != a2a::VERSION) {
        Some(version) => {
            let why = format!("A2A-Version {version:?}: expected {}", a2a::VERSION);
            Err(Refused::Fault(Fault::new(Kind::Version, why)))
        }
        None => desk.answer(&call).await,
    };
    match result {
        Ok(response) => Ok(response),
        Err(Refused::Fault(fault)) => Ok(Json(a2a::answer(&call.id, Err(fault))).into_response()),
        Err(Refused::Problem(problem)) => Err(*problem),
    }
}

/// Why a call has no result: in the terms of the protocol, or of HTTP.
enum Refused {
    Fault(Fault),
    Problem(Box<Problem>),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        match error.code {
            // What says nothing of the call: the client may try again.
            failure::UNREACHABLE | failure::TIMEOUT | failure::DENIED => {
                Self::Problem(Box::new(error.into()))
            }
            _ => Self::Fault(error.into()),
        }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// One call to an agent.
struct Desk {
    api: Api,
    caller: Caller,
    agent: AgentName,
    headers: HeaderMap,
    id: Value,
}

impl Desk {
    async fn answer(&self, call: &Call) -> Result<Response, Refused> {
        match call.method.as_str() {
            "SendMessage" => self.send(call.params()?).await,
            "SendStreamingMessage" => self.stream(call.params()?).await,
            "GetTask" => self.get(call.params()?).await,
            "CancelTask" => self.cancel(call.params()?).await,
            "SubscribeToTask" => self.subscribe(call.params()?).await,
            "ListTasks" => {
                let why = "GET /api/v1/messages lists messages";
                Err(Fault::new(Kind::Unsupported, why).into())
            }
            "GetExtendedAgentCard" => {
                Err(Fault::new(Kind::NoExtendedCard, "there is no extended card").into())
            }
            method
                if method.ends_with("PushNotificationConfig")
                    || method.ends_with("PushNotificationConfigs") =>
            {
                Err(Fault::new(Kind::NoPush, "there are no push notifications").into())
            }
            method => {
                let why = format!("there is no method {method:?}; A2A 1.0 is spoken here");
                Err(Fault::new(Kind::NoMethod, why).into())
            }
        }
    }

    fn result(&self, result: Value) -> Response {
        Json(a2a::answer(&self.id, Ok(result))).into_response()
    }

    /// What is to be sent.
    async fn envelope(&self, sending: &Sending) -> Result<Envelope, Refused> {
        self.caller.may(Scope::Send)?;
        let message = &sending.message;
        let text = message.text()?;
        if text.len() > MAX_TEXT {
            let cause = format!("its text has {} bytes", text.len());
            return Err(Refused::Fault(send::too_large(&cause).into()));
        }
        mozart_client::agents::require(&self.caller.client, &self.agent)
            .await
            .map_err(|error| Refused::Problem(Box::new(error.into())))?;
        let sender = self.caller.name().clone();
        let name = format!("{sender}\n{}\n{}", self.agent, message.message_id);
        if !message.task_id.is_empty() {
            let _there = self.task(&message.task_id).await?;
            let why = "a task takes no further messages; send another one with its contextId";
            return Err(Fault::new(Kind::Unsupported, why).into());
        }
        let id: MessageId = Uuid::new_v5(&TASKS, name.as_bytes()).into();
        let conversation = match message.context_id.as_str() {
            "" => own_conversation(&id),
            context => context
                .parse()
                .map_err(|error| Fault::new(Kind::Params, format!("message.contextId: {error}")))?,
        };
        let draft = Draft {
            agent: self.agent.clone(),
            sender,
            text,
            conversation: Some(conversation),
            id: Some(id),
            deadline: None,
            traceparent: traced(&self.headers),
            deliver_at: None,
        };
        Ok(draft.envelope())
    }

    async fn store(&self, envelope: &Envelope) -> Result<Known, ApiError> {
        let stored = send::store(&self.caller.client.broker, envelope, true, STORE).await;
        self.api.accepted(Door::A2a, stored.as_ref().ok());
        stored.map_err(|mut error| {
            match error.code {
                // Sent again with the same messageId, it is not stored twice.
                failure::TIMEOUT => error.try_ = "the same request again".to_owned(),
                failure::CONFLICT => error.try_ = "another messageId".to_owned(),
                _ => {}
            }
            error
        })
    }

    async fn send(&self, sending: Sending) -> Result<Response, Refused> {
        let envelope = self.envelope(&sending).await?;
        let history = sending.configuration.history_length;
        let final_ = if sending.configuration.return_immediately {
            let _known = self.store(&envelope).await?;
            None
        } else {
            let wait = Wait::open(&self.api, &self.caller, &envelope.key()).await?;
            let deadline = Instant::now() + WAIT;
            let known = self.store(&envelope).await?;
            wait.answered(known, deadline).await?
        };
        let task = match &final_ {
            None => self.snapshot(&envelope, history).await?,
            Some(final_) => Task {
                envelope: &envelope,
                status: final_.status.into(),
                at: final_.at,
                text: final_.response.as_deref().unwrap_or_default(),
                reason: final_.reason.as_deref(),
                history,
            }
            .object(),
        };
        Ok(named_in(self.result(json!({ "task": task })), &envelope))
    }

    async fn stream(&self, sending: Sending) -> Result<Response, Refused> {
        let envelope = self.envelope(&sending).await?;
        let open = sse::open(&self.api, &self.caller)?;
        let mut watch = self.api.watch(&envelope.key()).await?;
        let known = self.store(&envelope).await?;
        watch.stored(known).await?;
        let history = sending.configuration.history_length;
        Ok(self.streaming(open, watch, envelope, history).await?)
    }

    async fn subscribe(&self, of: OfTask) -> Result<Response, Refused> {
        let envelope = self.task(&of.id).await?;
        let open = sse::open(&self.api, &self.caller)?;
        let watch = self.api.watch(&envelope.key()).await?;
        let broker = &self.caller.client.broker;
        let final_ = broker.outcome_of(&envelope.key()).await.attempt("cannot look up the task")?;
        if final_.is_some() {
            let why = "the task has ended; GetTask has its answer";
            return Err(Fault::new(Kind::Unsupported, why).into());
        }
        Ok(self.streaming(open, watch, envelope, of.history_length).await?)
    }

    /// A snapshot, with what was stored until now, and then what follows.
    async fn streaming(
        &self,
        open: crate::quota::OpenStream,
        watch: Following,
        envelope: Envelope,
        history: Option<i64>,
    ) -> Result<Response, ApiError> {
        let (reader, text) = self.so_far(&envelope).await?;
        let status = reader.status();
        let snapshot =
            Task { envelope: &envelope, status, at: now(), text: &text, reason: None, history };
        let first = a2a::answer(&self.id, Ok(json!({ "task": snapshot.object() })));
        let telling = Telling {
            watch,
            reader,
            updates: Updates::after(envelope.clone(), text, status),
            id: self.id.clone(),
            ready: VecDeque::from([first.to_string()]),
            over: Box::pin(sse::over(&self.api, &self.caller)),
        };
        let response = sse::sent(open, stream::try_unfold(telling, Telling::next));
        Ok(named_in(response, &envelope))
    }

    async fn get(&self, of: OfTask) -> Result<Response, Refused> {
        let envelope = self.task(&of.id).await?;
        Ok(self.result(self.snapshot(&envelope, of.history_length).await?))
    }

    async fn cancel(&self, of: OfTask) -> Result<Response, Refused> {
        self.caller.may(Scope::Send)?;
        let envelope = self.task(&of.id).await?;
        if envelope.sender != *self.caller.name() {
            self.caller.may(Scope::Operate)?;
        }
        let stored = whole(&envelope).resolve(&self.caller.client.broker).await?;
        let door = format!("a2a.{}", self.caller.name());
        match cancel_message(&self.caller.client, stored, &door).await {
            Ok(_cancelled) => {}
            Err(error) if error.code == failure::CONFLICT => {
                return Err(Fault::new(Kind::NotCancelable, a2a::sentence(&error)).into());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(self.result(self.snapshot(&envelope, of.history_length).await?))
    }

    /// The message of a task.
    async fn task(&self, id: &str) -> Result<Envelope, Refused> {
        let none = || Fault::new(Kind::NoTask, format!("there is no task {id:?}"));
        let id = MessageId::new(id).map_err(|_| none())?;
        let what = format!("cannot look up task {id}");
        let found = self.caller.client.broker.find(&id).await.attempt(what)?;
        let mut found: Vec<Envelope> = found
            .into_iter()
            .map(|stored| stored.value)
            .filter(|envelope| envelope.agent == self.agent)
            .collect();
        // Others may have sent one with the same id; one's own is meant.
        found.sort_by_key(|envelope| envelope.sender != *self.caller.name());
        found.into_iter().next().ok_or_else(|| none().into())
    }

    /// A task as it is.
    async fn snapshot(&self, envelope: &Envelope, history: Option<i64>) -> Result<Value, ApiError> {
        let broker = &self.caller.client.broker;
        let detail = journal::detail(broker, &whole(envelope)).await?;
        let row = detail.row;
        let text = match (&row.response, row.status) {
            (Some(response), _) => response.clone(),
            (None, status) if status.is_final() => String::new(),
            (None, _) => self.so_far(envelope).await?.1,
        };
        let task = Task {
            envelope,
            status: row.status,
            at: row.updated_at,
            text: &text,
            reason: row.reason.as_deref().filter(|_| row.status != Status::Completed),
            history,
        };
        Ok(task.object())
    }

    /// What was said so far of an answer that is not whole, and a reader who knows it.
    async fn so_far(&self, envelope: &Envelope) -> Result<(Reader, String), ApiError> {
        let what = || format!("cannot read message {}", envelope.message_id);
        let mut stored = self.caller.client.broker.read_events(&envelope.key());
        let (mut reader, mut text, mut items) = (Reader::new(true, 0), String::new(), Vec::new());
        // A long answer is not held as a whole, but for its text.
        while let Some(batch) = stored.next().await.attempt(what())? {
            let _next = reader.stored_part(batch, &mut items);
            a2a::hear(&mut text, &items);
            items.clear();
        }
        Ok((reader, text))
    }
}

fn whole(envelope: &Envelope) -> MessageRef {
    MessageRef {
        agent: Some(envelope.agent.clone()),
        sender: Some(envelope.sender.clone()),
        message_id: envelope.message_id.clone(),
    }
}

/// What has been read of a task, and is not sent yet.
struct Telling {
    watch: Following,
    reader: Reader,
    updates: Updates,
    id: Value,
    ready: VecDeque<String>,
    over: Pin<Box<dyn Future<Output = sse::Over> + Send>>,
}

impl Telling {
    async fn next(mut self) -> Result<Option<(Event, Self)>, ApiError> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Ok(Some((Event::default().data(data), self)));
            }
            let items = tokio::select! {
                items = self.watch.items(&mut self.reader) => items?,
                // It breaks off: an end would be taken for the end of the task.
                over = &mut self.over => return Err(over.into()),
            };
            if items.is_empty() {
                return Ok(None);
            }
            let told = items.iter().flat_map(|item| self.updates.item(item, now()));
            let told: Vec<_> = told.collect();
            self.ready.extend(told.into_iter().map(|told| a2a::answer(&self.id, told).to_string()));
        }
    }
}
