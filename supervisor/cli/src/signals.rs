//! SIGINT and SIGTERM. For the roles once is to drain, twice is to end at once; for a command once is to end.

use std::process::exit;

use common::api::ApiError;
use tokio::signal::unix::{Signal, SignalKind, signal};
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

/// A token that the first SIGINT or SIGTERM cancels. The second one ends the process as a shell would report it (130).
///
/// # Errors
/// When the system does not let us listen.
pub fn stop_token() -> Result<CancellationToken, ApiError> {
    let (mut int, mut term) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let stop = token.clone();
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process")]
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
        };
        next().await;
        tracing::info!("stopping; once more to end at once");
        stop.cancel();
        next().await;
        exit(130);
    });
    Ok(token)
}
