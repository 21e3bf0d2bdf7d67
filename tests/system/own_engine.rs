//! An engine that goes away and comes back, with agents in it.

use common::control::ControlEvent;
use system_tests::harness::{Fleet, OwnEngine, Signal, eventually};

const SOUL: &str = "MODEL test/echo\nSOUL You echo.\nRESTART always backoff=200ms..1s\n";

#[tokio::test]
async fn an_engine_that_dies_or_is_stopped_and_comes_back_costs_no_message() {
    let Some(mut engine) = OwnEngine::start().await else { return };
    let souls = [("one", SOUL), ("two", SOUL)];
    let mut fleet = Fleet::new(&souls)
        .env("MOZART_RUNTIME", "docker")
        .env("MOZART_NETWORK", "host")
        .env("MOZART_SHIM", &engine.shim().to_string_lossy())
        .env("DOCKER_HOST", &engine.address());
    fleet.up(&[]).await;
    for (name, _) in souls {
        let _row = fleet.wait_state(name, "running").await;
        assert_eq!(fleet.ask(name, "before").await, "before");
    }

    // Killed, it leaves its containers alone: nobody is believed to have ended, and everybody answers.
    engine.end(Signal::KILL).await;
    eventually("the node has noticed", async || {
        let log = fleet.control().await;
        let last = log.into_iter().rev().find_map(|record| {
            if let ControlEvent::NodeSeen { runtimes, .. } = record.event {
                Some(runtimes)
            } else {
                None
            }
        });
        if last == Some(Vec::new()) { Ok(()) } else { Err(format!("{last:?}")) }
    })
    .await;
    for (name, _) in souls {
        assert_eq!(fleet.ask(name, "without an engine").await, "without an engine");
        let row = fleet.row(name).await;
        assert_eq!((&row["state"], &row["incarnation"]), (&"running".into(), &1.into()), "{row}");
    }
    // Started again, docker stops what ran before: crashes as far as anybody can tell.
    engine.begin().await;
    for (name, _) in souls {
        let _row = again(&fleet, name, 1).await;
        assert_eq!(fleet.ask(name, "afterwards").await, "afterwards");
    }

    // Stopped in order, it takes its containers along. What is sent meanwhile waits, and nobody is to blame.
    engine.end(Signal::TERM).await;
    let mut waiting = Vec::new();
    for (name, _) in souls {
        let row = eventually("it is down, with the reason", async || {
            let row = fleet.row(name).await;
            let reason = row["reason"].as_str().unwrap_or_default();
            let is_told = reason.contains("does not answer") || reason.contains("answers");
            if is_told && row["state"] != "running" { Ok(row) } else { Err(row.to_string()) }
        })
        .await;
        assert_eq!(row["generation"], 1);
        waiting.push(fleet.send(name, "meanwhile").await);
    }
    engine.begin().await;
    for message in waiting {
        let row = fleet.wait_status(&message, "completed").await.row;
        assert_eq!((row.response.as_deref(), row.attempts), (Some("meanwhile"), 1));
    }
    for (name, _) in souls {
        let row = fleet.wait_state(name, "running").await;
        let restarts = row["restartCount"].as_u64().expect("a count");
        assert!(restarts <= 3, "a start that no engine could make was held against it: {row}");
    }

    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(engine.list().await, Ok(Vec::new()), "containers are left over");
}

/// Waits until an agent runs as a later incarnation.
async fn again(fleet: &Fleet, agent: &str, before: u64) -> u64 {
    eventually(&format!("{agent} runs again"), async || {
        let row = fleet.row(agent).await;
        let incarnation = row["incarnation"].as_u64().unwrap_or_default();
        let is_it = row["state"] == "running" && incarnation > before;
        if is_it { Ok(incarnation) } else { Err(row.to_string()) }
    })
    .await
}
