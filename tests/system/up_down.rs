//! `mozart up` and `mozart down`: again, interrupted, and where the machine does not play along.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::harness::{Fleet, Output, Signal, eventually, flaky, kill, message, nats_server};
use tokio::process::{Child, Command};

/// Runs `mozart up -d --wait` with the fleet's souls.
async fn up_in_the_background(fleet: &Fleet) -> Output {
    let souls = fleet.souls().as_os_str();
    fleet.cli([OsStr::new("up"), souls, OsStr::new("-d"), OsStr::new("--wait")]).await
}

#[tokio::test]
async fn up_again_starts_what_is_missing_and_applies_what_changed() {
    let fleet = Fleet::new(&[("a", &flaky("")), ("b", &flaky(""))]);
    up_in_the_background(&fleet).await.ok().says("a generation 1: created");
    // With --wait, everything runs when it returns.
    assert_eq!(fleet.row("a").await["state"], "running");
    let (up, nats, shims) = (fleet.up_pid(), fleet.nats_pid(), [fleet.shim("a"), fleet.shim("b")]);

    fleet.soul("b", &flaky("LABEL version=2"));
    fleet.soul("c", &flaky(""));
    let again = up_in_the_background(&fleet).await.ok();
    again.says("a generation 1: unchanged");
    assert_eq!((fleet.up_pid(), fleet.nats_pid()), (up, nats));
    let b = fleet.wait_incarnation("b", 2).await;
    assert_eq!(b["generation"], 2);
    assert_eq!(fleet.row("c").await["state"], "running");
    assert_eq!(fleet.shim("a"), shims[0]);

    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(fleet.processes(), []);
    fleet.cli(["down"]).await.ok().says("nothing is running");
    // The data stays: what was registered runs again.
    let _up = fleet.cli(["up", "-d"]).await.ok();
    let row = fleet.wait_state("b", "running").await;
    assert_eq!((&row["generation"], &row["restartCount"]), (&2.into(), &0.into()), "{row}");
}

#[tokio::test]
async fn the_first_interrupt_drains_and_everything_ends() {
    let mut fleet = Fleet::with(&[("a", &flaky("TIMEOUT drain=10s"))]).await;
    let id = fleet.send("a", "sleep 1; say done").await;
    let _has_it = fleet.wait_status(&id, "acknowledged").await;
    let up = fleet.take_up();
    up.signal(Signal::INT);
    let _ended = up.output().await.ok();
    assert_eq!(fleet.processes(), []);
    assert_eq!(fleet.note(), None);
    fleet.cli(["ps"]).await.exit(6).says("`mozart up`");

    fleet.up(&[]).await;
    let row = fleet.show(&id).await.row;
    assert_eq!((row.response.as_deref(), row.attempts), (Some("done"), 1));
    // To go down is no crash.
    assert_eq!(fleet.wait_state("a", "running").await["restartCount"], 0);
}

