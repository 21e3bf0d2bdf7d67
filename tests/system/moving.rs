//! Agents that move between nodes: drains, moves, what nodes can take, and SANCTUMs that stay where they are.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use system_tests::harness::{Child, Fleet, Signal, eventually, flaky, kill};

use crate::roles::{apply, fleet_at, free_port, server_at};

/// A supervisor, a server, and nodes `n1` and `n2`, each with a folder of its own.
struct Ground {
    fleet: Fleet,
    other: Fleet,
    n1: Child,
    _n2: Child,
    supervisor: Child,
    _server: tokio::process::Child,
}

impl Ground {
    async fn new(souls: &[(&str, &str)], first: &[&str], second: &[&str]) -> Self {
        let port = free_port();
        let fleet = fleet_at(port);
        std::fs::remove_file(fleet.souls().join("a.soul")).expect("it is there");
        for (name, more) in souls {
            fleet.soul(name, &flaky(more));
        }
        let url = format!("nats://127.0.0.1:{port}");
        let other = Fleet::new(&[]).env("NATS_URL", &url);
        let server = server_at(&fleet, port, "");
        let supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
        let node = |of: &Fleet, name: &str, more: &[&str]| {
            of.spawn_cli(["node", "--name", name, "--runtime", "process"].iter().chain(more))
        };
        let n1 = node(&fleet, "n1", first);
        let ground =
            Self { _n2: node(&other, "n2", second), fleet, other, n1, supervisor, _server: server };
        ground.has("n1", "up").await;
        ground.has("n2", "up").await;
        ground
    }

