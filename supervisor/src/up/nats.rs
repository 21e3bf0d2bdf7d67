//! The nats-server that `up` starts: with random credentials, every write synced, on loopback, or, where agents run in containers,
//! on the host's address in their network, which no other machine is on. It outlives a killed `up`, and a killed one is
//! started again.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use broker::{Accounts, AuthKey, User};
use common::api::ApiError;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::access::{Access, loopback};
use super::cluster::{self, Alone, Member};
use super::disk::Disk;
use super::memory;
use crate::args::Sync;
use common::failure;
use common::quote::nats_conf;
use runtime::home::Home;
use runtime::labels;
use runtime::processes::{self, ended};

/// How often a server that ends while it is connected to is started again: one that ends at once ends every time.
const STARTS: u32 = 5;
/// The pause before a killed server is started again, doubled up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// How long to wait for the port of an earlier server before another one is used. A killed server leaves the process table a
/// moment before its sockets are closed, and the shims that run know that port only.
const PORT_WITHIN: Duration = Duration::from_secs(5);
/// How long a server may take until it takes connections.
const LISTENS: Duration = Duration::from_secs(5);

/// A nats-server that we started, now or in an earlier life.
pub(super) struct Nats {
    access: Access,
    /// What it is a member of; none on a host of its own.
    member: Option<Member>,
    alone: Alone,
    sync: Sync,
    home: Home,
    folder: PathBuf,
    binary: PathBuf,
    pid: u32,
    /// Whether it goes on when this is dropped: it ran before us and agents may be using it, or it is kept by now.
    leave: bool,
}

impl Drop for Nats {
    fn drop(&mut self) {
        if !self.leave {
            self.stop();
            self.alone.end();
        }
    }
}

