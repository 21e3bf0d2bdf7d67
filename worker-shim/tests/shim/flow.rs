//! Answers flow; what is not ours is refused; what is too long is cut.

use common::event::EventBody;
use common::message::Outcome;

use crate::support::{INCARNATION, Server, Shim, agent, envelope, key, until};

#[tokio::test]
async fn answers_flow_in_the_order_of_each_conversation_and_every_delivery_is_acked() {
    let server = Server::start().await;
    let shim = Shim::start(&server).await;
    for n in 0..20 {
        shim.send(&format!("m{n}"), &format!("c{}", n % 3), "greet").await;
    }
    for n in 0..20 {
        let final_ = shim.answer(&format!("m{n}")).await;
        assert_eq!((final_.status, final_.attempts), (Outcome::Completed, 1));
        assert_eq!(final_.response.as_deref(), Some("did greet"));
        let stored = shim.broker.events(&key(&format!("m{n}"))).await.expect("an answer");
        let seqs: Vec<u64> = stored
            .iter()
            .flat_map(|batch| &batch.events)
            .chain(&final_.tail)
            .map(|event| event.seq)
            .collect();
        assert_eq!(seqs, [1, 2], "each event once, stored or in the final state");
    }
    assert_eq!(shim.witness().len(), 20);
    for conversation in 0..3 {
        let of = |name: &String| name[1..].parse::<u32>().is_ok_and(|n| n % 3 == conversation);
        let numbers = shim.witness().into_iter().filter(of).map(|name| name[1..].parse::<u32>());
        assert!(numbers.map(|n| n.expect("a number")).is_sorted());
    }
    until(async || {
        let consumer = shim.broker.consumer(&agent(), INCARNATION).await.expect("an answer");
        consumer.filter(|consumer| consumer.ack_pending == 0)
    })
    .await;
}

#[tokio::test]
async fn forged_deliveries_are_refused_and_counted() {
    let server = Server::start().await;
    let mut shim = Shim::start_at(&server, server.port, |_| {}).await;
    // Who may see the pulls knows where their answers go.
    let pulls = format!("$JS.API.CONSUMER.MSG.NEXT.MOZART_test_JOURNAL.me-{INCARNATION}");
    let mut pulls = shim.broker.subscribe(pulls, None).await.expect("a subscription");
    shim.admit().await;
    let pull = crate::support::soon(pulls.next()).await.expect("a pull");
    let forged = serde_json::to_vec(&envelope("forged", "c", "greet")).expect("JSON");
    let to = pull.reply.expect("where answers go");
    shim.broker.tell(to, forged.clone().into()).await.expect("told");
    // Who may write to the journal can store an envelope on a subject that is not its own.
    let stolen = envelope("stolen", "c", "greet");
    let other = shim.broker.subjects().request(&stolen.key(), &stolen.tag());
    shim.broker.tell(other, forged.into()).await.expect("told");
    shim.send("m", "c", "greet").await;
    shim.answer("m").await;
    assert_eq!(shim.witness(), ["m"]);
    let heartbeat = shim.heartbeat_after(1).await;
    assert_eq!(heartbeat.refused, 2);
    // The journal has accepted it: so it ends, with the reason.
    let refused = until(async || {
        shim.broker.final_of(&stolen.key()).await.expect("an answer").map(|stored| stored.value)
    })
    .await;
    assert_eq!(refused.status, Outcome::Failed);
    let reason = refused.reason.unwrap_or_default();
    assert!(reason.contains("cannot be read"), "{reason}");
}

#[tokio::test]
async fn a_flood_of_forged_deliveries_is_a_line_in_the_log() {
    let server = Server::start().await;
    let mut shim = Shim::start_at(&server, server.port, |_| {}).await;
    let pulls = format!("$JS.API.CONSUMER.MSG.NEXT.MOZART_test_JOURNAL.me-{INCARNATION}");
    let mut pulls = shim.broker.subscribe(pulls, None).await.expect("a subscription");
    shim.admit().await;
    let to = crate::support::soon(pulls.next()).await.expect("a pull").reply;
    let to = to.expect("where answers go");
    for _ in 0..300 {
        shim.broker.tell(to.clone(), "forged".into()).await.expect("told");
    }
    let notes = async || {
        let lines = shim.broker.logs(&agent(), None, 1000).await.expect("an answer");
        let notes = lines.into_iter().filter(|line| line.stream == "shim");
        notes.map(|line| line.text).filter(|text| text.contains("refused")).collect::<Vec<_>>()
    };
    let told = until(async || Some(notes().await).filter(|notes| notes.len() > 1)).await;
    let expected = [
        "refused 6 bytes that are not a Mozart message: not from this consumer",
        "refused 299 more messages that are not Mozart's",
    ];
    assert_eq!(told, expected);
    assert_eq!(shim.heartbeat().await.refused, 300);
}

