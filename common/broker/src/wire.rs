//! One request and its answer, across reconnects: the base of every other module.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind, Subject};
use bytes::Bytes;
use common::subject::Subjects;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::callout::AsUser;
use crate::clock::{Moment, ServerClock};
use crate::connection::Link;
use crate::error::{BrokerError, Result};
use crate::route::Route;

/// How long a call may take that has no timeout of its own.
pub(crate) const CALL: Duration = Duration::from_secs(5);

/// How long a request waits for its answer before it is sent again: it or the answer may be lost.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// The pause before asking again where nobody listened: a server that starts, a stream without a leader.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The client and the state of its connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) client: Client,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) clock: Arc<ServerClock>,
    /// Whether it may create no consumers: then streams are followed by reading them again and again.
    pub(crate) polls: bool,
    /// The last subject that the server has refused to take something for.
    pub(crate) forbidden: watch::Receiver<String>,
    pub(crate) route: Arc<Route>,
    /// The user whose rights it has, and what its fleet's subjects are.
    pub(crate) user: Option<Arc<(AsUser, Subjects)>>,
}

/// An answer, and the number of the try that it belongs to.
pub(crate) struct Answer {
    pub(crate) message: Message,
    pub(crate) tries: u32,
    /// When that try began.
    pub(crate) asked: Moment,
}

impl Wire {
    /// Waits until the connection stands; its epoch.
    pub(crate) async fn up(&self, deadline: Instant, timeout: Duration) -> Result<u64> {
        // The usual case costs one lock and no timer.
        let link = *self.link.borrow();
        if link.up {
            return Ok(link.epoch);
        }
        let mut follow = self.link.clone();
        match timeout_at(deadline, follow.wait_for(|link| link.up)).await {
            Ok(Ok(link)) => Ok(link.epoch),
            Ok(Err(_)) => Err(BrokerError::other("the client is closed")),
            Err(_) => Err(BrokerError::Timeout(timeout)),
        }
    }

    /// Resolves when the server refuses what is sent to a subject.
    async fn is_forbidden(&self, subject: &Subject) {
        let mut forbidden = self.forbidden.clone();
        // What was refused before may have been something else.
        forbidden.mark_unchanged();
        while forbidden.changed().await.is_ok() {
            if *forbidden.borrow_and_update() == subject.as_str() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Why the server has refused what was sent to a subject.
    fn refused(&self, subject: &Subject) -> String {
        match self.user.as_deref() {
            Some((user, subjects)) => user.refused(subjects, subject),
            None => format!("this login may not use {subject}"),
        }
    }

    /// Resolves when the connection is another one than at `epoch`: what was under way is lost.
    pub(crate) async fn reconnected(&self, epoch: u64) {
        let mut follow = self.link.clone();
        if follow.wait_for(|link| link.epoch != epoch).await.is_err() {
            // The client is closed: nothing will ever reconnect.
            std::future::pending::<()>().await;
        }
    }

    /// Repeats a request until there is an answer: after a reconnect, after [`ANSWERED_WITHIN`], and if nobody listened.
    /// The request must be harmless when repeated.
    pub(crate) async fn request(
        &self,
        subject: &Subject,
        headers: impl Fn() -> Option<HeaderMap>,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Answer> {
        let deadline = Instant::now() + timeout;
        let mut tries = 0;
        loop {
            self.route.leave_if_due(&self.client, &self.link).await;
            let epoch = self.up(deadline, timeout).await?;
            tries += 1;
            let asked_at = Moment::now();
            let mut request = Request::new().payload(payload.clone()).timeout(None);
            if let Some(headers) = headers() {
                request = request.headers(headers);
            }
            let asked = async {
                tokio::select! {
                    biased;
                    () = self.is_forbidden(subject) => None,
                    answer = self.client.send_request(subject.clone(), request) => Some(answer),
                    () = self.reconnected(epoch) => None,
                }
            };
            let until = deadline.min(Instant::now() + ANSWERED_WITHIN);
            let waiting = self.route.waiting(subject);
            match timeout_at(until, asked).await {
                Ok(Some(Ok(message))) => {
                    waiting.end();
                    return Ok(Answer { message, tries, asked: asked_at });
                }
                Ok(Some(Err(error))) => {
                    waiting.end();
                    self.repeatable(subject, &error)?;
                    // Its server knows of nobody who would answer.
                    self.route.missed(subject, Instant::now());
                    pause(deadline, timeout).await?;
                }
                Ok(None) if *self.forbidden.borrow() == subject.as_str() => {
                    return Err(BrokerError::Forbidden(self.refused(subject)));
                }
                // Reconnected: the request or its answer is lost.
                Ok(None) => waiting.end(),
                Err(_) if Instant::now() >= deadline => return Err(BrokerError::Timeout(timeout)),
                Err(_) => {}
            }
        }
    }

    /// Whether a failed request can be repeated.
    fn repeatable(&self, subject: &Subject, error: &async_nats::RequestError) -> Result<()> {
        match error.kind() {
            RequestErrorKind::NoResponders
                if subject.starts_with("$JS.API.") && !self.client.server_info().jetstream =>
            {
                Err(BrokerError::NoJetStream)
            }
            RequestErrorKind::NoResponders | RequestErrorKind::TimedOut => Ok(()),
            RequestErrorKind::InvalidSubject
            | RequestErrorKind::MaxPayloadExceeded
            | RequestErrorKind::Other => Err(BrokerError::other(error)),
        }
    }
}

/// Waits a moment, unless the deadline comes first.
pub(crate) async fn pause(deadline: Instant, timeout: Duration) -> Result<()> {
    if Instant::now() + PAUSE >= deadline {
        return Err(BrokerError::Timeout(timeout));
    }
    tokio::time::sleep(jitter(PAUSE)).await;
    Ok(())
}

/// Three quarters to five quarters of a duration, so that a fleet does not come back in step.
pub(crate) fn jitter(duration: Duration) -> Duration {
    // Every `RandomState` has keys of its own: enough randomness for a delay.
    let random = RandomState::new().hash_one(0_u8);
    let quarter = duration / 4;
    duration - quarter + quarter * 2 * (random as u8).into() / 255
}
