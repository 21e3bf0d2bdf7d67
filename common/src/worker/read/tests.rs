//! What is taken, what is logged, and what is told of.

use super::*;

fn turn(message: &'static str) -> TurnRef<'static> {
    TurnRef { message_id: Some(message.into()), conversation_id: None }
}

/// What a line says, printed.
fn said(line: &[u8]) -> Vec<Result<String, NotProtocol>> {
    let mut all = Vec::new();
    read(line, &mut |said| all.push(said.map(|said| format!("{said:?}"))));
    all
}

#[track_caller]
fn takes(line: &[u8], expected: &[FromWorker<'_>]) {
    let expected: Vec<_> = expected.iter().map(|said| Ok(format!("{said:?}"))).collect();
    assert_eq!(said(line), expected, "{}", String::from_utf8_lossy(line));
}

fn damaged(line: &[u8]) -> Damage {
    match said(line).pop() {
        Some(Err(NotProtocol::Damaged(damage))) => damage,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(line)),
    }
}

fn text(text: &str) -> FromWorker<'_> {
    FromWorker::Text { turn: turn("m"), text: text.into() }
}

#[test]
fn the_seeds_lines_parse() {
    takes(br#"{"type":"ready"}"#, &[FromWorker::Ready]);
    let turn_of = |conversation: &'static str| TurnRef {
        message_id: None,
        conversation_id: Some(conversation.into()),
    };
    takes(
        br#"{"type":"event","conversationId":"c","event":{"type":"text","text":"a\nb"}}"#,
        &[FromWorker::Text { turn: turn_of("c"), text: "a\nb".into() }],
    );
    takes(br#"{"type":"ack","messageId":"m"}"#, &[FromWorker::Ack { turn: turn("m") }]);
    takes(
        br#"{"type":"chat_done","messageId":"m"}"#,
        &[FromWorker::Done { turn: turn("m"), response: None }],
    );
    takes(
        br#"{"type":"route_done","requestId":"m","response":"r"}"#,
        &[FromWorker::Done { turn: turn("m"), response: Some("r".into()) }],
    );
    takes(
        br#"{"type":"route_done","requestId":"m"}"#,
        &[FromWorker::Done { turn: turn("m"), response: None }],
    );
}

#[test]
fn other_events_are_kept_and_unknown_types_named() {
    let event = serde_json::json!({"type": "tool", "name": "x"});
    takes(
        br#"{"type":"event","messageId":"m","event":{"type":"tool","name":"x"}}"#,
        &[FromWorker::Event { turn: turn("m"), event }],
    );
    takes(br#"{"type":"dance"}"#, &[FromWorker::Unknown { kind: "dance".into() }]);
    let deep = format!(
        r#"{{"type":"event","messageId":"m","event":{{"a":{}1{}}}}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    takes(deep.as_bytes(), &[FromWorker::TooDeep { turn: turn("m") }]);
}

#[test]
fn an_error_is_taken_in_whatever_form_it_says_why() {
    let error = |error: &'static str| FromWorker::Error {
        turn: turn("m"),
        error: error.into(),
        retryable: false,
        retry_after_ms: None,
    };
    takes(br#"{"type":"error","messageId":"m","error":"no"}"#, &[error("no")]);
    takes(br#"{"type":"error","messageId":"m","message":"no"}"#, &[error("no")]);
    takes(br#"{"type":"error","messageId":"m","error":{"code":5}}"#, &[error(r#"{"code":5}"#)]);
    takes(br#"{"type":"error","messageId":"m"}"#, &[error("the worker gave no reason")]);
}

#[test]
fn nonsense_is_a_log_line() {
    for line in [
        &b"hello"[..],
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"{\"type\":1}",
        b"null",
        b"{",
        b"}",
        br#"{"level":"info","msg":"x"}"#,
        br#"{"type":"metric","value":NaN}"#,
        br#"INFO sent {"type":"chat_done","messageId":"m"}"#,
        br#"see "type": "chat_done""#,
    ] {
        assert_eq!(said(line), [Err(NotProtocol::Log)], "{}", String::from_utf8_lossy(line));
    }
}

#[test]
fn what_can_be_taken_is() {
    takes(b"\xef\xbb\xbf{\"type\":\"ready\"}", &[FromWorker::Ready]);
    takes(b"  {\"type\":\"ready\"}  \t", &[FromWorker::Ready]);
    takes(b"10 %\r100 %\r{\"type\":\"ready\"}", &[FromWorker::Ready]);
    let event = |text: &[u8]| {
        [br#"{"type":"event","messageId":"m","event":{"type":"text","text":""#, text, br#""}}"#]
            .concat()
    };
    takes(&event(br"Done \ud83d"), &[text("Done \u{fffd}")]);
    takes(&event(br"\ude00 all "), &[text("\u{fffd} all ")]);
    takes(&event(b"half \xf0\x9f"), &[text("half \u{fffd}")]);
    takes(&event(b"a\x1b[1m"), &[text("a\x1b[1m")]);
    takes(&[event(b"one"), event(b"two")].concat(), &[text("one"), text("two")]);
    let value = serde_json::json!({"type": "score", "value": null});
    takes(
        br#"{"type":"event","messageId":"m","event":{"type":"score","value":NaN}}"#,
        &[FromWorker::Event { turn: turn("m"), event: value }],
    );
}

#[test]
fn what_cannot_be_taken_says_what_it_was_about() {
    let cut = damaged(br#"{"type":"event","messageId":"m","event":{"type":"text","text":"half"#);
    assert_eq!((&cut.turn, cut.ends), (&turn("m"), false));
    assert!(cut.why.contains("EOF"), "{}", cut.why);
    let no_event = damaged(br#"{"messageId":"m","type":"event"}"#);
    assert_eq!(no_event.why, "a line of type `event` without `event`");
    assert_eq!(no_event.turn, turn("m"));
    let wrong = damaged(br#"{"type":"chat_done","messageId":"m","response":{"a":1}}"#);
    assert_eq!((&wrong.turn, wrong.ends), (&turn("m"), true));
    let python = damaged(br#"{'type': 'route_done', 'requestId': 'm', 'response': 'r'}"#);
    assert_eq!((&python.turn, python.ends), (&turn("m"), true));
    let pretty = damaged(br#"  "type": "chat_done","#);
    assert_eq!((&pretty.turn, pretty.ends), (&TurnRef::default(), true));
    assert!(pretty.why.contains("on one line"), "{}", pretty.why);
    let late = [
        br#"{"type":"chat_done","response":""#.as_slice(),
        &vec![b'x'; 200_000],
        br#"","messageId":"m","#,
    ];
    assert_eq!(damaged(&late.concat()).turn, turn("m"));
}

#[test]
fn what_follows_an_object_is_looked_at_by_itself() {
    let line =
        br#"{"type":"ack","messageId":"m"}{"type":"chat_done","messageId":"m","response":"ha"#;
    let all = said(line);
    assert_eq!(all.len(), 2);
    assert!(all[0].is_ok());
    assert!(matches!(&all[1], Err(NotProtocol::Damaged(damage)) if damage.ends), "{all:?}");
}

#[test]
fn a_line_that_is_glued_to_other_text_is_told_of() {
    let piece = r#"{"type":"event","messageId":"m","event":{"type":"text","text":"NOT "}}"#;
    for line in [
        format!("thinking...{piece}"),
        format!("\u{1b}[32m{piece}\u{1b}[0m"),
        format!("[{piece}]"),
        "x{\"type\":\"event\",\"event\":{\"type\":\"text\",\"text\":\"a\"}}".to_owned(),
        "x{\"type\":\"chat_done\",\"messageId\":\"m\"}".to_owned(),
    ] {
        let damage = damaged(line.as_bytes());
        assert!(damage.why.contains("other text stands before it"), "{line}: {damage:?}");
    }
    let wide: Vec<u8> = piece.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for mark in [&b""[..], b"\xff\xfe"] {
        assert!(damaged(&[mark, &wide].concat()).why.contains("UTF-16"));
    }
    // What can be taken is taken.
    let marked = format!("\0\u{feff}\u{feff}{}", piece.replace("NOT ", "a"));
    takes(marked.as_bytes(), &[text("a")]);
    for log in ["x{\"type\":\"event\",\"name\":\"click\"}", "a\0b", "f(x) { return 1 }"] {
        assert_eq!(said(log.as_bytes()), [Err(NotProtocol::Log)], "{log}");
    }
}

#[test]
fn an_event_that_cannot_be_read_is_told_of() {
    for event in ["5", "\"hello\"", "{}", "{\"text\":\"B\"}", "{\"type\":1,\"text\":\"B\"}"] {
        let line = format!("{{\"type\":\"event\",\"messageId\":\"m\",\"event\":{event}}}");
        assert_eq!(damaged(line.as_bytes()).why, "its event has no `type`", "{line}");
    }
    for more in
        ["", ",\"text\":5", ",\"text\":null", ",\"text\":[\"x\"]", ",\"text\":\"A\",\"text\":\"B\""]
    {
        let event = format!("{{\"type\":\"text\"{more}}}");
        let line = format!("{{\"type\":\"event\",\"messageId\":\"m\",\"event\":{event}}}");
        assert_eq!(damaged(line.as_bytes()).why, "its `text` is not one string", "{line}");
    }
}

#[test]
fn a_step_is_read_with_its_result_as_it_was_written() {
    for (line, result) in [
        (
            r#"{"type":"step","messageId":"m","key":"k","result":{"n":1.50,"s":"\u00e4"}}"#,
            r#"{"n":1.50,"s":"\u00e4"}"#,
        ),
        (
            r#"{"result":12345678901234567890123,"key":"k","type":"step","messageId":"m"}"#,
            "12345678901234567890123",
        ),
        (r#"{"type":"step","messageId":"m","key":"k","result":NaN}"#, "null"),
        (r#"{"type":"step","messageId":"m","key":"k"}"#, "null"),
    ] {
        let step = FromWorker::Step { turn: turn("m"), key: "k".into(), result: result.into() };
        takes(line.as_bytes(), &[step]);
    }
}

#[test]
fn a_step_that_cannot_be_stored_says_why_and_damages_nothing() {
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    let deeper = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    let large = format!("\"{}\"", "x".repeat(MAX_RESULT));
    let long = "k".repeat(MAX_KEY + 1);
    for (fields, key, why) in [
        ("\"result\":1".to_owned(), None, "without `key`"),
        ("\"key\":5,\"result\":1".to_owned(), None, "not a string"),
        ("\"key\":\"\"".to_owned(), None, "0 bytes"),
        (format!("\"key\":\"{long}\""), None, "257 bytes"),
        (format!("\"key\":\"k\",\"result\":{large}"), Some("k"), "at most 262144"),
        (format!("\"key\":\"k\",\"result\":{deep}"), Some("k"), "64 levels"),
        (format!("\"key\":\"k\",\"result\":{deeper}"), Some("k"), "64 levels"),
    ] {
        let line = format!("{{\"type\":\"step\",\"messageId\":\"m\",{fields}}}");
        read(line.as_bytes(), &mut |said| match said {
            Ok(FromWorker::BadStep { turn: of, key: named, why: said }) => {
                assert_eq!((of, named.as_deref()), (turn("m"), key));
                assert!(said.contains(why), "{said}");
            }
            other => panic!("{other:?}"),
        });
    }
    let cut = damaged(br#"{"type":"step","messageId":"m","key":"k","result":{"a":"#);
    assert_eq!((&cut.turn, cut.ends, cut.step.as_deref()), (&turn("m"), false, Some("k")));
}

#[test]
fn the_steps_that_other_programs_log_are_none_of_the_protocols() {
    let log = [Err(NotProtocol::Log)];
    assert_eq!(said(b"{'type': 'step', 'n': 3}"), log);
    assert_eq!(said(br#"{"type":"step","n":"#), log);
    let unknown = FromWorker::Unknown { kind: "step".into() };
    takes(br#"{"type":"step","n":3}"#, &[unknown]);
    // Other lines may have these names for whatever they like.
    let ack = br#"{"type":"ack","messageId":"m","key":{"a":1},"result":[]}"#;
    takes(ack, &[FromWorker::Ack { turn: turn("m") }]);
}
