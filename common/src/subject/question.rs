//! Questions to people.

use super::{Subjects, key};
use crate::message::MessageKey;
use crate::{AgentName, MessageId, RequestTag};

/// What a subject of a question names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionSubject {
    /// The message.
    pub key: MessageKey,
    /// The tag of the question's id.
    pub tag: RequestTag,
    /// Whether it is the answer; else what was asked.
    pub is_answer: bool,
}

impl Subjects {
    /// What was asked, while it is open.
    #[must_use]
    pub fn question(&self, key: &MessageKey, tag: &RequestTag) -> String {
        format!("{}.{tag}.asked", self.of_message("question", key))
    }

    /// Its answer.
    #[must_use]
    pub fn answer(&self, key: &MessageKey, tag: &RequestTag) -> String {
        format!("{}.{tag}.answered", self.of_message("question", key))
    }

    /// A question and its answer.
    #[must_use]
    pub fn question_and_answer(&self, key: &MessageKey, tag: &RequestTag) -> String {
        format!("{}.{tag}.*", self.of_message("question", key))
    }

    /// The questions of a message that are open.
    #[must_use]
    pub fn open_questions_of(&self, key: &MessageKey) -> String {
        format!("{}.*.asked", self.of_message("question", key))
    }

    /// The questions of a message, and their answers.
    #[must_use]
    pub fn asked_in(&self, key: &MessageKey) -> String {
        format!("{}.*.*", self.of_message("question", key))
    }

    /// Those of all of an agent's messages.
    #[must_use]
    pub fn asked_by(&self, agent: &AgentName) -> String {
        format!("{}.question.{agent}.*.*.*.*", self.prefix)
    }

    /// The questions that are open, or their answers, of these names; none is any.
    #[must_use]
    pub fn questions_named(
        &self,
        agent: Option<&AgentName>,
        message: Option<&MessageId>,
        tag: Option<&RequestTag>,
        is_answer: bool,
    ) -> String {
        let agent = agent.map_or("*", AgentName::as_str);
        let message = message.map_or("*", MessageId::as_str);
        let tag = tag.map_or("*", RequestTag::as_str);
        let end = if is_answer { "answered" } else { "asked" };
        format!("{}.question.{agent}.*.{message}.{tag}.{end}", self.prefix)
    }

    /// Everything that QUESTIONS takes.
    #[must_use]
    pub fn question_filter(&self) -> String {
        format!("{}.question.*.*.*.*.*", self.prefix)
    }

    /// Parses a subject of [`Self::question`] or [`Self::answer`].
    #[must_use]
    pub fn parse_question(&self, subject: &str) -> Option<QuestionSubject> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".question.")?;
        let mut tokens = rest.split('.');
        let (key, tag) = (key(&mut tokens)?, RequestTag::new(tokens.next()?).ok()?);
        let is_answer = match tokens.next()? {
            "asked" => false,
            "answered" => true,
            _ => return None,
        };
        tokens.next().is_none().then_some(QuestionSubject { key, tag, is_answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Namespace, SenderName};

    #[test]
    fn what_is_spelled_is_parsed() {
        let subjects = Subjects::new(Namespace::new("t").expect("valid"), 4);
        let key = MessageKey {
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            message_id: MessageId::new("m").expect("valid"),
        };
        let tag = RequestTag::new("x").expect("valid");
        let asked = subjects.question(&key, &tag);
        assert_eq!(asked, "mozart.t.question.a.user.m.x.asked");
        assert_eq!(subjects.agent_of(&asked), Some(key.agent.clone()));
        for (subject, is_answer) in [(asked, false), (subjects.answer(&key, &tag), true)] {
            let named = QuestionSubject { key: key.clone(), tag: tag.clone(), is_answer };
            assert_eq!(subjects.parse_question(&subject), Some(named));
        }
        for other in ["mozart.t.question.a.user.m.x.other", "mozart.t.question.a.user.m.asked"] {
            assert_eq!(subjects.parse_question(other), None);
        }
        let agent = Some(&key.agent);
        assert_eq!(
            subjects.questions_named(agent, None, Some(&tag), true),
            "mozart.t.question.a.*.*.x.answered"
        );
    }
}
