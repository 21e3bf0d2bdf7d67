//! What can be done on the page: forms, which work without JavaScript too. Every one has its command.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequest, Path, Request};
use axum::http::{StatusCode, header};
use axum::response::Redirect;
use broker::Attempt as _;
use common::api::Query as Ask;
use common::message::{MAX_TEXT, MessageKey};
use common::users::Scope;
use common::{AgentName, MessageId, failure};
use mozart_client::reference::MessageRef;
use mozart_client::send::{self, Draft};
use mozart_client::{agents, cancel, dead, rollout};

use super::{Visit, parts, session, signin};
use crate::Api;
use crate::gate;
use crate::problem::Problem;
use crate::routes::named;

/// The most fields of a form.
const FIELDS: usize = 32;

/// How long storing a message may take.
const STORE: Duration = Duration::from_secs(30);

/// The fields of a form.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, String>);

impl Fields {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn named<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Problem> {
        self.get(name).filter(|value| !value.is_empty()).map(named).transpose()
    }

    /// Demands that the form is one of this session's.
    ///
    /// # Errors
    /// 403 when it is another's.
    pub(super) fn check(&self, visit: &Visit) -> Result<(), Problem> {
        if session::is_same(self.get("form").unwrap_or_default(), &visit.form) {
            return Ok(());
        }
        let cause = "the form is not of this session: it may have ended meanwhile";
        Err(Problem::denied("nothing was done", cause, "reload the page, and try again"))
    }
}

impl FromRequest<Api> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, _api: &Api) -> Result<Self, Problem> {
        Self::read(request, gate::BODY).await
    }
}

