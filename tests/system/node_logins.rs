//! Nodes with logins of their own: they run agents without the fleet's password, and with all that one has, it is no other node, no agent and
//! no user.

use std::fs;
use std::path::{Path, PathBuf};

use common::codec;
use common::frame::ask::{NodeAnswer, NodeAsk, NodeTold};
use common::message::MessageKey;
use serde_json::Value;
use system_tests::harness::{Child, Fleet, Intruder, Said, Signal, eventually, flaky, kill};

const ECHO: &str = "MODEL test/model\nSOUL You repeat.";

/// A worker that answers what a file beside it says.
const WORKER: &str = "\
from helper import SAYS
from mozart_worker import Worker
Worker(lambda turn: turn.say(SAYS)).run()
";

/// A fleet, and the home of a node `n2` that has a login of its own.
struct Ground {
    fleet: Fleet,
    other: Fleet,
    creds: PathBuf,
    password: String,
}

impl Ground {
    async fn new(souls: &[(&str, &str)]) -> Self {
        let fleet = Fleet::with(souls).await;
        let creds = fleet.home().join("n2.creds");
        let file = creds.to_string_lossy().into_owned();
        let add = ["user", "add", "n2", "--scope", "node", "--file", &file];
        fleet.cli(add).await.ok().says(&format!("--creds {file} node --name n2"));
        let note = fleet.note().expect("`mozart up` runs");
        let url = note["url"].as_str().expect("a URL");
        let (login, host) = url.rsplit_once('@').expect("it has credentials");
        let password = login.rsplit_once(':').expect("a password").1.to_owned();
        let other =
            Fleet::new(&[]).env("NATS_URL", &format!("nats://{host}")).env("NATS_CREDS", &file);
        Self { fleet, other, creds, password }
    }

    /// Starts the node; agents that require `far` are for it.
    async fn node(&self) -> Child {
        let args = ["node", "--name", "n2", "--runtime", "process", "--label", "far=yes"];
        let node = self.other.spawn_cli(args);
        self.node_is("up").await;
        node
    }

    async fn node_is(&self, state: &str) {
        eventually(&format!("n2 is {state}"), async || {
            let rows = self.fleet.json(["node", "ls"]).await;
            let mut rows = rows.as_array().expect("a list").iter();
            match rows.any(|row| row["node"] == "n2" && row["state"] == state) {
                true => Ok(()),
                false => Err(format!("{rows:?}")),
            }
        })
        .await;
    }

    /// Applies an agent that runs on the node.
    async fn far(&self, name: &str, says: &str) {
        let souls = self.fleet.souls();
        fs::write(souls.join("own.py"), WORKER).expect("written");
        // More than one chunk.
        fs::write(souls.join("blob"), vec![7; 700 << 10]).expect("written");
        fs::write(souls.join("helper.py"), format!("SAYS = {says:?}\n")).expect("written");
        let soul = flaky("WORKER [\"python3\", \"own.py\"]\nREQUIRE far=yes");
        let file = self.fleet.soul(name, &soul);
        let file = file.to_string_lossy().into_owned();
        let _applied = self.fleet.cli(["apply", &file, "--wait"]).await.ok();
        assert_eq!(self.fleet.row(name).await["node"], "n2");
    }

    /// Whoever has the node's key.
    async fn intruder(&self) -> Intruder {
        let user = "mozart.default.node.n2";
        Intruder::connect_with_key(&self.fleet, user, &self.creds).await.expect("it has the key")
    }

    /// Refusals of a kind that the operator sees, of what the node tried.
    async fn seen(&self, kind: &str) -> Vec<String> {
        eventually("the operator sees it", async || {
            let events = self.fleet.json(["events", "--security"]).await;
            let events = events.as_array().expect("a list").iter();
            let of_kind = events.filter(|event| event["kind"] == kind && event["node"] == "n2");
            let details = of_kind.filter_map(|event| event["detail"].as_str().map(str::to_owned));
            let details: Vec<_> = details.collect();
            if details.is_empty() { Err("nothing".to_owned()) } else { Ok(details) }
        })
        .await
    }
}

/// Files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = entries.flat_map(|path| match path.is_dir() && !path.is_symlink() {
        true => holding(&path, text),
        false => {
            let content = fs::read(&path).unwrap_or_default();
            let holds = content.windows(text.len()).any(|part| part == text.as_bytes());
            if holds { vec![path] } else { Vec::new() }
        }
    });
    found.collect()
}

