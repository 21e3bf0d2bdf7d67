//! The connection, the consumer and the broker come and go: nothing is lost, doubled or out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::message::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::support::{INCARNATION, Server, Shim, agent, until};

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

/// A way to the server. Its links can lose what comes back from the server, and break.
struct Cable {
    port: u16,
    /// Links up to this one lose what comes back.
    deaf: Arc<AtomicUsize>,
    cut: broadcast::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Cable {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let deaf = Arc::new(AtomicUsize::new(0));
        let (cut, _) = broadcast::channel(1);
        let mut tasks = JoinSet::new();
        let (lose, cutter) = (Arc::clone(&deaf), cut.clone());
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            let mut number = 0;
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
                let (lose, mut cut) = (Arc::clone(&lose), cutter.subscribe());
                number += 1;
                links.spawn(async move {
                    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                        (near.into_split(), far.into_split());
                    let there = tokio::io::copy(&mut near_in, &mut far_out);
                    let back = async {
                        let mut bytes = vec![0; 64 * 1024];
                        while let Ok(count @ 1..) = far_in.read(&mut bytes).await {
                            if number > lose.load(Ordering::Relaxed)
                                && near_out.write_all(&bytes[..count]).await.is_err()
                            {
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        _ = there => {}
                        () = back => {}
                        _ = cut.recv() => {}
                    }
                });
            }
        });
        Self { port, deaf, cut, _tasks: tasks }
    }
}

#[tokio::test]
async fn what_is_lost_with_a_connection_keeps_its_place_and_needs_no_supervisor() {
    let server = Server::start().await;
    let cable = Cable::to(server.port).await;
    let mut shim = Shim::start_at(&server, cable.port, |_| {}).await;
    shim.admit().await;
    shim.send("m0", "c", "greet").await;
    shim.answer("m0").await;
    cable.deaf.store(1, Ordering::Relaxed);
    for n in 1..=3 {
        shim.send(&format!("m{n}"), "c", "greet").await;
    }
    until(async || {
        let consumer = shim.broker.consumer(&agent(), INCARNATION).await.expect("an answer");
        consumer.filter(|consumer| consumer.ack_pending == 3)
    })
    .await;
    shim.send("m4", "c", "greet").await;
    cable.cut.send(()).expect("a link");
    for n in 5..=8 {
        shim.send(&format!("m{n}"), "c", "greet").await;
    }
    let asked = std::time::Instant::now();
    shim.answer("m8").await;
    assert!(asked.elapsed().as_secs() < 20, "sooner than the broker would deliver again");
    let expected: Vec<_> = (0..=8).map(|n| format!("m{n}")).collect();
    assert_eq!(shim.witness(), expected);
}
