//! How a message is named on the command line: `ID`, `AGENT/ID` or `AGENT/SENDER/ID`. An id can be shortened to how it begins, where no
//! other one begins so.

use std::str::FromStr;

use broker::{Beginning, Broker, Found, Stored};
use common::api::ApiError;
use common::id::InvalidId;
use common::message::{Envelope, MessageKey};
use common::{AgentName, MessageId, SenderName};

use broker::Attempt;
use common::failure;

use crate::client::Client;

/// A message as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRef {
    /// Its agent; none: whichever has it.
    pub agent: Option<AgentName>,
    /// Its sender; none: whoever sent it.
    pub sender: Option<SenderName>,
    /// Its id, or the beginning of it.
    pub message_id: MessageId,
}

impl FromStr for MessageRef {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parts: Vec<&str> = text.split('/').collect();
        let (agent, sender, message) = match parts.as_slice() {
            [agent, message] => (Some(*agent), None, *message),
            [agent, sender, message] => (Some(*agent), Some(*sender), *message),
            _ => (None, None, text),
        };
        Ok(Self {
            agent: agent.map(AgentName::new).transpose()?,
            sender: sender.map(SenderName::new).transpose()?,
            message_id: MessageId::new(message)?,
        })
    }
}

impl MessageRef {
    /// Whether this names that message.
    pub fn names(&self, envelope: &Envelope) -> bool {
        self.message_id == envelope.message_id
            && self.agent.as_ref().is_none_or(|agent| *agent == envelope.agent)
            && self.sender.as_ref().is_none_or(|sender| *sender == envelope.sender)
    }

    /// Reads the message.
    ///
    /// # Errors
    /// 3 when there is none, or more than one.
    pub async fn resolve(&self, broker: &Broker) -> Result<Stored<Envelope>, ApiError> {
        Ok(self.resolve_whole(broker).await?.request)
    }

    /// The same, with what the history says of it, if that is where it is.
    ///
    /// # Errors
    /// As [`MessageRef::resolve`].
    pub async fn resolve_whole(&self, broker: &Broker) -> Result<Found, ApiError> {
        let what = || format!("cannot look up message {}", self.message_id);
        if let (Some(agent), Some(sender)) = (&self.agent, &self.sender) {
            let key = MessageKey {
                agent: agent.clone(),
                sender: sender.clone(),
                message_id: self.message_id.clone(),
            };
            if let Some(request) = broker.message_of(&key).await.attempt(what())? {
                return Ok(Found { request, archived: None });
            }
        }
        let found = broker.find_whole(None, &self.message_id).await.attempt(what())?;
        if !found.is_empty() {
            return self.only(found);
        }
        let whole = self.completed(broker).await?;
        let found = broker.find_whole(None, &whole.message_id).await.attempt(what())?;
        whole.only(found)
    }

    /// The same as doors look it up: by its whole id, at a cost that does not grow with what is stored, and among the agents that the client
    /// may see. A message of another agent is answered like one that does not exist.
    ///
    /// # Errors
    /// As [`MessageRef::resolve`].
    pub async fn seen(&self, client: &Client) -> Result<Found, ApiError> {
        let what = || format!("cannot look up message {}", self.message_id);
        let (broker, id) = (&client.broker, &self.message_id);
        let found = match (&self.agent, &self.sender) {
            (Some(agent), _) if !client.sees(agent) => Vec::new(),
            (Some(agent), Some(sender)) => {
                let (agent, sender) = (agent.clone(), sender.clone());
                let key = MessageKey { agent, sender, message_id: id.clone() };
                let request = broker.message_of(&key).await.attempt(what())?;
                request.map(|request| Found { request, archived: None }).into_iter().collect()
            }
            (agent, _) => broker.find_whole(agent.as_ref(), id).await.attempt(what())?,
        };
        self.among(found, |agent| client.sees(agent))
    }

    /// The one that is named among those of agents that may be seen.
    fn among(
        &self,
        mut found: Vec<Found>,
        sees: impl Fn(&AgentName) -> bool,
    ) -> Result<Found, ApiError> {
        found.retain(|found| sees(&found.request.value.agent) && self.names(&found.request.value));
        match found.is_empty() {
            true => Err(unknown(
                format!("no message {}", self.message_id),
                "there is no message with that id, or it is no longer kept",
            )),
            false => self.only(found),
        }
    }

    /// The same of the one id that begins like this one.
    async fn completed(&self, broker: &Broker) -> Result<Self, ApiError> {
        let id = &self.message_id;
        // Nothing begins with a whole UUID but itself: the journal's ids need not be listed.
        if uuid::Uuid::try_parse(id.as_str()).is_ok() {
            let cause = "it is neither in the journal nor in the history";
            return Err(unknown(format!("no message {id}"), cause));
        }
        let ids = broker.ids(id.as_str()).await.attempt(format!("cannot look up message {id}"))?;
        let none = "it is neither in the journal nor in the history";
        let whole = only_id(&ids).map_err(|why| {
            let what = why.what(id, "message");
            unknown(what, why.or(none))
        })?;
        Ok(Self { message_id: whole.clone(), ..self.clone() })
    }

    fn only(&self, mut found: Vec<Found>) -> Result<Found, ApiError> {
        found.retain(|found| self.names(&found.request.value));
        match (found.pop(), found.as_slice()) {
            (Some(found), []) => Ok(found),
            (None, _) => Err(unknown(
                format!("no message {}", self.message_id),
                "no message with that id belongs to the agent or sender that is named",
            )),
            (Some(last), _) => {
                found.push(last);
                let found: Vec<_> = found.into_iter().map(|found| found.request).collect();
                Err(ambiguous(&self.message_id, &found))
            }
        }
    }
}

