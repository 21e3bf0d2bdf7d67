//! The stock client of the Synadia Agent Protocol, unchanged: discovery, prompts, streams, and what it sees of a crash.

use std::fs;

use bytes::Bytes;
use serde_json::{Value, json};
use system_tests::harness::{Child, Fleet, Http, Output, Signal, StockClients, eventually, flaky};
use tokio::net::TcpStream;

use crate::http::{counted, fleet};
use crate::roles::free_port;

/// The client of a fleet, with all rights or as a user.
struct Client<'a> {
    programs: &'a StockClients,
    url: String,
    login: String,
}

impl<'a> Client<'a> {
    fn new(programs: &'a StockClients, fleet: &Fleet) -> Self {
        let note = fleet.note().expect("`mozart up` runs");
        let url = note["url"].as_str().expect("it has an address").to_owned();
        Self { programs, url, login: "-".to_owned() }
    }

    /// As a new user: what the protocol's client needs of its credentials.
    async fn of_user(programs: &'a StockClients, fleet: &Fleet, name: &str, more: &[&str]) -> Self {
        let Self { url, .. } = Self::new(programs, fleet);
        let args = [&["user", "add", name], more].concat();
        let _added = fleet.cli(args).await.ok();
        let creds = fs::read_to_string(fleet.souls().join(format!("{name}.creds")));
        let creds = creds.expect("its credentials");
        let seed = creds.lines().skip_while(|line| !line.contains("BEGIN USER NKEY SEED")).nth(1);
        let host = url.rsplit_once('@').map_or(url.as_str(), |(_, host)| host);
        let host = host.trim_start_matches("nats://");
        let login = format!("mozart.default.user.{name}:{}", seed.expect("a seed"));
        Self { programs, url: format!("nats://{host}"), login }
    }

    fn start(&self, args: &[&str]) -> Child {
        let args = [&[self.url.as_str(), self.login.as_str()], args].concat();
        self.programs.start("sap_check.py", &args)
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.start(args).output().await
    }

    async fn lines(&self, args: &[&str]) -> Vec<Value> {
        self.run(args).await.ok().json_lines()
    }

    /// The error of a step that does not work.
    async fn error(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert_eq!(output.code, 3, "{output}");
        let said = output.json_lines().pop().expect("it says why");
        said["message"].as_str().expect("a text").to_owned()
    }
}

fn joined(lines: &[Value]) -> String {
    lines.iter().filter_map(|line| line["text"].as_str()).collect()
}

