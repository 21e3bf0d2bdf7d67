//! The archiver: from the journal to HISTORY, crash-safe at every step.
//!
//! A round takes what was finished first, if that is long enough ago, and then, in this order: writes it to HISTORY, reads it back,
//! indexes it, and removes it from the journal, each request before its final state, so that no message ever looks open again. After a crash
//! in between, the next archiver begins with what is in HISTORY: what is marked there as archived is removed and not copied.
//!
//! Two archivers at once do no harm: a write to HISTORY is refused if there is one that its author has not seen.

use std::collections::BTreeSet;
use std::time::Duration;

use common::{AgentName, Timestamp};
use futures_util::future::try_join_all;

use super::collect::{BYTES, MESSAGES, Pair, Shard, Until};
use super::commit::Progress;
use super::record::Archived;
use crate::api::StreamInfo;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::wire::CALL;

/// So many times what it is to hold is much more.
const PRESSED: u64 = 2;

/// What the journal keeps of what is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// For this long.
    pub hot: Duration,
    /// At most so many messages; above that, the oldest leave sooner,
    pub most: u64,
    /// but none within this time: somebody may still be reading it.
    pub settled: Duration,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        let (hot, settled) = (Duration::from_secs(24 * 3600), Duration::from_secs(60));
        Self { hot, most: 200_000, settled }
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
    /// Whether the journal holds much more than it is to hold: the server's memory grows.
    pub pressed: bool,
}

/// Moves finished messages from the journal to HISTORY.
#[derive(Debug)]
pub struct Archiver {
    broker: Broker,
    options: ArchiveOptions,
    /// Agents of which nothing is kept.
    unkept: BTreeSet<AgentName>,
    known: Option<Known>,
}

/// What an archiver knows, until something goes wrong: then it begins anew.
#[derive(Debug)]
struct Known {
    progress: Progress,
    shards: Vec<Shard>,
}

impl Archiver {
    /// An archiver. Nothing is read until its first round.
    #[must_use]
    pub fn new(broker: Broker, options: ArchiveOptions) -> Self {
        Self { broker, options, unkept: BTreeSet::new(), known: None }
    }

    /// From the next round on, the messages of these agents are not copied: they are erased.
    pub fn keep_nothing_of(&mut self, agents: BTreeSet<AgentName>) {
        self.unkept = agents;
    }

    /// Archives what is due, up to 400 messages.
    ///
    /// # Errors
    /// When the broker does not answer, or another archiver was faster: the next round begins with what is there then.
    pub async fn round(&mut self) -> Result<Round> {
        let mut known = match self.known.take() {
            Some(known) => known,
            None => Known {
                progress: self.broker.archive_progress().await?,
                shards: (0..self.broker.subjects().shards()).map(|_| Shard::default()).collect(),
            },
        };
        let round = self.advance(&mut known).await?;
        self.known = Some(known);
        Ok(round)
    }

    async fn advance(&self, known: &mut Known) -> Result<Round> {
        let journals = self.journals().await?;
        for (shard, Journal { stream, info, .. }) in known.shards.iter_mut().zip(&journals) {
            shard.begin(stream, info)?;
        }
        let (due, more) = self.due(known, &journals).await?;
        let mut places: Vec<Vec<Places>> = journals.iter().map(|_| Vec::new()).collect();
        let mut fresh = Vec::new();
        for (number, pair) in due {
            let Some(journal) = journals.get(number) else { continue };
            let erase = self.unkept.contains(&pair.key.agent);
            places[number].push(Places { erase, ..Places::of(&pair) });
            if erase {
                continue;
            }
            let mark = known.progress.marks.of(journal.shard, &journal.info.created);
            if pair.final_.seq > mark || !self.is_archived(&pair).await? {
                fresh.push((journal.shard, journal.info.created.clone(), pair));
            }
        }
        let archived = fresh.len();
        if archived > 0 {
            self.broker.archive(fresh, &mut known.progress).await?;
        }
        let mut removed = 0;
        for ((journal, shard), places) in journals.iter().zip(&known.shards).zip(places) {
            removed += places.len();
            if !places.is_empty() {
                self.remove(journal, shard.settled(), places).await?;
            }
        }
        let messages: u64 = journals.iter().map(|journal| journal.info.state.messages).sum();
        // A finished message has two records.
        let pressed = more && messages / 2 > self.options.most.saturating_mul(PRESSED);
        Ok(Round { archived, removed, more, pressed })
    }

