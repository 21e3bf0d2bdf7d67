//! CONTROL: the log that every supervisor folds.

use common::AgentName;
use common::control::ControlRecord;

use crate::connection::Broker;
use crate::error::Result;

/// Where an appended record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence.
    pub seq: u64,
}

/// What a [`ControlFollower`] yields.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlItem {
    /// A record.
    Record {
        /// Its sequence.
        seq: u64,
        /// The record.
        record: Box<ControlRecord>,
    },
    /// A record that does not parse: shown and skipped.
    Malformed {
        /// Its sequence.
        seq: u64,
        /// The parser's words.
        cause: String,
    },
    /// Everything that was stored when the follower began has been seen (once).
    CaughtUp,
}

impl Broker {
    /// Appends a record, with `id` as its message id: repeated within 5 s until the broker answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn append_control(&self, _record: &ControlRecord, _id: &str) -> Result<Appended> {
        todo!()
    }

    /// Follows the log from a sequence on (1 is the start): of all, or of one agent.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn follow_control(
        &self,
        _from_seq: u64,
        _agent: Option<&AgentName>,
    ) -> Result<ControlFollower> {
        todo!()
    }

    /// The last record about an agent: how a client or a shim tells whether the agent exists.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn last_control(&self, _agent: &AgentName) -> Result<Option<ControlRecord>> {
        todo!()
    }

    /// The last sequence of the log.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn control_last_seq(&self) -> Result<u64> {
        todo!()
    }
}

/// A run through CONTROL; survives the broker's restart and resumes after the last record it gave, without gaps.
#[derive(Debug)]
pub struct ControlFollower {}

impl ControlFollower {
    /// The next item. Waits for new ones for ever. Cancel safe.
    ///
    /// # Errors
    /// When it cannot go on.
    pub async fn next(&mut self) -> Result<ControlItem> {
        todo!()
    }
}
