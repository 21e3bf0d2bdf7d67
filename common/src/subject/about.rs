//! Whom a record is about.

use super::Subjects;
use crate::AgentName;

impl Subjects {
    /// The agent that a stored record is about, by its subject; none for the fleet's.
    #[must_use]
    pub fn agent_of(&self, subject: &str) -> Option<AgentName> {
        const OF_AGENTS: [&str; 11] = [
            "journal", "history", "events", "attempts", "steps", "question", "control", "dead",
            "logs", "schedule", "later",
        ];
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let mut tokens = rest.split('.');
        let kind = tokens.next()?;
        OF_AGENTS.contains(&kind).then(|| AgentName::new(tokens.next()?).ok())?
    }
}
