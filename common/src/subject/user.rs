//! What one user may use: its login, its inbox, and where it asks the supervisors.

use super::Subjects;
use crate::users::Scope;
use crate::{AgentName, NodeName, SenderName};

impl Subjects {
    /// As whom a user connects.
    #[must_use]
    pub fn user(&self, name: &SenderName) -> String {
        format!("{}.user.{name}", self.prefix)
    }

    /// Parses what [`Self::user`] makes; none for users of other fleets.
    #[must_use]
    pub fn parse_user(&self, user: &str) -> Option<SenderName> {
        let name = user.strip_prefix(&self.prefix)?.strip_prefix(".user.")?;
        SenderName::new(name).ok()
    }

    /// As whom somebody with credentials connects: a user, or a node. None if it cannot be one.
    #[must_use]
    pub fn login(&self, scope: Scope, name: &SenderName) -> Option<String> {
        match scope {
            Scope::Node => Some(self.node_user(&NodeName::new(name.as_str()).ok()?)),
            Scope::Read | Scope::Send | Scope::Operate | Scope::Admin => Some(self.user(name)),
        }
    }

    /// Where a user gets its answers.
    #[must_use]
    pub fn user_inbox(&self, name: &SenderName) -> String {
        format!("_INBOX.{}.user.{name}", self.prefix)
    }

    /// The user whose inbox this is; none if it is nobody's.
    #[must_use]
    pub fn parse_user_inbox(&self, inbox: &str) -> Option<SenderName> {
        let rest = inbox.strip_prefix("_INBOX.")?.strip_prefix(&self.prefix)?;
        let (name, _) = rest.strip_prefix(".user.")?.split_once('.')?;
        SenderName::new(name).ok()
    }

    /// Where a user asks the supervisors, one of which gets each question. Nobody else may publish there.
    #[must_use]
    pub fn query_by(&self, scope: Scope, name: &SenderName) -> String {
        format!("{}.query.{scope}.{name}", self.prefix)
    }

    /// Where it asks all of them.
    #[must_use]
    pub fn query_of_all_by(&self, scope: Scope, name: &SenderName) -> String {
        format!("{}.query._all.{scope}.{name}", self.prefix)
    }

    /// What all users ask one supervisor.
    #[must_use]
    pub fn queries_by(&self) -> String {
        format!("{}.query.*.*", self.prefix)
    }

    /// What they ask all of them.
    #[must_use]
    pub fn queries_of_all_by(&self) -> String {
        format!("{}.query._all.*.*", self.prefix)
    }

    /// Who asks, if it is a user; none for those who have all rights.
    #[must_use]
    pub fn parse_query(&self, subject: &str) -> Option<(Scope, SenderName)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".query.")?;
        let (scope, name) = rest.strip_prefix("_all.").unwrap_or(rest).split_once('.')?;
        Some((scope.parse().ok()?, SenderName::new(name).ok()?))
    }

    /// What a user needs to publish to a subject: the scope, what that is called, and the agent that it is about.
    #[must_use]
    pub fn needed(
        &self,
        subject: &str,
        user: &SenderName,
    ) -> (Scope, &'static str, Option<AgentName>) {
        let rest = subject.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('.'));
        let mut parts = rest.unwrap_or_default().split('.');
        let (kind, agent, sender) = (parts.next(), parts.next(), parts.next());
        let agent = agent.and_then(|agent| AgentName::new(agent).ok());
        let is_own = sender == Some(user.as_str());
        let is_request = subject.contains(".request");
        match kind {
            Some("journal" | "later") if is_own && is_request => (Scope::Send, "sending", agent),
            Some("journal" | "later" | "attempts") if is_own => {
                (Scope::Send, "cancelling a message", agent)
            }
            Some("journal" | "later" | "attempts") => {
                (Scope::Operate, "changing another's message", agent)
            }
            Some("dead" | "files") => (Scope::Operate, "it", None),
            Some(_) | None => (Scope::Admin, "it", None),
        }
    }

    /// Everything that a user's messages are about: `what` is `attempts` or `events`.
    #[must_use]
    pub fn of_sender(&self, what: &str, agent: &str, sender: &SenderName) -> String {
        format!("{}.{what}.{agent}.{sender}.*", self.prefix)
    }

    /// A sender's records in the journal: `agent` is one agent or `*`, `kind` is `request` or `final`.
    #[must_use]
    pub fn journal_by(&self, agent: &str, sender: &str, kind: &str) -> String {
        let shard = if self.shards > 1 { ".*" } else { "" };
        format!("{}.journal.{agent}.{sender}.*.*.{kind}{shard}", self.prefix)
    }

    /// All subjects of one kind: `events`, `logs`, `files` and so on.
    #[must_use]
    pub fn all_of(&self, what: &str) -> String {
        format!("{}.{what}.>", self.prefix)
    }
}
