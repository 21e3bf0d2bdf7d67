//! When a connection leaves its server for another one of the cluster, and for which. Pure.
//!
//! A server that is cut off from the leaders of the streams keeps its clients: it answers their pings, and nothing else. So does one
//! that reaches some of the others. Whoever stays there waits until the link is restored, however many other servers would answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::inbox::PULL;

/// How long requests of one kind are without an answer before the connection leaves. An election takes 4 to 9 s, and a shim starts no
/// turn after 8 s: whoever leaves during an election loses little, and whoever waits for the end of one that did not help loses more.
const PATIENCE: Duration = Duration::from_secs(5);

/// By how much more, differently for each connection: a fleet does not move all at once.
const SPREAD: Duration = Duration::from_secs(2);

/// The same on a server that it has just come to, as long as there are others that it has not tried: most of the others are good. Not for pulls:
/// whether a consumer answers takes longer to know.
const TRIES: Duration = Duration::from_secs(2);

/// Of the time without answers, so much is forgotten in the time with answers: where two servers do not reach each other, each becomes the
/// leader in turn, for 4 to 9 s, and neither is a good place.
const FORGOTTEN: u32 = 4;

/// The pause between two moves doubles up to this: while most servers are gone, no other server answers either.
const MOST: Duration = Duration::from_secs(60);

/// After so long without a move, the next one counts as the first.
const SETTLED: Duration = Duration::from_secs(120);

/// How long a server counts as one that it has just come to.
const TRIED: Duration = Duration::from_secs(10);

/// Between two misses that belong together. Beyond it nobody has asked, or this process stood still.
const GAP: Duration = Duration::from_secs(6);

/// The most that one miss may say of the time before it: a process that stood still has waited for no time.
const SAYS: Duration = Duration::from_secs(3);

/// A server that was left counts as one that could not be connected to so many times: one that is gone must not be all that is tried.
const LEFT: usize = 2;

/// Kinds of requests that are remembered.
const KINDS: usize = 64;

/// The requests of a connection that are without an answer, and its moves.
#[derive(Debug)]
pub(crate) struct Unanswered {
    silences: BTreeMap<String, Silence>,
    patience: Duration,
    moved: Option<Moved>,
    /// Servers that were not tried since the first move.
    untried: usize,
}

/// The time without an answer to one kind of request.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// What is remembered of earlier times.
    before: Duration,
    since: Instant,
    last: Instant,
    /// Whether there has been an answer since.
    is_over: bool,
}

#[derive(Debug, Clone)]
struct Moved {
    at: Instant,
    times: u32,
    /// The kind of request that had no answer; none once it has one: the next move is a first one.
    cause: Option<String>,
}

/// What is to be done about requests without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Stay,
    /// Leave for another server. `first`: the moves before are of no account any more.
    Leave {
        first: bool,
    },
}

impl Silence {
    fn total(&self) -> Duration {
        self.before + self.last.duration_since(self.since)
    }

    fn goes_on(&self, now: Instant) -> bool {
        !self.is_over && now.duration_since(self.last) <= GAP
    }

    /// What is remembered of it by now.
    fn remembered(&self, now: Instant) -> Duration {
        self.total().saturating_sub(now.duration_since(self.last) / FORGOTTEN)
    }
}

impl Unanswered {
    /// `random`: from 0 to 255, another one for each connection.
    pub(crate) fn new(random: u8) -> Self {
        let patience = PATIENCE + SPREAD * u32::from(random) / 255;
        Self { silences: BTreeMap::new(), patience, moved: None, untried: 0 }
    }

