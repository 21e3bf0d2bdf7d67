//! The connection, the consumer and the broker come and go: nothing is lost, doubled or out of order.

use common::message::Outcome;

use crate::cable::{self, Cable};
use crate::support::{INCARNATION, Server, Shim, agent, envelope, until};

#[tokio::test]
async fn a_shim_whose_consumer_is_gone_says_ready_and_goes_on_with_nothing_doubled() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    for n in 0..10 {
        shim.send(&format!("a{n}"), "c", "greet").await;
    }
    shim.answer("a5").await;
    shim.broker.delete_consumer(&agent(), INCARNATION).await.expect("deleted");
    for n in 0..10 {
        shim.send(&format!("b{n}"), "c", "greet").await;
    }
    shim.admit().await;
    shim.answer("b9").await;
    let expected: Vec<_> =
        ["a", "b"].iter().flat_map(|part| (0..10).map(move |n| format!("{part}{n}"))).collect();
    assert_eq!(shim.witness(), expected);
    let heartbeat = shim.heartbeat_after(20).await;
    assert_eq!((heartbeat.finished, heartbeat.lost_finals, heartbeat.held), (20, 0, 0));
}

#[tokio::test]
async fn the_worker_goes_on_while_the_broker_is_killed_and_its_answer_is_stored_after() {
    let mut server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    shim.send("before", "c", "greet").await;
    shim.answer("before").await;
    shim.send("open", "c", "slow 1").await;
    until(async || (shim.witness().len() == 2).then_some(())).await;
    server.kill_and_revive().await;
    shim.admit().await;
    shim.send("after", "c", "greet").await;
    assert_eq!(shim.answer("open").await.status, Outcome::Completed);
    shim.answer("after").await;
    assert_eq!(shim.witness(), ["before", "open", "after"]);
    assert_eq!(shim.heartbeat_after(3).await.lost_finals, 0);
}

#[tokio::test]
async fn what_is_lost_with_a_connection_keeps_its_place_and_needs_no_supervisor() {
    let server = Server::start().await;
    let (cable, shim) = cable::deaf(&server).await;
    for n in 1..=3 {
        shim.send(&format!("m{n}"), "c", "greet").await;
    }
    shim.given_out(3).await;
    shim.send("m4", "c", "greet").await;
    cable.cut();
    for n in 5..=8 {
        shim.send(&format!("m{n}"), "c", "greet").await;
    }
    let asked = std::time::Instant::now();
    shim.answer("m8").await;
    assert!(asked.elapsed().as_secs() < 20, "sooner than the broker would deliver again");
    let expected: Vec<_> = (0..=8).map(|n| format!("m{n}")).collect();
    assert_eq!(shim.witness(), expected);
}

#[tokio::test]
async fn a_new_connection_before_the_first_message_brings_nothing_from_below_the_floor() {
    let server = Server::start().await;
    let cable = Cable::to(server.port).await;
    let mut shim = Shim::start_at(&server, cable.port, |_| {}).await;
    for n in 0..100 {
        shim.send(&format!("old{n}"), "c", "greet").await;
    }
    shim.wait_ready().await;
    let horizon = shim.broker.journal_last_seq(&agent()).await.expect("an answer");
    let floor = horizon + 1;
    shim.broker.create_consumer(&agent(), INCARNATION, floor, broker::WINDOW).await.expect("made");
    let consumer = common::frame::ConsumerId::default();
    shim.command(&common::frame::ShimCommand::Begin { horizon, floor, consumer }).await;
    shim.heartbeat().await;
    cable.cut();
    shim.send("new", "c", "greet").await;
    shim.answer("new").await;
    assert_eq!(shim.witness(), ["new"]);
    let heartbeat = shim.heartbeat_after(1).await;
    assert_eq!((heartbeat.finished, heartbeat.held), (1, 0));
}

