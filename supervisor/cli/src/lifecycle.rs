//! `mozart start`, `stop`, `restart`, `rm`, and `wait`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use common::AgentName;
use common::api::{AgentRow, AgentState, ApiError, Counts, Query};
use tokio::time::Instant;

use super::client::Client;
use super::output;
use super::progress::Progress;
use crate::args::{Global, Output, duration};
use common::failure;

/// The agents of a lifecycle command.
#[derive(Debug, Args)]
pub struct AgentsArgs {
    /// The agents
    #[arg(required = true, value_name = "AGENT")]
    agents: Vec<AgentName>,
}

/// What is to become of the agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Start,
    Stop,
    Restart,
    Remove,
}

impl Change {
    fn query(self, agent: AgentName) -> Query {
        match self {
            Self::Start => Query::Start { agent },
            Self::Stop => Query::Stop { agent },
            Self::Restart => Query::Restart { agent },
            Self::Remove => Query::Remove { agent },
        }
    }
}

/// Asks for the change of each agent; one that cannot be changed does not keep the others from it. Prints a name as soon as its
/// change is in the control log.
///
/// # Errors
/// The first agent's that could not be changed.
pub(crate) async fn change(
    global: &Global,
    args: AgentsArgs,
    change: Change,
) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let mut changed = Vec::new();
    let mut failures = Failures::new(global.output);
    for agent in args.agents {
        match client.change(&change.query(agent.clone())).await {
            Ok(applied) => {
                changed.extend(applied);
                if !client.json() {
                    output::line(agent.as_str())?;
                }
            }
            Err(error) => failures.add(error),
        }
    }
    if client.json() {
        output::json(&changed)?;
    }
    failures.end()
}

/// The errors of several agents: the first one ends the command, with its exit code; the others are printed at once.
#[derive(Debug)]
pub(crate) struct Failures {
    output: Output,
    first: Option<ApiError>,
}

impl Failures {
    /// No error yet.
    pub(crate) fn new(output: Output) -> Self {
        Self { output, first: None }
    }

    /// Keeps the first one, prints later ones.
    pub(crate) fn add(&mut self, error: ApiError) {
        match self.first {
            None => self.first = Some(error),
            Some(_) => output::complain(&error, self.output),
        }
    }

    /// How the command ends.
    ///
    /// # Errors
    /// The first one.
    pub(crate) fn end(self) -> Result<u8, ApiError> {
        self.first.map_or(Ok(0), Err)
    }
}

/// `mozart wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The agent
    agent: AgentName,
    /// The state to wait for
    #[arg(long = "for", value_enum, default_value_t, value_name = "STATE")]
    until: Until,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Until {
    /// Its worker receives messages.
    #[default]
    Running,
    /// Running, with no message waiting or in progress.
    Idle,
    /// Stopped, or removed.
    Stopped,
}

impl Until {
    fn holds(self, row: Option<&AgentRow>) -> bool {
        let Some(row) = row else {
            return self == Self::Stopped;
        };
        match self {
            Self::Running => runs(row),
            Self::Idle => {
                runs(row) && row.counts == Counts::Current && row.inbox + row.inflight == 0
            }
            Self::Stopped => row.state == AgentState::Stopped,
        }
    }
}

/// Whether the newest generation of an agent takes messages.
pub(crate) fn runs(row: &AgentRow) -> bool {
    row.state == AgentState::Running && row.running_generation == Some(row.generation)
}

/// That waiting for the newest generation of an agent is in vain: it was given up, or the agent is quarantined.
pub(crate) fn given_up(row: &AgentRow) -> Option<ApiError> {
    let (agent, generation) = (&row.agent, row.generation);
    let Some(why) = row.given_up.as_ref() else {
        let why = row.reason.clone().filter(|_| row.quarantined)?;
        let try_ = format!("`mozart explain {agent}`; `mozart start {agent}` releases it");
        let what = format!("{agent} is quarantined");
        return Some(failure::error(failure::FAILED, what, why, try_));
    };
    // What runs instead is said already.
    let why = why.strip_prefix(&format!("generation {generation} ")).unwrap_or(why);
    let (why, what) = match row.running_generation {
        Some(runs) if runs == generation => {
            (why, format!("the replacement of {agent} was given up"))
        }
        Some(runs) => {
            let keeps = format!("; generation {runs} keeps running");
            let what = format!(
                "generation {generation} of {agent} was given up, generation {runs} is running"
            );
            (why.strip_suffix(&keeps).unwrap_or(why), what)
        }
        None => (why, format!("generation {generation} of {agent} was given up")),
    };
    let try_ = format!("`mozart explain {agent}`, `mozart logs {agent}`");
    Some(failure::error(failure::FAILED, what, why, try_))
}