    /// A request of this kind got no answer, or one that no leader gave.
    pub(crate) fn missed(&mut self, kind: &str, since: Instant, now: Instant) {
        let since = since.max(now.checked_sub(SAYS).unwrap_or(since));
        // What was asked before the last move says nothing about where it went: the other server has its own time to answer.
        let since = self.moved.as_ref().map_or(since, |moved| since.max(moved.at)).min(now);
        let new = |before| Silence { before, since, last: now, is_over: false };
        match self.silences.get_mut(kind) {
            Some(silence) if silence.goes_on(now) => silence.last = now,
            Some(silence) => *silence = new(silence.remembered(since)),
            None => {
                self.silences.retain(|_, one| one.goes_on(now) || !one.remembered(now).is_zero());
                if self.silences.len() < KINDS {
                    self.silences.insert(kind.to_owned(), new(Duration::ZERO));
                }
            }
        }
    }

    /// A request of this kind got its answer.
    pub(crate) fn answered(&mut self, kind: &str) {
        if let Some(silence) = self.silences.get_mut(kind) {
            silence.is_over = true;
        }
        if let Some(moved) = &mut self.moved
            && moved.cause.as_deref() == Some(kind)
        {
            moved.cause = None;
        }
    }

    /// Whether everything has its answer, and nothing is to be learned from another one.
    pub(crate) fn is_over(&self) -> bool {
        let is_settled = self.moved.as_ref().is_none_or(|moved| moved.cause.is_none());
        is_settled && self.silences.values().all(|silence| silence.is_over)
    }

    /// So many servers have not been tried yet.
    pub(crate) fn can_try(&mut self, untried: usize) {
        self.untried = untried;
    }

    /// What is to be done now. A move is counted as made.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        let is_recent = |moved: &&Moved| now.duration_since(moved.at) < SETTLED;
        let before = self.moved.as_ref().filter(|moved| moved.cause.is_some()).filter(is_recent);
        let tries =
            before.is_some_and(|moved| now.duration_since(moved.at) < TRIED) && self.untried > 0;
        let patience = |kind: &str| if tries && kind != PULL { TRIES } else { self.patience };
        let is_long = |kind: &str, one: &Silence| one.goes_on(now) && one.total() >= patience(kind);
        let cause = self.silences.iter().find(|(kind, silence)| is_long(kind, silence));
        let Some((cause, _)) = cause else { return Due::Stay };
        let (cause, first) = (Some(cause.clone()), before.is_none());
        let times = before.map_or(0, |moved| moved.times);
        let pause = self.patience.saturating_mul(1 << times.min(6)).min(MOST);
        if !tries && before.is_some_and(|moved| now.duration_since(moved.at) < pause) {
            return Due::Stay;
        }
        self.silences.clear();
        self.moved = Some(Moved { at: now, times: times + 1, cause });
        Due::Leave { first }
    }
}

/// A server that the client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// `host:port`: one server may be known by two addresses that differ in their scheme.
    pub(crate) place: String,
    /// Attempts in a row that failed.
    pub(crate) failed: usize,
    /// Whether the client was ever connected to it.
    pub(crate) was_connected: bool,
}

/// Where a connection is and has been.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// None before the first reconnect.
    current: Option<String>,
    /// Those that were left because they did not answer.
    left: BTreeSet<String>,
    /// Whether all have been, once.
    all_tried: bool,
}

impl Places {
    /// The current server is left, as long as there is another one. `first`: those that were left before may answer again.
    pub(crate) fn leave(&mut self, known: &[Known], first: bool) {
        if first {
            self.left.clear();
            self.all_tried = false;
        }
        let Some(current) = self.find(known) else { return };
        self.left.insert(current.clone());
        if known.iter().all(|one| self.left.contains(&one.place)) {
            self.left = BTreeSet::from([current]);
            self.all_tried = true;
        }
    }

    /// Servers that are known and were not left, beside the one that it goes to.
    pub(crate) fn untried(&self, known: &[Known]) -> usize {
        if self.all_tried {
            return 0;
        }
        let rest = known.iter().map(|one| &one.place).filter(|place| !self.left.contains(*place));
        rest.collect::<BTreeSet<_>>().len().saturating_sub(1)
    }

