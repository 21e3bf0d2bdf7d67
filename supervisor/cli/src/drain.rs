//! `mozart node drain`: asks for it, and waits until the agents of the node run elsewhere.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use common::api::{ApiError, DrainRow, NodeRow, Query};
use common::failure;
use common::{AgentName, NodeName};
use tokio::time::Instant;

use super::client::Client;
use super::progress::Progress;
use super::{output, signals, table};
use crate::args::{Global, duration};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(300);

/// A supervisor that has not read of the drain yet does so within this.
const FOLDS: Duration = Duration::from_secs(10);

/// `mozart node drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The node
    node: NodeName,
    /// How many agents to move at a time
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    parallel: u32,
    /// Succeed although some agents cannot be moved, such as those whose SANCTUM is there
    #[arg(long)]
    ignore_unmovable: bool,
    /// How long to wait; the drain goes on after that [default: until it is done]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    timeout: Option<Duration>,
}

/// Drains a node.
///
/// # Errors
/// 1 when agents stay there, 3 no such node, 4 when it is undrained meanwhile, 5 when it takes too long.
pub(crate) async fn run(global: &Global, args: &DrainArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let query = Query::Drain { node: args.node.clone(), parallel: args.parallel };
    client.tell(&query).await?;
    let node = &args.node;
    let (row, drain) = tokio::select! {
        drained = wait(&client, args) => drained?,
        stopped = signals::stopped() => {
            stopped?;
            output::note(format!(
                "interrupted: the drain goes on; `mozart node show {node}` shows it, `mozart node undrain {node}` ends it"
            ));
            return Ok(failure::INTERRUPTED);
        }
    };
    if client.json() {
        output::json(&row)?;
    }
    if drain.staying.is_empty() || args.ignore_unmovable {
        output::note(format!("node {node} is drained"));
        return Ok(0);
    }
    Err(stays(node, &drain))
}

/// Says which agents stay, and why.
fn stays(node: &NodeName, drain: &DrainRow) -> ApiError {
    let count = drain.staying.len() as u64;
    let what = format!("{} of node {node} cannot be moved", table::count(count, "agent", "agents"));
    let why: Vec<_> =
        drain.staying.iter().map(|one| format!("{}: {}", one.agent, one.reason)).collect();
    let try_ = format!(
        "--ignore-unmovable leaves them there; `mozart stop AGENT` stops one; `mozart node undrain {node}`"
    );
    failure::error(failure::FAILED, what, why.join("; "), try_)
}

/// Waits until nothing moves any more, and says what has.
async fn wait(client: &Client, args: &DrainArgs) -> Result<(NodeRow, DrainRow), ApiError> {
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let folds = Instant::now() + FOLDS;
    let mut progress = Progress::new();
    let (mut there, mut is_seen) = (BTreeSet::<AgentName>::new(), false);
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let row = match client.node(&args.node).await {
            Ok(row) => row,
            // A supervisor that is being restarted does not end the drain.
            Err(error) if error.code == failure::NOT_FOUND || is_late => return Err(error),
            Err(_) => continue,
        };
        let Some(drain) = row.drain.clone() else {
            if is_seen || Instant::now() > folds {
                let what = format!("node {} is not drained", args.node);
                let cause = "it was undrained meanwhile";
                return Err(failure::error(failure::CONFLICT, what, cause, "`mozart events`"));
            }
            continue;
        };
        is_seen = true;
        let left: BTreeSet<_> = drain
            .moving
            .iter()
            .chain(&drain.waiting)
            .chain(drain.staying.iter().map(|one| &one.agent))
            .cloned()
            .collect();
        for agent in there.difference(&left) {
            say_moved(client, agent).await?;
        }
        there = left;
        if drain.moving.is_empty() && drain.waiting.is_empty() {
            return Ok((row, drain));
        }
        progress.say(format!("{} {}", args.node, stand(&drain)));
        if is_late {
            let timeout = humantime::format_duration(args.timeout.unwrap_or_default());
            let what = format!("node {} is not drained after {timeout}", args.node);
            let cause = format!("{}; the drain goes on", stand(&drain));
            let try_ = format!("`mozart node show {}`", args.node);
            return Err(failure::error(failure::TIMEOUT, what, cause, try_));
        }
    }
}

/// Where an agent is that has left.
async fn say_moved(client: &Client, agent: &AgentName) -> Result<(), ApiError> {
    if client.json() {
        return Ok(());
    }
    let rows = client.brief_rows(Some(agent)).await.unwrap_or_default();
    let node = rows.into_iter().find_map(|row| row.node);
    output::line(match node {
        Some(node) => format!("{agent} is running on {node}"),
        None => format!("{agent} is gone"),
    })
}

/// How far a drain is: `1 moving (a), 2 waiting, 1 staying`.
pub(crate) fn stand(drain: &DrainRow) -> String {
    let mut parts = Vec::new();
    if !drain.moving.is_empty() {
        let names: Vec<_> = drain.moving.iter().take(3).map(ToString::to_string).collect();
        let more = if drain.moving.len() > 3 { ", …" } else { "" };
        parts.push(format!("{} moving ({}{more})", drain.moving.len(), names.join(", ")));
    }
    if !drain.waiting.is_empty() {
        parts.push(format!("{} waiting", drain.waiting.len()));
    }
    if !drain.staying.is_empty() {
        parts.push(format!("{} staying", drain.staying.len()));
    }
    if parts.is_empty() { "done".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::api::StayRow;

    #[test]
    fn what_stays_is_named_with_its_reason() {
        let agent = |name| AgentName::new(name).expect("valid");
        let stay = |name, reason: &str| StayRow { agent: agent(name), reason: reason.to_owned() };
        let drain = DrainRow {
            parallel: 1,
            moving: ["a", "b", "c", "d"].map(agent).into(),
            waiting: vec![agent("e")],
            staying: vec![stay("f", "its SANCTUM is there"), stay("g", "no node can run it")],
        };
        assert_eq!(stand(&drain), "4 moving (a, b, c, …), 1 waiting, 2 staying");
        let error = stays(&NodeName::new("n2").expect("valid"), &drain);
        assert_eq!((error.code, &*error.what), (1, "2 agents of node n2 cannot be moved"));
        assert_eq!(error.cause, "f: its SANCTUM is there; g: no node can run it");
    }
}
