//! What a worker remembers: what was said in its conversations, wherever it is kept by now.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use system_tests::harness::{Fleet, eventually};

/// Sends what it is told if that is a line of the protocol, and answers with what comes back; anything else it repeats.
const WORKER: &str = r#"
import json, sys

def send(line):
    print(json.dumps(line), flush=True)

send({"type": "ready"})
turn = None
for raw in sys.stdin:
    line = json.loads(raw)
    if line["type"] == "chat":
        turn = line["messageId"]
        if line["message"] == "turn":
            send({"type": "chat_done", "messageId": turn, "response": str(line.get("turn"))})
        elif line["message"].startswith("{"):
            print(line["message"], flush=True)
        else:
            send({"type": "chat_done", "messageId": turn, "response": "you said " + line["message"]})
    elif line["type"] == "history_response":
        send({"type": "chat_done", "messageId": turn, "response": raw.strip()})
    elif line["type"] == "shutdown":
        break
"#;

/// The same by the library of `sdk/python`, as a coroutine.
const LIBRARY: &str = r#"
from mozart_worker import AsyncTurn, Worker

async def answer(turn: AsyncTurn) -> str:
    said = []
    page = await turn.history(limit=2)
    while True:
        said += [past.message for past in page.turns]
        if page.next is None:
            return " ".join(reversed(said)) or "nothing"
        page = await turn.history(limit=2, before=page.next)

Worker(answer).run()
"#;

fn soul(script: &str, more: &str) -> String {
    format!("MODEL test/model\nSOUL You remember.\nWORKER [\"python3\", \"{script}\"]\n{more}\n")
}

async fn fleet(souls: &[(&str, &str)]) -> Fleet {
    let mut fleet = Fleet::new(souls).env("MOZART_HOT", "1s");
    fs::write(fleet.souls().join("raw.py"), WORKER).expect("written");
    fs::write(fleet.souls().join("library.py"), LIBRARY).expect("written");
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/python/mozart_worker.py");
    fs::copy(library, fleet.souls().join("mozart_worker.py")).expect("copied");
    fleet.all_up().await;
    fleet
}

