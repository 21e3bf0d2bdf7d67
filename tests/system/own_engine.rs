//! An engine that goes away and comes back, with agents in it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use checker::{Accepted, Facts, judge};
use common::ConversationId;
use common::control::ControlEvent;
use system_tests::harness::{Fleet, OwnEngine, Signal, always, eventually, message};

const SOUL: &str = "MODEL test/echo\nSOUL You echo.\nRESTART always backoff=200ms..1s\n";

/// A fleet in that engine.
fn fleet(engine: &OwnEngine, souls: &[(&str, &str)]) -> Fleet {
    Fleet::new(souls)
        .env("MOZART_RUNTIME", "docker")
        .env("MOZART_SHIM", &engine.shim().to_string_lossy())
        .env("DOCKER_HOST", &engine.address())
}

/// Waits until an agent is as it is for a reason that holds these words; its row.
async fn because(fleet: &Fleet, agent: &str, words: &str) -> serde_json::Value {
    eventually(&format!("{agent} says {words:?}"), async || {
        let row = fleet.row(agent).await;
        let reason = row["reason"].as_str().unwrap_or_default();
        if reason.contains(words) { Ok(row) } else { Err(row.to_string()) }
    })
    .await
}

#[tokio::test]
async fn an_engine_without_room_is_an_error_that_says_so_and_leaves_nothing() {
    // Less than the shim of a test takes.
    let Some(engine) = OwnEngine::start_within(4).await else { return };
    let mut fleet = fleet(&engine, &[("one", &SOUL.replace("200ms..1s", "20s"))]);
    fleet.up(&[]).await;
    let row = because(&fleet, "one", "no space left on device").await;
    assert_eq!(row["state"], "error", "{row}");
    eventually("nothing half made is left", async || match engine.list().await {
        Ok(left) if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_network_that_is_missing_is_named_and_used_once_it_is_there() {
    let Some(engine) = OwnEngine::start().await else { return };
    let soul = format!("{SOUL}IMAGE localhost:1/nothing\n");
    let fleet = fleet(&engine, &[("one", &soul)]);
    let mut fleet = fleet.env("MOZART_RUNTIME", "auto").env("MOZART_NETWORK", "mozart-late");
    fleet.up(&[]).await;
    let _row = because(&fleet, "one", "cannot use docker: network mozart-late not found").await;
    let _id = engine.docker(&["network", "create", "mozart-late"]).await.expect("made");
    // The engine is used: it is the image that is missing now.
    let _row = because(&fleet, "one", "image localhost:1/nothing").await;
}

#[tokio::test]
async fn an_engine_that_is_slow_costs_nobody_a_restart() {
    let Some(engine) = OwnEngine::start().await else { return };
    let soul = format!("{SOUL}TIMEOUT ready=2s\n");
    let mut fleet = fleet(&engine, &[("one", &soul)]);
    fleet.up(&[]).await;
    let _row = fleet.wait_state("one", "running").await;
    engine.signal(Signal::STOP);
    assert_eq!(fleet.ask("one", "meanwhile").await, "meanwhile");
    let two = fleet.soul("two", &soul);
    let _applied = fleet.cli(["apply".as_ref(), two.as_os_str()]).await.ok();
    let _row = because(&fleet, "two", "waiting for docker").await;
    // For longer than it may take to be ready.
    always(Duration::from_secs(5), "it is waited for", async || {
        let row = fleet.row("two").await;
        let waits = row["state"] == "starting" && row["incarnation"] == 1;
        if waits { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    engine.signal(Signal::CONT);
    let row = fleet.wait_state("two", "running").await;
    assert_eq!((&row["incarnation"], &row["restartCount"]), (&1.into(), &0.into()), "{row}");
    assert_eq!(fleet.ask("two", "afterwards").await, "afterwards");
    assert_eq!(fleet.row("one").await["incarnation"], 1);
}

#[tokio::test]
async fn an_engine_that_dies_or_is_stopped_and_comes_back_costs_no_message() {
    let Some(mut engine) = OwnEngine::start().await else { return };
    let souls = [("one", SOUL), ("two", SOUL)];
    let mut fleet = fleet(&engine, &souls);
    fleet.up(&[]).await;
    for (name, _) in souls {
        let _row = fleet.wait_state(name, "running").await;
        assert_eq!(fleet.ask(name, "before").await, "before");
    }

    // Killed, it leaves its containers alone: nobody is believed to have ended, and everybody answers.
    engine.end(Signal::KILL).await;
    eventually("the node has noticed", async || {
        let log = fleet.control().await;
        let last = log.into_iter().rev().find_map(|record| {
            if let ControlEvent::NodeSeen { runtimes, .. } = record.event {
                Some(runtimes)
            } else {
                None
            }
        });
        if last == Some(Vec::new()) { Ok(()) } else { Err(format!("{last:?}")) }
    })
    .await;
    for (name, _) in souls {
        assert_eq!(fleet.ask(name, "without an engine").await, "without an engine");
        let row = fleet.row(name).await;
        assert_eq!((&row["state"], &row["incarnation"]), (&"running".into(), &1.into()), "{row}");
    }
    // Started again, docker stops what ran before: crashes as far as anybody can tell.
    engine.begin().await;
    for (name, _) in souls {
        let _row = again(&fleet, name, 1).await;
        assert_eq!(fleet.ask(name, "afterwards").await, "afterwards");
    }

    // Stopped in order, it takes its containers along. What is sent meanwhile waits, and nobody is to blame.
    engine.end(Signal::TERM).await;
    let mut waiting = Vec::new();
    for (name, _) in souls {
        let row = eventually("it is down, with the reason", async || {
            let row = fleet.row(name).await;
            let reason = row["reason"].as_str().unwrap_or_default();
            let is_told = reason.contains("does not answer") || reason.contains("answers");
            if is_told && row["state"] != "running" { Ok(row) } else { Err(row.to_string()) }
        })
        .await;
        assert_eq!(row["generation"], 1);
        waiting.push(fleet.send(name, "meanwhile").await);
    }
    engine.begin().await;
    for message in waiting {
        let row = fleet.wait_status(&message, "completed").await.row;
        assert_eq!((row.response.as_deref(), row.attempts), (Some("meanwhile"), 1));
    }
    for (name, _) in souls {
        let row = fleet.wait_state(name, "running").await;
        let restarts = row["restartCount"].as_u64().expect("a count");
        assert!(restarts <= 3, "a start that no engine could make was held against it: {row}");
    }

    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(engine.list().await, Ok(Vec::new()), "containers are left over");
}

/// Waits until an agent runs as a later incarnation.
async fn again(fleet: &Fleet, agent: &str, before: u64) -> u64 {
    eventually(&format!("{agent} runs again"), async || {
        let row = fleet.row(agent).await;
        let incarnation = row["incarnation"].as_u64().unwrap_or_default();
        let is_it = row["state"] == "running" && incarnation > before;
        if is_it { Ok(incarnation) } else { Err(row.to_string()) }
    })
    .await
}

/// Talks to an agent until told to stop; what was accepted. In one conversation, so that the order counts, too.
async fn talk(fleet: &Fleet, agent: &str, stop: &AtomicBool) -> Vec<Accepted> {
    let broker = fleet.broker().await;
    let conversation = ConversationId::new(agent).expect("valid");
    let mut accepted = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(40));
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let text = format!("{agent} {}", accepted.len());
        let mut envelope = message(agent, &format!("m-{agent}-{}", accepted.len()), &text);
        envelope.conversation_id = conversation.clone();
        let _stored = broker.send(&envelope, Duration::from_secs(10)).await.expect("stored");
        accepted.push(Accepted {
            key: envelope.key(),
            conversation_id: conversation.clone(),
            text: text.clone(),
            answer: text,
        });
    }
    accepted
}

#[tokio::test]
async fn an_engine_that_is_restarted_again_and_again_under_load_loses_and_doubles_nothing() {
    let Some(mut engine) = OwnEngine::start().await else { return };
    let soul = format!("{SOUL}ATTEMPTS 20\nTIMEOUT drain=2s\n");
    let souls = [("one", soul.as_str()), ("two", &soul), ("three", &soul)];
    let mut fleet = fleet(&engine, &souls);
    fleet.up(&[]).await;
    for (name, _) in souls {
        let _row = fleet.wait_state(name, "running").await;
    }
    let stop = AtomicBool::new(false);
    let restart = async {
        for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
            engine.end(signal).await;
            engine.begin().await;
            for (name, _) in souls {
                let _row = fleet.wait_state(name, "running").await;
                assert_eq!(fleet.ask(name, "still there?").await, "still there?");
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let talks = souls.map(|(name, _)| talk(&fleet, name, &stop));
    let (talks, ()) = tokio::join!(futures_util::future::join_all(talks), restart);
    let accepted: Vec<_> = talks.into_iter().flatten().collect();
    for last in accepted.chunk_by(|one, other| one.key.agent == other.key.agent) {
        let last = last.last().expect("it was talked to").key.message_id.to_string();
        let _done = fleet.wait_status(&last, "completed").await;
    }
    let attempts = souls.map(|(name, _)| (name.parse().expect("valid"), 20)).into();
    let broker = fleet.broker().await;
    let facts = Facts::collect(&broker, accepted, attempts, BTreeMap::new(), BTreeMap::new()).await;
    let mut facts = facts.expect("the broker answers");
    for life in facts.lives.values_mut() {
        // The echo writes no notes of its own: what is on record stands for them.
        life.believe_the_record();
    }
    let verdict = judge(&facts);
    assert_eq!(verdict.faults, []);
    assert!(verdict.completed > 100, "so few say nothing: {}", verdict.completed);
    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(engine.list().await, Ok(Vec::new()), "containers are left over");
}
