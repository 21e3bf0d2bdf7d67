//! Connections: each bounded in time and memory, whatever whoever is at the other end does.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use common::api::ApiError;
use common::failure;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutWriter;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

/// How long the head of a request, or a TLS handshake, may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may take nothing of what it is sent.
const STALLED: Duration = Duration::from_secs(30);
/// The most that is read of a head, and is held to be written, in bytes.
const BUFFER: usize = 64 << 10;
/// The most headers of a request.
const HEADERS: usize = 100;
/// How long answers may go on once the process is to stop.
const REST: Duration = Duration::from_secs(2);
/// The pause after a connection that could not be taken, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// An address that was taken.
pub struct Listening {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Listening {
    /// The address.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.address().ok().map(|address| format!("{scheme}://{address}"))
    }
}

/// Reads certificates and a key.
///
/// # Errors
/// 2 when they cannot be read or used.
pub(crate) fn tls(cert: &Path, key: &Path) -> Result<TlsAcceptor, ApiError> {
    let unusable = |file: &Path, error: &dyn std::fmt::Display| {
        let what = format!("cannot use {}", file.display());
        failure::error(failure::USAGE, what, error, "a file in PEM format")
    };
    let certs =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certs = certs.map_err(|error| unusable(cert, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(certs, private));
    let mut config = config.map_err(|error| unusable(cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `stop`, and then for a moment what is being answered.
pub(crate) async fn serve(
    Listening { listener, tls }: Listening,
    router: Router,
    most: usize,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(most));
    let mut open = JoinSet::new();
    loop {
        // Beyond the limit they wait in the system's queue, which is bounded.
        let accepted = async {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return std::future::pending().await;
            };
            (listener.accept().await, permit)
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => {}
            (accepted, permit) = accepted => match accepted {
                Ok((stream, _)) => {
                    let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
                    open.spawn(connection(stream, tls, router, stop, permit));
                }
                Err(error) => {
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    let ending = async { while open.join_next().await.is_some() {} };
    // Those that are left end with the set.
    let _late = tokio::time::timeout(REST, ending).await;
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    let _delayed = stream.set_nodelay(true);
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(STALLED));
    let mut stream = Box::pin(stream);
    match tls {
        None => requests(&mut stream, router, stop).await,
        Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
            Ok(Ok(stream)) => requests(stream, router, stop).await,
            Ok(Err(error)) => tracing::debug!("no TLS: {error}"),
            Err(_) => tracing::debug!("no TLS in time"),
        },
    }
}

/// Answers the requests of a connection.
async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    router: Router,
    stop: CancellationToken,
) {
    // Boxed, so that the connection need not be pinned and can be taken apart.
    let service = service_fn(move |request: Request<Incoming>| {
        Box::pin(TowerToHyperService::new(router.clone()).call(request))
    });
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut is_stopping = false;
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|context| serving.poll_without_shutdown(context)) => break ended,
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                Pin::new(&mut serving).graceful_shutdown();
            }
        }
    };
    let parts = serving.into_parts();
    let mut stream = parts.io.into_inner();
    if ended.is_err_and(|error| error.is_timeout()) {
        let problem = crate::gate::slow("its headers did not come within ten seconds");
        let _written = stream.write_all(problem.raw().as_bytes()).await;
    }
    let _closed = stream.shutdown().await;
}
