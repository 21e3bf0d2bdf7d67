//! What a container is: what it lets its worker do, what it keeps to itself, how it ends, and why it does not start.

mod adoption;
mod carry;
mod changed;
mod copies;
mod ends;
mod files;
mod images;
mod pull;
mod refused;
mod safety;
mod secrets;

use bollard::models::ContainerSummary;
use serde_json::Value;
use system_tests::harness::{Fleet, eventually, flaky};

/// The soul of `tests/workers/probe.py`.
fn probe(more: &str) -> String {
    flaky(&format!("WORKER [\"python3\", \"probe.py\"]\n{more}"))
}

/// What a probe says to a Python expression.
async fn ask(fleet: &Fleet, agent: &str, expression: &str) -> Value {
    let said = fleet.ask(agent, expression).await;
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The error in it.
#[track_caller]
fn refusal(said: &Value) -> &str {
    said["error"].as_str().unwrap_or_else(|| panic!("it was not refused: {said}"))
}

/// Waits until an agent is in error for this reason, which its explanation tells as well, and nothing is left of it: neither a container
/// nor a half of one. Its row. The soul's restart should be far away.
async fn fails(fleet: &Fleet, agent: &str, why: &str) -> Value {
    let row = fleet.wait_state(agent, "error").await;
    let told = [&row["reason"], &row["lastExit"]];
    assert!(
        told.iter().any(|told| told.as_str().is_some_and(|text| text.contains(why))),
        "{row:#}"
    );
    let explained = fleet.cli(["explain", agent]).await.ok();
    assert!(explained.stdout.contains(why), "{explained}");
    nothing_left(fleet, agent).await;
    row
}

/// Waits until the engine has removed all that was an agent's, or was to be.
async fn nothing_left(fleet: &Fleet, agent: &str) {
    let is_its = |container: &&ContainerSummary| {
        let labels = container.labels.clone().unwrap_or_default();
        labels.get("dev.mozart.agent").is_none_or(|name| name == agent)
    };
    eventually(&format!("no container of {agent} is left"), async || {
        let all = fleet.containers().await;
        let left: Vec<_> = all.iter().filter(is_its).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
