//! Nodes on a broker that they share: two of one name, and one that stood still.

use std::time::Duration;

use broker::{Broker, Subscription};
use common::codec;
use common::frame::{NodeCommand, NodeCommandBody, NodeReport, NodeStatus};
use serde_json::Value;
use system_tests::harness::{Child, Fleet, Signal, always, eventually, flaky, started_at};

use crate::roles::{apply, broker_at, fleet_at, free_port, server_at};

/// A supervisor and a server; the node is the test's.
struct Ground {
    fleet: Fleet,
    /// The folder of a second node.
    other: Fleet,
    port: u16,
    _server: tokio::process::Child,
    supervisor: Child,
}

impl Ground {
    fn new() -> Self {
        let port = free_port();
        let fleet = fleet_at(port);
        let url = format!("nats://127.0.0.1:{port}");
        let other = Fleet::new(&[]).env("NATS_URL", &url);
        let server = server_at(&fleet, port, "");
        let supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
        Self { fleet, other, port, _server: server, supervisor }
    }

    /// A connection, to speak as a leader does.
    async fn broker(&self) -> Broker {
        broker_at(self.port).await
    }

    /// How often each number was given out.
    async fn allocated(&self, agent: &str) -> Vec<u64> {
        let records = self.fleet.json(["events", agent]).await;
        let records = records.as_array().expect("a list").iter();
        let given = records.filter(|record| record["type"] == "incarnationAllocated");
        let numbers = given.filter_map(|record| record["incarnation"].as_u64());
        numbers.collect()
    }
}

/// Waits until an incarnation takes messages, wherever it runs.
async fn runs_as(fleet: &Fleet, agent: &str, incarnation: u64) -> Value {
    eventually(&format!("{agent} runs as incarnation {incarnation}"), async || {
        let row = fleet.row(agent).await;
        let is_it = row["state"] == "running" && row["incarnation"] == incarnation;
        if is_it { Ok(row) } else { Err(row.to_string()) }
    })
    .await
}

/// The shim of an agent: the same later means that nobody touched it.
fn identity(fleet: &Fleet, agent: &str) -> (u32, Option<u64>) {
    let shim = fleet.shim(agent);
    (shim, started_at(shim))
}

#[tokio::test]
async fn a_second_node_of_one_name_ends_with_an_error_and_touches_nothing() {
    let ground = Ground::new();
    let Ground { fleet, other, port, .. } = &ground;
    let _node = fleet.spawn_cli(["node", "--name", "n"]);
    apply(fleet).await;
    let _row = fleet.wait_state("a", "running").await;
    let before = identity(fleet, "a");

    let second = other.cli(["node", "--name", "n"]).await.exit(4);
    second.says("another process reports as node `n`").says("try:").says("--name");
    // So does the whole `up` of such a folder; the souls are the first one's.
    let url = format!("nats://127.0.0.1:{port}");
    let up = other.cli(["up", "--nats", &url, "--name", "n"]).await.exit(4);
    up.says("another process reports as node `n`");
    assert_eq!(other.processes(), []);

    assert_eq!(identity(fleet, "a"), before);
    assert_eq!(fleet.row("a").await["restartCount"], 0);
    assert_eq!(ground.allocated("a").await, [1]);
    assert_eq!(fleet.ask("a", "say hello").await, "hello");

    // With a name of its own it is a second node; which keeps the name as long as something of it runs, and then until told otherwise.
    let _up = other.cli(["up", "-d", "--nats", &url, "--name", "m"]).await.ok();
    eventually("both nodes are there", async || {
        let output = fleet.cli(["doctor", "--only", "nodes"]).await;
        if output.stdout.contains("m, n") { Ok(()) } else { Err(output.to_string()) }
    })
    .await;
    let renamed = other.cli(["up", "-d", "--nats", &url, "--name", "k"]).await.exit(4);
    renamed.says("mozart down");
    let kept = || std::fs::read_to_string(other.home().join("node")).expect("it is kept");
    assert_eq!(kept(), "m\n");
    let _down = other.cli(["down"]).await.ok();
    let _up = other.cli(["up", "-d", "--nats", &url, "--name", "k"]).await.ok();
    assert_eq!(kept(), "k\n");
    let _down = other.cli(["down"]).await.ok();
    assert_eq!(identity(fleet, "a"), before);
}

