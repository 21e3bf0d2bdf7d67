//! A conversation with an agent, and the others that it has had.

use std::collections::BTreeSet;

use broker::{Attempt as _, Cursor};
use common::api::{ApiError, MessageRow};
use common::message::{MessageKey, Status};
use common::users::Scope;
use common::{AgentName, ConversationId, MessageId};
use maud::{Markup, html};
use mozart_client::journal::{self, Wanted};
use mozart_client::stream::{Item, Stream};
use uuid::Uuid;

use super::conversations::{self, Head};
use super::parts::{self, Action, Context, Room, of_message, state, still};
use crate::caller::Caller;

/// Messages of a conversation that are shown at once.
const PAGE: usize = 30;
/// The bytes of their texts, at most.
const ROOM: usize = 256 << 10;
/// Messages whose conversations are listed beside it, and how many of these.
const BESIDE: (usize, usize) = (50, 20);
/// Messages of which one may be the caller's, whose conversation is shown first.
const NEWEST: (usize, usize) = (50, 50);

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
        let mut open = Self { key: key(row), seq: 0, text: String::new() };
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
        let id = answer_id(&self.key.message_id);
        html! {
            // It is read out once it is whole, and not word by word.
            @if context.is_live { div id=(id) class="text answer" aria-live="off" data-keep {} }
            @else { div id=(id) class="text answer" aria-live="off" data-seq=(self.seq) { (common::words::shown(&self.text)) } }
        }
    }
}

/// The same while it is written and when it is whole: what is selected in it stays.
fn answer_id(id: &MessageId) -> String {
    format!("answer-{id}")
}

/// An answer that is whole.
pub(super) fn answer(id: &MessageId, response: &str) -> Markup {
    html! { div id=(answer_id(id)) class="text answer" aria-live="off" { (common::words::shown(response)) } }
}

fn key(row: &MessageRow) -> MessageKey {
    let MessageRow { agent, sender, message_id, .. } = row;
    let (agent, sender, message_id) = (agent.clone(), sender.clone(), message_id.clone());
    MessageKey { agent, sender, message_id }
}

/// The path of the conversation that is shown where none is named: the caller's own newest one, or else the newest one; a new one where
/// there is none.
pub(super) async fn entry(caller: &Caller, agent: &AgentName) -> Result<String, ApiError> {
    let (heads, _) = conversations::heads(caller, agent, None, NEWEST).await?;
    let own = heads.iter().find(|head| head.sender == *caller.name());
    Ok(match own.or(heads.first()) {
        Some(head) => parts::conversation_path(agent, &head.conversation),
        None => parts::new_conversation_path(agent),
    })
}

/// The message that began a conversation without naming one: it is listed as one of its own.
async fn first(
    caller: &Caller,
    agent: &AgentName,
    conversation: &ConversationId,
    rows: &[MessageRow],
) -> Result<Option<MessageRow>, ApiError> {
    /// Of its senders, as many may have begun it.
    const SENDERS: usize = 4;
    let Ok(message_id) = MessageId::new(conversation.as_str()) else { return Ok(None) };
    if rows.iter().any(|row| row.message_id == message_id) {
        return Ok(None);
    }
    let broker = &caller.client.broker;
    let what = || format!("cannot look up message {message_id}");
    let senders: BTreeSet<_> = rows.iter().map(|row| &row.sender).collect();
    let mut found = None;
    for sender in senders.into_iter().take(SENDERS) {
        let (agent, sender, message_id) = (agent.clone(), sender.clone(), message_id.clone());
        found =
            broker.message_of(&MessageKey { agent, sender, message_id }).await.attempt(what())?;
        if found.is_some() {
            break;
        }
    }
    if rows.is_empty() {
        let all = broker.find(&message_id).await.attempt(what())?;
        found = all.into_iter().find(|found| found.value.agent == *agent);
    }
    let Some(found) = found.filter(|found| found.value.conversation_id == *conversation) else {
        return Ok(None);
    };
    let final_ = broker.outcome_of(&found.value.key()).await.attempt(what())?;
    let final_ = final_.map(|final_| final_.value);
    journal::listed_row(broker, found.value, final_).await.map(Some)
}

/// A message, with as much of its texts as has room.
#[derive(Debug)]
struct Turn {
    row: MessageRow,
    /// The bytes of the message that are left out, and those of the answer.
    more: (usize, usize),
}

/// The messages in their order; where there is no room for all, the newest ones have more of it.
fn fitting(rows: Vec<MessageRow>, room: usize) -> Vec<Turn> {
    let mut room = Room::new(room);
    let turns = rows.into_iter().rev().map(|mut row| {
        let answer = row.response.take().map(|response| room.take(response));
        let message = room.take(std::mem::take(&mut row.message));
        let more = (message.more, answer.as_ref().map_or(0, |answer| answer.more));
        row.message = message.text;
        row.response = answer.map(|answer| answer.text);
        Turn { row, more }
    });
    let mut turns: Vec<Turn> = turns.collect();
    turns.reverse();
    turns
}

#[derive(Debug)]
pub(super) struct Chat {
    /// None: it is to be begun.
    conversation: Option<ConversationId>,
    turns: Vec<Turn>,
    older: Option<Cursor>,
    others: Vec<Head>,
    open: Option<Open>,
}

