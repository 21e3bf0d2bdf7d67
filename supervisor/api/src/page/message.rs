//! One message: its lanes from the sender to the final state, its attempts, and the questions that it led to.

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use broker::Attempt as _;
use common::api::{MessageDetail, MessageRow};
use common::event::{Event, EventBody, attempt_of};
use common::message::{Cause, DeadLetter, Envelope, MessageKey};
use common::users::Scope;
use common::{SenderName, Timestamp, failure, words};
use maud::{Markup, html};
use mozart_client::describe;
use mozart_client::journal::{self, Glance};
use mozart_client::reference::MessageRef;

use super::Visit;
use super::chat::{self, Open};
use super::parts::{self, Action, Context, Cut, Room, moment, of_message, state, time};
use crate::caller::Caller;
use crate::problem::Problem;

/// Records of events that are read, besides the last one; events that are listed, and how much of each, in characters.
const RECORDS: usize = 200;
const EVENTS: usize = 200;
const EVENT: usize = 500;
/// The bytes of request and answer that are shown.
const ROOM: usize = 128 << 10;
/// Questions that are shown.
const QUESTIONS: usize = 50;
/// The width of the lanes, in their own units.
const WIDTH: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Message {
    key: MessageKey,
    detail: MessageDetail,
    /// Its text, and that of its answer.
    message: Cut,
    answer: Option<Cut>,
    /// Whether it has left the journal: then questions are looked for near it.
    is_archived: bool,
    /// Whether events between the first and the last ones are left out.
    is_cut: bool,
    stored: Timestamp,
    path: Vec<Cause>,
    questions: Vec<Envelope>,
    letter: Option<DeadLetter>,
    open: Option<Open>,
}

/// An attempt, as its events tell.
#[derive(Debug, PartialEq, Eq)]
struct Attempt {
    number: u32,
    incarnation: Option<u64>,
    delivered: Option<Timestamp>,
    acknowledged: Option<Timestamp>,
    /// Pieces of text, and other events of the worker.
    pieces: u64,
    others: u64,
    /// The times of the first and the last of them.
    events: Option<(Timestamp, Timestamp)>,
    error: Option<String>,
    last: Timestamp,
}

impl Attempt {
    /// Its worker had something to say.
    fn see(&mut self, at: Timestamp) {
        let first = self.events.map_or(at, |(first, _)| first);
        self.events = Some((first, at));
    }
}

fn attempts(history: &[Event]) -> Vec<Attempt> {
    let mut all: Vec<Attempt> = Vec::new();
    for event in history {
        let number = attempt_of(event.seq);
        if all.last().is_none_or(|last| last.number != number) {
            let (incarnation, delivered, acknowledged) = (None, None, None);
            let (pieces, others, events, error, last) = (0, 0, None, None, event.at);
            all.push(Attempt {
                number,
                incarnation,
                delivered,
                acknowledged,
                pieces,
                others,
                events,
                error,
                last,
            });
        }
        let Some(attempt) = all.last_mut() else { continue };
        attempt.last = event.at;
        match &event.body {
            EventBody::Delivered { incarnation } => {
                attempt.incarnation = Some(*incarnation);
                attempt.delivered = Some(event.at);
            }
            EventBody::Acknowledged => attempt.acknowledged = Some(event.at),
            EventBody::Text { .. } => {
                attempt.pieces += 1;
                attempt.see(event.at);
            }
            EventBody::Worker { .. } => {
                attempt.others += 1;
                attempt.see(event.at);
            }
            EventBody::Error { error } => attempt.error = Some(error.clone()),
            EventBody::Reset { .. } => {}
        }
    }
    all
}

