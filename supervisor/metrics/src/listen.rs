//! The listener: HTTP/1.1, one page, a bounded number of connections, and no patience with slow ones.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Form, Metrics};

/// Connections at once: beyond these, others wait to be accepted.
const CONNECTIONS: usize = 32;
/// How long a client may take to say what it wants. A connection that is kept open and says nothing more is closed after this time, too.
const HEADERS: Duration = Duration::from_secs(10);
/// How long one connection lasts, whatever it does.
const LONGEST: Duration = Duration::from_secs(600);
/// The most bytes of a request's headers.
const HEADER_BYTES: usize = 16 * 1024;
/// After a failure to accept, as when there are no more file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Opens the listener.
///
/// # Errors
/// When the address is not this host's, or is in use.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < CONNECTIONS;
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if has_room => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection for metrics: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let metrics = Arc::clone(&metrics);
        connections.spawn(async move {
            let answering = service_fn(move |request| {
                let answer = answer(&metrics, &request);
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEADER_BYTES);
            let serving = http.serve_connection(TokioIo::new(stream), answering);
            if let Ok(Err(error)) = tokio::time::timeout(LONGEST, serving).await {
                tracing::debug!("a connection for metrics ended: {error}");
            }
        });
    }
}

fn answer(metrics: &Metrics, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    page(metrics, request.method(), request.uri().path(), || {
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
        Form::of(accept.unwrap_or_default())
    })
}

fn page(
    metrics: &Metrics,
    method: &Method,
    path: &str,
    form: impl FnOnce() -> Form,
) -> Response<Full<Bytes>> {
    let is_read = method == Method::GET || method == Method::HEAD;
    let (status, kind, text) = match (path, is_read) {
        ("/metrics", true) => {
            let form = form();
            match metrics.text(form) {
                Ok(text) => (StatusCode::OK, form.content_type(), text),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
            }
        }
        ("/metrics", false) => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "use GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "the metrics are at /metrics\n".to_owned()),
    };
    // hyper leaves the body out of the answer to a HEAD.
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_page_and_it_is_read_only() {
        let metrics = Metrics::new("1", "node");
        let status = |method: Method, path: &str| {
            page(&metrics, &method, path, || Form::Open).status().as_u16()
        };
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::HEAD, "/metrics"), 200);
        assert_eq!(status(Method::POST, "/metrics"), 405);
        for path in ["/", "/metrics/", "/../metrics", ""] {
            assert_eq!(status(Method::GET, path), 404, "{path}");
        }
    }

    #[test]
    fn the_form_is_what_the_client_names() {
        assert_eq!(Form::of("application/openmetrics-text;version=1.0.0,*/*;q=0.1"), Form::Open);
        for other in ["", "*/*", "text/plain;version=0.0.4"] {
            assert_eq!(Form::of(other), Form::Plain);
        }
    }
}
