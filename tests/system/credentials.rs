//! An agent that was taken over: with all that its shim has, it reaches nothing of another agent and nothing of the fleet, and what it tries
//! is seen.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use broker::Broker;
use common::codec;
use common::frame::ask::{ShimAnswer, ShimAsk, Told};
use common::message::MessageKey;
use system_tests::harness::{Fleet, Intruder, Said, eventually, flaky, login_of, run};

const ECHO: &str = "MODEL test/model\nSOUL You repeat.";

/// A flood lasts no longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Two agents, of which `a` was taken over.
async fn taken_over() -> (Fleet, Broker, Intruder) {
    let fleet = Fleet::with(&[("a", ECHO), ("b", ECHO)]).await;
    let broker = fleet.broker().await;
    let (user, password) = login_of(&broker, "a", 1).await;
    let intruder = Intruder::connect(&fleet, &user, &password).await.expect("it has the login");
    (fleet, broker, intruder)
}

/// Refusals of a kind that the operator sees, of what an agent tried.
async fn seen(fleet: &Fleet, agent: &str, kind: &str) -> Vec<String> {
    let events = fleet.json(["events", agent, "--security"]).await;
    let events = events.as_array().expect("a list");
    let of_kind = events.iter().filter(|event| event["kind"] == kind && event["agent"] == agent);
    of_kind.map(|event| event["detail"].as_str().expect("a detail").to_owned()).collect()
}

async fn is_seen(fleet: &Fleet, agent: &str, kind: &str) -> Vec<String> {
    eventually("the operator sees it", async || {
        let seen = seen(fleet, agent, kind).await;
        if seen.is_empty() { Err("nothing".to_owned()) } else { Ok(seen) }
    })
    .await
}

fn is_violation(said: &Said, subject: &str) -> bool {
    matches!(said, Said::Error(error) if error.contains("Permissions Violation") && error.contains(subject))
}

#[tokio::test]
async fn an_agent_publishes_to_nothing_that_is_not_its_own() {
    let (fleet, _broker, mut intruder) = taken_over().await;
    let streams = ["JOURNAL_0", "JOURNAL_1", "HISTORY", "CONTROL", "EVENTS", "SECURITY", "FILES"];
    let api = streams.iter().flat_map(|stream| {
        let stream = format!("MOZART_default_{stream}");
        [
            format!("$JS.API.STREAM.INFO.{stream}"),
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}.mozart.default.journal.b.user.m1.-.request.0"),
            format!("$JS.API.STREAM.PURGE.{stream}"),
            format!("$JS.API.STREAM.DELETE.{stream}"),
            format!("$JS.API.STREAM.UPDATE.{stream}"),
            format!("$JS.API.STREAM.SNAPSHOT.{stream}"),
            format!("$JS.API.CONSUMER.CREATE.{stream}.x.mozart.default.>"),
            format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.x"),
            format!("$JS.API.CONSUMER.DELETE.{stream}.b-1"),
            format!("$JS.API.CONSUMER.INFO.{stream}.a-1"),
            format!("$JS.API.CONSUMER.INFO.{stream}.b-1"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.b-1"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.a-2"),
            format!("$JS.ACK.{stream}.b-1.1.1.1.1.0"),
            format!("$JS.ACK._.x.{stream}.b-1.1.1.1.1.0.x"),
        ]
    });
    let others = [
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.CREATE.x",
        "$JS.FC.x",
        "$JS.EVENT.x",
        "$KV.MOZART_default_LEASE.leader",
        "$KV.MOZART_default_LEASE.admitted.b",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.SERVER.PING.CONNZ",
        "$SYS.REQ.SERVER.x.KICK",
        "mozart.default.control.a",
        "mozart.default.control._fleet",
        "mozart.default.snapshot.9",
        "mozart.default.files.x",
        "mozart.default.dead.a.user.m1",
        "mozart.default.history.a.c",
        "mozart.default.security.a",
        "mozart.default.query",
        "mozart.default.query._all",
        "mozart.default.node.n1.report",
        "mozart.default.node.n1.command",
        "mozart.default.disk",
        "mozart.default.shim.a.2.report",
        "mozart.default.shim.b.1.report",
        "mozart.default.shim.b.1.ask",
        "mozart.default.shim.a.x.command",
        "mozart.default.shim.b.x.command",
        "mozart.default.journal.b.user.m1.-.request.0",
        "mozart.default.journal.a.user.m1.-.request.0",
        "mozart.default.journal.b.user.m1.-.final.0",
        "mozart.default.events.b.user.m1",
        "mozart.default.attempts.b.user.m1",
        "mozart.default.logs.b.1",
        "mozart.default.logs.a.2",
        "mozart.default.done.a.user.m1.-",
        "mozart.other.events.a.user.m1",
        "_INBOX.mozart.default.b.1.x",
        "_INBOX.x",
        "_R_.x",
    ];
    for subject in api.chain(others.map(str::to_owned)) {
        intruder.publish(&subject, "", "{}").await;
        let said = intruder.said().await;
        let refused = said.iter().any(|said| is_violation(said, &format!("\"{subject}\"")));
        assert!(refused, "{subject}: {said:?}");
    }
    let _seen = is_seen(&fleet, "a", "publish").await;
    // The name that it gives itself looks like a violation of b.
    assert!(seen(&fleet, "b", "publish").await.is_empty());
    assert_eq!(fleet.ask("b", "still there").await, "still there");
    assert_eq!(fleet.ask("a", "and so am I").await, "and so am I");
}

