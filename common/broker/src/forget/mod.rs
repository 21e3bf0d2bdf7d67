//! Forgetting: an agent's messages and answers are erased from every stream, and from the files of the server.
//!
//! Only what is finished is forgotten. A request goes before its final state, so that no message ever looks open that is not. Forgetting that
//! was interrupted is finished by the next: of a message that it has left half, the rest goes, whatever bounds there are in time.
//!
//! An archiver may be about to copy what it has read before. So HISTORY gets a record, which is removed at once: a copy that was prepared
//! before that is refused by its compare-and-set, and its author reads the journal again. What was copied before is found in HISTORY.

mod messages;
mod rest;

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use common::message::MessageKey;
use common::subject::Filled;
use common::{AgentName, ConversationId, ConversationTag, MessageId, Timestamp};
use futures_util::future::try_join_all;

use crate::connection::Broker;
use crate::error::{BrokerError, Result};

/// How many messages are erased together.
const TOGETHER: usize = 64;

/// How often it is checked again whether everything is gone, and retried,
const ROUNDS: u32 = 5;
/// the first time after this time, which doubles: a replica may lag.
const PAUSE: Duration = Duration::from_millis(200);

/// What is to be forgotten.
#[derive(Debug, Clone)]
pub struct Forget {
    /// Messages to this agent;
    pub agent: AgentName,
    /// only those of this conversation; one without a name has that of its only message;
    pub conversation: Option<ConversationId>,
    /// only those that the broker stored before this.
    pub before: Option<Timestamp>,
}

/// What was forgotten, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Finished messages.
    pub messages: u64,
    /// Messages that would be forgotten if they had a final state: they stay.
    pub open: u64,
    /// What it was, by stream.
    pub streams: BTreeMap<&'static str, Erased>,
    /// Streams in whose files bytes of what was removed earlier may be left, since there is no space to rewrite them.
    pub unclean: Vec<&'static str>,
}

/// Records of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// How many.
    pub records: u64,
    /// Their payloads' bytes.
    pub bytes: u64,
}

impl Forgotten {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Erased {
        self.streams.values().fold(Erased::default(), |sum, one| Erased {
            records: sum.records + one.records,
            bytes: sum.bytes + one.bytes,
        })
    }

    fn add(&mut self, stream: &'static str, bytes: usize) {
        let erased = self.streams.entry(stream).or_default();
        erased.records += 1;
        erased.bytes += bytes as u64;
    }
}

/// The ends of the streams when it began: what comes later is of messages that are not forgotten.
struct Ends {
    events: u64,
    logs: u64,
    dead: u64,
    journal: u64,
    /// 0 where there are none.
    steps: u64,
    /// The same.
    questions: u64,
}

impl Broker {
    /// Counts what [`Broker::forget`] would erase.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn forgettable(&self, what: &Forget) -> Result<Forgotten> {
        self.forgettable_by(what, self.clock().await?).await
    }

    async fn forgettable_by(&self, what: &Forget, started: Timestamp) -> Result<Forgotten> {
        let mut forgetting = Forgetting::new(self, what, started, false);
        forgetting.round(&mut |_| {}).await?;
        Ok(forgetting.done)
    }

    /// Erases what is wanted. `told` hears of it as it goes. About 100 to 200 records a second of large streams (`remove.rs`).
    ///
    /// # Errors
    /// When the broker does not answer: what is not erased by then is found by the next call. When something is left at the end.
    pub async fn forget(
        &self,
        what: &Forget,
        mut told: impl FnMut(&Forgotten),
    ) -> Result<Forgotten> {
        let started = self.clock().await?;
        let mut forgetting = Forgetting::new(self, what, started, true);
        for round in 0..ROUNDS {
            forgetting.round(&mut told).await?;
            let left = self.forgettable_by(what, started).await?;
            if left.total() == Erased::default() {
                forgetting.clean().await?;
                // What a shim had on its way when its message was finished.
                forgetting.late().await?;
                return Ok(forgetting.done);
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(round)).await;
        }
        Err(BrokerError::other("records keep coming back: is another program writing them?"))
    }
}

struct Forgetting<'a> {
    broker: &'a Broker,
    what: &'a Forget,
    /// What was finished later stays: an agent may be at work.
    started: Timestamp,
    erase: bool,
    done: Forgotten,
    /// Messages without final states, and those that got one since: nothing of them goes.
    open: HashSet<MessageKey>,
    /// Hashes of the names and the ids of what is forgotten: 16 bytes for each.
    ids: HashSet<u64>,
    hashes: RandomState,
}

