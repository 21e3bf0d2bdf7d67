//! What the screens are put together from. All text passes through maud, which escapes it: none of it becomes markup.

use common::api::{AgentRow, AgentState};
use common::message::{MessageKey, Status};
use common::users::Scope;
use common::{AgentName, ConversationId, SenderName, Timestamp, words};
use maud::{Markup, html};

use super::Visit;

/// How a screen is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) visit: &'a Visit,
    /// Where the screen is.
    pub(super) path: &'a str,
    /// As the stream sends it: without what is kept in the browser, such as what is being typed.
    pub(super) is_live: bool,
}

impl Context<'_> {
    pub(super) fn may(&self, scope: Scope) -> bool {
        self.visit.caller.may(scope).is_ok()
    }

    /// Whether the reader may cancel a message of this sender.
    pub(super) fn may_cancel(&self, sender: &SenderName) -> bool {
        let is_own = self.visit.caller.name() == sender;
        self.may(if is_own { Scope::Send } else { Scope::Operate })
    }
}

pub(super) fn agent_path(agent: &AgentName) -> String {
    format!("/agents/{agent}")
}

pub(super) fn message_path(key: &MessageKey) -> String {
    format!("/messages/{}/{}/{}", key.agent, key.sender, key.message_id)
}

/// Of its characters, `@` and `:` may stand in a query.
pub(super) fn conversation_path(agent: &AgentName, conversation: &ConversationId) -> String {
    format!("/agents/{agent}?conversation={conversation}")
}

pub(super) fn new_conversation_path(agent: &AgentName) -> String {
    format!("/agents/{agent}?conversation=")
}

/// A sign beside a word: never a colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Good,
    Busy,
    Bad,
    Off,
}

impl Sign {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "state good",
            Self::Busy => "state busy",
            Self::Bad => "state bad",
            Self::Off => "state off",
        }
    }

    fn path(self) -> &'static str {
        match self {
            // A tick, an hourglass, a triangle with a mark, a bar.
            Self::Good => {
                "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM7 11.4 3.9 8.3l1.2-1.2L7 9l4-4 1.2 1.2z"
            }
            Self::Busy => "M3 1h10v2l-3.5 5 3.5 5v2H3v-2l3.5-5L3 3zM5 3l3 4.2L11 3z",
            Self::Bad => "M8 1 0.5 15h15zM7.2 6h1.6v4.6H7.2zM7.2 11.8h1.6v1.6H7.2z",
            Self::Off => "M2 2h12v12H2zM4 4v8h8V4z",
        }
    }
}

/// A word with its sign.
pub(super) fn state(sign: Sign, word: &str) -> Markup {
    html! {
        span class=(sign.class()) {
            svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false" {
                path fill-rule="evenodd" d=(sign.path()) {}
            }
            " " (word)
        }
    }
}

/// What an agent does, in a sign and a word.
pub(super) fn of_agent(row: &AgentRow) -> (Sign, &'static str) {
    match row.state {
        _ if row.quarantined => (Sign::Bad, "quarantined"),
        AgentState::Running if row.inflight > 0 => (Sign::Busy, "answering"),
        AgentState::Running => (Sign::Good, "idle"),
        AgentState::Starting => (Sign::Busy, "starting"),
        AgentState::Error => (Sign::Bad, "error"),
        AgentState::Stopping => (Sign::Busy, "stopping"),
        AgentState::Stopped => (Sign::Off, "stopped"),
    }
}

/// Where a message stands, in a sign and a word.
pub(super) fn of_message(status: Status) -> (Sign, &'static str) {
    let sign = match status {
        Status::Pending | Status::Delivered | Status::Acknowledged => Sign::Busy,
        Status::Completed => Sign::Good,
        Status::Failed => Sign::Bad,
        Status::Cancelled | Status::Expired => Sign::Off,
    };
    (sign, status.as_str())
}

/// A time: as it is without JavaScript, and how long ago it is with it.
pub(super) fn time(at: Timestamp) -> Markup {
    let exact = at.to_string();
    let text = exact.get(..19).unwrap_or(&exact).replace('T', " ");
    html! { time datetime=(exact) title=(exact) data-ago { (text) " UTC" } }
}

/// The same where readers hear of every change: it stays as it is.
pub(super) fn still(at: Timestamp) -> Markup {
    let exact = at.to_string();
    let text = exact.get(..19).unwrap_or(&exact).replace('T', " ");
    html! { time datetime=(exact) title=(exact) { (text) " UTC" } }
}

/// A time of the day, to the millisecond.
pub(super) fn moment(at: Timestamp) -> Markup {
    let exact = at.to_string();
    let text = exact.get(11..23).unwrap_or(&exact).to_owned();
    html! { time datetime=(exact) title=(exact) { (text) } }
}