impl Nats {
    /// Starts the server, or takes over the one that runs. A new one listens on `address`, or on loopback.
    pub(super) async fn start(
        home: &Home,
        sync: Sync,
        address: Option<&str>,
    ) -> Result<Self, ApiError> {
        let folder = home.nats();
        let failed = |error: io::Error| {
            let what = format!("cannot prepare nats-server in {}", folder.display());
            failure::file(what, &error, "check the disk space and permissions there")
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let member = cluster::read(home)?;
        let alone = Alone::new(home);
        let known: Option<Access> = fs::read(folder.join("access.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (binary, _) = runtime::binaries::nats_server().await?;
        let is_current = |access: &Access| {
            let conf = fs::read_to_string(folder.join("nats.conf")).unwrap_or_default();
            access.key().is_some_and(|key| conf.contains(&key.issuer()))
        };
        if let (Some(access), Some(pid)) = (&known, running(&folder))
            && is_current(access)
        {
            tracing::info!("nats-server is already running as process {pid}");
            if address.is_some_and(|address| address != access.host) {
                tracing::warn!(
                    "nats-server listens on {}, where containers cannot reach it; try: `mozart down`, then `mozart up`",
                    access.host
                );
            }
            let (access, home) = (access.clone(), home.clone());
            return Ok(Self {
                access,
                member,
                alone,
                sync,
                home,
                folder,
                binary,
                pid,
                leave: true,
            });
        }
        // Nobody knows how to reach it any more, or it knows no logins of agents; and two must never write to one folder.
        if let Some(pid) = running(&folder) {
            match known {
                Some(_) => tracing::info!("restarting nats-server with its new configuration"),
                None => tracing::warn!(
                    "nats-server is running, but its access.json is missing: restarting it"
                ),
            }
            end(pid).await;
        }
        let access = match &member {
            Some(member) => of_member(member).await?,
            None => choose(home, known, address).await.map_err(failed)?,
        };
        let home = home.clone();
        let folder = folder.clone();
        let mut nats =
            Self { access, member, alone, sync, home, folder, binary, pid: 0, leave: true };
        nats.spawn().map_err(failed)?;
        nats.leave = false;
        let Access { host, port, .. } = &nats.access;
        tracing::info!("nats-server listens on {host}:{port}, as process {}", nats.pid);
        Ok(nats)
    }

    /// Starts the server, and restores its files if they were removed.
    fn spawn(&mut self) -> io::Result<()> {
        // Others may have joined meanwhile.
        match cluster::read(&self.home) {
            Ok(Some(member)) => self.member = Some(member),
            Ok(None) => {}
            Err(error) => tracing::warn!("{}: {}", error.what, error.cause),
        }
        if let Some(member) = &self.member {
            let written = member.write_certificates(&self.home);
            written
                .map_err(|error| io::Error::other(format!("{}: {}", error.what, error.cause)))?;
        }
        to_account(&self.folder.join("data/jetstream"))?;
        let config = config(&self.access, self.member.as_ref(), &self.folder, self.sync);
        self.write("nats/access.json", &serde_json::to_vec(&self.access)?)?;
        self.write("nats/nats.conf", config.as_bytes())?;
        self.pid = spawn(&self.binary, &self.folder)?;
        if let Some(member) = &self.member {
            self.alone.tend(member, &self.binary);
        }
        Ok(())
    }

    /// Writes a file, unless its content is already right: a write fails on a full disk.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        match fs::read(self.home.dir.join(name)) {
            Ok(there) if there == content => Ok(()),
            Ok(_) | Err(_) => self.home.put(name, content),
        }
    }

    /// Whether it belongs to a cluster.
    pub(super) fn is_member(&self) -> bool {
        self.member.is_some()
    }

    /// The certificates of those who vouch for it; none without TLS.
    pub(super) fn ca(&self) -> Option<String> {
        self.member.as_ref().map(|member| member.shared.ca.clone())
    }

    /// The key with which supervisors answer for logins of agents; none in a cluster of before there was one.
    pub(super) fn key(&self) -> Option<AuthKey> {
        self.access.key()
    }

    pub(super) fn url(&self) -> String {
        if let Some(member) = &self.member {
            return member.url();
        }
        let Access { host, port, user, password, .. } = &self.access;
        format!("nats://{user}:{password}@{host}:{port}")
    }

    /// Waits until it takes connections, for a few seconds: a member that finds its own server absent would begin with another one, and
    /// depend on two hosts.
    pub(super) async fn listens(&self) {
        // A connection that is not used would be an error in its log.
        let own = format!("[{}] ", self.pid);
        let is_ready = |line: &str| line.starts_with(&own) && line.ends_with("Server is ready");
        let until = Instant::now() + LISTENS;
        while Instant::now() < until {
            let log = fs::read_to_string(self.folder.join("nats.log")).unwrap_or_default();
            if log.lines().rev().any(is_ready) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The last errors in its log: why it does not start.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("nats.log")).unwrap_or_default();
        last_words(&log, self.pid).to_owned()
    }

    /// The same, after a colon; nothing where it was killed.
    fn why(&self) -> String {
        let words = self.last_words();
        if words.is_empty() { words } else { format!(": {words}") }
    }

    fn stop(&self) {
        processes::kill(self.pid, Signal::TERM);
    }

    /// Whether a server of this folder runs.
    pub(super) fn is_left(home: &Home) -> bool {
        running(&home.nats()).is_some() || Alone::new(home).is_left()
    }

    /// Ends the server of this folder, if one runs.
    pub(super) async fn end_left(home: &Home) {
        if let Some(pid) = running(&home.nats()) {
            end(pid).await;
        }
        Alone::new(home).end();
    }

    /// Does some work that needs the server, and starts it again should it end meanwhile.
    pub(super) async fn keep_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        for _ in 0..STARTS {
            tokio::select! {
                biased;
                done = &mut work => return done,
                Ok(_) = ended(self.pid) => {}
                else => break,
            }
            tracing::warn!("nats-server ended{}; restarting it", self.why());
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(PAUSES[0] * 4) => {}
            }
            if let Err(error) = self.spawn() {
                tracing::error!("cannot start nats-server: {error}");
            }
        }
        work.await
    }

    /// Starts it again whenever it ends, and tells its process id then; stops it at `stop`.
    pub(super) async fn keep(
        mut self,
        told: watch::Sender<Option<u32>>,
        stop: CancellationToken,
    ) -> Result<(), ApiError> {
        self.leave = true;
        let [mut pause, longest] = PAUSES;
        let mut disk = Disk::new(self.folder.join("nats.log"), self.folder.join("data"));
        loop {
            let began = Instant::now();
            tokio::select! {
                ended = ended(self.pid) => {
                    if let Err(error) = ended {
                        return Err(failure::error(failure::FAILED, "cannot watch nats-server", error, ""));
                    }
                }
                () = disk.has_room_again() => {
                    tracing::warn!("nats-server's disk has free space again: restarting it");
                    end(self.pid).await;
                }
                () = company(&mut self.alone, self.member.as_ref(), &self.binary) => {}
                () = tell_stops(self.pid) => {}
                () = stop.cancelled() => break,
            }
            pause = if began.elapsed() > longest { PAUSES[0] } else { (pause * 2).min(longest) };
            tracing::warn!("nats-server ended{}; restarting it", self.why());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {
                    self.alone.end();
                    return Ok(());
                }
            }
            if let Err(error) = self.spawn() {
                tracing::error!("cannot start nats-server: {error}");
            }
            told.send_replace(Some(self.pid));
        }
        end(self.pid).await;
        self.alone.end();
        Ok(())
    }
}

