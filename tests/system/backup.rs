//! A fleet as a file, and back: everything that was accepted, once; what was open is answered; nothing that is damaged is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::Broker;
use common::api::MessageDetail;
use serde_json::Value;
use system_tests::harness::{
    Fleet, Output, Signal, alive, eventually, flaky, kill, message, within,
};
use tokio::task::JoinSet;

use crate::roles;

const ECHO: &str = "MODEL test/model\nSOUL You repeat.\nCONCURRENCY 4";
const AGENTS: [&str; 3] = ["able", "baker", "charlie"];

/// A file beside a fleet's data folder.
fn path(fleet: &Fleet, name: &str) -> PathBuf {
    fleet.home().with_file_name(name)
}

async fn backup(fleet: &Fleet, name: &str, since: Option<&Path>) -> PathBuf {
    let file = path(fleet, name);
    let mut args: Vec<OsString> = vec!["backup".into(), file.clone().into()];
    if let Some(since) = since {
        args.extend(["--since".into(), since.into()]);
    }
    let _written = fleet.cli(args).await.ok();
    file
}

async fn restore(fleet: &Fleet, files: &[&Path], more: &[&str]) -> Output {
    let args = std::iter::once(OsStr::new("restore"));
    let args = args.chain(files.iter().map(|file| file.as_os_str()));
    fleet.cli(args.chain(more.iter().map(OsStr::new))).await
}

/// A fleet in which nothing runs, and what the restore told.
async fn restored(files: &[&Path], more: &[&str]) -> (Fleet, Value) {
    let fleet = Fleet::new(&[]);
    let more = [&["-o", "json"], more].concat();
    let told = restore(&fleet, files, &more).await.ok().json();
    (fleet, told)
}

/// What was accepted, in its order, while it goes on.
#[derive(Clone, Default)]
struct Accepted(Arc<Mutex<Vec<String>>>);

