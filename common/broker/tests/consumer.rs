//! The consumer of an incarnation: what it gives, what it refuses, and when it is gone.

use std::collections::BTreeSet;

use broker::{AsShim, Broker, ConnectOptions, Delivery, Inbox, InboxItem, SendOutcome, Unreadable};
use futures_util::StreamExt;

use crate::support::{SOON, Server, agent, consumer, envelope, is_alone, soon};

async fn delivery(inbox: &mut Inbox) -> Delivery {
    match soon(inbox.next()).await {
        InboxItem::Delivery(delivery) => *delivery,
        other @ (InboxItem::Unreadable(_) | InboxItem::Refused { .. } | InboxItem::Ended) => {
            panic!("{other:?}")
        }
    }
}

async fn unreadable(inbox: &mut Inbox) -> Unreadable {
    match soon(inbox.next()).await {
        InboxItem::Unreadable(unreadable) => *unreadable,
        other @ (InboxItem::Delivery(_) | InboxItem::Refused { .. } | InboxItem::Ended) => {
            panic!("{other:?}")
        }
    }
}

async fn send(broker: &Broker, agent: &str, id: &str) {
    let sent = broker.send(&envelope(agent, id), SOON).await;
    assert!(matches!(sent, Ok(SendOutcome::Stored { .. })), "{sent:?}");
}

/// Waits until the consumer has heard of every ack: so many are left.
async fn unacked(broker: &Broker, agent: &common::AgentName, count: u64) {
    soon(async {
        loop {
            let state = broker.consumer(agent, 1).await.expect("an answer").expect("it exists");
            if state.ack_pending == count {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn requests_come_in_order_and_never_more_than_the_window() {
    let server = Server::start().await;
    for (shards, window) in [(1, 1), (1, 7), (4, 64), (1, 100)] {
        let broker = server.broker_in(&format!("n{shards}-{window}"), shards).await;
        let a = agent("a");
        broker.create_consumer(&a, 1, 1, 300).await.expect("made");
        let mut inbox =
            broker.pull(&a, consumer(&broker, &a, 1).await, window, None).await.expect("pulling");
        let sending = async {
            for n in 0..300 {
                send(&broker, "a", &format!("m{n}")).await;
                send(&broker, "b", &format!("m{n}")).await;
            }
        };
        let receiving = async {
            let mut held = Vec::new();
            for n in 0..300 {
                if held.len() == window as usize {
                    // The consumer would give more: nobody has asked for it.
                    unacked(&broker, &a, u64::from(window)).await;
                    for reply in held.drain(..) {
                        let reply: String = reply;
                        broker.ack(&reply).await.expect("acked");
                    }
                    inbox.release(window);
                }
                let next = delivery(&mut inbox).await;
                assert_eq!(next.envelope, envelope("a", &format!("m{n}")));
                assert_eq!(next.delivered, 1);
                held.push(next.reply);
            }
        };
        tokio::join!(sending, receiving);
    }
}

#[tokio::test]
async fn a_full_window_gets_nothing_until_there_is_room() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let a = agent("a");
    broker.create_consumer(&a, 1, 1, 2).await.expect("made");
    for n in 0..3 {
        send(&broker, "a", &format!("m{n}")).await;
    }
    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 1).await, 2, None).await.expect("pulling");
    let first = delivery(&mut inbox).await;
    delivery(&mut inbox).await;
    let state = broker.consumer(&a, 1).await.expect("an answer");
    let state = state.expect("it exists");
    assert_eq!((state.ack_pending, state.pending, state.delivered), (2, 1, 2));
    broker.ack(&first.reply).await.expect("acked");
    inbox.release(1);
    assert_eq!(delivery(&mut inbox).await.envelope, envelope("a", "m2"));
}

#[tokio::test]
async fn after_a_kill_the_consumer_is_gone_and_a_new_one_loses_nothing() {
    if !is_alone() {
        // A cluster remembers that there was one, and makes it again from its start.
        return;
    }
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let a = agent("a");
    broker.create_consumer(&a, 1, 1, 4).await.expect("made");
    for n in 0..20 {
        send(&broker, "a", &format!("m{n}")).await;
    }
    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 1).await, 4, None).await.expect("pulling");
    let mut settled = BTreeSet::new();
    for _ in 0..10 {
        let next = delivery(&mut inbox).await;
        broker.ack(&next.reply).await.expect("acked");
        inbox.release(1);
        settled.insert(next.seq);
    }
    let floor = *settled.last().expect("some");
    server.kill_and_revive().await;
    loop {
        match soon(inbox.next()).await {
            // Given out before the server went.
            InboxItem::Delivery(_) => {}
            InboxItem::Ended => break,
            other @ (InboxItem::Unreadable(_) | InboxItem::Refused { .. }) => panic!("{other:?}"),
        }
    }
    assert!(matches!(soon(inbox.next()).await, InboxItem::Ended));
    assert_eq!(broker.consumer(&a, 1).await.expect("an answer"), None);

    broker.create_consumer(&a, 2, floor + 1, 4).await.expect("made");
    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 2).await, 4, None).await.expect("pulling");
    for n in 10..20 {
        let next = delivery(&mut inbox).await;
        assert_eq!(next.envelope, envelope("a", &format!("m{n}")));
        broker.ack(&next.reply).await.expect("acked");
        inbox.release(1);
    }
}

