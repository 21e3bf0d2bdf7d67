//! `mozart move` and `mozart rebalance`: an agent to another node, and what evens out.

use std::time::Duration;

use clap::Args;
use common::api::{AgentRow, AgentState, ApiError, CarryRow, CarryState, MoveRow, Query, Reply};
use common::failure;
use common::{AgentName, NodeName};
use serde::Serialize;
use tokio::time::Instant;

use super::client::{Client, unexpected};
use super::lifecycle::Failures;
use super::progress::Progress;
use super::sanctum::{self, Carried};
use super::{output, signals, table};
use crate::args::{Global, duration};

/// `mozart move`.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The agent
    agent: AgentName,
    /// The node to move it to
    #[arg(long = "to", value_name = "NODE")]
    node: NodeName,
    /// Wait until it is running there; fail if it is not moved
    #[arg(long)]
    wait: bool,
    /// How long --wait waits, and how long a copy of its SANCTUM may make no progress
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
}

/// What became of a move, in JSON.
#[derive(Debug, Serialize)]
struct Moved {
    #[serde(flatten)]
    row: Option<AgentRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    carry: Option<CarryRow>,
}

/// `mozart rebalance`.
#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// Only show the moves
    #[arg(long)]
    dry_run: bool,
    /// How long a single move may take
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
}

/// Moves an agent.
///
/// # Errors
/// 3 no such agent or node, 4 when it cannot run there, 1 when it did not become ready there, 5 when it takes too long.
pub(crate) async fn run(global: &Global, args: &MoveArgs) -> Result<u8, ApiError> {
    let MoveArgs { agent, node, wait, timeout } = args;
    let (client, asked, takes) = tokio::select! {
        begun = begin(global, args) => begun?,
        stopped = signals::stopped() => {
            stopped?;
            output::note(format!(
                "interrupted: `mozart explain {agent}` shows whether the move was requested"
            ));
            return Ok(failure::INTERRUPTED);
        }
    };
    let done = async {
        let carry = match takes.from {
            Some(_) => {
                let (before, timeout) = (takes.before, *timeout);
                let carried = Carried { agent, to: node, before, timeout };
                Some(carried.wait(&client).await?)
            }
            None => None,
        };
        if *wait && !takes.stopped {
            asked.wait(&client, *timeout).await?;
        }
        Ok::<_, ApiError>(carry)
    };
    let carry = tokio::select! {
        carry = done => carry?,
        stopped = signals::stopped() => {
            stopped?;
            let back = takes.from.map(|from| format!(", `mozart move {agent} --to {from}` ends it"));
            output::note(format!(
                "interrupted: the move goes on; `mozart explain {agent}` shows it{}",
                back.unwrap_or_default()
            ));
            return Ok(failure::INTERRUPTED);
        }
    };
    match client.json() {
        true => {
            let row = client.rows(Some(agent)).await?.into_iter().next();
            output::json(&Moved { row, carry })?;
        }
        false => output::line(agent.as_str())?,
    }
    Ok(0)
}

/// What a move takes along.
struct Takes {
    /// The node that has its SANCTUM, if that is to be copied.
    from: Option<NodeName>,
    /// The number of the copy before.
    before: u64,
    /// Whether it is to be stopped there, too.
    stopped: bool,
}

/// Asks for a move.
async fn begin(global: &Global, args: &MoveArgs) -> Result<(Client, Asked, Takes), ApiError> {
    let MoveArgs { agent, node, .. } = args;
    let client = Client::connect(global).await?;
    let before = sanctum::last(&client, agent).await?;
    // One that is under way to that node is joined.
    let before = before.filter(|row| row.state != CarryState::Copying || row.to != *node);
    let reply = client.ask(&Query::Inspect { agent: agent.clone() }).await?;
    let Reply::Inspect(detail) = reply else { return Err(unexpected(&reply)) };
    let takes = Takes {
        from: detail.pinned_to.filter(|pin| pin != node),
        before: before.map_or(0, |row| row.copy),
        stopped: !detail.desired_running,
    };
    let asked = Asked::ask(&client, agent, node).await?;
    Ok((client, asked, takes))
}

/// Evens out the nodes: one move after the other.
///
/// # Errors
/// The first move's that did not work.
pub(crate) async fn rebalance(global: &Global, args: &RebalanceArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let reply = client.ask(&Query::Rebalance).await?;
    let Reply::Moves(moves) = reply else { return Err(unexpected(&reply)) };
    match client.json() {
        true => output::json(&moves)?,
        false if moves.is_empty() => {
            output::note("nothing to move: the agents are spread as evenly as possible")
        }
        false => output::line(list(&moves))?,
    }
    if args.dry_run {
        return Ok(0);
    }
    let mut failures = Failures::new(global.output);
    for one in moves {
        let moved = async {
            Asked::ask(&client, &one.agent, &one.to).await?.wait(&client, args.timeout).await
        };
        match moved.await {
            Ok(()) => output::note(format!("{} is running on {}", one.agent, one.to)),
            Err(error) => failures.add(error),
        }
    }
    failures.end()
}

fn list(moves: &[MoveRow]) -> String {
    let cells = moves
        .iter()
        .map(|one| vec![one.agent.to_string(), one.from.to_string(), one.to.to_string()]);
    table::table(&["AGENT", "FROM", "TO"], cells)
}

/// A move that was asked for.
struct Asked {
    agent: AgentName,
    to: NodeName,
    /// What ran before it.
    previous: u64,
    /// What was said of an earlier replacement.
    given_up: Option<String>,
}

