//! A worker, and a scripted peer that is its shim.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::link::Link;
use crate::{Answer, Asking, Error, Questioning, Turn, serve};

struct Peer {
    to: Option<PipeWriter>,
    from: BufReader<PipeReader>,
    worker: Option<JoinHandle<std::io::Result<()>>>,
}

impl Peer {
    fn new(answer: impl Fn(&Turn) -> Answer + Send + Sync + 'static) -> Self {
        let (lines, to) = std::io::pipe().expect("a pipe");
        let (from, output) = std::io::pipe().expect("a pipe");
        let work = move || {
            let link = Link::new(output, || panic!("the peer reads"));
            serve(BufReader::new(lines), &link, answer)
        };
        let worker = Some(std::thread::spawn(work));
        let mut peer = Self { to: Some(to), from: BufReader::new(from), worker };
        let agent = json!({"name": "w", "model": "m", "identity": "i", "skills": ["/s"]});
        peer.send(json!({"type": "init", "agent": agent, "incarnation": 7}));
        peer.expect(json!({"type": "ready"}));
        peer
    }

    fn send(&mut self, line: Value) {
        let to = self.to.as_mut().expect("it is open");
        to.write_all(format!("{line}\n").as_bytes()).expect("the worker reads");
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        let _bytes = self.from.read_line(&mut line).expect("text");
        serde_json::from_str(&line).expect("JSON")
    }

    fn expect(&mut self, wanted: Value) {
        assert_eq!(self.next(), wanted);
    }

    /// Begins a turn, which is acknowledged.
    fn chat(&mut self, id: &str, text: &str, more: Value) {
        let mut line = json!({
            "type": "chat", "messageId": id, "fromId": "user", "message": text, "conversationId": "talk",
        });
        for (name, value) in more.as_object().expect("an object") {
            line[name] = value.clone();
        }
        self.send(line);
        self.expect(json!({"type": "ack", "messageId": id}));
    }

    fn done(&mut self, id: &str, response: &str) {
        self.expect(json!({"type": "chat_done", "messageId": id, "response": response}));
    }

    fn failed(&mut self, id: &str, error: &str, retryable: bool) {
        self.expect(
            json!({"type": "error", "messageId": id, "error": error, "retryable": retryable}),
        );
    }

    /// What the worker has ended with.
    fn ended(mut self) -> std::io::Result<()> {
        self.worker.take().expect("it runs").join().expect("no panic")
    }
}

fn done(text: impl ToString) -> Answer {
    Ok(Some(text.to_string()))
}

#[test]
fn a_returned_text_is_the_response_and_otherwise_what_was_said() {
    let mut peer = Peer::new(|turn| match &*turn.text {
        "say" => {
            turn.say("a")?;
            turn.say("ü")?;
            Ok(None)
        }
        _ => done("yes"),
    });
    peer.chat("m", "return", json!({}));
    peer.done("m", "yes");
    let said = |text: &str| json!({"type": "event", "messageId": "m", "event": {"type": "text", "text": text}});
    peer.chat("m", "say", json!({}));
    peer.expect(said("a"));
    peer.expect(said("ü"));
    peer.expect(json!({"type": "chat_done", "messageId": "m"}));
    peer.send(json!({"type": "route", "messageId": "m", "requestId": "m", "fromId": "o", "message": "say"}));
    peer.expect(json!({"type": "ack", "messageId": "m"}));
    peer.expect(said("a"));
    peer.expect(said("ü"));
    peer.expect(
        json!({"type": "route_done", "messageId": "m", "requestId": "m", "response": "aü"}),
    );
}

