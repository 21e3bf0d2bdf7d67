//! `mozart up` and `mozart down`: everything on one machine, in one process beside nats-server.

mod fleet;
mod nats;

use std::ffi::OsStr;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, ConnectOptions, StreamOptions};
use common::api::ApiError;
use common::{NodeName, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::args::{DownArgs, Global, Sync, UpArgs};
use crate::cli::output;
use crate::control::{self, SupervisorOptions};
use crate::failure::{self, Attempt as _};
use crate::home::{Home, Running};
use crate::node::{self, NodeOptions};
use nats::Nats;

/// How long agents may drain when everything goes down, unless their souls say less.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);
/// How long the parts may take to be there.
const START: Duration = Duration::from_secs(20);
/// The format of the data folder that this build writes.
const FORMAT: u32 = 1;

/// Starts everything on this machine; in the foreground until SIGINT.
///
/// # Errors
/// What is missing, taken or unreachable.
pub(crate) async fn up(global: &Global, args: UpArgs) -> Result<(), ApiError> {
    let home = Home::locate(global.home.as_deref())?;
    home.create()?;
    check_format(&home)?;
    // A folder with an invalid soul must not leave half of everything running.
    let souls = args.dir.as_deref().map(fleet::read).transpose()?;
    match home.lock()? {
        Some(lock) if args.detach => {
            drop(lock);
            detach(global, &home, &args)?;
        }
        Some(lock) => return foreground(global, &args, &home, lock, souls).await,
        None => tracing::info!("already running: applying what changed"),
    }
    let client = fleet::connect(global, START).await?;
    let agents = fleet::apply(&client, souls.unwrap_or_default()).await?;
    if args.wait {
        fleet::wait_running(&client, &agents, args.timeout).await?;
    }
    Ok(())
}

async fn foreground(
    global: &Global,
    args: &UpArgs,
    home: &Home,
    lock: File,
    souls: Option<Vec<common::api::SoulSource>>,
) -> Result<(), ApiError> {
    let stop = crate::signals::stop_token()?;
    let parts = start(global, args, home).await?;
    let serving = parts.serve(home, stop.clone());
    let applying = async {
        let client = fleet::connect(global, START).await?;
        let agents = fleet::apply(&client, souls.unwrap_or_default()).await?;
        if args.wait {
            fleet::wait_running(&client, &agents, args.timeout).await?;
        }
        output::note("mozart is up; SIGINT (^C) drains and stops it");
        Ok::<_, ApiError>(())
    };
    let (served, applied) = tokio::join!(serving, async {
        let applied = tokio::select! {
            applied = applying => applied,
            () = stop.cancelled() => Ok(()),
        };
        // Souls that nobody takes are no reason to stop what runs; that nothing answers is.
        if applied.is_err() {
            stop.cancel();
        }
        applied
    });
    drop(lock);
    applied.and(served)
}

/// What `up` runs.
struct Parts {
    broker: Broker,
    connect: ConnectOptions,
    nats: Option<Nats>,
    node: NodeOptions,
}

async fn start(global: &Global, args: &UpArgs, home: &Home) -> Result<Parts, ApiError> {
    let shim = crate::binaries::shim()?;
    let given = global.nats.clone().filter(|url| !url.is_empty());
    let (url, mut nats) = match given {
        Some(url) => (url, None),
        None => {
            let nats = Nats::start(home, args.sync)?;
            (nats.url(), Some(nats))
        }
    };
    let namespace = global.namespace.clone().unwrap_or_else(crate::connect::default_namespace);
    let connect = ConnectOptions {
        url: url.clone(),
        creds: global.creds.clone(),
        name: "mozart up".to_owned(),
        namespace: namespace.clone(),
        timeout: START,
    };
    let shards = args.journal_shards.unwrap_or(match args.sync {
        Sync::Always => 4,
        Sync::Lazy => 1,
    });
    let streams = StreamOptions { journal_shards: shards, replicas: 1 };
    let connecting = Broker::connect_and_create(&connect, &streams);
    let connected = match &mut nats {
        Some(nats) => nats.keep_during(connecting).await,
        None => connecting.await,
    };
    let broker = match connected {
        Ok(broker) => broker,
        Err(error) => {
            let hint = nats.as_ref().map(Nats::last_words);
            if let Some(nats) = &nats {
                nats.abandon();
            }
            let mut error = failure::broker("cannot start", error);
            if let Some(hint) = hint.filter(|hint| !hint.is_empty()) {
                error.cause = format!("{}\nnats-server said: {hint}", error.cause);
            }
            return Err(error);
        }
    };
    home.write_running(&Running {
        url,
        namespace,
        pid: std::process::id(),
        nats_pid: nats.as_ref().map(Nats::pid),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Timestamp::from(SystemTime::now()),
    })?;
    let node = NodeOptions {
        name: node_name(),
        labels: Vec::new(),
        connect: connect.clone(),
        run: home.run(),
        shim,
    };
    Ok(Parts { broker, connect, nats, node })
}

impl Parts {
    /// Serves until `stop`; then the node drains while the supervisor still watches, and nats-server goes last.
    async fn serve(self, home: &Home, stop: CancellationToken) -> Result<(), ApiError> {
        let (node_stop, rest_stop) = (stop.child_token(), CancellationToken::new());
        let mut node = JoinSet::new();
        let mut rest = JoinSet::new();
        // First of all: what follows needs it.
        let nats_pid = self.nats.as_ref().map(Nats::pid);
        if let Some(nats) = self.nats {
            let home = home.clone();
            rest.spawn(nats.keep(home, rest_stop.clone()));
        }
        // A connection each: a flood of one's reports must not hold up the other.
        let node_broker = Broker::connect(&self.connect).await.attempt("cannot start the node")?;
        node.spawn(node::serve(self.node, node_broker, node_stop.clone()));
        let id = supervisor_id(home);
        rest.spawn(control::serve(SupervisorOptions { id }, self.broker, rest_stop.clone()));
        let flat = |ended: Option<Result<Result<(), ApiError>, tokio::task::JoinError>>| match ended
        {
            Some(Ok(result)) => result,
            Some(Err(error)) => {
                Err(failure::error(failure::FAILED, "a part of mozart ended", error, ""))
            }
            None => Ok(()),
        };
        let result = tokio::select! {
            ended = node.join_next() => flat(ended),
            ended = rest.join_next() => flat(ended),
        };
        node_stop.cancel();
        while node.join_next().await.is_some() {}
        rest_stop.cancel();
        while rest.join_next().await.is_some() {}
        if nats_pid.is_some() {
            home.remove_running()?;
        }
        result
    }
}

/// The same for every `up` of this data folder: the lock says that an earlier one is dead, so that its lease is ours at once.
fn supervisor_id(home: &Home) -> String {
    let folder = Uuid::new_v5(&Uuid::NAMESPACE_OID, home.dir.as_os_str().as_encoded_bytes());
    let folder = folder.simple().to_string();
    format!("{}-{}", node_name(), folder.get(..8).unwrap_or(&folder))
}

/// The host's name, as far as it can be a node's.
fn node_name() -> NodeName {
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let name: String = host
        .chars()
        .map(|char| if char.is_ascii_alphanumeric() { char } else { '-' })
        .take(63)
        .collect();
    let local = || {
        #[expect(clippy::expect_used, reason = "a literal that the tests check")]
        NodeName::new("local").expect("`local` is a valid name")
    };
    NodeName::new(name.trim_matches('-')).unwrap_or_else(|_| local())
}

/// A folder of a newer version is not touched.
fn check_format(home: &Home) -> Result<(), ApiError> {
    let path = home.dir.join("format");
    let what = || format!("cannot use the data folder {}", home.dir.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(found) if found <= FORMAT => Ok(()),
            _ => {
                let cause =
                    format!("its format is {:?}, this mozart knows up to {FORMAT}", text.trim());
                Err(failure::error(
                    failure::FAILED,
                    what(),
                    cause,
                    "the newer mozart that wrote it, or --dir DIR",
                ))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&path, format!("{FORMAT}\n")).map_err(|error| {
                failure::error(
                    failure::FAILED,
                    what(),
                    error,
                    "check the disk space and rights there",
                )
            })
        }
        Err(error) => Err(failure::error(failure::FAILED, what(), error, "--dir DIR")),
    }
}

