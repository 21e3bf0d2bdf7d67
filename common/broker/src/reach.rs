//! Whether the leader of a stream is in reach: for connections that ask for little. A server that is cut off from the others goes on to
//! answer for what only it has, such as a consumer in its memory, and hands on what subscribers on other servers never get.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::Request;
use common::AgentName;
use common::codec;
use common::frame::ask::{ShimAnswer, ShimAsk, Told};
use tokio::time::{Instant, timeout};

use crate::api::StreamInfo;
use crate::asked::AsShim;
use crate::connection::Broker;
use crate::error::BrokerError;
use crate::wire::{PAUSE, jitter};

/// How often it is asked. One in a thousand shims: 330 questions a second of all of them. A shim that misses the answer to one has time
/// for a second before it counts as cut off.
const EVERY: Duration = Duration::from_secs(3);
/// The same, while there is no answer.
const AGAIN: Duration = Duration::from_secs(1);
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(2);
/// How long a supervisor may take to tell a shim,
const SHIM_WITHIN: Duration = Duration::from_millis(650);
/// and the leader of the stream to tell the supervisor.
const LEADER_WITHIN: Duration = Duration::from_millis(500);
/// So many questions without an answer, and never one with: it may not ask. What else it misses still counts.
const DENIED: u32 = 3;

/// What these questions are called among what is without an answer.
const KIND: &str = "reach";
/// What the reports of shims are called there.
const SHIMS: &str = "shims";

