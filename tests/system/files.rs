//! The files of an agent travel: what was applied is what runs, on whichever host, and what was applied before comes back.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use system_tests::harness::{Child, Fleet, Signal, eventually, flaky};

use crate::roles::{fleet_at, free_port, server_at};

/// A worker that answers what a file beside it says, which its WORKER does not name.
const WORKER: &str = "\
from helper import SAYS
from mozart_worker import Worker
Worker(lambda turn: turn.say(SAYS)).run()
";

fn soul(more: &str) -> String {
    flaky(&format!("WORKER [\"python3\", \"own.py\"]\n{more}"))
}

fn write(fleet: &Fleet, name: &str, text: &str) {
    fs::write(fleet.souls().join(name), text).expect("written");
}

/// What the agent answers from the next generation on.
fn says(fleet: &Fleet, text: &str) {
    write(fleet, "helper.py", &format!("SAYS = {text:?}\n"));
}

/// The archives in a folder that are a node's.
fn cached(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("files")).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension() == Some(OsStr::new("tar"))).collect()
}

/// A supervisor and a server; nodes are the test's.
struct Ground {
    fleet: Fleet,
    server: tokio::process::Child,
    supervisor: Child,
}

impl Ground {
    fn new() -> Self {
        let port = free_port();
        let fleet = fleet_at(port);
        let server = server_at(&fleet, port, "");
        write(&fleet, "own.py", WORKER);
        fleet.soul("a", &soul("RESTART always max=20/1m backoff=100ms..200ms"));
        let supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
        Self { fleet, server, supervisor }
    }

    /// A node with a data folder of its own, and that folder.
    fn node(&self, name: &str) -> (Child, PathBuf) {
        let home = self.fleet.home().with_file_name(name);
        let args = ["node", "--name", name, "--dir"].map(OsStr::new);
        (self.fleet.spawn_cli(args.into_iter().chain([home.as_os_str()])), home)
    }

    async fn apply(&self, result: &str) {
        let applied = eventually("a supervisor takes the souls", async || {
            let output = self.fleet.cli(["apply", ".", "--wait"]).await;
            if output.code == 0 { Ok(output) } else { Err(output.to_string()) }
        })
        .await;
        assert!(applied.stdout.contains(result), "{applied}");
    }

    /// Ends all in order.
    async fn end(mut self, nodes: impl IntoIterator<Item = Child>) {
        for node in nodes {
            node.signal(Signal::TERM);
            let _ended = node.output().await.ok();
        }
        self.supervisor.signal(Signal::TERM);
        let _ended = self.supervisor.output().await.ok();
        self.server.kill().await.expect("it runs");
    }
}

