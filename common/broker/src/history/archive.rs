//! The archiver: from the journal to HISTORY, crash-safe at every step.
//!
//! A round takes what was finished first, if that is long enough ago, and then, in this order: writes it to HISTORY, reads it back,
//! indexes it, and removes it from the journal, each request before its final state, so that no message ever looks open again. While there
//! is more to copy, several rounds remove together. After a crash in between, the next archiver begins with what is in HISTORY: what is
//! marked there as archived is removed and not copied.
//!
//! Two archivers at once do no harm: a write to HISTORY is refused if there is one that its author has not seen.

use std::collections::BTreeSet;
use std::time::Duration;

use common::message::{Envelope, Outcome};
use common::{AgentName, Timestamp};
use futures_util::future::try_join_all;

use super::collect::{BYTES, MESSAGES, Pair, Shard, Until};
use super::commit::Progress;
use crate::api::StreamInfo;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::journal::{Stored, read_final};
use crate::wire::CALL;

/// At this many times of what it is to hold, the journal counts as much too large.
const PRESSED: u64 = 2;

/// So many copied messages leave a journal stream at once, while there are more to copy. Where a stream is cut off at its start, the server
/// writes down what it knows of all that is left, and of every single record that goes from its middle it keeps a note, which makes
/// what it counts slow: 400 at a time, a journal of a million lost 200 a second (measured, nats-server 2.15.1, 2 cores).
const AT_ONCE: usize = 4_000;

/// How long a dead letter may be lacking: a shim tries for 10 minutes to store it, at most.
const BURIED_WITHIN: Duration = Duration::from_secs(15 * 60);

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
    except: Except,
    known: Option<Known>,
}

/// Agents of which something else is kept than of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Except {
    /// Their messages are not copied: they are erased.
    pub unkept: BTreeSet<AgentName>,
    /// Their steps stay when their messages leave the journal, for [`Broker::drop_old_steps`].
    pub steps: BTreeSet<AgentName>,
}

/// What an archiver knows, until something goes wrong: then it starts over.
#[derive(Debug)]
struct Known {
    progress: Progress,
    shards: Vec<Shard>,
    /// What is to be removed of each of them.
    copied: Vec<Copied>,
    /// From where to where STEPS is still to be looked at for messages that have left; none once that is done.
    unswept: Option<(u64, u64)>,
    /// The same of QUESTIONS.
    unswept_questions: Option<(u64, u64)>,
}

/// Messages of a journal stream that are in HISTORY.
#[derive(Debug, Default)]
struct Copied {
    places: Vec<Places>,
    /// So many of them, the first ones, were behind a message that is open when the others before it were removed.
    behind: usize,
}

impl Archiver {
    /// An archiver. Nothing is read until its first round.
    #[must_use]
    pub fn new(broker: Broker, options: ArchiveOptions) -> Self {
        Self { broker, options, except: Except::default(), known: None }
    }

