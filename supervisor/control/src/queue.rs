//! The queue of work that is done for agents through the broker: a bounded number at once, first come first served. Pure: time is an
//! argument, and the caller of [`Queue::next`] does the work.
//!
//! After a restart of the broker, or at an election, all agents come at once. What waits is a name and a number, however much it takes to
//! do it; and what did not work rests without a turn, so that others go on meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use broker::Moment;

/// How much is done at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In all.
    pub(super) most: usize,
    /// In one lane: one that gets no answers does not hold up the others.
    pub(super) of_lane: usize,
}

/// A turn: another number with each that is given. The end of one that was given up is not the end of the one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

/// Its turn has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next<K> {
    pub(super) turn: Turn,
    pub(super) key: K,
    pub(super) incarnation: u64,
    /// How often it was tried before.
    pub(super) tries: u32,
}

/// What became of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is there already, or a later incarnation is.
    Known,
    /// It waits.
    Waits,
    /// It waits, and what is being done for an earlier incarnation is to end: its turn is given back by [`Queue::done`].
    Instead(Turn),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It came as the nth.
    Waiting(u64),
    Working(Turn),
    Resting(Moment),
}

#[derive(Debug)]
struct Job {
    incarnation: u64,
    lane: u32,
    stage: Stage,
    tries: u32,
}

/// The queue. A key says what is done and for which agent; it is there once, for the latest incarnation that was asked for.
#[derive(Debug)]
pub(super) struct Queue<K> {
    limits: Limits,
    jobs: BTreeMap<K, Job>,
    /// By lane, and in the order in which they came.
    waiting: BTreeMap<u32, BTreeMap<u64, K>>,
    resting: BTreeSet<(Moment, K)>,
    /// The turns that are not given back, with their lanes; and whose they are, unless they were given up.
    working: BTreeMap<Turn, (u32, Option<K>)>,
    /// How many came, and how many turns were given.
    count: u64,
}

