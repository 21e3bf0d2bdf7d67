//! Which records of a journal belong together, as they are read in order. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};

use common::message::MessageKey;

/// The requests read so far whose final states have not been. 32 bytes or so for each, whatever their names: an agent that was stopped
/// for a week may have a hundred thousand.
#[derive(Debug, Default)]
pub(super) struct Held {
    names: RandomState,
    by_name: HashMap<u64, u64>,
    by_seq: BTreeMap<u64, u64>,
}

impl Held {
    /// A request.
    pub(super) fn request(&mut self, key: &MessageKey, seq: u64) {
        let name = self.names.hash_one(key);
        if let Some(earlier) = self.by_name.insert(name, seq) {
            self.by_seq.remove(&earlier);
        }
        self.by_seq.insert(seq, name);
    }

    /// A final state: the sequence of its request, if that was read. Two names may have one hash: the request tells whose it is.
    pub(super) fn finish(&mut self, key: &MessageKey) -> Option<u64> {
        let seq = self.by_name.remove(&self.names.hash_one(key))?;
        self.by_seq.remove(&seq);
        Some(seq)
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<u64> {
        self.by_seq.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use common::{AgentName, MessageId, SenderName};

    use super::*;

    fn key(id: &str) -> MessageKey {
        MessageKey {
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            message_id: MessageId::new(id).expect("valid"),
        }
    }

    #[test]
    fn the_first_open_request_is_known_whatever_finishes_in_between() {
        let mut held = Held::default();
        assert_eq!((held.first(), held.finish(&key("a"))), (None, None));
        for (id, seq) in [("a", 3), ("b", 5), ("c", 9)] {
            held.request(&key(id), seq);
        }
        assert_eq!(held.finish(&key("b")), Some(5));
        assert_eq!((held.first(), held.by_seq.len()), (Some(3), 2));
        assert_eq!(held.finish(&key("a")), Some(3));
        assert_eq!((held.first(), held.finish(&key("a"))), (Some(9), None));
    }

    #[test]
    fn a_request_that_is_there_twice_counts_where_it_is_last() {
        let mut held = Held::default();
        held.request(&key("a"), 1);
        held.request(&key("a"), 7);
        assert_eq!((held.first(), held.by_seq.len()), (Some(7), 1));
    }
}
