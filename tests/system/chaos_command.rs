//! `mozart chaos`: a throwaway fleet beside the user's own, of which nothing is left and nothing is touched.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use broker::Broker;
use common::message::MessageKey;
use common::subject::Subjects;
use rustix::process::Signal;
use serde_json::{Value, json};
use system_tests::harness::{Fleet, eventually};

/// The user's own agent: the built-in worker.
const MINE: &str = "MODEL test/model\nSOUL test agent\n";
/// The shortest run.
const SHORTEST: &str = "0.1";

async fn fleet() -> Fleet {
    let mut fleet = Fleet::new(&[("mine", MINE)]);
    fleet.all_up().await;
    fleet
}

fn runs(fleet: &Fleet) -> PathBuf {
    fleet.home().join("chaos")
}

/// The streams of throwaway namespaces.
async fn streams(broker: &Broker) -> Vec<String> {
    let asked = broker.ask("$JS.API.STREAM.NAMES".to_owned(), "{}".into(), Duration::from_secs(5));
    let names: Value = serde_json::from_slice(&asked.await.expect("an answer")).expect("JSON");
    let names = names["streams"].as_array().expect("a list").iter();
    let names = names.map(|name| name.as_str().expect("a name").to_owned());
    names.filter(|name| name.contains("chaos-")).collect()
}

/// What is left of all runs: streams, processes, folders.
async fn left(fleet: &Fleet) -> Result<(), String> {
    let streams = streams(&fleet.broker().await).await;
    let folder = runs(fleet).to_string_lossy().into_owned();
    let is_theirs = |words: &[String]| words.iter().any(|word| word.contains(&folder));
    let processes = fleet.processes().into_iter().filter(|process| {
        is_theirs(&process.args)
            || process.var("MOZART_DIR").starts_with(&folder)
            || process.var("MOZART_RUN").starts_with(&folder)
    });
    let processes: Vec<_> = processes.map(|process| (process.pid, process.args)).collect();
    let folders: Vec<_> = fs::read_dir(runs(fleet)).into_iter().flatten().flatten().collect();
    match streams.is_empty() && processes.is_empty() && folders.is_empty() {
        true => Ok(()),
        false => Err(format!("{streams:?}, {processes:?}, {folders:?}")),
    }
}

/// The user's own agent, as far as anything could have been done to it.
async fn mine(fleet: &Fleet) -> (Value, Value, Value, u32) {
    let row = fleet.row("mine").await;
    let of = |name: &str| row[name].clone();
    (of("runningIncarnation"), of("restartCount"), of("state"), fleet.shim("mine"))
}

#[tokio::test]
async fn a_run_is_good_and_leaves_nothing_and_touches_nobody() {
    let fleet = fleet().await;
    let before = mine(&fleet).await;
    let report = fleet.json(["chaos", "--minutes", "0.3", "--seed", "7"]).await;
    assert_eq!((&report["verdict"], &report["faults"]), (&json!("good"), &json!([])), "{report}");
    assert_eq!(report["seed"], 7);
    let count = |value: &Value| value.as_u64().expect("a number");
    for done in ["freezes", "cuts", "restarts", "replaces"] {
        assert!(count(&report[done]) > 0, "{done}: {report}");
    }
    assert!(report["kills"]["leader"].as_u64().is_some_and(|kills| kills > 0), "{report}");
    let (accepted, completed) = (count(&report["accepted"]), count(&report["completed"]));
    assert!(accepted > 20 && completed + count(&report["dead"]) >= accepted, "{report}");
    let log = report["log"].as_array().expect("a list");
    assert!(log.len() > 5 && log.iter().all(|entry| entry["at"].is_number()), "{report}");

    assert_eq!(mine(&fleet).await, before, "the user's own agent");
    assert_eq!(left(&fleet).await, Ok(()));
    // That its streams went is no loss of the user's data.
    let doctor = fleet.cli(["ps"]).await.ok();
    assert!(!doctor.stderr.contains("removed"), "{doctor}");
    let answer = fleet.cli(["send", "mine", "still there?", "--wait"]).await.ok();
    assert!(answer.stdout.contains("still there?"), "{answer}");
}

