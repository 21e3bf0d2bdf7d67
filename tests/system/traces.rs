//! Traces: what a receiver of OTLP gets of messages, and what workers are told of them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use system_tests::harness::{Fleet, Until, eventually, flaky};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// A worker that answers with the context that it was told.
const TELLS: &str = r#"
import json, sys
print(json.dumps({"type": "ready"}), flush=True)
for line in sys.stdin:
    line = json.loads(line)
    if line["type"] == "chat":
        print(json.dumps({"type": "chat_done", "messageId": line["messageId"], "response": str(line.get("traceparent"))}), flush=True)
    elif line["type"] == "shutdown":
        break
"#;

/// Takes traces, and keeps their spans.
struct Receiver {
    address: String,
    spans: Arc<Mutex<Vec<Span>>>,
    _serving: JoinSet<()>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let mut serving = JoinSet::new();
        let kept = Arc::clone(&spans);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                connections.spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(body) = request(&mut stream).await {
                        let traces = ExportTraceServiceRequest::decode(&*body).expect("protobuf");
                        let scopes =
                            traces.resource_spans.into_iter().flat_map(|it| it.scope_spans);
                        kept.lock().expect("whole").extend(scopes.flat_map(|scope| scope.spans));
                    }
                });
            }
        });
        Self { address, spans, _serving: serving }
    }

    /// The spans of a message's trace, by name, once all are there.
    async fn of(&self, message: &str, count: usize) -> Vec<Span> {
        eventually(&format!("the trace of {message}"), async || {
            let all = self.spans.lock().expect("whole").clone();
            let root = all.iter().find(|span| attribute(span, "messaging.message.id") == message);
            let Some(root) = root else { return Err(format!("{} others", all.len())) };
            let spans: Vec<Span> =
                all.iter().filter(|span| span.trace_id == root.trace_id).cloned().collect();
            if spans.len() >= count { Ok(spans) } else { Err(format!("{spans:?}")) }
        })
        .await
    }
}

/// Reads a request, and answers it; its body.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    assert!(line.starts_with("POST /v1/traces "), "{line}");
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if lower.starts_with("content-type:") {
            assert!(lower.contains("application/x-protobuf"), "{lower}");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let answer =
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    stream.get_mut().write_all(answer.as_bytes()).await.ok()?;
    Some(body)
}

fn attribute(span: &Span, key: &str) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = span.attributes.iter().find(|one| one.key == key);
    let value = found.and_then(|one| one.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    let mut found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    found.sort_by_key(|span| span.start_time_unix_nano);
    found
}

fn events(span: &Span) -> Vec<&str> {
    span.events.iter().map(|event| event.name.as_str()).collect()
}

fn id(sent: &Value) -> String {
    sent["messageId"].as_str().expect("an id").to_owned()
}

async fn fleet(receiver: &Receiver) -> Fleet {
    let tells = "MODEL test/model\nSOUL You tell.\nWORKER [\"python3\", \"tells.py\"]\n";
    let a = flaky("ATTEMPTS 2 backoff=1ms..1ms");
    let souls = [("a", a.as_str()), ("b", &flaky("")), ("tells", tells)];
    let mut fleet = Fleet::new(&souls).env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.address);
    fs::write(fleet.souls().join("tells.py"), TELLS).expect("written");
    fleet.all_up().await;
    fleet
}