#[tokio::test]
async fn an_agent_listens_to_nothing_that_is_not_its_own() {
    let (fleet, _broker, mut intruder) = taken_over().await;
    for subject in [
        ">",
        "*",
        "*.>",
        "mozart.>",
        "mozart.default.>",
        "mozart.default.journal.>",
        "mozart.default.events.>",
        "mozart.default.events.a.>",
        "mozart.default.done.>",
        "mozart.default.done.a.user.*.*",
        "mozart.default.done.*.b.*.*",
        "mozart.default.shim.*.*.command",
        "mozart.default.shim.a.*.command",
        "mozart.default.shim.b.>",
        "mozart.default.node.>",
        "mozart.default.query",
        "_INBOX.>",
        "_INBOX.mozart.default.>",
        "_INBOX.mozart.default.b.1.>",
        "_INBOX.mozart.default.a.>",
        "_R_.>",
        "$SYS.>",
        "$JS.>",
        "$JS.EVENT.>",
        "$KV.>",
    ] {
        intruder.subscribe(subject).await;
        let said = intruder.said().await;
        let refused = said.iter().any(|said| is_violation(said, &format!("\"{subject}\"")));
        assert!(refused, "{subject}: {said:?}");
    }
    let _seen = is_seen(&fleet, "a", "subscribe").await;
    assert_eq!(fleet.ask("b", "whispered").await, "whispered");
    assert_eq!(intruder.said().await, [], "it hears nothing");
}

