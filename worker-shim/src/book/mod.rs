//! The book of messages: which are held, in which order they go to the worker, what to publish and when to settle. Pure:
//! time is an argument, and what is to be done comes back as [`Do`].
//!
//! A message is in the lane of its conversation. Only a lane's head may be with the worker, and it leaves the lane when its
//! final state is stored: so the answers of a conversation are in journal order, over retries too.

mod clock;
mod ends;
mod figures;
mod lanes;
mod lines;
mod people;
mod quota;
mod steps;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use broker::StepsOf;
use common::figures::Figures;
use common::message::{Envelope, Final, MessageKey};
use common::question::Asked;
use common::step::Step;
use common::trace::{Share, TraceParent};
use common::worker::ToWorker;
use common::{AgentName, ConversationId, ConversationTag, MessageId, Timestamp};

pub(crate) use self::clock::{Batch, GRACE_US};
use self::quota::Quota;
use self::steps::Known;
use self::turns::{Before, Turns};
use crate::people::Act;
use crate::secrets::Secrets;
use crate::turn::Turn;

/// How many settled messages are remembered, so that a late redelivery is answered without a look-up.
const RECENT: usize = 1024;
/// Look-ups that are under way at once, at most.
const LOOK_UPS: usize = 64;
/// The texts of messages that wait are kept up to so many bytes in all; beyond, a text is read again when its turn comes.
const TEXTS: usize = 1 << 20;
/// How many cancelled messages are remembered that have not come yet.
const CANCELLED: usize = 256;

/// A moment: `us` counts monotonically, `at` is for records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) us: u64,
    pub(crate) at: Timestamp,
}

/// What the soul says about turns.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) agent: AgentName,
    pub(crate) incarnation: u64,
    pub(crate) concurrency: usize,
    pub(crate) attempts: u32,
    /// The delay before the second attempt within one incarnation; doubled for each further one.
    pub(crate) retry_first_us: u64,
    /// The longest such delay.
    pub(crate) retry_max_us: u64,
    pub(crate) turn_timeout_us: u64,
    /// The secrets that must not be published.
    pub(crate) secrets: Arc<Secrets>,
    /// Whether the worker may know what was said before.
    pub(crate) memory: bool,
    /// The traces that are recorded; none where none is exported.
    pub(crate) traces: Option<Share>,
}

/// A request that has come.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) seq: u64,
    pub(crate) envelope: Envelope,
    /// Where its ack goes; empty for one that was fetched from the journal.
    pub(crate) reply: String,
    /// It may have been given out before, to another incarnation or to this one.
    pub(crate) check: bool,
    /// How long somebody waits for the answer, if that is bounded.
    pub(crate) left: Option<Duration>,
    /// How long ago the broker stored it.
    pub(crate) age: Duration,
}

/// What the book wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Do {
    /// Look whether the message is final, and which attempts are on record; then [`Book::looked_up`].
    LookUp { seq: u64, key: MessageKey },
    /// Read the text of a message again; then [`Book::fetched`].
    Fetch { seq: u64, key: MessageKey },
    /// Count the turns that a conversation has had; then [`Book::counted`].
    CountTurns { seq: u64, conversation: ConversationId },
    /// Read what earlier attempts have stored; then [`Book::recalled`].
    Recall { seq: u64, of: Box<StepsOf> },
    /// Store a step behind a record; then [`Book::stepped`].
    Store { seq: u64, of: Box<StepsOf>, step: Step, after: u64 },
    /// Ask a person, or look for an answer; then [`Book::person`].
    AskPerson { seq: u64, person: Box<Person> },
    /// The message has ended: remove its questions.
    CloseQuestions { key: MessageKey },
    /// Write a line to the worker.
    Tell(ToWorker),
    /// Store a final state; then [`Book::settled`].
    Settle {
        seq: u64,
        key: MessageKey,
        conversation: ConversationTag,
        attempt: u32,
        final_: Box<Final>,
    },
    /// Store a dead letter, for the message failed and that is on record; then acknowledge. Its text may have to be read again.
    Bury { envelope: Box<Envelope>, final_: Box<Final>, reply: String },
    /// Acknowledge a delivery to the broker.
    Ack { reply: String },
    /// A delivery came again and takes no room of its own.
    Release,
    /// Ask another agent, for the worker.
    Ask(Box<Question>),
    /// Ask what was said in a conversation, for the worker.
    ReadHistory(Box<HistoryRequest>),
    /// Kill the worker: it hangs.
    EndWorker { reason: String },
    /// Write a line to the log.
    Note(String),
}

