//! Retrying until there is an answer: the one place that knows which errors are temporary, and how soon to retry. How long that may go
//! on is up to the caller.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{BrokerError, Result};
use crate::wire::jitter;

/// The first pause after a failed try.
const FIRST: Duration = Duration::from_millis(100);

/// The longest.
const LONGEST: Duration = Duration::from_secs(2);

/// Tries that failed and were followed by another one, in this process.
static REPEATED: AtomicU64 = AtomicU64::new(0);

/// How many requests were repeated in this process so far.
#[must_use]
pub fn repeated() -> u64 {
    REPEATED.load(Ordering::Relaxed)
}

/// The tries of one call, which must be harmless when repeated.
#[derive(Debug)]
pub struct Retries {
    what: Cow<'static, str>,
    pause: Duration,
}

impl Retries {
    /// `what` names what is attempted, for the log.
    #[must_use]
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), pause: FIRST }
    }

    /// Waits after a failed write, ever more patiently, if another one can help.
    ///
    /// # Errors
    /// The same error, at once, if it cannot: the record is too large, or cannot be read. The caller cuts it, or gives it up.
    pub async fn after(&mut self, error: BrokerError) -> Result<()> {
        if !error.passes() {
            return Err(error);
        }
        self.pause(&error).await;
        Ok(())
    }

    /// Waits after a failed try, whatever the error, of something that cannot be skipped: a read that decides, a handover.
    pub async fn pause(&mut self, error: &BrokerError) {
        REPEATED.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("{} failed, retrying: {error}", self.what);
        tokio::time::sleep(jitter(self.pause)).await;
        self.pause = (self.pause * 2).min(LONGEST);
    }
}

/// How long to wait after the nth failed try, from 0, for callers that do not use [`Retries::pause`]: as long as that does.
#[must_use]
pub fn pause_after(tries: u32) -> Duration {
    jitter(FIRST.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_ever_more_patiently() {
        let mut retries = Retries::new("x");
        let began = Instant::now();
        for tries in 0..40 {
            let error = match tries % 3 {
                0 => BrokerError::Timeout(FIRST),
                1 => BrokerError::Full("no room".into()),
                _ => BrokerError::other("no leader"),
            };
            retries.after(error).await.expect("it may help");
            assert!(tries > 1 || began.elapsed() < Duration::from_secs(1));
        }
        assert!(began.elapsed() > Duration::from_secs(50), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_ends_at_once() {
        let began = Instant::now();
        let error = Retries::new("x").after(BrokerError::TooLarge { size: 2, max: 1 }).await;
        assert!(matches!(error, Err(BrokerError::TooLarge { .. })));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
