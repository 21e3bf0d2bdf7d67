//! A nats-server, a shim with its worker, and the little of a supervisor that a shim needs.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use broker::{Broker, ConnectOptions, SendOutcome, StreamOptions, Subscription};
use common::codec;
use common::frame::{Heartbeat, ShimCommand, ShimReport};
use common::message::{Envelope, Final, Kind, MessageKey};
use common::shim::{CONFIG_ENV, ShimConfig, ShimExit};
use common::spec::AgentSpec;
use common::{AgentName, ConversationId, MessageId, Namespace, SenderName, Timestamp};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Long enough for a busy machine, short enough to notice.
const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The incarnation of the shim under test.
pub(crate) const INCARNATION: u64 = 4;

/// Waits for what must come.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it should have come by now")
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    soon(async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
            if let Some(found) = ask().await {
                return found;
            }
        }
    })
    .await
}

pub(crate) fn agent() -> AgentName {
    AgentName::new("me").expect("valid")
}

pub(crate) fn id(text: &str) -> MessageId {
    MessageId::new(text).expect("valid")
}

pub(crate) fn envelope(message: &str, conversation: &str, text: &str) -> Envelope {
    Envelope {
        message_id: id(message),
        agent: agent(),
        sender: SenderName::new("user").expect("valid"),
        kind: Kind::Chat,
        conversation_id: ConversationId::new(conversation).expect("valid"),
        message: text.into(),
        created_at: Timestamp::from_millis(1),
        request_id: None,
        deadline: None,
        hops: 0,
        cause: None,
        path: Vec::new(),
        redrive_of: None,
        traceparent: None,
        scheduled_for: None,
        deliver_at: None,
    }
}

/// A message's name.
pub(crate) fn key(message: &str) -> MessageKey {
    envelope(message, message, "").key()
}

/// A running nats-server; killed when dropped.
pub(crate) struct Server {
    dir: TempDir,
    pub(crate) port: u16,
    child: Child,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let child = serve(&dir, -1);
        let mut server = Self { dir, port: 0, child };
        server.port = server.announced_port().await;
        server
    }

    async fn announced_port(&self) -> u16 {
        let pid = self.child.id().expect("it runs");
        until(async || {
            let path = std::fs::read_dir(self.dir.path())
                .expect("our folder")
                .filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| path.to_string_lossy().ends_with(&format!("_{pid}.ports")))?;
            let ports: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
            ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
        })
        .await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// kill -9, then again on the same port and the same files.
    pub(crate) async fn kill_and_revive(&mut self) {
        self.child.kill().await.expect("it ran");
        self.child = serve(&self.dir, self.port.into());
        self.announced_port().await;
    }

    pub(crate) async fn broker(&self) -> Broker {
        let options = ConnectOptions {
            url: format!("nats://127.0.0.1:{}", self.port),
            creds: None,
            ca: None,
            name: "test".into(),
            namespace: Namespace::new("test").expect("valid"),
            timeout: SOON,
            shim: None,
        };
        let streams = StreamOptions { journal_shards: 1, replicas: None };
        Broker::connect_and_create(&options, &streams).await.expect("a broker")
    }
}

