//! How turns and messages end: answered, failed, tried again, cancelled, with the worker.

use common::event::EventBody;
use common::message::{Final, MAX_RECORD, MessageKey, Outcome};
use common::worker::ToWorker;
use common::{MessageId, SenderName};

use super::{Book, CANCELLED, Do, Held, Now, Phase};
use crate::turn::{TOO_LARGE, Turn, json_len};

/// The longest delay that a worker may ask for: as long as any time in a soul.
const LONGEST_RETRY_MS: u64 = 24 * 3_600_000;
/// The most bytes of a worker's error that are kept.
const LONGEST_ERROR: usize = 8 * 1024;

impl Book {
    /// The worker's answer.
    pub(super) fn done(
        &mut self,
        now: Now,
        seq: u64,
        response: Option<String>,
        todo: &mut Vec<Do>,
    ) {
        let open = self.held.get(&seq).and_then(Held::turn);
        if let Some(broken) = open.filter(|turn| !turn.cancelled).and_then(Turn::broken) {
            let broken = broken.to_owned();
            return self.end_attempt(now, seq, &broken, true, todo);
        }
        let Some(mut turn) = self.take_turn(seq) else {
            return;
        };
        if turn.cancelled {
            return self.leave(seq, None, todo);
        }
        turn.push_rest(now);
        let text = turn.take_text();
        let final_ = Final {
            status: Outcome::Completed,
            response: Some(response.unwrap_or(text)),
            reason: None,
            attempts: turn.attempt,
            incarnation: Some(self.rules.incarnation),
            at: now.at,
            tail: Vec::new(),
        };
        self.settle(now, seq, turn, final_, todo);
    }

    /// An attempt ended without an answer: another one later, or the end.
    pub(super) fn end_attempt(
        &mut self,
        now: Now,
        seq: u64,
        error: &str,
        retry: bool,
        todo: &mut Vec<Do>,
    ) {
        let error = error[..error.floor_char_boundary(LONGEST_ERROR)].to_owned();
        let Some(mut turn) = self.take_turn(seq) else {
            return;
        };
        if turn.cancelled {
            return self.leave(seq, None, todo);
        }
        turn.push_rest(now);
        turn.push(now, EventBody::Error { error: error.clone() }, json_len(&error));
        if retry && turn.attempt < self.rules.attempts {
            let times = 1_u64.checked_shl(turn.attempt - 1).unwrap_or(u64::MAX);
            let delay = self.rules.retry_first_us.saturating_mul(times);
            let not_before_us = now.us.saturating_add(delay.min(self.rules.retry_max_us).max(1));
            if let Some(held) = self.held.get_mut(&seq) {
                held.last_error = Some(error);
                held.phase = Phase::Waiting { not_before_us, last: Some(turn) };
            }
            self.index(seq);
        } else {
            let final_ = Final {
                status: Outcome::Failed,
                response: None,
                reason: Some(error),
                attempts: turn.attempt,
                incarnation: Some(self.rules.incarnation),
                at: now.at,
                tail: Vec::new(),
            };
            self.settle(now, seq, turn, final_, todo);
        }
    }

    /// A message that is to be tried again is tried after this time, and not before.
    pub(super) fn postpone(&mut self, now: Now, seq: u64, ms: u64) {
        if let Some(Held { phase: Phase::Waiting { not_before_us, .. }, .. }) =
            self.held.get_mut(&seq)
        {
            *not_before_us = now.us + ms.clamp(1, LONGEST_RETRY_MS) * 1000;
            self.index(seq);
        }
    }

    /// Ends a message that no worker has.
    pub(super) fn give_up(
        &mut self,
        now: Now,
        seq: u64,
        status: Outcome,
        reason: String,
        todo: &mut Vec<Do>,
    ) {
        let attempts = self.held.get(&seq).map_or(0, |held| held.attempts);
        let final_ = Final {
            status,
            response: None,
            reason: Some(reason),
            attempts,
            incarnation: None,
            at: now.at,
            tail: Vec::new(),
        };
        self.settle(now, seq, Turn::silent(attempts, now), final_, todo);
    }

    /// Takes a message's turn away from the worker. What becomes of the message is the caller's to say.
    fn take_turn(&mut self, seq: u64) -> Option<Turn> {
        let held = self.held.get_mut(&seq)?;
        match std::mem::replace(&mut held.phase, Phase::READY) {
            Phase::Open(turn) => {
                held.attempts = turn.attempt;
                held.first_text_us = held.first_text_us.or(turn.first_text_us);
                let id = held.envelope.message_id.clone();
                if self.open.get(&id) == Some(&seq) {
                    self.open.remove(&id);
                }
                Some(turn)
            }
            other @ (Phase::Unchecked
            | Phase::Checking
            | Phase::Fetching
            | Phase::Waiting { .. }
            | Phase::Settling { .. }) => {
                held.phase = other;
                None
            }
        }
    }

