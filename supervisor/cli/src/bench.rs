//! `mozart bench`: a separate program next to this one, so that not every user pays for its dependencies.

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
    /// Arguments for mozart-bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Replaces this process with `mozart-bench`; returns only if that fails.
///
/// Clap parses options before the first unknown word as this program's own, so the output format is passed on.
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
