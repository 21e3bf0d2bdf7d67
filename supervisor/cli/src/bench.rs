//! `mozart bench`: a program of its own beside this one, so that its comparisons do not weigh on every user.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use clap::Args;
use common::api::ApiError;

use common::failure;

use crate::args::{Global, Output};

/// `mozart bench`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct BenchArgs {
    /// Handed on to mozart-bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Becomes `mozart-bench`; returns only if that does not work.
///
/// What stands before the first word that is only its own, clap takes for this program's: the output is handed on.
pub fn exec(global: &Global, args: &BenchArgs) -> ApiError {
    let program = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("mozart-bench")))
        .unwrap_or_else(|| "mozart-bench".into());
    let output: &[&str] = if global.output == Output::Json { &["-o", "json"] } else { &[] };
    let cause = std::process::Command::new(&program).args(output).args(&args.args).exec();
    let what = format!("cannot run {}", program.display());
    failure::error(failure::NOT_FOUND, what, cause, "`make bench` builds and runs it")
}
