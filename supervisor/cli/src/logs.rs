//! `mozart logs`.

use std::collections::BTreeMap;

use clap::Args;
use common::api::ApiError;
use common::{AgentName, MessageId, Timestamp};
use serde::Serialize;

use super::client::Client;
use super::output;
use crate::args::Global;
use broker::Attempt;
use common::failure;
use common::log::LogLine;

/// `mozart logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The agent
    agent: AgentName,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only this incarnation's
    #[arg(long, value_name = "N", conflicts_with = "previous")]
    incarnation: Option<u64>,
    /// Only that of the incarnation before the last one
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Only what was written while this message was being answered
    #[arg(long, value_name = "ID")]
    message: Option<MessageId>,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Show time, incarnation and stream before each line
    #[arg(short, long)]
    timestamps: bool,
}

/// A log line in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    agent: &'a AgentName,
    incarnation: u64,
    #[serde(flatten)]
    line: &'a LogLine,
}

/// Shows what an agent's workers wrote.
///
/// # Errors
/// 3 when there is no such agent.
pub(crate) async fn run(global: &Global, args: &LogsArgs) -> Result<u8, ApiError> {
    const WHAT: &str = "cannot read the log";
    let client = Client::connect(global).await?;
    // Before the stored lines are read, so that none falls in between.
    let mut live = if args.follow {
        Some(client.broker.follow_logs(&args.agent).await.attempt(WHAT)?)
    } else {
        None
    };
    let mut lines = client.broker.logs(&args.agent, None, usize::MAX).await.attempt(WHAT)?;
    if lines.is_empty() {
        // An agent that was removed may have left lines; one that never was has none.
        super::agents::require(&client, &args.agent).await?;
    }
    let mut seen = Seen::new(&lines);
    let only = if args.previous {
        Some(previous(&client, &args.agent, &lines).await?)
    } else {
        args.incarnation
    };
    lines.retain(|line| wanted(line, only, args.message.as_ref()));
    if let Some(tail) = args.tail {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    if client.json() && live.is_none() {
        let shown: Vec<Shown<'_>> = lines.iter().map(|line| shown(&args.agent, line)).collect();
        output::json(&shown)?;
        return Ok(0);
    }
    for line in &lines {
        show(&client, args, line)?;
    }
    while let Some(follower) = &mut live {
        for line in follower.next().await.attempt(WHAT)? {
            if seen.is_new(&line) && wanted(&line, only, args.message.as_ref()) {
                show(&client, args, &line)?;
            }
        }
    }
    Ok(0)
}

/// The incarnation before the one that runs, or ran last.
async fn previous(client: &Client, agent: &AgentName, lines: &[LogLine]) -> Result<u64, ApiError> {
    // Without a supervisor the lines themselves tell which incarnations there were.
    let rows = client.brief_rows(Some(agent)).await.unwrap_or_default();
    let current = rows
        .iter()
        .find(|row| row.agent == *agent)
        .map(|row| row.incarnation)
        .or_else(|| lines.iter().map(|line| line.incarnation).max())
        .unwrap_or(0);
    if current < 2 {
        let what = format!("{agent} has no previous incarnation");
        let cause = format!("it was started {current} times");
        return Err(failure::error(
            failure::NOT_FOUND,
            what,
            cause,
            format!("`mozart logs {agent}`"),
        ));
    }
    Ok(current - 1)
}

fn wanted(line: &LogLine, incarnation: Option<u64>, message: Option<&MessageId>) -> bool {
    incarnation.is_none_or(|wanted| line.incarnation == wanted)
        && message.is_none_or(|wanted| line.message_id.as_deref() == Some(wanted.as_str()))
}

fn shown<'a>(agent: &'a AgentName, line: &'a LogLine) -> Shown<'a> {
    Shown { agent, incarnation: line.incarnation, line }
}

fn show(client: &Client, args: &LogsArgs, line: &LogLine) -> Result<(), ApiError> {
    if client.json() {
        return output::json_line(&shown(&args.agent, line));
    }
    if args.timestamps {
        let LogLine { at, stream, text, incarnation, .. } = line;
        return output::line(format!("{at} {incarnation} {stream} {text}"));
    }
    output::line(&line.text)
}

/// The stored lines that may come again as live ones, each as often as it was stored.
struct Seen(BTreeMap<(u64, Timestamp, String), u32>);

impl Seen {
    /// Live lines overlap with few stored ones: those that came while these were being read.
    const MOST: usize = 10_000;

    fn new(stored: &[LogLine]) -> Self {
        let mut seen = BTreeMap::new();
        for line in stored.iter().rev().take(Self::MOST) {
            *seen.entry(Self::key(line)).or_insert(0) += 1;
        }
        Self(seen)
    }

    fn key(line: &LogLine) -> (u64, Timestamp, String) {
        (line.incarnation, line.at, line.text.clone())
    }

    fn is_new(&mut self, line: &LogLine) -> bool {
        match self.0.get_mut(&Self::key(line)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(incarnation: u64, at: u64, text: &str, message: Option<&str>) -> LogLine {
        LogLine {
            at: Timestamp::from_millis(at),
            stream: "stderr".to_owned(),
            text: text.to_owned(),
            message_id: message.map(str::to_owned),
            incarnation,
        }
    }

    #[test]
    fn a_line_that_was_stored_and_told_is_shown_once() {
        let mut seen = Seen::new(&[line(1, 5, "a", None)]);
        assert!(!seen.is_new(&line(1, 5, "a", None)));
        assert!(seen.is_new(&line(1, 5, "a", None)));
        assert!(seen.is_new(&line(2, 5, "a", None)));
    }

    #[test]
    fn lines_are_picked_by_incarnation_and_message() {
        let message = MessageId::new("m1").expect("valid");
        let line = line(2, 5, "a", Some("m1"));
        assert!(wanted(&line, Some(2), Some(&message)));
        assert!(!wanted(&line, Some(1), None));
        let other = MessageId::new("m2").expect("valid");
        assert!(!wanted(&line, None, Some(&other)));
    }
}