/// Says when a server is stopped by a signal, as it then answers nobody, and when it goes on; forever.
async fn tell_stops(pid: u32) {
    let mut was_stopped = false;
    loop {
        tokio::time::sleep(PAUSES[1]).await;
        let is_stopped = processes::is_stopped(pid);
        match (is_stopped, was_stopped) {
            (true, false) => tracing::warn!(
                "nats-server (process {pid}) is stopped by a signal, and answers nobody; try: `kill -CONT {pid}`"
            ),
            (false, true) => tracing::info!("nats-server (process {pid}) goes on"),
            (true, true) | (false, false) => {}
        }
        was_stopped = is_stopped;
    }
}

/// Looks after the company of a cluster's first server, forever.
async fn company(alone: &mut Alone, member: Option<&Member>, binary: &Path) {
    let Some(member) = member else { return std::future::pending().await };
    loop {
        alone.tend(member, binary);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The address of a member is known to the others, and cannot be changed.
async fn of_member(member: &Member) -> Result<Access, ApiError> {
    let access = Access {
        host: member.address.ip().to_string(),
        port: member.address.port(),
        user: cluster::USER.to_owned(),
        password: member.shared.password.clone(),
        seed: member.shared.seed.clone(),
    };
    let free = wait_until_free(&access).await;
    free.map(|()| access).map_err(|error| {
        let what = format!("nats-server cannot listen on {}", member.address);
        let try_ =
            "`ss -ltnp` shows who does; --listen ADDRESS:PORT of a new data folder uses another";
        failure::error(failure::CONFLICT, what, error, try_)
    })
}

/// The address of a server on a host of its own: the one that it had, if it can have it.
async fn choose(home: &Home, known: Option<Access>, address: Option<&str>) -> io::Result<Access> {
    let host = address.filter(|address| is_free(address, 0));
    let host = host.map_or_else(loopback, str::to_owned);
    // Shims that still run know the old address, and no other.
    let may_move = labels::find(&home.run()).is_empty();
    let stays = match &known {
        Some(known) if may_move => known.host == host && is_free(&known.host, known.port),
        Some(known) => becomes_free(known).await,
        None => false,
    };
    let access = match known {
        Some(known) if stays => known,
        known => Access {
            // Another program took the port meanwhile, or this is the first start.
            port: free_port(&host)?,
            host,
            user: "mozart".to_owned(),
            seed: known.as_ref().and_then(|known| known.seed.clone()),
            password: known.map_or_else(random, |known| known.password),
        },
    };
    Ok(access.keyed())
}

/// Moves the streams of before there were accounts to where the fleet's account has its own.
fn to_account(jetstream: &Path) -> io::Result<()> {
    let (before, now) = (jetstream.join("$G"), jetstream.join(broker::APP));
    if before.exists() && !now.exists() {
        fs::rename(before, now)?;
    }
    Ok(())
}

fn config(access: &Access, member: Option<&Member>, folder: &Path, sync: Sync) -> String {
    let Access { host, port, user, password, .. } = access;
    let sync = match sync {
        Sync::Always => "always",
        Sync::Lazy => "2m",
    };
    let quoted = |file: &str| nats_conf(&folder.join(file).to_string_lossy());
    let (data, log) = (quoted("data"), quoted("nats.log"));
    let access = match (member, access.key()) {
        (Some(member), _) => member.conf(folder),
        (None, Some(key)) => {
            let fleet = User { name: user.clone(), password: nats_conf(password) };
            let (issuer, xkey, nobody) = (key.issuer(), key.xkey(), key.nobody());
            let alone = Accounts {
                fleet,
                system: None,
                issuer,
                xkey,
                nobody,
                exports: &[],
                others: "",
                known: &[],
            };
            alone.conf()
        }
        (None, None) => {
            let (user, password) = (nats_conf(user), nats_conf(password));
            format!("authorization {{ user: {user}, password: {password} }}\n")
        }
    };
    let name = member.map_or_else(|| "mozart".to_owned(), |member| nats_conf(&member.server));
    // The disk itself is the bound, and is watched: by default it would be three quarters of what is free at the start.
    let disk = rustix::fs::statvfs(folder).map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    let max = disk.ok().filter(|bytes| *bytes > 0);
    let max = max.map(|bytes| format!("max_file_store: {bytes}\n  ")).unwrap_or_default();
    format!(
        "# Written by `mozart up`; changes are lost.
server_name: {name}
listen: \"{host}:{port}\"
max_payload: 1MB
max_connections: 20000
log_file: {log}
logfile_size_limit: 10MB
logfile_max_num: 3
jetstream {{
  store_dir: {data}
  # A stored record survives a power cut: the default syncs every two minutes.
  sync_interval: {sync}
  {max}max_memory_store: 1GB
  limits {{ default_max_consumers: 20000 }}
}}
{access}"
    )
}

fn spawn(binary: &Path, folder: &Path) -> io::Result<u32> {
    let errors = fs::OpenOptions::new().create(true).append(true).open(folder.join("nats.log"))?;
    let child = Command::new(binary)
        .arg("-c")
        .arg(folder.join("nats.conf"))
        .envs(memory::bound())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()?;
    Ok(child.id())
}

/// Stops a server, and waits for its end.
async fn end(pid: u32) {
    const WITHIN: Duration = Duration::from_secs(10);
    processes::kill(pid, Signal::TERM);
    if tokio::time::timeout(WITHIN, ended(pid)).await.is_err() {
        tracing::warn!("nats-server did not stop within {WITHIN:?}: killed");
        processes::kill(pid, Signal::KILL);
    }
}

/// The server that runs with this folder's configuration. Looked for by its arguments: a process id may be another's by now, and
/// may not be on record, and two servers must never write to one folder.
fn running(folder: &Path) -> Option<u32> {
    running_with(&folder.join("nats.conf"))
}

pub(super) fn running_with(conf: &Path) -> Option<u32> {
    let wanted = [b"-c", conf.as_os_str().as_encoded_bytes()];
    let is_it = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).skip(1).take(2).eq(wanted)
    };
    processes::all().find(is_it)
}

