//! The lines of the worker.

use std::sync::Arc;
use std::time::Duration;

use common::worker::{Damage, FromWorker, MAX_DEPTH, MAX_EVENT, ToWorker, TurnRef};
use common::{MessageId, trace};

use super::people;
use super::quota::Quota;
use super::{Asker, Book, Do, Held, HistoryRequest, Now, Phase, Question};
use crate::turn::Turn;

impl Book {
    /// A line of the worker's.
    pub(crate) fn line(&mut self, now: Now, line: FromWorker<'_>) -> Vec<Do> {
        let mut todo = Vec::new();
        let open = self.open.len();
        match line {
            FromWorker::Ready => {}
            FromWorker::Text { turn, text } => {
                let secrets = Arc::clone(&self.rules.secrets);
                self.with_turn(now, &turn, &mut todo, |turn| turn.push_text(now, &text, &secrets));
            }
            FromWorker::TooDeep { turn } => {
                let why = format!("an event of more than {MAX_DEPTH} levels of nesting");
                self.leave_out(now, &turn, &why, &mut todo);
            }
            FromWorker::Event { turn, event } => {
                let bytes = event.to_string().len();
                if bytes > MAX_EVENT {
                    let why =
                        format!("an event of {bytes} bytes: at most {MAX_EVENT} are accepted");
                    self.leave_out(now, &turn, &why, &mut todo);
                    return todo;
                }
                let mut quota = std::mem::replace(&mut self.events, Quota::full());
                let mut omitted = None;
                self.with_turn(now, &turn, &mut todo, |turn| {
                    let why = if !turn.may_say(bytes) {
                        "more than 8 MiB of events in one turn: the rest is left out"
                    } else if !quota.take(now, bytes) {
                        "more events than an agent may send: 16 MiB at once, then 64 KiB a second"
                    } else {
                        return turn.say(now, event, bytes);
                    };
                    omitted = turn.omit(now, why).then_some(why);
                });
                self.events = quota;
                todo.extend(omitted.map(|why| Do::Note(why.to_owned())));
            }
            FromWorker::Ack { turn } => {
                self.with_turn(now, &turn, &mut todo, |turn| turn.acknowledge(now));
            }
            FromWorker::Progress { turn: TurnRef { message_id: None, conversation_id: None } } => {
                for seq in &self.active {
                    if let Some(Held { phase: Phase::Open(turn), .. }) = self.held.get_mut(seq) {
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
            FromWorker::Error { turn, error, retryable, retry_after_ms } => {
                if let Some(seq) = self.turn_seq(&turn, &mut todo) {
                    self.failed(now, seq, &error, retryable, &mut todo);
                    if let Some(ms) = retry_after_ms {
                        self.postpone(now, seq, ms);
                    }
                }
            }
            FromWorker::RouteRequest { turn, request_id, to_id, message, timeout_ms } => {
                let asker = self.asking(now, &turn);
                todo.push(Do::Ask(Box::new(Question {
                    request_id: request_id.into(),
                    to: to_id.into(),
                    message: message.into(),
                    timeout_ms,
                    asker,
                })));
            }
            FromWorker::Step { turn, key, result } => {
                self.step(now, &turn, key.into(), result.into(), &mut todo);
            }
            FromWorker::BadStep { turn, key, why } => {
                self.bad_step(now, &turn, key.map(Into::into), &why, &mut todo);
            }
            FromWorker::Question { turn, question } => {
                self.question(now, &turn, *question, &mut todo);
            }
            FromWorker::BadRequest { kind, request_id, why } if kind == "question" => {
                people::refuse(None, request_id.map(Into::into), &why, &mut todo);
            }
            FromWorker::HistoryRequest { request_id, conversation_id, before, limit } => {
                todo.push(Do::ReadHistory(Box::new(HistoryRequest {
                    request_id: request_id.into(),
                    conversation_id: conversation_id.into(),
                    before: before.map(Into::into),
                    limit,
                })));
            }
            FromWorker::BadRequest { kind, request_id, why } => {
                todo.push(Do::Note(format!("a line of type `{kind}` was not taken: {why}")));
                todo.extend(request_id.map(|id| {
                    Do::Tell(ToWorker::HistoryResponse {
                        request_id: id.into(),
                        turns: Vec::new(),
                        next: None,
                        error: Some(why),
                        retryable: false,
                    })
                }));
            }
            FromWorker::Unknown { kind } => {
                todo.push(Do::Note(format!("the worker sent a line of unknown type {kind:?}")));
            }
        }
        // Only the end of a turn makes room; most lines are pieces of an answer.
        if self.open.len() < open {
            self.schedule(now, &mut todo);
        }
        todo
    }

    /// A line that was meant for a turn cannot be taken: what the turn has said is not all that the worker said. Where the line does not
    /// tell which turn it was, that is so of each one that is open. `again`: another attempt may help.
    pub(crate) fn damaged(
        &mut self,
        now: Now,
        damage: &Damage,
        error: &str,
        again: bool,
    ) -> Vec<Do> {
        let mut todo = vec![Do::Note(error.to_owned())];
        if let Some(key) = &damage.step {
            self.bad_step(now, &damage.turn, Some(key.clone()), &damage.why, &mut todo);
            return todo;
        }
        let open = self.open.len();
        let is_named = damage.turn != TurnRef::default();
        let turns: Vec<u64> = match self.find(&damage.turn) {
            Some(seq) => vec![seq],
            // One that is over, or never was.
            None if is_named => Vec::new(),
            None => self.open.values().copied().collect(),
        };
        let ends = damage.ends && turns.len() == 1;
        for seq in turns {
            self.break_turn(now, seq, error, ends, again, &mut todo);
        }
        if self.open.len() < open {
            self.schedule(now, &mut todo);
        }
        todo
    }

    /// A turn cannot be answered any more. `ends`: the worker has ended it. Else a next attempt waits until it has: what it still says
    /// would be taken for that one's.
    fn break_turn(
        &mut self,
        now: Now,
        seq: u64,
        error: &str,
        ends: bool,
        again: bool,
        todo: &mut Vec<Do>,
    ) {
        let Some(Held { envelope, phase: Phase::Open(turn), .. }) = self.held.get_mut(&seq) else {
            return;
        };
        let is_last = !again || turn.attempt >= self.rules.attempts;
        if !ends && !turn.cancelled && turn.broken().is_none() {
            todo.push(Do::Tell(ToWorker::Cancel { message_id: envelope.message_id.to_string() }));
        }
        if ends || is_last {
            self.end_attempt(now, seq, error, again, todo);
        } else {
            turn.break_off(now, error);
            self.index(seq);
        }
    }

    /// An event is left out, and readers of the turn are told so.
    fn leave_out(&mut self, now: Now, turn: &TurnRef<'_>, why: &str, todo: &mut Vec<Do>) {
        self.with_turn(now, turn, todo, |turn| turn.leave_out(now, why));
        todo.push(Do::Note(format!("left out: {why}")));
    }

    /// The worker gave a turn up. One that ran out of time and was told to end has a right to another attempt, whatever the
    /// worker thinks of it.
    fn failed(&mut self, now: Now, seq: u64, error: &str, retryable: bool, todo: &mut Vec<Do>) {
        let (broken, timed_out) = match self.held.get(&seq) {
            Some(Held { phase: Phase::Open(turn), .. }) => {
                (turn.broken().map(str::to_owned), turn.grace_us.is_some())
            }
            _ => (None, false),
        };
        if let Some(broken) = broken {
            return self.end_attempt(now, seq, &broken, true, todo);
        }
        if timed_out {
            let error = format!("{}: {error}", self.timed_out());
            return self.end_attempt(now, seq, &error, true, todo);
        }
        self.end_attempt(now, seq, error, retryable, todo);
    }

    /// What is said of a turn that made no progress for too long.
    pub(super) fn timed_out(&self) -> String {
        format!("turn timed out after {:?}", Duration::from_micros(self.rules.turn_timeout_us))
    }

    /// The turn that asks a question; asking is progress.
    fn asking(&mut self, now: Now, turn: &TurnRef<'_>) -> Option<Asker> {
        let seq = self.find(turn)?;
        let Held { envelope, expires_us, turns, phase: Phase::Open(turn), .. } =
            self.held.get_mut(&seq)?
        else {
            return None;
        };
        turn.progress(now, self.rules.turn_timeout_us);
        let left = expires_us.map(|at| Duration::from_micros(at.saturating_sub(now.us)));
        let again = turn.attempt > 1 || *turns > 1;
        let (attempt, envelope) = (turn.attempt, Box::new(envelope.clone()));
        let traceparent = trace::of_turn(&envelope, attempt, self.rules.traces);
        Some(Asker { seq, attempt, again, envelope, traceparent, left })
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
        let Some(Held { envelope, phase: Phase::Open(turn), .. }) = self.held.get_mut(&seq) else {
            return;
        };
        turn.progress(now, self.rules.turn_timeout_us);
        if turn.cancelled || turn.broken().is_some() {
            return;
        }
        apply(turn);
        if let Some(why) = turn.overflow() {
            let id = envelope.message_id.to_string();
            todo.push(Do::Note(format!("message {id}: {why}")));
            todo.push(Do::Tell(ToWorker::Cancel { message_id: id }));
            self.end_attempt(now, seq, why, false, todo);
        }
    }

    pub(super) fn find(&self, turn: &TurnRef<'_>) -> Option<u64> {
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
                    format!("the worker refers to message {id:?}, which has no open turn")
                }
                (None, Some(id)) => {
                    format!("the worker refers to conversation {id:?}, which has no open turn")
                }
                (None, None) => "the worker does not say which turn it refers to".to_owned(),
            }));
        }
        found
    }
}
