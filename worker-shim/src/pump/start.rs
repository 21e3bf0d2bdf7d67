//! The pump's start: the worker first, the connection meanwhile.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::IntoRawFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, ConnectOptions, Subscription};
use common::shim::{Exit, ShimConfig, ShimExit};
use common::spec::AgentSpec;
use common::worker::{MAX_LINE, ToWorker};
use futures_util::stream::FuturesUnordered;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::end::leave;
use super::{HEARTBEAT_EVERY, KEEP_EVERY, Pump, Stage};
use crate::book::{Book, Rules};
use crate::lines::Lines;
use crate::logs::Logs;
use crate::secrets::Secrets;
use crate::{child, memory, user};

/// What the operating system tells.
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
        Ok((pump, signals, commands)) => pump.go(signals, commands).await,
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

/// Why the worker did not start, in the words of whoever wrote its soul.
fn cannot_spawn(config: &ShimConfig, error: &std::io::Error) -> String {
    let program = config.spec.worker.as_deref().and_then(<[String]>::first).map(String::as_str);
    let what = format!("cannot start the worker {:?}: {error}", program.unwrap_or("echo"));
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    match program {
        Some("/bin/sh") if is_missing => {
            format!(r#"{what}: the image has no shell; try: WORKER ["program", "argument"]"#)
        }
        _ => what,
    }
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

/// Starts the worker first: it needs longer than the connection, which is made meanwhile.
async fn start(config: &ShimConfig) -> Result<(Pump, Signalled, Subscription), String> {
    // Before the worker: none of its signals is missed, and as PID 1 of a container we would be deaf without.
    let mut signals =
        Signalled::listen().map_err(|error| format!("cannot listen to signals: {error}"))?;
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let user = config.user.as_ref().map(user::resolve).transpose()?;
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
        name: format!("shim {agent}-{}", config.incarnation),
        namespace: config.namespace.clone(),
        timeout: Duration::from_secs(60),
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
    let AgentSpec { concurrency, attempts, timeout, .. } = config.spec;
    let rules = Rules {
        agent: agent.clone(),
        incarnation: config.incarnation,
        concurrency: concurrency as usize,
        attempts,
        turn_timeout_us: u64::try_from(timeout.turn.as_micros()).unwrap_or(u64::MAX),
    };
    let now = Instant::now();
    let link = *broker.link().borrow();
    let mut pump = Pump {
        secrets: Secrets::new(&config.secrets),
        memory_kills,
        config: config.clone(),
        started: now,
        broker,
        book: Book::new(rules),
        worker,
        stdout: Lines::new(MAX_LINE),
        stderr: Lines::new(16 * 1024),
        stdout_open: true,
        stderr_open: true,
        outgoing: VecDeque::new(),
        logs: Logs::default(),
        logs_busy: false,
        logged: false,
        mute_since: None,
        link,
        inbox: None,
        consumer: false,
        horizon: 0,
        ready: false,
        begun: false,
        told_to_begin: false,
        ready_again: None,
        gate: watch::Sender::new(true),
        tasks: FuturesUnordered::new(),
        optional: 0,
        checking: false,
        acks: Vec::new(),
        acks_due: None,
        heartbeat_at: now + HEARTBEAT_EVERY,
        keep_at: now + KEEP_EVERY,
        last_line: now,
        questions: 0,
        asking: Vec::new(),
        answered: HashMap::new(),
        refused: 0,
        stage: Stage::Running,
        end_reason: None,
        stopped: false,
    };
    let agent = config.spec.worker_init();
    pump.tell(&ToWorker::Init { agent, incarnation: config.incarnation });
    Ok((pump, signals, commands))
}
