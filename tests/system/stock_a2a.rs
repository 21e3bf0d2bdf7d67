//! The stock client of A2A, unchanged: cards, tasks, streams, and what it sees of a crash.

use serde_json::{Value, json};
use system_tests::harness::{Child, Http, Output, Signal, StockClients, flaky};

use crate::http::{another, counted, fleet};

/// The client of one agent at one process.
struct Client<'a> {
    programs: &'a StockClients,
    base: String,
    token: String,
}

impl<'a> Client<'a> {
    fn new(programs: &'a StockClients, http: &Http, agent: &str) -> Self {
        let base = format!("http://{}/a2a/{agent}", http.address);
        Self { programs, base, token: http.token.clone().expect("a token") }
    }

    fn start(&self, args: &[&str]) -> Child {
        let args = [&[self.base.as_str(), self.token.as_str()], args].concat();
        self.programs.start("a2a_check.py", &args)
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.start(args).output().await
    }

    /// The lines of a step that works.
    async fn lines(&self, args: &[&str]) -> Vec<Value> {
        self.run(args).await.ok().json_lines()
    }

    /// The error of a step that does not.
    async fn error(&self, args: &[&str]) -> Value {
        let output = self.run(args).await;
        assert_eq!(output.code, 3, "{output}");
        output.json_lines().pop().expect("it says why")
    }
}

/// The text of a stream, as a client puts it together.
fn joined(events: &[Value]) -> String {
    events.iter().fold(String::new(), |text, event| match event["kind"].as_str() {
        Some("task") => event["text"].as_str().unwrap_or_default().to_owned(),
        Some("artifact") if event["append"] == true => text + event["text"].as_str().expect("text"),
        Some("artifact") => event["text"].as_str().expect("text").to_owned(),
        _ => text,
    })
}

