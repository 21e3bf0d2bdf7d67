//! From the broker to the worker: deliveries, look-ups, the lanes of conversations, and who is next.

use broker::StepsOf;
use common::message::{Cause, Envelope, Final, Kind, Outcome};
use common::step::Step;
use common::trace;
use common::words::count;
use common::worker::ToWorker;

use super::steps::Known;
use super::turns::Before;
use super::{Arrival, Book, Do, Held, LOOK_UPS, Now, Phase, RECENT, TEXTS, figures};
use crate::clock::micros;
use crate::turn::Turn;

/// How many waiting messages are looked up before it is their turn.
const AHEAD: usize = 4;
/// With at least this many conversations waiting, no more messages are requested.
const ENOUGH: usize = 128;
/// What a line to the worker takes beside the text of a message, about.
const LINE: usize = 256;
/// No turn begins while the broker owes an answer and has given none for so long. One that is well answers within milliseconds.
const OWED_US: u64 = 1_000_000;

impl Book {
    /// A delivery.
    pub(crate) fn deliver(&mut self, now: Now, arrival: Arrival) -> Vec<Do> {
        let Arrival { seq, mut envelope, reply, check, left, age } = arrival;
        let again = seq <= self.highest;
        if again && self.recent.contains(&seq) {
            return vec![Do::Ack { reply }];
        }
        if let Some(held) = self.held.get_mut(&seq) {
            held.reply = reply;
            return vec![Do::Release];
        }
        self.highest = self.highest.max(seq);
        let mut todo = Vec::new();
        let phase = if check || again || self.was_cancelled(&envelope) {
            self.unchecked.insert(seq);
            Phase::Unchecked
        } else {
            Phase::READY
        };
        self.enter_lane(&envelope, seq);
        if !envelope.path.is_empty() {
            self.questions.insert(seq);
        }
        // The caller's own id of a question means nothing here.
        envelope.request_id = None;
        let text = self.texts + envelope.message.len() <= TEXTS;
        if text {
            self.texts += envelope.message.len();
        } else {
            envelope.message = String::new();
        }
        let expires_us = left.map(|left| now.us.saturating_add(micros(left)));
        let (attempts, last_error, alone) = (0, None, false);
        let turns = u32::from(check || again);
        let held = Held {
            envelope,
            text,
            expires_us,
            stored_us: figures::stored_us(now, age),
            first_text_us: None,
            reply,
            attempts,
            before: Before::Unasked,
            known: Known::None,
            asks: false,
            turns,
            last_error,
            alone,
            phase,
        };
        self.held.insert(seq, held);
        self.mind_expiry(seq);
        self.look_up_more(&mut todo);
        self.schedule(now, &mut todo);
        todo
    }

    /// Looks messages up that may be next, the oldest first. Of thousands that wait, most are not looked at for long: and a fleet whose
    /// agents all come back to many would ask the broker for little else.
    fn look_up_more(&mut self, todo: &mut Vec<Do>) {
        while self.checking < LOOK_UPS {
            let looked_up = self.checking + self.ready();
            let next = if looked_up < self.ahead() {
                self.unchecked.first().copied()
            } else {
                // What was looked up may all be behind the heads of a few lanes. And an open turn may wait for the answer to a question.
                self.unchecked_head().or_else(|| self.unchecked_question())
            };
            let Some(seq) = next else { return };
            self.unchecked.remove(&seq);
            if let Some(held) = self.held.get_mut(&seq) {
                held.phase = Phase::Checking;
                self.checking += 1;
                todo.push(Do::LookUp { seq, key: held.envelope.key() });
            }
        }
    }

    /// How many messages are wanted that can start: those that the worker has room for, as many again, and a few.
    fn ahead(&self) -> usize {
        2 * self.rules.concurrency + AHEAD
    }

    /// Whether so many conversations wait that no more messages are wanted for now.
    pub(crate) fn has_enough(&self) -> bool {
        self.heads.len() >= (2 * self.ahead()).max(ENOUGH)
    }

    /// How many have been looked up, or need not be, and wait.
    fn ready(&self) -> usize {
        let others = self.unchecked.len() + self.checking + self.fetching + self.active.len();
        self.held.len().saturating_sub(others)
    }

