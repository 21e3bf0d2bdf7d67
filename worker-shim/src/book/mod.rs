//! The book of messages: which are held, in which order they go to the worker, what to publish and when to settle. Pure:
//! time is an argument, and what is to be done comes back as [`Do`].
//!
//! A message stands in the lane of its conversation. Only a lane's head may be with the worker, and it leaves the lane when its
//! final state is stored: so the answers of a conversation are in journal order, over retries too.

use std::collections::{BTreeMap, HashMap, VecDeque};

use common::event::EventBody;
use common::message::{Envelope, Final, Kind, MAX_RECORD, MessageKey, Outcome};
use common::worker::{FromWorker, ToWorker, TurnRef};
use common::{AgentName, ConversationId, MessageId, SenderName, Timestamp};

use crate::turn::Turn;

/// After its deadline a turn has this long to end before the worker is killed.
const GRACE_US: u64 = 5_000_000;
/// The delay before the second attempt within one incarnation; doubled for each further one.
const RETRY_FIRST_US: u64 = 1_000_000;
/// The longest such delay.
const RETRY_MAX_US: u64 = 30_000_000;
/// How many settled messages are remembered, so that a late redelivery is answered without a look-up.
const RECENT: usize = 1024;

/// The most bytes of a worker's error that are kept.
const LONGEST_ERROR: usize = 8 * 1024;

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
    pub(crate) turn_timeout_us: u64,
}

impl Phase {
    const READY: Self = Self::Waiting { not_before_us: 0, last: None };
}

/// What the book wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Do {
    /// Look whether the message is final, and which attempts are on record; then [`Book::looked_up`].
    LookUp { seq: u64, key: MessageKey },
    /// Write a line to the worker.
    Tell(ToWorker),
    /// Store a final state; then [`Book::settled`].
    Settle { seq: u64, key: MessageKey, attempt: u32, final_: Box<Final> },
    /// Store a dead letter: the message failed, and that is on record.
    Bury { envelope: Box<Envelope>, final_: Box<Final> },
    /// Acknowledge a delivery to the broker.
    Ack { reply: String },
    /// Ask another agent, for the worker.
    Ask(Box<Question>),
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
    /// The message whose turn asks; none if that is not known.
    pub(crate) cause: Option<Box<Envelope>>,
}

#[derive(Debug)]
enum Phase {
    /// A look-up is under way.
    Checking,
    /// Not with the worker, and not before this moment. The last attempt may still have events to publish.
    Waiting { not_before_us: u64, last: Option<Turn> },
    /// With the worker.
    Open(Turn),
    /// The turn is over: its events, then its final state, are being stored.
    Settling { turn: Turn, final_: Box<Final>, sent: bool },
}

#[derive(Debug)]
struct Held {
    envelope: Envelope,
    reply: String,
    /// Attempts made so far.
    attempts: u32,
    /// Why the last attempt ended.
    last_error: Option<String>,
    phase: Phase,
}

/// The book.
#[derive(Debug)]
pub(crate) struct Book {
    rules: Rules,
    held: BTreeMap<u64, Held>,
    lanes: HashMap<ConversationId, VecDeque<u64>>,
    open: HashMap<MessageId, u64>,
    recent: VecDeque<u64>,
    stopped: bool,
    pub(crate) finished: u64,
    pub(crate) lost_finals: u64,
}

impl Book {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            held: BTreeMap::new(),
            lanes: HashMap::new(),
            open: HashMap::new(),
            recent: VecDeque::with_capacity(RECENT),
            stopped: false,
            finished: 0,
            lost_finals: 0,
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Turns with the worker.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// The only open turn's message, when there is just one.
    pub(crate) fn only_open(&self) -> Option<&MessageId> {
        let mut open = self.open.keys();
        open.next().filter(|_| open.next().is_none())
    }

    /// Whether nothing is with the worker or on its way to the journal.
    pub(crate) fn is_idle(&self) -> bool {
        let idle =
            |held: &Held| matches!(held.phase, Phase::Checking | Phase::Waiting { last: None, .. });
        self.held.values().all(idle)
    }

    /// Whether the worker's output should wait.
    pub(crate) fn is_congested(&self) -> bool {
        self.held.values().any(|held| match &held.phase {
            Phase::Open(turn)
            | Phase::Settling { turn, .. }
            | Phase::Waiting { last: Some(turn), .. } => turn.congested(),
            Phase::Checking | Phase::Waiting { last: None, .. } => false,
        })
    }

