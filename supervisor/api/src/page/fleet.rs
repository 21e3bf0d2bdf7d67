//! All agents: a sentence, then a table.

use std::collections::BTreeSet;

use common::api::{AgentRow, AgentState, ApiError, Counts};
use common::words::count;
use common::{AgentName, failure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
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
    pub(super) async fn load(
        caller: &Caller,
        after: Option<AgentName>,
        is_live: bool,
    ) -> Result<Self, Problem> {
        let read = match &caller.token.agents[..] {
            [] => page(caller, after.clone()).await,
            agents => some(caller, agents, after.as_ref()).await,
        };
        let (rows, more, trouble) = match read {
            Ok((rows, more)) => (rows, more, None),
            // What is on the screen stays, then.
            Err(error) if is_live => return Err(error.into()),
            // That is what the page has to say: messages go on without a supervisor.
            Err(error) => (Vec::new(), None, Some(error)),
        };
        Ok(Self { rows, after, more, trouble })
    }

    pub(super) fn main(&self, _context: &Context<'_>) -> Markup {
        html! {
            h1 id="title" { "Fleet" }
            @if let Some(error) = &self.trouble { (parts::trouble("trouble", error)) }
            @else { p id="sentence" class="sentence" { (sentence(&self.rows, self.after.is_some() || self.more.is_some())) } }
            @if self.rows.is_empty() && self.trouble.is_none() && self.after.is_none() {
                p id="none" { "There are no agents. Register some: " (parts::command("mozart apply DIR")) }
            } @else if !self.rows.is_empty() {
                table id="agents" class="wide" {
                    caption { "Agents" }
                    thead { tr {
                        th scope="col" { "Agent" } th scope="col" { "State" } th scope="col" { "Queue" }
                        th scope="col" { "Now" } th scope="col" { "Restarts" } th scope="col" { "Host" }
                    } }
                    tbody id="rows" { @for row in &self.rows { (of_row(row)) } }
                }
            }
            @if let Some(more) = &self.more {
                p id="more" { a href={ "/?after=" (more) } { "The agents after " (more) } }
            }
            @if self.after.is_some() { p id="first" { a href="/" { "The first agents" } } }
            (parts::as_command("command", "mozart ps -a"))
        }
    }
}

type Rows = (Vec<AgentRow>, Option<AgentName>);

/// The agents of a page, and the last of them if there are others after it.
async fn page(caller: &Caller, after: Option<AgentName>) -> Result<Rows, ApiError> {
    let mut pages = caller.client.pages(after, false);
    let mut rows: Vec<AgentRow> = Vec::new();
    while rows.len() < PAGE
        && let Some(page) = pages.next(PAGE - rows.len()).await?
    {
        rows.extend(page);
    }
    let last = rows.last().map(|row| row.agent.clone());
    Ok((rows, last.filter(|_| pages.has_more())))
}

/// The same of those that a token is good for: no others are asked about.
async fn some(
    caller: &Caller,
    agents: &[AgentName],
    after: Option<&AgentName>,
) -> Result<Rows, ApiError> {
    let agents: BTreeSet<&AgentName> = agents.iter().collect();
    let mut agents = agents.into_iter().filter(|agent| after.is_none_or(|after| *agent > after));
    let shown: Vec<AgentName> = agents.by_ref().take(PAGE).cloned().collect();
    let last = shown.last().cloned();
    let rows = those(caller, shown, false).await?;
    Ok((rows, last.filter(|_| agents.next().is_some())))
}

/// The rows of some agents; those that there are not are left out. `brief`: without what only the journal knows.
pub(super) async fn those(
    caller: &Caller,
    agents: Vec<AgentName>,
    brief: bool,
) -> Result<Vec<AgentRow>, ApiError> {
    /// Asked at once.
    const AT_ONCE: usize = 8;
    let rows = agents.into_iter().map(|agent| {
        let client = caller.client.clone();
        async move {
            let rows = match brief {
                true => client.brief_rows(Some(&agent)).await,
                false => client.rows(Some(&agent)).await,
            };
            match rows {
                Ok(rows) => Ok(rows.into_iter().next()),
                Err(error) if error.code == failure::NOT_FOUND => Ok(None),
                Err(error) => Err(error),
            }
        }
    });
    let rows = stream::iter(rows).buffered(AT_ONCE);
    rows.try_filter_map(async |row| Ok(row)).try_collect().await
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

/// What an agent does now: one thing, or several with a stop between them.
fn now(row: &AgentRow) -> Markup {
    let mut told = Vec::new();
    if let Some(reason) = &row.reason {
        told.push(html! { (parts::short(reason, 160)) });
    }
    if let Some(next) = row.next_try {
        told.push(html! { "next start: " (time(next)) });
    }
    if row.inflight > 0 {
        told.push(html! {
            "answering " (count(row.inflight, "message", "messages"))
            @if let Some(oldest) = row.oldest { ", the oldest from " (time(oldest)) }
        });
    }
    if told.is_empty() {
        told.push(html! {
            @match (row.state, row.started_at) {
                (AgentState::Running, Some(at)) => { "waiting for messages, started " (time(at)) }
                (AgentState::Running, None) => { "waiting for messages" }
                (AgentState::Starting, _) => { "its worker is starting" }
                (AgentState::Stopping, _) => { "finishing what is open" }
                (AgentState::Stopped, _) => { "stopped" }
                (AgentState::Error, _) => { (row.last_exit.as_deref().unwrap_or("its worker has ended")) }
            }
        });
    }
    html! { @for (nth, one) in told.iter().enumerate() { @if nth > 0 { "; " } (one) } }
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
    let unknown = rows.iter().filter(|row| row.counts == Counts::Unknown).count() as u64;
    let waiting = match (waiting, unknown) {
        (waiting, 0) => format!("{} waiting.", count(waiting, "message is", "messages are")),
        (_, unknown) if unknown == rows.len() as u64 => {
            "It is not known yet how many messages are waiting.".to_owned()
        }
        (waiting, unknown) => format!(
            "At least {} waiting: {} not known yet.",
            count(waiting, "message is", "messages are"),
            count(unknown, "queue is", "queues are")
        ),
    };
    let bad = rows.iter().filter(|row| of_agent(row).0 == Sign::Bad).count() as u64;
    let part = if is_part { " on this page" } else { "" };
    format!(
        "{}{part}: {}. {waiting} {}",
        count(rows.len() as u64, "agent", "agents"),
        told.join(", "),
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
            asks: 0,
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
    fn what_is_not_known_is_not_none() {
        let mut unknown = row("a", AgentState::Running);
        (unknown.inbox, unknown.counts) = (0, Counts::Unknown);
        let rows = [unknown.clone(), row("b", AgentState::Running)];
        assert!(
            sentence(&rows, false)
                .contains("At least 2 messages are waiting: 1 queue is not known yet.")
        );
        assert!(sentence(&rows[..1], false).contains("It is not known yet how many messages"));
        assert_eq!(queue(&unknown), "not known yet");
    }

    #[test]
    fn what_an_agent_does_is_told_apart() {
        let mut busy = row("a", AgentState::Running);
        (busy.reason, busy.inflight) = (Some("node n1 has not confirmed it".to_owned()), 2);
        assert_eq!(now(&busy).into_string(), "node n1 has not confirmed it; answering 2 messages");
        busy.next_try = Some(Timestamp::from_millis(1));
        let html = now(&busy).into_string();
        assert!(
            html.contains("confirmed it; next start: <time") && html.contains("</time>; answering"),
            "{html}"
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
