//! All agents: a sentence, then a table.

use common::AgentName;
use common::api::{AgentRow, AgentState, ApiError, Counts};
use common::words::count;
use maud::{Markup, html};

use super::parts::{self, Context, Sign, of_agent, state, time};
use crate::caller::Caller;
use crate::problem::Problem;

/// Agents of a page.
const PAGE: usize = 100;

#[derive(Debug)]
pub(super) struct Fleet {
    rows: Vec<AgentRow>,
    after: Option<AgentName>,
    /// Where the next page begins.
    more: Option<AgentName>,
    trouble: Option<ApiError>,
}

impl Fleet {
    pub(super) async fn load(caller: &Caller, after: Option<AgentName>) -> Result<Self, Problem> {
        let mut pages = caller.client.pages(after.clone(), false);
        let (mut rows, mut last): (Vec<AgentRow>, _) = (Vec::new(), None);
        let trouble = loop {
            match pages.next(PAGE - rows.len()).await {
                Ok(Some(page)) => {
                    last = page.last().map(|row| row.agent.clone());
                    rows.extend(page.into_iter().filter(|row| caller.sees(&row.agent)));
                    if rows.len() >= PAGE {
                        break None;
                    }
                }
                Ok(None) => break None,
                // That is what the page has to say, then: messages go on without a supervisor.
                Err(error) => break Some(error),
            }
        };
        let more = last.filter(|_| trouble.is_none() && pages.has_more());
        Ok(Self { rows, after, more, trouble })
    }

    pub(super) fn main(&self, _context: &Context<'_>) -> Markup {
        html! {
            h1 { "Fleet" }
            @if let Some(error) = &self.trouble { (parts::trouble(error)) }
            @else { p class="sentence" { (sentence(&self.rows, self.after.is_some() || self.more.is_some())) } }
            @if self.rows.is_empty() && self.trouble.is_none() {
                p { "There are no agents. Register some: " (parts::command("mozart apply DIR")) }
            } @else if !self.rows.is_empty() {
                table class="wide" {
                    caption { "Agents" }
                    thead { tr {
                        th scope="col" { "Agent" } th scope="col" { "State" } th scope="col" { "Queue" }
                        th scope="col" { "Now" } th scope="col" { "Restarts" } th scope="col" { "Host" }
                    } }
                    tbody { @for row in &self.rows { (of_row(row)) } }
                }
            }
            @if let Some(more) = &self.more {
                p { a href={ "/?after=" (more) } { "The agents after " (more) } }
            }
            @if self.after.is_some() { p { a href="/" { "The first agents" } } }
            p { "As a command: " (parts::command("mozart ps -a")) }
        }
    }
}

fn of_row(row: &AgentRow) -> Markup {
    let (sign, word) = of_agent(row);
    html! {
        tr id={ "agent-" (row.agent) } {
            th scope="row" { a href=(parts::agent_path(&row.agent)) { (row.agent) } }
            td data-label="State" { (state(sign, word)) }
            td data-label="Queue" { (queue(row)) }
            td data-label="Now" { (now(row)) }
            td data-label="Restarts" { (row.restart_count) }
            td data-label="Host" { (row.node.as_deref().unwrap_or("none")) }
        }
    }
}

/// How many messages wait.
fn queue(row: &AgentRow) -> String {
    match row.counts {
        Counts::Unknown => "not known yet".to_owned(),
        Counts::Earlier | Counts::Current => row.inbox.to_string(),
    }
}

/// What an agent does now.
fn now(row: &AgentRow) -> Markup {
    html! {
        @if let Some(reason) = &row.reason { (parts::short(reason, 160)) }
        @if let Some(next) = row.next_try { " next start: " (time(next)) }
        @if row.inflight > 0 {
            "answering " (count(row.inflight, "message", "messages"))
            @if let Some(oldest) = row.oldest { ", the oldest from " (time(oldest)) }
        } @else if row.reason.is_none() && row.next_try.is_none() {
            @match (row.state, row.started_at) {
                (AgentState::Running, Some(at)) => { "waiting for messages, started " (time(at)) }
                (AgentState::Running, None) => { "waiting for messages" }
                (AgentState::Starting, _) => { "its worker is starting" }
                (AgentState::Stopping, _) => { "finishing what is open" }
                (AgentState::Stopped, _) => { "stopped" }
                (AgentState::Error, _) => { (row.last_exit.as_deref().unwrap_or("its worker has ended")) }
            }
        }
    }
}

/// The fleet in a sentence or two.
fn sentence(rows: &[AgentRow], is_part: bool) -> String {
    if rows.is_empty() {
        return if is_part { "No more agents.".to_owned() } else { "No agents yet.".to_owned() };
    }
    let words = ["idle", "answering", "starting", "error", "quarantined", "stopping", "stopped"];
    let told: Vec<String> = words
        .iter()
        .filter_map(|word| {
            let count = rows.iter().filter(|row| of_agent(row).1 == *word).count();
            let word = if *word == "error" { "in error" } else { word };
            (count > 0).then(|| format!("{count} {word}"))
        })
        .collect();
    let waiting: u64 = rows.iter().map(|row| row.inbox).sum();
    let bad = rows.iter().filter(|row| of_agent(row).0 == Sign::Bad).count() as u64;
    let part = if is_part { " on this page" } else { "" };
    format!(
        "{}{part}: {}. {} waiting. {}",
        count(rows.len() as u64, "agent", "agents"),
        told.join(", "),
        count(waiting, "message is", "messages are"),
        match bad {
            0 => "No agent needs attention.".to_owned(),
            bad => format!("{} attention.", count(bad, "agent needs", "agents need")),
        }
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use common::Timestamp;

    pub(crate) fn row(name: &str, state: AgentState) -> AgentRow {
        AgentRow {
            agent: AgentName::new(name).expect("valid"),
            state,
            reason: None,
            generation: 2,
            incarnation: 3,
            restart_count: 1,
            message_count: 9,
            node: Some("local".to_owned()),
            started_at: Some(Timestamp::from_millis(1_000)),
            inbox: 2,
            inflight: 0,
            oldest: None,
            last_exit: None,
            last_exit_at: None,
            next_try: None,
            reported: true,
            running_incarnation: Some(3),
            running_generation: Some(2),
            given_up: None,
            target_generation: 2,
            quarantined: false,
            counts: Counts::Current,
        }
    }

    #[test]
    fn the_fleet_is_told_in_a_sentence() {
        assert_eq!(sentence(&[], false), "No agents yet.");
        let mut rows = vec![row("a", AgentState::Running), row("b", AgentState::Running)];
        rows[1].inflight = 1;
        assert_eq!(
            sentence(&rows, false),
            "2 agents: 1 idle, 1 answering. 4 messages are waiting. No agent needs attention."
        );
        let mut bad = row("c", AgentState::Error);
        (bad.quarantined, bad.inbox) = (true, 0);
        assert_eq!(
            sentence(&[bad, row("d", AgentState::Error)], true),
            "2 agents on this page: 1 in error, 1 quarantined. 2 messages are waiting. 2 agents need attention."
        );
    }

    #[test]
    fn what_others_say_is_text() {
        let mut bad = row("a", AgentState::Error);
        bad.reason = Some("<img src=x onerror=alert(1)>".to_owned());
        let html = of_row(&bad).into_string();
        assert!(html.contains("&lt;img src=x"), "{html}");
        assert!(!html.contains("<img"), "{html}");
    }
}
