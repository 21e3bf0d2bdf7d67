//! One agent: what it is doing, what can be done with it, and its tabs.

use broker::Cursor;
use common::api::{AgentRow, ApiError, Counts};
use common::users::Scope;
use common::{AgentName, ConversationId, failure};
use maud::{Markup, html};

use super::chat::{Chat, Open};
use super::conversations::Conversations;
use super::parts::{self, Action, Context, of_agent, state, time};
use super::tabs::{Config, Logs, Queue, Timeline};
use crate::caller::Caller;
use crate::problem::Problem;

/// Which side of an agent is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tab {
    Chat {
        /// None: one is to be begun.
        conversation: Option<ConversationId>,
        /// Only the messages before this place.
        before: Option<Cursor>,
    },
    Conversations {
        /// Only those of the messages before this place.
        before: Option<Cursor>,
    },
    Timeline,
    Queue {
        /// Only the messages before this place.
        before: Option<Cursor>,
    },
    Logs,
    Config,
}

impl Tab {
    /// By the last part of its path, and where it begins.
    pub(super) fn of(text: &str, before: Option<Cursor>) -> Option<Self> {
        Some(match text {
            "conversations" => Self::Conversations { before },
            "timeline" => Self::Timeline,
            "queue" => Self::Queue { before },
            "logs" => Self::Logs,
            "config" => Self::Config,
            _ => return None,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Chat { .. } => "Chat",
            Self::Conversations { .. } => "Conversations",
            Self::Timeline => "Timeline",
            Self::Queue { .. } => "Queue",
            Self::Logs => "Logs",
            Self::Config => "Config",
        }
    }
}

/// What a tab shows.
#[derive(Debug)]
enum Shown {
    Chat(Chat),
    Conversations(Conversations),
    Timeline(Timeline),
    Queue(Queue),
    Logs(Logs),
    Config(Config),
}

#[derive(Debug)]
pub(super) struct Agent {
    agent: AgentName,
    tab: &'static str,
    row: Result<AgentRow, ApiError>,
    shown: Shown,
}

impl Agent {
    pub(super) async fn load(
        caller: &Caller,
        agent: &AgentName,
        tab: &Tab,
        is_live: bool,
    ) -> Result<Self, Problem> {
        let row = async {
            // Without a supervisor there is no row, and all else is there.
            match caller.client.rows(Some(agent)).await {
                Ok(rows) => Ok(rows.into_iter().next().ok_or_else(|| gone(agent))),
                Err(error) if error.code == failure::NOT_FOUND => {
                    Err(mozart_client::agents::meant(&caller.client, agent).await)
                }
                Err(error) => Ok(Err(error)),
            }
        };
        let shown = async {
            Ok::<_, ApiError>(match tab {
                Tab::Chat { conversation, before } => {
                    let (conversation, before) = (conversation.as_ref(), before.as_ref());
                    let chat = Chat::load(caller, agent, conversation, before, is_live);
                    Shown::Chat(chat.await?)
                }
                Tab::Conversations { before } => {
                    let before = before.clone();
                    Shown::Conversations(Conversations::load(caller, agent, before).await?)
                }
                Tab::Timeline => Shown::Timeline(Timeline::load(caller, agent).await?),
                Tab::Queue { before } => {
                    Shown::Queue(Queue::load(caller, agent, before.clone()).await?)
                }
                Tab::Logs => Shown::Logs(Logs::load(caller, agent).await?),
                Tab::Config => Shown::Config(Config::load(caller, agent).await?),
            })
        };
        let (row, shown) = tokio::try_join!(row, shown)?;
        Ok(Self { agent: agent.clone(), tab: tab.name(), row, shown })
    }

    pub(super) fn title(&self) -> String {
        format!("{} · {}", self.agent, self.tab)
    }

    pub(super) fn open(&self) -> Option<&Open> {
        if let Shown::Chat(chat) = &self.shown { chat.open() } else { None }
    }

