//! One message: its lanes from the sender to the final state, its attempts, and the questions that it led to.

use broker::{Attempt as _, Found};
use common::api::{MessageDetail, MessageRow};
use common::event::{Event, EventBody, attempt_of};
use common::message::{Cause, DeadLetter, Envelope, MessageKey};
use common::users::Scope;
use common::{SenderName, Timestamp, words};
use maud::{Markup, html};
use mozart_client::describe;
use mozart_client::journal;
use mozart_client::reference::MessageRef;

use super::chat::Open;
use super::parts::{self, Action, Context, moment, of_message, state, time};
use crate::caller::Caller;
use crate::problem::Problem;

/// Events that are listed in full.
const EVENTS: usize = 200;
/// The width of the lanes, in their own units.
const WIDTH: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Message {
    key: MessageKey,
    detail: MessageDetail,
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
    /// Pieces of text, and the times of the first and the last.
    pieces: Option<(usize, Timestamp, Timestamp)>,
    others: usize,
    error: Option<String>,
    last: Timestamp,
}

fn attempts(history: &[Event]) -> Vec<Attempt> {
    let mut all: Vec<Attempt> = Vec::new();
    for event in history {
        let number = attempt_of(event.seq);
        if all.last().is_none_or(|last| last.number != number) {
            let (incarnation, delivered, acknowledged) = (None, None, None);
            let (pieces, others, error, last) = (None, 0, None, event.at);
            all.push(Attempt {
                number,
                incarnation,
                delivered,
                acknowledged,
                pieces,
                others,
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
                let (count, first, _) = attempt.pieces.unwrap_or((0, event.at, event.at));
                attempt.pieces = Some((count + 1, first, event.at));
            }
            EventBody::Worker { .. } => attempt.others += 1,
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
        let Found { request, .. } = reference.resolve_whole(broker).await?;
        let (stored, envelope) = (request.at, request.value);
        let what = || format!("cannot read message {}", key.message_id);
        let since = envelope.created_at.min(stored);
        let detail = async { journal::detail(broker, &reference).await };
        let questions = async { broker.questions(key, since).await.attempt(what()) };
        let letter = async { broker.dead_letter(key).await.attempt(what()) };
        let (detail, questions, letter) = tokio::try_join!(detail, questions, letter)?;
        let questions: Vec<Envelope> = questions.into_iter().map(|stored| stored.value).collect();
        let questions = questions.into_iter().filter(|one| caller.sees(&one.agent)).collect();
        let open = match detail.row.status.is_final() {
            false => Some(Open::load(caller, &detail.row, is_live).await?),
            true => None,
        };
        Ok(Self {
            key: key.clone(),
            detail,
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

    pub(super) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    pub(super) fn main(&self, context: &Context<'_>) -> Markup {
        let MessageRow { agent, sender, message_id, status, conversation_id, .. } =
            &self.detail.row;
        let (sign, word) = of_message(*status);
        html! {
            h1 { "Message to " a href=(parts::agent_path(agent)) { (agent) } }
            dl class="facts" {
                div { dt { "Status" } dd id="status" { (state(sign, word)) } }
                div { dt { "From" } dd { (sender) } }
                div { dt { "Id" } dd { (message_id) } }
                div { dt { "Conversation" } dd { a href=(parts::conversation_path(agent, conversation_id)) { (conversation_id) } } }
                div { dt { "Attempts" } dd { (self.detail.row.attempts) } }
                @if let Some(of) = &self.detail.row.redrive_of { div { dt { "Repeats" } dd { a href={ "/messages/" (of) } { (of) } } } }
            }
            @if let Some(reason) = &self.detail.row.reason { p class="trouble" { (words::shown(reason)) } }
            (self.actions(context))
            h2 { "Lanes" }
            (self.lanes())
            h2 { "Text" }
            h3 { (sender) }
            (parts::text(&self.detail.row.message))
            h3 { (agent) }
            @if let Some(open) = &self.open { (open.show(context)) }
            @else if let Some(response) = &self.detail.row.response { div class="text answer" { (words::shown(response)) } }
            @else { p { "There is no answer." } }
            h2 { "Questions between agents" }
            (self.tree())
            h2 { "Events" }
            details {
                summary { (words::count(self.detail.history.len() as u64, "event", "events")) }
                ol class="events" tabindex="0" {
                    @for event in self.detail.history.iter().take(EVENTS) { li { (words::shown(&describe::event(event))) } }
                }
                @if self.detail.history.len() > EVENTS { p { "The others: " (parts::command(&format!("mozart journal show {message_id}"))) } }
            }
            p { "As a command: " (parts::command(&format!("mozart explain {message_id}"))) }
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
                let incarnation = attempt.incarnation.unwrap_or_default();
                let end = attempt.acknowledged.unwrap_or(at);
                lanes.push(Lane {
                    end,
                    ..Lane::point(
                        &format!("Delivered{nth}"),
                        at,
                        format!("to incarnation {incarnation}"),
                    )
                });
            }
            if let Some((count, first, last)) = attempt.pieces {
                let others = match attempt.others {
                    0 => String::new(),
                    others => {
                        format!(", {}", words::count(others as u64, "other event", "other events"))
                    }
                };
                let text = format!(
                    "{}{others}",
                    words::count(count as u64, "piece of text", "pieces of text")
                );
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
                            rect class="bar" x=(x(lane.at)) y="1" width=((x(lane.end) - x(lane.at)).max(8)) height="7" {}
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
                ul { @for one in &self.questions {
                    li { a href=(parts::message_path(&one.key())) { (parts::short(&one.message, 80)) } " to " (one.agent) " " (time(one.created_at)) }
                } }
            }
        };
        html! {
            @if self.path.is_empty() && self.questions.is_empty() && self.detail.row.cause.is_none() { p { "It led to none, and came from none." } }
            @else { ul class="tree" { (nested(&self.path, &this)) } }
        }
    }
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
        ];
        let all = attempts(&history);
        assert_eq!(all.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((all[0].incarnation, all[0].error.as_deref()), (Some(4), Some("exit code 1")));
        let at = Timestamp::from_millis;
        assert_eq!(all[1].pieces, Some((2, at(1_000_002), at(1_000_003))));
        assert_eq!(all[1].acknowledged, None);
    }
}
