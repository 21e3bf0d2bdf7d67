//! Three servers: what is stored survives one of them, and what is not is made anew within seconds.

use std::time::{Duration, Instant};

use broker::{
    Admission, Admitted, AsShim, Asker, Broker, ConnectOptions, FinalOutcome, Inbox, InboxItem,
    MayAsk, SendOutcome,
};
use common::codec;
use common::frame::ask::{ShimAnswer, ShimAsk, Told};
use serde_json::Value;

use crate::events::{batch, text};
use crate::support::cluster::Cluster;
use crate::support::{SOON, agent, completed, consumer, envelope, key, soon};

const WINDOW: u32 = 16;

async fn ask(cluster: &Cluster, n: usize, what: &str) -> Value {
    let client = cluster.client(n).await;
    let answer = client.request(format!("$JS.API.{what}"), "".into()).await.expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

/// The server that leads a stream or consumer.
async fn leader(cluster: &Cluster, n: usize, what: &str) -> usize {
    let info = ask(cluster, n, what).await;
    let name = info["cluster"]["leader"].as_str().expect("a leader");
    name.trim_start_matches('s').parse().expect("one of ours")
}

async fn send(broker: &Broker, id: &str) {
    let sent = soon(broker.send(&envelope("a", id), SOON)).await.expect("stored");
    assert!(matches!(sent, SendOutcome::Stored { .. } | SendOutcome::Already { .. }), "{sent:?}");
}

/// The next request, acked and final.
async fn turn(broker: &Broker, inbox: &mut Inbox) -> String {
    let item = soon(inbox.next()).await;
    let InboxItem::Delivery(delivery) = item else {
        panic!("{item:?}");
    };
    let (key, tag) = (delivery.envelope.key(), delivery.envelope.tag());
    let won = broker.publish_final(&key, &tag, &completed("x"), "1.1", SOON).await;
    assert_eq!(won.expect("stored"), FinalOutcome::Won);
    broker.ack(&delivery.reply).await.expect("acked");
    inbox.release(1);
    key.message_id.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_three_replicas_where_there_are_three_servers() {
    let cluster = Cluster::start();
    let broker = cluster.broker().await;
    assert_eq!(broker.replicas(), 3);
    for stream in ["JOURNAL", "ATTEMPTS", "CONTROL", "SNAPSHOTS", "DEAD", "LOGS", "EVENTS"] {
        let info = ask(&cluster, 0, &format!("STREAM.INFO.MOZART_test_{stream}")).await;
        assert_eq!(info["config"]["num_replicas"], 3, "{stream}");
        let storage = if stream == "EVENTS" { "memory" } else { "file" };
        assert_eq!(info["config"]["storage"], storage, "{stream}");
        // Async persistence is for one replica alone.
        assert_ne!(info["config"]["persist_mode"], "async", "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_server_is_gone_is_made_anew_within_seconds_and_never_resumes_from_its_start()
 {
    let mut cluster = Cluster::start();
    let broker = cluster.broker().await;
    let a = agent("a");
    broker.create_consumer(&a, 1, 1, WINDOW).await.expect("made");
    for n in 0..5 {
        send(&broker, &format!("m{n}")).await;
    }
    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 1).await, WINDOW, None).await.expect("pulling");
    for n in 0..5 {
        assert_eq!(turn(&broker, &mut inbox).await, format!("m{n}"));
    }
    let at = leader(&cluster, 0, "CONSUMER.INFO.MOZART_test_JOURNAL.a-1").await;
    cluster.kill(at).await;
    let killed = Instant::now();
    while !matches!(soon(inbox.next()).await, InboxItem::Ended) {}
    let gone = async { while !matches!(broker.consumer(&a, 1).await, Ok(None)) {} };
    soon(gone).await;
    // The same incarnation goes on under another name, without waiting for a deletion.
    let again = async { while broker.create_consumer(&a, 1, 6, WINDOW).await.is_err() {} };
    soon(again).await;
    send(&broker, "m5").await;
    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 1).await, WINDOW, None).await.expect("pulling");
    assert_eq!(turn(&broker, &mut inbox).await, "m5");
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");

    // Its server is back: nobody is given anything old, and both go when the incarnation goes.
    cluster.revive(at);
    let names = broker.consumers().await.expect("a list");
    let is_its = |(agent, incarnation): &(_, u64)| *agent == a && *incarnation == 1;
    assert!(!names.is_empty() && names.iter().all(is_its), "{names:?}");
    send(&broker, "m6").await;
    assert_eq!(turn(&broker, &mut inbox).await, "m6");
    soon(broker.delete_consumer(&a, 1)).await.expect("deleted");
    let gone = async {
        while !matches!(broker.consumers().await.as_deref(), Ok([])) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon(gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_gave_nothing_yet_is_made_anew_as_well() {
    let mut cluster = Cluster::start();
    let broker = cluster.broker().await;
    let a = agent("a");
    broker.create_consumer(&a, 1, 1, WINDOW).await.expect("made");
    let at = leader(&cluster, 0, "CONSUMER.INFO.MOZART_test_JOURNAL.a-1").await;
    cluster.kill(at).await;
    // Asked for just as it is, it is its server that is to answer: no error says that there is one.
    let again = async { while broker.create_consumer(&a, 1, 1, WINDOW).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(25), again).await.expect("made anew");
    send(&broker, "m1").await;
    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 1).await, WINDOW, None).await.expect("pulling");
    assert_eq!(turn(&broker, &mut inbox).await, "m1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_a_leader_that_is_killed_and_wiped() {
    let mut cluster = Cluster::start();
    let broker = cluster.broker().await;
    for n in 0..20 {
        send(&broker, &format!("m{n}")).await;
    }
    let delivered = common::event::EventBody::Delivered { incarnation: 7 };
    broker.publish_events(&batch(1, 1, vec![delivered, text("a")])).await.expect("stored");
    let at = leader(&cluster, 0, "STREAM.INFO.MOZART_test_JOURNAL").await;
    cluster.kill(at).await;
    cluster.wipe(at);
    for n in 20..40 {
        send(&broker, &format!("m{n}")).await;
    }
    cluster.revive(at);
    let open = soon(broker.open_requests(&agent("a"), 1, 100)).await.expect("a scan");
    assert_eq!(open.total, 40);
    let mark = soon(broker.last_mark(&key("a", "m1"))).await.expect("an answer");
    assert_eq!(mark.expect("on record").attempt, 1);
}

/// Answers what the shims of an agent ask, as a supervisor does.
async fn answer(broker: Broker, incarnation: u64) {
    let subject = broker.subjects().shim_ask(&agent("a"), incarnation);
    let mut asked = broker.subscribe(subject, None).await.expect("subscribed");
    while let Some(message) = asked.next().await {
        let asker = Asker { agent: agent("a"), incarnation };
        let question = MayAsk::parse(asker, &message.payload).expect("it may");
        let _unanswered = broker.answer_shim(&question, message.reply.expect("an inbox")).await;
    }
}

/// The server of a consumer learns late that it was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_of_an_incarnation_that_was_replaced_counts_as_gone_while_it_is_still_there() {
    let cluster = Cluster::start();
    let broker = cluster.broker().await;
    let a = agent("a");
    for incarnation in [1, 2] {
        broker.create_consumer(&a, incarnation, 1, WINDOW).await.expect("made");
    }
    let mut answering = tokio::task::JoinSet::new();
    for incarnation in [1, 2] {
        answering.spawn(answer(broker.clone(), incarnation));
    }
    let is_there = async |incarnation| {
        let subject = broker.subjects().shim_ask(&a, incarnation);
        let frame = codec::encode(&ShimAsk::Consumer).expect("small");
        let answer = soon(async {
            loop {
                // It may not have subscribed yet.
                if let Ok(answer) = broker.ask(subject.clone(), frame.clone().into(), SOON).await {
                    return answer;
                }
            }
        });
        let ShimAnswer { told, .. } = codec::decode(&answer.await).expect("an answer");
        told != Told::Nothing
    };
    assert!(is_there(1).await && is_there(2).await, "nobody was admitted");
    for (admitted, there) in [(1, [true, true]), (2, [false, true])] {
        let wanted = Admitted { incarnation: admitted, consumer: format!("a-{admitted}") };
        assert_eq!(broker.admit(&a, &wanted).await.expect("stored"), Admission::Won);
        assert_eq!([is_there(1).await, is_there(2).await], there, "{admitted} is admitted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_learns_that_its_server_is_cut_off_from_the_others_and_that_it_is_back() {
    let mut cluster = Cluster::start();
    let everywhere = cluster.broker().await;
    let options = |shim| ConnectOptions { url: cluster.url_of(0), shim, ..cluster.options() };
    let supervisor = Broker::connect(&options(None)).await.expect("connected");
    let login = (String::new(), String::new());
    let shim = AsShim { agent: agent("a"), incarnation: 1, shards: 1, replicas: 3, login };
    let shim = Broker::connect(&options(Some(Box::new(shim)))).await.expect("connected");
    let mut tasks = tokio::task::JoinSet::new();
    let near = shim.clone();
    tasks.spawn(async move {
        near.stay_in_reach(Some(agent("a"))).await;
    });
    // Nobody to ask.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(shim.out_of_reach() < Duration::from_secs(5), "{:?}", shim.out_of_reach());
    tasks.spawn(answer(supervisor, 1));
    let silent = async |most: bool| {
        let limit = Duration::from_secs(if most { 8 } else { 5 });
        while (shim.out_of_reach() >= limit) != most {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(shim.out_of_reach() < Duration::from_secs(5), "{:?}", shim.out_of_reach());
    }
    let cut = Instant::now();
    for n in [1, 2] {
        cluster.kill(n).await;
    }
    soon(silent(true)).await;
    // The leader may have heard others just before.
    assert!(cut.elapsed() < Duration::from_secs(9), "{:?}", cut.elapsed());
    for n in [1, 2] {
        cluster.revive(n);
    }
    tokio::time::timeout(Duration::from_secs(30), silent(false)).await.expect("in reach");
    drop(everywhere);
}
