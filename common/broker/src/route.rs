//! The way to the broker: which server of a cluster a connection is with. The thin part around [`crate::elsewhere`].

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, ReconnectToServer, Server};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::connection::Link;
use crate::elsewhere::{Due, Known, Places, Unanswered, kind, others};

/// How long each step of a move may take.
const STEP: Duration = Duration::from_secs(1);

/// A wait that was given up sooner says nothing.
const SHORT: Duration = Duration::from_millis(500);

/// What is known of the servers of one connection.
#[derive(Debug)]
pub(crate) struct Route {
    unanswered: Mutex<Unanswered>,
    /// Whether something is without an answer: the usual case costs no lock.
    misses: AtomicBool,
    places: Mutex<Places>,
}

impl Route {
    pub(crate) fn new() -> Self {
        let random = RandomState::new().hash_one(0_u8);
        Self {
            unanswered: Mutex::new(Unanswered::new(random as u8)),
            misses: AtomicBool::new(false),
            places: Mutex::default(),
        }
    }

    /// A request to this subject got no answer since then, or none of a leader.
    pub(crate) fn missed(&self, subject: &str, since: Instant) {
        let Some(kind) = kind(subject) else { return };
        lock(&self.unanswered).missed(&kind, since, Instant::now());
        self.misses.store(true, Ordering::Relaxed);
    }

    /// A request to this subject got its answer.
    pub(crate) fn answered(&self, subject: &str) {
        if !self.misses.load(Ordering::Relaxed) {
            return;
        }
        let Some(kind) = kind(subject) else { return };
        let mut unanswered = lock(&self.unanswered);
        unanswered.answered(&kind);
        self.misses.store(!unanswered.is_over(), Ordering::Relaxed);
    }

    /// The same as `missed`, when it is dropped before it was told of an answer.
    pub(crate) fn waiting<'a>(&'a self, subject: &'a str) -> Waiting<'a> {
        Waiting { route: self, subject, since: Instant::now(), is_over: false }
    }

    /// Leaves for another server of the cluster, if it is time to.
    pub(crate) async fn leave_if_due(&self, client: &Client, link: &watch::Receiver<Link>) {
        if !self.misses.load(Ordering::Relaxed) || client.server_info().cluster.is_none() {
            return;
        }
        let Due::Leave { first } = lock(&self.unanswered).due(Instant::now()) else { return };
        let Some(mut known) = pool(client).await else { return };
        if others(&known) == 0 {
            // Each new connection is told of the servers that there are by now.
            if !reconnect(client, link).await {
                return;
            }
            known = pool(client).await.unwrap_or_default();
            if others(&known) == 0 {
                return;
            }
        }
        tracing::warn!("the broker's server does not answer for its cluster: trying another one");
        let untried = {
            let mut places = lock(&self.places);
            places.leave(&known, first);
            places.untried(&known)
        };
        lock(&self.unanswered).can_try(untried);
        reconnect(client, link).await;
    }

    /// The server to connect to next; none leaves it to the client.
    pub(crate) fn next(&self, servers: &[Server]) -> Option<ReconnectToServer> {
        let known: Vec<_> = servers.iter().map(seen).collect();
        if others(&known) == 0 {
            return None;
        }
        let random = RandomState::new();
        let next = lock(&self.places).next(&known, |number| random.hash_one(number))?;
        let addr = servers.get(next)?.addr.clone();
        Some(ReconnectToServer { addr, delay: None })
    }
}

/// A request that waits for its answer.
pub(crate) struct Waiting<'a> {
    route: &'a Route,
    subject: &'a str,
    since: Instant,
    is_over: bool,
}

impl Waiting<'_> {
    /// There is an answer, whatever it says, or none is due any more.
    pub(crate) fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.since.elapsed() >= SHORT {
            self.route.missed(self.subject, self.since);
        }
    }
}

fn seen(server: &Server) -> Known {
    Known {
        place: format!("{}:{}", server.addr.host(), server.addr.port()),
        failed: server.failed_attempts,
        was_connected: server.did_connect,
    }
}

async fn pool(client: &Client) -> Option<Vec<Known>> {
    let pool = timeout(STEP, client.server_pool()).await.ok()?.ok()?;
    Some(pool.iter().map(seen).collect())
}

/// Connects anew; whether there is a new connection. It is only tried while the server takes what it is sent: the client closes the
/// connection in order, and would wait for one that stands still. The client's own pings end such a one.
async fn reconnect(client: &Client, link: &watch::Receiver<Link>) -> bool {
    let mut link = link.clone();
    let epoch = link.borrow().epoch;
    if !matches!(timeout(STEP, client.flush()).await, Ok(Ok(()))) {
        return false;
    }
    if !matches!(timeout(STEP, client.force_reconnect()).await, Ok(Ok(()))) {
        return false;
    }
    let connected = link.wait_for(|link| link.up && link.epoch > epoch);
    matches!(timeout(STEP, connected).await, Ok(Ok(_)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
