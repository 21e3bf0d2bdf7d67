//! A shim that may have been replaced starts nothing and says nothing.

use std::time::Duration;

use rustix::process::Signal;

use crate::cable::Cable;
use crate::support::{INCARNATION, Server, Shim, agent, key, kill, until};

/// Waits until the worker has been given so many messages.
async fn given(shim: &Shim, count: usize) {
    until(async || (shim.witness().len() == count).then_some(())).await;
}

/// As a leader does that gives the agent to somebody else.
async fn fence(shim: &mut Shim) {
    // It may have said that it is ready more than once before it was admitted: whoever waits for that from now on waits for news.
    shim.forget_reports().await;
    shim.broker.delete_consumer(&agent(), INCARNATION).await.expect("deleted");
}

#[tokio::test]
async fn one_that_was_frozen_and_replaced_meanwhile_goes_on_with_nothing() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    shim.send("open", "c", "slow 1").await;
    for n in 0..5 {
        shim.send(&format!("m{n}"), &format!("c{n}"), "greet").await;
    }
    shim.given_out(6).await;
    given(&shim, 1).await;
    kill(shim.pid(), Signal::STOP);
    tokio::time::sleep(Duration::from_secs(4)).await;
    fence(&mut shim).await;
    kill(shim.pid(), Signal::CONT);
    shim.wait_ready().await;
    assert_eq!(shim.witness(), ["open"], "what had been read ahead was somebody else's");
    assert_eq!(shim.final_of("open").await, None, "and so was what it had open");
    // Admitted again, it goes on, with nothing doubled.
    shim.admit().await;
    for n in 0..5 {
        shim.answer(&format!("m{n}")).await;
    }
    shim.answer("open").await;
    assert_eq!(shim.witness(), ["open", "m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test]
async fn one_that_was_frozen_and_is_still_current_goes_on_and_its_turn_had_all_its_time() {
    let server = Server::start().await;
    let mut shim = Shim::start_at(&server, server.port, |spec| {
        spec.timeout.turn = Duration::from_secs(2);
    })
    .await;
    shim.admit().await;
    shim.send("open", "c", "slow 0.5").await;
    shim.send("next", "c", "greet").await;
    given(&shim, 1).await;
    kill(shim.pid(), Signal::STOP);
    tokio::time::sleep(Duration::from_secs(4)).await;
    kill(shim.pid(), Signal::CONT);
    assert_eq!(shim.answer("open").await.response.as_deref(), Some("did slow"));
    assert_eq!(shim.answer("next").await.attempts, 1);
    assert_eq!(shim.witness(), ["open", "next"]);
}

#[tokio::test]
async fn one_that_is_fenced_while_no_pull_is_open_finds_out_by_itself() {
    let server = Server::start().await;
    let mut shim = Shim::start_at(&server, server.port, |_| {}).await;
    shim.send("open", "c", "wait").await;
    for n in 0..broker::WINDOW {
        shim.send(&format!("m{n}"), "c", "greet").await;
    }
    // Only now: to store so many may take longer than the worker does.
    shim.admit().await;
    shim.given_out(broker::WINDOW.into()).await;
    given(&shim, 1).await;
    // It has answered this one: nothing that it said before is still on its way.
    let _admitted = shim.heartbeat().await;
    fence(&mut shim).await;
    shim.wait_ready().await;
    // It knows: the answer that comes now counts no more, and nothing is begun.
    shim.let_go();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(shim.witness(), ["open"]);
    assert_eq!(shim.final_of("open").await, None);
}

#[tokio::test]
async fn one_that_hears_nothing_starts_nothing_until_it_has_looked() {
    let server = Server::start().await;
    let cable = Cable::to(server.port).await;
    let mut shim = Shim::start_at(&server, cable.port, |_| {}).await;
    shim.admit().await;
    shim.send("open", "c", "slow 9").await;
    shim.send("next", "d", "greet").await;
    shim.given_out(2).await;
    given(&shim, 1).await;
    cable.lose(1);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(shim.witness(), ["open"], "nothing was refused, and nothing was heard");
    cable.cut();
    shim.answer("open").await;
    shim.answer("next").await;
    assert_eq!(shim.witness(), ["open", "next"]);
}

#[tokio::test]
async fn what_waits_for_a_new_connection_is_not_said_once_somebody_else_is_current() {
    let server = Server::start().await;
    let cable = Cable::to(server.port).await;
    let mut shim = Shim::start_at(&server, cable.port, |_| {}).await;
    shim.admit().await;
    shim.send("open", "c", "slow 1").await;
    until(async || {
        let events = shim.broker.events(&key("open")).await.expect("an answer");
        (!events.is_empty()).then_some(())
    })
    .await;
    cable.lose(1);
    // Its answer is on its way by then, again and again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    fence(&mut shim).await;
    cable.cut();
    shim.wait_ready().await;
    assert_eq!(shim.final_of("open").await, None);
    shim.admit().await;
    shim.answer("open").await;
    assert_eq!(shim.witness(), ["open"]);
}