/// Why a beginning is not that of one id.
#[derive(Debug)]
pub enum NotOne {
    /// No id begins so.
    None,
    /// Several do.
    Several(String),
    /// Nobody can tell.
    Unclear(&'static str),
}

impl NotOne {
    /// What is wrong with that beginning of the id of some kind of thing.
    pub fn what(&self, id: &MessageId, kind: &str) -> String {
        match self {
            Self::Several(_) => format!("{id} is not unique"),
            Self::None | Self::Unclear(_) => format!("no {kind} {id}"),
        }
    }

    /// In words; `none`: what is to be said where no id begins so.
    pub fn or(self, none: &str) -> String {
        match self {
            Self::None => none.to_owned(),
            Self::Several(why) => why,
            Self::Unclear(why) => why.to_owned(),
        }
    }
}

/// The one id that begins so.
///
/// # Errors
/// When there is none, or more than one, or nobody can tell.
pub fn only_id(ids: &Beginning) -> Result<&MessageId, NotOne> {
    match ids {
        Beginning::Found(ids) => match (ids.first(), ids.len()) {
            (Some(whole), 1) => Ok(whole),
            (None, _) => Err(NotOne::None),
            (Some(one), _) => {
                Err(NotOne::Several(format!("several ids begin like this, such as {one}")))
            }
        },
        Beginning::Unclear => Err(NotOne::Unclear(
            "there is none with that id; a UUID can be shortened to 8 digits or more, other ids cannot",
        )),
    }
}

fn unknown(what: String, cause: impl std::fmt::Display) -> ApiError {
    failure::error(failure::NOT_FOUND, what, cause, "`mozart journal ls`")
}

fn ambiguous(id: &MessageId, found: &[Stored<Envelope>]) -> ApiError {
    let names: Vec<String> = found
        .iter()
        .map(|stored| format!("{}/{}/{id}", stored.value.agent, stored.value.sender))
        .collect();
    let what = format!("{} messages have the id {id}", found.len());
    failure::error(failure::NOT_FOUND, what, names.join(", "), "name one of them in full")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use common::message::Kind;
    use common::{ConversationId, Timestamp};

    pub(crate) fn envelope(agent: &str, id: &str) -> Envelope {
        let message_id = MessageId::new(id).expect("valid");
        Envelope {
            conversation_id: ConversationId::from(&message_id),
            message_id,
            agent: AgentName::new(agent).expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            kind: Kind::Chat,
            message: "hello".to_owned(),
            created_at: Timestamp::from_millis(1),
            request_id: None,
            deadline: None,
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent: None,
            scheduled_for: None,
            deliver_at: None,
        }
    }

    fn stored(agent: &str) -> Stored<Envelope> {
        Stored { value: envelope(agent, "m1"), seq: 1, at: Timestamp::from_millis(1) }
    }

    fn found(agent: &str) -> Found {
        Found { request: stored(agent), archived: None }
    }

    #[test]
    fn a_message_is_named_with_as_much_as_it_takes() {
        let parse = |text: &str| text.parse::<MessageRef>();
        assert_eq!(parse("m1").expect("an id").agent, None);
        let full = parse("writer/user/m1").expect("in full");
        assert!(full.names(&envelope("writer", "m1")));
        assert!(!full.names(&envelope("reader", "m1")));
        for bad in ["", "a.b", "m 1", "*", "/m1", "writer/", "a/b/c/d", "Writer/m1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn whoever_may_see_some_agents_learns_of_no_others() {
        let message: MessageRef = "m1".parse().expect("an id");
        let both = || vec![found("a"), found("b")];
        let seen = |name: &'static str| move |agent: &AgentName| agent.as_str() == name;
        let own = message.among(both(), seen("b")).expect("not ambiguous");
        assert_eq!(own.request.value.agent.as_str(), "b");
        let none = message.among(Vec::new(), |_| true).expect_err("none");
        assert_eq!(message.among(both(), seen("c")).expect_err("another's"), none);
        let several = message.among(both(), |_| true).expect_err("two");
        assert_eq!(several.cause, "a/user/m1, b/user/m1");
        let foreign: MessageRef = "a/m1".parse().expect("with agent");
        assert_eq!(foreign.among(both(), seen("b")).expect_err("another's"), none);
    }

    #[test]
    fn a_beginning_of_several_ids_is_not_that_of_none() {
        let id = |text: &str| MessageId::new(text).expect("valid");
        let told = |ids: Vec<MessageId>| {
            let ids = Beginning::Found(ids.into_iter().collect());
            only_id(&ids).expect_err("not one").what(&id("01a22b2b"), "message")
        };
        assert_eq!(told(Vec::new()), "no message 01a22b2b");
        assert_eq!(told(vec![id("01a22b2b-1"), id("01a22b2b-2")]), "01a22b2b is not unique");
    }

    #[test]
    fn an_ambiguous_id_lists_its_candidates() {
        let plain: MessageRef = "m1".parse().expect("an id");
        let error = plain.only(vec![found("a"), found("b")]).expect_err("two");
        assert_eq!((error.code, error.cause.as_str()), (3, "a/user/m1, b/user/m1"));
        assert_eq!(plain.only(vec![]).expect_err("none").code, 3);
        let one: MessageRef = "b/m1".parse().expect("with agent");
        let found = one.only(vec![found("a"), found("b")]).expect("one is b's");
        assert_eq!(found.request.value.agent.as_str(), "b");
    }
}