/// What has become of a move.
#[derive(Debug, PartialEq, Eq)]
enum Stand {
    Done,
    Open,
    /// It is not going to be.
    Failed(String),
}

impl Asked {
    async fn ask(client: &Client, agent: &AgentName, to: &NodeName) -> Result<Self, ApiError> {
        let rows = client.brief_rows(Some(agent)).await?;
        let given_up = rows.into_iter().find_map(|row| row.given_up);
        let query = Query::Move { agent: agent.clone(), to: to.clone() };
        let applied = client.change(&query).await?;
        let previous = applied.first().map_or(0, |one| one.previous_incarnation);
        Ok(Self { agent: agent.clone(), to: to.clone(), previous, given_up })
    }

    fn stand(&self, row: &AgentRow) -> Stand {
        let runs = row.running_incarnation > Some(self.previous);
        if runs && row.node.as_deref() == Some(self.to.as_str()) {
            return Stand::Done;
        }
        if matches!(row.state, AgentState::Stopping | AgentState::Stopped) {
            return Stand::Failed(row.reason.clone().unwrap_or_else(|| "it is stopped".to_owned()));
        }
        let said = row.reason.as_ref().filter(|reason| reason.starts_with("not moved to"));
        let given_up = row
            .given_up
            .as_ref()
            .filter(|_| row.incarnation > self.previous && row.given_up != self.given_up);
        match said.or(given_up) {
            Some(why) => Stand::Failed(why.clone()),
            None if runs => Stand::Failed(format!(
                "it is running on {}",
                row.node.as_deref().unwrap_or("no node")
            )),
            None => Stand::Open,
        }
    }

    /// Waits until it takes messages there.
    async fn wait(&self, client: &Client, timeout: Duration) -> Result<(), ApiError> {
        let Self { agent, to, .. } = self;
        let deadline = Instant::now() + timeout;
        let mut progress = Progress::new();
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        let try_ = || format!("`mozart explain {agent}`, `mozart logs {agent}`");
        loop {
            tick.tick().await;
            let is_late = Instant::now() >= deadline;
            let row = match client.brief_rows(Some(agent)).await {
                Ok(rows) => rows.into_iter().find(|row| row.agent == *agent),
                Err(error) if error.code == failure::NOT_FOUND || is_late => return Err(error),
                // A supervisor that is being restarted is not the move's failure.
                Err(_) => continue,
            };
            let Some(row) = row else {
                if is_late {
                    let what = format!("{agent} is not running on {to}");
                    let cause = "the supervisors do not show it any more";
                    return Err(failure::error(failure::NOT_FOUND, what, cause, "`mozart ps -a`"));
                }
                continue;
            };
            match self.stand(&row) {
                Stand::Done => return Ok(()),
                Stand::Failed(why) => {
                    let what = format!("{agent} was not moved to {to}");
                    return Err(failure::error(failure::FAILED, what, why, try_()));
                }
                Stand::Open if is_late => {
                    let timeout = humantime::format_duration(timeout);
                    let what = format!("{agent} is not running on {to} after {timeout}");
                    let cause = match row.reason {
                        Some(reason) => format!("it is {}: {reason}", row.state.as_str()),
                        None => format!("it is {}", row.state.as_str()),
                    };
                    return Err(failure::error(failure::TIMEOUT, what, cause, try_()));
                }
                Stand::Open => progress.say(format!("{agent} is being moved to {to}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::row;
    use super::*;

    #[test]
    fn a_move_is_done_where_it_was_to_be_and_failed_where_it_says_so() {
        let asked = Asked {
            agent: AgentName::new("a").expect("valid"),
            to: NodeName::new("n2").expect("valid"),
            previous: 5,
            given_up: Some("old".to_owned()),
        };
        let seen = |runs: u64, incarnation, node: &str| AgentRow {
            reported: true,
            running_incarnation: Some(runs),
            incarnation,
            node: Some(node.to_owned()),
            given_up: Some("old".to_owned()),
            reason: None,
            ..row("a", AgentState::Running)
        };
        assert_eq!(asked.stand(&seen(6, 6, "n2")), Stand::Done);
        assert_eq!(asked.stand(&seen(5, 6, "n1")), Stand::Open);
        assert_eq!(asked.stand(&seen(5, 5, "n2")), Stand::Open, "before it was asked");
        let failed = |row: AgentRow| match asked.stand(&row) {
            Stand::Failed(why) => why,
            other @ (Stand::Done | Stand::Open) => panic!("{other:?}"),
        };
        let late =
            AgentRow { given_up: Some("incarnation 6 not ready".into()), ..seen(5, 6, "n1") };
        assert_eq!(failed(late), "incarnation 6 not ready");
        let lost =
            AgentRow { reason: Some("not moved to n2: n2 is lost".into()), ..seen(5, 5, "n1") };
        assert_eq!(failed(lost), "not moved to n2: n2 is lost");
        assert_eq!(failed(seen(6, 6, "n1")), "it is running on n1");
        let stopped = AgentRow { state: AgentState::Stopped, ..seen(5, 5, "n1") };
        assert_eq!(failed(stopped), "it is stopped");
    }

    #[test]
    fn moves_are_a_table() {
        let node = |name| NodeName::new(name).expect("valid");
        let agent = AgentName::new("a").expect("valid");
        let listed = list(&[MoveRow { agent, from: node("n1"), to: node("n2") }]);
        let lines: Vec<_> = listed.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["AGENT  FROM  TO", "a      n1    n2"]);
    }
}
