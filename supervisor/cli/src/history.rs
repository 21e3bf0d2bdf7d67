//! `mozart history` and `mozart conversations`: conversations as people read them.

use std::collections::HashSet;

use broker::{Cursor, ListQuery, Listed};
use clap::Args;
use common::api::ApiError;
use common::message::Outcome;
use common::{AgentName, ConversationId, ConversationTag, Timestamp};
use serde::Serialize;

use super::client::{Client, now};
use super::page::{self, limit};
use super::{output, table};
use crate::args::Global;
use broker::Attempt as _;

/// How many messages are read for an agent's conversations.
const LOOKED: usize = 20_000;

/// `mozart history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The agent
    agent: AgentName,
    /// Only this conversation
    #[arg(long, value_name = "ID")]
    conversation: Option<ConversationId>,
    /// Show at most the last N turns
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = limit)]
    limit: usize,
    /// Only turns before a cursor that an earlier call printed
    #[arg(long, value_name = "CURSOR")]
    before: Option<Cursor>,
}

/// `mozart conversations`.
#[derive(Debug, Args)]
pub struct ConversationsArgs {
    /// The agent
    agent: AgentName,
    /// Show at most the last N conversations
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = limit)]
    limit: usize,
}

/// A turn, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Turn<'a> {
    message_id: &'a str,
    conversation_id: &'a str,
    sender: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    at: Timestamp,
}

impl<'a> Turn<'a> {
    fn new(listed: &'a Listed) -> Self {
        let request = &listed.request.value;
        let final_ = listed.final_.as_ref().map(|stored| &stored.value);
        Self {
            message_id: request.message_id.as_str(),
            conversation_id: request.conversation_id.as_str(),
            sender: request.sender.as_str(),
            message: &request.message,
            response: final_.and_then(|final_| final_.response.as_deref()),
            status: final_.map(|final_| final_.status),
            reason: final_.and_then(|final_| final_.reason.as_deref()),
            at: request.created_at,
        }
    }
}

/// Shows the last turns, oldest first.
///
/// # Errors
/// 3 when there is no such agent. When the broker does not answer.
pub(crate) async fn run(global: &Global, args: &HistoryArgs) -> Result<u8, ApiError> {
    const WHAT: &str = "cannot read the history";
    let client = Client::to_read(global).await?;
    let query = ListQuery {
        agent: Some(args.agent.clone()),
        conversation: args.conversation.as_ref().map(ConversationTag::of_conversation),
        sender: None,
        after: args.before.clone(),
        about: args.limit,
        hot: false,
    };
    let mut listing = client.broker.list(&query).await.attempt(WHAT)?;
    let mut turns = Vec::new();
    while turns.len() < args.limit
        && let Some(listed) = listing.next().await.attempt(WHAT)?
    {
        let conversation = &listed.request.value.conversation_id;
        if args.conversation.as_ref().is_none_or(|wanted| wanted == conversation) {
            turns.push(listed);
        }
    }
    turns.reverse();
    // What was imported was stored at once and side by side: its own times tell the order.
    turns.sort_by_key(|listed| listed.request.value.created_at);
    if turns.is_empty() {
        mozart_client::agents::require(&client, &args.agent).await?;
        output::note(match &args.conversation {
            Some(conversation) => format!("there are no messages in conversation {conversation}"),
            None => format!("there are no messages to {}", args.agent),
        });
    }
    if client.json() {
        output::json(&turns.iter().map(Turn::new).collect::<Vec<_>>())?;
    } else {
        for listed in &turns {
            output::line(render(&args.agent, listed, args.conversation.is_none()))?;
        }
    }
    if turns.len() == args.limit {
        page::older(listing.place());
    }
    Ok(0)
}

/// A turn as a piece of a chat.
fn render(agent: &AgentName, listed: &Listed, name_conversation: bool) -> String {
    let turn = Turn::new(listed);
    let conversation =
        if name_conversation { format!("  [{}]", turn.conversation_id) } else { String::new() };
    let answer = match (turn.status, turn.response) {
        (_, Some(response)) => response.to_owned(),
        (Some(_), None) => format!("({})", turn.reason.unwrap_or("no answer")),
        (None, None) => "(no answer yet)".to_owned(),
    };
    let Turn { at, sender, message, .. } = turn;
    format!("{at}{conversation}\n{sender}: {message}\n{agent}: {answer}\n")
}

/// A conversation, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Conversation {
    conversation_id: ConversationId,
    turns: u64,
    last_at: Timestamp,
    last_message: String,
}

/// Lists conversations, those of the last messages first.
///
/// # Errors
/// When the broker does not answer.
pub(crate) async fn conversations(
    global: &Global,
    args: &ConversationsArgs,
) -> Result<u8, ApiError> {
    const WHAT: &str = "cannot read the history";
    let client = Client::to_read(global).await?;
    let sizes = client.broker.conversation_sizes(&args.agent).await.attempt(WHAT)?;
    let query = ListQuery { agent: Some(args.agent.clone()), about: 100, ..ListQuery::default() };
    let mut listing = client.broker.list(&query).await.attempt(WHAT)?;
    let (mut seen, mut rows, mut looked) = (HashSet::new(), Vec::new(), 0);
    while rows.len() < args.limit
        && looked < LOOKED
        && let Some(listed) = listing.next().await.attempt(WHAT)?
    {
        looked += 1;
        let request = listed.request.value;
        if seen.insert(request.conversation_id.clone()) {
            let tag = request.tag();
            // A message that is a conversation of its own has one turn.
            let turns = match tag == ConversationTag::none() {
                true => 1,
                false => sizes.get(&tag).copied().unwrap_or(1),
            };
            rows.push(Conversation {
                conversation_id: request.conversation_id,
                turns,
                last_at: request.created_at,
                last_message: request.message,
            });
        }
    }
    if rows.is_empty() {
        mozart_client::agents::require(&client, &args.agent).await?;
    }
    if client.json() {
        output::json(&rows)?;
        return Ok(0);
    }
    let now = now();
    let cells = rows.iter().map(|row| {
        vec![
            row.conversation_id.to_string(),
            row.turns.to_string(),
            table::age(Some(row.last_at), now),
            table::one_line(&row.last_message, 60),
        ]
    });
    output::line(table::table(&["CONVERSATION", "TURNS", "LAST", "MESSAGE"], cells))?;
    Ok(0)
}
