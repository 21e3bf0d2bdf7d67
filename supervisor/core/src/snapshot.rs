//! Snapshots of the state: when one is due, which can be read, and what they make obsolete.

use std::time::Duration;

use common::snapshot::{Doubt, Judged, Logged, SnapshotHead};
use common::{Load, Timestamp};

use crate::state::{Agent, State};
use crate::{OLDEST_RULES, RULES};

/// The layout in which this build writes the state. A field of [`State`] that is new, or that means something else, is a new format:
/// a build that does not know the field would drop it silently, and fold on with something else.
pub const SNAPSHOT_FORMAT: u32 = 6;

/// The first layout with schedules. A state without any is written in a layout before.
const WITH_SCHEDULES: u32 = 6;

/// The first layout with the copies of SANCTUMs. A state without any is written in a layout before.
const WITH_CARRIES: u32 = 5;

/// The first layout with the number above which incarnations count. A state without one is written in the layout before, which the build
/// before reads.
const WITH_BASE: u32 = 4;

/// The first layout that says what is taken of each node.
const WITH_LOADS: u32 = 3;

/// The oldest layout that this build reads. One that lacks a field which follows from the log is too old.
pub const OLDEST_SNAPSHOT_FORMAT: u32 = 1;

/// A leader takes a snapshot after this many records. A start folds at most that many and those of a leadership without snapshots; that
/// takes some tenths of a second. A fleet that decides something every second writes one in three hours.
pub const SNAPSHOT_EVERY: u64 = 10_000;

/// A failed write is retried after this many more records.
const SNAPSHOT_AGAIN: u64 = 1_000;

/// How many are kept. A start uses the older one if the newest is damaged.
pub const SNAPSHOTS_KEPT: usize = 2;

/// What is younger stays in the log, also where snapshots cover it: it is the audit trail.
pub const LOG_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// When a leader takes snapshots.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    /// The sequence of the newest one known.
    newest: u64,
    /// None before this sequence, after one that failed.
    again: u64,
    /// Whether one is being written.
    writing: bool,
}

impl Snapshots {
    /// The newest one is as of a sequence; 0: there is none.
    #[must_use]
    pub fn since(newest: u64) -> Self {
        Self { newest, ..Self::default() }
    }

    /// Whether one is due as of a sequence of the log.
    #[must_use]
    pub fn is_due(&self, seq: u64) -> bool {
        !self.writing && seq >= self.again && seq >= self.newest.saturating_add(SNAPSHOT_EVERY)
    }

    /// One is being written: no other one is until that has ended.
    pub fn begun(&mut self) {
        self.writing = true;
    }

    /// There is one as of a sequence, whoever wrote it.
    pub fn written(&mut self, seq: u64) {
        self.writing = false;
        self.newest = self.newest.max(seq);
    }

    /// The one as of a sequence could not be written.
    pub fn failed(&mut self, seq: u64) {
        self.writing = false;
        self.again = seq.saturating_add(SNAPSHOT_AGAIN);
    }
}

impl State {
    /// Counts what is taken of the nodes: states that an earlier build wrote do not say so.
    pub(crate) fn recount(&mut self) {
        for node in self.nodes.values_mut() {
            node.load = Load::default();
        }
        for (name, load) in self.agents.values().flat_map(Agent::loads) {
            if let Some(node) = self.nodes.get_mut(&name) {
                node.load = node.load.plus(load);
            }
        }
    }
}

/// The state as a snapshot. `last` is the record that it ends with. None of a state that is a guess from some record on: the next
/// version reads the log better than this one.
#[must_use]
pub fn snapshot(state: &State, last: &Logged) -> Option<(SnapshotHead, Vec<u8>)> {
    if state.unreadable.is_some() {
        return None;
    }
    let (seq, term, rules) = (state.seq, state.term, state.rules);
    let schedules = state.restored.is_some()
        || state.agents.values().any(|agent| !agent.scheduled.is_default());
    let format = if schedules {
        WITH_SCHEDULES
    } else if state.agents.values().any(|agent| agent.carry.is_some()) {
        WITH_CARRIES
    } else if state.base == 0 {
        WITH_BASE - 1
    } else {
        WITH_BASE
    };
    let head = SnapshotHead { format, seq, last: last.clone(), term, rules };
    Some((head, serde_json::to_vec(state).ok()?))
}