#[test]
fn a_turn_knows_its_message_and_its_agent() {
    let mut peer = Peer::new(|turn| {
        turn.progress()?;
        let (number, incarnation) = (turn.number, turn.incarnation);
        let at = turn.scheduled_for.as_deref();
        done(format!(
            "{} {number:?} {at:?} {:?} {incarnation} {:?}",
            turn.sender,
            turn.steps(),
            turn.agent.more
        ))
    });
    let steps = json!([{"key": "a", "result": null}]);
    let more = json!({"turn": 3, "scheduledFor": "2026", "steps": steps, "unknown": 1});
    peer.send(json!({"type": "something_new", "field": 1}));
    peer.chat("m", "x", more);
    peer.expect(json!({"type": "progress", "messageId": "m"}));
    let wanted = "user Some(3) Some(\"2026\") {\"a\": Null} 7 {\"skills\": Array [String(\"/s\")]}";
    peer.done("m", wanted);
}

#[test]
fn agents_and_people_are_asked_and_answer_or_do_not() {
    let mut peer = Peer::new(|turn| match &*turn.text {
        "agent" => {
            let how = Asking { timeout: Some(Duration::from_millis(1500)), key: None };
            done(turn.ask("other", "how?", &how)?)
        }
        "person" => {
            let how = Questioning {
                options: &["yes", "no"],
                timeout: Some(Duration::from_secs(60)),
                default: Some("no"),
                key: Some("pay"),
            };
            done(format!("{:?}", turn.question("Pay?", &how)?))
        }
        _ => done(turn.question("Pay?", &Questioning::default())?.text),
    });
    peer.chat("m", "agent", json!({}));
    let asked = json!({
        "type": "route_request", "messageId": "m", "requestId": "m.1", "toId": "other", "message": "how?", "timeoutMs": 1500,
    });
    peer.expect(asked.clone());
    peer.send(
        json!({"type": "route_response", "requestId": "m.9", "response": "of somebody else"}),
    );
    peer.send(json!({"type": "route_response", "requestId": "m.1", "response": "so"}));
    peer.done("m", "so");
    peer.chat("m", "agent", json!({}));
    peer.expect(asked);
    peer.send(json!({"type": "route_response", "requestId": "m.1", "response": "", "error": "no such agent"}));
    peer.failed("m", "no such agent", false);
    for (more, is_default) in [(json!({"isDefault": true}), true), (json!({}), false)] {
        peer.chat("m", "person", json!({}));
        peer.expect(json!({
            "type": "question", "messageId": "m", "requestId": "m.pay", "text": "Pay?", "options": ["yes", "no"],
            "timeoutMs": 60_000, "default": "no",
        }));
        let mut answer = json!({"type": "answer", "requestId": "m.pay", "text": "no"});
        answer.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("one"));
        peer.send(answer);
        peer.done("m", &format!("Answered {{ text: \"no\", is_default: {is_default} }}"));
    }
    // The value of a SECRET is masked in its key.
    peer.chat("m", "anybody", json!({}));
    let question =
        json!({"type": "question", "messageId": "m", "requestId": "m.1", "text": "Pay?"});
    peer.expect(question.clone());
    for (of, text) in [("other", "of somebody else"), ("m", "masked")] {
        peer.send(
            json!({"type": "answer", "messageId": of, "requestId": "m.[SECRET KEY]", "text": text}),
        );
    }
    peer.done("m", "masked");
    peer.chat("m", "anybody", json!({}));
    peer.expect(question);
    peer.send(json!({"type": "answer", "requestId": "m.1", "error": "nobody answered in time"}));
    peer.failed("m", "nobody answered in time", false);
}

#[test]
fn the_history_is_read_a_page_at_a_time() {
    let mut peer = Peer::new(|turn| {
        let page = turn.history(2, Some("c"))?;
        let responses: Vec<_> = page.turns.iter().map(|past| past.response.clone()).collect();
        done(format!("{responses:?} {:?}", page.next))
    });
    let asked = |number| {
        json!({
            "type": "history_request", "messageId": "m", "requestId": format!("m.h{number}"), "conversationId": "talk",
            "before": "c", "limit": 2,
        })
    };
    peer.chat("m", "", json!({}));
    peer.expect(asked(1));
    let turns = json!([{
        "messageId": "p", "fromId": "user", "kind": "chat", "message": "x", "response": "y", "status": "completed", "at": "z",
    }]);
    peer.send(
        json!({"type": "history_response", "requestId": "m.h1", "turns": turns, "next": "d"}),
    );
    peer.done("m", "[Some(\"y\")] Some(\"d\")");
    peer.chat("m", "", json!({}));
    peer.expect(asked(2));
    peer.send(json!({"type": "history_response", "requestId": "m.h2", "turns": [], "error": "MEMORY none"}));
    peer.failed("m", "MEMORY none", false);
    peer.send(
        json!({"type": "route", "messageId": "r", "requestId": "r", "fromId": "o", "message": ""}),
    );
    peer.expect(json!({"type": "ack", "messageId": "r"}));
    peer.failed("r", "a question from another agent is in no conversation: name one", false);
}

