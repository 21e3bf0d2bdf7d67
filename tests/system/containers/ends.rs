//! How containers end, and how that is told.

use serde_json::{Value, json};
use system_tests::harness::{Fleet, Runtime, Signal, eventually, flaky, kill};

use super::{ask, probe};

/// The end of an incarnation of which a message died: as the row, the explanation and the dead letter tell it, once the next one runs.
async fn told(fleet: &Fleet, agent: &str, message: &str, next: u64) -> [String; 3] {
    let row = fleet.wait_incarnation(agent, next).await;
    let _failed = fleet.wait_status(message, "failed").await;
    let letter = eventually("it is a dead letter", async || {
        let shown = fleet.cli(["dead", "show", message, "-o", "json"]).await;
        if shown.code == 0 { Ok(shown.stdout) } else { Err(shown.to_string()) }
    })
    .await;
    let last = row["lastExit"].as_str().unwrap_or_default().to_owned();
    [last, fleet.cli(["explain", message]).await.ok().stdout, letter]
}

#[tokio::test]
async fn a_worker_that_eats_more_than_it_may_is_told_to_be_out_of_memory() {
    let Some(runtime) = Runtime::docker().await else { return };
    let soul = probe("LIMIT memory=32m\nATTEMPTS 1");
    let fleet = runtime.fleet(&[("w", &soul)]).await;
    let fatal = fleet.send("w", "len(b'x' * (64 << 20))").await;
    for text in told(&fleet, "w", &fatal, 2).await {
        assert!(text.contains("exit code 137 (signal 9), out of memory"), "{text}");
    }
    // Its successor is none the worse for it.
    assert_eq!(ask(&fleet, "w", "len(b'x' * (1 << 20))").await, 1 << 20);
    // And a killed worker is not said to have been one.
    kill(fleet.worker("w"), Signal::KILL);
    let row = fleet.wait_incarnation("w", 3).await;
    assert_eq!(row["lastExit"], "exit code 137 (signal 9)");
}

#[tokio::test]
async fn exit_codes_and_signals_are_told_as_they_were() {
    let Some(runtime) = Runtime::docker().await else { return };
    let soul = probe("ATTEMPTS 1");
    let fleet = runtime.fleet(&[("w", &soul)]).await;
    let ends = [
        ("os._exit(3)", "exit code 3"),
        ("os._exit(0)", "exit code 0"),
        ("os.kill(os.getpid(), signal.SIGSEGV) or time.sleep(9)", "exit code 139 (signal 11)"),
        ("os.kill(os.getpid(), signal.SIGTERM) or time.sleep(9)", "exit code 143 (signal 15)"),
    ];
    for ((expression, end), next) in ends.into_iter().zip(2..) {
        let fatal = fleet.send("w", expression).await;
        for text in told(&fleet, "w", &fatal, next).await {
            assert!(text.contains(end), "{expression}: {text}");
        }
    }
}

#[tokio::test]
async fn what_others_do_to_a_container_is_an_end_like_any_other() {
    let Some(runtime) = Runtime::docker().await else { return };
    let fleet = runtime.fleet(&[("w", &flaky("ATTEMPTS 9"))]).await;
    let held = fleet.send("w", "sleep 5; say done").await;
    let docker = fleet.engine().docker().clone();
    let mut incarnation = 1;
    let mut again = async |fleet: &Fleet| {
        incarnation += 1;
        let row = fleet.wait_incarnation("w", incarnation).await;
        let _has_it = fleet.wait_status(&held, "acknowledged").await;
        row["lastExit"].as_str().unwrap_or_default().to_owned()
    };
    let _has_it = fleet.wait_status(&held, "acknowledged").await;
    // Its shim has no time for last words.
    docker.kill_container(&fleet.container("w"), None).await.expect("it runs");
    assert_eq!(
        again(&fleet).await,
        "its shim ended without reporting an exit status (exit code 137 (signal 9))"
    );
    fleet.engine().remove(&fleet.container("w")).await;
    let lost = again(&fleet).await;
    assert!(
        lost.contains("its shim ended without reporting an exit status")
            || lost.contains("no longer has its container"),
        "{lost}"
    );
    // This one has, and finishes what it has begun.
    docker.stop_container(&fleet.container("w"), None).await.expect("it runs");
    let row = fleet.wait_incarnation("w", 4).await;
    assert_eq!(fleet.wait_status(&held, "completed").await.row.response.as_deref(), Some("done"));
    assert_eq!(row["restartCount"], 3);
    assert_eq!(fleet.containers().await.len(), 1, "ended ones do not stay");
}

#[tokio::test]
async fn down_leaves_no_container() {
    let Some(runtime) = Runtime::docker().await else { return };
    let fleet = runtime.fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let id = fleet.send("a", "sleep 1; say done").await;
    let _has_it = fleet.wait_status(&id, "acknowledged").await;
    assert_eq!(fleet.containers().await.len(), 2);
    let _down = fleet.cli(["down"]).await.ok();
    let left = fleet.containers().await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(fleet.processes(), []);
    let _up = fleet.cli(["up", "-d", "--dev"]).await.ok();
    let row = fleet.wait_state("a", "running").await;
    assert_eq!((&row["restartCount"], &row["lastExit"]), (&json!(0), &Value::Null), "{row}");
    assert_eq!(fleet.show(&id).await.row.response.as_deref(), Some("done"));
    let _down = fleet.cli(["down"]).await.ok();
}
