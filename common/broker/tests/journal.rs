//! Requests and finals: stored once, whatever is repeated.

use broker::{FinalOutcome, FirstOpen, SendOutcome};

use common::ConversationId;
use common::message::Outcome;

use crate::support::{SOON, Server, agent, completed, envelope, key, message, namesakes, soon};

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
async fn the_same_id_in_two_conversations_of_one_sender_is_a_conflict() {
    let server = Server::start().await;
    for shards in [1, 4] {
        let broker = server.broker_in(&format!("n{shards}"), shards).await;
        let mut stored = envelope("a", "m1");
        stored.conversation_id = ConversationId::new("one").expect("valid");
        broker.send(&stored, SOON).await.expect("it is stored");
        for conversation in ["two", "m1"] {
            let mut other = stored.clone();
            other.conversation_id = ConversationId::new(conversation).expect("valid");
            assert_ne!(other.tag(), stored.tag());
            let conflict = SendOutcome::Conflict { stored: Box::new(stored.clone()) };
            assert_eq!(broker.send(&other, SOON).await.expect("an answer"), conflict);
            let found = broker.request_of(&other.key()).await.expect("an answer");
            assert_eq!(found.expect("it is there").value, stored);
        }
        // Nor is there a second final state, whatever conversation its author takes it for.
        let (won, lost) = (completed("won"), completed("lost"));
        let (key, tag) = (stored.key(), stored.tag());
        let first = broker.publish_final(&key, &tag, &won, "1", SOON).await;
        assert_eq!(first.expect("an answer"), FinalOutcome::Won);
        let second = broker.publish_final(&key, &envelope("a", "m1").tag(), &lost, "2", SOON).await;
        assert_eq!(second.expect("an answer"), FinalOutcome::Lost(Box::new(won.clone())));
        assert_eq!(broker.final_of(&key).await.expect("an answer").expect("stored").value, won);
    }
}

#[tokio::test]
async fn the_same_id_at_two_agents_and_from_two_senders_is_that_many_messages() {
    let server = Server::start().await;
    let broker = server.broker().await;
    for (n, envelope) in namesakes().into_iter().enumerate() {
        let sent = broker.send(&envelope, SOON).await.expect("an answer");
        assert!(matches!(sent, SendOutcome::Stored { .. }), "{sent:?}");
        let ours = completed(&n.to_string());
        let outcome =
            broker.publish_final(&envelope.key(), &envelope.tag(), &ours, "1.1", SOON).await;
        assert_eq!(outcome.expect("an answer"), FinalOutcome::Won);
    }
    for (n, envelope) in namesakes().into_iter().enumerate() {
        let request = broker.request_of(&envelope.key()).await.expect("an answer");
        assert_eq!(request.expect("it is there").value, envelope);
        let final_ = broker.final_of(&envelope.key()).await.expect("an answer");
        assert_eq!(final_.expect("it is there").value, completed(&n.to_string()));
    }
}

#[tokio::test]
async fn compare_and_set_needs_no_message_id() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let envelope = envelope("a", "m1");
    broker.send(&envelope, SOON).await.expect("stored");
    let (key, tag) = (envelope.key(), envelope.tag());
    broker.publish_final(&key, &tag, &completed("x"), "1.1", SOON).await.expect("stored");
    let client = server.client().await;
    for subject in [broker.subjects().request_of(&key), broker.subjects().final_of(&key)] {
        let body = serde_json::json!({ "last_by_subj": subject }).to_string();
        let got = client.request("$JS.API.STREAM.MSG.GET.MOZART_test_JOURNAL", body.into()).await;
        let got: serde_json::Value =
            serde_json::from_slice(&got.expect("an answer").payload).expect("JSON");
        let headers = got["message"]["hdrs"].as_str().unwrap_or_default();
        // In base64: `Nats-Msg-Id` at each of its three alignments.
        for id in ["TmF0cy1Nc2ctSW", "5hdHMtTXNnLUlk", "OYXRzLU1zZy1JZ"] {
            assert!(!headers.contains(id), "{headers}");
        }
        assert!(got["message"]["seq"].is_u64(), "{got}");
    }
}

#[tokio::test]
async fn a_final_state_that_does_not_parse_is_final() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let envelope = envelope("a", "m1");
    broker.send(&envelope, SOON).await.expect("stored");
    let (key, tag) = (envelope.key(), envelope.tag());
    let subject = broker.subjects().final_(&key, &tag);
    let damaged = server.client().await.request(subject, "{".into()).await;
    damaged.expect("stored");
    let there = broker.final_of(&key).await.expect("an answer").expect("it is there").value;
    assert_eq!(there.status, Outcome::Failed);
    assert!(there.reason.as_deref().is_some_and(|reason| reason.contains("does not parse")));
    let outcome = broker.publish_final(&key, &tag, &completed("x"), "1.1", SOON).await;
    assert_eq!(outcome.expect("an answer"), FinalOutcome::Lost(Box::new(there)));
    let open = broker.open_requests(&agent("a"), 1, 9).await.expect("a scan");
    assert_eq!(open.total, 0);
}

