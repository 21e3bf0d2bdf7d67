//! `mozart up` and `mozart down`: everything on one machine, in one process next to nats-server.

mod access;
mod api;
mod cluster;
mod containers;
mod detach;
mod disk;
mod down;
mod format;
mod found;
mod joining;
mod kept;
mod memory;
mod nats;
mod note;
mod others;
mod reset;
mod restore;
mod shell;
mod tail;
mod violations;

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use broker::{Attempt as _, AuthKey, Broker, BrokerError, ConnectOptions, StreamOptions};
use common::api::{ApiError, SoulSource};
use common::{NodeName, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use cli::args::{Global, Output};
use cli::start as client;
use runtime::RuntimeOptions;

use crate::args::{AuthArgs, Sync, UpArgs};
use crate::numbers::Numbers;
use cli::connect;
use cli::output;
use common::failure;
use control::{self, Refusals, Retention, SupervisorOptions};
use nats::Nats;
use node::{self, NodeOptions};
use runtime::engine::{Connection, host_address};
use runtime::home::{Home, Running};

pub(crate) use access::login_seed;
pub(crate) use api::ApiAt;
pub(crate) use cluster::PORT;
pub(crate) use down::down;
use found::{Found, find, node_name};
pub(crate) use joining::join_token;
use joining::{invite, membership, patience};
pub(crate) use reset::reset;
pub(crate) use restore::restore;

/// How long the parts may take to be there.
const START: Duration = Duration::from_secs(20);
/// The same of a member of a cluster: its servers elect leaders first.
const START_OF_MEMBER: Duration = Duration::from_secs(60);
/// How long the first write may wait for the disk: longer than what holds it up, such as an image that is being stored.
const BUSY_DISK: Duration = Duration::from_secs(60);
/// How long a NATS server that is given may take to be there: as for the roles of their own.
const GIVEN: Duration = Duration::from_secs(10);

/// Starts everything on this machine; in the foreground until SIGINT.
///
/// # Errors
/// What is missing, taken or unreachable.
pub(crate) async fn up(global: &Global, args: UpArgs) -> Result<(), ApiError> {
    let home = Home::locate(global.home.as_deref())?;
    home.create()?;
    format::check(&home)?;
    format::note(&home)?;
    home.claim()?;
    // It is read again at each start of an agent; that it cannot be read at all is better known now.
    args.runtime.options().env_file.as_deref().map(runtime::secrets::check).transpose()?;
    // A folder with an invalid soul must not leave half of everything running.
    let souls = args.dir.clone().map(|dir| client::read(dir, global.output)).transpose()?;
    if args.locked {
        return foreground(global, &args, &home, Home::inherit_lock()?, souls).await;
    }
    let mut background = None;
    let found = find(global, &home, args.name.as_ref()).await?;
    membership(global, &args, &home, &found).await?;
    let connect = match found {
        Found::Running(connect) => {
            output::note(match souls {
                Some(_) => "already running: applying changes",
                None => "already running",
            });
            if let Ok(Some(running)) = home.read_running() {
                shell::ignored(&running, &args);
                shell::compare(&running, souls.as_deref().unwrap_or_default());
            }
            connect
        }
        Found::Lock(lock) if args.detach => {
            background = Some(detach::start(global, &args, &home, lock).await?);
            connect::options(global, "mozart up", patience(&home))?
        }
        Found::Lock(lock) => return foreground(global, &args, &home, lock, souls).await,
    };
    let applying = async {
        let started = client::connect(&connect, global.output, connect.timeout).await;
        let started = started.map_err(|error| connect::explain_own(global, error, &connect.url))?;
        let agents = client::apply(&started, souls.unwrap_or_default(), &home).await?;
        if args.wait {
            let agents = if args.dir.is_some() { agents } else { client::all(&started).await? };
            client::wait_running(&started, &agents, args.timeout).await?;
        }
        Ok(())
    };
    match background {
        Some(mut background) => background.during(&home, applying).await,
        None => applying.await,
    }?;
    invite(&args.cluster, &home, &connect).await
}

async fn foreground(
    global: &Global,
    args: &UpArgs,
    home: &Home,
    lock: File,
    souls: Option<Vec<SoulSource>>,
) -> Result<(), ApiError> {
    let signals = cli::signals::stop()?;
    let stop = signals.token.clone();
    let shim = runtime::binaries::shim()?;
    let wanted = Wanted::from(args);
    let numbers = Numbers::open(&args.metrics, "up").await?;
    let mut parts = tokio::select! {
        parts = start(global, &wanted, home, shim) => parts?,
        () = stop.cancelled() => {
            output::note("interrupted before anything was started; `mozart down` stops what was already running");
            return Ok(());
        }
    };
    parts.tell(numbers);
    let connect = parts.connect.clone();
    // Both end with this function. Neither holds up what serves, when a terminal that stands still does not take what they say: that is in
    // the log nevertheless.
    let mut showing = JoinSet::new();
    if !args.locked {
        let connect = connect.clone();
        showing.spawn(async move {
            if let Err(ApiError { what, cause, .. }) = cli::logs::attach(&connect).await {
                tracing::warn!(
                    "the workers' logs are no longer shown: {what}: {cause}; try: `mozart logs -f`"
                );
            }
        });
    }
    let mut applying = JoinSet::new();
    let (wait, output, locked) = (args.wait.then_some(args.timeout), global.output, args.locked);
    let serves = parts.node.serves.clone();
    let (cluster, folder) = (args.cluster.clone(), home.clone());
    applying.spawn(async move {
        // If the node cannot start, its error ends all.
        serves.cancelled().await;
        introduce((&connect, &folder), souls.unwrap_or_default(), wait, output, locked).await?;
        invite(&cluster, &folder, &connect).await
    });
    let serving = async {
        let served = parts.serve(home, stop.clone()).await;
        // A part that ended takes all of it along: nobody waits any more for what is not coming.
        stop.cancel();
        served
    };
    let applied = async {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            Some(applied) = applying.join_next() => {
                let failed = |error| failure::error(failure::FAILED, "cannot apply the souls", error, "");
                let applied = applied.map_err(failed).flatten();
                // That nothing answers is a reason.
                if applied.is_err() {
                    stop.cancel();
                }
                applied
            }
        }
    };
    let (served, applied) = tokio::join!(serving, applied);
    drop(lock);
    applied.and(served)
}

