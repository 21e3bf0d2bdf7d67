//! Every way for a shim or its worker to end.

use std::time::Duration;

use common::event::EventBody;
use common::message::Outcome;
use rustix::process::Signal;

use crate::support::{Server, Shim, key, kill, until};

/// The last event of a message, once it is this far.
async fn last_event(shim: &Shim, message: &str, is_it: impl Fn(&EventBody) -> bool) -> EventBody {
    until(async || {
        let batches = shim.broker.events(&key(message)).await.expect("an answer");
        batches
            .into_iter()
            .flat_map(|batch| batch.events)
            .map(|event| event.body)
            .find(|it| is_it(it))
    })
    .await
}

#[tokio::test]
async fn a_worker_killed_in_a_turn_leaves_an_error_and_settled_books() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    shim.send("m", "c", "hang").await;
    last_event(&shim, "m", |body| *body == EventBody::Acknowledged).await;
    let worker = shim.heartbeat().await.worker_pid;
    kill(worker, Signal::KILL);
    let (status, exit) = shim.end().await;
    assert_eq!((exit.clean, exit.exit.signal, exit.finished), (true, Some(9), 0));
    assert_eq!(status.code(), Some(137));
    let error = EventBody::Error { error: "exit code 137 (signal 9)".into() };
    last_event(&shim, "m", |body| *body == error).await;
    assert_eq!(shim.final_of("m").await, None, "it has attempts left");
}

#[tokio::test]
async fn an_attempt_that_ends_while_the_broker_is_frozen_is_on_record_once_it_is_back() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    let worker = shim.heartbeat().await.worker_pid;
    shim.send("first", "c", "slow 0.5").await;
    shim.send("second", "d", "hang").await;
    shim.given_out(2).await;
    until(async || (shim.witness().len() == 1).then_some(())).await;
    kill(server.pid(), Signal::STOP);
    // It was held by the shim: its turn begins while the broker hears nothing.
    until(async || (shim.witness().len() == 2).then_some(())).await;
    kill(worker, Signal::KILL);
    // Longer than the last words may take where the broker answers.
    tokio::time::sleep(Duration::from_secs(8)).await;
    kill(server.pid(), Signal::CONT);
    let (_, exit) = shim.end().await;
    assert_eq!((exit.clean, exit.exit.signal, exit.finished), (true, Some(9), 1));
    assert_eq!(shim.answer("first").await.status, Outcome::Completed);
    let error = EventBody::Error { error: "exit code 137 (signal 9)".into() };
    last_event(&shim, "second", |body| *body == error).await;
}

#[tokio::test]
async fn a_shim_that_is_told_to_end_does_not_wait_for_a_frozen_broker() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    let worker = shim.heartbeat().await.worker_pid;
    shim.send("m", "c", "slow 1").await;
    until(async || (shim.witness().len() == 1).then_some(())).await;
    kill(server.pid(), Signal::STOP);
    kill(worker, Signal::KILL);
    // For longer than the last words may take, and shorter than the shim waits for the broker.
    tokio::time::sleep(Duration::from_secs(5)).await;
    kill(shim.pid(), Signal::TERM);
    let asked = std::time::Instant::now();
    let (_, exit) = shim.end().await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!((exit.clean, exit.exit.signal), (false, Some(9)));
    kill(server.pid(), Signal::CONT);
}

#[tokio::test]
async fn the_last_line_of_a_worker_counts_even_without_its_newline() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    shim.send("m", "c", "last").await;
    let (status, exit) = shim.end().await;
    assert_eq!((status.code(), exit.clean, exit.finished), (Some(3), true, 1));
    assert_eq!(shim.answer("m").await.response.as_deref(), Some("last"));
}

#[tokio::test]
async fn sigterm_drains() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    shim.send("open", "c", "slow 1").await;
    shim.send("waits", "c", "greet").await;
    until(async || (!shim.witness().is_empty()).then_some(())).await;
    kill(shim.pid(), Signal::TERM);
    let (_, exit) = shim.end().await;
    assert_eq!((exit.clean, exit.finished), (true, 1));
    // SIGTERM follows the word to shut down, soon enough to be faster than a worker on a busy machine.
    assert!(exit.exit.code == Some(0) || exit.exit.signal == Some(15), "{exit:?}");
    assert_eq!(shim.answer("open").await.status, Outcome::Completed);
    assert_eq!(shim.final_of("waits").await, None);
    assert_eq!(shim.witness(), ["open"]);
}

#[tokio::test]
async fn a_worker_that_closes_its_stdout_and_stays_is_ended() {
    let server = Server::start().await;
    let mut shim = Shim::start(&server).await;
    shim.send("m", "c", "mute").await;
    let (_, exit) = shim.end().await;
    assert_eq!((exit.clean, exit.exit.signal), (true, Some(9)));
    let reason = exit.exit.reason.expect("a reason");
    assert_eq!(reason, "the worker closed its stdout, but did not exit");
}

#[tokio::test]
async fn what_a_worker_that_closed_its_stdin_never_got_is_charged_no_attempt() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let mut shim = Shim::start(&server).await;
    shim.send("m", "c", "deaf").await;
    shim.send("next", "d", "greet").await;
    assert_eq!(shim.answer("m").await.response.as_deref(), Some("deaf"));
    let answered = std::time::Instant::now();
    let (_, exit) = shim.end().await;
    // It has nothing to finish: whoever waits for the next one does not wait as long as for a worker that has.
    let took = answered.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!((exit.clean, exit.exit.signal), (true, Some(9)));
    let reason = exit.exit.reason.expect("a reason");
    assert_eq!(reason, "the worker closed its stdin, but did not exit");
    assert_eq!(shim.final_of("next").await, None);
    assert_eq!(broker.last_mark(&key("next")).await.expect("it answers"), None);
    assert_eq!(shim.witness(), ["m"]);
}

#[tokio::test]
async fn a_worker_that_does_not_exist_leaves_an_exit_file() {
    let server = Server::start().await;
    let no_such = |spec: &mut common::spec::AgentSpec| {
        spec.worker = Some(vec!["/no/such/worker".into()]);
    };
    let mut shim = Shim::start_at(&server, server.port, no_such).await;
    let (status, exit) = shim.end().await;
    assert_eq!((status.code(), exit.clean, exit.exit.code), (Some(127), true, Some(127)));
    assert!(exit.exit.reason.expect("a reason").contains("/no/such/worker"));
}

#[tokio::test]
async fn sigterm_ends_a_shim_that_finds_no_broker() {
    let server = Server::start().await;
    // A port that nobody listens on any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let mut shim = Shim::start_at(&server, port, |_| {}).await;
    let config = std::path::PathBuf::from(format!("/proc/{}/task", shim.pid()));
    // Its worker runs: the shim has come as far as connecting.
    until(async || {
        let children = config.join(format!("{}/children", shim.pid()));
        std::fs::read_to_string(children).ok().filter(|children| !children.is_empty())
    })
    .await;
    kill(shim.pid(), Signal::TERM);
    let (status, exit) = shim.end().await;
    assert_eq!((status.code(), exit.clean), (Some(127), true));
    assert!(exit.exit.reason.expect("a reason").contains("stopped while it was connecting"));
}
