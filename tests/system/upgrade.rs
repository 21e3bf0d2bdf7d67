//! Versions side by side: what an earlier one reports is a sign of life, and a newer `up` restarts nothing.

use std::fs;
use std::time::{Duration, Instant};

use common::AgentName;
use system_tests::harness::{Fleet, Signal, alive, eventually, flaky, kill, started_at};

use crate::roles;

/// Heartbeats of shims as earlier versions of the codec wrote them: of version 1, of which nothing is read, and of version 2.
const HEARTBEATS: [(&str, &str); 2] =
    [("older", "0101010203040506fc70110100"), ("old", "0201010203040506fc70110100")];

/// A report of a node of version 1. What one of version 2 means is read, and tested, with the codec.
const NODE: &str = "0100026e31fdffffffffffffffff09010770726f6365737301047a6f6e650265750001026162030801fb921001026162070001120101017201fb2c01fd7b68e5cf8b010000";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// A node whose shims and whose own process say nothing any more counts as one that is there, as long as reports come that an earlier
/// version wrote: longer than after which silence is a loss (10 s), or a hang (30 s).
#[tokio::test]
async fn reports_of_earlier_versions_are_signs_of_life_and_nothing_is_restarted_for_them() {
    let port = roles::free_port();
    let url = format!("nats://127.0.0.1:{port}");
    let fleet = Fleet::new(&[("old", &flaky("")), ("older", &flaky(""))]).env("NATS_URL", &url);
    let _server = roles::server_at(&fleet, port, "");
    let supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
    let node = fleet.spawn_cli(["node", "--name", "n1"]);
    roles::apply(&fleet).await;
    for agent in ["old", "older"] {
        let _row = fleet.wait_state(agent, "running").await;
    }
    let client = broker::ConnectOptions {
        url,
        creds: None,
        ca: None,
        name: "test".to_owned(),
        namespace: "default".parse().expect("valid"),
        timeout: Duration::from_secs(10),
        shim: None,
    };
    let client = broker::Broker::connect(&client).await.expect("the server answers");
    let shims = [fleet.shim("old"), fleet.shim("older")];
    let silent = [shims[0], shims[1], node.pid()];
    silent.iter().for_each(|pid| kill(*pid, Signal::STOP));
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(900));
    while began.elapsed() < Duration::from_secs(37) {
        tick.tick().await;
        for (agent, heartbeat) in HEARTBEATS {
            let agent: AgentName = agent.parse().expect("valid");
            let subject = client.subjects().shim_report(&agent, 1);
            client.tell(subject, bytes(heartbeat).into()).await.expect("sent");
        }
        let subject = client.subjects().node_report(&"n1".parse().expect("valid"));
        client.tell(subject, bytes(NODE).into()).await.expect("sent");
    }
    let said = fleet.cli(["events", "--limit", "200"]).await.ok().stdout;
    assert!(!said.contains("is lost") && !said.contains("not responding"), "{said}");
    assert!(shims.iter().all(|pid| alive(*pid)));
    silent.iter().for_each(|pid| kill(*pid, Signal::CONT));
    for agent in ["old", "older"] {
        assert_eq!(fleet.ask(agent, "say still here").await, "still here");
        let row = fleet.row(agent).await;
        assert_eq!((&row["incarnation"], &row["restartCount"]), (&1.into(), &0.into()), "{row}");
    }
    assert_eq!([fleet.shim("old"), fleet.shim("older")], shims);
    for role in [node, supervisor] {
        role.signal(Signal::TERM);
        let _ended = role.output().await;
    }
}

#[tokio::test]
async fn up_in_the_place_of_one_of_another_version_restarts_no_agent() {
    let mut fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let identity =
        |fleet: &Fleet| [fleet.shim("a"), fleet.worker("a")].map(|pid| (pid, started_at(pid)));
    let before = identity(&fleet);
    fleet.kill_up().await;
    // As an earlier version has left it.
    let path = fleet.home().join("mozart.json");
    let mut note = fleet.note().expect("it is there");
    note["version"] = "0.0.9".into();
    fs::write(&path, note.to_string()).expect("written");
    fleet.up(&[]).await;
    let row = fleet.wait_state("a", "running").await;
    assert_eq!((&row["incarnation"], &row["restartCount"]), (&1.into(), &0.into()), "{row}");
    assert_eq!(identity(&fleet), before);
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    eventually("the note is of this version", async || {
        let version = fleet.note().expect("it is there")["version"].clone();
        if version == env!("CARGO_PKG_VERSION") { Ok(()) } else { Err(version.to_string()) }
    })
    .await;
}
