//! The journal: requests, final states, and reading both.

use common::message::{Envelope, Final, MessageKey};
use common::{AgentName, MessageId, Timestamp};

use crate::connection::Broker;
use crate::error::Result;

/// What became of a [`Broker::send`].
#[derive(Debug, Clone, PartialEq)]
pub enum SendOutcome {
    /// On disk, new.
    Stored {
        /// Its sequence in the agent's journal stream.
        seq: u64,
    },
    /// The same message was there already.
    Already {
        /// Its sequence.
        seq: u64,
    },
    /// Another message with this id is there.
    Conflict {
        /// What is there.
        stored: Box<Envelope>,
    },
}

/// What became of a [`Broker::publish_final`].
#[derive(Debug, Clone, PartialEq)]
pub enum FinalOutcome {
    /// Ours is the final state.
    Won,
    /// Another one was first.
    Lost(Box<Final>),
}

/// A record with its place in the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// The record.
    pub value: T,
    /// Its sequence.
    pub seq: u64,
    /// When the broker stored it.
    pub at: Timestamp,
}

/// One item of a journal scan.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalItem {
    /// Whose it is.
    pub key: MessageKey,
    /// Its sequence in the stream of its shard.
    pub seq: u64,
    /// When the broker stored it.
    pub at: Timestamp,
    /// Request or final state; both none in a headers-only scan.
    pub request: Option<Envelope>,
    /// See `request`.
    pub final_: Option<Final>,
    /// Whether it is the final state.
    pub is_final: bool,
}

/// What is open in an agent's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenScan {
    /// Requests without a final state, oldest first, at most as many as asked for.
    pub open: Vec<(u64, MessageKey, Timestamp)>,
    /// How many there are.
    pub total: u64,
    /// The last sequence of the stream when the scan ended.
    pub last_seq: u64,
}

impl Broker {
    /// Stores a message: compare-and-set against "nothing there" plus its id, repeated within `timeout` until the broker answers.
    ///
    /// # Errors
    /// Too large, full, or no answer in time: then it may be stored, and sending it again is harmless.
    pub async fn send(
        &self,
        _envelope: &Envelope,
        _timeout: std::time::Duration,
    ) -> Result<SendOutcome> {
        todo!()
    }

    /// Stores a message's final state, if it has none. `author` must differ between any two that may try at once
    /// (such as `<incarnation>.<attempt>`): it makes a repeated try of one's own recognisable.
    ///
    /// # Errors
    /// As [`Broker::send`].
    pub async fn publish_final(
        &self,
        _key: &MessageKey,
        _final: &Final,
        _author: &str,
        _timeout: std::time::Duration,
    ) -> Result<FinalOutcome> {
        todo!()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn request_of(&self, _key: &MessageKey) -> Result<Option<Stored<Envelope>>> {
        todo!()
    }

    /// Reads a message's final state, from the stream's leader.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn final_of(&self, _key: &MessageKey) -> Result<Option<Stored<Final>>> {
        todo!()
    }

    /// Finds messages by id alone, in all shards.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn find(&self, _message: &MessageId) -> Result<Vec<Stored<Envelope>>> {
        todo!()
    }

    /// Reads requests and finals in order: of one agent, or of all shards one after the other. `headers_only` leaves the bodies out.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn scan(
        &self,
        _agent: Option<&AgentName>,
        _from_seq: u64,
        _headers_only: bool,
    ) -> Result<JournalScan> {
        todo!()
    }

    /// What has no final state among an agent's requests from a sequence on; lists at most `limit`.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn open_requests(
        &self,
        _agent: &AgentName,
        _from_seq: u64,
        _limit: usize,
    ) -> Result<OpenScan> {
        todo!()
    }

    /// How many requests an agent has in the journal.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn count_requests(&self, _agent: &AgentName) -> Result<u64> {
        todo!()
    }

    /// The last sequence of the agent's journal stream.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn journal_last_seq(&self, _agent: &AgentName) -> Result<u64> {
        todo!()
    }
}

/// A scan under way; reads up to what was stored when it began.
#[derive(Debug)]
pub struct JournalScan {}

impl JournalScan {
    /// The next item; none at the end.
    ///
    /// # Errors
    /// When the broker does not answer, or a record does not parse: the scan can go on after that one.
    pub async fn next(&mut self) -> Result<Option<JournalItem>> {
        todo!()
    }
}
