//! What has left the journal is as before to everybody who asks for it.

use std::fs;

use serde_json::Value;
use system_tests::harness::{Fleet, eventually};

use crate::forget::is_in;

const ECHO: &str = "MODEL test/model\nSOUL You repeat.\nCONCURRENCY 4";

/// A fleet that archives what is a second old.
async fn fleet(souls: &[(&str, &str)]) -> Fleet {
    let mut fleet = Fleet::new(souls).env("MOZART_HOT", "1s");
    fleet.all_up().await;
    fleet
}

/// Waits until a message has left the journal.
async fn archived(fleet: &Fleet, id: &str) {
    let broker = fleet.broker().await;
    let id = common::MessageId::new(id).expect("an id");
    eventually("the message is archived", async || {
        let cold = broker.archived(&id).await.expect("an answer");
        let Some(archived) = cold.first() else { return Err("nothing is".to_owned()) };
        let hot = broker.count_requests(&archived.key.agent).await.expect("a count");
        if hot == 0 { Ok(()) } else { Err(format!("{hot} are still in the journal")) }
    })
    .await;
}

fn ids(rows: &Value) -> Vec<&str> {
    let rows = rows.as_array().expect("an array");
    rows.iter().map(|row| row["messageId"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn nobody_sees_whether_a_message_has_left_the_journal() {
    let fleet = fleet(&[("echo", ECHO)]).await;
    let mut sent = Vec::new();
    for text in ["one", "two", "three"] {
        let answer = fleet.json(["send", "echo", text, "--conversation", "talk", "--wait"]).await;
        sent.push(answer["messageId"].as_str().expect("an id").to_owned());
    }
    let show = async || fleet.json(["journal", "show", &sent[1]]).await;
    let list = async || fleet.json(["journal", "ls", "--agent", "echo"]).await;
    let (shown, listed) = (show().await, list().await);
    for id in &sent {
        archived(&fleet, id).await;
    }
    assert_eq!(list().await, listed);
    assert_eq!(ids(&listed), sent);
    let (before, after) = (&shown, &show().await);
    for field in ["messageId", "status", "response", "attempts", "createdAt", "updatedAt"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let told = fleet.cli(["explain", &sent[1]]).await.ok().stdout;
    assert!(told.contains("completed") || told.contains("answered"), "{told}");
    let streamed = fleet.cli(["attach", &sent[1]]).await.ok().stdout;
    assert_eq!(streamed.trim(), "two");

    // By the beginning of its id, as long as it is the only one.
    let unique = &sent[1][..sent[1].len() - 1];
    assert_eq!(fleet.json(["journal", "show", unique]).await["messageId"], sent[1].as_str());
    fleet.cli(["journal", "show", "ffffffff"]).await.exit(3).says("neither");
    fleet.cli(["journal", "show", &sent[1][..8]]).await.exit(3).says("begin");

    // The count is of all there is, and the same id is the same message for ever.
    let row = &fleet.json(["ps"]).await[0];
    assert_eq!((&row["messageCount"], &row["inbox"]), (&3.into(), &0.into()));
    let again = ["send", "echo", "two", "--conversation", "talk", "--id", &sent[1], "--wait"];
    assert_eq!(fleet.json(again).await["response"], "two");
    assert_eq!(fleet.json(["journal", "ls"]).await.as_array().map(Vec::len), Some(3));
    let other = ["send", "echo", "other", "--id", &sent[1]];
    fleet.cli(other).await.exit(4).says("another message");
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_a_conversation_as_a_chat() {
    let fleet = fleet(&[("echo", ECHO)]).await;
    let mut sent = Vec::new();
    for n in 0..7 {
        let talk = if n % 3 == 0 { "one" } else { "two" };
        let text = format!("text {n}");
        let answer = fleet.json(["send", "echo", &text, "--conversation", talk, "--wait"]).await;
        sent.push(answer["messageId"].as_str().expect("an id").to_owned());
        if n == 3 {
            archived(&fleet, &sent[3]).await;
        }
    }
    let mut pages = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let mut args = vec!["-o", "json", "journal", "ls", "--limit", "3"];
        args.extend(before.iter().flat_map(|place| ["--before", place.as_str()]));
        let output = fleet.cli(args).await.ok();
        let rows: Value = serde_json::from_str(&output.stdout).expect("JSON");
        pages.splice(0..0, ids(&rows).into_iter().map(str::to_owned));
        let place = output.stderr.lines().find_map(|line| line.split("--before ").nth(1));
        match place {
            Some(place) => before = Some(place.to_owned()),
            None => break,
        }
    }
    assert_eq!(pages, sent);
    fleet.cli(["journal", "ls", "--before", "1.2"]).await.exit(2).says("another list");
    let page = fleet.cli(["journal", "ls", "--limit", "1"]).await.ok();
    let place = page.stderr.lines().find_map(|line| line.split("--before ").nth(1));
    let place = place.expect("there are more");
    for other in [["--agent", "echo"], ["--status", "open"]] {
        let mixed = ["journal", "ls", "--before", place, other[0], other[1]];
        fleet.cli(mixed).await.exit(2).says("another list");
    }
    let other = fleet.cli(["history", "echo", "--before", place]).await.exit(2);
    other.says("another list");
    fleet.cli(["journal", "ls", "--before", "x"]).await.exit(2).says("--before");
    fleet.cli(["journal", "ls", "--limit", "0"]).await.exit(2).says("--limit");
    fleet.cli(["journal", "ls", "--conversation", "one"]).await.exit(2).says("--agent");

    let chat = fleet.cli(["history", "echo", "--conversation", "one"]).await.ok().stdout;
    let lines: Vec<_> = chat.lines().filter(|line| line.contains(": ")).collect();
    let expected = ["0", "3", "6"].map(|n| [format!("user: text {n}"), format!("echo: text {n}")]);
    assert_eq!(lines, expected.concat());
    let last = fleet.json(["history", "echo", "--conversation", "two", "--limit", "1"]).await;
    assert_eq!(ids(&last), [sent[5].as_str()]);
    let talks = fleet.json(["conversations", "echo"]).await;
    let talks: Vec<_> = talks.as_array().expect("an array").iter().collect();
    let named = |talk: &Value| (talk["conversationId"].to_string(), talk["turns"].as_u64());
    let named: Vec<_> = talks.into_iter().map(named).collect();
    assert_eq!(named, [("\"one\"".to_owned(), Some(3)), ("\"two\"".to_owned(), Some(4))]);
}

#[tokio::test]
async fn what_has_left_the_journal_travels_with_its_agent() {
    let from = fleet(&[("echo", ECHO)]).await;
    let asked = from.json(["send", "echo", "hello", "--wait"]).await;
    let id = asked["messageId"].as_str().expect("an id").to_owned();
    archived(&from, &id).await;
    let file = from.souls().join("echo.mozart");
    let path = file.to_str().expect("text");
    let _done = from.cli(["stop", "echo"]).await.ok();
    let _done = from.cli(["wait", "echo", "--for", "stopped"]).await.ok();
    let _done = from.cli(["export", "echo", path]).await.ok();
    assert!(fs::metadata(&file).expect("it is there").len() > 0);

    let to = fleet(&[("other", ECHO)]).await;
    let _done = to.cli(["import", path]).await.ok();
    let shown = to.json(["journal", "show", &id]).await;
    assert_eq!((&shown["status"], &shown["response"]), (&"completed".into(), &"hello".into()));
    // Imported again, it is there already: also after it has left the journal here.
    archived(&to, &id).await;
    let _done = to.cli(["import", path]).await.ok();
    assert_eq!(
        to.json(["journal", "ls", "--agent", "echo"]).await.as_array().map(Vec::len),
        Some(1)
    );
}

#[tokio::test]
async fn an_agent_that_keeps_nothing_leaves_no_text() {
    let mute = "MODEL test/model\nSOUL You repeat.\nKEEP history=0";
    let fleet = fleet(&[("echo", ECHO), ("mute", mute)]).await;
    for agent in ["echo", "mute"] {
        let text = format!("the words for {agent}");
        assert_eq!(fleet.ask(agent, &text).await, text);
    }
    let data = fleet.home().join("nats/data");
    assert!(is_in(&data, "the words for mute"));
    eventually("the text is gone", async || {
        if is_in(&data, "the words for mute") { Err("it is in a file".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(is_in(&data, "the words for echo"));
    let rows = fleet.json(["journal", "ls", "--agent", "mute"]).await;
    assert_eq!(rows, serde_json::json!([]));
}
