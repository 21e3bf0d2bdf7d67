//! Schedules end to end: a real broker, supervisors that are killed, and a worker that writes down what it is sent.
//!
//! The smallest interval of a schedule is a minute: this takes some of them. `MOZART_SCHEDULE_AGENTS=1000 MOZART_SCHEDULE_MINUTES=10` is the fleet of the
//! documentation, whose leader is killed every 30 s.

use std::collections::BTreeSet;
use std::time::Duration;

use common::Timestamp;
use serde_json::Value;
use system_tests::harness::{Fleet, flaky, within};

use crate::metrics::{at, until};
use crate::roles::free_port;

const WORKER: &str = r#"import json, sys
print(json.dumps({"type": "ready"}), flush=True)
for line in sys.stdin:
    line = json.loads(line)
    if line["type"] == "shutdown":
        break
    if line["type"] == "chat":
        with open(sys.argv[1], "a") as seen:
            seen.write(json.dumps(line) + "\n")
        print(json.dumps({"type": "chat_done", "messageId": line["messageId"], "response": "done"}), flush=True)
"#;

pub(crate) fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A fleet of agents with one schedule each, every minute; what their workers saw is in the files beside the souls.
pub(crate) fn minutely(agents: u64) -> Fleet {
    let fleet = Fleet::new(&[]);
    std::fs::write(fleet.souls().join("seen.py"), WORKER).expect("written");
    for n in 0..agents {
        let seen = fleet.home().with_file_name(format!("seen-{n}.jsonl"));
        let soul = format!(
            "MODEL test/model\nSOUL test agent\nWORKER [\"python3\", \"seen.py\", \"{}\"]\nSCHEDULE \"* * * * *\" look\n",
            seen.display()
        );
        let _path = fleet.soul(&format!("a{n}"), &soul);
    }
    fleet
}

