//! `mozart replace`: new incarnations, another image, the way back, and whether it worked.

use std::time::Duration;

use clap::Args;
use common::AgentName;
use common::api::{AgentRow, AgentState, ApiError, Applied, Query};
use tokio::time::Instant;

use super::client::Client;
use super::lifecycle::{Failures, quoting};
use super::output;
use crate::args::{Global, duration};
use common::failure;

/// `mozart replace`.
#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// The agents
    #[arg(required = true, value_name = "AGENT")]
    agents: Vec<AgentName>,
    /// Create a new generation with this image; the soul's file is not changed
    #[arg(long, value_name = "REF", value_parser = common::soul::image)]
    image: Option<String>,
    /// Go back to the previous generation that was ready
    #[arg(long, conflicts_with = "image")]
    rollback: bool,
    /// Wait until the replacement is running; fail if it is rolled back
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
}

impl ReplaceArgs {
    fn query(&self, agent: AgentName) -> Query {
        match &self.image {
            None if self.rollback => Query::Rollback { agent, to: None },
            image => Query::Replace { agent, image: image.clone() },
        }
    }
}

/// Replaces the agents side by side; one that cannot be replaced does not keep the others from it. Prints a name as soon as the
/// change is in the control log or, when that is awaited, once the replacement runs.
///
/// # Errors
/// The first agent's: 4 when there is nothing to go back to, 1 when the replacement was rolled back, 5 when it takes too long.
pub(crate) async fn run(global: &Global, args: &ReplaceArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let mut failures = Failures::new(global.output);
    let mut asked = Vec::new();
    // That a name cannot be written keeps no agent from being replaced.
    let mut written = Ok(());
    for agent in &args.agents {
        match client.change(&args.query(agent.clone())).await {
            Ok(applied) => {
                if !args.wait && !client.json() {
                    written = written.and_then(|()| output::line(agent.as_str()));
                }
                asked.extend(applied);
            }
            Err(error) => failures.add(error),
        }
    }
    if args.wait {
        let deadline = Instant::now() + args.timeout;
        let mut replaced = Vec::new();
        for one in asked {
            match wait(&client, &one, deadline, args.timeout).await {
                Ok(()) => {
                    if !client.json() {
                        written = written.and_then(|()| output::line(one.agent.as_str()));
                    }
                    replaced.push(one);
                }
                Err(error) => failures.add(error),
            }
        }
        asked = replaced;
    }
    if client.json() {
        written = output::json(&asked);
    }
    let code = failures.end()?;
    written.map(|()| code)
}

/// The state of a replacement.
#[derive(Debug, PartialEq, Eq)]
enum Stand {
    /// It takes messages.
    Runs,
    /// It was given up, for this reason; whether what it was to replace takes messages.
    GivenUp { why: String, runs: bool },
    /// The agent is stopped: nothing is going to start.
    Stopped,
    /// None of these yet.
    Open,
}

fn stand(asked: &Applied, row: &AgentRow) -> Stand {
    let is_ours =
        row.generation == asked.generation && row.incarnation > asked.previous_incarnation;
    if let Some(why) = row.given_up.as_ref().filter(|_| is_ours) {
        return Stand::GivenUp { why: why.clone(), runs: row.running_incarnation.is_some() };
    }
    // A replacement that somebody else asked for meanwhile is as good.
    if row.running_generation >= Some(asked.generation)
        && row.running_incarnation > Some(asked.previous_incarnation)
    {
        return Stand::Runs;
    }
    match row.state {
        AgentState::Stopping | AgentState::Stopped => Stand::Stopped,
        AgentState::Starting | AgentState::Running | AgentState::Error => Stand::Open,
    }
}

/// Waits until a replacement runs.
///
/// # Errors
/// 1 when it was given up or the agent is stopped, 5 when it takes too long.
pub(super) async fn wait(
    client: &Client,
    asked: &Applied,
    deadline: Instant,
    timeout: Duration,
) -> Result<(), ApiError> {
    let agent = &asked.agent;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        let is_late = Instant::now() >= deadline;
        // A supervisor that is being restarted is not the agent's failure: only the deadline ends the wait.
        let row = match client.brief_rows(Some(agent)).await {
            Ok(rows) => rows.into_iter().find(|row| row.agent == *agent),
            Err(error) if error.code == failure::NOT_FOUND || is_late => return Err(error),
            Err(_) => continue,
        };
        let stand = row.as_ref().map_or(Stand::Open, |row| stand(asked, row));
        match stand {
            Stand::Runs => return Ok(()),
            Stand::GivenUp { why, runs } if runs || is_late => {
                let error = given_up(agent, why, runs);
                return Err(match &row {
                    Some(row) => quoting(&client.broker, row, error).await,
                    None => error,
                });
            }
            Stand::Stopped => return Err(stopped(agent, row.and_then(|row| row.reason))),
            Stand::GivenUp { .. } | Stand::Open if is_late => {
                return Err(late(agent, row, timeout));
            }
            Stand::GivenUp { .. } | Stand::Open => {}
        }
    }
}

