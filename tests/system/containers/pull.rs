//! Images that the engine has to fetch.

use std::process::Stdio;

use bollard::query_parameters::RemoveImageOptionsBuilder;
use system_tests::harness::{Fleet, Runtime, eventually};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A registry on loopback, which engines need no certificate for; ended when dropped.
struct Registry {
    port: u16,
    _server: Child,
}

impl Registry {
    async fn start() -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", include_str!("registry.py")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut server = command.spawn().expect("python3 is there");
        let stdout = server.stdout.take().expect("it is piped");
        let port = BufReader::new(stdout).lines().next_line().await.expect("readable");
        let port = port.and_then(|port| port.parse().ok()).expect("it says where it listens");
        Self { port, _server: server }
    }
}

#[tokio::test]
async fn an_image_that_is_not_there_is_pulled_and_its_progress_told() {
    let Some(runtime) = Runtime::docker().await else { return };
    let registry = Registry::start().await;
    let place = format!("127.0.0.1:{}", registry.port);
    let soul = |image: &str| {
        format!("MODEL test/m\nSOUL You echo.\nIMAGE {place}/{image}:1\nTIMEOUT ready=2s\n")
    };
    let souls = [("there", soul("agent")), ("missing", soul("nothing"))];
    let souls = souls.each_ref().map(|(name, soul)| (*name, soul.as_str()));
    let mut fleet = Fleet::laid_out(runtime, &souls).without_checkout();
    fleet.up(&[]).await;
    eventually("ps tells how far the pull is", async || {
        let row = fleet.row("there").await;
        let reason = row["reason"].as_str().unwrap_or_default();
        let is_told = reason.starts_with("pulling ") && reason.ends_with(" MiB");
        if is_told { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    // The pull takes longer than the worker may take to be ready: that time begins afterwards.
    let row = fleet.wait_state("there", "running").await;
    assert_eq!((&row["incarnation"], &row["restartCount"]), (&1.into(), &0.into()), "{row}");
    assert_eq!(row["reason"], serde_json::Value::Null, "it is there: {row}");
    assert_eq!(fleet.ask("there", "pulled").await, "pulled");

    let row = fleet.wait_state("missing", "error").await;
    let reason = row["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("cannot be pulled"), "{row}");

    let engine = fleet.engine().clone();
    drop(fleet);
    let (image, options) =
        (format!("{place}/agent:1"), RemoveImageOptionsBuilder::default().force(true).build());
    let removed = engine.docker().remove_image(&image, Some(options), None).await;
    let _deleted = removed.expect("it was pulled");
}