impl Message {
    pub(super) async fn load(
        caller: &Caller,
        key: &MessageKey,
        is_live: bool,
    ) -> Result<Self, Problem> {
        let broker = &caller.client.broker;
        let whole = format!("{}/{}/{}", key.agent, key.sender, key.message_id);
        let reference: MessageRef = crate::routes::named(&whole)?;
        let glance = journal::glance(broker, &reference, RECORDS).await?;
        let Glance { mut detail, request, archived, finished, is_cut } = glance;
        let (stored, envelope) = (request.at, request.value);
        let what = || format!("cannot read message {}", key.message_id);
        let since = envelope.created_at.min(stored);
        let questions = async {
            match archived {
                Some(place) => broker.archived_questions(key, place).await.attempt(what()),
                None => broker.questions(key, since, finished).await.attempt(what()),
            }
        };
        let letter = async { broker.dead_letter(key).await.attempt(what()) };
        let (questions, letter) = tokio::try_join!(questions, letter)?;
        let questions: Vec<Envelope> = questions.into_iter().map(|stored| stored.value).collect();
        let questions = questions.into_iter().filter(|one| caller.sees(&one.agent)).collect();
        let open = match detail.row.status.is_final() {
            false => Some(Open::load(caller, &detail.row, is_live).await?),
            true => None,
        };
        let mut room = Room::new(ROOM);
        let answer = detail.row.response.take().map(|response| room.take(response));
        let message = room.take(std::mem::take(&mut detail.row.message));
        Ok(Self {
            key: key.clone(),
            detail,
            message,
            answer,
            is_archived: archived.is_some(),
            is_cut,
            stored,
            path: envelope.path.into_iter().filter(|cause| caller.sees(&cause.agent)).collect(),
            questions,
            letter: letter.map(|letter| letter.value),
            open,
        })
    }

    pub(super) fn title(&self) -> String {
        format!("Message to {}", self.key.agent)
    }

    /// Whether nothing of it changes any more.
    pub(super) fn is_settled(&self) -> bool {
        self.is_archived
    }

    pub(super) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    pub(super) fn main(&self, context: &Context<'_>) -> Markup {
        let MessageRow { agent, sender, message_id, status, conversation_id, .. } =
            &self.detail.row;
        let (sign, word) = of_message(*status);
        html! {
            h1 id="title" { "Message to " a href=(parts::agent_path(agent)) { (agent) } }
            dl id="facts" class="facts" {
                div { dt { "Status" } dd id="status" { (state(sign, word)) } }
                div { dt { "From" } dd { (sender) } }
                div { dt { "Id" } dd { (message_id) } }
                div { dt { "Conversation" } dd { a href=(parts::conversation_path(agent, conversation_id)) { (conversation_id) } } }
                div { dt { "Attempts" } dd { (self.detail.row.attempts) } }
                @if let Some(of) = &self.detail.row.redrive_of { div { dt { "Repeats" } dd { a href={ "/messages/" (of) } { (of) } } } }
            }
            @if let Some(reason) = &self.detail.row.reason { p id="reason" class="trouble" { (words::shown(reason)) } }
            section id="actions" aria-label="Actions" { (self.actions(context)) }
            h2 id="lanes-title" { "Lanes" }
            section id="lanes" aria-labelledby="lanes-title" { (self.lanes()) }
            h2 id="text-title" { "Text" }
            section id="texts" aria-labelledby="text-title" { (self.texts(context)) }
            h2 id="tree-title" { "Questions between agents" }
            section id="tree" aria-labelledby="tree-title" { (self.tree()) }
            h2 id="events-title" { "Events" }
            details id="events" {
                summary { @if self.is_cut { "The first events, and the last" } @else { (words::count(self.detail.history.len() as u64, "event", "events")) } }
                ol class="events" tabindex="0" {
                    @for event in self.detail.history.iter().take(EVENTS) { li { (parts::short(&describe::event(event), EVENT)) } }
                }
                @if self.is_cut || self.detail.history.len() > EVENTS {
                    p { "All of them: " (parts::command(&format!("mozart journal show {message_id}"))) }
                }
            }
            (parts::as_command("command", &format!("mozart explain {message_id}")))
        }
    }

    fn texts(&self, context: &Context<'_>) -> Markup {
        let path = parts::message_path(&self.key);
        let MessageRow { agent, sender, message_id, .. } = &self.detail.row;
        html! {
            h3 { (sender) }
            (parts::text(&self.message.text))
            (parts::rest(self.message.more, &format!("{path}/message"), "message"))
            h3 { (agent) }
            @if let Some(open) = &self.open { (open.show(context)) }
            @else if let Some(answer) = &self.answer {
                (chat::answer(message_id, &answer.text))
                (parts::rest(answer.more, &format!("{path}/answer"), "answer"))
            }
            @else { p { "There is no answer." } }
        }
    }

