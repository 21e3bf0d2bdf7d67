//! Tokens of the HTTP API: made here, checked there.

use broker::{Attempt as _, Broker};
use common::api::ApiError;
use common::tokens::{self, Token};
use common::users::Scope;
use common::{AgentName, SenderName, Timestamp, failure};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Names of senders that belong to no one.
const RESERVED: [&str; 2] = ["user", "schedule"];

/// Demands that a name is nobody's: messages are sent under it.
///
/// # Errors
/// 4 when it is that of a user, a token or an agent.
pub async fn is_free(broker: &Broker, name: &SenderName, what: &str) -> Result<(), ApiError> {
    let taken = |cause: &str| Err(failure::error(failure::CONFLICT, what, cause, "another name"));
    if RESERVED.contains(&name.as_str()) {
        return taken("the name is reserved");
    }
    if broker.user_named(name).await.attempt(what)?.is_some() {
        let try_ = format!("`mozart user revoke {name}` first, or another name");
        let cause = "there is a user of that name";
        return Err(failure::error(failure::CONFLICT, what, cause, try_));
    }
    if broker.token_named(name).await.attempt(what)?.is_some() {
        let try_ = format!("`mozart token revoke {name}` first, or another name");
        let cause = "there is a token of that name";
        return Err(failure::error(failure::CONFLICT, what, cause, try_));
    }
    if let Ok(agent) = AgentName::new(name.as_str())
        && broker.is_there(&agent).await.attempt(what)?
    {
        return taken("there is an agent of that name, which sends messages under it");
    }
    Ok(())
}

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name.
    pub name: SenderName,
    /// What may be done with it.
    pub scope: Scope,
    /// The only agents that it is good for; none is all.
    pub agents: Vec<AgentName>,
    /// When it expires.
    pub expires: Option<Timestamp>,
    /// Who makes it.
    pub by: String,
}

/// Makes a token; its text is told this once, and stored nowhere.
///
/// # Errors
/// 4 when there is one of that name.
pub async fn create(
    broker: &Broker,
    new: NewToken,
    at: Timestamp,
) -> Result<(Token, String), ApiError> {
    let NewToken { name, scope, agents, expires, by } = new;
    let what = format!("token {name} is not made");
    let text = tokens::text(
        &name,
        &secret().map_err(|error| failure::error(failure::FAILED, &what, error, ""))?,
    );
    let token = Token { hash: hash(&text), name, scope, agents, expires, at, by };
    if broker.add_token(&token).await.attempt(&what)? {
        return Ok((token, text));
    }
    let try_ = format!("`mozart token revoke {}` first, or another name", token.name);
    Err(failure::error(failure::CONFLICT, what, "there is one of that name", try_))
}

/// 256 random bits.
pub(crate) fn secret() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
    }
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Whether a text is that of a token. Takes as long for a wrong one as for the right one.
#[must_use]
pub fn is_of(text: &str, token: &Token) -> bool {
    hash(text).as_bytes().ct_eq(token.hash.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_of_a_token_is_its_text() {
        let name = SenderName::new("ci").expect("valid");
        let text = tokens::text(&name, &secret().expect("there is randomness"));
        let token = Token {
            name,
            hash: hash(&text),
            scope: Scope::Read,
            agents: Vec::new(),
            expires: None,
            at: Timestamp::from_millis(1),
            by: "t".to_owned(),
        };
        assert!(is_of(&text, &token));
        assert!(!token.hash.contains(&text[text.len() - 64..]), "the secret is not kept");
        let mut other = text.clone();
        other.replace_range(other.len() - 1.., if text.ends_with('0') { "1" } else { "0" });
        assert!(!is_of(&other, &token) && !is_of("", &token));
        assert_ne!(secret().expect("random"), secret().expect("random"));
    }
}
