//! Places in lists: text for people to pass on, without meaning to them. Pure.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::list::ListQuery;

/// What the names of lists are made numbers with.
const LISTS: Uuid = Uuid::from_u128(0x5b0c_9d27_6a1e_4f38_8f54_0e9b_c1a7_d263);

/// A place in a list. The list of another fleet, agent or conversation has no such place, and refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which list it is of.
    list: u32,
    /// As text has them: `history`, then as many as there are journals, then what was `given`.
    numbers: Vec<u64>,
}

/// What a place says of the streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// The last sequence of HISTORY that was given; 0 if nothing of it was.
    pub(super) history: u64,
    /// Of each journal, the sequence before which the list goes on.
    pub(super) journals: Vec<u64>,
    pub(super) given: Given,
}

/// What was given while it was in the journal. What has gone to HISTORY since then is not given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// HISTORY's last sequence at that time.
    pub(super) end: u64,
    /// Of each journal, the sequence from which on everything was given.
    pub(super) from: Vec<u64>,
}

/// The number of a query's list.
pub(super) fn list(namespace: &str, query: &ListQuery) -> u32 {
    let ListQuery { agent, conversation, hot, .. } = query;
    let agent = agent.as_ref().map_or("", |agent| agent.as_str());
    let conversation = conversation.as_ref().map(ToString::to_string).unwrap_or_default();
    // None of them has a space.
    let name = format!("{namespace} {agent} {conversation} {hot}");
    Uuid::new_v5(&LISTS, name.as_bytes()).as_fields().0
}

impl Cursor {
    pub(super) fn new(list: u32, places: Places) -> Self {
        let Places { history, journals, given: Given { end, from } } = places;
        let mut numbers = vec![end, history];
        // Most often the two are the same.
        let differs = from != journals;
        numbers.extend(journals);
        if differs {
            numbers.extend(from);
        }
        Self { list, numbers }
    }

    /// The places in this list of so many journals; none if it is another one's.
    pub(super) fn places(&self, list: u32, journals: usize) -> Option<Places> {
        let [end, history, rest @ ..] = self.numbers.as_slice() else { return None };
        let is_given = rest.len() == 2 * journals;
        if self.list != list || !(is_given || rest.len() == journals) {
            return None;
        }
        let (journals, given) = rest.split_at(journals);
        let from = if is_given { given } else { journals };
        let given = Given { end: *end, from: from.to_vec() };
        Some(Places { history: *history, journals: journals.to_vec(), given })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.list)?;
        self.numbers.iter().try_for_each(|number| write!(f, ".{number}"))
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (list, numbers) = text.split_once('.').unwrap_or((text, ""));
        let list = u32::from_str_radix(list, 16).ok();
        let numbers: Option<_> = numbers.split('.').map(|number| number.parse().ok()).collect();
        let parsed = list.zip(numbers).map(|(list, numbers)| Self { list, numbers });
        parsed.ok_or_else(|| "not a place printed by a list".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{AgentName, ConversationId, ConversationTag};

    fn query(agent: &str, conversation: Option<&str>) -> ListQuery {
        let tag = |id| ConversationTag::of_conversation(&ConversationId::new(id).expect("valid"));
        let agent = AgentName::new(agent).ok();
        ListQuery { agent, conversation: conversation.map(tag), ..ListQuery::default() }
    }

    #[test]
    fn a_place_survives_as_text_and_is_of_its_own_list_alone() {
        let given = Given { end: 40, from: vec![9, 7] };
        let same = Places { history: 0, journals: vec![9, 7], given: given.clone() };
        let later = Places { history: 41, journals: vec![5, 3], given };
        let number = list("ns", &query("a", None));
        for (places, count) in [(same, 5), (later, 7)] {
            let text = Cursor::new(number, places.clone()).to_string();
            assert_eq!(text.split('.').count(), count, "{text}");
            let parsed: Cursor = text.parse().expect("it is one");
            assert_eq!(parsed.places(number, 2), Some(places));
            assert_eq!(parsed.places(number, 3), None);
            assert_eq!(parsed.places(number + 1, 2), None);
        }
        for bad in ["", "x", "1", "1.", "1.x", "1..2", "123456789.1", "-1.2"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?}");
        }
        assert_eq!("1.2".parse::<Cursor>().expect("numbers").places(1, 1), None);
    }

    #[test]
    fn lists_of_other_things_are_other_lists() {
        let all = [
            list("ns", &ListQuery::default()),
            list("other", &ListQuery::default()),
            list("ns", &ListQuery { hot: true, ..ListQuery::default() }),
            list("ns", &query("a", None)),
            list("ns", &query("b", None)),
            list("ns", &query("a", Some("c"))),
            list("ns", &query("a", Some("d"))),
        ];
        let distinct: std::collections::BTreeSet<u32> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
        let other_size = ListQuery { about: 7, ..query("a", None) };
        assert_eq!(list("ns", &other_size), all[3], "how much is read does not matter");
    }
}
