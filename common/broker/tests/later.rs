//! Messages that are delivered later: what a record decides holds, whoever tries at once, and wherever whoever gives one dies.

use std::time::Duration;

use broker::{Broker, FinalOutcome, Giving, LaterEnd, LaterItem, ListQuery, SendOutcome, Standing};
use common::message::{Envelope, Final, Outcome};
use common::subject::LaterKind;
use common::{ConversationId, Timestamp};
use futures_util::future::join_all;

use crate::support::{Server, completed, envelope, soon};

const WITHIN: Duration = Duration::from_secs(5);

/// A message of a conversation that is due at a time.
fn later(id: &str, due: Timestamp) -> Envelope {
    let conversation_id = ConversationId::new("c").expect("valid");
    Envelope { conversation_id, deliver_at: Some(due), ..envelope("a", id) }
}

async fn stored(broker: &Broker, envelope: &Envelope) -> u64 {
    let outcome = broker.send_later(envelope, WITHIN).await.expect("an answer");
    let SendOutcome::Stored { seq } = outcome else { panic!("{outcome:?}") };
    seq
}

async fn give(broker: &Broker, envelope: &Envelope, seq: u64, now: Timestamp) -> Giving {
    let key = envelope.key();
    broker.give_later((&key, &envelope.tag()), seq, now).await.expect("an answer")
}

async fn cancel(broker: &Broker, envelope: &Envelope, seq: u64, author: &str) -> LaterEnd {
    let final_ = Final { status: Outcome::Cancelled, ..completed("") };
    let key = envelope.key();
    let ended = broker.end_later((&key, &envelope.tag()), seq, &final_, author, WITHIN).await;
    ended.expect("an answer")
}

async fn listed(broker: &Broker) -> Vec<(String, bool)> {
    let query = ListQuery { about: 10, ..ListQuery::default() };
    let mut list = broker.list(&query).await.expect("a list");
    let mut found = Vec::new();
    while let Some(one) = list.next().await.expect("an answer") {
        found.push((one.request.value.message_id.to_string(), one.final_.is_some()));
    }
    found
}

async fn requests(broker: &Broker, server: &Server) -> usize {
    let stream = broker.subjects().journal_stream(0);
    let jetstream = async_nats::jetstream::new(server.client().await);
    let info = jetstream.get_stream(stream).await.expect("it is there").info().await.cloned();
    usize::try_from(info.expect("an answer").state.messages).expect("few")
}

#[tokio::test]
async fn a_message_waits_is_found_and_is_given_to_the_journal_once() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let now = broker.clock().await.expect("its time");
    let due = now.after(Duration::from_secs(60));
    let message = later("m1", due);
    let key = message.key();
    let seq = stored(&broker, &message).await;
    // The same again, and another one of its name.
    let again = broker.send_later(&message, WITHIN).await.expect("an answer");
    assert_eq!(again, SendOutcome::Already { seq });
    let other = Envelope { message: "other".into(), ..message.clone() };
    for conflict in [
        broker.send_later(&other, WITHIN).await.expect("an answer"),
        broker.send_again(&other, WITHIN).await.expect("an answer"),
    ] {
        assert!(matches!(conflict, SendOutcome::Conflict { .. }), "{conflict:?}");
    }
    assert_eq!(broker.standing_of(&key).await.expect("an answer"), Standing::Open);
    assert_eq!(broker.find(&key.message_id).await.expect("an answer").len(), 1);
    assert_eq!(broker.message_of(&key).await.expect("an answer").expect("it").value, message);
    assert_eq!(listed(&broker).await, [("m1".to_owned(), false)]);

    assert_eq!(give(&broker, &message, seq, now).await, Giving::NotYet(due));
    // Several leaders at once.
    let all = join_all((0..8).map(|_| give(&broker, &message, seq, due))).await;
    assert!(all.iter().all(|one| matches!(one, Giving::Done | Giving::Gone)), "{all:?}");
    assert!(all.contains(&Giving::Done), "{all:?}");
    assert_eq!(requests(&broker, &server).await, 1);
    assert_eq!(broker.end_of_later().await.expect("an answer"), 0, "nothing is left");
    assert_eq!(broker.request_of(&key).await.expect("an answer").expect("it").value, message);
    assert_eq!(listed(&broker).await, [("m1".to_owned(), false)]);
    // One who stood still meanwhile.
    assert_eq!(give(&broker, &message, seq, due).await, Giving::Gone);
    assert_eq!(requests(&broker, &server).await, 1);
}

