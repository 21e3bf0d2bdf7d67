//! The screens by their paths: loaded for a page, and again for its stream of events.

use axum::extract::Query;
use axum::http::Uri;
use broker::Cursor;
use common::message::MessageKey;
use common::{AgentName, ConversationId, failure};
use maud::Markup;
use serde::Deserialize;

use super::agent::{Agent, Tab};
use super::attention::Attention;
use super::chat::Open;
use super::fleet::Fleet;
use super::message::Message;
use super::parts::Context;
use super::system::System;
use crate::caller::Caller;
use crate::problem::Problem;
use crate::routes::named;

/// A screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Screen {
    /// The agents after one.
    Fleet {
        after: Option<AgentName>,
    },
    Agent {
        agent: AgentName,
        tab: Tab,
    },
    Message(MessageKey),
    Attention,
    System,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    after: Option<String>,
    conversation: Option<String>,
    before: Option<String>,
}

fn given<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: Option<&String>,
) -> Result<Option<T>, Problem> {
    text.filter(|text| !text.is_empty()).map(|text| named(text)).transpose()
}

impl Screen {
    /// The screen of a path.
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let Query(Parameters { after, conversation, before }) = Query::try_from_uri(uri)
            .map_err(|error| Problem::usage("the page is not understood", error, "/"))?;
        let parts: Vec<&str> = uri.path().split('/').skip(1).collect();
        Ok(match parts[..] {
            [""] => Self::Fleet { after: given(after.as_ref())? },
            ["attention"] => Self::Attention,
            ["system"] => Self::System,
            ["agents", agent] => {
                let (is_new, conversation) = match conversation.as_deref() {
                    Some("") => (true, None),
                    _ => (false, given::<ConversationId>(conversation.as_ref())?),
                };
                let before = given::<Cursor>(before.as_ref())?.map(|cursor| cursor.to_string());
                let tab = Tab::Chat { conversation, is_new, before };
                Self::Agent { agent: named(agent)?, tab }
            }
            ["agents", agent, tab] => {
                let tab = Tab::of(tab).ok_or_else(|| Self::nowhere(uri))?;
                Self::Agent { agent: named(agent)?, tab }
            }
            ["messages", agent, sender, message] => Self::Message(MessageKey {
                agent: named(agent)?,
                sender: named(sender)?,
                message_id: named(message)?,
            }),
            _ => return Err(Self::nowhere(uri)),
        })
    }

    fn nowhere(uri: &Uri) -> Problem {
        let cause = format!("there is nothing at {:?}", uri.path());
        failure::error(failure::NOT_FOUND, "no such page", cause, "/").into()
    }

    /// The agent that it is about; none if it is about all.
    pub(super) fn agent(&self) -> Option<&AgentName> {
        match self {
            Self::Agent { agent, .. } => Some(agent),
            Self::Message(key) => Some(&key.agent),
            Self::Fleet { .. } | Self::Attention | Self::System => None,
        }
    }

    /// Whether it shows the lines of logs.
    pub(super) fn has_log(&self) -> bool {
        matches!(self, Self::Agent { tab: Tab::Logs, .. })
    }

    /// With everything; for its stream of events, without the answer that is being written.
    pub(super) async fn load(&self, caller: &Caller, is_live: bool) -> Result<Loaded, Problem> {
        if let Some(agent) = self.agent() {
            caller.reach(agent)?;
        }
        Ok(match self {
            Self::Fleet { after } => Loaded::Fleet(Fleet::load(caller, after.clone()).await?),
            Self::Agent { agent, tab } => {
                Loaded::Agent(Box::new(Agent::load(caller, agent, tab, is_live).await?))
            }
            Self::Message(key) => {
                Loaded::Message(Box::new(Message::load(caller, key, is_live).await?))
            }
            Self::Attention => Loaded::Attention(Attention::load(caller).await?),
            Self::System => Loaded::System(Box::new(System::load(caller).await?)),
        })
    }
}

/// A screen with what it shows.
#[derive(Debug)]
pub(super) enum Loaded {
    Fleet(Fleet),
    Agent(Box<Agent>),
    Message(Box<Message>),
    Attention(Attention),
    System(Box<System>),
}

impl Loaded {
    pub(super) fn title(&self) -> String {
        match self {
            Self::Fleet(_) => "Fleet".to_owned(),
            Self::Agent(agent) => agent.title(),
            Self::Message(message) => message.title(),
            Self::Attention(_) => "Attention".to_owned(),
            Self::System(_) => "System".to_owned(),
        }
    }

    pub(super) fn main(&self, context: &Context<'_>) -> Markup {
        match self {
            Self::Fleet(fleet) => fleet.main(context),
            Self::Agent(agent) => agent.main(context),
            Self::Message(message) => message.main(context),
            Self::Attention(attention) => attention.main(context),
            Self::System(system) => system.main(context),
        }
    }

    /// The message whose answer is being written on this screen.
    pub(super) fn open(&self) -> Option<&Open> {
        match self {
            Self::Agent(agent) => agent.open(),
            Self::Message(message) => message.open(),
            Self::Fleet(_) | Self::Attention(_) | Self::System(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Result<Screen, Problem> {
        Screen::of(&path.parse().expect("a path"))
    }

    #[test]
    fn every_screen_has_a_path() {
        let agent = || AgentName::new("a").expect("valid");
        assert_eq!(of("/").expect("there"), Screen::Fleet { after: None });
        assert_eq!(of("/?after=a&done=x").expect("there"), Screen::Fleet { after: Some(agent()) });
        let logs = Screen::Agent { agent: agent(), tab: Tab::Logs };
        assert_eq!(of("/agents/a/logs").expect("there"), logs);
        let chat = |conversation: Option<&str>, is_new| {
            let conversation = conversation.map(|one| ConversationId::new(one).expect("valid"));
            let tab = Tab::Chat { conversation, is_new, before: None };
            Screen::Agent { agent: agent(), tab }
        };
        assert_eq!(of("/agents/a").expect("there"), chat(None, false));
        assert_eq!(of("/agents/a?conversation=").expect("there"), chat(None, true));
        assert_eq!(of("/agents/a?conversation=b%40c").expect("there"), chat(Some("b@c"), false));
        for bad in ["/agents/A", "/agents/a/odd", "/messages/a/b", "/x", "/?after=A", "/agents/"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
