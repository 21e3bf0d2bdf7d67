//! Streams and the end of those who speak on them.

use std::time::{Duration, Instant, SystemTime};

use common::Timestamp;
use common::control::ControlEvent;
use serde_json::Value;
use system_tests::harness::{Child, Fleet, Runtime, Signal, flaky, kill};

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["type"].as_str().unwrap_or("")).collect()
}

/// Starts a chat whose message is never answered, and waits until the worker has it.
async fn held(fleet: &Fleet, agent: &str, id: &str) -> Child {
    let chat = fleet.spawn_cli(["chat", agent, "hold", "--id", id, "-o", "json"]);
    let _has_it = fleet.wait_seen_message(agent, id).await;
    chat
}

/// Row 12.
pub(super) async fn stream_chat_terminates_with_error_when_container_crashes(runtime: Runtime) {
    let fleet = runtime.fleet(&[("agent-eb1", &flaky("RESTART always backoff=300ms"))]).await;
    let text = "say one; sleep 0.3; crash until 2; say two";
    let output = fleet.cli(["chat", "agent-eb1", text, "-o", "json"]).await;
    assert_eq!(output.code, 5, "it is tried again: {output}");
    let lines = output.json_lines();
    assert_eq!(kinds(&lines), ["text", "error", "done"], "{output}");
    let error = lines[1]["error"].as_str().expect("it says why");
    assert!(error.contains("exit code 1"), "{error}");
    // The stream has ended; the message goes on.
    let id = lines[2]["messageId"].as_str().expect("it has an id").to_owned();
    let row = fleet.wait_status(&id, "completed").await.row;
    assert_eq!((row.response.as_deref(), row.attempts), (Some("onetwo"), 2));

    // A follower sees the error, then `reset` and the next attempt.
    let text = "say one; sleep 0.3; crash until 3; say two";
    let lines =
        fleet.cli(["chat", "agent-eb1", text, "--follow", "-o", "json"]).await.ok().json_lines();
    let kinds = kinds(&lines);
    let reset = kinds.iter().position(|kind| *kind == "reset").expect("a second attempt");
    assert_eq!(kinds[..reset], ["text", "error"], "{lines:?}");
    assert!(lines[1]["error"].as_str().is_some_and(|error| error.contains("exit code 1")));
    let after: String = lines[reset..].iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(after, "onetwo");
    let done = lines.last().expect("a last line");
    assert_eq!(
        (&done["type"], &done["status"], &done["attempt"]),
        (&"done".into(), &"completed".into(), &2.into())
    );
}

/// Row 13.
pub(super) async fn stop_closes_event_bus_and_terminates_active_streams(runtime: Runtime) {
    let soul = runtime.seed("CONCURRENCY 3\nTIMEOUT drain=20s");
    let fleet = runtime.fleet(&[("agent-eb2", &soul), ("other", &soul)]).await;
    let mut streams = Vec::new();
    for id in ["m1", "m2"] {
        streams.push(held(&fleet, "agent-eb2", id).await);
    }
    streams.push(fleet.spawn_cli([
        "chat",
        "agent-eb2",
        "hold",
        "--id",
        "m3",
        "--follow",
        "-o",
        "json",
    ]));
    let _has_it = fleet.wait_seen_message("agent-eb2", "m3").await;
    let mut untouched = held(&fleet, "other", "m4").await;

    let _stopped = fleet.cli(["stop", "agent-eb2"]).await.ok();
    let began = Instant::now();
    for stream in streams {
        let output = stream.output().await.exit(5);
        let lines = output.json_lines();
        assert_eq!(kinds(&lines), ["error", "done"], "{output}");
        assert_eq!(lines[0]["error"], "agent-eb2 was stopped");
    }
    // They do not wait for the turns to drain.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // The streams of others go on.
    kill(fleet.worker("other"), Signal::USR1);
    let line = untouched.json().await.expect("a line");
    assert!(line["error"].as_str().is_some_and(|error| error.contains("exit code 1")), "{line}");
}

/// Row 14.
pub(super) async fn restart_closes_old_event_bus_before_creating_new_container(runtime: Runtime) {
    let soul = runtime.seed("CONCURRENCY 2\nTIMEOUT drain=1s\nRESTART always backoff=20s");
    let fleet = runtime.fleet(&[("agent-eb3", &soul)]).await;
    // Of a running agent.
    let subscriber = held(&fleet, "agent-eb3", "m1").await;
    let (ended, ()) = tokio::join!(
        async {
            let output = subscriber.output().await.exit(5);
            (Timestamp::from(SystemTime::now()), output)
        },
        async {
            let _restarted = fleet.cli(["restart", "agent-eb3"]).await.ok();
        }
    );
    let (ended, output) = ended;
    assert_eq!(kinds(&output.json_lines()), ["error", "done"], "{output}");
    let started = ready(&fleet, 2).await;
    assert!(ended < started, "the stream ended at {ended:?}, the new one was ready at {started:?}");

    // Of one that has crashed, and whose restart is not due yet.
    let _runs = fleet.wait_incarnation("agent-eb3", 2).await;
    let subscriber = held(&fleet, "agent-eb3", "m2").await;
    kill(fleet.worker("agent-eb3"), Signal::USR1);
    let output = subscriber.output().await.exit(5);
    let ended = Timestamp::from(SystemTime::now());
    assert_eq!(kinds(&output.json_lines()), ["error", "done"], "{output}");
    let _down = fleet.wait_state("agent-eb3", "error").await;
    let _restarted = fleet.cli(["restart", "agent-eb3"]).await.ok();
    let started = ready(&fleet, 3).await;
    assert!(ended < started);
    assert_eq!(fleet.wait_incarnation("agent-eb3", 3).await["restartCount"], 1);
}

async fn ready(fleet: &Fleet, number: u64) -> Timestamp {
    let is_it = |event: &ControlEvent| matches!(event, ControlEvent::IncarnationReady { incarnation, .. } if *incarnation == number);
    fleet.wait_record("agent-eb3", "the new one is ready", is_it).await.at
}
