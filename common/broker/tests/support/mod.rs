//! A nats-server of one's own, and short ways to say what a test is about.

pub(crate) mod cluster;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use broker::{Broker, ConnectOptions, StreamOptions};
use common::message::{Envelope, Final, Kind, MessageKey, Outcome};
use common::{AgentName, ConversationId, MessageId, Namespace, SenderName, Timestamp};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Long enough for a busy machine, short enough to notice.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits for what must come.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it should have come by now")
}

/// How many servers the broker of a test is: one, or three that are a cluster (`MOZART_TEST_SERVERS=3`). They live and die
/// together.
fn servers() -> usize {
    std::env::var("MOZART_TEST_SERVERS").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// Whether the broker is one server, for what holds only there.
pub(crate) fn is_alone() -> bool {
    servers() == 1
}

/// A running nats-server, or a cluster of them; killed when dropped.
pub(crate) struct Server {
    dir: TempDir,
    config: Option<PathBuf>,
    jetstream: bool,
    port: u16,
    child: Child,
    /// The ports of the cluster's routes; none where it is alone.
    routes: Vec<u16>,
    /// The other servers of the cluster.
    others: Vec<(TempDir, Child)>,
}

impl Server {
    /// With JetStream, in a fresh folder.
    pub(crate) async fn start() -> Self {
        Self::start_with(true, None).await
    }

    /// Without JetStream.
    pub(crate) async fn start_plain() -> Self {
        Self::start_with(false, None).await
    }

    /// With more settings in the server's own language.
    pub(crate) async fn start_configured(settings: &str) -> Self {
        Self::start_with(true, Some(settings)).await
    }

    async fn start_with(jetstream: bool, settings: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let config = settings.map(|settings| {
            let path = dir.path().join("server.conf");
            std::fs::write(&path, settings).expect("a config file");
            path
        });
        let mut routes = Vec::new();
        if jetstream && settings.is_none() && !is_alone() {
            for _ in 0..servers() {
                routes.push(cluster::free_port());
            }
        }
        let child = spawn(&dir, config.as_ref(), jetstream, -1, route(&routes, 0));
        let others = (1..routes.len()).map(|n| {
            let dir = tempfile::tempdir().expect("a folder");
            let child = spawn(&dir, None, true, -1, route(&routes, n));
            (dir, child)
        });
        let others = others.collect();
        let mut server = Self { dir, config, jetstream, port: 0, child, routes, others };
        server.port = soon(server.announced_port()).await;
        server
    }

    async fn announced_port(&self) -> u16 {
        let pid = self.child.id().expect("it runs");
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            let ports = std::fs::read_dir(self.dir.path())
                .expect("our folder")
                .filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| path.to_string_lossy().ends_with(&format!("_{pid}.ports")));
            let Some(text) = ports.and_then(|path| std::fs::read_to_string(path).ok()) else {
                continue;
            };
            let Ok(ports) = serde_json::from_str::<serde_json::Value>(&text) else {
                continue;
            };
            let url = ports["nats"][0].as_str().expect("an address");
            return url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("it ran");
        for (_, other) in &mut self.others {
            other.kill().await.expect("it ran");
        }
    }

    /// SIGSTOP: its connections stay, and nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        for child in std::iter::once(&self.child).chain(self.others.iter().map(|(_, it)| it)) {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
            let pid = pid.and_then(rustix::process::Pid::from_raw).expect("it runs");
            rustix::process::kill_process(pid, signal).expect("it is ours");
        }
    }

    /// Starts again, on the same port and the same files.
    pub(crate) async fn revive(&mut self) {
        let Self { dir, config, jetstream, port, routes, .. } = &*self;
        self.child = spawn(dir, config.as_ref(), *jetstream, (*port).into(), route(routes, 0));
        for (n, (dir, child)) in self.others.iter_mut().enumerate() {
            *child = spawn(dir, None, true, -1, route(&self.routes, n + 1));
        }
        soon(self.announced_port()).await;
        if !self.routes.is_empty() {
            // A cluster that was dead as a whole elects for longer than most calls wait.
            tokio::time::timeout(3 * SOON, self.led()).await.expect("its streams have leaders");
        }
    }

    /// Waits until every stream has a leader.
    async fn led(&self) {
        let client = self.client().await;
        let ask = async |what: String| {
            let answer = client.request(format!("$JS.API.{what}"), "".into()).await.ok()?;
            serde_json::from_slice::<serde_json::Value>(&answer.payload).ok()
        };
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        'again: loop {
            tick.tick().await;
            let Some(names) = ask("STREAM.NAMES".to_owned()).await else { continue };
            let Some(names) = names["streams"].as_array().cloned() else { continue };
            for name in names {
                let name = name.as_str().expect("a name");
                let info = ask(format!("STREAM.INFO.{name}")).await;
                if info.is_none_or(|info| info["cluster"]["leader"].is_null()) {
                    continue 'again;
                }
            }
            return;
        }
    }

    /// The folder of JetStream's files.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("js")
    }

    fn stream_folder(&self, stream: &str) -> PathBuf {
        self.dir.path().join("js/jetstream/$G/streams").join(stream)
    }

    /// Whether a text is in any of the server's files.
    pub(crate) fn stored(&self, text: &str) -> bool {
        fn any(folder: &Path, text: &[u8]) -> bool {
            std::fs::read_dir(folder).expect("a folder").any(|entry| {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    return any(&path, text);
                }
                let bytes = std::fs::read(path).unwrap_or_default();
                bytes.windows(text.len()).any(|window| window == text)
            })
        }
        any(self.dir.path(), text.as_bytes())
    }

    /// The files of a stream, while the server is dead.
    pub(crate) fn copy_of_stream(&self, stream: &str) -> TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        copy_all(&self.stream_folder(stream), copy.path());
        copy
    }

    /// Puts them back.
    pub(crate) fn restore_stream(&self, stream: &str, copy: &TempDir) {
        let folder = self.stream_folder(stream);
        std::fs::remove_dir_all(&folder).expect("it is there");
        copy_all(copy.path(), &folder);
    }

    pub(crate) async fn kill_and_revive(&mut self) {
        self.kill().await;
        self.revive().await;
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions {
            url: self.url(),
            creds: None,
            ca: None,
            name: "test".into(),
            namespace: Namespace::new("test").expect("valid"),
            timeout: Duration::from_secs(10),
            shim: None,
        }
    }

    /// A connection to a namespace with one journal shard.
    pub(crate) async fn broker(&self) -> Broker {
        self.broker_of(1).await
    }

    pub(crate) async fn broker_of(&self, journal_shards: u32) -> Broker {
        self.broker_in("test", journal_shards).await
    }

    /// The same in a namespace of that name.
    pub(crate) async fn broker_in(&self, namespace: &str, journal_shards: u32) -> Broker {
        let mut options = self.options();
        options.namespace = Namespace::new(namespace).expect("valid");
        let streams = StreamOptions { journal_shards, replicas: None };
        Broker::connect_and_create(&options, &streams).await.expect("a broker")
    }

    /// A client of the same server that keeps to no rules.
    pub(crate) async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.expect("a client")
    }
}

