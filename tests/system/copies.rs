//! Copied and moved data folders: a copy is a fleet of its own, and touches nothing of the original.

use std::fs;
use std::path::Path;
use std::process::Command;

use system_tests::harness::{Fleet, Signal, flaky, started_at};

/// Copies a folder as it is, whatever runs in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    // A file that goes meanwhile is none of the copy.
    let _status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("`cp` is there");
    assert!(to.join("identity").is_file(), "the folder is copied");
}

/// The shim and the worker of an agent, each with its start: the same later means that nobody touched them.
fn identity(fleet: &Fleet, agent: &str) -> [(u32, Option<u64>); 2] {
    [fleet.shim(agent), fleet.worker(agent)].map(|pid| (pid, started_at(pid)))
}

fn url(fleet: &Fleet) -> String {
    fleet.note().expect("it runs")["url"].as_str().expect("an address").to_owned()
}

async fn stop(fleet: &mut Fleet) {
    let up = fleet.take_up();
    up.signal(Signal::INT);
    let _ended = up.output().await.ok();
}

/// A copy, whether the original runs meanwhile or not, is used beside the original, which notices nothing.
async fn beside(was_running: bool) {
    let mut original = Fleet::with(&[("a", &flaky(""))]).await;
    let sent = original.send("a", "say before").await;
    let _answered = original.wait_status(&sent, "completed").await;
    let mut other = Fleet::new(&[]);
    if was_running {
        copy(original.home(), other.home());
    } else {
        stop(&mut original).await;
        copy(original.home(), other.home());
        original.up(&[]).await;
        let _row = original.wait_state("a", "running").await;
    }
    let (before, nats) = (identity(&original, "a"), original.nats_pid());

    // Nothing was started there, whatever its notes say.
    other.cli(["ps"]).await.exit(6).says("`mozart up`");
    other.cli(["down"]).await.ok().says("nothing is running");
    assert_eq!((identity(&original, "a"), original.nats_pid()), (before, nats));

    other.up(&[]).await;
    // Its log still says that the original's runs there.
    let _row = other.wait_incarnation("a", 2).await;
    assert_ne!(identity(&other, "a"), before);
    let [ours, theirs] = [url(&original), url(&other)];
    let login = |url: &str| url.rsplit_once('@').map(|(login, _)| login.to_owned());
    let port = |url: &str| url.rsplit_once(':').map(|(_, port)| port.to_owned());
    assert!(login(&ours) != login(&theirs) && port(&ours) != port(&theirs), "{ours} {theirs}");
    assert_eq!(other.show(&sent).await.row.response.as_deref(), Some("before"), "its messages");
    assert_eq!(original.ask("a", "say one").await, "one");
    assert_eq!(other.ask("a", "say two").await, "two");

    // What a killed one leaves is its own.
    other.kill_up().await;
    let _down = other.cli(["down"]).await.ok();
    assert_eq!(other.processes(), []);
    assert_eq!((identity(&original, "a"), original.nats_pid()), (before, nats));
    assert_eq!(original.row("a").await["restartCount"], 0);
    assert_eq!(original.ask("a", "say three").await, "three");
}

#[tokio::test]
async fn a_copy_of_a_stopped_folder_is_a_fleet_of_its_own() {
    beside(false).await;
}

#[tokio::test]
async fn a_copy_of_a_running_folder_is_a_fleet_of_its_own() {
    beside(true).await;
}

#[tokio::test]
async fn a_folder_that_was_moved_is_the_same_and_not_while_something_runs_in_it() {
    let mut fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let sent = fleet.send("a", "say before").await;
    let _answered = fleet.wait_status(&sent, "completed").await;
    let mut moved = Fleet::new(&[]);
    let id = |fleet: &Fleet| {
        let kept = fs::read(fleet.home().join("identity")).expect("it is kept");
        let kept: serde_json::Value = serde_json::from_slice(&kept).expect("JSON");
        kept["id"].clone()
    };
    let before = id(&fleet);
    let shims = identity(&fleet, "a");
    fleet.kill_up().await;
    fs::rename(fleet.home(), moved.home()).expect("moved");
    moved.cli(["up", "-d"]).await.exit(4).says("is still running").says("move the folder back");
    fs::rename(moved.home(), fleet.home()).expect("moved back");
    fleet.up(&[]).await;
    let _row = fleet.wait_state("a", "running").await;
    assert_eq!(identity(&fleet, "a"), shims);
    stop(&mut fleet).await;

    fs::rename(fleet.home(), moved.home()).expect("moved");
    moved.up(&[]).await;
    let _row = moved.wait_state("a", "running").await;
    assert_eq!(id(&moved), before);
    assert_eq!(moved.show(&sent).await.row.response.as_deref(), Some("before"));
}