    fn actions(&self, context: &Context<'_>) -> Markup {
        let path = parts::message_path(&self.key);
        let id = &self.key.message_id;
        let may_cancel = context.may_cancel(&self.key.sender);
        html! {
            @if self.open.is_some() && may_cancel {
                (Action { path: format!("{path}/cancel"), label: "Cancel", about: "this message", command: format!("mozart cancel {id}"), fields: &[] }.show(context))
            }
            @if let Some(letter) = &self.letter { (letter_actions(context, letter, "")) }
        }
    }

    /// One lane below the other on one axis of time, and the same in words.
    fn lanes(&self) -> Markup {
        let row = &self.detail.row;
        let attempts = attempts(&self.detail.history);
        let from = row.created_at.min(self.stored);
        let last = attempts.iter().map(|attempt| attempt.last).max().unwrap_or(self.stored);
        let to = last.max(row.updated_at).max(self.stored);
        let span = to.since(from).as_millis().max(1);
        let x = |at: Timestamp| {
            u64::try_from(at.since(from).as_millis() * u128::from(WIDTH) / span).unwrap_or(WIDTH)
        };
        let mut lanes = vec![
            Lane::point("Received", row.created_at, format!("sent by {}", row.sender)),
            Lane::point("Journaled", self.stored, "on disk".to_owned()),
        ];
        for attempt in &attempts {
            let nth =
                if attempts.len() > 1 { format!(" {}", attempt.number) } else { String::new() };
            if let Some(at) = attempt.delivered {
                let to = attempt.incarnation.map_or_else(
                    || "to an incarnation that is not on record".to_owned(),
                    |incarnation| format!("to incarnation {incarnation}"),
                );
                let end = attempt.acknowledged.unwrap_or(at);
                lanes.push(Lane { end, ..Lane::point(&format!("Delivered{nth}"), at, to) });
            }
            if let Some((first, last)) = attempt.events {
                let pieces = words::count(attempt.pieces, "piece of text", "pieces of text");
                let others = words::count(attempt.others, "other event", "other events");
                let told = match (attempt.pieces, attempt.others) {
                    (_, 0) => pieces,
                    (0, _) => others,
                    (_, _) => format!("{pieces}, {others}"),
                };
                let text = if self.is_cut { format!("at least {told}") } else { told };
                lanes.push(Lane { end: last, ..Lane::point(&format!("Events{nth}"), first, text) });
            }
            if let Some(error) = &attempt.error {
                lanes.push(Lane::point(
                    &format!("Failed{nth}"),
                    attempt.last,
                    parts::short(error, 200),
                ));
            }
        }
        if row.status.is_final() {
            lanes.push(Lane::point("Final", row.updated_at, row.status.as_str().to_owned()));
        }
        html! {
            ol class="lanes" {
                @for lane in &lanes {
                    li {
                        strong { (lane.name) } " " (moment(lane.at)) " +" (lane.at.since(from).as_millis()) " ms: " (words::shown(&lane.text))
                        svg viewBox={ "0 0 " (WIDTH + 10) " 10" } preserveAspectRatio="none" aria-hidden="true" focusable="false" {
                            rect class="axis" x="0" y="4" width=(WIDTH + 10) height="1" {}
                            rect class="bar" x=(x(lane.at)) y="1" width=(x(lane.end).saturating_sub(x(lane.at)).max(8)) height="7" {}
                        }
                    }
                }
            }
        }
    }

    fn tree(&self) -> Markup {
        let this = html! {
            strong { "this message to " (self.key.agent) }
            @if !self.questions.is_empty() {
                ul { @for one in self.questions.iter().take(QUESTIONS) {
                    li id={ "question-" (one.message_id) } { a href=(parts::message_path(&one.key())) { (parts::short(&one.message, 80)) } " to " (one.agent) " " (time(one.created_at)) }
                } }
            }
        };
        html! {
            @if self.is_archived { p { "It has left the journal: questions are looked for near it in the history." } }
            @if self.path.is_empty() && self.questions.is_empty() && self.detail.row.cause.is_none() { p { "It led to none, and came from none." } }
            @else { ul class="tree" { (nested(&self.path, &this)) } }
        }
    }
}

