//! What one worker may say and ask: nothing of it takes others' room.

use std::time::Duration;

use common::control::{ControlEvent, ControlRecord};
use common::log::LogLine;
use common::{AgentName, Timestamp};
use serde_json::Value;

use crate::support::{INCARNATION, Server, Shim, agent, until};

/// How many bytes a stream holds.
async fn bytes(shim: &Shim, stream: &str) -> u64 {
    let info = format!("$JS.API.STREAM.INFO.MOZART_test_{stream}");
    let info = shim.broker.ask(info, "".into(), Duration::from_secs(10)).await.expect("an answer");
    let info: Value = serde_json::from_slice(&info).expect("JSON");
    info["state"]["bytes"].as_u64().expect("a number")
}

fn other() -> AgentName {
    AgentName::new("nobody").expect("valid")
}

#[tokio::test]
async fn a_worker_that_floods_its_log_pushes_out_its_own_and_no_others() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    let line = LogLine {
        at: Timestamp::from_millis(1),
        stream: "stderr".into(),
        text: "theirs".into(),
        message_id: None,
        incarnation: 1,
    };
    shim.broker.publish_logs(&other(), 1, &[line]).await.expect("stored");
    shim.send("m", "c", "log 32").await;
    shim.answer("m").await;
    shim.send("last", "c", "log 1").await;
    shim.answer("last").await;
    until(async || {
        let lines = shim.broker.logs(&agent(), Some(INCARNATION), 1).await.expect("an answer");
        lines.last().is_some_and(|line| line.text.starts_with("63 ")).then_some(())
    })
    .await;
    let stored = bytes(&shim, "LOGS").await;
    assert!((6 << 20..12 << 20).contains(&stored), "{stored}");
    let theirs = shim.broker.logs(&other(), None, 9).await.expect("an answer");
    assert_eq!(theirs.len(), 1);
    assert!(shim.peak_kib() < 32 * 1024, "{} KiB", shim.peak_kib());
    assert_eq!(shim.heartbeat().await.refused, 0);
}

#[tokio::test]
async fn questions_to_an_agent_that_does_not_run_are_refused_once_many_are_open() {
    let server = Server::start().await;
    let shim = Shim::start(&server).await;
    // It exists, and answers nobody.
    let event = ControlEvent::AgentStopped { agent: other() };
    let at = Timestamp::from_millis(1);
    let record = ControlRecord { id: None, at, term: None, author: "cli".into(), event };
    shim.broker.append_control(&record).await.expect("stored");
    let before = bytes(&shim, "JOURNAL").await;
    for message in ["m1", "m2", "m3"] {
        shim.send(message, "c", "ask 400 100").await;
        shim.answer(message).await;
    }
    // Each turn is over and waits for none of its answers: they count all the same.
    let open = shim.broker.open_requests(&other(), 1, 1).await.expect("an answer");
    assert!(open.total <= 256, "{}", open.total);
    let grown = bytes(&shim, "JOURNAL").await - before;
    assert!(grown < 1 << 20, "{grown}");
    until(async || {
        let lines = shim.broker.logs(&agent(), None, 2000).await.expect("an answer");
        lines.into_iter().find(|line| line.text.contains("questions of `me` have no answer yet"))
    })
    .await;
}
