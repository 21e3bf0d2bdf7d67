//! The node: starts and stops incarnations on this machine, says what runs, adopts what an earlier process of it started.

mod adopt;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, ConnectOptions, Subscription};
use common::api::ApiError;
use common::shim::{
    Exit, IncarnationExit, NodeCommand, NodeCommandBody, NodeReport, NodeStatus,
    RunningIncarnation, StartIncarnation,
};
use common::{AgentName, NodeName, codec};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Global, NodeArgs};
use crate::failure::{self, Attempt as _};
use crate::runtime::process::{ProcessRuntime, Shim, ended, without_a_word};

/// What runs is told this often; the leader counts a node as lost after ten of them.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A shim that was told to stop has this much longer than its drain time: it ends its worker and says its last words meanwhile.
const GRACE: Duration = Duration::from_secs(10);
/// A node that has heard of no leader yet waits this long for one before it goes down: an end that no leader expects is a crash.
const LEADERLESS: Duration = Duration::from_secs(5);
/// Ends that are kept to be told again, at most: what is absent from a report has ended, too, only nobody knows how.
const EXITS: usize = 1024;

/// How a node is run.
#[derive(Debug, Clone)]
pub(crate) struct NodeOptions {
    pub(crate) name: NodeName,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) connect: ConnectOptions,
    /// `<home>/run`.
    pub(crate) run: PathBuf,
    pub(crate) shim: PathBuf,
}

/// Runs the node of `mozart node`.
///
/// # Errors
/// When the broker cannot be reached, or no shim is found.
pub(crate) async fn run(global: &Global, args: NodeArgs) -> Result<(), ApiError> {
    let home = crate::home::Home::locate(global.home.as_deref())?;
    home.create()?;
    let name = format!("node {}", args.name);
    let options = NodeOptions {
        name: args.name,
        labels: args.labels,
        connect: crate::connect::options(global, &name, std::time::Duration::from_secs(10))?,
        run: home.run(),
        shim: crate::binaries::shim()?,
    };
    let stop = crate::signals::stop_token()?;
    let broker = Broker::connect(&options.connect).await.attempt("cannot start the node")?;
    serve(options, broker, stop).await
}

struct Running {
    shim: Shim,
    /// When it is killed, once it was told to stop.
    kill_at: Option<Instant>,
    /// Its shim has ended: the process id may be another's soon.
    gone: bool,
}

impl Running {
    fn new(shim: Shim) -> Self {
        Self { shim, kill_at: None, gone: false }
    }
}

/// An incarnation, and the status of its shim as far as the system tells it.
type Ended = ((AgentName, u64), Option<Exit>);

/// What comes back from the tasks beside the loop.
enum Seen {
    /// A shim ended.
    Ended(Ended),
    /// What these incarnations left behind is gone.
    Swept(Vec<Ended>),
}

struct Node {
    options: NodeOptions,
    broker: Broker,
    runtime: ProcessRuntime,
    instance: u64,
    term: u64,
    draining: bool,
    running: BTreeMap<(AgentName, u64), Running>,
    /// The last end of each agent here: told until a newer incarnation starts.
    exits: BTreeMap<AgentName, IncarnationExit>,
    watches: JoinSet<Seen>,
    /// Incarnations whose shims ended without a word, until what they left behind is swept: all of them at once.
    unswept: Vec<Ended>,
    sweeping: bool,
}

/// Serves until `stop`: then everything that runs here is drained.
///
/// # Errors
/// When the broker's client is closed.
pub(crate) async fn serve(
    options: NodeOptions,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    let commands = broker.subjects().node_command(&options.name);
    let commands = broker.subscribe(commands, None).await.attempt("cannot start the node")?;
    let to_all = broker.subjects().all_nodes_command();
    let to_all = broker.subscribe(to_all, None).await.attempt("cannot start the node")?;
    let namespace = broker.subjects().namespace().clone();
    let runtime = ProcessRuntime {
        node: options.name.clone(),
        root: options.run.join(namespace.as_str()).join(options.name.as_str()),
        namespace,
        shim: options.shim.clone(),
        url: options.connect.url.clone(),
        creds: options.connect.creds.as_ref().map(|path| path.to_string_lossy().into_owned()),
    };
    let _lock = runtime.lock()?;
    let instance = uuid::Uuid::now_v7().as_u64_pair().1;
    let node = Node {
        options,
        broker,
        runtime,
        instance,
        term: 0,
        draining: false,
        running: BTreeMap::new(),
        exits: BTreeMap::new(),
        watches: JoinSet::new(),
        unswept: Vec::new(),
        sweeping: false,
    };
    node.go(commands, to_all, stop).await
}

