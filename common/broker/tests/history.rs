//! From the journal to HISTORY: nothing lost, nothing twice, whatever happens in between.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{
    ArchiveOptions, Archived, Archiver, Beginning, Broker, FinalOutcome, ListQuery, SendOutcome,
    Standing,
};
use common::event::{Event, EventBody, sequence};
use common::message::{Envelope, Outcome};
use common::{ConversationId, MessageId};
use futures_util::FutureExt as _;
use uuid::Uuid;

use crate::events::batch;
use crate::support::{
    SOON, Server, agent, completed, drop_namespace, envelope, is_alone, key, message, soon,
};

/// Everything that is finished leaves at once.
pub(crate) const AT_ONCE: ArchiveOptions =
    ArchiveOptions { hot: Duration::ZERO, most: u64::MAX, settled: Duration::ZERO };

pub(crate) async fn send(broker: &Broker, agent: &str, id: &str) -> Envelope {
    let mut envelope = envelope(agent, id);
    envelope.conversation_id = ConversationId::new("c").expect("valid");
    envelope.message = format!("text of {id}");
    let sent = soon(broker.send(&envelope, SOON)).await.expect("an answer");
    assert!(matches!(sent, SendOutcome::Stored { .. }), "{sent:?}");
    envelope
}

pub(crate) async fn finish(broker: &Broker, envelope: &Envelope) {
    let won = completed(&format!("answer to {}", envelope.message_id));
    let (key, tag) = (envelope.key(), envelope.tag());
    soon(broker.publish_final(&key, &tag, &won, "1.1", SOON)).await.expect("an answer");
}

pub(crate) async fn finished(broker: &Broker, agent: &str, ids: &[&str]) {
    for id in ids {
        let envelope = send(broker, agent, id).await;
        finish(broker, &envelope).await;
    }
}

/// Archives until nothing is left to do.
pub(crate) async fn archive(broker: &Broker) -> usize {
    let mut archiver = Archiver::new(broker.clone(), AT_ONCE);
    let mut archived = 0;
    let (mut idle, mut refused) = (0, 0);
    while idle == 0 {
        let round = match soon(archiver.round()).await {
            Ok(round) => round,
            // What another one had on its way came to be: seen from the next round on.
            Err(error) if refused < 3 && error.to_string().contains("wrong last sequence") => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("a round: {error}"),
        };
        archived += round.archived;
        idle = if round.archived + round.removed > 0 || round.more { 0 } else { idle + 1 };
    }
    archived
}

pub(crate) async fn one(broker: &Broker, id: &str) -> Archived {
    let mut found = soon(broker.archived(&message(id))).await.expect("an answer");
    assert_eq!(found.len(), 1, "{id}: {found:?}");
    found.remove(0)
}

/// How many records a stream has, and the sequence of its first.
pub(crate) async fn records(server: &Server, stream: &str) -> (u64, u64) {
    let client = server.client().await;
    let info = format!("$JS.API.STREAM.INFO.MOZART_test_{stream}");
    let info = client.request(info, "".into()).await.expect("an answer");
    let info: serde_json::Value = serde_json::from_slice(&info.payload).expect("JSON");
    let number = |name: &str| info["state"][name].as_u64().expect("a number");
    (number("messages"), number("first_seq"))
}

#[tokio::test]
async fn what_is_finished_leaves_the_journal_and_is_found_by_its_id() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    finished(&broker, "a", &["m1", "m2"]).await;
    let open = send(&broker, "a", "open").await;
    finished(&broker, "b", &["m3"]).await;
    assert_eq!(archive(&broker).await, 3);

    // The open one is all that is left, though what came after it is gone.
    assert_eq!(records(&server, "JOURNAL").await.0, 1);
    let scan = broker.open_requests(&agent("a"), 1, 10).await.expect("a scan");
    assert_eq!(scan.open.iter().map(|(_, key, _)| key.clone()).collect::<Vec<_>>(), [open.key()]);

    server.kill_and_revive().await;
    let archived = one(&broker, "m2").await;
    let request = archived.request.expect("it has one");
    assert_eq!((request.value.message.as_str(), request.seq), ("text of m2", 3));
    assert_eq!(archived.final_.value.response.as_deref(), Some("answer to m2"));
    assert_eq!((archived.final_.seq, archived.key), (4, key("a", "m2")));
    assert_eq!(one(&broker, "m3").await.key.agent, agent("b"));
    assert_eq!(broker.archived(&message("open")).await.expect("an answer"), []);

    // When it is finished, it follows.
    finish(&broker, &open).await;
    assert_eq!(archive(&broker).await, 1);
    assert_eq!(records(&server, "JOURNAL").await.0, 0);
    assert_eq!(one(&broker, "open").await.final_.value.status, Outcome::Completed);
}