    async fn journals(&self) -> Result<Vec<Journal>> {
        let subjects = self.broker.subjects();
        let told = (0..subjects.shards()).map(async |shard| {
            let stream = subjects.journal_stream(shard);
            let info = self.broker.wire().stream_info(&stream, CALL).await??;
            Ok::<_, BrokerError>(Journal { shard, stream, info })
        });
        try_join_all(told).await
    }

    /// The messages that were finished first, of all journal streams, each with the number of its own; and whether there may be more.
    async fn due(
        &self,
        known: &mut Known,
        journals: &[Journal],
    ) -> Result<(Vec<(usize, Pair)>, bool)> {
        let (mut due, mut bytes) = (Vec::new(), 0);
        while due.len() < MESSAGES && bytes < BYTES {
            for (shard, Journal { stream, info, .. }) in known.shards.iter_mut().zip(journals) {
                // By the clock of whoever stored the records.
                let now = info.ts.unwrap_or_default();
                let until = until(&self.options, journals.len(), now);
                shard.fill(&self.broker, stream, info, &until).await?;
            }
            let finished = known.shards.iter().enumerate();
            let finished = finished.filter_map(|(number, shard)| Some((shard.finished()?, number)));
            let Some((_, number)) = finished.min() else { break };
            let pair = known.shards.get_mut(number).and_then(Shard::take);
            bytes += pair.as_ref().map_or(0, Pair::bytes);
            due.extend(pair.map(|pair| (number, pair)));
        }
        let more = due.len() == MESSAGES || bytes >= BYTES;
        Ok((due, more))
    }

    /// Whether HISTORY has a message that is marked as archived: it is looked for before it goes.
    async fn is_archived(&self, pair: &Pair) -> Result<bool> {
        let there = self.broker.archived(&pair.key.message_id).await?;
        let final_ = (pair.final_.seq, pair.final_.at);
        let is_it = |archived: &Archived| {
            archived.key == pair.key && (archived.final_.seq, archived.final_.at) == final_
        };
        Ok(there.iter().any(is_it))
    }

    /// Removes messages from the journal that are in HISTORY. Everything before `settled` is.
    async fn remove(
        &self,
        Journal { stream, info, .. }: &Journal,
        settled: u64,
        messages: Vec<Places>,
    ) -> Result<()> {
        let mut purged = 0;
        let (erased, messages): (Vec<_>, Vec<_>) = messages.into_iter().partition(|it| it.erase);
        let requests = erased.iter().filter_map(|places| places.request).collect();
        self.broker.remove(stream, requests, true).await?;
        self.broker
            .remove(stream, erased.iter().map(|places| places.final_).collect(), true)
            .await?;
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
        self.broker.remove(stream, requests, false).await?;
        self.broker.remove(stream, finals, false).await
    }
}

/// Where a message is in its journal.
#[derive(Debug, Clone, Copy)]
struct Places {
    request: Option<u64>,
    final_: u64,
    /// Whether its text is to be gone at once.
    erase: bool,
}

impl Places {
    fn of(pair: &Pair) -> Self {
        let request = pair.request.as_ref().map(|request| request.seq);
        Self { request, final_: pair.final_.seq, erase: false }
    }
}

/// A journal stream as it is at the beginning of a round.
#[derive(Debug)]
struct Journal {
    shard: u32,
    stream: String,
    info: StreamInfo,
}

/// What is due at a moment of the broker's clock, in a journal of so many streams.
fn until(options: &ArchiveOptions, shards: usize, now: Timestamp) -> Until {
    let before = |ago: Duration| {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_sub(ago))
    };
    Until {
        at: before(options.hot),
        settled: before(options.hot.min(options.settled)),
        hot: options.most / shards.max(1) as u64,
    }
}