    /// The number of the server to connect to next; none leaves the choice to the client, as for the first connection. `random`: one
    /// number for each.
    pub(crate) fn next(&mut self, known: &[Known], random: impl Fn(usize) -> u64) -> Option<usize> {
        self.find(known)?;
        let best = known.iter().enumerate().min_by_key(|(number, one)| {
            let was_left = self.left.contains(&one.place);
            let is_current = self.current.as_ref() == Some(&one.place);
            let failed = one.failed + if was_left { LEFT } else { 0 };
            (failed, was_left && is_current, random(*number))
        });
        let (number, next) = best?;
        self.current = Some(next.place.clone());
        Some(number)
    }

    /// The current server. The client does not say to which it connected at first: it is the only one that it ever connected to.
    fn find(&mut self, known: &[Known]) -> Option<String> {
        if self.current.is_none() {
            let connected = known.iter().find(|one| one.was_connected);
            self.current = connected.map(|one| one.place.clone());
        }
        self.current.clone()
    }
}

/// How many servers there are beside one.
pub(crate) fn others(known: &[Known]) -> usize {
    let places: BTreeSet<_> = known.iter().map(|one| &one.place).collect();
    places.len().saturating_sub(1)
}

/// What a request's subject says of who answers it: the stream and what is asked of it, not which record. A stream may have a leader that
/// is out of reach while those of others answer. None for what a consumer is asked: one that is in the memory of a server which is gone
/// answers nobody, wherever they are. Nor for EVENTS, which a cluster has in memory too: it may have no leader anywhere. Nor for what a shim
/// asks the supervisors: one of them may be the one that is cut off, or be asked for such a consumer. Whether one answers that is not, the
/// shim asks by itself (`reach.rs`).
pub(crate) fn kind(subject: &str) -> Option<String> {
    if subject.starts_with("$JS.API.CONSUMER.") || is_of_events(subject) || is_of_shims(subject) {
        return None;
    }
    let tokens: Vec<_> = subject.split('.').collect();
    let is_api = subject.starts_with("$JS.API.");
    // An operation of JetStream is all capitals, the name of a stream is not.
    let is_operation =
        |token: &&str| token.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'$');
    let count = if is_api {
        tokens.iter().take_while(|token| is_operation(token)).count() + 1
    } else if subject.starts_with('$') {
        2
    } else {
        3
    };
    let shard =
        tokens.last().filter(|last| !is_api && last.bytes().all(|byte| byte.is_ascii_digit()));
    let kept = tokens.iter().take(count).chain(shard).copied();
    Some(kept.collect::<Vec<_>>().join("."))
}

/// Whether it is a shim's question to the supervisors.
fn is_of_shims(subject: &str) -> bool {
    subject.split('.').nth(2) == Some("shim") && subject.ends_with(".ask")
}

