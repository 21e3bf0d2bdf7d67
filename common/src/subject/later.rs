//! Messages that are to be delivered later, until they are. Their subjects have the tokens of the journal's, without a shard.

use super::{JournalSubject, Subjects, key};
use crate::message::MessageKey;
use crate::{AgentName, ConversationTag, MessageId, SenderName};

/// A record of LATER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaterKind {
    /// The message.
    Request,
    /// It is due, and goes into the journal: that is decided.
    Given,
    /// It was cancelled before: its final state.
    Final,
}

impl LaterKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Given => "given",
            Self::Final => "final",
        }
    }
}

impl Subjects {
    /// Where a record of a message is stored.
    #[must_use]
    pub fn later(
        &self,
        key: &MessageKey,
        conversation: &ConversationTag,
        kind: LaterKind,
    ) -> String {
        let MessageKey { agent, sender, message_id } = key;
        let kind = kind.as_str();
        format!("{}.later.{agent}.{sender}.{message_id}.{conversation}.{kind}", self.prefix)
    }

    /// All records of a message, whatever its conversation.
    #[must_use]
    pub fn later_of(&self, key: &MessageKey) -> String {
        let MessageKey { agent, sender, message_id } = key;
        format!("{}.later.{agent}.{sender}.{message_id}.*.*", self.prefix)
    }

    /// Its request, whatever its conversation: there is at most one record of this filter.
    #[must_use]
    pub fn later_request_of(&self, key: &MessageKey) -> String {
        let MessageKey { agent, sender, message_id } = key;
        format!("{}.later.{agent}.{sender}.{message_id}.*.request", self.prefix)
    }

    /// Requests by their id alone: to an agent, or to any.
    #[must_use]
    pub fn later_named(&self, agent: Option<&AgentName>, message: &MessageId) -> String {
        let agent = agent.map_or("*", AgentName::as_str);
        format!("{}.later.{agent}.*.{message}.*.request", self.prefix)
    }

    /// All records of an agent's messages: of a sender, of a conversation, or all.
    #[must_use]
    pub fn later_to(
        &self,
        agent: &AgentName,
        sender: Option<&SenderName>,
        conversation: Option<&ConversationTag>,
    ) -> String {
        let sender = sender.map_or("*", SenderName::as_str);
        let tag = conversation.map_or_else(|| "*".to_owned(), ToString::to_string);
        format!("{}.later.{agent}.{sender}.*.{tag}.*", self.prefix)
    }

    /// What a user may store there: `agent` is one agent or `*`, `kind` is `request` or `final`.
    #[must_use]
    pub fn later_by(&self, agent: &str, sender: &str, kind: &str) -> String {
        format!("{}.later.{agent}.{sender}.*.*.{kind}", self.prefix)
    }

    /// All requests.
    #[must_use]
    pub fn later_requests(&self) -> String {
        format!("{}.later.*.*.*.*.request", self.prefix)
    }

    /// Everything that LATER takes.
    #[must_use]
    pub fn later_filter(&self) -> String {
        format!("{}.later.*.*.*.*.*", self.prefix)
    }

    /// The final states of messages that were cancelled: they are republished as those of the journal are.
    #[must_use]
    pub fn later_finals(&self) -> String {
        format!("{}.later.*.*.*.*.final", self.prefix)
    }

    /// Parses a subject of [`Self::later`].
    #[must_use]
    pub fn parse_later(&self, subject: &str) -> Option<(JournalSubject, LaterKind)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".later.")?;
        let mut tokens = rest.split('.');
        let (key, conversation) = (key(&mut tokens)?, ConversationTag::new(tokens.next()?).ok()?);
        let kind = match tokens.next()? {
            "request" => LaterKind::Request,
            "given" => LaterKind::Given,
            "final" => LaterKind::Final,
            _ => return None,
        };
        let is_final = kind == LaterKind::Final;
        let named = JournalSubject { key, conversation, is_final };
        tokens.next().is_none().then_some((named, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Namespace;

    #[test]
    fn a_subject_of_a_later_message_names_it_as_the_journal_does() {
        let subjects = Subjects::new(Namespace::new("t").expect("valid"), 4);
        let key = MessageKey {
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            message_id: MessageId::new("m1").expect("valid"),
        };
        for kind in [LaterKind::Request, LaterKind::Given, LaterKind::Final] {
            let subject = subjects.later(&key, &ConversationTag::none(), kind);
            let (named, parsed) = subjects.parse_later(&subject).expect("it is one");
            assert_eq!((&named.key, parsed), (&key, kind));
            assert_eq!(named.is_final, kind == LaterKind::Final);
            assert_eq!(subjects.parse_journal(&subject), None);
            assert_eq!(subjects.agent_of(&subject), Some(key.agent.clone()));
            assert_eq!(subjects.parse_later(&format!("{subject}.x")), None);
        }
        let request = subjects.later(&key, &ConversationTag::none(), LaterKind::Request);
        assert_eq!(request, "mozart.t.later.a.user.m1.-.request");
    }
}
