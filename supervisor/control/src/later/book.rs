//! Which messages wait, and which is next. Pure: what is due is kept in order, so that a look costs what is due and not what waits.

mod pauses;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use common::message::MessageKey;
use common::{AgentName, ConversationTag, Timestamp};

use self::pauses::Pauses;

/// When it is due, and the sequence of its request: the order within a conversation.
type Place = (Timestamp, u64);

/// The messages of these are delivered one after the other.
type Line = (AgentName, ConversationTag);

/// A message that is to be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// Its name.
    pub(super) key: Arc<MessageKey>,
    /// Its conversation.
    pub(super) conversation: ConversationTag,
    /// The sequence of its request.
    pub(super) seq: u64,
    /// When that was stored.
    pub(super) at: Timestamp,
    /// When it was due.
    due: Timestamp,
    /// The part of the journal that its agent's messages are in.
    shard: u32,
}

impl Job {
    /// Whose order it belongs to; none of a message that is a conversation of its own.
    fn line(&self) -> Option<Line> {
        let own = self.conversation == ConversationTag::none();
        (!own).then(|| (self.key.agent.clone(), self.conversation.clone()))
    }
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Book {
    waiting: BTreeMap<Place, Job>,
    /// What is due, and waits for one before it in its conversation.
    held: HashMap<Line, BTreeMap<Place, Job>>,
    /// Conversations of which one is being worked on, or is to be tried again.
    busy: HashSet<Line>,
    /// What has failed, by when it is tried again.
    again: BTreeMap<Place, Job>,
    /// What waits for a part of the journal that takes nothing.
    pauses: Pauses,
    /// Where each message is due; also of one that is being worked on.
    places: HashMap<Arc<MessageKey>, Place>,
    /// How many are being worked on.
    working: usize,
    /// Cancelled messages, by when that was, and the sequence of the final state.
    ended: BTreeMap<Place, Request>,
}

/// The request of a message that was cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    /// Where it is.
    At(u64),
    /// It did not wait any more when its final state was read, and may be there. Alone it would be one that waits.
    Of(Arc<MessageKey>),
}

/// Messages that were cancelled long ago.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Old {
    /// Requests.
    pub(super) requests: Vec<u64>,
    /// Messages whose requests are to be looked for.
    pub(super) unknown: Vec<Arc<MessageKey>>,
    /// Final states.
    pub(super) finals: Vec<u64>,
}

impl Book {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many are being worked on.
    pub(super) fn working(&self) -> usize {
        self.working
    }

    /// A request was read.
    pub(super) fn request(
        &mut self,
        seq: u64,
        at: Timestamp,
        (key, conversation): (MessageKey, ConversationTag),
        due: Timestamp,
        shard: u32,
    ) {
        let key = Arc::new(key);
        if self.places.contains_key(&key) {
            // Read again after a fault.
            return;
        }
        self.places.insert(Arc::clone(&key), (due, seq));
        self.waiting.insert((due, seq), Job { key, conversation, seq, at, due, shard });
    }

    /// It is decided that a message goes into the journal, so it is due whatever the time. False: it is not known, and its request is gone.
    pub(super) fn given(&mut self, key: &MessageKey) -> bool {
        let Some(place) = self.places.get_mut(key) else { return false };
        // One that is held is due already, and one that is worked on sees it.
        if let Some(mut job) = self.waiting.remove(place) {
            job.due = Timestamp::default();
            *place = (job.due, job.seq);
            self.waiting.insert(*place, job);
        }
        true
    }

    /// A message was cancelled.
    pub(super) fn ended(&mut self, key: &MessageKey, seq: u64, at: Timestamp) {
        let place = self.places.get(key).copied();
        let request = place.map_or_else(
            || Request::Of(Arc::new(key.clone())),
            |(_, request)| Request::At(request),
        );
        self.ended.insert((at, seq), request);
        let Some(place) = place else { return };
        // One that is being worked on, or is to be tried again, finds out by itself: its conversation waits for it.
        if let Some(job) = self.waiting.remove(&place).or_else(|| self.pauses.remove(&place)) {
            self.places.remove(key);
            if let Some(line) = job.line().filter(|line| !self.busy.contains(line)) {
                // It may have been the one that those held were waiting for.
                self.release(&line);
            }
        } else if self.held.values_mut().any(|held| held.remove(&place).is_some()) {
            self.places.remove(key);
            self.held.retain(|_, held| !held.is_empty());
        }
    }

