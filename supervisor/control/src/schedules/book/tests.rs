use common::control::{ControlEvent, ControlRecord};
use common::spec::{AgentSpec, ScheduleOptions};
use supervisor_core::{RULES, step};

use super::super::facts;
use super::*;

fn name(name: &str) -> AgentName {
    AgentName::new(name).expect("valid")
}

fn time(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

struct Log(State, u64);

impl Log {
    fn new() -> Self {
        let mut log = Self(State::default(), 0);
        let (supervisor, run) = ("s".to_owned(), "r".to_owned());
        log.fold(ControlEvent::LeaderElected { supervisor, run, rules: RULES });
        log
    }

    fn fold(&mut self, event: ControlEvent) {
        self.1 += 1;
        let record =
            ControlRecord { id: None, at: time(0), term: None, author: "cli".into(), event };
        let _actions = step(&mut self.0, self.1, time(1_000 * self.1), &record);
    }

    fn apply(&mut self, agent: &str, crons: &[&str]) {
        let mut spec = AgentSpec::new(name(agent), "m", "s");
        let schedule = |cron: &&str| Schedule {
            cron: (*cron).into(),
            tz: None,
            prompt: "x".into(),
            options: ScheduleOptions::default(),
        };
        spec.schedule = crons.iter().map(schedule).collect();
        let spec = Box::new(spec);
        self.fold(ControlEvent::AgentApplied { spec, force: true, asked: None });
    }
}

fn crons(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| job.schedule.cron.as_str()).collect()
}

fn due(book: &mut Book, log: &Log, now: u64) -> Vec<Job> {
    book.due(time(now), 10, |key| facts(&log.0, key, time(now)))
}

/// Its last record is read: there is none.
fn read(book: &mut Book) -> usize {
    let unread = book.unread(10);
    unread.iter().for_each(|key| book.read(key, Some(None)));
    unread.len()
}

fn done(job: Job, next: u64) -> Decided {
    let Job { key, number, known, .. } = job;
    Decided { key, number, known: Some(known), next: Some(time(next)), fault: None }
}

#[test]
fn a_schedule_is_read_once_and_worked_on_when_it_is_due() {
    let (mut log, mut book) = (Log::new(), Book::default());
    log.apply("a", &["@hourly"]);
    log.apply("b", &[]);
    book.note_all(&log.0);
    assert!(book.follow(&log.0).is_empty());
    assert_eq!((read(&mut book), read(&mut book)), (1, 0));
    let mut jobs = due(&mut book, &log, 5_000);
    assert_eq!(crons(&jobs), ["@hourly"]);
    assert_eq!(jobs[0].facts.since, time(2_000));
    assert!(due(&mut book, &log, 9_000).is_empty(), "it is being worked on");
    book.decided(done(jobs.remove(0), 60_000), None);
    assert!(due(&mut book, &log, 59_999).is_empty());
    let mut jobs = due(&mut book, &log, 60_000);
    // Somebody else has written a record.
    let Decided { key, number, .. } = done(jobs.remove(0), 0);
    book.decided(Decided { key, number, known: None, next: None, fault: None }, None);
    assert_eq!(read(&mut book), 1);
    assert_eq!(due(&mut book, &log, 60_001).len(), 1);
}

#[test]
fn a_soul_that_changes_keeps_what_is_known_of_the_schedules_that_stay() {
    let (mut log, mut book) = (Log::new(), Book::default());
    log.apply("a", &["@hourly", "@daily"]);
    book.note_all(&log.0);
    book.follow(&log.0);
    read(&mut book);
    for job in due(&mut book, &log, 5_000) {
        book.decided(done(job, 60_000), None);
    }
    log.apply("a", &["@weekly", "@hourly"]);
    book.note(&name("a"), log.0.agent(&name("a")));
    book.follow(&log.0);
    assert_eq!(read(&mut book), 1, "the new one");
    let jobs = due(&mut book, &log, 60_000);
    let mut known = crons(&jobs);
    known.sort_unstable();
    assert_eq!(known, ["@hourly", "@weekly"]);
    let since =
        |cron: &str| jobs.iter().find(|job| job.schedule.cron == cron).map(|job| job.facts.since);
    assert_eq!((since("@hourly"), since("@weekly")), (Some(time(2_000)), Some(time(3_000))));
    // What was under way when its schedule was taken out is nobody's, and there is room again.
    log.fold(ControlEvent::AgentRemoved { agent: name("a") });
    book.note(&name("a"), log.0.agent(&name("a")));
    book.follow(&log.0);
    assert!(book.is_empty());
    for job in jobs {
        book.decided(done(job, 70_000), None);
    }
    assert!(due(&mut book, &log, 80_000).is_empty());
    assert_eq!(book.busy, 0);
}

#[test]
fn no_more_are_worked_on_at_once_than_there_is_room_for() {
    let (mut log, mut book) = (Log::new(), Book::default());
    for n in 0..9 {
        log.apply(&format!("a{n}"), &["* * * * *"]);
    }
    book.note_all(&log.0);
    book.follow(&log.0);
    assert_eq!(read(&mut book), 9);
    let of = |key: &Key| facts(&log.0, key, time(60_000));
    let jobs = book.due(time(60_000), 4, of);
    assert_eq!(jobs.len(), 4);
    assert!(book.due(time(60_000), 4, of).is_empty());
    for job in jobs {
        book.decided(done(job, 120_000), None);
    }
    assert_eq!(book.due(time(60_000), 9, of).len(), 5);
}
