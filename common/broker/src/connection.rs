//! The connection: one per process; it survives a kill -9 of the server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::subject::Subjects;
use common::{Namespace, Timestamp};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::asked::AsShim;
use crate::callout::{self, AsUser};
use crate::clock::Moment;
use crate::connecting::open;
use crate::error::{BrokerError, Result};
use crate::figures::Told;
use crate::reach::{Lately, Reached};
use crate::room::Room;
use crate::streams::{self, EventsAre, Made, REPLICAS, Scaled};
use crate::wire::Wire;

/// How long a transient message may wait for room in the client's queue.
const ROOM: Duration = Duration::from_secs(1);

/// How to reach the broker.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// `nats://host:port`, may hold `user:password@`; several separated by commas.
    pub url: String,
    /// A credentials file.
    pub creds: Option<PathBuf>,
    /// The certificates, in PEM, of those who vouch for the servers: with them nothing is sent but over TLS, and to no other servers. None: the
    /// system's, where an address says `tls://` or the server asks for TLS.
    pub ca: Option<String>,
    /// The connection's name, seen in the server's lists.
    pub name: String,
    /// The fleet.
    pub namespace: Namespace,
    /// How long the first connection may take.
    pub timeout: Duration,
    /// Whose shim it is, if it has the rights of one; then its login counts, not that of the address.
    pub shim: Option<Box<AsShim>>,
}

impl ConnectOptions {
    /// Whose credentials these are, if they are of a user of the fleet.
    pub(crate) fn user(&self) -> Option<AsUser> {
        let text = std::fs::read_to_string(self.creds.as_ref()?).ok()?;
        callout::user_of(&text, &Subjects::new(self.namespace.clone(), 1))
    }
}

/// Whether there is a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Up now.
    pub up: bool,
    /// How often it came up: 1 after the first connect.
    pub epoch: u64,
}

/// A connection to the broker and the names of one namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) wire: Wire,
    pub(crate) subjects: Subjects,
    replicas: usize,
    shim: Option<Box<AsShim>>,
    user: Option<AsUser>,
    pub(crate) takes_lately: Lately<bool>,
    /// By shard: how long before the leader had heard most of its servers.
    pub(crate) leads_lately: Vec<Lately<Option<Duration>>>,
    pub(crate) reached: Reached,
    /// By shard.
    rooms: Vec<Room>,
}

impl Broker {
    /// Connects, checks the server (version >= 2.12, JetStream) and reads the namespace's journal shards.
    ///
    /// # Errors
    /// Unreachable, denied, too old, without JetStream; [`BrokerError::NoStreams`](crate::BrokerError::NoStreams) when the namespace is new:
    /// then [`Broker::connect_and_create`] makes it.
    pub async fn connect(options: &ConnectOptions) -> Result<Self> {
        let deadline = Instant::now() + options.timeout;
        let wire = open(options, deadline).await?;
        if let Some(shim) = &options.shim {
            let made = Made { shards: shim.shards, replicas: shim.replicas, grows: false };
            let broker = Self::new(wire, options, made);
            broker.learn_time(shim).await;
            return Ok(broker);
        }
        if let Some(node) = options.node() {
            return Self::connected_as_node(wire, options, &node, rest(deadline)).await;
        }
        let patience = rest(deadline).max(election(&wire));
        let made = streams::find(&wire, &options.namespace, patience).await;
        let made = made.map_err(|error| of_cluster(&wire, error))?;
        Ok(Self::new(wire, options, made))
    }

    /// Connects to the server alone, whatever there is of the namespace: to learn what the server is like.
    ///
    /// # Errors
    /// Unreachable, denied, too old.
    pub async fn reach(options: &ConnectOptions) -> Result<Self> {
        let wire = open(options, Instant::now() + options.timeout).await?;
        Ok(Self::new(wire, options, Made { shards: 1, replicas: 1, grows: false }))
    }

    /// As [`Broker::connect`], and creates the namespace's streams where they are missing (the journal's shard count of existing streams wins).
    ///
    /// # Errors
    /// As [`Broker::connect`], and when the server does not take the streams.
    pub async fn connect_and_create(
        options: &ConnectOptions,
        streams: &crate::StreamOptions,
    ) -> Result<Self> {
        let deadline = Instant::now() + options.timeout;
        let wire = open(options, deadline).await?;
        let patience = rest(deadline).max(election(&wire));
        let made = streams::create(&wire, &options.namespace, streams, patience).await;
        let made = made.map_err(|error| of_cluster(&wire, error))?;
        Ok(Self::new(wire, options, made))
    }

    pub(crate) fn new(wire: Wire, options: &ConnectOptions, made: Made) -> Self {
        Self {
            inner: Arc::new(Inner {
                wire,
                subjects: Subjects::new(options.namespace.clone(), made.shards),
                shim: options.shim.clone(),
                user: options.user(),
                takes_lately: Lately::default(),
                leads_lately: (0..made.shards.max(1)).map(|_| Lately::default()).collect(),
                reached: Reached::default(),
                replicas: if made.grows { made.replicas.max(REPLICAS) } else { made.replicas },
                rooms: (0..made.shards.max(1)).map(|_| Room::default()).collect(),
            }),
        }
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.inner.wire
    }

