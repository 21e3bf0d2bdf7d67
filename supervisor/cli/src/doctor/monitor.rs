//! nats-server's monitoring address.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::durability::Sync;

/// A server that answers takes no longer.
const ANSWER: Duration = Duration::from_secs(5);
/// Its answer is a few kilobytes.
const LONGEST: usize = 1 << 20;

/// The parts of a server's report that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Varz {
    #[serde(default)]
    pub(super) server_id: String,
    #[serde(default)]
    pub(super) server_name: String,
    #[serde(default)]
    jetstream: JetStream,
}

#[derive(Debug, Default, Deserialize)]
struct JetStream {
    /// None where there is no JetStream.
    #[serde(default)]
    config: Option<Config>,
}

#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    sync_always: bool,
    /// In nanoseconds; also there when it does not count, since every write is synced.
    #[serde(default)]
    sync_interval: u64,
}

impl Varz {
    /// None where there is nothing to sync.
    pub(super) fn sync(&self) -> Option<Sync> {
        let config = self.jetstream.config.as_ref()?;
        let every = Duration::from_nanos(config.sync_interval);
        Some(match config.sync_always {
            true => Sync::Always,
            false => Sync::Every(humantime::format_duration(every).to_string()),
        })
    }
}

/// Asks a server.
///
/// # Errors
/// A human-readable message.
pub(super) async fn varz(url: &str) -> Result<Varz, String> {
    match tokio::time::timeout(ANSWER, ask(url)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {ANSWER:?}")),
    }
}

async fn ask(url: &str) -> Result<Varz, String> {
    let (address, path) = target(url)?;
    let socket = TcpStream::connect(&address).await.map_err(|error| error.to_string())?;
    let handshake = http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let request = Request::get(path).header(HOST, &address).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let asked = async move {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    };
    // The connection ends with its sender.
    let (body, _closed) = tokio::join!(asked, connection);
    serde_json::from_slice(&body?).map_err(|error| format!("not an answer of nats-server: {error}"))
}

/// Host and port, and the path there.
fn target(url: &str) -> Result<(String, String), String> {
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = full.parse().map_err(|error| format!("not a URL: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("only http:// is supported".to_owned());
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or("it has no host")?;
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(8222));
    let path = uri.path().trim_end_matches('/').trim_end_matches("/varz");
    Ok((address, format!("{path}/varz")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[test]
    fn an_address_is_taken_as_people_write_it() {
        let there = |address: &str, path: &str| Ok((address.to_owned(), path.to_owned()));
        assert_eq!(target("http://h:1/"), there("h:1", "/varz"));
        assert_eq!(target("h"), there("h:8222", "/varz"));
        assert_eq!(target("http://[::1]:2/base/varz"), there("[::1]:2", "/base/varz"));
        assert!(target("https://h:1").is_err());
        assert!(target("").is_err());
    }

    async fn answer(with: &'static str) -> Result<Varz, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let server = async {
            let (mut socket, _) = listener.accept().await.expect("a client");
            let mut buffer = [0; 1024];
            let read = socket.read(&mut buffer).await.expect("a request");
            assert!(buffer[..read].starts_with(b"GET /varz HTTP/1.1\r\n"));
            socket.write_all(with.as_bytes()).await.expect("sent");
        };
        tokio::join!(varz(&url), server).0
    }

    #[tokio::test]
    async fn an_answer_is_believed_and_anything_else_is_not() {
        let varz = answer(
            "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n{\"server_id\":\"A\",\"server_name\":\"n1\"}\r\n",
        );
        let varz = varz.await.expect("it is one");
        assert_eq!((varz.server_id.as_str(), varz.server_name.as_str()), ("A", "n1"));
        assert_eq!(varz.sync(), None);
        let refused = answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(refused.expect_err("refused"), "it answered 403 Forbidden");
        let other = answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
        assert!(other.expect_err("no JSON").starts_with("not an answer of nats-server"));
        answer("").await.expect_err("it closed the connection");
    }
}
