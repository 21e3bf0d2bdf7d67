//! The stock client of the Model Context Protocol against the API and `mozart mcp`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::harness::{Child, Fleet, Http, Signal, StockClients, binary, eventually, flaky};

use crate::http::{another, fleet, serve};

const MODES: [&str; 2] = ["legacy", "auto"];

fn over_http(clients: &StockClients, http: &Http, check: &str, mode: &str) -> Child {
    let url = format!("http://{}/mcp", http.address);
    let token = http.token.as_deref().expect("a token");
    clients.start("mcp_check.py", &[check, mode, "http", &url, token])
}

#[tokio::test]
async fn the_mcp_client_has_every_tool_over_http() {
    let Some(clients) = StockClients::find() else { return };
    let (_fleet, http) = fleet(&[("a", &flaky("CONCURRENCY 4"))]).await;
    for mode in MODES {
        let lines = over_http(&clients, &http, "everything", mode).output().await.ok().json_lines();
        assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{mode}: {lines:?}");
    }
}

#[tokio::test]
async fn the_mcp_client_has_every_tool_over_stdio() {
    let Some(clients) = StockClients::find() else { return };
    let (fleet, _) = fleet(&[("a", &flaky("CONCURRENCY 4"))]).await;
    let mozart = binary("mozart");
    let mozart = mozart.to_str().expect("a path");
    let home = format!("MOZART_DIR={}", fleet.home().display());
    for mode in MODES {
        let args = ["everything", mode, "stdio", "env", &home, mozart, "mcp"];
        let lines = clients.start("mcp_check.py", &args).output().await.ok().json_lines();
        assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{mode}: {lines:?}");
    }
    // What is no client of the protocol.
    let mut stranger = fleet.spawn_cli(["mcp"]);
    stranger.feed(b"hello\n").await;
    let said = stranger.output().await;
    assert!(said.stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{said}");
}

#[tokio::test]
async fn the_mcp_client_is_told_that_the_server_was_killed_and_asks_again() {
    let Some(clients) = StockClients::find() else { return };
    let (fleet, _) = fleet(&[("a", &flaky(""))]).await;
    for (nth, mode) in MODES.into_iter().enumerate() {
        let (api, http) = another(&fleet).await;
        let mut client = over_http(&clients, &http, "killed", mode);
        let _waits = client.json_until(|line| line["waiting"] == true).await;
        eventually("the message is stored", async || match stored(&fleet).await {
            count if count == nth + 1 => Ok(()),
            count => Err(format!("{count} messages")),
        })
        .await;
        api.signal(Signal::KILL);
        let _killed = api.output().await;
        let error = client.json().await.expect("a line");
        assert!(error["error"].is_string(), "{mode}: it is told: {error}");
        let _second = serve(&fleet, &http.address).await;
        let said = client.output().await.ok().json_lines();
        let last = said.last().expect("a line");
        assert_eq!((&last["state"], &last["text"]), (&"done".into(), &"survived".into()), "{mode}");
        assert_eq!(stored(&fleet).await, nth + 1, "{mode}");
    }
}

async fn stored(fleet: &Fleet) -> usize {
    fleet.json(["journal", "ls"]).await.as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn mcp_is_behind_the_same_tokens() {
    let Some(clients) = StockClients::find() else { return };
    let (fleet, http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let created =
        fleet.json(["token", "create", "reader", "--scope", "read", "--agent", "a"]).await;
    let reader = http.with(Some(created["token"].as_str().expect("a token")));
    for mode in MODES {
        let lines = over_http(&clients, &reader, "denied", mode).output().await.ok().json_lines();
        assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{mode}: {lines:?}");
        let wrong = http.with(Some("mozart_x_y"));
        let lines = over_http(&clients, &wrong, "refused", mode).output().await.ok().json_lines();
        assert!(lines.last().is_some_and(|line| line["error"].is_string()), "{mode}: {lines:?}");
    }
    // A token that is revoked ends what waits for an answer.
    let created = fleet.json(["token", "create", "sender", "--scope", "send"]).await;
    let sender = http.with(Some(created["token"].as_str().expect("a token")));
    let accept = ("accept", "application/json, text/event-stream");
    let asked = json!({"agent": "a", "message": "sleep 60", "message_id": "long", "wait_s": 55});
    let asked = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask_agent", "arguments": asked}});
    let asking = sender.ask("POST", "/mcp", std::slice::from_ref(&accept), &asked);
    let revoking = async {
        eventually("the message is stored", async || match stored(&fleet).await {
            0 => Err("it is not".to_owned()),
            _ => Ok(()),
        })
        .await;
        let _revoked = fleet.cli(["token", "revoke", "sender"]).await.ok();
        Instant::now()
    };
    let (cut, revoked) = tokio::join!(asking, revoking);
    assert!(revoked.elapsed() < Duration::from_secs(20), "{cut:?}");
    let _cut = cut.problem(401);
    // What is no request of the protocol.
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let _open = http.with(None).ask("POST", "/mcp", &[accept], &body).await.problem(401);
    let evil = [accept, ("origin", "http://evil.example")];
    let _origin = http.ask("POST", "/mcp", &evil, &body).await.problem(403);
    let host = [accept, ("host", "evil.example")];
    let _host = http.ask("POST", "/mcp", &host, &body).await.problem(421);
    assert_eq!(http.ask("GET", "/mcp", &[accept], &Value::Null).await.status, 405);
    let token = http.token.as_deref().expect("a token");
    let large = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\ncontent-length: 1073741824\r\n\r\n",
        http.address
    );
    let _large = http.raw(large.as_bytes()).await.problem(413);
}
