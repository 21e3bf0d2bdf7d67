//! Everything that can wake the shim, as one type.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use broker::{InboxItem, Link, Subscription};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::Pump;
use super::start::Signalled;
use crate::clock;
use crate::publish::Done;

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// This process was suspended for this long, in microseconds.
    StoodStill(u64),
    Link(Link),
    /// A child has ended.
    Child,
    /// Somebody wants the shim to end.
    Terminate,
    /// A frame for the shim.
    Command(Vec<u8>),
    /// A timer is due.
    Timer,
    Done(Done),
    Item(InboxItem),
    Stdout(io::Result<usize>),
    Stderr(io::Result<usize>),
    /// The worker reads.
    Writable,
    /// The worker has closed its stdin.
    StdinClosed,
}

/// Where events come from, beside the pump itself.
pub(super) struct Sources {
    pub(super) signals: Signalled,
    pub(super) commands: Subscription,
    pub(super) link: watch::Receiver<Link>,
    /// Looks after the connection.
    pub(super) near: BoxFuture<'static, Infallible>,
}

impl Pump {
    /// The next event, by `sleep` at the latest.
    ///
    /// In this order: that this process stood still, and that the connection is another one, is known before anything else is
    /// looked at, and before any task goes on. What came through a connection, or waited in a pipe, may be old by then.
    pub(super) async fn next(&mut self, from: &mut Sources, sleep: Pin<&mut Sleep>) -> Event {
        let Self { standing, tasks, questions, histories, inbox, pipes, book, logs, .. } = self;
        let reads = !pipes.is_backed_up();
        let hears = pipes.stdout_open && reads && !logs.is_full() && !book.is_congested();
        let logging = pipes.stderr_open && !logs.is_full();
        let (stdout, stderr, [stdin, writable]) = pipes.parts();
        tokio::select! {
            biased;
            still = std::future::poll_fn(|_| match standing.stood_still(clock::boot_us()) {
                Some(us) => Poll::Ready(us),
                None => Poll::Pending,
            }) => Event::StoodStill(still),
            Ok(()) = from.link.changed() => Event::Link(*from.link.borrow_and_update()),
            _ = from.signals.child.recv() => Event::Child,
            _ = from.signals.term.recv() => Event::Terminate,
            _ = from.signals.int.recv() => Event::Terminate,
            Some(message) = from.commands.next() => Event::Command(message.payload.into()),
            never = &mut from.near => match never {},
            Some(done) = tasks.next(), if !tasks.is_empty() => Event::Done(done),
            // The worker reads one answer before the next one is held here.
            Some(done) = questions.next(), if reads && questions.are_asked() => Event::Done(done),
            Some(done) = histories.next(), if reads && histories.are_asked() => Event::Done(done),
            () = sleep => Event::Timer,
            item = async {
                match inbox {
                    Some(inbox) => inbox.next().await,
                    None => std::future::pending().await,
                }
            } => Event::Item(item),
            Some(_) = async { stdin?.ready(Interest::ERROR).await.ok() } => Event::StdinClosed,
            Some(_) = async { writable?.writable().await.ok() } => Event::Writable,
            // Read as a stream: a read that leaves room means an empty pipe, and is not tried once more.
            read = stdout.0.read_buf(stdout.1.space()), if hears => Event::Stdout(read),
            read = stderr.0.read_buf(stderr.1.space()), if logging => Event::Stderr(read),
        }
    }
}