/// A worker's question to another agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// The worker's own id of it.
    pub(crate) request_id: String,
    pub(crate) to: String,
    pub(crate) message: String,
    pub(crate) timeout_ms: Option<u64>,
    /// The turn that asks; none if that is not known.
    pub(crate) asker: Option<Asker>,
}

/// Something to do about a question to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) key: MessageKey,
    pub(crate) asked: Asked,
    pub(crate) act: Act,
}

/// A worker's request for what was said in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryRequest {
    /// The worker's own id of it.
    pub(crate) request_id: String,
    pub(crate) conversation_id: String,
    /// Only what comes before this place.
    pub(crate) before: Option<String>,
    pub(crate) limit: Option<u64>,
}

/// A turn that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) seq: u64,
    pub(crate) attempt: u32,
    /// It may have asked before, in an earlier turn: not each of them is on record as an attempt.
    pub(crate) again: bool,
    pub(crate) envelope: Box<Envelope>,
    /// The span of the turn.
    pub(crate) traceparent: Option<TraceParent>,
    /// How long its own asker will wait, if that is bounded.
    pub(crate) left: Option<Duration>,
}

#[derive(Debug)]
enum Phase {
    /// To be looked up.
    Unchecked,
    /// A look-up is under way.
    Checking,
    /// Its turn has come, and its text is being read, the turns before it are counted, or what earlier attempts have stored is read.
    Fetching,
    /// Not with the worker, and not before this moment. The last attempt may still have events to publish.
    Waiting { not_before_us: u64, last: Option<Turn> },
    /// With the worker.
    Open(Turn),
    /// The turn is over: its events, then its final state, are being stored. None: that is on its way.
    Settling { turn: Turn, final_: Option<Box<Final>> },
}

impl Phase {
    const READY: Self = Self::Waiting { not_before_us: 0, last: None };
}

#[derive(Debug)]
struct Held {
    /// Without its text if `text` says so.
    envelope: Envelope,
    /// Whether the text is there.
    text: bool,
    /// When nobody waits for the answer any more.
    expires_us: Option<u64>,
    /// When the broker had stored it, which may be before this process began.
    stored_us: i64,
    /// When the first text of an answer came, in whatever attempt.
    first_text_us: Option<u64>,
    /// Where its ack goes; empty until the broker gives it out again.
    reply: String,
    /// Attempts made so far.
    attempts: u32,
    /// What is known of the turns before it.
    before: Before,
    /// What is known of its steps.
    known: Known,
    /// Whether it has asked people.
    asks: bool,
    /// Turns that may have begun so far, here or in an earlier incarnation.
    turns: u32,
    /// Why the last attempt ended.
    last_error: Option<String>,
    /// Its last attempt, and one before was another incarnation's: what ended that may have been this message. So it has the
    /// worker for itself, and takes no neighbour with it.
    alone: bool,
    phase: Phase,
}

impl Held {
    /// Its last turn, while that has something to say.
    fn turn(&self) -> Option<&Turn> {
        match &self.phase {
            Phase::Open(turn)
            | Phase::Settling { turn, .. }
            | Phase::Waiting { last: Some(turn), .. } => Some(turn),
            Phase::Unchecked
            | Phase::Checking
            | Phase::Fetching
            | Phase::Waiting { last: None, .. } => None,
        }
    }
}

/// The book.
#[derive(Debug)]
pub(crate) struct Book {
    rules: Rules,
    held: BTreeMap<u64, Held>,
    /// Those of them that something is to be done about in time: with the worker, being stored, waiting for a moment.
    active: BTreeSet<u64>,
    /// The first of each lane.
    heads: BTreeSet<u64>,
    /// When the deadlines of those pass that wait, and are to be looked at then.
    expiries: BTreeSet<(u64, u64)>,
    /// Questions of other agents that did not begin with themselves.
    questions: BTreeSet<u64>,
    unchecked: BTreeSet<u64>,
    checking: usize,
    fetching: usize,
    /// The bytes of texts that are kept.
    texts: usize,
    /// How many bytes may be put before the worker, and whether a turn waits for more.
    room: usize,
    lacks_room: bool,
    /// What the worker may say beside its texts, over all turns.
    events: Quota,
    lanes: HashMap<ConversationId, VecDeque<u64>>,
    turns: Turns,
    open: HashMap<MessageId, u64>,
    /// The highest sequence that ever came: what is not above it may have been here before.
    highest: u64,
    recent: VecDeque<u64>,
    /// Cancelled before they came.
    cancelled: VecDeque<MessageKey>,
    paused: bool,
    stopped: bool,
    /// When the broker last answered a publish.
    answered_us: u64,
    pub(crate) finished: u64,
    pub(crate) lost_finals: u64,
    /// What happened since it was last told.
    pub(crate) figures: Figures,
}

