//! `mozart doctor`: what it finds, what it removes, and what it leaves alone. And what `down` removes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use system_tests::harness::{Fleet, Output, Signal, alive, eventually, flaky, kill};

use crate::up_down::own_server;

/// A soul without WORKER: echo.
const ECHO: &str = "MODEL test/model\nSOUL You repeat.";

/// The health of a check, and what was found: of all of that name.
fn found(output: &Output, check: &str) -> Vec<(String, String)> {
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let checks = output.json();
    let checks = checks.as_array().expect("a list").iter();
    let of_it = checks.filter(|one| one["check"] == check);
    of_it.map(|one| (text(one, "health"), text(one, "found"))).collect()
}

/// The same, of a check that is there once.
#[track_caller]
fn one(output: &Output, check: &str) -> (String, String) {
    let mut all = found(output, check);
    assert_eq!(all.len(), 1, "{check}: {output}");
    all.remove(0)
}

#[tokio::test]
async fn writes_that_are_synced_late_fail() {
    for (sync, health, code) in [("always", "ok", 0), ("lazy", "fail", 1)] {
        let mut fleet = Fleet::new(&[("a", &flaky(""))]);
        fleet.up(&["--sync", sync, "--runtime", "process"]).await;
        let _row = fleet.wait_state("a", "running").await;
        let output = fleet.cli(["doctor", "-o", "json"]).await.exit(code);
        let (found_health, found) = one(&output, "durability");
        assert_eq!(found_health, health, "{found}");
        assert_eq!(found.contains("power cut"), sync == "lazy", "{found}");
        // Everything else is in order, on one machine and of one build.
        let others = ["shim", "broker", "log", "supervisor", "nodes", "versions", "leftovers"];
        for check in others.into_iter().chain(["streams", "memory", "room"]) {
            assert_eq!(one(&output, check).0, "ok", "{output}");
        }
        let clocks = self::found(&output, "clock");
        let good = clocks.iter().all(|(health, _)| health == "ok");
        assert!(good && !clocks.is_empty(), "{output}");
    }
}

#[tokio::test]
async fn a_server_of_ones_own_is_asked_where_its_monitor_is_named() {
    let fleets = [Fleet::new(&[("a", &flaky(""))]), Fleet::new(&[("a", &flaky(""))])];
    let sync = ["", ", sync_interval: always"];
    let mut servers = Vec::new();
    for (fleet, sync) in fleets.iter().zip(sync) {
        let config = format!("http: \"127.0.0.1:-1\"\njetstream {{ store_dir: data{sync} }}");
        let (server, ports) = own_server(fleet, &config).await;
        let address = |name: &str| ports[name][0].as_str().expect("it listens").to_owned();
        let (nats, monitor) = (address("nats"), address("monitoring"));
        let up = ["up", ".", "-d", "--wait", "--runtime", "process", "--nats", &nats];
        let _up = fleet.cli(up).await.ok();
        servers.push((server, monitor));
    }
    let [lazy, always] = &fleets;
    let doctor = async |fleet: &Fleet, more: &[&str]| {
        fleet.cli(["doctor", "-o", "json"].iter().chain(more)).await
    };
    let (health, found) = one(&doctor(lazy, &[]).await.ok(), "durability");
    assert_eq!(health, "warn", "{found}");
    assert!(found.contains("does not tell"), "{found}");

    let monitor = |index: usize| servers[index].1.as_str();
    let (health, found) =
        one(&doctor(lazy, &["--monitor", monitor(0)]).await.exit(1), "durability");
    assert_eq!(health, "fail", "{found}");
    assert!(found.contains("only every 2m"), "{found}");
    let (health, found) = one(&doctor(always, &["--monitor", monitor(1)]).await.ok(), "durability");
    assert_eq!(health, "ok", "{found}");
    // Another server's word counts for nothing.
    let (health, found) = one(&doctor(lazy, &["--monitor", monitor(1)]).await.ok(), "durability");
    assert_eq!(health, "warn", "{found}");
    assert!(found.contains("not the server in use"), "{found}");

    let env = [("MOZART_NATS_MONITOR", OsStr::new(monitor(1)))];
    let output = always.cli_with(["doctor", "-o", "json"], &env).await.ok();
    assert_eq!(one(&output, "durability").0, "ok");
    let nobody = doctor(always, &["--monitor", "http://127.0.0.1:1"]).await.ok();
    assert_eq!(one(&nobody, "durability").0, "warn");
}

/// Docker, and the static shim for its containers.
struct Docker {
    shim: PathBuf,
}