/// Registers the souls once a supervisor answers, and reports that everything is up.
///
/// # Errors
/// When none answers in time.
async fn introduce(
    (connect, home): (&ConnectOptions, &Home),
    souls: Vec<SoulSource>,
    wait: Option<Duration>,
    output: Output,
    locked: bool,
) -> Result<(), ApiError> {
    let started = client::connect(connect, output, START_OF_MEMBER).await?;
    let applied = async {
        let agents = client::apply(&started, souls, home).await?;
        if let Some(timeout) = wait {
            client::wait_running(&started, &agents, timeout).await?;
        }
        Ok(())
    };
    // Souls that nobody takes, or that do not start, are no reason to stop what runs.
    if let Err(error) = applied.await {
        output::complain(&error, output);
    }
    output::note(match locked {
        true => "mozart is up",
        false => "mozart is up; SIGINT (^C) drains and stops it",
    });
    Ok(())
}

/// What is to be started.
struct Wanted {
    name: Option<NodeName>,
    sync: Sync,
    journal_shards: Option<u32>,
    retention: Retention,
    runtime: RuntimeOptions,
    /// Whether a member of a cluster waits for the others as long as it takes: hosts start at different times.
    waits: bool,
    auth: AuthArgs,
    api: Option<ApiAt>,
}

impl From<&UpArgs> for Wanted {
    fn from(args: &UpArgs) -> Self {
        let UpArgs { name, sync, journal_shards, keep, runtime, auth, api, .. } = args;
        Self {
            name: name.clone(),
            sync: *sync,
            journal_shards: *journal_shards,
            retention: keep.retention(),
            runtime: runtime.options(),
            waits: true,
            auth: auth.clone(),
            api: *api,
        }
    }
}

/// What `up` runs.
struct Parts {
    broker: Broker,
    connect: ConnectOptions,
    nats: Option<Nats>,
    note: Running,
    node: NodeOptions,
    retention: Retention,
    /// The data folder's id.
    folder: String,
    /// The key to answer for logins of agents with.
    key: Option<AuthKey>,
    /// Whether it is noted what the streams hold.
    notes_streams: bool,
    numbers: Numbers,
    /// The API's address; none: it has none.
    api: Option<(::api::ApiOptions, ::api::Listening)>,
}