#[tokio::test]
async fn deleting_the_consumer_fences_its_incarnation() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let a = agent("a");
    let made = broker.create_consumer(&a, 1, 1, 4).await.expect("made");
    assert_eq!(broker.consumer(&a, 1).await.expect("an answer"), Some(made));
    let there = broker.create_consumer(&a, 1, 7, 9).await.expect("exists");
    assert_eq!((there, there.start), (made, 1), "it stays as it was");
    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 1).await, 4, None).await.expect("pulling");
    send(&broker, "a", "m1").await;
    delivery(&mut inbox).await;
    broker.create_consumer(&a, 2, 1, 4).await.expect("made");
    let mut names = broker.consumers().await.expect("a list");
    names.sort();
    assert_eq!(names, [(a.clone(), 1), (a.clone(), 2)]);

    broker.delete_consumer(&a, 1).await.expect("deleted");
    broker.delete_consumer(&a, 1).await.expect("not there: fine");
    assert!(matches!(soon(inbox.next()).await, InboxItem::Ended));
    // A pull at what is not there finds out as well.
    let mut stale =
        broker.pull(&a, consumer(&broker, &a, 1).await, 4, None).await.expect("pulling");
    assert!(matches!(soon(stale.next()).await, InboxItem::Ended));

    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 2).await, 4, None).await.expect("pulling");
    assert_eq!(delivery(&mut inbox).await.envelope, envelope("a", "m1"));
}

#[tokio::test]
async fn what_went_to_an_earlier_pull_is_noticed_by_whoever_knows_how_much_was_given_out() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let a = agent("a");
    let made = broker.create_consumer(&a, 1, 1, 8).await.expect("made");
    assert_eq!(made.given, 0);
    // A pull that nobody reads any more, as one that was lost between two servers.
    let lost = broker
        .pull(&a, consumer(&broker, &a, 1).await, 2, Some(made.given))
        .await
        .expect("pulling");
    for id in ["m1", "m2", "m3"] {
        send(&broker, "a", id).await;
    }
    unacked(&broker, &a, 2).await;
    let mut inbox = broker
        .pull(&a, consumer(&broker, &a, 1).await, 8, Some(made.given))
        .await
        .expect("pulling");
    assert!(matches!(soon(inbox.next()).await, InboxItem::Ended));
    let passed = inbox.passed().expect("it ended for that");
    let state = broker.consumer(&a, 1).await.expect("an answer").expect("it exists");
    assert_eq!((passed.seq, passed.given), (3, 3));
    assert_eq!((state.delivered, state.given), (3, 3));
    // Whoever has looked up to there goes on after it, once nothing is given to the earlier ones any more.
    drop((inbox, lost));
    let mut inbox = broker
        .pull(&a, consumer(&broker, &a, 1).await, 8, Some(state.given))
        .await
        .expect("pulling");
    send(&broker, "a", "m4").await;
    assert_eq!(delivery(&mut inbox).await.envelope, envelope("a", "m4"));
    assert_eq!(inbox.passed(), None);
}

