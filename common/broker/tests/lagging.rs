//! A replica that lags is not believed when it has nothing. Real ones catch up within milliseconds: so here a plain server has a
//! JetStream that is played, of three replicas, where the first that is asked never has what the leader has.

use std::collections::BTreeSet;

use broker::Broker;
use common::control::{ControlEvent, ControlRecord};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Server, agent, envelope, key, message, soon};

/// What the leader of a stream has: one record.
fn record(stream: &str) -> (String, String, Vec<u8>) {
    match stream {
        "MOZART_test_JOURNAL" => {
            let body = serde_json::to_vec(&envelope("a", "m1")).expect("JSON");
            ("mozart.test.journal.a.user.m1.-.request".into(), String::new(), body)
        }
        "MOZART_test_EVENTS" => {
            let headers =
                "Mozart-Incarnation: 1\r\nMozart-Attempt: 1\r\nMozart-Conversation: c\r\n";
            ("mozart.test.events.a.user.m1".into(), headers.into(), b"[]".to_vec())
        }
        "MOZART_test_CONTROL" => {
            let event = ControlEvent::AgentStopped { agent: agent("a") };
            let at = common::Timestamp::from_millis(1);
            let record = ControlRecord { id: None, at, term: None, author: "cli".into(), event };
            let body = serde_json::to_vec(&record).expect("JSON");
            ("mozart.test.control.a".into(), String::new(), body)
        }
        // Without an entry: what is looked for is in the journal.
        "MOZART_test_INDEX" => ("mozart.test.index.h0".into(), String::new(), Vec::new()),
        // It has no messages.
        "MOZART_test_LATER" => ("mozart.test.later".into(), String::new(), Vec::new()),
        other => panic!("nobody should ask for {other}"),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if n <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// A message with a status line, as no client sends it.
fn with_headers(reply: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!("NATS/1.0{headers}\r\n\r\n");
    let (own, all) = (headers.len(), headers.len() + body.len());
    let mut frame = format!("HPUB {reply} {own} {all}\r\n{headers}").into_bytes();
    frame.extend_from_slice(body);
    frame.extend_from_slice(b"\r\n");
    frame
}

fn plain(reply: &str, body: &str) -> Vec<u8> {
    format!("PUB {reply} {}\r\n{body}\r\n", body.len()).into_bytes()
}

/// Plays JetStream until it is dropped.
async fn play(port: u16) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let hello =
        b"CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\nSUB $JS.API.> 1\r\n";
    write.write_all(hello).await.expect("written");
    let mut asked = BTreeSet::new();
    let mut line = String::new();
    loop {
        line.clear();
        if read.read_line(&mut line).await.expect("readable") == 0 {
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["MSG", subject, _, reply, length] = words[..] else {
            if line.starts_with("PING") {
                write.write_all(b"PONG\r\n").await.expect("written");
            }
            continue;
        };
        let mut body = vec![0; length.parse::<usize>().expect("a length") + 2];
        read.read_exact(&mut body).await.expect("a body");
        let (what, stream) = subject["$JS.API.".len()..].rsplit_once('.').expect("a stream");
        let answers = match what {
            "STREAM.INFO" => {
                let metadata = json!({ "mozart-format": "2", "mozart-shards": "1" });
                let config = json!({ "num_replicas": 3, "metadata": metadata });
                let subjects = json!({ record(stream).0: 1 });
                let state = json!({ "first_seq": 1, "last_seq": 1, "subjects": subjects });
                let info = json!({ "config": config, "state": state, "total": 1 });
                vec![plain(reply, &info.to_string())]
            }
            "STREAM.MSG.GET" => {
                let (subject, _, body) = record(stream);
                let time = "2026-01-01T00:00:00Z";
                let message =
                    json!({ "subject": subject, "seq": 1, "data": base64(&body), "time": time });
                vec![plain(reply, &json!({ "message": message }).to_string())]
            }
            // The first replica has nothing.
            "DIRECT.GET" if asked.insert(stream.to_owned()) => {
                vec![with_headers(reply, " 404 Message Not Found", b"")]
            }
            "DIRECT.GET" => {
                let (subject, headers, body) = record(stream);
                let headers = format!(
                    "\r\nNats-Stream: {stream}\r\nNats-Subject: {subject}\r\nNats-Sequence: 1\r\n\
                     Nats-Time-Stamp: 2026-01-01T00:00:00Z\r\nNats-Num-Pending: 0\r\n\
                     Nats-Last-Sequence: 0\r\n{headers}"
                );
                let end = " 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 1";
                vec![with_headers(reply, headers.trim_end(), &body), with_headers(reply, end, b"")]
            }
            other => panic!("not played: {other}"),
        };
        for answer in answers {
            write.write_all(&answer).await.expect("written");
        }
    }
}

async fn connect(server: &Server) -> (Broker, JoinSet<()>) {
    let mut jetstream = JoinSet::new();
    jetstream.spawn(play(server.port()));
    let connected = soon(async {
        loop {
            match Broker::connect(&server.options()).await {
                Ok(broker) => return broker,
                // Not played yet.
                Err(error) => assert!(error.to_string().contains("JetStream"), "{error}"),
            }
        }
    });
    (connected.await, jetstream)
}

#[tokio::test]
async fn what_a_replica_lacks_and_the_leader_has_is_waited_for() {
    let server = Server::start_plain().await;
    let (broker, _jetstream) = connect(&server).await;
    assert_eq!(broker.replicas(), 3);
    let (a, m1) = (agent("a"), key("a", "m1"));
    let seq = broker.look_back(&a, 1, |seq, _, _| Some(seq)).await.expect("an answer");
    assert_eq!(seq, Some(1));
    assert_eq!(broker.events(&m1).await.expect("an answer").len(), 1);
    assert_eq!(broker.find(&message("m1")).await.expect("an answer").len(), 1);
}

#[tokio::test]
async fn a_floor_is_not_found_where_the_journal_has_not_come_yet() {
    let server = Server::start_plain().await;
    let (broker, _jetstream) = connect(&server).await;
    let open = broker.open_requests(&agent("a"), 1, 1).await.expect("an answer");
    assert_eq!((open.total, open.last_seq), (1, 1));
}