/// All of a fleet's messages, as the journal lists them.
async fn messages(fleet: &Fleet, agent: &str) -> BTreeSet<String> {
    let listed = fleet.json(["journal", "ls", "--agent", agent]).await;
    let rows = listed.as_array().expect("a list").iter();
    rows.map(|row| row["messageId"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn what_an_agent_is_answered_goes_to_no_stream_and_to_no_other_agent() {
    let (fleet, broker, mut intruder) = taken_over().await;
    assert_eq!(fleet.ask("b", "one").await, "one");
    let before = messages(&fleet, "b").await;
    let subjects = broker.subjects();
    let a = "a".parse().expect("valid");
    let stream = subjects.journal_stream(subjects.shard(&a));
    let shard = subjects.shard(&"b".parse().expect("valid"));
    let replies = [
        format!("mozart.default.journal.b.user.forged.-.request.{shard}"),
        format!("mozart.default.journal.b.user.forged.-.final.{shard}"),
        "mozart.default.events.b.user.forged".to_owned(),
        "mozart.default.control.b".to_owned(),
        "mozart.default.shim.b.1.report".to_owned(),
        "mozart.default.node.n1.report".to_owned(),
        "mozart.default.logs.b.1".to_owned(),
        "$JS.API.STREAM.PURGE.MOZART_default_CONTROL".to_owned(),
        format!("$JS.API.CONSUMER.DELETE.{stream}.b-1"),
    ];
    let ask = codec::encode(&ShimAsk::Time).expect("small");
    for reply in &replies {
        // What a stream, a consumer and a supervisor answer.
        intruder.publish("mozart.default.events.a.user.own", reply, "{}").await;
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.a-1");
        intruder.publish(&next, reply, r#"{"batch":1,"no_wait":true}"#).await;
        intruder.publish_bytes("mozart.default.shim.a.1.ask", reply, &ask).await;
    }
    let _said = intruder.said().await;
    // Its own question is answered after all of these were.
    intruder.subscribe("_INBOX.mozart.default.a.1.x").await;
    intruder
        .publish_bytes("mozart.default.shim.a.1.ask", "_INBOX.mozart.default.a.1.x", &ask)
        .await;
    let said = intruder.hears().await;
    assert!(matches!(said.as_slice(), [Said::Message { .. }]), "{said:?}");

    assert_eq!(fleet.ask("b", "two").await, "two");
    let after = messages(&fleet, "b").await;
    assert_eq!(after.difference(&before).count(), 1, "{after:?}");
    let key = MessageKey {
        agent: "b".parse().expect("valid"),
        sender: "user".parse().expect("valid"),
        message_id: "forged".parse().expect("valid"),
    };
    assert!(broker.events(&key).await.expect("an answer").is_empty());
    assert!(broker.request_of(&key).await.expect("an answer").is_none());
    assert_eq!(fleet.row("b").await["incarnation"], 1);
}

#[tokio::test]
async fn an_agent_is_told_nothing_of_another_ones_messages() {
    let (fleet, _broker, mut intruder) = taken_over().await;
    let sent = fleet.json(["send", "b", "a secret", "--wait"]).await;
    let id = sent["messageId"].as_str().expect("an id");
    let key = MessageKey {
        agent: "b".parse().expect("valid"),
        sender: sent["sender"].as_str().unwrap_or("cli").parse().expect("valid"),
        message_id: id.parse().expect("valid"),
    };
    let inbox = "_INBOX.mozart.default.a.1.x";
    intruder.subscribe(inbox).await;
    let asks = [
        ShimAsk::Standing(key.clone()),
        ShimAsk::Last { key: key.clone(), is_final: false },
        ShimAsk::Last { key: key.clone(), is_final: true },
        ShimAsk::Message(key.clone()),
        ShimAsk::Mark(key.clone()),
        ShimAsk::Bury { key, final_: b"{}".to_vec(), log: Vec::new() },
    ];
    for ask in asks {
        let frame = codec::encode(&ask).expect("small");
        intruder.publish_bytes("mozart.default.shim.a.1.ask", inbox, &frame).await;
        let said = intruder.hears().await;
        let [Said::Message { content, .. }] = said.as_slice() else { panic!("{said:?}") };
        let ShimAnswer { told, .. } = codec::decode(content).expect("an answer");
        assert!(matches!(told, Told::Refused(_)), "{ask:?}: {told:?}");
    }
    let seen = is_seen(&fleet, "a", "question").await;
    assert!(seen[0].contains(id), "{seen:?}");
}

#[tokio::test]
async fn only_an_incarnation_that_is_current_connects_and_one_that_was_replaced_is_disconnected() {
    let fleet = Fleet::with(&[("a", &flaky("")), ("b", ECHO)]).await;
    let broker = fleet.broker().await;
    let (user, password) = login_of(&broker, "a", 1).await;
    let (other, others) = login_of(&broker, "b", 1).await;
    let (next, nexts) = login_of(&broker, "a", 2).await;
    for (user, password) in [
        (user.as_str(), "wrong"),
        (user.as_str(), ""),
        (user.as_str(), others.as_str()),
        (other.as_str(), password.as_str()),
        (next.as_str(), nexts.as_str()),
        ("mozart", "wrong"),
        ("somebody", "x"),
        ("", ""),
    ] {
        let refused = Intruder::connect(&fleet, user, password).await;
        assert!(refused.is_err(), "{user} {password}");
    }
    let seen = is_seen(&fleet, "a", "login").await;
    assert!(seen[0].starts_with("wrong password, from "), "{seen:?}");

    let mut intruder = Intruder::connect(&fleet, &user, &password).await.expect("current");
    let _replaced = fleet.cli(["replace", "a", "--wait"]).await.ok();
    let said = intruder.hears().await;
    assert_eq!(said.last(), Some(&Said::Ended), "{said:?}");
    let again = Intruder::connect(&fleet, &user, &password).await;
    assert!(again.is_err(), "it was replaced");
    let seen = is_seen(&fleet, "a", "connection").await;
    assert_eq!(seen, ["it was replaced or has ended, and was still connected"]);
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
}

/// Adds a user, and yields what its commands need.
async fn user(fleet: &Fleet, name: &str, more: &[&str]) -> Vec<(String, String)> {
    let file = fleet.home().join(format!("{name}.creds"));
    let file = file.to_string_lossy().into_owned();
    let add = [&["user", "add", name, "--file", &file], more].concat();
    let _added = fleet.cli(add).await.ok();
    let url = fleet.note().expect("`mozart up` runs")["url"].as_str().expect("a URL").to_owned();
    let host = url.rsplit_once('@').expect("it has credentials").1;
    vec![("NATS_URL".to_owned(), format!("nats://{host}")), ("NATS_CREDS".to_owned(), file)]
}

/// Runs a command as a user; its exit code, and what it said.
async fn as_user(fleet: &Fleet, env: &[(String, String)], args: &[&str]) -> (i32, String) {
    let mut command = fleet.command(args);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    let output = run(command).await;
    (output.code, format!("{}{}", output.stdout, output.stderr))
}

#[tokio::test]
async fn users_do_what_their_scopes_allow_and_nothing_else() {
    let fleet = Fleet::with(&[("a", ECHO), ("b", ECHO)]).await;
    let reads = user(&fleet, "rita", &["--scope", "read"]).await;
    let sends = user(&fleet, "sam", &["--scope", "send", "--agent", "a"]).await;
    let operates = user(&fleet, "olga", &["--scope", "operate"]).await;
    let admin = user(&fleet, "adam", &["--scope", "admin"]).await;
    let can = async |env, args: &[&str]| {
        let (code, said) = as_user(&fleet, env, args).await;
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    };
    let cannot = async |env, args: &[&str]| {
        let (code, said) = as_user(&fleet, env, args).await;
        assert_eq!(code, 7, "{args:?}: {said}");
        said
    };
    // What everybody may.
    for env in [&reads, &sends, &operates, &admin] {
        for args in [
            &["ps"][..],
            &["inspect", "a"],
            &["explain", "a"],
            &["journal", "ls"],
            &["events"],
            &["events", "--security"],
            &["logs", "a"],
            &["dead", "ls"],
            &["node", "ls"],
            &["wait", "a"],
            &["usage", "--storage"],
        ] {
            let _said = can(env, args).await;
        }
    }
    for env in [&sends, &operates, &admin] {
        assert!(can(env, &["send", "a", "hello", "--wait"]).await.contains("hello"));
        assert!(can(env, &["chat", "a", "streamed"]).await.contains("streamed"));
    }
    let listed = fleet.json(["journal", "ls", "--sender", "sam"]).await;
    assert_eq!(listed.as_array().expect("a list").len(), 2, "{listed}");

    let said = cannot(&reads, &["send", "a", "x"]).await;
    assert!(said.contains("user rita has scope read, and sending needs send"), "{said}");
    let said = cannot(&sends, &["send", "b", "x"]).await;
    assert!(said.contains("and may send to a only"), "{said}");
    for env in [&reads, &sends] {
        let said = cannot(env, &["stop", "a"]).await;
        assert!(said.contains("and it needs operate"), "{said}");
        let _said = cannot(env, &["rm", "a"]).await;
    }
    for env in [&reads, &sends, &operates] {
        let _said = cannot(env, &["user", "add", "eve", "--scope", "admin", "--file", "-"]).await;
        let _said = cannot(env, &["user", "ls"]).await;
        let said = cannot(env, &["forget", "a"]).await;
        assert!(said.contains(", and it needs admin"), "{said}");
    }
    let _said = can(&operates, &["restart", "b"]).await;
    let events = fleet.json(["events", "b"]).await;
    let restarted = events.as_array().expect("a list").iter();
    let authors: Vec<_> = restarted
        .filter(|event| event["type"] == "agentRestarted")
        .map(|event| event["author"].clone())
        .collect();
    assert_eq!(authors, ["olga"]);
    let _said = can(&admin, &["user", "ls"]).await;
    let changes = fleet.json(["events", "--security"]).await;
    let of_sam = changes.as_array().expect("a list").iter();
    let of_sam: Vec<_> = of_sam.filter(|event| event["user"] == "sam").collect();
    assert!(of_sam.iter().any(|event| event["kind"] == "change"), "{changes}");
}

#[tokio::test]
async fn a_user_that_was_revoked_is_out_and_its_name_can_be_given_again() {
    let fleet = Fleet::with(&[("a", ECHO)]).await;
    let first = user(&fleet, "ana", &["--scope", "send"]).await;
    let _again = fleet.cli(["user", "add", "ana", "--scope", "read", "--file", "-"]).await.exit(4);
    let _agent = fleet.cli(["user", "add", "a", "--scope", "read", "--file", "-"]).await.exit(4);
    let _kept = fleet.cli(["user", "add", "user", "--scope", "read", "--file", "-"]).await.exit(4);
    let kept = std::fs::read_to_string(&first[1].1).expect("the file");

    let mut command = fleet.command(["logs", "a", "-f"]);
    command.envs(first.iter().map(|(name, value)| (name, value)));
    let mut follows = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    eventually("it is connected", async || {
        let broker = fleet.broker().await;
        let connected = broker.user_connections().await.expect("an answer");
        if connected.is_empty() { Err("nobody".to_owned()) } else { Ok(()) }
    })
    .await;
    let _revoked = fleet.cli(["user", "revoke", "ana"]).await.ok();
    let broker = fleet.broker().await;
    assert_eq!(broker.user_connections().await.expect("an answer"), []);
    let (code, said) = as_user(&fleet, &first, &["ps"]).await;
    assert_eq!(code, 7, "{said}");
    follows.kill().await.expect("ours");
    let _gone = fleet.cli(["user", "revoke", "ana"]).await.exit(3);

    std::fs::remove_file(&first[1].1).expect("it is there");
    let second = user(&fleet, "ana", &["--scope", "read"]).await;
    assert_eq!(as_user(&fleet, &second, &["ps"]).await.0, 0);
    // The file of before is of another key.
    std::fs::write(&second[1].1, kept).expect("written");
    let (code, said) = as_user(&fleet, &second, &["ps"]).await;
    assert_eq!(code, 7, "{said}");
    let seen = fleet.json(["events", "--security"]).await;
    let reasons = seen.as_array().expect("a list").iter();
    let reasons: Vec<_> = reasons.filter(|event| event["user"] == "ana").collect();
    assert!(!reasons.is_empty(), "{seen}");
}

#[tokio::test]
async fn an_agent_that_floods_the_broker_is_stopped() {
    let (fleet, broker, mut intruder) = taken_over().await;
    let content = "x".repeat(512 << 10);
    let flood = async {
        let began = Instant::now();
        while !intruder.said().await.contains(&Said::Ended) {
            assert!(began.elapsed() < LONGEST, "it goes on and on");
            for _ in 0..16 {
                intruder.publish("mozart.default.events.a.user.m1", "", &content).await;
            }
        }
    };
    let chats = async {
        // Somebody else is served meanwhile.
        for number in 0..20 {
            let text = format!("number {number}");
            let answer = fleet.cli(["send", "b", &text, "--wait"]).await.ok();
            assert_eq!(answer.stdout, format!("{text}\n"));
        }
    };
    tokio::join!(flood, chats);
    let seen = is_seen(&fleet, "a", "flood").await;
    assert!(seen[0].contains("256 MiB") && seen[0].contains("it was stopped"), "{seen:?}");
    let _row = fleet.wait_state("a", "stopped").await;
    let log = fleet.cli(["events", "a"]).await.ok().stdout;
    assert!(log.contains("flood-limit"), "{log}");
    let (user, password) = login_of(&broker, "a", 1).await;
    assert!(Intruder::connect(&fleet, &user, &password).await.is_err(), "it does not come back");
    let rows = fleet.json(["ps", "-a"]).await;
    let b = rows.as_array().and_then(|rows| rows.iter().find(|row| row["agent"] == "b"));
    assert_eq!(
        b.map(|row| (&row["state"], &row["incarnation"])),
        Some((&"running".into(), &1.into()))
    );
}