/// Says something in a conversation; the answer.
async fn say(fleet: &Fleet, agent: &str, conversation: &str, text: &str) -> String {
    let args = ["send", agent, text, "--conversation", conversation, "--wait"];
    let answer = fleet.json(args).await;
    answer["response"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// What the worker is told when it asks.
async fn recall(fleet: &Fleet, agent: &str, request: Value) -> Value {
    let text = request.to_string();
    let answer = say(fleet, agent, "about-others", &text).await;
    serde_json::from_str(&answer).expect("JSON")
}

fn request(conversation: &str, more: &Value) -> Value {
    let mut request =
        json!({ "type": "history_request", "requestId": "r", "conversationId": conversation });
    for (name, value) in more.as_object().expect("an object") {
        request[name] = value.clone();
    }
    request
}

fn messages(answer: &Value) -> Vec<&str> {
    let turns = answer["turns"].as_array().unwrap_or_else(|| panic!("{answer}"));
    turns.iter().map(|turn| turn["message"].as_str().expect("a text")).collect()
}

#[tokio::test]
async fn a_worker_remembers_what_was_said_wherever_it_is_kept() {
    let fleet = fleet(&[("raw", &soul("raw.py", "")), ("other", &soul("raw.py", ""))]).await;
    for text in ["one", "two", "three"] {
        assert_eq!(say(&fleet, "raw", "talk", text).await, format!("you said {text}"));
    }
    say(&fleet, "other", "talk", "secret").await;
    assert_eq!(say(&fleet, "other", "talk", "turn").await, "1");
    assert_eq!(say(&fleet, "other", "silence", "turn").await, "0");
    let expected = ["three", "two", "one"];
    let all = recall(&fleet, "raw", request("talk", &json!({}))).await;
    assert_eq!((messages(&all).as_slice(), all.get("next")), (&expected[..], None));
    let last = &all["turns"][0];
    assert_eq!(last["fromId"], "user");
    assert_eq!((&last["kind"], &last["status"]), (&json!("chat"), &json!("completed")));
    assert_eq!(last["response"], "you said three");
    assert!(last["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{last}");
    // A page at a time, also while messages move to the history.
    let first = recall(&fleet, "raw", request("talk", &json!({ "limit": 2 }))).await;
    assert_eq!(messages(&first), expected[..2]);
    let broker = fleet.broker().await;
    let raw = "raw".parse().expect("valid");
    eventually("the messages are archived", async || {
        let hot = broker.count_requests(&raw).await.expect("a count");
        if hot == 0 { Ok(()) } else { Err(format!("{hot} are still in the journal")) }
    })
    .await;
    let rest = request("talk", &json!({ "limit": 2, "before": first["next"] }));
    let rest = recall(&fleet, "raw", rest).await;
    assert_eq!((messages(&rest).as_slice(), rest.get("next")), (&expected[2..], None));
    // Another incarnation.
    let _replaced = fleet.cli(["replace", "raw", "--wait"]).await.ok();
    assert_eq!(messages(&recall(&fleet, "raw", request("talk", &json!({}))).await), expected);
    // It knows how many there were, and counts on.
    for turn in 3..6 {
        assert_eq!(say(&fleet, "raw", "talk", "turn").await, turn.to_string());
    }
    // What nobody has said.
    assert_eq!(messages(&recall(&fleet, "raw", request("silence", &json!({}))).await), [""; 0]);
}

#[tokio::test]
async fn a_request_that_cannot_be_taken_gets_an_error_and_harms_no_turn() {
    let none = soul("raw.py", "MEMORY none");
    let fleet = fleet(&[("raw", &soul("raw.py", "")), ("none", &none)]).await;
    say(&fleet, "none", "talk", "one").await;
    let refused = recall(&fleet, "none", request("talk", &json!({}))).await;
    assert_eq!(
        (messages(&refused).len(), &refused["error"]),
        (0, &json!("the soul has `MEMORY none`"))
    );
    for (more, why) in [
        (json!({ "limit": 0 }), "`limit` must be a number from 1 to 100"),
        (json!({ "limit": "x" }), "`limit` is not a whole number"),
        (json!({ "before": 7 }), "`before` is not the `next` of an earlier answer"),
        (json!({ "before": "x" }), "`before` is not a cursor"),
        (json!({ "before": "5.1.2" }), "`before` is of another conversation"),
        (json!({ "conversationId": "" }), "conversation"),
        (json!({ "conversationId": null }), "without `conversationId`"),
    ] {
        let answer = recall(&fleet, "raw", request("talk", &more)).await;
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{more}: {answer}"));
        assert!(error.contains(why), "{more}: {error}");
    }
}

#[tokio::test]
async fn the_python_library_reads_a_conversation_page_by_page() {
    let fleet = fleet(&[("library", &soul("library.py", ""))]).await;
    let mut expected = "nothing".to_owned();
    for text in ["one", "two", "three", "four"] {
        assert_eq!(say(&fleet, "library", "talk", text).await, expected);
        expected = if expected == "nothing" { text.into() } else { format!("{expected} {text}") };
    }
}

/// As many turns may ask at once as may be open.
#[tokio::test]
async fn many_turns_that_begin_together_all_remember() {
    let fleet = fleet(&[("library", &soul("library.py", "CONCURRENCY 64\nATTEMPTS 1"))]).await;
    let _stopped = fleet.cli(["stop", "library"]).await.ok();
    let mut sent = Vec::new();
    for n in 0..40 {
        let conversation = format!("c{n}");
        let more = ["--conversation", &conversation];
        sent.push(fleet.send_with("library", "hello", &more).await);
    }
    let _started = fleet.cli(["start", "library"]).await.ok();
    for id in sent {
        let row = fleet.wait_status(&id, "completed").await.row;
        assert_eq!((row.response.as_deref(), row.attempts), (Some("nothing"), 1));
    }
}
