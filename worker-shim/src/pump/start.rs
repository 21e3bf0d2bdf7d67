//! The pump's start: the worker first, the connection meanwhile.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::os::fd::IntoRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use broker::{AsShim, Broker, ConnectOptions};
use common::shim::{Exit, ShimConfig, ShimExit};
use common::spec::AgentSpec;
use common::worker::ToWorker;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::acks::Acks;
use super::end::leave;
use super::event::Sources;
use super::histories::Histories;
use super::pipes::Pipes;
use super::questions::Questions;
use super::refusals::Refusals;
use super::stage::Ending;
use super::tasks::Tasks;
use super::{HEARTBEAT_EVERY, KEEP_EVERY, Pump};
use crate::book::{Book, Rules};
use crate::clock::{Clock, boot_us};
use crate::logs::Logs;
use crate::secrets::Secrets;
use crate::standing::Standing;
use crate::{cause, child, memory, user};

/// Signals of the operating system.
pub(super) struct Signalled {
    pub(super) child: Signal,
    pub(super) term: Signal,
    pub(super) int: Signal,
}

impl Signalled {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }
}

/// Runs one incarnation to its end; the result is the process's exit code.
pub(crate) async fn run(config: ShimConfig) -> u8 {
    match start(&config).await {
        Ok((pump, from)) => pump.go(from).await,
        Err(reason) => {
            tracing::error!("{reason}");
            let exit = Exit { code: Some(127), reason: Some(reason), ..Exit::default() };
            leave(
                &config,
                &ShimExit { exit, finished: 0, clean: true, at: SystemTime::now().into() },
            );
            127
        }
    }
}

/// Why the worker did not start, in terms of its soul.
fn cannot_spawn(config: &ShimConfig, error: &std::io::Error) -> String {
    let program = config.spec.worker.as_deref().and_then(<[String]>::first).map(String::as_str);
    let what = format!("cannot start the worker {:?}: {error}", program.unwrap_or("echo"));
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    let is_systems = error.raw_os_error().is_some();
    match program {
        Some("/bin/sh") if is_missing => {
            format!(r#"{what}: the image has no shell; try: WORKER ["program", "argument"]"#)
        }
        Some(program) if is_systems => match cause::of(program, &path(config)) {
            Some(cause) => format!("{what}: {cause}"),
            None => what,
        },
        _ => what,
    }
}

/// Where the worker's programs are looked for.
pub(super) fn path(config: &ShimConfig) -> String {
    let own = config.spec.env.get("PATH").cloned();
    own.or_else(|| std::env::var("PATH").ok()).unwrap_or_else(|| "/usr/bin:/bin".to_owned())
}

/// The credentials file; a text is put where only this process can read it.
fn credentials(config: &ShimConfig) -> Result<Option<PathBuf>, String> {
    let Some(text) = &config.creds_text else {
        return Ok(config.creds.clone().map(Into::into));
    };
    let kept = || -> std::io::Result<PathBuf> {
        let mut file = File::from(memfd_create("credentials", MemfdFlags::CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        // Read again with each connection, so it stays open for as long as the process lives.
        Ok(format!("/proc/self/fd/{}", file.into_raw_fd()).into())
    };
    kept().map(Some).map_err(|error| format!("cannot keep the credentials: {error}"))
}

/// Another number in each process.
fn random() -> u64 {
    // Every `RandomState` has keys of its own.
    RandomState::new().hash_one(0_u8)
}

/// Starts the worker first: it needs longer than the connection, which is made meanwhile.
async fn start(config: &ShimConfig) -> Result<(Pump, Sources), String> {
    // Before the worker: none of its signals is missed, and as PID 1 of a container we would be deaf without.
    let mut signals =
        Signalled::listen().map_err(|error| format!("cannot listen to signals: {error}"))?;
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let user = config.user.as_ref().map(user::resolve).transpose()?;
    user::open_folders(&config.writable);
    if let Some(user) = &user {
        user::check_folders(&config.spec.sanctums, user)?;
    }
    let memory_kills = memory::kills();
    let worker =
        child::spawn(config, user.as_ref()).map_err(|error| cannot_spawn(config, &error))?;
    let agent = &config.spec.name;
    let options = ConnectOptions {
        url: config.url.clone(),
        creds: credentials(config)?,
        ca: config.ca.clone(),
        name: format!("shim {agent}-{}", config.incarnation),
        namespace: config.namespace.clone(),
        timeout: Duration::from_secs(60),
        shim: config.login.as_ref().map(|login| {
            Box::new(AsShim {
                agent: agent.clone(),
                incarnation: config.incarnation,
                shards: login.shards,
                replicas: login.replicas,
                login: (login.user.clone(), config.token.clone()),
            })
        }),
    };
    let connected = async {
        let broker = Broker::connect(&options).await?;
        let commands = broker.subjects().shim_command(agent, &config.token);
        let commands = broker.subscribe(commands, None).await?;
        Ok::<_, broker::BrokerError>((broker, commands))
    };
    let connected = tokio::select! {
        connected = connected => connected.map_err(|error| error.to_string()),
        _ = signals.term.recv() => Err("stopped while it was connecting".to_owned()),
        _ = signals.int.recv() => Err("stopped while it was connecting".to_owned()),
    };
    let (broker, commands) = match connected {
        Ok(connected) => connected,
        Err(reason) => {
            child::sweep(worker.pid);
            return Err(reason);
        }
    };
    let AgentSpec { concurrency, attempts, retry, timeout, .. } = config.spec;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let secrets = Arc::new(Secrets::new(&config.secrets));
    let rules = Rules {
        agent: agent.clone(),
        incarnation: config.incarnation,
        concurrency: concurrency as usize,
        attempts,
        retry_first_us: micros(retry.first),
        retry_max_us: micros(retry.max),
        turn_timeout_us: micros(timeout.turn),
        secrets: Arc::clone(&secrets),
        memory: config.spec.memory,
        traces: config.traces,
    };
    let now = Instant::now();
    let near = Box::pin(broker.clone().stay_in_reach(Some(agent.clone())));
    let mut link = broker.link();
    let seen = *link.borrow_and_update();
    let mut pump = Pump {
        secrets: Arc::clone(&secrets),
        memory_kills,
        config: config.clone(),
        clock: Clock::start(),
        book: Book::new(rules),
        standing: Standing::new(boot_us(), seen.up.then_some(seen.epoch), random()),
        pipes: Pipes::new(worker),
        logs: Logs::new(secrets),
        inbox: None,
        // Nobody has pulled from a consumer that was made for this incarnation.
        given: Some(0),
        passed: None,
        tasks: Tasks::new(broker.clone()),
        broker,
        acks: Acks::default(),
        questions: Questions::new(agent.clone(), config.incarnation),
        histories: Histories::default(),
        uncounted: None,
        ending: Ending::none(),
        up: seen.up,
        ready: false,
        heartbeat_at: now + HEARTBEAT_EVERY,
        told: (0, None),
        keep_at: now + KEEP_EVERY,
        refusals: Refusals::default(),
        beyond: 0,
        repeated: 0,
    };
    let agent = config.spec.worker_init();
    pump.tell(&ToWorker::Init { agent, incarnation: config.incarnation });
    Ok((pump, Sources { signals, commands, link, near }))
}
