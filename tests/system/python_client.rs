//! Our own Python client against the API.

use system_tests::harness::{Child, Http, Signal, flaky, start_own_client};

use crate::http::{another, fleet, serve};

fn check(http: &Http, check: &str) -> Child {
    let url = format!("http://{}", http.address);
    start_own_client("python_check.py", &[check, &url, http.token.as_deref().expect("a token")])
}

#[tokio::test]
async fn what_is_pure_in_the_python_client_needs_no_fleet() {
    let lines = start_own_client("python_pure.py", &[]).output().await.ok().json_lines();
    assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{lines:?}");
}

#[tokio::test]
async fn the_python_client_sends_streams_resumes_waits_and_cancels() {
    let (_fleet, http) = fleet(&[("a", &flaky("CONCURRENCY 4"))]).await;
    let lines = check(&http, "everything").output().await.ok().json_lines();
    assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{lines:?}");
}

#[tokio::test]
async fn the_python_client_means_its_own_message_where_another_has_its_id() {
    let (fleet, http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let _theirs = fleet.cli(["send", "b", "say theirs", "--id", "same", "--wait"]).await.ok();
    let lines = check(&http, "namesakes").output().await.ok().json_lines();
    assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{lines:?}");
}

#[tokio::test]
async fn the_python_client_has_every_event_once_however_often_it_is_cut_off() {
    let (_fleet, http) = fleet(&[("a", &flaky("CONCURRENCY 4"))]).await;
    let lines = check(&http, "cut").output().await.ok().json_lines();
    assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{lines:?}");
}

#[tokio::test]
async fn the_python_client_finds_the_fleet_of_this_machine() {
    let (fleet, _) = fleet(&[("a", &flaky(""))]).await;
    let home = fleet.home().to_str().expect("a path");
    let said = start_own_client("python_check.py", &["local", home]).output().await.ok();
    assert_eq!(said.json()["agents"], serde_json::json!(["a"]));
}

#[tokio::test]
async fn the_python_client_has_every_event_once_when_the_server_is_killed() {
    let (fleet, _) = fleet(&[("a", &flaky("CONCURRENCY 4"))]).await;
    let (api, http) = another(&fleet).await;
    let mut client = check(&http, "killed");
    for _stream in 0..2 {
        let _amid = client.json_until(|line| line["amid"].is_string()).await;
    }
    api.signal(Signal::KILL);
    let _killed = api.output().await;
    let _second = serve(&fleet, &http.address).await;
    let lines = client.output().await.ok().json_lines();
    assert_eq!(lines.last().map(|line| &line["done"]), Some(&true.into()), "{lines:?}");
    let messages = fleet.json(["journal", "ls"]).await;
    assert_eq!(messages.as_array().map(Vec::len), Some(2), "{messages}");
}