impl Fields {
    /// Reads a form of so many bytes at most.
    ///
    /// # Errors
    /// 400, 413 or 415 when it is none.
    pub(super) async fn read(request: Request, most: usize) -> Result<Self, Problem> {
        const KIND: &str = "application/x-www-form-urlencoded";
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_form =
            kind.is_some_and(|kind| kind.split(';').next().unwrap_or(kind).trim() == KIND);
        if !is_form {
            let problem = Problem::usage("the form is none", "its Content-Type is another", KIND);
            return Err(problem.with(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let bytes = gate::body_of(request.into_body(), most).await?;
        // Each of them takes memory, however short it is.
        if bytes.iter().filter(|byte| **byte == b'&').count() >= FIELDS {
            let cause = format!("it has more than {FIELDS} fields");
            return Err(Problem::usage("the form is not understood", cause, "reload the page"));
        }
        let fields = serde_urlencoded::from_bytes(&bytes);
        fields.map(Self).map_err(|error| Problem::usage("the form is not understood", error, KIND))
    }
}

fn unknown(action: &str) -> Problem {
    let what = format!("there is no action {action:?}");
    failure::error(failure::NOT_FOUND, what, "the page has no such form", "reload the page").into()
}

/// Sends a message, or changes an agent.
pub(super) async fn agent(
    visit: Visit,
    Path((agent, action)): Path<(String, String)>,
    fields: Fields,
) -> Result<Redirect, Problem> {
    fields.check(&visit)?;
    let caller = &visit.caller;
    let agent: AgentName = named(&agent)?;
    caller.reach(&agent)?;
    if action == "messages" {
        return message_to(&visit, agent, &fields).await;
    }
    caller.may(Scope::Operate)?;
    let of = agent.clone();
    let ask = match action.as_str() {
        "start" => Ask::Start { agent },
        "stop" => Ask::Stop { agent },
        "restart" => Ask::Restart { agent },
        "replace" => Ask::Replace { agent, image: None },
        "rollback" => {
            let to = match fields.named::<u64>("generation")? {
                Some(wanted) => Some(rollout::earlier(&caller.client, &agent, wanted).await?),
                None => None,
            };
            Ask::Rollback { agent, to }
        }
        other => return Err(unknown(other)),
    };
    let _applied = caller.client.change(&ask).await?;
    Ok(back(&fields, &parts::agent_path(&of), &action))
}

async fn message_to(visit: &Visit, agent: AgentName, fields: &Fields) -> Result<Redirect, Problem> {
    let caller = &visit.caller;
    caller.may(Scope::Send)?;
    // Browsers end the lines of a form with both.
    let text = fields.get("text").unwrap_or_default().replace("\r\n", "\n");
    if text.trim().is_empty() {
        let cause = "it has no text";
        return Err(Problem::usage("the message is not sent", cause, "write something"));
    }
    if text.len() > MAX_TEXT {
        let cause = format!("its text has {} bytes", text.len());
        return Err(Problem::from(send::too_large(&cause)).with(StatusCode::PAYLOAD_TOO_LARGE));
    }
    agents::require(&caller.client, &agent).await?;
    let id = fields.named("message")?;
    let is_named = id.is_some();
    let draft = Draft {
        agent,
        sender: caller.name().clone(),
        text,
        conversation: fields.named("conversation")?,
        id,
        deadline: None,
        traceparent: None,
        deliver_at: None,
    };
    let envelope = draft.envelope();
    // The form has the id: sent twice, it is one message.
    let _known = send::store(&caller.client.broker, &envelope, is_named, STORE).await?;
    let conversation = &envelope.conversation_id;
    Ok(Redirect::to(&parts::conversation_path(&envelope.agent, conversation)))
}

/// Cancels a message, or decides about its dead letter.
pub(super) async fn message(
    visit: Visit,
    Path((agent, sender, message, action)): Path<(String, String, String, String)>,
    fields: Fields,
) -> Result<Redirect, Problem> {
    fields.check(&visit)?;
    let caller = &visit.caller;
    let message: MessageRef = named(&format!("{agent}/{sender}/{message}"))?;
    let agent: AgentName = named(&agent)?;
    caller.reach(&agent)?;
    let broker = &caller.client.broker;
    match action.as_str() {
        "cancel" => {
            caller.may(Scope::Send)?;
            let stored = message.seen(&caller.client).await?.request;
            if stored.value.sender != *caller.name() {
                caller.may(Scope::Operate)?;
            }
            let path = parts::message_path(&stored.value.key());
            let door = format!("api.{}", caller.name());
            let _cancelled = cancel::cancel(&caller.client, stored, &door).await?;
            Ok(back(&fields, &path, "cancel"))
        }
        "redrive" => {
            caller.may(Scope::Operate)?;
            let letter = dead::seen(&caller.client, &message).await?;
            let sender = letter.value.envelope.sender.clone();
            let redriven = dead::redrive(&caller.client, letter).await?;
            let key = MessageKey { agent: redriven.agent, sender, message_id: redriven.message_id };
            Ok(back(&fields, &parts::message_path(&key), "redrive"))
        }
        "drop" => {
            caller.may(Scope::Operate)?;
            let letter = dead::seen(&caller.client, &message).await?.value;
            let what = format!("cannot drop dead letter {}", letter.envelope.message_id);
            let key = letter.envelope.key();
            let _dropped = broker.drop_dead_letter(&key).await.attempt(what)?;
            Ok(back(&fields, &parts::message_path(&key), "drop"))
        }
        other => Err(unknown(other)),
    }
}

/// Answers a question of a worker's: the first answer counts.
pub(super) async fn answer(visit: Visit, fields: Fields) -> Result<Redirect, Problem> {
    fields.check(&visit)?;
    let caller = &visit.caller;
    let field = |name: &str| fields.get(name).unwrap_or_default();
    let (agent, message): (AgentName, MessageId) =
        (named(field("agent"))?, named(field("message"))?);
    caller.may(Scope::Send)?;
    caller.reach(&agent)?;
    // Browsers end the lines of a form with both.
    let text = field("text").replace("\r\n", "\n");
    let (request, by) = (field("request").to_owned(), caller.name().to_string());
    let _taken = caller.client.answer_question(Some((agent, message)), request, text, by).await?;
    Ok(back(&fields, "/attention", "answer"))
}

/// Drains a node, or lets it take agents again.
pub(super) async fn node(
    visit: Visit,
    Path((node, action)): Path<(String, String)>,
    fields: Fields,
) -> Result<Redirect, Problem> {
    fields.check(&visit)?;
    let caller = &visit.caller;
    let node = named(&node)?;
    caller.may(Scope::Operate)?;
    caller.reach_all(None)?;
    let ask = match action.as_str() {
        "drain" => Ask::Drain { node, parallel: 1 },
        "undrain" => Ask::Undrain { node },
        other => return Err(unknown(other)),
    };
    caller.client.tell(&ask).await?;
    Ok(back(&fields, "/system", &action))
}

/// Where the form was, or else `usual`; the page says what was done.
fn back(fields: &Fields, usual: &str, done: &str) -> Redirect {
    let at = match fields.get("back") {
        Some(back) if !back.is_empty() => signin::local(Some(back)),
        Some(_) | None => usual,
    };
    let (path, query) = at.split_once('?').unwrap_or((at, ""));
    let others = query.split('&').filter(|one| !one.is_empty() && !one.starts_with("done="));
    let query: Vec<String> = others.map(str::to_owned).chain([format!("done={done}")]).collect();
    Redirect::to(&format!("{path}?{}", query.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::LOCATION;
    use axum::response::IntoResponse as _;

    #[test]
    fn a_form_leads_back_to_this_page() {
        let to = |back: &str| {
            let fields = Fields([("back".to_owned(), back.to_owned())].into());
            let response = back_of(&fields).into_response();
            response.headers()[LOCATION].to_str().expect("text").to_owned()
        };
        fn back_of(fields: &Fields) -> Redirect {
            back(fields, "/agents/a", "stop")
        }
        assert_eq!(to(""), "/agents/a?done=stop");
        assert_eq!(to("/?after=b"), "/?after=b&done=stop");
        assert_eq!(to("/?done=start"), "/?done=stop");
        assert_eq!(to("//evil.example"), "/?done=stop");
    }
}
