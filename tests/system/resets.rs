//! A broker that was emptied, replaced or restored under a used data folder, and `mozart reset`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use system_tests::harness::{Fleet, Output, Signal, alive, flaky, kill};

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("it is there").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).expect("copied");
        }
    }
}

async fn up(fleet: &Fleet) {
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let _up = fleet.cli(["up", &souls, "-d", "--wait"]).await.ok();
}

/// It runs as if it had never run before.
async fn is_new(fleet: &Fleet, agent: &str) {
    let row: Value = fleet.row(agent).await;
    let expected = ("running".into(), 0.into(), 1.into());
    let found = (row["state"].clone(), row["restartCount"].clone(), row["incarnation"].clone());
    assert_eq!(found, expected, "{row}");
    assert_eq!(fleet.ask(agent, "say hello").await, "hello");
}

#[tokio::test]
async fn a_broker_that_was_emptied_begins_a_fleet_of_its_own() {
    let fleet = Fleet::new(&[("a", &flaky("")), ("b", &flaky(""))]);
    up(&fleet).await;
    let _done = fleet.cli(["restart", "a"]).await.ok();
    let _row = fleet.wait_incarnation("a", 2).await;
    let _down = fleet.cli(["down"]).await.ok();
    fs::remove_dir_all(fleet.home().join("nats")).expect("removed");
    up(&fleet).await;
    is_new(&fleet, "a").await;
    is_new(&fleet, "b").await;

    // With all of it killed but the shims: these are of a fleet that is no more.
    let shims = [fleet.shims("a"), fleet.shims("b")].concat();
    let nats = fleet.nats_pid().expect("it runs");
    for pid in [fleet.up_pid(), nats] {
        kill(pid, Signal::KILL);
    }
    while alive(nats) {
        tokio::task::yield_now().await;
    }
    fs::remove_dir_all(fleet.home().join("nats")).expect("removed");
    up(&fleet).await;
    is_new(&fleet, "a").await;
    is_new(&fleet, "b").await;
    assert!(!shims.iter().any(|shim| alive(*shim)), "{shims:?}");
    assert_eq!((fleet.shims("a").len(), fleet.shims("b").len()), (1, 1));
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn data_of_an_earlier_time_invents_no_restarts() {
    for later in [1, 3] {
        let fleet = Fleet::new(&[("a", &flaky(""))]);
        up(&fleet).await;
        let id = fleet.send("a", "say before").await;
        fleet.wait_status(&id, "completed").await;
        let _down = fleet.cli(["down"]).await.ok();
        let (data, kept) = (fleet.home().join("nats/data"), fleet.souls().join("backup"));
        copy(&data, &kept);
        let before = {
            up(&fleet).await;
            fleet.row("a").await["incarnation"].as_u64().expect("a number")
        };
        for more in 1..=later {
            let _done = fleet.cli(["restart", "a"]).await.ok();
            let _row = fleet.wait_incarnation("a", before + more).await;
        }
        let _down = fleet.cli(["down"]).await.ok();
        fs::remove_dir_all(&data).expect("removed");
        copy(&kept, &data);
        up(&fleet).await;
        let row = fleet.row("a").await;
        let expected = ("running".into(), 0.into(), before.into());
        let found = (row["state"].clone(), row["restartCount"].clone(), row["incarnation"].clone());
        assert_eq!(found, expected, "{later} later: {row}");
        assert_eq!(fleet.ask("a", "say hello").await, "hello");
        assert_eq!(fleet.json(["journal", "show", &id]).await["status"], "completed");
        let _down = fleet.cli(["down"]).await.ok();
    }
}

#[tokio::test]
async fn a_reset_shows_what_there_is_and_empties_what_is_asked_for() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let _nothing = fleet.cli(["reset", "--all"]).await.ok();
    up(&fleet).await;
    let _done = fleet.cli(["restart", "a"]).await.ok();
    let _row = fleet.wait_incarnation("a", 2).await;
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    fleet.cli(["reset", "--all", "--yes"]).await.exit(4).says("is still running");
    let _usage = fleet.cli(["reset"]).await.exit(2);
    let _down = fleet.cli(["down"]).await.ok();

    let shown = fleet.cli(["reset", "--messages", "-o", "json"]).await.ok().json();
    assert_eq!(shown["dryRun"], true);
    let streams = shown["streams"].as_array().expect("a list").iter();
    let records = |name: &str| {
        let mut named = streams.clone().filter(|one| one["stream"] == name);
        named.next().and_then(|one| one["records"].as_u64())
    };
    assert!(records("JOURNAL") >= Some(2) && records("CONTROL").is_none(), "{shown}");
    let _emptied = fleet.cli(["reset", "--messages", "--yes"]).await.ok();
    assert!(fleet.processes().is_empty(), "its server is gone");
    up(&fleet).await;
    assert_eq!(fleet.json(["journal", "ls"]).await, Value::Array(Vec::new()));
    let row = fleet.row("a").await;
    assert!(row["incarnation"].as_u64() > Some(2) && row["messageCount"] == 0, "{row}");
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    let _down = fleet.cli(["down"]).await.ok();

    let kept = fleet.home().join("nats/data");
    let _shown = fleet.cli(["reset", "--all"]).await.ok();
    assert!(kept.is_dir(), "nothing was confirmed");
    let _emptied = fleet.cli(["reset", "--all", "--yes"]).await.ok();
    assert!(!kept.exists());
    up(&fleet).await;
    is_new(&fleet, "a").await;
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn a_fleet_whose_data_was_removed_is_told_of_once() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let up = async || fleet.cli(["up", &souls, "-d", "--wait"]).await.ok();
    let is_told = |up: &Output| up.stderr.contains("the broker has no data of fleet");
    assert!(!is_told(&up().await));
    let _down = fleet.cli(["down"]).await.ok();
    // Before the next `up` makes an empty fleet, and once the data is back.
    let (data, away) = (fleet.home().join("nats/data"), fleet.home().join("away"));
    fs::rename(&data, &away).expect("moved");
    let doctor = fleet.cli(["doctor"]).await.exit(1);
    assert!(doctor.stdout.contains("`mozart up` would begin with an empty fleet"), "{doctor}");
    assert!(doctor.stdout.contains("put the folder back from a backup"), "{doctor}");
    assert!(is_told(&up().await));
    let _down = fleet.cli(["down"]).await.ok();
    fs::remove_dir_all(&data).expect("removed");
    fs::rename(&away, &data).expect("moved back");
    let back = up().await.says("this is again fleet").says("which this folder served before");
    assert!(!is_told(&back), "{back}");
    let _down = fleet.cli(["down"]).await.ok();
    fs::remove_dir_all(fleet.home().join("nats")).expect("removed");
    assert!(is_told(&up().await));
    let _down = fleet.cli(["down"]).await.ok();
    assert!(!is_told(&up().await));
    let _down = fleet.cli(["down"]).await.ok();
    // Asked for, it is no news.
    let _reset = fleet.cli(["reset", "--all", "--yes"]).await.ok();
    assert!(!is_told(&up().await));
    let _down = fleet.cli(["down"]).await.ok();
}