fn serve(dir: &TempDir, port: i32) -> Child {
    let program = std::env::var("MOZART_NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
    Command::new(program)
        .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "-js"])
        .arg("--ports_file_dir")
        .arg(dir.path())
        .arg("--store_dir")
        .arg(dir.path().join("js"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nats-server: set MOZART_NATS_SERVER or put it on PATH")
}

/// A shim that runs with its worker, and what the test sees of both.
pub(crate) struct Shim {
    pub(crate) broker: Broker,
    dir: TempDir,
    child: Child,
    reports: Subscription,
}

impl Shim {
    /// Starts one that has begun.
    pub(crate) async fn start(server: &Server) -> Self {
        let mut shim = Self::start_at(server, server.port, |_| {}).await;
        shim.admit().await;
        shim
    }

    /// Starts one that reaches the server by a port, and is not told to begin.
    pub(crate) async fn start_at(
        server: &Server,
        port: u16,
        change: impl FnOnce(&mut AgentSpec),
    ) -> Self {
        let broker = server.broker().await;
        let reports = broker.subjects().shim_report(&agent(), INCARNATION);
        let reports = broker.subscribe(reports, None).await.expect("a subscription");
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let mut spec = AgentSpec::new(agent(), "test/model", "test agent");
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/shim/worker.py");
        spec.worker = Some(vec!["python3".into(), script.to_string_lossy().into_owned()]);
        spec.env.insert("WITNESS".into(), path("witness"));
        change(&mut spec);
        let config = ShimConfig {
            url: format!("nats://127.0.0.1:{port}"),
            creds: None,
            ca: None,
            login: None,
            creds_text: None,
            secrets: Default::default(),
            user: None,
            writable: Vec::new(),
            namespace: Namespace::new("test").expect("valid"),
            incarnation: INCARNATION,
            generation: 1,
            token: TOKEN.into(),
            traces: None,
            spec,
            workdir: None,
            exit_file: Some(path("exit.json")),
        };
        let config = serde_json::to_vec(&config).expect("JSON");
        std::fs::write(path("shim.json"), config).expect("written");
        let child = Command::new(env!("CARGO_BIN_EXE_mozart-shim"))
            .env(CONFIG_ENV, path("shim.json"))
            .kill_on_drop(true)
            .spawn()
            .expect("the shim");
        Self { broker, dir, child, reports }
    }

    /// Does what a supervisor does about a shim that says ready.
    pub(crate) async fn admit(&mut self) {
        self.wait_ready().await;
        self.broker.create_consumer(&agent(), INCARNATION, 1, broker::WINDOW).await.expect("made");
        let horizon = self.broker.journal_last_seq(&agent()).await.expect("an answer");
        let (floor, consumer) = (0, common::frame::ConsumerId::default());
        self.command(&ShimCommand::Begin { horizon, floor, consumer }).await;
    }

    pub(crate) async fn wait_ready(&mut self) {
        while self.report().await != ShimReport::Ready {}
    }

    async fn report(&mut self) -> ShimReport {
        let report = soon(self.reports.next()).await.expect("the broker is there");
        codec::decode(&report.payload).expect("a report")
    }

    /// Leaves out what has been reported so far.
    pub(crate) async fn forget_reports(&mut self) {
        while tokio::time::timeout(Duration::ZERO, self.reports.next()).await.is_ok() {}
    }

    /// The shim's figures as they are now: what it said of its own accord may be older.
    pub(crate) async fn heartbeat(&mut self) -> Heartbeat {
        self.forget_reports().await;
        self.command(&ShimCommand::Ping).await;
        loop {
            if let ShimReport::Heartbeat(heartbeat) = self.report().await {
                return heartbeat;
            }
        }
    }

    /// The shim's figures once it has heard that so many final states are stored, which is after everybody else can read them.
    pub(crate) async fn heartbeat_after(&mut self, finished: u64) -> Heartbeat {
        until(async || Some(self.heartbeat().await).filter(|it| it.finished >= finished)).await
    }

    pub(crate) async fn command(&self, command: &ShimCommand) {
        let subject = self.broker.subjects().shim_command(&agent(), TOKEN);
        let frame = codec::encode(command).expect("small");
        self.broker.tell(subject, frame.into()).await.expect("told");
    }

    pub(crate) async fn send(&self, message: &str, conversation: &str, text: &str) {
        let sent = self.broker.send(&envelope(message, conversation, text), SOON).await;
        assert!(matches!(sent, Ok(SendOutcome::Stored { .. })), "{sent:?}");
    }

    pub(crate) async fn final_of(&self, message: &str) -> Option<Final> {
        let key: MessageKey = envelope(message, "c", "").key();
        let found = self.broker.final_of(&key).await.expect("an answer");
        found.map(|stored| stored.value)
    }

    pub(crate) async fn answer(&self, message: &str) -> Final {
        until(async || self.final_of(message).await).await
    }

    /// Waits until the consumer has given out so many requests that are not acked.
    pub(crate) async fn given_out(&self, count: u64) {
        until(async || {
            let consumer = self.broker.consumer(&agent(), INCARNATION).await.expect("an answer");
            consumer.filter(|consumer| consumer.ack_pending >= count)
        })
        .await;
    }

    /// The worker goes on with what it was told to `wait` with.
    pub(crate) fn let_go(&self) {
        std::fs::write(self.dir.path().join("witness.go"), "").expect("written");
    }

    /// The messages that the worker was given, in order.
    pub(crate) fn witness(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("witness")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The most memory that it ever had.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub(crate) async fn end(&mut self) -> (ExitStatus, ShimExit) {
        let status = soon(self.child.wait()).await.expect("our child");
        let left = std::fs::read(self.dir.path().join("exit.json")).expect("an exit file");
        (status, serde_json::from_slice(&left).expect("JSON"))
    }
}

pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it runs");
}