#[tokio::test]
async fn what_is_younger_than_the_hot_time_stays_unless_there_is_too_much() {
    let server = Server::start().await;
    let broker = server.broker_of(2).await;
    finished(&broker, "a", &["m1", "m2", "m3", "m4", "m5", "m6"]).await;
    let hot = Duration::from_secs(3600);
    let mut archiver = Archiver::new(broker.clone(), ArchiveOptions { hot, ..AT_ONCE });
    for _ in 0..4 {
        let round = soon(archiver.round()).await.expect("a round");
        assert_eq!((round.archived, round.removed, round.more), (0, 0, false));
    }
    // Nothing of the last minute goes, however much it is.
    let mut archiver = Archiver::new(
        broker.clone(),
        ArchiveOptions { hot, most: 0, settled: Duration::from_secs(60) },
    );
    for _ in 0..4 {
        assert_eq!(soon(archiver.round()).await.expect("a round").archived, 0);
    }
    // Nobody reads it any more: the oldest go until two for each of the streams are left.
    let mut archiver = Archiver::new(broker.clone(), ArchiveOptions { hot, most: 4, ..AT_ONCE });
    let mut archived = 0;
    for _ in 0..4 {
        archived += soon(archiver.round()).await.expect("a round").archived;
    }
    assert_eq!(archived, 4);
}

#[tokio::test]
async fn an_archiver_that_is_stopped_anywhere_loses_nothing_and_copies_nothing_twice() {
    let server = Server::start().await;
    let mut finished_in = None;
    for steps in 1..400 {
        let broker = server.broker_in(&format!("n{steps}"), 1).await;
        // Answered in another order than asked.
        let (first, second) = (send(&broker, "a", "m1").await, send(&broker, "a", "m2").await);
        finish(&broker, &second).await;
        finish(&broker, &first).await;
        let open = send(&broker, "a", "open").await;
        finished(&broker, "a", &["m3"]).await;

        let mut stopped = Archiver::new(broker.clone(), AT_ONCE);
        let done = stop_after(steps, stopped.round()).await;
        drop(stopped);
        let ids = ["m1", "m2", "m3"];
        // At any time: in the journal or in HISTORY, or in both.
        for id in ids {
            let hot = broker.final_of(&key("a", id)).await.expect("an answer");
            let cold = broker.archived_of(&key("a", id)).await.expect("an answer");
            assert!(hot.is_some() || cold.is_some(), "{id} is gone after {steps} steps");
        }
        archive(&broker).await;
        for id in ids {
            one(&broker, id).await;
        }
        let scan = broker.open_requests(&agent("a"), 1, 10).await.expect("a scan");
        assert_eq!((scan.total, &scan.open[0].1), (1, &open.key()), "after {steps} steps");
        assert_eq!(broker.count_requests(&agent("a")).await.expect("a count"), 1);
        drop_namespace(&broker).await;
        if done {
            finished_in = Some(steps);
            break;
        }
    }
    let steps = finished_in.expect("a round has an end");
    assert!(steps > 10, "stopped at {steps} places only");
}

