//! Leaders that die, freeze, are deposed and see clocks that jump, over virtual time, from seeds: every occurrence of every schedule ran or was skipped
//! with a reason, none ran twice, and what is said to have run is in the journal. The decisions are those of the supervisor; the broker is a model.
//!
//! `MOZART_SIM_SEEDS=1000` looks at more seeds, `MOZART_SIM_AGENTS=1000` at a fleet of the size that the documentation speaks of.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{BrokerError, Moment};
use common::message::Envelope;
use common::schedule::{Facts, Fate, Occurrences, SkipReason, Times, schedule_id};
use common::spec::{OnMiss, Overlap, Schedule, ScheduleOptions};
use common::{AgentName, MessageId, Timestamp};
use futures_util::FutureExt as _;

use super::Key;
use super::book::{Job, Known};
use super::decide::{Places, one};

/// A full hour.
const BASE: u64 = 1_796_115_600_000;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % most
    }
}

struct Message {
    stored: u32,
    /// When it ends.
    ends: u64,
    /// Whether it has left the journal.
    archived: bool,
    forgotten: bool,
}

struct Inner {
    random: Random,
    /// Milliseconds that have passed.
    now: u64,
    /// How far the broker's clock is off.
    skew: i64,
    seq: u64,
    records: BTreeMap<Key, Vec<(u64, Occurrences)>>,
    journal: BTreeMap<(AgentName, MessageId), Message>,
    /// How often something goes wrong: one in so many calls; 0: never.
    faults: u64,
    /// How many leaders are at work inside each other.
    depth: u32,
    stopped: bool,
}

/// The broker, and the world around it.
struct World {
    inner: Mutex<Inner>,
    start: Moment,
    schedules: Vec<(Key, Schedule, Times)>,
}

/// A leader's memory of the records.
#[derive(Default)]
struct Leader {
    known: BTreeMap<Key, Known>,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self) -> Timestamp {
        let inner = self.lock();
        Timestamp::from_millis((BASE + inner.now).saturating_add_signed(inner.skew))
    }

    /// Time passes: messages end, leave the journal, and are forgotten.
    fn pass(&self, millis: u64) {
        let mut inner = self.lock();
        inner.now += millis;
        let now = inner.now;
        for message in inner.journal.values_mut() {
            message.archived |= now > message.ends + 30_000;
            message.forgotten |= now > message.ends + 3_600_000;
        }
    }

    /// A call to the broker: it may fail, before or after it has done something, and whoever makes it may stand still, while others lead.
    fn call(&self, freezes: bool) -> Result<(), BrokerError> {
        let (fails, frozen) = {
            let mut inner = self.lock();
            if inner.faults == 0 {
                return Ok(());
            }
            let faults = inner.faults;
            let fails = inner.random.below(faults) == 0;
            let frozen = freezes && inner.depth == 0 && inner.random.below(faults * 4) == 0;
            (fails, frozen)
        };
        if frozen {
            self.lock().depth += 1;
            let mut other = Leader::default();
            let seconds = 20 + self.lock().random.below(80);
            for _ in 0..seconds {
                self.tick(&mut other);
                self.pass(1_000);
            }
            self.lock().depth -= 1;
        }
        if fails { Err(BrokerError::Other("a fault".to_owned())) } else { Ok(()) }
    }

    /// A second of a leader. Whether it is still one.
    fn tick(&self, leader: &mut Leader) {
        for (key, schedule, times) in &self.schedules {
            let known = leader.known.entry(key.clone()).or_insert_with(|| self.last(key)).clone();
            let stopped = self.lock().stopped;
            let facts = Facts {
                now: self.clock(),
                since: Timestamp::from_millis(BASE),
                until: known.record.as_ref().and_then(|record| record.nominal),
                restored: None,
                blocked: stopped.then_some((SkipReason::Stopped, None)),
            };
            let job = Job {
                key: key.clone(),
                number: 1,
                schedule: schedule.clone().into(),
                times: times.clone().into(),
                known,
                facts,
            };
            let decided = one(self, job, Some(1), "s").now_or_never().expect("nothing waits");
            match decided.known {
                Some(known) => leader.known.insert(key.clone(), known),
                None => leader.known.remove(key),
            };
        }
    }

    fn last(&self, key: &Key) -> Known {
        let inner = self.lock();
        let last = inner.records.get(key).and_then(|records| records.last());
        last.map_or_else(Known::default, |(seq, record)| Known {
            seq: *seq,
            record: Some(record.clone()),
        })
    }
}