/// Starts nats-server, or takes it over. If this is dropped or fails, a nats-server that it started is stopped.
async fn start(
    global: &Global,
    wanted: &Wanted,
    home: &Home,
    shim: PathBuf,
) -> Result<Parts, ApiError> {
    let folder = home.claim()?;
    home.tidy();
    let name = node_name(home, wanted.name.as_ref())?;
    let engine = Connection::find(wanted.runtime.runtime).await?;
    let api = api::listen(wanted.api).await?;
    let given = global.url().map(str::to_owned);
    let (url, ca, mut nats) = match given {
        Some(url) => (url, global.ca()?, None),
        None => {
            // Where containers reach it, too.
            let address = match &engine {
                Some(engine) => host_address(engine, wanted.runtime.network.as_deref()).await,
                None => None,
            };
            let nats = Nats::start(home, wanted.sync, address.as_deref()).await?;
            (nats.url(), nats.ca(), Some(nats))
        }
    };
    let namespace = global.namespace.clone().unwrap_or_else(connect::default_namespace);
    let connect = ConnectOptions {
        url: url.clone(),
        creds: global.readable_creds()?,
        ca: ca.clone(),
        name: "mozart up".to_owned(),
        namespace: namespace.clone(),
        timeout: if nats.is_some() { START } else { GIVEN },
        shim: None,
    };
    let shards = wanted.journal_shards.unwrap_or(match wanted.sync {
        Sync::Always => 4,
        Sync::Lazy => 1,
    });
    let streams = StreamOptions { journal_shards: shards, replicas: None };
    let is_member = wanted.waits && nats.as_ref().is_some_and(Nats::is_member);
    if let Some(own) = nats.as_ref().filter(|_| is_member) {
        own.listens().await;
    }
    let connecting = async {
        match is_member {
            true => {
                let create = || Broker::connect_and_create(&connect, &streams);
                broker::once_there("mozart up", create).await
            }
            false => Broker::connect_and_create(&connect, &streams).await,
        }
    };
    let connected = match &mut nats {
        Some(nats) => nats.keep_during(connecting).await,
        None => connecting.await,
    };
    let broker = match connected {
        Ok(broker) => broker,
        Err(error) => {
            let hint = nats.as_ref().map(Nats::last_words);
            let mut error = broker::failure("cannot start", error);
            if nats.is_none() && error.code == failure::UNREACHABLE {
                error.try_ =
                    "start that server, or check the address in --nats (NATS_URL)".to_owned();
            }
            if let Some(hint) = hint.filter(|hint| !hint.is_empty()) {
                error.cause = format!("{}\nnats-server said: {hint}", error.cause);
            }
            return Err(error);
        }
    };
    let is_copy = nats.is_some() && home.has_copied_fleet();
    if is_copy {
        const WHAT: &str = "cannot separate the copy from the original fleet";
        let original = broker.fleet_id().await.attempt(WHAT)?;
        broker.renew_fleet_secret().await.attempt(WHAT)?;
        home.fleet_is_its_own()?;
        tracing::warn!(
            "containers of the original belong to another fleet: their label is dev.mozart.fleet={original}"
        );
    }
    // Each stream of a cluster elects a leader of its own; and on one host the first write may wait for a busy disk.
    let known = broker::once_there("mozart up", || broker.fleet_id());
    let fleet = match is_member {
        true => known.await,
        false => tokio::time::timeout(BUSY_DISK, known)
            .await
            .unwrap_or(Err(BrokerError::Timeout(BUSY_DISK))),
    };
    let fleet = fleet.attempt("cannot tell which fleet this is")?;
    others::remember(home, &fleet, is_copy);
    // The other hosts of a cluster have what is missing on one.
    let notes_streams = nats.is_some() && !is_member;
    if notes_streams {
        kept::compare(home, &fleet, &broker).await;
    }
    others::end(home, &fleet, wanted.runtime.runtime).await;
    if api.is_some() {
        api::keep_token(home, &broker, &name).await;
    }
    let note = Running {
        api: api.as_ref().and_then(|(_, listening)| listening.url()),
        url,
        ca,
        namespace,
        pid: std::process::id(),
        nats_pid: nats.as_ref().map(Nats::pid),
        runtime: Some(wanted.runtime.clone()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Timestamp::from(SystemTime::now()),
        ready: false,
    };
    home.write_running(&note)?;
    let key = match &nats {
        Some(nats) => nats.key(),
        None => wanted.auth.key()?,
    };
    let node = NodeOptions {
        name,
        labels: Vec::new(),
        capacity: wanted.runtime.capacity.or(runtime::capacity::found()),
        connect: connect.clone(),
        logins: key.is_some(),
        run: home.run(),
        home: home.dir.clone(),
        folder: folder.clone(),
        shim,
        runtime: wanted.runtime.clone(),
        engine,
        traces: None,
        metrics: None,
        serves: CancellationToken::new(),
    };
    let (retention, numbers) = (wanted.retention, Numbers::default());
    Ok(Parts {
        broker,
        connect,
        nats,
        note,
        node,
        retention,
        folder,
        key,
        notes_streams,
        numbers,
        api,
    })
}

impl Parts {
    /// What its parts count is told there.
    fn tell(&mut self, numbers: Numbers) {
        (self.node.traces, self.node.metrics) = (numbers.share(), numbers.node());
        if let Some((options, _)) = &mut self.api {
            options.metrics = numbers.http();
        }
        self.numbers = numbers;
    }

    /// Serves until `stop`; then the node drains while the supervisor still watches, and nats-server goes last.
    async fn serve(self, home: &Home, stop: CancellationToken) -> Result<(), ApiError> {
        let (node_stop, rest_stop) = (stop.child_token(), CancellationToken::new());
        let mut node = JoinSet::new();
        let mut rest = JoinSet::new();
        let (mut server, server_stop) = (JoinSet::new(), CancellationToken::new());
        // First of all: what follows needs it.
        let store = self.nats.is_some().then(|| home.nats());
        let (pid, pids) = watch::channel(self.note.nats_pid);
        if let Some(nats) = self.nats {
            server.spawn(nats.keep(pid, server_stop.clone()));
        }
        let id = self.folder.clone();
        let serves = self.node.serves.clone();
        rest.spawn(note::keep(home.clone(), id, self.note, pids, serves, rest_stop.clone()));
        // A connection each: a flood of one's reports must not hold up the other.
        let connect = || Broker::connect(&self.connect);
        let (node_broker, reads, api_broker) =
            match tokio::try_join!(connect(), connect(), connect()) {
                Ok(brokers) => brokers,
                Err(error) => {
                    rest_stop.cancel();
                    while rest.join_next().await.is_some() {}
                    server_stop.cancel();
                    while server.join_next().await.is_some() {}
                    return Err(broker::failure(
                        "cannot start the node, the supervisor and the API",
                        error,
                    ));
                }
            };
        let metrics = self.numbers.fleet();
        if let Some(store) = &store {
            let (log, by) = (store.join("nats.log"), format!("nats-server of {}", self.node.name));
            let refusals = Refusals::new(self.broker.clone(), by, metrics.clone());
            rest.spawn(violations::watch(log, refusals, self.broker.clone(), rest_stop.clone()));
        }
        rest.spawn(cluster::serve(home.clone(), self.broker.clone(), rest_stop.clone()));
        rest.spawn(cluster::belong(home.clone(), self.broker.clone(), rest_stop.clone()));
        rest.spawn({
            let keeping = self.numbers.keep(self.connect.clone(), rest_stop.clone());
            async move {
                keeping.await;
                Ok(())
            }
        });
        let streams = self.notes_streams.then(|| self.broker.clone());
        if let Some(streams) = streams.clone() {
            rest.spawn(kept::keep(home.clone(), streams, rest_stop.clone()));
        }
        if let Some((options, listening)) = self.api {
            rest.spawn(::api::serve(options, listening, api_broker, rest_stop.clone()));
        }
        let name = self.node.name.clone();
        node.spawn(node::serve(self.node, node_broker, node_stop.clone()));
        // The same for every `up` of this data folder: the lock says that an earlier one is dead, so that its lease is ours at once.
        let folder = self.folder.get(..8).unwrap_or(&self.folder);
        let id = format!("{name}-{folder}");
        rest.spawn(control::serve(
            SupervisorOptions {
                id,
                succeeds: true,
                retention: self.retention,
                store,
                key: self.key,
                metrics,
            },
            self.broker,
            reads,
            rest_stop.clone(),
        ));
        let flat = |ended: Option<Result<Result<(), ApiError>, tokio::task::JoinError>>| match ended
        {
            Some(Ok(result)) => result,
            Some(Err(error)) => {
                Err(failure::error(failure::FAILED, "a component of mozart ended", error, ""))
            }
            None => Ok(()),
        };
        let result = tokio::select! {
            ended = node.join_next() => flat(ended),
            ended = rest.join_next() => flat(ended),
            Some(ended) = server.join_next() => flat(Some(ended)),
        };
        node_stop.cancel();
        while node.join_next().await.is_some() {}
        // While there is a server that takes it, the supervisor gives up its lease.
        rest_stop.cancel();
        while rest.join_next().await.is_some() {}
        if let Some(streams) = streams {
            kept::end(home, &streams).await;
        }
        server_stop.cancel();
        while server.join_next().await.is_some() {}
        home.remove_running()?;
        result
    }
}

/// The host name, if it is a valid node name.
fn host_name() -> NodeName {
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
