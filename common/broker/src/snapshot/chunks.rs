//! A snapshot in records of a stream, and back. Pure: damage is found here, whatever the broker did to the chunks.
//!
//! Every chunk carries the whole head and the checksum of all: chunks of two writes are told apart by it, and one that is missing,
//! cut or changed makes the snapshot damaged, never another one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::Timestamp;
use common::snapshot::{Logged, SnapshotHead};
use sha2::{Digest as _, Sha256};

use crate::api::Record;

/// A chunk's size: a quarter of what a server takes by default, so that no write holds up the connection for long.
pub(super) const CHUNK: usize = 256 << 10;

/// The most chunks of one snapshot: 256 MiB, the state of more than a hundred thousand agents.
const MOST: usize = 1024;

const FORMAT: &str = "Mozart-Snapshot-Format";
const SEQ: &str = "Mozart-Snapshot-Seq";
const CHUNK_NUMBER: &str = "Mozart-Snapshot-Chunk";
const CHUNKS: &str = "Mozart-Snapshot-Chunks";
const SHA256: &str = "Mozart-Snapshot-Sha256";
const TERM: &str = "Mozart-Snapshot-Term";
const RULES: &str = "Mozart-Snapshot-Rules";
const LAST_AT: &str = "Mozart-Snapshot-Last-At";
/// As JSON: an id may hold what a header cannot.
const LAST_ID: &str = "Mozart-Snapshot-Last-Id";

/// A chunk, ready to be published.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// The checksum of a snapshot: of its head and its content.
fn checksum(head: &SnapshotHead, json: &[u8]) -> String {
    let SnapshotHead { format, seq, last, term, rules } = head;
    let (at, id) = (last.at.as_millis(), &last.id);
    let mut digest = Sha256::new();
    digest.update(format!("{format} {seq} {at} {id:?} {term} {rules}\n"));
    digest.update(json);
    digest.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a chunk's write is known by.
pub(super) fn id(chunk: &Chunk) -> &str {
    chunk.headers.get(SHA256).map_or("", |sha256| sha256.as_str())
}

/// Cuts a snapshot into chunks of at most `size` bytes; none if that is too many.
pub(super) fn cut(head: &SnapshotHead, json: &Bytes, size: usize) -> Option<Vec<Chunk>> {
    let size = size.max(1);
    let count = json.len().div_ceil(size).max(1);
    if count > MOST {
        return None;
    }
    let mut headers = HeaderMap::new();
    headers.insert(FORMAT, head.format.to_string());
    headers.insert(SEQ, head.seq.to_string());
    headers.insert(CHUNKS, count.to_string());
    headers.insert(SHA256, checksum(head, json));
    headers.insert(TERM, head.term.to_string());
    headers.insert(RULES, head.rules.to_string());
    headers.insert(LAST_AT, head.last.at.as_millis().to_string());
    if let Some(id) = &head.last.id {
        headers.insert(LAST_ID, serde_json::Value::from(id.as_str()).to_string());
    }
    let chunks = (0..count).map(|number| {
        let mut headers = headers.clone();
        headers.insert(CHUNK_NUMBER, number.to_string());
        let end = json.len().min((number + 1) * size);
        Chunk { headers, payload: json.slice(number * size..end) }
    });
    Some(chunks.collect())
}

/// What a chunk says of the snapshot that it is a part of.
struct Part<'a> {
    head: SnapshotHead,
    number: usize,
    count: usize,
    sha256: &'a str,
    payload: &'a [u8],
}

impl<'a> Part<'a> {
    fn of(record: &'a Record) -> Result<Self, String> {
        let missing = |name| format!("record {} has no {name}", record.seq);
        let text = |name| record.header(name).ok_or_else(|| missing(name));
        fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
            text.parse().map_err(|_| format!("{name} is {text:?}"))
        }
        let number_of = |name| number::<u64>(name, text(name)?);
        let id = match record.header(LAST_ID) {
            Some(id) => Some(serde_json::from_str(id).map_err(|_| format!("{LAST_ID} is {id:?}"))?),
            None => None,
        };
        let count = number(CHUNKS, text(CHUNKS)?)?;
        if !(1..=MOST).contains(&count) {
            return Err(format!("{CHUNKS} is {count}"));
        }
        let head = SnapshotHead {
            format: number(FORMAT, text(FORMAT)?)?,
            seq: number_of(SEQ)?,
            last: Logged { at: Timestamp::from_millis(number_of(LAST_AT)?), id },
            term: number_of(TERM)?,
            rules: number(RULES, text(RULES)?)?,
        };
        let chunk = number(CHUNK_NUMBER, text(CHUNK_NUMBER)?)?;
        let (sha256, payload) = (text(SHA256)?, &*record.payload);
        Ok(Self { head, number: chunk, count, sha256, payload })
    }
}