/// Removes a namespace. Each sets more than a GiB aside, and a small disk has room for a few dozen.
pub(crate) async fn drop_namespace(broker: &Broker) {
    soon(broker.reset(broker::Reset::All)).await.expect("removed");
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_all(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("a file");
        }
    }
}

/// What makes a server the nth of a cluster.
fn route(routes: &[u16], n: usize) -> Vec<String> {
    let url = |port: &u16| format!("nats://127.0.0.1:{port}");
    let Some(own) = routes.get(n) else { return Vec::new() };
    let all: Vec<_> = routes.iter().map(url).collect();
    let (name, own, all) = (format!("s{n}"), url(own), all.join(","));
    let args = ["--name", &name, "--cluster_name", "c", "--cluster", &own, "--routes", &all];
    args.map(str::to_owned).to_vec()
}

fn spawn(
    dir: &TempDir,
    config: Option<&PathBuf>,
    jetstream: bool,
    port: i32,
    route: Vec<String>,
) -> Child {
    let program = std::env::var("MOZART_NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
    let mut command = Command::new(program);
    command
        .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
        .arg("--ports_file_dir")
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command.args(route);
    if jetstream {
        command.arg("-js").arg("--store_dir").arg(dir.path().join("js"));
    }
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command.spawn().expect("nats-server: set MOZART_NATS_SERVER or put it on PATH")
}

pub(crate) fn agent(name: &str) -> AgentName {
    AgentName::new(name).expect("valid")
}

pub(crate) fn message(id: &str) -> MessageId {
    MessageId::new(id).expect("valid")
}

pub(crate) fn key(agent_name: &str, id: &str) -> MessageKey {
    envelope(agent_name, id).key()
}

pub(crate) fn envelope(agent_name: &str, id: &str) -> Envelope {
    let message_id = message(id);
    Envelope {
        conversation_id: ConversationId::from(&message_id),
        message_id,
        agent: agent(agent_name),
        sender: SenderName::new("user").expect("valid"),
        kind: Kind::Chat,
        message: format!("text of {id}"),
        created_at: Timestamp::from_millis(1),
        request_id: None,
        deadline: None,
        hops: 0,
        path: Vec::new(),
        cause: None,
        redrive_of: None,
        traceparent: None,
        scheduled_for: None,
        deliver_at: None,
    }
}

/// The name of an incarnation's consumer.
pub(crate) async fn consumer(broker: &Broker, agent: &AgentName, incarnation: u64) -> String {
    broker.consumer_name(agent, incarnation).await.expect("an answer")
}

/// Messages of one id: at two agents, and from two senders.
pub(crate) fn namesakes() -> Vec<Envelope> {
    let names = [("a", "user"), ("b", "user"), ("a", "c"), ("b", "c")];
    let envelope = |(agent, sender): (&str, &str)| {
        let mut envelope = envelope(agent, "m1");
        envelope.sender = SenderName::new(sender).expect("valid");
        envelope
    };
    names.into_iter().map(envelope).collect()
}

pub(crate) fn completed(response: &str) -> Final {
    Final {
        status: Outcome::Completed,
        response: Some(response.into()),
        reason: None,
        attempts: 1,
        incarnation: Some(1),
        at: Timestamp::from_millis(2),
        tail: Vec::new(),
    }
}
