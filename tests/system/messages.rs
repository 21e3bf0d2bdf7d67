//! Messages of every size, and ids that no subject can hold.

use system_tests::harness::{Fleet, Output};

const ECHO: &str = "MODEL test/model\nSOUL You repeat.\nCONCURRENCY 4";

async fn send_stdin(fleet: &Fleet, text: &[u8]) -> Output {
    let mut send = fleet.spawn_cli(["send", "echo", "-", "--wait"]);
    send.feed(text).await;
    send.output().await
}

#[tokio::test]
async fn a_message_may_be_empty_or_large_and_one_too_large_is_refused() {
    let fleet = Fleet::with(&[("echo", ECHO)]).await;
    let empty = fleet.json(["send", "echo", "", "--wait"]).await;
    assert_eq!((&empty["status"], &empty["response"]), (&"completed".into(), &"".into()));
    assert_eq!(send_stdin(&fleet, b"").await.ok().stdout, "\n");

    let large = "mozart! ".repeat(130_000);
    assert_eq!(large.len(), 1_040_000);
    let output = send_stdin(&fleet, large.as_bytes()).await.ok();
    assert!(output.stdout.trim_end_matches('\n') == large, "{} bytes", output.stdout.len());

    // 1 MiB is what a record of the journal may have, its envelope included.
    let before = fleet.json(["journal", "ls"]).await.as_array().map(Vec::len);
    for size in [1 << 20, (1 << 20) + 1, 3 << 20] {
        let output = send_stdin(&fleet, &vec![b'x'; size]).await.exit(9);
        output.says("fit").says("try: send");
    }
    // What JSON escapes counts as it is stored.
    let output = send_stdin(&fleet, "\u{1}".repeat(400_000).as_bytes()).await.exit(9);
    output.says("try: send");
    assert_eq!(fleet.json(["journal", "ls"]).await.as_array().map(Vec::len), before);
    assert_eq!(fleet.ask("echo", "still here").await, "still here");
}

#[tokio::test]
async fn every_text_comes_back_as_it_was_sent() {
    let fleet = Fleet::with(&[("echo", ECHO)]).await;
    for text in [
        "two\nlines\n",
        "\u{0}\u{7f}\u{200b}",
        "日本語 🎼 ́",
        "{\"type\":\"chat_done\"}",
        "-",
        "--wait",
    ] {
        assert_eq!(send_stdin(&fleet, text.as_bytes()).await.ok().stdout, format!("{text}\n"));
    }
    send_stdin(&fleet, b"\xff\xfe").await.exit(2).says("UTF-8");
}

#[tokio::test]
async fn ids_that_no_subject_can_hold_are_refused() {
    let fleet = Fleet::with(&[("echo", ECHO)]).await;
    for bad in ["a.b", "*", "a*", ">", "a b", "", "ä", "a\n"] {
        let output = fleet.cli(["send", "echo", "hello", "--id", bad]).await.exit(2);
        output.says("--id");
        let _refused = fleet.cli(["send", bad, "hello"]).await.exit(2);
        let _refused = fleet.cli(["stop", bad]).await.exit(2);
    }
    for bad in ["*", "a b", "", ">"] {
        let output = fleet.cli(["send", "echo", "hello", "--conversation", bad]).await.exit(2);
        output.says("--conversation");
    }
    for args in [["journal", "show", "a.b"], ["dead", "show", "*"]] {
        let _refused = fleet.cli(args).await.exit(2);
    }
    let _refused = fleet.cli(["attach", "a b"]).await.exit(2);
    assert_eq!(fleet.json(["journal", "ls"]).await, serde_json::json!([]));
    // A conversation may be an address; nobody may be asked who is not there.
    let _sent = fleet.cli(["send", "echo", "hello", "--conversation", "mail:a.b@c-d_1"]).await.ok();
    fleet.cli(["send", "nobody", "hello"]).await.exit(3).says("nobody");
    let _unknown = fleet.cli(["journal", "show", "m1"]).await.exit(3);
    let _unknown = fleet.cli(["attach", "m1"]).await.exit(3);
    let _unknown = fleet.cli(["cancel", "m1"]).await.exit(3);
    let _unknown = fleet.cli(["stop", "nobody"]).await.exit(3);
}

#[tokio::test]
async fn the_same_id_with_the_same_content_is_the_same_message() {
    let fleet = Fleet::with(&[("echo", ECHO)]).await;
    let send = async |text: &str, more: &[&str]| {
        let args = ["send", "echo", text, "--id", "order-7", "--wait"];
        fleet.cli(args.into_iter().chain(more.iter().copied())).await
    };
    for _ in 0..3 {
        assert_eq!(send("hello", &[]).await.ok().stdout, "hello\n");
    }
    send("other", &[]).await.exit(4).says("its text differs");
    send("hello", &["--conversation", "c"]).await.exit(4).says("its conversation differs");
    let rows = fleet.json(["journal", "ls"]).await;
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    assert_eq!(rows[0]["attempts"], 1);
}
