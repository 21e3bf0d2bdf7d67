//! `mozart completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use common::api::ApiError;

use super::output;

/// `mozart completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn run(args: &CompletionsArgs) -> Result<u8, ApiError> {
    let mut script = Vec::new();
    let mut command = crate::args::Cli::command();
    clap_complete::generate(args.shell, &mut command, "mozart", &mut script);
    output::bytes(&script)?;
    Ok(0)
}