#[tokio::test]
async fn a_node_runs_agents_without_the_password_of_the_fleet() {
    let ground = Ground::new(&[("b", ECHO)]).await;
    let (fleet, other) = (&ground.fleet, &ground.other);
    let node = ground.node().await;
    ground.far("a", "one").await;
    assert_eq!(fleet.ask("a", "x").await, "one", "its files were applied on another host");
    let shim = other.shim("a");
    kill(shim, Signal::KILL);
    eventually("its shim is started again", async || {
        let shims = other.shims("a");
        if shims.is_empty() || shims == [shim] { Err(format!("{shims:?}")) } else { Ok(()) }
    })
    .await;
    assert_eq!(fleet.ask("a", "x").await, "one");
    ground.far("a", "two").await;
    assert_eq!(fleet.ask("a", "x").await, "two");
    let _replaced = fleet.cli(["replace", "a", "--wait"]).await.ok();
    assert_eq!(fleet.ask("a", "x").await, "two");
    assert_eq!(fleet.row("a").await["node"], "n2");

    // Neither the node nor what it has started knows the password.
    assert_eq!(holding(other.home(), &ground.password), Vec::<PathBuf>::new());
    let pids: Vec<u32> = other.processes().iter().map(|process| process.pid).collect();
    assert!(pids.len() >= 2, "a shim and a worker: {pids:?}");
    for pid in pids.iter().chain([&node.pid()]) {
        for file in ["environ", "cmdline"] {
            let read = fs::read(format!("/proc/{pid}/{file}")).expect("it runs");
            let read = String::from_utf8_lossy(&read);
            assert!(!read.contains(&ground.password), "{file} of {pid}");
        }
    }

    // The broker goes away and comes back.
    kill(fleet.nats_pid().expect("it runs"), Signal::KILL);
    eventually("the agent answers again", async || {
        let output = fleet.cli(["send", "a", "x", "--wait", "--timeout", "5s"]).await;
        if output.code == 0 { Ok(()) } else { Err(output.to_string()) }
    })
    .await;
    ground.node_is("up").await;
    ground.far("a", "three").await;
    assert_eq!(fleet.ask("a", "x").await, "three");
}

#[tokio::test]
async fn credentials_of_a_node_are_good_for_this_node_alone() {
    let ground = Ground::new(&[("b", ECHO)]).await;
    let (fleet, other) = (&ground.fleet, &ground.other);
    let said = other.cli(["node", "--name", "n3"]).await.exit(7);
    assert!(said.stderr.contains("these credentials are not of node n3"), "{said}");
    assert!(said.stderr.contains("--name n2"), "{said}");
    for args in [&["ps"][..], &["send", "b", "x"], &["supervisor"], &["user", "ls"]] {
        let said = other.cli(args).await.exit(7);
        assert!(said.stderr.contains("n2.creds is of node n2"), "{said}");
    }
    let _again = fleet.cli(["user", "add", "n2", "--scope", "read", "--file", "-"]).await.exit(4);
    let agent = ["user", "add", "n4", "--scope", "node", "--agent", "b", "--file", "-"];
    let _agent = fleet.cli(agent).await.exit(2);
    // A node may be called like an agent: it sends nothing.
    let _named = fleet.cli(["user", "add", "b", "--scope", "node", "--file", "-"]).await.ok();
    let file = fleet.home().join("ana.creds");
    let path = file.to_string_lossy().into_owned();
    let _ana = fleet.cli(["user", "add", "ana", "--scope", "admin", "--file", &path]).await.ok();
    for (user, creds) in [
        ("mozart.default.node.n1", &ground.creds),
        ("mozart.default.node.b", &ground.creds),
        ("mozart.default.user.n2", &ground.creds),
        ("mozart.default.user.ana", &ground.creds),
        ("mozart.default.shim.b.1", &ground.creds),
        ("mozart.default.node.ana", &file),
        ("mozart.default.node.n2", &file),
        ("mozart", &ground.creds),
    ] {
        let refused = Intruder::connect_with_key(fleet, user, creds).await;
        assert!(refused.is_err(), "{user} with {}", creds.display());
    }
    let seen = ground.seen("login").await;
    assert!(seen[0].starts_with("it has another key than the user, from "), "{seen:?}");
    let listed = fleet.cli(["events", "--security"]).await.ok();
    assert!(listed.stdout.contains("  node n2          login refused by "), "{listed}");
    assert!(listed.stdout.contains("  user n2          login refused by "), "{listed}");
}

