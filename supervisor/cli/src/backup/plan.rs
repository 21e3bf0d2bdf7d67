//! What counts of the records in files that continue each other, and where it goes. Pure.
//!
//! - A record counts only if its stream still had it, or what comes after it, when the last of the files was written: what was removed from the
//!   beginning of a stream since then is not brought back.
//! - A finished message that has moved to the history is in the journal of an earlier file, or of the same one if it moved while that was written.
//!   Final states move in the order of their stream, so the last one that did tells which did.
//! - Attempts, steps, questions, dead letters and the records of schedules are in every file, whole: only those of the last one count.

use std::collections::{BTreeMap, HashSet};

use broker::{Copied, Part};
use common::control::ControlEvent;
use sha2::{Digest as _, Sha256};

use super::manifest::{End, Mark};

/// The end of a journal's subjects.
const REQUEST: &str = ".request";
const FINAL: &str = ".final";

/// Every sequence of the restored control log is greater than any that was given out since the backup by at least this many.
const AHEAD: u64 = 1_000_000;

/// What is known of all files.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The control log's first record, the next one that is due, and what is wrong with it.
    control: Option<(u64, u64)>,
    gap: Option<String>,
    /// By shard and when its stream was made: the last final state that has moved to the history.
    archived: BTreeMap<(u32, String), u64>,
    /// What the streams were when the last file was written.
    marks: BTreeMap<Part, Mark>,
    /// Messages in the journals that have moved to the history: a hash of their names, 16 bytes each.
    moved: HashSet<u128>,
}

/// A request or final state of a journal: the name of its message, and which of both it is.
pub(super) fn message(subject: &str) -> Option<(&str, bool)> {
    let name = |end| subject.strip_suffix(end);
    let (name, is_final) =
        name(FINAL).map(|name| (name, true)).or(name(REQUEST).map(|name| (name, false)))?;
    // The conversation is no part of a message's name.
    let (name, _conversation) = name.rsplit_once('.')?;
    Some((name, is_final))
}

fn hash(name: &str) -> u128 {
    let digest = Sha256::digest(name);
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(first)
}

impl Plan {
    /// Takes note of a record, in the order of the files.
    pub(super) fn note(&mut self, part: Part, record: &Copied) {
        match part {
            Part::Control => {
                let (first, due) = self.control.unwrap_or((record.seq, record.seq));
                if record.seq != due {
                    let seq = record.seq;
                    self.gap.get_or_insert(format!(
                        "the control log has record {seq} after {}",
                        due - 1
                    ));
                }
                self.control = Some((first, record.seq + 1));
            }
            Part::History => {
                if let Some(origin) = record.origin() {
                    let last = self.archived.entry((origin.shard, origin.made)).or_default();
                    *last = (*last).max(origin.seq);
                }
            }
            Part::Files
            | Part::Journal(_)
            | Part::Attempts
            | Part::Steps
            | Part::Questions
            | Part::Dead
            | Part::Schedules
            | Part::Later
            | Part::Events
            | Part::Logs => {}
        }
    }

    /// All files are read: the streams were like this when the last one was written.
    pub(super) fn limit(&mut self, last: &End) {
        let named = |mark: &Mark| Some((mark.stream.parse().ok()?, mark.clone()));
        self.marks = last.parts.iter().filter_map(named).collect();
    }

    /// Up to which final state a journal has moved to the history; 0: none.
    fn moved_until(&self, shard: u32) -> u64 {
        let mark = self.marks.get(&Part::Journal(shard));
        let until = mark.and_then(|mark| self.archived.get(&(shard, mark.made.clone())));
        until.copied().unwrap_or(0)
    }

    /// Whether the final states in the journals have to be told to [`Plan::note_final`].
    pub(super) fn needs_finals(&self) -> bool {
        self.marks.iter().any(|(part, mark)| match part {
            Part::Journal(shard) => self.moved_until(*shard) >= mark.first,
            Part::Control
            | Part::Files
            | Part::History
            | Part::Attempts
            | Part::Steps
            | Part::Questions
            | Part::Dead
            | Part::Schedules
            | Part::Later
            | Part::Events
            | Part::Logs => false,
        })
    }

    /// Takes note of a message that has moved to the history, and is in a journal as well.
    pub(super) fn note_final(&mut self, shard: u32, record: &Copied) {
        if record.seq <= self.moved_until(shard)
            && self.is_there(Part::Journal(shard), record.seq)
            && let Some((name, true)) = message(&record.subject)
        {
            self.moved.insert(hash(name));
        }
    }