    /// Whose shim this connection is, if it has the rights of one.
    pub(crate) fn as_shim(&self) -> Option<&AsShim> {
        self.inner.shim.as_deref()
    }

    /// As which user this connection was made, if its credentials are those of one.
    #[must_use]
    pub fn user(&self) -> Option<&AsUser> {
        self.inner.user.as_ref()
    }

    /// Where this connection asks a supervisor.
    #[must_use]
    pub fn query(&self) -> String {
        match self.user() {
            Some(AsUser { name, scope, .. }) => self.subjects().query_by(*scope, name),
            None => self.subjects().query(),
        }
    }

    /// Where it asks all of them.
    #[must_use]
    pub fn query_of_all(&self) -> String {
        match self.user() {
            Some(AsUser { name, scope, .. }) => self.subjects().query_of_all_by(*scope, name),
            None => self.subjects().query_of_all(),
        }
    }

    /// What is known of the free space in a journal stream.
    pub(crate) fn room(&self, shard: u32) -> Option<&Room> {
        self.inner.rooms.get(usize::try_from(shard).ok()?)
    }

    /// How many replicas the streams have, or will have once a cluster that is being built has enough servers: whoever reads reckons with
    /// them from the start.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.inner.replicas
    }

    /// Whether the server that the connection is with belongs to a cluster.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        streams::is_clustered(self.wire())
    }

    /// Where clients reach the servers of the cluster, as far as the one that the connection is with knows: `host:port`, its own included.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.wire().client.server_info().connect_urls
    }

    /// Gives the streams of a cluster that was started with fewer servers three replicas each, once there are three. Repeated, it is
    /// harmless, and tells how far that is.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn scale(&self, timeout: Duration) -> Result<Scaled> {
        streams::scale(self.wire(), self.subjects(), true, timeout).await
    }

    /// Tells how far that is.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn scaled(&self, timeout: Duration) -> Result<Scaled> {
        streams::scale(self.wire(), self.subjects(), false, timeout).await
    }

    /// Whether EVENTS can be used.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn events_are(&self, timeout: Duration) -> Result<EventsAre> {
        streams::events_are(self.wire(), self.subjects(), timeout).await
    }

    /// Makes EVENTS anew. What it holds is lost.
    ///
    /// # Errors
    /// When the broker does not answer, or refuses it.
    pub async fn renew_events(&self, timeout: Duration) -> Result<()> {
        streams::renew_events(self.wire(), self.subjects(), timeout).await
    }

    /// The version of the server that the connection is with.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.wire().client.server_info().version
    }

    /// The id of that server: another one after each of its starts.
    #[must_use]
    pub fn server_id(&self) -> String {
        self.wire().client.server_info().server_id
    }

    /// Whether the connection uses TLS, as far as the server asks for it.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.wire().client.server_info().tls_required
    }

    /// What the broker's clock shows by now, as far as its answers have told: an estimate that costs no request, good to some
    /// milliseconds, and to the same ones at every host. [`Broker::clock`] renews it. Before the first answer it is this host's clock: good
    /// to be shown, and for nothing that is decided.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.wire().clock.at(Moment::now()).unwrap_or_else(|| std::time::SystemTime::now().into())
    }

    /// The earliest time that the broker's clock may show now: for what may be late and must not be early, such as the end of somebody's
    /// patience. An answer of a slow broker leaves open for half of its way when it was stamped. None where nothing has told the time yet:
    /// the clock of this host, which may be any, does not stand in for it.
    #[must_use]
    pub fn now_at_least(&self) -> Option<Timestamp> {
        self.wire().clock.at_least(Moment::now())
    }

    /// The largest record that the server and the journal's format take, in bytes.
    #[must_use]
    pub fn max_record(&self) -> usize {
        let room_for_headers = (1 << 20) - common::message::MAX_RECORD;
        let server = self.wire().client.max_payload();
        common::message::MAX_RECORD.min(server.saturating_sub(room_for_headers))
    }

    pub(crate) fn check_size(&self, size: usize) -> Result<()> {
        let max = self.max_record();
        if size > max {
            return Err(BrokerError::TooLarge { size, max });
        }
        Ok(())
    }

    /// The namespace's subjects.
    #[must_use]
    pub fn subjects(&self) -> &Subjects {
        &self.inner.subjects
    }

    /// Follows the connection's state.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.wire().link.clone()
    }

    /// Publishes without waiting for an answer. Waits at most 1 s for room in the client's queue; a message may get lost with the
    /// connection.
    ///
    /// # Errors
    /// When the queue stays full.
    pub async fn tell(&self, subject: String, payload: Bytes) -> Result<()> {
        queued(self.wire().client.publish(subject, payload)).await
    }

    /// Subscribes. With a group, each message goes to one of its members.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn subscribe(&self, subject: String, group: Option<&str>) -> Result<Subscription> {
        let client = &self.wire().client;
        let inner = match group {
            Some(group) => client.queue_subscribe(subject, group.to_owned()).await,
            None => client.subscribe(subject).await,
        };
        inner.map(|inner| Subscription { inner }).map_err(BrokerError::other)
    }

    /// Asks and waits for one reply.
    ///
    /// # Errors
    /// [`BrokerError::Timeout`](crate::BrokerError::Timeout); nobody listens: [`BrokerError::Other`](crate::BrokerError::Other) `no responders`.
    pub async fn ask(&self, subject: String, payload: Bytes, timeout: Duration) -> Result<Bytes> {
        let request = async_nats::Request::new().payload(payload).timeout(None);
        let asked = self.wire().client.send_request(subject, request);
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(message)) => Ok(message.payload),
            Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
                Err(BrokerError::Other("no responders".into()))
            }
            Ok(Err(error)) => Err(BrokerError::other(error)),
            Err(_) => Err(BrokerError::Timeout(timeout)),
        }
    }

    /// Waits until everything published or requested so far has reached the server.
    ///
    /// # Errors
    /// When the connection does not come up in time.
    pub async fn flush(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        self.wire().up(deadline, timeout).await?;
        // The client's own flush ends at the socket. Nobody listens here, and the server says so after all that came before.
        let subject = self.subjects().flush();
        let request = async_nats::Request::new().timeout(None);
        let asked = self.wire().client.send_request(subject, request);
        match timeout_at(deadline, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::NoResponders => Ok(()),
            Ok(Err(error)) => Err(BrokerError::other(error)),
            Err(_) => Err(BrokerError::Timeout(timeout)),
        }
    }
}

