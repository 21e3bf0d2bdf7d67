//! How many turns a conversation has had: it comes with each message of one.
//!
//! The first message of a conversation that an incarnation gets asks for it; from then on it is counted here.

use std::collections::HashMap;

use common::ConversationId;
use common::message::{Envelope, Kind};

use super::{Book, Do, Now, Phase};

/// Conversations that are counted, at most. Beyond them all are forgotten, and asked for again.
const MOST: usize = 4096;

/// What is known of the turns before a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing yet.
    #[default]
    Unasked,
    /// So many; none where nobody could tell.
    Told(Option<u64>),
}

/// The turns of conversations.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<ConversationId, u64>);

impl Turns {
    /// The turns before a message, if that is known or need not be.
    pub(super) fn before(&self, envelope: &Envelope, has_memory: bool) -> Before {
        let conversation = &envelope.conversation_id;
        if envelope.kind == Kind::Route || !has_memory {
            return Before::Told(None);
        }
        // One of its own: nothing was said in it before.
        if conversation.as_str() == envelope.message_id.as_str() {
            return Before::Told(Some(0));
        }
        self.0.get(conversation).map_or(Before::Unasked, |turns| Before::Told(Some(*turns)))
    }

    fn note(&mut self, conversation: &ConversationId, turns: u64) {
        if self.0.len() >= MOST && !self.0.contains_key(conversation) {
            self.0.clear();
        }
        self.0.insert(conversation.clone(), turns);
    }

    /// A message of it was finished by this incarnation.
    pub(super) fn finished(&mut self, conversation: &ConversationId) {
        if let Some(turns) = self.0.get_mut(conversation) {
            *turns += 1;
        }
    }

    /// A message of it was finished by somebody else, who knows when: it may have been counted.
    pub(super) fn forget(&mut self, conversation: &ConversationId) {
        self.0.remove(conversation);
    }
}

impl Book {
    /// The answer to a [`Do::CountTurns`].
    pub(crate) fn counted(&mut self, now: Now, seq: u64, turns: Option<u64>) -> Vec<Do> {
        let mut todo = Vec::new();
        self.fetching = self.fetching.saturating_sub(1);
        if let Some(held) = self.held.get_mut(&seq)
            && matches!(held.phase, Phase::Fetching)
        {
            held.phase = Phase::READY;
            held.before = Before::Told(turns);
            if let Some(turns) = turns {
                self.turns.note(&held.envelope.conversation_id, turns);
            }
        }
        self.schedule(now, &mut todo);
        todo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_bounded() {
        let id = |n: usize| ConversationId::new(format!("c{n}")).expect("valid");
        let mut turns = Turns::default();
        // One that is not known is not counted from nothing.
        turns.finished(&id(0));
        assert!(turns.0.is_empty());
        for n in 0..3 * MOST {
            turns.note(&id(n), 1);
            turns.finished(&id(n));
            assert!(turns.0.len() <= MOST);
            assert_eq!(turns.0.get(&id(n)), Some(&2));
        }
        turns.forget(&id(3 * MOST - 1));
        assert!(!turns.0.contains_key(&id(3 * MOST - 1)));
    }
}
