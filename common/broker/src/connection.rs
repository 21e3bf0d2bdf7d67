//! The connection: one per process, survives the server's kill -9.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Namespace;
use common::subject::Subjects;
use tokio::sync::watch;

use crate::error::Result;

/// How to reach the broker.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// `nats://host:port`, may hold `user:password@`; several separated by commas.
    pub url: String,
    /// A credentials file.
    pub creds: Option<PathBuf>,
    /// The connection's name, seen in the server's lists.
    pub name: String,
    /// The fleet.
    pub namespace: Namespace,
    /// How long the first connection may take.
    pub timeout: Duration,
}

/// Whether the connection stands.
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
    pub(crate) subjects: Subjects,
    pub(crate) link: watch::Receiver<Link>,
}

impl Broker {
    /// Connects, checks the server (version >= 2.12, JetStream) and reads the namespace's journal shards.
    ///
    /// # Errors
    /// Unreachable, denied, too old, without JetStream; [`BrokerError::NoStreams`](crate::BrokerError::NoStreams) when the namespace is new:
    /// then [`Broker::connect_and_create`] makes it.
    pub async fn connect(_options: &ConnectOptions) -> Result<Self> {
        todo!()
    }

    /// The same, and creates the namespace's streams where they are missing (the journal's shard count of existing streams wins).
    ///
    /// # Errors
    /// As [`Broker::connect`], and when the server does not take the streams.
    pub async fn connect_and_create(
        _options: &ConnectOptions,
        _streams: &crate::StreamOptions,
    ) -> Result<Self> {
        todo!()
    }

    /// The namespace's subjects.
    #[must_use]
    pub fn subjects(&self) -> &Subjects {
        &self.inner.subjects
    }

    /// Follows the connection's state.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.inner.link.clone()
    }

    /// Publishes without an answer. Waits at most 1 s for room in the client's queue; a message may be lost with the connection.
    ///
    /// # Errors
    /// When the queue stays full.
    pub async fn tell(&self, _subject: String, _payload: Bytes) -> Result<()> {
        todo!()
    }

    /// Subscribes. With a group, each message goes to one of its members.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn subscribe(&self, _subject: String, _group: Option<&str>) -> Result<Subscription> {
        todo!()
    }

    /// Asks and waits for one reply.
    ///
    /// # Errors
    /// [`BrokerError::Timeout`](crate::BrokerError::Timeout); nobody listens: [`BrokerError::Other`](crate::BrokerError::Other) `no responders`.
    pub async fn ask(
        &self,
        _subject: String,
        _payload: Bytes,
        _timeout: Duration,
    ) -> Result<Bytes> {
        todo!()
    }

    /// Waits until everything told or asked so far is with the server.
    ///
    /// # Errors
    /// When the connection does not come up in time.
    pub async fn flush(&self, _timeout: Duration) -> Result<()> {
        todo!()
    }
}

/// A running subscription to transient subjects; ends when dropped.
#[derive(Debug)]
pub struct Subscription {}

/// A transient message.
#[derive(Debug, Clone)]
pub struct TransientMessage {
    /// Its subject: the only source of its identity.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
    /// Where an answer is expected (with [`Broker::tell`]).
    pub reply: Option<String>,
}

impl Subscription {
    /// The next message; none when the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<TransientMessage> {
        todo!()
    }
}
