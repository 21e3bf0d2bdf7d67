//! What the fleet runs on: the broker, its streams, supervisors, nodes, tokens.

use broker::{Attempt as _, StreamUsage};
use common::api::{ApiError, Hello, NodeRow, NodeState};
use common::tokens::Token;
use common::users::Scope;
use common::words::{bytes, count};
use common::{AgentName, storage::Disk};
use maud::{Markup, html};
use std::time::Duration;

use super::parts::{self, Action, Context, Sign, state, time};
use crate::caller::Caller;
use crate::problem::Problem;

/// How long the process on the broker's machine may take to tell of its disk.
const TOLD: Duration = Duration::from_millis(250);
/// Nodes, and tokens, that are shown.
const SHOWN: usize = 100;

#[derive(Debug)]
pub(super) struct System {
    is_up: bool,
    disk: Option<Disk>,
    hello: Result<Hello, ApiError>,
    nodes: Result<Vec<NodeRow>, ApiError>,
    streams: Result<Vec<StreamUsage>, ApiError>,
    /// None: these are not this caller's to see.
    tokens: Option<Result<Vec<Token>, ApiError>>,
}

impl System {
    pub(super) async fn load(caller: &Caller) -> Result<Self, Problem> {
        caller.reach_all(None)?;
        let (client, broker) = (&caller.client, &caller.client.broker);
        let is_up = broker.link().borrow().up;
        let streams = async { broker.stream_usage().await.attempt("cannot read the streams") };
        let tokens = async {
            match caller.may(Scope::Operate) {
                Ok(()) => Some(broker.tokens().await.attempt("cannot list the tokens")),
                Err(_) => None,
            }
        };
        let (hello, nodes, streams, tokens, disk) =
            tokio::join!(client.hello(), client.nodes(), streams, tokens, broker.disk(TOLD));
        Ok(Self { is_up, disk, hello, nodes, streams, tokens })
    }

    pub(super) fn main(&self, context: &Context<'_>) -> Markup {
        html! {
            h1 id="title" { "System" }
            h2 id="broker-title" { "Broker" }
            p id="broker" {
                @if self.is_up { (state(Sign::Good, "connected")) } @else { (state(Sign::Bad, "not connected")) }
                @if let Some(disk) = &self.disk { ", its disk is " (disk.percent()) " % full, " (bytes(disk.free)) " are free" }
            }
            section id="streams" aria-label="Streams" { (self.streams()) }
            h2 id="supervisors-title" { "Supervisors" }
            section id="supervisors" aria-labelledby="supervisors-title" {
                @match &self.hello {
                    Err(error) => (parts::trouble("supervisors-trouble", error)),
                    Ok(hello) => (supervisors(hello)),
                }
            }
            h2 id="nodes-title" { "Nodes" }
            section id="nodes" aria-labelledby="nodes-title" {
                @match &self.nodes {
                    Err(error) => (parts::trouble("nodes-trouble", error)),
                    Ok(nodes) => {
                        @for node in nodes.iter().take(SHOWN) { (of_node(context, node)) }
                        (rest(nodes.len(), "node", "nodes"))
                    }
                }
            }
            (parts::as_command("nodes-command", "mozart node ls"))
            h2 id="tokens-title" { "Tokens" }
            section id="tokens" aria-labelledby="tokens-title" { (self.tokens()) }
            p id="command" { "Everything is checked by " (parts::command("mozart doctor")) }
        }
    }

    fn streams(&self) -> Markup {
        let streams = match &self.streams {
            Ok(streams) => streams,
            Err(error) => return parts::trouble("streams-trouble", error),
        };
        html! {
            table class="wide" {
                caption { "Streams" }
                thead { tr {
                    th scope="col" { "Stream" } th scope="col" { "Records" } th scope="col" { "Size" }
                    th scope="col" { "At most" } th scope="col" { "Oldest" }
                } }
                tbody { @for stream in streams {
                    tr {
                        th scope="row" { (stream.name) }
                        td data-label="Records" { (stream.records) }
                        td data-label="Size" { (bytes(stream.bytes)) }
                        td data-label="At most" { @match stream.limit { Some(limit) => (bytes(limit)), None => "not bounded" } }
                        td data-label="Oldest" { @match stream.oldest { Some(at) => (time(at)), None => "none" } }
                    }
                } }
            }
            p { "As a command: " (parts::command("mozart usage --storage")) }
        }
    }