fn is_free(host: &str, port: u16) -> bool {
    TcpListener::bind((host, port)).is_ok()
}

/// Whether the address of an earlier server is free, or becomes so.
async fn becomes_free(known: &Access) -> bool {
    let Access { host, port, .. } = known;
    let free = wait_until_free(known).await;
    if let Err(error) = &free {
        tracing::warn!(
            "nats-server cannot listen on {host}:{port} ({error}): it gets a new address, and running agents are replaced"
        );
    }
    free.is_ok()
}

async fn wait_until_free(Access { host, port, .. }: &Access) -> io::Result<()> {
    let deadline = Instant::now() + PORT_WITHIN;
    let mut waits = false;
    while let Err(error) = TcpListener::bind((host.as_str(), *port)) {
        if error.kind() != io::ErrorKind::AddrInUse || Instant::now() > deadline {
            return Err(error);
        }
        if !std::mem::replace(&mut waits, true) {
            tracing::info!("waiting up to {PORT_WITHIN:?} for port {port} to become free");
        }
        tokio::time::sleep(PAUSES[0]).await;
    }
    Ok(())
}

/// A port that nobody listens on, if possible below those from which the system gives connections their own end: one of those
/// could take it while the server is restarted, and a client that tries to reach it there could even meet itself.
pub(super) fn free_port(host: &str) -> io::Result<u16> {
    const LOWEST: u16 = 10_000;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let highest = range.split_whitespace().next().and_then(|first| first.parse().ok());
    let span = highest.unwrap_or(32_768_u16).saturating_sub(LOWEST);
    let random = random();
    let tries = random
        .as_bytes()
        .chunks_exact(4)
        .filter_map(|hex| u16::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
    match tries
        .filter(|_| span > 0)
        .map(|any| LOWEST + any % span)
        .find(|port| is_free(host, *port))
    {
        Some(port) => Ok(port),
        None => Ok(TcpListener::bind((host, 0))?.local_addr()?.port()),
    }
}

/// 128 random bits: two version-4-like halves of the system's randomness.
pub(super) fn random() -> String {
    let mut bytes = [0_u8; 24];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    debug_assert!(filled.is_ok_and(|filled| filled == bytes.len()), "up to 256 bytes come whole");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
/// The last error of a server in a log that others have written to before.
fn last_words(log: &str, pid: u32) -> &str {
    let own = format!("[{pid}] ");
    let is_bad = |line: &&str| {
        // Before it has a log, its complaint has no process id.
        let is_its = line.starts_with(&own) && (line.contains("[FTL]") || line.contains("[ERR]"));
        is_its || line.starts_with("nats-server:")
    };
    log.lines()
        .rev()
        .take_while(|line| line.starts_with(&own) || !line.starts_with('['))
        .find(is_bad)
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn only_the_words_of_this_server_count() {
        let log = "[7] 2026/11/30 [ERR] old\n[9] 2026/11/30 [INF] fine\n[9] 2026/11/30 [ERR] disk\n[9] 2026/11/30 [INF] end\n";
        assert_eq!(last_words(log, 9), "[9] 2026/11/30 [ERR] disk");
        assert_eq!(last_words("[7] x [ERR] old\n[9] x [INF] fine\n", 9), "");
        assert_eq!(last_words("[7] x [ERR] old\n", 9), "");
        let unread = "[7] x [ERR] old\nnats-server: nats.conf:3:1: unknown field\n";
        assert_eq!(last_words(unread, 9), "nats-server: nats.conf:3:1: unknown field");
    }
}
