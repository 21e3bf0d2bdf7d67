//! What needs somebody: open questions, dead letters, agents that were given up, nodes that are lost.

use broker::Attempt as _;
use common::api::{AgentRow, ApiError, NodeRow, NodeState};
use common::message::DeadLetter;
use common::question::OpenQuestion;
use common::users::Scope;
use common::words::count;
use maud::{Markup, html};

use super::asked;
use super::fleet;
use super::message::letter_actions;
use super::parts::{self, Action, Context, Sign, of_agent, state, time};
use crate::caller::Caller;
use crate::problem::Problem;

/// Dead letters that are shown, of so many lines of log and characters of each text.
const LETTERS: usize = 50;
const LOG: usize = 20;
const TEXT: usize = 1_000;
/// Agents that are looked at, and shown.
const LOOKED: usize = 10_000;
const AGENTS: usize = 100;

/// What was found, and whether there may be more.
pub(super) type Found<T> = Result<(Vec<T>, bool), ApiError>;

#[derive(Debug)]
pub(super) struct Attention {
    questions: Found<OpenQuestion>,
    letters: Found<DeadLetter>,
    agents: Found<AgentRow>,
    /// None: these are not this caller's to see.
    nodes: Option<Found<NodeRow>>,
}

/// How many there are, as far as that is known; nothing if there are none for sure.
fn told<T>(found: &Found<T>, (one, many): (&str, &str)) -> Option<String> {
    match found {
        Ok((found, false)) if found.is_empty() => None,
        Ok((found, false)) => Some(count(found.len() as u64, one, many)),
        Ok((found, true)) => Some(format!("at least {}", count(found.len() as u64, one, many))),
        Err(_) => Some(format!("{many}: not known")),
    }
}

impl Attention {
    pub(super) async fn load(caller: &Caller) -> Result<Self, Problem> {
        let (questions, letters, agents, nodes) =
            tokio::join!(asked::load(caller), letters(caller), troubled(caller), lost(caller));
        Ok(Self { questions, letters, agents, nodes })
    }

