//! Agents that are moved with their SANCTUMs. Each node has a mount namespace of its own, so that one path is two folders.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use system_tests::harness::{Child, Fleet, Signal, eventually, kill};

use crate::roles::{apply, fleet_at, free_port, server_at};

/// A supervisor, a server, and the nodes `n1` and `n2`, which each see another folder at `data`.
struct Ground {
    fleet: Fleet,
    other: Fleet,
    supervisor: Child,
    n1: Option<Child>,
    n2: Option<Child>,
    mounts: String,
    _server: tokio::process::Child,
}

const KEEPER: &str = "MODEL test/keeper\nSOUL You keep notes.\nWORKER [\"python3\", \"keeper.py\"]\nRESTART always backoff=100ms..1s\nTIMEOUT drain=5s\n";

impl Ground {
    /// `size`: of a file system of its own for `n2`.
    async fn new(size: Option<&str>) -> Self {
        let port = free_port();
        let fleet = fleet_at(port);
        let worker = Path::new(env!("CARGO_MANIFEST_DIR")).join("workers/keeper.py");
        fs::copy(worker, fleet.souls().join("keeper.py")).expect("copied");
        let (data, of_n2) = (fleet.home().join("../data"), fleet.home().join("../n2"));
        for folder in [&data, &of_n2] {
            fs::create_dir_all(folder).expect("made");
        }
        let data = data.canonicalize().expect("it is there");
        let of_n2 = of_n2.canonicalize().expect("it is there");
        fleet.soul("a", &format!("{KEEPER}SANCTUM {}/notes:/data\n", data.display()));
        fs::write(fleet.souls().join(".mozartignore"), "/own-nats\n/nats.conf\n").expect("written");
        let mounts = match size {
            None => format!("mount --bind '{}' '{}'", of_n2.display(), data.display()),
            Some(size) => format!("mount -t tmpfs -o size={size} none '{}'", data.display()),
        };
        let url = format!("nats://127.0.0.1:{port}");
        let other = Fleet::new(&[]).env("NATS_URL", &url);
        let server = server_at(&fleet, port, "");
        let supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
        let mut ground =
            Self { fleet, other, supervisor, n1: None, n2: None, mounts, _server: server };
        ground.start_n1();
        ground.has("n1", "up").await;
        apply(&ground.fleet).await;
        let _row = ground.fleet.wait_state("a", "running").await;
        ground.start_n2();
        ground.has("n2", "up").await;
        ground
    }

    fn start_n1(&mut self) {
        let args = ["node", "--name", "n1", "--runtime", "process"];
        self.n1 = Some(self.fleet.spawn_cli(args));
    }

    fn start_n2(&mut self) {
        let args = ["node", "--name", "n2", "--runtime", "process"];
        self.n2 = Some(self.other.spawn_where(&self.mounts, args));
    }

    /// The folder of the SANCTUM as `n1` sees it.
    fn notes(&self) -> PathBuf {
        self.fleet.home().parent().expect("it has one").join("data/notes")
    }

    /// As `n2` sees it.
    fn of_n2(&self) -> PathBuf {
        self.fleet.home().parent().expect("it has one").join("n2/notes")
    }

    /// Names beside it.
    fn beside(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path.parent().expect("it has one")).expect("it is there");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    async fn has(&self, name: &str, state: &str) {
        eventually(&format!("{name} is {state}"), async || {
            let output = self.fleet.cli(["node", "ls", "-o", "json"]).await;
            let rows = if output.code == 0 { output.json() } else { Value::Null };
            let rows = rows.as_array().cloned().unwrap_or_default();
            let is_so = |row: &Value| row["node"] == name && row["state"] == state;
            if rows.iter().any(is_so) { Ok(()) } else { Err(output.to_string()) }
        })
        .await;
    }

    /// Where the agent answers, and that it still has all of its notes.
    async fn answers(&self, node: &str, lines: usize) {
        let row = self.fleet.wait_state("a", "running").await;
        assert_eq!(row["node"], node, "{row}");
        let args = ["send", "a", "a note", "--wait", "--timeout", "60s", "-o", "json"];
        let answer = self.fleet.cli(args).await.ok().json();
        assert_eq!(answer["response"], lines.to_string(), "{answer}");
    }