impl Docker {
    /// None where something is missing, which is said; in CI, that is a failure.
    #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
    fn find() -> Option<Self> {
        let shim = std::env::var_os("MOZART_TEST_SHIM").map(PathBuf::from).unwrap_or_default();
        let missing = if !shim.is_file() {
            "no static shim is named in MOZART_TEST_SHIM"
        } else if docker(&["version"]).is_err() {
            "docker does not answer"
        } else {
            return Some(Self { shim });
        };
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing}");
        eprintln!("SKIPPED, since it needs containers: {missing}");
        None
    }

    async fn cli(&self, fleet: &Fleet, args: &[&str]) -> Output {
        fleet.cli_with(args, &[("MOZART_SHIM", self.shim.as_os_str())]).await
    }

    /// Starts a fleet of echo in containers.
    async fn up(&self) -> (Fleet, Containers) {
        let fleet = Fleet::new(&[("echo", ECHO)]);
        let up = ["up", ".", "-d", "--wait", "--runtime", "docker"];
        let _up = self.cli(&fleet, &up).await.ok();
        let note = note(&fleet.home().join("run")).expect("a container is noted");
        let id = note["id"].as_str().expect("it has one").to_owned();
        let label = |name: &str| {
            let format = format!("{{{{index .Config.Labels \"dev.mozart.{name}\"}}}}");
            docker(&["inspect", "--format", &format, &id]).expect("it is there")
        };
        let containers = Containers { fleet: label("fleet"), node: label("node"), id };
        (fleet, containers)
    }
}

/// Runs docker; what it says.
fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output().map_err(|error| error.to_string())?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The first `container.json` below a folder.
fn note(folder: &Path) -> Option<Value> {
    if let Ok(bytes) = std::fs::read(folder.join("container.json")) {
        return serde_json::from_slice(&bytes).ok();
    }
    let inside = std::fs::read_dir(folder).into_iter().flatten().flatten();
    inside.filter(|entry| entry.path().is_dir()).find_map(|entry| note(&entry.path()))
}

/// The containers of a test, which are gone when it ends.
struct Containers {
    fleet: String,
    node: String,
    /// That of echo.
    id: String,
}

impl Containers {
    fn all(&self) -> String {
        let label = format!("label=dev.mozart.fleet={}", self.fleet);
        docker(&["ps", "-a", "-q", "--no-trunc", "--filter", &label]).expect("docker answers")
    }

    /// Makes a container that is as one of an incarnation, as far as a fleet claims; it is not started.
    fn make(&self, name: &str, fleet: Option<&str>, node: &str) -> Made {
        let mut args = vec!["create".to_owned(), "--name".to_owned(), name.to_owned()];
        let labels = fleet.into_iter().flat_map(|fleet| {
            [("fleet", fleet), ("node", node), ("agent", "ghost"), ("generation", "1")]
                .into_iter()
                .chain([("incarnation", "7"), ("namespace", "default")])
        });
        for (label, value) in labels {
            args.extend(["--label".to_owned(), format!("dev.mozart.{label}={value}")]);
        }
        let image = docker(&["inspect", "--format", "{{.Image}}", &self.id]).expect("it is there");
        args.extend([image, "/nothing".to_owned()]);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Made(docker(&args).expect("docker makes it"))
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for id in self.all().lines() {
            let _gone = docker(&["rm", "-f", id]);
        }
    }
}

/// A container that a test made itself.
struct Made(String);

impl Made {
    fn is_there(&self) -> bool {
        docker(&["inspect", &self.0]).is_ok()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _gone = docker(&["rm", "-f", &self.0]);
    }
}

