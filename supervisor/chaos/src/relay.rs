//! What a process of the throwaway fleet connects through: a relay to the broker that can stop passing bytes on, in one or both directions.
//! A cut loses no byte and closes no connection. What is held goes on when it is over, as on a network that was interrupted.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::schedule::Cut;

/// Bytes that are under way in one direction of a connection, at most; the rest waits with whoever sends it.
const HELD: usize = 16 << 10;
/// Connections at once, at most. More wait until one ends.
const CONNECTIONS: usize = 1024;

/// A relay on the loopback. Its connections end with it.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    cut: watch::Sender<Option<Cut>>,
    _serving: JoinSet<()>,
}

impl Relay {
    /// Opens a relay to an address, `host:port`.
    pub(crate) async fn open(to: String) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (cut, is_cut) = watch::channel(None);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, to, is_cut));
        Ok(Self { address, cut, _serving: serving })
    }

    /// Stops passing on what this says; None: passes on everything.
    pub(crate) fn cut(&self, cut: Option<Cut>) {
        self.cut.send_replace(cut);
    }
}

async fn serve(listener: TcpListener, to: String, cut: watch::Receiver<Option<Cut>>) {
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < CONNECTIONS;
        tokio::select! {
            accepted = listener.accept(), if has_room => match accepted {
                Ok((near, _)) => {
                    connections.spawn(connect(near, to.clone(), cut.clone()));
                }
                // Out of file descriptors: some are free again when a connection ends.
                Err(error) => {
                    tracing::debug!("cannot take a connection: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Passes a connection on, until both ends have closed it or one is lost.
async fn connect(near: TcpStream, to: String, cut: watch::Receiver<Option<Cut>>) {
    let far = match TcpStream::connect(&to).await {
        Ok(far) => far,
        Err(error) => return tracing::debug!("cannot reach {to}: {error}"),
    };
    // As the client and the server would have it.
    let quick = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
    if let Err(error) = quick {
        tracing::debug!("cannot make a connection quick: {error}");
    }
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
        (near.into_split(), far.into_split());
    let (mut sent, mut received) = (cut.clone(), cut);
    let sending =
        pass(&mut near_in, &mut far_out, &mut sent, |cut| matches!(cut, Cut::Sent | Cut::Both));
    let receiving = pass(&mut far_in, &mut near_out, &mut received, |cut| {
        matches!(cut, Cut::Received | Cut::Both)
    });
    // An error ends both: a connection that is lost is lost in both directions.
    let _lost = tokio::try_join!(sending, receiving);
}

/// Copies until the end of what comes in; nothing while it is held.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    cut: &mut watch::Receiver<Option<Cut>>,
    holds: fn(Cut) -> bool,
) -> io::Result<()> {
    let mut held = vec![0; HELD];
    loop {
        open(cut, holds).await?;
        let count = from.read(&mut held).await?;
        // It may have been cut while nothing came.
        open(cut, holds).await?;
        let Some(held) = held.get(..count).filter(|held| !held.is_empty()) else {
            return to.shutdown().await;
        };
        to.write_all(held).await?;
    }
}

async fn open(cut: &mut watch::Receiver<Option<Cut>>, holds: fn(Cut) -> bool) -> io::Result<()> {
    let passes = cut.wait_for(|cut| !cut.is_some_and(holds)).await;
    passes.map(|_| ()).map_err(|_| io::ErrorKind::ConnectionAborted.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A pair of connected ends, through a relay.
    async fn through() -> (Relay, TcpStream, TcpStream) {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let to = server.local_addr().expect("it has one").to_string();
        let relay = Relay::open(to).await.expect("a port");
        let near = TcpStream::connect(relay.address).await.expect("it listens");
        let (far, _) = server.accept().await.expect("it is passed on");
        (relay, near, far)
    }

    async fn hears(end: &mut TcpStream, text: &str) {
        let mut heard = vec![0; text.len()];
        let read = timeout(Duration::from_secs(10), end.read_exact(&mut heard)).await;
        let _count = read.expect("in time").expect("the connection lasts");
        assert_eq!(heard, text.as_bytes());
    }

    async fn hears_nothing(end: &mut TcpStream) {
        let read = timeout(Duration::from_millis(200), end.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    }

    #[tokio::test]
    async fn a_cut_holds_what_is_sent_and_loses_nothing() {
        let (relay, mut near, mut far) = through().await;
        near.write_all(b"one").await.expect("sent");
        hears(&mut far, "one").await;
        relay.cut(Some(Cut::Both));
        near.write_all(b"two").await.expect("sent");
        far.write_all(b"three").await.expect("sent");
        hears_nothing(&mut far).await;
        hears_nothing(&mut near).await;
        relay.cut(None);
        hears(&mut far, "two").await;
        hears(&mut near, "three").await;
    }

    #[tokio::test]
    async fn a_cut_of_one_direction_passes_the_other_on() {
        let (relay, mut near, mut far) = through().await;
        relay.cut(Some(Cut::Sent));
        near.write_all(b"held").await.expect("sent");
        far.write_all(b"heard").await.expect("sent");
        hears(&mut near, "heard").await;
        hears_nothing(&mut far).await;
        relay.cut(Some(Cut::Received));
        hears(&mut far, "held").await;
        far.write_all(b"held").await.expect("sent");
        hears_nothing(&mut near).await;
    }

    #[tokio::test]
    async fn an_end_is_passed_on_when_the_cut_is_over_and_a_new_connection_waits() {
        let (relay, near, mut far) = through().await;
        relay.cut(Some(Cut::Both));
        drop(near);
        hears_nothing(&mut far).await;
        relay.cut(None);
        let read = timeout(Duration::from_secs(10), far.read(&mut [0])).await;
        assert_eq!(read.expect("in time").expect("an end"), 0);
    }
}
