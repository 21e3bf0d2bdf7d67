//! `mozart rollout`: an agent's generations, and the way back to one of them.

use std::time::Duration;

use clap::{Args, Subcommand};
use common::AgentName;
use common::api::{ApiError, Query};
use mozart_client::rollout::{Generation, earlier, generations};
use tokio::time::Instant;

use super::client::{Client, now};
use super::{changes, output, replace, table};
use crate::args::{Global, duration};

/// `mozart rollout`.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// List an agent's generations: when, by whom, what changed
    History {
        /// The agent
        agent: AgentName,
    },
    /// Go back to an earlier generation, as a new one
    Undo(UndoArgs),
}

/// `mozart rollout undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// The agent
    agent: AgentName,
    /// Go back to this generation [default: the previous one that was ready]
    #[arg(long, value_name = "N")]
    to_generation: Option<u64>,
    /// Wait until it is running; fail if it is given up
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME", requires = "wait")]
    timeout: Duration,
}

/// Works on generations.
///
/// # Errors
/// 3 when there is no such agent or generation, 4 when there is nothing to go back to.
pub(crate) async fn run(global: &Global, command: &RolloutCommand) -> Result<u8, ApiError> {
    let client = Client::to_read(global).await?;
    match command {
        RolloutCommand::History { agent } => history(&client, agent).await,
        RolloutCommand::Undo(args) => undo(&client, args).await,
    }
}

async fn history(client: &Client, agent: &AgentName) -> Result<u8, ApiError> {
    let (detail, all) = generations(client, agent).await?;
    if client.json() {
        output::json(&all)?;
        return Ok(0);
    }
    let now = now();
    let cells = |one: &Generation| {
        let changed = match (&one.asked, &one.changes) {
            (Some(asked), _) => asked.clone(),
            (None, None) => String::new(),
            (None, Some(changes)) if changes.is_empty() => "nothing: --force".to_owned(),
            (None, Some(changes)) => changes::instructions(changes),
        };
        vec![
            one.generation.to_string(),
            format!("{} ago", table::short(now.since(one.at))),
            one.by.clone(),
            one.state.to_owned(),
            changed,
        ]
    };
    let rows = all.iter().rev().map(cells);
    output::line(table::table(&["GEN", "APPLIED", "BY", "STATE", "CHANGED"], rows))?;
    let newest = detail.row.given_up.as_ref().map(|why| (detail.row.generation, why));
    for one in all.iter().rev() {
        match (newest, &one.why) {
            // With what runs instead.
            (Some((generation, why)), _) if generation == one.generation => {
                output::note(why.as_str());
            }
            (_, Some(why)) => {
                output::note(format!("generation {} was given up: {why}", one.generation));
            }
            (_, None) => {}
        }
    }
    Ok(0)
}

async fn undo(client: &Client, args: &UndoArgs) -> Result<u8, ApiError> {
    let agent = &args.agent;
    let to = match args.to_generation {
        Some(wanted) => Some(earlier(client, agent, wanted).await?),
        None => None,
    };
    let of = to.as_ref().map(|to| to.generation);
    let asked = client.change(&Query::Rollback { agent: agent.clone(), to }).await?;
    if args.wait {
        let deadline = Instant::now() + args.timeout;
        for one in &asked {
            replace::wait(client, one, deadline, args.timeout).await?;
        }
    }
    let written = match client.json() {
        true => output::json(&asked),
        false => output::line(agent.as_str()),
    };
    if let (Some(of), [one], false) = (of, asked.as_slice(), client.json()) {
        output::note(format!("generation {} has the spec of generation {of}", one.generation));
    }
    output::result(written, || format!("the rollout of {agent} was undone")).map(|()| 0)
}
