//! Reading a stream from one sequence to another: direct gets in batches, the fastest way for what has an end.
//!
//! A direct get is answered by any replica, and one that lags does not have the newest records. What is decided by "there is
//! nothing", or by "there is nothing more", asks the stream's leader, or has it confirm the end ([`Reader::of`]):
//!
//! | Read | Decides | How |
//! |---|---|---|
//! | `request_of`, `final_of`, `last_mark`, `dead_letter`, `dead_named`, `last_control`, `admitted`, the lease | yes | the leader |
//! | which of an agent's messages are open | yes: floors, charges | the leader, by its index of subjects |
//! | where these begin, `requests_between`, `scan`, `dead_letters`, `drop_dead_letters` | yes: floors, charges, what is carried away | confirmed |
//! | `find` | yes: what a user named does not exist | confirmed |
//! | `events` | yes: a dead letter is written from them, once | confirmed |
//! | `look_back`, snapshots | yes: what was charged to whom; what a fleet goes on from | confirmed |
//! | `count_requests`, the count of finals of `room`, `logs` | no: they are shown, or an estimate | any replica |
//! | followers (`follow_control`, `follow_events`, `follow_logs`) | no: what they miss comes later | any replica |
//!
//! A leader that was frozen and does not know yet that it was deposed may answer too, and any server while nobody leads. So a stream's
//! state and index count only from a leader that most of its servers have answered lately (`Cluster::is_of_leader`), and that a record is
//! not there is confirmed by the index (`Wire::last`, `Wire::all_of`). What must not go wrong even if both fail is a compare-and-set.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::{Message, StatusCode};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};

use crate::api::{Record, header};
use crate::connection::queued;
use crate::error::{BrokerError, Result};
use crate::wire::{CALL, Wire, pause};

/// The most records of one batch: the server's own limit is 1024.
const BATCH: u32 = 1000;

/// The most bytes of one batch.
const BATCH_BYTES: u32 = 8 << 20;

/// How long a deposed leader that can be reached may not know it: its servers send heartbeats every second (nats-server 2.15, `hbInterval`).
const DEPOSED: Duration = Duration::from_millis(1500);

/// A read under way.
#[derive(Debug)]
pub(crate) struct Reader {
    wire: Wire,
    stream: String,
    filter: String,
    next: u64,
    until: u64,
    page: VecDeque<Record>,
    /// Whether nothing comes after the page.
    ended: bool,
    /// The most bytes of a page.
    page_bytes: u32,
    /// About how many records there are still, if that is known: no more are asked for at once. The server would send as many as it may
    /// of what comes after the end.
    expected: Option<u64>,
    /// Whether a replica answers that may not have the newest records: then its end is compared with the leader's.
    replicated: bool,
}

/// How a page ended.
enum PageEnd {
    More,
    /// The replica has no more.
    Complete,
    /// It has more than is wanted.
    Beyond,
    /// Nobody listened, or the connection broke: what came is good.
    Broken,
}

impl Reader {
    /// Reads the filter's records from sequence `from` up to and including `until`.
    pub(crate) fn new(wire: &Wire, stream: String, filter: String, from: u64, until: u64) -> Self {
        Self {
            wire: wire.clone(),
            stream,
            filter,
            next: from.max(1),
            until,
            page: VecDeque::new(),
            ended: false,
            page_bytes: BATCH_BYTES,
            expected: None,
            replicated: false,
        }
    }

    /// The same, of a stream with so many replicas.
    pub(crate) fn of(mut self, replicas: usize) -> Self {
        self.replicated = replicas > 1;
        self
    }

    /// The same, where so many records are to be read.
    pub(crate) fn expecting(mut self, records: u64) -> Self {
        self.expected = Some(records);
        self
    }

    /// The same, in pages of so many bytes: one is there at once or not at all.
    pub(crate) fn pages(mut self, bytes: u32) -> Self {
        self.page_bytes = bytes;
        self
    }