pub(super) fn command(text: &str) -> Markup {
    html! { code class="command" { (text) } }
}

/// A form with one button; the command that does the same is beside it.
pub(super) struct Action<'a> {
    pub(super) path: String,
    pub(super) label: &'a str,
    /// What it is about, for those who do not see where it stands.
    pub(super) about: &'a str,
    pub(super) command: String,
    pub(super) fields: &'a [(&'a str, &'a str)],
}

impl Action<'_> {
    /// The same form has the same name whenever the screen is read: the focus stays on its button.
    fn id(&self) -> String {
        let named = self.fields.iter().filter(|(name, _)| *name != "back");
        let fields: String = named.map(|(_, value)| format!("-{value}")).collect();
        format!("do{}{fields}", self.path.replace('/', "-"))
    }

    pub(super) fn show(&self, context: &Context<'_>) -> Markup {
        let id = self.id();
        let Self { path, label, about, command: line, fields } = self;
        html! {
            form id=(id) class="action" method="post" action=(path) {
                input type="hidden" name="form" value=(context.visit.form);
                input type="hidden" name="back" value=(context.path);
                @for (name, value) in *fields { input type="hidden" name=(name) value=(value); }
                button id={ (id) "-button" } type="submit" { (label) span class="hidden" { " " (about) } }
                (command(line))
            }
        }
    }
}

/// What could not be read, where the rest can be shown.
pub(super) fn trouble(id: &str, error: &common::api::ApiError) -> Markup {
    html! {
        p id=(id) class="trouble" {
            strong { (error.what) }
            @if !error.cause.is_empty() { ": " (error.cause) }
            @if !error.try_.is_empty() { ". Try: " (error.try_) }
        }
    }
}

/// The last line of a block: how the same is had without the page.
pub(super) fn as_command(id: &str, text: &str) -> Markup {
    html! { p id=(id) { "As a command: " (command(text)) } }
}

/// Text of others, as it is.
pub(super) fn text(text: &str) -> Markup {
    html! { div class="text" { (words::shown(text)) } }
}

/// How much text a screen has room for, in bytes: what it costs to send does not depend on how long the answers are.
#[derive(Debug)]
pub(super) struct Room(usize);

/// A text, or its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) text: String,
    /// How many bytes are left out.
    pub(super) more: usize,
}

impl Room {
    /// What one text gets, at most.
    const MOST: usize = 64 << 10;
    /// What one text gets, however many came before it.
    const LEAST: usize = 512;

    pub(super) fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// The beginning of a text that has room.
    pub(super) fn take(&mut self, mut text: String) -> Cut {
        let whole = text.len();
        let end = text.floor_char_boundary(self.0.clamp(Self::LEAST, Self::MOST));
        text.truncate(end);
        self.0 = self.0.saturating_sub(text.len());
        Cut { more: whole - text.len(), text }
    }
}

/// Where the rest of a text is; nothing if there is none.
pub(super) fn rest(more: usize, path: &str, of: &str) -> Markup {
    html! {
        @if more > 0 {
            p class="small" { a href=(path) { (words::bytes(more as u64)) " more: the whole " (of) } }
        }
    }
}

pub(super) fn short(text: &str, most: usize) -> String {
    words::one_line(&words::shown(text), most)
}

/// A JSON value as people read it.
pub(super) fn value(value: &serde_json::Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => serde_json::to_string_pretty(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_share_the_room_of_a_screen_and_each_is_seen() {
        let mut room = Room::new(100 << 10);
        let long = || "ä".repeat(50 << 10);
        let first = room.take(long());
        assert_eq!((first.text.len(), first.more), (64 << 10, 36 << 10));
        assert_eq!(
            room.take("all of it".to_owned()),
            Cut { text: "all of it".to_owned(), more: 0 }
        );
        let rest = room.take(long());
        assert!(rest.text.len() < 36 << 10 && rest.text.chars().all(|c| c == 'ä'), "whole letters");
        assert_eq!(room.take(long()).text.len(), 512, "the last ones, too");
        let html = rest_of(3 << 10);
        assert!(html.contains("3 KiB more"), "{html}");
        assert_eq!(rest_of(0), "");
        fn rest_of(more: usize) -> String {
            super::rest(more, "/x", "answer").into_string()
        }
    }

    #[test]
    fn a_form_is_named_after_what_it_does() {
        let id = |fields| {
            let (label, about, command) = ("Go", "it", String::new());
            Action { path: "/agents/a/rollback".to_owned(), label, about, command, fields }.id()
        };
        assert_eq!(id(&[("generation", "3"), ("back", "/x")]), "do-agents-a-rollback-3");
        assert_eq!(id(&[]), "do-agents-a-rollback");
    }
}
