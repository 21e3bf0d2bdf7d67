//! Streams of answers: in order, whole, and never of two attempts at once.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::harness::{Fleet, Signal, eventually, flaky, kill};

/// What `count` answers.
fn counted(to: u32) -> String {
    (1..=to).fold(String::new(), |mut text, number| {
        write!(text, "{number} ").expect("a string takes all");
        text
    })
}

fn text(lines: &[Value]) -> String {
    lines.iter().filter_map(|line| line["text"].as_str()).collect()
}

fn seq(line: &Value) -> u64 {
    line["seq"].as_u64().unwrap_or_else(|| panic!("every line has a number: {line}"))
}

fn is_text(line: &Value) -> bool {
    line["type"] == "text"
}

#[tokio::test]
async fn a_follower_is_told_to_forget_a_broken_attempt_and_never_sees_two_mixed() {
    let fleet = Fleet::with(&[("writer", &flaky(""))]).await;
    let mut chat = fleet.spawn_cli(["chat", "writer", "count 25 0.05", "--follow", "-o", "json"]);
    let mut attempts = Vec::new();
    // First the worker dies in the middle of its answer, then the shim with it.
    for victim in [Fleet::worker, Fleet::shim] {
        let mut heard = 0;
        let mut lines = chat
            .json_until(|line| {
                heard += u32::from(is_text(line));
                heard == 5
            })
            .await;
        kill(victim(&fleet, "writer"), Signal::KILL);
        lines.extend(chat.json_until(|line| line["type"] == "reset").await);
        attempts.push(lines);
    }
    attempts.push(chat.json_until(|line| line["type"] == "done").await);

    for (lines, number) in attempts.iter().zip(1..) {
        let text = text(lines);
        assert!(counted(25).starts_with(&text), "attempt {number} shows a part of its own: {text}");
        for line in lines.iter().filter(|line| is_text(line)) {
            assert_eq!(line["attempt"], number, "{line}");
        }
    }
    let all = attempts.concat();
    let rising = all.windows(2).all(|two| seq(&two[0]) <= seq(&two[1]));
    assert!(rising, "{all:#?}");
    let last = attempts.last().expect("three attempts");
    assert_eq!(text(last), counted(25));
    let done = last.last().expect("it ended");
    assert_eq!((&done["status"], &done["response"]), (&"completed".into(), &counted(25).into()));
}

#[tokio::test]
async fn a_turn_in_progress_is_shown_as_one_at_once() {
    let fleet = Fleet::with(&[("writer", &flaky(""))]).await;
    let id = fleet.send("writer", "count 25 0.1").await;
    let sent = Instant::now();
    let shows = async |inbox: u64, inflight: u64| {
        eventually("ps counts it", async || {
            let row = fleet.row("writer").await;
            let counted = (row["inbox"].as_u64(), row["inflight"].as_u64());
            let is_so = counted == (Some(inbox), Some(inflight));
            if is_so { Ok(()) } else { Err(row.to_string()) }
        })
        .await;
    };
    shows(0, 1).await;
    assert!(sent.elapsed() < Duration::from_secs(2), "the answer is being streamed");
    let _done = fleet.wait_status(&id, "completed").await;
    let done = Instant::now();
    shows(0, 0).await;
    assert!(done.elapsed() < Duration::from_secs(2), "nothing is in progress any more");
}

#[tokio::test]
async fn attach_from_a_number_gives_exactly_what_followed_it() {
    let fleet = Fleet::with(&[("writer", &flaky(""))]).await;
    let id = fleet.send("writer", "tool search; count 30 0.03; crash until 2").await;
    // One reader from the beginning, while it is written.
    let live = fleet.spawn_cli(["attach", &id, "-o", "json"]);
    let live = live.output().await.ok().json_lines();
    assert_eq!(
        text(&live[live.iter().rposition(|line| line["type"] == "reset").expect("one reset")..]),
        counted(30)
    );

    let attach = async |from: u64| {
        let args = ["attach", &id, "--from", &from.to_string(), "-o", "json"];
        fleet.cli(args).await.ok().json_lines()
    };
    let whole = attach(0).await;
    assert_eq!(whole, live, "the same afterwards");
    for from in whole.iter().map(seq).step_by(7) {
        let expected: Vec<_> =
            whole.iter().filter(|line| seq(line) > from || line["type"] == "done").collect();
        assert_eq!(attach(from).await.iter().collect::<Vec<_>>(), expected, "from {from}");
    }
    let last = whole.iter().map(seq).max().expect("there are lines");
    let only_done = attach(last).await;
    assert_eq!(only_done.iter().map(|line| &line["type"]).collect::<Vec<_>>(), ["done"]);
}

#[tokio::test]
async fn of_64_answers_in_50_pieces_at_once_nothing_is_lost_or_out_of_order() {
    let fleet = Fleet::with(&[("writer", &flaky("CONCURRENCY 64"))]).await;
    let chats: Vec<_> = (0..64)
        .map(|_| fleet.spawn_cli(["chat", "writer", "count 50 0.02", "-o", "json"]))
        .collect();
    for chat in chats {
        let lines = chat.output().await.ok().json_lines();
        let (done, pieces) = lines.split_last().expect("there are lines");
        assert_eq!(done["response"], counted(50));
        assert_eq!(pieces.len(), 50, "{lines:#?}");
        for (piece, number) in pieces.iter().zip(1..) {
            assert_eq!(piece["text"], format!("{number} "), "{lines:#?}");
        }
        let gapless = pieces.windows(2).all(|two| seq(&two[1]) == seq(&two[0]) + 1);
        assert!(gapless, "{lines:#?}");
    }
}