    /// Whether a stream still had a record when the last file was written, or what comes after it.
    fn is_there(&self, part: Part, seq: u64) -> bool {
        self.marks.get(&part).is_some_and(|mark| seq >= mark.first)
    }

    /// Whether a record is restored. `is_last`: it is of the last file.
    pub(super) fn counts(&self, part: Part, record: &Copied, is_last: bool) -> bool {
        let there = self.is_there(part, record.seq);
        match part {
            Part::Attempts
            | Part::Steps
            | Part::Questions
            | Part::Dead
            | Part::Schedules
            | Part::Later => is_last,
            Part::Journal(_) => {
                let name = message(&record.subject).map(|(name, _)| name);
                there && name.is_some_and(|name| !self.moved.contains(&hash(name)))
            }
            Part::Control | Part::Files | Part::History | Part::Events | Part::Logs => there,
        }
    }

    /// Whether the control log is whole, as far as it can be seen.
    pub(super) fn whole(&self) -> Result<(), String> {
        if let Some(gap) = &self.gap {
            return Err(gap.clone());
        }
        let last = self.marks.get(&Part::Control).map(|mark| mark.last);
        let read = self.control.map_or(0, |(_, due)| due - 1);
        match last {
            Some(last) if last == read || self.control.is_none() => Ok(()),
            Some(last) => {
                Err(format!("the control log ends with record {read}, and not with {last}"))
            }
            None => Err("there is no control log".to_owned()),
        }
    }

    /// The sequences of the restored control log, for a restore at this time, in milliseconds since 1970.
    pub(super) fn sequences(&self, now: u64) -> Sequences {
        let mark = self.marks.get(&Part::Control);
        let last = mark.map_or(0, |mark| mark.last);
        let first = match (mark, self.control) {
            (Some(mark), Some((first, _))) => first.max(mark.first),
            (Some(_) | None, None) | (None, Some(_)) => last + 1,
        };
        // A restore of an earlier time has begun at its time, and no log gets a record in every millisecond.
        let ahead = last.saturating_add(AHEAD).max(now);
        let by = ahead - last;
        Sequences { first: first + by, last: ahead, by }
    }
}

/// Where the records of the control log go: all of them are greater by `by`, so that terms rise above all that were given out since the
/// backup, also by an earlier restore of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequences {
    /// The first record's.
    pub(super) first: u64,
    /// The last record's; without any, the one before the first.
    pub(super) last: u64,
    /// By how much each is greater.
    pub(super) by: u64,
}

/// Whether a control log was restored, by its first record: no fleet comes to so many records by itself.
pub(crate) fn is_renumbered(first: u64) -> bool {
    first > AHEAD
}

impl Sequences {
    /// A record of the control log with the term that it has now. What is no record stays as it is.
    pub(super) fn record(self, mut record: Copied) -> Copied {
        let parsed = serde_json::from_slice::<serde_json::Value>(&record.payload);
        if let Ok(mut parsed) = parsed
            && let Some(term) = parsed.get("term").and_then(serde_json::Value::as_u64)
            && term > 0
        {
            parsed["term"] = term.saturating_add(self.by).into();
            record.payload = parsed.to_string().into_bytes().into();
        }
        record.seq = record.seq.saturating_add(self.by);
        record
    }
}

/// The number that no incarnation gets, nor any below it: above all that were given out since the backup. `highest`: the highest that it knows.
///
/// An agent is started less often than once a second, so none has passed what the clock showed at an earlier restore.
pub(super) fn incarnations(highest: u64, now: u64) -> u64 {
    highest.saturating_add(AHEAD).max(now / 1000)
}