/// The whole text of a message or of its answer, as it is.
pub(super) async fn whole(
    visit: Visit,
    Path((agent, sender, message, part)): Path<(String, String, String, String)>,
) -> Result<Response, Problem> {
    let reference: MessageRef = crate::routes::named(&format!("{agent}/{sender}/{message}"))?;
    let agent = crate::routes::named(&agent)?;
    visit.caller.reach(&agent)?;
    let broker = &visit.caller.client.broker;
    let row = journal::glance(broker, &reference, 1).await?.detail.row;
    let text = match part.as_str() {
        "message" => Some(row.message),
        "answer" => row.response,
        _ => None,
    };
    let text = text.ok_or_else(|| {
        let what = format!("message {message} has no {part:?}");
        failure::error(failure::NOT_FOUND, what, "there is none, or not yet", "/")
    })?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// Whoever asked, around what was asked.
fn nested(path: &[Cause], inner: &Markup) -> Markup {
    match path {
        [] => html! { li { (inner) } },
        [cause, rest @ ..] => {
            let Cause { agent, sender, message_id } = cause;
            html! {
                li {
                    a href={ "/messages/" (agent) "/" (sender) "/" (message_id) } { "message from " (sender) " to " (agent) }
                    ul { (nested(rest, inner)) }
                }
            }
        }
    }
}

#[derive(Debug)]
struct Lane {
    name: String,
    at: Timestamp,
    end: Timestamp,
    text: String,
}

impl Lane {
    fn point(name: &str, at: Timestamp, text: String) -> Self {
        Self { name: name.to_owned(), at, end: at, text }
    }
}

/// What can be done with a dead letter.
pub(super) fn letter_actions(context: &Context<'_>, letter: &DeadLetter, back: &str) -> Markup {
    let key = letter.envelope.key();
    let (path, id) = (parts::message_path(&key), key.message_id.as_str());
    html! {
        @if let Some(copy) = &letter.redriven_as {
            p { "Sent again as " a href=(path_of(&key.agent, &key.sender, copy)) { (copy) } }
        }
        @if context.may(Scope::Operate) {
            @if letter.redriven_as.is_none() {
                (Action { path: format!("{path}/redrive"), label: "Send again", about: id, command: format!("mozart dead redrive {id}"), fields: &[("back", back)] }.show(context))
            }
            (Action { path: format!("{path}/drop"), label: "Remove the dead letter", about: id, command: format!("mozart dead drop {id}"), fields: &[("back", back)] }.show(context))
        }
    }
}

fn path_of(agent: &common::AgentName, sender: &SenderName, id: &common::MessageId) -> String {
    format!("/messages/{agent}/{sender}/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, body: EventBody) -> Event {
        Event { seq, at: Timestamp::from_millis(seq), body }
    }

    #[test]
    fn attempts_are_told_apart_by_their_events() {
        let text = || EventBody::Text { text: "x".to_owned() };
        let history = [
            event(1, EventBody::Delivered { incarnation: 4 }),
            event(2, EventBody::Acknowledged),
            event(3, text()),
            event(4, EventBody::Error { error: "exit code 1".to_owned() }),
            event(1_000_001, EventBody::Delivered { incarnation: 5 }),
            event(1_000_002, text()),
            event(1_000_003, text()),
            event(1_000_004, EventBody::Worker { event: serde_json::json!({"type": "tool"}) }),
        ];
        let all = attempts(&history);
        assert_eq!(all.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((all[0].incarnation, all[0].error.as_deref()), (Some(4), Some("exit code 1")));
        let at = Timestamp::from_millis;
        assert_eq!((all[1].pieces, all[1].others), (2, 1));
        assert_eq!(all[1].events, Some((at(1_000_002), at(1_000_004))));
        assert_eq!(all[1].acknowledged, None);
    }
}