#[tokio::test]
async fn only_what_a_node_that_is_gone_left_behind_is_removed() {
    let Some(engine) = Docker::find() else { return };
    let (fleet, ours) = engine.up().await;
    let short = ours.fleet[..6].to_owned();
    let other: String = ours.fleet.chars().rev().collect();
    let name = format!("mozart-ghost-7-{short}");
    let left = ours.make(&name, Some(&ours.fleet), "nowhere");
    let others = [
        // A stranger's, however it is called.
        ours.make(&format!("mozart-ghost-8-{short}"), None, ""),
        // Another fleet's.
        ours.make(&format!("mozart-ghost-7-{}", &other[..6]), Some(&other), "nowhere"),
        // Somebody's own, from an image that was made of one of ours.
        ours.make(&format!("own-{short}"), Some(&ours.fleet), "nowhere"),
    ];
    let doctor = async |more: &[&str]| {
        let args = [["doctor", "-o", "json"].as_slice(), more].concat();
        let output = engine.cli(&fleet, &args).await.ok();
        found(&output, "containers")
    };
    let said = doctor(&[]).await;
    let it = format!("{name} (node nowhere is gone)");
    assert!(said.iter().any(|(health, found)| health == "warn" && found.contains(&it)), "{said:?}");
    assert!(left.is_there(), "without --fix nothing is removed");

    let fixed = doctor(&["--fix"]).await;
    let it = format!("removed {name}");
    assert!(fixed.iter().any(|(health, found)| health == "ok" && found.contains(&it)), "{fixed:?}");
    assert!(!left.is_there());
    assert!(others.iter().all(Made::is_there));
    // What runs was not touched.
    assert!(ours.all().contains(&ours.id));
    assert_eq!(fleet.ask("echo", "hello").await, "hello");

    // A node that is there ends by itself what nobody counts on.
    let name = format!("mozart-ghost-7-{short}");
    let forgotten = ours.make(&name, Some(&ours.fleet), &ours.node);
    let said = doctor(&["--fix"]).await;
    let is_said = said.iter().any(|(health, found)| health == "warn" && found.contains(&name));
    assert!(is_said || !forgotten.is_there(), "{said:?}");
    drop(forgotten);

    // Without a supervisor they serve on.
    let left = ours.make(&format!("mozart-ghost-7-{short}"), Some(&ours.fleet), "nowhere");
    let up = fleet.up_pid();
    kill(up, Signal::KILL);
    gone(up).await;
    let output = engine.cli(&fleet, &["doctor", "--fix", "-o", "json"]).await.exit(1);
    let said = found(&output, "containers");
    assert!(said.iter().any(|(_, found)| found.contains("are running")), "{said:?}");
    assert!(left.is_there() && ours.all().contains(&ours.id));
    let _down = engine.cli(&fleet, &["down"]).await.ok();
}

async fn gone(pid: u32) {
    eventually("it is dead", async || if alive(pid) { Err(pid.to_string()) } else { Ok(()) }).await;
}

#[tokio::test]
async fn down_after_a_killed_up_leaves_no_container() {
    let Some(engine) = Docker::find() else { return };
    let (fleet, ours) = engine.up().await;
    kill(fleet.up_pid(), Signal::KILL);
    gone(fleet.up_pid()).await;
    assert!(ours.all().contains(&ours.id), "it serves on");
    let _down = engine.cli(&fleet, &["down"]).await.ok();
    assert_eq!(ours.all(), "");

    // And where nothing can be ended in order.
    let up = ["up", ".", "-d", "--wait", "--runtime", "docker"];
    let _up = engine.cli(&fleet, &up).await.ok();
    assert_ne!(ours.all(), "");
    let (up, nats) = (fleet.up_pid(), fleet.nats_pid().expect("it runs"));
    for pid in [up, nats] {
        kill(pid, Signal::KILL);
        gone(pid).await;
    }
    let env = [
        ("MOZART_SHIM", engine.shim.as_os_str()),
        ("MOZART_NATS_SERVER", OsStr::new("/nowhere")),
        // The note says which engine it was.
        ("CONTAINER_HOST", OsStr::new("unix:///nowhere")),
    ];
    let output = fleet.cli_with(["down"], &env).await.ok();
    let _output = output.says("not drained").says("what is still running is killed");
    assert_eq!(ours.all(), "");
    assert_eq!(fleet.processes(), []);
    fleet.cli(["down"]).await.ok().says("nothing is running");

    let up = ["up", ".", "-d", "--wait", "--runtime", "docker"];
    let _up = engine.cli(&fleet, &up).await.ok();
    assert_eq!(fleet.ask("echo", "again").await, "again");
    let _down = engine.cli(&fleet, &["down"]).await.ok();
    assert_eq!(ours.all(), "");
}

#[tokio::test]
async fn an_engine_that_is_silent_is_named() {
    let fleet = Fleet::new(&[]);
    let socket = fleet.souls().join("docker.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    drop(listener);
    let host = format!("unix://{}", socket.display());
    let env = [
        ("DOCKER_HOST", OsStr::new(host.as_str())),
        ("CONTAINER_HOST", OsStr::new("unix:///nowhere")),
    ];
    let output = fleet.cli_with(["doctor", "-o", "json"], &env).await.exit(1);
    let (health, found) = one(&output, "engine");
    assert_eq!(health, "warn", "{found}");
    assert!(found.contains(&host) && !found.contains("nowhere"), "{found}");
    std::fs::remove_file(&socket).expect("it is there");
    let output = fleet.cli_with(["doctor", "-o", "json"], &env).await.exit(1);
    let (health, found) = one(&output, "engine");
    assert_eq!(health, "ok", "{found}");
    assert!(found.contains("IMAGE"), "{found}");
}
