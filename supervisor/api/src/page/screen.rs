//! The screens by their paths: loaded for a page, and again for its stream of events.

use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use broker::{Cursor, Watched};
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
    /// An agent, whichever conversation there is: one is chosen, and the path of that is shown.
    Entry(AgentName),
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

/// How often a screen is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rhythm {
    /// Although nothing is known to have happened: figures have no events.
    pub(super) every: Duration,
    /// The same just after something has happened.
    pub(super) after: Duration,
    /// And no more often, whatever happens.
    pub(super) least: Duration,
}

const fn rhythm(every: u64, after: u64, least: u64) -> Rhythm {
    let ms = Duration::from_millis;
    Rhythm { every: ms(every), after: ms(after), least: ms(least) }
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
                let agent = named(agent)?;
                if conversation.is_none() {
                    return Ok(Self::Entry(agent));
                }
                let conversation = given::<ConversationId>(conversation.as_ref())?;
                let before = given::<Cursor>(before.as_ref())?;
                Self::Agent { agent, tab: Tab::Chat { conversation, before } }
            }
            ["agents", agent, tab] => {
                let before = given::<Cursor>(before.as_ref())?;
                let tab = Tab::of(tab, before).ok_or_else(|| Self::nowhere(uri))?;
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
            Self::Agent { agent, .. } | Self::Entry(agent) => Some(agent),
            Self::Message(key) => Some(&key.agent),
            Self::Fleet { .. } | Self::Attention | Self::System => None,
        }
    }

    /// Whether it shows the lines of logs.
    pub(super) fn has_log(&self) -> bool {
        matches!(self, Self::Agent { tab: Tab::Logs, .. })
    }

    /// Whether what was stored in the journal of its agent may change it.
    pub(super) fn shows(&self, stored: &Watched) -> bool {
        match (self, stored) {
            (Self::Message(key), Watched::Request(request)) => request.key() == *key,
            (Self::Message(key), Watched::Final(of, _)) => of == key,
            (Self::Agent { tab, .. }, Watched::Request(_) | Watched::Final(..)) => match tab {
                Tab::Chat { .. }
                | Tab::Conversations { .. }
                | Tab::Timeline
                | Tab::Queue { .. } => true,
                Tab::Logs | Tab::Config => false,
            },
            (Self::Fleet { .. } | Self::Entry(_) | Self::Attention | Self::System, _) => false,
        }
    }

    pub(super) fn rhythm(&self) -> Rhythm {
        match self {
            Self::Fleet { .. } => rhythm(2_000, 2_000, 1_000),
            Self::Agent { tab: Tab::Chat { .. } | Tab::Queue { .. }, .. } => {
                rhythm(10_000, 2_000, 400)
            }
            Self::Entry(_)
            | Self::Agent {
                tab: Tab::Conversations { .. } | Tab::Timeline | Tab::Logs | Tab::Config,
                ..
            }
            | Self::Message(_)
            | Self::Attention => rhythm(10_000, 10_000, 1_000),
            Self::System => rhythm(10_000, 10_000, 5_000),
        }
    }

    /// What names a read of it for a caller: whoever may see the same is shown the same.
    pub(super) fn read_by(&self, caller: &Caller) -> String {
        format!("{self:?} {:?} {}", caller.token.agents, caller.token.scope)
    }

    /// With everything; for its stream of events, without the answer that is being written.
    pub(super) async fn load(&self, caller: &Caller, is_live: bool) -> Result<Loaded, Problem> {
        if let Some(agent) = self.agent() {
            caller.reach(agent)?;
        }
        Ok(match self {
            Self::Fleet { after } => {
                Loaded::Fleet(Fleet::load(caller, after.clone(), is_live).await?)
            }
            Self::Entry(agent) => {
                let what = format!("the page of {agent} names no conversation");
                return Err(Problem::usage(what, "there may be several", "reload the page"));
            }
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

    /// Whether nothing on it changes any more, as far as is known.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            Self::Message(message) => message.is_settled(),
            Self::Fleet(_) | Self::Agent(_) | Self::Attention(_) | Self::System(_) => false,
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
        let chat = |conversation: Option<&str>| {
            let conversation = conversation.map(|one| ConversationId::new(one).expect("valid"));
            Screen::Agent { agent: agent(), tab: Tab::Chat { conversation, before: None } }
        };
        assert_eq!(of("/agents/a").expect("there"), Screen::Entry(agent()));
        assert_eq!(of("/agents/a?done=stop").expect("there"), Screen::Entry(agent()));
        assert_eq!(of("/agents/a?conversation=").expect("there"), chat(None));
        assert_eq!(of("/agents/a?conversation=b%40c").expect("there"), chat(Some("b@c")));
        let conversations = Tab::Conversations { before: None };
        let conversations = Screen::Agent { agent: agent(), tab: conversations };
        assert_eq!(of("/agents/a/conversations").expect("there"), conversations);
        for bad in [
            "/agents/A",
            "/agents/a/odd",
            "/messages/a/b",
            "/x",
            "/?after=A",
            "/agents/",
            "/agents/a/queue?before=x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
