//! Durable steps: from the worker to the broker, and back to the next attempt.

use broker::{Recalled, StepEnd, Stepped, StepsOf};
use common::step::{Json, Step};
use common::worker::{ToWorker, TurnRef};

use super::{Book, Do, Held, Now, Phase};
use crate::steps::{Answer, Steps};

/// What is known of the steps of a message.
#[derive(Debug, Default)]
pub(super) enum Known {
    /// There are none.
    #[default]
    None,
    /// There are some, of another incarnation or of an earlier turn here.
    Some,
    /// They were read for the turn that is about to begin.
    Read(Recalled),
}

impl Book {
    /// A step of the worker's. That is progress.
    pub(super) fn step(
        &mut self,
        now: Now,
        turn: &TurnRef<'_>,
        key: String,
        result: String,
        todo: &mut Vec<Do>,
    ) {
        let timeout = self.rules.turn_timeout_us;
        let open = self.find(turn).and_then(|seq| Some((seq, self.held.get_mut(&seq)?)));
        let Some((seq, Held { known, phase: Phase::Open(open), .. })) = open else {
            let why = "it belongs to no open turn: name its `messageId`";
            return refuse(turn, Some(key), why, todo);
        };
        open.progress(now, timeout);
        if open.cancelled {
            return refuse(turn, Some(key), "its turn was cancelled", todo);
        }
        let result = match Json::new(result) {
            Ok(result) => result,
            Err(error) => return refuse(turn, Some(key), &error.to_string(), todo),
        };
        if let Err(why) = open.steps_mut().add(Step { key: key.clone(), result }) {
            return refuse(turn, Some(key), &why, todo);
        }
        *known = Known::Some;
        self.next_step(seq, todo);
    }

    /// A step that cannot be stored: its turn goes on.
    pub(super) fn bad_step(
        &mut self,
        now: Now,
        turn: &TurnRef<'_>,
        key: Option<String>,
        why: &str,
        todo: &mut Vec<Do>,
    ) {
        let timeout = self.rules.turn_timeout_us;
        if let Some(seq) = self.find(turn)
            && let Some(Held { phase: Phase::Open(turn), .. }) = self.held.get_mut(&seq)
        {
            turn.progress(now, timeout);
        }
        refuse(turn, key, why, todo);
    }

    /// Sends the next step of a turn, if none is on its way.
    fn next_step(&mut self, seq: u64, todo: &mut Vec<Do>) {
        let incarnation = self.rules.incarnation;
        let Some(held) = self.held.get_mut(&seq) else { return };
        let is_open = matches!(held.phase, Phase::Open(_));
        let (Phase::Open(turn)
        | Phase::Settling { turn, .. }
        | Phase::Waiting { last: Some(turn), .. }) = &mut held.phase
        else {
            return;
        };
        let attempt = turn.attempt;
        let Some(steps) = turn.steps() else { return };
        let (answers, next) = steps.next();
        let envelope = &held.envelope;
        if is_open {
            todo.extend(answers.into_iter().map(|it| tell(envelope.message_id.as_str(), it)));
        }
        if let Some((step, after)) = next {
            let (key, conversation) = (envelope.key(), envelope.conversation_id.clone());
            let of = StepsOf { key, conversation, attempt, incarnation };
            todo.push(Do::Store { seq, of: Box::new(of), step, after });
        }
    }

    /// What came of a [`Do::Store`].
    pub(crate) fn stepped(
        &mut self,
        now: Now,
        seq: u64,
        attempt: u32,
        ended: Result<Stepped, String>,
    ) -> Vec<Do> {
        let mut todo = Vec::new();
        let Some(held) = self.held.get_mut(&seq) else { return todo };
        let is_open = matches!(held.phase, Phase::Open(_));
        let (Phase::Open(turn)
        | Phase::Settling { turn, .. }
        | Phase::Waiting { last: Some(turn), .. }) = &mut held.phase
        else {
            return todo;
        };
        if turn.attempt != attempt {
            return todo;
        }
        let is_fenced = matches!(&ended, Ok(Stepped { end: StepEnd::Fenced(_), .. }));
        let answer = turn.steps().and_then(|steps| steps.ended(ended));
        if is_open {
            // The worker could do nothing else.
            turn.progress(now, self.rules.turn_timeout_us);
            let id = held.envelope.message_id.as_str();
            todo.extend(answer.map(|answer| tell(id, answer)));
        }
        if is_fenced {
            self.taken_over(seq, &mut todo);
            self.schedule(now, &mut todo);
        }
        self.next_step(seq, &mut todo);
        self.published(now, seq, &mut todo);
        todo
    }

    /// A later incarnation works on a message: what becomes of it is not for this one to say any more, least of all that it failed.
    fn taken_over(&mut self, seq: u64, todo: &mut Vec<Do>) {
        let Some(held) = self.held.get_mut(&seq) else { return };
        // What it has asked people, the other asks.
        held.asks = false;
        match &mut held.phase {
            Phase::Open(turn) if !turn.cancelled => {
                turn.cancelled = true;
                let message_id = held.envelope.message_id.to_string();
                todo.push(Do::Tell(ToWorker::Cancel { message_id }));
                self.give_up_questions(seq, todo);
            }
            Phase::Settling { final_: Some(_), .. } | Phase::Waiting { .. } => {
                self.leave(seq, None, todo);
            }
            // Whether its final state is the first, the journal says.
            Phase::Open(_)
            | Phase::Settling { final_: None, .. }
            | Phase::Unchecked
            | Phase::Checking
            | Phase::Fetching => {}
        }
    }

    /// The steps of earlier attempts, for a turn that is to begin.
    pub(crate) fn recalled(&mut self, now: Now, seq: u64, recalled: Recalled) -> Vec<Do> {
        let mut todo = Vec::new();
        self.fetching = self.fetching.saturating_sub(1);
        if let Some(held) = self.held.get_mut(&seq)
            && matches!(held.phase, Phase::Fetching)
        {
            held.phase = Phase::READY;
            held.known = match recalled.last {
                0 => Known::None,
                _ => Known::Read(recalled),
            };
        }
        self.schedule(now, &mut todo);
        todo
    }
}

impl Known {
    /// Those that were read, for the turn that begins.
    pub(super) fn take(&mut self) -> (Vec<Step>, Option<Box<Steps>>) {
        match std::mem::take(self) {
            Self::Read(recalled) => {
                *self = Self::Some;
                let steps = Steps::of(&recalled);
                (recalled.steps, Some(Box::new(steps)))
            }
            Self::None | Self::Some => (Vec::new(), None),
        }
    }
}

fn tell(message_id: &str, answer: Answer) -> Do {
    let Answer { key, duplicate, result, error, retryable } = answer;
    let (message_id, key) = (Some(message_id.to_owned()), Some(key));
    Do::Tell(ToWorker::StepStored { message_id, key, duplicate, result, error, retryable })
}

fn refuse(turn: &TurnRef<'_>, key: Option<String>, why: &str, todo: &mut Vec<Do>) {
    todo.push(Do::Note(format!("a step was not stored: {why}")));
    let message_id = turn.message_id.as_ref().map(|id| id.chars().take(64).collect());
    let (duplicate, result, error, retryable) = (false, None, Some(why.to_owned()), false);
    let told = ToWorker::StepStored { message_id, key, duplicate, result, error, retryable };
    todo.push(Do::Tell(told));
}
