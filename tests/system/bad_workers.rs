//! Workers that misbehave: the shim stays small, the agent comes back, nothing is left behind, and no message is lost.

use std::fs;
use std::time::{Duration, Instant};

use common::control::ControlEvent;
use system_tests::harness::{Fleet, eventually, flaky};

/// The most memory that a process ever had, in MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel says");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024
}

#[tokio::test]
async fn a_hundred_megabytes_without_a_newline_fill_no_memory() {
    let fleet = Fleet::with(&[("w", &flaky(""))]).await;
    let shim = fleet.shim("w");
    let before = peak_mib(shim);
    assert_eq!(fleet.ask("w", "blob 100; say still here").await, "still here");
    assert_eq!(fleet.shim("w"), shim);
    let grown = peak_mib(shim) - before;
    assert!(grown < 32, "the shim grew by {grown} MiB");
    assert_eq!(fleet.row("w").await["incarnation"], 1);
}

#[tokio::test]
async fn nonsense_is_logged_and_harms_nobody() {
    let fleet = Fleet::with(&[("w", &flaky(""))]).await;
    for (text, answer) in [
        ("garbage; say a", "a"),
        ("unknown; say b", "b"),
        ("stranger; say c", "c"),
        ("say d; twice", "d"),
        ("nonsense", "\u{fffd}(so much for that "),
    ] {
        assert_eq!(fleet.ask("w", text).await, answer.trim_end_matches('\n'), "{text}");
    }
    // Of an event whose text is no UTF-8, what is.
    assert_eq!(fleet.ask("w", "invalid; say e").await, "\u{fffd}(e");
    // Ending its turn twice ended nobody else's.
    let id = fleet.send("w", "twice; sleep 0.5; say late").await;
    let after = fleet.send("w", "say next").await;
    assert_eq!(fleet.wait_status(&id, "completed").await.row.response.as_deref(), Some(""));
    assert_eq!(fleet.wait_status(&after, "completed").await.row.response.as_deref(), Some("next"));
    assert_eq!(fleet.row("w").await["incarnation"], 1);
    eventually("what was no protocol is in the log", async || {
        let logs = fleet.cli(["logs", "w"]).await.ok().stdout;
        let all =
            ["this is not protocol", "dance", "not UTF-8"].iter().all(|words| logs.contains(words));
        if all { Ok(()) } else { Err(logs) }
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_floods_is_slowed_down_and_loses_nothing() {
    let fleet = Fleet::with(&[("w", &flaky("TIMEOUT turn=60s"))]).await;
    let shim = fleet.shim("w");
    let answer = fleet.ask("w", "flood 20000").await;
    let expected: String = (0..20000).map(|number| format!("{number} ")).collect();
    assert!(answer == expected, "{} bytes instead of {}", answer.len(), expected.len());
    assert!(peak_mib(shim) < 64, "{} MiB", peak_mib(shim));
}

#[tokio::test]
async fn a_worker_that_is_never_ready_is_given_up() {
    let soul = flaky("TIMEOUT ready=1s drain=500ms\nENV FLAKY_START=never-ready");
    let mut fleet = Fleet::new(&[("w", &soul)]);
    fleet.up(&[]).await;
    let row = eventually("the first one is given up", async || {
        let row = fleet.row("w").await;
        if row["restartCount"] == 1 { Ok(row) } else { Err(row.to_string()) }
    })
    .await;
    assert_ne!(row["state"], "running");
    assert!(
        row["reason"].as_str().is_some_and(|reason| reason.contains("not ready within 1s")),
        "{row}"
    );
    fleet.cli(["wait", "w", "--timeout", "2s"]).await.exit(5).says("not ready within 1s");
    let id = fleet.send("w", "say hello").await;
    let mended = fleet.soul("w", &flaky(""));
    let _applied = fleet.cli(["apply".as_ref(), mended.as_os_str()]).await.ok();
    assert_eq!(fleet.wait_status(&id, "completed").await.row.attempts, 1);
    eventually("the ones that were given up are gone", async || {
        let shims = fleet.shims("w");
        if shims.len() == 1 { Ok(()) } else { Err(format!("{shims:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_changed_worker_that_is_never_ready_does_not_replace_the_one_that_runs() {
    let fleet = Fleet::with(&[("w", &flaky(""))]).await;
    let worker = fleet.worker("w");
    let bad = fleet.soul("w", &flaky("TIMEOUT ready=1s drain=500ms\nENV FLAKY_START=never-ready"));
    let _applied = fleet.cli(["apply".as_ref(), bad.as_os_str()]).await.ok();
    eventually("the change is given up", async || {
        let row = fleet.row("w").await;
        let reason = row["reason"].as_str().unwrap_or("");
        if reason.contains("keeps running") { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    assert_eq!(fleet.ask("w", "say hello").await, "hello");
    assert_eq!(fleet.worker("w"), worker);
}

#[tokio::test]
async fn a_worker_that_exits_at_once_is_restarted_ever_more_slowly() {
    let soul = flaky("RESTART always backoff=100ms..10s\nENV FLAKY_START=\"exit 3\"");
    let mut fleet = Fleet::new(&[("w", &soul)]);
    fleet.up(&[]).await;
    let row = eventually("it has crashed four times", async || {
        let row = fleet.row("w").await;
        if row["restartCount"].as_u64() >= Some(4) { Ok(row) } else { Err(row.to_string()) }
    })
    .await;
    assert_eq!(row["lastExit"], "exit code 3");
    let log = fleet.control_of("w").await;
    let at = |wanted: &dyn Fn(&ControlEvent) -> bool| -> Vec<u64> {
        let found = log.iter().filter(|record| wanted(&record.event));
        found.map(|record| record.at.as_millis()).collect()
    };
    let exits = at(&|event| matches!(event, ControlEvent::IncarnationExited { .. }));
    let fired = at(&|event| matches!(event, ControlEvent::TimerFired { .. }));
    let delays: Vec<_> =
        exits.iter().zip(&fired).map(|(exit, fired)| fired - exit).take(3).collect();
    // 100, 200, 400 ms; with a tenth of jitter from the second on.
    for (delay, least) in delays.iter().zip([100, 180, 360]) {
        assert!((least..least + 150).contains(delay), "{delays:?}");
    }
    let explained = fleet.cli(["inspect", "w"]).await.ok().stdout;
    assert!(explained.contains("exit code 3"), "{explained}");
}

#[tokio::test]
async fn a_worker_that_ignores_sigterm_is_ended_after_its_time() {
    let fleet =
        Fleet::with(&[("w", &flaky("TIMEOUT drain=500ms\nENV FLAKY_START=stubborn"))]).await;
    let began = Instant::now();
    let _stopped = fleet.cli(["stop", "w"]).await.ok();
    eventually("nothing of it runs", async || {
        let left = fleet.processes_of("w");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(fleet.wait_state("w", "stopped").await["restartCount"], 0);
}

#[tokio::test]
async fn children_of_a_worker_that_died_are_ended() {
    let fleet = Fleet::with(&[("w", &flaky("ATTEMPTS 1"))]).await;
    let id = fleet.send("w", "fork").await;
    let row = fleet.wait_status(&id, "failed").await.row;
    assert!(row.reason.is_some_and(|reason| reason.contains("exit code 1")));
    let _again = fleet.wait_incarnation("w", 2).await;
    eventually("only the new incarnation runs", async || {
        let left = fleet.processes_of("w");
        let new = left.iter().all(|one| one.var("MOZART_INCARNATION").ends_with("/2"));
        if new && left.len() == 2 { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_turn_without_progress_ends_and_the_agent_goes_on() {
    let soul = flaky("ATTEMPTS 2\nTIMEOUT turn=500ms drain=1s");
    let fleet = Fleet::with(&[("busy", &soul), ("hung", &soul), ("late", &soul)]).await;
    let (busy, hung, late) = tokio::join!(
        // Whoever shows progress has all the time it needs.
        fleet.ask("busy", "busy 2; say done"),
        // This one does not even hear that its turn is cancelled, and is ended.
        fleet.cli(["send", "hung", "hang", "--wait"]),
        // This one does.
        fleet.cli(["send", "late", "sleep 30", "--wait"]),
    );
    assert_eq!(busy, "done");
    hung.exit(1).says("turn timed out after 500ms");
    late.exit(1).says("turn timed out after 500ms");
    for agent in ["hung", "late"] {
        assert_eq!(fleet.ask(agent, "say well").await, "well");
    }
    assert_eq!(fleet.row("hung").await["incarnation"], 3);
    assert_eq!(fleet.row("late").await["incarnation"], 1);
}