    /// The next record; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>> {
        if self.page.is_empty() && !self.ended && self.next <= self.until {
            self.turn().await?;
        }
        Ok(self.page.pop_front())
    }

    /// All that is left.
    pub(crate) async fn rest(mut self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        while let Some(record) = self.next().await? {
            records.push(record);
        }
        Ok(records)
    }

    /// Reads the next page, again and again until there is one.
    async fn turn(&mut self) -> Result<()> {
        let deadline = Instant::now() + CALL;
        loop {
            match self.read_page(deadline).await? {
                PageEnd::Complete if self.replicated && self.lags().await? => {
                    if self.page.is_empty() {
                        pause(deadline, CALL).await?;
                        continue;
                    }
                }
                PageEnd::Complete | PageEnd::Beyond => self.ended = true,
                PageEnd::Broken if self.page.is_empty() => {
                    pause(deadline, CALL).await?;
                    continue;
                }
                PageEnd::More | PageEnd::Broken => {}
            }
            return Ok(());
        }
    }

    /// Whether the leader has a record that the replica did not have.
    async fn lags(&self) -> Result<bool> {
        // Of all subjects, the server looks at the stream's last sequence alone, and finds nothing where that was removed.
        if self.filter == ">" {
            return self.has_next().await;
        }
        let last = self.wire.last(&self.stream, &self.filter).await?;
        Ok(last.is_some_and(|last| last.seq >= self.next))
    }

    /// Whether the leader has anything from the next sequence on. The index cannot confirm that it has not: it counts by subject, not by
    /// sequence. So a leader that most servers have answered lately says where the stream ends; and where its end was removed, "nothing"
    /// counts once a deposed leader has heard of it.
    async fn has_next(&self) -> Result<bool> {
        let body = serde_json::json!({ "seq": self.next, "next_by_subj": ">" });
        if self.wire.get(&self.stream, &body, CALL).await?.is_some() {
            return Ok(true);
        }
        if self.wire.last_seq(&self.stream).await? < self.next {
            return Ok(false);
        }
        sleep(DEPOSED).await;
        Ok(self.wire.get(&self.stream, &body, CALL).await?.is_some())
    }

    async fn read_page(&mut self, deadline: Instant) -> Result<PageEnd> {
        let epoch = self.wire.up(deadline, CALL).await?;
        let client = &self.wire.client;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(BrokerError::other)?;
        let most = self.until.saturating_sub(self.next).saturating_add(1);
        let most = self.expected.map_or(most, |expected| most.min(expected.max(1)));
        let body = serde_json::json!({
            "seq": self.next,
            "batch": u64::from(BATCH).min(most),
            "max_bytes": self.page_bytes,
            "next_by_subj": self.filter,
        });
        let request = format!("$JS.API.DIRECT.GET.{}", self.stream);
        queued(client.publish_with_reply(request, inbox, body.to_string().into())).await?;
        let mut last = 0;
        loop {
            let answer = tokio::select! {
                biased;
                answer = timeout_at(deadline, answers.next()) => answer,
                () = self.wire.reconnected(epoch) => return Ok(PageEnd::Broken),
            };
            let Ok(answer) = answer else {
                return Err(BrokerError::Timeout(CALL));
            };
            let Some(answer) = answer else {
                return Err(BrokerError::other("the client is closed"));
            };
            match answer.status {
                None | Some(StatusCode::OK) => {}
                Some(status) => return page_end(status, &answer),
            }
            // Every record names the one before it in the batch.
            if number(&answer, header::LAST_SEQUENCE) != Some(last) {
                return Ok(PageEnd::Broken);
            }
            let record = Record::from_direct(answer)?;
            if record.seq > self.until {
                return Ok(PageEnd::Beyond);
            }
            last = record.seq;
            self.next = record.seq + 1;
            self.expected = self.expected.map(|expected| expected.saturating_sub(1));
            self.page.push_back(record);
        }
    }
}

fn page_end(status: StatusCode, answer: &Message) -> Result<PageEnd> {
    match status.as_u16() {
        204 if number(answer, header::NUM_PENDING) == Some(0) => Ok(PageEnd::Complete),
        204 => Ok(PageEnd::More),
        404 => Ok(PageEnd::Complete),
        503 => Ok(PageEnd::Broken),
        other => Err(BrokerError::Other(format!(
            "{other} {}",
            answer.description.as_deref().unwrap_or_default()
        ))),
    }
}

fn number(message: &Message, name: &'static str) -> Option<u64> {
    message.headers.as_ref()?.get(name)?.as_str().parse().ok()
}
