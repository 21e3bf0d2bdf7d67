//! Cursors of lists: opaque text for people to pass on. Pure.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::list::ListQuery;

/// What the names of lists are made numbers with.
const LISTS: Uuid = Uuid::from_u128(0x5b0c_9d27_6a1e_4f38_8f54_0e9b_c1a7_d263);

/// More parts than any list has: each is read from, and a cursor is text that anybody may have written.
const MOST: usize = 256;

/// A cursor of a list. The list of another fleet, agent or conversation refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which list it is of.
    list: u32,
    /// HISTORY's end, then as many as there are journals, one of LATER, then each part: its two bounds, and whether `from` follows.
    numbers: Vec<u64>,
}

/// What a place says of the streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// HISTORY's last sequence when it was looked at. What it gets later is in no part yet.
    pub(super) end: u64,
    /// Of each journal, the sequence before which the list goes on; 0 at its start.
    pub(super) journals: Vec<u64>,
    /// The same of LATER; none at its start.
    pub(super) later: Option<u64>,
    /// What is to be given of HISTORY, the newest part first.
    pub(super) parts: Vec<Part>,
}

/// A part of HISTORY: what moved there between two pages of the list, or, in the oldest one, before the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The sequence before which the list goes on.
    pub(super) before: u64,
    /// The sequence after which it begins.
    pub(super) after: u64,
    /// Of each journal, the sequence from which on everything was given before it moved; empty if nothing was.
    pub(super) from: Vec<u64>,
}

/// The number of a query's list.
pub(super) fn list(namespace: &str, query: &ListQuery) -> u32 {
    let ListQuery { agent, conversation, hot, .. } = query;
    let agent = agent.as_ref().map_or("", |agent| agent.as_str());
    let conversation = conversation.as_ref().map(ToString::to_string).unwrap_or_default();
    // None of them has a space.
    let name = format!("{namespace} {agent} {conversation} {hot} later");
    Uuid::new_v5(&LISTS, name.as_bytes()).as_fields().0
}

impl Cursor {
    pub(super) fn new(list: u32, places: Places) -> Self {
        let Places { end, journals, later, parts } = places;
        let mut numbers = vec![end];
        numbers.extend(journals);
        numbers.push(later.unwrap_or(u64::MAX));
        for Part { before, after, from } in parts {
            numbers.extend([before, after, u64::from(!from.is_empty())]);
            numbers.extend(from);
        }
        Self { list, numbers }
    }

    /// The positions in this list, for this many journals; none if the cursor is of another list.
    pub(super) fn places(&self, list: u32, journals: usize) -> Option<Places> {
        let (end, rest) = self.numbers.split_first()?;
        let (journals, rest) = rest.split_at_checked(journals)?;
        let (later, mut rest) = rest.split_first()?;
        let mut parts = Vec::new();
        while let [before, after, has_from, others @ ..] = rest {
            let count = if *has_from == 0 { 0 } else { journals.len() };
            let (from, others) = others.split_at_checked(count)?;
            parts.push(Part { before: *before, after: *after, from: from.to_vec() });
            rest = others;
            if parts.len() > MOST {
                return None;
            }
        }
        let (later, journals) = (Some(*later), journals.to_vec());
        let places = Places { end: *end, journals, later, parts };
        (self.list == list && rest.is_empty()).then_some(places)
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
        parsed.ok_or_else(|| "not a cursor printed by a list".to_owned())
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
        let newer = Part { before: 41, after: 30, from: vec![9, 7] };
        let oldest = Part { before: 12, after: 0, from: vec![] };
        let number = list("ns", &query("a", None));
        for (parts, count) in [(vec![], 5), (vec![newer.clone()], 10), (vec![newer, oldest], 13)] {
            let places = Places { end: 40, journals: vec![5, 3], later: Some(8), parts };
            let text = Cursor::new(number, places.clone()).to_string();
            assert_eq!(text.split('.').count(), count, "{text}");
            let parsed: Cursor = text.parse().expect("it is one");
            assert_eq!(parsed.places(number, 2), Some(places));
            assert_eq!(parsed.places(number, 9), None, "{text}");
            assert_eq!(parsed.places(number + 1, 2), None);
        }
        let parts = vec![Part { before: 2, after: 1, from: vec![] }; MOST + 1];
        let many = Places { end: 1, journals: vec![1], later: None, parts };
        assert_eq!(Cursor::new(number, many).places(number, 1), None);
        for bad in ["", "x", "1", "1.", "1.x", "1..2", "123456789.1", "-1.2"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?}");
        }
        assert_eq!("1.2".parse::<Cursor>().expect("numbers").places(1, 1), None);
        assert_eq!("1.2.3".parse::<Cursor>().expect("numbers").places(1, 1), None);
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
