//! Why a turn has no answer.

use std::fmt;
use std::time::Duration;

/// Why a turn has no answer. Any error is one (`?`), and fails the message for good.
#[derive(Debug)]
pub struct Error {
    pub(crate) reason: String,
    pub(crate) retry: bool,
    pub(crate) after: Option<Duration>,
    pub(crate) cancelled: bool,
}

impl Error {
    /// The message failed; another attempt would not help.
    #[must_use]
    pub fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), retry: false, after: None, cancelled: false }
    }

    /// The turn failed, and another attempt may help.
    #[must_use]
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self { retry: true, ..Self::new(reason) }
    }

    /// The same, after this time; else after the delay of ATTEMPTS.
    #[must_use]
    pub fn retry_after(reason: impl fmt::Display, after: Duration) -> Self {
        Self { after: Some(after), ..Self::retry(reason) }
    }

    pub(crate) fn cancelled() -> Self {
        // After a deadline this counts as an attempt; after a cancellation nobody looks.
        Self { cancelled: true, ..Self::retry("cancelled") }
    }

    /// Whether the turn was cancelled, or its deadline has passed.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

// Not an error of the standard library itself: else not every such error could become one.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}
