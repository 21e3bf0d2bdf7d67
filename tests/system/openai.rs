//! Agents as models, for clients of OpenAI's API.

use serde_json::{Value, json};
use system_tests::harness::{Http, HttpAnswer, flaky};

use crate::http::fleet;

fn ask(text: &str) -> Value {
    json!({"model": "a", "messages": [{"role": "user", "content": text}], "temperature": 0.5})
}

async fn complete(http: &Http, headers: &[(&str, &str)], body: &Value) -> HttpAnswer {
    http.ask("POST", "/v1/chat/completions", headers, body).await
}

/// The text of a stream, and whether it is whole.
fn streamed(answer: &HttpAnswer) -> (String, bool) {
    let data: Vec<&str> =
        answer.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let chunks = data.iter().filter(|line| **line != "[DONE]");
    let chunks: Vec<Value> = chunks.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let text = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    (text, data.last() == Some(&"[DONE]"))
}

#[tokio::test]
async fn an_agent_is_a_model() {
    let (fleet, http) = fleet(&[("a", &flaky("ATTEMPTS 2"))]).await;
    let models = http.get("/v1/models").await.is(200).json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&"list".into(), &"a".into()));
    assert_eq!(http.get("/v1/models/a").await.is(200).json()["owned_by"], "mozart");
    let missing = http.get("/v1/models/zz").await.is(404).json();
    assert_eq!(missing["error"]["code"], "model_not_found", "{missing}");
    let refused = http.with(Some("sk-x")).get("/v1/models").await.is(401).json();
    assert_eq!(refused["error"]["code"], "invalid_api_key", "{refused}");
    let nowhere = http.get("/v1/embeddings").await.is(404).json();
    assert!(nowhere["error"]["message"].is_string(), "{nowhere}");

    let answer = complete(&http, &[], &ask("say hi")).await.is(200);
    let whole = answer.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "hi");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let id = answer.header("mozart-message-id").expect("an id");
    assert_eq!(whole["id"], format!("chatcmpl-{id}"));
    // The client sends the same again after a broken connection: it is the same message.
    let retry = complete(&http, &[("x-stainless-retry-count", "1")], &ask("say hi")).await.is(200);
    assert_eq!(retry.json()["id"], whole["id"]);
    let other = complete(&http, &[("x-stainless-retry-count", "0")], &ask("say hi")).await.is(200);
    assert_ne!(other.json()["id"], whole["id"], "asked again on purpose");

    let mut body = ask("count 5");
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let answer = complete(&http, &[], &body).await.is(200);
    assert_eq!(streamed(&answer), ("1 2 3 4 5 ".to_owned(), true));
    assert!(answer.body.contains("\"usage\":{"), "{}", answer.body);

    // An attempt that breaks off amid its answer, and says something else then: never taken for whole.
    let mut body = ask("say before; crash");
    body["stream"] = true.into();
    let (text, is_whole) = streamed(&complete(&http, &[], &body).await.is(200));
    assert!(!is_whole && "before".starts_with(&text), "{text:?}");
    let failed = complete(&http, &[], &ask("fail no")).await.is(500);
    assert_eq!(failed.header("x-should-retry"), Some("false"));
    assert!(failed.json()["error"]["message"].as_str().expect("text").contains("no"));

    // With a conversation the agent is told what is new, and without one all of it.
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let body = json!({"model": "a", "messages": [turn("system", "Be brief."), turn("user", "say 1"), turn("assistant", "1"), turn("user", "say 2")]});
    let told = complete(&http, &[("x-conversation-id", "c1")], &body).await.is(200);
    assert_eq!(told.json()["choices"][0]["message"]["content"], "2");
    assert_eq!(told.header("x-conversation-id"), Some("c1"));
    let id = told.header("mozart-message-id").expect("an id");
    let shown = fleet.json(["journal", "show", id]).await;
    assert_eq!((&shown["message"], &shown["conversationId"]), (&"say 2".into(), &"c1".into()));
}