    fn sentence(&self) -> String {
        let nodes = self.nodes.as_ref().map(|nodes| told(nodes, ("lost node", "lost nodes")));
        let all = [
            told(&self.questions, ("open question", "open questions")),
            told(&self.letters, ("dead letter", "dead letters")),
            told(&self.agents, ("agent in trouble", "agents in trouble")),
            nodes.flatten(),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        if all.is_empty() {
            "Nothing needs attention.".to_owned()
        } else {
            format!("{}.", all.join(", "))
        }
    }

    pub(super) fn main(&self, context: &Context<'_>) -> Markup {
        html! {
            h1 id="title" { "Attention" }
            p id="sentence" class="sentence" { (self.sentence()) }
            (asked::section(context, &self.questions))
            h2 id="letters-title" { "Dead letters" }
            section id="letters" aria-labelledby="letters-title" {
                @match &self.letters {
                    Err(error) => (parts::trouble("letters-trouble", error)),
                    Ok((letters, has_more)) => {
                        @if letters.is_empty() { p id="letters-none" { "There are none." } }
                        @for letter in letters { (self.letter(context, letter)) }
                        @if *has_more { p id="letters-more" { "There are earlier ones." } }
                    }
                }
            }
            (parts::as_command("letters-command", "mozart dead ls"))
            h2 id="agents-title" { "Agents" }
            section id="agents" aria-labelledby="agents-title" {
                @match &self.agents {
                    Err(error) => (parts::trouble("agents-trouble", error)),
                    Ok((rows, has_more)) => {
                        @if rows.is_empty() { p id="agents-none" { "None is quarantined or in error." } }
                        @for row in rows { (agent(context, row)) }
                        @if *has_more { p id="agents-more" { "There may be more." } }
                    }
                }
            }
            h2 id="nodes-title" { "Nodes" }
            section id="nodes" aria-labelledby="nodes-title" {
                @match &self.nodes {
                    None => p id="nodes-none" { "Nodes are shown to those whose token is good for all agents." },
                    Some(Err(error)) => (parts::trouble("nodes-trouble", error)),
                    Some(Ok((rows, _))) => {
                        @if rows.is_empty() { p id="nodes-none" { "None is lost." } }
                        @else {
                            ul id="nodes-lost" { @for row in rows {
                                li id={ "node-" (row.node) } { (row.node) " " (state(Sign::Bad, "lost")) @if let Some(at) = row.lost_at { " " (time(at)) } }
                            } }
                        }
                    }
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
                p class="trouble" { (parts::short(&letter.reason, TEXT)) }
                p { (time(letter.at)) ", " (count(letter.attempts.len() as u64, "attempt", "attempts")) }
                details {
                    summary { "Attempts and log" }
                    ol { @for attempt in &letter.attempts {
                        li {
                            @match attempt.incarnation {
                                0 => "in an incarnation that is not on record",
                                number => { "in incarnation " (number) }
                            }
                            ": " (parts::short(&attempt.error, TEXT))
                        }
                    } }
                    @let log = letter.log.len().saturating_sub(LOG);
                    @for line in letter.log.iter().skip(log) { (parts::text(&parts::short(line, TEXT))) }
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
            @if let Some(reason) = &row.reason { p { (parts::short(reason, TEXT)) } }
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
async fn letters(caller: &Caller) -> Found<DeadLetter> {
    const WHAT: &str = "cannot read the dead letters";
    let of = match &caller.token.agents[..] {
        [] => vec![None],
        agents => agents.iter().map(Some).collect(),
    };
    let (mut all, mut has_more) = (Vec::new(), false);
    for agent in of {
        let page = caller.client.broker.dead_page(agent, None, LETTERS as u64).await;
        let mut page = page.attempt(WHAT)?;
        while let Some(stored) = page.next().await.attempt(WHAT)? {
            all.push(stored.value);
        }
        has_more |= page.has_earlier();
        all.sort_by_key(|letter: &DeadLetter| std::cmp::Reverse(letter.at));
        has_more |= all.len() > LETTERS;
        all.truncate(LETTERS);
    }
    Ok((all, has_more))
}

/// Agents in trouble: of a token's, or of all.
async fn troubled(caller: &Caller) -> Found<AgentRow> {
    let is_bad = AgentRow::is_in_trouble;
    if !caller.token.agents.is_empty() {
        let mut rows = fleet::those(caller, caller.token.agents.clone(), true).await?;
        rows.retain(is_bad);
        let has_more = rows.len() > AGENTS;
        rows.truncate(AGENTS);
        return Ok((rows, has_more));
    }
    let mut pages = caller.client.pages(None, true).in_trouble();
    let (mut looked, mut rows) = (0, Vec::new());
    while looked < LOOKED
        && rows.len() < AGENTS
        && let Some(page) = pages.next(usize::MAX).await?
    {
        looked += page.len();
        // A supervisor of an earlier version tells of all of them.
        rows.extend(page.into_iter().filter(is_bad));
    }
    let has_more = rows.len() > AGENTS || pages.has_more();
    rows.truncate(AGENTS);
    Ok((rows, has_more))
}

async fn lost(caller: &Caller) -> Option<Found<NodeRow>> {
    if !caller.token.agents.is_empty() {
        return None;
    }
    let nodes = caller.client.nodes().await;
    let is_lost = |node: &NodeRow| node.state == NodeState::Lost;
    Some(nodes.map(|nodes| (nodes.into_iter().filter(is_lost).collect(), false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::fleet::tests::row;
    use common::api::AgentState;
    use common::failure;

    #[test]
    fn what_could_not_be_asked_is_not_none() {
        let away = || failure::error(failure::UNREACHABLE, "no supervisor answers", "", "");
        let none = || Attention {
            questions: Ok((Vec::new(), false)),
            letters: Ok((Vec::new(), false)),
            agents: Ok((Vec::new(), false)),
            nodes: Some(Ok((Vec::new(), false))),
        };
        assert_eq!(none().sentence(), "Nothing needs attention.");
        let unknown = Attention { agents: Err(away()), nodes: Some(Err(away())), ..none() };
        assert_eq!(unknown.sentence(), "agents in trouble: not known, lost nodes: not known.");
        let bad = Ok((vec![row("a", AgentState::Error)], true));
        let some = Attention { letters: Err(away()), agents: bad, nodes: None, ..none() };
        assert_eq!(some.sentence(), "dead letters: not known, at least 1 agent in trouble.");
    }
}
