use super::*;
use crate::tests::envelope;

fn about() -> About {
    About::stored(envelope("m1", "c1", "hello"))
}

fn text(text: &str) -> Item {
    Item::Text { text: text.to_owned(), seq: 1, attempt: 1 }
}

fn done(status: Status, response: Option<&str>) -> Item {
    let (response, reason) = (response.map(str::to_owned), Some("no".to_owned()));
    Item::Done { status, response, reason, seq: 9, attempt: 1 }
}

/// The events after one, as a client has them.
fn told(known: Option<u64>, items: &[Item]) -> Vec<Told> {
    let mut telling = Telling::new(about(), known);
    let mut all = telling.begin();
    all.extend(items.iter().flat_map(|item| telling.item(item)));
    all
}

fn number(told: &Told) -> u64 {
    told.data["sequence_number"].as_u64().expect("a number")
}

fn deltas(told: &[Told]) -> String {
    told.iter().filter_map(|one| one.data["delta"].as_str()).collect()
}

fn kinds(told: &[Told]) -> Vec<&'static str> {
    told.iter().map(|one| one.kind).collect()
}

#[test]
fn the_events_are_those_that_clients_expect_in_this_order() {
    let all = told(None, &[text("hé"), text("llo"), done(Status::Completed, Some("héllo"))]);
    let expected = [
        (0, "response.created"),
        (1, "response.queued"),
        (2, "response.in_progress"),
        (3, "response.output_item.added"),
        (4, "response.content_part.added"),
        (7, "response.output_text.delta"),
        (10, "response.output_text.delta"),
        (11, "response.output_text.done"),
        (12, "response.content_part.done"),
        (13, "response.output_item.done"),
        (14, "response.completed"),
    ];
    let found: Vec<_> = all.iter().map(|one| (number(one), one.kind)).collect();
    assert_eq!(found, expected);
    let response = &all.last().expect("events").data["response"];
    assert_eq!((&response["id"], &response["status"]), (&"resp_m1".into(), &"completed".into()));
    assert_eq!(response["output"][0]["content"][0]["text"], "héllo");
}

#[test]
fn a_reader_goes_on_after_any_event_whatever_the_pieces_are_then() {
    let done = || done(Status::Completed, Some("héllo"));
    let first = told(None, &[text("hé"), text("llo"), done()]);
    let others = [vec![text("h"), text("éll"), text("o"), done()], vec![done()]];
    for event in &first {
        let known = number(event);
        let had: Vec<Told> = first.iter().filter(|one| number(one) <= known).cloned().collect();
        for items in &others {
            let rest = told(Some(known), items);
            assert!(rest.iter().all(|one| number(one) > known), "{known}: {rest:?}");
            assert_eq!(deltas(&had) + &deltas(&rest), "héllo", "after {known}");
            let ends = rest.last().map(|one| one.kind);
            assert_eq!(ends, (known < 14).then_some("response.completed"), "after {known}");
        }
    }
    // Within a letter, and beyond the end, there is none.
    for known in [6, 15, u64::MAX] {
        let rest = told(Some(known), &[done()]);
        assert!(rest.iter().any(|one| one.kind == "error"), "{known}: {rest:?}");
    }
}

#[test]
fn a_broken_answer_ends_with_an_error() {
    let reset = || Item::Reset { seq: 5, attempt: 2, incarnation: None };
    let whole = |response| done(Status::Completed, Some(response));
    let last = |items: &[Item]| kinds(&told(None, items)).pop();
    assert_eq!(last(&[text("ab"), reset(), text("a"), whole("abc")]), Some("response.completed"));
    assert_eq!(last(&[text("ab"), reset(), text("x"), whole("x")]), Some("error"));
    assert_eq!(last(&[text("ab"), reset(), whole("a")]), Some("error"));
    // Stopped: the message goes on once the agent does, and so does the reader, after what it has.
    let stopped = told(None, &[text("ab"), done(Status::Acknowledged, None)]);
    assert_eq!(stopped.last().map(number), Some(6));
    let failed = told(None, &[text("ab"), done(Status::Failed, None)]);
    assert_eq!(kinds(&failed)[6..], ["response.failed", "error"]);
    let error = &failed.last().expect("events").data["error"]["message"];
    assert_eq!(error, "the message is failed: no");
}

#[test]
fn the_input_is_what_is_new() {
    let asked = |value: Value| -> Asked { serde_json::from_value(value).expect("valid") };
    let text = |value: Value| asked(value).text(true);
    let plain = json!({"model": "a", "input": "hi", "temperature": 1});
    assert_eq!(text(plain), Ok("hi".to_owned()));
    let parts = json!([{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]);
    assert_eq!(text(json!({"model": "a", "input": parts})), Ok("hi".to_owned()));
    let told = json!({"model": "a", "input": "hi", "instructions": "Be brief."});
    assert_eq!(text(told.clone()), Ok("system: Be brief.\n\nuser: hi".to_owned()));
    let mut again = told;
    again["previous_response_id"] = "resp_m1".into();
    assert_eq!(text(again), Ok("hi".to_owned()));
    let history = json!([
        {"role": "user", "content": "one"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "1"}]},
        {"type": "reasoning", "summary": []},
        {"role": "user", "content": "two"},
    ]);
    assert_eq!(text(json!({"model": "a", "input": history})), Ok("two".to_owned()));
    let image = json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]);
    assert_eq!(text(json!({"model": "a", "input": image})), Err("input_image".to_owned()));
    assert_eq!(text(json!({"model": "a", "instructions": "x"})), Ok(String::new()));
    let named = asked(json!({"model": "a", "conversation": {"id": "c"}, "user": "u"}));
    assert_eq!((named.conversation(), named.hint()), (Some("c"), Some("u")));
    assert_eq!(message_of("resp_m1").map(|id| id.to_string()), Some("m1".to_owned()));
    assert_eq!((message_of("m1"), message_of("resp_a b")), (None, None));
}