/// Starts `up` in the background, with its log in the data folder. The souls are applied from here, once it runs.
fn detach(global: &Global, home: &Home, args: &UpArgs) -> Result<(), ApiError> {
    use std::os::unix::process::CommandExt as _;
    let failed = |error: std::io::Error| {
        failure::error(
            failure::FAILED,
            "cannot start in the background",
            error,
            "`mozart up` without -d",
        )
    };
    let log = File::options().create(true).append(true).open(home.log()).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("up").arg("--dir").arg(&home.dir);
    if let Some(shards) = args.journal_shards {
        command.arg("--journal-shards").arg(shards.to_string());
    }
    if args.sync == Sync::Lazy {
        command.args(["--sync", "lazy"]);
    }
    command.args((0..global.verbose).map(|_| "-v"));
    // Not as arguments: everybody can read those, and an address may hold a password.
    let url = global.nats.as_ref().map(OsStr::new);
    let creds = global.creds.as_ref().map(|creds| creds.as_os_str());
    let namespace = global.namespace.as_ref().map(|name| OsStr::new(name.as_str()));
    for (name, value) in [("NATS_URL", url), ("NATS_CREDS", creds), ("MOZART_NAMESPACE", namespace)]
    {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let until = Instant::now() + START;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Err(failure::error(
                failure::FAILED,
                "mozart ended at once",
                format!("{status}; {}", last_line(home)),
                format!("cat {}", home.log().display()),
            ));
        }
        // It writes the note anew once nats-server answers.
        if home.read_running().ok().flatten().is_some_and(|running| running.pid == child.id()) {
            return Ok(());
        }
        if Instant::now() > until {
            let cause = format!("not there within {START:?}");
            return Err(failure::error(
                failure::TIMEOUT,
                "mozart does not start",
                cause,
                "mozart doctor",
            ));
        }
        wait_a_moment();
    }
}

