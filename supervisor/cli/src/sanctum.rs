//! The SANCTUM of an agent that is moved: what has become of its copy.

use std::time::Duration;

use common::api::{ApiError, CarryRow, CarryState, Query, Reply};
use common::failure;
use common::{AgentName, NodeName, words};
use indicatif::ProgressBar;
use tokio::time::Instant;

use super::client::{Client, unexpected};
use super::output;
use super::progress::{Progress, bar};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(200);
/// A supervisor that has not read of the move yet does so within this.
const FOLDS: Duration = Duration::from_secs(10);
/// How long the node that had it may take to rename what it still has.
const KEPT: Duration = Duration::from_secs(3);

/// A move that takes the SANCTUM along.
#[derive(Debug)]
pub(crate) struct Carried<'a> {
    pub(crate) agent: &'a AgentName,
    pub(crate) to: &'a NodeName,
    /// The copy before.
    pub(crate) before: u64,
    /// How long nothing may change.
    pub(crate) timeout: Duration,
}

/// The last copy of an agent's SANCTUM; none if there was none, or the supervisor does not know of such.
///
/// # Errors
/// As [`Client::ask`].
pub(crate) async fn last(client: &Client, agent: &AgentName) -> Result<Option<CarryRow>, ApiError> {
    match client.ask(&Query::Carried { agent: agent.clone() }).await {
        Ok(Reply::Carried(row)) => Ok(row),
        // Of a version before.
        Err(error) if error.code == failure::USAGE => Ok(None),
        Err(error) => Err(error),
        Ok(other) => Err(unexpected(&other)),
    }
}

impl Carried<'_> {
    /// Waits until its end, and says where the previous copy is.
    ///
    /// # Errors
    /// 1 when it was given up, 5 when nothing changes for too long.
    pub(crate) async fn wait(&self, client: &Client) -> Result<CarryRow, ApiError> {
        let Self { agent, to, before, timeout } = self;
        let begun = Instant::now();
        let (mut changed, mut last_seen) = (begun, None);
        let (mut copying, mut progress) = (None::<ProgressBar>, None);
        let mut moved = None;
        let mut tick = tokio::time::interval(EVERY);
        loop {
            tick.tick().await;
            let now = Instant::now();
            let row = match last(client, agent).await {
                Ok(row) => row.filter(|row| row.copy > *before),
                Err(error) if error.code == failure::NOT_FOUND => return Err(error),
                // A supervisor that is being restarted is not the move's failure.
                Err(_) => None,
            };
            if row.is_some() && row != last_seen {
                (changed, last_seen) = (now, row.clone());
            }
            match row.as_ref().map(|row| row.state) {
                None if last_seen.is_none() && now > begun + FOLDS => {
                    return Err(self.unknown(client).await);
                }
                None | Some(CarryState::Copying) => {}
                Some(CarryState::Failed) => {
                    let cause = row.and_then(|row| row.reason).unwrap_or_default();
                    return Err(self.failed(&cause));
                }
                Some(CarryState::Moved) => {
                    let since = *moved.get_or_insert(now);
                    let row = row.filter(|row| row.kept.is_some() || now > since + KEPT);
                    if let Some(row) = row {
                        drop(progress);
                        copying.inspect(ProgressBar::finish_and_clear);
                        say(&row);
                        return Ok(row);
                    }
                }
            }
            if now > changed + *timeout {
                return Err(self.late(last_seen.as_ref()));
            }
            match last_seen.as_ref().and_then(|row| row.bytes.zip(row.of)).filter(|(_, of)| *of > 0)
            {
                Some((done, of)) if output::stderr_is_terminal() => {
                    progress = None;
                    let bar = copying.get_or_insert_with(|| bar(of, "copying"));
                    bar.set_length(of);
                    bar.set_position(done);
                }
                Some((done, of)) => {
                    let (done, of) = (words::bytes(done), words::bytes(of));
                    let said = format!("its SANCTUM is being copied to {to}: {done} of {of}");
                    progress.get_or_insert_with(Progress::new).say(said);
                }
                None => progress
                    .get_or_insert_with(Progress::new)
                    .say(format!("{agent} is being stopped to be moved to {to}")),
            }
        }
    }

    fn failed(&self, cause: &str) -> ApiError {
        let what = format!("{} was not moved to {}", self.agent, self.to);
        let try_ = format!(
            "`mozart move {} --to {}` again; it starts again where it was",
            self.agent, self.to
        );
        failure::error(failure::FAILED, what, cause, try_)
    }

    fn late(&self, row: Option<&CarryRow>) -> ApiError {
        let Self { agent, to, timeout, .. } = self;
        let what = format!("{agent} was not moved to {to} yet");
        let timeout = humantime::format_duration(*timeout);
        let cause = format!("nothing has changed for {timeout}; the move goes on");
        let back = row.map(|row| format!("; `mozart move {agent} --to {}` ends it", row.from));
        let try_ = format!("`mozart explain {agent}`{}", back.unwrap_or_default());
        failure::error(failure::TIMEOUT, what, cause, try_)
    }

    /// There is no copy: when the move was recorded, it could not be any more.
    async fn unknown(&self, client: &Client) -> ApiError {
        let rows = client.brief_rows(Some(self.agent)).await.unwrap_or_default();
        let reason = rows.into_iter().find_map(|row| row.reason);
        self.failed(&reason.unwrap_or_else(|| "the supervisors do not know of it".to_owned()))
    }
}

/// Says what was done.
fn say(row: &CarryRow) {
    let CarryRow { from, to, copied, kept, .. } = row;
    output::note(match (copied.as_slice(), kept.as_deref()) {
        ([], _) => format!("nothing was copied: its SANCTUM is the same folder on {from} and {to}"),
        (_, Some([])) => format!("its SANCTUM was copied from {from} to {to}"),
        (_, Some(kept)) => format!(
            "its SANCTUM was copied from {from} to {to}; {from} keeps the previous copy as {}",
            kept.join(", ")
        ),
        (copied, None) => format!(
            "its SANCTUM was copied from {from} to {to}; {from} still has the previous copy: {}",
            copied.join(", ")
        ),
    });
}