#[tokio::test]
async fn another_host_runs_what_was_applied_though_the_folder_is_gone() {
    let ground = Ground::new();
    let fleet = &ground.fleet;
    says(fleet, "first");
    let (one, first_home) = ground.node("one");
    ground.apply("created").await;
    assert_eq!(fleet.ask("a", "?").await, "first");
    let files = fleet.json(["inspect", "a"]).await["config"]["files"].clone();
    assert_eq!(files["sha256"].as_str().map(str::len), Some(64), "{files}");
    let shown = fleet.cli(["inspect", "a"]).await.ok();
    assert!(shown.stdout.contains(files["sha256"].as_str().expect("text")), "{shown}");
    // What was not applied does not run, also after a crash.
    says(fleet, "not applied");
    let _done = fleet.cli(["restart", "a"]).await.ok();
    let _done = fleet.cli(["wait", "a"]).await.ok();
    assert_eq!(fleet.ask("a", "?").await, "first");
    ground.apply("changed").await;
    assert_eq!(fleet.ask("a", "?").await, "not applied");
    ground.apply("unchanged").await;

    // The folder goes, and the host.
    let moved = fleet.souls().with_file_name("moved");
    fs::rename(fleet.souls(), &moved).expect("renamed");
    fs::create_dir(fleet.souls()).expect("made");
    let (two, second_home) = ground.node("two");
    one.signal(Signal::KILL);
    let _killed = one.output().await;
    eventually("it runs on the other host", async || {
        let row = fleet.row("a").await;
        let is_there = row["node"] == "two" && row["state"] == "running";
        if is_there { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    assert_eq!(fleet.ask("a", "?").await, "not applied");
    assert_eq!((cached(&first_home).len(), cached(&second_home).len()), (2, 1));

    // An archive that is damaged on this host is fetched again.
    let archive = cached(&second_home).pop().expect("one");
    let whole = fs::read(&archive).expect("readable");
    fs::write(&archive, whole.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).expect("written");
    let _done = fleet.cli(["restart", "a"]).await.ok();
    let _done = fleet.cli(["wait", "a"]).await.ok();
    assert_eq!(fleet.ask("a", "?").await, "not applied");
    assert_eq!(fs::read(&archive).expect("readable"), whole);
    assert!(two.complaints().contains("is fetched again"), "{}", two.complaints());
    ground.end([two]).await;
}

#[tokio::test]
async fn what_was_applied_before_comes_back() {
    let fleet = Fleet::new(&[("a", &soul("RESTART always backoff=5s"))]);
    write(&fleet, "own.py", WORKER);
    says(&fleet, "first");
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let _up = fleet.cli(["up", &souls, "-d", "--wait"]).await.ok();
    assert_eq!(fleet.ask("a", "?").await, "first");
    // The next version never gets ready: the one before goes on, and is started again as it was.
    write(&fleet, "helper.py", "raise SystemExit(3)\n");
    let diff = fleet.cli(["apply", &souls, "--diff"]).await.ok();
    assert!(diff.stdout.contains("changed: helper.py"), "{diff}");
    fleet.cli(["apply", &souls, "--wait"]).await.exit(1).says("generation 2 of a was given up");
    let _done = fleet.cli(["restart", "a"]).await.ok();
    let _done = fleet.cli(["ps"]).await.ok();
    eventually("the old version runs", async || {
        let row = fleet.row("a").await;
        let runs = row["state"] == "running" && row["runningGeneration"] == 1;
        if runs { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    assert_eq!(fleet.ask("a", "?").await, "first");
    // One that runs, and the way back.
    says(&fleet, "second");
    let _done = fleet.cli(["apply", &souls, "--wait"]).await.ok();
    assert_eq!(fleet.ask("a", "?").await, "second");
    let _undone = fleet.cli(["rollout", "undo", "a", "--wait"]).await.ok();
    assert_eq!(fleet.ask("a", "?").await, "first");
    let _undone = fleet.cli(["rollout", "undo", "a", "--wait"]).await.ok();
    assert_eq!(fleet.ask("a", "?").await, "second");
    // What is on no host and not on the broker is a start that fails with that reason, until it is applied again.
    let removed = fleet.broker().await.collect_files(&BTreeSet::new(), Duration::ZERO).await;
    assert!(removed.expect("an answer") >= 2);
    for archive in cached(fleet.home()) {
        fs::remove_file(archive).expect("removed");
    }
    let _done = fleet.cli(["restart", "a"]).await.ok();
    let row = fleet.wait_state("a", "error").await;
    assert!(
        row["reason"].as_str().is_some_and(|why| why.contains("are not on the broker")),
        "{row}"
    );
    let unchanged = fleet.cli(["apply", &souls]).await.ok();
    assert!(unchanged.stdout.contains("unchanged"), "{unchanged}");
    let _done = fleet.cli(["restart", "a"]).await.ok();
    let _row = fleet.wait_state("a", "running").await;
    assert_eq!(fleet.ask("a", "?").await, "second");
    // Another soul of the folder is none of its files.
    fleet.soul("b", "MODEL test/echo\nSOUL You echo.\n");
    let applied = fleet.json(["apply", &souls]).await;
    let changed = |name: &str| {
        let all = applied.as_array().expect("a list").iter();
        all.filter(|one| one["agent"] == name).any(|one| one["changed"] == true)
    };
    assert_eq!((changed("a"), changed("b")), (false, true), "{applied}");
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn files_that_no_generation_needs_are_removed_and_can_be_applied_again() {
    let fleet = Fleet::new(&[("a", &soul(""))]);
    write(&fleet, "own.py", WORKER);
    says(&fleet, "1");
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let _up = fleet.cli(["up", &souls, "-d", "--wait", "--keep-files", "2s"]).await.ok();
    for version in 2..=4 {
        says(&fleet, &version.to_string());
        let _done = fleet.cli(["apply", &souls, "--wait"]).await.ok();
    }
    // A head and a chunk each: of the one that runs, and of those that a rollback leads to.
    eventually("the first version is removed", async || {
        let usage = fleet.json(["usage", "--storage"]).await;
        let all = usage["streams"].as_array().expect("a list").iter();
        let files: Vec<&Value> = all.filter(|one| one["stream"] == "FILES").collect();
        match files[..] {
            [files] if files["records"] == 4 => Ok(()),
            _ => Err(usage.to_string()),
        }
    })
    .await;
    let _undone = fleet.cli(["rollout", "undo", "a", "--wait"]).await.ok();
    assert_eq!(fleet.ask("a", "?").await, "3");
    let undone = fleet.cli(["rollout", "undo", "a", "--to-generation", "1"]).await.exit(3);
    let _said = undone.says("are not on the broker");
    says(&fleet, "1");
    let _done = fleet.cli(["apply", &souls, "--wait"]).await.ok();
    assert_eq!(fleet.ask("a", "?").await, "1");
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn what_does_not_travel_is_said_or_found_on_this_host() {
    let worker = "import os\nfrom mozart_worker import Worker\n\
        def answer(turn):\n    try:\n        turn.say(open(turn.text).read())\n\
        \u{20}   except OSError as error:\n        turn.say(error.strerror)\n\
        Worker(answer).run()\n";
    let mut fleet = Fleet::new(&[("a", &soul("SANCTUM data:/data\nREPLACE start-first"))]);
    write(&fleet, "own.py", worker);
    for (name, text) in [("data/note", "data"), (".venv/lib", "venv"), ("later.txt", "not packed")]
    {
        let path = fleet.souls().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(path, text).expect("written");
    }
    write(&fleet, ".mozartignore", "/later.txt\n");
    fleet.all_up().await;
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let socket = fleet.souls().join("socket");
    let bound = std::os::unix::net::UnixListener::bind(&socket).expect("made");
    let refused = fleet.cli(["apply", &souls]).await.exit(1);
    let _said = refused.says("\"socket\" is a socket").says(".mozartignore");
    drop(bound);
    fs::remove_file(socket).expect("removed");
    std::os::unix::fs::symlink("/etc/hostname", fleet.souls().join("out")).expect("made");
    let applied = fleet.cli(["apply", &souls]).await.ok();
    assert!(applied.stderr.contains("\"out\" leads out of the folder"), "{applied}");
    assert!(applied.stdout.contains("unchanged"), "{applied}");
    let _done = fleet.cli(["apply", &souls, "--wait"]).await.ok();
    for (name, text) in [("data/note", "data"), (".venv/lib", "venv"), ("later.txt", "not packed")]
    {
        assert_eq!(fleet.ask("a", name).await, text);
    }
    // Nothing of that is on the broker: it is not in what was cached.
    let archive = fs::read(cached(fleet.home()).pop().expect("one")).expect("readable");
    let archive = String::from_utf8_lossy(&archive).into_owned();
    assert!(archive.contains("own.py") && !archive.contains("not packed"), "{archive}");
    assert!(!archive.contains(".venv") && !archive.contains("data/note"), "{archive}");
}
