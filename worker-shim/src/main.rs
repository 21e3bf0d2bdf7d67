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
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("MOZART_SHIM_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
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
        Ok(runtime) => ExitCode::from(runtime.block_on(pump::run(config))),
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