    async fn node(&self, name: &str) -> Value {
        self.fleet.json(["node", "show", name]).await
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

    /// The nodes that agents run on.
    async fn nodes_of(&self, agents: &[&str]) -> Vec<String> {
        let mut nodes = Vec::new();
        for agent in agents {
            let row = self.fleet.wait_state(agent, "running").await;
            nodes.push(row["node"].as_str().unwrap_or_default().to_owned());
        }
        nodes
    }
}

#[tokio::test]
async fn a_drained_node_is_left_by_busy_agents_and_no_message_is_lost_or_doubled() {
    let names = ["a", "b", "c"];
    let souls = names.map(|name| (name, "TIMEOUT drain=20s"));
    let ground = Ground::new(&souls, &[], &[]).await;
    let fleet = &ground.fleet;
    // All begin on the node that is to be drained.
    fleet.cli(["node", "drain", "n2"]).await.ok().says("node n2 is drained");
    apply(fleet).await;
    assert_eq!(ground.nodes_of(&names).await, ["n1"; 3]);
    let _done = fleet.cli(["node", "undrain", "n2"]).await.ok();
    let mut sent = Vec::new();
    for agent in names {
        // One that takes longer than it takes for another incarnation to be ready, and some behind it.
        sent.push(fleet.send(agent, "count 20 0.1").await);
        for _more in 0..5 {
            sent.push(fleet.send(agent, "say hello").await);
        }
    }
    let drained = fleet.cli(["node", "drain", "n1"]).await.ok();
    let said: BTreeSet<_> = drained.stdout.lines().collect();
    let expected = names.map(|name| format!("{name} is running on n2"));
    assert_eq!(said, expected.iter().map(String::as_str).collect(), "{drained}");
    assert_eq!(ground.nodes_of(&names).await, ["n2"; 3]);
    for agent in names {
        assert_eq!(fleet.processes_of(agent), [], "nothing of it is left there");
    }
    for message in &sent {
        let done = fleet.wait_status(message, "completed").await;
        assert_eq!(done.row.attempts, 1, "{done:?}");
    }
    // One at a time: a start follows the end of the one before.
    let records = fleet.json(["events"]).await;
    let of = |kind: &str| {
        let records = records.as_array().expect("a list").iter();
        let seqs = records.filter(|one| one["type"] == kind && one["incarnation"] == 2);
        seqs.filter_map(|one| one["seq"].as_u64()).collect::<Vec<_>>()
    };
    let (allocated, begun) = (of("incarnationAllocated"), of("incarnationBegun"));
    assert_eq!((allocated.len(), begun.len()), (3, 3), "{records:#}");
    let mut admitted: Vec<_> = of("incarnationReady");
    admitted.sort_unstable();
    assert!(allocated[1] > admitted[0] && allocated[2] > admitted[1], "{records:#}");

    // It stays drained when it is started anew, and takes agents again once that is over.
    ground.n1.signal(Signal::TERM);
    let n1 = fleet.spawn_cli(["node", "--name", "n1", "--runtime", "process"]);
    ground.has("n1", "up").await;
    let listed = fleet.cli(["node", "ls"]).await.ok();
    assert!(listed.stdout.contains("up,drained"), "{listed}");
    fleet.cli(["move", "a", "--to", "n1"]).await.exit(4).says("n1 is drained");
    let _done = fleet.cli(["node", "undrain", "n1"]).await.ok();
    let dry = fleet.cli(["rebalance", "--dry-run"]).await.ok();
    assert_eq!(dry.stdout.lines().count(), 2, "{dry}");
    assert_eq!(ground.nodes_of(&names).await, ["n2"; 3], "it only says so");
    fleet.cli(["rebalance"]).await.ok().says("a is running on n1");
    assert_eq!(ground.nodes_of(&names).await, ["n1", "n2", "n2"]);
    let _done = fleet.cli(["move", "b", "--to", "n1", "--wait"]).await.ok();
    assert_eq!(ground.nodes_of(&names).await, ["n1", "n1", "n2"]);
    fleet.cli(["move", "b", "--to", "n3"]).await.exit(3).says("no node \"n3\"");
    fleet.cli(["node", "rm", "n1"]).await.exit(4).says("it still reports");
    n1.signal(Signal::KILL);
    ground.has("n1", "lost").await;
    assert_eq!(fleet.cli(["node", "rm", "n1"]).await.ok().stdout, "n1\n");
    fleet.cli(["node", "show", "n1"]).await.exit(3).says("no node \"n1\"");
    assert_eq!(ground.nodes_of(&names).await, ["n2"; 3]);
}

#[tokio::test]
async fn a_drain_outlives_its_command_and_its_leader() {
    let names = ["a", "b"];
    let ground = Ground::new(
        &names.map(|name| (name, "REQUIRE on=x\nTIMEOUT drain=20s")),
        &["--label", "on=x"],
        &[],
    )
    .await;
    let Ground { fleet, other, .. } = &ground;
    apply(fleet).await;
    assert_eq!(ground.nodes_of(&names).await, ["n1"; 2]);
    // Nobody else can run them yet.
    let drain = fleet.cli(["node", "drain", "n1"]).await.exit(1);
    drain.says("2 agents of node n1 cannot be moved").says("n2 has no label on=x").says("undrain");
    let _done = fleet.cli(["node", "drain", "n1", "--ignore-unmovable"]).await.ok();
    let explained = fleet.cli(["explain", "a"]).await.ok();
    let said = "It stays on n1, which is drained: no node can run it: n1 is drained, n2 has no label on=x.";
    assert!(explained.stdout.contains(said), "{explained}");
    let inspected = fleet.json(["inspect", "a"]).await;
    let reasons: Vec<_> =
        inspected["placement"].as_array().into_iter().flatten().map(|one| &one["text"]).collect();
    assert_eq!(reasons, ["n1 is drained", "n2 has no label on=x"], "{inspected:#}");
    // Another leader, which finds a node that can.
    ground.supervisor.signal(Signal::KILL);
    let _successor = other.spawn_cli(["supervisor", "--id", "t"]);
    let third = Fleet::new(&[]).env("NATS_URL", &format!("nats://127.0.0.1:{}", port_of(fleet)));
    let _n3 = third.spawn_cli(["node", "--name", "n3", "--label", "on=x", "--runtime", "process"]);
    eventually("they run on n3", async || {
        let nodes = ground.nodes_of(&names).await;
        if nodes == ["n3"; 2] { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    let row = eventually("nothing is left on n1", async || {
        let row = ground.node("n1").await;
        if row["incarnations"] == 0 { Ok(row) } else { Err(row.to_string()) }
    })
    .await;
    assert_eq!(row["drain"]["staying"], Value::Array(Vec::new()), "{row:#}");

    // Whoever interrupts the command leaves the drain going.
    let _done = fleet.cli(["node", "undrain", "n1"]).await.ok();
    let long = fleet.send("a", "count 30 0.1").await;
    let _has_it = fleet.wait_status(&long, "acknowledged").await;
    let drain = fleet.spawn_cli(["node", "drain", "n3"]);
    eventually("a is moving", async || {
        let row = ground.node("n3").await;
        if row["drain"]["moving"][0] == "a" { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    drain.signal(Signal::INT);
    drain.output().await.exit(130).says("the drain goes on").says("mozart node undrain n3");
    eventually("they run on n1", async || {
        let nodes = ground.nodes_of(&names).await;
        if nodes == ["n1"; 2] { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    assert_eq!(fleet.wait_status(&long, "completed").await.row.attempts, 1);
}

fn port_of(fleet: &Fleet) -> u16 {
    let conf = std::fs::read_to_string(fleet.souls().join("nats.conf")).expect("it is there");
    let port = conf.split('"').nth(1).and_then(|address| address.rsplit(':').next());
    port.and_then(|port| port.parse().ok()).expect("a port")
}

#[tokio::test]
async fn an_agent_waits_for_the_room_that_its_limit_needs() {
    let souls = [("a", "LIMIT memory=96m"), ("b", "LIMIT memory=64m")];
    let ground =
        Ground::new(&souls, &["--capacity", "memory=128m"], &["--capacity", "agents=0"]).await;
    let fleet = &ground.fleet;
    apply(fleet).await;
    let waits = eventually("b waits", async || {
        let row = fleet.row("b").await;
        if row["state"] == "error" { Ok(row) } else { Err(row.to_string()) }
    });
    let row = waits.await;
    let why =
        "no node can run it: n1 has 32 MiB free of 128 MiB, 64 MiB is needed, n2 has its 0 agents";
    assert_eq!(row["reason"], why, "{row}");
    let listed = fleet.cli(["node", "ls"]).await.ok();
    assert!(listed.stdout.contains("96 MiB/128 MiB"), "{listed}");
    let shown = ground.node("n2").await;
    assert_eq!(shown["capacity"]["agents"], 0, "{shown}");
    assert!(shown["capacity"]["memory"].as_u64() > Some(1 << 26), "found by itself: {shown}");
    assert!(shown["capacity"]["milliCpus"].as_u64() >= Some(1000), "{shown}");
    // A full node replaces what it runs.
    let _done = fleet.cli(["replace", "a", "--wait"]).await.ok();
    fleet.cli(["move", "a", "--to", "n2"]).await.exit(4).says("n2 has its 0 agents");
    // Room is used as soon as there is some.
    let _done = fleet.cli(["stop", "a"]).await.ok();
    let _row = fleet.wait_state("b", "running").await;
    fleet.cli(["node", "--name", "n3", "--capacity", "disk=1"]).await.exit(2).says("agents=N");
}

#[tokio::test]
async fn an_agent_that_was_moved_knows_what_was_said() {
    let ground = Ground::new(&[("a", "")], &[], &[]).await;
    let fleet = &ground.fleet;
    let _done = fleet.cli(["node", "drain", "n2"]).await.ok();
    apply(fleet).await;
    let say = async |text: &str| {
        let answer = fleet.json(["send", "a", text, "--conversation", "c", "--wait"]).await;
        answer["response"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    for text in ["say one", "say two"] {
        let _answer = say(text).await;
    }
    let _done = fleet.cli(["node", "undrain", "n2"]).await.ok();
    let _done = fleet.cli(["move", "a", "--to", "n2", "--wait"]).await.ok();
    assert_eq!(ground.nodes_of(&["a"]).await, ["n2"]);
    assert_eq!(say("recall").await, "2: one, two");
}

#[tokio::test]
async fn a_sanctum_keeps_its_agent_where_it_is() {
    let souls = [("a", "SANCTUM data:/data"), ("free", "SANCTUM data:/data shared")];
    let ground = Ground::new(&souls, &[], &[]).await;
    let fleet = &ground.fleet;
    std::fs::create_dir_all(fleet.souls().join("data")).expect("made");
    let _done = fleet.cli(["node", "drain", "n2"]).await.ok();
    apply(fleet).await;
    assert_eq!(ground.nodes_of(&["a", "free"]).await, ["n1"; 2]);
    let _done = fleet.cli(["node", "undrain", "n2"]).await.ok();
    let refused = fleet.cli(["move", "a", "--to", "n2"]).await.exit(4);
    refused.says("its SANCTUM on n1 is also used by free").says("shared");
    let drain = fleet.cli(["node", "drain", "n1"]).await.exit(1);
    drain.says("1 agent of node n1 cannot be moved").says("a: its SANCTUM is there");
    assert_eq!(ground.nodes_of(&["a", "free"]).await, ["n1", "n2"]);
    let _done = fleet.cli(["node", "undrain", "n1"]).await.ok();

    let message = fleet.send("a", "say hello").await;
    let _answered = fleet.wait_status(&message, "completed").await;
    ground.n1.signal(Signal::KILL);
    for process in fleet.processes_of("a") {
        kill(process.pid, Signal::KILL);
    }
    let row = eventually("a waits for its node", async || {
        let row = fleet.row("a").await;
        let reason = row["reason"].as_str().unwrap_or_default();
        if reason.starts_with("waits") { Ok(row) } else { Err(row.to_string()) }
    })
    .await;
    let reason = row["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("waits for node n1, which is away since 20"), "{row}");
    assert!(reason.ends_with("Z, because its SANCTUM is there"), "{row}");
    assert_eq!(row["state"], "error", "{row}");
    let explained = fleet.cli(["explain", "a"]).await.ok();
    assert!(explained.stdout.contains("waits for node n1, which is away since"), "{explained}");
    assert_eq!(fleet.json(["inspect", "a"]).await["pinnedTo"], "n1");
    let refused = fleet.cli(["node", "rm", "n1"]).await.exit(4);
    refused.says("the SANCTUM of a is there").says("--force");
    let waiting = fleet.send("a", "say hello").await;
    let _done = fleet.cli(["node", "rm", "n1", "--force"]).await.ok();
    assert_eq!(ground.nodes_of(&["a"]).await, ["n2"]);
    let _answered = fleet.wait_status_within(Duration::from_secs(60), &waiting, "completed").await;
}
