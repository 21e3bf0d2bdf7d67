//! Workers whose output is damaged: what can be taken is, and nobody takes for an answer what is known to be incomplete.

use serde_json::json;
use system_tests::harness::{Fleet, eventually, flaky};

fn raw(more: &str) -> String {
    flaky(&format!("WORKER [\"python3\", \"raw.py\"]\n{more}"))
}

/// A message for `tests/workers/raw.py`.
fn out(text: &str) -> String {
    json!({ "out": text }).to_string()
}

fn event(text: &str) -> String {
    format!(r#"{{"type":"event","messageId":"$ID","event":{{"type":"text","text":"{text}"}}}}"#)
}

const DONE: &str = r#"{"type":"chat_done","messageId":"$ID"}"#;

/// The bytes of a text, each as a character, as the worker is told them.
fn bytes(text: &str) -> String {
    text.bytes().map(char::from).collect()
}

#[tokio::test]
async fn what_can_be_taken_of_damaged_output_is() {
    let fleet = Fleet::with(&[("w", &raw("ENV RAW_START=marked"))]).await;
    let half: String = bytes("\u{1f600}").chars().take(3).collect();
    for (said, answer) in [
        (
            format!("{}\n{}\n{DONE}\n", event(r"Done \ud83d"), event(r"\ude00 all")),
            "Done \u{fffd}\u{fffd} all",
        ),
        (format!("{}\n{DONE}\n", event(&half)), "\u{fffd}"),
        (format!("{}{}{DONE}\n", event("one "), event("two")), "one two"),
        (format!("\u{ef}\u{bb}\u{bf}{}\n{DONE}\n", event("marked")), "marked"),
        (format!("10 %\r50 %\r{}\n{DONE}\n", event("after a bar")), "after a bar"),
        (format!("{}\n{DONE}\n", event("\u{1b}[1mbold")), "\u{1b}[1mbold"),
    ] {
        assert_eq!(fleet.ask("w", &out(&said)).await, answer, "{said}");
    }
    // Nearly as large as an answer may be, each character of two bytes as an escape of six.
    let done = "{\"type\":\"chat_done\",\"messageId\":\"$ID\",\"response\":\"$X\"}\n";
    let told = json!({ "out": done, "fill": [r"\u00e4", 500_000] });
    assert_eq!(fleet.ask("w", &told.to_string()).await, "\u{e4}".repeat(500_000));
    assert_eq!(fleet.row("w").await["incarnation"], 1);
}

#[tokio::test]
async fn an_answer_that_is_known_to_be_incomplete_fails_at_once_and_says_why() {
    let fleet = Fleet::with(&[("w", &raw("ATTEMPTS 1"))]).await;
    let long = "x".repeat(200);
    let large = json!({
        "out": "{\"type\":\"chat_done\",\"messageId\":\"$ID\",\"response\":\"$X\"}\n",
        "fill": ["x", 1_200_000],
    });
    let id = fleet.send("w", &large.to_string()).await;
    let why = fleet.wait_status(&id, "failed").await.row.reason.unwrap_or_default();
    assert!(why.contains("does not fit a record of the journal"), "{why}");
    for (said, reason, quoted) in [
        // A piece that is cut off, and an end that looks well.
        (
            format!(
                "{{\"type\":\"event\",\"messageId\":\"$ID\",\"event\":{{\"type\":\"text\",\"text\":\"{long}\n{{\"type\":\"chat_done\",\"messageId\":\"$ID\",\"response\":\"good\"}}\n"
            ),
            "it is not JSON",
            r#"{"type":"event","messageId":""#,
        ),
        // A pretty-printed object.
        (
            "{\n  \"type\": \"chat_done\",\n  \"messageId\": \"$ID\",\n  \"response\": \"x\"\n}\n"
                .to_owned(),
            "write each object on one line",
            r#""type": "chat_done","#,
        ),
        (
            "{'type': 'chat_done', 'messageId': '$ID', 'response': 'x'}\n".to_owned(),
            "it is not JSON",
            "{'type'",
        ),
        (
            "{\"type\":\"chat_done\",\"messageId\":\"$ID\",\"response\":{\"a\":1}}\n".to_owned(),
            "expected a string",
            r#"{"type":"chat_done""#,
        ),
        (
            "{\"type\":\"event\",\"messageId\":\"$ID\"}\n".to_owned(),
            "without `event`",
            r#"{"type":"event""#,
        ),
    ] {
        let id = fleet.send("w", &out(&said)).await;
        let row = fleet.wait_status(&id, "failed").await.row;
        let why = row.reason.unwrap_or_default();
        assert!(why.contains(reason) && why.contains(quoted), "{why}");
    }
    assert_eq!(fleet.row("w").await["incarnation"], 1, "nobody had to be killed");
}

#[tokio::test]
async fn a_reason_that_quotes_the_worker_hides_its_secrets() {
    let soul = raw("ATTEMPTS 1\nSECRET API_KEY");
    let mut fleet = Fleet::new(&[("w", &soul)]).env("API_KEY", "sk-123456-789");
    fleet.up(&[]).await;
    let said = r#"{"type":"error","messageId":"$ID","error":"no","retryable":"sk-123456-789"}"#;
    let id = fleet.send("w", &out(&format!("{said}\n"))).await;
    let why = fleet.wait_status(&id, "failed").await.row.reason.unwrap_or_default();
    assert!(why.contains("[SECRET API_KEY]") && !why.contains("123456"), "{why}");
}

#[tokio::test]
async fn a_damaged_line_costs_one_attempt() {
    let fleet = Fleet::with(&[("w", &raw("ATTEMPTS 2"))]).await;
    let id = fleet.send("w", &out("{\"type\":\"chat_done\",\"messageId\":\"$ID\",\n")).await;
    let row = fleet.wait_status(&id, "failed").await.row;
    assert_eq!(row.attempts, 2);
}

#[tokio::test]
async fn what_was_refused_before_a_worker_is_ready_is_quoted() {
    let mut fleet = Fleet::new(&[(
        "w",
        &flaky(
            "WORKER [\"python3\", \"raw.py\"]\nTIMEOUT ready=1s drain=500ms\nENV RAW_START=wrong",
        ),
    )]);
    fleet.up(&[]).await;
    eventually("the reason says what the worker said", async || {
        let row = fleet.row("w").await;
        let quoted = r#"not ready within 1s; the last line of its output: {"type":"Ready"}"#;
        let reason = row["reason"].as_str().unwrap_or_default();
        if reason.contains(quoted) { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn the_last_words_of_a_worker_are_in_its_log_and_in_the_dead_letter() {
    let fleet = Fleet::with(&[("w", &raw("ATTEMPTS 1"))]).await;
    let bar: String =
        (0..400).map(|n| format!("\rworking {n} of 400 {}", "#".repeat(60))).collect();
    let told = json!({ "err": format!("{bar}\rout of quota: the last words"), "exit": 3 });
    let id = fleet.send("w", &told.to_string()).await;
    fleet.wait_status(&id, "failed").await;
    let letter = fleet.cli(["dead", "show", &id, "-o", "json"]).await.ok().stdout;
    assert!(letter.contains("out of quota: the last words"), "{letter}");
    eventually("they are in the log", async || {
        let logs = fleet.cli(["logs", "w"]).await.ok().stdout;
        let all = ["working 0 of 400", "working 399 of 400", "out of quota: the last words"];
        if all.iter().all(|words| logs.contains(words)) { Ok(()) } else { Err(logs) }
    })
    .await;
}
