//! `mozart user`: logins for people, programs and nodes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::{Attempt as _, Creds};
use clap::{Args, Subcommand};
use common::api::ApiError;
use common::users::{Scope, User};
use common::{AgentName, SenderName, failure};

use mozart_client::tokens::is_free;

use super::client::{Client, now};
use super::{output, table};
use crate::args::Global;

/// `mozart user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user, and write a credentials file for it
    ///
    /// read: see everything. send: also send messages in its own name. operate: also change agents and nodes, and cancel and redrive messages of
    /// others. admin: everything. node: be the node of this name, and nothing else.
    Add(AddArgs),
    /// List users
    Ls,
    /// Remove users; their connections are ended
    Revoke {
        /// The users
        #[arg(required = true, value_name = "NAME")]
        names: Vec<SenderName>,
    },
}

/// `mozart user add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The user's name: also the sender of its messages
    name: SenderName,
    /// What it may do: read, send, operate, admin or node
    #[arg(long, value_name = "SCOPE")]
    scope: Scope,
    /// An agent that it may send to; repeat for more [default: all]
    #[arg(long = "agent", value_name = "AGENT")]
    agents: Vec<AgentName>,
    /// Where the credentials go; `-` is stdout [default: NAME.creds]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Adds, lists or removes users.
///
/// # Errors
/// 4 there is a user or an agent of that name; 3 there is none.
pub(crate) async fn run(global: &Global, command: UserCommand) -> Result<u8, ApiError> {
    match command {
        UserCommand::Add(args) => add(global, args).await,
        UserCommand::Ls => list(global).await,
        UserCommand::Revoke { names } => revoke(global, names).await,
    }
}

async fn add(global: &Global, args: AddArgs) -> Result<u8, ApiError> {
    let AddArgs { name, scope, agents, file } = args;
    let what = || format!("user {name} is not added");
    if scope != Scope::Send && !agents.is_empty() {
        let cause = format!("scope {scope} is not about single agents");
        let try_ = "--scope send, or without --agent";
        return Err(failure::error(failure::USAGE, what(), cause, try_));
    }
    let client = Client::to_change(global).await?;
    // A node sends no messages: its name may be that of an agent.
    if scope != Scope::Node {
        is_free(&client.broker, &name, &what()).await?;
    }
    let creds = Creds::random(client.broker.subjects(), &name, scope, &agents).attempt(what())?;
    let by = client.sender().to_string();
    let key = creds.key.clone();
    let user = User { name: name.clone(), key, scope, agents, at: now(), by };
    let file = file.unwrap_or_else(|| format!("{name}.creds").into());
    // First: a user without a file is of no use, and its name would be taken.
    let out = Out::create(&file)?;
    let added = client.broker.add_user(&user).await;
    if !matches!(added, Ok(true)) {
        // It would be in the way of another try.
        out.discard();
    }
    if !added.attempt(what())? {
        let try_ = format!("`mozart user revoke {name}` first, or another name");
        return Err(failure::error(failure::CONFLICT, what(), "there is one of that name", try_));
    }
    out.write(&creds.text)?;
    if client.json() {
        return output::json(&user).map(|()| 0);
    }
    if file != Path::new("-") {
        output::line(format!(
            "added user {name} with scope {scope}; its credentials are in {}",
            file.display()
        ))?;
        let words =
            if scope == Scope::Node { format!("node --name {name}") } else { "ps".to_owned() };
        output::note(format!("try: mozart --nats URL --creds {} {words}", file.display()));
    }
    Ok(0)
}

/// Where credentials go.
pub(crate) enum Out {
    Stdout,
    File(std::fs::File, PathBuf),
}

impl Out {
    /// A file that only its owner can read. One that is there is left alone: it may be the only copy of other credentials.
    pub(crate) fn create(path: &Path) -> Result<Self, ApiError> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        opened.map(|file| Self::File(file, path.to_owned())).map_err(|error| {
            failure::file(format!("cannot write {}", path.display()), &error, "--file FILE")
        })
    }

    pub(crate) fn write(self, text: &str) -> Result<(), ApiError> {
        match self {
            Self::Stdout => output::line(text.trim_end()),
            Self::File(mut file, path) => {
                let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
                written.map_err(|error| {
                    let what = format!("cannot write {}", path.display());
                    failure::file(what, &error, "revoke it, and make it again")
                })
            }
        }
    }

    /// Nothing is to be written.
    pub(crate) fn discard(&self) {
        if let Self::File(_, path) = self
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

async fn list(global: &Global) -> Result<u8, ApiError> {
    let client = Client::to_read(global).await?;
    let users = client.broker.users().await.attempt("cannot list users")?;
    if client.json() {
        return output::json(&users).map(|()| 0);
    }
    let rows = users.iter().map(|user| {
        let agents: Vec<&str> = user.agents.iter().map(AgentName::as_str).collect();
        let agents = match (user.scope, agents.is_empty()) {
            (Scope::Node, _) => "-".to_owned(),
            (_, true) => "<all>".to_owned(),
            (_, false) => agents.join(","),
        };
        let at = user.at.to_string();
        vec![user.name.to_string(), user.scope.to_string(), agents, at, user.by.clone()]
    });
    output::line(table::table(&["NAME", "SCOPE", "AGENTS", "ADDED", "BY"], rows)).map(|()| 0)
}

async fn revoke(global: &Global, names: Vec<SenderName>) -> Result<u8, ApiError> {
    /// How long an answer that was given before may take to become a connection.
    const ON_THE_WAY: Duration = Duration::from_secs(1);
    let client = Client::to_change(global).await?;
    let mut missing = Vec::new();
    for name in &names {
        let what = format!("user {name} is not revoked");
        if !client.broker.revoke_user(name).await.attempt(what)? {
            missing.push(name.as_str());
        }
    }
    // Who was let in a moment ago is connected by then.
    tokio::time::sleep(ON_THE_WAY).await;
    const CONNECTED: &str = "the users are revoked, but may still be connected";
    for connection in client.broker.user_connections().await.attempt(CONNECTED)? {
        if names.iter().any(|name| connection.who.has_name(name)) {
            client.broker.kick(&connection).await.attempt(CONNECTED)?;
        }
    }
    for name in names.iter().filter(|name| !missing.contains(&name.as_str())) {
        output::line(format!("revoked user {name}"))?;
    }
    if missing.is_empty() {
        return Ok(0);
    }
    let what = format!("there is no user {}", missing.join(", "));
    Err(failure::error(failure::NOT_FOUND, what, "", "`mozart user ls`"))
}
