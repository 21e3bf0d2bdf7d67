//! What a person at the command line is told is true and complete.

use std::time::{Duration, Instant};

use system_tests::harness::{Fleet, Output, eventually, flaky, run};
use tokio::process::Command;

/// Runs `mozart` with a terminal as its stdin, stdout and stderr: what it shows is in stdout.
async fn on_a_terminal(fleet: &Fleet, args: &[&str]) -> Output {
    const SPAWN: &str = "import os, pty, sys\n\
        del os.environ['NO_COLOR']\n\
        os.environ['TERM'] = 'xterm'\n\
        sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    through(fleet, args, Command::new("python3"), &["-c", SPAWN]).await
}

/// Runs `mozart` with a stdout that takes nothing.
async fn to_a_full_disk(fleet: &Fleet, args: &[&str]) -> Output {
    through(fleet, args, Command::new("sh"), &["-c", r#"exec "$0" "$@" > /dev/full"#]).await
}

/// Runs `mozart` through another program, whose arguments come first.
async fn through(fleet: &Fleet, args: &[&str], mut command: Command, before: &[&str]) -> Output {
    let inner = fleet.command(args);
    let inner = inner.as_std();
    command.args(before).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(fleet.souls());
    run(command).await
}

#[tokio::test]
async fn explain_tells_what_apply_told_and_what_helps() {
    let fleet = Fleet::with(&[("w", &flaky(""))]).await;
    let said = "its log ends with: ";
    let cause = "can't open file";
    let broken = "WORKER [\"python3\", \"missing.py\"]";

    let soul = fleet.soul("w", &flaky(broken)).to_str().expect("text").to_owned();
    let applied = fleet.cli(["apply", &soul, "--wait"]).await.exit(1).says(said).says(cause);
    let explained = fleet.cli(["explain", "w"]).await.ok().stdout;
    let line = applied.stderr.split(said).nth(1).and_then(|rest| rest.split("; try").next());
    let line = line.expect("a cause");
    assert!(explained.contains(&format!("what was given up ends with: {line}\n")), "{explained}");
    assert!(explained.contains("Correct what is wrong and `mozart apply` it"), "{explained}");
    // Each incarnation has a folder of its own.
    let _replaced = fleet.cli(["replace", "w", "--wait"]).await.exit(1).says(said).says(cause);

    let soul = format!("{broken}\nRESTART always max=2/10m backoff=20ms");
    let soul = fleet.soul("ill", &flaky(&soul)).to_str().expect("text").to_owned();
    let _applied = fleet.cli(["apply", &soul, "--wait"]).await.exit(1).says(said).says(cause);
    let explained = fleet.cli(["explain", "ill"]).await.ok().stdout;
    let quoted = explained.lines().find(|line| line.contains("Its log ends with: "));
    assert!(quoted.is_some_and(|line| line.contains(cause)), "{explained}");
    assert!(explained.contains("correct what is wrong; `mozart start ill`"), "{explained}");
    let _waited = fleet.cli(["wait", "ill"]).await.exit(1).says(said).says(cause);
}

#[tokio::test]
async fn a_wait_that_did_not_see_its_agent_run_does_not_succeed() {
    let never = flaky("TIMEOUT ready=60s drain=100ms\nENV FLAKY_START=never-ready");
    let mut fleet = Fleet::new(&[]);
    fleet.up(&[]).await;
    for (name, command, code, says) in [
        ("stops", "stop", 1, "it was stopped; try: `mozart start stops`"),
        ("goes", "rm", 3, "it was removed"),
    ] {
        let soul = fleet.soul(name, &never).to_str().expect("text").to_owned();
        let mut apply = fleet.spawn_cli(["apply", &soul, "--wait"]);
        let header = apply.line().await;
        assert!(header.is_some_and(|line| line.starts_with("AGENT")));
        let _row = fleet.wait_state(name, "starting").await;
        // It has looked at it at least once.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let _done = fleet.cli([command, name]).await.ok();
        let _told = apply.output().await.exit(code).says(says);
    }
    let soul = fleet.soul("stops", &flaky("")).to_str().expect("text").to_owned();
    let told = fleet.cli(["apply", &soul, "--wait"]).await.ok();
    let _told =
        told.says("stops is stopped, and is not waited for; `mozart start stops` starts it");
}

#[tokio::test]
async fn a_deadline_passes_at_its_time_whether_its_agent_runs_or_not() {
    let fleet = Fleet::with(&[("w", &flaky("CONCURRENCY 1"))]).await;
    let timed = async |deadline: &str| {
        let began = Instant::now();
        let send = ["send", "w", "say late", "--deadline", deadline, "--wait"];
        let told = fleet.cli(send).await.exit(1);
        (told, began.elapsed())
    };
    // While its worker is busy with another message.
    let busy = fleet.send("w", "sleep 20; say done").await;
    fleet.wait_status(&busy, "acknowledged").await;
    let (told, took) = timed("1s").await;
    let _told = told.says("expired; cause: its deadline passed before a worker was free");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let _cancelled = fleet.cli(["cancel", &busy]).await.ok();

    let _stopped = fleet.cli(["stop", "w"]).await.ok();
    let _stopped = fleet.cli(["wait", "w", "--for", "stopped"]).await.ok();
    let kept = fleet.send_with("w", "say kept", &["--deadline", "1h"]).await;
    let (told, took) = timed("1s").await;
    let told = told.says("expired; cause: its deadline passed while w was not running");
    assert!(took < Duration::from_secs(15), "{took:?}: {told}");
    let _started = fleet.cli(["start", "w"]).await.ok();
    assert_eq!(fleet.wait_status(&kept, "completed").await.row.attempts, 1);
    let rows = fleet.json(["journal", "ls", "--status", "expired"]).await;
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
}

#[tokio::test]
async fn a_question_without_an_answer_is_in_the_askers_log() {
    let fleet = Fleet::with(&[("asks", &flaky("ATTEMPTS 1"))]).await;
    let id = fleet.send("asks", "ask nobody anything").await;
    fleet.wait_status(&id, "failed").await;
    eventually("it is logged", async || {
        let logs = fleet.cli(["logs", "asks"]).await.ok().stdout;
        let words = "a question to nobody was not answered: there is no agent `nobody`";
        if logs.contains(words) { Ok(()) } else { Err(logs) }
    })
    .await;
}

#[tokio::test]
async fn arguments_that_are_wrong_do_not_steer_a_terminal() {
    let fleet = Fleet::new(&[]);
    let told = on_a_terminal(&fleet, &["\x1b[31mx\u{9b}32m"]).await.exit(2);
    assert!(told.stdout.contains(r"unrecognized subcommand '\u{1b}[31mx\u{9b}32m'"), "{told}");
    assert!(!told.stdout.contains(['\x1b', '\u{9b}']), "{told}");
    let told = on_a_terminal(&fleet, &["wait", "x\x1b]0;y\x07"]).await.exit(2);
    assert!(!told.stdout.contains(['\x1b', '\x07']), "{told}");
    // What is clap's own may.
    let told = on_a_terminal(&fleet, &["snd"]).await.exit(2);
    assert!(told.stdout.contains("\x1b["), "{told}");
    let told = fleet.cli(["snd", "-o", "json"]).await.exit(2);
    assert_eq!(told.stdout, "");
    let error: serde_json::Value = serde_json::from_str(&told.stderr).expect("JSON");
    assert_eq!(error["error"]["what"], "unrecognized subcommand 'snd'", "{error}");
}

#[tokio::test]
async fn what_was_done_is_said_where_its_result_cannot_be_written() {
    let fleet = Fleet::with(&[("a", &flaky("ATTEMPTS 1")), ("b", &flaky(""))]).await;
    let send = ["send", "a", "fail now", "--id", "order-7"];
    let told = to_a_full_disk(&fleet, &send).await.exit(9);
    let _told = told.says("message order-7 to a is stored and pending, but cannot write to stdout");
    fleet.wait_status("order-7", "failed").await;
    eventually("its letter is there", async || {
        let shown = fleet.cli(["dead", "show", "order-7"]).await;
        if shown.code == 0 { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let told = to_a_full_disk(&fleet, &["dead", "redrive", "order-7"]).await.exit(9);
    let rows = fleet.json(["journal", "ls", "--agent", "a"]).await;
    let copy = rows[1]["messageId"].as_str().expect("the copy").to_owned();
    let _told = told.says(&format!("dead letter order-7 was redriven as {copy}, but cannot write"));
    let told = to_a_full_disk(&fleet, &["stop", "a", "b"]).await.exit(9);
    let _told = told.says("a stop of a, b was requested, but cannot write to stdout");
    for agent in ["a", "b"] {
        let _stopped = fleet.cli(["wait", agent, "--for", "stopped"]).await.ok();
    }
    let _help = to_a_full_disk(&fleet, &["--help"]).await.exit(9).says("cannot write to stdout");
}

#[tokio::test]
async fn an_apply_that_changed_nothing_is_told_apart() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let soul = fleet.souls().join("a.soul").to_str().expect("text").to_owned();
    let applied = async |events: &[&str]| {
        let told = fleet.cli(events).await.ok().stdout;
        let lines = told.lines().filter_map(|line| Some(line.split_once("soul applied")?.1));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let _applied = fleet.cli(["apply", &soul]).await.ok();
    let _applied = fleet.cli(["apply", &soul, "--force"]).await.ok();
    let all = ["", ": unchanged", " with --force"];
    assert_eq!(applied(&["events", "a"]).await, all);
    assert_eq!(applied(&["events"]).await, all);
    // It shows the newest records: how many of the replacement's are among them by now is not said here.
    let explained = applied(&["explain", "a"]).await;
    let explained: Vec<&str> = explained.iter().map(String::as_str).collect();
    assert!(!explained.is_empty() && all.ends_with(&explained), "{explained:?}");
    // What came before is found also where it is not shown.
    let records = fleet.json(["events", "a"]).await;
    let of = |record: &serde_json::Value| record["type"] == "agentApplied";
    let second = records.as_array().expect("a list").iter().filter(|one| of(one)).nth(1);
    let before = (second.expect("two")["seq"].as_u64().expect("a number") + 1).to_string();
    let last = applied(&["events", "a", "--limit", "1", "--before", &before]).await;
    assert_eq!(last, [": unchanged"]);
    let _removed = fleet.cli(["rm", "a"]).await.ok();
    let _applied = fleet.cli(["apply", &soul]).await.ok();
    assert_eq!(applied(&["events", "a"]).await.last().map(String::as_str), Some(""));
}

#[tokio::test]
async fn imported_messages_keep_their_times() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let mut sent = Vec::new();
    for text in ["say one", "say two", "say three"] {
        assert_eq!(fleet.ask("a", text).await, &text[4..]);
    }
    let _stopped = fleet.cli(["stop", "a"]).await.ok();
    let _stopped = fleet.cli(["wait", "a", "--for", "stopped"]).await.ok();
    let own = fleet.json(["history", "a"]).await;
    for turn in own.as_array().expect("a list") {
        let id = turn["messageId"].as_str().expect("an id").to_owned();
        let created = fleet.json(["journal", "show", &id]).await["createdAt"].clone();
        assert_eq!(turn["at"], created);
        sent.push((id, created));
    }
    let file = fleet.souls().join("a.tar").to_str().expect("text").to_owned();
    let _exported = fleet.cli(["export", "a", &file]).await.ok();
    let _imported = fleet.cli(["import", &file, "--name", "b"]).await.ok();
    let there = fleet.json(["history", "b"]).await;
    let there: Vec<_> = there
        .as_array()
        .expect("a list")
        .iter()
        .map(|turn| (turn["messageId"].as_str().unwrap_or("").to_owned(), turn["at"].clone()))
        .collect();
    assert_eq!(there, sent);
}
