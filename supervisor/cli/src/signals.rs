//! SIGINT, SIGTERM and SIGHUP. A role drains at the first one and exits at the second; a command exits at the first.

use std::process::exit;

use common::api::ApiError;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use common::failure;

/// Waits for a signal to end: for what has something to put away before it ends.
///
/// # Errors
/// When the system does not let us listen.
pub async fn stopped() -> Result<(), ApiError> {
    Signals::listen()?.next().await;
    Ok(())
}

/// The signals that ask for an end.
struct Signals {
    int: Signal,
    term: Signal,
    /// The terminal was closed. None if the process was started by `nohup`.
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> Result<Self, ApiError> {
        let listen = |kind: SignalKind| {
            signal(kind).map_err(|error| {
                failure::error(failure::FAILED, "cannot listen to signals", error, "")
            })
        };
        Ok(Self {
            hangup: if ignores_hangup() { None } else { Some(listen(SignalKind::hangup())?) },
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
            _ = hung_up => {}
        }
    }
}

/// Whether SIGHUP was ignored before anybody listened to it.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is signal 1.
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
}

/// Whoever listens to signals for a role, for as long as this is kept.
#[derive(Debug)]
pub struct Stop {
    /// Cancelled by the first signal.
    pub token: CancellationToken,
    _listening: JoinSet<()>,
}

/// Listens to SIGINT, SIGTERM and SIGHUP. The second one ends the process as a shell would report it (130).
///
/// # Errors
/// When the system does not let us listen.
pub fn stop() -> Result<Stop, ApiError> {
    let mut signals = Signals::listen()?;
    let token = CancellationToken::new();
    let stop = token.clone();
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        signals.next().await;
        tracing::info!("stopping; press Ctrl-C again to exit at once");
        stop.cancel();
        signals.next().await;
        exit(130);
    });
    Ok(Stop { token, _listening: listening })
}
