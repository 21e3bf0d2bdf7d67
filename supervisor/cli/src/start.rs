//! What `mozart up` does as a client, once the parts run: waits for a supervisor, registers souls, waits for agents.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use broker::ConnectOptions;
use common::AgentName;
use common::api::{AgentRow, AgentState, ApiError, Query, SoulSource};
use common::failure;
use runtime::home::Home;

use crate::args::Output;
use crate::client::Client;
use crate::lifecycle::{given_up, is_stopped, quoting, rests, runs};
use crate::output;
use crate::progress::Progress;
use crate::{files, souls};

/// The pause between two looks at what is being waited for.
const LOOK: Duration = Duration::from_millis(20);

/// How far the supervisor that answers may be behind the one that has registered an agent: until then it does not know it.
const BEHIND: Duration = Duration::from_secs(2);

/// Connects, and waits for a supervisor that answers.
///
/// # Errors
/// When none does in time.
pub async fn connect(
    options: &ConnectOptions,
    output: Output,
    within: Duration,
) -> Result<Client, ApiError> {
    let client = Client::connect_to(options, output).await?;
    let until = Instant::now() + within;
    loop {
        match client.hello().await {
            Ok(_) => return Ok(client),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Reads and checks the souls of a folder, without any connection.
///
/// # Errors
/// 2 when one is invalid; each problem is shown.
pub fn read(dir: PathBuf, output: Output) -> Result<Vec<SoulSource>, ApiError> {
    souls::load(&[dir], output)
}

/// Registers souls with the files that they use, and prints the result of each.
///
/// # Errors
/// When files cannot be packed or stored; the supervisor's error.
pub async fn apply(
    client: &Client,
    mut souls: Vec<SoulSource>,
    home: &Home,
) -> Result<Vec<AgentName>, ApiError> {
    match client.lasts().await {
        Err(error) if souls.is_empty() => {
            output::note(format!("warning: {}; try: {}", error.cause, error.try_));
        }
        lasts => lasts?,
    }
    if let Err(error) = files::store(&client.broker, &mut souls, home).await {
        return Err(client.unless_full(error).await);
    }
    let names = souls.iter().map(|soul| soul.name.clone()).collect();
    for souls in souls::batches(souls) {
        for one in client.change(&Query::Apply { souls, force: false }).await? {
            let result = souls::result(&one);
            output::note(format!("{} generation {}: {result}", one.agent, one.generation));
        }
    }
    Ok(names)
}

/// The agents of the fleet.
///
/// # Errors
/// What the supervisor says.
pub async fn all(client: &Client) -> Result<Vec<AgentName>, ApiError> {
    let rows = client.brief_rows(None).await?;
    Ok(rows.into_iter().map(|row| row.agent).collect())
}

/// Waits until the newest generations of agents run, except for those that are stopped already, which is said.
///
/// # Errors
/// Which are not, and why: at once where one was given up, stopped or removed, else after `within`.
pub async fn wait_running(
    client: &Client,
    agents: &[AgentName],
    within: Duration,
) -> Result<(), ApiError> {
    let until = Instant::now() + within;
    let mut progress = Progress::new();
    let agents: BTreeSet<&AgentName> = agents.iter().collect();
    // Those that somebody had stopped before stay so.
    let mut stopped: Option<BTreeSet<AgentName>> = None;
    let mut gone_since: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        let rows = client.brief_rows(None).await?;
        let (resting, late): (Vec<&AgentRow>, Vec<&AgentRow>) = rows
            .iter()
            .filter(|row| agents.contains(&row.agent) && !runs(row))
            .partition(|row| is_stopped(row));
        let before = stopped.get_or_insert_with(|| {
            for AgentRow { agent, state, .. } in &resting {
                let state = state.as_str();
                output::note(format!(
                    "{agent} is {state}, and is not waited for; `mozart start {agent}` starts it"
                ));
            }
            resting.iter().map(|row| row.agent.clone()).collect()
        });
        if let Some(row) = resting.iter().find(|row| !before.contains(&row.agent)) {
            return Err(rests(&client.broker, row).await);
        }
        let there: BTreeSet<&AgentName> = rows.iter().map(|row| &row.agent).collect();
        let gone = agents.difference(&there).next();
        gone_since = gone.map(|_| gone_since.unwrap_or(asked));
        if let (Some(gone), Some(since)) = (gone, gone_since)
            && (since.elapsed() > BEHIND || Instant::now() > until)
        {
            let (what, cause) = (format!("{gone} is not running"), "it was removed meanwhile");
            return Err(failure::error(failure::NOT_FOUND, what, cause, ""));
        }
        let mut failed = late.iter().filter_map(|row| Some((*row, given_up(row)?)));
        if let Some((row, error)) = failed.next() {
            failed.for_each(|(_, other)| output::complain(&other, client.output));
            return Err(quoting(&client.broker, row, error).await);
        }
        if late.is_empty() && gone.is_none() {
            return Ok(());
        }
        if Instant::now() > until {
            let (what, cause) = ("not all agents are running yet", some(&late));
            let Some(first) = late.first() else { return Ok(()) };
            let try_ = format!("`mozart explain {}`", first.agent);
            let error = failure::error(failure::TIMEOUT, what, cause, try_);
            // Of several, it would not be clear whose log is quoted.
            return Err(match late.len() {
                1 => quoting(&client.broker, first, error).await,
                _ => error,
            });
        }
        if !late.is_empty() {
            progress.say(some(&late));
        }
        // With thousands of agents, no more than half of the time is spent on looking.
        tokio::time::sleep(LOOK.max(asked.elapsed())).await;
    }
}

/// The states of agents: of the first few, and how many more there are.
fn some(rows: &[&AgentRow]) -> String {
    const NAMED: usize = 10;
    let words = rows.iter().take(NAMED).map(|row| {
        let why = row.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let state = if row.state == AgentState::Error { "in error" } else { row.state.as_str() };
        format!("{} is {state}{why}", row.agent)
    });
    let words = words.collect::<Vec<_>>().join(", ");
    match rows.len().saturating_sub(NAMED) {
        0 => words,
        more => format!("{words}, and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ps::tests::row;

    #[test]
    fn a_few_are_named_and_the_others_counted() {
        let rows: Vec<AgentRow> =
            (0..12).map(|n| row(&format!("a{n}"), AgentState::Starting)).collect();
        let rows: Vec<&AgentRow> = rows.iter().collect();
        assert_eq!(some(&rows[..2]), "a0 is starting, a1 is starting");
        assert!(some(&rows).ends_with("a9 is starting, and 2 more"), "{}", some(&rows));
    }
}
