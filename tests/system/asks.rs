//! Questions to people: they wait for whoever answers first, whatever dies in between, and for as long as they say.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use system_tests::harness::{Fleet, Signal, eventually, kill};

use crate::roles::{apply, free_port, server_at};

/// A fleet with the agent `worker`, whose workers write down what they are told.
struct Asking {
    fleet: Fleet,
    witness: PathBuf,
}

impl Asking {
    fn new(more: &str) -> Self {
        let fleet = Fleet::new(&[]);
        let witness = fleet.souls().join("seen/witness");
        fs::create_dir_all(fleet.souls().join("seen")).expect("made");
        let soul = format!(
            "MODEL test/model\nSOUL It asks.\nWORKER [\"python3\", \"asks.py\"]\nENV WITNESS={}\nRESTART always backoff=20ms..100ms\n{more}\n",
            witness.display()
        );
        fleet.soul("worker", &soul);
        fs::write(fleet.souls().join(".mozartignore"), "/seen\n/own-nats\n").expect("written");
        Self { fleet, witness }
    }

    async fn up(more: &str) -> Self {
        let mut asking = Self::new(more);
        asking.fleet.all_up().await;
        asking
    }

    /// What the workers were told, of one type.
    fn told(&self, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.witness).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|line| line["type"] == kind).collect()
    }

    async fn ask(&self, id: &str, questions: &[Value]) {
        let told = json!({ "ask": questions }).to_string();
        let _sent = self.fleet.send_with("worker", &told, &["--id", id]).await;
    }

    /// Waits until the questions of these ids are open, in this order.
    async fn open(&self, ids: &[&str]) -> Vec<Value> {
        open(&self.fleet, ids).await
    }

    async fn response(&self, id: &str) -> (u32, String) {
        let row = self.fleet.wait_status(id, "completed").await.row;
        (row.attempts, row.response.unwrap_or_default())
    }
}

async fn open(fleet: &Fleet, ids: &[&str]) -> Vec<Value> {
    eventually("the questions are open", async || {
        let listed = fleet.cli(["questions", "-o", "json"]).await;
        let rows: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap_or_default();
        let found: Vec<_> = rows.iter().map(|row| row["requestId"].as_str()).collect();
        let wanted: Vec<_> = ids.iter().map(|id| Some(*id)).collect();
        if listed.code == 0 && found == wanted { Ok(rows) } else { Err(listed.to_string()) }
    })
    .await
}

#[tokio::test]
async fn a_question_is_open_over_a_restart_of_everything_and_is_answered_from_another_host() {
    let port = free_port();
    let url = format!("nats://127.0.0.1:{port}");
    let Asking { fleet, witness } = Asking::new("CONCURRENCY 2");
    let asking = Asking { fleet: fleet.env("NATS_URL", &url), witness };
    let fleet = &asking.fleet;
    // Another data folder, which knows of nothing but the broker.
    let other = Fleet::new(&[]).env("NATS_URL", &url);
    let mut server = server_at(fleet, port, "");
    let supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
    let node = fleet.spawn_cli(["node", "--name", "n"]);
    apply(fleet).await;
    let _row = fleet.wait_state("worker", "running").await;
    asking.ask("m1", &[json!({"requestId": "deploy", "text": "Deploy to production?"})]).await;
    let _one = asking.open(&["deploy"]).await;
    asking
        .ask("m2", &[json!({"requestId": "pay", "text": "Pay?", "options": ["yes", "no"]})])
        .await;
    let before = asking.open(&["deploy", "pay"]).await;

    let (shim, worker) = (fleet.shim("worker"), fleet.worker("worker"));
    kill(node.pid(), Signal::KILL);
    kill(supervisor.pid(), Signal::KILL);
    kill(server.id().expect("it runs"), Signal::KILL);
    kill(shim, Signal::KILL);
    kill(worker, Signal::KILL);
    let _ended = server.wait().await;
    let _server = server_at(fleet, port, "");
    let _supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
    // The same two, until when they were open before; and one is answered while nothing of the agent runs.
    assert_eq!(open(&other, &["deploy", "pay"]).await, before);
    let answered = other.cli(["answer", "pay", "2", "-o", "json"]).await.ok().json();
    let expected = json!({"agent": "worker", "messageId": "m2", "requestId": "pay", "text": "no"});
    assert_eq!(answered, expected);

    let _node = fleet.spawn_cli(["node", "--name", "n"]);
    assert_eq!(asking.response("m2").await, (2, "no".to_owned()));
    let row = eventually("its shim runs again, and still asks", async || {
        let row = fleet.row("worker").await;
        let is_so = row["incarnation"] == 2 && row["inflight"] == 1 && row["asks"] == 1;
        if is_so { Ok(row) } else { Err(row.to_string()) }
    })
    .await;
    assert_eq!(row["state"], "running");
    let shown = other.cli(["ps"]).await.ok().stdout;
    assert!(shown.contains("running (asks 1)"), "{shown}");
    assert_eq!(open(&other, &["deploy"]).await, before[..1]);
    let _answered = other.cli(["answer", "worker/deploy", "yes, but carefully"]).await.ok();
    assert_eq!(asking.response("m1").await, (2, "yes, but carefully".to_owned()));
    let _none = open(&other, &[]).await;
    let told: Vec<_> =
        asking.told("answer").iter().map(|line| line["requestId"].to_string()).collect();
    assert_eq!(told, ["\"pay\"", "\"deploy\""], "each is told once");
}