/// Whether messages were forgotten: then what an earlier file holds of them must not be brought back.
pub(super) fn is_forgetting(event: &ControlEvent) -> bool {
    matches!(event, ControlEvent::MessagesForgotten { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Timestamp;

    fn record(seq: u64, subject: &str) -> Copied {
        let (headers, payload) = (Vec::new(), "{}".into());
        Copied { seq, at: Timestamp::from_millis(seq), subject: subject.into(), headers, payload }
    }

    fn mark(stream: &str, first: u64, last: u64) -> Mark {
        let (stream, made) = (stream.to_owned(), "made".to_owned());
        Mark { stream, made, first, last, from: first, records: 0, bytes: 0 }
    }

    fn end(parts: Vec<Mark>) -> End {
        End { parts, agents: 0, requests: 0, finals: 0, archived: 0 }
    }

    fn moved(seq: u64, origin: &str) -> Copied {
        let mut record = record(seq, "history.a.c");
        record.headers = vec![("Mozart-Origin".to_owned(), origin.to_owned())];
        record
    }

    #[test]
    fn a_message_that_has_moved_to_the_history_is_not_restored_to_the_journal() {
        let mut plan = Plan::default();
        let journal = Part::Journal(0);
        plan.note(Part::History, &moved(1, "0:4:made"));
        // Of a journal that was there before.
        plan.note(Part::History, &moved(2, "0:99:other"));
        plan.limit(&end(vec![mark("JOURNAL_0", 1, 9)]));
        assert!(plan.needs_finals());
        let records = [
            record(1, "journal.a.user.m1.c.request"),
            record(2, "journal.a.user.m2.c.request"),
            record(4, "journal.a.user.m1.c.final"),
            record(5, "journal.a.user.m2.c.final"),
        ];
        for record in &records {
            plan.note_final(0, record);
        }
        let counts: Vec<_> = records.iter().map(|one| plan.counts(journal, one, true)).collect();
        assert_eq!(counts, [false, true, false, true]);
        assert!(!plan.counts(journal, &record(6, "journal.what"), true), "it names nothing");
    }

    #[test]
    fn what_left_a_stream_at_its_beginning_is_not_brought_back() {
        let mut plan = Plan::default();
        plan.limit(&end(vec![mark("HISTORY", 5, 9), mark("DEAD", 3, 9), mark("JOURNAL_1", 7, 6)]));
        for (seq, there) in [(4, false), (5, true), (10, true)] {
            assert_eq!(plan.counts(Part::History, &record(seq, "history.a.c"), false), there);
        }
        let request = record(6, "journal.a.user.m1.c.request");
        assert!(!plan.counts(Part::Journal(1), &request, true));
        assert!(!plan.counts(Part::Journal(2), &request, true), "there is no such stream");
        // Each file has all of them.
        assert!(!plan.counts(Part::Dead, &record(4, "dead.a.user.m"), false));
        assert!(plan.counts(Part::Dead, &record(4, "dead.a.user.m"), true));
    }

    #[test]
    fn a_control_log_with_a_gap_or_without_its_end_is_refused() {
        let of = |seqs: &[u64], last: u64| {
            let mut plan = Plan::default();
            seqs.iter().for_each(|seq| plan.note(Part::Control, &record(*seq, "control.a")));
            plan.limit(&end(vec![mark("CONTROL", 1, last)]));
            plan.whole()
        };
        assert_eq!(of(&[3, 4, 5], 5), Ok(()));
        assert_eq!(of(&[], 0), Ok(()));
        of(&[3, 5], 5).expect_err("a gap");
        of(&[3, 4], 5).expect_err("no end");
        Plan::default().whole().expect_err("none");
    }

    #[test]
    fn terms_and_sequences_rise_above_all_that_were_given_out() {
        let mut plan = Plan::default();
        for seq in 3..=9 {
            plan.note(Part::Control, &record(seq, "control.a"));
        }
        plan.limit(&end(vec![mark("CONTROL", 5, 9)]));
        let now = 1_796_000_000_000;
        let sequences = plan.sequences(now);
        assert_eq!(sequences, Sequences { first: now - 4, last: now, by: now - 9 });
        // A clock that is far behind.
        assert_eq!(plan.sequences(0).last, 9 + AHEAD);
        assert!(is_renumbered(plan.sequences(0).first) && !is_renumbered(1_000));
        // Later, from the same backup.
        assert!(plan.sequences(now + 60_000).last > sequences.last + 50_000);

        let mut leaders = record(9, "control.a");
        leaders.payload = r#"{"type":"nodeLost","term":7,"node":"n","more":[1]}"#.into();
        let there = sequences.record(leaders);
        let json: serde_json::Value = serde_json::from_slice(&there.payload).expect("JSON");
        assert_eq!((there.seq, &json["term"]), (now, &(7 + sequences.by).into()));
        assert_eq!((&json["node"], &json["more"]), (&"n".into(), &serde_json::json!([1])));
        for kept in ["garbage", r#"{"author":"cli"}"#, r#"{"term":0}"#] {
            let mut other = record(9, "control.a");
            other.payload = kept.into();
            assert_eq!(sequences.record(other).payload, kept);
        }

        let mut empty = Plan::default();
        empty.limit(&end(vec![mark("CONTROL", 1, 0)]));
        assert_eq!(empty.sequences(now), Sequences { first: now + 1, last: now, by: now });
        assert_eq!(incarnations(7, now), 1_796_000_000);
        assert_eq!(incarnations(1_796_000_005, now), 1_797_000_005);
    }
}