fn given_up(agent: &AgentName, why: String, runs: bool) -> ApiError {
    let cause = if runs { why } else { format!("{why}, which is not ready yet") };
    let try_ = format!("`mozart explain {agent}`, `mozart logs {agent}`");
    failure::error(failure::FAILED, format!("{agent} was not replaced"), cause, try_)
}

fn stopped(agent: &AgentName, reason: Option<String>) -> ApiError {
    let cause = reason.unwrap_or_else(|| "it is stopped".to_owned());
    let what = format!("the replacement of {agent} is not running");
    failure::error(failure::FAILED, what, cause, format!("`mozart start {agent}`"))
}

fn late(agent: &AgentName, row: Option<AgentRow>, timeout: Duration) -> ApiError {
    let cause = match row {
        Some(AgentRow { state, reason: Some(reason), .. }) => {
            format!("{agent} is {}: {reason}", state.as_str())
        }
        Some(row) => format!("{agent} is {}", row.state.as_str()),
        None => "the supervisor does not know it".to_owned(),
    };
    let timeout = humantime::format_duration(timeout);
    let what = format!("the replacement of {agent} is not running after {timeout}");
    failure::error(failure::TIMEOUT, what, cause, format!("`mozart explain {agent}`"))
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::row;
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        args: ReplaceArgs,
    }

    fn args(words: &[&str]) -> Result<ReplaceArgs, String> {
        let words = ["replace", "a"].iter().chain(words);
        Words::try_parse_from(words).map(|words| words.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_options_say_what_is_asked_and_whether_it_is_awaited() {
        let agent = || AgentName::new("a").expect("valid");
        let image = |image: Option<&str>| Query::Replace {
            agent: agent(),
            image: image.map(str::to_owned),
        };
        let back = || Query::Rollback { agent: agent(), to: None };
        let cases: [(&[&str], Query, bool); 5] = [
            (&[], image(None), false),
            (&["--wait"], image(None), true),
            (&["--image", "b:2"], image(Some("b:2")), false),
            (&["--rollback"], back(), false),
            (&["--rollback", "--wait"], back(), true),
        ];
        for (words, query, waits) in cases {
            let args = args(words).expect("parses");
            assert_eq!((args.query(agent()), args.wait), (query, waits), "{words:?}");
        }
        let refused = args(&["--image", "B:2"]).expect_err("not an image");
        assert!(refused.contains("did you mean `b:2`?"), "{refused}");
        // Whether to go on or back is for the person to say; what does not become ready is rolled back anyway.
        assert!(args(&["--image", "b:2", "--rollback"]).is_err());
    }

    /// Generation 3 was asked for while incarnation 5 ran.
    fn asked() -> Applied {
        let agent = AgentName::new("a").expect("valid");
        Applied { agent, generation: 3, changed: true, created: false, previous_incarnation: 5 }
    }

    fn seen(state: AgentState, runs: Option<(u64, u64)>, given_up: Option<&str>) -> AgentRow {
        AgentRow {
            generation: 3,
            incarnation: 6,
            reported: true,
            running_incarnation: runs.map(|(incarnation, _)| incarnation),
            running_generation: runs.map(|(_, generation)| generation),
            given_up: given_up.map(str::to_owned),
            ..row("a", state)
        }
    }

    #[test]
    fn a_replacement_runs_or_is_given_up_or_neither_yet() {
        use AgentState::{Running, Starting, Stopped};
        let given_up = |runs| Stand::GivenUp { why: "no".to_owned(), runs };
        let cases = [
            (seen(Running, Some((6, 3)), None), Stand::Runs),
            (seen(Running, Some((5, 2)), None), Stand::Open),
            (seen(Running, Some((6, 2)), None), Stand::Open),
            (seen(Running, Some((5, 3)), None), Stand::Open),
            (seen(Starting, None, None), Stand::Open),
            (seen(Running, Some((5, 2)), Some("no")), given_up(true)),
            (seen(Starting, None, Some("no")), given_up(false)),
            (seen(Stopped, None, None), Stand::Stopped),
            // What a supervisor says that has not folded the change yet, and what is about a later one.
            (AgentRow { generation: 2, ..seen(Running, Some((5, 2)), Some("no")) }, Stand::Open),
            (AgentRow { incarnation: 5, ..seen(Running, Some((5, 2)), Some("no")) }, Stand::Open),
            (AgentRow { generation: 4, ..seen(Running, Some((6, 3)), Some("no")) }, Stand::Runs),
        ];
        for (row, expected) in cases {
            assert_eq!(stand(&asked(), &row), expected, "{row:?}");
        }
    }

    #[test]
    fn a_rollback_is_exit_1_and_says_what_runs() {
        let why = "generation 3 was given up: it did not become ready: exit code 1; generation 2 runs again";
        let error = given_up(&asked().agent, why.to_owned(), true);
        assert_eq!((error.code, error.cause.as_str()), (1, why));
        assert_eq!(late(&asked().agent, None, Duration::from_secs(1)).code, 5);
    }
}
