//! The worker's questions to other agents that wait for an answer, and how many of them there may be.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use common::AgentName;
use common::message::MessageKey;
use futures_util::future::{AbortHandle, BoxFuture, abortable};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::tasks::Tasks;
use crate::book::{Book, Question};
use crate::publish::Done;
use crate::route;

/// A worker's questions that have no final state yet, at most, whether anybody still waits for it or not,
const MOST: usize = 256;
/// and their bytes: they stay in the journal, also those to an agent that does not run.
const MOST_BYTES: usize = 32 << 20;
/// The longest id of a question, in bytes: it comes back with the answer.
pub(super) const LONGEST_ID: usize = 256;
/// Questions a second, at most, and how many may come at once.
const A_SECOND: f64 = 1000.0;
const AT_ONCE: f64 = 2000.0;
/// An agent that answered within this time is still there: asking it again needs no look at the control log.
const KNOWN: Duration = Duration::from_secs(5);
/// Of the questions that nobody waits for any more, so many are looked up at a time.
const LOOK_UPS: usize = 32;

/// A question that is in the journal, as far as is known.
#[derive(Debug)]
struct Stored {
    bytes: usize,
    /// Whose turn asks, by its message's sequence and attempt, and how to give up waiting; none once nobody waits.
    waits: Option<(Option<(u64, u32)>, AbortHandle)>,
}

/// The questions.
pub(super) struct Questions {
    me: AgentName,
    incarnation: u64,
    asking: FuturesUnordered<BoxFuture<'static, Done>>,
    stored: HashMap<MessageKey, Stored>,
    bytes: usize,
    /// Agents that answered, and when they last did; at most [`MOST`].
    answered: HashMap<AgentName, Instant>,
    /// How many may be asked now, at `filled`.
    allowance: f64,
    filled: Instant,
}

impl Questions {
    pub(super) fn new(me: AgentName, incarnation: u64) -> Self {
        Self {
            me,
            incarnation,
            asking: FuturesUnordered::new(),
            stored: HashMap::new(),
            bytes: 0,
            answered: HashMap::new(),
            allowance: AT_ONCE,
            filled: Instant::now(),
        }
    }

    /// Asks, or says why not.
    pub(super) fn ask(
        &mut self,
        question: &Question,
        book: &Book,
        tasks: &Tasks,
    ) -> Result<(), String> {
        let length = question.request_id.len();
        if length > LONGEST_ID {
            return Err(format!(
                "a requestId of {length} bytes: at most {LONGEST_ID} are accepted"
            ));
        }
        self.forget(book);
        let now = Instant::now();
        let refill = now.duration_since(self.filled).as_secs_f64() * A_SECOND;
        (self.allowance, self.filled) = ((self.allowance + refill).min(AT_ONCE), now);
        if self.allowance < 1.0 {
            return Err(format!("more than {A_SECOND} questions a second"));
        }
        self.allowance -= 1.0;
        let asked =
            route::envelope(&self.me, self.incarnation, question, SystemTime::now().into())?;
        let key = asked.envelope.key();
        let bytes = asked.envelope.message.len();
        // The same question again, as another attempt asks it, is the same message.
        let known = self.stored.get(&key).map_or(0, |stored| stored.bytes);
        if self.asking.len() >= MOST || (known == 0 && self.stored.len() >= MOST) {
            return Err(format!("{MOST} questions of `{}` have no answer yet", self.me));
        }
        if self.bytes - known + bytes > MOST_BYTES {
            return Err(format!(
                "questions of `{}` without an answer are larger than {MOST_BYTES} bytes",
                self.me
            ));
        }
        let known_agent = self.answered.get(&key.agent).is_some_and(|at| at.elapsed() < KNOWN);
        let asking = route::ask(tasks.broker(), tasks.gate(), asked, known_agent);
        let (asking, handle) = abortable(asking);
        self.asking.push(asking.map(|answered| answered.unwrap_or(Done::NotAsked)).boxed());
        let asker = question.asker.as_ref().map(|asker| (asker.seq, asker.attempt));
        self.bytes = self.bytes - known + bytes;
        self.stored.insert(key, Stored { bytes, waits: Some((asker, handle)) });
        Ok(())
    }

    /// The next that has come to its end.
    pub(super) async fn next(&mut self) -> Option<Done> {
        self.asking.next().await
    }

    pub(super) fn are_asked(&self) -> bool {
        !self.asking.is_empty()
    }

    /// A question was answered, or nobody waits for its answer any more; `is_final`: nothing of it is open in the journal.
    pub(super) fn ended(&mut self, key: &MessageKey, answered: bool, is_final: bool) {
        if is_final {
            self.finished(std::slice::from_ref(key));
        } else if let Some(stored) = self.stored.get_mut(key) {
            stored.waits = None;
        }
        if answered && self.answered.len() < MOST {
            self.answered.insert(key.agent.clone(), Instant::now());
        } else {
            self.answered.remove(&key.agent);
        }
    }

    /// These have their final states.
    pub(super) fn finished(&mut self, keys: &[MessageKey]) {
        for key in keys {
            if let Some(stored) = self.stored.remove(key) {
                self.bytes -= stored.bytes;
            }
        }
    }

    /// Some of those that nobody waits for: whether they are final by now is to be looked up.
    pub(super) fn abandoned(&self) -> Vec<MessageKey> {
        let abandoned = self.stored.iter().filter(|(_, stored)| stored.waits.is_none());
        abandoned.map(|(key, _)| key.clone()).take(LOOK_UPS).collect()
    }

    /// Gives up the questions of turns that are over: another attempt asks anew.
    pub(super) fn forget(&mut self, book: &Book) {
        for stored in self.stored.values_mut() {
            if let Some((Some((seq, attempt)), handle)) = &stored.waits
                && !book.is_open(*seq, *attempt)
            {
                handle.abort();
                stored.waits = None;
            }
        }
    }
}
