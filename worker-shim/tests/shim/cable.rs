//! A way to the server that loses what it is given, and breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::support::{Server, Shim};

/// A way to the server. Its links are numbered from 1.
pub(crate) struct Cable {
    pub(crate) port: u16,
    /// Links up to this one lose what comes back from the server,
    deaf: Arc<AtomicUsize>,
    /// and up to this one what goes there.
    mute: Arc<AtomicUsize>,
    /// So many bytes a second come back; 0: as many as there are.
    rate: Arc<AtomicUsize>,
    cut: broadcast::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Cable {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let [deaf, mute, rate] = [0; 3].map(|n| Arc::new(AtomicUsize::new(n)));
        let (cut, _) = broadcast::channel(1);
        let mut tasks = JoinSet::new();
        let (loses_back, loses_there, cutter) = (Arc::clone(&deaf), Arc::clone(&mute), cut.clone());
        let (slow, fast) = (Arc::clone(&rate), Arc::new(AtomicUsize::new(0)));
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            let mut number = 0;
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
                let (back, there) = (Arc::clone(&loses_back), Arc::clone(&loses_there));
                let (slow, fast) = (Arc::clone(&slow), Arc::clone(&fast));
                let mut cut = cutter.subscribe();
                number += 1;
                links.spawn(async move {
                    let ((near_in, near_out), (far_in, far_out)) =
                        (near.into_split(), far.into_split());
                    tokio::select! {
                        () = carry(near_in, far_out, (number, &there), &fast) => {}
                        () = carry(far_in, near_out, (number, &back), &slow) => {}
                        _ = cut.recv() => {}
                    }
                });
            }
        });
        Self { port, deaf, mute, rate, cut, _tasks: tasks }
    }

    /// From now on, links up to this one bring nothing back.
    pub(crate) fn deafen(&self, link: usize) {
        self.deaf.store(link, Ordering::Relaxed);
    }

    /// From now on, links up to this one lose everything, and nobody is told.
    pub(crate) fn lose(&self, link: usize) {
        self.mute.store(link, Ordering::Relaxed);
        self.deafen(link);
    }

    /// From now on, so many bytes a second come back.
    pub(crate) fn slow(&self, rate: usize) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Breaks the links that stand.
    pub(crate) fn cut(&self) {
        self.cut.send(()).expect("a link");
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (number, lost): (usize, &AtomicUsize),
    rate: &AtomicUsize,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if let rate @ 1.. = rate.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
        }
        if number > lost.load(Ordering::Relaxed) && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A shim at the end of a cable, which has answered `m0`, and does not hear what is given to it from now on.
pub(crate) async fn deaf(server: &Server) -> (Cable, Shim) {
    let cable = Cable::to(server.port).await;
    let mut shim = Shim::start_at(server, cable.port, |_| {}).await;
    shim.admit().await;
    shim.send("m0", "c", "greet").await;
    shim.answer("m0").await;
    cable.deafen(1);
    (cable, shim)
}
