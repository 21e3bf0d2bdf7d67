//! An agent that leaves one fleet and goes on in another one: its data, its history, and nothing twice.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use system_tests::harness::{Fleet, Output, Signal, Until, alive, eventually, flaky};

const SECRET: &str = "the-value-of-the-secret";

/// The soul of a worker that is found from any folder, with a SANCTUM and a SECRET.
fn soul(fleet: &Fleet, more: &str) -> String {
    let worker = fleet.souls().join("worker.py");
    flaky(&format!("WORKER [\"python3\", {worker:?}]\nSANCTUM data:/data\nSECRET TOKEN\n{more}"))
}

/// A fleet with the agent `mover`, and its data.
async fn home_of_mover(more: &str) -> Fleet {
    let mut fleet = Fleet::new(&[]).env("TOKEN", SECRET);
    fleet.soul("mover", &soul(&fleet, more));
    let data = fleet.souls().join("data");
    fs::create_dir_all(data.join("deep/er")).expect("made");
    fs::write(data.join("deep/er/note"), "what it knows").expect("written");
    fs::set_permissions(data.join("deep/er/note"), fs::Permissions::from_mode(0o640))
        .expect("ours");
    symlink("deep/er/note", data.join("link")).expect("made");
    fleet.all_up().await;
    fleet
}

async fn elsewhere() -> Fleet {
    let mut fleet = Fleet::new(&[]).env("TOKEN", SECRET);
    fleet.up(&[]).await;
    fleet
}

fn path(fleet: &Fleet, name: &str) -> PathBuf {
    fleet.souls().join(name)
}

async fn export(fleet: &Fleet, more: &[&str]) -> (PathBuf, Output) {
    let file = path(fleet, "mover.tar");
    let args = ["export", "mover"].into_iter().map(OsStr::new);
    let output = fleet.cli(args.chain([file.as_os_str()]).chain(more.iter().map(OsStr::new))).await;
    (file, output)
}

async fn import(fleet: &Fleet, file: &Path, more: &[&str]) -> Output {
    let args = [OsStr::new("import"), file.as_os_str()].into_iter();
    fleet.cli(args.chain(more.iter().map(OsStr::new))).await
}

/// Whether a process does something of its own at SIGTERM.
fn listens(pid: u32) -> Until<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("it is said");
    let caught = u64::from_str_radix(caught.trim(), 16).expect("a number");
    if caught & (1 << 14) != 0 { Ok(()) } else { Err(status) }
}

fn holds(file: &Path, words: &str) -> bool {
    let bytes = fs::read(file).expect("it is there");
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

#[tokio::test]
async fn an_agent_moves_with_its_data_and_its_history() {
    let from = home_of_mover("").await;
    let said = from.send("mover", "say one").await;
    let _answered = from.wait_status(&said, "completed").await;
    let failed = from.send("mover", "fail on purpose").await;
    let _failed = from.wait_status(&failed, "failed").await;
    let letter = from.json(["dead", "show", &failed]).await;
    let _stopped = from.cli(["stop", "mover"]).await.ok();
    let more = ["--conversation", "talk"];
    let open = [
        from.send_with("mover", "say two", &more).await,
        from.send_with("mover", "say three", &more).await,
    ];
    let before = from.show(&said).await;
    let (file, exported) = export(&from, &["-o", "json"]).await;
    let counts = &exported.ok().json()["counts"];
    assert_eq!((&counts["messages"], &counts["open"]), (&4.into(), &2.into()));
    assert_eq!((&counts["deadLetters"], &counts["files"]), (&1.into(), &1.into()));
    assert!(!holds(&file, SECRET), "its name is in it, not its value");
    assert!(holds(&file, "SECRET TOKEN"));
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);

    let to = elsewhere().await;
    let imported = import(&to, &file, &["-o", "json"]).await.ok().says("TOKEN").json();
    assert_eq!((&imported["messages"], &imported["started"]), (&4.into(), &true.into()));
    let folder = path(&to, "mover");
    assert_eq!(imported["folder"], folder.canonicalize().expect("made").to_str().expect("UTF-8"));

    // What was open is answered, once and in its order; what was not stays as it was.
    for (id, text) in open.iter().zip(["two", "three"]) {
        let row = to.wait_status(id, "completed").await.row;
        assert_eq!((row.response.as_deref(), row.attempts), (Some(text), 1));
    }
    assert_eq!(to.show(&said).await, before);
    assert_eq!(to.json(["dead", "show", &failed]).await, letter);
    assert_eq!(to.json(["dead", "ls"]).await.as_array().map(Vec::len), Some(1));
    let rows = to.json(["journal", "ls"]).await;
    let ids: Vec<&Value> =
        rows.as_array().expect("a list").iter().map(|row| &row["messageId"]).collect();
    assert_eq!(ids, [&said, &failed, &open[0], &open[1]]);

    let note = folder.join("sanctums/0/deep/er/note");
    assert_eq!(fs::read_to_string(&note).expect("there"), "what it knows");
    assert_eq!(fs::metadata(&note).expect("there").permissions().mode() & 0o777, 0o640);
    let link = fs::read_link(folder.join("sanctums/0/link")).expect("a link");
    assert_eq!(link, Path::new("deep/er/note"));
    let _valid = to.cli(["validate".as_ref(), folder.as_os_str()]).await.ok();

    // Once more: all of it is there.
    let again = import(&to, &file, &["-o", "json"]).await.ok().json();
    assert_eq!((&again["changed"], &again["messages"]), (&false.into(), &0.into()));
    assert_eq!(to.row("mover").await["generation"], 1);
}

