//! SNAPSHOTS: the folded control log as of one of its records, so that a start need not read all of the log.
//!
//! What is in them is the fold's business: here they are bytes with a head. A snapshot is several records of one subject, and
//! counts when all of them are there; which one is believed is decided by [`SnapshotHead::doubt`] and by whoever reads the content.

mod chunks;

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::snapshot::{Doubt, Judged, LogView, Logged, SnapshotHead};
use common::{AgentName, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::api::{Published, code, header};
use crate::connection::Broker;
use crate::control::{Extent, logged};
use crate::error::{BrokerError, Result};
use crate::read::Reader;
use crate::wire::{CALL, pause};

/// What was found where a snapshot of the log was looked for.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What the log holds. It was asked for after the snapshots: none that belongs to the log can lie beyond its end.
    pub extent: Extent,
    /// The newest one that is trusted, and what was made of it.
    pub found: Option<(SnapshotHead, T)>,
    /// Newer ones that are not trusted, and why.
    pub doubted: Vec<(u64, Doubt)>,
}

impl<T> Loaded<T> {
    /// Whether the log with what was found is all that ever was in it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.extent.first <= 1 || self.found.is_some()
    }
}

impl Broker {
    fn snapshot_stream(&self) -> String {
        self.subjects().stream("SNAPSHOTS")
    }

    /// Writes a snapshot, and reads it back. An existing one is not changed.
    ///
    /// # Errors
    /// When the broker does not answer, it is too large, or is not read back as it was written.
    pub async fn write_snapshot(&self, head: &SnapshotHead, json: Bytes) -> Result<()> {
        let size = chunks::CHUNK.min(self.max_record());
        let (of, whole) = (head.clone(), json.clone());
        let cut = apart(move || chunks::cut(&of, &whole, size)).await?;
        let Some(cut) = cut else {
            let size = json.len();
            return Err(BrokerError::Other(format!("a snapshot of {size} bytes is too large")));
        };
        let subject = self.subjects().snapshot(head.seq);
        for (number, chunk) in cut.into_iter().enumerate() {
            // Of content and place: the same chunk is stored once, and another build's is not taken for it.
            let id = format!("{}.{number}.{}", head.seq, chunks::id(&chunk));
            let headers = || -> HeaderMap {
                let mut headers = chunk.headers.clone();
                headers.insert(header::MESSAGE_ID, id.as_str());
                headers
            };
            let payload = chunk.payload.clone();
            match self.wire().publish(subject.clone(), headers, payload, CALL).await?.0 {
                Published::Stored(_) | Published::Duplicate(_) => {}
                Published::WrongLast => return Err(BrokerError::other("wrong last sequence")),
            }
        }
        let written = head.clone();
        let is_it = move |head: &SnapshotHead, read: &[u8]| match *head == written && read == json {
            true => Ok(()),
            false => Err(Doubt::Content("it is not what was written".to_owned())),
        };
        let read = self.read_snapshot(head.seq, is_it).await?;
        read.map_err(|doubt| BrokerError::Other(format!("snapshot {}: {doubt}", head.seq)))
    }