#[tokio::test]
async fn a_consumer_of_the_name_that_is_another_ones_is_gone() {
    let server = Server::start().await;
    let mut shim = Shim::start_at(&server, server.port, |_| {}).await;
    shim.wait_ready().await;
    shim.broker.create_consumer(&agent(), INCARNATION, 1, broker::WINDOW).await.expect("made");
    let made = shim.broker.consumer(&agent(), INCARNATION).await.expect("an answer");
    let created = made.expect("it is there").created.as_millis() * 1_000_000;
    let name = shim.broker.subjects().consumer(&agent(), INCARNATION);
    let consumer = common::frame::ConsumerId { name, created };
    let begin = common::frame::ShimCommand::Begin { horizon: 0, floor: 1, consumer };
    shim.command(&begin).await;
    shim.send("first", "c", "greet").await;
    shim.answer("first").await;
    shim.broker.delete_consumer(&agent(), INCARNATION).await.expect("deleted");
    shim.broker.create_consumer(&agent(), INCARNATION, 1, broker::WINDOW).await.expect("made");
    shim.send("second", "c", "greet").await;
    // Whoever made it, it was not for this one: it asks to be admitted, and takes nothing meanwhile.
    shim.wait_ready().await;
    shim.wait_ready().await;
    assert_eq!(shim.witness(), ["first"]);
    shim.admit().await;
    shim.answer("second").await;
    assert_eq!(shim.witness(), ["first", "second"]);
}

#[tokio::test]
async fn twenty_thousand_finished_messages_below_the_floor_cost_a_new_connection_nothing() {
    const FINISHED: u64 = 20_000;
    let server = Server::start().await;
    let cable = Cable::to(server.port).await;
    let mut shim = Shim::start_at(&server, cable.port, |_| {}).await;
    let subjects = shim.broker.subjects().clone();
    let request = serde_json::to_vec(&envelope("m", "c", &"x".repeat(256))).expect("JSON");
    for n in 0..FINISHED {
        let envelope = envelope(&format!("old{n}"), "c", "");
        let (key, tag) = (envelope.key(), envelope.tag());
        // Nobody may ever read them: what they say does not matter.
        for subject in [subjects.request(&key, &tag), subjects.final_(&key, &tag)] {
            shim.broker.tell(subject, request.clone().into()).await.expect("told");
        }
    }
    let horizon = until(async || {
        let last = shim.broker.journal_last_seq(&agent()).await.expect("an answer");
        (last == 2 * FINISHED).then_some(last)
    })
    .await;
    shim.wait_ready().await;
    let floor = horizon + 1;
    shim.broker.create_consumer(&agent(), INCARNATION, floor, broker::WINDOW).await.expect("made");
    let consumer = common::frame::ConsumerId::default();
    shim.command(&common::frame::ShimCommand::Begin { horizon, floor, consumer }).await;
    shim.heartbeat().await;
    cable.cut();
    shim.send("new", "c", "greet").await;
    let sent = std::time::Instant::now();
    shim.answer("new").await;
    let (took, kib) = (sent.elapsed(), shim.peak_kib());
    assert!(took.as_secs() < 5 && kib < 32 * 1024, "{took:?}, {kib} KiB");
    assert_eq!(shim.witness(), ["new"]);
}

#[tokio::test]
async fn a_slow_connection_brings_what_was_lost_a_piece_at_a_time() {
    let server = Server::start().await;
    let (cable, shim) = cable::deaf(&server).await;
    // Longer than a look-up of the consumer may take, in all; and so is the whole of it from one look to the next.
    for n in 1..=6 {
        shim.send(&format!("m{n}"), "c", &format!("greet {}", "x".repeat(700_000))).await;
    }
    shim.given_out(6).await;
    cable.slow(1_000_000);
    cable.cut();
    let cut = std::time::Instant::now();
    shim.answer("m6").await;
    let took = cut.elapsed();
    assert!(took.as_secs() < 27, "sooner than the broker would deliver again: {took:?}");
    let expected: Vec<_> = (0..=6).map(|n| format!("m{n}")).collect();
    assert_eq!(shim.witness(), expected);
}
