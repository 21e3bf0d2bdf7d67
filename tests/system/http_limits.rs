//! The API over HTTP, at its limits: what one client may ask for, and what it costs the others. And over TLS.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::harness::{Child, Http, Signal, SseEvent, eventually, flaky};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::http::{another_with, counted, fleet, text};
use crate::roles::free_port;

#[tokio::test]
async fn a_token_has_a_rate_and_a_number_of_streams_at_a_process() {
    let (fleet, own) = fleet(&[("a", &flaky(""))]).await;
    let (_slow, slow) = another_with(&fleet, &["--rate", "5"]).await;
    // More than it may in ten seconds.
    let asked = (0..60).map(|_| slow.get("/api/v1/fleet"));
    let asked = futures_util::future::join_all(asked).await;
    let (answered, refused): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|one| one.status == 200);
    assert!(answered.len() >= 10, "twice the rate at once: {}", answered.len());
    let refused = refused.into_iter().next().expect("too many").problem(429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["code"], 9);
    // Another token, and another process, have a rate of their own.
    let created = fleet.cli(["token", "create", "other", "--scope", "read"]).await.ok();
    let _other = slow.with(Some(created.stdout.trim())).get("/api/v1/fleet").await.is(200);
    let _elsewhere = own.get("/api/v1/fleet").await.is(200);

    let (_few, few) = another_with(&fleet, &["--streams", "2"]).await;
    let sent = few.post("/api/v1/messages", json!({"agent": "a", "message": "sleep 60"})).await;
    let path = format!(
        "/api/v1/messages/{}/events",
        sent.is(201).json()["messageId"].as_str().expect("an id")
    );
    let first = few.events("GET", &path, &[], &Value::Null).await;
    let _second = few.events("GET", &path, &[], &Value::Null).await;
    let third =
        async || few.ask("GET", &path, &[("accept", "text/event-stream")], &Value::Null).await;
    let refused = third().await.problem(429);
    assert_eq!(refused.json()["what"], "too many open requests");
    drop(first);
    eventually("a stream that was closed does not count", async || {
        let mut stream = TcpStream::connect(&few.address).await.map_err(|error| error.to_string())?;
        let token = few.token.as_deref().expect("a token");
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\naccept: text/event-stream\r\n\r\n",
            few.address
        );
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.map_err(|error| error.to_string())?;
        let status = String::from_utf8_lossy(&status).into_owned();
        if status.ends_with("200") { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_is_alive_and_a_process_that_stops_cuts_it() {
    let (fleet, _own) = fleet(&[("a", &flaky(""))]).await;
    let (api, http) = another_with(&fleet, &[]).await;
    let message = json!({"agent": "a", "message": "sleep 40"});
    let mut stream = http.events("POST", "/api/v1/messages", &[], &message).await;
    assert_eq!(stream.comment().await.as_deref(), Some("mozart"));
    assert_eq!(stream.comment().await.as_deref(), Some("alive"));
    api.signal(Signal::TERM);
    assert_eq!(stream.next().await, None, "it is cut, and has no end");
    let _ended = api.output().await.exit(0);
}

/// How much memory of its own a process has, in KiB.
fn memory(api: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", api.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Whether the process at the other end has a connection open.
fn is_open(stream: &TcpStream) -> bool {
    let port = |address: std::io::Result<SocketAddr>| {
        format!(":{:04X}", address.expect("it is connected").port())
    };
    let (theirs, ours) = (port(stream.peer_addr()), port(stream.local_addr()));
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Without an inode, it is the system's alone: what was sent is still on its way.
        fields.len() > 9
            && fields[1].ends_with(&theirs)
            && fields[2].ends_with(&ours)
            && fields[9] != "0"
    })
}

#[tokio::test]
async fn a_reader_that_never_reads_costs_little_and_is_cut() {
    const EVENTS: u32 = 80_000;
    let (fleet, _own) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let (api, http) = another_with(&fleet, &[]).await;
    let _warm = http
        .post("/api/v1/messages?wait=30s", json!({"agent": "b", "message": "say x"}))
        .await
        .is(201);
    let flood = http
        .post(
            "/api/v1/messages?wait=60s",
            json!({"agent": "a", "message": format!("flood {EVENTS}")}),
        )
        .await;
    let id = flood.is(201).json()["messageId"].as_str().expect("an id").to_owned();
    // What a reader who reads has read, all of it: so much is to be sent.
    let path = format!("/api/v1/messages/{id}/events");
    let all = http.events("GET", &path, &[], &Value::Null).await.rest().await;
    assert!(all.len() > EVENTS as usize, "{}", all.len());

    let before = memory(&api);
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    let mut stalled =
        socket.connect(http.address.parse().expect("an address")).await.expect("it listens");
    let token = http.token.as_deref().expect("a token");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\naccept: text/event-stream\r\n\r\n",
        http.address
    );
    stalled.write_all(request.as_bytes()).await.expect("it is taken");
    eventually("it is served", async || {
        if is_open(&stalled) { Ok(()) } else { Err("it is not taken yet".to_owned()) }
    })
    .await;
    // Meanwhile everybody else is answered.
    for _chat in 0..20 {
        let sent =
            http.post("/api/v1/messages?wait=30s", json!({"agent": "b", "message": "say y"})).await;
        assert_eq!(sent.is(201).json()["response"], "y");
    }
    let more = memory(&api).saturating_sub(before);
    assert!(more < 32 << 10, "{more} KiB for one that does not read");
    // Cut after 30 seconds without a byte taken.
    let cut = async {
        while is_open(&stalled) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), cut).await.expect("it is cut");
    let mut rest = Vec::new();
    let _reset = stalled.read_to_end(&mut rest).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("\"done\""), "what was cut has no end");
}

