//! What all doors of the API have in common: how many requests a token may have open, and what it learns of agents that it may not see.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::harness::{Fleet, Http, HttpAnswer, eventually, flaky};

use crate::http::{another_with, fleet};
use crate::roles::free_port;

const MCP: (&str, &str) = ("accept", "application/json, text/event-stream");

async fn call(http: &Http, tool: &str, arguments: &Value) -> HttpAnswer {
    let params = json!({"name": tool, "arguments": arguments});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    http.ask("POST", "/mcp", &[MCP], &body).await
}

/// What a tool yields, and whether it is an error.
async fn told(http: &Http, tool: &str, arguments: Value) -> (Value, bool) {
    let result = call(http, tool, &arguments).await.is(200).json()["result"].clone();
    (result["structuredContent"].clone(), result["isError"] == true)
}

/// A message of A2A to `a`.
async fn send_a2a(http: &Http, id: &str, text: &str) -> HttpAnswer {
    let message = json!({"messageId": id, "role": "ROLE_USER", "parts": [{"text": text}]});
    let params = json!({"message": message});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params});
    http.post("/a2a/a", body).await
}

async fn chat(http: &Http, text: &str) -> HttpAnswer {
    let messages = json!([{"role": "user", "content": text}]);
    http.post("/v1/chat/completions", json!({"model": "a", "messages": messages})).await
}

async fn token(fleet: &Fleet, http: &Http, args: &[&str]) -> Http {
    let made = fleet.json(["token", "create"].iter().chain(args).copied()).await;
    http.with(Some(made["token"].as_str().expect("a token")))
}

async fn stored(fleet: &Fleet) -> usize {
    fleet.json(["journal", "ls"]).await.as_array().map_or(0, Vec::len)
}

async fn until_stored(fleet: &Fleet, count: usize) {
    eventually("the messages are stored", async || match stored(fleet).await {
        stored if stored == count => Ok(()),
        stored => Err(format!("{stored} messages")),
    })
    .await;
}

/// What waits for an answer, by each door, as a token of its own.
async fn waits(door: &str, http: &Http) -> HttpAnswer {
    let text = "sleep 60";
    match door {
        "api" => {
            http.post("/api/v1/messages?wait=60s", json!({"agent": "a", "message": text})).await
        }
        "chat" => chat(http, text).await,
        "response" => http.post("/v1/responses", json!({"model": "a", "input": text})).await,
        "a2a" => send_a2a(http, "m", text).await,
        "mcp" => {
            let asked = json!({"agent": "a", "message": text, "wait_s": 60});
            call(http, "ask_agent", &asked).await
        }
        other => panic!("no door {other:?}"),
    }
}

const DOORS: [&str; 5] = ["api", "chat", "response", "a2a", "mcp"];