#[tokio::test]
async fn what_is_open_is_found_among_what_is_not_whether_it_is_little_or_much() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let ids: Vec<_> = (0..200).map(|n| format!("m{n:03}")).collect();
    for id in &ids {
        broker.send(&envelope("a", id), SOON).await.expect("stored");
    }
    let finish = async |id: &str| {
        let envelope = envelope("a", id);
        let (key, tag) = (envelope.key(), envelope.tag());
        broker.publish_final(&key, &tag, &completed(id), "1", SOON).await.expect("an answer");
    };
    let open = async |limit: usize| {
        let scan = broker.open_requests(&agent("a"), 1, limit).await.expect("an answer");
        let seqs: Vec<_> = scan.open.iter().map(|(seq, ..)| *seq).collect();
        (scan.total, seqs)
    };
    // Not in order: the first and the last stay open for longest.
    let mut middle: Vec<_> = (1..199).collect();
    for index in middle.drain(50..150) {
        finish(&ids[index]).await;
    }
    let (total, seqs) = open(3).await;
    assert_eq!((total, seqs), (100, vec![1, 2, 3]));
    let (_, seqs) = open(1000).await;
    assert_eq!(seqs.len(), 100);
    assert_eq!((seqs[50], seqs[51], seqs[99]), (51, 152, 200));
    for index in middle {
        finish(&ids[index]).await;
    }
    assert_eq!(open(1000).await, (2, vec![1, 200]));
    assert_eq!(open(1).await, (2, vec![1]));
    finish(&ids[0]).await;
    finish(&ids[199]).await;
    let scan = broker.open_requests(&agent("a"), 1, 1).await.expect("an answer");
    assert_eq!((scan.total, scan.open, scan.last_seq), (0, Vec::new(), 400));
}

#[tokio::test]
async fn the_first_open_request_is_found_near_and_far_and_the_open_ones_are_counted() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let first = async |from| broker.first_open(&agent("a"), from).await.expect("an answer");
    assert_eq!(first(1).await, FirstOpen::NoneBefore(1), "there is nothing at all");
    // Names of which one begins like the other, and another agent's in between.
    let ids: Vec<_> = (0..60).map(|n| format!("m{}{}", "-x".repeat(n % 3), n / 3)).collect();
    for id in &ids {
        broker.send(&envelope("a", id), SOON).await.expect("stored");
        broker.send(&envelope("b", id), SOON).await.expect("stored");
    }
    let seq = |n: u64| 2 * n + 1;
    let is_at = |first, n| matches!(first, FirstOpen::At(there, _) if there == seq(n));
    assert!(is_at(first(0).await, 0));
    assert!(is_at(first(seq(7)).await, 7), "what is before that is not looked at");
    // Each time more of them have ended, in order: the first that has not is further away.
    for (n, id) in (0..).zip(&ids) {
        let left = 60 - n;
        assert_eq!(broker.count_open(&agent("a")).await.expect("a count"), left);
        let envelope = envelope("a", id);
        let (key, tag) = (envelope.key(), envelope.tag());
        broker.publish_final(&key, &tag, &completed(id), "1", SOON).await.expect("an answer");
        if n < 59 {
            assert!(is_at(first(1).await, n + 1), "after {n}");
            let scan = broker.open_requests(&agent("a"), 1, 1).await.expect("an answer");
            assert_eq!((scan.total, scan.open[0].0), (left - 1, seq(n + 1)));
        }
    }
    assert_eq!(first(1).await, FirstOpen::NoneBefore(181), "all that there is was looked at");
    assert_eq!(broker.count_open(&agent("a")).await.expect("a count"), 0);
    assert_eq!(broker.count_open(&agent("b")).await.expect("a count"), 60);
}

