//! `mozart replace`: the way back from a generation that never becomes ready, by itself and by hand, and another image.

use system_tests::harness::{Fleet, eventually, flaky};

const QUICK: &str = "REPLACE stop-first\nTIMEOUT ready=2s drain=500ms\n";
const NEVER_READY: &str = "ENV FLAKY_START=never-ready";

/// The value of a variable in the only worker of an agent.
fn variable(fleet: &Fleet, agent: &str, name: &str) -> String {
    let worker = fleet.worker(agent);
    let processes = fleet.processes_of(agent).into_iter();
    processes.filter(|one| one.pid == worker).map(|one| one.var(name).to_owned()).collect()
}

#[tokio::test]
async fn with_stop_first_a_worker_that_is_never_ready_gives_way_to_the_old_one() {
    let fleet = Fleet::with(&[("w", &flaky(QUICK))]).await;
    fleet
        .cli(["replace", "w", "--rollback"])
        .await
        .exit(4)
        .says("nothing to go back to")
        .says("try:");

    let bad = fleet.soul("w", &flaky(&format!("{QUICK}{NEVER_READY}")));
    let _applied = fleet.cli(["apply".as_ref(), bad.as_os_str()]).await.ok();
    let row = eventually("the old generation runs again", async || {
        let row = fleet.row("w").await;
        let is_back = row["state"] == "running" && row["givenUp"].is_string();
        if is_back { Ok(row) } else { Err(row.to_string()) }
    })
    .await;
    let reason = "generation 2 was given up: it was not ready within 2s; generation 1 runs again";
    assert_eq!(row["reason"], reason, "{row}");
    assert_eq!((&row["generation"], &row["runningGeneration"]), (&2.into(), &1.into()), "{row}");
    assert_eq!((&row["incarnation"], &row["restartCount"]), (&3.into(), &0.into()), "{row}");
    assert_eq!(fleet.ask("w", "say hello").await, "hello");

    // Whoever waits for it is told.
    let again = fleet.cli(["replace", "w", "--wait"]).await.exit(1);
    again.says("w was not replaced").says(reason);
    assert_eq!(fleet.ask("w", "say hello").await, "hello");
    let explained = fleet.cli(["explain", "w"]).await.ok();
    assert!(explained.stdout.contains("was rolled back: it "), "{explained}");

    let mended = fleet.soul("w", &flaky(&format!("{QUICK}ENV VERSION=3")));
    let _applied = fleet.cli(["apply".as_ref(), mended.as_os_str()]).await.ok();
    let _row = fleet.wait_incarnation("w", 6).await;
    assert_eq!(variable(&fleet, "w", "VERSION"), "3");
}

#[tokio::test]
async fn a_rollback_by_hand_is_a_new_generation_of_the_one_before() {
    let version = |number: u32| flaky(&format!("ENV VERSION={number}"));
    let fleet = Fleet::with(&[("w", &version(1))]).await;
    let second = fleet.soul("w", &version(2));
    let _applied = fleet.cli(["apply".as_ref(), second.as_os_str()]).await.ok();
    let _row = fleet.wait_incarnation("w", 2).await;

    let back = fleet.json(["replace", "w", "--rollback", "--wait"]).await;
    let expected = serde_json::json!(
        [{"agent": "w", "generation": 3, "changed": true, "created": false, "previousIncarnation": 2}]
    );
    assert_eq!(back, expected);
    let row = fleet.wait_incarnation("w", 3).await;
    assert_eq!((&row["generation"], &row["runningGeneration"]), (&3.into(), &3.into()), "{row}");
    assert_eq!(variable(&fleet, "w", "VERSION"), "1");
    assert_eq!(fleet.ask("w", "say hello").await, "hello");
    let events = fleet.cli(["events"]).await.ok();
    assert!(events.stdout.contains("requested: rollback to generation 1"), "{events}");
    // And forth again.
    let forth = fleet.cli(["replace", "w", "--rollback", "--wait"]).await.ok();
    assert_eq!(forth.stdout, "w\n");
    let _row = fleet.wait_incarnation("w", 4).await;
    assert_eq!(variable(&fleet, "w", "VERSION"), "2");
}

#[tokio::test]
async fn an_image_that_no_node_can_run_stops_nothing() {
    for more in ["REPLACE start-first", "REPLACE stop-first"] {
        let fleet = Fleet::with(&[("w", &flaky(more))]).await;
        let worker = fleet.worker("w");
        fleet.cli(["replace", "w", "--image", "Python:3"]).await.exit(2).says("`python:3`");
        let asked = ["replace", "w", "--image", "python:3", "--wait", "--timeout", "1s"];
        let why = "has no docker or podman that answers; generation 1 keeps running";
        fleet.cli(asked).await.exit(5).says("generation 2 waits: no node can run it").says(why);
        let row = fleet.row("w").await;
        assert_eq!((&row["state"], &row["generation"]), (&"running".into(), &2.into()), "{row}");
        assert!(row["reason"].as_str().is_some_and(|reason| reason.ends_with(why)), "{row}");
        assert_eq!(fleet.json(["inspect", "w"]).await["config"]["image"], "python:3");
        assert_eq!(fleet.ask("w", "say hello").await, "hello");
        assert_eq!(fleet.worker("w"), worker, "{more}");
        let _back = fleet.cli(["replace", "w", "--rollback", "--wait"]).await.ok();
        // The one before ends after it was replaced.
        eventually("another worker is left alone", async || match &*fleet.workers("w") {
            [left] if *left != worker => Ok(()),
            workers => Err(format!("{workers:?}")),
        })
        .await;
    }
}