#[tokio::test]
async fn a_line_of_a_hundred_megabytes_is_cut_and_costs_no_memory() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    shim.send("m", "c", "flood 100").await;
    assert_eq!(shim.answer("m").await.response.as_deref(), Some("did flood"));
    let kib = shim.peak_kib();
    assert!(kib < 32 * 1024, "{kib} KiB");
    let log = until(async || {
        let lines = shim.broker.logs(&agent(), None, 10).await.expect("an answer");
        lines.into_iter().find(|line| line.stream == "shim")
    })
    .await;
    assert!(log.text.starts_with("a line longer than 8 MiB was cut"), "{log:?}");
    assert_eq!(shim.heartbeat().await.refused, 0);
}

#[tokio::test]
async fn a_silent_turn_is_on_record_before_its_answer() {
    let server = Server::start().await;
    let shim = Shim::start(&server).await;
    shim.send("m", "c", "slow 0.5").await;
    let first = until(async || {
        let batches = shim.broker.events(&key("m")).await.expect("an answer");
        batches.into_iter().next()
    })
    .await;
    assert_eq!((first.attempt, first.incarnation), (1, INCARNATION));
    assert_eq!(first.events[0].body, EventBody::Delivered { incarnation: INCARNATION });
    assert_eq!(shim.final_of("m").await, None);
    shim.answer("m").await;
}

#[tokio::test]
async fn a_deadline_is_what_lies_between_its_senders_own_times() {
    let server = Server::start().await;
    let shim = Shim::start(&server).await;
    let now = common::Timestamp::from(std::time::SystemTime::now()).as_millis();
    let second = 1000;
    for (message, made_at, within) in [
        ("ahead", now + 3600 * second, 30 * second),
        ("behind", now - 3600 * second, 30 * second),
        ("late", now + 3600 * second, 0),
    ] {
        let mut envelope = envelope(message, message, "greet");
        envelope.created_at = common::Timestamp::from_millis(made_at);
        envelope.deadline = Some(common::Timestamp::from_millis(made_at + within));
        shim.broker.send(&envelope, std::time::Duration::from_secs(10)).await.expect("stored");
    }
    for (message, status) in
        [("ahead", Outcome::Completed), ("behind", Outcome::Completed), ("late", Outcome::Expired)]
    {
        assert_eq!(shim.answer(message).await.status, status, "{message}");
    }
}

#[tokio::test]
async fn a_long_conversation_holds_up_no_other_and_no_concurrency_is_too_high() {
    const MANY: usize = 200;
    let server = Server::start().await;
    let mut shim = Shim::start_at(&server, server.port, |spec| {
        spec.concurrency = 100;
    })
    .await;
    for n in 0..MANY {
        shim.send(&format!("m{n}"), "long", "hang").await;
    }
    for n in 0..MANY {
        shim.send(&format!("n{n}"), &format!("c{n}"), "hang").await;
    }
    shim.admit().await;
    until(async || (shim.witness().len() == 100).then_some(())).await;
    // Before the look-ups of all that was there, no order holds between conversations.
    let given: std::collections::BTreeSet<_> = shim.witness().into_iter().collect();
    assert_eq!(given.len(), 100);
    let of_the_long: Vec<_> = given.iter().filter(|message| message.starts_with('m')).collect();
    assert_eq!(of_the_long, ["m0"]);
    assert_eq!(shim.heartbeat().await.open, 100);
}

#[tokio::test]
async fn questions_with_ids_of_a_megabyte_are_refused_in_few_words() {
    let server = Server::start().await;
    let shim = Shim::start(&server).await;
    shim.send("m", "c", "ask 100 1000000").await;
    assert_eq!(shim.answer("m").await.response.as_deref(), Some("did ask"));
    let kib = shim.peak_kib();
    assert!(kib < 32 * 1024, "{kib} KiB");
    until(async || {
        let lines = shim.broker.logs(&agent(), None, 10).await.expect("an answer");
        lines.into_iter().find(|line| line.text.contains("a requestId of 1000000 bytes"))
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_asks_and_never_reads_is_slowed_down_and_ended() {
    let server = Server::start().await;
    let mut shim = Shim::start_at(&server, server.port, |spec| {
        spec.timeout.turn = std::time::Duration::from_secs(2);
    })
    .await;
    shim.admit().await;
    shim.send("m", "c", "ask 1000000 300").await;
    until(async || (!shim.witness().is_empty()).then_some(())).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let kib = shim.peak_kib();
    assert!(kib < 32 * 1024, "{kib} KiB");
    let (_, exit) = shim.end().await;
    assert_eq!((exit.clean, exit.exit.signal), (true, Some(9)));
    assert!(exit.exit.reason.is_some_and(|reason| reason.contains("timed out")));
}