/// That an agent is stopped, and stays so until somebody starts it.
fn rests(row: &AgentRow) -> Option<ApiError> {
    let is_stopped = matches!(row.state, AgentState::Stopping | AgentState::Stopped);
    is_stopped.then(|| {
        let (agent, state) = (&row.agent, row.state.as_str());
        let cause = row.reason.clone().unwrap_or_else(|| "it was stopped".to_owned());
        let try_ = format!("`mozart start {agent}`");
        failure::error(failure::FAILED, format!("{agent} is {state}"), cause, try_)
    })
}

/// Waits until an agent is as wanted.
///
/// # Errors
/// 3 when there is no such agent, 5 when it takes too long.
pub(crate) async fn wait(global: &Global, args: &WaitArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let deadline = Instant::now() + args.timeout;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let progress = Progress::new();
    let mut is_said = false;
    if !super::agents::exists(&client.broker, &args.agent).await? {
        let error = super::agents::meant(&client, &args.agent).await;
        // What was removed may still be stopping.
        if args.until != Until::Stopped || !error.cause.starts_with("it was removed") {
            return Err(error);
        }
    }
    loop {
        tick.tick().await;
        // A supervisor that is being restarted is not the agent's failure: only the deadline ends the wait.
        // Only the journal tells what is idle, and it is not read for nothing.
        let rows = match (args.until, client.json()) {
            (Until::Idle, _) | (Until::Running, true) => client.rows(Some(&args.agent)).await,
            (Until::Running, false) => client.brief_rows(Some(&args.agent)).await,
            // Among all of them, also one that was removed and finishes its open turns.
            (Until::Stopped, _) => client.brief_rows(None).await,
        };
        let seen = match rows {
            Ok(rows) => {
                let row = rows.into_iter().find(|row| row.agent == args.agent);
                let failed = row
                    .as_ref()
                    .filter(|row| !runs(row))
                    .and_then(|row| given_up(row).or_else(|| rests(row)));
                if let Some(error) = failed.filter(|_| args.until != Until::Stopped) {
                    return Err(error);
                }
                if args.until.holds(row.as_ref()) {
                    if client.json() && args.until == Until::Stopped && row.is_some() {
                        // With the figures that only the journal has.
                        let whole = client.rows(Some(&args.agent)).await.unwrap_or_default();
                        output::json(&whole.into_iter().next().or(row))?;
                    } else if client.json() {
                        output::json(&row)?;
                    }
                    return Ok(0);
                }
                row.map(Ok)
            }
            Err(error) if error.code == failure::NOT_FOUND => {
                if args.until != Until::Stopped {
                    return Err(error);
                }
                if client.json() {
                    output::json(&None::<AgentRow>)?;
                }
                return Ok(0);
            }
            Err(error) => Some(Err(error)),
        };
        if Instant::now() >= deadline {
            return Err(late(args, seen));
        }
        match &seen {
            Some(Ok(row)) => {
                let reason = row.reason.as_deref().unwrap_or("");
                progress.say(format!("{} is {} {reason}", row.agent, row.state.as_str()));
            }
            Some(Err(error)) if !std::mem::replace(&mut is_said, true) => {
                output::note(format!("waiting: {}", error.what));
            }
            Some(Err(_)) | None => {}
        }
    }
}

fn late(args: &WaitArgs, seen: Option<Result<AgentRow, ApiError>>) -> ApiError {
    let cause = match seen {
        Some(Ok(row)) => {
            let busy = super::ps::busy(&row);
            match row.reason {
                Some(reason) => format!("it is {}: {reason}; {busy}", row.state.as_str()),
                None => format!("it is {}; {busy}", row.state.as_str()),
            }
        }
        Some(Err(error)) => error.what,
        None => "the supervisor does not know it".to_owned(),
    };
    let until = match args.until {
        Until::Running => "running",
        Until::Idle => "idle",
        Until::Stopped => "stopped",
    };
    let timeout = humantime::format_duration(args.timeout);
    let what = format!("{} is not {until} after {timeout}", args.agent);
    failure::error(failure::TIMEOUT, what, cause, format!("`mozart explain {}`", args.agent))
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::row;
    use super::*;

    #[test]
    fn idle_is_running_with_nothing_to_do() {
        let mut agent = row("a", AgentState::Running);
        assert!(Until::Running.holds(Some(&agent)));
        assert!(!Until::Idle.holds(Some(&agent)));
        agent.inbox = 0;
        agent.inflight = 0;
        assert!(Until::Idle.holds(Some(&agent)));
        agent.state = AgentState::Error;
        assert!(!Until::Idle.holds(Some(&agent)));
        agent.state = AgentState::Running;
        for counts in [Counts::Earlier, Counts::Unknown] {
            agent.counts = counts;
            assert!(!Until::Idle.holds(Some(&agent)), "{counts:?}");
        }
    }

    #[test]
    fn what_is_gone_is_stopped() {
        assert!(Until::Stopped.holds(None));
        assert!(!Until::Running.holds(None));
        assert!(Until::Stopped.holds(Some(&row("a", AgentState::Stopped))));
    }
}
