//! What outlives the death of the supervisor, of nats-server, of both; and what is none of our business.

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::AgentName;
use common::message::MessageKey;
use system_tests::harness::{Fleet, Signal, alive, eventually, flaky, kill, message, started_at};
use tokio::process::Command;

/// The shim and the worker of an agent, each with its start: the same later means that nobody touched them.
fn identity(fleet: &Fleet, agent: &str) -> [(u32, Option<u64>); 2] {
    [fleet.shim(agent), fleet.worker(agent)].map(|pid| (pid, started_at(pid)))
}

async fn assert_adopted(fleet: &Fleet, agent: &str, before: [(u32, Option<u64>); 2]) {
    let row = fleet.wait_state(agent, "running").await;
    assert_eq!((&row["restartCount"], &row["incarnation"]), (&0.into(), &1.into()), "{row}");
    assert_eq!(identity(fleet, agent), before);
}

#[tokio::test]
async fn agents_go_on_answering_without_a_supervisor_and_are_adopted_by_the_next() {
    let mut fleet = Fleet::with(&[("a", &flaky("CONCURRENCY 2")), ("b", &flaky(""))]).await;
    let before = [identity(&fleet, "a"), identity(&fleet, "b")];
    let nats = fleet.nats_pid();
    let long = fleet.send("a", "count 30 0.1").await;
    fleet.kill_up().await;

    assert_eq!(fleet.ask("a", "ask b say hello").await, "hello");
    let chat = fleet.cli(["chat", "b", "count 3"]).await.ok();
    assert_eq!(chat.stdout.trim(), "1 2 3");
    // What needs a supervisor says so.
    fleet.cli(["ps"]).await.exit(6).says("supervisor");

    fleet.up(&[]).await;
    assert_adopted(&fleet, "a", before[0]).await;
    assert_adopted(&fleet, "b", before[1]).await;
    assert_eq!(fleet.nats_pid(), nats, "nats-server goes on as well");
    assert_eq!(fleet.wait_status(&long, "completed").await.row.attempts, 1);
    assert_eq!(fleet.ask("b", "say hello").await, "hello");

    // It looks after them as if it had started them.
    kill(fleet.worker("b"), Signal::KILL);
    let row = fleet.wait_incarnation("b", 2).await;
    assert_eq!(row["restartCount"], 1);
}

