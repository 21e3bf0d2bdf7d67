//! Where the data of a fleet that runs was removed: what runs is found and stopped, and nothing is said that is not so.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use system_tests::harness::{Fleet, Signal, alive, eventually, flaky, kill};

const REMOVED: &str = "the broker's data was removed";

/// Removes a folder, also while something is put back into it.
async fn remove(folder: &Path) {
    eventually("it is removed", async || match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.to_string()),
        Ok(()) | Err(_) => Ok(()),
    })
    .await;
}

async fn up(fleet: &Fleet) -> u32 {
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let _up = fleet.cli(["up", &souls, "-d", "--wait"]).await.ok();
    fleet.up_pid()
}

/// What `doctor` says in a check; none without it.
async fn check(fleet: &Fleet, name: &str) -> Option<(String, String)> {
    let checks = fleet.cli(["doctor", "-o", "json"]).await.json();
    let mut checks = checks.as_array().expect("a list").iter();
    let word = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let one = checks.find(|one| one["check"] == name)?;
    Some((word(one, "health"), word(one, "found")))
}

fn streams(fleet: &Fleet) -> PathBuf {
    fleet.home().join("nats/data/jetstream/APP/streams")
}

#[tokio::test]
async fn a_fleet_whose_folder_is_removed_is_found_and_stopped() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    // At once, and once there is another folder in its place.
    for is_back in [false, true] {
        let pid = up(&fleet).await;
        remove(fleet.home()).await;
        if is_back {
            eventually("the note is back", async || fleet.note().map(drop).ok_or_else(String::new))
                .await;
            let _found = fleet.cli(["up", "-d"]).await.ok();
            assert_eq!(fleet.up_pid(), pid);
            assert_eq!(fleet.row("a").await["state"], "running");
        } else {
            fleet.cli(["ps"]).await.exit(6).says(&format!("process {pid}"));
        }
        let down = fleet.cli(["down"]).await.ok();
        assert!(!alive(pid), "{down}");
        assert_eq!(fleet.processes(), [], "{down}");
        fleet.cli(["down"]).await.ok().says("nothing is running");
    }
    // What a killed one has left.
    let pid = up(&fleet).await;
    kill(pid, Signal::KILL);
    eventually("it is gone", async || if alive(pid) { Err(String::new()) } else { Ok(()) }).await;
    remove(fleet.home()).await;
    fleet.cli(["down"]).await.ok().says("was removed");
    assert_eq!(fleet.processes(), []);
}

#[tokio::test]
async fn what_is_not_found_in_removed_data_may_have_been_there() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    fleet.cli(["explain", "nobody"]).await.exit(3).says("no agent or message");
    remove(&fleet.home().join("nats/data")).await;
    let explained = fleet.cli(["explain", "a"]).await.ok();
    assert!(explained.stdout.contains(REMOVED), "{explained}");
    fleet.cli(["explain", "nobody"]).await.exit(9).says("as far as the broker still knows");
    fleet.cli(["history", "nobody"]).await.exit(9).says(REMOVED).says("from a backup");
    for read in [&["events"][..], &["journal", "ls"], &["ps"], &["usage"]] {
        fleet.cli(read).await.ok().says(REMOVED);
    }
    for name in ["log", "store", "room"] {
        let (health, found) = check(&fleet, name).await.expect("it is told");
        assert!(health == "fail" && found.starts_with(REMOVED), "{name}: {found}");
    }
    // A change would be lost with the broker's end.
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let changes = [
        &["stop", "a"][..],
        &["restart", "a"],
        &["apply", &souls],
        &["forget", "a"],
        &["up", &souls, "-d"],
    ];
    for change in changes {
        fleet.cli(change).await.exit(9).says(REMOVED).says("from a backup");
    }
    fleet.cli(["up", "-d"]).await.ok().says(REMOVED);
}

#[tokio::test]
async fn an_up_that_ended_with_an_error_is_told_of_where_nothing_runs() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let pid = up(&fleet).await;
    assert_eq!(check(&fleet, "up").await, None);
    remove(&fleet.home().join("nats/data")).await;
    kill(fleet.nats_pid().expect("it runs"), Signal::KILL);
    eventually("it ends", async || if alive(pid) { Err(String::new()) } else { Ok(()) }).await;
    let (health, found) = check(&fleet, "up").await.expect("it is told");
    assert_eq!(health, "warn");
    assert!(found.contains("ended at") && found.contains(REMOVED), "{found}");
    // One that ends in order has nothing to tell.
    let _pid = up(&fleet).await;
    assert_eq!(check(&fleet, "up").await, None);
    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(check(&fleet, "up").await, None);
}

