//! The conversations that an agent has had, those of the newest messages first, a page at a time.

use std::collections::BTreeSet;

use broker::{Attempt as _, Cursor, ListQuery};
use common::api::ApiError;
use common::{AgentName, ConversationId, SenderName, Timestamp};
use maud::{Markup, html};

use super::parts::{self, time};
use crate::caller::Caller;

/// Conversations of a page.
const PAGE: usize = 25;
/// Messages that are read for a page: a long conversation may have more.
const LOOKED: usize = 200;

/// A conversation by the newest of its messages that was met.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) conversation: ConversationId,
    pub(super) sender: SenderName,
    pub(super) message: String,
    pub(super) at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Conversations {
    heads: Vec<Head>,
    is_first: bool,
    /// Where older ones are.
    older: Option<Cursor>,
}

/// The conversations of an agent's messages before a place: of so many messages, and so many of them, at most.
pub(super) async fn heads(
    caller: &Caller,
    agent: &AgentName,
    before: Option<Cursor>,
    (looked, wanted): (usize, usize),
) -> Result<(Vec<Head>, Option<Cursor>), ApiError> {
    const WHAT: &str = "cannot read the journal";
    let (agent, after) = (Some(agent.clone()), before);
    let query = ListQuery { agent, after, about: wanted, ..ListQuery::default() };
    let mut listing = caller.client.broker.list(&query).await.attempt(WHAT)?;
    let (mut seen, mut heads, mut read) = (BTreeSet::new(), Vec::new(), 0);
    while heads.len() < wanted && read < looked {
        let Some(listed) = listing.next().await.attempt(WHAT)? else { return Ok((heads, None)) };
        read += 1;
        let request = listed.request.value;
        if seen.insert(request.conversation_id.clone()) {
            heads.push(Head {
                message: parts::short(&request.message, 80),
                conversation: request.conversation_id,
                sender: request.sender,
                at: request.created_at.min(listed.request.at),
            });
        }
    }
    Ok((heads, Some(listing.place())))
}

impl Head {
    pub(super) fn show(&self, agent: &AgentName, is_here: bool) -> Markup {
        html! {
            li id={ "conversation-" (self.conversation) } {
                a href=(parts::conversation_path(agent, &self.conversation)) aria-current=[is_here.then_some("true")] { (self.message) }
                " " (self.sender) ", " (time(self.at))
            }
        }
    }
}

impl Conversations {
    pub(super) async fn load(
        caller: &Caller,
        agent: &AgentName,
        before: Option<Cursor>,
    ) -> Result<Self, ApiError> {
        let is_first = before.is_none();
        let (heads, older) = heads(caller, agent, before, (LOOKED, PAGE)).await?;
        Ok(Self { heads, is_first, older })
    }

    pub(super) fn main(&self, agent: &AgentName) -> Markup {
        let path = format!("{}/conversations", parts::agent_path(agent));
        html! {
            @if self.heads.is_empty() {
                p id="none" { @if self.older.is_some() { "None on this page." } @else { "No more conversations." } }
            }
            ol id="conversations" class="conversations" { @for head in &self.heads { (head.show(agent, false)) } }
            p id="pages" {
                @if !self.is_first { a href=(path) { "The newest conversations" } " " }
                // A conversation that went on over several pages is on each of them.
                @if let Some(older) = &self.older { a href={ (path) "?before=" (older) } { "Older conversations" } }
            }
            (parts::as_command("command", &format!("mozart conversations {agent}")))
        }
    }
}