#[tokio::test]
async fn what_runs_is_exported_only_if_that_is_asked_for() {
    let fleet = home_of_mover("").await;
    let (file, refused) = export(&fleet, &[]).await;
    let _said = refused.exit(4).says("mozart stop mover").says("--live");
    assert!(!file.exists());
    let (_, live) = export(&fleet, &["--live"]).await;
    let _warned = live.ok().says("in the middle of a write");
    let length = fs::metadata(&file).expect("it is there").len();

    let _there = export(&fleet, &["--live"]).await.1.exit(4).says("--force");
    assert_eq!(fs::metadata(&file).expect("untouched").len(), length);
    let _replaced = export(&fleet, &["--live", "--force"]).await.1.ok();
    let _no_image = export(&fleet, &["--live", "--force", "--with-image"]).await.1.exit(2);
    let _nobody = fleet.cli(["export", "nobody", "nobody.tar"]).await.exit(3);
    let _where = fleet.cli(["export", "mover", "no/such/folder/x.tar", "--live"]).await.exit(1);
    let _inside =
        fleet.cli(["export", "mover", "data/x.tar", "--live"]).await.exit(1).says("be inside it");
    // Nothing half made is left.
    let names = fs::read_dir(fleet.souls()).expect("there").flatten().map(|one| one.file_name());
    assert!(!names.into_iter().any(|name| name.as_encoded_bytes().starts_with(b".")));
}

#[tokio::test]
async fn what_is_interrupted_leaves_nothing_half_made() {
    let fleet = home_of_mover("").await;
    // More than is written until the signal comes.
    let mut huge = fs::File::create(path(&fleet, "data/huge")).expect("made");
    let chunk = vec![b'x'; 1 << 20];
    for _mebibyte in 0..1024 {
        std::io::Write::write_all(&mut huge, &chunk).expect("there is room");
    }
    drop(huge);
    let is_draft = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    let drafts = || {
        let names = fs::read_dir(fleet.souls()).expect("there").flatten();
        names.filter(|one| is_draft(&one.file_name())).count()
    };
    for signal in [Signal::TERM, Signal::INT] {
        let export = fleet.spawn_cli(["export", "mover", "mover.tar", "--live"]);
        eventually("a draft", async || if drafts() > 0 { Ok(()) } else { Err("none".into()) })
            .await;
        export.signal(signal);
        let _ended = export.output().await.exit(130);
        assert_eq!(drafts(), 0);
    }
    // Also while a pipe says nothing.
    let import = fleet.spawn_cli(["import", "-"]);
    eventually("it listens", async || listens(import.pid())).await;
    import.signal(Signal::TERM);
    let pid = import.pid();
    // The pipe stays open until then: its end would be another reason.
    eventually("it has ended", async || if alive(pid) { Err(pid.to_string()) } else { Ok(()) })
        .await;
    let _ended = import.output().await.exit(130);
}

