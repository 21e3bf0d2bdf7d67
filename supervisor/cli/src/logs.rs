//! `mozart logs`.

use std::collections::{BTreeMap, BTreeSet};

use broker::ConnectOptions;
use clap::Args;
use clap::builder::styling::{AnsiColor, Color, Style};
use common::api::ApiError;
use common::words::count;
use common::{AgentName, MessageId, Timestamp};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;

use super::client::Client;
use super::output;
use crate::args::{Global, moment};
use broker::Attempt;
use common::failure;
use common::log::LogLine;
use mozart_client::reference::MessageRef;

/// `mozart logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The agents [default: all]
    #[arg(value_name = "AGENT")]
    agents: Vec<AgentName>,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Only lines of this incarnation, of one agent
    #[arg(long, value_name = "N", conflicts_with = "previous")]
    incarnation: Option<u64>,
    /// Only lines of the previous incarnation, of one agent
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Only lines written while this message was being answered: ID, AGENT/ID or AGENT/SENDER/ID
    #[arg(long, value_name = "MESSAGE")]
    message: Option<MessageRef>,
    /// Only lines written since: 10m, 2026-11-01, 2026-11-01T12:00:00Z (both UTC)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
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

impl<'a> Shown<'a> {
    fn new((agent, line): &'a (AgentName, LogLine)) -> Self {
        Self { agent, incarnation: line.incarnation, line }
    }
}

const WHAT: &str = "cannot read the log";