impl Broker {
    /// Keeps the connection with a server that reaches the leader of a stream: of the agent's journal, or of the control log. Only on
    /// clusters. Never ends.
    pub async fn stay_in_reach(self, agent: Option<AgentName>) -> Infallible {
        let stream = match &agent {
            Some(agent) => self.journal_stream(agent),
            None => self.control_stream(),
        };
        // Shims and nodes may ask supervisors, who answer: one that began on a bad server leaves it, too.
        let mut may_ask = self.as_shim().is_some() || self.as_node().is_some();
        let mut unanswered = 0;
        let mut link = self.link();
        while self.is_clustered() {
            let asked = Instant::now();
            let route = &self.wire().route;
            let asks = link.borrow_and_update().up && (may_ask || unanswered < DENIED);
            let reach = if asks { self.reaches(&stream).await } else { Reach::Out };
            let is_reached = matches!(reach, Reach::In(_));
            if is_reached {
                (may_ask, unanswered) = (true, 0);
                route.answered(KIND);
            } else if asks {
                unanswered += 1;
                // Whoever may not ask is no worse off elsewhere.
                if may_ask {
                    route.missed(KIND, asked);
                }
            }
            self.inner.reached.learn(asked, reach);
            route.leave_if_due(&self.wire().client, &self.wire().link).await;
            let pause = jitter(if is_reached { EVERY } else { AGAIN });
            // Another connection is another server, or the same one after a while.
            let changed = async {
                if link.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let _elapsed = timeout(pause, changed).await;
        }
        std::future::pending().await
    }

    /// Shims that run have said nothing on this connection for so long, though their nodes do: their servers are out of reach of the one that
    /// this connection is with, or they hang. Another server may hear them.
    pub fn shims_unheard(&self, unheard: Duration) {
        let now = Instant::now();
        self.wire().route.missed(SHIMS, now.checked_sub(unheard).unwrap_or(now));
    }

    /// All shims that run are heard.
    pub fn shims_heard(&self) {
        self.wire().route.answered(SHIMS);
    }

    /// For how long this connection's server may be cut off from the others: the leader of the journal is not known to have been in reach.
    /// Zero on a single server; also for a shim while there is no supervisor at all, since nobody else could tell.
    #[must_use]
    pub fn out_of_reach(&self) -> Duration {
        self.inner.reached.since().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether somebody has just answered that the leader is in reach.
    pub(crate) fn is_in_reach(&self) -> bool {
        self.inner.reached.is_in()
    }

    /// Whether the leader of a stream answers, and has heard most of its servers lately.
    async fn reaches(&self, stream: &str) -> Reach {
        // A shim or a node may not ask it itself. A supervisor that it reaches, and that reaches the leader, is as good.
        if let Some(shim) = self.as_shim() {
            return self.is_told_of_reach(shim).await;
        }
        if let Some(node) = self.as_node() {
            let told = self.newest_term_as_node(&node, WITHIN).await;
            return Reach::when(told.ok().map(|_| Duration::ZERO));
        }
        let request = Request::new().payload("{}".into()).timeout(None);
        let asked =
            self.wire().client.send_request(format!("$JS.API.STREAM.INFO.{stream}"), request);
        let answer = timeout(WITHIN, asked).await.ok().and_then(Result::ok);
        let info = answer.and_then(|answer| serde_json::from_slice(&answer.payload).ok());
        Reach::when(info.and_then(|info: StreamInfo| info.heard_most()))
    }

    /// Asks the supervisors, one after another: one of them may stand still, or be with a bad server.
    async fn is_told_of_reach(&self, shim: &AsShim) -> Reach {
        let subject = self.subjects().shim_ask(&shim.agent, shim.incarnation);
        let Ok(frame) = codec::encode(&ShimAsk::Reach) else { return Reach::Unknown };
        let deadline = Instant::now() + WITHIN;
        while Instant::now() + SHIM_WITHIN <= deadline {
            let asked = self.ask(subject.clone(), frame.clone().into(), SHIM_WITHIN).await;
            match asked.map(|answer| codec::decode(&answer).map(|ShimAnswer { told, .. }| told)) {
                Ok(Ok(Told::Reached(Some(ago)))) => return Reach::In(ago),
                Ok(Ok(Told::Reached(None))) => tokio::time::sleep(PAUSE).await,
                // It is too old for the question.
                Ok(Ok(_) | Err(_)) => return Reach::Unknown,
                Err(BrokerError::Timeout(_)) => {}
                Err(_) => return Reach::Unknown,
            }
        }
        Reach::Out
    }

    /// How long ago the leader of an agent's journal had heard most of its servers; none if no leader answers.
    pub(crate) async fn leader_reached(&self, agent: &AgentName) -> Option<Duration> {
        let lately = self.inner.leads_lately.get(self.subjects().shard(agent) as usize);
        if let Some((at, known)) = lately.and_then(Lately::known) {
            return known.map(|before| before + at.elapsed());
        }
        let asked = Instant::now();
        let told = self.wire().stream_info(&self.journal_stream(agent), LEADER_WITHIN).await;
        let before = told.ok().and_then(|told| told.ok()?.heard_most());
        if let Some(lately) = lately {
            lately.learn(asked, before);
        }
        before.map(|before| before + asked.elapsed())
    }
}

/// Whether the leader of a stream is in reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// It had heard most of its servers so long before the answer.
    In(Duration),
    Out,
    /// There is nobody who can tell.
    Unknown,
}

impl Reach {
    fn when(heard_before: Option<Duration>) -> Self {
        heard_before.map_or(Self::Out, Self::In)
    }
}

/// When the leader was last known to be in reach, and whether the last question was answered so.
#[derive(Debug, Default)]
pub(crate) struct Reached(Mutex<(Option<Instant>, bool)>);

impl Reached {
    fn learn(&self, asked: Instant, reach: Reach) {
        let (reached, is_in) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *is_in = matches!(reach, Reach::In(_));
        match reach {
            Reach::In(ago) => *reached = asked.checked_sub(ago).or(Some(asked)),
            Reach::Unknown => *reached = Some(asked),
            Reach::Out => *reached = reached.or(Some(asked)),
        }
    }

    fn since(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn is_in(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// What was so a moment ago, since every shim asks the same.
#[derive(Debug)]
pub(crate) struct Lately<T>(Mutex<Option<(Instant, T)>>);

/// How long it holds.
const HOLDS: Duration = Duration::from_millis(500);

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Copy> Lately<T> {
    pub(crate) fn known(&self) -> Option<(Instant, T)> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(at, _)| at.elapsed() < HOLDS)
    }

    pub(crate) fn learn(&self, at: Instant, what: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_out_of_reach_since_the_last_answer_or_else_the_first_question_without_one() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let reached = Reached::default();
        assert_eq!(reached.since(), None, "nobody was asked");
        for (asked, reach, since) in [
            (1, Reach::Out, 1),
            (2, Reach::Out, 1),
            (3, Reach::In(Duration::ZERO), 3),
            (4, Reach::Out, 3),
            (5, Reach::Unknown, 5),
            (6, Reach::Out, 5),
            (9, Reach::In(Duration::from_secs(2)), 7),
        ] {
            reached.learn(at(asked), reach);
            assert_eq!(reached.since(), Some(at(since)), "{asked}: {reach:?}");
        }
    }
}