    /// From the next round on, these agents are treated otherwise than the others.
    pub fn except(&mut self, except: Except) {
        self.except = except;
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
                copied: (0..self.broker.subjects().shards()).map(|_| Copied::default()).collect(),
                unswept: self.broker.last_step().await?.map(|last| (1, last)),
                unswept_questions: self.broker.last_question().await?.map(|last| (1, last)),
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
        let archived = self.archived_before(known, &journals, &due).await?;
        self.bury(&journals, &due).await?;
        let mut erased: Vec<Vec<Places>> = journals.iter().map(|_| Vec::new()).collect();
        let mut copied = erased.clone();
        let mut fresh = Vec::new();
        let (mut keys, mut stepped) = (Vec::new(), Vec::new());
        let mut unkept = Vec::new();
        for (number, pair) in due {
            let Some(journal) = journals.get(number) else { continue };
            if self.except.unkept.contains(&pair.key.agent) {
                erased[number].push(Places::of(&pair));
                unkept.push(pair.key);
                continue;
            }
            if !self.except.steps.contains(&pair.key.agent) {
                stepped.push(pair.key.clone());
            }
            keys.push(pair.key.clone());
            copied[number].push(Places::of(&pair));
            if !archived.contains(&(number, pair.final_.seq)) {
                fresh.push((journal.shard, journal.info.created.clone(), pair));
            }
        }
        let archived = fresh.len();
        if archived > 0 {
            self.broker.archive(fresh, &mut known.progress).await?;
        }
        // Before their messages leave: what a crash keeps from going is found with them again.
        self.broker.drop_steps(&stepped, false).await?;
        self.broker.drop_steps(&unkept, true).await?;
        self.broker.drop_questions(&keys, false).await?;
        self.broker.drop_questions(&unkept, true).await?;
        let mut removed = 0;
        for (number, journal) in journals.iter().enumerate() {
            removed += erased[number].len();
            self.broker.remove_all(&journal.stream, &erased[number], true).await?;
            let waiting = &mut known.copied[number];
            waiting.places.append(&mut copied[number]);
            if !waiting.places.is_empty() && (!more || waiting.places.len() >= AT_ONCE) {
                let before = waiting.places.len();
                self.remove(journal, known.shards[number].settled(), waiting, !more).await?;
                removed += before - waiting.places.len();
            }
        }
        if let Some((from, until)) = known.unswept.filter(|_| !more) {
            let next = self.broker.sweep_steps(from, until, &self.except.steps).await?;
            known.unswept = next.map(|next| (next, until));
        }
        if let Some((from, until)) = known.unswept_questions.filter(|_| !more) {
            let next = self.broker.sweep_questions(from, until).await?;
            known.unswept_questions = next.map(|next| (next, until));
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

    /// The messages that were finished first, of all journal streams, each with the number of its stream; and whether there may be more.
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

    /// Stores the dead letters that are lacking. The shim of a message that has failed stores its letter, and only then says that it is done
    /// with it: if it dies before that, the next one gets the message again, as long as the journal has it. What failed long ago has had its
    /// letter, and a user may have dropped that.
    async fn bury(&self, journals: &[Journal], due: &[(usize, Pair)]) -> Result<()> {
        for (number, pair) in due {
            let now = journals.get(*number).and_then(|journal| journal.info.ts).unwrap_or_default();
            if now.since(pair.final_.at) > BURIED_WITHIN {
                continue;
            }
            let failed = read_final(&pair.final_).value;
            // A request that nobody can read is refused, and has none.
            let is_of_request =
                pair.request.as_ref().is_some_and(|it| Stored::<Envelope>::parse(it).is_ok());
            if failed.status == Outcome::Failed
                && is_of_request
                && self.broker.dead_letter(&pair.key).await?.is_none()
                && self.broker.bury_failed(&pair.key, &failed, Vec::new()).await?
            {
                tracing::info!("stored the dead letter of message {}", pair.key.message_id);
            }
        }
        Ok(())
    }

    /// Which messages HISTORY has, of those that are marked as archived: they are looked for before they go. Each by the number of its journal
    /// stream and its final state.
    async fn archived_before(
        &self,
        known: &Known,
        journals: &[Journal],
        due: &[(usize, Pair)],
    ) -> Result<BTreeSet<(usize, u64)>> {
        let marked = due.iter().filter(|(number, pair)| {
            journals.get(*number).is_some_and(|Journal { shard, info, .. }| {
                pair.final_.seq <= known.progress.marks.of(*shard, &info.created)
            })
        });
        let marked: Vec<_> = marked.collect();
        let ids = marked.iter().map(|(_, pair)| &pair.key.message_id);
        let there = self.broker.archived_all(ids).await?;
        let is_there = |pair: &Pair| {
            let final_ = (pair.final_.seq, pair.final_.at);
            there.get(&pair.key.message_id).into_iter().flatten().any(|archived| {
                archived.key == pair.key && (archived.final_.seq, archived.final_.at) == final_
            })
        };
        let there = marked.iter().filter(|(_, pair)| is_there(pair));
        Ok(there.map(|(number, pair)| (*number, pair.final_.seq)).collect())
    }

    /// Removes messages from the journal that are in HISTORY. Everything before `settled` is. What is behind a message that is open stays
    /// for another time: it may end until then. `all`: there is no other time soon.
    async fn remove(
        &self,
        Journal { stream, info, .. }: &Journal,
        settled: u64,
        copied: &mut Copied,
        all: bool,
    ) -> Result<()> {
        // With replicas, one that lags may have been read: then only what was seen goes.
        let cuts = self.broker.replicas() == 1;
        if cuts && settled > info.state.first_seq {
            let body = serde_json::json!({ "seq": settled });
            self.broker.wire().purge_as(stream, &body).await?;
        }
        let mut behind = 0;
        let mut nth = 0;
        copied.places.retain_mut(|places| {
            nth += 1;
            places.request = places.request.filter(|seq| !cuts || *seq >= settled);
            let stays = !cuts || places.final_ >= settled;
            behind += usize::from(stays && nth <= copied.behind);
            stays
        });
        let one_by_one = if all || !cuts { copied.places.len() } else { behind };
        let rest = copied.places.split_off(one_by_one);
        self.broker.remove_all(stream, &copied.places, false).await?;
        copied.behind = rest.len();
        copied.places = rest;
        Ok(())
    }
}

impl Broker {
    /// Removes messages from a journal stream, each request before its final state.
    async fn remove_all(&self, stream: &str, messages: &[Places], erase: bool) -> Result<()> {
        let requests = messages.iter().filter_map(|places| places.request).collect();
        self.remove(stream, requests, erase).await?;
        self.remove(stream, messages.iter().map(|places| places.final_).collect(), erase).await
    }
}

/// Where a message is in its journal.
#[derive(Debug, Clone, Copy)]
struct Places {
    request: Option<u64>,
    final_: u64,
}

impl Places {
    fn of(pair: &Pair) -> Self {
        let request = pair.request.as_ref().map(|request| request.seq);
        Self { request, final_: pair.final_.seq }
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
