use super::*;
use crate::tests::envelope as message;

fn envelope() -> Envelope {
    message("m1", "m1", "hello")
}

fn text(text: &str) -> Item {
    Item::Text { text: text.to_owned(), seq: 1, attempt: 1 }
}

fn done(status: Status, response: Option<&str>, reason: Option<&str>) -> Item {
    let own = |text: Option<&str>| text.map(str::to_owned);
    Item::Done { status, response: own(response), reason: own(reason), seq: 9, attempt: 1 }
}

/// What a reader is told, in short: states, and texts with `+` where they are appended and `.` after the last one.
fn told(known: &str, status: Status, items: &[Item]) -> Vec<String> {
    let mut updates = Updates::after(envelope(), known.to_owned(), status);
    let all = items.iter().flat_map(|item| updates.item(item, Timestamp::from_millis(2)));
    let short = |update: Result<Value, Fault>| match update {
        Err(fault) => format!("error {}", fault.kind.code().0),
        Ok(update) if update["statusUpdate"].is_object() => {
            update["statusUpdate"]["status"]["state"].as_str().expect("a state").to_owned()
        }
        Ok(update) => {
            let update = &update["artifactUpdate"];
            let text = update["artifact"]["parts"][0]["text"].as_str().expect("a text");
            let append = if update["append"] == true { "+" } else { "" };
            let last = if update["lastChunk"] == true { "." } else { "" };
            format!("{append}{text}{last}")
        }
    };
    all.map(short).collect()
}

#[test]
fn a_reader_gets_what_it_does_not_have() {
    let whole = [text("a "), text("b"), done(Status::Completed, Some("a b"), None)];
    let (working, completed) = ("TASK_STATE_WORKING", "TASK_STATE_COMPLETED");
    assert_eq!(told("", Status::Pending, &whole), [working, "a ", "+b", "+.", completed]);
    assert_eq!(told("a ", Status::Acknowledged, &whole[1..]), ["+b", "+.", completed]);
    // Events were lost: the final state has all of it.
    assert_eq!(told("a ", Status::Acknowledged, &whole[2..]), ["+b.", completed]);
}

#[test]
fn another_attempt_goes_on_or_begins_anew() {
    let reset = || Item::Reset { seq: 5, attempt: 2, incarnation: None };
    let same = [text("a"), reset(), text("a"), text("b")];
    assert_eq!(told("", Status::Acknowledged, &same), ["a", "+b"]);
    let other = [text("a"), reset(), text("x"), text("y")];
    assert_eq!(told("", Status::Acknowledged, &other), ["a", "x", "+y"]);
    let shorter = [text("ab"), reset(), done(Status::Completed, Some("a"), None)];
    assert_eq!(told("", Status::Acknowledged, &shorter), ["ab", "a.", "TASK_STATE_COMPLETED"]);
}

#[test]
fn an_end_says_how() {
    let end = |status, reason| told("", Status::Acknowledged, &[done(status, None, reason)]);
    assert_eq!(end(Status::Failed, Some("no")), ["TASK_STATE_FAILED"]);
    assert_eq!(end(Status::Expired, None), ["TASK_STATE_FAILED"]);
    assert_eq!(end(Status::Cancelled, None), ["TASK_STATE_CANCELED"]);
    assert_eq!(end(Status::Acknowledged, None), ["error -32603"], "not an end of the task");
    let failed = Task {
        envelope: &envelope(),
        status: Status::Failed,
        at: Timestamp::from_millis(2),
        text: "",
        reason: Some("no"),
        history: Some(0),
    };
    let failed = failed.object();
    assert_eq!(failed["status"]["message"]["parts"][0]["text"], "no");
    assert!(failed["history"].is_null() && failed["artifacts"].is_null());
}

#[test]
fn what_is_no_call_is_refused_with_its_code() {
    let code = |body: &str| {
        let (id, fault) = Call::parse(body.as_bytes()).expect_err("no call");
        let answer = answer(&id, Err(fault));
        (answer["id"].clone(), answer["error"]["code"].clone())
    };
    assert_eq!(code("{"), (Value::Null, json!(-32700)));
    assert_eq!(code("[]"), (Value::Null, json!(-32600)));
    assert_eq!(code(r#"{"id":1}"#), (json!(1), json!(-32600)));
    assert_eq!(code(r#"{"id":{},"jsonrpc":"2.0","method":"x"}"#), (Value::Null, json!(-32600)));
    let text = |message: Value| {
        let message: Message = serde_json::from_value(message).expect("a message");
        message.text().map_err(|fault| fault.kind)
    };
    let parts = |parts: Value| json!({ "messageId": "1", "role": "ROLE_USER", "parts": parts });
    assert_eq!(text(parts(json!([{ "text": "a" }, { "text": "b", "x": 1 }]))), Ok("a\nb".into()));
    assert_eq!(text(parts(json!([{ "raw": "YQ==" }]))), Err(Kind::ContentType));
    assert_eq!(text(parts(json!([]))), Err(Kind::Params));
    assert_eq!(text(json!({ "parts": [{ "text": "a" }] })), Err(Kind::Params), "without an id");
}