/// Runs a future until it has waited so many times; whether it came to its end.
pub(crate) async fn stop_after<T>(steps: usize, future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    for _ in 0..steps {
        if (&mut future).now_or_never().is_some() {
            return true;
        }
        // An answer may be on its way: whatever comes within this time is a step of its own.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

#[tokio::test]
async fn two_archivers_at_once_copy_nothing_twice() {
    let server = Server::start().await;
    let broker = server.broker_of(2).await;
    let ids: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        finished(&broker, if n % 3 == 0 { "a" } else { "b" }, &[id]).await;
    }
    let other = server.broker_of(2).await;
    let mut archivers = [Archiver::new(broker.clone(), AT_ONCE), Archiver::new(other, AT_ONCE)];
    let [first, second] = &mut archivers;
    for _ in 0..10 {
        // One may be refused: that is what keeps them apart.
        let rounds = soon(async { tokio::join!(first.round(), second.round()) }).await;
        assert!(rounds.0.is_ok() || rounds.1.is_ok(), "{rounds:?}");
    }
    archive(&broker).await;
    for id in &ids {
        one(&broker, id).await;
    }
    assert_eq!(records(&server, "HISTORY").await.0, 40);
}

#[tokio::test]
async fn what_a_power_cut_brings_back_is_not_archived_twice() {
    if !is_alone() {
        return;
    }
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let held = send(&broker, "a", "held").await;
    finished(&broker, "a", &["m1", "m2"]).await;
    // The journal's files as they are before the removals, which a power cut may undo.
    server.kill().await;
    let before = server.copy_of_stream("MOZART_test_JOURNAL");
    server.revive().await;
    assert_eq!(archive(&broker).await, 2);
    assert_eq!(records(&server, "JOURNAL").await.0, 1);
    server.kill().await;
    server.restore_stream("MOZART_test_JOURNAL", &before);
    server.revive().await;
    assert_eq!(records(&server, "JOURNAL").await.0, 5);

    finished(&broker, "a", &["m3"]).await;
    assert_eq!(archive(&broker).await, 1);
    assert_eq!(records(&server, "HISTORY").await.0, 3);
    assert_eq!(records(&server, "JOURNAL").await.0, 1);
    assert_eq!(broker.request_of(&held.key()).await.expect("an answer").expect("open").seq, 1);
}

#[tokio::test]
async fn a_journal_that_was_made_anew_begins_anew() {
    let server = Server::start().await;
    let broker = server.broker().await;
    finished(&broker, "a", &["m1", "m2", "m3"]).await;
    archive(&broker).await;
    let client = server.client().await;
    let delete = "$JS.API.STREAM.DELETE.MOZART_test_JOURNAL";
    client.request(delete, "".into()).await.expect("an answer");
    let broker = server.broker().await;
    // Its sequences are those of the three.
    finished(&broker, "a", &["m4"]).await;
    assert_eq!(archive(&broker).await, 1);
    for id in ["m1", "m2", "m3", "m4"] {
        one(&broker, id).await;
    }
}

#[tokio::test]
async fn a_request_that_nobody_can_read_is_archived_with_its_refusal() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let client = server.client().await;
    let subject = "mozart.test.journal.a.user.bad.-.request";
    client.request(subject, "{garbage \u{1f980}".into()).await.expect("an answer");
    let mut refused = completed("");
    refused.status = Outcome::Failed;
    let named = envelope("a", "bad");
    broker
        .publish_final(&key("a", "bad"), &named.tag(), &refused, "1", SOON)
        .await
        .expect("an answer");
    // And a final state of nothing.
    let nothing = envelope("a", "nothing");
    broker
        .publish_final(&key("a", "nothing"), &nothing.tag(), &refused, "1", SOON)
        .await
        .expect("an answer");

    assert_eq!(archive(&broker).await, 2);
    assert_eq!(records(&server, "JOURNAL").await.0, 0);
    let bad = one(&broker, "bad").await;
    let unreadable = bad.unreadable.expect("its bytes");
    assert_eq!((unreadable.value.as_str(), unreadable.seq), ("{garbage \u{1f980}", 1));
    assert_eq!(bad.request, None);
    assert_eq!(bad.final_.value.status, Outcome::Failed);
    assert_eq!(one(&broker, "nothing").await.request, None);
}

#[tokio::test]
async fn what_failed_has_its_dead_letter_before_it_leaves_the_journal() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let mut failed = completed("");
    failed.status = Outcome::Failed;
    for id in ["lacks", "has"] {
        let request = send(&broker, "a", id).await;
        let stored = broker.publish_final(&request.key(), &request.tag(), &failed, "1", SOON).await;
        stored.expect("stored");
    }
    // The shim of the other one died before it came to that.
    let log = vec!["its last words".to_owned()];
    assert!(broker.bury_failed(&key("a", "has"), &failed, log.clone()).await.expect("stored"));

    assert_eq!(archive(&broker).await, 2);
    let letter = async |id| broker.dead_letter(&key("a", id)).await.expect("an answer");
    let (lacked, had) =
        (letter("lacks").await.expect("there"), letter("has").await.expect("there"));
    assert_eq!(
        (lacked.value.envelope.message.as_str(), lacked.value.log.len()),
        ("text of lacks", 0)
    );
    assert_eq!(had.value.log, log);
}

#[tokio::test]
async fn a_message_that_fits_no_record_with_its_answer_has_two() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let size = broker.max_record() - 1000;
    let mut large = envelope("a", "large");
    large.message = "x".repeat(size);
    soon(broker.send(&large, SOON)).await.expect("stored");
    let answer = completed(&"y".repeat(size));
    broker.publish_final(&large.key(), &large.tag(), &answer, "1", SOON).await.expect("stored");
    finished(&broker, "a", &["small"]).await;

    assert_eq!(archive(&broker).await, 2);
    assert_eq!(records(&server, "HISTORY").await.0, 3);
    let archived = one(&broker, "large").await;
    assert_eq!(archived.request.expect("it has one").value, large);
    assert_eq!(archived.final_.value.response, answer.response);
    assert_eq!(one(&broker, "small").await.final_.seq, 4);
}

