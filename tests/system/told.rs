//! Nothing that was asked for is ignored in silence.

use std::fs;

use system_tests::harness::{Fleet, eventually, flaky};

#[tokio::test]
async fn a_changed_worker_is_a_change() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let soul = fleet.souls().join("a.soul").to_str().expect("text").to_owned();
    let apply = async || fleet.cli(["apply", &soul, "--wait"]).await.ok();
    assert!(apply().await.stdout.contains("unchanged"));
    let worker = fleet.souls().join("worker.py");
    let text = fs::read_to_string(&worker).expect("it is there");
    fs::write(&worker, format!("{text}\n# changed\n")).expect("written");
    let diff = fleet.cli(["apply", &soul, "--diff"]).await.ok();
    let files = "a: changed\n  ~ files of the soul's folder\n    changed: worker.py\n";
    assert_eq!(diff.stdout, files, "{diff}");
    assert_eq!(fleet.row("a").await["generation"], 1);
    let applied = apply().await;
    assert!(!applied.stdout.contains("unchanged"), "{applied}");
    assert_eq!(fleet.row("a").await["runningGeneration"], 2);
}

#[tokio::test]
async fn a_secret_of_a_file_is_read_at_each_start() {
    let fleet = Fleet::new(&[("a", &flaky("SECRET TEST_TOLD_SECRET"))]);
    let file = fleet.souls().join("secrets.env");
    fs::write(&file, "TEST_TOLD_SECRET=first\n").expect("written");
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let secrets = file.to_str().expect("text").to_owned();
    let _up = fleet.cli(["up", &souls, "-d", "--wait", "--env-file", &secrets]).await.ok();
    let value = || {
        let environ = fs::read(format!("/proc/{}/environ", fleet.worker("a"))).expect("it runs");
        let mut variables = environ.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        variables.find_map(|one| one.strip_prefix("TEST_TOLD_SECRET=").map(str::to_owned))
    };
    assert_eq!(value().as_deref(), Some("first"));
    fs::write(&file, "TEST_TOLD_SECRET=second\n").expect("written");
    let _done = fleet.cli(["restart", "a"]).await.ok();
    let _row = fleet.wait_incarnation("a", 2).await;
    assert_eq!(value().as_deref(), Some("second"));
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn a_secret_that_only_this_shell_has_is_told_of() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let souls = fleet.souls().to_str().expect("text").to_owned();
    let _soul = fleet.soul("a", &flaky("SECRET TEST_TOLD_SECRET"));
    let with = [("TEST_TOLD_SECRET", "value".as_ref())];
    let up = fleet.cli_with(["up", &souls, "-d"], &with).await.ok();
    assert!(up.stderr.contains("SECRET TEST_TOLD_SECRET: the running mozart"), "{up}");
    assert!(!up.stderr.contains("value"), "{up}");
}

#[tokio::test]
async fn what_makes_no_sense_is_told_of() {
    let fleet = Fleet::with(&[("a", &flaky("ATTEMPTS 1"))]).await;
    fleet.cli(["send", "a", " \n"]).await.ok().says("warning: the message is empty");
    fleet.cli(["logs", "a", "--message", "nobody"]).await.exit(3).says("nobody");
    fleet.cli(["logs", "--previous"]).await.exit(2).says("one agent");
    let _both = fleet.cli(["replace", "a", "--image", "x:1", "--rollback"]).await.exit(2);
    for command in ["history", "conversations", "events"] {
        fleet.cli([command, "nobody"]).await.exit(3).says("nobody");
    }
    for list in [["journal", "ls"], ["dead", "ls"]] {
        let told = fleet.cli(list.iter().chain(&["--agent", "nobody"])).await.ok();
        let _said = told.says("no agent \"nobody\"");
    }
    let id = fleet.send("a", "fail now").await;
    let dead = fleet.wait_status(&id, "failed").await;
    let first = fleet.cli(["dead", "redrive", &id]).await.ok();
    let copy = first.stdout.trim().to_owned();
    fleet.wait_status(&copy, "failed").await;
    let again = fleet.cli(["dead", "redrive", &id]).await.exit(4);
    assert_eq!(again.stdout, "");
    let said = format!(
        "dead letter {id} was redriven before; cause: its copy {copy} failed; try: `mozart dead redrive {copy}`"
    );
    let _said = again.says(&said);
    // All of those that are left: the copy's own.
    let rest = fleet.cli(["dead", "redrive", "--agent", "a"]).await.ok();
    assert_eq!(rest.stdout.lines().count(), 1, "{rest}");
    let _said = rest.says("1 dead letter was redriven before, and not sent again");
    drop(dead);
}

