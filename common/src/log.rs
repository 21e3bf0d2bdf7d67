//! What workers write to stderr, and to stdout without it being protocol.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The shim's line in the log of an incarnation whose older lines it has removed.
pub const TRIMMED: &str = "earlier lines of this log were dropped";

/// A log line. Several travel as one LOGS message, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When the shim read it.
    pub at: Timestamp,
    /// `stderr`, `stdout` or `shim`.
    pub stream: String,
    /// The text; invalid UTF-8 replaced, at most 16 KiB.
    pub text: String,
    /// The open turn's message, when exactly one was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The incarnation (from the subject).
    #[serde(skip)]
    pub incarnation: u64,
}

impl LogLine {
    /// Whether it says that earlier lines are not there any more.
    #[must_use]
    pub fn is_trimmed(&self) -> bool {
        self.stream == "shim" && self.text == TRIMMED
    }
}