#[tokio::test]
async fn the_first_answer_counts_and_an_answer_is_one_of_the_options() {
    let asking = Asking::up("CONCURRENCY 2").await;
    let fleet = &asking.fleet;
    let colour = json!({"requestId": "colour", "text": "Which?", "options": ["red", "blue", "1"]});
    asking.ask("m1", std::slice::from_ref(&colour)).await;
    let rows = asking.open(&["colour"]).await;
    let row = &rows[0];
    assert_eq!(row["agent"], "worker");
    assert_eq!((&row["messageId"], &row["text"]), (&json!("m1"), &json!("Which?")));
    assert_eq!(row["options"], colour["options"]);
    assert!(row["until"].is_string() && row["asked"].is_string() && row["conversationId"] == "m1");
    asking.ask("m2", std::slice::from_ref(&colour)).await;
    let _both = asking.open(&["colour", "colour"]).await;

    let several = fleet.cli(["answer", "colour", "red"]).await.exit(4);
    several.says("worker/m1/colour").says("worker/m2/colour");
    let none = fleet.cli(["answer", "worker/m1/colour", "4"]).await.exit(2);
    none.says("1 \"red\", 2 \"blue\", 3 \"1\"");
    fleet.cli(["answer", "nothing", "red"]).await.exit(3).says("no open question");
    let _row = fleet.cli(["questions", "nobody"]).await.exit(3);
    let _first = fleet.cli(["answer", "worker/m1/colour", "1"]).await.ok();
    assert_eq!(asking.response("m1").await, (1, "1".to_owned()), "a text before a number");
    let late = fleet.cli(["answer", "worker/m1/colour", "red"]).await.exit(4);
    late.says("already answered").says("user has answered \"1\"");
    let _second = fleet.cli(["answer", "colour", "2"]).await.ok();
    assert_eq!(asking.response("m2").await, (1, "blue".to_owned()));

    let watched = fleet.cli(["attach", "m2", "-o", "json"]).await.ok().json_lines();
    let events: Vec<_> = watched.iter().map(|line| line["event"]["type"].clone()).collect();
    assert!(
        events.contains(&json!("question")) && events.contains(&json!("answer")),
        "{watched:?}"
    );
}

#[tokio::test]
async fn a_turn_that_asks_does_not_time_out_and_gets_the_default_or_an_error_in_time() {
    let asking = Asking::up("TIMEOUT turn=1s\nATTEMPTS 1").await;
    let questions = [
        json!({"requestId": "a", "text": "A?", "timeoutMs": 4_000, "default": "no"}),
        json!({"requestId": "b", "text": "B?", "timeoutMs": 4_000}),
        json!({"requestId": "c", "text": "C?", "timeoutMs": 600_000}),
    ];
    asking.ask("m", &questions).await;
    let _open = asking.open(&["a", "b", "c"]).await;
    let _left = asking.open(&["c"]).await;
    let late = asking.fleet.cli(["answer", "a", "yes"]).await.exit(4);
    late.says("nobody answered in time").says("default \"no\"");
    let _answered = asking.fleet.cli(["answer", "c", "yes"]).await.ok();
    assert_eq!(asking.response("m").await, (1, "no nobody answered within 4s yes".to_owned()));
    let told = asking.told("answer");
    let flags: Vec<_> = told.iter().map(|line| line["isDefault"] == true).collect();
    assert_eq!(flags.iter().filter(|is| **is).count(), 1, "{told:?}");
}

