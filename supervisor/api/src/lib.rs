//! The door over HTTP. It keeps nothing: what is sent is in the journal before it is answered, and what is read comes from there. Any number of
//! them serve side by side, and a stream that one of them began is resumed at any other.

mod a2a;
mod caller;
mod door;
mod following;
mod gate;
mod growing;
mod keys;
mod openai;
mod page;
mod problem;
mod quota;
mod responses;
mod routes;
mod sap;
mod sse;
mod waiting;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use broker::Broker;
use common::api::ApiError;
use common::failure;
use common::message::MessageKey;
use mozart_client::Client;
use mozart_client::answers::Answers;
use mozart_client::feed::Feed;
use mozart_client::send::Known;
use mozart_client::watch::Watch;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use door::Listening;
use following::Following;
use keys::Keys;
use metrics::Door;
use quota::Quotas;

/// The port, unless another one is given.
pub const PORT: u16 = 4141;

/// Open connections, and open streams, of one process.
const CONNECTIONS: usize = 4_096;
/// Requests a second that a token may make of one process, unless another number is given.
pub const RATE: u32 = 1_000;
/// Streams, and waits for answers, that one token may have open at one process, unless another number is given.
pub const STREAMS: u32 = 1_024;

/// How the API is to be reached.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// The address that it listens on.
    pub listen: SocketAddr,
    /// Its certificates and its key, in PEM files; none: without TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether it is reached through something that encrypts: then it may listen without TLS on an address that others reach.
    pub behind_proxy: bool,
    /// The names, besides addresses and `localhost`, under which it is reached.
    pub hosts: Vec<String>,
    /// The origins, besides its own, whose pages may use it: `https://app.example.com`.
    pub origins: Vec<String>,
    /// Requests a second that a token may make; twice as many at once.
    pub rate: u32,
    /// Streams and waits that a token may have open.
    pub streams: u32,
    /// What is counted; none: nothing is.
    pub metrics: Option<metrics::Http>,
}

impl ApiOptions {
    /// At an address, for this host alone or with TLS.
    #[must_use]
    pub fn at(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            behind_proxy: false,
            hosts: Vec::new(),
            origins: Vec::new(),
            rate: RATE,
            streams: STREAMS,
            metrics: None,
        }
    }

    /// Refuses what would show tokens to whoever listens in.
    ///
    /// # Errors
    /// 2 when others can reach the address, and nothing encrypts.
    pub fn check(&self) -> Result<(), ApiError> {
        let is_own = match self.listen.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        if is_own || self.tls.is_some() || self.behind_proxy {
            return Ok(());
        }
        let what = format!("the API does not listen on {}", self.listen);
        let cause = "others can reach that address, and tokens would be sent in the clear";
        let try_ = "--tls-cert FILE --tls-key FILE; or --behind-proxy, if only a proxy that encrypts reaches it";
        Err(failure::error(failure::USAGE, what, cause, try_))
    }
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    client: Client,
    feed: Feed,
    answers: Answers,
    keys: Keys,
    quotas: Quotas,
    metrics: Option<metrics::Http>,
    sessions: page::Sessions,
    reads: page::Reads,
    /// Whether browsers reach it over TLS.
    is_encrypted: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
    /// `https` where it is reached over TLS.
    scheme: &'static str,
    stop: CancellationToken,
}

impl Shared {
    /// Opens what the stream of a message is read from. Opened before the message is sent, nothing is missed.
    ///
    /// # Errors
    /// When the broker does not answer.
    async fn watch(&self, key: &MessageKey) -> Result<Following, ApiError> {
        let watch = Watch::open_with(&self.client.broker, key, Some(&self.feed)).await?;
        Ok(Following::new(watch, self.metrics.clone()))
    }

    /// Counts a message, if it was stored just now.
    fn accepted(&self, door: Door, known: Option<&Known>) {
        if let Some(metrics) = self.metrics.as_ref().filter(|_| known == Some(&Known::New)) {
            metrics.accepted(door);
        }
    }
}