/// Whether it is a record of EVENTS, or asks for one or for its leader.
fn is_of_events(subject: &str) -> bool {
    subject.split('.').nth(2) == Some("events")
        || subject.split(['.', ' ']).any(|token| token.ends_with("_EVENTS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLIS: Duration = Duration::from_millis(1);

    /// When it leaves, in seconds, where `misses` says whether a request of a kind fails in a tenth of a second.
    fn leaves(until: u64, misses: impl Fn(u64) -> Vec<(&'static str, bool)>) -> Vec<u64> {
        let began = Instant::now();
        let mut unanswered = Unanswered::new(0);
        let mut leaves = Vec::new();
        for tenth in 0..until * 10 {
            let now = began + MILLIS * 100 * u32::try_from(tenth).expect("small");
            for (kind, missed) in misses(tenth) {
                if missed {
                    unanswered.missed(kind, now, now);
                } else {
                    unanswered.answered(kind);
                }
            }
            if unanswered.due(now) != Due::Stay {
                leaves.push(tenth / 10);
            }
        }
        leaves
    }

    #[test]
    fn a_connection_leaves_a_server_that_does_not_answer_and_ever_more_patiently() {
        assert_eq!(leaves(200, |_| vec![("a", true)]), [5, 15, 35, 75, 135, 195]);
    }

    #[test]
    fn a_server_that_it_came_to_is_left_sooner_while_there_are_others() {
        let began = Instant::now();
        let mut unanswered = Unanswered::new(0);
        let mut leaves = Vec::new();
        for tenth in 0..600 {
            let now = began + MILLIS * 100 * tenth;
            unanswered.missed("a", now, now);
            if unanswered.due(now) != Due::Stay {
                leaves.push(tenth / 10);
                // Of three servers.
                unanswered.can_try(2_usize.saturating_sub(leaves.len()));
            }
        }
        assert_eq!(leaves, [5, 7, 27]);
    }

    #[test]
    fn a_consumer_has_more_time_to_answer_on_a_server_that_it_came_to() {
        for (kind, left) in [("a", TRIES), (PULL, PATIENCE)] {
            let began = Instant::now();
            let mut unanswered = Unanswered::new(0);
            let mut at = began;
            for _ in 0..=50 {
                at += MILLIS * 100;
                unanswered.missed(kind, began, at);
            }
            assert_eq!(unanswered.due(at), Due::Leave { first: true });
            unanswered.can_try(1);
            let moved = at;
            while unanswered.due(at) == Due::Stay {
                at += MILLIS * 100;
                unanswered.missed(kind, moved, at);
            }
            assert_eq!(at - moved, left, "{kind}");
        }
    }

    #[test]
    fn what_was_asked_before_a_move_is_no_reason_for_the_next() {
        let began = Instant::now();
        let mut unanswered = Unanswered::new(0);
        let now = began + PATIENCE;
        for tenth in 0..=50 {
            unanswered.missed("a", began, began + MILLIS * 100 * tenth);
        }
        assert_eq!(unanswered.due(now), Due::Leave { first: true });
        unanswered.can_try(1);
        // Others had asked at the same time.
        for other in ["a", "b", "c"] {
            unanswered.missed(other, began, now + MILLIS);
            assert_eq!(unanswered.due(now + MILLIS), Due::Stay);
        }
        unanswered.missed("b", now, now + TRIES);
        assert_eq!(unanswered.due(now + TRIES), Due::Leave { first: false });
    }

    #[test]
    fn a_move_that_helped_is_not_counted() {
        // Cut off for 6 s in every minute.
        let cuts = |tenth: u64| vec![("a", tenth % 600 < 60)];
        assert_eq!(leaves(200, cuts), [5, 65, 125, 185]);
        // One kind is never answered: that others are is no success.
        assert_eq!(leaves(60, |_| vec![("a", true), ("b", false)]), [5, 15, 35]);
    }

    #[test]
    fn an_answer_ends_the_silence_of_its_kind_alone() {
        assert!(leaves(60, |tenth| vec![("a", tenth < 45)]).is_empty());
        // A second in five, for ever.
        assert!(leaves(60, |tenth| vec![("a", tenth % 50 < 10)]).is_empty());
    }

    #[test]
    fn a_server_that_answers_by_turns_is_left() {
        let by_turns = |tenth: u64| vec![("a", (tenth / 45).is_multiple_of(2))];
        assert_eq!(leaves(30, by_turns), [10, 21]);
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_no_silence() {
        assert!(leaves(60, |tenth| if tenth < 45 { vec![("a", true)] } else { vec![] }).is_empty());
        let rarely =
            |tenth: u64| if tenth.is_multiple_of(100) { vec![("a", true)] } else { vec![] };
        assert!(leaves(100, rarely).is_empty());
    }

    #[test]
    fn a_process_that_stood_still_has_waited_for_no_time() {
        let began = Instant::now();
        let mut unanswered = Unanswered::new(0);
        unanswered.missed("a", began, began + Duration::from_secs(2));
        // It stood still for a minute, in the middle of a request.
        let awake = began + Duration::from_secs(62);
        unanswered.missed("a", began + Duration::from_secs(2), awake);
        assert_eq!(unanswered.due(awake), Due::Stay);
        let later = awake + Duration::from_millis(1900);
        unanswered.missed("a", awake, later);
        assert_eq!(unanswered.due(later), Due::Stay);
        let late = awake + Duration::from_millis(2100);
        unanswered.missed("a", awake, late);
        assert_eq!(unanswered.due(late), Due::Leave { first: true });
    }

    fn known(places: &[(&str, usize, bool)]) -> Vec<Known> {
        let known = places.iter().map(|(place, failed, was_connected)| Known {
            place: (*place).to_owned(),
            failed: *failed,
            was_connected: *was_connected,
        });
        known.collect()
    }

    #[test]
    fn the_next_server_is_one_that_was_not_left_and_did_not_fail() {
        let pool =
            known(&[("a:1", 0, true), ("b:1", 0, false), ("c:1", 0, false), ("a:1", 0, false)]);
        assert_eq!(others(&pool), 2);
        let mut places = Places::default();
        let first = |number: usize| number as u64;
        assert_eq!(places.next(&pool, first), Some(0), "its own, which is back");
        places.leave(&pool, true);
        assert_eq!(places.next(&pool, first), Some(1));
        let pool = known(&[("a:1", 0, true), ("b:1", 1, false), ("c:1", 0, false)]);
        assert_eq!(places.next(&pool, first), Some(2), "b is not reached either");
        places.leave(&pool, false);
        assert_eq!(places.next(&pool, first), Some(1), "neither a nor c has answered");
        places.leave(&pool, false);
        let pool = known(&[("a:1", 0, true), ("b:1", 0, true), ("c:1", 0, true)]);
        assert_eq!(places.next(&pool, first), Some(0), "all were left: it begins anew");
    }

    /// Two servers were left while they elected leaders without the third, which was gone.
    #[test]
    fn a_server_that_is_gone_is_not_all_that_is_tried() {
        let mut places = Places::default();
        let first = |number: usize| number as u64;
        let pool = |failed| known(&[("a:1", 0, true), ("b:1", failed, false), ("c:1", 0, false)]);
        assert_eq!(places.next(&pool(1), first), Some(0));
        places.leave(&pool(1), true);
        assert_eq!(places.next(&pool(1), first), Some(2));
        places.leave(&pool(1), false);
        assert_eq!(places.next(&pool(1), first), Some(1), "it failed once");
        assert_eq!(places.next(&pool(3), first), Some(0), "a may answer by now");
        assert_eq!(places.next(&pool(3), first), Some(2), "or c, if a does not");
    }

    #[test]
    fn the_first_connection_is_the_clients_choice() {
        let mut places = Places::default();
        assert_eq!(places.next(&known(&[("a:1", 0, false)]), |_| 0), None);
        assert_eq!(places.next(&[], |_| 0), None);
    }

    #[test]
    fn requests_are_told_apart_by_who_answers_them() {
        let kinds = [
            ("$JS.API.STREAM.INFO.mozart_x_CONTROL", "$JS.API.STREAM.INFO.mozart_x_CONTROL"),
            ("$JS.API.STREAM.MSG.GET.S_1", "$JS.API.STREAM.MSG.GET.S_1"),
            ("$JS.API.DIRECT.GET.KV_x.a.b", "$JS.API.DIRECT.GET.KV_x"),
            ("$KV.bucket.leader", "$KV.bucket"),
            ("m.x.journal.a.s.m.c.request", "m.x.journal"),
            ("m.x.journal.a.s.m.c.request.2", "m.x.journal.2"),
        ];
        for (subject, expected) in kinds {
            assert_eq!(kind(subject).as_deref(), Some(expected));
        }
        for subject in [
            "$JS.API.CONSUMER.INFO.S_1.c",
            "m.x.events.a.s.m",
            "$JS.API.STREAM.INFO.MOZART_default_EVENTS",
            "leader MOZART_default_EVENTS",
            "m.x.shim.a.1.ask",
        ] {
            assert_eq!(kind(subject), None);
        }
    }
}