#[test]
fn a_step_runs_once_and_its_result_is_what_is_stored() {
    let mut peer = Peer::new(|turn| {
        let step = || turn.step("a", || Ok((turn.text == "1").then_some(1_u64)));
        step()?;
        done(format!("{:?} {:?}", step()?, turn.steps()))
    });
    let stored = |more: Value| {
        let mut line = json!({"type": "step_stored", "messageId": "m", "key": "a"});
        line.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("one"));
        line
    };
    let step =
        |result: Value| json!({"type": "step", "messageId": "m", "key": "a", "result": result});
    for (text, result, reply, wanted) in [
        ("1", json!(1), json!({}), "Some(1) {\"a\": Number(1)}"),
        ("0", json!(null), json!({}), "None {\"a\": Null}"),
        // Another incarnation was first, here with a result, there with none; then this turn itself.
        ("1", json!(1), json!({"duplicate": true, "result": 8}), "Some(8) {\"a\": Number(8)}"),
        ("1", json!(1), json!({"duplicate": true, "result": null}), "None {\"a\": Null}"),
        ("1", json!(1), json!({"duplicate": true}), "Some(1) {\"a\": Number(1)}"),
        // The value of a SECRET is masked in its key.
        ("1", json!(1), json!({"key": "[SECRET KEY]"}), "Some(1) {\"a\": Number(1)}"),
    ] {
        peer.chat("m", text, json!({}));
        peer.expect(step(result));
        peer.send(stored(reply));
        peer.done("m", wanted);
    }
    // What is there is not run.
    peer.chat("m", "1", json!({"steps": [{"key": "a", "result": 7}]}));
    peer.done("m", "Some(7) {\"a\": Number(7)}");
    peer.chat("m", "1", json!({}));
    peer.expect(step(json!(1)));
    peer.send(stored(json!({"error": "the disk is full"})));
    peer.failed("m", "the disk is full", false);
    peer.chat("m", "1", json!({}));
    peer.expect(step(json!(1)));
    peer.send(stored(json!({"error": "no room", "retryable": true})));
    peer.failed("m", "no room", true);
}