#[tokio::test]
async fn a_request_that_is_not_acked_comes_again_and_is_counted() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let a = agent("a");
    broker.create_consumer(&a, 1, 1, 4).await.expect("made");
    send(&broker, "a", "m1").await;
    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 1).await, 4, None).await.expect("pulling");
    let first = delivery(&mut inbox).await;
    let client = server.client().await;
    client.publish(first.reply, "-NAK".into()).await.expect("refused");
    client.flush().await.expect("sent");
    inbox.release(1);
    let second = delivery(&mut inbox).await;
    assert_eq!((second.seq, second.delivered), (first.seq, 2));
}

#[tokio::test]
async fn the_last_delivery_that_never_comes_is_noticed_by_a_heartbeat() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let made = broker.create_consumer(&agent("a"), 1, 1, 8).await;
    made.expect("made");
    let name = consumer(&broker, &agent("a"), 1).await;
    // Somebody else's pull is first in the queue: what it gets is what a server took with it.
    let client = server.client().await;
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.MOZART_test_JOURNAL.{name}");
    let mut taken = client.subscribe("taken").await.expect("subscribed");
    let body = serde_json::json!({ "batch": 1, "expires": 30_000_000_000_u64 }).to_string();
    client.publish_with_reply(next, "taken", body.into()).await.expect("sent");
    soon(async {
        loop {
            let info = format!("$JS.API.CONSUMER.INFO.MOZART_test_JOURNAL.{name}");
            let info = client.request(info, "".into()).await.expect("an answer");
            let info: serde_json::Value = serde_json::from_slice(&info.payload).expect("JSON");
            if info["num_waiting"] == 1 {
                return;
            }
        }
    })
    .await;
    let mut inbox = broker.pull(&agent("a"), name, 8, Some(0)).await.expect("pulling");
    send(&broker, "a", "m").await;
    let lost = soon(taken.next()).await.expect("the delivery");
    assert!(lost.reply.is_some_and(|ack| ack.starts_with("$JS.ACK.")), "a delivery");
    assert!(matches!(soon(inbox.next()).await, InboxItem::Ended));
    let passed = inbox.passed().expect("it tells why");
    assert_eq!((passed.seq, passed.given), (1, 1));
}

#[tokio::test]
async fn a_shim_that_nobody_tells_the_time_does_not_take_this_hosts_clock_for_it() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let made = broker.create_consumer(&agent("a"), 1, 1, 8).await;
    made.expect("made");
    send(&broker, "a", "m").await;
    let login = (String::new(), String::new());
    let shim = AsShim { agent: agent("a"), incarnation: 1, shards: 1, replicas: 1, login };
    let options = ConnectOptions { shim: Some(Box::new(shim)), ..server.options() };
    // No supervisor is there to answer.
    let shim = Broker::connect(&options).await.expect("connected");
    assert_eq!(shim.now_at_least(), None);
    let mut inbox = shim
        .pull(&agent("a"), consumer(&broker, &agent("a"), 1).await, 8, None)
        .await
        .expect("pulling");
    let stored = delivery(&mut inbox).await.at;
    let told = shim.now_at_least().expect("a record tells what has passed");
    let now = broker.clock().await.expect("it tells");
    assert!(stored <= told && told <= now, "{stored} {told} {now}");
}

/// Where the inbox of a pull is, as somebody with access to the API's subjects sees it.
async fn spied_inbox(server: &Server, broker: &Broker, name: &str) -> (Inbox, String) {
    let client = server.client().await;
    let mut pulls = client.subscribe("$JS.API.CONSUMER.MSG.NEXT.>").await.expect("subscribed");
    client.flush().await.expect("sent");
    // The server has the subscription once it answers what came after it.
    let probe = client.request("nobody.listens", "".into()).await;
    probe.expect_err("nobody listens");
    let inbox = broker
        .pull(&agent(name), consumer(broker, &agent(name), 1).await, 8, None)
        .await
        .expect("pulling");
    let pull = soon(pulls.next()).await.expect("a pull");
    (inbox, pull.reply.expect("an inbox").to_string())
}

