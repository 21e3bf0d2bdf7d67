//! HTTP, as it is on the wire: what clients that mean no good send, no library sends.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer of a test takes longer than this, unless something is broken.
const LONGEST: Duration = Duration::from_secs(60);

/// An address of the API, and the token that is shown there.
#[derive(Debug, Clone)]
pub struct Http {
    /// `host:port`.
    pub address: String,
    /// The token.
    pub token: Option<String>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// Its head.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl HttpAnswer {
    /// Itself, if it has this status.
    ///
    /// # Panics
    /// When it has another one.
    #[must_use]
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Its JSON document.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Itself, if it is a problem document of this status that says what, why and what to try.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    #[track_caller]
    pub fn problem(self, status: u16) -> Self {
        let answer = self.is(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        let document = answer.json();
        assert_eq!(document["status"], status, "{document}");
        for field in ["what", "cause", "try", "title", "type"] {
            assert!(
                document[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {document}"
            );
        }
        assert!(document["code"].is_u64(), "{document}");
        answer
    }
}

impl Http {
    /// The same with another token.
    #[must_use]
    pub fn with(&self, token: Option<&str>) -> Self {
        Self { address: self.address.clone(), token: token.map(str::to_owned) }
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        let has = |name: &str| headers.iter().any(|(one, _)| one.eq_ignore_ascii_case(name));
        if !has("host") {
            text.push_str(&format!("host: {}\r\n", self.address));
        }
        if let Some(token) = self.token.as_ref().filter(|_| !has("authorization")) {
            text.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() && !has("content-type") {
            text.push_str("content-type: application/json\r\n");
        }
        text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        text
    }

    /// Makes a request.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> HttpAnswer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut headers = headers.to_vec();
        headers.push(("connection", "close"));
        self.raw(self.request(method, path, &headers, &body).as_bytes()).await
    }

    /// Asks for something.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> HttpAnswer {
        self.ask("GET", path, &[], &Value::Null).await
    }

    /// Sends something.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: Value) -> HttpAnswer {
        self.ask("POST", path, &[], &body).await
    }

    /// Sends bytes, and reads until the connection is closed.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn raw(&self, bytes: &[u8]) -> HttpAnswer {
        let exchange = async {
            let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
            // An answer may come, and the connection be closed, before all is sent.
            let _sent = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer).await;
            parse(&answer)
        };
        timeout(LONGEST, exchange).await.expect("an answer in time")
    }

    /// Makes a request of a server that closes no connection, whatever it is asked.
    ///
    /// # Panics
    /// When there is no answer.
    pub(super) async fn ask_open(&self, method: &str, path: &str, body: &Value) -> HttpAnswer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = self.request(method, path, &[], &body);
        let exchange = async {
            let stream = TcpStream::connect(&self.address).await.expect("it listens");
            let mut stream = BufReader::new(stream);
            stream.write_all(request.as_bytes()).await.expect("it is taken");
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                let read = stream.read_line(&mut head).await.expect("a head");
                assert!(read > 0, "it ended: {head}");
            }
            let answer = parse(head.as_bytes());
            let length = answer.header("content-length").and_then(|length| length.parse().ok());
            let mut body = vec![0; length.expect("a length")];
            stream.read_exact(&mut body).await.expect("a body");
            HttpAnswer { body: String::from_utf8_lossy(&body).into_owned(), ..answer }
        };
        timeout(LONGEST, exchange).await.expect("an answer in time")
    }

    /// Opens a stream of events.
    ///
    /// # Panics
    /// When it is none.
    pub async fn events(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Events {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut headers = headers.to_vec();
        headers.push(("accept", "text/event-stream"));
        let request = self.request(method, path, &headers, &body);
        let opening = async {
            let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
            stream.write_all(request.as_bytes()).await.expect("it is taken");
            let mut events =
                Events { stream: BufReader::new(stream), head: String::new(), text: String::new() };
            while !events.head.ends_with("\r\n\r\n") {
                let read = events.stream.read_line(&mut events.head).await.expect("a head");
                assert!(read > 0, "it ended: {}", events.head);
            }
            let head = events.head.to_lowercase();
            assert!(head.contains("content-type: text/event-stream"), "{head}");
            events
        };
        timeout(LONGEST, opening).await.expect("an answer in time")
    }
}

/// A stream of server-sent events.
#[derive(Debug)]
pub struct Events {
    stream: BufReader<TcpStream>,
    /// The head of the answer.
    pub head: String,
    text: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct SseEvent {
    /// Its id.
    pub id: String,
    /// Its data.
    pub data: Value,
}

impl Events {
    /// The next event; none when the stream has ended, however it did.
    ///
    /// # Panics
    /// When there is none in time, or it is more than one id and one line of data.
    pub async fn next(&mut self) -> Option<SseEvent> {
        timeout(LONGEST, async {
            loop {
                if let Some((block, rest)) = self.text.split_once("\n\n") {
                    let (block, rest) = (block.to_owned(), rest.to_owned());
                    self.text = rest;
                    match event(&block) {
                        Some(event) => return Some(event),
                        None => continue,
                    }
                }
                if !self.chunk().await {
                    return None;
                }
            }
        })
        .await
        .expect("an event in time")
    }

    /// The next comment; none when the stream has ended.
    ///
    /// # Panics
    /// When an event comes first, or nothing in time.
    pub async fn comment(&mut self) -> Option<String> {
        timeout(LONGEST, async {
            loop {
                if let Some((block, rest)) = self.text.split_once("\n\n") {
                    let (block, rest) = (block.to_owned(), rest.to_owned());
                    self.text = rest;
                    assert_eq!(event(&block), None, "a comment comes first");
                    let comment = block.lines().find_map(|line| line.strip_prefix(": "));
                    if let Some(comment) = comment {
                        return Some(comment.to_owned());
                    }
                } else if !self.chunk().await {
                    return None;
                }
            }
        })
        .await
        .expect("a comment in time")
    }

    /// The events until the last one.
    ///
    /// # Panics
    /// As [`Events::next`].
    pub async fn rest(&mut self) -> Vec<SseEvent> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }

    /// Reads a chunk; false at the end.
    async fn chunk(&mut self) -> bool {
        let mut size = String::new();
        if self.stream.read_line(&mut size).await.unwrap_or(0) == 0 {
            return false;
        }
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { return false };
        let mut chunk = vec![0; size + 2];
        if size == 0 || self.stream.read_exact(&mut chunk).await.is_err() {
            return false;
        }
        self.text.push_str(std::str::from_utf8(&chunk[..size]).expect("text"));
        true
    }
}

/// An event by its lines; none if it is a comment.
fn event(block: &str) -> Option<SseEvent> {
    let (mut id, mut data) = (None, None);
    for line in block.lines() {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("id", value) => assert_eq!(id.replace(value), None, "one id: {block:?}"),
            ("data", value) => assert_eq!(data.replace(value), None, "one line of data: {block:?}"),
            // It has neither id nor news.
            ("event", "alive") => return None,
            ("" | "retry" | ":" | "event", _) => {}
            (other, _) => panic!("{other:?} in {block:?}"),
        }
    }
    let data = serde_json::from_str(data?).unwrap_or_else(|error| panic!("{error}: {block:?}"));
    Some(SseEvent { id: id.expect("an id").to_owned(), data })
}

fn parse(answer: &[u8]) -> HttpAnswer {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { joined(body) } else { body.to_owned() };
    HttpAnswer { status, head: head.to_owned(), body }
}

fn joined(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        body.push_str(&more[..size]);
        rest = more[size..].trim_start_matches("\r\n");
    }
    body
}
