//! `mozart token`: what applications show at the door of the HTTP API.

use std::path::PathBuf;
use std::time::Duration;

use broker::Attempt as _;
use clap::{Args, Subcommand};
use common::api::ApiError;
use common::tokens::Token;
use common::users::Scope;
use common::{AgentName, SenderName, failure};
use mozart_client::tokens::{NewToken, create, is_free};
use serde::Serialize;

use super::client::{Client, now};
use super::users::Out;
use super::{output, table};
use crate::args::{Global, duration};

/// `mozart token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it; it is shown this once
    ///
    /// read: see everything. send: also send messages under its name, and cancel those. operate: also change agents and nodes, and cancel and
    /// redrive messages of others.
    Create(CreateArgs),
    /// List tokens
    Ls,
    /// Revoke tokens; they are refused within two seconds
    Revoke {
        /// The tokens
        #[arg(required = true, value_name = "NAME")]
        names: Vec<SenderName>,
    },
}

/// `mozart token create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The token's name: also the sender of the messages that are sent with it
    name: SenderName,
    /// What it may do: read, send or operate
    #[arg(long, value_name = "SCOPE", value_parser = scope)]
    scope: Scope,
    /// An agent that it is good for; repeat for more [default: all, and the fleet]
    #[arg(long = "agent", value_name = "AGENT")]
    agents: Vec<AgentName>,
    /// How long it is valid [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires: Option<Duration>,
    /// Where the token goes; `-` is stdout
    #[arg(long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

fn scope(text: &str) -> Result<Scope, String> {
    match text.parse() {
        Ok(scope @ (Scope::Read | Scope::Send | Scope::Operate)) => Ok(scope),
        Ok(Scope::Node | Scope::Admin) | Err(_) => Err("expected read, send or operate".to_owned()),
    }
}

/// A token without its hash, which is of no use to anybody.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    name: &'a SenderName,
    scope: Scope,
    agents: &'a [AgentName],
    expires: Option<common::Timestamp>,
    at: common::Timestamp,
    by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn new(token: &'a Token, text: Option<&'a str>) -> Self {
        let Token { name, scope, agents, expires, at, by, .. } = token;
        Self { name, scope: *scope, agents, expires: *expires, at: *at, by, token: text }
    }
}

/// Creates, lists or revokes tokens.
///
/// # Errors
/// 4 the name is taken; 3 there is no such token.
pub(crate) async fn run(global: &Global, command: TokenCommand) -> Result<u8, ApiError> {
    match command {
        TokenCommand::Create(args) => add(global, args).await,
        TokenCommand::Ls => list(global).await,
        TokenCommand::Revoke { names } => revoke(global, &names).await,
    }
}

async fn add(global: &Global, args: CreateArgs) -> Result<u8, ApiError> {
    let CreateArgs { name, scope, agents, expires, file } = args;
    let client = Client::to_change(global).await?;
    is_free(&client.broker, &name, &format!("token {name} is not made")).await?;
    let (at, by) = (now(), client.sender().to_string());
    let expires = expires.map(|within| at.after(within));
    let new = NewToken { name, scope, agents, expires, by };
    // First: a token that nobody has is of no use, and its name would be taken.
    let out = Out::create(&file)?;
    let created = create(&client.broker, new, at).await;
    if created.is_err() {
        out.discard();
    }
    let (token, text) = created?;
    if client.json() && file == std::path::Path::new("-") {
        return output::json(&Shown::new(&token, Some(&text))).map(|()| 0);
    }
    out.write(&text)?;
    let until = token.expires.map(|at| format!(", until {at}")).unwrap_or_default();
    output::note(format!(
        "token {} with scope {}{until}; it is not shown again",
        token.name, token.scope
    ));
    Ok(0)
}

async fn list(global: &Global) -> Result<u8, ApiError> {
    let client = Client::to_read(global).await?;
    let tokens = client.broker.tokens().await.attempt("cannot list tokens")?;
    if client.json() {
        let shown: Vec<_> = tokens.iter().map(|token| Shown::new(token, None)).collect();
        return output::json(&shown).map(|()| 0);
    }
    let now = now();
    let rows = tokens.iter().map(|token| {
        let agents: Vec<&str> = token.agents.iter().map(AgentName::as_str).collect();
        let agents = if agents.is_empty() { "<all>".to_owned() } else { agents.join(",") };
        let expires = match token.expires {
            Some(_) if token.has_expired(now) => "expired".to_owned(),
            at => table::until(at, now),
        };
        vec![
            token.name.to_string(),
            token.scope.to_string(),
            agents,
            expires,
            token.at.to_string(),
            token.by.clone(),
        ]
    });
    let headers = ["NAME", "SCOPE", "AGENTS", "EXPIRES", "CREATED", "BY"];
    output::line(table::table(&headers, rows)).map(|()| 0)
}

async fn revoke(global: &Global, names: &[SenderName]) -> Result<u8, ApiError> {
    let client = Client::to_change(global).await?;
    let mut missing = Vec::new();
    for name in names {
        let what = format!("token {name} is not revoked");
        match client.broker.revoke_token(name).await.attempt(what)? {
            true => output::line(format!("revoked token {name}"))?,
            false => missing.push(name.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(0);
    }
    let what = format!("there is no token {}", missing.join(", "));
    Err(failure::error(failure::NOT_FOUND, what, "", "`mozart token ls`"))
}