fn state(event: &Value) -> &str {
    event["state"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn the_stock_client_sends_streams_and_cancels() {
    let Some(programs) = StockClients::find() else { return };
    let (fleet, http) = fleet(&[("a", &flaky("ATTEMPTS 2")), ("b", &flaky(""))]).await;
    let client = Client::new(&programs, &http, "a");
    let card = client.lines(&["card"]).await.remove(0);
    assert_eq!((&card["name"], &card["version"]), (&"a".into(), &"1.0".into()));
    assert_eq!(card["description"], "You do what you are told.");
    assert_eq!(card["url"], client.base);
    assert_eq!((&card["streaming"], &card["skills"]), (&true.into(), &json!(["chat"])));

    // A chat. Sent again with the same id, it is the same task, and is not done twice.
    let sent = client.lines(&["send", "say hi", "m-1"]).await.remove(0);
    assert_eq!((state(&sent), &sent["text"]), ("TASK_STATE_COMPLETED", &"hi".into()));
    let again = client.lines(&["send", "say hi", "m-1"]).await.remove(0);
    assert_eq!(again, sent);
    let other = client.error(&["send", "say other", "m-1"]).await;
    assert_eq!(other["error"], "InvalidParamsError", "{other}");
    let listed = fleet.json(["journal", "ls", "--agent", "a"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["messageId"], sent["task"]);
    let task = sent["task"].as_str().expect("an id");
    assert_eq!(client.lines(&["get", task]).await.remove(0), sent);
    // Another agent's task is none of this agent's.
    let elsewhere = Client::new(&programs, &http, "b");
    assert_eq!(elsewhere.error(&["get", task]).await["error"], "TaskNotFoundError");
    // A context is a conversation.
    let more = client.lines(&["send", "say more", "m-2", "talk"]).await.remove(0);
    assert_eq!(more["context"], "talk");
    let id = more["task"].as_str().expect("an id");
    assert_eq!(fleet.json(["journal", "show", id]).await["conversationId"], "talk");

    // So is the one that a task without any was given: what comes next in it is its second turn.
    let context = sent["context"].as_str().expect("a context");
    client.lines(&["send", "say next", "m-3", context]).await;
    let turns = fleet.json(["journal", "ls", "--agent", "a", "--conversation", context]).await;
    assert_eq!(turns.as_array().map(Vec::len), Some(2), "{turns}");

    // A stream.
    let events = client.lines(&["stream", "count 5 0.05"]).await;
    assert_eq!((&events[0]["kind"], events[0]["text"].as_str()), (&"task".into(), Some("")));
    assert_eq!(joined(&events), counted(5));
    assert_eq!(state(events.last().expect("some")), "TASK_STATE_COMPLETED");
    assert!(events.len() > 4, "piece by piece: {events:?}");
    let ended = events[0]["task"].as_str().expect("an id");
    let over = client.error(&["subscribe", ended]).await;
    assert_eq!(over["error"], "UnsupportedOperationError", "{over}");
    // Another attempt takes the place of the one that broke off.
    let events = client.lines(&["stream", "say before ; crash until 2; say after"]).await;
    let last = events.last().expect("some");
    assert_eq!(state(last), "TASK_STATE_COMPLETED", "{events:?}");
    let whole = client.lines(&["get", last["task"].as_str().expect("an id")]).await.remove(0);
    assert_eq!(whole["text"], joined(&events));
    assert_eq!(whole["parts"], 1);

    // Errors.
    let failed = client.lines(&["send", "fail no"]).await.remove(0);
    assert_eq!((state(&failed), &failed["reason"]), ("TASK_STATE_FAILED", &"no".into()));
    assert_eq!(client.error(&["get", "no-such"]).await["error"], "TaskNotFoundError");
    let nobody = Client { token: "mozart_x_y".to_owned(), ..Client::new(&programs, &http, "a") };
    assert!(nobody.error(&["card"]).await["message"].as_str().expect("text").contains("401"));
    let missing = Client::new(&programs, &http, "zz").error(&["card"]).await;
    assert!(missing["message"].as_str().expect("text").contains("404"), "{missing}");

    // A cancel.
    let started = client.lines(&["start", "sleep 60"]).await.remove(0);
    let id = started["task"].as_str().expect("an id");
    assert!(["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"].contains(&state(&started)));
    let cancelled = client.lines(&["cancel", id]).await.remove(0);
    assert_eq!(state(&cancelled), "TASK_STATE_CANCELED");
    assert_eq!(client.error(&["cancel", id]).await["error"], "TaskNotCancelableError");
    assert_eq!(fleet.json(["journal", "show", id]).await["status"], "cancelled");
}

#[tokio::test]
async fn the_stock_client_sees_a_crash_and_goes_on_at_another_process() {
    let Some(programs) = StockClients::find() else { return };
    let (fleet, own) = fleet(&[("a", &flaky(""))]).await;
    let (api, http) = another(&fleet).await;
    let mut stream = Client::new(&programs, &http, "a").start(&["stream", "count 60 0.1"]);
    let mut seen = stream
        .json_until(|event| event["kind"] == "artifact" && event["text"].as_str() == Some("9 "))
        .await;
    let task = seen[0]["task"].as_str().expect("an id").to_owned();
    api.signal(Signal::KILL);
    let rest = stream.output().await;
    // It breaks off with an error, and does not end as if it were whole.
    assert_eq!(rest.code, 3, "{rest}");
    seen.extend(rest.json_lines());
    assert_eq!(seen.pop().expect("an error")["error"], "A2AClientError");
    assert!(seen.iter().all(|event| state(event) != "TASK_STATE_COMPLETED"), "{seen:?}");
    let _killed = api.output().await;
    // At another process, the snapshot has what was said, and the rest follows: the whole text once.
    let events = Client::new(&programs, &own, "a").lines(&["subscribe", &task]).await;
    assert_eq!((&events[0]["kind"], state(&events[0])), (&"task".into(), "TASK_STATE_WORKING"));
    assert!(!events[0]["text"].as_str().expect("text").is_empty(), "{events:?}");
    assert_eq!(joined(&events), counted(60));
    assert_eq!(state(events.last().expect("some")), "TASK_STATE_COMPLETED");
}

#[tokio::test]
async fn calls_that_are_none_are_refused_one_by_one() {
    let (fleet, http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let call = async |headers: &[(&str, &str)], body: Value| {
        http.ask("POST", "/a2a/a", headers, &body).await.is(200).json()["error"]["code"].clone()
    };
    let rpc = |method: &str, params: Value| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let message =
        |parts: Value| json!({"message": {"messageId": "1", "role": "ROLE_USER", "parts": parts}});
    let hello = message(json!([{"text": "say x"}]));
    assert_eq!(call(&[], json!([])).await, -32600);
    assert_eq!(call(&[], rpc("message/send", json!({}))).await, -32601);
    assert_eq!(call(&[], rpc("SendMessage", json!({}))).await, -32602);
    assert_eq!(call(&[], rpc("SendMessage", message(json!([])))).await, -32602);
    assert_eq!(call(&[], rpc("SendMessage", message(json!([{"raw": "YQ=="}])))).await, -32005);
    assert_eq!(call(&[("a2a-version", "0.3")], rpc("SendMessage", hello.clone())).await, -32009);
    assert_eq!(call(&[], rpc("GetTask", json!({"id": "a b"}))).await, -32001);
    assert_eq!(call(&[], rpc("CreateTaskPushNotificationConfig", json!({}))).await, -32003);
    let long = message(json!([{"text": "x".repeat(1_100_000)}]));
    assert_eq!(call(&[], rpc("SendMessage", long)).await, -32602);
    // A card of its own for each; the one at the root is that of the only one.
    let _several = http.get("/.well-known/agent-card.json").await.problem(404);
    let card = http.get("/a2a/b/.well-known/agent-card.json").await.is(200);
    let tag = card.header("etag").expect("a tag").to_owned();
    let path = "/a2a/b/.well-known/agent-card.json";
    let known = http.ask("GET", path, &[("if-none-match", &tag)], &Value::Null).await;
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    // A token that is good for one agent, or for reading alone.
    let token = fleet.cli(["token", "create", "one", "--scope", "read", "--agent", "b"]).await.ok();
    let one = http.with(Some(token.stdout.trim()));
    assert_eq!(one.get("/.well-known/agent-card.json").await.is(200).json()["name"], "b");
    let body = rpc("SendMessage", hello);
    let _other = one.ask("POST", "/a2a/a", &[], &body).await.problem(403);
    let _reading = one.ask("POST", "/a2a/b", &[], &body).await.problem(403);
    let listed = fleet.json(["journal", "ls"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(0), "nothing was sent: {listed}");
}
