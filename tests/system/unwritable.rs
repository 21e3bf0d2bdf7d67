//! What diagnoses and what stops works also where nothing can be written, and where files of a fleet that runs were removed.

use std::fs;
use std::path::Path;

use serde_json::Value;
use system_tests::harness::{Fleet, Output, Signal, alive, eventually, flaky, kill};
use tokio::process::Command;

/// Runs `mozart` where the data folder is read-only, in a mount namespace of its own; none where this process may not make one.
#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
async fn read_only(fleet: &Fleet, args: &[&str]) -> Option<Output> {
    const LINE: &str =
        r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" || exit 77; exec "$@""#;
    let inner = fleet.command(args);
    let inner = inner.as_std();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", LINE]);
    command.arg(fleet.home()).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(fleet.souls()).kill_on_drop(true);
    let output = system_tests::harness::run(command).await;
    if output.code == 77 {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "cannot mount: {output}");
        eprintln!("SKIPPED, since it needs a mount namespace of its own: {output}");
        return None;
    }
    Some(output)
}

fn check<'a>(checks: &'a Value, name: &str) -> &'a Value {
    let mut all = checks.as_array().expect("a list").iter();
    all.find(|one| one["check"] == name).unwrap_or_else(|| panic!("no check {name}: {checks}"))
}

#[tokio::test]
async fn a_read_only_folder_keeps_nobody_from_looking_and_stopping() {
    let mut fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let Some(rows) = read_only(&fleet, &["ps", "-o", "json"]).await else { return };
    assert_eq!(rows.ok().json()[0]["state"], "running");
    let checks = read_only(&fleet, &["doctor", "-o", "json"]).await.expect("it mounts").exit(1);
    let checks = checks.json();
    let disk = check(&checks, "disk");
    assert_eq!(disk["health"], "fail", "{checks}");
    let found = disk["found"].as_str().expect("it says what");
    assert!(found.starts_with("cannot write to"), "{found}");
    // A second one finds the first.
    let pid = fleet.up_pid();
    let _up = read_only(&fleet, &["up", "-d"]).await.expect("it mounts").ok();
    assert_eq!(fleet.up_pid(), pid);
    let down = read_only(&fleet, &["down"]).await.expect("it mounts").ok();
    assert!(!alive(pid), "{down}");
    assert!(fleet.processes().is_empty());
    let _gone = fleet.take_up();

    // What a killed one has left is ended as well.
    fleet.up(&[]).await;
    let _done = fleet.cli(["apply", fleet.souls().to_str().expect("text"), "--wait"]).await.ok();
    fleet.kill_up().await;
    assert!(!fleet.processes().is_empty());
    let down = read_only(&fleet, &["down"]).await.expect("it mounts");
    assert!(fleet.processes().is_empty(), "{down}");
    // And none is started there.
    let up = read_only(&fleet, &["up", "-d"]).await.expect("it mounts").exit(7);
    up.says("Read-only file system");
}

#[tokio::test]
async fn a_fleet_whose_notes_are_removed_is_found_and_stopped() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let _up = fleet.cli(["up", &souls, "-d", "--wait"]).await.ok();
    let pid = fleet.up_pid();
    // All that is a file, and what nats-server was started with.
    let nats = fleet.nats_pid().expect("it runs");
    let folders = [fleet.home().to_owned(), fleet.home().join("nats")];
    for entry in folders.iter().flat_map(|folder| fs::read_dir(folder).expect("it is there")) {
        let path = entry.expect("readable").path();
        if path.is_file() {
            fs::remove_file(path).expect("removed");
        }
    }
    let files = ["mozart.json", "identity", "node", "nats/access.json", "nats/nats.conf"];
    eventually("they are back", async || {
        let missing = files.iter().find(|file| !fleet.home().join(file).exists());
        missing.map_or(Ok(()), |file| Err((*file).to_owned()))
    })
    .await;
    assert_eq!(fleet.up_pid(), pid);
    // A server that dies is started again with them.
    kill(nats, Signal::KILL);
    eventually("it answers", async || {
        let said = fleet.cli(["send", "a", "say hello", "--wait", "--timeout", "5s"]).await;
        if said.code == 0 { Ok(()) } else { Err(said.to_string()) }
    })
    .await;
    // A second one finds the first.
    let again = fleet.cli(["up", &souls, "-d", "--wait"]).await.ok();
    again.says("generation 1: unchanged");
    assert_eq!(fleet.up_pid(), pid);
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    // Without the note as well.
    fs::remove_file(fleet.home().join("mozart.json")).expect("it is there");
    let _down = fleet.cli(["down"]).await.ok();
    assert!(!alive(pid));
    assert!(fleet.processes().is_empty());
}

#[tokio::test]
async fn data_that_is_removed_under_a_server_is_told_of_and_takes_no_messages() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    fs::remove_dir_all(fleet.home().join("nats/data")).expect("removed");
    let checks = fleet.cli(["doctor", "-o", "json"]).await.exit(1).json();
    assert_eq!(check(&checks, "data")["health"], "fail", "{checks}");
    let _rows = fleet.cli(["ps"]).await.ok();
    let refused = eventually("a message is refused", async || {
        let sent = fleet.cli(["send", "a", "say more"]).await;
        if sent.code == 9 { Ok(sent) } else { Err(sent.to_string()) }
    })
    .await;
    let _said = refused.says("was removed or replaced");
    let nats = fleet.nats_pid().expect("it runs");
    let _down = fleet.cli(["down"]).await.ok();
    assert!(!alive(nats) && fleet.processes().is_empty());
    // And begins anew.
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let _up = fleet.cli(["up", &souls, "-d", "--wait"]).await.ok();
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn a_health_check_stores_something() {
    let fleet = Fleet::with(&[]).await;
    let checks = fleet.cli(["doctor", "--only", "broker", "-o", "json"]).await.ok().json();
    let store = check(&checks, "store");
    assert!(store["found"].as_str().is_some_and(|found| found.starts_with("a record was stored")));
    assert!(Path::new("/proc").exists());
}

#[tokio::test]
async fn data_that_is_removed_under_a_running_server_takes_no_more_messages() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    for gone in ["nats/data/jetstream/APP/streams/MOZART_default_JOURNAL_0", "nats"] {
        let (gone, away) = (fleet.home().join(gone), fleet.home().join("away"));
        fs::rename(&gone, &away).expect("moved");
        let refused = eventually("messages are refused", async || {
            let sent = fleet.cli(["send", "a", "say lost"]).await;
            if sent.stdout.is_empty() { Ok(sent) } else { Err(sent.to_string()) }
        })
        .await;
        refused.exit(9).says("the broker's data was removed").says("from a backup");
        // What `up` puts back by itself, now and then, gives way to what was there.
        while fs::rename(&away, &gone).is_err() {
            let _made = fs::remove_dir_all(&gone);
        }
        eventually("messages are taken again", async || {
            let sent = fleet.cli(["send", "a", "say again"]).await;
            if sent.stderr.is_empty() { Ok(()) } else { Err(sent.to_string()) }
        })
        .await;
    }
}
