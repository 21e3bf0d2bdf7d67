//! Credentials files of users: a token that names the user, and the seed of its key. They have the format of NATS. But nats-server passes no
//! tokens on when its users are in a configuration: a user connects with its name, and signs with its key.

use std::fmt::Write as _;

use common::subject::Subjects;
use common::users::Scope;
use common::{AgentName, SenderName};
use nkeys::KeyPair;
use serde::Deserialize;
use serde_json::json;

use super::{Who, jwt};
use crate::error::{BrokerError, Result};

/// A connection with the rights of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsUser {
    /// Its name.
    pub name: SenderName,
    /// What it may do.
    pub scope: Scope,
    /// The only agents that it may send to, as far as its credentials say; empty: all.
    pub(crate) agents: Vec<AgentName>,
    /// The seed of its key.
    pub(crate) seed: String,
}

/// A user's new credentials.
#[derive(Debug)]
pub struct Creds {
    /// Its public key.
    pub key: String,
    /// The text of the file: a secret.
    pub text: String,
}

impl AsUser {
    /// Why it may not publish to a subject, which the server has refused.
    pub(crate) fn refused(&self, subjects: &Subjects, subject: &str) -> String {
        let Self { name, scope, agents, .. } = self;
        let (needs, what, agent) = subjects.needed(subject, name);
        if *scope < needs {
            return format!("user {name} has scope {scope}, and {what} needs {needs}");
        }
        match (agent, agents.as_slice()) {
            (Some(agent), []) => {
                format!("user {name} may send to some agents only, and {agent} is not one of them")
            }
            (Some(_), agents) => {
                let agents: Vec<_> = agents.iter().map(AgentName::as_str).collect();
                format!("user {name} has scope {scope}, and may send to {} only", agents.join(", "))
            }
            (None, _) => format!("user {name} may not use {subject}"),
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    name: String,
    #[serde(default)]
    nats: Tags,
}

#[derive(Default, Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Vec<String>,
}

/// Before what the scope is, in the tags of a token.
const SCOPE: &str = "mozart-scope:";
/// Before each agent of those that it may send to. The fleet's record of the user counts: this is for error messages.
const AGENT: &str = "mozart-agent:";

impl Creds {
    /// Makes them.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn random(
        subjects: &Subjects,
        name: &SenderName,
        scope: Scope,
        agents: &[AgentName],
    ) -> Result<Self> {
        let pair = KeyPair::new_user();
        let key = pair.public_key();
        // Signed by itself: what counts is that the fleet knows the key, and that the user has it.
        let Some(login) = subjects.login(scope, name) else {
            return Err(BrokerError::other(format!("{name} is no name of a {scope}")));
        };
        let agents = agents.iter().map(|agent| format!("{AGENT}{agent}"));
        let tags: Vec<_> = std::iter::once(format!("{SCOPE}{scope}")).chain(agents).collect();
        let claims = json!({
            "name": login,
            "sub": key,
            "nats": { "type": "user", "version": 2, "tags": tags },
        });
        let token = jwt::sign_with(&pair, claims)?;
        let seed = pair.seed().map_err(BrokerError::other)?;
        let what = if scope == Scope::Node { "node" } else { "user" };
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "-----BEGIN NATS USER JWT-----
{token}
------END NATS USER JWT------

Whoever has this file can do what {what} {name} can. `mozart user revoke {name}` makes it useless.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"
        );
        Ok(Self { key, text })
    }
}

/// Whose credentials these are; none if they are not of a user of this fleet.
pub(crate) fn user_of(text: &str, subjects: &Subjects) -> Option<AsUser> {
    let after = |mark: &str| text.lines().skip_while(|line| !line.contains(mark)).nth(1);
    let token = after("BEGIN NATS USER JWT")?;
    let Claims { name: login, nats } = jwt::read(token.trim().as_bytes()).ok()?;
    let name = match Who::of(subjects, &login)? {
        Who::User(name) => name,
        Who::Node(node) => SenderName::new(node.as_str()).ok()?,
        Who::Shim(..) => return None,
    };
    let scope: Scope = nats.tags.iter().find_map(|tag| tag.strip_prefix(SCOPE)?.parse().ok())?;
    // One that was written by hand says two things.
    if subjects.login(scope, &name)? != login {
        return None;
    }
    let seed = after("BEGIN USER NKEY SEED")?.trim().to_owned();
    let agents = nats.tags.iter().filter_map(|tag| AgentName::new(tag.strip_prefix(AGENT)?).ok());
    let agents = agents.collect();
    Some(AsUser { name, scope, agents, seed })
}

#[cfg(test)]
mod tests {
    use common::Namespace;

    use super::*;

    #[test]
    fn a_file_says_whose_it_is() {
        let subjects = |name: &str| Subjects::new(Namespace::new(name).expect("valid"), 1);
        let user_name = || SenderName::new("ana").expect("valid");
        let name = user_name();
        let creds = Creds::random(
            &subjects("t"),
            &name,
            Scope::Send,
            &[AgentName::new("a").expect("valid")],
        )
        .expect("made");
        let user = user_of(&creds.text, &subjects("t")).expect("one of ours");
        let request = subjects("t").journal_by("b", "ana", "request");
        let said = user.refused(&subjects("t"), &request);
        assert_eq!(said, "user ana has scope send, and may send to a only");
        assert_eq!((user.name, user.scope), (name, Scope::Send));
        let pair = KeyPair::from_seed(&user.seed).expect("a seed");
        assert_eq!(pair.public_key(), creds.key);
        assert_eq!(user_of(&creds.text, &subjects("u")), None, "of another fleet");
        assert!(creds.key.starts_with('U'));
        let node = Creds::random(&subjects("t"), &user_name(), Scope::Node, &[]).expect("made");
        let node = user_of(&node.text, &subjects("t")).expect("one of ours");
        assert_eq!((node.name, node.scope), (user_name(), Scope::Node));
        for other in ["", "-----BEGIN NATS USER JWT-----", "-----BEGIN NATS USER JWT-----\nx.y.z"] {
            assert_eq!(user_of(other, &subjects("t")), None);
        }
    }
}
