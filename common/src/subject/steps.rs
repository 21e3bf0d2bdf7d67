//! What workers store in the course of their turns.

use super::Subjects;
use crate::AgentName;
use crate::message::MessageKey;

impl Subjects {
    /// The steps of a message.
    #[must_use]
    pub fn steps(&self, key: &MessageKey) -> String {
        self.of_message("steps", key)
    }

    /// The steps of all of an agent's messages.
    #[must_use]
    pub fn steps_of(&self, agent: &AgentName) -> String {
        format!("{}.steps.{agent}.*.*", self.prefix)
    }

    /// Parses a subject of [`Self::steps`].
    #[must_use]
    pub fn parse_steps(&self, subject: &str) -> Option<MessageKey> {
        self.parse_of_message("steps", subject)
    }

    /// Everything that STEPS takes.
    #[must_use]
    pub fn steps_filter(&self) -> String {
        format!("{}.steps.*.*.*", self.prefix)
    }
}
