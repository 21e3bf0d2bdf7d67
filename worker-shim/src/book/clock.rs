//! What is due at a time: events, deadlines, retries.

use common::event::Event;
use common::message::Outcome;
use common::worker::ToWorker;
use common::{ConversationId, MessageId, SenderName};

use super::{Book, Do, Held, Now, Phase};
use crate::turn::Turn;

/// A turn that was told to end has this long before the worker is killed.
pub(crate) const GRACE_US: u64 = 5_000_000;

/// Events to publish.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The message's sequence, for [`Book::batch_stored`].
    pub(crate) seq: u64,
    pub(crate) sender: SenderName,
    pub(crate) message_id: MessageId,
    pub(crate) conversation_id: ConversationId,
    pub(crate) attempt: u32,
    pub(crate) events: Vec<Event>,
}

impl Book {
    /// The events that are due. `all`: whether due or not.
    pub(crate) fn take_batches(&mut self, now: Now, all: bool) -> Vec<Batch> {
        let mut batches = Vec::new();
        for seq in &self.active {
            let Some(held) = self.held.get_mut(seq) else { continue };
            let (turn, over) = match &mut held.phase {
                Phase::Open(turn) => (turn, false),
                Phase::Settling { turn, final_: Some(_) }
                | Phase::Waiting { last: Some(turn), .. } => (turn, true),
                Phase::Settling { .. }
                | Phase::Unchecked
                | Phase::Checking
                | Phase::Fetching
                | Phase::Waiting { last: None, .. } => continue,
            };
            if turn.due_us().is_some_and(|due| all || over || due <= now.us) {
                batches.push(Batch {
                    seq: *seq,
                    sender: held.envelope.sender.clone(),
                    message_id: held.envelope.message_id.clone(),
                    conversation_id: held.envelope.conversation_id.clone(),
                    attempt: turn.attempt,
                    events: turn.take_batch(now),
                });
            }
        }
        batches
    }

    /// A batch of [`Self::take_batches`] is stored.
    pub(crate) fn batch_stored(&mut self, now: Now, seq: u64) -> Vec<Do> {
        let mut todo = Vec::new();
        self.answered_us = now.us;
        if let Some(
            Phase::Open(turn)
            | Phase::Settling { turn, .. }
            | Phase::Waiting { last: Some(turn), .. },
        ) = self.held.get_mut(&seq).map(|held| &mut held.phase)
        {
            turn.batch_stored();
        }
        self.published(now, seq, &mut todo);
        todo
    }

    /// Goes on once something of a turn is stored.
    pub(super) fn published(&mut self, now: Now, seq: u64, todo: &mut Vec<Do>) {
        match self.held.get_mut(&seq).map(|held| &mut held.phase) {
            Some(Phase::Open(_)) => self.schedule(now, todo),
            Some(Phase::Settling { .. }) => self.send_final(now, seq, todo),
            Some(Phase::Waiting { last, .. }) => {
                if last.as_ref().is_some_and(Turn::is_published) {
                    *last = None;
                    self.index(seq);
                    self.mind_expiry(seq);
                    self.schedule(now, todo);
                }
            }
            Some(Phase::Unchecked | Phase::Checking | Phase::Fetching) | None => {}
        }
    }

    /// When [`Self::tick`] or [`Self::take_batches`] has something to do.
    pub(crate) fn next_us(&self) -> Option<u64> {
        let next = |held: &Held| match &held.phase {
            Phase::Open(turn) => {
                let deadline = turn.grace_us.unwrap_or(turn.deadline_us);
                [turn.due_us(), turn.people_us()]
                    .into_iter()
                    .flatten()
                    .fold(deadline, u64::min)
                    .into()
            }
            Phase::Settling { turn, .. } => turn.due_us(),
            Phase::Waiting { last: Some(turn), .. } => turn.due_us(),
            Phase::Waiting { not_before_us, .. } if *not_before_us > 0 => Some(*not_before_us),
            Phase::Waiting { .. } | Phase::Unchecked | Phase::Checking | Phase::Fetching => None,
        };
        let expiry = self.expiries.first().filter(|_| !self.stopped && !self.paused);
        self.active().filter_map(next).chain(expiry.map(|(at, _)| *at)).min()
    }

    /// A message that waits is looked at again once its deadline has passed.
    pub(super) fn mind_expiry(&mut self, seq: u64) {
        if let Some(at) = self.held.get(&seq).and_then(|held| held.expires_us) {
            self.expiries.insert((at, seq));
        }
    }

    /// Ends the messages that wait and whose deadlines have passed: whoever sent them is not to wait until a worker would be free. One that
    /// does not just wait is looked at when it does again.
    fn expire(&mut self, now: Now, todo: &mut Vec<Do>) {
        while !self.stopped
            && !self.paused
            && let Some(&(at, seq)) = self.expiries.first().filter(|(at, _)| *at <= now.us)
        {
            self.expiries.remove(&(at, seq));
            let waits = self.held.get(&seq).map(|held| &held.phase);
            if let Some(Phase::Waiting { last: None, .. }) = waits {
                let reason = "its deadline passed before a worker was free".to_owned();
                self.give_up(now, seq, Outcome::Expired, reason, todo);
            }
        }
    }

    /// Time has passed. `deaf`: the worker is not being listened to, so that its silence is not its own.
    pub(crate) fn tick(&mut self, now: Now, deaf: bool) -> Vec<Do> {
        let mut todo = Vec::new();
        let (timeout, timed_out) = (self.rules.turn_timeout_us, self.timed_out());
        for seq in self.active.iter().copied().collect::<Vec<_>>() {
            self.people_due(now, seq, &mut todo);
            let Some(held) = self.held.get_mut(&seq) else { continue };
            let id = &held.envelope.message_id;
            match &mut held.phase {
                Phase::Open(turn) => match turn.grace_us {
                    None if turn.deadline_us > now.us => {}
                    // The worker waits for us.
                    None if deaf || turn.stores_steps() || turn.waits_for_people() => {
                        turn.deadline_us = now.us.saturating_add(timeout)
                    }
                    None => {
                        turn.grace_us = Some(now.us + GRACE_US.min(timeout));
                        todo.push(Do::Note(format!(
                            "turn {id} made no progress in time: cancelling it"
                        )));
                        if !turn.cancelled {
                            todo.push(Do::Tell(ToWorker::Cancel { message_id: id.to_string() }));
                        }
                    }
                    Some(grace) if grace <= now.us => {
                        turn.grace_us = Some(u64::MAX);
                        let reason = turn.broken().map_or_else(|| timed_out.clone(), str::to_owned);
                        todo.push(Do::EndWorker { reason });
                    }
                    Some(_) => {}
                },
                Phase::Waiting { not_before_us, .. } if *not_before_us <= now.us => {
                    *not_before_us = 0;
                    self.index(seq);
                }
                Phase::Waiting { .. }
                | Phase::Unchecked
                | Phase::Checking
                | Phase::Fetching
                | Phase::Settling { .. } => {}
            }
        }
        self.expire(now, &mut todo);
        self.schedule(now, &mut todo);
        todo
    }
}
