//! The API over HTTP: what is sent, read and followed there, and what is refused.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::harness::{Child, Fleet, Http, Signal, SseEvent, eventually, flaky};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::roles::free_port;

/// A fleet with an API whose agents run.
pub(crate) async fn fleet(souls: &[(&str, &str)]) -> (Fleet, Http) {
    let mut fleet = Fleet::new(souls);
    fleet.up(&["--api", "127.0.0.1:0"]).await;
    for (agent, _) in souls {
        let _row = fleet.wait_state(agent, "running").await;
    }
    let http = fleet.http();
    (fleet, http)
}

/// Another process that serves the API of a fleet.
pub(crate) async fn another(fleet: &Fleet) -> (Child, Http) {
    another_with(fleet, &[]).await
}

/// The same, with more options.
pub(crate) async fn another_with(fleet: &Fleet, more: &[&str]) -> (Child, Http) {
    started(fleet, &format!("127.0.0.1:{}", free_port()), more).await
}

/// The same at an address.
pub(crate) async fn serve(fleet: &Fleet, address: &str) -> (Child, Http) {
    started(fleet, address, &[]).await
}

async fn started(fleet: &Fleet, address: &str, more: &[&str]) -> (Child, Http) {
    let api = fleet.spawn_cli([&["api", "--listen", address], more].concat());
    let http = Http { address: address.to_owned(), token: fleet.http().token };
    eventually("the API serves", async || match TcpStream::connect(&http.address).await {
        Ok(_) if http.get("/api/v1/health").await.status == 204 => Ok(()),
        Ok(_) => Err("it does not reach the broker yet".to_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    (api, http)
}

/// What `count` answers.
pub(crate) fn counted(to: u32) -> String {
    (1..=to).fold(String::new(), |mut text, number| {
        write!(text, "{number} ").expect("a string takes all");
        text
    })
}

pub(crate) fn text(events: &[SseEvent]) -> String {
    events.iter().filter_map(|event| event.data["text"].as_str()).collect()
}

#[tokio::test]
async fn messages_are_sent_answered_streamed_and_listed() {
    let (fleet, http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    // What the command line prints, and what it prints of the same.
    assert_eq!(http.get("/api/v1/agents").await.is(200).json(), fleet.json(["ps", "-a"]).await);
    let whole = http.get("/api/v1/agents/a").await.is(200).json();
    assert_eq!(whole["config"], fleet.json(["inspect", "a"]).await["config"]);
    let page = http.get("/api/v1/agents?limit=1").await.is(200);
    assert_eq!(page.json().as_array().map(Vec::len), Some(1));
    assert_eq!(page.header("link"), Some("</api/v1/agents?limit=1&after=a>; rel=\"next\""));
    assert_eq!(http.get("/api/v1/agents?limit=1&after=a").await.is(200).json()[0]["agent"], "b");

    let sent = http
        .post("/api/v1/messages?wait=30s", json!({"agent": "a", "message": "say hi"}))
        .await
        .is(201);
    let answer = sent.json();
    assert_eq!((&answer["status"], &answer["response"]), (&"completed".into(), &"hi".into()));
    let id = answer["messageId"].as_str().expect("an id");
    let shown = fleet.json(["journal", "show", id]).await;
    assert_eq!(http.get(&format!("/api/v1/messages/{id}")).await.is(200).json(), shown);
    assert_eq!(http.get(sent.header("location").expect("a place")).await.is(200).json(), shown);
    let listed = http.get("/api/v1/messages?agent=a&status=completed").await.is(200).json();
    assert_eq!(
        listed,
        fleet.json(["journal", "ls", "--agent", "a", "--status", "completed"]).await
    );
    let why = http.get(&format!("/api/v1/messages/{id}/explanation")).await.is(200).json();
    assert_eq!(why["subject"], id);

    // Streamed from the request on.
    let message = json!({"agent": "a", "message": "count 5"});
    let mut stream = http.events("POST", "/api/v1/messages", &[], &message).await;
    assert!(stream.head.starts_with("HTTP/1.1 201"), "{}", stream.head);
    let events = stream.rest().await;
    assert_eq!(text(&events), counted(5));
    let last = events.last().expect("events");
    assert_eq!((&last.data["type"], &last.data["response"]), (&"done".into(), &counted(5).into()));
    // And again, line by line what the command line prints.
    let id = last.data["messageId"].as_str().expect("an id");
    let path = format!("/api/v1/messages/{id}/events");
    let again = http.events("GET", &path, &[], &Value::Null).await.rest().await;
    let attached = fleet.cli(["attach", id, "-o", "json"]).await.ok().json_lines();
    assert_eq!(again.iter().map(|event| event.data.clone()).collect::<Vec<_>>(), attached);
    // Whoever knows the end is told not to come again.
    let headers = [("last-event-id", last.id.as_str()), ("accept", "text/event-stream")];
    let over = http.ask("GET", &path, &headers, &Value::Null).await;
    assert_eq!((over.status, over.body.as_str()), (204, ""));

    // One that takes too long is stored nevertheless, and is cancelled.
    let late = http
        .post("/api/v1/messages?wait=200ms", json!({"agent": "a", "message": "sleep 60"}))
        .await
        .is(202)
        .json();
    let cancel = format!("/api/v1/messages/{}/cancel", late["messageId"].as_str().expect("an id"));
    assert_eq!(http.post(&cancel, Value::Null).await.is(200).json()["status"], "cancelled");
    let _twice = http.post(&cancel, Value::Null).await.problem(409);

    // Lifecycle, with the token as the author.
    let _stopped = http.post("/api/v1/agents/b/stop", Value::Null).await.is(200);
    let _row = fleet.wait_state("b", "stopped").await;
    let records = http.get("/api/v1/events?agent=b&limit=5").await.is(200).json();
    let stop = records.as_array().into_iter().flatten().find(|one| one["type"] == "agentStopped");
    let author = stop.expect("it is on record")["author"].as_str().expect("a name").to_owned();
    assert!(author.starts_with("up-"), "{author}");
    let applied = http
        .post(
            "/api/v1/agents",
            json!({"souls": [{"name": "c", "text": "MODEL m\nSOUL You repeat."}]}),
        )
        .await
        .is(200)
        .json();
    assert_eq!((&applied[0]["agent"], &applied[0]["created"]), (&"c".into(), &true.into()));
    let _row = fleet.wait_state("c", "running").await;
    let bad = http
        .post("/api/v1/agents", json!({"souls": [{"name": "d", "text": "MODLE m"}]}))
        .await
        .problem(400);
    assert!(bad.json()["cause"].as_str().expect("text").contains("MODEL"), "{bad:?}");

    // A dead letter, and its way back.
    let failed = http
        .post("/api/v1/messages?wait=30s", json!({"agent": "a", "message": "fail no"}))
        .await
        .is(201)
        .json();
    assert_eq!((&failed["status"], &failed["reason"]), (&"failed".into(), &"no".into()));
    let letter = format!("/api/v1/dead/{}", failed["messageId"].as_str().expect("an id"));
    assert_eq!(http.get(&letter).await.is(200).json()["messageId"], failed["messageId"]);
    assert_eq!(http.get("/api/v1/dead").await.is(200).json(), fleet.json(["dead", "ls"]).await);
    let again = http.post(&format!("{letter}/redrive"), Value::Null).await.is(201).json();
    assert_eq!(again["redriveOf"], failed["messageId"]);
    let _before = http.post(&format!("{letter}/redrive"), Value::Null).await.problem(409);
    assert_eq!(http.ask("DELETE", &letter, &[], &Value::Null).await.status, 204);
    let _gone = http.get(&letter).await.problem(404);

    // The document names what there is.
    let document = http.get("/api/v1/openapi.json").await.is(200).json();
    for path in document["paths"].as_object().expect("paths").keys() {
        let there = http.ask("OPTIONS", path, &[], &Value::Null).await;
        assert_eq!(there.status, 405, "{path}: it is there, and takes no such method");
    }
    assert_eq!(http.get("/api/v1/nodes").await.is(200).json(), fleet.json(["node", "ls"]).await);
    assert!(http.get("/api/v1/fleet").await.is(200).json()["leader"].is_string());
}

#[tokio::test]
async fn a_stream_goes_on_at_another_process_with_every_event_once() {
    let (fleet, own) = fleet(&[("a", &flaky(""))]).await;
    let (first, at_first) = another(&fleet).await;
    let message = json!({"agent": "a", "message": "count 60 0.05"});
    let mut stream = at_first.events("POST", "/api/v1/messages", &[], &message).await;
    let mut events = Vec::new();
    while events.len() < 12 {
        events.push(stream.next().await.expect("it goes on"));
    }
    let id = events[0].data["messageId"].as_str().expect("an id").to_owned();
    first.signal(Signal::KILL);
    // What was on its way has come; the stream breaks off, and does not end as if it were whole.
    events.extend(stream.rest().await);
    let _killed = first.output().await;
    assert!(events.iter().all(|event| event.data["type"] != "done"), "{events:?}");
    let path = format!("/api/v1/messages/{id}/events");
    let (_second, at_second) = another(&fleet).await;
    // Cut again and again, at one process and at the other.
    for round in 0.. {
        let last = events.last().expect("some").id.clone();
        let http = if round % 2 == 0 { &at_second } else { &own };
        let mut stream = http.events("GET", &path, &[("last-event-id", &last)], &Value::Null).await;
        for _some in 0..7 {
            events.extend(stream.next().await);
        }
        if events.last().is_some_and(|event| event.data["type"] == "done") {
            break;
        }
        assert!(round < 100, "{events:?}");
    }
    assert_eq!(text(&events), counted(60), "every event once");
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let mut once = ids.clone();
    once.dedup();
    assert_eq!(ids, once);
    // By parameter, too.
    let from = format!("{path}?from={}", ids[20]);
    let rest = own.events("GET", &from, &[], &Value::Null).await.rest().await;
    assert_eq!(rest, events[21..]);
}

#[tokio::test]
async fn the_same_key_is_the_same_message() {
    let (fleet, http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let send = async |key: &str, agent: &str, text: &str, wait: &str| {
        let body = json!({"agent": agent, "message": text});
        http.ask("POST", &format!("/api/v1/messages{wait}"), &[("idempotency-key", key)], &body)
            .await
    };
    let first = send("k1", "a", "say x", "").await.is(201).json();
    let id = &first["messageId"];
    for _retry in 0..2 {
        let again = send("k1", "a", "say x", "?wait=30s").await.is(200).json();
        assert_eq!((&again["messageId"], &again["response"]), (id, &"x".into()));
    }
    // At the same time.
    let same = (0..8).map(|_| send("k2", "a", "say y", "?wait=30s"));
    let same = futures_util::future::join_all(same).await;
    let ids: std::collections::BTreeSet<_> =
        same.iter().map(|one| one.json()["messageId"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{same:?}");
    assert!(same.iter().all(|one| one.json()["response"] == "y"), "{same:?}");
    for (agent, text) in [("a", "say z"), ("b", "say x")] {
        let other = send("k1", agent, text, "").await.problem(409).json();
        assert!(
            other["what"].as_str().expect("text").contains(id.as_str().expect("an id")),
            "{other}"
        );
    }
    assert_ne!(&send("k3", "a", "say x", "").await.is(201).json()["messageId"], id);
    let listed = fleet.json(["journal", "ls", "--agent", "a"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    for bad in ["", "\u{e4}", &"k".repeat(256)] {
        let _refused = send(bad, "a", "say x", "").await.problem(400);
    }
}

#[tokio::test]
async fn bad_requests_are_refused_one_by_one() {
    let (_fleet, http) = fleet(&[("a", &flaky(""))]).await;
    let message = json!({"agent": "a", "message": "say x"});
    let nothing = &Value::Null;
    // Names and pages of others.
    for host in ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example"] {
        let _refused =
            http.ask("GET", "/api/v1/agents", &[("host", host)], nothing).await.problem(421);
    }
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let asked = http
            .ask("POST", "/api/v1/messages", &[("origin", origin)], &message)
            .await
            .problem(403);
        assert_eq!(asked.header("access-control-allow-origin"), None);
    }
    let own = format!("http://{}", http.address);
    let asked = http.ask("GET", "/api/v1/agents", &[("origin", &own)], nothing).await.is(200);
    assert_eq!(asked.header("x-content-type-options"), Some("nosniff"));
    assert!(
        asked
            .header("content-security-policy")
            .is_some_and(|policy| policy.contains("default-src 'none'"))
    );

    // What is no request.
    let _kind = http
        .ask("POST", "/api/v1/messages", &[("content-type", "text/plain")], &message)
        .await
        .problem(415);
    for body in [
        json!({}),
        json!([]),
        json!({"agent": "a"}),
        json!({"agent": "A b", "message": "x"}),
        json!({"agent": "a", "message": "x", "more": 1}),
        json!({"agent": "a", "message": 3}),
        json!({"agent": "a", "message": "x", "deadline": "soon"}),
    ] {
        let _refused = http.post("/api/v1/messages", body).await.problem(400);
    }
    let _unknown =
        http.post("/api/v1/messages", json!({"agent": "zz", "message": "x"})).await.problem(404);
    let _large = http
        .post("/api/v1/messages", json!({"agent": "a", "message": "x".repeat(1_100_000)}))
        .await
        .problem(413);
    for path in [
        "/api/v1/messages?limit=x",
        "/api/v1/messages?nonsense=1",
        "/api/v1/messages?status=odd",
        "/api/v1/messages?conversation=c",
        "/api/v1/messages?before=%00",
        "/api/v1/agents/A",
        "/api/v1/agents/%2e%2e",
        "/api/v1/agents/a%00",
        "/api/v1/messages/a%20b",
        "/api/v1/messages/x/events?from=y",
    ] {
        let _refused = http.get(path).await.problem(400);
    }
    for path in [
        "/api/v1",
        "/api/v1/agents/",
        "/api/v1/../v1/agents",
        "//api/v1/agents",
        "/api/v1/agents/a/../../../etc/passwd",
        "/api/v1/%61gents%2f",
        "/metrics",
        "/api/v2/agents",
        "/api/v1/messages/none-such",
    ] {
        let _nowhere = http.get(path).await.problem(404);
    }
    let _method = http.ask("PUT", "/api/v1/agents", &[], nothing).await.problem(405);

    // Too much.
    let head = |length: &str| {
        format!(
            "POST /api/v1/messages HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{length}\r\n\r\n",
            http.address,
            http.token.as_deref().expect("a token")
        )
    };
    let began = Instant::now();
    let _announced = http.raw(head("content-length: 1073741824").as_bytes()).await.problem(413);
    assert!(began.elapsed() < Duration::from_secs(5), "it is not waited for");
    let mut chunked = head("transfer-encoding: chunked").into_bytes();
    for _megabyte in 0..12 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.resize(chunked.len() + (1 << 20), b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    let mut stream = TcpStream::connect(&http.address).await.expect("it listens");
    let (mut reading, mut writing) = stream.split();
    let mut answer = vec![0; 4_096];
    let (_, read) = tokio::join!(writing.write_all(&chunked), reading.read(&mut answer));
    let answer = String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let many =
        format!("GET / HTTP/1.1\r\nhost: {}\r\n{}\r\n", http.address, "x: y\r\n".repeat(500));
    assert_eq!(http.raw(many.as_bytes()).await.status, 431);

    // Too slow.
    let began = Instant::now();
    let slow = format!("GET /api/v1/agents HTTP/1.1\r\nhost: {}\r\n", http.address);
    let _slow = http.raw(slow.as_bytes()).await.problem(408);
    assert!(began.elapsed() > Duration::from_secs(8) && began.elapsed() < Duration::from_secs(20));

    // A text cannot end its event, whatever is in it.
    let evil = "hi\n\nid: 99999999\ndata: {\"type\":\"done\"}\r\n\r\nevent: x\rretry: 1\n: c";
    let sent = json!({"agent": "a", "message": evil});
    let events = http.events("POST", "/api/v1/messages", &[], &sent).await.rest().await;
    assert_eq!(text(&events), evil);
    let last = events.last().expect("events");
    assert_eq!((&last.data["status"], &last.data["response"]), (&"completed".into(), &evil.into()));
}
