//! Holding the lease. A leader that cannot renew stops by its own clock, before anybody else may take over.

use std::time::{Duration, Instant};

use broker::{Lease, LeaseState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The lease ends this long after its last renewal.
pub(super) const TTL: Duration = Duration::from_secs(8);
/// Renewed this often.
const RENEW: Duration = Duration::from_secs(2);
/// A leader without a renewal for this long acts no more: 2 s before the lease can be another one's.
const STEP_DOWN: Duration = Duration::from_secs(6);

/// Competes for the lease until `stop`, then gives it up. `told` is what is known of it; none is "not known".
pub(super) async fn keep(
    mut lease: Lease,
    told: watch::Sender<Option<LeaseState>>,
    stop: CancellationToken,
) {
    let mut renewed = Instant::now();
    while !stop.is_cancelled() {
        let began = Instant::now();
        let left = STEP_DOWN.saturating_sub(renewed.elapsed()).max(Duration::from_millis(100));
        match tokio::time::timeout(left, lease.take_or_renew()).await {
            Ok(Ok(state)) => {
                // Counted from before the request: the lease runs from when the server got it, at the latest.
                renewed = began;
                told.send_if_modified(|known| {
                    let is_new = known.as_ref() != Some(&state);
                    *known = Some(state);
                    is_new
                });
            }
            Ok(Err(error)) => tracing::warn!("the leader's lease: {error}"),
            Err(_) => tracing::warn!("the leader's lease: no answer"),
        }
        if renewed.elapsed() >= STEP_DOWN {
            told.send_if_modified(|known| known.take().is_some());
        }
        let failed = renewed != began;
        let pause = if failed { Duration::from_millis(200) } else { RENEW };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
    let released = tokio::time::timeout(Duration::from_secs(1), lease.release()).await;
    if !matches!(released, Ok(Ok(()))) {
        tracing::warn!("the leader's lease is not given up: it ends by itself");
    }
}
