//! The archiver: from the journal to HISTORY, crash-safe at every step.
//!
//! A round takes what was finished long enough ago in one journal stream, and then, in this order: writes it to HISTORY, reads it back,
//! indexes it, and removes it from the journal, each request before its final state, so that no message ever looks open again. After a crash
//! in between, the next archiver begins with what is in HISTORY: what is marked there as archived is removed and not copied.
//!
//! Two archivers at once do no harm: a write to HISTORY is refused if there is one that its author has not seen.

use std::collections::HashMap;
use std::time::Duration;

use common::Timestamp;
use futures_util::StreamExt as _;

use super::collect::{Collected, Pair, Shard, Until};
use super::commit::Progress;
use crate::api::StreamInfo;
use crate::connection::Broker;
use crate::error::Result;
use crate::wire::CALL;

/// What just finished stays for this long, however much that is: somebody may still be reading it.
const SETTLED: Duration = Duration::from_secs(60);

/// Removals that are under way at once.
const AT_ONCE: usize = 32;

/// What the journal keeps of what is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// For this long.
    pub hot: Duration,
    /// At most so many messages; above that, the oldest leave sooner.
    pub most: u64,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self { hot: Duration::from_secs(24 * 3600), most: 200_000 }
    }
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Messages that were copied to HISTORY.
    pub archived: usize,
    /// Messages that were removed from the journal.
    pub removed: usize,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// Moves finished messages from the journal to HISTORY.
#[derive(Debug)]
pub struct Archiver {
    broker: Broker,
    options: ArchiveOptions,
    known: Option<Known>,
}

/// What an archiver knows, until something goes wrong: then it begins anew.
#[derive(Debug)]
struct Known {
    progress: Progress,
    /// By the name of the stream.
    shards: HashMap<String, Shard>,
    /// The next one's turn.
    turn: u32,
}

impl Archiver {
    /// An archiver. Nothing is read until its first round.
    #[must_use]
    pub fn new(broker: Broker, options: ArchiveOptions) -> Self {
        Self { broker, options, known: None }
    }

    /// Archives what is due in the next journal stream, up to 400 messages.
    ///
    /// # Errors
    /// When the broker does not answer, or another archiver was faster: the next round begins with what is there then.
    pub async fn round(&mut self) -> Result<Round> {
        let mut known = match self.known.take() {
            Some(known) => known,
            None => Known {
                progress: self.broker.archive_progress().await?,
                shards: HashMap::new(),
                turn: 0,
            },
        };
        let round = self.advance(&mut known).await?;
        self.known = Some(known);
        Ok(round)
    }

    async fn advance(&self, known: &mut Known) -> Result<Round> {
        let broker = &self.broker;
        let shards = broker.subjects().shards();
        let number = known.turn % shards;
        known.turn = number + 1;
        let stream = broker.subjects().journal_stream(number);
        let info = broker.wire().stream_info(&stream, CALL).await??;
        let now = info.ts.unwrap_or_default();
        let until = until(&self.options, shards, now);
        let shard = known.shards.entry(stream.clone()).or_default();
        let Collected { pairs, more } = shard.collect(broker, &stream, &info, &until).await?;
        let mark = known.progress.marks.of(number, &info.created);
        if mark > info.state.last_seq {
            tracing::warn!(
                "{stream} ends at {}, and was archived up to {mark}: it has lost records",
                info.state.last_seq
            );
        }
        let (mut left, mut fresh): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|pair| pair.final_.seq <= mark);
        // What is marked as archived is looked for before it goes.
        let mut found = Vec::new();
        for pair in left.drain(..) {
            let there = broker.archived(&pair.key.message_id).await?;
            let is_it = |seq| there.iter().any(|archived| archived.final_.seq == seq);
            if is_it(pair.final_.seq) { found.push(pair) } else { fresh.push(pair) }
        }
        let remove: Vec<_> = found.iter().chain(&fresh).map(places).collect();
        let archived = fresh.len();
        if archived > 0 {
            broker.archive(number, &info.created, fresh, &mut known.progress).await?;
        }
        let removed = remove.len();
        if removed > 0 {
            self.remove(&stream, &info, shard.settled(), remove).await?;
        }
        Ok(Round { archived, removed, more })
    }

    /// Removes messages from the journal that are in HISTORY. Everything before `settled` is.
    async fn remove(
        &self,
        stream: &str,
        info: &StreamInfo,
        settled: u64,
        messages: Vec<Places>,
    ) -> Result<()> {
        let mut purged = 0;
        // With replicas, one that lags may have been read: then only what was seen goes.
        if self.broker.replicas() == 1 && settled > info.state.first_seq {
            let body = serde_json::json!({ "seq": settled });
            self.broker.wire().purge_as(stream, &body).await?;
            purged = settled;
        }
        let requests = messages.iter().filter_map(|places| places.request);
        let requests: Vec<u64> = requests.filter(|seq| *seq >= purged).collect();
        let finals = messages.iter().map(|places| places.final_);
        let finals: Vec<u64> = finals.filter(|seq| *seq >= purged).collect();
        self.delete(stream, requests).await?;
        self.delete(stream, finals).await
    }

    async fn delete(&self, stream: &str, seqs: Vec<u64>) -> Result<()> {
        let wire = self.broker.wire();
        let deletes = seqs.into_iter().map(|seq| {
            let (wire, stream) = (wire.clone(), stream.to_owned());
            async move { wire.delete(&stream, seq).await }
        });
        let mut deletes = futures_util::stream::iter(deletes).buffer_unordered(AT_ONCE);
        while let Some(deleted) = deletes.next().await {
            deleted?;
        }
        Ok(())
    }
}

/// Where a message is in its journal.
#[derive(Debug, Clone, Copy)]
struct Places {
    request: Option<u64>,
    final_: u64,
}

fn places(pair: &Pair) -> Places {
    Places { request: pair.request.as_ref().map(|request| request.seq), final_: pair.final_.seq }
}

/// What is due at a moment of the broker's clock, in a journal of so many streams.
fn until(options: &ArchiveOptions, shards: u32, now: Timestamp) -> Until {
    let before = |ago: Duration| {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_sub(ago))
    };
    Until {
        at: before(options.hot),
        settled: before(options.hot.min(SETTLED)),
        hot: options.most / u64::from(shards.max(1)),
    }
}
