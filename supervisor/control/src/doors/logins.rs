//! Logins of shims, nodes and users: a shim may connect while the log has its incarnation, and its connection is ended soon after another has taken over.

use std::time::Duration;

use broker::{Attempt as _, AuthKey, Broker, Connection, Login, Logins, Rights, Who};
use common::api::{ApiError, Query, Reply};
use common::security::Refusal;
use common::subject::Subjects;
use common::users::{Scope, User};
use common::{AgentName, NodeName, SenderName};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::floods::{BURST, Floods};
use super::live::{Changes, Rank};
use super::refusals::{Refusals, Refused};
use super::{AHEAD, Doors, token};

/// Logins that are answered at once, at most.
const AT_ONCE: usize = 1024;
/// How long what was replaced may say its last words: it has none left about messages.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How often the leader looks at what agents publish. The cost grows with the number of connections: 0.7 KB of each.
const LOOK: Duration = Duration::from_secs(5);
/// How long stopping an agent may take.
const STOP: Duration = Duration::from_secs(10);
/// The author of such a stop in the control log.
const AUTHOR: &str = "flood-limit";

/// What became of a login.
enum Answered {
    Fine,
    Refused(Refused),
    /// Not of a login: who is connected.
    Connected(Why, Vec<Connection>),
}

/// Why the servers are asked who is connected.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// Incarnations have been replaced, or have ended.
    Left,
    /// To see what agents publish.
    Floods,
}

/// Who wants to connect.
enum Caller {
    Shim(AgentName, u64),
    User(SenderName),
    Node(NodeName),
    /// Nobody of any fleet.
    Stranger,
}

impl Caller {
    /// None: somebody of another fleet.
    fn of(subjects: &Subjects, user: &str) -> Option<Self> {
        match Who::of(subjects, user) {
            Some(Who::Shim(agent, incarnation)) => Some(Self::Shim(agent, incarnation)),
            Some(Who::User(name)) => Some(Self::User(name)),
            Some(Who::Node(node)) => Some(Self::Node(node)),
            None => (!user.starts_with("mozart.")).then_some(Self::Stranger),
        }
    }
}

/// Looks who may connect, and ends the connections of those who may no longer.
pub(super) struct Doorkeeper {
    doors: Doors,
    key: AuthKey,
    logins: Logins,
    answering: FuturesUnordered<BoxFuture<'static, Answered>>,
    refusals: Refusals,
    changes: watch::Receiver<Changes>,
    /// What was looked for up to now.
    swept: u64,
    /// When it is looked again.
    sweep_at: Option<Instant>,
    floods: Floods,
    /// When agents were looked at, and are looked at again.
    looked_at: Instant,
    look_at: Instant,
}

impl Doorkeeper {
    pub(super) async fn open(doors: Doors, key: AuthKey) -> Result<Self, ApiError> {
        let logins = doors.broker.logins(&key).await;
        let logins = logins.attempt("cannot answer for the logins of agents")?;
        let refusals = Refusals::new(doors.broker.clone(), doors.id.clone(), doors.metrics.clone());
        let changes = doors.live.changes();
        let answering = FuturesUnordered::new();
        let (floods, looked_at) = (Floods::default(), Instant::now());
        let look_at = looked_at + LOOK;
        let (swept, sweep_at) = (0, None);
        Ok(Self {
            doors,
            key,
            logins,
            answering,
            refusals,
            changes,
            swept,
            sweep_at,
            floods,
            looked_at,
            look_at,
        })
    }

    pub(super) async fn keep(mut self) -> Result<(), ApiError> {
        loop {
            let has_room = self.answering.len() < AT_ONCE;
            let sweep = async {
                match self.sweep_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                login = self.logins.next(), if has_room => match login {
                    Some(login) => self.take(login),
                    None => return Ok(()),
                },
                Some(answered) = self.answering.next(), if !self.answering.is_empty() => {
                    match answered {
                        Answered::Fine => {}
                        Answered::Refused(refused) => self.refusals.note(refused),
                        Answered::Connected(Why::Left, all) => self.sweep(all),
                        Answered::Connected(Why::Floods, all) => self.look(&all),
                    }
                }
                Ok(()) = self.changes.changed() => self.changed(),
                () = sweep => {
                    self.sweep_at = None;
                    self.find(Why::Left);
                }
                () = sleep_until(self.look_at) => {
                    self.look_at = Instant::now() + LOOK;
                    self.find(Why::Floods);
                }
                () = self.refusals.record() => {}
            }
        }
    }

