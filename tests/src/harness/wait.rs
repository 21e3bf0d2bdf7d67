//! Waiting for something to come true, with a deadline, and saying what it was when it does not.

use std::time::Duration;

use tokio::time::Instant;

/// What to wait for and how long: the deadline of every wait whose test says no other. Generous, since it only matters when
/// something is broken.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// What a probe says: the value waited for, or what it saw instead.
pub type Until<T> = Result<T, String>;

/// Probes until it yields a value.
///
/// # Panics
/// After 30 s, with what was waited for and what was seen last.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Until<T>) -> T {
    within(DEADLINE, what, probe).await
}

/// Probes until it yields a value.
///
/// # Panics
/// After `deadline`, with what was waited for and what was seen last.
pub async fn within<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Until<T>,
) -> T {
    let until = Instant::now() + deadline;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() > until => {
                panic!("not within {deadline:?}: {what}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(EVERY).await,
        }
    }
}

/// Probes all through a time: what must not happen does not.
///
/// # Panics
/// As soon as the probe fails, with what it saw.
pub async fn always(during: Duration, what: &str, mut probe: impl AsyncFnMut() -> Until<()>) {
    let until = Instant::now() + during;
    while Instant::now() < until {
        if let Err(seen) = probe().await {
            panic!("no longer: {what}; seen: {seen}");
        }
        tokio::time::sleep(EVERY).await;
    }
}
