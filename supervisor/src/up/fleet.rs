//! The souls that `up` applies: read, registered, awaited.

use std::path::Path;
use std::time::{Duration, Instant};

use broker::{Broker, BrokerError, ConnectOptions};
use bytes::Bytes;
use common::AgentName;
use common::api::{AgentState, ApiError, Query, Reply, SoulSource};
use common::soul;

use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::souls::batches;
use crate::failure::{self, Attempt as _};

/// Reads and checks the souls of a folder.
///
/// # Errors
/// Every problem of every file.
pub(super) fn read(dir: &Path) -> Result<Vec<SoulSource>, ApiError> {
    let invalid = |cause: String| {
        failure::error(
            failure::USAGE,
            "invalid souls",
            cause,
            format!("mozart validate {}", dir.display()),
        )
    };
    let files = soul::find(&[dir.to_owned()]).map_err(|error| invalid(error.to_string()))?;
    let mut souls = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        let path = std::path::absolute(&file).unwrap_or_else(|_| file.clone());
        let name = soul::name_from_path(&path).map_err(|error| invalid(error.to_string()))?;
        let bytes =
            soul::read(&path).map_err(|error| invalid(format!("{}: {error}", path.display())))?;
        match soul::parse_bytes(name.clone(), &path, &bytes) {
            Ok(_) => souls.push(SoulSource {
                name,
                path: path.to_string_lossy().into_owned(),
                text: String::from_utf8_lossy(&bytes).into_owned(),
            }),
            Err(errors) => problems.push(errors.plain()),
        }
    }
    if problems.is_empty() { Ok(souls) } else { Err(invalid(problems.join("\n"))) }
}

/// Connects as a client, and waits for a supervisor that answers.
///
/// # Errors
/// When none does in time.
pub(super) async fn connect(
    options: &ConnectOptions,
    within: Duration,
) -> Result<Broker, ApiError> {
    let client = Broker::connect(options).await.attempt("cannot reach what was started")?;
    let until = Instant::now() + within;
    loop {
        match ask(&client, &Query::Hello).await {
            Ok(_) => return Ok(client),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn ask(client: &Broker, query: &Query) -> Result<Reply, ApiError> {
    const WHAT: &str = "the supervisor does not answer";
    let payload = serde_json::to_vec(query)
        .map_err(|error| failure::error(failure::FAILED, "cannot encode the request", error, ""))?;
    let subject = client.subjects().query();
    let bytes =
        client.ask(subject, Bytes::from(payload), Duration::from_secs(10)).await.attempt(WHAT)?;
    match serde_json::from_slice(&bytes) {
        Ok(Reply::Error(error)) => Err(error),
        Ok(reply) => Ok(reply),
        Err(error) => Err(failure::broker(WHAT, BrokerError::Other(error.to_string()))),
    }
}

/// Registers souls, in requests that fit the broker.
///
/// # Errors
/// What the supervisor says.
pub(super) async fn apply(
    client: &Broker,
    souls: Vec<SoulSource>,
) -> Result<Vec<AgentName>, ApiError> {
    let names = souls.iter().map(|soul| soul.name.clone()).collect();
    for batch in batches(souls) {
        apply_batch(client, batch).await?;
    }
    Ok(names)
}

async fn apply_batch(client: &Broker, souls: Vec<SoulSource>) -> Result<(), ApiError> {
    if let Reply::Agents(applied) = ask(client, &Query::Apply { souls, force: false }).await? {
        for one in applied {
            let what = if one.changed { "applied" } else { "unchanged" };
            output::note(format!("{} generation {}: {what}", one.agent, one.generation));
        }
    }
    Ok(())
}

/// Waits until agents are running.
///
/// # Errors
/// Which are not, and why, after `within`.
pub(super) async fn wait_running(
    client: &Broker,
    agents: &[AgentName],
    within: Duration,
) -> Result<(), ApiError> {
    let until = Instant::now() + within;
    let progress = Progress::new();
    loop {
        let Reply::Ps(rows) = ask(client, &Query::Ps { agent: None }).await? else {
            let error = BrokerError::Other("an answer to another question".to_owned());
            return Err(failure::broker("cannot list the agents", error));
        };
        let not_yet: Vec<String> = rows
            .iter()
            .filter(|row| agents.contains(&row.agent) && row.state != AgentState::Running)
            .map(|row| {
                let why =
                    row.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                format!("{} is {}{why}", row.agent, row.state.as_str())
            })
            .collect();
        if not_yet.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            let cause = not_yet.join(", ");
            return Err(failure::error(
                failure::TIMEOUT,
                "not everything runs yet",
                cause,
                "mozart explain AGENT",
            ));
        }
        progress.say(not_yet.join(", "));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
