//! Whether the leader of a stream is in reach: for connections that ask for little. A server that is cut off from the others goes on to
//! answer for what only it has, such as a consumer in its memory, and hands on what subscribers on other servers never get.

use std::convert::Infallible;
use std::time::Duration;

use async_nats::Request;
use common::AgentName;
use tokio::time::{Instant, timeout};

use crate::api::StreamInfo;
use crate::connection::Broker;
use crate::wire::jitter;

/// How often it is asked. One in a thousand shims: 250 questions a second of all of them.
const EVERY: Duration = Duration::from_secs(4);
/// The same, while there is no answer.
const AGAIN: Duration = Duration::from_secs(1);
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(2);
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
        while self.is_clustered() {
            let asked = Instant::now();
            let route = &self.wire().route;
            let asks = self.link().borrow().up && (may_ask || unanswered < DENIED);
            let is_reached = asks && self.reaches(&stream).await;
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
            route.leave_if_due(&self.wire().client, &self.wire().link).await;
            tokio::time::sleep(jitter(if is_reached { EVERY } else { AGAIN })).await;
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

    /// Whether the leader of a stream answers, and has heard most of its servers lately.
    async fn reaches(&self, stream: &str) -> bool {
        // A shim or a node may not ask it itself. A supervisor that it reaches, and that reaches the leaders, is as good.
        if self.as_shim().is_some() {
            return self.takes_attempts(WITHIN / 2).await;
        }
        if let Some(node) = self.as_node() {
            return self.newest_term_as_node(&node, WITHIN).await.is_ok();
        }
        let request = Request::new().payload("{}".into()).timeout(None);
        let asked =
            self.wire().client.send_request(format!("$JS.API.STREAM.INFO.{stream}"), request);
        match timeout(WITHIN, asked).await {
            Ok(Ok(answer)) => serde_json::from_slice::<StreamInfo>(&answer.payload)
                .is_ok_and(|info| info.is_of_leader()),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}
