//! Waiting for what does not exist yet: the order in which brokers, supervisors and nodes are started does not matter.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{BrokerError, Result};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// What is waited for is logged again after this time.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Broker,
    Streams,
    Room,
    Other,
}

/// What may exist later; none for an error that has to be fixed first.
fn missing(error: &BrokerError) -> Option<Missing> {
    match error {
        BrokerError::Unreachable { .. }
        | BrokerError::Timeout(_)
        | BrokerError::NoMajority { .. } => Some(Missing::Broker),
        BrokerError::NoStreams(_) | BrokerError::Restoring(_) => Some(Missing::Streams),
        BrokerError::Full(_) => Some(Missing::Room),
        // Such as a cluster with too few servers as yet, or a stream that is just being made.
        BrokerError::Other(_) => Some(Missing::Other),
        BrokerError::BadAddress { .. }
        | BrokerError::Refused(_)
        | BrokerError::Forbidden(_)
        | BrokerError::BadCertificate(_)
        | BrokerError::BadCredentials { .. }
        | BrokerError::Denied { .. }
        | BrokerError::TooOld { .. }
        | BrokerError::NoJetStream
        | BrokerError::TooNew { .. }
        | BrokerError::Outdated { .. }
        | BrokerError::NotEmpty { .. }
        | BrokerError::NotTaken { .. }
        | BrokerError::TooLarge { .. }
        | BrokerError::OtherList
        | BrokerError::Malformed { .. } => None,
    }
}

/// Repeats `attempt` while it fails only because something does not exist yet. What is waited for is logged once, when it
/// changes, and every minute. Waits without end: the caller drops it when it is to stop.
///
/// # Errors
/// Errors that waiting does not fix: refused credentials, an invalid address, streams of another format.
pub async fn once_there<T, Attempt: Future<Output = Result<T>>>(
    who: &str,
    mut attempt: impl FnMut() -> Attempt,
) -> Result<T> {
    let mut said: Option<(Missing, Instant)> = None;
    loop {
        let error = match attempt().await {
            Ok(there) => {
                if said.is_some() {
                    tracing::info!("{who}: connected");
                }
                return Ok(there);
            }
            Err(error) => error,
        };
        let Some(missing) = missing(&error) else { return Err(error) };
        let is_said = |(what, at): (Missing, Instant)| what == missing && at.elapsed() < SAID_AGAIN;
        if !said.is_some_and(is_said) {
            tracing::warn!("{who} is waiting: {error}");
            said = Some((missing, Instant::now()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> BrokerError {
        BrokerError::Unreachable { url: "u".to_owned(), cause: "c".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_yet_is_waited_for() {
        let mut tries = 0;
        let there = once_there("test", || {
            tries += 1;
            std::future::ready(match tries {
                1 => Err(unreachable()),
                2 => Err(BrokerError::NoStreams("n".to_owned())),
                3 => Err(BrokerError::Timeout(PAUSE)),
                _ => Ok(tries),
            })
        });
        assert_eq!(there.await.expect("it comes"), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_time_mends_is_an_error_at_once() {
        let denied = || BrokerError::Denied { url: "u".to_owned(), cause: "c".to_owned() };
        let bad = || BrokerError::BadAddress { url: "u".to_owned(), cause: "c".to_owned() };
        let newer = || BrokerError::TooNew { found: 3, known: 2 };
        let older = || BrokerError::Outdated { found: 1, known: 2 };
        let errors: [fn() -> BrokerError; 5] =
            [denied, bad, newer, older, || BrokerError::NoJetStream];
        for error in errors {
            let mut tries = 0;
            let failed = once_there("test", || {
                tries += 1;
                std::future::ready(Err::<(), _>(error()))
            });
            failed.await.expect_err("it stays");
            assert_eq!(tries, 1);
        }
    }
}
