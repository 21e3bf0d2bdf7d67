//! The command line at its edges: `up` and `down` whatever is left of an earlier one, and bad input.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;

use system_tests::harness::{Fleet, Signal, eventually, flaky, kill};

const ECHO: &str = "MODEL test/model\nSOUL You repeat.";

/// Nothing of a fleet runs any more.
async fn all_gone(fleet: &Fleet) {
    eventually("nothing is left", async || {
        let left = fleet.processes();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert!(fleet.note().is_none(), "the note is gone, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn up_detached_takes_what_was_given_and_not_what_looks_like_it() {
    let fleet = Fleet::new(&[("echo", ECHO)]);
    // The folder of the souls is the data folder, too, and is named twice.
    fs::create_dir(fleet.home()).expect("a new folder");
    fs::write(fleet.home().join("echo.soul"), ECHO).expect("written");
    let home = fleet.home().as_os_str();
    let up = [OsStr::new("--dir"), home, "up".as_ref(), home, "-vd".as_ref(), "--wait".as_ref()];
    let up = fleet.cli(up).await.ok();
    assert!(up.stderr.contains("echo generation 1: created"), "{up}");
    let again = fleet.cli([OsStr::new("up"), home, "-d".as_ref()]).await.ok();
    assert!(again.stderr.contains("echo generation 1: unchanged"), "{again}");
    let other = fleet.cli(["--namespace", "other", "up", "-d"]).await.exit(4);
    other.says("its namespace is default, not other");
    let _down = fleet.cli(["down"]).await.ok();
    all_gone(&fleet).await;
    fleet.cli(["down"]).await.ok().says("nothing is running");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_ups_at_once_one_starts_and_all_apply() {
    let fleet = Fleet::new(&[("echo", ECHO)]);
    let up = || fleet.cli([OsStr::new("up"), fleet.souls().as_os_str(), "-d".as_ref()]);
    let (a, b, c, d) = tokio::join!(up(), up(), up(), up());
    for up in [a, b, c, d] {
        let _up = up.ok();
    }
    let answer = fleet.cli(["send", "echo", "one", "--wait"]).await.ok();
    assert_eq!(answer.stdout, "one\n");
    let confs = fleet.processes().into_iter().filter(|one| one.args.iter().any(|arg| arg == "-c"));
    assert_eq!(confs.count(), 1, "one nats-server");
    let _down = fleet.cli(["down"]).await.ok();
    all_gone(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn down_ends_what_a_killed_up_has_left_in_its_own_namespace() {
    let mut fleet = Fleet::new(&[("echo", ECHO)]);
    fleet.up(&["--namespace", "other"]).await;
    let _answered = fleet.cli(["send", "echo", "one", "--wait"]).await.ok();
    fleet.kill_up().await;
    let _down = fleet.cli(["down"]).await.ok();
    all_gone(&fleet).await;

    // That was a stop, and no crash.
    fleet.up(&["--namespace", "other"]).await;
    let _ready = fleet.cli(["wait", "echo"]).await.ok();
    assert_eq!(fleet.json(["ps", "echo"]).await[0]["restartCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn down_needs_neither_note_nor_broker_nor_binaries() {
    let mut fleet = Fleet::with(&[("echo", ECHO)]).await;
    fleet.kill_up().await;
    fs::remove_file(fleet.home().join("mozart.json")).expect("it was there");
    let _down = fleet.cli(["down"]).await.ok();
    all_gone(&fleet).await;

    fleet.up(&[]).await;
    let _ready = fleet.cli(["wait", "echo"]).await.ok();
    fleet.kill_up().await;
    kill(fleet.nats_pid().expect("it runs"), Signal::KILL);
    let env =
        [("MOZART_NATS_SERVER", OsStr::new("/nowhere")), ("MOZART_SHIM", "/nowhere".as_ref())];
    fleet.cli_with(["down"], &env).await.ok().says("warning: not drained: ");
    all_gone(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn down_signals_the_one_that_holds_the_lock_and_no_stranger() {
    let mut fleet = Fleet::with(&[("echo", ECHO)]).await;
    // An old note whose process id is somebody else's by now: this test's.
    let file = fleet.home().join("mozart.json");
    let mut note = fleet.note().expect("it runs");
    note["pid"] = std::process::id().into();
    fs::write(&file, note.to_string()).expect("written");
    let _down = fleet.cli(["down"]).await.ok();
    let up = fleet.take_up().output().await.ok();
    assert!(up.stderr.contains("stopping"), "{up}");
    all_gone(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_reached_by_a_link_is_the_same_folder() {
    let mut fleet = Fleet::with(&[("echo", ECHO)]).await;
    let shim = fleet.shim("echo");
    fleet.kill_up().await;
    let link = fleet.souls().join("link");
    symlink(fleet.home(), &link).expect("made");
    let dir = [("MOZART_DIR", link.as_os_str())];
    let _up = fleet.cli_with(["up", "-d"], &dir).await.ok();
    eventually("the shim is adopted", async || {
        let rows = fleet.cli_with(["ps", "-o", "json"], &dir).await.ok().json();
        if rows[0]["state"] == "running" { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
    assert_eq!(fleet.shim("echo"), shim, "and nothing was started anew");
    let _down = fleet.cli_with(["down"], &dir).await.ok();
    all_gone(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why_with_its_exit_code_in_the_background_too() {
    let fleet = Fleet::new(&[("echo", ECHO)]);
    let missing = OsStr::new("/nowhere");
    for more in [&["up"][..], &["up", "-d"]] {
        let up = fleet.cli_with(more, &[("MOZART_SHIM", missing)]).await.exit(1);
        let up = up.says("no mozart-shim").says("MOZART_SHIM=/nowhere is not a file");
        assert!(fleet.processes().is_empty(), "nothing is left: {up}");
        let up = fleet.cli_with(more, &[("MOZART_NATS_SERVER", missing)]).await.exit(6);
        up.says("MOZART_NATS_SERVER cannot be used");
        let mut given = vec!["--nats", "nats://127.0.0.1:9"];
        given.extend(more);
        fleet.cli(given).await.exit(6).says("Connection refused");
    }
    let file = fleet.souls().join("file");
    fs::write(&file, "").expect("written");
    let up = fleet.cli_with(["up"], &[("MOZART_DIR", file.as_os_str())]).await.exit(1);
    up.says("cannot make the data folder");
    fs::write(fleet.home().join("format"), "99").expect("written");
    fleet.cli(["up"]).await.exit(1).says("this mozart knows up to 1");
    assert!(fleet.processes().is_empty(), "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_larger_than_a_request_is_applied() {
    let mut fleet = Fleet::new(&[]);
    fleet.up(&[]).await;
    let identity = "word ".repeat(2000);
    for number in 0..150 {
        // No node has the label: nothing is started.
        fleet.soul(
            &format!("a{number}"),
            &format!("MODEL test/model\nSOUL {identity}\nREQUIRE moon=full\n"),
        );
    }
    let applied = fleet.json(["apply", "."]).await;
    assert_eq!(applied.as_array().map(Vec::len), Some(150));
    assert_eq!(fleet.json(["ps"]).await.as_array().map(Vec::len), Some(150));
    let error = fleet.cli(["ps", "a0", "a15O"]).await.exit(2);
    error.says("invalid agent name");
    fleet.cli(["ps", "a0", "nobody"]).await.exit(3).says("no agent \"nobody\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_exit_code() {
    let mut fleet = Fleet::with(&[("echo", ECHO)]).await;
    let cases: &[(&[&str], i32)] = &[
        (&["send", "a.b", "x"], 2),
        (&["send", "*", "x"], 2),
        (&["send", "a b", "x"], 2),
        (&["send", "echo", "x", "--id", "a.b"], 2),
        (&["send", "echo", "x", "--id", ">"], 2),
        (&["send", "echo", "x", "--conversation", "a b"], 2),
        (&["send", "echo", "x", "--timeout", "1 parsec"], 2),
        (&["send", "nobody", "x"], 3),
        (&["chat", "nobody", "x"], 3),
        (&["attach", "nothing"], 3),
        (&["cancel", "nothing"], 3),
        (&["journal", "show", "nothing"], 3),
        (&["dead", "show", "nothing"], 3),
        (&["dead", "redrive", "nothing"], 3),
        (&["dead", "redrive"], 2),
        (&["stop", "nobody"], 3),
        (&["wait", "nobody"], 3),
        (&["logs", "nobody"], 3),
        (&["inspect", "nobody"], 3),
        (&["explain", "nobody"], 3),
        (&["apply", "/nowhere"], 2),
        (&["completions", "tcsh"], 2),
    ];
    for (args, code) in cases {
        let refused = fleet.cli(*args).await.exit(*code);
        assert!(refused.stdout.is_empty(), "{refused}");
        assert!(refused.stderr.starts_with("error: "), "{refused}");
    }
    let _sent = fleet.cli(["send", "echo", "x", "--id", "one"]).await.ok();
    let _same = fleet.cli(["send", "echo", "x", "--id", "one"]).await.ok();
    fleet.cli(["send", "echo", "y", "--id", "one"]).await.exit(4).says("its text differs");

    let mut large = fleet.spawn_cli(["send", "echo", "-"]);
    large.feed(&vec![b'x'; (1 << 20) + 1]).await;
    large.output().await.exit(9).says("too large");
    let mut binary = fleet.spawn_cli(["send", "echo", "-"]);
    binary.feed(b"\xff\xfe").await;
    binary.output().await.exit(2).says("not UTF-8");
    let empty = fleet.json(["send", "echo", "", "--wait"]).await;
    assert_eq!((&empty["status"], &empty["response"]), (&"completed".into(), &"".into()));
    let mut prompt = fleet.spawn_cli(["chat", "echo"]);
    prompt.feed(b"one\n\ntwo").await;
    assert_eq!(prompt.output().await.ok().stdout, "one\ntwo\n");
    drop(fleet.take_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letter_of_a_message_that_has_just_failed_is_there() {
    let soul = format!("{}\nATTEMPTS 1", flaky(""));
    let fleet = Fleet::with(&[("flaky", &soul)]).await;
    for id in ["one", "two", "three"] {
        let failed = fleet.cli(["send", "flaky", "exit 3", "--id", id, "--wait"]).await.exit(1);
        failed.says("mozart dead show");
        let letter = fleet.json(["dead", "show", id]).await;
        assert_eq!(letter["messageId"], id);
    }
    let gone = fleet.cli(["dead", "drop", "one"]).await.ok();
    assert_eq!(gone.stdout, "one\n");
    fleet.cli(["dead", "show", "flaky/one"]).await.exit(3).says("no dead letter one");
}
