//! Questions to people, as supervisors show them and take answers.

use serde::{Deserialize, Serialize};

use crate::question::OpenQuestion;
use crate::{AgentName, MessageId};

/// Some questions that are open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuestionPage {
    /// They, in the order in which they were asked.
    pub rows: Vec<OpenQuestion>,
    /// After which place there may be more; none at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerTo {
    /// The agent; none if the request's id tells, alone or behind the agent and the message, with slashes between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// The message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// The question's id.
    pub request_id: String,
    /// The answer.
    pub text: String,
    /// Whether a number names an option.
    #[serde(default)]
    pub numbered: bool,
    /// Who answers, where the connection does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Which answer it is: one that is repeated is the same one.
    pub write: String,
}

/// How a question may be named: by its id alone, behind its agent, or behind its agent and its message.
pub type Reading<'a> = (Option<AgentName>, Option<MessageId>, &'a str);

impl AnswerTo {
    /// What its names may mean. An id may have slashes, too.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading<'_>> {
        let whole = (self.agent.clone(), self.message_id.clone(), self.request_id.as_str());
        let mut readings = vec![whole];
        if self.agent.is_none()
            && let Some((agent, rest)) = self.request_id.split_once('/')
            && let Ok(agent) = AgentName::new(agent)
        {
            readings.push((Some(agent.clone()), None, rest));
            if let Some((message, rest)) = rest.split_once('/')
                && let Ok(message) = MessageId::new(message)
            {
                readings.push((Some(agent), Some(message), rest));
            }
        }
        readings
    }
}

/// A question that has its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AnswerTaken {
    /// The agent.
    pub agent: AgentName,
    /// The message.
    pub message_id: MessageId,
    /// The question's id.
    pub request_id: String,
    /// The answer, as the worker gets it.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_named_alone_or_behind_its_agent_and_message() {
        let to = |request_id: &str| AnswerTo {
            agent: None,
            message_id: None,
            request_id: request_id.to_owned(),
            text: "yes".to_owned(),
            numbered: true,
            by: None,
            write: "w".to_owned(),
        };
        let agent = AgentName::new("a").ok();
        let message = MessageId::new("m").ok();
        assert_eq!(to("q").readings(), [(None, None, "q")]);
        assert_eq!(to("a/q").readings(), [(None, None, "a/q"), (agent.clone(), None, "q")]);
        assert_eq!(
            to("a/m/q/1").readings(),
            [
                (None, None, "a/m/q/1"),
                (agent.clone(), None, "m/q/1"),
                (agent.clone(), message, "q/1")
            ]
        );
        assert_eq!(to("A/q").readings(), [(None, None, "A/q")], "no agent has this name");
        let named = AnswerTo { agent: agent.clone(), ..to("x/q") };
        assert_eq!(named.readings(), [(agent, None, "x/q")]);
    }
}
