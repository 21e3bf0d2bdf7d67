//! A nats-server of its own: the same process and settings for both sides.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use broker::reference::client::jetstream;
use broker::{Accounts, AuthKey, User};

use system_tests::harness::free_port;

use crate::cpu;
use crate::outcome::{Result, fail};
use crate::process::{self, Owned};

/// When the server syncs what it stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Before it says that a record is stored.
    Always,
    /// Every two minutes, its own default.
    Lazy,
}

impl Sync {
    /// Journal streams, as `mozart up` would make them.
    pub(crate) fn shards(self) -> u32 {
        match self {
            Self::Always => 4,
            Self::Lazy => 1,
        }
    }

    /// As figures are named.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Lazy => "lazy",
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    folder: PathBuf,
    sync: Sync,
    /// With it, shims log in with rights of their own.
    pub(crate) key: Option<AuthKey>,
    /// The file with the certificate that it is known by, where it takes TLS alone.
    pub(crate) ca: Option<PathBuf>,
    process: Owned,
    /// The other servers of its cluster.
    _others: Vec<Owned>,
}

impl Server {
    /// Starts a server with its data below `folder`.
    pub(crate) async fn start(folder: &Path, sync: Sync, key: Option<AuthKey>) -> Result<Self> {
        Self::start_with(folder, sync, key, None).await
    }

    /// The same, that takes TLS alone.
    pub(crate) async fn start_secured(folder: &Path, sync: Sync, key: AuthKey) -> Result<Self> {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let (ca, secret) = (folder.join("ca.pem"), folder.join("key.pem"));
        std::fs::write(&ca, cert.pem())?;
        std::fs::write(&secret, signing_key.serialize_pem())?;
        Self::start_with(folder, sync, Some(key), Some((ca, secret))).await
    }

