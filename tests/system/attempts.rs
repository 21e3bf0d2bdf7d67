//! What is charged to a message, and what becomes of one that cannot be answered.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use system_tests::harness::{Fleet, Signal, eventually, flaky, kill, message};

#[tokio::test]
async fn an_agent_that_is_down_for_long_burns_no_attempt() {
    let broken = flaky("RESTART always max=0 backoff=20ms..50ms\nENV FLAKY_START=\"exit 3\"");
    let mut fleet = Fleet::new(&[("down", &broken), ("off", &flaky(""))]);
    fleet.up(&[]).await;
    let _off = fleet.cli(["stop", "off"]).await.ok();
    let waits = [fleet.send("down", "say hello").await, fleet.send("off", "say hello").await];
    eventually("it was started ten times in vain", async || {
        let row = fleet.row("down").await;
        if row["incarnation"].as_u64() > Some(10) { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    for id in &waits {
        let detail = fleet.show(id).await;
        assert_eq!((detail.row.status.as_str(), detail.row.attempts), ("pending", 0));
        assert_eq!(detail.history, []);
    }
    let row = fleet.row("down").await;
    assert_eq!((&row["inbox"], &row["lastExit"]), (&1.into(), &"exit code 3".into()));

    let mended = fleet.soul("down", &flaky(""));
    let _applied = fleet.cli(["apply".as_ref(), mended.as_os_str()]).await.ok();
    let _on = fleet.cli(["start", "off"]).await.ok();
    for id in &waits {
        let row = fleet.wait_status(id, "completed").await.row;
        assert_eq!((row.attempts, row.response.as_deref()), (1, Some("hello")));
    }
}

#[tokio::test]
async fn one_poison_among_a_thousand_is_dead_and_the_others_are_answered() {
    let soul = flaky("RESTART always backoff=50ms..200ms");
    let fleet = Fleet::with(&[("worker", &soul)]).await;
    let broker = fleet.broker().await;
    let sent = (0..1000).map(|number| {
        let text = if number == 500 { "crash".to_owned() } else { format!("say {number}") };
        let envelope = message("worker", &format!("m{number}"), &text);
        let broker = broker.clone();
        async move { broker.send(&envelope, Duration::from_secs(30)).await.map(drop) }
    });
    let stored: Result<Vec<()>, _> = join_all(sent).await.into_iter().collect();
    stored.expect("all are on disk");
    let _idle = fleet.cli(["wait", "worker", "--for", "idle", "--timeout", "90s"]).await.ok();

    let rows = fleet.json(["journal", "ls", "--agent", "worker"]).await;
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 1000);
    for row in rows {
        let expected = match row["messageId"].as_str().and_then(|id| id.strip_prefix('m')) {
            Some("500") => json!(["failed", 3, null]),
            Some(number) => json!(["completed", 1, number]),
            None => panic!("an id that nobody sent: {row}"),
        };
        assert_eq!(json!([row["status"], row["attempts"], row["response"]]), expected, "{row}");
    }
    let row = fleet.row("worker").await;
    assert_eq!((&row["state"], &row["incarnation"]), (&"running".into(), &4.into()));
    let dead = fleet.json(["dead", "ls"]).await;
    let dead: Vec<_> =
        dead.as_array().expect("a list").iter().map(|one| one["messageId"].clone()).collect();
    assert_eq!(dead, ["m500"]);
}

#[tokio::test]
async fn a_dead_message_says_why_and_comes_back_with_its_origin() {
    let soul = flaky("ATTEMPTS 2\nRESTART always backoff=50ms..200ms");
    let fleet = Fleet::with(&[("worker", &soul)]).await;
    let text = "crash until 3; say at last";
    let id = fleet.send_with("worker", text, &["--id", "m1", "--conversation", "c1"]).await;
    let row = fleet.wait_status(&id, "failed").await.row;
    assert_eq!(row.attempts, 2);
    let letter = eventually("its letter is there", async || {
        let output = fleet.cli(["dead", "show", &id, "-o", "json"]).await;
        if output.code == 0 { Ok(output.json()) } else { Err(output.to_string()) }
    })
    .await;
    assert_eq!(letter["attempts"].as_array().map(Vec::len), Some(2), "{letter:#}");
    let said = letter.to_string();
    for words in ["exit code 1", "crashing, as told", text] {
        assert!(said.contains(words), "{words} is missing: {letter:#}");
    }

    let _redriven = fleet.cli(["dead", "redrive", &id]).await.ok();
    let origin = async || {
        let rows = fleet.json(["journal", "ls"]).await;
        let rows = rows.as_array().expect("a list").clone();
        rows.into_iter().filter(|row| row["redriveOf"] == *id).collect::<Vec<_>>()
    };
    let [again] = origin().await.try_into().expect("one message repeats it");
    assert_eq!((&again["message"], &again["conversationId"]), (&text.into(), &"c1".into()));
    let new_id = again["messageId"].as_str().expect("it has an id").to_owned();
    assert_ne!(new_id, id);
    let row = fleet.wait_status(&new_id, "completed").await.row;
    assert_eq!(row.response.as_deref(), Some("at last"));
    // The old one keeps its end, and is not repeated twice.
    assert_eq!(fleet.show(&id).await.row.status.as_str(), "failed");
    let _again = fleet.cli(["dead", "redrive", &id]).await;
    assert_eq!(origin().await.len(), 1);
}

#[tokio::test]
async fn too_many_restarts_put_an_agent_aside_until_it_is_started() {
    let soul = flaky("RESTART always max=2/10m backoff=20ms\nENV FLAKY_START=\"exit 3\"");
    let mut fleet = Fleet::new(&[("ill", &soul)]);
    fleet.up(&[]).await;
    let row = eventually("it is quarantined", async || {
        let row = fleet.row("ill").await;
        let is_it = row["reason"].as_str().is_some_and(|reason| reason.contains("quarantined"));
        if is_it { Ok(row) } else { Err(row.to_string()) }
    })
    .await;
    assert_eq!((&row["state"], &row["incarnation"]), (&"error".into(), &3.into()));
    let _released = fleet.cli(["start", "ill"]).await.ok();
    eventually("it is tried again", async || {
        let row = fleet.row("ill").await;
        if row["incarnation"].as_u64() > Some(3) { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_poison_takes_no_neighbour_with_it() {
    let soul = flaky("CONCURRENCY 8\nRESTART always backoff=50ms..200ms");
    let fleet = Fleet::with(&[("worker", &soul)]).await;
    let broker = fleet.broker().await;
    for number in 0..40 {
        let poison = number % 20 == 10;
        let text = if poison { "sleep 0.1; crash".to_owned() } else { "sleep 0.2".to_owned() };
        let envelope = message("worker", &format!("m{number}"), &text);
        let _stored = broker.send(&envelope, Duration::from_secs(10)).await.expect("stored");
    }
    let _idle = fleet.cli(["wait", "worker", "--for", "idle", "--timeout", "90s"]).await.ok();
    let rows = fleet.json(["journal", "ls", "--agent", "worker"]).await;
    let failed = rows.as_array().expect("a list").iter().filter(|row| row["status"] == "failed");
    let failed: Vec<_> = failed.map(|row| row["messageId"].clone()).collect();
    assert_eq!(failed, ["m10", "m30"], "{rows:#}");
}

#[tokio::test]
async fn requests_that_nobody_can_read_end_and_keep_no_successor_from_the_turn_that_was_open() {
    let fleet =
        Fleet::with(&[("worker", &flaky("ATTEMPTS 2\nRESTART always backoff=50ms..200ms"))]).await;
    let broker = fleet.broker().await;
    let store = async |id: &str, body: &'static [u8]| {
        let envelope = message("worker", id, "");
        let subject = broker.subjects().request(&envelope.key(), &envelope.tag());
        let answer = broker.ask(subject, body.into(), Duration::from_secs(10)).await;
        assert!(String::from_utf8_lossy(&answer.expect("an answer")).contains("\"seq\""));
    };
    let first = fleet.send("worker", "say first").await;
    fleet.wait_status(&first, "completed").await;
    store("before", b"garbage").await;
    let open = fleet.send("worker", "sleep 2; say done").await;
    fleet.wait_status(&open, "acknowledged").await;
    store("beside", b"").await;
    kill(fleet.shim("worker"), Signal::KILL);
    store("after", br#"{"kind":"telepathy"}"#).await;
    let row = fleet.wait_status(&open, "completed").await.row;
    assert_eq!((row.attempts, row.response.as_deref()), (2, Some("done")));
    for id in ["before", "beside", "after"] {
        let key = message("worker", id, "").key();
        let final_ = eventually("it is final", async || match broker.final_of(&key).await {
            Ok(Some(stored)) => Ok(stored.value),
            other => Err(format!("{id}: {other:?}")),
        })
        .await;
        let reason = final_.reason.unwrap_or_default();
        assert!(reason.contains("cannot be read"), "{id}: {reason}");
    }
    assert_eq!(fleet.row("worker").await["incarnation"], 2);
}