impl<K: Ord + Clone> Queue<K> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            jobs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            resting: BTreeSet::new(),
            working: BTreeMap::new(),
            count: 0,
        }
    }

    /// Something is to be done for an incarnation. In the place of an earlier one that waits, it keeps that place.
    pub(super) fn ask(&mut self, key: K, lane: u32, incarnation: u64) -> Asked {
        let mut asked = Asked::Waits;
        if let Some(job) = self.jobs.get_mut(&key) {
            if job.incarnation >= incarnation {
                return Asked::Known;
            }
            match job.stage {
                Stage::Waiting(_) => {
                    (job.incarnation, job.tries) = (incarnation, 0);
                    return Asked::Waits;
                }
                Stage::Working(turn) => {
                    if let Some((_, whose)) = self.working.get_mut(&turn) {
                        *whose = None;
                    }
                    asked = Asked::Instead(turn);
                }
                Stage::Resting(until) => drop(self.resting.remove(&(until, key.clone()))),
            }
        }
        self.enter(key, Job { incarnation, lane, stage: Stage::Waiting(0), tries: 0 });
        asked
    }

    /// To the end of its lane.
    fn enter(&mut self, key: K, job: Job) {
        self.count += 1;
        let at = self.count;
        self.waiting.entry(job.lane).or_default().insert(at, key.clone());
        self.jobs.insert(key, Job { stage: Stage::Waiting(at), ..job });
    }

    /// It need not be done any more, if it is not being done.
    pub(super) fn forget(&mut self, key: &K) {
        let Some(job) = self.jobs.get(key) else { return };
        match job.stage {
            Stage::Working(_) => return,
            Stage::Waiting(at) => {
                if let Some(lane) = self.waiting.get_mut(&job.lane) {
                    lane.remove(&at);
                }
            }
            Stage::Resting(until) => drop(self.resting.remove(&(until, key.clone()))),
        }
        self.jobs.remove(key);
    }

    /// The next one whose turn it is, if there is a turn to give. It ends with [`Self::done`] or [`Self::failed`].
    pub(super) fn next(&mut self, now: Moment) -> Option<Next<K>> {
        while let Some((until, key)) = self.resting.first().cloned().filter(|(at, _)| *at <= now) {
            self.resting.remove(&(until, key.clone()));
            if let Some(job) = self.jobs.remove(&key) {
                self.enter(key, job);
            }
        }
        if self.working.len() >= self.limits.most {
            return None;
        }
        let has_room = |lane: u32| {
            let busy = self.working.values().filter(|(of, _)| *of == lane).count();
            busy < self.limits.of_lane
        };
        let first = |(lane, waiting): (&u32, &BTreeMap<u64, K>)| {
            waiting.first_key_value().map(|(at, _)| (*at, *lane))
        };
        // Few lanes, and a bounded number of turns.
        let firsts = self.waiting.iter().filter(|(lane, _)| has_room(**lane)).filter_map(first);
        let (at, lane) = firsts.min()?;
        let key = self.waiting.get_mut(&lane)?.remove(&at)?;
        let job = self.jobs.get_mut(&key)?;
        self.count += 1;
        let turn = Turn(self.count);
        job.stage = Stage::Working(turn);
        self.working.insert(turn, (lane, Some(key.clone())));
        Some(Next { turn, incarnation: job.incarnation, tries: job.tries, key })
    }

    /// When [`Self::next`] may have something, though nothing else happens.
    pub(super) fn due(&self) -> Option<Moment> {
        self.resting.first().map(|(until, _)| *until)
    }

    /// It is done, or given up.
    pub(super) fn done(&mut self, turn: Turn) {
        if let Some((_, Some(key))) = self.working.remove(&turn) {
            self.jobs.remove(&key);
        }
    }

    /// It did not work: it comes again after a rest, behind those who wait by then. False: it was given up meanwhile.
    pub(super) fn failed(&mut self, turn: Turn, until: Moment) -> bool {
        let Some((_, Some(key))) = self.working.remove(&turn) else { return false };
        let Some(job) = self.jobs.get_mut(&key) else { return false };
        job.tries = job.tries.saturating_add(1);
        job.stage = Stage::Resting(until);
        self.resting.insert((until, key));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Named = Queue<&'static str>;

    fn queue(most: usize, of_lane: usize) -> Named {
        Queue::new(Limits { most, of_lane })
    }

    /// All whose turn it is now.
    fn turns(queue: &mut Named, now: Moment) -> Vec<(&'static str, u64, Turn)> {
        let next = std::iter::from_fn(|| queue.next(now));
        next.map(|next| (next.key, next.incarnation, next.turn)).collect()
    }

    fn names(queue: &mut Named, now: Moment) -> Vec<&'static str> {
        turns(queue, now).into_iter().map(|(name, ..)| name).collect()
    }

    fn later(now: Moment, seconds: u64) -> Moment {
        now.after(Duration::from_secs(seconds))
    }

    #[test]
    fn no_more_are_worked_at_than_the_limit_and_who_came_first_goes_first() {
        let (mut queue, now) = (queue(2, 2), Moment::now());
        for name in ["d", "a", "c", "b"] {
            assert_eq!(queue.ask(name, 0, 1), Asked::Waits);
        }
        let first = turns(&mut queue, now);
        assert_eq!(first.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), ["d", "a"]);
        assert_eq!(queue.next(later(now, 60)), None, "no turn comes free by waiting");
        queue.done(first[1].2);
        assert_eq!(names(&mut queue, now), ["c"]);
        queue.done(first[0].2);
        assert_eq!(names(&mut queue, now), ["b"]);
    }

    #[test]
    fn two_thousand_that_come_at_once_are_done_a_few_at_a_time_and_each_once() {
        let now = Moment::now();
        let mut queue = Queue::new(Limits { most: 32, of_lane: 8 });
        for agent in 0..2000_u32 {
            queue.ask(agent, agent % 4, 1);
            queue.ask(agent, agent % 4, 1);
        }
        let mut done = Vec::new();
        while done.len() < 2000 {
            let turns: Vec<_> = std::iter::from_fn(|| queue.next(now)).collect();
            assert_eq!(turns.len(), 32.min(2000 - done.len()));
            for next in turns {
                queue.done(next.turn);
                done.push(next.key);
            }
        }
        assert!(done.is_sorted());
        assert_eq!((queue.jobs.len(), queue.working.len(), queue.next(now)), (0, 0, None));
    }

    #[test]
    fn a_later_incarnation_takes_the_place_of_one_that_waits() {
        let (mut queue, now) = (queue(1, 1), Moment::now());
        for (name, incarnation) in [("a", 4), ("b", 1), ("a", 5), ("a", 4), ("a", 5)] {
            queue.ask(name, 0, incarnation);
        }
        let first = turns(&mut queue, now);
        assert_eq!((first[0].0, first[0].1), ("a", 5));
        queue.done(first[0].2);
        assert_eq!(names(&mut queue, now), ["b"], "and only its place");
    }

    #[test]
    fn a_later_incarnation_ends_what_is_done_for_an_earlier_one() {
        let (mut queue, now) = (queue(1, 1), Moment::now());
        queue.ask("a", 0, 4);
        let (_, _, earlier) = turns(&mut queue, now)[0];
        assert_eq!(queue.ask("a", 0, 4), Asked::Known);
        assert_eq!(queue.ask("a", 0, 3), Asked::Known);
        assert_eq!(queue.ask("a", 0, 5), Asked::Instead(earlier));
        assert_eq!(queue.next(now), None, "until the other has ended");
        assert!(!queue.failed(earlier, now), "what was given up is not tried again");
        let later = turns(&mut queue, now);
        assert_eq!((later.len(), later[0].1), (1, 5));
        queue.done(earlier);
        assert_eq!(queue.ask("a", 0, 5), Asked::Known, "the other's end is not its own");
    }

    #[test]
    fn what_did_not_work_rests_without_a_turn_and_goes_behind_the_others() {
        let (mut queue, now) = (queue(1, 1), Moment::now());
        queue.ask("a", 0, 1);
        queue.ask("b", 0, 1);
        let (_, _, turn) = turns(&mut queue, now)[0];
        assert!(queue.failed(turn, later(now, 2)));
        assert_eq!(queue.ask("a", 0, 1), Asked::Known, "asking again does not shorten the rest");
        let b = turns(&mut queue, now);
        assert_eq!(b[0].0, "b", "others go on meanwhile");
        queue.ask("c", 0, 1);
        assert_eq!(queue.due(), Some(later(now, 2)));
        assert_eq!(queue.next(later(now, 3)), None);
        queue.done(b[0].2);
        let next = queue.next(later(now, 3)).expect("a turn");
        assert_eq!((next.key, next.tries), ("c", 0));
        queue.done(next.turn);
        let next = queue.next(later(now, 3)).expect("a turn");
        assert_eq!((next.key, next.tries, queue.due()), ("a", 1, None));
    }

    #[test]
    fn a_later_incarnation_of_what_rests_need_not_rest() {
        let (mut queue, now) = (queue(1, 1), Moment::now());
        queue.ask("a", 0, 1);
        let (_, _, turn) = turns(&mut queue, now)[0];
        queue.failed(turn, later(now, 2));
        assert_eq!(queue.ask("a", 0, 2), Asked::Waits);
        let next = queue.next(now).expect("a turn");
        assert_eq!((next.incarnation, next.tries, queue.due()), (2, 0, None));
    }

    #[test]
    fn a_lane_that_gets_no_answers_leaves_turns_for_the_others() {
        let (mut queue, now) = (queue(4, 2), Moment::now());
        for (name, lane) in [("a", 0), ("b", 0), ("c", 0), ("d", 1)] {
            queue.ask(name, lane, 1);
        }
        assert_eq!(names(&mut queue, now), ["a", "b", "d"]);
    }

    #[test]
    fn what_is_forgotten_is_not_done_and_what_is_being_done_is_not_forgotten() {
        let (mut queue, now) = (queue(1, 1), Moment::now());
        for name in ["a", "b", "c"] {
            queue.ask(name, 0, 1);
        }
        let (_, _, a) = turns(&mut queue, now)[0];
        queue.forget(&"b");
        queue.forget(&"a");
        assert_eq!(queue.ask("a", 0, 1), Asked::Known);
        queue.failed(a, later(now, 1));
        queue.forget(&"a");
        assert_eq!((names(&mut queue, later(now, 2)), queue.due()), (vec!["c"], None));
    }
}