    async fn start_with(
        folder: &Path,
        sync: Sync,
        key: Option<AuthKey>,
        tls: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self> {
        let quoted = |path: &Path| common::quote::nats_conf(&path.to_string_lossy());
        let conf = tls.as_ref().map(|(certificate, secret)| {
            let (certificate, secret) = (quoted(certificate), quoted(secret));
            format!("tls {{ cert_file: {certificate}, key_file: {secret} }}\n")
        });
        let process = launch(folder, sync, key.as_ref(), "-1", &conf.unwrap_or_default())?;
        let url = process::until("nats-server", Duration::from_secs(10), async || {
            Ok(ports_file(&folder.join(PORTS), process.id()).and_then(|path| url(&path)))
        })
        .await?;
        let url = match &key {
            Some(_) => url.replacen("://", &format!("://{USER}:{PASSWORD}@"), 1),
            None => url,
        };
        let (folder, ca) = (folder.to_owned(), tls.map(|(certificate, _)| certificate));
        Ok(Self { url, folder, sync, key, ca, process, _others: Vec::new() })
    }

    /// Starts a cluster of three, of which clients know all.
    pub(crate) async fn start_three(folder: &Path, sync: Sync) -> Result<Self> {
        let ports: Vec<u16> = std::iter::repeat_with(free_port).take(6).collect();
        let (clients, routes) = ports.split_at(3);
        let all = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\""));
        let all = all.collect::<Vec<_>>().join(", ");
        let mut servers = Vec::new();
        for (number, (client, route)) in clients.iter().zip(routes).enumerate() {
            let cluster = format!(
                "server_name: s{number}
cluster {{ name: bench, listen: \"127.0.0.1:{route}\", routes: [{all}] }}
"
            );
            let folder = folder.join(format!("s{number}"));
            servers.push(launch(&folder, sync, None, &client.to_string(), &cluster)?);
        }
        let url = clients.iter().map(|port| format!("nats://127.0.0.1:{port}"));
        let url = url.collect::<Vec<_>>().join(",");
        process::until("a cluster of three", Duration::from_secs(30), async || {
            Ok(takes_three_replicas(&url).await.ok())
        })
        .await?;
        let Some(process) = servers.pop() else { return fail("no server was started") };
        let folder = folder.to_owned();
        Ok(Self { url, folder, sync, key: None, ca: None, process, _others: servers })
    }

    /// Kills it, and starts it on its data again, where everybody looks for it. It does not answer yet.
    pub(crate) fn kill_and_start(&mut self) -> Result<()> {
        self.process.end();
        let port = self.url.rsplit(':').next().unwrap_or_default();
        self.process = launch(&self.folder, self.sync, self.key.as_ref(), port, "")?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// The fleet's own login, where there are logins.
const USER: &str = "mozart";
const PASSWORD: &str = "bench";

/// Where a server says which port it has.
const PORTS: &str = "ports";

/// Whether a stream can have as many: all servers know each other, and one leads.
async fn takes_three_replicas(url: &str) -> Result<()> {
    const NAME: &str = "probe";
    let jetstream = jetstream::new(crate::raw::connect(url, None).await?);
    let (name, subjects) = (NAME.to_owned(), vec![NAME.to_owned()]);
    let config =
        jetstream::stream::Config { name, subjects, num_replicas: 3, ..Default::default() };
    jetstream.create_stream(config).await?;
    jetstream.delete_stream(NAME).await?;
    Ok(())
}

/// Starts a server at a port; -1 is a free one. `more`: what else its configuration has.
fn launch(
    folder: &Path,
    sync: Sync,
    key: Option<&AuthKey>,
    port: &str,
    more: &str,
) -> Result<Owned> {
    let sync = match sync {
        Sync::Always => "always",
        Sync::Lazy => "2m",
    };
    let config = folder.join("nats.conf");
    let ports = folder.join(PORTS);
    std::fs::create_dir_all(&ports)?;
    let quoted = |path: &Path| common::quote::nats_conf(&path.to_string_lossy());
    let (data, ports) = (quoted(&folder.join("nats")), quoted(&ports));
    let accounts = key.map(|key| {
        let fleet = User { name: USER.to_owned(), password: PASSWORD.to_owned() };
        let (issuer, xkey, nobody) = (key.issuer(), key.xkey(), key.nobody());
        let (system, exports, others, known) = (None, &[][..], "", &[][..]);
        Accounts { fleet, system, issuer, xkey, nobody, exports, others, known }.conf()
    });
    let accounts = accounts.unwrap_or_default();
    // As `mozart up` writes it, without logins unless they are measured; on all addresses, so that containers reach it.
    let text = format!(
        "listen: \"0.0.0.0:{port}\"
ports_file_dir: {ports}
max_payload: 1MB
max_connections: 20000
jetstream {{
  store_dir: {data}
  sync_interval: {sync}
  max_memory_store: 1GB
  limits {{ default_max_consumers: 20000 }}
}}
{accounts}{more}"
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(binary());
    command.arg("-c").arg(&config).env(cpu::MARK, folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Owned::start(&mut command)
}

/// The binary that the tests use: named, or installed by `make setup` into the checkout, or on `PATH`.
pub(crate) fn binary() -> PathBuf {
    let named = std::env::var_os("MOZART_NATS_SERVER").map(PathBuf::from);
    let own = std::env::current_exe().unwrap_or_default();
    let mut above = own.ancestors().map(|folder| folder.join(".tools/nats-server"));
    named.or_else(|| above.find(|path| path.is_file())).unwrap_or_else(|| "nats-server".into())
}

/// The server writes where it listens into `<program>_<pid>.ports`.
fn ports_file(folder: &Path, pid: u32) -> Option<PathBuf> {
    let end = format!("_{pid}.ports");
    let mut entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.find(|path| path.to_string_lossy().ends_with(&end))
}

fn url(ports: &Path) -> Option<String> {
    let ports: serde_json::Value = serde_json::from_str(&process::read(ports)?).ok()?;
    let listens = ports["nats"].as_array()?.iter().find_map(|url| url.as_str())?;
    let port = listens.rsplit(':').next()?;
    Some(format!("nats://127.0.0.1:{port}"))
}