/// What the chunks of one write come to: a head and its content, or how they are damaged.
pub(super) type Joined = Result<(SnapshotHead, Vec<u8>), String>;

/// Joins the chunks that are stored for one sequence. They may be those of several writes, as by another build, or for a log that was
/// there before: each is whole or damaged by itself.
pub(super) fn join(seq: u64, records: &[Record]) -> Vec<Joined> {
    let mut all = Vec::new();
    let mut writes = BTreeMap::<&str, Vec<Part<'_>>>::new();
    for record in records {
        match Part::of(record) {
            Ok(part) => writes.entry(part.sha256).or_default().push(part),
            Err(how) => all.push(Err(how)),
        }
    }
    all.extend(writes.iter().map(|(sha256, parts)| joined(seq, sha256, parts)));
    if all.is_empty() {
        all.push(Err("there are no chunks".to_owned()));
    }
    all
}

/// The chunks of one write.
fn joined(seq: u64, sha256: &str, parts: &[Part<'_>]) -> Joined {
    let Some(first) = parts.first() else { return Err("there are no chunks".to_owned()) };
    let mut payloads = vec![None; first.count];
    for part in parts {
        if part.head != first.head || part.count != first.count {
            return Err("its chunks do not agree".to_owned());
        }
        match payloads.get_mut(part.number) {
            Some(place) => *place = Some(part.payload),
            None => return Err(format!("chunk {} of {}", part.number + 1, part.count)),
        }
    }
    if let Some(missing) = payloads.iter().position(Option::is_none) {
        return Err(format!("chunk {} of {} is missing", missing + 1, first.count));
    }
    let json = payloads.into_iter().flatten().collect::<Vec<_>>().concat();
    if checksum(&first.head, &json) != sha256 {
        return Err("its checksum is not that of its content".to_owned());
    }
    if first.head.seq != seq {
        return Err(format!("it is of record {}", first.head.seq));
    }
    Ok((first.head.clone(), json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(id: Option<&str>) -> SnapshotHead {
        let last = Logged { at: Timestamp::from_millis(77), id: id.map(str::to_owned) };
        SnapshotHead { format: 1, seq: 9, last, term: 3, rules: 2 }
    }

    /// As the stream gives them back.
    fn stored(chunks: Vec<Chunk>) -> Vec<Record> {
        let record = |(n, chunk): (usize, Chunk)| Record {
            subject: "s".into(),
            seq: n as u64 + 1,
            at: Timestamp::default(),
            headers: chunk.headers,
            payload: chunk.payload,
        };
        chunks.into_iter().enumerate().map(record).collect()
    }

    fn text(length: usize) -> Bytes {
        (0..length).map(|n| b'a' + (n % 26) as u8).collect::<Vec<_>>().into()
    }

    fn cut_of(length: usize, size: usize) -> Vec<Record> {
        stored(cut(&head(Some("s.1")), &text(length), size).expect("not too many"))
    }

    /// What they come to, if they are of one write.
    fn one(seq: u64, records: &[Record]) -> Joined {
        let mut all = join(seq, records);
        assert!(!all.is_empty());
        let whole = all.iter().position(Result::is_ok);
        all.swap_remove(whole.unwrap_or(0))
    }

    #[test]
    fn what_is_cut_is_joined_whatever_its_size_and_the_order_of_its_chunks() {
        for (length, size, count) in
            [(0, 4, 1), (1, 4, 1), (4, 4, 1), (5, 4, 2), (8, 4, 2), (9, 4, 3), (10, CHUNK, 1)]
        {
            let mut records = cut_of(length, size);
            assert_eq!(records.len(), count, "{length} by {size}");
            assert!(records.iter().all(|record| record.payload.len() <= size));
            records.reverse();
            assert_eq!(one(9, &records), Ok((head(Some("s.1")), text(length).to_vec())));
        }
    }

    #[test]
    fn an_id_that_no_header_takes_comes_back() {
        for id in [None, Some(""), Some(" a\r\nb\u{0}\u{e9}\" ")] {
            let chunks = cut(&head(id), &text(3), 2).expect("not too many");
            assert_eq!(one(9, &stored(chunks)).expect("whole").0, head(id));
        }
    }

    #[test]
    fn a_chunk_that_is_missing_is_named() {
        for (gone, named) in [(0, "chunk 1 of 3"), (1, "chunk 2 of 3"), (2, "chunk 3 of 3")] {
            let mut records = cut_of(9, 4);
            records.remove(gone);
            let how = one(9, &records).expect_err("damaged");
            assert_eq!(how, format!("{named} is missing"));
        }
        assert_eq!(one(9, &[]).expect_err("nothing"), "there are no chunks");
    }

    #[test]
    fn a_byte_that_changed_is_noticed_wherever_it_is() {
        for chunk in 0..3 {
            let mut records = cut_of(9, 4);
            let mut payload = records[chunk].payload.to_vec();
            payload[0] ^= 1;
            records[chunk].payload = payload.into();
            let how = one(9, &records).expect_err("damaged");
            assert!(how.contains("checksum"), "{how}");
        }
        let mut records = cut_of(9, 4);
        records[1].payload = records[1].payload.slice(..3);
        assert!(one(9, &records).expect_err("cut").contains("checksum"));
    }

    #[test]
    fn a_head_that_changed_is_noticed_also_if_all_chunks_agree_on_it() {
        for (name, value) in [
            (FORMAT, "2"),
            (SEQ, "10"),
            (TERM, "4"),
            (RULES, "3"),
            (LAST_AT, "78"),
            (LAST_ID, "\"x\""),
        ] {
            let mut records = cut_of(9, 4);
            for record in &mut records {
                record.headers.insert(name, value);
            }
            let how = one(9, &records).expect_err(name);
            assert!(how.contains("checksum"), "{name}: {how}");
            // And if only one does not.
            records = cut_of(9, 4);
            records[1].headers.insert(name, value);
            let how = one(9, &records).expect_err(name);
            assert!(how.contains("do not agree"), "{name}: {how}");
        }
    }

    #[test]
    fn headers_that_are_missing_or_no_numbers_are_damage_and_no_panic() {
        for name in [FORMAT, SEQ, CHUNK_NUMBER, CHUNKS, SHA256, TERM, RULES, LAST_AT] {
            let mut records = cut_of(3, 4);
            let mut headers = HeaderMap::new();
            for (key, values) in records[0].headers.iter() {
                if key.to_string() != name {
                    headers.insert(key.clone(), values[0].clone());
                }
            }
            records[0].headers = headers;
            let how = one(9, &records).expect_err(name);
            assert!(how.contains(name), "{how}");
            for bad in ["", "-1", "x", "99999999999999999999"] {
                let mut records = cut_of(3, 4);
                records[0].headers.insert(name, bad);
                one(9, &records).expect_err(name);
            }
        }
        for count in ["0", "1025", "18446744073709551615"] {
            let mut records = cut_of(3, 4);
            records[0].headers.insert(CHUNKS, count);
            assert!(one(9, &records).expect_err(count).contains(CHUNKS));
        }
        let mut records = cut_of(3, 4);
        records[0].headers.insert(CHUNK_NUMBER, "1");
        assert_eq!(one(9, &records).expect_err("one too far"), "chunk 2 of 1");
    }

    #[test]
    fn chunks_of_another_write_are_told_apart() {
        let whole = cut_of(9, 4);
        let other = stored(cut(&head(Some("s.1")), &text(10), 4).expect("not too many"));
        for torn in 0..3 {
            // A write that was cut off, and one that is whole; and the same chunk twice.
            let mut records: Vec<Record> = other[..torn].to_vec();
            records.extend(whole.clone());
            records.push(whole[1].clone());
            let joined = join(9, &records);
            assert_eq!(joined.len(), if torn == 0 { 1 } else { 2 });
            let good: Vec<_> = joined.into_iter().flatten().collect();
            assert_eq!(good, [(head(Some("s.1")), text(9).to_vec())]);
        }
        let mut records = other[..2].to_vec();
        records.extend_from_slice(&whole[2..]);
        for how in join(9, &records) {
            assert!(how.expect_err("none is whole").contains("missing"));
        }
        // Both are whole.
        let records = [other, whole].concat();
        assert_eq!(join(9, &records).into_iter().flatten().count(), 2);
    }

    #[test]
    fn a_snapshot_under_another_sequence_is_none_of_it() {
        assert_eq!(one(8, &cut_of(9, 4)).expect_err("of 9"), "it is of record 9");
    }

    #[test]
    fn what_would_be_too_many_chunks_is_not_written() {
        assert!(cut(&head(None), &text(MOST), 1).is_some());
        assert!(cut(&head(None), &text(MOST + 1), 1).is_none());
    }
}
