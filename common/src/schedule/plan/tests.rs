use super::*;
use crate::spec::{Overlap, Schedule};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// A full hour.
const BASE: u64 = 1_796_115_600_000;

fn time(millis: u64) -> Timestamp {
    Timestamp::from_millis(BASE + millis)
}

fn times(cron: &str) -> Times {
    let options = ScheduleOptions::default();
    Times::of(&Schedule { cron: cron.into(), tz: None, prompt: "x".into(), options })
        .expect("valid")
}

fn id() -> ScheduleId {
    ScheduleId::new("abc").expect("valid")
}

fn facts(now: u64, until: Option<u64>) -> Facts {
    let since = Timestamp::from_millis(BASE - 100 * HOUR);
    Facts { now: time(now), since, until: until.map(time), restored: None, blocked: None }
}

fn options(on_miss: OnMiss, within: u64) -> ScheduleOptions {
    let overlap = if on_miss == OnMiss::All { Overlap::Queue } else { Overlap::Skip };
    let within = Duration::from_millis(within);
    ScheduleOptions { on_miss, overlap, within, ..ScheduleOptions::default() }
}

fn of(cron: &str, options: &ScheduleOptions, facts: &Facts) -> Plan {
    plan(&id(), options, &times(cron), facts)
}

/// A step in short: `run 10`, `run 10 for 5..10 (2)`, `skip 5..9 (5) missed`, in minutes after the base.
fn words(plan: &Plan) -> Vec<String> {
    let minute = |time: Timestamp| (time.as_millis() as i64 - BASE as i64) / MINUTE as i64;
    let row = |from: &Option<Timestamp>, nominal: &Timestamp, count: &u64| match from {
        Some(from) => format!("{}..{} ({count})", minute(*from), minute(*nominal)),
        None => minute(*nominal).to_string(),
    };
    let step = |step: &Step| match step {
        Step::Run { nominal, from, count } => format!("run {}", row(from, nominal, count)),
        Step::Skip { nominal, from, count, more, reason, .. } => {
            let more = if *more { "+" } else { "" };
            format!("skip {}{more} {reason:?}", row(from, nominal, count))
        }
    };
    plan.steps.iter().map(step).collect()
}

#[test]
fn what_is_due_runs_once_and_the_next_is_waited_for() {
    let usual = ScheduleOptions::default();
    let hourly = "0 * * * *";
    // Not before its time, at it, and not again.
    let early = of(hourly, &usual, &facts(HOUR - 1, Some(0)));
    assert_eq!((words(&early), early.next), (vec![], Some(time(HOUR))));
    let due = of(hourly, &usual, &facts(HOUR, Some(0)));
    assert_eq!((words(&due), due.next), (vec!["run 60".into()], Some(time(2 * HOUR))));
    let again = of(hourly, &usual, &facts(HOUR + 10, Some(HOUR)));
    assert_eq!((words(&again), again.next), (vec![], Some(time(2 * HOUR))));
    // A clock that went back.
    let back = of(hourly, &usual, &facts(0, Some(HOUR)));
    assert_eq!((words(&back), back.next), (vec![], Some(time(2 * HOUR))));
    // A schedule begins when it was applied.
    let new = Facts { since: time(HOUR), ..facts(2 * HOUR, None) };
    assert_eq!(words(&of(hourly, &usual, &new)), ["run 120"]);
    let back_in_soul = Facts { since: time(90 * MINUTE), ..facts(2 * HOUR, Some(0)) };
    assert_eq!(words(&of(hourly, &usual, &back_in_soul)), ["run 120"]);
}

#[test]
fn what_was_missed_is_what_the_soul_says() {
    const DAY: u64 = 24 * HOUR;
    let minutely = "* * * * *";
    let rows: [(OnMiss, u64, u64, &[&str]); 12] = [
        // A minute late is not missed.
        (OnMiss::Skip, DAY, MINUTE + 59_000, &["run 1"]),
        (OnMiss::Once, DAY, MINUTE + 59_000, &["run 1"]),
        (OnMiss::Once, DAY, 2 * MINUTE, &["run 1", "run 2"]),
        // A leader that comes after five and a half minutes.
        (OnMiss::Skip, DAY, 330_000, &["skip 1..4 (4) Missed", "run 5"]),
        (OnMiss::Once, DAY, 330_000, &["run 1..5 (5)"]),
        (OnMiss::All, DAY, 330_000, &["run 1", "run 2", "run 3", "run 4", "run 5"]),
        // Not what is older than it may be.
        (OnMiss::Once, 2 * MINUTE, 330_000, &["skip 1..3 (3) Missed", "run 4..5 (2)"]),
        (OnMiss::All, 2 * MINUTE, 330_000, &["skip 1..3 (3) Missed", "run 4", "run 5"]),
        (OnMiss::Once, HOUR, 90 * MINUTE, &["skip 1..29 (29) Missed", "run 30..89 (60)", "run 90"]),
        (OnMiss::Skip, DAY, 90 * MINUTE, &["skip 1..88 (88) Missed", "run 89", "run 90"]),
        (
            OnMiss::Once,
            DAY,
            48 * HOUR + 30_000,
            &["skip 1..1440 (1000)+ Missed", "run 1441..2880 (1440)"],
        ),
        (OnMiss::Once, MINUTE, 30 * DAY + 30_000, &["skip 1..43199 (1000)+ Missed", "run 43200"]),
    ];
    for (on_miss, within, now, expected) in rows {
        let plan = of(minutely, &options(on_miss, within), &facts(now, Some(0)));
        assert_eq!(words(&plan), expected, "{on_miss:?} {within} {now}");
        let next = time(now - now % MINUTE + MINUTE);
        assert_eq!(plan.next, Some(next));
    }
    // One that runs every day is made up for, hours later.
    let daily = of("0 0 * * *", &options(OnMiss::Once, DAY), &facts(30 * HOUR, Some(0)));
    assert_eq!(words(&daily), ["run 900"]);
}