impl<'a> Forgetting<'a> {
    fn new(broker: &'a Broker, what: &'a Forget, started: Timestamp, erase: bool) -> Self {
        Self {
            broker,
            what,
            started,
            erase,
            done: Forgotten::default(),
            open: HashSet::new(),
            ids: HashSet::new(),
            hashes: RandomState::new(),
        }
    }

    async fn round(&mut self, told: &mut impl FnMut(&Forgotten)) -> Result<()> {
        let broker = self.broker;
        let wire = broker.wire();
        // Before the journal is read: what has events by now has its request there.
        let streams = [
            broker.events_stream(),
            broker.subjects().stream("LOGS"),
            broker.subjects().stream("DEAD"),
        ];
        let ends = try_join_all(streams.iter().map(|stream| wire.last_seq(stream))).await?;
        let journal = wire.last_seq(&broker.journal_stream(&self.what.agent)).await?;
        let [events, logs, dead] = ends[..] else {
            return Err(BrokerError::other("three streams have three ends"));
        };
        let steps = match broker.has_steps().await? {
            true => wire.last_seq(&broker.subjects().stream("STEPS")).await?,
            false => 0,
        };
        let questions = broker.last_question().await?.unwrap_or(0);
        let ends = Ends { events, logs, dead, journal, steps, questions };
        if self.erase && self.what.conversation.is_some() {
            // Which log lines belong to it, only its messages tell.
            let mut known = Forgetting::new(broker, self.what, self.started, false);
            known.hashes = self.hashes.clone();
            known.messages(&ends, &mut |_| {}).await?;
            self.ids.extend(known.ids);
            self.logs(ends.logs).await?;
            told(&self.done);
        }
        self.messages(&ends, told).await?;
        self.events(ends.events).await?;
        self.steps(ends.steps).await?;
        self.questions(ends.questions).await?;
        self.dead(ends.dead).await?;
        if !self.erase || self.what.conversation.is_none() {
            self.logs(ends.logs).await?;
        }
        told(&self.done);
        Ok(())
    }

    /// Messages that were cancelled before they were delivered, those in the journal, and then in HISTORY.
    async fn messages(&mut self, ends: &Ends, told: &mut impl FnMut(&Forgotten)) -> Result<()> {
        self.open.clear();
        self.done.open = 0;
        if self.broker.has_later().await? {
            let agent = &self.what.agent;
            let filter = self.broker.subjects().later_to(agent, None, None);
            self.stored("LATER", (self.broker.later_stream(), filter), u64::MAX, told).await?;
        }
        self.journal(ends.journal, told).await?;
        if self.erase {
            self.fence().await?;
        }
        self.history(told).await
    }

    /// The bytes of what was removed before leave the files, too.
    async fn clean(&mut self) -> Result<()> {
        let shard = self.broker.subjects().shard(&self.what.agent);
        let all = [
            (Filled::Journal(shard), "JOURNAL"),
            (Filled::History, "HISTORY"),
            (Filled::Events, "EVENTS"),
            (Filled::Logs, "LOGS"),
            (Filled::Dead, "DEAD"),
            (Filled::Steps, "STEPS"),
            (Filled::Questions, "QUESTIONS"),
        ];
        for (filled, name) in all {
            let is_unused = match name {
                "STEPS" => !self.broker.has_steps().await?,
                "QUESTIONS" => !self.broker.has_questions().await?,
                _ => false,
            };
            if is_unused {
                continue;
            }
            if !self.broker.drop_bytes(filled, shard).await? {
                self.done.unclean.push(name);
            }
        }
        Ok(())
    }

    fn is_before(&self, at: Timestamp) -> bool {
        at <= self.started && self.what.before.is_none_or(|before| at < before)
    }

    /// Whether a message is of the conversation, as far as its tag and its id tell.
    fn may_be_of(&self, tag: &ConversationTag, id: Option<&str>) -> bool {
        let Some(wanted) = &self.what.conversation else { return true };
        match *tag == ConversationTag::none() {
            // A conversation of its own has its id.
            true => id == Some(wanted.as_str()),
            false => *tag == ConversationTag::of_conversation(wanted),
        }
    }

    /// Whether a message is forgotten.
    fn is_known(&self, key: &MessageKey) -> bool {
        self.ids.contains(&self.hashes.hash_one(key))
    }

    /// Whether an id is one of a message that is forgotten.
    fn is_known_id(&self, id: &MessageId) -> bool {
        self.ids.contains(&self.hashes.hash_one(id))
    }
}