#[tokio::test]
async fn the_brokers_credentials_do_not_leave_with_an_agent() {
    let mut fleet = Fleet::new(&[]);
    let home = fleet.home().display().to_string();
    let spies = [
        ("above", format!("SANCTUM {home}:/data:ro")),
        ("within", format!("SANCTUM {home}/nats:/data:ro")),
        ("note", format!("SKILL {home}/mozart.json")),
    ];
    for (spy, line) in &spies {
        fleet.soul(spy, &flaky(line));
    }
    fleet.all_up().await;
    for (spy, _) in &spies {
        let _stopped = fleet.cli(["stop", spy]).await.ok();
        let _refused = fleet.cli(["export", spy, "spy.tar"]).await.exit(1).says("credentials");
        assert!(!path(&fleet, "spy.tar").exists());
    }
}

#[tokio::test]
async fn an_archive_goes_through_a_pipe_and_under_another_name() {
    let from = home_of_mover("").await;
    let said = from.send("mover", "say one").await;
    let _answered = from.wait_status(&said, "completed").await;
    let _stopped = from.cli(["stop", "mover"]).await.ok();
    let piped = from.command(["export", "mover", "-"]).output().await.expect("it runs");
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));

    let to = elsewhere().await;
    let args = ["import", "-", "--name", "second", "--to", "a/b", "--no-start"];
    let mut import = to.spawn_cli(args);
    import.feed(&piped.stdout).await;
    let _said = import.output().await.ok().says("mozart apply");
    assert_eq!(to.show(&said).await.row.agent.as_str(), "second");
    let _unknown = to.cli(["ps", "second"]).await.exit(3);
    let soul = path(&to, "a/b/second.soul");
    let _applied = to.cli(["apply".as_ref(), soul.as_os_str()]).await.ok();
    let _running = to.wait_state("second", "running").await;
    assert_eq!(to.ask("second", "say hello").await, "hello");
    assert_eq!(to.show(&said).await.row.attempts, 1);
}

#[tokio::test]
async fn importing_again_goes_on_where_it_was_left() {
    let from = home_of_mover("").await;
    let open = {
        let _stopped = from.cli(["stop", "mover"]).await.ok();
        from.send("mover", "say one").await
    };
    let (file, exported) = export(&from, &[]).await;
    let _exported = exported.ok();

    let to = elsewhere().await;
    let _aside = import(&to, &file, &["--no-start"]).await.ok().says("mozart apply");
    let note = path(&to, "mover/sanctums/0/deep/er/note");
    fs::write(&note, "what was learnt since").expect("written");
    let again = import(&to, &file, &["-o", "json"]).await.ok().says("left unchanged").json();
    assert_eq!((&again["messages"], &again["started"]), (&0.into(), &true.into()));
    assert_eq!(to.wait_status(&open, "completed").await.row.response.as_deref(), Some("one"));
    assert_eq!(fs::read_to_string(&note).expect("there"), "what was learnt since");

    // A folder with another soul is somebody else's.
    let other = elsewhere().await;
    let _aside = import(&other, &file, &["--no-start"]).await.ok();
    fs::write(path(&other, "mover/mover.soul"), "MODEL m\nSOUL s\n").expect("written");
    let _taken = import(&other, &file, &[]).await.exit(4).says("not empty");
}

