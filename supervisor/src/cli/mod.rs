//! The client commands: one file per group. They speak to the broker and, through it, to the supervisors; they know neither the
//! supervisor's nor the node's code.

pub(crate) mod bench;
mod completions;
pub(crate) mod output;

use clap::Subcommand;
use common::api::ApiError;

use crate::args::Global;

/// The client commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs a client command until it ends or is interrupted; yields the exit code.
///
/// # Errors
/// When the command does not do what it was asked for.
pub(crate) async fn run(global: &Global, command: Command) -> Result<u8, ApiError> {
    tokio::select! {
        result = dispatch(global, command) => result,
        _ = tokio::signal::ctrl_c() => Ok(crate::failure::INTERRUPTED),
    }
}

#[expect(clippy::unused_async, reason = "not built yet")]
async fn dispatch(_global: &Global, command: Command) -> Result<u8, ApiError> {
    match command {
        Command::Completions(args) => completions::run(&args),
    }
}
