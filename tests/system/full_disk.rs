//! A disk that fills up: at 80 percent people are warned, at 95 new messages are refused and what was accepted still ends, at 100
//! nothing is lost, and all of it goes on by itself when there is room.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use system_tests::harness::{Fleet, Output, eventually, within};

const ECHO: &str = "MODEL test/model\nSOUL You repeat.";

/// The size of the disk.
const SIZE: u64 = 128 << 20;

/// The leader tries for 5 s to write a record.
const GIVEN_UP: Duration = Duration::from_secs(6);

/// A file system of its own, in memory.
struct Disk(PathBuf);

impl Disk {
    /// None where this process may not make one.
    #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
    fn on(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).expect("a new folder");
        let size = CString::new(format!("size={SIZE},mode=700")).expect("no zero in it");
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("tmpfs", folder, "tmpfs", flags, Some(size.as_c_str())) {
            Ok(()) => Some(Self(folder.to_owned())),
            Err(error) => {
                assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "cannot mount: {error}");
                eprintln!("SKIPPED, since it needs a file system of its own: {error}");
                None
            }
        }
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).expect("it is mounted");
        stat.f_bavail * stat.f_frsize
    }

    /// Leaves so many bytes free, if there are more.
    fn leave(&self, free: u64) {
        let file = File::options().create(true).append(true).open(self.ballast());
        let mut file = file.expect("a file");
        let page = [0; 4096];
        // The last bytes may be gone meanwhile.
        while self.free() > free && file.write_all(&page).is_ok() {}
    }

    /// Fills up what becomes free, until what this yields is dropped.
    fn keep_full(&self) -> Full {
        let stop = Arc::new(AtomicBool::new(false));
        let (disk, stopped) = (ManuallyDrop::new(Self(self.0.clone())), Arc::clone(&stop));
        let filling = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                disk.leave(0);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        Full { stop, filling: Some(filling) }
    }

    /// Frees so many bytes.
    fn give_back(&self, bytes: u64) {
        let file = File::options().write(true).open(self.ballast()).expect("it is there");
        let len = file.metadata().expect("a file").len();
        file.set_len(len.saturating_sub(bytes)).expect("shorter");
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("it is there");
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

/// A disk is kept full.
struct Full {
    stop: Arc<AtomicBool>,
    filling: Option<JoinHandle<()>>,
}

impl Drop for Full {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(filling) = self.filling.take() {
            filling.join().expect("it fills");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

async fn send(fleet: &Fleet, id: &str) -> Output {
    fleet.cli(["send", "echo", "hello", "--id", id]).await
}

/// What `doctor` says of the broker's disk.
async fn room(fleet: &Fleet) -> String {
    health(fleet, "room").await
}

async fn health(fleet: &Fleet, check: &str) -> String {
    let checks = fleet.cli(["doctor", "-o", "json"]).await.json();
    let mut checks = checks.as_array().expect("a list").iter();
    let check = checks.find(|one| one["check"] == check).expect("it is told");
    check["health"].as_str().expect("a word").to_owned()
}

async fn completed(fleet: &Fleet, id: &str) {
    eventually("it is answered", async || {
        let shown = fleet.json(["journal", "show", id]).await;
        if shown["status"] == "completed" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_fills_up_is_told_of_and_loses_nothing() {
    let mut fleet = Fleet::new(&[("echo", ECHO), ("late", ECHO)]);
    let Some(disk) = Disk::on(fleet.home()) else { return };
    fleet.all_up().await;
    let _sent = send(&fleet, "m1").await.ok();
    assert_eq!(room(&fleet).await, "ok");

    // At 80 percent.
    disk.leave(SIZE / 100 * 18);
    assert_eq!(room(&fleet).await, "warn");
    let _sent = send(&fleet, "m2").await.ok();

    // At 95 percent: what is open is answered, and agents are started and stopped.
    let _done = fleet.cli(["stop", "echo"]).await.ok();
    let _done = fleet.cli(["wait", "echo", "--for", "stopped"]).await.ok();
    let _sent = send(&fleet, "m3").await.ok();
    let _done = fleet.cli(["stop", "late"]).await.ok();
    let _done = fleet.cli(["wait", "late", "--for", "stopped"]).await.ok();
    let mut long = fleet.spawn_cli(["send", "late", "-", "--id", "m4"]);
    long.feed("x".repeat(300_000).as_bytes()).await;
    let _sent = long.output().await.ok();
    disk.leave(SIZE / 100 * 4);
    let refused = send(&fleet, "m5").await.exit(9).says("the broker's disk holds");
    let _says = refused.says("try: `mozart usage --storage`");
    assert_eq!((room(&fleet).await, health(&fleet, "store").await), ("fail".into(), "warn".into()));
    // What was erased before may still be in the files, and they cannot be rewritten.
    let unclean = fleet.cli(["forget", "echo", "--before", "2020-01-01"]).await.exit(9);
    unclean.says("may still be on disk").says("try: free ");
    fleet.cli(["ps"]).await.ok().says("new messages are refused").says("the broker's disk holds");
    for what in ["echo", "m3"] {
        let why = fleet.cli(["explain", what]).await.ok();
        assert!(why.stdout.contains("the broker's disk holds"), "{why}");
    }
    let _done = fleet.cli(["start", "echo"]).await.ok();
    completed(&fleet, "m3").await;
    let _refused = send(&fleet, "m5").await.exit(9);

    // At 100 percent an answer of some length cannot be stored, and a server whose write has failed takes nothing any more. What reads works.
    disk.leave(0);
    let _refused = send(&fleet, "m5").await.exit(9);
    let kept = disk.keep_full();
    let _done = fleet.cli(["start", "late"]).await;
    let log = fleet.home().join("nats/nats.log");
    eventually("a write fails", async || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        if log.contains("no space left on device") { Ok(()) } else { Err(log) }
    })
    .await;
    let rows: Value = fleet.json(["ps"]).await;
    assert_eq!(rows[0]["agent"], "echo");
    let _shown = fleet.cli(["journal", "ls"]).await.ok();
    let _shown = fleet.cli(["usage", "--storage"]).await.ok();
    // Why nothing is changed is known, whoever it is that gets no answer.
    fleet.cli(["restart", "echo"]).await.exit(9).says("the broker's disk is");
    assert_eq!(room(&fleet).await, "fail");

    // So long that what the leader had to write is given up.
    tokio::time::sleep(GIVEN_UP).await;
    drop(kept);
    // Too little for the server to go on with, however small a share of the disk is used.
    disk.give_back(10 << 20);
    assert_eq!(room(&fleet).await, "fail");
    let _refused = send(&fleet, "m5").await.exit(9).says("16 MiB are reserved");
    // With room again, all goes on by itself.
    disk.make_room();
    // Whether the record of it got into the log is a matter of the last bytes. One whose answer is lost with the server waits for a minute.
    within(Duration::from_secs(150), "it is to be started", async || {
        let started = fleet.cli(["start", "late"]).await;
        if started.code == 0 { Ok(()) } else { Err(started.to_string()) }
    })
    .await;
    completed(&fleet, "m4").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let output = fleet.cli(["send", "echo", "hello", "--id", "m6", "--wait"]).await;
        if output.code == 0 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{output}");
    }
    let rows = fleet.json(["journal", "ls"]).await;
    let rows = rows.as_array().expect("an array").iter();
    let rows: Vec<_> =
        rows.map(|row| (row["messageId"].as_str(), row["status"].as_str())).collect();
    let expected = ["m1", "m2", "m3", "m4", "m6"].map(|id| (Some(id), Some("completed")));
    assert_eq!(rows, expected);
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn what_goes_down_on_a_full_disk_has_not_crashed() {
    // So many that what is to be recorded of them does not fit into what is left of a page.
    let names: Vec<String> = (0..12).map(|n| format!("echo-{n}")).collect();
    let souls: Vec<_> = names.iter().map(|name| (name.as_str(), ECHO)).collect();
    let mut fleet = Fleet::new(&souls);
    let Some(disk) = Disk::on(fleet.home()) else { return };
    fleet.all_up().await;
    let _sent = fleet.cli(["send", "echo-0", "hello", "--wait"]).await.ok();
    let draft = fleet.home().join("mozart.json.4294967295");
    fs::write(&draft, b"{").expect("written");
    disk.leave(0);
    let kept = disk.keep_full();
    // Nothing can be erased either.
    let refused = fleet.cli(["forget", "echo-0"]).await.exit(9);
    refused.says("nats-server rewrites a file").says("free 32 MiB");
    let _down = fleet.cli(["down"]).await.ok();
    let _ended = fleet.take_up().output().await;
    assert_eq!(fleet.processes(), []);
    drop(kept);
    disk.make_room();
    fleet.all_up().await;
    for name in &names {
        let row = fleet.wait_incarnation(name, 2).await;
        assert_eq!((&row["restartCount"], &row["lastExit"]), (&0.into(), &Value::Null), "{row}");
    }
    assert!(!draft.exists());
    let _down = fleet.cli(["down"]).await.ok();
}
