//! OpenAI's own client against the API.

use serde_json::Value;
use system_tests::harness::{Child, Fleet, Http, Signal, StockClients, eventually, flaky};

use crate::http::{another, fleet, serve};

fn check(clients: &StockClients, http: &Http, check: &str) -> Child {
    let base = format!("http://{}/v1", http.address);
    clients.start("openai_check.py", &[check, &base, http.token.as_deref().expect("a token")])
}

/// The messages of a fleet.
async fn messages(fleet: &Fleet) -> Vec<Value> {
    fleet.json(["journal", "ls"]).await.as_array().cloned().expect("a list")
}

#[tokio::test]
async fn openais_client_has_models_chats_streams_and_responses() {
    let Some(clients) = StockClients::find() else { return };
    let (_fleet, http) = fleet(&[("a", &flaky("ATTEMPTS 2"))]).await;
    let lines = check(&clients, &http, "everything").output().await.ok().json_lines();
    assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{lines:?}");
}

/// Starts a check against a process of its own, and kills that once the check has said something; yields the address.
async fn killed(fleet: &Fleet, clients: &StockClients, name: &str) -> (Child, Http) {
    let (api, http) = another(fleet).await;
    let mut client = check(clients, &http, name);
    let _begun = client.json_until(|line| line["text"].as_str() != Some("")).await;
    if name == "killed_waiting" {
        // It is on disk.
        eventually("the message is stored", async || match messages(fleet).await.len() {
            1 => Ok(()),
            other => Err(format!("{other} messages")),
        })
        .await;
    }
    api.signal(Signal::KILL);
    let _killed = api.output().await;
    (client, http)
}

#[tokio::test]
async fn openais_client_never_takes_a_killed_chat_for_whole() {
    let Some(clients) = StockClients::find() else { return };
    let (fleet, _) = fleet(&[("a", &flaky(""))]).await;
    let (client, _) = killed(&fleet, &clients, "killed_chat").await;
    let said = client.output().await.ok().json_lines();
    let last = said.last().expect("a line");
    assert_eq!(last["error"], "APIConnectionError", "{said:?}");
    assert_eq!(messages(&fleet).await.len(), 1);
}

#[tokio::test]
async fn openais_client_goes_on_with_a_response_whose_server_was_killed() {
    let Some(clients) = StockClients::find() else { return };
    let (fleet, _) = fleet(&[("a", &flaky(""))]).await;
    let (client, http) = killed(&fleet, &clients, "killed_response").await;
    let _second = serve(&fleet, &http.address).await;
    let said = client.output().await.ok().json_lines();
    let last = said.last().expect("a line");
    let whole: String = (1..=60).map(|number| format!("{number} ")).collect();
    assert_eq!((&last["whole"], &last["deltas"]), (&whole.clone().into(), &whole.into()));
    assert!(last["breaks"].as_u64() >= Some(1), "{last}");
    let messages = messages(&fleet).await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(last["id"], format!("resp_{}", messages[0]["messageId"].as_str().expect("an id")));
}

#[tokio::test]
async fn a_retry_of_openais_client_is_the_same_message() {
    let Some(clients) = StockClients::find() else { return };
    let (fleet, own) = fleet(&[("a", &flaky(""))]).await;
    let (client, http) = killed(&fleet, &clients, "killed_waiting").await;
    let _second = serve(&fleet, &http.address).await;
    let said = client.output().await.ok().json_lines();
    let last = said.last().expect("a line");
    assert_eq!((&last["text"], &last["chat"]), (&"slept".into(), &"after".into()));
    let messages = messages(&fleet).await;
    assert_eq!(messages.len(), 2, "{messages:?}");

    // Retries at once, of something that was never stored, are one message, at whichever process.
    let body = serde_json::json!({"model": "a", "input": "say once"});
    let retry = [("x-stainless-retry-count", "1")];
    let both = [&own, &http, &own, &http, &own, &http];
    let answers = both.map(|http| http.ask("POST", "/v1/responses", &retry, &body));
    let answers = futures_util::future::join_all(answers).await;
    let ids: Vec<Value> = answers.into_iter().map(|one| one.is(200).json()["id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let last_id = ids[0].clone();
    let chat =
        serde_json::json!({"model": "a", "messages": [{"role": "user", "content": "say two"}]});
    let answers = both.map(|http| http.ask("POST", "/v1/chat/completions", &retry, &chat));
    let answers = futures_util::future::join_all(answers).await;
    let ids: Vec<Value> = answers.into_iter().map(|one| one.is(200).json()["id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(self::messages(&fleet).await.len(), 4);

    // The same text once more, after its answer, is another message, also if only its retry comes through.
    let next =
        serde_json::json!({"model": "a", "input": "say once", "previous_response_id": last_id});
    let twice = [http.clone(), own.clone()];
    let mut ids = Vec::new();
    for http in &twice {
        let answer = http.ask("POST", "/v1/responses", &retry, &next).await.is(200).json();
        ids.push(answer["id"].clone());
    }
    assert!(ids[0] == ids[1] && ids[0] != last_id, "{ids:?}, {last_id}");
    assert_eq!(self::messages(&fleet).await.len(), 5);
}
