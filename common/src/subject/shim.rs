//! What one incarnation's shim may use: its subjects, its login, and the reasons to refuse it.

use super::Subjects;
use crate::{AgentName, SenderName};

/// How many names the consumers of an incarnation can have beside the first: one that does not answer gets a successor.
pub const CONSUMER_NAMES: u32 = 9;

impl Subjects {
    /// What a shim asks the supervisors.
    #[must_use]
    pub fn shim_ask(&self, agent: &AgentName, incarnation: u64) -> String {
        format!("{}.shim.{agent}.{incarnation}.ask", self.prefix)
    }

    /// What all shims ask.
    #[must_use]
    pub fn shim_asks(&self) -> String {
        format!("{}.shim.*.*.ask", self.prefix)
    }

    /// Parses a subject of [`Self::shim_ask`].
    #[must_use]
    pub fn parse_shim_ask(&self, subject: &str) -> Option<(AgentName, u64)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".shim.")?;
        let (agent, incarnation) = rest.strip_suffix(".ask")?.split_once('.')?;
        Some((AgentName::new(agent).ok()?, incarnation.parse().ok()?))
    }

    /// Where a shim gets its answers: no other user may listen there.
    #[must_use]
    pub fn shim_inbox(&self, agent: &AgentName, incarnation: u64) -> String {
        format!("_INBOX.{}.{agent}.{incarnation}", self.prefix)
    }

    /// The user that a shim connects as. Its password is the token of its command subject.
    #[must_use]
    pub fn shim_user(&self, agent: &AgentName, incarnation: u64) -> String {
        format!("{}.shim.{agent}.{incarnation}", self.prefix)
    }

    /// Parses what [`Self::shim_user`] makes; none for users of other fleets.
    #[must_use]
    pub fn parse_shim_user(&self, user: &str) -> Option<(AgentName, u64)> {
        let rest = user.strip_prefix(&self.prefix)?.strip_prefix(".shim.")?;
        let (agent, incarnation) = rest.split_once('.')?;
        Some((AgentName::new(agent).ok()?, incarnation.parse().ok()?))
    }

    /// All names that the consumers of an incarnation can have.
    pub fn consumers_of(
        &self,
        agent: &AgentName,
        incarnation: u64,
    ) -> impl Iterator<Item = String> + use<> {
        let first = self.consumer(agent, incarnation);
        let others = (1..=CONSUMER_NAMES).map({
            let first = first.clone();
            move |number| format!("{first}_{number}")
        });
        std::iter::once(first).chain(others)
    }

    /// The requests of a sender to any agent.
    #[must_use]
    pub fn requests_by(&self, sender: &SenderName) -> String {
        let shard = if self.shards > 1 { ".*" } else { "" };
        format!("{}.journal.*.{sender}.*.*.request{shard}", self.prefix)
    }

    /// What was refused to an agent, or to those who are none.
    #[must_use]
    pub fn security(&self, agent: Option<&AgentName>) -> String {
        let whom = agent.map_or(super::FLEET, AgentName::as_str);
        format!("{}.security.{whom}", self.prefix)
    }

    /// Everything that SECURITY takes.
    #[must_use]
    pub fn security_filter(&self) -> String {
        format!("{}.security.*", self.prefix)
    }
}