    /// The newest snapshot that is whole, belongs to the log, and that `restore` takes.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn load_snapshot<T: Send + 'static>(
        &self,
        restore: impl Fn(&SnapshotHead, &[u8]) -> std::result::Result<T, Doubt> + Copy + Send + 'static,
    ) -> Result<Loaded<T>> {
        let seqs = self.snapshots().await?;
        let extent = self.control_extent().await?;
        let mut doubted = Vec::new();
        for seq in seqs.into_iter().rev() {
            match self.judge(seq, extent, restore).await? {
                Ok(found) => return Ok(Loaded { extent, found: Some(found), doubted }),
                Err(doubt) => doubted.push((seq, doubt)),
            }
        }
        Ok(Loaded { extent, found: None, doubted })
    }

    /// All snapshots, oldest first, each with the doubt about it; and what the log holds.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn judge_snapshots<T: Send + 'static>(
        &self,
        restore: impl Fn(&SnapshotHead, &[u8]) -> std::result::Result<T, Doubt> + Copy + Send + 'static,
    ) -> Result<(Extent, Vec<Judged>)> {
        let seqs = self.snapshots().await?;
        let extent = self.control_extent().await?;
        let mut judged = Vec::new();
        for seq in seqs {
            judged.push((seq, self.judge(seq, extent, restore).await?.err()));
        }
        Ok((extent, judged))
    }

    /// The sequences of which there is a snapshot, or a part of one.
    async fn snapshots(&self) -> Result<BTreeSet<u64>> {
        let stream = self.snapshot_stream();
        match self.wire().stream_info(&stream, CALL).await? {
            Ok(info) if info.state.messages == 0 => return Ok(BTreeSet::new()),
            Ok(_) => {}
            // Made by a version that took none: the next supervisor makes it.
            Err(error) if error.err_code == code::STREAM_NOT_FOUND => return Ok(BTreeSet::new()),
            Err(error) => return Err(error.into()),
        }
        let index = self.wire().index(&stream, &self.subjects().snapshot_filter()).await?;
        let seqs = index.subjects.keys().filter_map(|name| self.subjects().parse_snapshot(name));
        Ok(seqs.collect())
    }

    async fn judge<T: Send + 'static>(
        &self,
        seq: u64,
        extent: Extent,
        restore: impl Fn(&SnapshotHead, &[u8]) -> std::result::Result<T, Doubt> + Send + 'static,
    ) -> Result<std::result::Result<(SnapshotHead, T), Doubt>> {
        let there = if (extent.first..=extent.last).contains(&seq) {
            self.logged(seq).await?
        } else {
            None
        };
        let log = LogView { first: extent.first, last: extent.last, there };
        let judged = move |head: &SnapshotHead, json: &[u8]| match head.doubt(&log) {
            Some(doubt) => Err(doubt),
            None => Ok((head.clone(), restore(head, json)?)),
        };
        self.read_snapshot(seq, judged).await
    }

    /// Reads a snapshot, and what `restore` makes of it: of the first that it takes, where several are there for one sequence.
    async fn read_snapshot<T: Send + 'static>(
        &self,
        seq: u64,
        restore: impl Fn(&SnapshotHead, &[u8]) -> std::result::Result<T, Doubt> + Send + 'static,
    ) -> Result<std::result::Result<T, Doubt>> {
        let (stream, subject) = (self.snapshot_stream(), self.subjects().snapshot(seq));
        let reader = Reader::new(self.wire(), stream, subject, 1, u64::MAX).of(self.replicas());
        let records = reader.rest().await?;
        apart(move || {
            let mut doubts = Vec::new();
            for joined in chunks::join(seq, &records) {
                let restored =
                    joined.map_err(Doubt::Damaged).and_then(|(head, json)| restore(&head, &json));
                match restored {
                    Ok(restored) => return Ok(restored),
                    Err(doubt) => doubts.push(doubt),
                }
            }
            // Something that is just being written may be beside what is of no use to anybody.
            doubts.sort_by_key(Doubt::is_foreign);
            Err(doubts.swap_remove(0))
        })
        .await
    }

    /// The record of the log at a sequence; none if it is gone.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn logged(&self, seq: u64) -> Result<Option<Logged>> {
        let deadline = Instant::now() + CALL;
        loop {
            let found = self.wire().at(&self.control_stream(), seq).await?;
            // A leader that is none any more may not have it. Nobody else lets it wait.
            let is_alone = self.replicas() == 1;
            if found.is_some() || is_alone || pause(deadline, CALL).await.is_err() {
                return Ok(found.map(|record| logged(record.at, &record.payload)));
            }
        }
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_snapshot(&self, seq: u64) -> Result<()> {
        let subject = self.subjects().snapshot(seq);
        self.wire().purge(&self.snapshot_stream(), &subject).await.map(drop)
    }

    /// The sequence of the log's first record that was stored at a time or later; of the next one, if there is none; 0 if a replica that
    /// lags leaves that open.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn control_since(&self, at: Timestamp) -> Result<u64> {
        let (stream, filter) = (self.control_stream(), self.subjects().control_filter());
        if let Some(first) = self.wire().since(&stream, &filter, at).await? {
            return Ok(first.seq);
        }
        match self.wire().last(&stream, &filter).await? {
            Some(last) if last.at >= at => Ok(0),
            Some(last) => Ok(last.seq + 1),
            None => Ok(self.control_extent().await?.first),
        }
    }

    /// Removes the log's records before a sequence. Only what snapshots cover may go.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn trim_control(&self, first: u64) -> Result<u64> {
        let body = serde_json::json!({ "seq": first });
        self.wire().purge_as(&self.control_stream(), &body).await
    }

    /// Whether an agent existed as of the newest snapshot, and as of which record that is; none without a snapshot. The log itself may
    /// no longer hold anything of an agent that keeps running.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn agent_in_snapshot(&self, agent: &AgentName) -> Result<Option<(u64, bool)>> {
        /// What every format of a state has.
        #[derive(Deserialize)]
        struct Names {
            agents: std::collections::BTreeMap<AgentName, IgnoredAny>,
        }
        let names = |_: &SnapshotHead, json: &[u8]| {
            let parsed = serde_json::from_slice::<Names>(json);
            parsed.map_err(|error| Doubt::Content(error.to_string()))
        };
        let loaded = self.load_snapshot(names).await?;
        let found = loaded.found.map(|(head, names)| (head.seq, names.agents.contains_key(agent)));
        Ok(found)
    }
}

/// Runs slow work outside the runtime's thread: a leader has a lease to renew. The work ends, even if nothing waits for it.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(BrokerError::other)
}
