//! Durable steps: what a worker has stored in a turn is there in the next attempt, whatever dies in between, and nothing is done twice.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::message::Status;
use serde_json::{Value, json};
use system_tests::harness::{Fleet, Signal, alive, eventually, kill};

/// How often each victim is killed at each place: more of it by `MOZART_STEP_ROUNDS=25`, which is 500 kills.
fn rounds() -> usize {
    let rounds = std::env::var("MOZART_STEP_ROUNDS").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// A fleet with the agent `worker`, whose workers write down what they do.
struct Watched {
    fleet: Fleet,
    witness: PathBuf,
}

impl Watched {
    async fn up(more: &str) -> Self {
        let mut fleet = Fleet::new(&[]);
        let witness = fleet.souls().join("seen/witness");
        let soul = format!(
            "MODEL test/model\nSOUL It stores what it does.\nWORKER [\"python3\", \"steps.py\"]\nENV WITNESS={}\n{more}\n",
            witness.display()
        );
        fleet.soul("worker", &soul);
        fs::write(fleet.souls().join(".mozartignore"), "/seen\n").expect("written");
        fleet.all_up().await;
        Self { fleet, witness }
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(&self.witness).unwrap_or_default();
        text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }

    /// The lines of a message of one kind, without both.
    fn of(&self, kind: &str, message: &str) -> Vec<Vec<String>> {
        let is_it = |line: &Vec<String>| line[0] == kind && line[1] == message;
        self.lines().into_iter().filter(is_it).map(|line| line[2..].to_vec()).collect()
    }

    async fn wait(&self, kind: &str, message: &str, key: &str) {
        eventually("the worker gets there", async || {
            let lines = self.of(kind, message);
            if lines.iter().any(|line| line[0] == key) { Ok(()) } else { Err(format!("{lines:?}")) }
        })
        .await;
    }

    /// Lets the worker go on from a pause.
    fn go_on(&self, message: &str, key: &str) {
        let mut file = self.witness.clone().into_os_string();
        file.push(format!(".{message}.{key}"));
        fs::write(file, "").expect("written");
    }

    async fn send(&self, id: &str, told: &Value) {
        let _sent = self.fleet.send_with("worker", &told.to_string(), &["--id", id]).await;
    }

    /// The message was answered with what came of its steps, each of which was done once.
    async fn was_done_once(&self, id: &str, steps: usize) -> u32 {
        let row = self.fleet.wait_status(id, "completed").await.row;
        let did = self.of("did", id);
        let keys: Vec<_> = did.iter().map(|line| line[0].clone()).collect();
        let wanted: Vec<_> = (1..=steps).map(|number| format!("s{number}")).collect();
        assert_eq!(keys, wanted, "each once, in order: {:?}", self.lines());
        let nonces: Vec<_> = did.iter().map(|line| line[1].as_str()).collect();
        assert_eq!(row.response.as_deref(), Some(nonces.join(" ").as_str()));
        row.attempts
    }

    async fn kill(&mut self, victim: &str) {
        let worker = self.fleet.worker("worker");
        match victim {
            "worker" => kill(self.fleet.worker("worker"), Signal::KILL),
            "shim" => kill(self.fleet.shim("worker"), Signal::KILL),
            // The supervisor, and the node with it.
            "up" => {
                self.fleet.kill_up().await;
                self.fleet.up(&[]).await;
            }
            "nats" => kill(self.fleet.nats_pid().expect("a server"), Signal::KILL),
            _ => {
                for (pid, _) in [
                    (self.fleet.shim("worker"), ()),
                    (self.fleet.nats_pid().expect("a server"), ()),
                ] {
                    kill(pid, Signal::KILL);
                }
                self.fleet.kill_up().await;
                self.fleet.up(&[]).await;
            }
        }
        if matches!(victim, "nats" | "up") {
            return;
        }
        // It outlives its shim by some milliseconds, in which it would go on.
        eventually("the worker is dead", async || {
            if alive(worker) { Err(worker.to_string()) } else { Ok(()) }
        })
        .await;
    }
}

#[tokio::test]
async fn each_step_is_done_once_whatever_dies_between_two_of_them() {
    let mut watched =
        Watched::up("ATTEMPTS 10\nRESTART always max=1000/10m backoff=20ms..100ms").await;
    for round in 0..rounds() {
        for victim in ["worker", "shim", "nats", "up", "all"] {
            for place in [1, 2, 4, 5] {
                let id = format!("{victim}-{place}-{round}");
                let key = format!("s{place}");
                watched.send(&id, &json!({"steps": 5, "pause": [place]})).await;
                watched.wait("paused", &id, &key).await;
                watched.kill(victim).await;
                watched.go_on(&id, &key);
                let attempts = watched.was_done_once(&id, 5).await;
                let dies = !matches!(victim, "nats" | "up");
                assert_eq!(attempts > 1, dies, "{id}");
                let got: Vec<_> = watched.of("got", &id).concat();
                let wanted: Vec<_> =
                    (1..=place).filter(|_| dies).map(|n| format!("s{n}")).collect();
                assert_eq!(got, wanted, "{id}");
            }
        }
    }
}

#[tokio::test]
async fn a_step_waits_for_a_broker_that_stands_still_or_dies_and_is_stored_once() {
    let watched = Watched::up("RESTART always backoff=20ms..100ms").await;
    for (id, dies) in [("stands", false), ("dies", true)] {
        watched.send(id, &json!({"steps": 3, "pause": [1]})).await;
        watched.wait("paused", id, "s1").await;
        let nats = watched.fleet.nats_pid().expect("a server");
        kill(nats, Signal::STOP);
        watched.go_on(id, "s1");
        watched.wait("did", id, "s2").await;
        assert_eq!(watched.of("stored", id).len(), 1, "nothing is confirmed that is not stored");
        kill(nats, if dies { Signal::KILL } else { Signal::CONT });
        assert_eq!(watched.was_done_once(id, 3).await, 1, "the worker was only kept waiting");
    }
}

#[tokio::test]
async fn steps_are_shown_and_leave_their_names_in_the_history() {
    let mut watched = Watched::up("").await;
    watched.send("m", &json!({"steps": 12, "result": 1000})).await;
    assert_eq!(watched.was_done_once("m", 12).await, 1);
    let detail = watched.fleet.show("m").await;
    let names = |steps: &[common::step::StepMark]| -> Vec<(String, u64)> {
        steps.iter().map(|step| (step.key.clone(), step.bytes)).collect()
    };
    let wanted: Vec<_> = (1..=12).map(|number| (format!("s{number}"), 1034)).collect();
    assert_eq!((detail.row.status, names(&detail.steps)), (Status::Completed, wanted.clone()));
    let shown = watched.fleet.cli(["journal", "show", "m"]).await.ok();
    assert!(shown.stdout.contains("STEP") && shown.stdout.contains("s12"), "{}", shown.stdout);
    let why = watched.fleet.cli(["explain", "m"]).await.ok();
    assert!(why.stdout.contains("12 steps are stored"), "{}", why.stdout);
    // A message without steps does not speak of any.
    watched.send("none", &json!({"steps": 0})).await;
    assert_eq!(watched.was_done_once("none", 0).await, 1);
    let why = watched.fleet.cli(["explain", "none"]).await.ok();
    assert!(!why.stdout.contains("step"), "{}", why.stdout);

    let _down = watched.fleet.cli(["down"]).await.ok();
    let _ended = watched.fleet.take_up().output().await;
    watched.fleet.up(&["--hot", "0s"]).await;
    eventually("its steps have left with it", async || {
        let usage = watched.fleet.json(["usage", "--storage"]).await;
        let streams = usage["streams"].as_array().cloned().unwrap_or_default();
        let steps = streams.iter().find(|stream| stream["stream"] == "STEPS");
        match steps {
            Some(steps) if steps["records"] == 0 => Ok(()),
            _ => Err(usage.to_string()),
        }
    })
    .await;
    let detail = watched.fleet.show("m").await;
    assert_eq!(names(&detail.steps), wanted);
    let why = watched.fleet.cli(["explain", "worker/user/m"]).await.ok();
    assert!(why.stdout.contains("12 steps are stored"), "{}", why.stdout);
}

#[tokio::test]
async fn a_step_that_cannot_be_stored_says_so_and_harms_nothing() {
    let soul = "MODEL test/model\nSOUL raw\nWORKER [\"python3\", \"raw.py\"]";
    let fleet = Fleet::with(&[("raw", soul)]).await;
    let out = [
        r#"{"type":"step","messageId":"$ID","result":1}"#,
        r#"{"type":"step","messageId":"$ID","key":7}"#,
        r#"{"type":"step","messageId":"$ID","key":"","result":1}"#,
        r#"{"type":"step","messageId":"$ID","key":"cut","result":{"a":"#,
        r#"{"type":"step","messageId":"nobody","key":"k","result":1}"#,
        r#"{"type":"step","n":3}"#,
        r#"{"type":"step","messageId":"$ID","key":"large","result":"$X"}"#,
        r#"{"type":"step","messageId":"$ID","key":"good","result":1}"#,
        r#"{"type":"step","messageId":"$ID","key":"good","result":2}"#,
        r#"{"type":"chat_done","messageId":"$ID","response":"whole"}"#,
    ];
    let told = json!({"out": format!("{}\n", out.join("\n")), "fill": ["x", 300_000]});
    let id = fleet.send("raw", &told.to_string()).await;
    let detail = fleet.wait_status(&id, "completed").await;
    assert_eq!((detail.row.attempts, detail.row.response.as_deref()), (1, Some("whole")));
    let steps = fleet.show(&id).await.steps;
    assert_eq!(steps.iter().map(|step| step.key.as_str()).collect::<Vec<_>>(), ["good"]);
    eventually("the log says why", async || {
        let log = fleet.cli(["logs", "raw"]).await.ok().stdout;
        let said =
            ["without `key`", "not a string", "0 bytes", "EOF", "no open turn", "at most 262144"];
        match said.iter().find(|words| !log.contains(**words)) {
            Some(missing) => Err(format!("{missing} is missing: {log}")),
            None => Ok(()),
        }
    })
    .await;
    tokio::time::timeout(Duration::from_secs(20), fleet.wait_state("raw", "running"))
        .await
        .expect("it runs");
}
