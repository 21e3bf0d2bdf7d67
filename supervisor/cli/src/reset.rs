//! `mozart reset`: what it would empty, shown, and emptied when that is confirmed.

use std::path::PathBuf;

use broker::{Attempt as _, ConnectOptions, Reset};
use clap::Args;
use common::api::ApiError;
use common::failure;
use serde::Serialize;

use crate::args::Output;
use crate::client::Client;
use crate::{output, table};

/// `mozart reset`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct ResetArgs {
    /// Remove all messages, with their events, answers, dead letters and logs
    #[arg(long, group = "what")]
    messages: bool,
    /// Remove everything: the agents, their messages, and the run folders of this data folder
    #[arg(long, group = "what")]
    all: bool,
    /// Really remove it; without --yes, only show what would be removed
    #[arg(long)]
    yes: bool,
}

impl ResetArgs {
    /// What is to be emptied.
    pub fn what(&self) -> Reset {
        if self.all { Reset::All } else { Reset::Messages }
    }

    /// Whether it is only to be shown.
    pub fn is_dry(&self) -> bool {
        !self.yes
    }
}

/// What is removed, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    dry_run: bool,
    streams: Vec<Stream>,
    folders: &'a [PathBuf],
}

#[derive(Debug, Serialize)]
struct Stream {
    stream: String,
    records: u64,
    bytes: u64,
}

/// Shows the streams, and empties them when that is confirmed; `folders` are removed by the caller then.
///
/// # Errors
/// 4 while a supervisor answers. When the broker does not answer, or does not allow it.
pub async fn streams(
    options: &ConnectOptions,
    output: Output,
    args: &ResetArgs,
    folders: &[PathBuf],
) -> Result<(), ApiError> {
    const WHAT: &str = "cannot reset the fleet";
    let client = Client::connect_to(options, output).await?;
    if let Ok(hello) = client.hello().await {
        let cause = format!("supervisor {} answers", hello.supervisor);
        let try_ = "`mozart down`, or stop every supervisor and node";
        return Err(failure::error(failure::CONFLICT, WHAT, cause, try_));
    }
    let what = args.what();
    let usage = client.broker.stream_usage().await.attempt(WHAT)?;
    let streams = usage.into_iter().filter(|one| what.empties(&one.name));
    let streams =
        streams.map(|one| Stream { stream: one.name, records: one.records, bytes: one.bytes });
    let streams: Vec<_> = streams.collect();
    if !args.is_dry() {
        client.broker.reset(what).await.attempt(WHAT)?;
    }
    show(output, args, streams, folders)
}

/// Shows folders that go with all that is in them.
///
/// # Errors
/// When stdout is closed.
pub fn folders(output: Output, args: &ResetArgs, folders: &[PathBuf]) -> Result<(), ApiError> {
    show(output, args, Vec::new(), folders)
}

fn show(
    output: Output,
    args: &ResetArgs,
    streams: Vec<Stream>,
    folders: &[PathBuf],
) -> Result<(), ApiError> {
    let dry_run = args.is_dry();
    if output == Output::Json {
        return output::json(&Shown { dry_run, streams, folders });
    }
    if !streams.is_empty() {
        let rows = streams.into_iter();
        let rows =
            rows.map(|one| vec![one.stream, one.records.to_string(), table::bytes(one.bytes)]);
        output::line(table::table(&["STREAM", "RECORDS", "BYTES"], rows))?;
    }
    for folder in folders {
        output::line(folder.display().to_string())?;
    }
    output::note(if dry_run { "nothing was removed; --yes removes this" } else { "removed" });
    Ok(())
}
