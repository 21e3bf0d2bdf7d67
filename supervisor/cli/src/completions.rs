//! `mozart completions`.

use clap::Args;
use clap_complete::Shell;
use common::api::ApiError;

use super::output;

/// `mozart completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn run(mut grammar: clap::Command, args: &CompletionsArgs) -> Result<u8, ApiError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut grammar, "mozart", &mut script);
    output::bytes(&script)?;
    Ok(0)
}