#[tokio::test]
async fn how_attempts_ended_is_kept_and_the_streamed_text_is_not() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let request = send(&broker, "a", "m1").await;
    let at = common::Timestamp::from_millis(5);
    let error = EventBody::Error { error: "exit code 1".into() };
    let mut events = batch(1, 2, vec![error]);
    events.conversation_id = request.conversation_id.clone();
    broker.publish_events(&events).await.expect("stored");
    let mut answer = completed("the answer");
    answer.attempts = 2;
    let text = EventBody::Text { text: "the answer".into() };
    answer.tail = vec![Event { seq: sequence(2, 2), at, body: text }];
    broker.publish_final(&request.key(), &request.tag(), &answer, "2", SOON).await.expect("stored");

    assert_eq!(archive(&broker).await, 1);
    let archived = one(&broker, "m1").await;
    let ends = archived.attempts.iter().map(|end| (end.attempt, end.error.as_str()));
    assert_eq!(ends.collect::<Vec<_>>(), [(1, "exit code 1")]);
    assert_eq!(archived.final_.value.tail, []);
}

#[tokio::test]
async fn ids_are_found_by_how_they_begin() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let ids: BTreeSet<MessageId> = (0..3).map(|_| MessageId::from(Uuid::now_v7())).collect();
    for id in &ids {
        finished(&broker, "a", &[id.as_str()]).await;
    }
    archive(&broker).await;
    let found = async |beginning: &str| broker.archived_ids(beginning).await.expect("an answer");
    for id in &ids {
        let found = found(id.as_str()).await;
        assert_eq!(found, Beginning::Found(BTreeSet::from([id.clone()])));
    }
    let first = ids.first().expect("three");
    // Within the same minute: two of them tell that it is not one.
    let Beginning::Found(several) = found(&first.as_str()[..8]).await else { panic!("unclear") };
    assert!(several.len() == 2 && several.is_subset(&ids), "{several:?}");
    assert_eq!(found("ffffffff").await, Beginning::Found(BTreeSet::new()));
    assert_eq!(found("01").await, Beginning::Unclear);
    assert_eq!(found("order-1").await, Beginning::Unclear);
}

#[tokio::test]
async fn a_lost_index_is_made_anew_from_history() {
    let server = Server::start().await;
    let broker = server.broker().await;
    finished(&broker, "a", &["m1", "m2"]).await;
    archive(&broker).await;
    let client = server.client().await;
    let purge = "$JS.API.STREAM.PURGE.MOZART_test_INDEX";
    client.request(purge, "".into()).await.expect("an answer");
    assert_eq!(broker.archived(&message("m1")).await.expect("an answer"), []);
    finished(&broker, "a", &["m3"]).await;
    assert_eq!(archive(&broker).await, 1);
    for id in ["m1", "m2", "m3"] {
        one(&broker, id).await;
    }
    if is_alone() {
        assert_eq!(records(&server, "HISTORY").await, (3, 1));
    }
}

/// Ids of a list, page by page.
async fn listed(broker: &Broker, query: &ListQuery, page: usize) -> Vec<String> {
    let (mut ids, mut query) = (Vec::new(), query.clone());
    loop {
        let mut listing = broker.list(&query).await.expect("a list");
        let mut count = 0;
        while count < page {
            let Some(listed) = listing.next().await.expect("a message") else { return ids };
            assert_eq!(listed.final_.is_none(), listed.request.value.message.contains("open"));
            ids.push(listed.request.value.message_id.to_string());
            count += 1;
        }
        // As text, as people pass it on.
        query.after = Some(listing.place().to_string().parse().expect("a place"));
    }
}

