//! The consumer of one incarnation, and the shim's end of it.
//!
//! State is in memory (it doubles the throughput of many agents); what a broker restart forgets, the journal knows. Acks are
//! plain publishes: fencing is the consumer's name and the compare-and-set of the final state, never the ack.

use bytes::Bytes;
use common::AgentName;
use common::message::Envelope;

use crate::connection::Broker;
use crate::error::Result;

/// A consumer's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerState {
    /// Everything up to this stream sequence is acked.
    pub ack_floor: u64,
    /// The last stream sequence that was given out.
    pub delivered: u64,
    /// Requests not given out yet.
    pub pending: u64,
    /// Given out and not acked.
    pub ack_pending: u64,
}

impl Broker {
    /// Creates the consumer of an incarnation (`ack_wait` 30 s, `max_deliver` 20 as the backstop, at most `window` unacked), filtered to the agent's requests
    /// from `start_seq` on. Exists already: true as well.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub async fn create_consumer(
        &self,
        _agent: &AgentName,
        _incarnation: u64,
        _start_seq: u64,
        _window: u32,
    ) -> Result<()> {
        todo!()
    }

    /// A consumer's figures; none if it does not exist.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn consumer(
        &self,
        _agent: &AgentName,
        _incarnation: u64,
    ) -> Result<Option<ConsumerState>> {
        todo!()
    }

    /// Deletes a consumer: its incarnation's pulls and acks find nobody from now on. Not there: fine.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn delete_consumer(&self, _agent: &AgentName, _incarnation: u64) -> Result<()> {
        todo!()
    }

    /// The names of all incarnation consumers, as (agent, incarnation).
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn consumers(&self) -> Result<Vec<(AgentName, u64)>> {
        todo!()
    }

    /// Pulls from an incarnation's consumer, keeping at most `window` requests on their way or with the caller.
    /// Needs no answer from the broker: the first pull is on its way when this returns.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn pull(&self, _agent: &AgentName, _incarnation: u64, _window: u32) -> Result<Inbox> {
        todo!()
    }

    /// Settles a delivery. Not awaited by the server: a lost ack is a redelivery, which the shim answers from the journal.
    ///
    /// # Errors
    /// When the client's queue stays full for 1 s.
    pub async fn ack(&self, _reply: &str) -> Result<()> {
        todo!()
    }

    /// Keeps a delivery from being redelivered for another `ack_wait`.
    ///
    /// # Errors
    /// As [`Broker::ack`].
    pub async fn in_progress(&self, _reply: &str) -> Result<()> {
        todo!()
    }
}

/// The shim's end of a consumer.
#[derive(Debug)]
pub struct Inbox {}

/// A request on its way to the worker.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Checked: subject, headers and body agree.
    pub envelope: Envelope,
    /// Its stream sequence.
    pub seq: u64,
    /// How often this consumer has given it out.
    pub delivered: u64,
    /// For [`Broker::ack`].
    pub reply: String,
    /// The size of its payload, in bytes.
    pub size: usize,
}

/// What an [`Inbox`] yields.
#[derive(Debug, Clone)]
pub enum InboxItem {
    /// A request.
    Delivery(Box<Delivery>),
    /// Something that is not one of this agent's requests: refused (and acked when the broker itself delivered it from the stream).
    Refused {
        /// Why.
        reason: String,
        /// For the log, at most 4 KiB of it.
        payload: Bytes,
    },
    /// The consumer is gone: replaced, or forgotten by a broker restart. Nothing more will come from this inbox.
    Gone,
}

impl Inbox {
    /// The next item. Waits over the broker's outages. Cancel safe. Pulls again by itself as [`Inbox::release`] makes room.
    pub async fn next(&mut self) -> InboxItem {
        todo!()
    }

    /// Makes room for `count` more requests.
    pub fn release(&mut self, _count: u32) {
        todo!()
    }

    /// Stops asking for more. What is on its way may still come.
    pub fn close(&mut self) {
        todo!()
    }
}