    /// When something is due next, and only then.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let first = |of: &BTreeMap<Place, Job>| of.first_key_value().map(|((at, _), _)| *at);
        [first(&self.waiting), first(&self.again), self.pauses.next()].into_iter().flatten().min()
    }

    /// Takes out what is due, in order, so many at most.
    pub(super) fn take(&mut self, now: Timestamp, most: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < most
            && let Some(job) = self.pauses.due(now)
        {
            jobs.push(job);
        }
        while jobs.len() < most
            && self.again.first_key_value().is_some_and(|((at, _), _)| *at <= now)
            && let Some((_, job)) = self.again.pop_first()
        {
            jobs.push(job);
        }
        while jobs.len() < most
            && self.waiting.first_key_value().is_some_and(|((at, _), _)| *at <= now)
            && let Some((place, job)) = self.waiting.pop_first()
        {
            let Some(job) = self.pauses.park(place, job) else { continue };
            match job.line() {
                Some(line) if self.busy.contains(&line) => {
                    self.held.entry(line).or_default().insert(place, job);
                }
                line => {
                    self.busy.extend(line);
                    jobs.push(job);
                }
            }
        }
        self.working += jobs.len();
        jobs
    }

    /// A message was worked on, and waits no more.
    pub(super) fn done(&mut self, job: &Job) {
        self.working = self.working.saturating_sub(1);
        self.places.remove(&job.key);
        self.answered(job.shard);
        self.free(job);
    }

    /// It is due only then.
    pub(super) fn not_yet(&mut self, mut job: Job, due: Timestamp) {
        self.working = self.working.saturating_sub(1);
        self.answered(job.shard);
        self.free(&job);
        job.due = due;
        self.places.insert(Arc::clone(&job.key), (due, job.seq));
        self.waiting.insert((due, job.seq), job);
    }

    /// It has failed, and is tried again then. What is due after it in its conversation waits.
    pub(super) fn again(&mut self, job: Job, at: Timestamp) {
        self.working = self.working.saturating_sub(1);
        // It was tried, and that is not why.
        self.answered(job.shard);
        self.again.insert((at, job.seq), job);
    }

    /// The journal did not take it. What else is due in that part of the journal waits as well.
    pub(super) fn not_taken(&mut self, job: Job, now: Timestamp) {
        self.working = self.working.saturating_sub(1);
        self.pauses.failed(job, now);
    }

    /// A part of the journal takes messages.
    fn answered(&mut self, shard: u32) {
        let (failed, parked) = self.pauses.answered(shard);
        self.again.extend(failed.into_iter().map(|job| ((Timestamp::default(), job.seq), job)));
        self.waiting.extend(parked);
    }

    /// The next one of a conversation may be worked on.
    fn free(&mut self, job: &Job) {
        let Some(line) = job.line() else { return };
        self.busy.remove(&line);
        self.release(&line);
    }

    /// The first one that is held of a conversation waits for its turn again. Only the first: the others would have to wait for it.
    fn release(&mut self, line: &Line) {
        let Some(held) = self.held.get_mut(line) else { return };
        if let Some((place, next)) = held.pop_first() {
            self.waiting.insert(place, next);
        }
        if held.is_empty() {
            self.held.remove(line);
        }
    }

    /// Has messages be looked at as if they were due, and before what is: by their agents, and when they were stored.
    pub(super) fn hurry(&mut self, is_one: impl Fn(&AgentName, Timestamp) -> bool) {
        let some: Vec<Place> = self
            .waiting
            .iter()
            .filter(|((due, _), job)| *due > Timestamp::default() && is_one(&job.key.agent, job.at))
            .map(|(place, _)| *place)
            .collect();
        for place in some {
            if let Some(mut job) = self.waiting.remove(&place) {
                job.due = Timestamp::default();
                self.places.insert(Arc::clone(&job.key), (job.due, job.seq));
                self.waiting.insert((job.due, job.seq), job);
            }
        }
    }

    /// Whether there are cancelled messages.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Takes out messages that were cancelled before a time, or before the last `kept` ones, so many at most.
    pub(super) fn old(&mut self, before: Timestamp, kept: usize, most: usize) -> Old {
        let mut old = Old::default();
        let is_old = |((at, _), _): (&Place, &Request)| *at < before;
        while old.finals.len() < most
            && (self.ended.len() > kept || self.ended.first_key_value().is_some_and(is_old))
            && let Some(((_, final_), request)) = self.ended.pop_first()
        {
            match request {
                Request::At(seq) => old.requests.push(seq),
                Request::Of(key) => old.unknown.push(key),
            }
            old.finals.push(final_);
        }
        old
    }
}
