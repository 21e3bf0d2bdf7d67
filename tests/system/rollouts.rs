//! What the command line says of rollouts and stops is what is.

use std::fs;
use std::time::{Duration, Instant};

use system_tests::harness::{Fleet, eventually, flaky};

/// A worker whose file is not there.
fn broken() -> String {
    flaky("WORKER [\"python3\", \"gone.py\"]\nRESTART always max=2/1m backoff=100ms..200ms")
}

#[tokio::test]
async fn a_failed_rollout_does_not_look_like_success() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let soul = fleet.soul("a", &broken());
    let soul = soul.to_str().expect("text");
    let applied = fleet.cli(["apply", soul, "--wait"]).await.exit(1);
    applied.says("generation 2 of a was given up, generation 1 is running").says("gone.py");
    let shown = fleet.cli(["ps"]).await.ok();
    assert!(shown.stdout.contains("1 (2 failed)"), "{shown}");
    let reason = fleet.row("a").await["reason"].as_str().unwrap_or_default().to_owned();
    let whole = fleet.cli(["ps", "--no-trunc"]).await.ok();
    assert!(whole.stdout.contains(&reason), "{whole}");
    fleet.cli(["wait", "a"]).await.exit(1).says("generation 2 of a was given up");
    let souls = fleet.souls().to_str().expect("text").to_owned();
    fleet.cli(["up", &souls, "-d", "--wait"]).await.exit(1).says("generation 2 of a was given up");
    assert_eq!(fleet.ask("a", "say still here").await, "still here");
    // There is nothing to undo: the generation that was good runs.
    let undone = fleet.cli(["rollout", "undo", "a"]).await.exit(4);
    let _said =
        undone.says("generation 1 of a is already in use").says("generation 2 was given up");
    let states = fleet.json(["rollout", "history", "a"]).await;
    assert_eq!((&states[0]["state"], &states[1]["state"]), (&"failed".into(), &"running".into()));

    // Repaired, it runs.
    let soul = fleet.soul("a", &flaky("LABEL version=3"));
    let _done = fleet.cli(["apply", soul.to_str().expect("text"), "--wait"]).await.ok();
    let row = fleet.row("a").await;
    assert_eq!((&row["generation"], &row["runningGeneration"]), (&3.into(), &3.into()), "{row}");
    let _done = fleet.cli(["wait", "a"]).await.ok();
}

#[tokio::test]
async fn waiting_is_for_the_generation_that_was_asked_for() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let soul = fleet.soul("a", &flaky("ENV FLAKY_START=\"slow 2\""));
    let began = Instant::now();
    let _done = fleet.cli(["apply", soul.to_str().expect("text"), "--wait"]).await.ok();
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(fleet.row("a").await["runningGeneration"], 2);
    // Nobody waits for what somebody has stopped.
    let _done = fleet.cli(["stop", "a"]).await.ok();
    let soul = fleet.soul("a", &flaky("LABEL version=3"));
    let _done =
        fleet.cli(["apply", soul.to_str().expect("text"), "--wait", "--timeout", "5s"]).await.ok();
}