#[tokio::test]
async fn a_kept_run_is_judged_again_and_a_final_state_that_is_gone_is_reported() {
    let fleet = fleet().await;
    let words = ["chaos", "--minutes", SHORTEST, "--kinds", "kill,replace", "--keep"];
    let report = fleet.json(words).await;
    assert_eq!(report["verdict"], "good", "{report}");
    let namespace = report["namespace"].as_str().expect("a name").to_owned();
    let listed = fleet.cli(["--namespace", &namespace, "journal", "ls", "-o", "json"]).await.ok();
    assert!(listed.json().as_array().is_some_and(|all| !all.is_empty()), "{listed}");
    let again = fleet.json(["chaos", "--verify", &namespace]).await;
    assert_eq!(again["verdict"], "good", "{again}");

    let ledger = fs::read(runs(&fleet).join(&namespace).join("ledger.json")).expect("it is kept");
    let ledger: Value = serde_json::from_slice(&ledger).expect("JSON");
    let key = ledger["accepted"][0]["key"].clone();
    let key: MessageKey = serde_json::from_value(key).expect("a message");
    remove_final(&fleet, &namespace, &key).await;
    let bad = fleet.cli(["chaos", "--verify", &namespace]).await.exit(8);
    let fault = format!("message {} to {} has no final state", key.message_id, key.agent);
    assert!(bad.stdout.contains(&fault) && bad.stdout.contains("BAD: 1 faults"), "{bad}");
    let bad = fleet.cli(["-o", "json", "chaos", "--verify", &namespace]).await.exit(8).json();
    assert_eq!(bad["verdict"], "bad", "{bad}");

    let _removed = fleet.cli(["chaos", "--clean"]).await.ok().says(&namespace);
    assert_eq!(left(&fleet).await, Ok(()));
    let _gone = fleet.cli(["chaos", "--verify", &namespace]).await.exit(3);
}

/// Removes a final state, as nothing in Mozart can.
async fn remove_final(fleet: &Fleet, namespace: &str, key: &MessageKey) {
    let broker = fleet.broker().await;
    let streams = streams(&broker).await;
    let shards = streams.iter().filter(|name| name.contains("JOURNAL")).count();
    let shards = u32::try_from(shards).expect("few");
    let subjects = Subjects::new(namespace.parse().expect("valid"), shards);
    let stream = subjects.journal_stream(subjects.shard(&key.agent));
    let body = json!({ "filter": subjects.final_of(key) }).to_string();
    let purge = format!("$JS.API.STREAM.PURGE.{stream}");
    let answer = broker.ask(purge, body.into(), Duration::from_secs(10)).await;
    let answer = String::from_utf8_lossy(&answer.expect("an answer")).into_owned();
    assert!(answer.contains("\"purged\":1"), "{answer}");
}

#[tokio::test]
async fn an_interrupted_run_leaves_nothing() {
    let fleet = fleet().await;
    let run = fleet.spawn_cli(["chaos", "--minutes", "5", "--seed", "3"]);
    eventually("faults happen", async || match run.complaints() {
        said if said.contains(": process ") => Ok(()),
        said => Err(said),
    })
    .await;
    run.signal(Signal::INT);
    let _interrupted = run.output().await.exit(130);
    assert_eq!(left(&fleet).await, Ok(()));
    let _answer = fleet.cli(["send", "mine", "hello", "--wait"]).await.ok();
}

#[tokio::test]
async fn what_a_killed_run_has_left_ends_with_it_and_is_removed_by_the_next_one() {
    let fleet = fleet().await;
    let before = mine(&fleet).await;
    let run = fleet.spawn_cli(["chaos", "--minutes", "5", "--kinds", "replace"]);
    eventually("faults happen", async || match run.complaints() {
        said if said.contains("asked for") => Ok(()),
        said => Err(said),
    })
    .await;
    // As one may at any time.
    run.signal(Signal::KILL);
    let _killed = run.output().await.exit(-1);
    let folder = runs(&fleet).to_string_lossy().into_owned();
    eventually("its processes end", async || {
        let theirs = fleet.processes().into_iter().filter(|process| {
            process.var("MOZART_DIR").starts_with(&folder)
                || process.var("MOZART_RUN").starts_with(&folder)
        });
        let theirs: Vec<_> = theirs.map(|process| (process.pid, process.args)).collect();
        if theirs.is_empty() { Ok(()) } else { Err(format!("{theirs:?}")) }
    })
    .await;
    assert!(!streams(&fleet.broker().await).await.is_empty(), "nobody has removed them yet");
    let next = fleet.cli(["chaos", "--minutes", SHORTEST, "--kinds", "replace"]).await.ok();
    assert!(next.stderr.contains("removed what an earlier run has left: chaos-"), "{next}");
    assert_eq!(left(&fleet).await, Ok(()));
    assert_eq!(mine(&fleet).await, before, "the user's own agent");
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_before_anything_is_made() {
    let fleet = Fleet::new(&[]);
    let _kinds = fleet.cli(["chaos", "--kinds", "kill,flood"]).await.exit(2);
    let kinds = fleet.cli(["chaos", "--kinds", "kill,flood"]).await;
    kinds.says("expected one of kill, freeze, cut, restart, replace, leader");
    for minutes in ["0", "100000", "soon"] {
        let refused = fleet.cli(["chaos", "--minutes", minutes]).await.exit(2);
        refused.says("expected a number from 0.1 to 720");
    }
    fleet.cli(["chaos"]).await.exit(6).says("`mozart up`");
    let nobody = ["chaos", "--nats", "nats://127.0.0.1:9"];
    fleet.cli(nobody).await.exit(6).says("cannot use the broker");
    fleet
        .cli(["chaos", "--verify", "chaos-none", "--nats", "nats://127.0.0.1:9"])
        .await
        .exit(3)
        .says("--keep");
    assert!(!runs(&fleet).exists());
}