/// The state that a snapshot holds.
///
/// # Errors
/// Why this build cannot continue from it.
pub fn restore(head: &SnapshotHead, json: &[u8]) -> Result<State, Doubt> {
    if !(OLDEST_SNAPSHOT_FORMAT..=SNAPSHOT_FORMAT).contains(&head.format) {
        return Err(Doubt::Format(head.format));
    }
    if !(OLDEST_RULES..=RULES).contains(&head.rules) {
        return Err(Doubt::Rules(head.rules));
    }
    let content = |how: String| Doubt::Content(how);
    let mut state: State =
        serde_json::from_slice(json).map_err(|error| content(error.to_string()))?;
    if head.format < WITH_LOADS {
        state.recount();
    }
    if (state.seq, state.term, state.rules) != (head.seq, head.term, head.rules) {
        let named =
            format!("it is of record {}, term {} and rules {}", state.seq, state.term, state.rules);
        return Err(content(named));
    }
    match &state.unreadable {
        Some(unreadable) => Err(content(format!("record {} could not be read", unreadable.seq))),
        None => Ok(state),
    }
}

/// Which snapshots can go, of those that there are: any order, each with the doubt about it. Kept are the newest that are good, and
/// what is newer: another build may read that, or another leader is just writing it. Of another log none is kept.
#[must_use]
pub fn needless(judged: &[Judged]) -> Vec<u64> {
    let good = good(judged);
    let Some(oldest) = good.get(SNAPSHOTS_KEPT - 1).or(good.last()) else { return Vec::new() };
    let goes = |(seq, doubt): &&Judged| match doubt {
        Some(doubt) => doubt.is_foreign() || good.first() > Some(seq),
        None => seq < oldest,
    };
    judged.iter().filter(goes).map(|(seq, _)| *seq).collect()
}

/// What is stored before this time is old.
#[must_use]
pub fn old_before(now: Timestamp) -> Timestamp {
    let kept = u64::try_from(LOG_KEPT.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(kept))
}

/// The record with which the log may begin, if it can lose some. `first` is the one that it begins with, `young` the first one that
/// is not old. What two good snapshots cover can go once it is old. The record that the older one ends with stays: it shows that the
/// snapshot is of this log.
#[must_use]
pub fn trimmed_to(judged: &[Judged], first: u64, young: u64) -> Option<u64> {
    let covered = *good(judged).get(SNAPSHOTS_KEPT - 1)?;
    let to = covered.min(young);
    (to > first).then_some(to)
}