#[tokio::test]
async fn of_many_racing_finals_one_wins_and_only_that_is_republished() {
    let server = Server::start().await;
    for shards in [1, 4] {
        let broker = server.broker_in(&format!("n{shards}"), shards).await;
        let mut done =
            broker.subscribe(broker.subjects().done_all(), None).await.expect("a subscription");
        broker.flush(SOON).await.expect("flushed");
        for round in 0..20 {
            let name = format!("agent-{round}");
            let (key, tag) = (key(&name, "m1"), envelope(&name, "m1").tag());
            let tries = (0..8).map(|author| {
                let (broker, key, tag) = (&broker, &key, &tag);
                async move {
                    let ours = completed(&format!("by {author}"));
                    let author = author.to_string();
                    let outcome = broker.publish_final(key, tag, &ours, &author, SOON).await;
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
            assert_eq!(subject.key, key);
            assert_eq!(subject.conversation, envelope("a", "m1").tag());
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
    let (key, tag, ours) = (key("a", "m1"), envelope("a", "m1").tag(), completed("x"));
    for _ in 0..2 {
        let outcome = broker.publish_final(&key, &tag, &ours, "1.1", SOON).await;
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
        let broker = server.broker_in(&format!("n{shards}"), shards).await;
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
            let outcome = broker
                .publish_final(&key("a", id), &envelope("a", id).tag(), &completed(id), "1", SOON)
                .await;
            assert_eq!(outcome.expect("an answer"), FinalOutcome::Won);
        }

        let open = broker.open_requests(&agent("a"), 1, 3).await;
        let open = open.expect("a scan");
        assert_eq!((open.total, open.open.len()), (10, 3));
        let listed: Vec<_> = open.open.iter().map(|(seq, ..)| *seq).collect();
        assert!(listed.is_sorted());
        assert_eq!(broker.count_requests(&agent("a")).await.expect("a count"), 1500);
        assert_eq!(broker.count_requests(&agent("c")).await.expect("a count"), 0);

        let mut scan = broker.scan(Some(&agent("a"))).await.expect("a scan");
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

        let mut all = broker.scan(None).await.expect("a scan");
        let mut count = 0;
        while let Some(item) = all.next().await.expect("an item") {
            assert_eq!(item.is_final, item.final_.is_some());
            count += 1;
        }
        assert_eq!(count, 1500 * 2 + 1490);

        let found = broker.find(&message("m0007")).await.expect("a search");
        assert_eq!(found.len(), 2);
    }
}

#[tokio::test]
async fn of_two_that_follow_the_same_message_in_a_conversation_one_is_stored() {
    let server = Server::start().await;
    for shards in [1, 4] {
        let broker = server.broker_in(&format!("n{shards}"), shards).await;
        let of = |id: &str, sender: &str| {
            let mut one = envelope("a", id);
            one.conversation_id = ConversationId::new("talk").expect("valid");
            one.sender = sender.parse().expect("valid");
            one
        };
        let tag = of("m1", "ana").tag();
        let last = async || {
            let last = broker.last_request_within(&agent("a"), &tag).await.expect("an answer");
            last.map(|last| (last.value.message_id, last.seq))
        };
        assert_eq!(last().await, None);
        let next = async |id: &str, sender: &str, last: u64| {
            broker.send_next(&of(id, sender), last, SOON).await.expect("an answer")
        };
        let Some(SendOutcome::Stored { seq }) = next("m1", "ana", 0).await else {
            panic!("nothing comes before it")
        };
        assert_eq!(last().await, Some((message("m1"), seq)));
        // Others of the agent are no part of it.
        broker.send(&envelope("a", "x1"), SOON).await.expect("it is stored");
        let racing = [("m2", "ana"), ("m3", "ben"), ("m4", "ana")];
        let outcomes =
            futures_util::future::join_all(racing.map(|(id, sender)| next(id, sender, seq))).await;
        let stored = outcomes.iter().flatten().count();
        assert_eq!(stored, 1, "{outcomes:?}");
        // What was stored by an earlier try is recognised.
        assert_eq!(next("m1", "ana", 0).await, Some(SendOutcome::Already { seq }));
        assert_eq!(next("m5", "ana", seq).await, None);
    }
}

#[tokio::test]
async fn a_message_is_found_by_its_agent_alone_where_that_is_known() {
    let server = Server::start().await;
    for shards in [1, 4] {
        let broker = server.broker_in(&format!("n{shards}"), shards).await;
        for name in ["a", "b"] {
            broker.send(&envelope(name, "m1"), SOON).await.expect("it is stored");
        }
        let found = async |name: Option<&str>| {
            let name = name.map(agent);
            let found = broker.find_whole(name.as_ref(), &message("m1")).await.expect("an answer");
            let mut agents: Vec<String> =
                found.iter().map(|found| found.request.value.agent.to_string()).collect();
            agents.sort();
            agents
        };
        assert_eq!(found(None).await, ["a", "b"]);
        assert_eq!(found(Some("b")).await, ["b"]);
        assert_eq!(found(Some("c")).await, [""; 0]);
    }
}