fn wait_a_moment() {
    #[expect(
        clippy::disallowed_methods,
        reason = "polls, with a deadline, for a process to come up"
    )]
    std::thread::sleep(Duration::from_millis(10));
}

fn last_line(home: &Home) -> String {
    let log = std::fs::read_to_string(home.log()).unwrap_or_default();
    log.lines()
        .rev()
        .find(|line| line.contains("error:") || line.contains("ERROR"))
        .unwrap_or("")
        .to_owned()
}

/// Drains and stops what `up` started.
///
/// # Errors
/// When it does not stop in time.
pub(crate) async fn down(global: &Global, args: DownArgs) -> Result<(), ApiError> {
    let home = Home::locate(global.home.as_deref())?;
    let Some(running) = home.read_running()? else {
        output::note("nothing is running");
        return Ok(());
    };
    check_format(&home)?;
    if let Some(lock) = home.lock()? {
        // `up` is dead, but not what it started: take its place, and go down in order.
        let args = UpArgs {
            dir: None,
            detach: false,
            wait: false,
            timeout: args.timeout,
            journal_shards: None,
            sync: Sync::Always,
        };
        let parts = start(global, &args, &home).await?;
        let stop = CancellationToken::new();
        stop.cancel();
        let result = parts.serve(&home, stop).await;
        drop(lock);
        home.remove_running()?;
        return result;
    }
    crate::runtime::labels::kill(running.pid, rustix::process::Signal::TERM);
    let until = Instant::now() + args.timeout;
    loop {
        if home.lock()?.is_some() {
            return Ok(());
        }
        if Instant::now() > until {
            let cause = format!("process {} still runs after {:?}", running.pid, args.timeout);
            return Err(failure::error(
                failure::TIMEOUT,
                "not down yet",
                cause,
                "mozart down, once more",
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
