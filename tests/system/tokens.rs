//! Who may use the API.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::harness::{Fleet, Http, eventually, flaky};

use crate::http::fleet;

/// Makes a token.
async fn token(fleet: &Fleet, http: &Http, args: &[&str]) -> Http {
    let args = ["token", "create"].iter().chain(args).copied();
    let made = fleet.json(args).await;
    http.with(Some(made["token"].as_str().expect("a token")))
}

#[tokio::test]
async fn nobody_passes_without_a_token_that_holds() {
    let (fleet, own) = fleet(&[("a", &flaky(""))]).await;
    let file = fleet.home().join("api.token");
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let paths = own.get("/api/v1/openapi.json").await.is(200).json();
    for (path, operations) in paths["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("methods").keys() {
            let method = method.to_uppercase();
            let refused = own.with(None).ask(&method, path, &[], &Value::Null).await;
            if path == "/api/v1/health" {
                assert_eq!(refused.status, 204);
            } else if path.starts_with("/v1/") {
                assert_eq!(refused.is(401).json()["error"]["code"], "invalid_api_key");
            } else {
                assert_eq!(refused.problem(401).header("www-authenticate"), Some("Bearer"));
            }
        }
    }
    let right = own.token.clone().expect("a token");
    let mut wrong = right.clone();
    wrong.replace_range(wrong.len() - 1.., if right.ends_with('0') { "1" } else { "0" });
    for wrong in [
        wrong.as_str(),
        "",
        "x",
        "mozart_",
        "mozart_nobody_00",
        &right[..right.len() - 1],
        "mozart_*_",
        &format!("{right}0"),
    ] {
        let _refused = own.with(Some(wrong)).get("/api/v1/agents").await.problem(401);
    }
    let basic = [("authorization", "Basic dXNlcjpwYXNz")];
    let _refused = own.ask("GET", "/api/v1/agents", &basic, &Value::Null).await.problem(401);
    let seen = fleet.json(["events", "--security"]).await;
    let seen = seen
        .as_array()
        .expect("a list")
        .iter()
        .any(|one| one["by"] == "api" && one["kind"] == "login");
    assert!(seen, "it is on record");

    // The fleet does not know the text.
    let ours = token(&fleet, &own, &["ci", "--scope", "read"]).await;
    let _read = ours.get("/api/v1/agents").await.is(200);
    let listed = fleet.json(["token", "ls"]).await.to_string();
    let secret = ours.token.as_deref().and_then(|text| text.rsplit('_').next()).expect("a secret");
    assert!(listed.contains("\"ci\"") && !listed.contains(secret), "{listed}");
    // Its name is nobody else's.
    let twice = fleet.cli(["token", "create", "ci", "--scope", "read"]).await.exit(4);
    twice.says("there is a token of that name");
    fleet.cli(["token", "create", "a", "--scope", "read"]).await.exit(4).says("there is an agent");
    fleet.cli(["user", "add", "ci", "--scope", "read"]).await.exit(4).says("there is a token");

    // Revoked, also in a stream that is open.
    let mut stream = ours.events("GET", "/api/v1/events", &[], &Value::Null).await;
    let _revoked = fleet.cli(["token", "revoke", "ci"]).await.ok();
    eventually("it is refused", async || match ours.get("/api/v1/agents").await.status {
        401 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(20), stream.rest())
            .await
            .ok()
            .map(|rest| rest.len()),
        Some(0)
    );
    let _gone = fleet.cli(["token", "revoke", "ci"]).await.exit(3);

    // Expired.
    let brief = token(&fleet, &own, &["brief", "--scope", "read", "--expires", "2s"]).await;
    let _read = brief.get("/api/v1/agents").await.is(200);
    eventually("it is refused", async || {
        let answer = brief.get("/api/v1/agents").await;
        if answer.status == 401 && answer.body.contains("expired") {
            Ok(())
        } else {
            Err(answer.body)
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_does_what_its_scope_says_for_its_agents() {
    let (fleet, own) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let reads = token(&fleet, &own, &["reads", "--scope", "read"]).await;
    let sends = token(&fleet, &own, &["sends", "--scope", "send"]).await;
    let narrow = token(&fleet, &own, &["narrow", "--scope", "operate", "--agent", "a"]).await;
    let message = |agent: &str| json!({"agent": agent, "message": "say hi"});

    let _denied = reads.post("/api/v1/messages", message("a")).await.problem(403);
    let _denied = reads.post("/api/v1/agents/a/stop", Value::Null).await.problem(403);
    let _read = reads.get("/api/v1/fleet").await.is(200);

    let sent = sends.post("/api/v1/messages?wait=30s", message("b")).await.is(201).json();
    assert_eq!(sent["response"], "hi");
    let id = sent["messageId"].as_str().expect("an id");
    assert_eq!(fleet.json(["journal", "show", id]).await["sender"], "sends");
    for path in ["/api/v1/agents/a/stop", "/api/v1/agents/a/replace", "/api/v1/nodes/n/drain"] {
        let _denied = sends.post(path, Value::Null).await.problem(403);
    }
    let _denied = sends.ask("DELETE", "/api/v1/agents/a", &[], &Value::Null).await.problem(403);
    let _denied = sends.post("/api/v1/agents", json!({"souls": []})).await.problem(403);
    // Its own messages it may cancel, and no others.
    let others = own
        .post("/api/v1/messages", json!({"agent": "b", "message": "sleep 60"}))
        .await
        .is(201)
        .json();
    let others =
        format!("/api/v1/messages/{}/cancel", others["messageId"].as_str().expect("an id"));
    let _denied = sends.post(&others, Value::Null).await.problem(403);
    let _cancelled = own.post(&others, Value::Null).await.is(200);

    let listed = narrow.get("/api/v1/agents").await.is(200).json();
    let names: Vec<&str> =
        listed.as_array().into_iter().flatten().filter_map(|row| row["agent"].as_str()).collect();
    assert_eq!(names, ["a"]);
    let _denied = narrow.post("/api/v1/messages", message("b")).await.problem(403);
    let dead = json!({"souls": [{"name": "c", "text": "MODEL m\nSOUL You."}]});
    let _denied = narrow.post("/api/v1/agents", dead).await.problem(403);
    for path in [
        "/api/v1/agents/b",
        "/api/v1/fleet",
        "/api/v1/nodes",
        "/api/v1/events",
        "/api/v1/messages",
        "/api/v1/dead",
        "/api/v1/events?agent=b",
        &format!("/api/v1/messages/b%2F{id}"),
        &format!("/api/v1/messages/b%2Fsends%2F{id}/events"),
    ] {
        let _denied = narrow.get(path).await.problem(403);
    }
    let _unseen = narrow.get(&format!("/api/v1/messages/{id}")).await.problem(404);
    let _seen = narrow.get("/api/v1/events?agent=a").await.is(200);
    let _restarted = narrow.post("/api/v1/agents/a/restart", Value::Null).await.is(200);
    let records = fleet.json(["events", "a"]).await;
    let restart =
        records.as_array().into_iter().flatten().find(|one| one["type"] == "agentRestarted");
    assert_eq!(restart.expect("it is on record")["author"], "narrow");

    // Where others could listen in, it does not serve.
    let refused = fleet.cli(["api", "--listen", "0.0.0.0:0"]).await.exit(2);
    refused.says("tokens would be sent in the clear");
}

#[tokio::test]
async fn a_taken_port_that_was_asked_for_is_an_error_and_the_token_is_kept() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let refused = fleet.cli(["up", "--api", &address]).await.exit(6);
    refused.says("the API cannot listen on");
    let mut fleet = fleet.env("MOZART_API", "127.0.0.1:0");
    fleet.up(&[]).await;
    let token = fleet.http().token;
    assert!(fleet.http().get("/api/v1/agents").await.status == 200);
    let _down = fleet.cli(["down"]).await.ok();
    fleet.up(&[]).await;
    assert_eq!(fleet.http().token, token, "it is kept");
    assert!(fleet.http().get("/api/v1/agents").await.status == 200);
}