    fn tokens(&self) -> Markup {
        let tokens = match &self.tokens {
            None => return html! { p { "Tokens are shown to those whose scope is operate." } },
            Some(Err(error)) => return parts::trouble("tokens-trouble", error),
            Some(Ok(tokens)) => tokens,
        };
        html! {
            table class="wide" {
                caption { "Tokens" }
                thead { tr {
                    th scope="col" { "Name" } th scope="col" { "Scope" } th scope="col" { "Agents" }
                    th scope="col" { "Expires" } th scope="col" { "Made" }
                } }
                tbody { @for token in tokens.iter().take(SHOWN) {
                    tr id={ "token-" (token.name) } {
                        th scope="row" { (token.name) }
                        td data-label="Scope" { (token.scope) }
                        td data-label="Agents" { (agents(&token.agents)) }
                        td data-label="Expires" { @match token.expires { Some(at) => (time(at)), None => "never" } }
                        td data-label="Made" { (time(token.at)) " by " (token.by) }
                    }
                } }
            }
            (rest(tokens.len(), "token", "tokens"))
            p {
                "As commands: " (parts::command("mozart token create NAME --scope SCOPE")) " "
                (parts::command("mozart token revoke NAME"))
            }
        }
    }
}

/// How many are not shown.
fn rest(all: usize, one: &str, many: &str) -> Markup {
    let more = all.saturating_sub(SHOWN) as u64;
    html! { @if more > 0 { p { (count(more, &format!("more {one}"), &format!("more {many}"))) } } }
}

fn agents(agents: &[AgentName]) -> String {
    match agents {
        [] => "all".to_owned(),
        agents => agents.iter().map(AgentName::as_str).collect::<Vec<_>>().join(", "),
    }
}

fn supervisors(hello: &Hello) -> Markup {
    html! {
        dl class="facts" {
            div { dt { "Leader" } dd {
                @match &hello.holder {
                    Some(leader) => (state(Sign::Good, leader)),
                    None => (state(Sign::Bad, "none")),
                }
            } }
            div { dt { "Term" } dd { (hello.term) } }
            div { dt { "Answered by" } dd { (hello.supervisor) ", version " (hello.version) } }
        }
        @if let Some(unreadable) = &hello.unreadable { p class="trouble" { (unreadable) } }
    }
}

fn of_node(context: &Context<'_>, node: &NodeRow) -> Markup {
    let sign = match node.state {
        NodeState::Up if node.drain.is_none() => Sign::Good,
        NodeState::Up | NodeState::Draining => Sign::Busy,
        NodeState::Lost => Sign::Bad,
    };
    let (action, label) = match node.drain {
        None => ("drain", "Drain"),
        Some(_) => ("undrain", "Let it take agents"),
    };
    html! {
        article class="card" id={ "node-" (node.node) } {
            h3 { (node.node) " " (state(sign, node.state.as_str())) }
            p {
                (count(node.incarnations.into(), "incarnation", "incarnations"))
                @if node.runtimes.is_empty() { ", can run none" } @else { ", runs " (node.runtimes.join(", ")) }
                @if let Some(at) = node.lost_at { ", lost " (time(at)) }
            }
            @if let Some(drain) = &node.drain {
                p { "Drained: " (drain.moving.len()) " moving, " (drain.waiting.len()) " waiting, " (drain.staying.len()) " staying" }
            }
            @for unusable in &node.unusable { p class="trouble" { (unusable) } }
            @if context.may(Scope::Operate) && node.state != NodeState::Lost {
                (Action {
                    path: format!("/nodes/{}/{action}", node.node),
                    label,
                    about: node.node.as_str(),
                    command: format!("mozart node {action} {}", node.node),
                    fields: &[],
                }.show(context))
            }
        }
    }
}