#[tokio::test]
async fn a_second_node_that_starts_while_the_first_is_frozen_leaves_one_of_them() {
    let ground = Ground::new();
    let Ground { fleet, other, .. } = &ground;
    let first = fleet.spawn_cli(["node", "--name", "n"]);
    apply(fleet).await;
    let _row = fleet.wait_state("a", "running").await;
    first.signal(Signal::STOP);
    let _second = other.spawn_cli(["node", "--name", "n"]);
    // The first one is silent: it gives way, and its agent is started anew.
    let row = runs_as(fleet, "a", 2).await;
    assert_eq!(row["node"], "n");
    let taken = identity(other, "a");
    first.signal(Signal::CONT);
    first.output().await.exit(4).says("another process reports as node `n`");
    // What it started is over, and is told so by the leader: nobody looks after it.
    eventually("the first incarnation ends", async || {
        let left = fleet.processes_of("a");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
    assert_eq!(identity(other, "a"), taken);
    assert_eq!(ground.allocated("a").await, [1, 2]);
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
}

#[tokio::test]
async fn a_node_that_stood_still_reports_before_it_obeys() {
    let ground = Ground::new();
    let Ground { fleet, other, .. } = &ground;
    let frozen = fleet.spawn_cli(["node", "--name", "n1", "--label", "on=n1"]);
    let _awake = other.spawn_cli(["node", "--name", "n2", "--label", "on=n2"]);
    eventually("both nodes are there", async || {
        let output = fleet.cli(["doctor", "--only", "nodes"]).await;
        if output.stdout.contains("n1, n2") { Ok(()) } else { Err(output.to_string()) }
    })
    .await;
    // So many on the other one that whoever may run anywhere begins here.
    for index in 0..4 {
        fleet.soul(&format!("f{index}"), &flaky("REQUIRE on=n2"));
    }
    fleet.soul("bound", &flaky("REQUIRE on=n1"));
    apply(fleet).await;
    for agent in ["f0", "f1", "f2", "f3", "bound", "a"] {
        let _row = fleet.wait_state(agent, "running").await;
    }
    assert_eq!(fleet.row("a").await["node"], "n1");
    let bound = identity(fleet, "bound");
    let long = fleet.send("a", "count 300 0.1").await;
    let _has_it = fleet.wait_status(&long, "acknowledged").await;

    frozen.signal(Signal::STOP);
    let thaw = tokio::time::Instant::now() + Duration::from_secs(15);
    // Its start waits in the frozen node's socket, until somebody else has it.
    fleet.soul("late", &flaky(""));
    apply(fleet).await;
    assert_eq!(ground.allocated("late").await, [1]);
    assert_eq!(fleet.row("late").await["node"], "n1");
    for agent in ["a", "late"] {
        let row = runs_as(fleet, agent, 2).await;
        assert_eq!(row["node"], "n2");
    }
    let moved = [identity(other, "a"), identity(other, "late")];
    tokio::time::sleep_until(thaw).await;
    frozen.signal(Signal::CONT);

    eventually("what was replaced is stopped", async || {
        let left = [fleet.processes_of("a"), fleet.processes_of("late")].concat();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
    // What nobody replaced goes on as it was.
    let row = fleet.wait_state("bound", "running").await;
    assert_eq!((&row["incarnation"], &row["node"]), (&1.into(), &"n1".into()), "{row}");
    always(Duration::from_secs(7), "nothing starts that somebody else has", async || {
        let said = frozen.complaints();
        let doubled = ["late-1 started", "bound-2 started"].iter().any(|one| said.contains(one));
        if doubled { Err(said) } else { Ok(()) }
    })
    .await;
    assert!(frozen.complaints().contains("was suspended for"), "{}", frozen.complaints());
    assert_eq!(identity(fleet, "bound"), bound);
    assert_eq!([identity(other, "a"), identity(other, "late")], moved);
    for agent in ["a", "late"] {
        assert_eq!(ground.allocated(agent).await, [1, 2], "{agent}");
    }
    let done = fleet.wait_status_within(Duration::from_secs(60), &long, "completed").await;
    assert_eq!(done.row.attempts, 2, "{done:?}");
}

/// What a node says next of itself.
async fn status(reports: &mut Subscription) -> NodeStatus {
    loop {
        let report = tokio::time::timeout(Duration::from_secs(20), reports.next()).await;
        let report = report.expect("a report within 20s").expect("the client is open");
        if let Ok(NodeReport::Running(status)) = codec::decode(&report.payload) {
            return status;
        }
    }
}

#[tokio::test]
async fn a_restarted_node_refuses_a_leader_that_was_deposed_while_it_was_gone() {
    let ground = Ground::new();
    let Ground { fleet, other, supervisor, .. } = &ground;
    let node = fleet.spawn_cli(["node", "--name", "n"]);
    apply(fleet).await;
    let _row = fleet.wait_state("a", "running").await;
    let before = identity(fleet, "a");
    let broker = ground.broker().await;
    let name = "n".parse().expect("valid");
    let mut reports =
        broker.subscribe(broker.subjects().node_reports(), None).await.expect("subscribed");
    let deposed = status(&mut reports).await.term;

    node.signal(Signal::KILL);
    supervisor.signal(Signal::KILL);
    let successor = other.spawn_cli(["supervisor", "--id", "t"]);
    let elected = eventually("another supervisor leads", async || {
        let newest = broker.newest_term().await.map_err(|error| error.to_string())?;
        if newest > deposed { Ok(newest) } else { Err(newest.to_string()) }
    })
    .await;
    // No leader is there to tell the node: it finds out by itself.
    successor.signal(Signal::KILL);
    let _node = fleet.spawn_cli(["node", "--name", "n"]);
    let known = eventually("the node has found its agent", async || {
        let known = status(&mut reports).await;
        if known.running.is_empty() { Err(format!("{known:?}")) } else { Ok(known) }
    })
    .await;
    assert_eq!(known.term, elected);

    let stop = async |term| {
        let (agent, within) = ("a".parse().expect("valid"), Duration::from_secs(1));
        let body = NodeCommandBody::Stop { agent, incarnation: 1, within };
        let command = NodeCommand { term, instance: Some(known.instance), number: u64::MAX, body };
        let frame = codec::encode(&command).expect("it fits");
        broker.tell(broker.subjects().node_command(&name), frame.into()).await.expect("sent");
    };
    stop(deposed).await;
    always(Duration::from_secs(3), "its agent goes on", async || {
        let found = fleet.processes_of("a").len();
        if found == 2 { Ok(()) } else { Err(format!("{found} processes")) }
    })
    .await;
    assert_eq!(identity(fleet, "a"), before);
    // The same words of the one that was elected last are obeyed.
    stop(elected).await;
    eventually("the agent ends", async || {
        let left = fleet.processes_of("a");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
}

#[tokio::test]
async fn nodes_are_listed_with_what_they_run() {
    let ground = Ground::new();
    let Ground { fleet, other, .. } = &ground;
    let _node = fleet.spawn_cli(["node", "--name", "n", "--label", "zone=eu"]);
    apply(fleet).await;
    let _row = fleet.wait_state("a", "running").await;
    let second = other.spawn_cli(["node", "--name", "m", "--runtime", "process"]);
    let states = async || {
        let rows = fleet.json(["node", "ls"]).await;
        let rows = rows.as_array().expect("an array").clone();
        let cells = rows.iter().map(|row| {
            let cell = |name| row[name].as_str().unwrap_or_default().to_owned();
            (cell("node"), cell("state"), row["incarnations"].as_u64())
        });
        cells.collect::<Vec<_>>()
    };
    let row = |node: &str, state: &str, count| (node.to_owned(), state.to_owned(), Some(count));
    let become_so = async |expected: [(String, String, Option<u64>); 2]| {
        eventually("the nodes are so", async || {
            let states = states().await;
            if states == expected { Ok(()) } else { Err(format!("{states:?}")) }
        })
        .await;
    };
    become_so([row("m", "up", 0), row("n", "up", 1)]).await;
    let listed = fleet.cli(["node", "ls"]).await.ok();
    assert!(listed.stdout.starts_with("NODE  STATE  INCARNATIONS  AGENTS  MEMORY"), "{listed}");

    let shown = fleet.json(["node", "show", "n"]).await;
    let told = (&shown["agents"], &shown["labels"], &shown["failed"]);
    let json = |text| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(told, (&json("[\"a\"]"), &json("{\"zone\": \"eu\"}"), &json("[]")), "{shown:#}");
    fleet.cli(["node", "show", "x"]).await.exit(3).says("no node \"x\"").says("mozart node ls");
    fleet.cli(["node"]).await.exit(2).says("--name");

    second.signal(Signal::KILL);
    become_so([row("m", "lost", 0), row("n", "up", 1)]).await;
}
