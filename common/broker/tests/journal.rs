//! Requests and finals: stored once, whatever is repeated.

use broker::{FinalOutcome, SendOutcome};

use crate::support::{SOON, Server, agent, completed, envelope, key, message, soon};

#[tokio::test]
async fn a_message_is_stored_once_however_often_it_is_sent() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let first = broker.send(&envelope("a", "m1"), SOON).await;
    let first = first.expect("it is stored");
    assert_eq!(first, SendOutcome::Stored { seq: 1 });

    let mut again = envelope("a", "m1");
    again.created_at = common::Timestamp::from_millis(99);
    let second = broker.send(&again, SOON).await.expect("an answer");
    assert_eq!(second, SendOutcome::Already { seq: 1 });

    server.kill_and_revive().await;
    let third = broker.send(&again, SOON).await.expect("an answer");
    assert_eq!(third, SendOutcome::Already { seq: 1 });
    assert_eq!(broker.count_requests(&agent("a")).await.expect("a count"), 1);
}

#[tokio::test]
async fn another_text_under_the_same_id_is_a_conflict() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let stored = envelope("a", "m1");
    broker.send(&stored, SOON).await.expect("it is stored");
    let mut other = stored.clone();
    other.message = "something else".into();
    assert_eq!(
        broker.send(&other, SOON).await.expect("an answer"),
        SendOutcome::Conflict { stored: Box::new(stored) }
    );
}

#[tokio::test]
async fn of_many_racing_finals_one_wins_and_only_that_is_republished() {
    let server = Server::start().await;
    for shards in [1, 4] {
        let mut options = server.options();
        options.namespace = common::Namespace::new(format!("n{shards}")).expect("valid");
        let streams = broker::StreamOptions { journal_shards: shards, replicas: 1 };
        let broker =
            broker::Broker::connect_and_create(&options, &streams).await.expect("a broker");
        let mut done =
            broker.subscribe(broker.subjects().done_all(), None).await.expect("a subscription");
        broker.flush(SOON).await.expect("flushed");
        for round in 0..20 {
            let name = format!("agent-{round}");
            let key = key(&name, "m1");
            let tries = (0..8).map(|author| {
                let (broker, key) = (&broker, &key);
                async move {
                    let ours = completed(&format!("by {author}"));
                    let outcome = broker.publish_final(key, &ours, &author.to_string(), SOON).await;
                    (ours, outcome.expect("an answer"))
                }
            });
            let outcomes = futures_util::future::join_all(tries).await;
            let winners: Vec<_> = outcomes
                .iter()
                .filter(|(_, outcome)| *outcome == FinalOutcome::Won)
                .map(|(ours, _)| ours.clone())
                .collect();
            let [winner] = winners.as_slice() else {
                panic!("{} winners", winners.len());
            };
            for (_, outcome) in &outcomes {
                let lost = FinalOutcome::Lost(Box::new(winner.clone()));
                assert!(*outcome == FinalOutcome::Won || *outcome == lost);
            }
            let told = soon(done.next()).await.expect("the republished final");
            let subject = broker.subjects().parse_done(&told.subject).expect("ours");
            assert_eq!(subject.agent, key.agent);
            assert_eq!(subject.message_id, message("m1"));
            let told: common::message::Final =
                serde_json::from_slice(&told.payload).expect("a final");
            assert_eq!(told, *winner);
            let stored = broker.final_of(&key).await.expect("an answer");
            assert_eq!(stored.expect("it is there").value, *winner);
        }
    }
}

#[tokio::test]
async fn ones_own_final_is_recognised_when_it_is_tried_again() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (key, ours) = (key("a", "m1"), completed("x"));
    for _ in 0..2 {
        let outcome = broker.publish_final(&key, &ours, "1.1", SOON).await;
        assert_eq!(outcome.expect("an answer"), FinalOutcome::Won);
    }
}

#[tokio::test]
async fn what_is_sent_while_the_server_is_down_is_stored_once_when_it_is_back() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let ids: Vec<String> = (0..200).map(|n| format!("m{n}")).collect();
    let sends = ids.iter().map(|id| {
        let broker = &broker;
        async move { broker.send(&envelope("a", id), SOON).await }
    });
    let (outcomes, ()) =
        tokio::join!(futures_util::future::join_all(sends), server.kill_and_revive());
    for outcome in outcomes {
        assert!(!matches!(outcome.expect("stored in the end"), SendOutcome::Conflict { .. }));
    }
    let count = broker.count_requests(&agent("a")).await.expect("a count");
    assert_eq!(count, 200);
}

#[tokio::test]
async fn a_scan_reads_what_was_stored_in_order_and_says_what_is_open() {
    let server = Server::start().await;
    for shards in [1, 4] {
        let mut options = server.options();
        options.namespace = common::Namespace::new(format!("n{shards}")).expect("valid");
        let streams = broker::StreamOptions { journal_shards: shards, replicas: 1 };
        let broker =
            broker::Broker::connect_and_create(&options, &streams).await.expect("a broker");
        // More than a batch.
        let ids: Vec<String> = (0..1500).map(|n| format!("m{n:04}")).collect();
        for chunk in ids.chunks(100) {
            let sends = chunk.iter().map(|id| {
                let broker = &broker;
                async move {
                    let stored = broker.send(&envelope("a", id), SOON).await;
                    stored.expect("stored");
                    let other = broker.send(&envelope("b", id), SOON).await;
                    other.expect("stored");
                }
            });
            futures_util::future::join_all(sends).await;
        }
        for id in &ids[..1490] {
            let outcome = broker.publish_final(&key("a", id), &completed(id), "1", SOON).await;
            assert_eq!(outcome.expect("an answer"), FinalOutcome::Won);
        }

        let open = broker.open_requests(&agent("a"), 1, 3).await;
        let open = open.expect("a scan");
        assert_eq!((open.total, open.open.len()), (10, 3));
        let listed: Vec<_> = open.open.iter().map(|(seq, ..)| *seq).collect();
        assert!(listed.is_sorted());
        assert_eq!(broker.count_requests(&agent("a")).await.expect("a count"), 1500);
        assert_eq!(broker.count_requests(&agent("c")).await.expect("a count"), 0);

        let mut scan = broker.scan(Some(&agent("a")), 1, false).await.expect("a scan");
        let (mut requests, mut finals, mut last) = (0, 0, 0);
        while let Some(item) = scan.next().await.expect("an item") {
            assert!(item.seq > last);
            last = item.seq;
            match (item.request, item.final_) {
                (Some(request), None) => {
                    assert_eq!(request.message_id, item.key.message_id);
                    requests += 1;
                }
                (None, Some(_)) => finals += 1,
                _ => panic!("one of both"),
            }
        }
        assert_eq!((requests, finals), (1500, 1490));

        let mut all = broker.scan(None, 1, true).await.expect("a scan");
        let mut count = 0;
        while let Some(item) = all.next().await.expect("an item") {
            assert!(item.request.is_none() && item.final_.is_none());
            count += 1;
        }
        assert_eq!(count, 1500 * 2 + 1490);

        let found = broker.find(&message("m0007")).await.expect("a search");
        assert_eq!(found.len(), 2);
    }
}