#[tokio::test]
async fn nothing_is_overwritten_and_nothing_half_made() {
    let from = home_of_mover("").await;
    let said = from.send_with("mover", "say one", &["--id", "m1"]).await;
    let _answered = from.wait_status(&said, "completed").await;
    let _stopped = from.cli(["stop", "mover"]).await.ok();
    let (file, exported) = export(&from, &[]).await;
    let _exported = exported.ok();

    // Another agent of that name, and another message of that id.
    let to = elsewhere().await;
    let other = to.soul("mover", &soul(&to, ""));
    fs::create_dir(path(&to, "data")).expect("made");
    let _applied = to.cli(["apply".as_ref(), other.as_os_str()]).await.ok();
    let _there = import(&to, &file, &["--to", "new"]).await.exit(4).says("another agent mover");
    let mine = to.send_with("mover", "say mine", &["--id", "m1"]).await;
    let before = to.wait_status(&mine, "completed").await;
    let _gone = to.cli(["rm", "mover"]).await.ok();
    let _gone = to.cli(["wait", "mover", "--for", "stopped"]).await.ok();
    let _clash = import(&to, &file, &["--to", "new"]).await.exit(4).says("message m1");
    assert_eq!(to.show(&mine).await, before);
    // Nor does what a removed agent has left become the imported one's.
    let other = to.soul("other", &soul(&to, ""));
    let _applied = to.cli(["apply".as_ref(), other.as_os_str()]).await.ok();
    let left = to.send_with("other", "say mine", &["--id", "m2"]).await;
    let _answered = to.wait_status(&left, "completed").await;
    let _gone = to.cli(["rm", "other"]).await.ok();
    let _gone = to.cli(["wait", "other", "--for", "stopped"]).await.ok();
    let args = ["--name", "other", "--to", "new"];
    let _left = import(&to, &file, &args).await.exit(4).says("not in the archive");

    // Archives that are cut short, or none; folders that are taken.
    let bytes = fs::read(&file).expect("it is there");
    let broken = path(&to, "broken.tar");
    fs::write(&broken, &bytes[..bytes.len() - 1024]).expect("written");
    let _cut = import(&to, &broken, &["--name", "n"]).await.exit(2).says("truncated");
    fs::write(&broken, "no archive").expect("written");
    let _none = import(&to, &broken, &["--name", "n"]).await.exit(2);
    let _missing = import(&to, &path(&to, "missing.tar"), &[]).await.exit(3);
    let taken = path(&to, "data");
    fs::write(taken.join("file"), "mine").expect("written");
    let _taken = import(&to, &file, &["--name", "n", "--to", "data"]).await.exit(4);
    assert_eq!(fs::read_to_string(taken.join("file")).expect("untouched"), "mine");
    assert!(!path(&to, "new").exists() && !path(&to, "n").exists());
    assert_eq!(to.json(["journal", "ls"]).await.as_array().map(Vec::len), Some(2));
    let names = fs::read_dir(to.souls()).expect("there").flatten().map(|one| one.file_name());
    assert!(!names.into_iter().any(|name| name.as_encoded_bytes().starts_with(b".")));
}

#[tokio::test]
async fn a_process_has_nothing_to_commit() {
    let fleet = Fleet::with(&[("echo", "MODEL test/model\nSOUL You repeat.\n")]).await;
    let _process = fleet.cli(["commit", "echo"]).await.exit(4).says("runs as a process");
    let _digest = fleet.cli(["commit", "echo", "--image", "a@sha256:0"]).await.exit(2);
    let _nobody = fleet.cli(["commit", "nobody"]).await.exit(3);
}

#[tokio::test]
async fn what_has_no_data_takes_no_room_in_an_archive_nor_after_it() {
    use std::io::{Seek as _, SeekFrom, Write as _};
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    const SIZE: u64 = 128 << 20;
    const AT: u64 = 70 << 20;
    let from = home_of_mover("").await;
    let _stopped = from.cli(["stop", "mover"]).await.ok();
    let mut holes = fs::File::create(path(&from, "data/holes")).expect("made");
    holes.seek(SeekFrom::Start(AT)).expect("it seeks");
    holes.write_all(b"here").expect("written");
    holes.set_len(SIZE).expect("it grows");
    let taken = |file: &Path| fs::metadata(file).expect("there").blocks() * 512;
    assert!(taken(&path(&from, "data/holes")) < 1 << 20, "the file system has holes");
    let (file, exported) = export(&from, &[]).await;
    let _exported = exported.ok();
    assert!(fs::metadata(&file).expect("there").len() > SIZE);
    assert!(taken(&file) < 4 << 20, "{}", taken(&file));
    let to = elsewhere().await;
    let folder = path(&to, "moved");
    let _imported = import(&to, &file, &["--to", folder.to_str().expect("text")]).await.ok();
    let mut found = walk(&folder).into_iter().filter(|path| path.ends_with("holes"));
    let restored = found.next().expect("it is there");
    assert!(taken(&restored) < 4 << 20, "{}", taken(&restored));
    let restored = fs::File::open(&restored).expect("readable");
    let mut text = [0; 6];
    restored.read_exact_at(&mut text, AT - 1).expect("readable");
    assert_eq!((&text, restored.metadata().expect("there").len()), (b"\0here\0", SIZE));
}

/// The files in a folder and below.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is there").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
