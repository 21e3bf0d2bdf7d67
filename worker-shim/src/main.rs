//! `mozart-shim`: stands beside a worker, speaks its protocol on stdin and stdout, and connects it to NATS.
//!
//! Small, static, quiet: one thread, one connection, everything bounded.

mod book;
mod child;
mod echo;
mod lines;
mod logs;
mod publish;
mod pump;
mod route;
mod turn;

use std::io::Write as _;
use std::process::ExitCode;

use common::shim::{CONFIG_ENV, ShimConfig};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("echo") => match echo::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Some("--version" | "-V") => {
            let version = concat!("mozart-shim ", env!("CARGO_PKG_VERSION"), "\n");
            match std::io::stdout().write_all(version.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        _ => start(),
    }
}

fn start() -> ExitCode {
    // A session of its own: a process group that is stopped when the supervisor dies would otherwise get SIGHUP from the kernel.
    // Not possible for one that leads a group already, such as PID 1 of a container: which then has no such parent.
    let _leads_already = rustix::process::setsid();
    // A level and no filter language: that would be a third of this binary.
    let level = std::env::var("MOZART_SHIM_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(level.unwrap_or(tracing::Level::WARN))
        .init();
    let config = match read_config() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            // As a task: each wake of what `block_on` itself waits for is a write to an eventfd and a poll, even on its own thread.
            let code = runtime.block_on(runtime.spawn(pump::run(config))).unwrap_or_else(|error| {
                tracing::error!("the pump: {error}");
                1
            });
            // All is said: the node waits for the end, and taking the runtime apart would only make it wait longer.
            std::process::exit(code.into())
        }
        Err(error) => {
            tracing::error!("no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the configuration and removes it: it holds the broker's credentials, which are not the worker's.
fn read_config() -> Result<ShimConfig, String> {
    let path = std::env::var(CONFIG_ENV).map_err(|_| {
        format!(
            "{CONFIG_ENV} is not set; a node starts the shim, `mozart up` is the command for people"
        )
    })?;
    let text = std::fs::read(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let config = serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?;
    std::fs::remove_file(&path).map_err(|error| format!("cannot remove {path}: {error}"))?;
    Ok(config)
}