impl Node {
    async fn go(
        mut self,
        mut commands: Subscription,
        mut to_all: Subscription,
        stop: CancellationToken,
    ) -> Result<(), ApiError> {
        self.adopt();
        let mut tick = tokio::time::interval(REPORT_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut alone = pin!(async {
            stop.cancelled().await;
            tokio::time::sleep(LEADERLESS).await;
        });
        while !(self.draining && self.running.is_empty()) {
            let may_drain = !self.draining && (self.term > 0 || self.running.is_empty());
            let kill_at = self.running.values().filter_map(|one| one.kill_at).min();
            let kill = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = tick.tick() => self.report_status().await,
                Some(seen) = self.watches.join_next() => match seen {
                    Ok(Seen::Ended(ended)) => self.ended(ended).await,
                    Ok(Seen::Swept(ended)) => self.swept(ended).await,
                    Err(error) => tracing::error!("a watch failed: {error}"),
                },
                message = commands.next() => match message {
                    Some(message) => self.command(&message.payload).await,
                    None => return Err(failure::error(
                        failure::UNREACHABLE, "the node ends", "the connection is closed", "")),
                },
                Some(message) = to_all.next() => self.command(&message.payload).await,
                () = kill => self.kill_late(),
                () = stop.cancelled(), if may_drain => self.drain().await,
                () = &mut alone, if !self.draining => self.drain().await,
            }
        }
        self.report_status().await;
        let flushed = self.broker.flush(Duration::from_secs(2)).await;
        flushed.attempt("the node's last report")
    }

    fn watch(&mut self, shim: &Shim) {
        let (agent, incarnation, pid) = (shim.agent.clone(), shim.incarnation, shim.pid);
        self.watches.spawn(async move {
            let status = ended(pid).await.unwrap_or_else(|error| {
                tracing::error!("watching {agent}-{incarnation}: {error}");
                None
            });
            Seen::Ended(((agent, incarnation), status))
        });
    }

    async fn report(&self, report: &NodeReport) {
        let subject = self.broker.subjects().node_report(&self.options.name);
        match codec::encode(report) {
            Ok(frame) => {
                if let Err(error) = self.broker.tell(subject, frame.into()).await {
                    tracing::warn!("reporting: {error}");
                }
            }
            Err(error) => tracing::error!("reporting: {error}"),
        }
    }

    async fn report_status(&self) {
        let running = self.running.values().map(|Running { shim, .. }| RunningIncarnation {
            agent: shim.agent.clone(),
            generation: shim.generation,
            incarnation: shim.incarnation,
            started_at: shim.started_at,
            pid: shim.pid,
        });
        self.report(&NodeReport::Running(NodeStatus {
            node: self.options.name.clone(),
            instance: self.instance,
            term: self.term,
            runtimes: vec!["process".to_owned()],
            labels: self.options.labels.clone(),
            draining: self.draining,
            running: running.collect(),
            exits: self.exits.values().cloned().collect(),
        }))
        .await;
    }

    async fn ended(&mut self, (key, status): Ended) {
        let Some(one) = self.running.get_mut(&key) else { return };
        one.gone = true;
        one.kill_at = None;
        match self.runtime.last_words(&key.0, key.1) {
            Some(exit) => self.finished(exit).await,
            None => {
                self.unswept.push((key, status));
                self.sweep();
            }
        }
    }

    /// Sweeps beside the loop: with many processes it takes longer than a leader waits for a report.
    fn sweep(&mut self) {
        if self.sweeping || self.unswept.is_empty() {
            return;
        }
        self.sweeping = true;
        let (runtime, ended) = (self.runtime.clone(), std::mem::take(&mut self.unswept));
        self.watches.spawn_blocking(move || {
            let keys: BTreeSet<_> = ended.iter().map(|(key, _)| key.clone()).collect();
            runtime.sweep(&keys);
            Seen::Swept(ended)
        });
    }

    async fn swept(&mut self, ended: Vec<Ended>) {
        self.sweeping = false;
        self.sweep();
        let now = SystemTime::now().into();
        for ((agent, incarnation), status) in ended {
            self.finished(without_a_word(agent, incarnation, status, now)).await;
        }
    }

