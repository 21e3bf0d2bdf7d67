//! EVENTS: what happens between a request and its final state.

use common::event::Event;
use common::{AgentName, ConversationId, MessageId};

use crate::connection::Broker;
use crate::error::Result;

/// Events of one message that go out as one EVENTS message.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch {
    /// Whose message it is.
    pub agent: AgentName,
    /// The message.
    pub message_id: MessageId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Who says so.
    pub incarnation: u64,
    /// In which attempt.
    pub attempt: u32,
    /// The events, in order.
    pub events: Vec<Event>,
}

/// The headers of a message's last EVENTS message: the record of its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventMark {
    /// The last attempt.
    pub attempt: u32,
    /// Its incarnation.
    pub incarnation: u64,
    /// The number of its first event in that EVENTS message.
    pub seq: u64,
    /// Whether that EVENTS message holds an `acknowledged`, and its last event's kind is `error` — from the payload.
    pub ended: bool,
}

impl Broker {
    /// Stores events and waits for the broker's answer. The message id `<message>.<attempt>.<incarnation>.<seq>` makes a repeat harmless.
    ///
    /// # Errors
    /// When the broker does not answer: repeat.
    pub async fn publish_events(&self, _batch: &EventBatch) -> Result<()> {
        todo!()
    }

    /// What is on record about a message's attempts.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn last_mark(
        &self,
        _agent: &AgentName,
        _message: &MessageId,
    ) -> Result<Option<EventMark>> {
        todo!()
    }

    /// All stored events of a message, in stream order, with their incarnations and attempts.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn events(
        &self,
        _agent: &AgentName,
        _message: &MessageId,
    ) -> Result<Vec<EventBatch>> {
        todo!()
    }

    /// Follows the events of one message (or of all of an agent's), stored ones first, then live.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn follow_events(
        &self,
        _agent: &AgentName,
        _message: Option<&MessageId>,
    ) -> Result<EventFollower> {
        todo!()
    }
}

/// A run through EVENTS; survives the broker's restart.
#[derive(Debug)]
pub struct EventFollower {}

impl EventFollower {
    /// The next batch. Waits for new ones for ever. Cancel safe.
    ///
    /// # Errors
    /// When it cannot go on.
    pub async fn next(&mut self) -> Result<EventBatch> {
        todo!()
    }
}