#[tokio::test]
async fn a_stream_without_the_file_that_it_is_written_to_takes_no_messages() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    let (health, found) = check(&fleet, "store").await.expect("it is told");
    assert_eq!(health, "ok", "{found}");
    for stream in fs::read_dir(streams(&fleet)).expect("it is there").flatten() {
        if stream.file_name().to_string_lossy().contains("JOURNAL") {
            fs::remove_file(stream.path().join("msgs/1.blk")).expect("it is there");
        }
    }
    eventually("messages are refused", async || {
        let sent = fleet.cli(["send", "a", "say lost"]).await;
        if sent.code == 9 { Ok(()) } else { Err(sent.to_string()) }
    })
    .await;
    for name in ["store", "room"] {
        let (health, found) = check(&fleet, name).await.expect("it is told");
        assert!(health == "fail" && found.starts_with(REMOVED), "{name}: {found}");
    }
    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(fleet.processes(), []);
}

#[tokio::test]
async fn why_the_server_cannot_be_reached_is_said_while_up_runs() {
    let fleet = Fleet::with(&[]).await;
    let nats = fleet.nats_pid().expect("it runs");
    kill(nats, Signal::STOP);
    fleet
        .cli(["ps"])
        .await
        .exit(6)
        .says("is stopped by a signal")
        .says(&format!("kill -CONT {nats}"));
    kill(nats, Signal::CONT);
    let access = fs::read(fleet.home().join("nats/access.json")).expect("it is there");
    let access: Value = serde_json::from_slice(&access).expect("JSON");
    let port = access["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    // Another program takes the port before it is started again.
    let _taken = eventually("the port is taken", async || {
        if let Some(nats) = fleet.nats_pid() {
            kill(nats, Signal::KILL);
        }
        std::net::TcpListener::bind(("127.0.0.1", port)).map_err(|error| error.to_string())
    })
    .await;
    eventually("it is told", async || {
        let told = fleet.cli(["ps"]).await;
        let is_told = told.code == 6 && told.stderr.contains("nats-server does not start: ");
        if is_told { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    let (health, found) = check(&fleet, "broker").await.expect("it is told");
    assert!(health == "fail" && found.contains("address already in use"), "{found}");
    fleet.cli(["up", "-d"]).await.exit(6).says("address already in use").says("ss -ltnp");
}

#[tokio::test]
async fn a_copy_in_place_of_the_data_is_not_what_the_server_writes_to() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    let (data, copy) = (fleet.home().join("nats/data"), fleet.home().join("copy"));
    let copied = |from: &Path, to: &Path| {
        let status = std::process::Command::new("cp").arg("-a").args([from, to]).status();
        assert!(status.expect("it runs").success());
    };
    let (health, found) = check(&fleet, "store").await.expect("it is told");
    assert_eq!(health, "ok", "{found}");
    copied(&data, &copy);
    remove(&data).await;
    copied(&copy, &data);
    let refused = eventually("messages are refused", async || {
        let sent = fleet.cli(["send", "a", "say lost"]).await;
        if sent.code == 9 { Ok(sent) } else { Err(sent.to_string()) }
    })
    .await;
    let _said = refused.says("was removed or replaced while it runs");
    for name in ["log", "store", "room"] {
        let (health, found) = check(&fleet, name).await.expect("it is told");
        assert!(health == "fail" && found.starts_with(REMOVED), "{name}: {found}");
    }
    // Another server takes the copy for what it is.
    kill(fleet.nats_pid().expect("it runs"), Signal::KILL);
    eventually("messages are taken again", async || {
        let sent = fleet.cli(["send", "a", "say kept"]).await;
        if sent.code == 0 { Ok(()) } else { Err(sent.to_string()) }
    })
    .await;
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn what_was_removed_while_nothing_ran_is_told_until_it_is_back_or_accepted() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let _pid = up(&fleet).await;
    let _answer = fleet.ask("a", "say something").await;
    let _down = fleet.cli(["down"]).await.ok();
    let _pid = up(&fleet).await;
    assert_eq!(check(&fleet, "lost").await, None, "all is there");
    let _down = fleet.cli(["down"]).await.ok();
    for (name, told) in [("JOURNAL", "lost"), ("CONTROL", "lost")] {
        let aside = fleet.home().join("aside");
        fs::create_dir(&aside).expect("new");
        let entries = fs::read_dir(streams(&fleet)).expect("streams").flatten();
        let folders: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains(name))
            .collect();
        let moved = |back: bool| {
            for folder in &folders {
                let there = aside.join(folder.file_name().expect("a name"));
                let (from, to) = if back { (&there, folder) } else { (folder, &there) };
                let _made_anew = fs::remove_dir_all(to);
                fs::rename(from, to).expect("moved");
            }
        };
        moved(false);
        fleet.cli(["up", &souls, "-d"]).await.says("are lost since it was last seen");
        let (health, found) = check(&fleet, told).await.expect("it is told");
        assert!(health == "fail" && found.contains(name), "{found}");
        let _down = fleet.cli(["down"]).await.ok();
        moved(true);
        let _pid = up(&fleet).await;
        assert_eq!(check(&fleet, told).await, None, "{name} is back");
        let _down = fleet.cli(["down"]).await.ok();
        fs::remove_dir_all(&aside).expect("empty");
    }
}
