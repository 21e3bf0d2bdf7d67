//! `mozart ps`.

use std::time::Duration;

use clap::Args;
use common::api::{AgentRow, AgentState, ApiError};
use common::{AgentName, Timestamp};

use super::client::{Client, now};
use super::{output, table};
use crate::args::Global;

const HEADERS: [&str; 11] = [
    "AGENT",
    "GEN",
    "STATE",
    "NODE",
    "UPTIME",
    "RESTARTS",
    "INBOX",
    "INFLIGHT",
    "OLDEST",
    "LAST-EXIT",
    "NEXT-TRY",
];

/// `mozart ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Only these, whatever their state
    agents: Vec<AgentName>,
    /// Stopped ones too
    #[arg(short, long)]
    all: bool,
    /// Show it again whenever something changes
    #[arg(short, long)]
    watch: bool,
}

/// Lists agents.
///
/// # Errors
/// 3 when one that is named is not there, 6 when no supervisor answers.
pub(crate) async fn run(global: &Global, args: &PsArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    if args.watch {
        return watch(&client, args).await;
    }
    let rows = client.rows(None).await?;
    let unknown = args.agents.iter().find(|agent| rows.iter().all(|row| row.agent != **agent));
    if let Some(agent) = unknown {
        let names: Vec<&str> = rows.iter().map(|row| row.agent.as_str()).collect();
        return Err(super::agents::unknown(agent, &names));
    }
    let rows = wanted(rows, args);
    if client.json() {
        output::json(&rows)?;
    } else {
        output::line(render(&rows, now()))?;
    }
    Ok(0)
}

/// Shows the list again every second, as long as nobody interrupts.
async fn watch(client: &Client, args: &PsArgs) -> Result<u8, ApiError> {
    const HOME_AND_CLEAR: &str = "\x1b[H\x1b[2J";
    let terminal = output::stdout_is_terminal();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut last = None;
    loop {
        tick.tick().await;
        let rows = wanted(client.rows(None).await?, args);
        if client.json() {
            if last.as_ref() != Some(&rows) {
                output::json_line(&rows)?;
            }
        } else if terminal {
            output::line(format!("{HOME_AND_CLEAR}{}", render(&rows, now())))?;
        } else if last.as_ref() != Some(&rows) {
            output::line(render(&rows, now()))?;
        }
        last = Some(rows);
    }
}

fn wanted(mut rows: Vec<AgentRow>, args: &PsArgs) -> Vec<AgentRow> {
    rows.retain(|row| {
        if args.agents.is_empty() {
            args.all || row.state != AgentState::Stopped
        } else {
            args.agents.contains(&row.agent)
        }
    });
    rows
}

fn render(rows: &[AgentRow], now: Timestamp) -> String {
    table::table(&HEADERS, rows.iter().map(|row| cells(row, now)))
}

fn cells(row: &AgentRow, now: Timestamp) -> Vec<String> {
    let started = row.started_at.filter(|_| row.state == AgentState::Running);
    vec![
        row.agent.to_string(),
        row.generation.to_string(),
        row.state.as_str().to_owned(),
        table::or_none(row.node.as_deref()),
        table::age(started, now),
        row.restart_count.to_string(),
        row.inbox.to_string(),
        row.inflight.to_string(),
        table::age(row.oldest, now),
        table::or_none(row.last_exit.as_deref().map(|exit| table::one_line(exit, 40))),
        table::until(row.next_try, now),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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
            inbox: 4,
            inflight: 1,
            oldest: None,
            last_exit: None,
            next_try: None,
            running_incarnation: Some(3),
            running_generation: Some(2),
            given_up: None,
        }
    }

    #[test]
    fn a_row_has_a_cell_for_every_header() {
        let cells = cells(&row("a", AgentState::Running), Timestamp::from_millis(61_000));
        assert_eq!(
            cells,
            ["a", "2", "running", "local", "60s", "1", "4", "1", "<none>", "<none>", "<none>"]
        );
        assert_eq!(cells.len(), HEADERS.len());
    }

    #[test]
    fn an_agent_that_does_not_run_has_no_uptime_but_a_next_try() {
        let mut row = row("a", AgentState::Error);
        row.last_exit = Some("exit code 1".to_owned());
        row.next_try = Some(Timestamp::from_millis(4_000));
        let cells = cells(&row, Timestamp::from_millis(1_000));
        assert_eq!((cells[4].as_str(), cells[9].as_str()), ("<none>", "exit code 1"));
        assert_eq!(cells[10], "in 3s");
    }

    #[test]
    fn stopped_agents_are_shown_when_asked_for() {
        let rows = || vec![row("a", AgentState::Running), row("b", AgentState::Stopped)];
        let count = |agents: &[&str], all| {
            let agents = agents.iter().map(|name| AgentName::new(name).expect("valid")).collect();
            wanted(rows(), &PsArgs { agents, all, watch: false }).len()
        };
        assert_eq!((count(&[], false), count(&[], true)), (1, 2));
        assert_eq!((count(&["b"], false), count(&["c"], true)), (1, 0));
    }
}
