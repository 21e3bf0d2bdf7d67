//! The journal and what is given out again.

use std::time::Duration;

use common::event::EventBody;
use serde_json::{Value, json};
use system_tests::harness::{Fleet, Runtime, Signal, always, eventually, flaky, kill};

async fn journal(fleet: &Fleet, agent: &str) -> Vec<Value> {
    let all = fleet.json(["journal", "ls", "--agent", agent]).await;
    all.as_array().expect("a list").clone()
}

/// Row 7.
pub(super) async fn stream_chat_records_a_journal_entry(runtime: Runtime) {
    let fleet = runtime.fleet(&[("agent-j1", &runtime.seed(""))]).await;
    let args = ["chat", "agent-j1", "hello", "--conversation", "conv-1", "-o", "json"];
    let lines = fleet.cli(args).await.ok().json_lines();
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap_or("")).collect();
    assert_eq!(kinds, ["text", "done"], "{lines:?}");
    assert_eq!(lines[0]["text"], "hi");
    assert_eq!(lines[1]["status"], "completed");

    let entries = journal(&fleet, "agent-j1").await;
    let [entry] = entries.as_slice() else { panic!("one entry for a chat: {entries:?}") };
    assert_eq!(entry["messageId"], lines[1]["messageId"]);
    let said =
        ["agent", "sender", "conversationId", "kind", "message", "status", "attempts", "response"];
    let said = said.map(|field| entry[field].clone());
    let expected = json!(["agent-j1", "user", "conv-1", "chat", "hello", "completed", 1, "hi"]);
    assert_eq!(Value::from(said.to_vec()), expected);
    let chats = fleet.seen_of("agent-j1", "chat");
    assert_eq!(chats.len(), 1);
    let expected = json!({
        "incarnation": 1, "type": "chat", "messageId": entry["messageId"], "fromId": "user",
        "message": "hello", "conversationId": "conv-1", "turn": 0,
    });
    assert_eq!(chats[0], expected);

    // One that is not answered yet has its entry as well, and is not completed.
    let held = fleet.send("agent-j1", "hold").await;
    assert_eq!(fleet.wait_status(&held, "acknowledged").await.row.response, None);
    assert_eq!(journal(&fleet, "agent-j1").await.len(), 2);
}

