//! The commands of docs/subjects.md, run as they are written there.

use std::path::Path;

use serde_json::{Value, json};
use system_tests::harness::{Fleet, StockClients};

use crate::http::fleet;

/// What the commands of a section of the document have said, in order; those that listen come last.
async fn said(
    fleet: &Fleet,
    programs: &StockClients,
    section: &str,
) -> Vec<(Vec<String>, Vec<Value>)> {
    let note = fleet.note().expect("`mozart up` runs");
    let url = note["url"].as_str().expect("it has an address");
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/subjects.md");
    let document = document.to_str().expect("UTF-8");
    let shards = fleet.broker().await.subjects().shards().to_string();
    let ran = programs.start("subjects_check.py", &[url, document, section, &shards]);
    let lines = ran.output().await.ok().json_lines();
    let read = |line: Value| {
        let words = serde_json::from_value(line["command"].clone()).expect("words");
        let said = line["said"].as_array().expect("a list").iter();
        let parsed = |message: &Value| {
            serde_json::from_str(message["data"].as_str().expect("a text")).expect("JSON")
        };
        (words, said.map(parsed).collect())
    };
    lines.into_iter().map(read).collect()
}

#[tokio::test]
async fn the_commands_of_the_document_work_as_they_are_written() {
    let Some(programs) = StockClients::find() else { return };
    let (fleet, _http) = fleet(&[("echo", "MODEL test/model\nSOUL You repeat.")]).await;

    // The version that the document is of.
    let head = said(&fleet, &programs, "Prompt an agent").await;
    let ack = json!({"type": "status", "data": "ack"});
    let hello = json!({"type": "response", "data": "hello"});
    assert_eq!(head.len(), 5, "{head:?}");
    assert_eq!(head[0].1, [ack.clone(), hello.clone()]);
    assert_eq!(head[1].1, [ack, hello]);
    assert_eq!(head[2].1[0]["mozart"]["state"], "running");
    assert_eq!(head[3].1[0]["metadata"]["session"], "echo");
    assert_eq!(head[4].1[0]["session"], "echo", "a heartbeat");
    let listed = fleet.json(["journal", "ls", "--agent", "echo"]).await;
    assert_eq!(listed[1]["conversationId"], "talk", "{listed}");

    let sent = said(&fleet, &programs, "Send a message").await;
    assert_eq!(sent.len(), 4, "{sent:?}");
    assert!(sent[0].1[0]["seq"].is_u64() && sent[0].1[0]["error"].is_null(), "{sent:?}");
    for end in [&sent[1].1[0], &sent[3].1[0]] {
        assert_eq!((&end["status"], &end["response"]), (&"completed".into(), &"hello".into()));
    }
    assert!(sent[2].1[0]["type"].is_string() && sent[2].1[0]["author"].is_string(), "{sent:?}");
    let shown = fleet.json(["journal", "show", "echo/user/m-1"]).await;
    assert_eq!((&shown["status"], &shown["response"]), (&"completed".into(), &"hello".into()));
    // It is the message that the command line would have sent.
    let again = fleet.cli(["send", "echo", "hello", "--id", "m-1", "--wait"]).await.ok();
    assert_eq!(again.stdout, "hello\n");
}

#[tokio::test]
async fn the_commands_that_ask_supervisors_and_cancel_work_as_they_are_written() {
    let Some(programs) = StockClients::find() else { return };
    let fleet = Fleet::with(&[("echo", "MODEL test/model\nSOUL You repeat.")]).await;
    let told = said(&fleet, &programs, "Ask the supervisors").await;
    assert_eq!(told[0].1[0]["result"], "psPage");
    assert_eq!(told[0].1[0]["value"]["rows"][0]["agent"], "echo", "{told:?}");
    assert_eq!(told[1].1[0]["value"]["config"]["name"], "echo", "{told:?}");

    // Nobody is at it.
    let _stopped = fleet.cli(["stop", "echo"]).await.ok();
    let _row = fleet.wait_state("echo", "stopped").await;
    let _sent = fleet.cli(["send", "echo", "hello", "--id", "m-2"]).await.ok();
    let told = said(&fleet, &programs, "Cancel a message").await;
    assert!(told[0].1[0]["seq"].is_u64() && told[0].1[0]["error"].is_null(), "{told:?}");
    assert_eq!(told[1].1[0]["result"], "done", "{told:?}");
    let shown = fleet.json(["journal", "show", "echo/user/m-2"]).await;
    assert_eq!(shown["status"], "cancelled", "{shown}");
    // Once: the request is not the last record of the message any more.
    let again = said(&fleet, &programs, "Cancel a message").await;
    assert_eq!(again[0].1[0]["error"]["err_code"], 10071, "{again:?}");
}

#[tokio::test]
async fn the_document_is_of_the_format_of_the_streams() {
    let Some(programs) = StockClients::find() else { return };
    let fleet = Fleet::with(&[("echo", "MODEL test/model\nSOUL You repeat.")]).await;
    let head = said(&fleet, &programs, "").await;
    let metadata = &head[0].1[0]["config"]["metadata"];
    assert_eq!(metadata["mozart-format"], "2", "docs/subjects.md says which version it is of");
}