#[test]
fn an_agent_that_rests_gets_nothing_and_every_occurrence_has_the_reason() {
    let blocked = Some((SkipReason::Stopped, Some("stopped by ada".to_owned())));
    for on_miss in [OnMiss::Skip, OnMiss::Once, OnMiss::All] {
        let facts = Facts { blocked: blocked.clone(), ..facts(330_000, Some(0)) };
        let plan = of("* * * * *", &options(on_miss, 2 * MINUTE), &facts);
        assert_eq!(words(&plan), ["skip 1..5 (5) Stopped"]);
        assert_eq!(plan.next, Some(time(6 * MINUTE)));
    }
}

#[test]
fn what_may_have_run_before_a_restore_does_not_run_again() {
    let usual = ScheduleOptions::default();
    let restored = Facts { restored: Some(time(150_000)), ..facts(330_000, Some(0)) };
    let plan = of("* * * * *", &usual, &restored);
    assert_eq!(words(&plan), ["skip 1..2 (2) Restored", "run 3..5 (3)"]);
    // Once.
    let later = Facts { until: Some(time(5 * MINUTE)), ..restored.clone() };
    assert_eq!(words(&of("* * * * *", &usual, &later)), [""; 0]);
    // Added since.
    let new = Facts { since: time(200_000), until: None, ..restored };
    assert_eq!(words(&of("* * * * *", &usual, &new)), ["run 4..5 (2)"]);
}

#[test]
fn jitter_is_the_same_for_everybody_and_keeps_to_its_bound() {
    let jittered =
        ScheduleOptions { jitter: Duration::from_secs(30), ..ScheduleOptions::default() };
    let mut delays = std::collections::BTreeSet::new();
    let mut until = 0;
    for _ in 0..50 {
        let waits = of("* * * * *", &jittered, &facts(until, Some(until)));
        let due = waits.next.expect("there is a next").as_millis() - BASE;
        let delay = due - (until + MINUTE);
        assert!(delay < 30_000, "{delay}");
        delays.insert(delay / 3_000);
        let early = of("* * * * *", &jittered, &facts(due - 1, Some(until)));
        assert!(early.steps.is_empty(), "{early:?}");
        let plan = of("* * * * *", &jittered, &facts(due, Some(until)));
        assert_eq!(plan.steps.len(), 1, "{plan:?}");
        until += MINUTE;
    }
    assert!(delays.len() > 5, "it is spread: {delays:?}");
}

/// However often and whenever it is looked, every occurrence has exactly one fate, in order.
#[test]
fn every_occurrence_has_one_fate() {
    for seed in 0..200_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move |most: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % most
        };
        let on_miss = [OnMiss::Skip, OnMiss::Once, OnMiss::All][next(3) as usize];
        let cron = ["* * * * *", "*/7 * * * *", "13 * * * *"][next(3) as usize];
        let mut options = options(on_miss, MINUTE * (1 + next(120)));
        options.jitter = Duration::from_millis(next(2) * next(50_000));
        let (mut now, mut until, mut fates) = (0_u64, None, 0);
        for _ in 0..100 {
            // The clock may step back, too.
            now = (now + next(20 * MINUTE)).saturating_sub(next(4) / 3 * next(30 * MINUTE));
            let mut facts = facts(now, None);
            facts.since = time(0);
            facts.until = until;
            facts.blocked = (next(4) == 0).then_some((SkipReason::Paused, None));
            for step in of(cron, &options, &facts).steps {
                let (nominal, from, count) = match step {
                    Step::Run { nominal, from, count } => (nominal, from, count),
                    Step::Skip { nominal, from, count, more, .. } => {
                        assert!(!more, "there are not that many");
                        (nominal, from, count)
                    }
                };
                let after = until.unwrap_or(time(0));
                let expected: Vec<_> =
                    times(cron).next(after).take_while(|time| *time <= nominal).collect();
                assert_eq!(expected.len() as u64, count, "seed {seed}");
                assert_eq!(expected.first(), Some(&from.unwrap_or(nominal)), "seed {seed}");
                fates += count;
                until = Some(nominal);
            }
        }
        let all = until
            .map_or(0, |until| times(cron).next(time(0)).take_while(|time| *time <= until).count());
        assert_eq!(fates, all as u64, "seed {seed}");
    }
}
