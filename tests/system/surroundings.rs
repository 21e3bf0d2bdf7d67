//! What surrounds `mozart up` is not its own: what its caller has open, where its log goes, the terminal that it was started from.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use system_tests::chaos::JumpingClock;
use system_tests::harness::{Fleet, Signal, eventually, flaky, kill, run};
use tokio::process::{Child, Command};

/// A command of the fleet's within a line of a shell, where it is `"$@"` and `$0` is a path.
fn in_shell(fleet: &Fleet, line: &str, path: &Path, args: &[&str]) -> Command {
    let inner = fleet.command(args);
    let inner = inner.as_std();
    let mut shell = Command::new("bash");
    shell.args(["-c", line]).arg(path).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(fleet.souls()).kill_on_drop(true);
    shell
}

/// Waits until an agent answers, whoever its supervisor is.
async fn answers(fleet: &Fleet) {
    eventually("it runs", async || {
        let shown = fleet.cli(["wait", "a", "--timeout", "1s"]).await;
        if shown.stderr.is_empty() { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(fleet.ask("a", "say still here").await, "still here");
}

async fn ends(mut child: Child) {
    eventually("it ends", async || {
        let status = child.try_wait().expect("ours");
        if status.is_some() { Ok(()) } else { Err("it runs".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn nothing_that_a_caller_has_open_is_passed_on() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let lock = fleet.souls().join("lock");
    let line = r#"exec 9>"$0"; flock -n 9 || exit 77; "$@""#;
    let souls = fleet.souls().to_string_lossy().into_owned();
    let up = ["up", &souls, "-d", "--wait"];
    let status = in_shell(&fleet, line, &lock, &up).status().await.expect("it runs");
    assert!(status.success(), "{status}");
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
    for process in fleet.processes() {
        let open = fs::read_dir(format!("/proc/{}/fd", process.pid)).expect("it runs");
        let mut open = open.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        assert!(!open.any(|file| file == lock), "{process:?} has the lock");
    }
    let free = Command::new("flock").arg("-n").arg(&lock).arg("true").status().await;
    assert!(free.expect("flock is there").success(), "somebody holds the lock");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_ends_nobody() {
    for line in [r#"exec "$@" 2>/dev/full"#, r#""$@" 2>&1 | head -n 1"#] {
        let fleet = Fleet::new(&[("a", &flaky(""))]);
        let souls = fleet.souls().to_string_lossy().into_owned();
        let up = in_shell(&fleet, line, Path::new("sh"), &["up", &souls]).spawn().expect("it runs");
        answers(&fleet).await;
        // Whatever happens is logged.
        kill(fleet.worker("a"), Signal::KILL);
        fleet.wait_incarnation("a", 2).await;
        answers(&fleet).await;
        let _down = fleet.cli(["down"]).await.ok();
        ends(up).await;
        assert_eq!(fleet.processes(), []);
    }
}

#[tokio::test]
async fn a_terminal_that_goes_away_is_a_request_to_end_but_not_for_nohup() {
    let mut fleet = Fleet::with(&[("a", &flaky("TIMEOUT drain=10s"))]).await;
    let id = fleet.send("a", "sleep 1; say done").await;
    fleet.wait_status(&id, "acknowledged").await;
    let up = fleet.take_up();
    up.signal(Signal::HUP);
    let _ended = up.output().await.ok();
    assert_eq!(fleet.processes(), []);
    fleet.up(&[]).await;
    let row = fleet.show(&id).await.row;
    assert_eq!((row.response.as_deref(), row.attempts), (Some("done"), 1));

    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let souls = fleet.souls().to_string_lossy().into_owned();
    let line = r#"trap '' HUP; exec "$@""#;
    let up = in_shell(&fleet, line, Path::new("sh"), &["up", &souls]).spawn().expect("it runs");
    answers(&fleet).await;
    kill(fleet.up_pid(), Signal::HUP);
    answers(&fleet).await;
    let _down = fleet.cli(["down"]).await.ok();
    ends(up).await;
}

#[tokio::test]
async fn what_workers_say_does_not_steer_the_terminal() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    let words = "say \u{1b}]2owned\u{7}\u{9b}31m";
    let id = fleet.send("a", &format!("{words}; fail \u{1b}[2J")).await;
    fleet.wait_status(&id, "failed").await;
    // Pipes get the bytes.
    assert!(fleet.cli(["dead", "show", &id]).await.ok().stdout.contains("\u{1b}[2J"));
    for args in [
        &["explain", &id][..],
        &["dead", "show", &id],
        &["journal", "show", &id],
        &["send", "a", words, "--wait"],
        &["history", "a"],
    ] {
        // `script` runs a command on a terminal of its own, by $SHELL, which is to read what
        // bash has quoted.
        let line = r#"SHELL="$BASH" script -qec "$(printf '%q ' "$@")" /dev/null"#;
        let shown = in_shell(&fleet, line, Path::new("sh"), args).output().await.expect("it runs");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains(r"\u{1b}"), "{args:?}: {shown:?}");
        for raw in ["\u{1b}]2", "\u{1b}[2J", "\u{7}", "\u{9b}"] {
            assert!(!shown.contains(raw), "{args:?}: {shown:?}");
        }
    }
}

#[tokio::test]
async fn a_data_folder_may_have_any_name_that_is_text() {
    for name in ["e\u{301}t\u{e9}", "no\u{a0}break", "\u{1f469}\u{200d}\u{1f680}", "a \"b\" $c #d"]
    {
        let fleet = Fleet::new(&[("a", &flaky(""))]);
        let home = fleet.souls().join(name);
        let with = [("MOZART_DIR", home.as_os_str())];
        let souls = fleet.souls().to_str().expect("text");
        let _up = fleet.cli_with(["up", souls, "-d", "--wait"], &with).await.ok();
        let said = fleet.cli_with(["send", "a", "say hello", "--wait"], &with).await.ok();
        assert_eq!(said.stdout.trim_end(), "hello", "{name}");
        let _down = fleet.cli_with(["down"], &with).await.ok();
        assert!(home.join("nats/data").is_dir(), "{name}");
    }
}

#[tokio::test]
async fn a_terminal_that_stands_still_holds_up_nobody() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let souls = fleet.souls().to_string_lossy().into_owned();
    // A reader that reads nothing, and far more to say than a pipe takes.
    let line = r#"RUST_LOG=trace "$@" 2>&1 | sleep 1000"#;
    let up = in_shell(&fleet, line, Path::new("sh"), &["up", &souls]).spawn().expect("it runs");
    answers(&fleet).await;
    for round in 0..20 {
        assert_eq!(fleet.ask("a", &format!("say {round}")).await, round.to_string());
    }
    let rows = fleet.cli(["ps"]).await.ok();
    assert!(rows.stdout.contains("running"), "{rows}");
    let _down = fleet.cli(["down"]).await.ok();
    drop(up);
}

#[tokio::test]
async fn a_clock_that_jumps_costs_nobody_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = JumpingClock::prepare(folder.path()).expect("a C compiler");
    let mut fleet = Fleet::new(&[("a", &flaky("")), ("b", &flaky("SECRET KEY"))]).env("KEY", "k");
    for (name, value) in clock.env() {
        fleet = fleet.env(name, &value);
    }
    fleet.all_up().await;
    assert!(clock.is_in(fleet.up_pid()), "a static `mozart` keeps its clock");
    const HOUR: i64 = 3600;
    for seconds in [2 * HOUR, -3 * HOUR, 365 * 24 * HOUR, 0] {
        clock.jump(seconds).expect("written");
        assert_eq!(fleet.ask("a", "say hello").await, "hello", "{seconds} s off");
        // Long enough for what ticks each second, and for heartbeats, to make something of it.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(fleet.ask("b", "say hello").await, "hello", "{seconds} s off");
    }
    for agent in ["a", "b"] {
        let row = fleet.row(agent).await;
        let told = (&row["state"], &row["incarnation"], &row["restartCount"]);
        assert_eq!(told, (&"running".into(), &1.into(), &0.into()), "{row:#}");
    }
    let journal = fleet.json(["journal", "ls"]).await;
    let all = journal.as_array().expect("an array");
    assert_eq!(all.len(), 8);
    assert!(all.iter().all(|message| message["attempts"] == 1), "{journal:#}");
}

#[tokio::test]
async fn a_umask_keeps_nothing_from_its_owner() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let souls = fleet.souls().to_string_lossy().into_owned();
    let up = ["up", &souls, "-d", "--wait"];
    let line = r#"umask 777; "$@""#;
    let output = run(in_shell(&fleet, line, Path::new("mozart"), &up)).await.ok();
    assert_eq!(fleet.ask("a", "say hello").await, "hello", "{output}");
    let mut folders = vec![fleet.home().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable").flatten() {
            let path = entry.path();
            // Whoever removes it meanwhile is its owner.
            let Ok(of) = fs::symlink_metadata(&path) else { continue };
            // What was not packed of the soul's folder is there as a link, which has no mode of its own.
            if of.is_symlink() {
                continue;
            }
            let wanted = if of.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(of.permissions().mode() & 0o700, wanted, "{}", path.display());
            folders.extend(of.is_dir().then_some(path));
        }
    }
    let _down = fleet.cli(["down"]).await.ok();
}

#[tokio::test]
async fn a_working_directory_that_was_removed_is_named_where_it_is_needed() {
    let fleet = Fleet::new(&[("a", &flaky(""))]);
    let souls = fleet.souls().to_string_lossy().into_owned();
    let line = r#"mkdir "$0" && cd "$0" && rmdir "$0" || exit 77; "$@""#;
    let gone = fleet.souls().join("gone");
    let within = async |args: &[&str]| run(in_shell(&fleet, line, &gone, args)).await;
    let _up = within(&["up", &souls, "-d", "--wait"]).await.ok();
    let _said = within(&["send", "a", "say hello", "--wait"]).await.ok();
    for needs in [&["apply", "."][..], &["validate", "x.soul"], &["--dir", "x", "ps"]] {
        within(needs).await.exit(2).says("the working directory was removed");
    }
    let _down = within(&["down"]).await.ok();
    assert_eq!(fleet.processes(), []);
}