#[tokio::test]
async fn a_wait_counts_as_a_stream_does_at_every_door() {
    let (fleet, _own) = fleet(&[("a", &flaky("CONCURRENCY 8"))]).await;
    let (_api, http) = another_with(&fleet, &["--streams", "1"]).await;
    for (nth, door) in DOORS.into_iter().enumerate() {
        let http = token(&fleet, &http, &[door, "--scope", "send"]).await;
        let waiting = waits(door, &http);
        let others = async {
            // Each door before has left two.
            until_stored(&fleet, 2 * nth + 1).await;
            for other in DOORS {
                let refused = waits(other, &http).await;
                if other == "mcp" {
                    let result = refused.is(200).json()["result"].clone();
                    let error = &result["structuredContent"];
                    assert_eq!((&result["isError"], &error["code"]), (&true.into(), &9.into()));
                } else {
                    assert_eq!(refused.status, 429, "{door}, {other}: {refused:?}");
                }
            }
            // What is not waited for is answered.
            let _shown = http.get("/api/v1/agents").await.is(200);
            assert_eq!(stored(&fleet).await, 2 * nth + 1, "nothing was stored that was refused");
        };
        tokio::select! {
            answer = waiting => panic!("{door}: it is answered: {answer:?}"),
            () = others => {}
        }
        // The connection is closed: it does not count any more.
        eventually("another one may wait", async || {
            let message = json!({"agent": "a", "message": "say x"});
            let path = "/api/v1/messages?wait=1ms";
            let sent = http.ask("POST", path, &[("idempotency-key", door)], &message).await;
            if sent.status == 429 { Err(sent.body) } else { Ok(()) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_wait_ends_with_its_token_at_every_door() {
    let (fleet, http) = fleet(&[("a", &flaky("CONCURRENCY 8"))]).await;
    let tokens = {
        let mut tokens = Vec::new();
        for door in DOORS {
            tokens.push(token(&fleet, &http, &[door, "--scope", "send"]).await);
        }
        tokens
    };
    let waiting = DOORS.iter().zip(&tokens).map(|(door, http)| waits(door, http));
    let revoking = async {
        until_stored(&fleet, DOORS.len()).await;
        for door in DOORS {
            let _revoked = fleet.cli(["token", "revoke", door]).await.ok();
        }
        Instant::now()
    };
    let (cut, revoked) = tokio::join!(futures_util::future::join_all(waiting), revoking);
    assert!(revoked.elapsed() < Duration::from_secs(20), "{cut:?}");
    for (door, cut) in DOORS.iter().zip(cut) {
        assert_eq!(cut.status, 401, "{door}: {cut:?}");
    }
    let open = fleet.json(["journal", "ls", "--status", "open"]).await;
    assert_eq!(open.as_array().map(Vec::len), Some(DOORS.len()), "the messages go on: {open}");
}

#[tokio::test]
async fn a_token_learns_of_no_agent_that_it_may_not_see() {
    let (fleet, http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let narrow = token(&fleet, &http, &["narrow", "--scope", "operate", "--agent", "a"]).await;
    let send = async |agent: &str, text: &str, id: &str| {
        let message = json!({"agent": agent, "message": text, "messageId": id});
        http.post("/api/v1/messages?wait=30s", message).await.is(201).json()
    };
    let _theirs = send("b", "fail theirs", "theirs-1").await;
    let _uuid = send("b", "say u", "0198c0de-0000-7abc-8def-0123456789ab").await;
    // The same id, of another sender, at the agent that it may see.
    let _both = send("b", "say theirs", "both-1").await;
    let own = fleet.json(["send", "a", "say ours", "--id", "both-1", "--wait"]).await;
    assert_eq!(own["response"], "ours");

    // What is not there, and what is another's, cannot be told apart.
    let same = async |method: &str, path: &str, theirs: &str| {
        let of = async |id: &str| {
            let path = path.replace("ID", id);
            let answer = narrow.ask(method, &path, &[], &Value::Null).await;
            (answer.status, answer.body.replace(id, "ID"))
        };
        let (found, none) = (of(theirs).await, of("none-such").await);
        assert_eq!(found.0, 404, "{path}: {found:?}");
        assert_eq!(found, none, "{method} {path}");
    };
    for id in ["theirs-1", "0198c0de-0000-7abc-8def-0123456789ab"] {
        same("GET", "/api/v1/messages/ID", id).await;
        same("GET", "/api/v1/messages/ID/events", id).await;
        same("GET", "/api/v1/messages/ID/explanation", id).await;
        same("POST", "/api/v1/messages/ID/cancel", id).await;
        same("GET", "/v1/responses/resp_ID", id).await;
    }
    same("GET", "/api/v1/dead/ID", "theirs-1").await;
    same("POST", "/api/v1/dead/ID/redrive", "theirs-1").await;
    same("DELETE", "/api/v1/dead/ID", "theirs-1").await;
    // Nor by how an id begins.
    let _short = narrow.get("/api/v1/messages/0198c0de").await.problem(404);
    let _named = narrow.get("/api/v1/messages/b%2Ftheirs-1").await.problem(403);
    // Of several it is the one that may be seen; who may see all is told which there are.
    let shown = narrow.get("/api/v1/messages/both-1").await.is(200).json();
    assert_eq!((&shown["agent"], &shown["response"]), (&"a".into(), &"ours".into()));
    let several = http.get("/api/v1/messages/both-1").await.problem(404).json();
    assert!(several["cause"].as_str().expect("text").contains("b/"), "{several}");

    for tool in ["message_status", "cancel_message"] {
        let of = async |id: &str| {
            let (error, is_error) = told(&narrow, tool, json!({"message_id": id})).await;
            assert!(is_error, "{tool}: {error}");
            error.to_string().replace(id, "ID")
        };
        assert_eq!(of("theirs-1").await, of("none-such").await, "{tool}");
    }
    let (why, is_error) = told(&narrow, "explain", json!({"subject": "theirs-1"})).await;
    assert!(is_error && !why.to_string().contains("\"b\""), "{why}");
    // A name that is nearly that of an agent that it may not see is not completed.
    let near = token(&fleet, &http, &["near", "--scope", "send", "--agent", "bb"]).await;
    let unknown = near.post("/api/v1/messages", json!({"agent": "bb", "message": "x"})).await;
    let unknown = unknown.problem(404).json();
    assert!(!unknown["cause"].as_str().expect("text").contains("did you mean"), "{unknown}");
    // Its only agent is found without the others.
    let card = narrow.get("/.well-known/agent-card.json").await.is(200).json();
    assert_eq!(card["name"], "a");
    let (listed, _) = told(&narrow, "list_agents", json!({})).await;
    assert_eq!(listed["agents"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(narrow.get("/api/v1/agents").await.is(200).json()[0]["agent"], "a");
    let models = narrow.get("/v1/models").await.is(200).json();
    assert_eq!(models["data"].as_array().map(Vec::len), Some(1), "{models}");
}

#[tokio::test]
async fn an_id_is_for_one_agent_of_a_token_over_mcp_too() {
    let (fleet, http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let ask = |agent: &str| json!({"agent": agent, "message": "say x", "message_id": "m1"});
    let (first, is_error) = told(&http, "ask_agent", ask("a")).await;
    assert!(!is_error && first["text"] == "x", "{first}");
    let (again, is_error) = told(&http, "ask_agent", ask("a")).await;
    assert!(!is_error && again["text"] == "x", "{again}");
    let (other, is_error) = told(&http, "ask_agent", ask("b")).await;
    assert!(is_error && other["code"] == 4, "{other}");
    assert_eq!(stored(&fleet).await, 1);
}

#[tokio::test]
async fn of_several_that_follow_a_response_one_is_stored() {
    const SEVERAL: usize = 8;
    let (fleet, http) = fleet(&[("a", &flaky(""))]).await;
    let (_second, at_second) = another_with(&fleet, &[]).await;
    let first = http.post("/v1/responses", json!({"model": "a", "input": "say 1"})).await.is(200);
    let mut previous = first.json()["id"].clone();
    for round in 0..3 {
        let follow = |nth: usize| {
            let http = if nth.is_multiple_of(2) { &http } else { &at_second };
            let input = format!("say {round}.{nth}");
            let body = json!({"model": "a", "input": input, "previous_response_id": previous});
            http.post("/v1/responses", body)
        };
        let answers = futures_util::future::join_all((0..SEVERAL).map(follow)).await;
        let (stored, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!(stored.len(), 1, "{stored:?} {refused:?}");
        for refused in refused {
            let error = refused.is(400).json()["error"]["message"].to_string();
            assert!(error.contains("previous_response_id is not the last"), "{error}");
        }
        previous = stored[0].json()["id"].clone();
    }
    assert_eq!(fleet.json(["journal", "ls"]).await.as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn a_retry_is_found_however_many_others_have_asked() {
    const OTHERS: usize = 60;
    let (fleet, http) = fleet(&[("a", &flaky("CONCURRENCY 8"))]).await;
    let answer = chat(&http, "say hi").await.is(200).json();
    let other = token(&fleet, &http, &["other", "--scope", "send"]).await;
    for nth in 0..OTHERS {
        let _answer = chat(&other, &format!("say {nth}")).await.is(200);
    }
    let messages = json!([{"role": "user", "content": "say hi"}]);
    let body = json!({"model": "a", "messages": messages});
    let retry = [("x-stainless-retry-count", "1")];
    let again = http.ask("POST", "/v1/chat/completions", &retry, &body).await.is(200).json();
    assert_eq!(again["id"], answer["id"]);
    let theirs = other.ask("POST", "/v1/chat/completions", &retry, &body).await.is(200).json();
    assert_ne!(theirs["id"], answer["id"], "another's is another message");
}

/// The value of a series.
async fn series(port: u16, series: &str) -> f64 {
    let http = Http { address: format!("127.0.0.1:{port}"), token: None };
    let page = http.get("/metrics").await.is(200).body;
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("{series} is not in\n{page}"));
    value.parse().expect("a number")
}

#[tokio::test]
async fn a_process_of_the_api_counts_what_it_accepts_and_how_long_answers_take() {
    let (fleet, _own) = fleet(&[("a", &flaky(""))]).await;
    let port = free_port();
    let at = format!("127.0.0.1:{port}");
    let (_api, http) = another_with(&fleet, &["--metrics", &at]).await;
    let accepted = async |door: &str| {
        series(port, &format!("mozart_api_messages_accepted_total{{door=\"{door}\"}}")).await
    };
    let firsts = async || series(port, "mozart_api_first_text_seconds_count").await;
    let answers = async || series(port, "mozart_api_answer_seconds_count").await;
    assert_eq!((accepted("api").await, firsts().await, answers().await), (0.0, 0.0, 0.0));

    let message = |text: &str| json!({"agent": "a", "message": text});
    let _sent = http.post("/api/v1/messages", message("say 1")).await.is(201);
    assert_eq!((accepted("api").await, answers().await), (1.0, 0.0), "nobody waits");
    let key = [("idempotency-key", "k")];
    for status in [201, 200] {
        let sent = http.ask("POST", "/api/v1/messages?wait=30s", &key, &message("say 2")).await;
        let _answer = sent.is(status);
    }
    assert_eq!((accepted("api").await, answers().await), (2.0, 1.0), "a message counts once");
    let stream = http.events("POST", "/api/v1/messages", &[], &message("count 3")).await;
    let _events = { stream }.rest().await;
    assert_eq!((firsts().await, answers().await), (1.0, 2.0));
    let _chat = chat(&http, "say 3").await.is(200);
    let _response =
        http.post("/v1/responses", json!({"model": "a", "input": "say 4"})).await.is(200);
    let _task = send_a2a(&http, "m1", "say 5").await.is(200);
    let (_asked, _) = told(&http, "ask_agent", message("say 6")).await;
    let of = [accepted("openai").await, accepted("a2a").await, accepted("mcp").await];
    assert_eq!(of, [2.0, 1.0, 1.0]);
    assert_eq!(answers().await, 5.0, "those that were waited for or followed");
    let open = series(port, "mozart_api_streams").await;
    assert_eq!(open, 0.0, "nobody is connected");
}