    /// The oldest head that was not looked up, while none can start.
    fn unchecked_head(&self) -> Option<u64> {
        let mut first = None;
        for seq in &self.heads {
            match self.held.get(seq).map(|held| &held.phase) {
                Some(Phase::Waiting { last: None, not_before_us: 0 } | Phase::Checking) => {
                    return None;
                }
                Some(Phase::Unchecked) => first = first.or(Some(*seq)),
                _ => {}
            }
        }
        first
    }

    fn unchecked_question(&self) -> Option<u64> {
        self.questions.iter().copied().find(|seq| self.unchecked.contains(seq))
    }

    /// The answer to a [`Do::Fetch`]: none when the request is not in the journal any more, or not to be read.
    pub(crate) fn fetched(&mut self, now: Now, seq: u64, text: Option<String>) -> Vec<Do> {
        let mut todo = Vec::new();
        self.fetching = self.fetching.saturating_sub(1);
        if let Some(held) = self.held.get_mut(&seq)
            && matches!(held.phase, Phase::Fetching)
        {
            held.phase = Phase::READY;
            match text {
                Some(text) => {
                    self.texts += text.len();
                    held.envelope.message = text;
                    held.text = true;
                }
                None => {
                    let reason = "its request is no longer in the journal".to_owned();
                    self.give_up(now, seq, Outcome::Failed, reason, &mut todo);
                }
            }
        }
        self.schedule(now, &mut todo);
        todo
    }

    /// Whether a cancel came before the message. A redelivery finds the final state too, so the memory is for the first time.
    fn was_cancelled(&mut self, envelope: &Envelope) -> bool {
        let is_it = |key: &common::message::MessageKey| {
            key.message_id == envelope.message_id && key.sender == envelope.sender
        };
        let found = self.cancelled.iter().position(is_it);
        let found = found.is_some_and(|at| self.cancelled.remove(at).is_some());
        self.figures.cancelled += u64::from(found);
        found
    }

    /// Keeps a lane in journal order, behind what is with the worker.
    fn enter_lane(&mut self, envelope: &Envelope, seq: u64) {
        let lane = self.lanes.entry(envelope.conversation_id.clone()).or_default();
        let busy = |held: &u64| {
            self.held
                .get(held)
                .is_some_and(|held| matches!(held.phase, Phase::Open(_) | Phase::Settling { .. }))
        };
        let at = lane.iter().rposition(|other| *other < seq || busy(other)).map_or(0, |at| at + 1);
        lane.insert(at, seq);
        if at == 0 {
            if let Some(behind) = lane.get(1) {
                self.heads.remove(behind);
            }
            self.heads.insert(seq);
        }
    }

    /// The answer to a [`Do::LookUp`]: its final state, the last attempt on record, and whether there are steps.
    pub(crate) fn looked_up(
        &mut self,
        now: Now,
        seq: u64,
        final_: Option<Box<Final>>,
        attempts: u32,
        steps: bool,
    ) -> Vec<Do> {
        let mut todo = Vec::new();
        self.checking = self.checking.saturating_sub(1);
        self.look_up_more(&mut todo);
        if let Some(held) = self.held.get_mut(&seq).filter(|h| matches!(h.phase, Phase::Checking)) {
            held.attempts = attempts;
            held.known = if steps { Known::Some } else { Known::None };
            held.alone = attempts > 0 && attempts + 1 == self.rules.attempts;
            held.phase = Phase::READY;
            match final_ {
                Some(final_) => {
                    self.turns.forget(&held.envelope.conversation_id);
                    self.leave(seq, Some(final_), &mut todo);
                }
                None => self.mind_expiry(seq),
            }
        }
        self.schedule(now, &mut todo);
        todo
    }