/// Shares of [`Shared`].
type Api = Arc<Shared>;

/// Takes an address.
///
/// # Errors
/// 2 as [`ApiOptions::check`], or when the certificates are of no use; 6 when the address is not to be had.
pub async fn listen(options: &ApiOptions) -> Result<Listening, ApiError> {
    options.check()?;
    let tls = options.tls.as_ref().map(|(cert, key)| door::tls(cert, key)).transpose()?;
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        let what = format!("the API cannot listen on {}", options.listen);
        let try_ = if error.kind() == std::io::ErrorKind::AddrInUse {
            "`ss -ltnp` shows what uses it; or give it another address"
        } else {
            "give it another address"
        };
        failure::error(failure::UNREACHABLE, what, error, try_)
    })?;
    Ok(Listening { listener, tls })
}

/// Serves until `stop`.
///
/// # Errors
/// 7 when the connection lacks the rights to know tokens.
pub async fn serve(
    options: ApiOptions,
    listening: Listening,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    if let Some(user) = broker.user().filter(|user| user.scope < common::users::Scope::Admin) {
        let what = "the API cannot check tokens with these credentials";
        let cause = format!("user {} has scope {}", user.name, user.scope);
        let try_ = "the fleet's own credentials, or those of a user with scope admin";
        return Err(failure::error(failure::DENIED, what, cause, try_));
    }
    let is_encrypted = listening.tls.is_some() || options.behind_proxy;
    let shared = Arc::new(Shared {
        scheme: if is_encrypted { "https" } else { "http" },
        keys: Keys::new(broker.clone()),
        sessions: page::Sessions::new(broker.clone()),
        reads: page::Reads::default(),
        is_encrypted,
        client: Client::new(broker.clone()),
        feed: Feed::default(),
        answers: Answers::default(),
        quotas: Quotas::new((options.rate, options.rate.saturating_mul(2)), options.streams),
        metrics: options.metrics,
        hosts: options.hosts,
        origins: options.origins,
        stop: stop.clone(),
    });
    let scheme = if listening.tls.is_some() { "https" } else { "http" };
    if let Ok(address) = listening.address() {
        tracing::info!("the API listens on {scheme}://{address}");
    }
    let sap = async {
        if let Err(error) = sap::serve(Arc::clone(&shared)).await {
            tracing::warn!("callers on NATS are not answered: {}: {}", error.what, error.cause);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = door::serve(listening, routes::router(Arc::clone(&shared)), CONNECTIONS, stop) => {}
        () = shared.feed.run(&broker) => {}
        () = sap => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use common::Timestamp;
    use common::message::{Envelope, Kind};

    use super::*;

    /// A message of `ana` to `a`.
    pub(crate) fn envelope(id: &str, conversation: &str, text: &str) -> Envelope {
        Envelope {
            message_id: id.parse().expect("valid"),
            agent: "a".parse().expect("valid"),
            sender: "ana".parse().expect("valid"),
            kind: Kind::Chat,
            conversation_id: conversation.parse().expect("valid"),
            message: text.to_owned(),
            created_at: Timestamp::from_millis(5_000),
            request_id: None,
            deadline: None,
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent: None,
            scheduled_for: None,
            deliver_at: None,
        }
    }

    #[test]
    fn what_others_reach_is_encrypted() {
        let at = |address: &str| ApiOptions::at(address.parse().expect("valid"));
        for own in ["127.0.0.1:0", "127.1.2.3:1", "[::1]:4141"] {
            assert_eq!(at(own).check(), Ok(()), "{own}");
        }
        for others in ["0.0.0.0:4141", "10.0.0.1:4141", "[::]:4141"] {
            assert_eq!(at(others).check().expect_err(others).code, failure::USAGE);
            assert_eq!(ApiOptions { behind_proxy: true, ..at(others) }.check(), Ok(()));
            let tls = Some(("c".into(), "k".into()));
            assert_eq!(ApiOptions { tls, ..at(others) }.check(), Ok(()));
        }
    }
}
