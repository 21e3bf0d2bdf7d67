//! Holding the lease. A leader that cannot renew stops by its own clock, before anybody else may take over.
//!
//! What a leader's death costs: at most [`TTL`] until its lease ends, a look by whoever competes ([`LOOK`]), and one more where
//! the end is told by a claim that did not change. Then the election is two records' way through the log.

use std::time::Duration;

use broker::{Lease, LeaseState, Moment};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The lease ends this long after its last renewal. Its holder stops at three quarters of it.
pub(super) const TTL: Duration = Duration::from_secs(3);
/// Renewed this often.
const RENEW: Duration = Duration::from_millis(700);
/// Whoever competes looks this often.
const LOOK: Duration = Duration::from_millis(400);
/// The pause after a failed try.
const AGAIN: Duration = Duration::from_millis(100);

/// Competes for the lease until `stop`, while `competes`, and gives it up then. `told` is what is known of it; none is "not
/// known".
pub(super) async fn keep(
    mut lease: Lease,
    mut competes: watch::Receiver<bool>,
    told: watch::Sender<Option<LeaseState>>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        if !*competes.borrow_and_update() {
            tell(&told, None);
            release(&mut lease).await;
            tokio::select! {
                changed = competes.changed() => if changed.is_err() { stop.cancelled().await },
                () = stop.cancelled() => {}
            }
            continue;
        }
        let until = match *told.borrow() {
            Some(LeaseState::Held { until, .. }) => Some(until),
            Some(LeaseState::Other { .. }) | None => None,
        };
        let left = until.map_or(TTL, |until| until.since(Moment::now())).max(AGAIN);
        let pause = match tokio::time::timeout(left, lease.take_or_renew()).await {
            Ok(Ok(state)) => {
                let pause = if matches!(state, LeaseState::Held { .. }) { RENEW } else { LOOK };
                tell(&told, Some(state));
                pause
            }
            Ok(Err(error)) => {
                tracing::warn!("cannot renew or take the lease: {error}");
                AGAIN
            }
            Err(_) => {
                tracing::warn!("cannot renew or take the lease: no answer");
                AGAIN
            }
        };
        if until.is_some_and(|until| until <= Moment::now()) && pause == AGAIN {
            tell(&told, None);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = competes.changed() => {}
            () = stop.cancelled() => {}
        }
    }
    release(&mut lease).await;
}

fn tell(told: &watch::Sender<Option<LeaseState>>, state: Option<LeaseState>) {
    told.send_if_modified(|known| {
        let is_new = *known != state;
        *known = state;
        is_new
    });
}

async fn release(lease: &mut Lease) {
    let released = tokio::time::timeout(Duration::from_secs(1), lease.release()).await;
    if !matches!(released, Ok(Ok(()))) {
        tracing::warn!("cannot release the lease: it expires");
    }
}