#[tokio::test]
async fn a_message_that_was_cancelled_asks_nothing_any_more() {
    let asking = Asking::up("").await;
    asking.ask("m", &[json!({"requestId": "q", "text": "Go on?"})]).await;
    let _open = asking.open(&["q"]).await;
    let _cancelled = asking.fleet.cli(["cancel", "m"]).await.ok();
    let _none = asking.open(&[]).await;
    assert_eq!(asking.fleet.row("worker").await["asks"], 0);
    let _late = asking.fleet.cli(["answer", "q", "yes"]).await.exit(3);
    eventually("the worker is told", async || {
        let told = asking.told("cancel");
        if told.len() == 1 { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    // It is free again.
    asking.ask("next", &[]).await;
    assert_eq!(asking.response("next").await, (1, String::new()));
}

#[tokio::test]
async fn a_question_that_cannot_be_asked_says_so_and_harms_nothing() {
    let soul = "MODEL test/model\nSOUL raw\nWORKER [\"python3\", \"raw.py\"]";
    let fleet = Fleet::with(&[("raw", soul)]).await;
    let out = [
        r#"{"type":"question","messageId":"$ID","text":"no id"}"#,
        r#"{"type":"question","messageId":"$ID","requestId":"q1"}"#,
        r#"{"type":"question","messageId":"$ID","requestId":"q2","text":7}"#,
        r#"{"type":"question","messageId":"$ID","requestId":"q3","text":"$X"}"#,
        r#"{"type":"question","messageId":"$ID","requestId":"q4","text":"t","options":"yes"}"#,
        r#"{"type":"question","messageId":"$ID","requestId":"q5","text":"t","options":["a"],"default":"b"}"#,
        r#"{"type":"question","messageId":"$ID","requestId":"q6","text":"t","timeoutMs":-1}"#,
        r#"{"type":"question","messageId":"$ID","requestId":"q7","text":"t","timeoutMs":0}"#,
        r#"{"type":"question","messageId":"nobody","requestId":"q8","text":"t"}"#,
        r#"{"type":"question","messageId":"$ID","requestId":"q9","text":"cu"#,
        r#"{"type":"question","n":3}"#,
        r#"{"type":"chat_done","messageId":"$ID","response":"whole"}"#,
    ];
    let told = json!({"out": format!("{}\n", out.join("\n")), "fill": ["x", 20_000]});
    let id = fleet.send("raw", &told.to_string()).await;
    let detail = fleet.wait_status(&id, "completed").await;
    assert_eq!((detail.row.attempts, detail.row.response.as_deref()), (1, Some("whole")));
    let said = [
        "without `requestId`",
        "without `text`",
        "`text` is not a string",
        "16384",
        "`options` is not a list of strings",
        "`default`: it is none of the options",
        "invalid value: integer `-1`",
        "`timeoutMs` must be a number from 1 to 2592000000",
        "no open turn",
        "EOF",
        "unknown type \"question\"",
    ];
    eventually("the log says why", async || {
        let log = fleet.cli(["logs", "raw"]).await.ok().stdout;
        match said.iter().find(|words| !log.contains(**words)) {
            Some(missing) => Err(format!("{missing} is missing: {log}")),
            None => Ok(()),
        }
    })
    .await;
    let listed = fleet.json(["questions"]).await;
    assert_eq!(listed, json!([]));
}

#[tokio::test]
async fn questions_are_listed_and_answered_over_http() {
    let Asking { mut fleet, witness } = Asking::new("CONCURRENCY 2");
    fleet.up(&["--api", "127.0.0.1:0"]).await;
    let _row = fleet.wait_state("worker", "running").await;
    let asking = Asking { fleet, witness };
    let http = asking.fleet.http();
    asking.ask("m", &[json!({"requestId": "a/b", "text": "Go?", "options": ["yes", "no"]})]).await;
    let open = asking.open(&["a/b"]).await;
    assert_eq!(http.get("/api/v1/questions").await.is(200).json(), json!(open));
    assert_eq!(http.get("/api/v1/questions?agent=worker").await.is(200).json(), json!(open));
    let why = asking.fleet.cli(["explain", "m"]).await.ok();
    let says = "It waits for a person to answer \"Go?\", asked at ";
    assert!(why.stdout.contains(says), "{why}");
    assert!(why.stdout.contains("`mozart answer worker/m/a/b TEXT`"), "{why}");

    let made = asking.fleet.json(["token", "create", "reads", "--scope", "read"]).await;
    let reads = http.with(made["token"].as_str());
    assert_eq!(reads.get("/api/v1/questions").await.is(200).json(), json!(open));
    let path = "/api/v1/questions/worker/m/a%2Fb/answer";
    let _denied = reads.post(path, json!({"text": "yes"})).await.problem(403);
    let elsewhere = ["token", "create", "sends", "--scope", "send", "--agent", "another"];
    let made = asking.fleet.json(elsewhere).await;
    let sends = http.with(made["token"].as_str());
    let _denied = sends.post(path, json!({"text": "yes"})).await.problem(403);
    let _number = http.post(path, json!({"text": "1"})).await.problem(400);
    let answered = http.post(path, json!({"text": "yes"})).await.is(200).json();
    assert_eq!((&answered["requestId"], &answered["text"]), (&json!("a/b"), &json!("yes")));
    let _late = http.post(path, json!({"text": "no"})).await.problem(409);
    assert_eq!(asking.response("m").await, (1, "yes".to_owned()));
    assert_eq!(http.get("/api/v1/questions").await.is(200).json(), json!([]));
}
