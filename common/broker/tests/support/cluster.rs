//! Three nat-servers that are one cluster.

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use broker::{Broker, ConnectOptions, StreamOptions};
use common::Namespace;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Three servers; killed when dropped.
pub(crate) struct Cluster {
    dir: TempDir,
    ports: Vec<(u16, u16)>,
    children: Vec<Option<Child>>,
}

/// Below the ports from which the system gives connections their own end: one of those may be taken while its server is down.
pub(crate) fn free_port() -> u16 {
    let random = || RandomState::new().hash_one(0_u8);
    let mut tries = (0..1000).map(|_| 10_000 + (random() % 22_000) as u16);
    tries.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let mut ports = Vec::new();
        for _ in 0..3 {
            ports.push((free_port(), free_port()));
        }
        let dir = tempfile::tempdir().expect("a folder");
        let mut cluster = Self { dir, ports, children: vec![None, None, None] };
        for n in 0..3 {
            cluster.revive(n);
        }
        cluster
    }

    fn store(&self, n: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("js{n}"))
    }

    /// Starts a server, on what it has on its disk.
    pub(crate) fn revive(&mut self, n: usize) {
        let routes: Vec<String> =
            self.ports.iter().map(|(_, route)| format!("nats://127.0.0.1:{route}")).collect();
        let config = format!(
            "server_name: s{n}\nlisten: \"127.0.0.1:{}\"\n\
             jetstream {{ store_dir: {:?} }}\n\
             cluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
            self.ports[n].0,
            self.store(n),
            self.ports[n].1,
            routes.join(", "),
        );
        let path = self.dir.path().join(format!("s{n}.conf"));
        std::fs::write(&path, config).expect("a config file");
        self.children[n] = Some(spawn(&path));
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self, n: usize) {
        let mut child = self.children[n].take().expect("it runs");
        child.kill().await.expect("it ran");
    }

    /// Its disk is lost.
    pub(crate) fn wipe(&self, n: usize) {
        std::fs::remove_dir_all(self.store(n)).expect("it was there");
    }

    pub(crate) fn url_of(&self, n: usize) -> String {
        format!("nats://127.0.0.1:{}", self.ports[n].0)
    }

    /// For a connection that knows all servers.
    pub(crate) fn options(&self) -> ConnectOptions {
        let urls: Vec<String> = (0..3).map(|n| self.url_of(n)).collect();
        ConnectOptions {
            url: urls.join(","),
            creds: None,
            ca: None,
            name: "test".into(),
            namespace: Namespace::new("test").expect("valid"),
            timeout: Duration::from_secs(30),
            shim: None,
        }
    }

    /// A connection that knows all servers.
    pub(crate) async fn broker(&self) -> Broker {
        let streams = StreamOptions { journal_shards: 1, replicas: None };
        Broker::connect_and_create(&self.options(), &streams).await.expect("a broker")
    }

    /// A client of one server.
    pub(crate) async fn client(&self, n: usize) -> async_nats::Client {
        async_nats::connect(self.url_of(n)).await.expect("a client")
    }
}

fn spawn(config: &Path) -> Child {
    let program = std::env::var("MOZART_NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
    Command::new(program)
        .arg("--config")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nats-server: set MOZART_NATS_SERVER or put it on PATH")
}
