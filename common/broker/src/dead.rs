//! DEAD: messages that were given up.

use common::message::DeadLetter;
use common::{AgentName, MessageId};

use crate::connection::Broker;
use crate::error::Result;
use crate::journal::Stored;

impl Broker {
    /// Stores a dead letter, if there is none for this message (true: it was new).
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn bury(&self, _letter: &DeadLetter) -> Result<bool> {
        todo!()
    }

    /// Replaces a dead letter, if it still is the one at `seq` (marks it redriven). False: somebody was faster.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn rebury(&self, _letter: &DeadLetter, _seq: u64) -> Result<bool> {
        todo!()
    }

    /// Reads a dead letter.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn dead_letter(
        &self,
        _agent: &AgentName,
        _message: &MessageId,
    ) -> Result<Option<Stored<DeadLetter>>> {
        todo!()
    }

    /// All dead letters, of one agent or of all, oldest first.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn dead_letters(
        &self,
        _agent: Option<&AgentName>,
    ) -> Result<Vec<Stored<DeadLetter>>> {
        todo!()
    }

    /// Removes a dead letter. False: not there.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_dead_letter(&self, _agent: &AgentName, _message: &MessageId) -> Result<bool> {
        todo!()
    }
}
