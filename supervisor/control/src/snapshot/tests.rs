//! A real server, and a time that is given: what goes once it is old.

use std::process::Stdio;
use std::time::Duration;

use broker::{ConnectOptions, ControlItem, StreamOptions};
use common::control::{ControlEvent, ControlRecord};
use supervisor_core::{LOG_KEPT, SNAPSHOTS_KEPT};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A nats-server of a test's own; killed when dropped.
struct Server {
    url: String,
    broker: Broker,
    _child: Child,
    _folder: TempDir,
}

async fn server() -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::env::var("MOZART_NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
    let child = Command::new(program)
        .args(["--addr", "127.0.0.1", "--port", "-1", "-js", "--store_dir"])
        .arg(folder.path().join("js"))
        .arg("--ports_file_dir")
        .arg(folder.path())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nats-server: set MOZART_NATS_SERVER or put it on PATH");
    let url = tokio::time::timeout(SOON, url(&folder)).await.expect("it starts");
    Server { broker: connect(&url).await, url, _child: child, _folder: folder }
}

/// Connects, and makes the streams that are missing.
async fn connect(url: &str) -> Broker {
    let options = ConnectOptions {
        url: url.to_owned(),
        creds: None,
        ca: None,
        name: "test".to_owned(),
        namespace: "test".parse().expect("valid"),
        timeout: SOON,
        shim: None,
    };
    let streams = StreamOptions { journal_shards: 1, replicas: None };
    Broker::connect_and_create(&options, &streams).await.expect("a broker")
}

/// Where it listens, as soon as it says so.
async fn url(folder: &TempDir) -> String {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    loop {
        tick.tick().await;
        let files = std::fs::read_dir(folder.path()).expect("our folder").flatten();
        let mut ports =
            files.filter(|file| file.path().extension().is_some_and(|it| it == "ports"));
        let text = ports.next().and_then(|file| std::fs::read_to_string(file.path()).ok());
        let ports = text.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        if let Some(url) = ports.and_then(|ports| Some(ports["nats"][0].as_str()?.to_owned())) {
            return url;
        }
    }
}

/// The next election: every one of them moves the term.
async fn elect(broker: &Broker) {
    let record = ControlRecord {
        id: Some(uuid::Uuid::now_v7().to_string()),
        at: Timestamp::default(),
        term: None,
        author: "s".into(),
        event: ControlEvent::LeaderElected { supervisor: "s".into(), run: "r".into(), rules: 3 },
    };
    broker.append_control(&record).await.expect("appended");
}

/// Goes on with what the log holds.
async fn fold(broker: &Broker, mut start: Start) -> Start {
    let mut log = broker.follow_control(start.state.seq() + 1, None).await.expect("following");
    loop {
        let item = tokio::time::timeout(SOON, log.next()).await.expect("in time");
        match item.expect("an item") {
            ControlItem::Record { seq, at, record } => {
                assert_eq!(seq, start.state.seq() + 1, "no gap");
                let _todo = supervisor_core::step(&mut start.state, seq, at, &record);
                start.last = Logged { at, id: record.id };
            }
            ControlItem::CaughtUp => return start,
            ControlItem::Malformed { cause, .. } => panic!("{cause}"),
        }
    }
}

async fn started(broker: &Broker) -> Result<Start, ApiError> {
    let loaded = broker.load_snapshot(restore).await.expect("an answer");
    start("cannot start", "s", loaded)
}

/// Adds ten records, and takes a snapshot at a time; its sequence.
async fn taken(broker: &Broker, now: Timestamp) -> u64 {
    for _ in 0..10 {
        elect(broker).await;
    }
    let at_end = fold(broker, started(broker).await.expect("it starts")).await;
    let (head, json) = snapshot(&at_end.state, &at_end.last).expect("a state");
    let seq = head.seq;
    write(broker, head, json.into(), now).await.expect("written");
    seq
}

async fn first(broker: &Broker) -> u64 {
    broker.control_extent().await.expect("an answer").first
}

async fn kept(broker: &Broker) -> Vec<u64> {
    let judged = broker.judge_snapshots(restore).await.expect("an answer").1;
    assert!(judged.iter().all(|(_, doubt)| doubt.is_none()), "{judged:?}");
    judged.into_iter().map(|(seq, _)| seq).collect()
}

#[tokio::test]
async fn what_two_snapshots_cover_goes_once_it_is_thirty_days_old() {
    let server = server().await;
    let broker = &server.broker;
    let now = broker.clock().await.expect("it tells");
    let later = now.after(LOG_KEPT).after(SOON);
    assert_eq!(taken(broker, later).await, 10);
    assert_eq!((kept(broker).await, first(broker).await), (vec![10], 1), "one is not enough");
    assert_eq!(taken(broker, now).await, 20);
    assert_eq!((kept(broker).await, first(broker).await), (vec![10, 20], 1), "it is young");
    let whole = fold(broker, Start { state: State::default(), last: Logged::default() }).await;
    assert_eq!(taken(broker, later).await, 30);
    let left = kept(broker).await;
    assert_eq!((left.len(), &*left, first(broker).await), (SNAPSHOTS_KEPT, &[20, 30][..], 20));
    assert_eq!(taken(broker, later).await, 40);
    assert_eq!((kept(broker).await, first(broker).await), (vec![30, 40], 30));

    // What is left gives what all of it gave.
    let there = fold(broker, started(broker).await.expect("it starts")).await;
    assert_eq!((there.state.seq(), there.state.term()), (40, 40));
    assert_eq!((whole.state.seq(), whole.state.term()), (20, 20));
    broker.drop_snapshot(40).await.expect("removed");
    let older = fold(broker, started(broker).await.expect("it starts")).await;
    assert_eq!(older.state, there.state);
    broker.drop_snapshot(30).await.expect("removed");
    let error = started(broker).await.err().expect("nothing covers the first 29 records");
    assert!(error.cause.contains("begins with record 30"), "{}", error.cause);
}

#[tokio::test]
async fn snapshots_of_a_log_that_was_made_anew_are_removed_by_its_first_own() {
    let server = server().await;
    let broker = &server.broker;
    let now = broker.clock().await.expect("it tells");
    for seq in [10, 20] {
        assert_eq!(taken(broker, now).await, seq);
    }
    let delete = format!("$JS.API.STREAM.DELETE.{}", broker.subjects().stream("CONTROL"));
    broker.ask(delete, "".into(), SOON).await.expect("an answer");
    let broker = &connect(&server.url).await;
    assert_eq!(started(broker).await.expect("an empty log").state, State::default());
    assert_eq!(taken(broker, now).await, 10, "as if there were none");
    assert_eq!(kept(broker).await, [10]);
    let folded = fold(broker, Start { state: State::default(), last: Logged::default() }).await;
    assert_eq!(started(broker).await.expect("it starts").state, folded.state);
}
