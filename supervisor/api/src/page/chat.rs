//! A conversation with an agent, and the others that it has had.

use std::collections::BTreeSet;

use broker::Attempt as _;
use common::api::{ApiError, MessageRow};
use common::message::{MessageKey, Status};
use common::users::Scope;
use common::{AgentName, ConversationId, MessageId, failure};
use maud::{Markup, html};
use mozart_client::journal::{self, Wanted};
use mozart_client::reference::MessageRef;
use mozart_client::stream::{Item, Stream};
use uuid::Uuid;

use super::parts::{self, Action, Context, of_message, state, time};
use crate::caller::Caller;

/// Messages of a conversation that are shown at once.
const PAGE: usize = 30;
/// Messages whose conversations are listed.
const LOOKED: usize = 100;
/// Conversations that are listed.
const LISTED: usize = 20;

/// A message whose answer is being written, and what there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) key: MessageKey,
    /// Up to which event.
    pub(super) seq: u64,
    pub(super) text: String,
}

impl Open {
    /// With what there is of its answer; for a stream of events, which has the pieces from elsewhere, without.
    pub(super) async fn load(
        caller: &Caller,
        row: &MessageRow,
        is_live: bool,
    ) -> Result<Self, ApiError> {
        let MessageRow { agent, sender, message_id, .. } = row;
        let (agent, sender, message_id) = (agent.clone(), sender.clone(), message_id.clone());
        let mut open =
            Self { key: MessageKey { agent, sender, message_id }, seq: 0, text: String::new() };
        if is_live {
            return Ok(open);
        }
        let (mut stream, mut items) = (Stream::new(true, 0), Vec::new());
        let mut stored = caller.client.broker.read_events(&open.key);
        let what = format!("cannot read the events of {}", open.key.message_id);
        while let Some(batch) = stored.next().await.attempt(&what)? {
            let _next = stream.stored_part(batch, &mut items);
            open.take(&mut items);
        }
        open.seq = stream.last();
        Ok(open)
    }

    fn take(&mut self, items: &mut Vec<Item>) {
        for item in items.drain(..) {
            match item {
                Item::Text { text, .. } => self.text.push_str(&text),
                Item::Reset { .. } => self.text.clear(),
                Item::Event { .. } | Item::Error { .. } | Item::Done { .. } => {}
            }
        }
    }

    /// Where its text appears. The stream of events leaves it alone: there, the pieces are sent.
    pub(super) fn show(&self, context: &Context<'_>) -> Markup {
        let id = format!("answer-{}", self.key.message_id);
        html! {
            @if context.is_live { div id=(id) data-keep {} }
            @else { div id=(id) class="text answer" data-seq=(self.seq) { (common::words::shown(&self.text)) } }
        }
    }
}

/// The message that began a conversation without naming one: it is listed as one of its own.
async fn first(
    caller: &Caller,
    agent: &AgentName,
    conversation: &ConversationId,
    newest: &[MessageRow],
    rows: &[MessageRow],
) -> Result<Option<MessageRow>, ApiError> {
    let is_it = |row: &&MessageRow| row.message_id.as_str() == conversation.as_str();
    if rows.iter().any(|row| is_it(&row)) {
        return Ok(None);
    }
    if let Some(row) = newest.iter().find(is_it) {
        return Ok(Some(row.clone()));
    }
    let Some(message_id) = MessageId::new(conversation.as_str()).ok().filter(|_| rows.is_empty())
    else {
        return Ok(None);
    };
    let message = MessageRef { agent: Some(agent.clone()), sender: None, message_id };
    match journal::detail(&caller.client.broker, &message).await {
        Ok(detail) => Ok(Some(detail.row)),
        // A conversation that is yet to begin.
        Err(error) if error.code == failure::NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Debug)]
pub(super) struct Chat {
    conversation: Option<ConversationId>,
    rows: Vec<MessageRow>,
    older: Option<String>,
    others: Vec<MessageRow>,
    open: Option<Open>,
}

impl Chat {
    pub(super) async fn load(
        caller: &Caller,
        agent: &AgentName,
        asked: Option<&ConversationId>,
        is_new: bool,
        before: Option<&str>,
        is_live: bool,
    ) -> Result<Self, ApiError> {
        let broker = &caller.client.broker;
        let wanted = Wanted { agent: Some(agent.clone()), limit: LOOKED, ..Wanted::default() };
        let newest = journal::list(broker, &wanted).await?.rows;
        let mut seen = BTreeSet::new();
        let others = newest.iter().rev().filter(|row| seen.insert(row.conversation_id.clone()));
        let others: Vec<MessageRow> = others.take(LISTED).cloned().collect();
        let last = others.iter().find(|row| row.sender == *caller.name()).or(others.first());
        let conversation =
            asked.or(last.filter(|_| !is_new).map(|row| &row.conversation_id)).cloned();
        let (mut rows, mut older) = (Vec::new(), None);
        if let Some(conversation) = &conversation {
            let before = before.and_then(|before| before.parse().ok());
            let of = Some(conversation.clone());
            let wanted = Wanted { conversation: of, before, limit: PAGE, ..wanted };
            let page = journal::list(broker, &wanted).await?;
            (rows, older) = (page.rows, page.older.map(|older| older.to_string()));
            if older.is_none()
                && let Some(first) = first(caller, agent, conversation, &newest, &rows).await?
            {
                rows.insert(0, first);
            }
        }
        // One turn at a time: the others wait for it.
        let open = match rows.iter().find(|row| !row.status.is_final()) {
            Some(row) => Some(Open::load(caller, row, is_live).await?),
            None => None,
        };
        Ok(Self { conversation, rows, older, others, open })
    }

