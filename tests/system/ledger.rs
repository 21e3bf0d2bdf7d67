//! `examples/ledger` and `examples/team`: a worker that is killed at every step, and books once; and the demos, which run by themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use system_tests::harness::{Fleet, binary, nats_server};
use tokio::process::Command;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize().expect("it is there")
}

const STEPS: [&str; 3] = ["withdraw", "deposit", "receipt"];

fn places() -> Vec<String> {
    let whens = ["before", "done", "stored"];
    STEPS.iter().flat_map(|step| whens.map(|when| format!("{when}-{step}"))).collect()
}

struct Ledger {
    fleet: Fleet,
    data: PathBuf,
}

impl Ledger {
    async fn up() -> Self {
        let soul = fs::read_to_string(examples().join("ledger/ledger.soul")).expect("there");
        let mut fleet = Fleet::new(&[("ledger", &soul)]);
        let worker = "ledger.py";
        let from = examples().join("ledger").join(worker);
        fs::copy(from, fleet.souls().join(worker)).expect("copied");
        let data = fleet.souls().join("data");
        fs::create_dir_all(data.join("crash")).expect("made");
        fleet.all_up().await;
        Self { fleet, data }
    }

    /// A payment during which the worker dies at these places; how many attempts it took.
    async fn pay(&self, id: &str, amount: u64, places: &[String]) -> u32 {
        for place in places {
            fs::write(self.data.join("crash").join(place), "").expect("written");
        }
        let text = format!("pay {amount} to alice");
        let more = ["--id", id, "--conversation", "shop"];
        let _id = self.fleet.send_with("ledger", &text, &more).await;
        let row = self.fleet.wait_status(id, "completed").await.row;
        let response = row.response.expect("an answer");
        assert!(response.ends_with(&format!(": {amount} to alice")), "{response}");
        let left = fs::read_dir(self.data.join("crash")).expect("there").count();
        assert_eq!(left, 0, "{id}: it died everywhere");
        row.attempts
    }

    fn number(&self, query: &str) -> i64 {
        let book = Connection::open(self.data.join("book.db")).expect("a database");
        book.query_row(query, [], |row| row.get(0)).expect("a number")
    }
}

#[tokio::test]
async fn the_ledger_dies_at_every_step_and_books_each_payment_once() {
    let ledger = Ledger::up().await;
    assert_eq!(ledger.pay("whole", 1, &[]).await, 1);
    for place in places() {
        assert_eq!(ledger.pay(&place, 1, std::slice::from_ref(&place)).await, 2, "{place}");
    }
    assert_eq!(ledger.pay("everywhere", 90, &places()).await, 10);
    let payments = 11;
    assert_eq!(ledger.number("SELECT count(*) FROM receipt"), payments);
    assert_eq!(ledger.number("SELECT count(*) FROM booking"), 2 * payments);
    assert_eq!(ledger.number("SELECT sum(amount) FROM booking WHERE account = 'alice'"), 100);
    assert_eq!(ledger.number("SELECT sum(amount) FROM booking WHERE account = 'ours'"), -100);
    // What was done and not stored was done again: once in each such place, here and there.
    let again = ledger.number("SELECT count(*) - count(DISTINCT key) FROM call");
    assert_eq!(again, 2 * 3, "what was stored was not");
    let args = ["send", "ledger", "statement", "--conversation", "shop", "--wait"];
    let answer = ledger.fleet.json(args).await;
    let response = answer["response"].as_str().expect("a text");
    assert_eq!(response.lines().count() as i64, payments + 1, "{response}");
    assert_eq!(response.lines().last(), Some("total 100"));
}

/// Runs the demo of an example with the binaries of this build.
async fn demo(example: &str) -> String {
    // Beside each other, as after `make build`.
    let bin = tempfile::tempdir().expect("a folder");
    for program in ["mozart", "mozart-shim"] {
        std::os::unix::fs::symlink(binary(program), bin.path().join(program)).expect("made");
    }
    let mut command = Command::new(examples().join(example).join("demo.sh"));
    command.env("MOZART_BIN", bin.path()).env("MOZART_NATS_SERVER", nats_server());
    command.env("MOZART_API", "off").kill_on_drop(true);
    let ran = tokio::time::timeout(Duration::from_secs(150), command.output()).await;
    let ran = ran.expect("it ends in time").expect("bash is there");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    said
}

#[tokio::test]
async fn the_demo_of_the_ledger_runs() {
    let said = demo("ledger").await;
    assert!(said.contains("11 payments, 33 bookings and receipts"), "{said}");
    assert!(said.contains("total 110"), "{said}");
}

#[tokio::test]
async fn the_demo_of_the_team_runs() {
    let said = demo("team").await;
    assert!(said.contains("published at 2"), "a person has agreed: {said}");
    assert!(said.contains("not published: refused"), "a person has not: {said}");
}
