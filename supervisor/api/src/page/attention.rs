//! What needs somebody: dead letters, agents that were given up, nodes that are lost.

use broker::Attempt as _;
use common::api::{AgentRow, ApiError, NodeRow, NodeState};
use common::message::DeadLetter;
use common::users::Scope;
use common::words::{self, count};
use maud::{Markup, html};

use super::message::letter_actions;
use super::parts::{self, Action, Context, Sign, of_agent, state, time};
use crate::caller::Caller;
use crate::problem::Problem;

/// Dead letters that are shown.
const LETTERS: u64 = 50;
/// Agents that are looked at, and shown.
const LOOKED: usize = 10_000;
const AGENTS: usize = 100;

#[derive(Debug)]
pub(super) struct Attention {
    letters: Vec<DeadLetter>,
    has_more: bool,
    agents: Result<Vec<AgentRow>, ApiError>,
    nodes: Result<Vec<NodeRow>, ApiError>,
}

impl Attention {
    pub(super) async fn load(caller: &Caller) -> Result<Self, Problem> {
        let (letters, agents, nodes) =
            tokio::join!(letters(caller), troubled(caller), lost(caller));
        let (letters, has_more) = letters?;
        Ok(Self { letters, has_more, agents, nodes })
    }

    fn sentence(&self) -> String {
        let agents = self.agents.as_ref().map_or(0, Vec::len) as u64;
        let nodes = self.nodes.as_ref().map_or(0, Vec::len) as u64;
        let letters = self.letters.len() as u64;
        if agents + nodes + letters == 0 && self.agents.is_ok() && self.nodes.is_ok() {
            return "Nothing needs you.".to_owned();
        }
        let more = if self.has_more { "at least " } else { "" };
        format!(
            "{more}{}, {}, {}.",
            count(letters, "dead letter", "dead letters"),
            count(agents, "agent in trouble", "agents in trouble"),
            count(nodes, "lost node", "lost nodes")
        )
    }

    pub(super) fn main(&self, context: &Context<'_>) -> Markup {
        html! {
            h1 { "Attention" }
            p class="sentence" { (self.sentence()) }
            h2 { "Dead letters" }
            @if self.letters.is_empty() { p { "There are none." } }
            @for letter in &self.letters { (self.letter(context, letter)) }
            p { "As a command: " (parts::command("mozart dead ls")) }
            h2 { "Agents" }
            @match &self.agents {
                Err(error) => (parts::trouble(error)),
                Ok(rows) => {
                    @if rows.is_empty() { p { "None is quarantined or in error." } }
                    @for row in rows { (agent(context, row)) }
                }
            }
            h2 { "Nodes" }
            @match &self.nodes {
                Err(error) => (parts::trouble(error)),
                Ok(rows) => {
                    @if rows.is_empty() { p { "None is lost." } }
                    ul { @for row in rows {
                        li id={ "node-" (row.node) } { (row.node) " " (state(Sign::Bad, "lost")) @if let Some(at) = row.lost_at { " " (time(at)) } }
                    } }
                }
            }
        }
    }

    fn letter(&self, context: &Context<'_>, letter: &DeadLetter) -> Markup {
        let key = letter.envelope.key();
        html! {
            article class="card" id={ "dead-" (key.agent) "-" (key.sender) "-" (key.message_id) } {
                h3 {
                    a href=(parts::message_path(&key)) { (parts::short(&letter.envelope.message, 80)) }
                    " from " (key.sender) " to " (key.agent)
                }
                p class="trouble" { (words::shown(&letter.reason)) }
                p { (time(letter.at)) ", " (count(letter.attempts.len() as u64, "attempt", "attempts")) }
                details {
                    summary { "Attempts and log" }
                    ol { @for attempt in &letter.attempts {
                        li { "in incarnation " (attempt.incarnation) ": " (words::shown(&attempt.error)) }
                    } }
                    @if !letter.log.is_empty() { (parts::text(&letter.log.join("\n"))) }
                }
                (letter_actions(context, letter, context.path))
            }
        }
    }
}

fn agent(context: &Context<'_>, row: &AgentRow) -> Markup {
    let (sign, word) = of_agent(row);
    html! {
        article class="card" id={ "trouble-" (row.agent) } {
            h3 { a href=(parts::agent_path(&row.agent)) { (row.agent) } " " (state(sign, word)) }
            @if let Some(reason) = &row.reason { p { (words::shown(reason)) } }
            @if let Some(next) = row.next_try { p { "Next start: " (time(next)) } }
            @if context.may(Scope::Operate) {
                (Action {
                    path: format!("{}/start", parts::agent_path(&row.agent)),
                    label: "Start",
                    about: row.agent.as_str(),
                    command: format!("mozart start {}", row.agent),
                    fields: &[],
                }.show(context))
            }
            p { "Why: " (parts::command(&format!("mozart explain {}", row.agent))) }
        }
    }
}

/// The newest dead letters, newest first.
async fn letters(caller: &Caller) -> Result<(Vec<DeadLetter>, bool), ApiError> {
    const WHAT: &str = "cannot read the dead letters";
    let of = match &caller.token.agents[..] {
        [] => vec![None],
        agents => agents.iter().map(Some).collect(),
    };
    let (mut all, mut has_more) = (Vec::new(), false);
    for agent in of {
        let page = caller.client.broker.dead_page(agent, None, LETTERS).await;
        let mut page = page.attempt(WHAT)?;
        while let Some(stored) = page.next().await.attempt(WHAT)? {
            all.push(stored.value);
        }
        has_more |= page.has_earlier();
    }
    all.sort_by_key(|letter| std::cmp::Reverse(letter.at));
    Ok((all, has_more))
}

async fn troubled(caller: &Caller) -> Result<Vec<AgentRow>, ApiError> {
    let mut pages = caller.client.pages(None, true);
    let (mut looked, mut rows) = (0, Vec::new());
    while looked < LOOKED
        && rows.len() < AGENTS
        && let Some(page) = pages.next(usize::MAX).await?
    {
        looked += page.len();
        let bad = |row: &AgentRow| of_agent(row).0 == Sign::Bad && caller.sees(&row.agent);
        rows.extend(page.into_iter().filter(bad));
    }
    Ok(rows)
}

async fn lost(caller: &Caller) -> Result<Vec<NodeRow>, ApiError> {
    if !caller.token.agents.is_empty() {
        return Ok(Vec::new());
    }
    let nodes = caller.client.nodes().await?.into_iter();
    Ok(nodes.filter(|node| node.state == NodeState::Lost).collect())
}