/// Shows what agents' workers wrote.
///
/// # Errors
/// 3 when there is no such agent or message.
pub(crate) async fn run(global: &Global, args: &LogsArgs) -> Result<u8, ApiError> {
    if (args.previous || args.incarnation.is_some()) && args.agents.len() != 1 {
        let cause = "incarnations are counted per agent";
        let what = "--incarnation and --previous need one agent";
        return Err(failure::error(failure::USAGE, what, cause, "`mozart logs AGENT --previous`"));
    }
    let client = Client::to_read(global).await?;
    // Before the stored lines are read, so that none falls in between.
    let mut live = if args.follow {
        Some(client.broker.follow_logs(&args.agents).await.attempt(WHAT)?)
    } else {
        None
    };
    let broker = &client.broker;
    let stored = broker.logs_since(&args.agents, None, args.since, usize::MAX).await;
    let mut lines = stored.attempt(WHAT)?;
    // An agent that was removed may have left lines; one that never was has none.
    let silent = args.agents.iter().filter(|agent| !lines.iter().any(|(of, _)| of == *agent));
    for agent in silent {
        mozart_client::agents::require(&client, agent).await?;
    }
    let mut seen = Seen::new(&lines);
    let incarnation = match args.agents.first().filter(|_| args.previous) {
        Some(agent) => Some(previous(&client, agent, &lines).await?),
        None => args.incarnation,
    };
    let message = match &args.message {
        Some(message) => Some(resolve(&client, message, &lines).await?),
        None => None,
    };
    let wanted = |line: &LogLine| wanted(line, incarnation, message.as_ref());
    lines.retain(|(_, line)| wanted(line));
    if args.tail.is_none() && args.since.is_none() && message.is_none() {
        trimmed(&lines).into_iter().for_each(output::note);
    }
    lines.retain(|(_, line)| !line.is_trimmed());
    if args.agents.len() != 1 {
        // Each agent's shim stores what it has in one go.
        lines.sort_by_key(|(_, line)| line.at);
    }
    if let Some(tail) = args.tail {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    if client.json() && live.is_none() {
        output::json(&lines.iter().map(Shown::new).collect::<Vec<_>>())?;
        return Ok(0);
    }
    let mut names = Names::new(args, lines.iter().map(|(agent, _)| agent));
    for line in &lines {
        show(&client, args, &mut names, line)?;
    }
    while let Some(follower) = &mut live {
        for line in follower.next().await.attempt(WHAT)? {
            if seen.is_new(&line) && wanted(&line.1) && !line.1.is_trimmed() {
                show(&client, args, &mut names, &line)?;
            }
        }
    }
    Ok(0)
}

/// That logs do not begin with their first line.
fn trimmed(lines: &[(AgentName, LogLine)]) -> Vec<String> {
    let trimmed = lines.iter().filter(|(_, line)| line.is_trimmed());
    let of: BTreeSet<_> = trimmed.map(|(agent, line)| (agent, line.incarnation)).collect();
    let say = |(agent, incarnation)| {
        format!(
            "note: earlier lines of {agent}, incarnation {incarnation}, were dropped: a log keeps its last 8 MiB"
        )
    };
    of.into_iter().map(say).collect()
}

/// The message whose lines are wanted. One that the journal has no more may have left some.
async fn resolve(
    client: &Client,
    message: &MessageRef,
    lines: &[(AgentName, LogLine)],
) -> Result<MessageId, ApiError> {
    let given = &message.message_id;
    if lines.iter().any(|(_, line)| line.message_id.as_deref() == Some(given.as_str())) {
        return Ok(given.clone());
    }
    Ok(message.resolve(&client.broker).await?.value.message_id)
}

/// The incarnation before the one that runs, or ran last.
async fn previous(
    client: &Client,
    agent: &AgentName,
    lines: &[(AgentName, LogLine)],
) -> Result<u64, ApiError> {
    // Without a supervisor the lines themselves tell which incarnations there were.
    let rows = client.brief_rows(Some(agent)).await.unwrap_or_default();
    let current = rows
        .iter()
        .find(|row| row.agent == *agent)
        .map(|row| row.incarnation)
        .or_else(|| lines.iter().map(|(_, line)| line.incarnation).max())
        .unwrap_or(0);
    if current < 2 {
        let what = format!("{agent} has no previous incarnation");
        let cause = format!("it was started {}", count(current, "time", "times"));
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

fn show(
    client: &Client,
    args: &LogsArgs,
    names: &mut Names,
    shown: &(AgentName, LogLine),
) -> Result<(), ApiError> {
    if client.json() {
        return output::json_line(&Shown::new(shown));
    }
    let (agent, LogLine { at, stream, text, incarnation, .. }) = shown;
    let text = match args.timestamps {
        true => format!("{at} {incarnation} {stream} {text}"),
        false => marked(stream, text),
    };
    output::bytes(names.of(agent, &text).as_bytes())
}

/// Shows what all workers write from now on, for a fleet in the foreground. Ends when stdout is closed; a reader that does
/// not read delays nothing else.
///
/// # Errors
/// When the broker does not answer.
pub async fn attach(options: &ConnectOptions) -> Result<(), ApiError> {
    let broker = broker::Broker::connect(options).await.attempt(WHAT)?;
    let mut follower = broker.follow_logs(&[]).await.attempt(WHAT)?;
    let mut names = Names {
        are_shown: true,
        is_coloured: output::stdout_is_terminal() && output::colour(),
        width: 0,
    };
    let mut stdout = tokio::io::stdout();
    loop {
        let lines = follower.next().await.attempt(WHAT)?;
        let lines =
            lines.iter().map(|(agent, line)| names.of(agent, &marked(&line.stream, &line.text)));
        let text: String = lines.collect();
        let written = stdout.write_all(text.as_bytes()).await;
        if written.is_err() || stdout.flush().await.is_err() {
            return Ok(());
        }
    }
}

/// A line as it is shown: Mozart's own lines are marked.
fn marked(stream: &str, text: &str) -> String {
    if stream == "shim" { format!("[mozart] {text}") } else { text.to_owned() }
}

/// The names before the lines of several agents, in a column; on a terminal each agent has a colour.
#[derive(Debug)]
struct Names {
    are_shown: bool,
    is_coloured: bool,
    width: usize,
}

impl Names {
    fn new<'a>(args: &'a LogsArgs, agents: impl Iterator<Item = &'a AgentName>) -> Self {
        let longest = agents.chain(&args.agents).map(|agent| agent.as_str().len()).max();
        Self {
            are_shown: args.agents.len() != 1,
            is_coloured: output::stdout_is_terminal() && output::colour(),
            width: longest.unwrap_or(0),
        }
    }

    /// A line as it is written: what it says does not steer a terminal, the colour before it does.
    fn of(&mut self, agent: &AgentName, text: &str) -> String {
        let text = match output::stdout_is_terminal() {
            true => output::shown(text),
            false => text.into(),
        };
        if !self.are_shown {
            return format!("{text}\n");
        }
        self.width = self.width.max(agent.as_str().len());
        let name = format!("{agent:<width$} |", agent = agent.as_str(), width = self.width);
        let style = if self.is_coloured { colour_of(agent) } else { Style::new() };
        format!("{style}{name}{style:#} {text}\n")
    }
}

/// The same for an agent whenever it is shown.
fn colour_of(agent: &AgentName) -> Style {
    const COLOURS: [AnsiColor; 6] = [
        AnsiColor::Cyan,
        AnsiColor::Yellow,
        AnsiColor::Green,
        AnsiColor::Magenta,
        AnsiColor::Blue,
        AnsiColor::Red,
    ];
    let sum: usize = agent.as_str().bytes().map(usize::from).sum();
    let colour = COLOURS.get(sum % COLOURS.len()).copied();
    Style::new().fg_color(colour.map(Color::from))
}

/// The stored lines that may come again as live ones, each as often as it was stored.
struct Seen(BTreeMap<(AgentName, u64, Timestamp, String), u32>);

impl Seen {
    /// Live lines overlap with few stored ones: those that came while these were being read.
    const MOST: usize = 10_000;

    fn new(stored: &[(AgentName, LogLine)]) -> Self {
        let mut seen = BTreeMap::new();
        for line in stored.iter().rev().take(Self::MOST) {
            *seen.entry(Self::key(line)).or_insert(0) += 1;
        }
        Self(seen)
    }

    fn key((agent, line): &(AgentName, LogLine)) -> (AgentName, u64, Timestamp, String) {
        (agent.clone(), line.incarnation, line.at, line.text.clone())
    }

    fn is_new(&mut self, line: &(AgentName, LogLine)) -> bool {
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
        let of = |agent: &str, incarnation| {
            (AgentName::new(agent).expect("valid"), line(incarnation, 5, "a", None))
        };
        let mut seen = Seen::new(&[of("a", 1)]);
        assert!(seen.is_new(&of("b", 1)));
        assert!(!seen.is_new(&of("a", 1)));
        assert!(seen.is_new(&of("a", 1)));
        assert!(seen.is_new(&of("a", 2)));
    }

    #[test]
    fn a_log_whose_beginning_is_gone_is_named_once() {
        let agent = || AgentName::new("a").expect("valid");
        let shim = |text: &str| LogLine { stream: "shim".to_owned(), ..line(2, 5, text, None) };
        let worker = line(1, 5, common::log::TRIMMED, None);
        let lines: Vec<_> =
            [worker, shim("x"), shim(common::log::TRIMMED), shim(common::log::TRIMMED)]
                .map(|line| (agent(), line))
                .into();
        let said =
            "note: earlier lines of a, incarnation 2, were dropped: a log keeps its last 8 MiB";
        assert_eq!(trimmed(&lines), [said]);
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
