//! Holding the lease. A leader that cannot renew stops by its own clock, before anybody else may take over.
//!
//! What a leader's death costs: at most [`TTL`] until its lease ends, a look by whoever competes ([`LOOK`]), and one more where
//! the end is told by a claim that did not change. Then the election is two records' way through the log.

use std::time::Duration;

use broker::{Lease, LeaseState, Link, Moment};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::leader::Leading;
use super::{Supervisor, admit};

/// The lease ends this long after its last renewal. Its holder stops at three quarters of it.
pub(super) const TTL: Duration = Duration::from_secs(3);
/// Renewed this often.
const RENEW: Duration = Duration::from_millis(700);
/// Whoever competes looks this often.
const LOOK: Duration = Duration::from_millis(400);
/// The pause after a failed try.
const AGAIN: Duration = Duration::from_millis(100);

/// While the lease cannot be had, that is logged this often.
const SAY: Duration = Duration::from_secs(60);

/// That the lease cannot be renewed or taken: since when, and when that was logged last.
#[derive(Debug, Default)]
struct Trouble(Option<(Moment, Moment)>);

impl Trouble {
    /// Whether this failure is to be logged.
    fn is_due(&mut self, now: Moment) -> bool {
        let (since, said) = self.0.unwrap_or((now, now));
        let is_due = self.0.is_none() || now.since(said) >= SAY;
        self.0 = Some((since, if is_due { now } else { said }));
        is_due
    }

    /// How long it lasted, now that it is over.
    fn over(&mut self, now: Moment) -> Option<Duration> {
        self.0.take().map(|(since, _)| now.since(since))
    }
}

/// Competes for the lease until `stop`, while `competes`, and gives it up then. `told` is what is known of it; none is "not
/// known".
pub(super) async fn keep(
    mut lease: Lease,
    mut competes: watch::Receiver<bool>,
    told: watch::Sender<Option<LeaseState>>,
    stop: CancellationToken,
) {
    let mut trouble = Trouble::default();
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
                if let Some(lasted) = trouble.over(Moment::now()) {
                    let lasted = Duration::from_secs(lasted.as_secs());
                    tracing::info!("the broker answers again for the lease, after {lasted:?}");
                }
                let pause = if matches!(state, LeaseState::Held { .. }) { RENEW } else { LOOK };
                tell(&told, Some(state));
                pause
            }
            failed @ (Ok(Err(_)) | Err(_)) => {
                if trouble.is_due(Moment::now()) {
                    let why = failed.ok().and_then(Result::err);
                    let why = why.map_or_else(|| "no answer".to_owned(), |why| why.to_string());
                    tracing::warn!("cannot renew or take the lease: {why}");
                }
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

impl Supervisor {
    pub(super) fn lease(&mut self, held: Option<LeaseState>) {
        self.holder = match &held {
            Some(LeaseState::Held { .. }) => Some(self.id.clone()),
            Some(LeaseState::Other { holder }) if !holder.is_empty() => Some(holder.clone()),
            Some(LeaseState::Other { .. }) | None => None,
        };
        let held = match held {
            Some(LeaseState::Held { tenure, until }) if *self.competes.borrow() => {
                Some((tenure, until)).filter(|(_, until)| *until > Moment::now())
            }
            _ => None,
        };
        match (held, &mut self.leading) {
            (Some((tenure, until)), Some(leading)) if leading.tenure == tenure => {
                leading.until = until;
            }
            (Some((tenure, until)), _) => {
                tracing::info!("supervisor {} holds the lease", self.id);
                let limits = admit::limits(self.broker.subjects().shards());
                self.leading = Some(Leading::new(tenure, until, self.now_ms(), limits));
                self.elect();
            }
            (None, Some(_)) => {
                tracing::info!("supervisor {} is no longer the leader", self.id);
                self.leading = None;
            }
            (None, None) => {}
        }
    }

    pub(super) fn link(&mut self, link: Link) {
        let now = self.now_ms();
        self.ears.link(link.up, now);
        if let Some(leading) = &mut self.leading {
            leading.observer.link(link.up, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_cannot_be_had_is_logged_at_once_and_then_every_minute() {
        let start = Moment::now();
        let at = |seconds| start.after(Duration::from_secs(seconds));
        let mut trouble = Trouble::default();
        assert!(trouble.is_due(at(0)));
        assert!((1..60).all(|second| !trouble.is_due(at(second))));
        assert!(trouble.is_due(at(60)) && !trouble.is_due(at(61)));
        assert_eq!(trouble.over(at(70)), Some(Duration::from_secs(70)));
        assert_eq!(trouble.over(at(71)), None);
        assert!(trouble.is_due(at(72)), "the next time is another one");
    }
}