    pub(super) fn main(&self, context: &Context<'_>) -> Markup {
        let base = parts::agent_path(&self.agent);
        let tabs = [
            ("Chat", String::new()),
            ("Conversations", "/conversations".to_owned()),
            ("Timeline", "/timeline".to_owned()),
            ("Queue", "/queue".to_owned()),
            ("Logs", "/logs".to_owned()),
            ("Config", "/config".to_owned()),
        ];
        html! {
            h1 id="title" { (self.agent) }
            (self.facts(context))
            @if context.may(Scope::Operate) { (self.actions(context)) }
            nav id="tabs" class="tabs" aria-label={ "About " (self.agent) } {
                @for (name, path) in &tabs {
                    a href={ (base) (path) } aria-current=[(*name == self.tab).then_some("page")] { (name) }
                }
            }
            h2 id="tab" { (self.tab) }
            @match &self.shown {
                Shown::Chat(chat) => { (chat.main(context, &self.agent)) }
                Shown::Conversations(conversations) => { (conversations.main(&self.agent)) }
                Shown::Timeline(timeline) => { (timeline.main(&self.agent)) }
                Shown::Queue(queue) => { (queue.main(context, &self.agent)) }
                Shown::Logs(logs) => { (logs.main(&self.agent)) }
                Shown::Config(config) => { (config.main(context, &self.agent)) }
            }
        }
    }

    /// How it is. What was last known of it stays where it is while no supervisor tells.
    fn facts(&self, context: &Context<'_>) -> Markup {
        html! {
            @match &self.row {
                Ok(row) => section id="facts" aria-label="State" { div id="facts-known" { (facts(row)) } },
                Err(error) => {
                    (parts::trouble("facts-trouble", error))
                    section id="facts" class="stale" aria-label="State, as it was last known" {
                        @if context.is_live { div id="facts-known" data-keep {} }
                        @else { div id="facts-known" { p { "Its state is not known." } } }
                    }
                }
            }
        }
    }

    fn actions(&self, context: &Context<'_>) -> Markup {
        let agent = &self.agent;
        let all =
            [("start", "Start"), ("stop", "Stop"), ("restart", "Restart"), ("replace", "Replace")];
        html! {
            details id="actions" class="actions" {
                summary { "Actions" }
                @for (action, label) in all {
                    (Action {
                        path: format!("{}/{action}", parts::agent_path(agent)),
                        label,
                        about: agent.as_str(),
                        command: format!("mozart {action} {agent}"),
                        fields: &[],
                    }.show(context))
                }
            }
        }
    }
}

fn gone(agent: &AgentName) -> ApiError {
    failure::error(failure::NOT_FOUND, format!("no agent {agent}"), "", "`mozart ps -a`")
}

/// How it is.
fn facts(row: &AgentRow) -> Markup {
    let (sign, word) = of_agent(row);
    html! {
        dl class="facts" {
            div { dt { "State" } dd id="agent-state" { (state(sign, word)) } }
            @if let Some(reason) = &row.reason { div { dt { "Why" } dd { (common::words::shown(reason)) } } }
            @if let Some(next) = row.next_try { div { dt { "Next start" } dd { (time(next)) } } }
            div { dt { "Queue" } dd {
                @match row.counts {
                    Counts::Unknown => "not known yet how many wait",
                    Counts::Earlier | Counts::Current => { (row.inbox) " waiting" }
                }
                ", " (row.inflight) " being answered"
            } }
            div { dt { "Incarnation" } dd id="incarnation" { (row.incarnation) } }
            div { dt { "Generation" } dd { (row.generation) } }
            div { dt { "Restarts" } dd { (row.restart_count) } }
            div { dt { "Host" } dd { (row.node.as_deref().unwrap_or("none")) } }
            @if let Some(at) = row.started_at { div { dt { "Started" } dd { (time(at)) } } }
            @if let Some(exit) = &row.last_exit {
                div { dt { "Last exit" } dd {
                    (common::words::shown(exit)) @if let Some(at) = row.last_exit_at { ", " (time(at)) }
                } }
            }
        }
        (parts::as_command("facts-command", &format!("mozart explain {}", row.agent)))
    }
}