    /// Ends a message: its last events, then its final state.
    fn settle(&mut self, now: Now, seq: u64, turn: Turn, mut final_: Final, todo: &mut Vec<Do>) {
        let Some(held) = self.held.get_mut(&seq) else {
            return;
        };
        if !fits(&final_) {
            todo.push(Do::Note(format!("message {}: {TOO_LARGE}", held.envelope.message_id)));
            final_.status = Outcome::Failed;
            final_.response = None;
            final_.reason = Some(TOO_LARGE.to_owned());
        }
        held.phase = Phase::Settling { turn, final_: Some(Box::new(final_)) };
        self.index(seq);
        self.send_final(now, seq, todo);
    }

    /// Sends the final state once no event of the turn is left to publish before it.
    pub(super) fn send_final(&mut self, now: Now, seq: u64, todo: &mut Vec<Do>) {
        let Some(Held { envelope, phase: Phase::Settling { turn, final_: waiting }, .. }) =
            self.held.get_mut(&seq)
        else {
            return;
        };
        let Some(tail) = turn.take_tail(now) else {
            return;
        };
        let Some(mut final_) = waiting.take() else {
            return;
        };
        final_.tail = tail;
        if fits(&final_) {
            let (key, conversation) = (envelope.key(), envelope.tag());
            let attempt = turn.attempt;
            todo.push(Do::Settle { seq, key, conversation, attempt, final_ });
        } else {
            // Both the answer and its last events do not fit: the events go first, on their own.
            turn.put_back(std::mem::take(&mut final_.tail));
            *waiting = Some(final_);
        }
    }

    /// A [`Do::Settle`] is stored, as it then was, or another final state was there first.
    pub(crate) fn settled(&mut self, now: Now, seq: u64, won: bool, final_: Box<Final>) -> Vec<Do> {
        let mut todo = Vec::new();
        self.answered_us = now.us;
        let sent = |held: &&Held| matches!(held.phase, Phase::Settling { final_: None, .. });
        if self.held.get(&seq).filter(sent).is_some() {
            self.finished += 1;
            self.lost_finals += u64::from(!won);
            self.count_end(now, seq, won, final_.status);
            if let Some(held) = self.held.get(&seq).filter(|_| won) {
                self.turns.finished(&held.envelope.conversation_id);
            }
            self.leave(seq, Some(final_).filter(|_| won), &mut todo);
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
        match found {
            Some((&seq, held)) => match &mut held.phase {
                Phase::Unchecked | Phase::Checking | Phase::Fetching | Phase::Waiting { .. } => {
                    self.figures.cancelled += 1;
                    self.leave(seq, None, &mut todo);
                }
                Phase::Open(turn) if !turn.cancelled => {
                    turn.cancelled = true;
                    self.figures.cancelled += 1;
                    todo.push(Do::Tell(ToWorker::Cancel { message_id: id.to_string() }));
                    self.give_up_questions(seq, &mut todo);
                }
                Phase::Open(_) | Phase::Settling { .. } => {}
            },
            None => {
                // It may be on its way: it is looked up when it comes.
                if self.cancelled.len() == CANCELLED {
                    self.cancelled.pop_front();
                }
                let (agent, sender) = (self.rules.agent.clone(), sender.clone());
                self.cancelled.push_back(MessageKey { agent, sender, message_id: id.clone() });
            }
        }
        self.schedule(now, &mut todo);
        todo
    }

    /// The worker never got the message that it was to be given: no attempt was made, unless one is on record already.
    pub(crate) fn not_given(&mut self, id: &str) {
        let Some(seq) = self.open.get(id).copied() else { return };
        let Some(held) = self.held.get_mut(&seq) else { return };
        if let Phase::Open(turn) = &held.phase
            && turn.is_unsaid()
        {
            held.phase = Phase::READY;
            self.open.remove(id);
            self.index(seq);
        }
    }

    /// The worker is gone: every turn with it has used an attempt.
    pub(crate) fn worker_exited(&mut self, now: Now, how: &str) -> Vec<Do> {
        self.stopped = true;
        let mut todo = Vec::new();
        let open: Vec<u64> = self.open.values().copied().collect();
        for seq in open {
            let broken = self.held.get(&seq).and_then(Held::turn).and_then(Turn::broken);
            let how = broken.unwrap_or(how).to_owned();
            self.end_attempt(now, seq, &how, true, &mut todo);
        }
        todo
    }
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