impl Book {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            held: BTreeMap::new(),
            active: BTreeSet::new(),
            heads: BTreeSet::new(),
            expiries: BTreeSet::new(),
            questions: BTreeSet::new(),
            unchecked: BTreeSet::new(),
            checking: 0,
            fetching: 0,
            texts: 0,
            room: usize::MAX,
            lacks_room: false,
            events: Quota::full(),
            lanes: HashMap::new(),
            turns: Turns::default(),
            open: HashMap::new(),
            highest: 0,
            recent: VecDeque::new(),
            cancelled: VecDeque::new(),
            paused: false,
            stopped: false,
            answered_us: 0,
            finished: 0,
            lost_finals: 0,
            figures: Figures::default(),
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// The highest sequence that ever came.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// What came under this sequence is no message of the book's; whether it came for the first time.
    pub(crate) fn pass(&mut self, seq: u64) -> bool {
        let first = seq > self.highest;
        self.highest = self.highest.max(seq);
        first
    }

    /// Turns with the worker.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether this attempt is with the worker.
    pub(crate) fn is_open(&self, seq: u64, attempt: u32) -> bool {
        let is_it =
            |held: &Held| matches!(&held.phase, Phase::Open(turn) if turn.attempt == attempt);
        self.held.get(&seq).is_some_and(is_it)
    }

    /// The only open turn's message, when there is just one.
    pub(crate) fn only_open(&self) -> Option<&MessageId> {
        let mut open = self.open.keys();
        open.next().filter(|_| open.next().is_none())
    }

    /// Whether nothing is with the worker or on its way to the journal.
    pub(crate) fn is_idle(&self) -> bool {
        self.active().all(|held| matches!(held.phase, Phase::Waiting { last: None, .. }))
    }

    /// Whether the worker's output should wait.
    pub(crate) fn is_congested(&self) -> bool {
        self.active().any(|held| held.turn().is_some_and(Turn::congested))
    }

    fn active(&self) -> impl Iterator<Item = &Held> {
        self.active.iter().filter_map(|seq| self.held.get(seq))
    }

    /// Keeps [`Self::active`] true, after a message's phase has changed.
    fn index(&mut self, seq: u64) {
        let is_active = self.held.get(&seq).is_some_and(|held| match held.phase {
            Phase::Open(_) | Phase::Settling { .. } | Phase::Waiting { last: Some(_), .. } => true,
            Phase::Waiting { not_before_us, last: None } => not_before_us > 0,
            Phase::Unchecked | Phase::Checking | Phase::Fetching => false,
        });
        if is_active {
            self.active.insert(seq);
        } else {
            self.active.remove(&seq);
        }
    }

    /// The replies of all that is held: what the broker must not redeliver yet.
    pub(crate) fn replies(&self) -> impl Iterator<Item = &str> {
        self.held.values().map(|held| held.reply.as_str()).filter(|reply| !reply.is_empty())
    }

    /// This process was suspended: open turns get back the time in which it could not read their output.
    pub(crate) fn stood_still(&mut self, us: u64) {
        for seq in &self.active {
            if let Some(Held { phase: Phase::Open(turn), .. }) = self.held.get_mut(seq) {
                turn.forgive(us);
            }
        }
    }

    /// This many bytes may be sent to the worker: a turn that begins beyond would only wait, and still use an attempt.
    pub(crate) fn make_room(&mut self, now: Now, bytes: usize) -> Vec<Do> {
        let mut todo = Vec::new();
        self.room = bytes;
        if self.lacks_room && bytes > 0 {
            self.schedule(now, &mut todo);
        }
        todo
    }

    /// Starts no more turns, for good.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Starts no more turns until [`Self::resume`]: another incarnation may have taken over.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// No other incarnation has taken over.
    pub(crate) fn resume(&mut self, now: Now) -> Vec<Do> {
        self.paused = false;
        let mut todo = Vec::new();
        self.schedule(now, &mut todo);
        todo
    }
}