#[tokio::test]
async fn a_message_is_one_trace_with_its_attempts_and_the_questions_of_its_turn() {
    let receiver = Receiver::start().await;
    let fleet = fleet(&receiver).await;

    // A child of whoever sends; the second attempt answers.
    let args = ["send", "a", "tool search; say secret; crash until 2", "--wait"];
    let sent = fleet.json(args.into_iter().chain(["--traceparent", GIVEN])).await;
    assert_eq!(sent["status"], "completed", "{sent}");
    let spans = receiver.of(&id(&sent), 4).await;
    let [root] = &*named(&spans, "message a") else { panic!("{spans:?}") };
    assert_eq!(hex(&root.trace_id), &GIVEN[3..35]);
    assert_eq!(hex(&root.parent_span_id), &GIVEN[36..52]);
    assert_eq!(attribute(root, "mozart.outcome"), "completed");
    assert_eq!(
        (attribute(root, "mozart.attempts"), events(root)),
        ("2".into(), vec!["accepted", "final"])
    );
    let [queued] = &*named(&spans, "queued a") else { panic!("{spans:?}") };
    let turns = named(&spans, "turn a");
    let [first, second] = &*turns else { panic!("{spans:?}") };
    for child in [queued, first, second] {
        assert_eq!(child.parent_span_id, root.span_id, "{child:?}");
        assert!(child.start_time_unix_nano >= root.start_time_unix_nano, "{child:?}");
        assert!(child.end_time_unix_nano <= root.end_time_unix_nano, "{child:?}");
    }
    assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
    assert_eq!(events(second)[0], "delivered");
    assert!(
        events(second).contains(&"tool") && events(second).contains(&"first text"),
        "{second:?}"
    );
    assert!(events(first).contains(&"error"), "{first:?}");
    assert_eq!(attribute(second, "mozart.incarnation"), "2");
    assert!(!format!("{spans:?}").contains("secret"));

    // A question is a child of the turn that asks.
    let sent = fleet.json(["send", "a", "ask b say hello", "--wait"]).await;
    let spans = receiver.of(&id(&sent), 6).await;
    let parents: BTreeMap<&str, &Span> =
        spans.iter().map(|span| (span.name.as_str(), span)).collect();
    assert_eq!(parents["message b"].parent_span_id, parents["turn a"].span_id);
    assert_eq!(parents["turn b"].parent_span_id, parents["message b"].span_id);
    assert_eq!(attribute(parents["message b"], "mozart.kind"), "route");
    assert!(parents["message a"].parent_span_id.is_empty());

    // What fails says why.
    let failed = fleet.cli(["send", "b", "fail no luck", "--id", "fails", "--wait"]).await;
    let _failed = failed.exit(1);
    let spans = receiver.of("fails", 3).await;
    let status = named(&spans, "message b")[0].status.clone().expect("a status");
    assert!(status.message.contains("no luck"), "{status:?}");
}

#[tokio::test]
async fn workers_are_told_of_their_turn_and_senders_decide_what_is_recorded() {
    let receiver = Receiver::start().await;
    let fleet = fleet(&receiver).await;
    let own = fleet.json(["send", "tells", "hi", "--wait"]).await;
    let told = own["response"].as_str().expect("an answer").to_owned();
    let spans = receiver.of(&id(&own), 3).await;
    let turn = named(&spans, "turn tells")[0];
    assert_eq!(told, format!("00-{}-{}-01", hex(&turn.trace_id), hex(&turn.span_id)));

    // By the environment; not recorded, and passed on as such.
    let not = [("TRACEPARENT", NOT_SAMPLED.as_ref())];
    let args = ["-o", "json", "send", "tells", "hi", "--wait"];
    let not = fleet.cli_with(args, &not).await.ok().json();
    let told = not["response"].as_str().expect("an answer");
    assert!(told.starts_with(&NOT_SAMPLED[..36]) && told.ends_with("-00"), "{told}");
    let damaged = [("TRACEPARENT", "garbage".as_ref())];
    let damaged = fleet.cli_with(args, &damaged).await.ok().json();
    let _bad = fleet.cli(["send", "tells", "hi", "--traceparent", "garbage"]).await.exit(2);
    // It came after the other one, and is there.
    let _spans = receiver.of(&id(&damaged), 3).await;
    let all = receiver.spans.lock().expect("whole").clone();
    assert!(all.iter().all(|span| hex(&span.trace_id) != NOT_SAMPLED[3..35]));
}

/// Takes connections, and says nothing.
async fn silent() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    let mut holding = JoinSet::new();
    holding.spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    (address, holding)
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_delays_no_message_and_is_left_behind_at_the_end() {
    let (address, _holding) = silent().await;
    let mut fleet = Fleet::new(&[("a", &flaky(""))]).env("OTEL_EXPORTER_OTLP_ENDPOINT", &address);
    fleet.all_up().await;
    for n in 0..20 {
        assert_eq!(fleet.ask("a", &format!("say {n}")).await, n.to_string());
    }
    let ended: Until<()> = tokio::time::timeout(Duration::from_secs(30), async {
        let _down = fleet.cli(["down"]).await.ok();
        Ok(())
    })
    .await
    .unwrap_or_else(|_| Err("`down` waits for the receiver".to_owned()));
    assert_eq!(ended, Ok(()));
}
