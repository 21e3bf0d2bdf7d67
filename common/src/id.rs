//! Names and ids: checked once, at the edge, and safe in a subject, a file name and a header from then on.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a valid name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}: {expected}")]
pub struct InvalidId {
    /// What the text was meant to be, such as `agent name`.
    pub what: &'static str,
    /// The text, shortened to 80 characters.
    pub value: String,
    /// What would have been valid.
    pub expected: &'static str,
}

const NAME: &str = "1 to 63 of a-z, 0-9 and '-', starting with a letter or digit";
const TOKEN: &str = "1 to 64 of A-Z, a-z, 0-9, '_' and '-'";
const CONVERSATION: &str = "1 to 128 of A-Z, a-z, 0-9, '_', '-', '.', ':' and '@'";

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= 63
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|b| plain(b) || *b == b'-')
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_conversation(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:@".contains(&b))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:path, $expected:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks a text.
            ///
            /// # Errors
            /// When the text holds a character that the id does not allow, is empty or too long.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                if $valid(text) {
                    Ok(Self(text.into()))
                } else {
                    let value = text.chars().take(80).collect();
                    Err(InvalidId { what: $what, value, expected: $expected })
                }
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// The name of an agent.
    AgentName, "agent name", is_name, NAME
}
id! {
    /// The name of a host's node.
    NodeName, "node name", is_name, NAME
}
id! {
    /// The fleet that everything belongs to; all subjects start with it.
    Namespace, "namespace", is_name, NAME
}
id! {
    /// Who sent a message: an agent's name, or `user` for the command line.
    SenderName, "sender", is_name, NAME
}
id! {
    /// The id of a message: a UUIDv7, or the caller's own.
    MessageId, "message id", is_token, TOKEN
}
id! {
    /// The ordering key of messages: one turn at a time, in journal order.
    ConversationId, "conversation id", is_conversation, CONVERSATION
}

id! {
    /// A conversation in a subject: 13 characters made of its id, since an id may hold what a subject may not; `-` where the
    /// sender named none. Any token is one, so that what somebody stored under another one can be named as well.
    ConversationTag, "conversation tag", is_token, TOKEN
}

id! {
    /// A schedule of an agent, by its content: where it stands in the soul does not matter.
    ScheduleId, "schedule id", is_token, TOKEN
}

id! {
    /// The id of a question to a person in a subject: 26 characters made of it, since an id may be any text.
    RequestTag, "tag of a question", is_token, TOKEN
}

impl RequestTag {
    /// The tag of an id: FNV-1a of 128 bits over it, in base32.
    #[must_use]
    pub fn of(request_id: &str) -> Self {
        let hash = request_id
            .bytes()
            .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
                (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
            });
        let digit = |n: u32| char::from(BASE32[(hash >> (5 * n)) as usize & 31]);
        Self((0..26).rev().map(digit).collect::<String>().into())
    }
}

/// The sender of what schedules send. No agent and no user can have this name.
pub const SCHEDULE: &str = "schedule";

/// 64 bits, five a character.
const TAG_LENGTH: usize = 13;
/// RFC 4648, in lower case.
pub(crate) const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl ConversationTag {
    const NONE: &'static str = "-";

    /// The tag of a message that is a conversation of its own.
    #[must_use]
    pub fn none() -> Self {
        Self(Self::NONE.into())
    }

    /// The tag of a message's conversation: FNV-1a over its id, in base32.
    #[must_use]
    pub fn of(conversation: &ConversationId, message: &MessageId) -> Self {
        if conversation.as_str() == message.as_str() {
            return Self::none();
        }
        Self::of_conversation(conversation)
    }

    /// The tag of a conversation that a sender named.
    #[must_use]
    pub fn of_conversation(conversation: &ConversationId) -> Self {
        let hash = conversation.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        // From the highest bits down; the first character has only four.
        let digit = |n: usize| char::from(BASE32[(hash >> (5 * n)) as usize & 31]);
        Self((0..TAG_LENGTH).rev().map(digit).collect::<String>().into())
    }
}

/// The command line as a sender. No agent can have this name, or its questions would look like a person's.
pub const USER: &str = "user";

impl From<AgentName> for SenderName {
    fn from(agent: AgentName) -> Self {
        Self(agent.0)
    }
}

impl From<SenderName> for AgentName {
    fn from(sender: SenderName) -> Self {
        Self(sender.0)
    }
}

impl From<&MessageId> for ConversationId {
    /// A message without a conversation is one of its own.
    fn from(message: &MessageId) -> Self {
        Self(message.0.clone())
    }
}

impl From<uuid::Uuid> for MessageId {
    fn from(uuid: uuid::Uuid) -> Self {
        Self(uuid.hyphenated().to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversations_tag_is_the_same_for_ever() {
        let message = MessageId::new("m1").expect("valid");
        let tag = |id: &str| {
            let conversation = ConversationId::new(id).expect("valid");
            ConversationTag::of(&conversation, &message).to_string()
        };
        assert_eq!(tag("m1"), "-");
        assert_eq!(tag("mail:a.b@c-d_1"), "okiciwwjur7ad");
        assert_eq!(tag("a"), "k6y64jsdad3em");
        assert_ne!(tag("M1"), tag("m2"));
    }

    #[test]
    fn the_tag_of_a_question_is_the_same_for_ever() {
        let tag = |id: &str| RequestTag::of(id).to_string();
        assert_eq!(tag("q1"), "aiqckwzcvldpuvvidtgbk46xeh");
        assert_ne!(tag("q1"), tag("q2"));
        assert!(RequestTag::new(tag("any text, however long: ä/*>")).is_ok());
    }

    #[test]
    fn ids_that_would_break_a_subject_are_refused() {
        for bad in ["", "a.b", "a*", ">", "a b", "-a", "A", "ä", "a\n", &"a".repeat(64)] {
            assert!(AgentName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a.b", "*", ">", "a b", "a\0", &"a".repeat(65)] {
            assert!(MessageId::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "*", "a>", "\t", &"a".repeat(129)] {
            assert!(ConversationId::new(bad).is_err(), "{bad:?}");
        }
        assert!(AgentName::new("0-a").is_ok());
        assert!(MessageId::new("Order_7-x").is_ok());
        assert!(ConversationId::new("mail:a.b@c-d_1").is_ok());
    }

    #[test]
    fn an_invalid_id_says_what_was_expected() {
        let error = AgentName::new("My Agent").expect_err("spaces are not allowed");
        assert_eq!(
            error.to_string(),
            "invalid agent name \"My Agent\": 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit"
        );
    }

    #[test]
    fn deserialising_checks_too() {
        assert!(serde_json::from_str::<AgentName>("\"a.b\"").is_err());
    }
}
