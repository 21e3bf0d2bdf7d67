//! Questions to people: what a worker asks in the course of a turn, and what somebody has answered.
//!
//! Each question of a message has two subjects, by the tag of its id: what was asked, while nobody has answered; and the answer, the first of
//! which counts.

use serde::{Deserialize, Serialize};

use crate::{ConversationId, RequestTag, Timestamp};

/// The most bytes of a question, and of an answer.
pub const MAX_TEXT: usize = 16 << 10;
/// The most answers that a question may offer,
pub const MAX_OPTIONS: usize = 32;
/// and the most bytes of each of them.
pub const MAX_OPTION: usize = 256;
/// The most bytes of a question's id.
pub const MAX_REQUEST_ID: usize = 256;
/// The most questions that a turn may have open.
pub const MAX_OPEN: usize = 16;
/// How long a question is open if the worker says nothing else, in milliseconds,
pub const USUAL_TIMEOUT_MS: u64 = 24 * 3_600_000;
/// and at most.
pub const MAX_TIMEOUT_MS: u64 = 30 * 24 * 3_600_000;

/// A question, as the worker asks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// The worker's id of it, once in a message.
    pub request_id: String,
    /// The question.
    pub text: String,
    /// The answers that are accepted; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// The answer where nobody has given one in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// How long it is open, by the broker's clock, from the moment at which it is stored.
    pub timeout_ms: u64,
}

impl Question {
    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// It is beyond a limit, or its default is none of its options.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, length: usize, most: usize| match length {
            0 => Err(format!("`{name}` is empty")),
            length if length > most => {
                Err(format!("`{name}` has {length} bytes: at most {most} are accepted"))
            }
            _ => Ok(()),
        };
        within("requestId", self.request_id.len(), MAX_REQUEST_ID)?;
        within("text", self.text.len(), MAX_TEXT)?;
        if self.options.len() > MAX_OPTIONS {
            let count = self.options.len();
            return Err(format!("`options` has {count} items: at most {MAX_OPTIONS} are accepted"));
        }
        for (at, option) in self.options.iter().enumerate() {
            within("an option", option.len(), MAX_OPTION)?;
            if self.options[..at].contains(option) {
                return Err(format!("`options` contains {option:?} twice"));
            }
        }
        if !(1..=MAX_TIMEOUT_MS).contains(&self.timeout_ms) {
            return Err(format!("`timeoutMs` must be a number from 1 to {MAX_TIMEOUT_MS}"));
        }
        if let Some(default) = &self.default {
            self.accepts(default).map_err(|why| format!("`default`: {why}"))?;
        }
        Ok(())
    }

    /// Whether a text answers it.
    ///
    /// # Errors
    /// Why it does not.
    pub fn accepts(&self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Err("an answer cannot be empty".to_owned());
        }
        if text.len() > MAX_TEXT {
            let length = text.len();
            return Err(format!("an answer of {length} bytes: at most {MAX_TEXT} are accepted"));
        }
        if !self.options.is_empty() && !self.options.iter().any(|option| option == text) {
            return Err(format!("it is none of the options: {}", self.listed()));
        }
        Ok(())
    }

    /// The option that a person means who names it by its text or by its number; the text itself, where there are no options.
    #[must_use]
    pub fn meant<'a>(&'a self, text: &'a str) -> &'a str {
        if self.options.iter().any(|option| option == text) {
            return text;
        }
        let number = text.trim().parse::<usize>().ok();
        let option = number.and_then(|number| self.options.get(number.checked_sub(1)?));
        option.map_or(text, String::as_str)
    }

    /// Its options with their numbers, in a line.
    #[must_use]
    pub fn listed(&self) -> String {
        let numbered = self.options.iter().enumerate();
        let numbered = numbered.map(|(at, option)| format!("{} {option:?}", at + 1));
        numbered.collect::<Vec<_>>().join(", ")
    }
}

/// A record of `question.….asked`: it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// The question.
    #[serde(flatten)]
    pub question: Question,
    /// The attempt that asked it first.
    pub attempt: u32,
    /// Its incarnation.
    pub incarnation: u64,
    /// The conversation of its message.
    pub conversation_id: ConversationId,
}

impl Asked {
    /// When it ends. `at`: when the broker stored it.
    #[must_use]
    pub fn until(&self, at: Timestamp) -> Timestamp {
        Timestamp::from_millis(at.as_millis().saturating_add(self.question.timeout_ms))
    }
}

/// A record of `question.….answered`: what the worker is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// The worker's id of the question.
    pub request_id: String,
    /// The answer; empty when there is an `error`.
    pub text: String,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Nobody has answered in time: it is the worker's own default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_default: bool,
    /// Who has answered; none if nobody has in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Which write it was: what is repeated since its confirmation was lost is no second answer.
    pub write: String,
    /// What was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Question>,
}

impl Answered {
    /// What a person answers.
    #[must_use]
    pub fn by(question: Question, text: &str, by: &str, write: String) -> Self {
        let (request_id, text) = (question.request_id.clone(), text.to_owned());
        let (by, question) = (Some(by.to_owned()), Some(question));
        Self { request_id, text, error: None, is_default: false, by, write, question }
    }