#[tokio::test]
async fn whoever_dies_between_two_writes_the_next_one_goes_on() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let now = broker.clock().await.expect("its time");
    let publish = async |subject: String, payload: Vec<u8>| {
        let jetstream = async_nats::jetstream::new(server.client().await);
        let ack = jetstream.publish(subject, payload.into()).await.expect("sent");
        ack.await.expect("stored").sequence
    };
    // Decided, and nothing else.
    let one = later("m1", now);
    let seq = stored(&broker, &one).await;
    let decided = broker.subjects().later(&one.key(), &one.tag(), LaterKind::Given);
    let _given = publish(decided, b"{}".to_vec()).await;
    assert_eq!(cancel(&broker, &one, seq, "x").await, LaterEnd::Given, "it is too late");
    assert_eq!(broker.standing_of(&one.key()).await.expect("an answer"), Standing::Open);
    assert_eq!(give(&broker, &one, seq, now).await, Giving::Done);
    assert_eq!(requests(&broker, &server).await, 1);
    // In the journal, and not removed; and by then it has ended.
    let two = later("m2", now);
    let seq = stored(&broker, &two).await;
    let decided = broker.subjects().later(&two.key(), &two.tag(), LaterKind::Given);
    let _given = publish(decided, b"{}".to_vec()).await;
    let sent = broker.send(&two, WITHIN).await.expect("an answer");
    assert!(matches!(sent, SendOutcome::Stored { .. }), "{sent:?}");
    let ended = broker
        .publish_final(&two.key(), &two.tag(), &completed("ok"), "1.1", WITHIN)
        .await
        .expect("an answer");
    assert_eq!(ended, FinalOutcome::Won);
    let standing = broker.standing_of(&two.key()).await.expect("an answer");
    assert!(matches!(standing, Standing::Final(_)), "{standing:?}");
    assert_eq!(give(&broker, &two, seq, now).await, Giving::Done);
    assert_eq!(requests(&broker, &server).await, 3, "two requests and a final state");
    // Its request removed, and the decision not.
    let three = later("m3", now);
    let decided = broker.subjects().later(&three.key(), &three.tag(), LaterKind::Given);
    let _given = publish(decided, b"{}".to_vec()).await;
    assert_eq!(give(&broker, &three, 1, now).await, Giving::Done);
    assert_eq!(broker.end_of_later().await.expect("an answer"), 0, "nothing is left");
    assert_eq!(requests(&broker, &server).await, 3);
    // Another message has its name by then.
    let four = later("m4", now);
    let seq = stored(&broker, &four).await;
    let other = Envelope { message: "other".into(), ..four.clone() };
    let _sent = broker.send(&other, WITHIN).await.expect("an answer");
    assert_eq!(give(&broker, &four, seq, now).await, Giving::Other);
    assert_eq!(broker.message_of(&four.key()).await.expect("an answer").expect("it").value, other);
}

#[tokio::test]
async fn of_cancelling_and_giving_one_happens() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let now = broker.clock().await.expect("its time");
    let mut done = broker.subscribe(broker.subjects().done_all(), None).await.expect("subscribed");
    for n in 0..20 {
        let message = later(&format!("m{n}"), now);
        let seq = stored(&broker, &message).await;
        let (given, ended) =
            tokio::join!(give(&broker, &message, seq, now), cancel(&broker, &message, seq, "x"));
        let in_journal = broker.request_of(&message.key()).await.expect("an answer").is_some();
        match (&given, &ended) {
            (Giving::Done, LaterEnd::Given | LaterEnd::Gone) => assert!(in_journal, "m{n}"),
            (Giving::Ended | Giving::Gone, LaterEnd::Won) => assert!(!in_journal, "m{n}"),
            both => panic!("{both:?}"),
        }
    }
    // Whoever waits hears of it as of any final state.
    let message = later("last", now);
    let seq = stored(&broker, &message).await;
    assert_eq!(cancel(&broker, &message, seq, "one").await, LaterEnd::Won);
    assert_eq!(cancel(&broker, &message, seq, "one").await, LaterEnd::Won, "repeated");
    let other = cancel(&broker, &message, seq, "two").await;
    assert!(matches!(other, LaterEnd::Lost(_)), "{other:?}");
    assert_eq!(give(&broker, &message, seq, now).await, Giving::Ended);
    soon(async {
        loop {
            let told = done.next().await.expect("it goes on");
            let named = broker.subjects().parse_done(&told.subject).expect("a final state's");
            if named.key == message.key() {
                break;
            }
        }
    })
    .await;
    let standing = broker.standing_of(&message.key()).await.expect("an answer");
    assert!(matches!(standing, Standing::Final(_)), "{standing:?}");
    assert!(listed(&broker).await.contains(&("last".to_owned(), true)));
}

#[tokio::test]
async fn a_follower_reads_what_waits_without_the_bodies() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let due = broker.clock().await.expect("its time").after(WITHIN);
    let message = later("m1", due);
    let seq = stored(&broker, &message).await;
    let mut follower = broker.follow_later().await.expect("it begins");
    let first = soon(follower.next()).await.expect("an item");
    let LaterItem::Request { seq: at_seq, key, deliver_at, conversation, .. } = first else {
        panic!("{first:?}")
    };
    assert_eq!((at_seq, &key, deliver_at), (seq, &message.key(), due));
    assert_eq!(conversation, message.tag());
    assert_eq!(soon(follower.next()).await.expect("an item"), LaterItem::CaughtUp);
    assert_eq!(give(&broker, &message, seq, due).await, Giving::Done);
    let second = soon(follower.next()).await.expect("an item");
    assert_eq!(second, LaterItem::Given { seq: seq + 1, key });
}
