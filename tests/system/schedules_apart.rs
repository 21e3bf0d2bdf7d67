//! Schedules under three supervisors: the one that leads is killed every 30 s, one has a clock that is an hour off, and one is frozen for a
//! minute. `MOZART_SCHEDULE_AGENTS=1000 MOZART_SCHEDULE_MINUTES=10` is the fleet of the documentation.

use std::time::Duration;

use serde_json::Value;
use system_tests::chaos::JumpingClock;
use system_tests::harness::{Child, Fleet, Signal, within};
use tokio::time::{Instant, sleep};

use crate::roles::{apply, broker_at, free_port, server_at};
use crate::schedules::{history, minutely, number, seen, text, verdict};

/// A supervisor, with a home of its own.
struct Supervisor {
    id: String,
    fleet: Fleet,
    process: Child,
    frozen_until: Option<Instant>,
}

impl Supervisor {
    fn start(id: &str, env: &[(&str, String)]) -> Self {
        let with = |fleet: Fleet, (name, value): &(&str, String)| fleet.env(name, value);
        let fleet = env.iter().fold(Fleet::new(&[]), with);
        let process = fleet.spawn_cli(["supervisor", "--id", id]);
        Self { id: id.to_owned(), fleet, process, frozen_until: None }
    }

    fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process = self.fleet.spawn_cli(["supervisor", "--id", &self.id]);
    }

    fn freeze(&mut self, long: Duration) {
        self.process.signal(Signal::STOP);
        self.frozen_until = Some(Instant::now() + long);
    }

    fn thaw_if_due(&mut self) {
        if self.frozen_until.is_some_and(|until| until <= Instant::now()) {
            self.process.signal(Signal::CONT);
            self.frozen_until = None;
        }
    }
}

#[tokio::test]
async fn supervisors_that_are_killed_frozen_or_an_hour_off_run_each_occurrence_once() {
    let agents = number("MOZART_SCHEDULE_AGENTS", 5);
    let minutes = number("MOZART_SCHEDULE_MINUTES", 3);
    let folder = tempfile::tempdir().expect("a folder");
    let clock = JumpingClock::prepare(folder.path()).expect("a C compiler");
    clock.jump(3600).expect("written");
    let port = free_port();
    let url = format!("nats://127.0.0.1:{port}");
    let fleet = minutely(agents).env("NATS_URL", &url);
    std::fs::write(fleet.souls().join(".mozartignore"), "/own-nats\n/nats.conf\n")
        .expect("written");
    let _server = server_at(&fleet, port, "");
    let at = ("NATS_URL", url.clone());
    let of_clock = clock.env();
    let off: Vec<_> = [at.clone()].into_iter().chain(of_clock).collect();
    let mut supervisors = [
        Supervisor::start("off", &off),
        Supervisor::start("s1", std::slice::from_ref(&at)),
        Supervisor::start("s2", std::slice::from_ref(&at)),
    ];
    let _node = fleet.spawn_cli(["node", "--name", "n"]);
    apply(&fleet).await;
    assert!(clock.is_in(supervisors[0].process.pid()), "a static `mozart` keeps its clock");
    let broker = broker_at(port).await;

    let mut led = [0_u32; 3];
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let mut kill_at = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        sleep(Duration::from_secs(1)).await;
        for one in &mut supervisors {
            one.thaw_if_due();
        }
        if Instant::now() < kill_at {
            continue;
        }
        kill_at += Duration::from_secs(30);
        let leader = broker.lease_holder().await.expect("the broker answers");
        let leader = supervisors.iter().position(|one| leader.as_deref() == Some(one.id.as_str()));
        let Some(leader) = leader else { continue };
        led[leader] += 1;
        let killed = led.iter().sum::<u32>();
        if killed == 2 {
            // It still believes that it leads when it goes on.
            supervisors[leader].freeze(Duration::from_secs(60));
        } else if supervisors[leader].frozen_until.is_none() {
            supervisors[leader].kill();
        }
    }
    for one in &mut supervisors {
        one.process.signal(Signal::CONT);
    }
    assert!(led.iter().filter(|times| **times > 0).count() >= 2, "several led: {led:?}");

    let (mut ran, mut skipped) = (0, 0);
    for n in 0..agents {
        let agent = format!("a{n}");
        let records = within(Duration::from_secs(90), "all that was due is decided", async || {
            let records = history(&fleet, &agent).await;
            let count: u64 = records.iter().filter_map(|record| record["count"].as_u64()).sum();
            if count + 1 >= minutes { Ok(records) } else { Err(format!("{records:?}")) }
        })
        .await;
        let (those_that_ran, others): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| text(record, "fate") == "ran");
        for record in &others {
            assert!(!text(record, "reason").is_empty(), "{record}");
        }
        ran += those_that_ran.len() as u64;
        skipped += others.len();
        within(Duration::from_secs(90), "what ran has come to the worker", async || {
            let came = seen(&fleet, n);
            let has_come =
                |record: &&&Value| came.iter().any(|line| line["messageId"] == record["messageId"]);
            let missing = those_that_ran.iter().find(|record| !has_come(record));
            missing.map_or(Ok(()), |record| Err(record.to_string()))
        })
        .await;
        verdict(&history(&fleet, &agent).await, &seen(&fleet, n));
    }
    assert!(ran >= agents, "{ran} ran, {skipped} were skipped");
    println!("{ran} occurrences ran, {skipped} were skipped with a reason; led: {led:?}");
}
