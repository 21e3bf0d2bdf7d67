//! Logins of shims, nodes and users. nats-server asks the supervisors about every connection whose user is not in its configuration (auth callout), and one of
//! them answers with what that user may do, signed by the key that the configuration names.

mod accounts;
mod connections;
mod creds;
mod jwt;
mod key;
mod rights;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;

pub use self::accounts::{Accounts, User};
pub use self::connections::{Connection, Who};
pub(crate) use self::creds::user_of;
pub use self::creds::{AsUser, Creds};
pub use self::key::AuthKey;
pub use self::rights::Rights;
use crate::connection::{Broker, queued};
use crate::error::{BrokerError, Result};

/// Where nats-server asks, in the account of the supervisors.
const SUBJECT: &str = "$SYS.REQ.USER.AUTH";
/// The key that a server seals its question with.
const SERVER_KEY: &str = "Nats-Server-Xkey";
/// The account of shims.
pub(crate) const AGENTS: &str = "AGENTS";
/// The account of the fleet.
pub const APP: &str = "APP";
/// That of nodes with logins of their own.
pub(crate) const NODES: &str = "NODES";
/// That of users, but for those who may do everything.
pub(crate) const OPS: &str = "OPS";
/// That of the servers.
pub(crate) const SYS: &str = "SYS";

/// Somebody who wants to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// As whom.
    pub user: String,
    /// With which password.
    pub password: String,
    /// The public key of who connects with credentials of a user, and has proved to have the private one.
    pub key: Option<String>,
    /// From which address.
    pub host: String,
    /// The key that the server has given the connection, and that the answer is about.
    id: String,
    server: String,
    /// The key that the answer is sealed for, if the question was.
    sealed_for: Option<String>,
    reply: String,
}

#[derive(Deserialize)]
struct Claims {
    nats: Asked,
}

#[derive(Deserialize)]
struct Asked {
    server_id: Server,
    user_nkey: String,
    #[serde(default)]
    client_info: Client,
    #[serde(default)]
    connect_opts: Options,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Default, Deserialize)]
struct Client {
    #[serde(default)]
    host: String,
    /// What it had to sign.
    #[serde(default)]
    nonce: String,
}

#[derive(Default, Deserialize)]
struct Options {
    #[serde(default)]
    user: String,
    /// Clients that sign for a user and cannot name it name it here.
    #[serde(default)]
    auth_token: String,
    #[serde(default)]
    pass: String,
    #[serde(default)]
    nkey: String,
    #[serde(default)]
    sig: String,
}

/// The key of whoever connects, if its signature shows that it has the private one.
fn proven(options: &Options, nonce: &str) -> std::result::Result<Option<String>, String> {
    if options.nkey.is_empty() {
        return Ok(None);
    }
    if nonce.is_empty() {
        return Err("the server asked for no signature".to_owned());
    }
    let pair = nkeys::KeyPair::from_public_key(&options.nkey).map_err(|error| error.to_string())?;
    let signature = jwt::decode(&options.sig)?;
    pair.verify(nonce.as_bytes(), &signature).map_err(|error| error.to_string())?;
    Ok(Some(options.nkey.clone()))
}

impl Login {
    fn read(key: &AuthKey, message: async_nats::Message) -> std::result::Result<Self, String> {
        let reply = message.reply.ok_or("nobody waits for the answer")?.into_string();
        let sealed_for = message.headers.as_ref().and_then(|headers: &HeaderMap| {
            headers.get(SERVER_KEY).map(|key| key.as_str().to_owned())
        });
        let token = match &sealed_for {
            Some(server) => key.open(&message.payload, server)?,
            None => message.payload.to_vec(),
        };
        let claims: Claims = jwt::read(&token)?;
        let Asked { server_id, user_nkey, client_info, connect_opts } = claims.nats;
        let key = proven(&connect_opts, &client_info.nonce).unwrap_or_else(|why| {
            tracing::debug!("a key that is not proven: {why}");
            None
        });
        let named = if connect_opts.user.is_empty() && key.is_some() {
            connect_opts.auth_token
        } else {
            connect_opts.user
        };
        Ok(Self {
            user: named,
            key,
            password: connect_opts.pass,
            host: client_info.host,
            id: user_nkey,
            server: server_id.id,
            sealed_for,
            reply,
        })
    }
}

/// Those who want to connect.
#[derive(Debug)]
pub struct Logins {
    inner: async_nats::Subscriber,
    key: AuthKey,
}

impl Logins {
    /// The next one; none when the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Login> {
        loop {
            match Login::read(&self.key, self.inner.next().await?) {
                Ok(login) => return Some(login),
                // Of a server that has another key: it will not believe the answer either.
                Err(why) => tracing::warn!("cannot read a login: {why}"),
            }
        }
    }
}

impl Broker {
    /// Listens for logins, of which each group of supervisors gets every one, and one member of the group answers.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn logins(&self, key: &AuthKey) -> Result<Logins> {
        let group = format!("mozart-{}", self.subjects().namespace());
        let inner = self.wire().client.queue_subscribe(SUBJECT, group).await;
        inner.map(|inner| Logins { inner, key: key.clone() }).map_err(BrokerError::other)
    }

    /// Lets somebody connect, with these rights.
    ///
    /// # Errors
    /// When the answer cannot be sent: the server refuses the connection then.
    pub async fn let_in(&self, key: &AuthKey, login: &Login, rights: &Rights) -> Result<()> {
        let user = jwt::user(key, &login.user, &login.id, rights)?;
        self.answer_login(key, login, Ok(user)).await
    }

    /// Refuses a connection.
    ///
    /// # Errors
    /// As [`Broker::let_in`].
    pub async fn keep_out(&self, key: &AuthKey, login: &Login, why: &str) -> Result<()> {
        self.answer_login(key, login, Err(why)).await
    }

    async fn answer_login(
        &self,
        key: &AuthKey,
        login: &Login,
        user: std::result::Result<String, &str>,
    ) -> Result<()> {
        let answer = jwt::response(key, &login.id, &login.server, user)?;
        let answer = match &login.sealed_for {
            Some(server) => key.seal(answer.as_bytes(), server).map_err(BrokerError::other)?,
            None => answer.into_bytes(),
        };
        queued(self.wire().client.publish(login.reply.clone(), Bytes::from(answer))).await
    }
}