#[tokio::test]
async fn an_answer_of_a_thousand_events_cut_a_hundred_times_has_each_once() {
    const EVENTS: u32 = 1000;
    let (fleet, own) = fleet(&[("a", &flaky(""))]).await;
    let (_other, other) = another_with(&fleet, &[]).await;
    let message = json!({"agent": "a", "message": format!("count {EVENTS} 0.005")});
    let sent = own.post("/api/v1/messages", message).await.is(201).json();
    let path = format!("/api/v1/messages/{}/events", sent["messageId"].as_str().expect("an id"));
    let seed = std::process::id();
    let (mut events, mut cuts, mut state) = (Vec::new(), 0, seed);
    loop {
        // A linear congruential generator: the seed is in the message of a failure.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (http, few) =
            if state & (1 << 20) == 0 { (&own, state >> 28) } else { (&other, state >> 28) };
        let last = events.last().map_or(String::new(), |event: &SseEvent| event.id.clone());
        let mut stream = http.events("GET", &path, &[("last-event-id", &last)], &Value::Null).await;
        for _some in 0..=few {
            events.extend(stream.next().await);
        }
        if events.last().is_some_and(|event| event.data["type"] == "done") {
            break;
        }
        cuts += 1;
        assert!(cuts < 1000, "seed {seed}: {} events", events.len());
    }
    assert!(cuts >= 100, "seed {seed}: {cuts} cuts");
    assert_eq!(text(&events), counted(EVENTS), "seed {seed}: every event once");
    assert_eq!(events.len(), EVENTS as usize + 1, "seed {seed}");
}

/// An exchange over TLS: a request, and what came back.
async fn over_tls(http: &Http, ca: &RootCertStore, path: &str) -> std::io::Result<String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(ca.clone())
        .with_no_client_auth();
    let stream = TcpStream::connect(&http.address).await?;
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let token = http.token.as_deref().unwrap_or_default();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n",
        http.address
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn with_certificates_it_speaks_tls_alone_and_without_it_listens_for_this_host_alone() {
    let (fleet, own) = fleet(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let (cert, key) = (cert.to_str().expect("text"), key.to_str().expect("text"));
    let mut ca = RootCertStore::empty();
    ca.add(made.cert.der().clone()).expect("a root");

    let http = Http { address: format!("127.0.0.1:{}", free_port()), token: own.token.clone() };
    let _api =
        fleet.spawn_cli(["api", "--listen", &http.address, "--tls-cert", cert, "--tls-key", key]);
    eventually("it serves over TLS", async || {
        let health =
            over_tls(&http, &ca, "/api/v1/health").await.map_err(|error| error.to_string())?;
        if health.starts_with("HTTP/1.1 204") { Ok(()) } else { Err(health) }
    })
    .await;
    let answer = over_tls(&http, &ca, "/api/v1/fleet").await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"leader\""), "{answer}");
    // Nobody is answered in the clear, and nobody who does not trust the certificate is answered.
    let mut plain = TcpStream::connect(&http.address).await.expect("it listens");
    plain.write_all(b"GET /api/v1/health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    let _reset = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    assert!(over_tls(&http, &RootCertStore::empty(), "/api/v1/health").await.is_err());

    let refused = async |args: &[&str], words: &str| {
        fleet.cli([&["api"], args].concat()).await.exit(2).says(words);
    };
    let port = format!("127.0.0.1:{}", free_port());
    refused(&["--listen", "0.0.0.0:4141"], "tokens would be sent in the clear").await;
    refused(&["--listen", &port, "--tls-cert", cert], "--tls-key").await;
    refused(&["--listen", &port, "--tls-cert", key, "--tls-key", key], "cannot use").await;
    refused(&["--listen", &port, "--tls-cert", "/nowhere", "--tls-key", key], "/nowhere").await;
    refused(&["--listen", &port, "--rate", "0"], "--rate").await;
}
