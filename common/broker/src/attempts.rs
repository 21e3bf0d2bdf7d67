//! ATTEMPTS: which attempts of a message are on record. What counts them is not among what the worker writes, so that no flood of
//! events, of this agent or another, hides that a message has killed its worker before.
//!
//! The marks of a message are few and small. They are written along with the events that they belong to, and leave when the
//! message is final.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::HeaderMap;
use common::AgentName;
use common::event::{Event, EventBody};
use common::frame::ask::{ShimAsk, Told};
use common::message::{Final, MessageKey};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::api::header;
use crate::asked;
use crate::connection::{Broker, queued};
use crate::error::Result;
use crate::events::EventBatch;
use crate::journal::encode;
use crate::read::Reader;
use crate::wire::CALL;

/// How long the record that clears a message's marks stays itself: the least that the server takes.
const CLEARED: &str = "1s";

/// What is on record about a message's attempts: the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptMark {
    /// The last attempt.
    pub attempt: u32,
    /// Its incarnation.
    pub incarnation: u64,
    /// Whether it has ended without an answer.
    pub ended: bool,
}

/// What events mean for the record of attempts; none if they change nothing.
fn mark_of(batch: &EventBatch) -> Option<AttemptMark> {
    let begins = |event: &Event| matches!(event.body, EventBody::Delivered { .. });
    let ends = |event: &Event| matches!(event.body, EventBody::Error { .. });
    let ended = batch.events.last().is_some_and(ends);
    let marks = ended || batch.events.iter().any(begins);
    let (attempt, incarnation) = (batch.attempt, batch.incarnation);
    marks.then_some(AttemptMark { attempt, incarnation, ended })
}

/// Whether a message that ends like this may have marks: not if its only attempt published nothing before its end.
fn may_have_marks(final_: &Final) -> bool {
    let begins = |event: &Event| matches!(event.body, EventBody::Delivered { .. });
    final_.attempts > 1 || (final_.attempts == 1 && !final_.tail.iter().any(begins))
}

impl Broker {
    fn attempts_stream(&self) -> String {
        self.subjects().stream("ATTEMPTS")
    }

    /// Records what a batch of events says of its attempt, and waits for the broker's answer. Repeating it is harmless.
    pub(crate) async fn mark(&self, batch: &EventBatch) -> Result<()> {
        let Some(mark) = mark_of(batch) else {
            return Ok(());
        };
        let subject = self.subjects().attempts(&batch.key());
        self.wire().publish(subject, HeaderMap::new, encode(&mark)?, CALL).await.map(|_| ())
    }

    /// Whether what happens in attempts can be stored now: the streams have leaders that answer within a time.
    pub async fn takes_attempts(&self, within: Duration) -> bool {
        let ask = || ShimAsk::TakesAttempts { within };
        match self.asked_within(2 * within, ask).await {
            Ok(None) => {}
            Ok(Some(told)) => return matches!(told, Told::Is(true)),
            Err(_) => return false,
        }
        if let Some((_, known)) = self.inner.takes_lately.known() {
            return known;
        }
        let streams = [self.attempts_stream(), self.events_stream()];
        let asked = streams.map(async |stream| self.wire().stream_info(&stream, within).await);
        let takes = join_all(asked).await.iter().all(|told| matches!(told, Ok(Ok(_))));
        self.inner.takes_lately.learn(Instant::now(), takes);
        takes
    }

    /// What is on record about a message's attempts: the furthest mark, whatever came last, since an earlier incarnation may be
    /// late. Read from the stream's leader.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn last_mark(&self, key: &MessageKey) -> Result<Option<AttemptMark>> {
        if let Some(told) = self.asked(|| ShimAsk::Mark(key.clone())).await? {
            return asked::mark(&told);
        }
        let (stream, subject) = (self.attempts_stream(), self.subjects().attempts(key));
        let records = if self.replicas() == 1 {
            Reader::new(self.wire(), stream, subject, 1, u64::MAX).rest().await?
        } else {
            self.wire().all_of(&stream, &subject).await?
        };
        // The record that clears them is empty.
        Ok(records.iter().filter_map(|record| record.parse().ok()).max())
    }

    /// The messages of an agent that have marks, by the index of the stream's leader: few, however many are open. One of which they were
    /// just cleared may be among them.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn marked(&self, agent: &AgentName) -> Result<HashSet<MessageKey>> {
        let marks = self.subjects().attempts_of(agent);
        let index = self.wire().index(&self.attempts_stream(), &marks).await?;
        let subjects = index.subjects.keys();
        Ok(subjects.filter_map(|subject| self.subjects().parse_attempts(subject)).collect())
    }

    /// Removes a message's marks, now that it is final. Not awaited: what stays behind goes with its age.
    pub(crate) async fn clear_marks(&self, key: &MessageKey, final_: &Final) {
        if !may_have_marks(final_) {
            return;
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::ROLLUP, "sub");
        headers.insert(header::TTL, CLEARED);
        let subject = self.subjects().attempts(key);
        let told = self.wire().client.publish_with_headers(subject, headers, "".into());
        if let Err(error) = queued(told).await {
            tracing::debug!(%error, "the marks of a finished message stay for a while");
        }
    }
}