impl Places for World {
    async fn store(
        &self,
        key: &Key,
        record: &Occurrences,
        last: u64,
    ) -> Result<Option<u64>, BrokerError> {
        self.call(true)?;
        let seq = {
            let mut inner = self.lock();
            inner.seq += 1;
            let seq = inner.seq;
            let records = inner.records.entry(key.clone()).or_default();
            if records.last().map_or(0, |(seq, _)| *seq) != last {
                return Ok(None);
            }
            records.push((seq, record.clone()));
            seq
        };
        self.call(true)?;
        Ok(Some(seq))
    }

    async fn is_open(&self, agent: &AgentName, message: &MessageId) -> Result<bool, BrokerError> {
        self.call(true)?;
        let inner = self.lock();
        let message = inner.journal.get(&(agent.clone(), message.clone()));
        Ok(message.is_some_and(|message| inner.now < message.ends))
    }

    async fn send(&self, envelope: &Envelope, fresh: bool) -> Result<(), BrokerError> {
        self.call(false)?;
        {
            let mut inner = self.lock();
            let takes = match inner.random.below(4) {
                0 => 200_000,
                _ => 5_000,
            };
            let ends = inner.now + takes;
            let name = (envelope.agent.clone(), envelope.message_id.clone());
            let new = Message { stored: 0, ends, archived: false, forgotten: false };
            let message = inner.journal.entry(name).or_insert(new);
            let is_there =
                message.stored > 0 && !message.forgotten && (!message.archived || !fresh);
            if !is_there {
                message.stored += 1;
                assert!(message.stored == 1, "{} ran twice", envelope.message_id);
            }
        }
        self.call(false)
    }

    fn moment(&self) -> Moment {
        self.start.after(Duration::from_millis(self.lock().now))
    }
}

fn schedule(random: &mut Random, minutely: bool, n: u64) -> (Key, Schedule, Times) {
    let agent = AgentName::new(format!("a{n}")).expect("valid");
    let crons = ["* * * * *", "*/5 * * * *", "17 * * * *", "@daily"];
    let cron = if minutely { crons[0] } else { crons[random.below(4) as usize] };
    let on_miss = [OnMiss::Skip, OnMiss::Once, OnMiss::All][random.below(3) as usize];
    let queue = on_miss == OnMiss::All || random.below(2) == 0;
    let overlap = if queue { Overlap::Queue } else { Overlap::Skip };
    let jitter = Duration::from_secs(random.below(2) * random.below(40));
    let within = Duration::from_secs(60 + random.below(3600));
    let options = ScheduleOptions { jitter, overlap, on_miss, within };
    let schedule = Schedule { cron: cron.into(), tz: None, prompt: "x".into(), options };
    let times = Times::of(&schedule).expect("valid");
    ((agent.clone(), schedule_id(&agent, &schedule)), schedule, times)
}

fn world(seed: u64, agents: u64, minutely: bool) -> World {
    let mut random = Random::new(seed);
    let schedules = (0..agents).map(|n| schedule(&mut random, minutely, n)).collect();
    let inner = Inner {
        random,
        now: 0,
        skew: 0,
        seq: 0,
        records: BTreeMap::new(),
        journal: BTreeMap::new(),
        faults: 40,
        depth: 0,
        stopped: false,
    };
    World { inner: Mutex::new(inner), start: Moment::now(), schedules }
}

