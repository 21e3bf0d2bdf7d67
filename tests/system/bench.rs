//! `mozart bench` measures: what it prints is told by release builds, that it runs at all by this.

use std::time::Duration;

use serde_json::Value;
use system_tests::harness::{binary, nats_server};
use tokio::process::Command;
use tokio::time::timeout;

/// Runs a scenario, small, and looks whether it has measured what its goals are about.
async fn measures(scenario: &str, more: &[&str], goals: &[u64]) {
    let data = tempfile::tempdir().expect("a folder");
    let bench = Command::new(binary("mozart"))
        .args(["bench", scenario, "--pairs", "1", "-o", "json", "--data"])
        .arg(data.path())
        .args(more)
        .env("MOZART_NATS_SERVER", nats_server())
        .env_remove("NATS_URL")
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(120), bench).await.expect("in time").expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let figures = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<Value> =
        figures.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for goal in goals {
        let ours = figures.iter().filter(|figure| figure["goal"] == *goal);
        let is_measured = |figure: &Value| figure["ours"].as_f64().is_some_and(|ours| ours > 0.0);
        assert!(ours.clone().any(is_measured), "{scenario}, goal {goal}: {figures:#?}");
    }
}

#[tokio::test]
async fn a_message_is_measured_beside_the_raw_loop() {
    measures("single", &["--seconds", "1"], &[2]).await;
}

#[tokio::test]
async fn what_a_history_costs_is_measured() {
    measures("history", &["--messages", "400"], &[16, 17, 18]).await;
}

#[tokio::test]
async fn what_archiving_costs_is_measured() {
    measures("archiving", &["--seconds", "1"], &[19]).await;
}

#[tokio::test]
async fn how_a_fleet_comes_back_is_measured() {
    measures("recover", &["--agents", "5"], &[20]).await;
    measures("backlog", &["--agents", "3", "--open", "20"], &[20]).await;
}

#[tokio::test]
async fn what_a_long_log_costs_is_measured() {
    measures("long-log", &["--records", "3000"], &[21]).await;
}