    async fn finished(&mut self, exit: IncarnationExit) {
        let (agent, incarnation) = (&exit.agent, exit.incarnation);
        self.running.remove(&(agent.clone(), incarnation));
        tracing::info!("{agent}-{incarnation} ended: {}", exit.exit.describe());
        self.report(&NodeReport::Exited(exit.clone())).await;
        self.remember(exit);
    }

    /// Keeps an end, unless a newer one of the same agent is known. What is not kept leaves no folder.
    fn remember(&mut self, exit: IncarnationExit) {
        let known = self.exits.get(&exit.agent);
        if known.is_some_and(|known| known.incarnation > exit.incarnation) {
            return self.runtime.forget(&exit.agent, exit.incarnation);
        }
        let (agent, incarnation) = (exit.agent.clone(), exit.incarnation);
        if let Some(older) = self.exits.insert(agent, exit)
            && older.incarnation != incarnation
        {
            self.runtime.forget(&older.agent, older.incarnation);
        }
        if self.exits.len() > EXITS
            && let Some(oldest) = self.exits.values().min_by_key(|exit| exit.at)
            && let Some(oldest) = self.exits.remove(&oldest.agent.clone())
        {
            self.runtime.forget(&oldest.agent, oldest.incarnation);
        }
    }

    async fn command(&mut self, payload: &[u8]) {
        let NodeCommand { term, body } = match codec::decode(payload) {
            Ok(command) => command,
            Err(error) => return tracing::warn!("command: {error}"),
        };
        if term < self.term {
            return tracing::info!("refused a command of term {term}: term {} leads", self.term);
        }
        self.term = term;
        match body {
            NodeCommandBody::Start(start) => self.start(&start).await,
            NodeCommandBody::Stop { agent, incarnation, within } => {
                self.stop(&agent, incarnation, within).await;
            }
            NodeCommandBody::List => self.report_status().await,
        }
    }

    async fn start(&mut self, start: &StartIncarnation) {
        let (agent, incarnation) = (&start.agent, start.incarnation);
        if self.draining || self.running.contains_key(&(agent.clone(), incarnation)) {
            return;
        }
        if let Some(exit) = self.exits.get(agent)
            && exit.incarnation >= incarnation
        {
            return self.report(&NodeReport::Exited(exit.clone())).await;
        }
        match self.runtime.start(start, SystemTime::now().into()) {
            Ok(shim) => {
                tracing::info!("{agent}-{incarnation} started as process {}", shim.pid);
                self.watch(&shim);
                self.running.insert((agent.clone(), incarnation), Running::new(shim));
                if let Some(old) = self.exits.remove(agent) {
                    self.runtime.forget(agent, old.incarnation);
                }
            }
            Err(reason) => {
                tracing::warn!("{agent}-{incarnation} not started: {reason}");
                self.runtime.forget(agent, incarnation);
                let (agent, reason) = (agent.clone(), reason.clone());
                self.report(&NodeReport::StartFailed { agent, incarnation, reason }).await;
            }
        }
    }

    async fn stop(&mut self, agent: &AgentName, incarnation: u64, within: Duration) {
        match self.running.get_mut(&(agent.clone(), incarnation)) {
            // It is told as soon as nothing of it is left.
            Some(one) if one.gone => {}
            Some(one) => {
                one.shim.terminate();
                let grace = if within.is_zero() { Duration::ZERO } else { GRACE };
                let at = Instant::now() + within + grace;
                one.kill_at = Some(one.kill_at.map_or(at, |earlier| earlier.min(at)));
            }
            None => match self.exits.get(agent) {
                Some(exit) if exit.incarnation == incarnation => {
                    self.report(&NodeReport::Exited(exit.clone())).await;
                }
                _ => self.report_status().await,
            },
        }
    }

    fn kill_late(&mut self) {
        let now = Instant::now();
        for one in self.running.values_mut().filter(|one| one.kill_at.is_some_and(|at| at <= now)) {
            tracing::warn!(
                "{}-{} did not stop in time: killed",
                one.shim.agent,
                one.shim.incarnation
            );
            one.shim.kill();
            // Once more should it survive; its end is awaited.
            one.kill_at = Some(now + GRACE);
        }
    }

    /// Goes down with all that runs here. Said first, so that no end counts as a crash.
    async fn drain(&mut self) {
        self.draining = true;
        self.report_status().await;
        for one in self.running.values_mut().filter(|one| !one.gone) {
            one.shim.terminate();
            one.kill_at.get_or_insert_with(|| Instant::now() + crate::up::DRAIN + GRACE);
        }
    }
}