/// Every occurrence has one fate, and what ran is in the journal. How many there are.
fn verdict(world: &World, seed: u64) -> u64 {
    let inner = world.lock();
    let (mut fates, mut ran) = (0, 0);
    for (key, _, times) in &world.schedules {
        let mut until = Timestamp::from_millis(BASE);
        let mut before: Option<&Occurrences> = None;
        for (_, record) in inner.records.get(key).map_or(&[][..], Vec::as_slice) {
            let nominal = record.nominal.expect("a leader's record has a time");
            if let Some(before) = before
                && before.nominal == record.nominal
            {
                // It says once more that the message is stored.
                assert_eq!((&before.fate, record.stored), (&record.fate, true), "seed {seed}");
                continue;
            }
            assert!(nominal > until, "seed {seed}: {key:?} goes back to {nominal}");
            let between = times.next(until).take_while(|time| *time <= nominal);
            if record.more {
                assert!(between.count() as u64 > record.count, "seed {seed}: {record:?}");
            } else {
                assert_eq!(between.count() as u64, record.count, "seed {seed}: {record:?}");
            }
            fates += record.count;
            if let Fate::Ran { message_id } = &record.fate {
                ran += 1;
                let message = inner.journal.get(&(key.0.clone(), message_id.clone()));
                assert_eq!(message.map(|it| it.stored), Some(1), "seed {seed}: {message_id}");
            }
            (until, before) = (nominal, Some(record));
        }
        // A leader was there until now, and the clock was right.
        let now = BASE + inner.now;
        let next = times.after(until).map_or(u64::MAX, Timestamp::as_millis);
        assert!(next + 60_000 > now, "seed {seed}: {key:?} is decided up to {until}, not {now}");
    }
    assert_eq!(inner.journal.len(), ran, "seed {seed}: nothing ran without a record");
    fates
}

/// At the end all is well for a while.
fn calm(world: &World) {
    {
        let mut inner = world.lock();
        (inner.faults, inner.skew, inner.stopped) = (0, 0, false);
    }
    let mut leader = Leader::default();
    for _ in 0..100 {
        world.tick(&mut leader);
        world.pass(1_000);
    }
}

#[test]
fn every_occurrence_ran_or_was_skipped_with_a_reason_and_none_ran_twice() {
    let (mut occurrences, first) = (0, number("MOZART_SIM_SEED", 0));
    for seed in first..first + number("MOZART_SIM_SEEDS", 60) {
        let world = world(seed, 4, false);
        let mut leader = Leader::default();
        for _ in 0..900 {
            let (event, time) = {
                let mut inner = world.lock();
                (inner.random.below(100), inner.random.below(3_000_000))
            };
            match event {
                // It dies, and another one takes over after some seconds.
                0 | 1 => {
                    leader = Leader::default();
                    world.pass(5_000 + time % 15_000);
                }
                // Nobody leads for up to an hour.
                2 => {
                    leader = Leader::default();
                    world.pass(time);
                }
                3 => {
                    let mut inner = world.lock();
                    inner.stopped = !inner.stopped;
                }
                // The clock of the broker is set, by up to 25 minutes, or is right again.
                4 => world.lock().skew = (time as i64 - 1_500_000) * (time % 2) as i64,
                _ => {}
            }
            world.tick(&mut leader);
            world.pass(1_000 + time % 4_000);
        }
        // Whatever was decided ahead of time is behind by then.
        world.lock().skew = 0;
        world.pass(1_500_000);
        calm(&world);
        occurrences += verdict(&world, seed);
    }
    assert!(occurrences > 1_000, "{occurrences}");
}

/// A schedule a minute for ten minutes, and a leader that is killed every thirty seconds.
#[test]
fn a_fleet_whose_leader_dies_every_thirty_seconds_misses_nothing() {
    let agents = number("MOZART_SIM_AGENTS", 100);
    let world = world(7, agents, true);
    world.lock().faults = 0;
    for _ in 0..20 {
        let mut leader = Leader::default();
        for _ in 0..22 {
            world.tick(&mut leader);
            world.pass(1_000);
        }
        // It dies in the middle of its work.
        world.lock().faults = 3;
        world.tick(&mut leader);
        world.lock().faults = 0;
        world.pass(8_000);
    }
    calm(&world);
    let fates = verdict(&world, 7);
    assert!(fates >= agents * 10, "{fates}");
    let inner = world.lock();
    let missed = inner.records.values().flatten().filter(|(_, record)| {
        matches!(record.fate, Fate::Skipped { reason: SkipReason::Missed, .. })
    });
    assert_eq!(missed.count(), 0, "a takeover is no miss");
}
