//! The ids of recent records: a record that the log stored twice counts once.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

/// How many ids are kept: half a mebibyte. An author repeats a record for 5 s; the log would have to take 800 others a second for one
/// to be forgotten in that time.
const MOST: usize = 4_096;

/// The ids of the newest records.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "VecDeque<String>", into = "VecDeque<String>")]
pub(crate) struct Recent {
    order: VecDeque<String>,
    ids: BTreeSet<String>,
}

impl Recent {
    /// Notes a record; whether it is new. O(log n).
    pub(crate) fn note(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

impl From<VecDeque<String>> for Recent {
    fn from(order: VecDeque<String>) -> Self {
        Self { ids: order.iter().cloned().collect(), order }
    }
}

impl From<Recent> for VecDeque<String> {
    fn from(recent: Recent) -> Self {
        recent.order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_among_the_newest_only() {
        let mut recent = Recent::default();
        assert!(recent.note("a"));
        for other in 1..MOST {
            assert!(recent.note(&other.to_string()));
        }
        assert!(!recent.note("a"));
        assert!(recent.note("one more"));
        assert_eq!((recent.order.len(), recent.ids.len()), (MOST, MOST));
        assert!(recent.note("a"), "the oldest gave way");
        let json = serde_json::to_string(&recent).expect("plain");
        assert_eq!(serde_json::from_str::<Recent>(&json).expect("what we wrote"), recent);
    }
}