#[tokio::test]
async fn what_still_answers_is_not_stopped() {
    let fleet = Fleet::with(&[("a", &flaky("TIMEOUT drain=20s"))]).await;
    let id = fleet.send("a", "count 20 0.1").await;
    fleet.wait_status(&id, "acknowledged").await;
    let _done = fleet.cli(["stop", "a"]).await.ok();
    eventually("it is stopping", async || {
        let row = fleet.row("a").await;
        if row["state"] == "stopping" { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    // Shown without -a, too.
    let shown = fleet.cli(["ps"]).await.ok();
    assert!(shown.stdout.contains("stopping"), "{shown}");
    let _done = fleet.cli(["wait", "a", "--for", "stopped"]).await.ok();
    assert_eq!(fleet.shims("a"), [0; 0]);
    assert_eq!(fleet.show(&id).await.row.status, common::message::Status::Completed);
}

#[tokio::test]
async fn what_will_not_act_is_said_when_a_soul_is_checked_and_applied() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let more = "ENV PATH=/x:$PATH\nLIMIT memory=1G";
    let soul = fleet.soul("b", &flaky(more));
    let soul = soul.to_str().expect("text");
    for command in ["validate", "apply"] {
        let said = fleet.cli([command, soul]).await.ok();
        for warning in ["ENV PATH: `$PATH`", "LIMIT applies to containers"] {
            assert!(said.stderr.contains(warning), "{command}: {said}");
        }
    }
}

#[tokio::test]
async fn generations_are_listed_and_gone_back_to() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    for version in ["two", "three"] {
        let soul = fleet.soul("a", &flaky(&format!("LABEL version={version}")));
        let _done = fleet.cli(["apply", soul.to_str().expect("text"), "--wait"]).await.ok();
    }
    let history = fleet.json(["rollout", "history", "a"]).await;
    let all = history.as_array().expect("a list").iter();
    let numbers: Vec<_> = all.map(|one| one["generation"].as_u64()).collect();
    assert_eq!(numbers, [Some(3), Some(2), Some(1)], "{history}");
    let shown = fleet.cli(["rollout", "history", "a"]).await.ok();
    assert!(shown.stdout.contains("LABEL"), "{shown}");
    fleet
        .cli(["rollout", "undo", "a", "--to-generation", "3"])
        .await
        .exit(4)
        .says("already running");
    fleet.cli(["rollout", "undo", "a", "--to-generation", "9"]).await.exit(3).says("1, 2, 3");
    let _undone = fleet.cli(["rollout", "undo", "a", "--to-generation", "1", "--wait"]).await.ok();
    let inspect = fleet.json(["inspect", "a"]).await;
    assert_eq!((&inspect["runningGeneration"], inspect["config"].get("labels")), (&4.into(), None));
    let _undone = fleet.cli(["rollout", "undo", "a", "--wait"]).await.ok();
    assert_eq!(fleet.json(["inspect", "a"]).await["config"]["labels"]["version"], "three");
}

#[tokio::test]
async fn souls_that_are_gone_are_pruned_and_no_others() {
    let fleet = Fleet::with(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let elsewhere = fleet.souls().join("more");
    std::fs::create_dir(&elsewhere).expect("made");
    let other = elsewhere.join("other.soul");
    std::fs::write(&other, flaky("")).expect("written");
    let _done = fleet.cli(["apply", other.to_str().expect("text")]).await.ok();
    std::fs::remove_file(fleet.souls().join("b.soul")).expect("it is there");
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let diff = fleet.cli(["apply", &souls, "--prune", "--diff"]).await.ok();
    assert_eq!(diff.stdout, "a: unchanged\nb: removed\n");
    assert_eq!(fleet.json(["ps", "-a"]).await.as_array().map(Vec::len), Some(3));
    let pruned = fleet.cli(["apply", &souls, "--prune"]).await.ok();
    assert!(pruned.stdout.contains("removed"), "{pruned}");
    eventually("it is gone", async || {
        let rows = fleet.json(["ps", "-a"]).await;
        let all = rows.as_array().expect("a list").iter();
        let names: Vec<_> = all.map(|row| row["agent"].as_str()).collect();
        if names == [Some("a"), Some("other")] { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
}

/// The worker's file itself is broken: the earlier generation, which is started again, cannot run either.
#[tokio::test]
async fn a_rollout_that_failed_is_told_of_though_nothing_runs_instead() {
    let worker = "WORKER [\"python3\", \"own.py\"]\nREPLACE stop-first\nRESTART always backoff=5s";
    let fleet = Fleet::new(&[("a", &flaky(worker))]);
    let own = fleet.souls().join("own.py");
    fs::copy(fleet.souls().join("worker.py"), &own).expect("copied");
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let _up = fleet.cli(["up", &souls, "-d", "--wait"]).await.ok();
    fs::write(&own, "raise SystemExit(3)\n").expect("written");
    fleet.cli(["apply", &souls, "--wait"]).await.exit(1).says("generation 2 of a was given up");
    fleet.cli(["wait", "a"]).await.exit(1).says("generation 2 of a was given up");
    let shown = fleet.cli(["ps"]).await.ok();
    assert!(shown.stdout.contains("1 (2 failed)"), "{shown}");
    // Repaired, the next generation runs, and the failed one stays so.
    fs::copy(fleet.souls().join("worker.py"), &own).expect("copied");
    let soul = fleet.soul("a", &flaky(&format!("{worker}\nLABEL version=3")));
    let _done = fleet.cli(["apply", soul.to_str().expect("text"), "--wait"]).await.ok();
    let history = fleet.json(["rollout", "history", "a"]).await;
    let states: Vec<_> =
        history.as_array().expect("an array").iter().map(|one| one["state"].as_str()).collect();
    assert_eq!(states, [Some("running"), Some("failed"), Some("earlier")], "{history:#}");
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn nobody_waits_for_what_is_quarantined() {
    let fleet = Fleet::with(&[("b", &flaky(""))]).await;
    let soul =
        fleet.soul("a", &flaky("WORKER [\"false\"]\nRESTART always max=1/10m backoff=100ms"));
    fleet.cli(["apply", soul.to_str().expect("text"), "--wait"]).await.exit(1).says("quarantined");
    fleet.cli(["wait", "a"]).await.exit(1).says("a is quarantined").says("mozart start a");
    let _done = fleet.cli(["wait", "b"]).await.ok();
}

#[tokio::test]
async fn nobody_waits_for_what_was_stopped_or_removed() {
    let fleet = Fleet::with(&[("a", &flaky("TIMEOUT drain=20s"))]).await;
    fleet.cli(["wait", "nobody", "--for", "stopped"]).await.exit(3).says("nobody");
    let _done = fleet.cli(["stop", "a"]).await.ok();
    let _done = fleet.cli(["wait", "a", "--for", "stopped"]).await.ok();
    fleet.cli(["wait", "a"]).await.exit(1).says("a is stopped").says("mozart start a");
    let _done = fleet.cli(["start", "a"]).await.ok();
    let _done = fleet.cli(["wait", "a"]).await.ok();
    // Removed, it still finishes what it has.
    let id = fleet.send("a", "count 20 0.1").await;
    fleet.wait_status(&id, "acknowledged").await;
    let _done = fleet.cli(["rm", "a"]).await.ok();
    fleet.cli(["start", "a"]).await.exit(3).says("it was removed");
    let _done = fleet.cli(["wait", "a", "--for", "stopped"]).await.ok();
    assert_eq!(fleet.shims("a"), [0; 0]);
    fleet.cli(["inspect", "a"]).await.exit(3).says("it was removed");
}