    /// How a question ends that nobody has answered in time.
    #[must_use]
    pub fn nobody(question: Question, write: String) -> Self {
        let request_id = question.request_id.clone();
        let error = question.default.is_none().then(|| {
            let within = std::time::Duration::from_millis(question.timeout_ms);
            format!("nobody answered within {within:?}")
        });
        let (is_default, text) = (error.is_none(), question.default.clone().unwrap_or_default());
        Self { request_id, text, error, is_default, by: None, write, question: Some(question) }
    }
}

/// A question that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OpenQuestion {
    /// The agent that asks.
    pub agent: crate::AgentName,
    /// Who sent the message.
    pub sender: crate::SenderName,
    /// The message in whose course it asks.
    pub message_id: crate::MessageId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The question's id.
    pub request_id: String,
    /// The question.
    pub text: String,
    /// The answers that are accepted; empty: any.
    #[serde(default)]
    pub options: Vec<String>,
    /// The answer if nobody gives one in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// When it was stored.
    pub asked: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

impl OpenQuestion {
    /// The tag of its id.
    #[must_use]
    pub fn tag(&self) -> RequestTag {
        RequestTag::of(&self.request_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            request_id: "q1".to_owned(),
            text: "Deploy?".to_owned(),
            options: Vec::new(),
            default: None,
            timeout_ms: 1000,
        }
    }

    #[test]
    fn what_is_beyond_a_limit_is_named() {
        let options = |options: &[&str]| options.iter().map(|it| (*it).to_owned()).collect();
        for (bad, why) in [
            (Question { request_id: String::new(), ..question() }, "`requestId` is empty"),
            (Question { request_id: "x".repeat(257), ..question() }, "257 bytes"),
            (Question { text: String::new(), ..question() }, "`text` is empty"),
            (Question { text: "x".repeat(MAX_TEXT + 1), ..question() }, "16385 bytes"),
            (Question { options: options(&["a", "b", "a"]), ..question() }, "\"a\" twice"),
            (Question { options: options(&["a", ""]), ..question() }, "`an option` is empty"),
            (Question { options: vec!["x".repeat(257)], ..question() }, "257 bytes"),
            (
                Question { options: (0..33).map(|n| n.to_string()).collect(), ..question() },
                "33 items",
            ),
            (Question { timeout_ms: 0, ..question() }, "`timeoutMs`"),
            (Question { timeout_ms: MAX_TIMEOUT_MS + 1, ..question() }, "`timeoutMs`"),
            (
                Question { options: options(&["a"]), default: Some("b".to_owned()), ..question() },
                "`default`: it is none of the options: 1 \"a\"",
            ),
        ] {
            let found = bad.check().expect_err(why);
            assert!(found.contains(why), "{found}");
        }
        let longest = Question {
            request_id: "x".repeat(MAX_REQUEST_ID),
            text: "x".repeat(MAX_TEXT),
            options: (0..MAX_OPTIONS).map(|n| format!("{n:0>256}")).collect(),
            default: Some(format!("{:0>256}", 3)),
            timeout_ms: MAX_TIMEOUT_MS,
        };
        longest.check().expect("all of it is within its limits");
    }

    #[test]
    fn an_option_is_meant_by_its_text_or_else_by_its_number() {
        let options = ["yes", "no", "1"].map(str::to_owned).to_vec();
        let asked = Question { options, ..question() };
        for (said, meant) in [("yes", "yes"), ("2", "no"), ("1", "1"), ("3", "1"), ("4", "4")] {
            assert_eq!(asked.meant(said), meant);
        }
        assert!(asked.accepts("no").is_ok());
        let refused = asked.accepts("4").expect_err("there is no fourth");
        assert_eq!(refused, "it is none of the options: 1 \"yes\", 2 \"no\", 3 \"1\"");
        assert_eq!(question().meant("2"), "2", "a text, where there are no options");
        assert!(question().accepts("").is_err());
    }

    #[test]
    fn who_gets_no_answer_gets_the_default_or_an_error() {
        let with = Question { default: Some("no".to_owned()), ..question() };
        let answered = Answered::nobody(with, "w".to_owned());
        assert_eq!((answered.text.as_str(), answered.is_default), ("no", true));
        assert_eq!(answered.error, None);
        let answered = Answered::nobody(question(), "w".to_owned());
        assert_eq!(answered.error.as_deref(), Some("nobody answered within 1s"));
        assert!(!answered.is_default && answered.by.is_none());
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let asked = Asked {
            question: question(),
            attempt: 1,
            incarnation: 7,
            conversation_id: ConversationId::new("c").expect("valid"),
        };
        let text = serde_json::to_string(&asked).expect("it encodes");
        assert_eq!(
            text,
            r#"{"requestId":"q1","text":"Deploy?","timeoutMs":1000,"attempt":1,"incarnation":7,"conversationId":"c"}"#
        );
        assert_eq!(serde_json::from_str::<Asked>(&text).expect("what was written"), asked);
        assert_eq!(asked.until(Timestamp::from_millis(5)), Timestamp::from_millis(1005));
    }
}