#[tokio::test]
async fn the_second_interrupt_ends_it_at_once_and_down_cleans_up() {
    let mut fleet = Fleet::with(&[("a", &flaky("TIMEOUT drain=3s"))]).await;
    let id = fleet.send("a", "sleep 60").await;
    let _has_it = fleet.wait_status(&id, "acknowledged").await;
    let up = fleet.take_up();
    up.signal(Signal::INT);
    eventually("it drains", async || {
        let shown = fleet.cli(["events", "-o", "json"]).await;
        if shown.stdout.contains("nodeDraining") { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let began = Instant::now();
    up.signal(Signal::INT);
    let _ended = up.output().await.exit(130);
    assert!(began.elapsed() < Duration::from_secs(5));
    // What it left behind is stopped by `down`, or adopted by `up`.
    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(fleet.processes(), []);
    fleet.up(&[]).await;
    // Nothing is lost.
    let row = fleet.show(&id).await.row;
    assert!(!row.status.is_final(), "{row:?}");
}

#[tokio::test]
async fn down_stops_what_a_dead_up_left_behind() {
    let mut fleet = Fleet::with(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    fleet.kill_up().await;
    assert_ne!(fleet.processes(), []);
    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(fleet.processes(), []);
    assert_eq!(fleet.note(), None);
    fleet.up(&[]).await;
    for agent in ["a", "b"] {
        let row = fleet.wait_state(agent, "running").await;
        assert_eq!(row["restartCount"], 0, "{row}");
    }
}

/// The port of a fleet's server.
fn port(fleet: &Fleet) -> u16 {
    let note = fleet.note().expect("it runs");
    let url = note["url"].as_str().expect("an address").to_owned();
    url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("with a port")
}

#[tokio::test]
async fn a_port_that_is_still_taken_for_a_moment_is_kept() {
    let mut fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let (old, shim) = (port(&fleet), fleet.shim("a"));
    let server = fleet.nats_pid().expect("a server");
    // The keeper first: it would start another server.
    fleet.kill_up().await;
    kill(server, Signal::KILL);
    // As the sockets of a dying server do: it is gone already, and the port is not free yet.
    let taken = eventually("the port is free", async || {
        TcpListener::bind(("127.0.0.1", old)).map_err(|error| error.to_string())
    })
    .await;
    let released = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(taken);
    };
    tokio::join!(fleet.up(&[]), released);
    assert_eq!(port(&fleet), old);
    assert_eq!(fleet.ask("a", "say after").await, "after");
    assert_eq!(fleet.shim("a"), shim, "it found the server again");
}

#[tokio::test]
async fn a_port_that_another_program_took_meanwhile_is_given_up() {
    let mut fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let id = fleet.send("a", "say before").await;
    let _answered = fleet.wait_status(&id, "completed").await;
    let old = port(&fleet);
    let up = fleet.take_up();
    up.signal(Signal::INT);
    let _ended = up.output().await.ok();

    let _other = TcpListener::bind(("127.0.0.1", old)).expect("it is free again");
    fleet.up(&[]).await;
    assert_ne!(port(&fleet), old);
    assert_eq!(fleet.ask("a", "say after").await, "after");
    assert_eq!(fleet.show(&id).await.row.response.as_deref(), Some("before"));
}

#[tokio::test]
async fn a_data_folder_of_a_newer_version_is_not_touched() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    fs::create_dir(fleet.home()).expect("a new folder");
    fs::write(fleet.home().join("format"), "99\n").expect("written");
    for args in [["up", "."].as_slice(), &["up", ".", "-d"]] {
        let output = fleet.cli(args).await.exit(1);
        output.says("data folder").says("99").says("newer mozart");
    }
    assert_eq!(fleet.processes(), []);
    let left: Vec<_> = fs::read_dir(fleet.home()).expect("it is there").flatten().collect();
    assert_eq!(left.len(), 1, "only the format is there: {left:?}");
}

/// Writes a program that says it is this version of nats-server.
fn says_version(fleet: &Fleet, version: &str) -> PathBuf {
    let path = fleet.souls().join("fake-nats-server");
    fs::write(&path, format!("#!/bin/sh\necho 'nats-server: {version}'\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

#[tokio::test]
async fn a_nats_server_that_cannot_be_used_is_named_with_what_helps() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let up = async |server: &Path| {
        let env = [("MOZART_NATS_SERVER", server.as_os_str())];
        fleet.cli_with(["up", "."], &env).await
    };
    let output = up(&says_version(&fleet, "v2.10.0")).await.exit(6);
    output.says("2.12 or newer is needed").says("2.10").says("make setup");
    let output = up(&says_version(&fleet, "something else")).await.exit(6);
    output.says("something else");
    let output = up(&fleet.souls().join("nowhere")).await.exit(6);
    output.says("nowhere").says("try:");
    assert_eq!(fleet.processes(), []);
}

/// A nats-server of the test's own, and where it listens: `nats`, and whatever else it was told to.
pub(crate) async fn own_server(fleet: &Fleet, config: &str) -> (Child, Value) {
    let folder = fleet.souls().join("own-nats");
    fs::create_dir(&folder).expect("a new folder");
    let conf = folder.join("nats.conf");
    fs::write(&conf, format!("listen: \"127.0.0.1:-1\"\n{config}")).expect("written");
    let server = Command::new(nats_server())
        .arg("-c")
        .arg(&conf)
        .arg("--ports_file_dir")
        .arg(&folder)
        .current_dir(&folder)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it is there");
    let ports = eventually("the server says its port", async || {
        let files = fs::read_dir(&folder).expect("it is there").flatten();
        let ports = files
            .map(|file| file.path())
            .find(|path| path.extension() == Some(OsStr::new("ports")));
        let text = ports.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let ports: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if ports["nats"][0].is_string() { Ok(ports) } else { Err(text) }
    })
    .await;
    (server, ports)
}

/// Its address for clients.
fn address(ports: &Value) -> String {
    ports["nats"][0].as_str().expect("it listens").to_owned()
}

#[tokio::test]
async fn a_server_that_is_not_there_or_lacks_jetstream_is_an_error_that_says_so() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let (_server, ports) = own_server(&fleet, "").await;
    let without = address(&ports);
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("nats://127.0.0.1:{}", closed.local_addr().expect("it is bound").port());
    drop(closed);
    let (up, up_without, send, ps) = tokio::join!(
        fleet.cli(["up", ".", "--nats", &nobody]),
        fleet.cli(["up", ".", "--nats", &without]),
        fleet.cli(["send", "a", "hello", "--nats", &nobody]),
        fleet.cli(["ps", "--nats", &without]),
    );
    up.exit(6).says(&nobody).says("cause:").says("try:");
    up_without.exit(6).says("JetStream");
    send.exit(6).says(&nobody);
    ps.exit(6).says("JetStream");
    assert_eq!(fleet.processes(), []);
}

#[tokio::test]
async fn a_given_server_is_used_and_left_running() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let (mut server, ports) =
        own_server(&fleet, "jetstream { store_dir: data, sync_interval: always }").await;
    let url = address(&ports);
    let _up =
        fleet.cli(["up", ".", "-d", "--wait", "--nats", &url, "--namespace", "other"]).await.ok();
    // Clients find it, and its namespace, by the note.
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    assert_eq!(fleet.nats_pid(), None);
    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(fleet.processes(), []);
    assert!(server.try_wait().expect("our child").is_none(), "the server is not ours to stop");
}

#[tokio::test]
async fn a_full_disk_refuses_new_messages_and_keeps_the_old_ones() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let config =
        "jetstream { store_dir: data, sync_interval: always, max_file_store: 6MB, strict: false }";
    let (_server, ports) = own_server(&fleet, config).await;
    let url = address(&ports);
    let _up = fleet.cli(["up", ".", "-d", "--wait", "--nats", &url]).await.ok();
    let broker = fleet.broker().await;
    let (mut stored, text) = (Vec::new(), format!("say {}", "x".repeat(200_000)));
    let refused = loop {
        let id = format!("m{}", stored.len());
        match broker.send(&message("a", &id, &text), Duration::from_secs(10)).await {
            Ok(_) => stored.push(id),
            Err(error) => break error,
        }
        assert!(stored.len() < 100, "20 MB do not fit");
    };
    assert!(!stored.is_empty(), "{refused}");
    let mut send = fleet.spawn_cli(["send", "a", "-"]);
    send.feed(text.as_bytes()).await;
    let output = send.output().await.exit(9);
    output.says("cause:").says("free disk space");
    // What was accepted is there.
    let rows = fleet.json(["journal", "ls"]).await;
    let there: Vec<_> =
        rows.as_array().expect("a list").iter().map(|row| row["messageId"].clone()).collect();
    assert_eq!(there, stored);
}

/// The log takes for running what has ended with the host.
#[tokio::test]
async fn a_wait_after_a_crash_of_the_host_ends_when_something_runs() {
    let mut fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let before = fleet.row("a").await["incarnation"].as_u64().expect("a number");
    fleet.kill_up().await;
    for process in fleet.processes() {
        kill(process.pid, Signal::KILL);
    }
    let _up = fleet.cli(["up", "-d", "--wait"]).await.ok();
    let row = fleet.row("a").await;
    assert!(row["runningIncarnation"].as_u64() > Some(before) && row["reported"] == true, "{row}");
    let _down = fleet.cli(["down"]).await.ok();
}