#[tokio::test]
async fn whoever_waits_is_told_why() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let _done = fleet.cli(["stop", "a"]).await.ok();
    let unset = fleet.soul("b", &flaky("SECRET TEST_TOLD_UNSET"));
    let unset = unset.to_str().expect("text");
    let (sent, chatted, applied, waited) = tokio::join!(
        fleet.cli(["send", "a", "hi", "--wait", "--timeout", "7s"]),
        fleet.cli(["chat", "a", "hi", "--timeout", "7s"]),
        fleet.cli(["apply", unset, "--wait", "--timeout", "7s"]),
        fleet.cli(["wait", "a", "--for", "stopped", "--timeout", "7s"]),
    );
    let why = "waiting: a is stopped; `mozart explain ";
    sent.exit(5).says(why).says("is stored and pending");
    chatted.exit(5).says(why);
    applied.exit(5).says("waiting: b is in error (SECRET TEST_TOLD_UNSET is not set");
    assert_eq!(waited.ok().stderr, "", "what does not take long is not told of");
}

#[tokio::test]
async fn what_is_asked_of_a_removed_agent_fails() {
    let fleet = Fleet::with(&[("asks", &flaky("ATTEMPTS 1")), ("busy", &flaky(""))]).await;
    let id = fleet.send("asks", "ask busy sleep 60").await;
    eventually("the question is there", async || {
        let rows = fleet.json(["journal", "ls", "--agent", "busy"]).await;
        if rows.as_array().is_some_and(|rows| !rows.is_empty()) {
            Ok(())
        } else {
            Err(rows.to_string())
        }
    })
    .await;
    let _done = fleet.cli(["rm", "busy"]).await.ok();
    let shown = fleet.wait_status(&id, "failed").await;
    let reason = shown.row.reason.unwrap_or_default();
    assert!(reason.contains("agent `busy` was removed"), "{reason}");
}

#[tokio::test]
async fn logs_of_several_agents_are_told_apart() {
    let says = |name: &str| flaky(&format!("WORKER echo from {name} >&2; exec python3 worker.py"));
    let fleet = Fleet::with(&[("a", &says("a")), ("bob", &says("bob"))]).await;
    let shown = eventually("both are there", async || {
        let shown = fleet.cli(["logs"]).await.ok();
        let both = shown.stdout.contains("from a") && shown.stdout.contains("from bob");
        if both { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await;
    assert!(shown.stdout.contains("a   | from a\n"), "{shown}");
    assert!(shown.stdout.contains("bob | from bob\n"), "{shown}");
    let one = fleet.cli(["logs", "bob"]).await.ok();
    assert!(one.stdout.contains("from bob\n") && !one.stdout.contains("| "), "{one}");
    let none = fleet.cli(["logs", "a", "bob", "--since", "2999-01-01"]).await.ok();
    assert_eq!(none.stdout, "");
}

#[tokio::test]
async fn the_journal_is_followed_as_it_grows() {
    let fleet = Fleet::with(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    assert_eq!(fleet.ask("a", "say before").await, "before");
    let mut follow =
        fleet.spawn_cli(["journal", "ls", "--agent", "a", "--sender", "user", "-f", "-o", "json"]);
    let first = follow.json().await.expect("what was there");
    assert_eq!(first["message"], "say before");
    assert_eq!(fleet.ask("b", "say elsewhere").await, "elsewhere");
    let id = fleet.send("a", "say after").await;
    let seen = follow.json_until(|row| row["status"] == "completed").await;
    let statuses: Vec<_> = seen.iter().map(|row| row["status"].as_str().unwrap_or("")).collect();
    assert_eq!(statuses, ["pending", "completed"], "{seen:?}");
    assert!(seen.iter().all(|row| row["messageId"] == id.as_str()), "{seen:?}");
    let other = fleet.json(["journal", "ls", "--sender", "b"]).await;
    assert_eq!(other, serde_json::json!([]));
}

#[tokio::test]
async fn a_shell_completes_what_the_fleet_has() {
    let fleet = Fleet::with(&[("scribe", &flaky("")), ("scout", &flaky(""))]).await;
    let id = fleet.send("scout", "say hello").await;
    fleet.wait_status(&id, "completed").await;
    let script = fleet.cli(["completions", "bash"]).await.ok();
    assert!(script.stdout.contains("MOZART_COMPLETE"), "{script}");
    // As the script asks: the words, and which of them is being typed.
    let complete = async |words: &[&str]| {
        let at = (words.len() - 1).to_string();
        let with = [("MOZART_COMPLETE", "bash".as_ref()), ("_CLAP_COMPLETE_INDEX", at.as_ref())];
        let all = ["--"].iter().chain(words);
        let told = fleet.cli_with(all, &with).await.ok().stdout;
        let names = told.lines().filter(|line| !line.starts_with('-'));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["mozart", "send", "sc"]).await, ["scout", "scribe"]);
    assert_eq!(complete(&["mozart", "logs", "scribe", "sco"]).await, ["scout"]);
    assert_eq!(complete(&["mozart", "journal", "show", ""]).await, [id]);
    assert_eq!(complete(&["mozart", "rollo"]).await, ["rollout"]);
}
