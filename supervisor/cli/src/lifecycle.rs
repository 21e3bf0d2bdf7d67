//! `mozart start`, `stop`, `restart`, `rm`, and `wait`.

use std::time::Duration;

use broker::Broker;
use clap::{Args, ValueEnum};
use common::AgentName;
use common::api::{AgentRow, AgentState, ApiError, Applied, Counts, Query};
use tokio::time::Instant;

use super::client::Client;
use super::output;
use super::progress::Progress;
use super::table::count;
use crate::args::{Global, Output, duration};
use common::failure;
use mozart_client::agents;
use mozart_client::explain::last_words;

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

    /// What was asked for is on record.
    fn done(self, agents: &[Applied]) -> String {
        let requested = match self {
            Self::Start => "a start",
            Self::Stop => "a stop",
            Self::Restart => "a restart",
            Self::Remove => "the removal",
        };
        let names = agents.iter().map(|one| one.agent.as_str()).collect::<Vec<_>>().join(", ");
        format!("{requested} of {names} was requested")
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
    // That a name cannot be written keeps no agent from its change.
    let mut written = Ok(());
    for agent in args.agents {
        match client.change(&change.query(agent.clone())).await {
            Ok(applied) => {
                changed.extend(applied);
                if !client.json() {
                    written = written.and_then(|()| output::line(agent.as_str()));
                }
            }
            Err(error) => failures.add(error),
        }
    }
    if client.json() {
        written = output::json(&changed);
    }
    let code = failures.end()?;
    output::result(written, || change.done(&changed)).map(|()| code)
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
    // What the log takes for running may have ended with its host.
    row.state == AgentState::Running
        && row.running_generation == Some(row.generation)
        && row.reported
}