pub(crate) fn seen(fleet: &Fleet, n: u64) -> Vec<Value> {
    let path = fleet.home().with_file_name(format!("seen-{n}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub(crate) async fn history(fleet: &Fleet, agent: &str) -> Vec<Value> {
    let records = fleet.json(["schedule", "history", agent, "--limit", "200"]).await;
    records.as_array().expect("a list").clone()
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Every minute since the first record has one fate, and no message came twice.
pub(crate) fn verdict(records: &[Value], seen: &[Value]) {
    let nominal: Vec<&str> = records.iter().rev().map(|record| text(record, "nominal")).collect();
    let minutes = |text: &str| {
        let time: Timestamp = serde_json::from_value(text.into()).expect("a time");
        time.as_millis() / 60_000
    };
    for (pair, later) in nominal.windows(2).zip(records.iter().rev().skip(1)) {
        let count = later["count"].as_u64().expect("a number");
        assert_eq!(minutes(pair[0]) + count, minutes(pair[1]), "none is lost: {records:#?}");
    }
    let mut ids = BTreeSet::new();
    for line in seen {
        assert!(ids.insert(text(line, "messageId")), "it came twice: {line}");
        assert_eq!(text(line, "fromId"), "schedule");
        let record = records.iter().find(|record| record["messageId"] == line["messageId"]);
        let record = record.unwrap_or_else(|| panic!("it is on record: {line}"));
        assert_eq!(record["nominal"], line["scheduledFor"]);
    }
}

#[tokio::test]
async fn a_schedule_runs_is_paused_and_every_occurrence_is_accounted_for() {
    let mut fleet = minutely(1);
    let port = free_port();
    fleet.up(&["--metrics", &at(port)]).await;
    let row = fleet.json(["schedule", "ls"]).await[0].clone();
    assert_eq!((text(&row, "agent"), text(&row, "cron")), ("a0", "* * * * *"));
    assert_eq!(row["next"].as_array().expect("times").len(), 5);
    let id = text(&row, "schedule").to_owned();

    // Its time comes.
    let first = within(Duration::from_secs(90), "the first occurrence runs", async || {
        seen(&fleet, 0).pop().ok_or_else(|| "nothing".to_owned())
    })
    .await;
    assert_eq!(text(&first, "message"), "look");
    let message = text(&first, "messageId");
    let shown = fleet.wait_status(message, "completed").await.row;
    assert_eq!((shown.kind, shown.sender.as_str()), (common::message::Kind::Trigger, "schedule"));
    assert_eq!(
        shown.scheduled_for.map(|at| at.to_string()).as_deref(),
        first["scheduledFor"].as_str()
    );
    let record = history(&fleet, "a0").await.pop().expect("one");
    assert_eq!((text(&record, "fate"), text(&record, "messageId")), ("ran", message));

    // By hand, besides.
    let run = fleet.json(["schedule", "run", "a0", &id[..4]]).await;
    let by_hand = fleet.wait_status(text(&run, "messageId"), "completed").await.row;
    assert_eq!(by_hand.scheduled_for, None);
    assert_eq!(text(&history(&fleet, "a0").await[0], "fate"), "requested");

    // Paused: skipped, and that is said; and nothing more is seen.
    let _paused = fleet.cli(["schedule", "pause", "a0"]).await.ok();
    let before = seen(&fleet, 0).len();
    let skipped = within(Duration::from_secs(90), "an occurrence is skipped", async || {
        let last = history(&fleet, "a0").await[0].clone();
        if text(&last, "fate") == "skipped" { Ok(last) } else { Err(last.to_string()) }
    })
    .await;
    assert_eq!((text(&skipped, "reason"), seen(&fleet, 0).len()), ("paused", before));
    let told = until("what became of its occurrences is counted", port, |told| {
        told.get("mozart_schedule_skips_total{reason=\"paused\"}") >= 1.0
    })
    .await;
    let runs = told.get("mozart_schedule_runs_total");
    assert!(runs >= 1.0, "{runs}");
    assert_eq!(told.get("mozart_schedule_lateness_seconds_count"), runs);
    let listed = fleet.cli(["schedule", "ls"]).await.ok();
    assert!(listed.stdout.contains("paused"), "{listed}");
    let _resumed = fleet.cli(["schedule", "resume", "a0"]).await.ok();
    let events = fleet.cli(["events", "a0"]).await.ok();
    assert!(events.stdout.contains(&format!("pause of schedule {id} requested")), "{events}");

    // Wrong uses say what is wrong.
    fleet.cli(["schedule", "run", "a0", "nope"]).await.exit(3).says("schedule ls a0");
    fleet.cli(["schedule", "history", "unknown"]).await.exit(3).says("no agent");
}

#[tokio::test]
async fn a_leader_that_is_killed_again_and_again_runs_each_occurrence_once() {
    let agents = number("MOZART_SCHEDULE_AGENTS", 5);
    let minutes = number("MOZART_SCHEDULE_MINUTES", 2);
    let mut fleet = minutely(agents);
    for _ in 0..2 * minutes {
        fleet.up(&[]).await;
        // That long it leads: a test of time needs time.
        tokio::time::sleep(Duration::from_secs(30)).await;
        fleet.kill_up().await;
    }
    fleet.up(&[]).await;
    for n in 0..agents {
        let agent = format!("a{n}");
        let records = within(Duration::from_secs(90), "all that was due is decided", async || {
            let records = history(&fleet, &agent).await;
            let count: u64 = records.iter().filter_map(|record| record["count"].as_u64()).sum();
            if count >= minutes { Ok(records) } else { Err(format!("{records:?}")) }
        })
        .await;
        let ran = records.iter().filter(|record| text(record, "fate") == "ran");
        for record in ran {
            let _done = fleet.wait_status(text(record, "messageId"), "completed").await;
        }
        verdict(&history(&fleet, &agent).await, &seen(&fleet, n));
    }
}

#[tokio::test]
async fn a_check_shows_the_next_times_and_what_is_wrong_with_options() {
    let fleet = Fleet::new(&[("a", &flaky("SCHEDULE \"0 9 * * *\" TZ Europe/Berlin report"))]);
    let soul = fleet.souls().join("a.soul");
    let soul = soul.to_str().expect("text");
    let said = fleet.cli(["validate", soul]).await.ok();
    assert!(said.stdout.matches(" 09:00 CE").count() >= 5, "{said}");
    let json = fleet.json(["validate", soul]).await;
    assert_eq!(json[0]["schedules"][0]["next"].as_array().expect("times").len(), 5);
    let bad = fleet.soul("b", &flaky("SCHEDULE \"0 9 * * *\" OPTIONS overlap=wait report"));
    let said = fleet.cli(["validate", bad.to_str().expect("text")]).await;
    let _said = said.exit(2).says("expected `skip` or `queue`");
}
