//! SIGINT and SIGTERM. For the roles once is to drain, twice is to end at once; for a command once is to end.

use std::process::exit;

use common::api::ApiError;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use common::failure;

/// Waits for SIGINT or SIGTERM: for what has something to put away before it ends.
///
/// # Errors
/// When the system does not let us listen.
pub async fn stopped() -> Result<(), ApiError> {
    let (mut int, mut term) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
    Ok(())
}

fn listen(kind: SignalKind) -> Result<Signal, ApiError> {
    signal(kind)
        .map_err(|error| failure::error(failure::FAILED, "cannot listen to signals", error, ""))
}

/// Whoever listens to signals for a role, for as long as this is kept.
#[derive(Debug)]
pub struct Stop {
    /// Cancelled by the first SIGINT or SIGTERM.
    pub token: CancellationToken,
    _listening: JoinSet<()>,
}

/// Listens to SIGINT and SIGTERM. The second one ends the process as a shell would report it (130).
///
/// # Errors
/// When the system does not let us listen.
pub fn stop() -> Result<Stop, ApiError> {
    let (mut int, mut term) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let stop = token.clone();
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
        };
        next().await;
        tracing::info!("stopping; press Ctrl-C again to exit at once");
        stop.cancel();
        next().await;
        exit(130);
    });
    Ok(Stop { token, _listening: listening })
}