/// Row 8.
pub(super) async fn pending_messages_are_replayed_on_container_restart(runtime: Runtime) {
    let soul = runtime.seed("ATTEMPTS 10\nRESTART always backoff=200ms\nTIMEOUT drain=1s");
    let mut fleet = runtime.fleet(&[("agent-j2", &soul)]).await;
    let conversation = ["--conversation", "conv-2"];
    let first = fleet.send_with("agent-j2", "hold", &conversation).await;
    let second = fleet.send_with("agent-j2", "replayed", &conversation).await;
    let mut deliveries = 1;
    let _has_it = fleet.wait_seen("agent-j2", "chat", deliveries).await;

    // The worker's death, the shim's.
    kill(fleet.worker("agent-j2"), Signal::USR1);
    deliveries += 1;
    let _again = fleet.wait_seen("agent-j2", "chat", deliveries).await;
    kill(fleet.shim("agent-j2"), Signal::KILL);
    deliveries += 1;
    let _again = fleet.wait_seen("agent-j2", "chat", deliveries).await;
    // The supervisor's, and the shim's while none is there.
    fleet.kill_up().await;
    kill(fleet.shim("agent-j2"), Signal::KILL);
    eventually("nothing of the agent runs", async || {
        let left = fleet.processes_of("agent-j2");
        // Its worker reads from a pipe that nobody writes to any more.
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    fleet.up(&[]).await;
    deliveries += 1;
    let _again = fleet.wait_seen("agent-j2", "chat", deliveries).await;
    // The host's: all at once.
    let up = fleet.take_up();
    for process in fleet.processes() {
        kill(process.pid, Signal::KILL);
    }
    assert_eq!(up.output().await.code, -1);
    eventually("nothing runs", async || {
        let left = fleet.processes();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    fleet.up(&[]).await;
    deliveries += 1;
    let seen = fleet.wait_seen("agent-j2", "chat", deliveries).await;

    let incarnations: Vec<_> = seen.iter().map(|line| line["incarnation"].clone()).collect();
    assert_eq!(incarnations, [1, 2, 3, 4, 5].map(Value::from), "each has it once");
    for line in &seen {
        assert_eq!(line["messageId"], *first);
        assert_eq!(line["message"], "hold");
        assert_eq!(line["conversationId"], "conv-2");
    }
    // What was behind it in its conversation was never given out, so no attempt is charged; now it has its turn.
    assert_eq!(fleet.show(&second).await.row.attempts, 0);
    kill(fleet.worker("agent-j2"), Signal::HUP);
    assert_eq!(fleet.wait_status(&first, "completed").await.row.attempts, 5);
    let row = fleet.wait_status(&second, "completed").await.row;
    assert_eq!((row.attempts, row.message.as_str()), (1, "replayed"));
    let last = fleet.seen_of("agent-j2", "chat");
    assert_eq!(last[deliveries]["messageId"], *second);
    assert_eq!(last[deliveries]["message"], "replayed");
}

/// Row 9.
pub(super) async fn ack_message_marks_journal_entry_as_acknowledged(runtime: Runtime) {
    let fleet = runtime.fleet(&[("agent-j3", &runtime.seed("CONCURRENCY 2"))]).await;
    let silent = fleet.send("agent-j3", "silent").await;
    let held = fleet.send("agent-j3", "hold").await;
    let detail = fleet.wait_status(&held, "acknowledged").await;
    assert_eq!(detail.row.attempts, 1);
    let bodies: Vec<_> = detail.history.iter().map(|event| &event.body).collect();
    assert_eq!(bodies, [&EventBody::Delivered { incarnation: 1 }, &EventBody::Acknowledged]);
    // Without its worker's word, a message is delivered and no more.
    assert_eq!(fleet.wait_status(&silent, "delivered").await.row.attempts, 1);
}

/// Row 10.
pub(super) async fn failed_messages_are_not_replayed_after_max_attempts(runtime: Runtime) {
    let soul = flaky("RESTART always backoff=50ms..100ms");
    let seed_soul = runtime.seed("RESTART always backoff=50ms..100ms");
    let fleet = runtime.fleet(&[("agent-j4", &seed_soul), ("poisoned", &soul)]).await;
    let exhausted = fleet.send("agent-j4", "hold").await;
    for attempt in 1..=3 {
        let _has_it = fleet.wait_seen("agent-j4", "chat", attempt).await;
        kill(fleet.worker("agent-j4"), Signal::USR1);
    }
    let row = fleet.wait_status(&exhausted, "failed").await.row;
    assert_eq!(row.attempts, 3, "the default");
    assert!(row.reason.as_deref().unwrap_or("").contains("exit code 1"), "{row:?}");
    let _runs = fleet.wait_incarnation("agent-j4", 4).await;
    always(Duration::from_secs(1), "it is not sent again", async || {
        let seen = fleet.seen_of("agent-j4", "chat");
        if seen.len() == 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert_eq!(fleet.ask("agent-j4", "hello").await, "hi");
    assert_eq!(fleet.show(&exhausted).await.row.status.as_str(), "failed");

    // A message that kills its worker itself comes to the same end.
    let poison = fleet.send("poisoned", "crash").await;
    assert_eq!(fleet.wait_status(&poison, "failed").await.row.attempts, 3);
    assert_eq!(fleet.ask("poisoned", "say well").await, "well");
    assert_eq!(fleet.row("poisoned").await["incarnation"], 4);
}

/// Row 11.
pub(super) async fn route_done_resolves_via_journal(runtime: Runtime) {
    let fleet =
        runtime.fleet(&[("agent-src", &runtime.seed("")), ("agent-tgt", &runtime.seed(""))]).await;
    let asked = fleet.send("agent-src", "ask agent-tgt hello target").await;
    let routes = fleet.wait_seen("agent-tgt", "route", 1).await;
    let id = routes[0]["messageId"].as_str().expect("it has an id").to_owned();
    let expected = json!({
        "incarnation": 1, "type": "route", "messageId": id, "requestId": id,
        "fromId": "agent-src", "message": "hello target",
    });
    assert_eq!(routes, [expected]);

    let route = fleet.wait_status(&id, "completed").await.row;
    assert_eq!((route.agent.as_str(), route.sender.as_str()), ("agent-tgt", "agent-src"));
    assert_eq!(route.response.as_deref(), Some("hi source"));
    assert_eq!(route.cause.map(|cause| cause.message_id.to_string()), Some(asked.clone()));

    let responses = fleet.wait_seen("agent-src", "route_response", 1).await;
    let expected = json!({
        "incarnation": 1, "type": "route_response", "requestId": "src-req-1", "response": "hi source",
    });
    assert_eq!(responses, [expected]);
    let row = fleet.wait_status(&asked, "completed").await.row;
    assert_eq!(row.response.as_deref(), Some("hi source"));
}
