//! `mozart bench` measures: what it prints is told by release builds, that it runs at all by this.

use std::time::Duration;

use serde_json::Value;
use system_tests::harness::{binary, nats_server};
use tokio::process::Command;
use tokio::time::timeout;

#[tokio::test]
async fn a_message_is_measured_beside_the_raw_loop() {
    let data = tempfile::tempdir().expect("a folder");
    let bench = Command::new(binary("mozart"))
        .args(["bench", "single", "--pairs", "1", "--seconds", "1", "-o", "json", "--data"])
        .arg(data.path())
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
    let ours = figures.iter().filter(|figure| figure["goal"] == 2);
    let measured = ours.filter(|figure| figure["ours"].as_f64().is_some_and(|ours| ours > 0.0));
    assert!(measured.count() > 0, "{figures:#?}");
}
