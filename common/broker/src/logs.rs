//! LOGS: what workers write to stderr, and to stdout without it being protocol.

use common::{AgentName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::connection::Broker;
use crate::error::Result;

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

impl Broker {
    /// Stores log lines. Not awaited by the broker: logs may be lost with the connection.
    ///
    /// # Errors
    /// When the client's queue stays full for 1 s.
    pub async fn publish_logs(
        &self,
        _agent: &AgentName,
        _incarnation: u64,
        _lines: &[LogLine],
    ) -> Result<()> {
        todo!()
    }

    /// Stored log lines, oldest first, at most the last `limit`; of one incarnation or of all.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn logs(
        &self,
        _agent: &AgentName,
        _incarnation: Option<u64>,
        _limit: usize,
    ) -> Result<Vec<LogLine>> {
        todo!()
    }

    /// Follows an agent's log from now on, over all incarnations.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn follow_logs(&self, _agent: &AgentName) -> Result<LogFollower> {
        todo!()
    }
}

/// A run through LOGS.
#[derive(Debug)]
pub struct LogFollower {}

impl LogFollower {
    /// The next lines. Waits for new ones for ever. Cancel safe.
    ///
    /// # Errors
    /// When it cannot go on.
    pub async fn next(&mut self) -> Result<Vec<LogLine>> {
        todo!()
    }
}