impl Chat {
    pub(super) async fn load(
        caller: &Caller,
        agent: &AgentName,
        conversation: Option<&ConversationId>,
        before: Option<&Cursor>,
        is_live: bool,
    ) -> Result<Self, ApiError> {
        let messages = async {
            let Some(conversation) = conversation else { return Ok((Vec::new(), None)) };
            let wanted = Wanted {
                agent: Some(agent.clone()),
                conversation: Some(conversation.clone()),
                before: before.cloned(),
                limit: PAGE,
                ..Wanted::default()
            };
            let page = journal::list(&caller.client.broker, &wanted).await?;
            let (mut rows, older) = (page.rows, page.older);
            if older.is_none()
                && let Some(first) = first(caller, agent, conversation, &rows).await?
            {
                rows.insert(0, first);
            }
            Ok::<_, ApiError>((rows, older))
        };
        let others = conversations::heads(caller, agent, None, BESIDE);
        let ((rows, older), (others, _)) = tokio::try_join!(messages, others)?;
        // One turn at a time: the others wait for it.
        let open = match rows.iter().find(|row| !row.status.is_final()) {
            Some(row) => Some(Open::load(caller, row, is_live).await?),
            None => None,
        };
        let turns = fitting(rows, ROOM);
        Ok(Self { conversation: conversation.cloned(), turns, older, others, open })
    }

    pub(super) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    pub(super) fn main(&self, context: &Context<'_>, agent: &AgentName) -> Markup {
        html! {
            div id="chat" class="chat" {
                section id="conversation" aria-label="Conversation" {
                    @if let (Some(older), Some(conversation)) = (&self.older, &self.conversation) {
                        p id="older" { a href={ (parts::conversation_path(agent, conversation)) "&before=" (older) } { "Older messages" } }
                    }
                    div id="log" class="log" role="log" aria-label="Messages" aria-relevant="additions" tabindex="0" {
                        @if self.turns.is_empty() { p id="none" { "No messages yet." } }
                        @for turn in &self.turns { (self.turn(context, turn)) }
                    }
                    @if context.may(Scope::Send) { (self.form(context, agent)) }
                    @else { p id="send" { "This token cannot send messages: its scope is read." } }
                }
                nav id="beside" aria-label="Conversations" {
                    h3 id="beside-title" { "Conversations" }
                    p id="begin" { a href=(parts::new_conversation_path(agent)) { "New conversation" } }
                    ul id="conversations" {
                        @for head in &self.others {
                            (head.show(agent, self.conversation.as_ref() == Some(&head.conversation)))
                        }
                    }
                    p id="beside-all" { a href={ (parts::agent_path(agent)) "/conversations" } { "All conversations" } }
                    (parts::as_command("beside-command", &format!("mozart conversations {agent}")))
                }
            }
        }
    }

    fn turn(&self, context: &Context<'_>, Turn { row, more }: &Turn) -> Markup {
        let (sign, word) = of_message(row.status);
        let key = key(row);
        let (id, path) = (&row.message_id, parts::message_path(&key));
        let open = self.open.as_ref().filter(|open| open.key == key);
        html! {
            article id={ "message-" (id) } data-agent=(row.agent) aria-busy=[open.map(|_| "true")] {
                h3 { (row.sender) " " span class="small" { (still(row.created_at)) } }
                (parts::text(&row.message))
                (parts::rest(more.0, &format!("{path}/message"), "message"))
                h3 { (row.agent) }
                @if let Some(open) = open { (open.show(context)) }
                @if let Some(response) = &row.response { (answer(id, response)) }
                (parts::rest(more.1, &format!("{path}/answer"), "answer"))
                @if let Some(reason) = &row.reason { p id={ "reason-" (id) } class="trouble" { (common::words::shown(reason)) } }
                p id={ "status-" (id) } class="small" {
                    (state(sign, word))
                    @if row.status == Status::Pending { ": it waits for its turn" }
                    @if row.attempts > 1 { ", attempt " (row.attempts) }
                    " " a href=(path) { "details" span class="hidden" { " of message " (id) } }
                }
                @if !row.status.is_final() && context.may_cancel(&row.sender) {
                    (Action {
                        path: format!("{path}/cancel"),
                        label: "Cancel",
                        about: "this message",
                        command: format!("mozart cancel {id}"),
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
                button id="send-button" type="submit" { "Send" }
                " " (parts::command(&format!("mozart chat {agent} --conversation {conversation} TEXT")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::message::Kind;
    use common::{SenderName, Timestamp};

    fn row(id: &str, message: String, response: String) -> MessageRow {
        MessageRow {
            message_id: MessageId::new(id).expect("valid"),
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("ana").expect("valid"),
            conversation_id: ConversationId::new("c").expect("valid"),
            kind: Kind::Chat,
            message,
            status: Status::Completed,
            attempts: 1,
            response: Some(response),
            reason: None,
            created_at: Timestamp::from_millis(1),
            updated_at: Timestamp::from_millis(2),
            cause: None,
            redrive_of: None,
            scheduled_for: None,
            deliver_at: None,
        }
    }

    #[test]
    fn the_newest_messages_have_room_first() {
        let long = || "x".repeat(20_000);
        let rows = vec![row("m1", "hi".to_owned(), long()), row("m2", long(), long())];
        let turns = fitting(rows, 30_000);
        let ids: Vec<_> = turns.iter().map(|turn| turn.row.message_id.as_str()).collect();
        assert_eq!(ids, ["m1", "m2"]);
        assert_eq!((turns[0].more, turns[1].more), ((0, 19_488), (10_000, 0)));
        assert_eq!(turns[0].row.message, "hi");
    }
}
