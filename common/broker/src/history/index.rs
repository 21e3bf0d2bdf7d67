//! Where in HISTORY a message is, by its id alone: INDEX has a subject for each 4.1 s of ids that hold their time (UUIDv7), and
//! sixteen for all others. What is read to find a message is what was sent in about the same seconds, whatever else there is. Pure.
//!
//! An entry is 24 bytes: the id as 16 bytes, then the sequence in HISTORY, both big endian.

use std::ops::RangeInclusive;

use bytes::{BufMut as _, Bytes, BytesMut};
use common::MessageId;
use uuid::Uuid;

/// The bytes of an entry.
const ENTRY: usize = 24;

/// What ids of other shapes are made 16 bytes long with.
const OTHERS: Uuid = Uuid::from_u128(0x1d7b_60f1_53a8_4c52_9e0c_2a6f_0b8d_9c41);

/// Ids made within this many milliseconds are in one part: they share their first 9 hexadecimal digits. With parts of an hour or minute, it
/// took 0.2 s to find one of a million messages that were sent within a few minutes.
const SLOT: u64 = 1 << 12;

/// A beginning of an id that more parts share than this is too short to look it up: 8 hexadecimal digits are 16 of them, or 65.5 s.
const SLOTS: u64 = 32;

/// An id as the index holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IndexId(u128);

impl IndexId {
    pub(super) fn of(id: &MessageId) -> Self {
        Self(
            uuid_of(id.as_str())
                .unwrap_or_else(|| Uuid::new_v5(&OTHERS, id.as_str().as_bytes()))
                .as_u128(),
        )
    }
}

/// An id that is a UUID and is written as such.
fn uuid_of(id: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(id).ok()?;
    let mut written = Uuid::encode_buffer();
    (uuid.hyphenated().encode_lower(&mut written) == id).then_some(uuid)
}

/// The part of the index that an id is in.
pub(super) fn bucket(id: &MessageId) -> String {
    match uuid_of(id.as_str()) {
        Some(uuid) if uuid.get_version_num() == 7 => slot(millis(uuid.as_u128()) / SLOT),
        Some(_) | None => format!("h{:x}", IndexId::of(id).0 & 0xf),
    }
}

fn slot(number: u64) -> String {
    format!("t{number}")
}

/// When a UUIDv7 was made.
fn millis(uuid: u128) -> u64 {
    // The upper 48 bits.
    u64::try_from(uuid >> 80).unwrap_or(u64::MAX)
}

/// The ids that begin like this, and the parts of the index where those are that hold their time. None if it is no beginning of a
/// UUID, or so short that they are all over the index.
pub(super) fn beginning(text: &str) -> Option<(RangeInclusive<IndexId>, Vec<String>)> {
    let (mut low, mut high, mut digits) = (0_u128, 0_u128, 0_usize);
    for (place, char) in text.chars().enumerate() {
        if matches!(place, 8 | 13 | 18 | 23) {
            if char != '-' {
                return None;
            }
            continue;
        }
        let digit = char.to_digit(16).filter(|_| !char.is_ascii_uppercase())?;
        if digits == 32 {
            return None;
        }
        let shift = 124 - 4 * digits;
        low |= u128::from(digit) << shift;
        digits += 1;
    }
    if digits < 32 {
        high = u128::MAX >> (4 * digits);
    }
    high |= low;
    let (from, to) = (millis(low) / SLOT, millis(high) / SLOT);
    let slots = (to - from < SLOTS).then(|| (from..=to).map(slot).collect())?;
    Some((IndexId(low)..=IndexId(high), slots))
}

/// Entries as one record holds them.
pub(super) fn encode(entries: &[(IndexId, u64)]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(entries.len() * ENTRY);
    for (IndexId(id), seq) in entries {
        bytes.put_u128(*id);
        bytes.put_u64(*seq);
    }
    bytes.freeze()
}

/// The sequences of the entries whose ids are wanted, in a record's payload. What is not an entry is left out.
pub(super) fn wanted(
    payload: &[u8],
    is_wanted: impl Fn(&IndexId) -> bool,
) -> impl Iterator<Item = u64> {
    let (entries, _) = payload.as_chunks::<ENTRY>();
    entries.iter().filter_map(move |entry| {
        let (id, seq) = entry.split_first_chunk::<16>()?;
        let seq = seq.first_chunk::<8>()?;
        is_wanted(&IndexId(u128::from_be_bytes(*id))).then(|| u64::from_be_bytes(*seq))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: &str) -> MessageId {
        MessageId::new(id).expect("valid")
    }

    /// Made at 0x0198_c0de_0000 ms.
    const V7: &str = "0198c0de-0000-7abc-8def-0123456789ab";

    #[test]
    fn ids_that_hold_their_time_are_by_the_second_and_all_others_in_sixteen_parts() {
        assert_eq!(bucket(&id(V7)), format!("t{}", 0x0198_c0de_0000_u64 >> 12));
        let others = [
            "order-123",
            "0198c0de-0000-4abc-8def-0123456789ab",
            "0198C0DE-0000-7ABC-8DEF-0123456789AB",
        ];
        for other in others {
            assert!(bucket(&id(other)).starts_with('h'), "{other}");
        }
        assert_ne!(IndexId::of(&id("a")), IndexId::of(&id("b")));
    }

    #[test]
    fn entries_are_found_by_whole_ids_and_by_beginnings() {
        let other = "0198c0de-0001-7abc-8def-0123456789ab";
        let entries = [(IndexId::of(&id(V7)), 7), (IndexId::of(&id(other)), 9)];
        let payload = encode(&entries);
        let found = |text: &str| {
            let (ids, _) = beginning(text).expect("a beginning");
            wanted(&payload, |id| ids.contains(id)).collect::<Vec<_>>()
        };
        assert_eq!(found(V7), [7]);
        assert_eq!(found("0198c0de-0001"), [9]);
        assert_eq!(found("0198c0de-000"), [7, 9]);
        assert_eq!(found("0198c0df"), [0; 0]);
        let whole = IndexId::of(&id(V7));
        let cut = &payload[..ENTRY + 5];
        assert_eq!(wanted(cut, |id| *id == whole).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn what_begins_no_uuid_or_says_too_little_is_no_beginning() {
        for text in [
            "",
            "01",
            "0198c0",
            "0198c0d",
            "0198c0dx",
            "0198C0DE",
            "0198c0de0",
            "0198c0de-0000-7abc-8def-0123456789ab0",
        ] {
            assert_eq!(beginning(text), None, "{text}");
        }
        let slots = |text| beginning(text).expect("a beginning").1.len();
        assert_eq!((slots(V7), slots("0198c0de-0"), slots("0198c0de")), (1, 1, 16));
    }
}
