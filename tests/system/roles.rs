//! `mozart supervisor` and `mozart node` in processes of their own: in whatever order they and the broker are started.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use broker::{Broker, ConnectOptions};
pub(crate) use system_tests::harness::free_port;
use system_tests::harness::{Child, Fleet, Signal, eventually, flaky, nats_server};
use tokio::process::Command;

/// A fleet whose commands look for a server at a port.
pub(crate) fn fleet_at(port: u16) -> Fleet {
    Fleet::new(&[("a", &flaky(""))]).env("NATS_URL", &format!("nats://127.0.0.1:{port}"))
}

/// A connection to it.
pub(crate) async fn broker_at(port: u16) -> Broker {
    let options = ConnectOptions {
        url: format!("nats://127.0.0.1:{port}"),
        creds: None,
        ca: None,
        name: "test".to_owned(),
        namespace: "default".parse().expect("valid"),
        timeout: Duration::from_secs(10),
        shim: None,
    };
    Broker::connect(&options).await.expect("the broker answers")
}

/// Starts the server.
pub(crate) fn server_at(fleet: &Fleet, port: u16, more: &str) -> tokio::process::Child {
    let conf = fleet.souls().join("nats.conf");
    let text = format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: own-nats }}\n{more}");
    fs::write(&conf, text).expect("written");
    Command::new(nats_server())
        .arg("-c")
        .arg(&conf)
        .current_dir(fleet.souls())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it is there")
}

/// Waits until a role says what it waits for.
async fn says(role: &Child, words: &str) {
    eventually("it says what it waits for", async || {
        let said = role.complaints();
        if said.contains(words) { Ok(()) } else { Err(said) }
    })
    .await;
}

/// How often it said that it waits.
fn waits(role: &Child) -> usize {
    role.complaints().lines().filter(|line| line.contains(" is waiting: ")).count()
}

/// Ends a role in order.
async fn ends(role: Child) {
    let began = Instant::now();
    role.signal(Signal::TERM);
    let _ended = role.output().await.ok();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Applies the souls, as soon as a supervisor takes them.
pub(crate) async fn apply(fleet: &Fleet) {
    eventually("a supervisor takes the souls", async || {
        let output = fleet.cli(["apply", "."]).await;
        if output.code == 0 { Ok(()) } else { Err(output.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_node_waits_for_the_broker_and_for_the_first_supervisor() {
    let port = free_port();
    let fleet = fleet_at(port);
    let node = fleet.spawn_cli(["node", "--name", "n"]);
    says(&node, "node n is waiting: cannot reach NATS").await;
    let _server = server_at(&fleet, port, "");
    says(&node, "node n is waiting: namespace default has no streams yet").await;
    let supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
    apply(&fleet).await;
    let _row = fleet.wait_state("a", "running").await;
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    // Once for each, however often it looked.
    assert_eq!(waits(&node), 2, "{}", node.complaints());
    ends(node).await;
    ends(supervisor).await;
    assert_eq!(fleet.processes_of("a"), []);
}

#[tokio::test]
async fn a_supervisor_waits_for_the_broker() {
    let port = free_port();
    let fleet = fleet_at(port);
    let supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
    says(&supervisor, "supervisor s is waiting: cannot reach NATS").await;
    let _server = server_at(&fleet, port, "");
    let node = fleet.spawn_cli(["node", "--name", "n"]);
    apply(&fleet).await;
    let _row = fleet.wait_state("a", "running").await;
    assert_eq!(waits(&supervisor), 1, "{}", supervisor.complaints());
    ends(node).await;
    ends(supervisor).await;
}

#[tokio::test]
async fn whoever_waits_can_be_stopped_and_what_no_waiting_mends_is_an_error() {
    let port = free_port();
    let fleet = fleet_at(port);
    for role in [["node", "--name", "n"], ["supervisor", "--id", "s"]] {
        let waiting = fleet.spawn_cli(role);
        says(&waiting, " is waiting: ").await;
        ends(waiting).await;
        let bad = [&role[..], &["--nats", "nats://not a host"]].concat();
        fleet.cli(bad).await.exit(2).says("try:");
    }
    let _server = server_at(&fleet, port, "authorization { user: u, password: p }");
    for role in [["node", "--name", "n"], ["supervisor", "--id", "s"]] {
        let refused = fleet.cli(role).await.exit(7);
        refused.says("try:");
    }
}