    /// Takes a message out of the book: it is final. A failed one has a dead letter before its ack: whoever dies in between
    /// leaves it to be redelivered, looked up, and buried then.
    pub(super) fn leave(&mut self, seq: u64, final_: Option<Box<Final>>, todo: &mut Vec<Do>) {
        let Some(Held { envelope, reply, expires_us, asks, .. }) = self.held.remove(&seq) else {
            return;
        };
        if final_.is_none() {
            self.turns.forget(&envelope.conversation_id);
        }
        if asks {
            todo.push(Do::CloseQuestions { key: envelope.key() });
        }
        if let Some(at) = expires_us {
            self.expiries.remove(&(at, seq));
        }
        self.texts -= envelope.message.len();
        self.close(&envelope, seq);
        for set in [&mut self.active, &mut self.heads, &mut self.questions, &mut self.unchecked] {
            set.remove(&seq);
        }
        if let Some(lane) = self.lanes.get_mut(&envelope.conversation_id) {
            match lane.front() {
                Some(first) if *first == seq => drop(lane.pop_front()),
                _ => lane.retain(|other| *other != seq),
            }
            match lane.front() {
                Some(first) => drop(self.heads.insert(*first)),
                None => drop(self.lanes.remove(&envelope.conversation_id)),
            }
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(seq);
        todo.push(match final_ {
            Some(final_) if final_.status == Outcome::Failed => {
                Do::Bury { envelope: Box::new(envelope), final_, reply }
            }
            _ => Do::Ack { reply },
        });
    }

    /// Takes a message off the list of open turns. Another sender's message of the same id may be on it.
    pub(super) fn close(&mut self, envelope: &Envelope, seq: u64) {
        if self.open.get(&envelope.message_id) == Some(&seq) {
            self.open.remove(&envelope.message_id);
        }
    }

    /// Starts what can start, oldest first.
    pub(super) fn schedule(&mut self, now: Now, todo: &mut Vec<Do>) {
        if self.stopped || self.paused {
            return;
        }
        self.start(now, todo);
        self.look_up_more(todo);
    }

    fn start(&mut self, now: Now, todo: &mut Vec<Do>) {
        self.lacks_room = false;
        while self.open.len() + self.fetching < self.rules.concurrency {
            let Some(seq) = self.startable(now) else { return };
            if self.is_owed_an_answer(now) {
                return;
            }
            if self.room == 0 {
                self.lacks_room = true;
                return;
            }
            self.begin(now, seq, todo);
        }
        self.refuse_deadlocks(now, todo);
    }

    /// Whether the broker owes an answer and has given none for so long that it may be frozen or gone: the attempt of a turn that began
    /// now would be on record nowhere, should this process be killed before the broker is back. One that is slow is neither.
    fn is_owed_an_answer(&self, now: Now) -> bool {
        let sent = self.active().filter_map(|held| held.turn()?.sent_us()).min();
        let silent = |sent: u64| now.us.saturating_sub(sent.max(self.answered_us)) >= OWED_US;
        sent.is_some_and(silent)
    }

    /// The oldest message that can start. From when one waits that needs the worker for itself until it is over, only that one
    /// and what open turns wait for.
    fn startable(&self, now: Now) -> Option<u64> {
        let mut open = self.open.values().filter_map(|seq| self.held.get(seq));
        let mut reserved = open.any(|open| open.alone);
        for &seq in &self.heads {
            let Some(held) = self.held.get(&seq) else { continue };
            let is_ready = matches!(held.phase, Phase::Waiting { not_before_us, last: None } if not_before_us <= now.us);
            if !is_ready || self.open.contains_key(&held.envelope.message_id) {
                continue;
            }
            if self.open.is_empty() && !reserved || self.is_awaited(held) {
                return Some(seq);
            }
            reserved |= held.alone;
            if !reserved {
                return Some(seq);
            }
        }
        None
    }

    /// Whether an open turn waits for the answer to this message.
    fn is_awaited(&self, held: &Held) -> bool {
        let open = |cause: &Cause| {
            let seq = self.open.get(&cause.message_id);
            seq.and_then(|seq| self.held.get(seq)).is_some_and(|open| is_of(cause, &open.envelope))
        };
        held.envelope.path.iter().any(open)
    }

    /// Gives a message to the worker, or ends it when that is too late.
    fn begin(&mut self, now: Now, seq: u64, todo: &mut Vec<Do>) {
        let Some(held) = self.held.get_mut(&seq) else {
            return;
        };
        let attempt = held.attempts + 1;
        if held.expires_us.is_some_and(|expires| expires <= now.us) {
            let reason = "its deadline passed before a worker was free".to_owned();
            return self.give_up(now, seq, Outcome::Expired, reason, todo);
        }
        if attempt > self.rules.attempts {
            let reason =
                format!("gave up after {}", count(held.attempts.into(), "attempt", "attempts"));
            let reason = held.last_error.take().unwrap_or(reason);
            return self.give_up(now, seq, Outcome::Failed, reason, todo);
        }
        if !held.text {
            self.fetching += 1;
            held.phase = Phase::Fetching;
            return todo.push(Do::Fetch { seq, key: held.envelope.key() });
        }
        if held.before == Before::Unasked {
            held.before = self.turns.before(&held.envelope, self.rules.memory);
        }
        let Before::Told(turn) = held.before else {
            self.fetching += 1;
            held.phase = Phase::Fetching;
            let conversation = held.envelope.conversation_id.clone();
            return todo.push(Do::CountTurns { seq, conversation });
        };
        if matches!(held.known, Known::Some) {
            self.fetching += 1;
            held.phase = Phase::Fetching;
            let (key, conversation) = (held.envelope.key(), held.envelope.conversation_id.clone());
            let incarnation = self.rules.incarnation;
            let of = StepsOf { key, conversation, attempt, incarnation };
            return todo.push(Do::Recall { seq, of: Box::new(of) });
        }
        let (steps, known) = held.known.take();
        let envelope = &mut held.envelope;
        let (message_id, from_id) = (envelope.message_id.to_string(), envelope.sender.to_string());
        let stored: usize = steps.iter().map(Step::bytes).sum();
        self.room = self.room.saturating_sub(envelope.message.len() + stored + LINE);
        let message = if self.texts > TEXTS {
            // The worker has it: another attempt can read it again.
            held.text = false;
            self.texts -= envelope.message.len();
            std::mem::take(&mut envelope.message)
        } else {
            envelope.message.clone()
        };
        let traceparent = trace::of_turn(envelope, attempt, self.rules.traces);
        todo.push(Do::Tell(match envelope.kind {
            Kind::Chat | Kind::Trigger => ToWorker::Chat {
                message_id,
                from_id,
                message,
                conversation_id: envelope.conversation_id.to_string(),
                turn,
                scheduled_for: envelope.scheduled_for,
                traceparent,
                steps,
            },
            Kind::Route => ToWorker::Route {
                request_id: message_id.clone(),
                message_id,
                from_id,
                message,
                traceparent,
                steps,
            },
        }));
        self.figures.attempts += 1;
        self.figures.started += u64::from(attempt == 1);
        self.open.insert(envelope.message_id.clone(), seq);
        let timeout = self.rules.turn_timeout_us;
        held.turns = held.turns.saturating_add(1);
        let turn = Turn::new(attempt, self.rules.incarnation, now, timeout).with_steps(known);
        held.phase = Phase::Open(turn);
        self.index(seq);
    }

    /// A question that waits for a slot, while every slot is taken by a turn that waits for its answer, would wait forever.
    fn refuse_deadlocks(&mut self, now: Now, todo: &mut Vec<Do>) {
        let waits_for_itself = |held: &Held| {
            let path = &held.envelope.path;
            matches!(held.phase, Phase::Waiting { last: None, .. })
                && self
                    .open
                    .values()
                    .filter_map(|seq| self.held.get(seq))
                    .all(|open| path.iter().any(|cause| is_of(cause, &open.envelope)))
        };
        if self.open.len() < self.rules.concurrency {
            // A text is on its way: its turn is not open yet.
            return;
        }
        let stuck: Vec<u64> = self
            .questions
            .iter()
            .copied()
            .filter(|seq| self.held.get(seq).is_some_and(waits_for_itself))
            .collect();
        for seq in stuck {
            let reason = format!(
                "deadlock: `{}` is waiting for the answer to its own question, which led to this one; \
                 raise its CONCURRENCY or let the callee ask somebody else",
                self.rules.agent
            );
            self.give_up(now, seq, Outcome::Failed, reason, todo);
        }
    }
}

fn is_of(cause: &Cause, message: &Envelope) -> bool {
    cause.message_id == message.message_id
        && cause.sender == message.sender
        && cause.agent == message.agent
}