    pub(super) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    pub(super) fn main(&self, context: &Context<'_>, agent: &AgentName) -> Markup {
        html! {
            div class="chat" {
                section aria-label="Conversation" {
                    @if let (Some(older), Some(conversation)) = (&self.older, &self.conversation) {
                        p { a href={ (parts::conversation_path(agent, conversation)) "&before=" (older) } { "Older messages" } }
                    }
                    div id="log" class="log" role="log" aria-label="Messages" tabindex="0" {
                        @if self.rows.is_empty() { p { "No messages yet." } }
                        @for row in &self.rows { (self.turn(context, row)) }
                    }
                    @if context.may(Scope::Send) { (self.form(context, agent)) }
                    @else { p { "This token cannot send messages: its scope is read." } }
                }
                nav aria-label="Conversations" {
                    h3 { "Conversations" }
                    p { a href={ (parts::agent_path(agent)) "?conversation=" } { "New conversation" } }
                    ul id="conversations" {
                        @for row in &self.others {
                            @let is_here = self.conversation.as_ref() == Some(&row.conversation_id);
                            li {
                                a href=(parts::conversation_path(agent, &row.conversation_id)) aria-current=[is_here.then_some("true")] {
                                    (parts::short(&row.message, 60))
                                }
                                " " (row.sender) ", " (time(row.updated_at))
                            }
                        }
                    }
                    p { "As a command: " (parts::command(&format!("mozart conversations {agent}"))) }
                }
            }
        }
    }

    fn turn(&self, context: &Context<'_>, row: &MessageRow) -> Markup {
        let (sign, word) = of_message(row.status);
        let key = MessageKey {
            agent: row.agent.clone(),
            sender: row.sender.clone(),
            message_id: row.message_id.clone(),
        };
        let open = self.open.as_ref().filter(|open| open.key == key);
        html! {
            article id={ "message-" (row.message_id) } aria-busy=[open.map(|_| "true")] {
                h3 { (row.sender) " " span class="small" { (time(row.created_at)) } }
                (parts::text(&row.message))
                h3 { (row.agent) }
                @if let Some(open) = open { (open.show(context)) }
                @if let Some(response) = &row.response { div class="text answer" { (common::words::shown(response)) } }
                @if let Some(reason) = &row.reason { p class="trouble" { (common::words::shown(reason)) } }
                p class="small" {
                    (state(sign, word))
                    @if row.status == Status::Pending { ": it waits for its turn" }
                    @if row.attempts > 1 { ", attempt " (row.attempts) }
                    " " a href=(parts::message_path(&key)) { "details" span class="hidden" { " of message " (row.message_id) } }
                }
                @if !row.status.is_final() && context.may_cancel(&row.sender) {
                    (Action {
                        path: format!("{}/cancel", parts::message_path(&key)),
                        label: "Cancel",
                        about: "this message",
                        command: format!("mozart cancel {}", row.message_id),
                        fields: &[],
                    }.show(context))
                }
            }
        }
    }

    /// What is being typed, and the ids with which it is sent: however often, it is one message.
    fn form(&self, context: &Context<'_>, agent: &AgentName) -> Markup {
        if context.is_live {
            return html! { form id="send" data-keep {} };
        }
        let new = Uuid::now_v7().to_string();
        let conversation = self.conversation.as_ref().map_or(new.as_str(), |one| one.as_str());
        html! {
            form id="send" class="send" method="post" action={ (parts::agent_path(agent)) "/messages" } {
                input type="hidden" name="form" value=(context.visit.form);
                input type="hidden" name="conversation" value=(conversation);
                input type="hidden" name="message" value=(Uuid::now_v7());
                label for="text" { "Message to " (agent) }
                textarea id="text" name="text" rows="3" required aria-describedby="keys" {}
                p id="keys" class="small" { "Enter sends, Shift+Enter begins a new line." }
                button type="submit" { "Send" }
                " " (parts::command(&format!("mozart chat {agent} --conversation {conversation} TEXT")))
            }
        }
    }
}