/// That waiting for the newest generation of an agent is in vain: it was given up, or the agent is quarantined.
pub(crate) fn given_up(row: &AgentRow) -> Option<ApiError> {
    let (agent, generation) = (&row.agent, row.generation);
    let Some(why) = row.given_up.as_ref() else {
        let why = row.reason.as_deref().filter(|_| row.quarantined)?;
        let why = why.strip_prefix("quarantined: ").unwrap_or(why);
        let try_ = format!(
            "`mozart explain {agent}`; once that is corrected, `mozart start {agent}` releases it"
        );
        let what = format!("{agent} is quarantined");
        return Some(failure::error(failure::FAILED, what, why, try_));
    };
    // What runs instead is said already.
    let why = why.strip_prefix(&format!("generation {generation} was given up: ")).unwrap_or(why);
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

/// The error about an agent that does not run, with the last log line of the worker that ended or was given up.
pub(crate) async fn quoting(broker: &Broker, row: &AgentRow, mut error: ApiError) -> ApiError {
    let is_down = match row.state {
        AgentState::Error | AgentState::Starting => true,
        AgentState::Running | AgentState::Stopping | AgentState::Stopped => false,
    };
    if (is_down || row.given_up.is_some())
        && let Some(line) =
            last_words(broker, &row.agent, row.incarnation, row.running_incarnation).await
        && !error.cause.contains(&line)
    {
        error.cause.push_str(&format!("; its log ends with: {line}"));
    }
    error
}

/// Whether an agent stays as it is until somebody starts it.
pub(crate) fn is_stopped(row: &AgentRow) -> bool {
    match row.state {
        AgentState::Stopping | AgentState::Stopped => true,
        AgentState::Starting | AgentState::Running | AgentState::Error => false,
    }
}

/// That waiting for a stopped agent is in vain.
pub(crate) async fn rests(broker: &Broker, row: &AgentRow) -> ApiError {
    let (agent, state) = (&row.agent, row.state.as_str());
    let what = format!("{agent} is {state}");
    // One that is being removed looks like one that is stopped.
    if let Ok(false) = agents::exists(broker, agent).await {
        let try_ = "`mozart apply SOUL` brings it back";
        return failure::error(failure::NOT_FOUND, what, "it was removed", try_);
    }
    let cause = row.reason.clone().unwrap_or_else(|| "it was stopped".to_owned());
    failure::error(failure::FAILED, what, cause, format!("`mozart start {agent}`"))
}

/// Waits until an agent is as wanted.
///
/// # Errors
/// 3 when there is no such agent, 5 when it takes too long.
pub(crate) async fn wait(global: &Global, args: &WaitArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let deadline = Instant::now() + args.timeout;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let mut progress = Progress::new();
    let mut is_said = false;
    if !agents::exists(&client.broker, &args.agent).await? {
        let error = agents::meant(&client, &args.agent).await;
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
                if let Some(row) =
                    row.as_ref().filter(|row| args.until != Until::Stopped && !runs(row))
                {
                    if let Some(error) = given_up(row) {
                        return Err(quoting(&client.broker, row, error).await);
                    }
                    if is_stopped(row) {
                        return Err(rests(&client.broker, row).await);
                    }
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
            let error = late(args, seen.as_ref());
            return Err(match &seen {
                Some(Ok(row)) => quoting(&client.broker, row, error).await,
                Some(Err(_)) | None => error,
            });
        }
        match &seen {
            Some(Ok(row)) => {
                progress.say(format!("{} {}", row.agent, stands(row, args.until)));
            }
            Some(Err(error)) if !std::mem::replace(&mut is_said, true) => {
                output::note(format!("waiting: {}", error.what));
            }
            Some(Err(_)) | None => {}
        }
    }
}

fn late(args: &WaitArgs, seen: Option<&Result<AgentRow, ApiError>>) -> ApiError {
    let cause = match seen {
        Some(Ok(row)) => format!("it {}", stands(row, args.until)),
        Some(Err(error)) => error.what.clone(),
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

/// How an agent stands that is not yet as it is waited for.
fn stands(row: &AgentRow, until: Until) -> String {
    let state = if row.state == AgentState::Error { "in error" } else { row.state.as_str() };
    let reason = row.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let open = row.inflight;
    let turns = count(open, "turn is open", "turns are open");
    let busy = match (until, row.counts) {
        // What waits for an agent does not keep it from running or from being stopped.
        (Until::Running, _) => String::new(),
        (Until::Stopped, _) if open == 0 => String::new(),
        (Until::Stopped, _) => format!("; {turns}"),
        (Until::Idle, Counts::Unknown) => {
            format!("; {turns}, and the broker has not said how many messages are waiting")
        }
        (Until::Idle, Counts::Current | Counts::Earlier) => {
            let waiting = count(row.inbox, "message is waiting", "messages are waiting");
            format!("; {waiting} and {turns}")
        }
    };
    format!("is {state}{reason}{busy}")
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
    fn a_wait_that_is_too_long_says_how_the_agent_stands() {
        let mut agent = row("a", AgentState::Error);
        agent.reason = Some("worker: exit code 1".to_owned());
        agent.counts = Counts::Unknown;
        agent.inflight = 0;
        assert_eq!(stands(&agent, Until::Running), "is in error: worker: exit code 1");
        (agent.state, agent.reason, agent.inflight) = (AgentState::Running, None, 1);
        assert_eq!(
            stands(&agent, Until::Idle),
            "is running; 1 turn is open, and the broker has not said how many messages are waiting"
        );
        for counts in [Counts::Current, Counts::Earlier] {
            agent.counts = counts;
            assert_eq!(
                stands(&agent, Until::Idle),
                "is running; 4 messages are waiting and 1 turn is open"
            );
        }
        agent.state = AgentState::Stopping;
        assert_eq!(stands(&agent, Until::Stopped), "is stopping; 1 turn is open");
    }

    #[test]
    fn what_is_gone_is_stopped() {
        assert!(Until::Stopped.holds(None));
        assert!(!Until::Running.holds(None));
        assert!(Until::Stopped.holds(Some(&row("a", AgentState::Stopped))));
    }
}