    /// The replies of all that is held: what the broker must not redeliver yet.
    pub(crate) fn replies(&self) -> impl Iterator<Item = &str> {
        self.held.values().map(|held| held.reply.as_str())
    }

    /// Starts no more turns.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// A delivery. `check`: it may have been given out before, to another incarnation or to this one.
    pub(crate) fn deliver(
        &mut self,
        now: Now,
        seq: u64,
        envelope: Envelope,
        reply: String,
        check: bool,
    ) -> Vec<Do> {
        if self.recent.contains(&seq) {
            return vec![Do::Ack { reply }];
        }
        if let Some(held) = self.held.get_mut(&seq) {
            held.reply = reply;
            return Vec::new();
        }
        let mut todo = Vec::new();
        let phase = if check {
            todo.push(Do::LookUp { seq, key: envelope.key() });
            Phase::Checking
        } else {
            Phase::READY
        };
        self.enter_lane(&envelope.conversation_id, seq);
        self.held.insert(seq, Held { envelope, reply, attempts: 0, last_error: None, phase });
        self.schedule(now, &mut todo);
        todo
    }

    /// Keeps a lane in journal order, behind what is with the worker.
    fn enter_lane(&mut self, conversation: &ConversationId, seq: u64) {
        let lane = self.lanes.entry(conversation.clone()).or_default();
        let busy = |held: &u64| {
            self.held
                .get(held)
                .is_some_and(|held| matches!(held.phase, Phase::Open(_) | Phase::Settling { .. }))
        };
        let at = lane.iter().rposition(|other| *other < seq || busy(other)).map_or(0, |at| at + 1);
        lane.insert(at, seq);
    }

    /// The answer to a [`Do::LookUp`].
    pub(crate) fn looked_up(
        &mut self,
        now: Now,
        seq: u64,
        is_final: bool,
        attempts: u32,
    ) -> Vec<Do> {
        let mut todo = Vec::new();
        if let Some(held) = self.held.get_mut(&seq).filter(|h| matches!(h.phase, Phase::Checking)) {
            held.attempts = attempts;
            held.phase = Phase::READY;
            if is_final {
                self.leave(seq, &mut todo);
            }
        }
        self.schedule(now, &mut todo);
        todo
    }