#[tokio::test]
async fn a_worker_that_dies_while_no_supervisor_runs_is_restarted_by_the_next() {
    let mut fleet = Fleet::with(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let held = fleet.send("a", "sleep 60").await;
    let _has_it = fleet.wait_status(&held, "acknowledged").await;
    let victims = [fleet.worker("a"), fleet.shim("b")];
    fleet.kill_up().await;
    for pid in victims {
        kill(pid, Signal::KILL);
    }
    eventually("nothing of them runs", async || {
        let left = [fleet.processes_of("a"), fleet.processes_of("b")].concat();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
    fleet.up(&[]).await;
    for agent in ["a", "b"] {
        let row = fleet.wait_incarnation(agent, 2).await;
        assert_eq!(row["restartCount"], 1, "{row}");
    }
    assert_eq!(fleet.row("a").await["lastExit"], "exit code 137 (signal 9)");
    assert_eq!(fleet.wait_status(&held, "acknowledged").await.row.attempts, 2);
}

#[tokio::test]
async fn no_stranger_is_touched() {
    let mut fleet = Fleet::with(&[("a", &flaky("TIMEOUT drain=500ms"))]).await;
    let labels = fleet.processes_of("a");
    let label = |name: &str| labels[0].var(name).to_owned();
    // The same label under another home whose path only begins alike, and one without a run folder; both named like a shim.
    let shim = fleet.souls().join("mozart-shim");
    std::os::unix::fs::symlink("/bin/sleep", &shim).expect("a link");
    let elsewhere = |run: String| {
        let mut command = Command::new(&shim);
        command
            .arg("600")
            .env("MOZART_INCARNATION", label("MOZART_INCARNATION"))
            .env("MOZART_RUN", run)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.spawn().expect("it is there")
    };
    let home = fleet.home().to_string_lossy().into_owned();
    let run = label("MOZART_RUN");
    let other = run.replacen(&home, &format!("{home}-other"), 1);
    assert_ne!(other, run);
    let strangers = [elsewhere(other), elsewhere(String::new())];
    let strangers = strangers.each_ref().map(|child| child.id().expect("it runs"));

    kill(fleet.shim("a"), Signal::KILL);
    let _again = fleet.wait_incarnation("a", 2).await;
    fleet.kill_up().await;
    kill(fleet.shim("a"), Signal::KILL);
    fleet.up(&[]).await;
    let _again = fleet.wait_incarnation("a", 3).await;
    let _stopped = fleet.cli(["stop", "a"]).await.ok();
    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(fleet.processes_of("a"), []);
    for stranger in strangers {
        assert!(alive(stranger));
    }
}

#[tokio::test]
async fn nothing_is_lost_when_nats_server_is_killed_again_and_again() {
    let fleet = Fleet::with(&[("a", &flaky("CONCURRENCY 4"))]).await;
    let before = identity(&fleet, "a");
    let broker = fleet.broker().await;
    let long = message("a", "long", "count 60 0.1");
    broker.send(&long, Duration::from_secs(10)).await.expect("stored");
    let (mut sent, mut server) = (vec!["long".to_owned()], fleet.nats_pid());
    for round in 0..3 {
        for number in 0..20 {
            let id = format!("m{round}-{number}");
            // Every tenth finds no server: it is tried until one answers.
            if number == 10 {
                kill(server.expect("a server"), Signal::KILL);
            }
            let envelope = message("a", &id, &format!("say {id}"));
            broker.send(&envelope, Duration::from_secs(30)).await.expect("stored");
            sent.push(id);
        }
        server = eventually("another server runs", async || match fleet.nats_pid() {
            new if new.is_some() && new != server => Ok(new),
            old => Err(format!("{old:?}")),
        })
        .await;
    }
    for id in &sent {
        let row = fleet.wait_status(id, "completed").await.row;
        assert_eq!(row.attempts, 1, "{row:?}");
        if id != "long" {
            assert_eq!(row.response.as_deref(), Some(id.as_str()));
        }
    }
    let row = fleet.show("long").await.row;
    assert!(
        row.response.is_some_and(|text| text.starts_with("1 2 3 ") && text.ends_with(" 59 60 "))
    );
    assert_adopted(&fleet, "a", before).await;
    assert_eq!(fleet.json(["journal", "ls"]).await.as_array().map(Vec::len), Some(sent.len()));
}

#[tokio::test]
async fn agents_outlive_the_death_of_supervisor_and_nats_server_together() {
    let mut fleet = Fleet::with(&[("a", &flaky("CONCURRENCY 2"))]).await;
    let before = identity(&fleet, "a");
    let long = fleet.send("a", "count 20 0.1").await;
    let _has_it = fleet.wait_status(&long, "acknowledged").await;
    let server = fleet.nats_pid().expect("a server");
    // The keeper first: it would start another server.
    fleet.kill_up().await;
    kill(server, Signal::KILL);
    eventually("no server runs", async || {
        fleet.nats_pid().map_or(Ok(()), |pid| Err(pid.to_string()))
    })
    .await;
    fleet.cli(["send", "a", "hello"]).await.exit(6).says("cause:").says("try:");

    fleet.up(&[]).await;
    assert_adopted(&fleet, "a", before).await;
    let row = fleet.wait_status(&long, "completed").await.row;
    assert_eq!(row.attempts, 1);
    assert!(row.response.is_some_and(|text| text.ends_with(" 19 20 ")));
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(fleet.processes(), []);
}

#[tokio::test]
async fn a_machine_that_slept_restarts_nobody_and_tries_nothing_again() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let before = identity(&fleet, "a");
    let long = fleet.send("a", "count 200 0.1").await;
    fleet.wait_status(&long, "acknowledged").await;
    kill(fleet.up_pid(), Signal::STOP);
    // Longer than the lease, and than a shim or a node may be silent.
    tokio::time::sleep(Duration::from_secs(11)).await;
    kill(fleet.up_pid(), Signal::CONT);
    let done = fleet.wait_status_within(Duration::from_secs(40), &long, "completed").await;
    assert_eq!(done.row.attempts, 1);
    assert_adopted(&fleet, "a", before).await;
}

#[tokio::test]
async fn questions_do_not_wait_for_a_supervisor_that_stands_still() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let second = fleet.spawn_cli(["supervisor", "--id", "second"]);
    eventually("the second supervisor answers", async || {
        let output = fleet.cli(["doctor", "--only", "supervisor"]).await;
        if output.stdout.contains("second ") { Ok(()) } else { Err(output.stdout) }
    })
    .await;
    second.signal(Signal::STOP);
    for _ in 0..8 {
        let began = Instant::now();
        let _rows = fleet.cli(["ps"]).await.ok();
        let took = began.elapsed();
        // Whichever of the two is asked first: after half a second both are.
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    second.signal(Signal::KILL);
}

#[tokio::test]
async fn what_is_open_before_the_floor_is_done_once_its_consumer_is_made_anew() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let first = fleet.send("a", "say first").await;
    let _done = fleet.wait_status(&first, "completed").await;
    assert_eq!(fleet.ask("a", "say second").await, "second");
    // The next incarnation begins after what is settled.
    let _restarted = fleet.cli(["restart", "a"]).await.ok();
    let _row = fleet.wait_incarnation("a", 2).await;
    assert_eq!(fleet.ask("a", "say third").await, "third");

    let broker = fleet.broker().await;
    let agent: AgentName = "a".parse().expect("valid");
    let key = MessageKey {
        agent: agent.clone(),
        sender: "user".parse().expect("valid"),
        message_id: first.parse().expect("valid"),
    };
    let stream = broker.subjects().journal_stream(broker.subjects().shard(&agent));
    let purge = format!("$JS.API.STREAM.PURGE.{stream}");
    let filter = serde_json::json!({ "filter": broker.subjects().final_of(&key) });
    let purged = broker.ask(purge, filter.to_string().into(), Duration::from_secs(5)).await;
    let purged: serde_json::Value =
        serde_json::from_slice(&purged.expect("an answer")).expect("JSON");
    assert_eq!(purged["purged"], 1, "{purged}");
    // What the sweeper does about a message that is open and pending nowhere.
    broker.delete_consumer(&agent, 2).await.expect("deleted");
    let done = fleet.wait_status(&first, "completed").await;
    assert_eq!(done.row.response.as_deref(), Some("first"));
    assert_eq!(fleet.ask("a", "say fourth").await, "fourth");
    assert_eq!(fleet.row("a").await["incarnation"], 2);
}

#[tokio::test]
async fn an_agent_that_cannot_be_admitted_holds_up_no_other_and_takes_messages_once_it_can() {
    const WITHIN: Duration = Duration::from_secs(5);
    let echo = flaky("");
    let mut fleet = Fleet::with(&[("a", &echo), ("b", &echo), ("c", &echo)]).await;
    let up = fleet.take_up();
    let broker = fleet.broker().await;
    let [a, b, c] = ["a", "b", "c"].map(|name| name.parse::<AgentName>().expect("valid"));
    // Nobody can read who may take its messages.
    let admitted = format!("$KV.{}.admitted.{b}", broker.subjects().lease_bucket());
    let stored = broker.ask(admitted, "{".into(), WITHIN).await.expect("an answer");
    assert!(String::from_utf8_lossy(&stored).contains("\"seq\""), "{stored:?}");
    // As after a restart of the broker.
    for agent in [&a, &b, &c] {
        broker.delete_consumer(agent, 1).await.expect("deleted");
    }
    let waits = fleet.send("b", "say late").await;
    for (agent, text) in [("a", "one"), ("c", "two"), ("a", "three")] {
        assert_eq!(fleet.ask(agent, &format!("say {text}")).await, text);
    }
    eventually("the leader has tried more than once", async || {
        let tries = up.complaints().matches("the handover to b-1 failed").count();
        if tries > 2 { Ok(()) } else { Err(format!("{tries} tries")) }
    })
    .await;
    assert_eq!(broker.consumer(&b, 1).await.expect("an answer"), None);

    broker.forget_admitted(&b).await.expect("repaired");
    let done = fleet.wait_status(&waits, "completed").await;
    assert_eq!(done.row.response.as_deref(), Some("late"));
    assert_eq!((done.row.attempts, fleet.row("b").await["incarnation"].clone()), (1, 1.into()));
}