/// A process that serves the API, besides those that there are.
async fn another(fleet: &Fleet) -> Child {
    let address = format!("127.0.0.1:{}", free_port());
    let api = fleet.spawn_cli(["api", "--listen", &address]);
    let http = Http { address, token: None };
    eventually("the API serves", async || match TcpStream::connect(&http.address).await {
        Ok(_) if http.get("/api/v1/health").await.status == 204 => Ok(()),
        Ok(_) => Err("it does not reach the broker yet".to_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    api
}

/// Nothing is kept of answers that are told.
async fn nothing_is_open(fleet: &Fleet) {
    let broker = fleet.broker().await;
    eventually("nothing is kept", async || {
        let open = broker.open_replies().await.map_err(|error| error.to_string())?;
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
}

#[tokio::test]
async fn the_stock_client_discovers_prompts_and_streams() {
    let Some(programs) = StockClients::find() else { return };
    let (fleet, _http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let client = Client::new(&programs, &fleet);
    let beats = client.start(&["beats", "b"]);
    let found = client.lines(&["discover"]).await;
    let expected = ["a", "b"].map(|name| {
        json!({
            "kind": "mozart", "owner": "default", "name": name, "id": format!("mozart_default_{name}"),
            "protocol": "0.3", "subject": format!("agents.prompt.mozart.default.{name}"),
            "attachments": false, "reachable": true,
        })
    });
    assert_eq!(found, expected);
    let status = client.lines(&["status", "a"]).await.remove(0);
    assert_eq!((&status["name"], &status["interval"]), (&"a".into(), &30.into()));
    assert_eq!(status["mozart"]["state"], "running");

    // A chat, and a stream: acknowledged first.
    let chat = client.lines(&["prompt", "a", "say hi"]).await;
    assert_eq!(chat, [json!({"status": "ack"}), json!({"text": "hi"}), json!({"end": true})]);
    let listed = fleet.json(["journal", "ls", "--agent", "a"]).await;
    assert_eq!((&listed[0]["sender"], &listed[0]["response"]), (&"user".into(), &"hi".into()));
    let stream = client.lines(&["prompt", "a", "count 5 0.05"]).await;
    assert_eq!(joined(&stream), counted(5));
    assert!(stream.len() > 4, "piece by piece: {stream:?}");
    // Another attempt that says the same goes on, and one that does not is an error.
    let again = client.lines(&["prompt", "a", "say one ; crash until 2; say two"]).await;
    assert_eq!(joined(&again), "onetwo");

    // Errors: of the agent, of the request, and of one who asks for nobody.
    let failed = client.error(&["prompt", "a", "fail no"]).await;
    assert_eq!(failed, "service error 500: the message is failed: no");
    let empty = client.lines(&["raw", "a", "{\"prompt\":\"\"}"]).await;
    assert_eq!((&empty[0]["code"], &empty[1]), (&"400".into(), &json!({"end": true})));
    let broker = fleet.broker().await;
    let ask = broker.ask("agents.status.mozart.default.zz".to_owned(), Bytes::new(), WITHIN).await;
    let refused: Value = serde_json::from_slice(&ask.expect("an answer")).expect("JSON");
    assert_eq!(refused["error"], "404");

    // The same key is the same message, and whoever asks again gets its answer.
    let text = "{\"prompt\":\"say key\",\"conversation\":\"talk\"}";
    let first = client.lines(&["raw", "b", text, "Nats-Msg-Id=k1"]).await;
    assert_eq!(first, [json!({"status": "ack"}), json!({"text": "key"}), json!({"end": true})]);
    assert_eq!(client.lines(&["raw", "b", text, "Nats-Msg-Id=k1"]).await, first);
    let other = client.lines(&["raw", "b", "say other", "Nats-Msg-Id=k1"]).await;
    assert_eq!(other[0]["code"], "409", "{other:?}");
    let listed = fleet.json(["journal", "ls", "--agent", "b"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["conversationId"], "talk");

    // There is no cancel in the protocol. Somebody else's is an error,
    let mut waiting = client.start(&["prompt", "a", "sleep 60"]);
    assert_eq!(waiting.json().await, Some(json!({"status": "ack"})));
    let open = fleet.json(["journal", "ls", "--agent", "a", "--status", "open"]).await;
    let id = open[0]["messageId"].as_str().expect("an id");
    let _cancelled = fleet.cli(["cancel", id]).await.ok();
    let said = waiting.output().await;
    assert_eq!(said.code, 3, "{said}");
    assert!(said.stdout.contains("service error 409: the message is cancelled"), "{said}");
    // and whoever goes away leaves the agent working.
    let stalled = client.error(&["prompt", "a", "sleep 4; say late", "1"]).await;
    assert!(stalled.contains("no chunk"), "{stalled}");
    eventually("the agent answers nevertheless", async || {
        let listed = fleet.json(["journal", "ls", "--agent", "a", "--limit", "1"]).await;
        if listed[0]["response"] == "late" { Ok(()) } else { Err(listed.to_string()) }
    })
    .await;
    let beat = beats.output().await.ok().json_lines().remove(0);
    assert_eq!((&beat["online"], &beat["interval"]), (&true.into(), &30.into()));
    nothing_is_open(&fleet).await;
}

/// How long an answer of one message may take.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Whether the text of a line has got to a number.
fn is_at(line: &Value, number: u32) -> bool {
    let last = line["text"].as_str().and_then(|text| text.split_whitespace().last());
    last.and_then(|last| last.parse().ok()).is_some_and(|last: u32| last >= number)
}

/// Where a record is that cannot be read.
const UNREADABLE: &str = "_INBOX.agents.unreadable.x";

/// Prompts; kills the process that answers, and freezes the next one: the whole text comes once, into the same inbox.
async fn survives(fleet: &Fleet, client: &Client<'_>) {
    const NUMBERS: u32 = 150;
    // A record that no process can read holds up none of what follows.
    let fleets = Client::new(client.programs, fleet);
    let _unreadable = fleets.run(&["publish", &format!("mozart.default.reply.{UNREADABLE}")]).await;
    let first = another(fleet).await;
    eventually("the agent is discovered", async || {
        let found = client.run(&["discover"]).await;
        if found.stdout.contains("mozart_default_a") { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    let mut prompt = client.start(&["prompt", "a", &format!("count {NUMBERS} 0.1")]);
    let mut seen = prompt.json_until(|line| is_at(line, 5)).await;
    let second = another(fleet).await;
    first.signal(Signal::KILL);
    let _killed = first.output().await;
    // It goes on at the second one, which is frozen then; a third one takes over. The second one wakes up, and does not speak again.
    let at = u32::try_from(joined(&seen).split_whitespace().count()).expect("few") + 20;
    seen.extend(prompt.json_until(|line| is_at(line, at)).await);
    second.signal(Signal::STOP);
    let third = another(fleet).await;
    seen.extend(prompt.json_until(|line| is_at(line, at + 20)).await);
    second.signal(Signal::CONT);
    seen.extend(prompt.output().await.ok().json_lines());
    assert_eq!(joined(&seen), counted(NUMBERS), "every piece once");
    assert_eq!(seen.last(), Some(&json!({"end": true})));
    let broker = fleet.broker().await;
    eventually("nothing else is kept", async || {
        let open = broker.open_replies().await.map_err(|error| error.to_string())?;
        if open == [UNREADABLE] { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
    for api in [second, third] {
        api.signal(Signal::KILL);
        let _killed = api.output().await;
    }
}

#[tokio::test]
async fn a_prompt_goes_on_where_it_was_when_the_process_that_took_it_is_killed() {
    let Some(programs) = StockClients::find() else { return };
    let mut fleet = Fleet::new(&[("a", &flaky(""))]);
    fleet.up(&["--api", "off"]).await;
    let _row = fleet.wait_state("a", "running").await;
    survives(&fleet, &Client::new(&programs, &fleet)).await;
    let ana = Client::of_user(&programs, &fleet, "ana", &["--scope", "send"]).await;
    survives(&fleet, &ana).await;
    let listed = fleet.json(["journal", "ls", "--agent", "a"]).await;
    let senders: Vec<&Value> =
        listed.as_array().expect("a list").iter().map(|row| &row["sender"]).collect();
    assert_eq!(senders, ["user", "ana"]);
}

#[tokio::test]
async fn users_discover_and_prompt_as_their_scopes_allow() {
    let Some(programs) = StockClients::find() else { return };
    let (fleet, _http) = fleet(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let only_a = ["--scope", "send", "--agent", "a"];
    let ana = Client::of_user(&programs, &fleet, "ana", &only_a).await;
    assert_eq!(ana.lines(&["discover"]).await.len(), 2);
    assert_eq!(joined(&ana.lines(&["prompt", "a", "say hi"]).await), "hi");
    assert_eq!(ana.lines(&["status", "a"]).await[0]["name"], "a");
    let not_allowed = ana.run(&["prompt", "b", "say hi", "2"]).await;
    assert_eq!(not_allowed.code, 3, "{not_allowed}");
    assert!(not_allowed.stderr.contains("permissions violation"), "{not_allowed}");
    // Who it is, the server says, whatever the request does.
    let forged = "Nats-Request-Info={\"user\":\"mozart.default.user.eve\",\"name_tag\":\"mozart.default.user.eve\"}";
    assert_eq!(joined(&ana.lines(&["raw", "a", "say me", forged]).await), "me");
    let listed = fleet.json(["journal", "ls"]).await;
    let rows = listed.as_array().expect("a list");
    assert!(rows.iter().all(|row| row["sender"] == "ana"), "{listed}");
    assert_eq!(rows.len(), 2, "{listed}");

    // An admin is told by its inbox. An inbox that an answer goes to takes no other, and nothing is stored then.
    let root = Client::of_user(&programs, &fleet, "root", &["--scope", "admin"]).await;
    let own = "Inbox=_INBOX.mozart.default.user.root.x";
    assert_eq!(joined(&root.lines(&["raw", "a", "say root", own]).await), "root");
    let listed = fleet.json(["journal", "ls", "--limit", "1"]).await;
    assert_eq!(listed[0]["sender"], "root");
    let fleets = Client::new(&programs, &fleet);
    let _taken = fleets.run(&["publish", "mozart.default.reply._INBOX.taken.x"]).await;
    let refused = root.lines(&["raw", "a", "say no", "Inbox=_INBOX.taken.x"]).await;
    assert!(refused.iter().any(|line| line["code"] == "409"), "{refused:?}");
    let listed = fleet.json(["journal", "ls"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");

    // Whoever may read sees what there is, and prompts nobody.
    let eve = Client::of_user(&programs, &fleet, "eve", &["--scope", "read"]).await;
    assert_eq!(eve.lines(&["discover"]).await.len(), 2);
    let refused = eve.run(&["prompt", "a", "say hi", "2"]).await;
    assert!(refused.code == 3 && refused.stderr.contains("permissions violation"), "{refused}");
    // Nobody speaks for an agent, or into the inbox of another caller.
    for subject in [
        "agents.hb.mozart.default.a",
        "_INBOX.agents.x.y",
        "mozart.default.reply._INBOX.agents.x.y",
        "mozart.default.api.beat",
        "agents.prompt.mozart.other.a",
    ] {
        let said = ana.run(&["publish", subject]).await;
        assert!(said.stderr.contains("permissions violation"), "{subject}: {said}");
    }
}