#[tokio::test]
async fn what_a_forged_reply_subject_brings_is_refused() {
    let server = Server::start().await;
    let broker = server.broker().await;
    for name in ["a", "b"] {
        let made = broker.create_consumer(&agent(name), 1, 1, 8).await;
        made.expect("made");
    }
    let (mut inbox, address) = spied_inbox(&server, &broker, "a").await;
    let client = server.client().await;

    // The broker's own answer, stored as a request of the agent.
    let forged = "mozart.test.journal.a.user.forged.-.request";
    client.publish_with_reply("mozart.test.dead.x.y.z", forged, "x".into()).await.expect("sent");
    let first = unreadable(&mut inbox).await;
    assert_eq!((first.key.message_id.as_str(), first.conversation.as_str()), ("forged", "-"));
    assert!(first.reason.contains("missing field"), "{}", first.reason);

    // An envelope of another agent, and one of another conversation, stored on this agent's subjects.
    let elsewhere = serde_json::to_vec(&envelope("b", "m9")).expect("JSON");
    let subject = "mozart.test.journal.a.user.m9.-.request";
    client.publish(subject, elsewhere.into()).await.expect("sent");
    let other = serde_json::to_vec(&envelope("a", "m8")).expect("JSON");
    let subject = "mozart.test.journal.a.user.m8.x.request";
    client.publish(subject, other.into()).await.expect("sent");
    for id in ["m9", "m8"] {
        let refused = unreadable(&mut inbox).await;
        assert_eq!(refused.key.message_id.as_str(), id);
        assert!(refused.reason.contains("another subject"), "{}", refused.reason);
    }
    // What has no name at all is settled by itself.
    let subject = "mozart.test.journal.a.NOBODY.m7.-.request";
    client.publish(subject, "x".into()).await.expect("sent");
    let InboxItem::Refused { reason, payload } = soon(inbox.next()).await else {
        panic!("it has no name");
    };
    assert_eq!(payload, "x");
    assert!(reason.contains("not a request"), "{reason}");
    let settled = async {
        loop {
            let state = broker.consumer(&agent("a"), 1).await.expect("an answer");
            if state.expect("it exists").ack_pending == 3 {
                break;
            }
        }
    };
    soon(settled).await;
    // The others wait for their final state, like any message.
    let open = broker.open_requests(&agent("a"), 1, 9).await.expect("a scan");
    assert_eq!(open.total, 3);

    // Another agent's job, pulled into this inbox.
    send(&broker, "b", "m1").await;
    let next = "$JS.API.CONSUMER.MSG.NEXT.MOZART_test_JOURNAL.b-1";
    client.publish_with_reply(next, address.clone(), "1".into()).await.expect("sent");
    let InboxItem::Refused { reason, .. } = soon(inbox.next()).await else {
        panic!("another agent's job");
    };
    assert!(reason.contains("not from this consumer"), "{reason}");
    let state = broker.consumer(&agent("b"), 1).await.expect("an answer");
    assert_eq!(state.expect("it exists").ack_pending, 1);

    // A perfect envelope, sent straight to the inbox with a reply that looks right but for the consumer.
    let perfect = serde_json::to_vec(&envelope("a", "m2")).expect("JSON");
    client.publish_with_reply(address, "some.where", perfect.into()).await.expect("sent");
    let InboxItem::Refused { .. } = soon(inbox.next()).await else {
        panic!("not from the stream");
    };

    // And what is genuine still comes.
    send(&broker, "a", "m3").await;
    assert_eq!(delivery(&mut inbox).await.envelope, envelope("a", "m3"));
}

#[tokio::test]
async fn a_closed_inbox_asks_for_nothing_more() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let a = agent("a");
    broker.create_consumer(&a, 1, 1, 1).await.expect("made");
    let mut inbox =
        broker.pull(&a, consumer(&broker, &a, 1).await, 1, None).await.expect("pulling");
    for n in 0..2 {
        send(&broker, "a", &format!("m{n}")).await;
    }
    let first = delivery(&mut inbox).await;
    inbox.close();
    inbox.release(1);
    broker.ack(&first.reply).await.expect("acked");
    let more = tokio::time::timeout(std::time::Duration::from_millis(200), inbox.next()).await;
    assert!(more.is_err(), "{more:?}");
    let state = broker.consumer(&a, 1).await.expect("an answer");
    assert_eq!(state.expect("it exists").pending, 1);
}