    /// Those who are not current any more have a moment left.
    fn changed(&mut self) {
        let left = self.changes.borrow_and_update().left;
        if left != self.swept {
            self.swept = left;
            self.sweep_at.get_or_insert(Instant::now() + LAST_WORDS);
        }
    }

    fn take(&mut self, login: Login) {
        // Users of other fleets are for their own supervisors to answer.
        let Some(who) = Caller::of(self.doors.broker.subjects(), &login.user) else { return };
        let (doors, key) = (self.doors.clone(), self.key.clone());
        self.answering.push(Box::pin(async move {
            let rights = match &who {
                Caller::Shim(agent, incarnation) => {
                    may_connect(&doors, &login, agent, *incarnation).await
                }
                Caller::User(name) => of_user(&doors, &login, name).await,
                Caller::Node(node) => of_node(&doors, &login, node).await,
                Caller::Stranger => Err("there is no such user".to_owned()),
            };
            let why = match rights {
                Ok(rights) => match doors.broker.let_in(&key, &login, &rights).await {
                    Ok(()) => return Answered::Fine,
                    Err(error) => error.to_string(),
                },
                Err(why) => why,
            };
            // Nobody need wait until the server gives up.
            if let Err(error) = doors.broker.keep_out(&key, &login, &why).await {
                tracing::debug!("cannot refuse a login: {error}");
            }
            let detail = format!("{why}, from {}", login.host);
            Answered::Refused(match who {
                Caller::Shim(agent, number) => {
                    Refused::to_agent(Refusal::Login, agent, number, detail)
                }
                Caller::User(name) => Refused::to_user(Refusal::Login, name, detail),
                Caller::Node(node) => Refused::to_node(Refusal::Login, node, detail),
                Caller::Stranger => {
                    let name: String = login.user.chars().take(64).collect();
                    Refused::to_stranger(Refusal::Login, format!("user {name:?}: {detail}"))
                }
            })
        }));
    }

    /// Asks the servers who is connected. They may take a second to tell, and logins do not wait for that.
    fn find(&mut self, why: Why) {
        if !*self.doors.leads.borrow() {
            return self.floods.forget();
        }
        let broker = self.doors.broker.clone();
        self.answering.push(Box::pin(async move {
            match broker.shim_connections().await {
                Ok(connections) => Answered::Connected(why, connections),
                Err(error) => {
                    tracing::warn!("cannot tell which agents are connected: {error}");
                    Answered::Fine
                }
            }
        }));
    }

    /// Ends the connections of incarnations that were replaced or have ended: what is left of those whose processes did not.
    fn sweep(&mut self, connections: Vec<Connection>) {
        for connection in connections {
            let Who::Shim(agent, incarnation) = connection.who.clone() else { continue };
            match self.doors.live.rank(&agent, incarnation) {
                Rank::Current | Rank::Unknown => continue,
                // At worst it was applied a moment ago, and connects again.
                Rank::Retiring | Rank::Over | Rank::Stranger => {}
            }
            let broker = self.doors.broker.clone();
            self.answering.push(Box::pin(async move {
                kick(&broker, &connection, &agent, incarnation).await;
                let detail = "it was replaced or has ended, and was still connected".to_owned();
                let kind = Refusal::Connection;
                Answered::Refused(Refused::to_agent(kind, agent, incarnation, detail))
            }));
        }
    }

    /// Stops agents that publish more than they may.
    fn look(&mut self, connections: &[Connection]) {
        let since = std::mem::replace(&mut self.looked_at, Instant::now()).elapsed();
        for (agent, incarnation) in self.floods.look(connections, since) {
            let of_it = |one: &&Connection| one.who == Who::Shim(agent.clone(), incarnation);
            let connections = connections.iter().filter(of_it).cloned().collect();
            let broker = self.doors.broker.clone();
            self.answering.push(Box::pin(stop(broker, agent, incarnation, connections)));
        }
    }
}