#[tokio::test]
async fn a_node_that_was_revoked_is_out() {
    let ground = Ground::new(&[]).await;
    let fleet = &ground.fleet;
    let node = ground.node().await;
    ground.far("a", "one").await;
    let _revoked = fleet.cli(["user", "revoke", "n2"]).await.ok();
    let broker = fleet.broker().await;
    assert_eq!(broker.user_connections().await.expect("an answer"), []);
    let said = Intruder::connect_with_key(fleet, "mozart.default.node.n2", &ground.creds).await;
    assert!(said.is_err(), "it was revoked");
    ground.node_is("lost").await;
    drop(node);
    let again = ground.other.spawn_cli(["node", "--name", "n2", "--runtime", "process"]);
    eventually("it says what it waits for", async || {
        let said = again.complaints();
        let is_said = said.contains("node n2 is waiting: ") && said.contains("it was revoked");
        if is_said { Ok(()) } else { Err(said) }
    })
    .await;
}

fn is_violation(said: &Said, subject: &str) -> bool {
    matches!(said, Said::Error(error) if error.contains("Permissions Violation") && error.contains(subject))
}

#[tokio::test]
async fn a_node_publishes_to_nothing_and_hears_nothing_that_is_not_its_own() {
    let ground = Ground::new(&[("b", ECHO)]).await;
    let fleet = &ground.fleet;
    let mut intruder = ground.intruder().await;
    let streams = ["JOURNAL_0", "HISTORY", "CONTROL", "EVENTS", "FILES", "LOGS"].map(|stream| {
        let stream = format!("MOZART_default_{stream}");
        [
            format!("$JS.API.STREAM.INFO.{stream}"),
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}.mozart.default.files.x"),
            format!("$JS.API.STREAM.PURGE.{stream}"),
            format!("$JS.API.CONSUMER.CREATE.{stream}.x.mozart.default.>"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.b-1"),
            format!("$JS.ACK.{stream}.b-1.1.1.1.1.0"),
        ]
    });
    let others = [
        "$JS.API.INFO",
        "$JS.API.STREAM.MSG.GET.KV_MOZART_default_LEASE",
        "$JS.API.DIRECT.GET.KV_MOZART_default_LEASE.$KV.MOZART_default_LEASE.secret",
        "$KV.MOZART_default_LEASE.leader",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.SERVER.PING.CONNZ",
        "mozart.default.control.b",
        "mozart.default.control._fleet",
        "mozart.default.snapshot.9",
        "mozart.default.files.x",
        "mozart.default.dead.b.user.m1",
        "mozart.default.history.b.c",
        "mozart.default.query",
        "mozart.default.query.node.n2",
        "mozart.default.query.admin.n2",
        "mozart.default.node.n1.report",
        "mozart.default.node.n1.ask",
        "mozart.default.node.n1.command",
        "mozart.default.node.n2.command",
        "mozart.default.node._all.command",
        "mozart.default.disk",
        "mozart.default.shim.b.1.report",
        "mozart.default.shim.b.1.ask",
        "mozart.default.shim.b.x.command",
        "mozart.default.journal.b.user.m1.-.request.0",
        "mozart.default.journal.b.user.m1.-.final.0",
        "mozart.default.events.b.user.m1",
        "mozart.default.attempts.b.user.m1",
        "mozart.default.logs.b.1",
        "mozart.default.done.b.user.m1.-",
        "mozart.other.node.n2.report",
        "_INBOX.mozart.default.node.n1.x",
        "_INBOX.x",
        "_R_.x",
    ];
    for subject in streams.into_iter().flatten().chain(others.map(str::to_owned)) {
        intruder.publish(&subject, "", "{}").await;
        let said = intruder.said().await;
        let refused = said.iter().any(|said| is_violation(said, &format!("\"{subject}\"")));
        assert!(refused, "{subject}: {said:?}");
    }
    let _seen = ground.seen("publish").await;
    for subject in [
        ">",
        "*.>",
        "mozart.>",
        "mozart.default.>",
        "mozart.default.control.>",
        "mozart.default.journal.>",
        "mozart.default.events.>",
        "mozart.default.done.>",
        "mozart.default.node.>",
        "mozart.default.node.*.command",
        "mozart.default.node.n1.command",
        "mozart.default.node.n1.report",
        "mozart.default.node.*.ask",
        "mozart.default.shim.*.*.command",
        "mozart.default.query",
        "_INBOX.>",
        "_INBOX.mozart.default.>",
        "_INBOX.mozart.default.node.n1.>",
        "_R_.>",
        "$SYS.>",
        "$JS.>",
        "$KV.>",
    ] {
        intruder.subscribe(subject).await;
        let said = intruder.said().await;
        let refused = said.iter().any(|said| is_violation(said, &format!("\"{subject}\"")));
        assert!(refused, "{subject}: {said:?}");
    }
    let _seen = ground.seen("subscribe").await;
    assert_eq!(fleet.ask("b", "still there").await, "still there");
    assert_eq!(intruder.said().await, [], "it hears nothing");
}