#[tokio::test]
async fn a_list_begins_with_the_newest_and_goes_on_where_it_ended() {
    let server = Server::start().await;
    for shards in [1, 3] {
        let broker = server.broker_in(&format!("n{shards}"), shards).await;
        let mut expected = Vec::new();
        for round in 0..3 {
            for n in 0..12 {
                let agent = ["a", "b", "c"][n % 3];
                let open = if round == 1 && n == 5 { "open-" } else { "" };
                let id = format!("{open}{agent}{round}-{n}");
                let sent = send(&broker, agent, &id).await;
                if open.is_empty() {
                    finish(&broker, &sent).await;
                }
                expected.push(id);
                // The broker's times are in milliseconds, and decide the order over shards.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            if round < 2 {
                archive(&broker).await;
            }
        }
        expected.reverse();
        let only = |is_it: &dyn Fn(&str) -> bool| -> Vec<String> {
            expected.iter().filter(|id| is_it(id)).cloned().collect()
        };
        let all = ListQuery { about: 5, ..ListQuery::default() };
        for page in [1, 7, 1000] {
            assert_eq!(listed(&broker, &all, page).await, expected, "{shards} {page}");
        }
        let of_b = ListQuery { agent: Some(agent("b")), ..all.clone() };
        let b = only(&|id| id.trim_start_matches("open-").starts_with('b'));
        assert_eq!(listed(&broker, &of_b, 5).await, b);
        let tag = |conversation| Some(envelope_in("b", "x", conversation).tag());
        let talk = ListQuery { conversation: tag("c"), ..of_b.clone() };
        assert_eq!(listed(&broker, &talk, 5).await, b);
        let other = ListQuery { conversation: tag("d"), ..of_b };
        assert_eq!(listed(&broker, &other, 5).await, [""; 0]);
        let hot = ListQuery { hot: true, ..all };
        let in_journal = only(&|id| id[1..].starts_with('2') || id.starts_with("open"));
        assert_eq!(listed(&broker, &hot, 4).await, in_journal);
    }
}

fn envelope_in(agent: &str, id: &str, conversation: &str) -> Envelope {
    let conversation_id = ConversationId::new(conversation).expect("valid");
    Envelope { conversation_id, ..envelope(agent, id) }
}

#[tokio::test]
async fn what_has_left_the_journal_gets_no_second_final_state() {
    let server = Server::start().await;
    let broker = server.broker_of(2).await;
    let message = send(&broker, "a", "m1").await;
    let seq = broker.request_of(&message.key()).await.expect("an answer").expect("stored").seq;
    let (key, tag, late) = (message.key(), message.tag(), completed("late"));
    let settle = async |seq: u64, author: &str| {
        let settled = broker.settle(&key, &tag, seq, &late, author, SOON).await;
        settled.expect("an answer")
    };
    let first = completed("first");
    let won = broker.settle(&key, &tag, seq, &first, "1.1", SOON).await.expect("an answer");
    assert_eq!(won, FinalOutcome::Won);
    // Its own try once more, and another's.
    let again = broker.settle(&key, &tag, seq, &first, "1.1", SOON).await.expect("an answer");
    assert_eq!(again, FinalOutcome::Won);
    assert_eq!(settle(seq, "2.1").await, FinalOutcome::Lost(Box::new(first.clone())));
    archive(&broker).await;
    assert!(
        matches!(settle(seq, "2.1").await, FinalOutcome::Lost(there) if there.same_end(&first))
    );
    assert_eq!(broker.final_of(&key).await.expect("an answer"), None);
    broker.drop_history(None, Duration::ZERO).await.expect("an answer");
    assert_eq!(settle(seq, "2.1").await, FinalOutcome::Gone);
    assert_eq!(broker.standing_of(&key).await.expect("an answer"), Standing::Gone);
    assert_eq!(broker.final_of(&key).await.expect("an answer"), None);
}

#[tokio::test]
async fn an_archiver_that_lives_on_notices_that_the_journal_was_made_anew() {
    let server = Server::start().await;
    let broker = server.broker().await;
    finished(&broker, "a", &["m1", "m2", "m3"]).await;
    let mut archiver = Archiver::new(broker.clone(), AT_ONCE);
    assert_eq!(soon(archiver.round()).await.expect("a round").archived, 3);
    let client = server.client().await;
    let delete = "$JS.API.STREAM.DELETE.MOZART_test_JOURNAL";
    client.request(delete, "".into()).await.expect("an answer");
    let broker = server.broker().await;
    let open = send(&broker, "a", "open").await;
    finished(&broker, "a", &["m4", "m5", "m6"]).await;
    soon(archiver.round()).await.expect_err("it is another stream");
    assert_eq!(soon(archiver.round()).await.expect("a round").archived, 3);
    assert_eq!(broker.request_of(&open.key()).await.expect("an answer").expect("open").seq, 1);
    for id in ["m1", "m4", "m6"] {
        one(&broker, id).await;
    }
}

#[tokio::test]
async fn a_round_says_whether_there_is_more() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let ids: Vec<String> = (0..410).map(|n| format!("m{n}")).collect();
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    finished(&broker, "a", &all).await;
    let mut archiver = Archiver::new(broker.clone(), AT_ONCE);
    let round = soon(archiver.round()).await.expect("a round");
    assert_eq!((round.archived, round.more), (400, true));
    let round = soon(archiver.round()).await.expect("a round");
    assert_eq!((round.archived, round.more), (10, false));
}