/// The sequences of the good ones, newest first.
fn good(judged: &[Judged]) -> Vec<u64> {
    let good = judged.iter().filter(|(_, doubt)| doubt.is_none()).map(|(seq, _)| *seq);
    let mut good: Vec<u64> = good.collect();
    good.sort_unstable_by(|a, b| b.cmp(a));
    good
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Unreadable;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn of(seq: u64) -> State {
        State { seq, term: 4, rules: RULES, ..State::default() }
    }

    #[test]
    fn one_is_due_after_so_many_records_and_only_one_is_written_at_a_time() {
        let mut snapshots = Snapshots::default();
        assert!(!snapshots.is_due(SNAPSHOT_EVERY - 1));
        assert!(snapshots.is_due(SNAPSHOT_EVERY));
        snapshots.begun();
        assert!(!snapshots.is_due(9 * SNAPSHOT_EVERY));
        snapshots.written(SNAPSHOT_EVERY);
        assert!(!snapshots.is_due(2 * SNAPSHOT_EVERY - 1));
        assert!(snapshots.is_due(2 * SNAPSHOT_EVERY));
        snapshots.begun();
        snapshots.failed(2 * SNAPSHOT_EVERY);
        assert!(!snapshots.is_due(2 * SNAPSHOT_EVERY + SNAPSHOT_AGAIN - 1));
        assert!(snapshots.is_due(2 * SNAPSHOT_EVERY + SNAPSHOT_AGAIN));
        // Another leader was here.
        snapshots.written(5 * SNAPSHOT_EVERY);
        assert!(!snapshots.is_due(6 * SNAPSHOT_EVERY - 1));
        snapshots.written(SNAPSHOT_EVERY);
        assert!(!snapshots.is_due(6 * SNAPSHOT_EVERY - 1), "the newest counts");
        assert!(!Snapshots::since(7).is_due(SNAPSHOT_EVERY + 6));
        assert!(Snapshots::since(7).is_due(SNAPSHOT_EVERY + 7));
    }

    #[test]
    fn what_is_read_back_is_what_was_taken() {
        let state = of(7);
        let last = Logged { at: Timestamp::from_millis(1), id: Some("s.1".into()) };
        let (head, json) = snapshot(&state, &last).expect("a state");
        assert_eq!((head.seq, head.term, head.rules, &head.last), (7, 4, RULES, &last));
        assert_eq!(restore(&head, &json), Ok(state.clone()));
        assert_eq!(snapshot(&state, &last), Some((head, json)), "the same, whoever takes it");
    }

    #[test]
    fn a_state_that_is_a_guess_is_neither_taken_nor_believed() {
        let unreadable = Some(Unreadable { seq: 5, why: "newer".into() });
        let state = State { unreadable, ..of(7) };
        assert_eq!(snapshot(&state, &Logged::default()), None);
        let (head, _) = snapshot(&of(7), &Logged::default()).expect("a state");
        let json = serde_json::to_vec(&state).expect("plain");
        let doubt = restore(&head, &json).expect_err("a guess");
        assert!(matches!(doubt, Doubt::Content(_)), "{doubt}");
    }

    #[test]
    fn what_this_build_does_not_know_is_named() {
        let (head, json) = snapshot(&of(7), &Logged::default()).expect("a state");
        let with = |change: fn(&mut SnapshotHead)| {
            let mut head = head.clone();
            change(&mut head);
            restore(&head, &json).expect_err("not ours")
        };
        assert_eq!(
            with(|head| head.format = SNAPSHOT_FORMAT + 1),
            Doubt::Format(SNAPSHOT_FORMAT + 1)
        );
        assert_eq!(with(|head| head.format = OLDEST_SNAPSHOT_FORMAT - 1), Doubt::Format(0));
        assert_eq!(with(|head| head.rules = RULES + 1), Doubt::Rules(RULES + 1));
        assert_eq!(with(|head| head.rules = OLDEST_RULES - 1), Doubt::Rules(0));
        for other in
            [with(|head| head.seq = 8), with(|head| head.term = 5), with(|head| head.rules = 1)]
        {
            assert!(matches!(other, Doubt::Content(_)), "{other}");
        }
        for bad in [&b""[..], b"{", b"null", b"{}"] {
            let doubt = restore(&head, bad).expect_err("no state");
            assert!(matches!(doubt, Doubt::Content(_)), "{doubt}");
        }
    }

    fn damaged() -> Option<Doubt> {
        Some(Doubt::Damaged("chunk 1 of 2 is missing".into()))
    }

    #[test]
    fn two_good_ones_are_kept_and_nothing_that_may_be_of_use() {
        let beyond = || Some(Doubt::Beyond { last: 45 });
        let rows: [(&[Judged], &[u64]); 9] = [
            (&[], &[]),
            (&[(10, None)], &[]),
            (&[(20, None), (10, None)], &[]),
            (&[(10, None), (30, None), (20, None)], &[10]),
            // A damaged one is no good one, and goes once there is a newer good one.
            (&[(40, None), (30, damaged()), (20, None), (10, None)], &[30, 10]),
            (&[(40, damaged()), (30, None), (20, None), (10, None)], &[10]),
            (&[(40, Some(Doubt::Format(2))), (30, None), (20, Some(Doubt::Rules(9)))], &[20]),
            // Without a good one nothing is touched.
            (&[(40, damaged()), (30, Some(Doubt::OtherLog))], &[]),
            (&[(90, beyond()), (40, None), (30, Some(Doubt::OtherLog)), (20, None)], &[90, 30]),
        ];
        for (judged, gone) in rows {
            assert_eq!(needless(judged), gone, "{judged:?}");
        }
    }

    #[test]
    fn the_log_loses_what_is_old_and_covered_twice() {
        let two = [(30_000, None), (20_000, None)];
        let rows: [(&[Judged], u64, u64, Option<u64>); 8] = [
            // All is old; all is young; some is.
            (&two, 1, 35_000, Some(20_000)),
            (&two, 1, 1, None),
            (&two, 1, 12_000, Some(12_000)),
            // Once.
            (&two, 20_000, 35_000, None),
            (&two, 25_000, 35_000, None),
            // Covered once only.
            (&[(30_000, None)], 1, 35_000, None),
            (&[(30_000, None), (20_000, damaged())], 1, 35_000, None),
            (&[(30_000, damaged()), (20_000, None), (10_000, None)], 1, 35_000, Some(10_000)),
        ];
        for (judged, first, young, to) in rows {
            assert_eq!(trimmed_to(judged, first, young), to, "{judged:?} {first} {young}");
        }
    }

    #[test]
    fn what_was_stored_within_thirty_days_is_not_old() {
        let now = Timestamp::default().after(31 * DAY);
        assert_eq!(old_before(now), Timestamp::default().after(DAY));
        assert_eq!(old_before(Timestamp::default().after(DAY)), Timestamp::default());
    }
}