/// Asks one question over a connection of its own, which knows of no namespace.
///
/// # Errors
/// As [`Broker::connect`] and [`Broker::ask`].
pub async fn ask_once(options: &ConnectOptions, subject: &str, payload: Bytes) -> Result<Bytes> {
    let deadline = Instant::now() + options.timeout;
    let wire = open(options, deadline).await?;
    let request = async_nats::Request::new().payload(payload).timeout(None);
    let asked = wire.client.send_request(subject.to_owned(), request);
    let answer = match timeout(rest(deadline), asked).await {
        Ok(answer) => answer.map(|message| message.payload).map_err(BrokerError::other),
        Err(_) => Err(BrokerError::Timeout(options.timeout)),
    };
    if let Err(error) = wire.client.drain().await {
        tracing::debug!(%error, "the connection was closed already");
    }
    answer
}

/// Waits at most [`ROOM`] for a command's place in the client's queue, which fills while there is no connection.
pub(crate) async fn queued<E: std::fmt::Display>(
    command: impl Future<Output = std::result::Result<(), E>>,
) -> Result<()> {
    match timeout(ROOM, command).await {
        Ok(done) => done.map_err(BrokerError::other),
        Err(_) => Err(BrokerError::Timeout(ROOM)),
    }
}

/// What is left until a deadline, but never nothing: the connection is there by now, its first answers may take a moment.
fn rest(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    // Whole milliseconds, since error texts show it.
    Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1000))
}

/// That a cluster does not answer for its streams has one reason, as a rule.
fn of_cluster(wire: &Wire, error: BrokerError) -> BrokerError {
    let info = wire.client.server_info();
    match (error, info.cluster) {
        (BrokerError::Timeout(_), Some(cluster)) => {
            BrokerError::NoMajority { cluster, reached: info.connect_urls }
        }
        (error, _) => error,
    }
}

/// How long a cluster may take to answer for its streams: one whose leader is gone elects another one, after 4 to 9 s.
pub(crate) fn election(wire: &Wire) -> Duration {
    if streams::is_clustered(wire) { Duration::from_secs(15) } else { Duration::ZERO }
}

/// A running subscription to transient subjects; ends when dropped.
#[derive(Debug)]
pub struct Subscription {
    inner: async_nats::Subscriber,
}

/// A transient message.
#[derive(Debug, Clone)]
pub struct TransientMessage {
    /// Its subject: the only source of its identity.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
    /// Where an answer is expected (with [`Broker::tell`]).
    pub reply: Option<String>,
    /// What a shim has counted, and what waits at it, if it tells: [`Broker::tell_figures`].
    pub told: Told,
}

impl Subscription {
    /// The next message; none when the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<TransientMessage> {
        let message = self.inner.next().await?;
        let told = message.headers.as_ref().map(Told::of).unwrap_or_default();
        Some(TransientMessage {
            told,
            subject: message.subject.into_string(),
            payload: message.payload,
            reply: message.reply.map(async_nats::Subject::into_string),
        })
    }
}
