//! `mozart-shim`: runs next to a worker, speaks its protocol on stdin and stdout, and connects it to NATS.
//!
//! Small, static, quiet: one thread, one connection, everything bounded.

mod book;
mod cause;
mod child;
mod clock;
mod echo;
mod lines;
mod logs;
mod memory;
mod people;
mod publish;
mod pump;
mod route;
mod secrets;
mod standing;
mod steps;
mod turn;
mod user;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use common::shim::{CONFIG_ENV, CONTAINER, ShimConfig};

fn main() -> ExitCode {
    // What whoever started us had open is not the worker's: a lock that it holds would be held for as long as the worker lives.
    close_fds::set_fds_cloexec(3, &[]);
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
        Some(CONTAINER) => start(config_from_stdin),
        _ => start(config_from_file),
    }
}

fn start(read_config: fn() -> Result<ShimConfig, String>) -> ExitCode {
    // A session of its own: a process group that is stopped when the supervisor dies would otherwise get SIGHUP from the kernel.
    // Not possible for one that leads a group already, such as PID 1 of a container: which then has no such parent.
    let _leads_already = rustix::process::setsid();
    // A level and no filter language: that would be a third of this binary.
    let level = std::env::var("MOZART_SHIM_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(level.unwrap_or(tracing::Level::WARN))
        // It would be told on stderr that stderr cannot be written, by a macro that panics then.
        .log_internal_errors(false)
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
                tracing::error!("the shim failed: {error}");
                1
            });
            // All is said: the node waits for the end, and taking the runtime apart would only make it wait longer.
            std::process::exit(code.into())
        }
        Err(error) => {
            tracing::error!("cannot start the async runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The largest configuration that is read from stdin, in bytes: a spec is at most 1 MiB, in JSON within JSON.
const LONGEST: u64 = 8 << 20;

/// Reads the configuration that the node sends through the engine. Nobody else can read it there, and it is kept nowhere.
fn config_from_stdin() -> Result<ShimConfig, String> {
    let mut text = Vec::new();
    std::io::stdin()
        .lock()
        .take(LONGEST)
        .read_to_end(&mut text)
        .map_err(|error| format!("cannot read the configuration from stdin: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("the configuration on stdin: {error}"))
}

/// Reads the configuration and removes it: it holds the broker's credentials, which are not the worker's.
fn config_from_file() -> Result<ShimConfig, String> {
    let path = std::env::var(CONFIG_ENV).map_err(|_| {
        format!(
            "{CONFIG_ENV} is not set: the shim is started by a node; to start agents, use `mozart up`"
        )
    })?;
    let text = std::fs::read(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let config = serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?;
    std::fs::remove_file(&path).map_err(|error| format!("cannot remove {path}: {error}"))?;
    Ok(config)
}