#[test]
fn a_line_begins_with_what_it_is() {
    let mut peer = Peer::new(|_| done("x".repeat(100)));
    peer.chat("m", "", json!({}));
    let mut line = String::new();
    let _bytes = peer.from.read_line(&mut line).expect("text");
    assert!(line.starts_with(r#"{"type":"chat_done","messageId":"m","response":"xx"#), "{line}");
}

#[test]
fn a_step_that_cannot_be_stored_fails_and_two_at_once_run_once() {
    let mut peer = Peer::new(|turn| match &*turn.text {
        "name" => done(turn.step(&"x".repeat(257), || Ok(1))?),
        // It would not be what it was.
        "nan" => done(turn.step("a", || Ok(f64::NAN))?),
        _ => std::thread::scope(|scope| {
            let step = |value: u64| turn.step("a", move || Ok(value));
            let both = [scope.spawn(move || step(1)), scope.spawn(move || step(2))];
            let [one, other] = both.map(|thread| thread.join().expect("no panic"));
            done(one? == other?)
        }),
    });
    peer.chat("m", "name", json!({}));
    let said = peer.next();
    assert!(said["error"].as_str().is_some_and(|why| why.contains("1 to 256 bytes")), "{said}");
    peer.chat("m", "nan", json!({}));
    assert_eq!(peer.next()["type"], "error");
    peer.chat("m", "both", json!({}));
    assert_eq!(peer.next()["type"], "step");
    peer.send(json!({"type": "step_stored", "messageId": "m", "key": "a"}));
    peer.done("m", "true");
}

#[test]
fn whatever_goes_wrong_ends_the_turn() {
    let mut peer = Peer::new(|turn| match &*turn.text {
        "panic" => panic!("at the {}", "disco"),
        "retry" => Err(Error::retry("later")),
        "after" => Err(Error::retry_after("later", Duration::from_millis(1500))),
        text => done(text.parse::<u8>()?),
    });
    peer.chat("m", "panic", json!({}));
    peer.failed("m", "the worker panicked: at the disco", false);
    peer.chat("m", "retry", json!({}));
    peer.failed("m", "later", true);
    peer.chat("m", "after", json!({}));
    peer.expect(json!({
        "type": "error", "messageId": "m", "error": "later", "retryable": true, "retryAfterMs": 1500,
    }));
    peer.chat("m", "256", json!({}));
    peer.failed("m", "number too large to fit in target type", false);
    peer.chat("m", "255", json!({}));
    peer.done("m", "255");
}

fn waits(turn: &Turn) -> Answer {
    match &*turn.text {
        "ask" => done(turn.ask("other", "x", &Asking::default())?),
        "question" => done(turn.question("x", &Questioning::default())?.text),
        "history" => done(turn.history(1, None)?.turns.len()),
        "step" => done(turn.step("a", || Ok(1))?),
        "sleep" => {
            turn.progress()?;
            turn.sleep(Duration::from_secs(3600))?;
            done("slept")
        }
        "moment" => {
            turn.progress()?;
            turn.sleep(Duration::from_millis(300))?;
            done("whole")
        }
        _ => {
            turn.progress()?;
            while !turn.is_cancelled() {
                std::thread::yield_now();
            }
            done("too late")
        }
    }
}

#[test]
fn a_cancelled_turn_ends_whatever_it_waits_for() {
    let mut peer = Peer::new(waits);
    for what in ["ask", "question", "history", "step", "sleep", "spin"] {
        peer.chat("m", what, json!({}));
        let _asked = peer.next();
        peer.send(json!({"type": "cancel", "messageId": "m"}));
        peer.failed("m", "cancelled", true);
    }
    // What comes late changes nothing.
    peer.send(json!({"type": "route_response", "requestId": "m.1", "response": "late"}));
    peer.send(json!({"type": "step_stored", "messageId": "m", "key": "a"}));
    peer.send(json!({"type": "cancel", "messageId": "m"}));
    peer.chat("n", "moment", json!({}));
    peer.expect(json!({"type": "progress", "messageId": "n"}));
    peer.done("n", "whole");
}

#[test]
fn several_turns_are_open_at_once_and_may_end_after_shutdown() {
    let mut peer = Peer::new(waits);
    for id in ["a", "b"] {
        peer.chat(id, "ask", json!({}));
        assert_eq!(peer.next()["requestId"], format!("{id}.1"));
    }
    for id in ["b", "a"] {
        let request = format!("{id}.1");
        peer.send(json!({"type": "route_response", "requestId": request, "response": id}));
        peer.done(id, id);
    }
    peer.chat("c", "moment", json!({}));
    peer.expect(json!({"type": "progress", "messageId": "c"}));
    peer.send(json!({"type": "shutdown"}));
    peer.done("c", "whole");
    peer.ended().expect("in order");
}

#[test]
fn the_end_of_stdin_and_what_is_no_protocol_end_the_worker() {
    let mut peer = Peer::new(waits);
    peer.chat("m", "ask", json!({}));
    let _asked = peer.next();
    peer.to = None;
    // The turn learns it, too.
    peer.failed("m", "cancelled", true);
    peer.ended().expect("in order");
    let mut peer = Peer::new(waits);
    peer.to.as_mut().expect("open").write_all(b"x\n").expect("it reads");
    let error = peer.ended().expect_err("no protocol");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
}
