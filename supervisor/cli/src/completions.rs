//! `mozart completions`, and what a shell completes: commands and options as the grammar says, agents, messages and nodes as the fleet
//! has them.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use clap::{Arg, Args, Command};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use common::api::ApiError;
use common::failure;
use serde_json::Value;

use super::output;

/// Set by the script while it asks for completions.
const ASKED: &str = "MOZART_COMPLETE";
/// Nobody waits for a completion for longer than this.
const WITHIN: Duration = Duration::from_secs(2);
/// Messages that are offered, the newest ones.
const MESSAGES: &str = "100";

/// `mozart completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script, which asks this program for what fits.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn run(args: &CompletionsArgs) -> Result<u8, ApiError> {
    let failed = |cause: String| {
        failure::error(failure::FAILED, "cannot write the script", cause, "another shell")
    };
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let shell = shells.completer(&name).ok_or_else(|| failed(format!("unknown shell {name}")))?;
    let mut script = Vec::new();
    shell
        .write_registration(ASKED, "mozart", "mozart", "mozart", &mut script)
        .map_err(|error| failed(error.to_string()))?;
    output::bytes(&script)?;
    Ok(0)
}

/// Answers a shell that asks for completions, and ends the process then; returns where none asks.
pub fn answer(grammar: impl Fn() -> Command) {
    CompleteEnv::with_factory(|| with_names(grammar())).var(ASKED).complete();
}

/// The grammar, with what the fleet has for the arguments that name something of it.
fn with_names(mut command: Command) -> Command {
    command = command.mut_args(|arg| match completer(&arg) {
        Some(completer) => arg.add(completer),
        None => arg,
    });
    let inner: Vec<String> =
        command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    for name in inner {
        command = command.mut_subcommand(name, with_names);
    }
    command
}

fn completer(arg: &Arg) -> Option<ArgValueCompleter> {
    match arg.get_id().as_str() {
        "agent" | "agents" => Some(ArgValueCompleter::new(agents)),
        // `--messages` of `reset` is a switch.
        "message" if arg.get_action().takes_values() => Some(ArgValueCompleter::new(messages)),
        "node" | "nodes" => Some(ArgValueCompleter::new(nodes)),
        _ => None,
    }
}

fn agents(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, &["ps", "--all"], |row| row["agent"].as_str())
}

fn nodes(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, &["node", "ls"], |row| row["node"].as_str())
}

fn messages(current: &OsStr) -> Vec<CompletionCandidate> {
    let list = ["journal", "ls", "--limit", MESSAGES];
    candidates(current, &list, |row| row["messageId"].as_str())
}

/// Names out of the rows of a list, each once.
fn candidates(
    current: &OsStr,
    list: &[&str],
    name: impl Fn(&Value) -> Option<&str>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let rows = rows(list).unwrap_or_default();
    let mut names: Vec<&str> =
        rows.iter().filter_map(name).filter(|name| name.starts_with(&*current)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// What this program lists; nothing where that takes too long or does not work.
fn rows(list: &[&str]) -> Option<Vec<Value>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let mut command = tokio::process::Command::new(std::env::current_exe().ok()?);
    command.args(list).args(["-o", "json"]).env_remove(ASKED);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let listed = async { tokio::time::timeout(WITHIN, command.output()).await };
    serde_json::from_slice(&runtime.block_on(listed).ok()?.ok()?.stdout).ok()
}