impl Accepted {
    fn ids(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

/// Sends to all agents until it is told to stop.
async fn load(broker: Broker, accepted: Accepted, stop: Arc<AtomicBool>) {
    let mut tick = tokio::time::interval(Duration::from_millis(8));
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        tick.tick().await;
        let id = format!("m{n}");
        let sent = message(AGENTS[n % AGENTS.len()], &id, &format!("text {n}"));
        let sent = broker.send(&sent, Duration::from_secs(20)).await.expect("accepted");
        assert!(matches!(sent, broker::SendOutcome::Stored { .. }), "{sent:?}");
        accepted.0.lock().expect("no panic").push(id);
    }
}

/// Waits until so many were accepted.
async fn reaches(accepted: &Accepted, count: usize) {
    eventually("messages are accepted", async || match accepted.ids().len() {
        there if there >= count => Ok(()),
        there => Err(format!("{there} of {count}")),
    })
    .await;
}

/// The messages of a fleet, once none is open.
async fn settled(fleet: &Fleet) -> BTreeMap<String, Value> {
    eventually("every message has its final state", async || {
        let rows = fleet.json(["journal", "ls", "--limit", "1000000"]).await;
        let rows = rows.as_array().expect("a list").clone();
        let open = rows.iter().find(|row| row["status"] != "completed");
        if let Some(open) = open {
            return Err(open.to_string());
        }
        let count = rows.len();
        let id = |row: &Value| row["messageId"].as_str().expect("an id").to_owned();
        let by_id: BTreeMap<_, _> = rows.into_iter().map(|row| (id(&row), row)).collect();
        assert_eq!(by_id.len(), count, "each of them once");
        Ok(by_id)
    })
    .await
}

/// Some of the messages that have their final states by now, as they are shown.
async fn finished(fleet: &Fleet, ids: &[String]) -> BTreeMap<String, MessageDetail> {
    let mut finished = BTreeMap::new();
    for id in ids.iter().step_by(1 + ids.len() / 12) {
        let detail = fleet.show(id).await;
        if detail.row.status.as_str() == "completed" {
            finished.insert(id.clone(), detail);
        }
    }
    assert!(!finished.is_empty());
    finished
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_under_load_is_there_once_with_its_final_state() {
    let souls: Vec<_> = AGENTS.map(|agent| (agent, ECHO)).into();
    // Messages move to the history all the while.
    let mut fleet = Fleet::new(&souls).env("MOZART_HOT", "1s");
    fleet.all_up().await;
    let (accepted, stop) = (Accepted::default(), Arc::new(AtomicBool::new(false)));
    let mut sending = JoinSet::new();
    sending.spawn(load(fleet.broker().await, accepted.clone(), Arc::clone(&stop)));

    // A complete one, and two that continue it.
    let (mut files, mut known) = (Vec::<PathBuf>::new(), Vec::new());
    for (name, count) in [("full", 300), ("first", 600), ("second", 900)] {
        reaches(&accepted, count).await;
        let before = accepted.ids();
        let ended = finished(&fleet, &before).await;
        let file = backup(&fleet, name, files.last().map(PathBuf::as_path)).await;
        known.push((before, ended));
        files.push(file);
    }
    // And one that is complete by itself again.
    let whole = backup(&fleet, "whole", None).await;
    let (before, ended) = known[2].clone();
    known.push((before, ended));
    stop.store(true, Ordering::Relaxed);
    while let Some(sent) = sending.join_next().await {
        sent.expect("all were accepted");
    }
    let all: BTreeSet<String> = accepted.ids().into_iter().collect();
    let sizes: Vec<u64> =
        files.iter().map(|file| fs::metadata(file).expect("there").len()).collect();
    assert!(sizes[1] < sizes[0] + sizes[2], "{sizes:?}");
    let _down = fleet.cli(["down"]).await.ok();

    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let cases: [(&[&Path], &[&str], usize); 3] = [
        (&files[..1], &[], 0),
        (&files[..], &["--journal-shards", "2"], 2),
        (&[&whole], &["--journal-shards", "1"], 3),
    ];
    for (files, more, known_by) in cases {
        let (mut fleet, told) = restored(files, more).await;
        fleet.up(&[]).await;
        let there = settled(&fleet).await;
        let (before, ended) = &known[known_by];
        for id in before {
            assert!(there.contains_key(id), "{id} is lost: {files:?}");
        }
        for (id, row) in &there {
            assert!(all.contains(id), "{id} was never accepted");
            assert_eq!(row["response"], format!("text {}", &id[1..]), "{row}");
        }
        for (id, before) in ended {
            let now = fleet.show(id).await;
            assert_eq!(
                (&now.row.response, now.row.created_at),
                (&before.row.response, before.row.created_at)
            );
            assert_eq!(
                now.row.updated_at, before.row.updated_at,
                "{id}: the final state is that one"
            );
        }
        // What was told as open is what was answered here.
        for message in told["open"].as_array().expect("a list") {
            let id = message["messageId"].as_str().expect("an id");
            assert!(!ended.contains_key(id), "{id} was answered before");
        }
        let counts: BTreeSet<_> = there.keys().collect();
        assert_eq!(fleet.json(["ps"]).await.as_array().expect("a list").len(), AGENTS.len());
        let counted: u64 = {
            let rows = fleet.json(["ps"]).await;
            let rows = rows.as_array().expect("a list").clone();
            rows.iter().filter_map(|row| row["messageCount"].as_u64()).sum()
        };
        assert_eq!(counted, counts.len() as u64);
        let _down = fleet.cli(["down"]).await.ok();
    }
}

#[tokio::test]
async fn what_moves_to_the_history_while_a_backup_is_taken_is_in_it_once() {
    const COUNT: usize = 600;
    let souls: Vec<_> = AGENTS.map(|agent| (agent, ECHO)).into();
    let mut fleet = Fleet::new(&souls).env("MOZART_HOT", "6s");
    fleet.all_up().await;
    let broker = fleet.broker().await;
    for n in 0..COUNT {
        let text = "text ".repeat(400);
        let sent = message(AGENTS[n % AGENTS.len()], &format!("m{n}"), &text);
        broker.send(&sent, Duration::from_secs(20)).await.expect("accepted");
    }
    // Its reader stands still: it has read a part of the journals, and waits.
    let mut writing = fleet.command(["backup", "-"]);
    writing.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut writing = writing.spawn().expect("it is there");
    within(Duration::from_secs(90), "all have left the journal", async || {
        let mut hot = 0;
        for agent in AGENTS {
            let agent = agent.parse().expect("valid");
            hot += broker.count_requests(&agent).await.expect("a count");
        }
        if hot == 0 { Ok(()) } else { Err(format!("{hot} are there")) }
    })
    .await;
    assert!(writing.try_wait().expect("ours").is_none(), "it waits");
    let file = path(&fleet, "slow");
    let mut out = tokio::fs::File::create(&file).await.expect("made");
    let mut from = writing.stdout.take().expect("it is a pipe");
    tokio::io::copy(&mut from, &mut out).await.expect("copied");
    out.sync_all().await.expect("written");
    assert!(writing.wait().await.expect("ours").success());
    let _down = fleet.cli(["down"]).await.ok();

    let (mut there, _told) = restored(&[&file], &[]).await;
    there.up(&[]).await;
    assert_eq!(settled(&there).await.len(), COUNT);
}

#[tokio::test]
async fn generations_files_and_dead_letters_come_back() {
    let mut fleet = Fleet::new(&[("a", &flaky("")), ("pinned", &flaky("SANCTUM data:/data"))]);
    fs::create_dir_all(fleet.souls().join("data")).expect("made");
    fleet.all_up().await;
    let worker = fleet.souls().join("worker.py");
    let script = fs::read_to_string(&worker).expect("there");
    assert_eq!(fleet.ask("a", "say one").await, "one");
    // Another generation, by its file alone.
    fs::write(&worker, format!("{script}\n# the second\n")).expect("written");
    let _applied = fleet.cli(["apply", ".", "--wait"]).await.ok();
    assert_eq!(fleet.row("a").await["generation"], 2);
    let failed = fleet.send("a", "fail on purpose").await;
    let _failed = fleet.wait_status(&failed, "failed").await;
    let letter = fleet.json(["dead", "show", &failed]).await;
    let _stopped = fleet.cli(["stop", "a"]).await.ok();
    let _row = fleet.wait_state("a", "stopped").await;
    let history = fleet.json(["rollout", "history", "a"]).await;
    let open = fleet.send("a", "say later").await;
    let incarnation = fleet.control_of("a").await.len();
    assert!(incarnation > 0);
    let file = backup(&fleet, "full", None).await;
    let term = fleet.json(["events", "--limit", "1"]).await[0]["seq"].as_u64().expect("a number");
    let _down = fleet.cli(["down"]).await.ok();

    let (mut there, told) = restored(&[&file], &[]).await;
    assert_eq!(told["open"][0]["messageId"], open.as_str());
    assert_eq!(told["open"].as_array().map(Vec::len), Some(1));
    assert_eq!(told["pinned"][0][0], "pinned");
    there.up(&[]).await;
    assert_eq!(there.row("a").await["state"], "stopped");
    assert_eq!(there.json(["dead", "show", &failed]).await, letter);
    assert_eq!(there.json(["rollout", "history", "a"]).await, history);
    let _started = there.cli(["start", "a"]).await.ok();
    let row = there.wait_status(&open, "completed").await.row;
    assert_eq!((row.response.as_deref(), row.attempts), (Some("later"), 1));
    let folder = |fleet: &Fleet| {
        let shim = fleet.processes_of("a").into_iter().next().expect("it runs");
        fs::read_link(format!("/proc/{}/cwd", fleet.worker("a")))
            .unwrap_or_else(|_| panic!("{shim:?}"))
    };
    let running = fs::read_to_string(folder(&there).join("worker.py")).expect("its files");
    assert!(running.ends_with("# the second\n"));
    let _undone = there.cli(["rollout", "undo", "a", "--wait"]).await.ok();
    let running = fs::read_to_string(folder(&there).join("worker.py")).expect("its files");
    assert_eq!(running, script, "the first generation's");
    assert_eq!(there.ask("a", "say again").await, "again");

    // Above everything that was given out after the backup.
    let events = there.json(["events", "--limit", "1000"]).await;
    let events = events.as_array().expect("a list");
    let elected = events.iter().rfind(|event| event["type"] == "leaderElected").expect("one");
    assert!(elected["seq"].as_u64().expect("a number") > term + 1_000_000, "{elected}");
    let restored =
        events.iter().find(|event| event["type"] == "fleetRestored").expect("it is said");
    let base = restored["incarnations"].as_u64().expect("a number");
    assert!(base > 1_000_000 && told["incarnations"] == base);
    let allocated = events.iter().rfind(|event| event["type"] == "incarnationAllocated");
    assert!(allocated.expect("one")["incarnation"].as_u64().expect("a number") > base);
    // One that the backup does not know.
    there.soul("new", ECHO);
    let _applied = there.cli(["apply", ".", "--wait"]).await.ok();
    let events = there.json(["events", "new", "--limit", "100"]).await;
    let first =
        events.as_array().expect("a list").iter().find(|one| one["type"] == "incarnationAllocated");
    assert!(first.expect("one")["incarnation"].as_u64().expect("a number") > base);
}

#[tokio::test]
async fn a_chain_brings_back_nothing_that_was_removed_since_its_first_file() {
    let mut fleet = Fleet::new(&[("a", &flaky(""))]).env("MOZART_HOT", "1s");
    fleet.all_up().await;
    let mut failed = Vec::new();
    for n in 0..3 {
        let id = fleet.send("a", &format!("fail number {n}")).await;
        let _failed = fleet.wait_status(&id, "failed").await;
        failed.push(id);
    }
    let full = backup(&fleet, "full", None).await;
    let _dropped = fleet.cli(["dead", "drop", &failed[0]]).await.ok();
    let _redriven = fleet.cli(["dead", "redrive", &failed[1]]).await.ok();
    assert_eq!(fleet.ask("a", "say more").await, "more");
    let more = backup(&fleet, "more", Some(&full)).await;
    let letters = fleet.json(["dead", "ls"]).await;
    let rows = fleet.json(["journal", "ls"]).await;

    // Nobody can tell from a file that something in an earlier one has to be erased.
    let _erased = fleet.cli(["forget", "a"]).await.ok();
    let late = path(&fleet, "late");
    let args = [OsStr::new("backup"), late.as_os_str(), OsStr::new("--since"), more.as_os_str()];
    fleet.cli(args).await.exit(4).says("erased").says("without --since");
    assert!(!late.exists());
    let clean = backup(&fleet, "clean", None).await;
    let _down = fleet.cli(["down"]).await.ok();

    let (mut there, _told) = restored(&[&full, &more], &[]).await;
    there.up(&[]).await;
    assert_eq!(there.json(["dead", "ls"]).await, letters);
    assert_eq!(there.json(["journal", "ls"]).await, rows);
    let (mut there, _told) = restored(&[&clean], &[]).await;
    there.up(&[]).await;
    assert_eq!(there.json(["journal", "ls"]).await, Value::Array(Vec::new()));
}

#[tokio::test]
async fn what_is_damaged_or_in_the_wrong_order_or_of_another_fleet_is_refused() {
    let mut fleet = Fleet::new(&[("a", ECHO)]);
    fleet.all_up().await;
    for n in 0..20 {
        assert_eq!(fleet.ask("a", &format!("text {n}")).await, format!("text {n}"));
    }
    let full = backup(&fleet, "full", None).await;
    let _there = fleet.cli([OsStr::new("backup"), full.as_os_str()]).await.exit(4).says("--force");
    let first = backup(&fleet, "first", Some(&full)).await;
    let second = backup(&fleet, "second", Some(&first)).await;
    let mut other = Fleet::new(&[("a", ECHO)]);
    other.all_up().await;
    let theirs = backup(&other, "theirs", None).await;
    let since = [OsStr::new("backup"), OsStr::new("x"), OsStr::new("--since"), theirs.as_os_str()];
    fleet.cli(since).await.exit(4).says("another fleet");
    let running = restore(&other, &[&full], &[]).await.exit(4);
    let _said = running.says("still running");
    let _down = other.cli(["down"]).await.ok();
    let taken = restore(&other, &[&full], &[]).await.exit(4);
    let _said = taken.says("not empty").says("mozart reset --all");
    other.up(&[]).await;
    assert_eq!(other.ask("a", "still there").await, "still there");

    let empty = Fleet::new(&[]);
    let bytes = fs::read(&full).expect("there");
    let bad = path(&empty, "bad");
    for (at, how) in
        [(bytes.len() / 3, "is damaged at byte"), (bytes.len() - 3, "is damaged at byte")]
    {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        fs::write(&bad, bytes).expect("written");
        let _refused = restore(&empty, &[&bad], &[]).await.exit(2).says(how);
    }
    for (length, how) in [
        (bytes.len() - 1, "is truncated"),
        (bytes.len() / 2, "it ends at byte"),
        (5, "not a backup"),
    ] {
        fs::write(&bad, &bytes[..length]).expect("written");
        let _refused = restore(&empty, &[&bad], &[]).await.exit(2).says(how);
    }
    let orders: [(&[&Path], &str); 6] = [
        (&[&first], "has to come before it"),
        (&[&full, &second], "it continues backup"),
        (&[&first, &full], "has to come before it"),
        (&[&full, &full], "does not continue"),
        (&[&theirs, &first], "of another fleet"),
        (&[&full, &second, &first], "it continues backup"),
    ];
    for (files, how) in orders {
        let _refused = restore(&empty, files, &[]).await.exit(2).says(how);
    }
    let _missing = restore(&empty, &[&path(&empty, "no-such")], &[]).await.exit(3);
    assert!(!empty.home().join("nats").exists(), "nothing was started for any of them");

    let listed = restore(&empty, &[&full, &first, &second], &["--dry-run"]).await.ok();
    assert!(listed.stdout.contains("JOURNAL_0") && listed.stdout.contains("continues"), "{listed}");
    assert!(!empty.home().join("nats").exists());
    let _done = restore(&empty, &[&full, &first, &second], &[]).await.ok();
    let _again = restore(&empty, &[&full], &[]).await.exit(4).says("not empty");
}

#[tokio::test]
async fn a_restore_that_is_killed_is_used_by_nobody_and_can_be_repeated() {
    let mut fleet = Fleet::new(&[("a", ECHO)]);
    fleet.all_up().await;
    let broker = fleet.broker().await;
    for n in 0..1_500 {
        let sent = message("a", &format!("m{n}"), &"text ".repeat(100));
        broker.send(&sent, Duration::from_secs(20)).await.expect("accepted");
    }
    let file = backup(&fleet, "full", None).await;
    let _down = fleet.cli(["down"]).await.ok();
    let rows = {
        fleet.up(&[]).await;
        let rows = settled(&fleet).await.len();
        let _down = fleet.cli(["down"]).await.ok();
        rows
    };

    let mut there = Fleet::new(&[]);
    let restoring = there.spawn_cli([OsStr::new("restore"), file.as_os_str()]);
    let streams = there.home().join("nats/data");
    eventually("it has begun", async || {
        let begun = crate::forget::is_in(&streams, "MOZART_default_JOURNAL_3");
        if begun { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    restoring.signal(Signal::KILL);
    let _killed = restoring.output().await;
    let up = there.cli(["up"]).await.exit(4);
    let _said = up.says("is being restored").says("mozart restore");
    let _done = restore(&there, &[&file], &[]).await.ok();
    there.up(&[]).await;
    assert_eq!(settled(&there).await.len(), rows);
}

#[tokio::test]
async fn what_ran_since_the_backup_has_no_effect_any_more() {
    let port = roles::free_port();
    let fleet =
        Fleet::new(&[("a", &flaky(""))]).env("NATS_URL", &format!("nats://127.0.0.1:{port}"));
    let mut server = roles::server_at(&fleet, port, "");
    let node = fleet.spawn_cli(["node", "--name", "n"]);
    let supervisor = fleet.spawn_cli(["supervisor", "--id", "s", "--journal-shards", "2"]);
    roles::apply(&fleet).await;
    let _row = fleet.wait_state("a", "running").await;
    assert_eq!(fleet.ask("a", "say one").await, "one");
    // Two hosts: the broker of the one is lost, with all that came after the backup.
    let open = fleet.send("a", "sleep 6").await;
    eventually("a worker has it", async || match fleet.show(&open).await.row.status.as_str() {
        "pending" => Err("it waits".to_owned()),
        _ => Ok(()),
    })
    .await;
    let file = backup(&fleet, "full", None).await;
    let refused = restore(&fleet, &[&file], &[]).await.exit(4);
    let _said = refused.says("not empty");
    let _replaced = fleet.cli(["restart", "a"]).await.ok();
    let _row = fleet.wait_incarnation("a", 2).await;
    let (old, worker) = (fleet.shim("a"), fleet.worker("a"));
    kill(supervisor.pid(), Signal::KILL);
    let _killed = supervisor.output().await;
    server.kill().await.expect("it ran");
    fs::remove_dir_all(fleet.souls().join("own-nats")).expect("it is there");
    let _server = roles::server_at(&fleet, port, "");
    let done = eventually("the server is back", async || {
        let output = restore(&fleet, &[&file], &["-o", "json"]).await;
        if output.code == 6 { Err(output.to_string()) } else { Ok(output) }
    });
    let told = done.await.ok().json();
    assert_eq!(told["open"][0]["messageId"], open.as_str());
    assert!(alive(old) && alive(worker), "it was not told of anything");
    let supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
    eventually("it answers", async || {
        let output = fleet.cli(["ps"]).await;
        if output.code == 0 { Ok(()) } else { Err(output.to_string()) }
    })
    .await;
    let base = told["incarnations"].as_u64().expect("a number");
    let row = fleet.wait_incarnation("a", base + 1).await;
    assert_eq!(row["state"], "running");
    assert_eq!(fleet.ask("a", "say two").await, "two");
    eventually("the one of before is gone", async || match alive(old) {
        true => Err("it still runs".to_owned()),
        false => Ok(()),
    })
    .await;
    // Answered by the new one.
    let answered = fleet.wait_status_within(Duration::from_secs(60), &open, "completed").await;
    assert!(answered.row.attempts >= 1);
    let told = fleet.json(["journal", "show", &open]).await;
    assert!(told.to_string().contains(&(base + 1).to_string()), "{told}");
    drop((node, supervisor));
}