async fn kick(broker: &Broker, connection: &Connection, agent: &AgentName, incarnation: u64) {
    if let Err(error) = broker.kick(connection).await {
        tracing::warn!("cannot end the connection of {agent}-{incarnation}: {error}");
    }
}

/// Stops an agent, and ends its connections: it is not let in again.
async fn stop(
    broker: Broker,
    agent: AgentName,
    incarnation: u64,
    connections: Vec<Connection>,
) -> Answered {
    let asked = async {
        let query = serde_json::to_vec(&Query::Stop { agent: agent.clone() })?;
        let author = SenderName::new(AUTHOR)?;
        let subject = broker.subjects().query_by(Scope::Operate, &author);
        let reply = broker.ask(subject, query.into(), STOP).await?;
        if let Reply::Error(error) = serde_json::from_slice(&reply)? {
            return Err(format!("{error}: {}", error.cause).into());
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    let stopped = match asked.await {
        Ok(()) => "it was stopped".to_owned(),
        // It is found again if it goes on.
        Err(error) => format!("it could not be stopped: {error}"),
    };
    for connection in connections {
        kick(&broker, &connection, &agent, incarnation).await;
    }
    let detail = format!("more than {} MiB at once; {stopped}", BURST >> 20);
    Answered::Refused(Refused::to_agent(Refusal::Flood, agent, incarnation, detail))
}

/// The rights of a user, or why it has none.
async fn of_user(doors: &Doors, login: &Login, name: &SenderName) -> Result<Rights, String> {
    let user = with_key(doors, login, name).await?;
    match user.scope {
        Scope::Node => Err("it is a node, and no user".to_owned()),
        Scope::Read | Scope::Send | Scope::Operate | Scope::Admin => {
            Ok(Rights::of_user(doors.broker.subjects(), &user))
        }
    }
}

/// The rights of a node, or why it has none.
async fn of_node(doors: &Doors, login: &Login, node: &NodeName) -> Result<Rights, String> {
    let name = SenderName::new(node.as_str()).map_err(|error| error.to_string())?;
    let user = with_key(doors, login, &name).await?;
    if user.scope != Scope::Node {
        return Err(format!("it is a user with scope {}, and no node", user.scope));
    }
    Ok(Rights::of_node(doors.broker.subjects(), node))
}

/// The user or node of a name, if whoever connects has its key.
async fn with_key(doors: &Doors, login: &Login, name: &SenderName) -> Result<User, String> {
    let Some(key) = &login.key else {
        return Err("it has not shown that it has the key of the user".to_owned());
    };
    match doors.broker.user_named(name).await {
        Ok(Some(user)) if user.key == *key => Ok(user),
        Ok(Some(_)) => Err("it has another key than the user".to_owned()),
        Ok(None) => Err("there is no such user, or it was revoked".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The rights of an incarnation, or why it has none.
async fn may_connect(
    doors: &Doors,
    login: &Login,
    agent: &AgentName,
    incarnation: u64,
) -> Result<Rights, String> {
    let token = token(doors.secret, agent, incarnation);
    if !is_same(token.as_bytes(), login.password.as_bytes()) {
        return Err("wrong password".to_owned());
    }
    match doors.live.rank_once_known(agent, incarnation, AHEAD).await {
        Rank::Current => Ok(Rights::of_shim(doors.broker.subjects(), agent, incarnation, &token)),
        Rank::Retiring => Err("another incarnation has taken over".to_owned()),
        Rank::Over => Err("it has ended, or was given up".to_owned()),
        Rank::Unknown | Rank::Stranger => Err("there is no such incarnation".to_owned()),
    }
}

/// Whether two secrets are the same, in a time that does not tell how far they are.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other));
    one.len() == other.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn secrets_are_the_same_only_if_they_are() {
        assert!(is_same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!is_same(b"abc", other));
        }
    }
}
