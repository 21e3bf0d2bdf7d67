//! Tokens: what somebody shows at the door of the HTTP API. The fleet keeps the hash of it alone.

use serde::{Deserialize, Serialize};

use crate::users::Scope;
use crate::{AgentName, SenderName, Timestamp};

/// What a token begins with, so that it is recognised where it must not be.
const MARK: &str = "mozart_";

/// A token, as the fleet knows it: no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its name: the sender of the messages that are sent with it, and the author of what is changed with it.
    pub name: SenderName,
    /// The SHA-256 of its text, in hex.
    pub hash: String,
    /// What may be done with it.
    pub scope: Scope,
    /// The only agents that it is good for; none is all, and the fleet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<AgentName>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was made.
    pub at: Timestamp,
    /// Who made it.
    pub by: String,
}

impl Token {
    /// Whether it is over.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// A link that signs a browser in once, with the rights of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The token's name.
    pub token: SenderName,
    /// The token's hash: a later token of the same name is another one.
    pub hash: String,
    /// Until when it can be used.
    pub until: Timestamp,
}

/// The text of a token, which its owner shows.
#[must_use]
pub fn text(name: &SenderName, secret: &str) -> String {
    format!("{MARK}{name}_{secret}")
}

/// The name in the text of a token; none if it is no token.
#[must_use]
pub fn name_in(text: &str) -> Option<SenderName> {
    let (name, secret) = text.strip_prefix(MARK)?.rsplit_once('_')?;
    let is_secret = secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    SenderName::new(name).ok().filter(|_| is_secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_it_is() {
        let name = SenderName::new("ci-1").expect("valid");
        let secret = "0f".repeat(32);
        assert_eq!(name_in(&text(&name, &secret)), Some(name.clone()));
        for bad in ["", "mozart_", "mozart_ci_", "ci_0f", "mozart_.._0f", &text(&name, "0f")] {
            assert_eq!(name_in(bad), None, "{bad:?}");
        }
        assert_eq!(name_in(&text(&name, &"zz".repeat(32))), None);
    }
}