    async fn explains(&self, words: &str) {
        let explained = self.fleet.cli(["explain", "a"]).await.ok();
        assert!(explained.stdout.contains(words), "{words:?} is missing: {explained}");
    }

    /// Something that takes a while to copy.
    fn fill(&self, megabytes: u64) {
        let file = File::create(self.notes().join("large")).expect("made");
        let chunk: Vec<u8> =
            (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        for n in 0..megabytes {
            file.write_all_at(&chunk, n << 20).expect("written");
        }
    }

    /// Waits until a copy to `n2` is in the middle.
    async fn is_copying(&self, before: &[String]) {
        let of_n2 = self.of_n2();
        eventually("the copy is under way", async || {
            let names = Self::beside(&of_n2);
            let is_draft =
                |name: &&String| name.starts_with(".carrying-") && !before.contains(*name);
            let draft = names.iter().find(is_draft);
            let large = draft.map(|draft| of_n2.with_file_name(draft).join("large"));
            let known = large.and_then(|large| fs::metadata(large).ok());
            let is_begun = known.is_some_and(|known| known.blocks() * 512 > 4 << 20);
            if is_begun { Ok(()) } else { Err(format!("{names:?}")) }
        })
        .await;
    }
}

/// Everything about a folder that a copy must keep: path, kind, mode, owner, time, content, and whether it has holes.
fn told(root: &Path) -> Vec<String> {
    fn walk(root: &Path, path: &Path, out: &mut Vec<String>) {
        let known = fs::symlink_metadata(path).expect("it is there");
        let name = path.strip_prefix(root).expect("within").as_os_str().as_bytes().escape_ascii();
        let kind = known.file_type();
        let content = if kind.is_symlink() {
            format!("-> {}", fs::read_link(path).expect("a link").display())
        } else if kind.is_file() {
            let bytes = fs::read(path).expect("readable");
            let sum = bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte));
            format!("{} bytes {sum:x} sparse {}", bytes.len(), known.blocks() * 512 < known.len())
        } else {
            String::new()
        };
        let time = if kind.is_symlink() { 0 } else { known.mtime_nsec() + known.mtime() };
        out.push(format!(
            "{name} {kind:?} {:o} {} {} {time} {content}",
            known.permissions().mode(),
            known.uid(),
            known.gid()
        ));
        if kind.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(path)
                .expect("readable")
                .map(|entry| entry.expect("readable").path())
                .collect();
            entries.sort();
            for entry in entries {
                walk(root, &entry, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out
}

/// All kinds of things.
fn furnish(root: &Path) {
    fs::create_dir_all(root.join("empty")).expect("made");
    fs::create_dir_all(root.join("deep/er")).expect("made");
    fs::write(root.join("deep/er/file"), "content").expect("written");
    let strange = root.join(OsStr::from_bytes(b"\xff a\nb'\"$x"));
    fs::write(&strange, "strange").expect("written");
    fs::write(root.join("nothing"), "").expect("written");
    let sparse = File::create(root.join("sparse")).expect("made");
    sparse.set_len(40 << 20).expect("set");
    sparse.write_all_at(b"in the middle", 20 << 20).expect("written");
    std::os::unix::fs::symlink("deep/er/file", root.join("link")).expect("made");
    std::os::unix::fs::symlink("/nowhere at all", root.join("dangling")).expect("made");
    fs::write(root.join("script"), "#!/bin/sh\n").expect("written");
    let mode = |name: &str, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("set");
    };
    mode("script", 0o4751);
    mode("deep/er", 0o1500);
    std::os::unix::fs::chown(root.join("nothing"), Some(12_345), Some(54_321)).expect("root may");
}

#[tokio::test]
async fn a_moved_agent_takes_its_sanctum_along_and_answers_every_message_once() {
    let ground = Ground::new(None).await;
    let fleet = &ground.fleet;
    ground.answers("n1", 1).await;
    furnish(&ground.notes());
    ground.fill(24);
    let before = told(&ground.notes());
    let moving = fleet.spawn_cli(["move", "a", "--to", "n2", "--wait", "-o", "json"]);
    let mut sent = Vec::new();
    for n in 0..10 {
        sent.push(fleet.send("a", &format!("during the move {n}")).await);
    }
    let moved = moving.output().await.ok();
    let moved = moved.says("n1 keeps the previous copy as").says(".moved-to-n2-20").json();
    assert_eq!((&moved["node"], &moved["carry"]["from"]), (&"n2".into(), &"n1".into()), "{moved}");
    let kept = PathBuf::from(moved["carry"]["kept"][0].as_str().expect("a path"));
    for message in &sent {
        let done = fleet.wait_status(message, "completed").await;
        assert_eq!(done.row.attempts, 1, "{done:?}");
    }
    let notes = fs::read_to_string(ground.of_n2().join("notes")).expect("it is there");
    let mut lines: Vec<_> = notes.lines().skip(1).collect();
    lines.sort_unstable();
    let expected: Vec<_> = (0..10).map(|n| format!("during the move {n}")).collect();
    assert_eq!(lines, expected, "each of them once, none forgotten");
    // What was there before arrived as it was, and is kept as it was; the notes have grown.
    let fixed = |all: &[String]| {
        let changes = |one: &&String| !one.starts_with("notes ") && !one.starts_with(' ');
        all.iter().filter(changes).cloned().collect::<Vec<_>>()
    };
    assert_eq!(fixed(&told(&ground.of_n2())), fixed(&before));
    assert_eq!(fixed(&told(&kept)), fixed(&before));
    assert_eq!(Ground::beside(&ground.of_n2()), ["notes"], "nothing else is left there");
    assert!(!ground.notes().exists());
    ground.answers("n2", 12).await;
    ground.explains("Its SANCTUM was moved from n1 to n2").await;
    ground.explains("the previous copy of its SANCTUM is kept as").await;

    // And back, by another leader, while it is stopped: where it was before there is nothing by now.
    ground.supervisor.signal(Signal::KILL);
    let _successor = ground.other.spawn_cli(["supervisor", "--id", "t"]);
    eventually("another supervisor answers", async || {
        let stopped = fleet.cli(["stop", "a"]).await;
        if stopped.code == 0 { Ok(()) } else { Err(stopped.to_string()) }
    })
    .await;
    fleet.cli(["move", "a", "--to", "n1", "--wait"]).await.ok().says("moved-to-n1-20");
    let _done = fleet.cli(["start", "a"]).await.ok();
    ground.answers("n1", 13).await;
}

#[tokio::test]
async fn what_is_in_the_way_is_not_overwritten_and_what_both_nodes_see_is_not_copied() {
    let mut ground = Ground::new(None).await;
    ground.answers("n1", 1).await;
    fs::create_dir_all(ground.of_n2()).expect("made");
    fs::write(ground.of_n2().join("precious"), "mine").expect("written");
    let before = ground.fleet.row("a").await;
    let refused = ground.fleet.cli(["move", "a", "--to", "n2"]).await.exit(4);
    refused.says("cannot move a to n2").says("exists there and is not empty").says("move it away");
    let after = ground.fleet.row("a").await;
    assert_eq!(before["incarnation"], after["incarnation"], "it was not even stopped");
    assert_eq!(Ground::beside(&ground.of_n2().join("x")), ["precious"]);
    assert_eq!(Ground::beside(&ground.notes().join("x")), ["notes"], "no marker is left");

    // A node that is away.
    kill_node(&ground.n2);
    ground.has("n2", "lost").await;
    ground.fleet.cli(["move", "a", "--to", "n2"]).await.exit(4).says("n2 is lost");
    // The same folder on both.
    ground.mounts = "true".to_owned();
    ground.start_n2();
    ground.has("n2", "up").await;
    let moved = ground.fleet.cli(["move", "a", "--to", "n2", "--wait"]).await.ok();
    moved.says("nothing was copied: its SANCTUM is the same folder on n1 and n2");
    ground.answers("n2", 2).await;
    assert_eq!(Ground::beside(&ground.notes()), ["notes"]);
    // Only with its node: until that is back, it waits, and cannot be moved.
    kill_node(&ground.n2);
    for process in ground.other.processes_of("a") {
        kill(process.pid, Signal::KILL);
    }
    ground.has("n2", "lost").await;
    let refused = ground.fleet.cli(["move", "a", "--to", "n1"]).await.exit(4);
    refused.says("it waits for node n2, which is away since").says("because its SANCTUM is there");
}

fn kill_node(node: &Option<Child>) {
    node.as_ref().expect("it runs").signal(Signal::KILL);
}

#[tokio::test]
async fn a_node_that_dies_while_it_copies_costs_nothing_but_the_move() {
    let mut ground = Ground::new(None).await;
    ground.answers("n1", 1).await;
    ground.fill(400);
    // The one that is to have it.
    let before = Ground::beside(&ground.of_n2());
    let moving = ground.fleet.spawn_cli(["move", "a", "--to", "n2"]);
    ground.is_copying(&before).await;
    kill_node(&ground.n2);
    let failed = moving.output().await.exit(1);
    failed.says("a was not moved to n2").says("node n2 is lost");
    ground.answers("n1", 2).await;
    ground.start_n2();
    ground.has("n2", "up").await;
    assert_eq!(Ground::beside(&ground.of_n2()), Vec::<String>::new(), "what was copied is removed");

    // The one that has it. Whoever interrupts the command leaves the move going.
    let before = Ground::beside(&ground.of_n2());
    let moving = ground.fleet.spawn_cli(["move", "a", "--to", "n2"]);
    ground.is_copying(&before).await;
    moving.signal(Signal::INT);
    let interrupted = moving.output().await.exit(130);
    interrupted.says("the move goes on").says("mozart move a --to n1");
    kill_node(&ground.n1);
    ground.has("n1", "lost").await;
    let row = ground.fleet.row("a").await;
    let reason = row["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("waits for node n1, which is away since"), "{row}");
    ground.start_n1();
    ground.answers("n1", 3).await;
    eventually("what was copied is removed", async || {
        let names = Ground::beside(&ground.of_n2());
        if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;

    // Cancelled.
    let before = Ground::beside(&ground.of_n2());
    let moving = ground.fleet.spawn_cli(["move", "a", "--to", "n2"]);
    ground.is_copying(&before).await;
    let _done = ground.fleet.cli(["move", "a", "--to", "n1"]).await.ok();
    moving.output().await.exit(1).says("a move to n1 was requested");
    ground.answers("n1", 4).await;

    // And at last, through a change of the leader.
    let before = Ground::beside(&ground.of_n2());
    let moving = ground.fleet.spawn_cli(["move", "a", "--to", "n2", "--wait"]);
    ground.is_copying(&before).await;
    ground.supervisor.signal(Signal::KILL);
    let _successor = ground.other.spawn_cli(["supervisor", "--id", "t"]);
    moving.output().await.ok().says("n1 keeps the previous copy");
    ground.answers("n2", 5).await;
    assert_eq!(fs::metadata(ground.of_n2().join("large")).expect("it is there").len(), 400 << 20);
    assert_eq!(Ground::beside(&ground.of_n2()), ["notes"]);
}

#[tokio::test]
async fn without_room_for_its_sanctum_an_agent_goes_on_where_it_was() {
    let ground = Ground::new(Some("8m")).await;
    ground.answers("n1", 1).await;
    ground.fill(32);
    let failed = ground.fleet.cli(["move", "a", "--to", "n2"]).await.exit(1);
    failed.says("a was not moved to n2").says("no room on n2: the copy takes 32");
    ground.answers("n1", 2).await;
    ground.explains("Its SANCTUM was not moved from n1 to n2: no room on n2").await;
    let within = Duration::from_secs(60);
    let message = ground.fleet.send("a", "one more").await;
    let _done = ground.fleet.wait_status_within(within, &message, "completed").await;
}