    /// Takes a message out of the book: it is final.
    fn leave(&mut self, seq: u64, todo: &mut Vec<Do>) {
        let Some(held) = self.held.remove(&seq) else {
            return;
        };
        let id = &held.envelope.message_id;
        if self.open.get(id) == Some(&seq) {
            self.open.remove(id);
        }
        let conversation = &held.envelope.conversation_id;
        if let Some(lane) = self.lanes.get_mut(conversation) {
            lane.retain(|other| *other != seq);
            if lane.is_empty() {
                self.lanes.remove(conversation);
            }
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(seq);
        todo.push(Do::Ack { reply: held.reply });
    }

    /// Starts what can start, oldest first.
    fn schedule(&mut self, now: Now, todo: &mut Vec<Do>) {
        while !self.stopped && self.open.len() < self.rules.concurrency {
            let startable = self.held.iter().find(|(seq, held)| {
                matches!(held.phase, Phase::Waiting { not_before_us, last: None } if not_before_us <= now.us)
                    && self.is_head(**seq, held)
                    && !self.open.contains_key(&held.envelope.message_id)
            });
            let Some((&seq, _)) = startable else { break };
            self.begin(now, seq, todo);
        }
        if !self.stopped {
            self.refuse_deadlocks(now, todo);
        }
    }

    fn is_head(&self, seq: u64, held: &Held) -> bool {
        let lane = self.lanes.get(&held.envelope.conversation_id);
        lane.and_then(VecDeque::front) == Some(&seq)
    }

    /// Gives a message to the worker, or ends it when that is too late.
    fn begin(&mut self, now: Now, seq: u64, todo: &mut Vec<Do>) {
        let Some(held) = self.held.get_mut(&seq) else {
            return;
        };
        let attempt = held.attempts + 1;
        let turn = Turn::new(attempt, self.rules.incarnation, now, self.rules.turn_timeout_us);
        if held.envelope.deadline.is_some_and(|deadline| deadline <= now.at) {
            let reason = Some("its deadline passed before a worker was free".to_owned());
            return self.settle(now, seq, None, Outcome::Expired, None, reason, todo);
        }
        if attempt > self.rules.attempts {
            let last = held.last_error.clone();
            let reason =
                last.unwrap_or_else(|| format!("gave up after {} attempts", held.attempts));
            return self.settle(now, seq, None, Outcome::Failed, None, Some(reason), todo);
        }
        let envelope = &held.envelope;
        let (message_id, from_id) = (envelope.message_id.to_string(), envelope.sender.to_string());
        let message = envelope.message.clone();
        todo.push(Do::Tell(match envelope.kind {
            Kind::Chat | Kind::Trigger => ToWorker::Chat {
                message_id,
                from_id,
                message,
                conversation_id: envelope.conversation_id.to_string(),
            },
            Kind::Route => {
                ToWorker::Route { request_id: message_id.clone(), message_id, from_id, message }
            }
        }));
        self.open.insert(envelope.message_id.clone(), seq);
        held.phase = Phase::Open(turn);
    }

    /// A question that waits for a slot, while every slot is taken by a turn that waits for its answer, would wait for ever.
    fn refuse_deadlocks(&mut self, now: Now, todo: &mut Vec<Do>) {
        if self.open.len() < self.rules.concurrency {
            return;
        }
        let waits_for_itself = |held: &Held| {
            let path = &held.envelope.path;
            matches!(held.phase, Phase::Waiting { .. })
                && self.open.values().filter_map(|seq| self.held.get(seq)).all(|open| {
                    path.iter().any(|cause| {
                        cause.agent == open.envelope.agent
                            && cause.sender == open.envelope.sender
                            && cause.message_id == open.envelope.message_id
                    })
                })
        };
        let stuck: Vec<u64> = self
            .held
            .iter()
            .filter(|(_, held)| waits_for_itself(held))
            .map(|(seq, _)| *seq)
            .collect();
        for seq in stuck {
            let reason = format!(
                "deadlock: `{}` is waiting for the answer to its own question, which led to this one; \
                 raise its CONCURRENCY or let the callee ask somebody else",
                self.rules.agent
            );
            self.settle(now, seq, None, Outcome::Failed, None, Some(reason), todo);
        }
    }

    /// Ends a message: its last events, then its final state.
    #[expect(
        clippy::too_many_arguments,
        reason = "one place makes final states, from all that they say"
    )]
    fn settle(
        &mut self,
        now: Now,
        seq: u64,
        turn: Option<Turn>,
        status: Outcome,
        response: Option<String>,
        reason: Option<String>,
        todo: &mut Vec<Do>,
    ) {
        let Some(held) = self.held.get_mut(&seq) else {
            return;
        };
        if self.open.get(&held.envelope.message_id) == Some(&seq) {
            self.open.remove(&held.envelope.message_id);
        }
        let attempts = turn.as_ref().map_or(held.attempts, |turn| turn.attempt);
        let incarnation = turn.is_some().then_some(self.rules.incarnation);
        let tail = Vec::new();
        let mut final_ =
            Final { status, response, reason, attempts, incarnation, at: now.at, tail };
        if !fits(&final_) {
            final_.status = Outcome::Failed;
            final_.response = None;
            final_.reason =
                Some("the answer does not fit a record of the journal (1 MiB)".to_owned());
        }
        let turn = turn.unwrap_or_else(|| Turn::silent(attempts, now));
        held.phase = Phase::Settling { turn, final_: Box::new(final_), sent: false };
        self.send_final(seq, todo);
    }

    /// Sends the final state once no event of the turn is left to publish before it.
    fn send_final(&mut self, seq: u64, todo: &mut Vec<Do>) {
        let Some(Held { envelope, phase: Phase::Settling { turn, final_, sent }, .. }) =
            self.held.get_mut(&seq)
        else {
            return;
        };
        if *sent {
            return;
        }
        if let Some(tail) = turn.take_tail() {
            final_.tail = tail;
            if !fits(final_) {
                // Both the answer and its last events do not fit: the events go first, on their own.
                turn.put_back(std::mem::take(&mut final_.tail));
                return;
            }
            *sent = true;
            todo.push(Do::Settle {
                seq,
                key: envelope.key(),
                attempt: turn.attempt,
                final_: final_.clone(),
            });
        }
    }

    /// A [`Do::Settle`] is stored, or another final state was there first.
    pub(crate) fn settled(&mut self, now: Now, seq: u64, won: bool) -> Vec<Do> {
        let mut todo = Vec::new();
        if let Some(Held { envelope, phase: Phase::Settling { final_, .. }, .. }) =
            self.held.get(&seq)
        {
            if !won {
                self.lost_finals += 1;
            } else if final_.status == Outcome::Failed {
                let (envelope, final_) = (Box::new(envelope.clone()), final_.clone());
                todo.push(Do::Bury { envelope, final_ });
            }
            self.finished += 1;
            self.leave(seq, &mut todo);
        }
        self.schedule(now, &mut todo);
        todo
    }

    /// The events that are due, as (sequence of the message, its key, attempt, events). `all`: whether due or not.
    pub(crate) fn take_batches(&mut self, now: Now, all: bool) -> Vec<Batch> {
        let mut batches = Vec::new();
        for (seq, held) in &mut self.held {
            let (turn, over) = match &mut held.phase {
                Phase::Open(turn) => (turn, false),
                Phase::Settling { turn, sent: false, .. }
                | Phase::Waiting { last: Some(turn), .. } => (turn, true),
                Phase::Settling { .. } | Phase::Checking | Phase::Waiting { last: None, .. } => {
                    continue;
                }
            };
            if turn.due_us().is_some_and(|due| all || over || due <= now.us) {
                batches.push(Batch {
                    seq: *seq,
                    message_id: held.envelope.message_id.clone(),
                    conversation_id: held.envelope.conversation_id.clone(),
                    attempt: turn.attempt,
                    events: turn.take_batch(),
                });
            }
        }
        batches
    }

    /// A batch of [`Self::take_batches`] is stored.
    pub(crate) fn batch_stored(&mut self, now: Now, seq: u64) -> Vec<Do> {
        let mut todo = Vec::new();
        if let Some(held) = self.held.get_mut(&seq) {
            match &mut held.phase {
                Phase::Open(turn) => turn.batch_stored(),
                Phase::Settling { turn, .. } => {
                    turn.batch_stored();
                    self.send_final(seq, &mut todo);
                }
                Phase::Waiting { last, .. } => {
                    if let Some(turn) = last {
                        turn.batch_stored();
                        if turn.is_published() {
                            *last = None;
                        }
                    }
                }
                Phase::Checking => {}
            }
        }
        self.schedule(now, &mut todo);
        todo
    }

    /// When [`Self::tick`] or [`Self::take_batches`] has something to do.
    pub(crate) fn next_us(&self) -> Option<u64> {
        let next = |held: &Held| match &held.phase {
            Phase::Open(turn) => {
                let deadline = turn.grace_us.unwrap_or(turn.deadline_us);
                Some(turn.due_us().map_or(deadline, |due| due.min(deadline)))
            }
            Phase::Settling { turn, .. } => turn.due_us(),
            Phase::Waiting { last: Some(turn), .. } => turn.due_us(),
            Phase::Waiting { not_before_us, .. } if *not_before_us > 0 => Some(*not_before_us),
            Phase::Waiting { .. } | Phase::Checking => None,
        };
        self.held.values().filter_map(next).min()
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Now) -> Vec<Do> {
        let mut todo = Vec::new();
        let timeout = self.rules.turn_timeout_us;
        for held in self.held.values_mut() {
            let id = &held.envelope.message_id;
            match &mut held.phase {
                Phase::Open(turn) => match turn.grace_us {
                    None if turn.deadline_us <= now.us => {
                        turn.grace_us = Some(now.us + GRACE_US.min(timeout));
                        todo.push(Do::Note(format!(
                            "turn {id} made no progress in time: cancelling it"
                        )));
                        todo.push(Do::Tell(ToWorker::Cancel { message_id: id.to_string() }));
                    }
                    Some(grace) if grace <= now.us => {
                        turn.grace_us = Some(u64::MAX);
                        let took = std::time::Duration::from_micros(timeout);
                        let took = format!("{took:?}");
                        todo.push(Do::EndWorker { reason: format!("turn timed out after {took}") });
                    }
                    _ => {}
                },
                Phase::Waiting { not_before_us, .. } if *not_before_us <= now.us => {
                    *not_before_us = 0
                }
                Phase::Waiting { .. } | Phase::Checking | Phase::Settling { .. } => {}
            }
        }
        self.schedule(now, &mut todo);
        todo
    }

    /// Somebody made a message final from outside: cancelled.
    pub(crate) fn cancel(&mut self, now: Now, sender: &SenderName, id: &MessageId) -> Vec<Do> {
        let mut todo = Vec::new();
        let found = self
            .held
            .iter_mut()
            .find(|(_, held)| held.envelope.message_id == *id && held.envelope.sender == *sender);
        if let Some((&seq, held)) = found {
            match &mut held.phase {
                Phase::Checking | Phase::Waiting { .. } => self.leave(seq, &mut todo),
                Phase::Open(turn) => {
                    turn.cancelled = true;
                    todo.push(Do::Tell(ToWorker::Cancel { message_id: id.to_string() }));
                }
                Phase::Settling { .. } => {}
            }
        }
        self.schedule(now, &mut todo);
        todo
    }

    /// The worker is gone: every turn with it has used an attempt.
    pub(crate) fn worker_exited(&mut self, now: Now, how: &str) -> Vec<Do> {
        self.stopped = true;
        let mut todo = Vec::new();
        let open: Vec<u64> = self.open.values().copied().collect();
        for seq in open {
            self.end_attempt(now, seq, how, true, &mut todo);
        }
        todo
    }

    /// An attempt ended without an answer: another one later, or the end.
    fn end_attempt(&mut self, now: Now, seq: u64, error: &str, retry: bool, todo: &mut Vec<Do>) {
        let error = &error[..error.floor_char_boundary(LONGEST_ERROR)];
        let Some(held) = self.held.get_mut(&seq) else {
            return;
        };
        let Phase::Open(mut turn) = std::mem::replace(&mut held.phase, Phase::READY) else {
            return;
        };
        self.open.remove(&held.envelope.message_id);
        held.attempts = turn.attempt;
        held.last_error = Some(error.to_owned());
        if turn.cancelled {
            return self.leave(seq, todo);
        }
        turn.push(now, EventBody::Error { error: error.to_owned() }, error.len());
        if retry && turn.attempt < self.rules.attempts {
            let delay = RETRY_FIRST_US << (turn.attempt - 1).min(5);
            let not_before_us = now.us + delay.min(RETRY_MAX_US);
            held.phase = Phase::Waiting { not_before_us, last: Some(turn) };
        } else {
            self.settle(now, seq, Some(turn), Outcome::Failed, None, Some(error.to_owned()), todo);
        }
    }

    /// A line of the worker's.
    pub(crate) fn line(&mut self, now: Now, line: FromWorker<'_>) -> Vec<Do> {
        let mut todo = Vec::new();
        match line {
            FromWorker::Ready => {}
            FromWorker::Text { turn, text } => {
                self.with_turn(now, &turn, &mut todo, |turn| turn.push_text(now, &text));
            }
            FromWorker::Event { turn, event } => {
                let bytes = event.to_string().len();
                if bytes > MAX_RECORD / 2 {
                    todo.push(Do::Note(format!(
                        "an event of {bytes} bytes was dropped: at most {} fit",
                        MAX_RECORD / 2
                    )));
                    return todo;
                }
                let body = EventBody::Worker { event };
                self.with_turn(now, &turn, &mut todo, |turn| turn.push(now, body, bytes));
            }
            FromWorker::Ack { turn } => self.with_turn(now, &turn, &mut todo, |turn| {
                turn.push(now, EventBody::Acknowledged, 16);
            }),
            FromWorker::Progress { turn: TurnRef { message_id: None, conversation_id: None } } => {
                for held in self.held.values_mut() {
                    if let Phase::Open(turn) = &mut held.phase {
                        turn.progress(now, self.rules.turn_timeout_us);
                    }
                }
            }
            FromWorker::Progress { turn } => self.with_turn(now, &turn, &mut todo, |_| {}),
            FromWorker::Done { turn, response } => {
                if let Some(seq) = self.turn_seq(&turn, &mut todo) {
                    self.done(now, seq, response.map(Into::into), &mut todo);
                }
            }
            FromWorker::Error { turn, error, retryable } => {
                if let Some(seq) = self.turn_seq(&turn, &mut todo) {
                    self.end_attempt(now, seq, &error, retryable, &mut todo);
                }
            }
            FromWorker::RouteRequest { turn, request_id, to_id, message, timeout_ms } => {
                let cause = self.find(&turn).and_then(|seq| self.held.get_mut(&seq)).map(|held| {
                    if let Phase::Open(turn) = &mut held.phase {
                        turn.progress(now, self.rules.turn_timeout_us);
                    }
                    Box::new(held.envelope.clone())
                });
                todo.push(Do::Ask(Box::new(Question {
                    request_id: request_id.into(),
                    to: to_id.into(),
                    message: message.into(),
                    timeout_ms,
                    cause,
                })));
            }
            FromWorker::Unknown { kind } => {
                todo.push(Do::Note(format!("the worker sent a line of unknown type {kind:?}")));
            }
        }
        self.schedule(now, &mut todo);
        todo
    }

    fn done(&mut self, now: Now, seq: u64, response: Option<String>, todo: &mut Vec<Do>) {
        let Some(held) = self.held.get_mut(&seq) else {
            return;
        };
        let Phase::Open(mut turn) = std::mem::replace(&mut held.phase, Phase::READY) else {
            return;
        };
        held.attempts = turn.attempt;
        self.open.remove(&held.envelope.message_id);
        if turn.cancelled {
            return self.leave(seq, todo);
        }
        let text = turn.take_text();
        let response = Some(response.unwrap_or(text));
        self.settle(now, seq, Some(turn), Outcome::Completed, response, None, todo);
    }

    /// Does something to an open turn: that is progress, and may be too much.
    fn with_turn(
        &mut self,
        now: Now,
        turn: &TurnRef<'_>,
        todo: &mut Vec<Do>,
        apply: impl FnOnce(&mut Turn),
    ) {
        let Some(seq) = self.turn_seq(turn, todo) else {
            return;
        };
        let Some(Held { phase: Phase::Open(turn), .. }) = self.held.get_mut(&seq) else {
            return;
        };
        turn.progress(now, self.rules.turn_timeout_us);
        if turn.cancelled {
            return;
        }
        apply(turn);
        if let Some(why) = turn.overflow() {
            let id = self.held.get(&seq).map(|held| held.envelope.message_id.to_string());
            todo.push(Do::Tell(ToWorker::Cancel { message_id: id.unwrap_or_default() }));
            self.end_attempt(now, seq, why, false, todo);
        }
    }

    fn find(&self, turn: &TurnRef<'_>) -> Option<u64> {
        if let Some(id) = &turn.message_id {
            return self.open.get(MessageId::new(id).ok()?.as_str()).copied();
        }
        if let Some(conversation) = &turn.conversation_id {
            let head = self.lanes.get(conversation.as_ref())?.front()?;
            return matches!(self.held.get(head)?.phase, Phase::Open(_)).then_some(*head);
        }
        self.only_open().and_then(|id| self.open.get(id)).copied()
    }

    fn turn_seq(&self, turn: &TurnRef<'_>, todo: &mut Vec<Do>) -> Option<u64> {
        let found = self.find(turn);
        if found.is_none() {
            todo.push(Do::Note(match (&turn.message_id, &turn.conversation_id) {
                (Some(id), _) => {
                    format!("the worker speaks of message {id:?}, which has no open turn")
                }
                (None, Some(id)) => {
                    format!("the worker speaks of conversation {id:?}, which has no open turn")
                }
                (None, None) => "the worker does not say which turn it speaks of".to_owned(),
            }));
        }
        found
    }
}

/// Events to publish.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) seq: u64,
    pub(crate) message_id: MessageId,
    pub(crate) conversation_id: ConversationId,
    pub(crate) attempt: u32,
    pub(crate) events: Vec<common::event::Event>,
}

/// Whether a final state fits a record.
fn fits(final_: &Final) -> bool {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // A byte takes at most six as JSON, and neither the tail nor a reason is long.
    let small = final_.response.as_ref().map_or(0, String::len) < 64 * 1024;
    let mut count = Count(0);
    small || serde_json::to_writer(&mut count, final_).is_ok() && count.0 <= MAX_RECORD
}