/// What an intruder is told by the supervisors.
async fn told(intruder: &mut Intruder, ask: &NodeAsk) -> NodeTold {
    let frame = codec::encode(ask).expect("small");
    let inbox = "_INBOX.mozart.default.node.n2.x";
    intruder.publish_bytes("mozart.default.node.n2.ask", inbox, &frame).await;
    let said = intruder.hears().await;
    let [Said::Message { content, .. }] = said.as_slice() else { panic!("{said:?}") };
    let NodeAnswer { told, .. } = codec::decode(content).expect("an answer");
    told
}

#[tokio::test]
async fn a_node_is_told_of_no_files_but_those_that_it_starts() {
    let ground = Ground::new(&[("b", &flaky(""))]).await;
    let node = ground.node().await;
    ground.far("a", "one").await;
    let mut intruder = ground.intruder().await;
    intruder.subscribe("_INBOX.mozart.default.node.n2.x").await;
    let files = |agent: &str, incarnation| NodeAsk::Files {
        agent: agent.parse().expect("valid"),
        incarnation,
        chunk: None,
    };
    let own = told(&mut intruder, &files("a", 1)).await;
    assert!(matches!(own, NodeTold::Stored(Some(_))), "{own:?}");
    let others = told(&mut intruder, &files("b", 1)).await;
    assert!(matches!(others, NodeTold::Refused(_)), "{others:?}");
    let seen = ground.seen("question").await;
    assert!(seen[0].starts_with("the files of b-1"), "{seen:?}");
    drop(node);
}

#[tokio::test]
async fn what_a_node_is_answered_goes_to_no_stream_and_to_nobody_else() {
    let ground = Ground::new(&[("b", ECHO)]).await;
    let fleet = &ground.fleet;
    let broker = fleet.broker().await;
    let shard = broker.subjects().shard(&"b".parse().expect("valid"));
    let mut intruder = ground.intruder().await;
    // Of a node that there is none of: whatever comes is forged.
    let mut heard = Vec::new();
    for subject in ["node.n9.report", "node.n9.ask", "node.n9.command", "shim.b.9.report"] {
        let subject = format!("mozart.default.{subject}");
        heard.push(broker.subscribe(subject, None).await.expect("subscribed"));
    }
    let replies = [
        format!("mozart.default.journal.b.user.forged.-.request.{shard}"),
        format!("mozart.default.journal.b.user.forged.-.final.{shard}"),
        "mozart.default.events.b.user.forged".to_owned(),
        "mozart.default.control.b".to_owned(),
        "mozart.default.shim.b.9.report".to_owned(),
        "mozart.default.node.n9.report".to_owned(),
        "mozart.default.node.n9.ask".to_owned(),
        "mozart.default.node.n9.command".to_owned(),
        "$JS.API.STREAM.PURGE.MOZART_default_CONTROL".to_owned(),
    ];
    let ask = codec::encode(&NodeAsk::Fleet).expect("small");
    for reply in &replies {
        intruder.publish_bytes("mozart.default.node.n2.ask", reply, &ask).await;
        intruder.publish("mozart.default.flush", reply, "{}").await;
    }
    let _said = intruder.said().await;
    intruder.subscribe("_INBOX.mozart.default.node.n2.x").await;
    // Its own question is answered after all of these were.
    let fleet_told = told(&mut intruder, &NodeAsk::Fleet).await;
    assert!(matches!(fleet_told, NodeTold::Fleet { .. }), "{fleet_told:?}");
    assert_eq!(fleet.ask("b", "two").await, "two");
    for heard in &mut heard {
        let next = tokio::time::timeout(std::time::Duration::ZERO, heard.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
    let key = MessageKey {
        agent: "b".parse().expect("valid"),
        sender: "user".parse().expect("valid"),
        message_id: "forged".parse().expect("valid"),
    };
    assert!(broker.events(&key).await.expect("an answer").is_empty());
    assert!(broker.request_of(&key).await.expect("an answer").is_none());
    assert_eq!(fleet.row("b").await["incarnation"], 1);
    let nodes: Value = fleet.json(["node", "ls"]).await;
    assert_eq!(nodes.as_array().map(Vec::len), Some(1), "{nodes}");
}
