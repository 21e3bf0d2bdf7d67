//! The worker libraries, in a fleet and against a scripted peer; and the fleets that `mozart init` writes with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::harness::{Fleet, Output, eventually, run};
use tokio::process::Command;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("it is there")
}

/// The end of the soul of an agent that takes commands: `tests/workers/commands.py`.
const SHORT: &str = "CONCURRENCY 4\nTIMEOUT turn=1500ms drain=1s\nATTEMPTS 3 backoff=50ms\nRESTART always max=0/1m backoff=50ms..100ms\n";

fn soul(script: &str) -> String {
    format!(
        "MODEL test/model\nSOUL It uses the library.\nWORKER [\"python3\", \"{script}\"]\n{SHORT}"
    )
}

/// Says something in a conversation; the answer.
async fn say(fleet: &Fleet, agent: &str, text: &str) -> String {
    let args = ["send", agent, text, "--conversation", "talk", "--wait"];
    let answer = fleet.json(args).await;
    answer["response"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Everything that a worker of a library does, in a fleet with an agent `other`.
async fn check(fleet: &Fleet, agent: &str) {
    for text in ["say a b ü", "say c"] {
        assert_eq!(say(fleet, agent, text).await, text[4..].replace(' ', ""));
    }
    assert_eq!(say(fleet, agent, "ask other say yes").await, "yes");
    assert_eq!(say(fleet, agent, "history").await, "ask other say yes,say c,say a b ü");
    let refused = fleet.cli(["send", agent, "ask nobody x", "--wait"]).await.exit(1);
    let _said = refused.says("nobody");
    let _failed = fleet.cli(["send", agent, "fail for a reason", "--wait"]).await.exit(1);
    let why = fleet.cli(["send", agent, "fail for a reason", "--id", "why", "--wait"]).await;
    let _said = why.exit(1).says("for a reason");
    assert_eq!(fleet.show("why").await.row.attempts, 1, "no other attempt would help");

    let id = fleet.send(agent, "retry").await;
    let row = fleet.wait_status(&id, "completed").await.row;
    assert_eq!((row.response.as_deref(), row.attempts), (Some("at last"), 2));
    let id = fleet.send(agent, "crash").await;
    let row = fleet.wait_status(&id, "completed").await.row;
    let response = row.response.expect("an answer");
    let (first, second) = response.split_once(' ').expect("two numbers");
    assert_ne!(first, second, "the step was stored by the worker that died");
    assert_eq!(row.attempts, 2);

    // Its deadline is 1.5 s.
    assert_eq!(say(fleet, agent, "busy 3").await, "done");
    let worker = fleet.worker(agent);
    let id = fleet.send(agent, "wait").await;
    eventually("it waits", async || {
        let detail = fleet.show(&id).await;
        let is_there = format!("{detail:?}").contains("waiting");
        if is_there { Ok(()) } else { Err(format!("{detail:?}")) }
    })
    .await;
    let _cancelled = fleet.cli(["cancel", &id]).await.ok();
    let _row = fleet.wait_status(&id, "cancelled").await;
    // One that runs into its deadline gives up, too, and is tried as often as any.
    let id = fleet.send(agent, "wait").await;
    let row = fleet.wait_status(&id, "failed").await.row;
    assert_eq!(row.attempts, 3);

    assert_eq!(say(fleet, agent, "print it").await, "printed");
    eventually("what is printed is in the log", async || {
        let log = fleet.cli(["logs", agent]).await.ok().stdout;
        match ["printed it", "by a child it"].iter().find(|words| !log.contains(**words)) {
            Some(missing) => Err(format!("{missing} is missing: {log}")),
            None => Ok(()),
        }
    })
    .await;
    assert_eq!(fleet.worker(agent), worker, "nothing of this has harmed the worker");
}

#[tokio::test]
async fn workers_of_the_python_library_do_all_that_a_worker_can() {
    let souls = [("plain", soul("commands.py")), ("other", soul("commands_async.py"))];
    let souls: Vec<_> = souls.iter().map(|(name, text)| (*name, &**text)).collect();
    let fleet = Fleet::with(&souls).await;
    check(&fleet, "plain").await;
}

#[tokio::test]
async fn coroutines_of_the_python_library_do_all_that_a_worker_can() {
    let souls = [("tasks", soul("commands_async.py")), ("other", soul("commands.py"))];
    let souls: Vec<_> = souls.iter().map(|(name, text)| (*name, &**text)).collect();
    let fleet = Fleet::with(&souls).await;
    check(&fleet, "tasks").await;
}

#[tokio::test]
async fn the_python_library_keeps_to_the_protocol() {
    let tests = checkout().join("sdk/python/tests");
    let mut command = Command::new("python3");
    command.args(["-m", "unittest", "-v", "test_worker"]).current_dir(tests);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let _passed = run(command).await.ok().says("OK");
}

/// `mozart init` into a folder.
async fn init(fleet: &Fleet, dir: &Path, template: &str) -> Value {
    let dir = dir.to_str().expect("a path");
    fleet.json(["init", dir, "--template", template]).await
}

/// Writes a fleet, starts it as its README says, and sends a message.
async fn runs(template: &str, message: [&str; 2], answer: &str) {
    let mut fleet = Fleet::new(&[]);
    let dir = fleet.souls().join("written");
    let written = init(&fleet, &dir, template).await;
    assert!(written["files"].as_array().is_some_and(|files| files.contains(&json!("README.md"))));
    fleet.up(&[]).await;
    let _applied = fleet.cli(["apply", dir.to_str().expect("a path"), "--wait"]).await.ok();
    let [agent, text] = message;
    assert_eq!(fleet.ask(agent, text).await.trim_end(), answer);
}

#[tokio::test]
async fn the_fleet_hello_of_init_runs() {
    runs("hello", ["hello", "Hello"], "Hello").await;
}

#[tokio::test]
async fn the_fleet_python_of_init_runs() {
    runs("python", ["assistant", "Hello"], "You said: Hello").await;
}

#[tokio::test]
async fn the_fleet_team_of_init_runs() {
    let answer = "writer: There is more to tea than meets the eye.\nchecker: fine";
    runs("team", ["editor", "draft tea"], answer).await;
}

/// Builds a folder offline, with the versions of this checkout.
async fn build(dir: &Path) {
    fs::copy(checkout().join("Cargo.lock"), dir.join("Cargo.lock")).expect("copied");
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--offline", "--quiet"]).current_dir(dir);
    // Quick, not fast.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env_remove("CARGO_TARGET_DIR");
    command.env_remove("CARGO_BUILD_TARGET").env_remove("RUSTFLAGS").kill_on_drop(true);
    let built = tokio::time::timeout(Duration::from_secs(150), command.output()).await;
    let built = built.expect("it is built in time").expect("cargo is there");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

#[tokio::test]
async fn the_fleet_rust_of_init_is_built_and_runs_and_its_library_does_all_that_a_worker_can() {
    let mut fleet = Fleet::new(&[("other", &soul("commands.py"))]);
    let dir = fleet.souls().join("written");
    let _written = init(&fleet, &dir, "rust").await;
    build(&dir).await;
    fleet.all_up().await;
    let path = dir.to_str().expect("a path").to_owned();
    let _applied = fleet.cli(["apply", &path, "--wait"]).await.ok();
    let ask = async |text: &str| say(&fleet, "assistant", text).await;
    assert_eq!(ask("Hello").await, "You said: Hello");
    assert_eq!(ask("Again").await, "You said: Again (and before that: Hello)");
    let _gone = fleet.cli(["forget", "assistant", "--conversation", "talk"]).await.ok();

    fs::copy(checkout().join("tests/workers/commands.rs"), dir.join("src/main.rs"))
        .expect("copied");
    build(&dir).await;
    let soul = format!("MODEL m\nSOUL s\nWORKER [\"target/release/assistant\"]\n{SHORT}");
    fs::write(dir.join("assistant.soul"), soul).expect("written");
    let _applied = fleet.cli(["apply", &path, "--wait"]).await.ok();
    check(&fleet, "assistant").await;
}

#[tokio::test]
async fn init_overwrites_nothing_and_says_what_is_wrong() {
    let fleet = Fleet::new(&[]);
    let refused = async |args: &[&str], code: i32, words: &str| -> Output {
        let args = [&["init"], args].concat();
        fleet.cli(args).await.exit(code).says(words)
    };
    let dir = fleet.souls().join("fleet");
    let path = dir.to_str().expect("a path");
    let written = fleet.cli(["init", path]).await.ok();
    assert!(written.stdout.contains(&format!("mozart up {path} --detach --wait")), "{written}");
    let _again = refused(&[path], 4, "hello.soul, README.md exist already").await;
    let _other = refused(&[path, "--template", "python"], 4, "README.md exists already").await;
    assert!(!dir.join("assistant.soul").exists(), "all or nothing");
    let _unknown = refused(&[path, "--template", "go"], 2, "possible values: hello, python").await;
    let file = dir.join("README.md");
    let _file = refused(&[file.to_str().expect("a path")], 4, "it is not a folder").await;
    // Nobody may write there, not even root.
    let _proc = refused(&["/proc/fleet"], 1, "cannot write /proc/fleet/hello.soul").await;
}
