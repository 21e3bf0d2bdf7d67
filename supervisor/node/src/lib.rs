//! The node: starts and stops incarnations on this machine, reports what runs, and adopts what an earlier process of it started.

mod adopt;
mod carry;
mod commands;
mod containers;
mod ends;
mod engine;
mod files;
mod predecessors;
mod running;
mod standstill;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use broker::{Broker, ConnectOptions, Moment, Subscription, TransientMessage};
use common::api::ApiError;
use common::frame::{IncarnationExit, NodeReport, NodeStatus, RunningIncarnation};
use common::shim::ShimLogins;
use common::trace::Share;
use common::{AgentName, Capacity, NodeName, codec};
use metrics::Node as Metrics;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::carry::Carries;
use self::commands::Untaken;
use self::engine::{Found, Search};
use self::files::Cache;
use self::running::{Key, Running, Seen, Starting};
use broker::Attempt as _;
use common::failure;
use runtime::engine::{Connection, Engine, News};
use runtime::folder::RunFolders;
use runtime::process::ProcessRuntime;
use runtime::{RuntimeOptions, Wanted};

/// How often the node reports what runs; the leader counts a node as lost after ten missing reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A shim that was told to stop has this much longer than its drain time: it ends its worker and writes its exit record meanwhile.
const GRACE: Duration = Duration::from_secs(10);
/// A node that has heard of no leader yet waits this long for one before it goes down: an end that no leader expects is a crash.
const LEADERLESS: Duration = Duration::from_secs(5);
/// What has ended here is removed sooner, unless the engine is out of order.
const REMOVED: Duration = Duration::from_secs(10);
/// News of the engine that wait to be heard, at most: then it waits.
const NEWS: usize = 256;

/// How long agents may drain when everything goes down, unless their souls say less.
pub const DRAIN: Duration = Duration::from_secs(30);

/// How a node is run.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its name.
    pub name: NodeName,
    /// Its labels, for `REQUIRE`.
    pub labels: Vec<(String, String)>,
    /// What it can take.
    pub capacity: Capacity,
    /// How it, and the shims that it starts, reach the broker.
    pub connect: ConnectOptions,
    /// Whether its shims log in with rights of their own, for which the supervisors answer.
    pub logins: bool,
    /// The traces that are recorded, for the shims; none where none is exported.
    pub traces: Option<Share>,
    /// The data folder.
    pub home: PathBuf,
    /// The id of the data folder: what runs with another id does not belong to this node.
    pub folder: String,
    /// `<home>/run`.
    pub run: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
    /// What agents run in.
    pub runtime: RuntimeOptions,
    /// The engine that was found.
    pub engine: Option<Connection>,
    /// Where its numbers go; none if nobody reads them.
    pub metrics: Option<Metrics>,
    /// Cancelled once the node has all that it needs, and serves.
    pub serves: CancellationToken,
}

/// What the node's loop waits for.
enum Input {
    Tick,
    Seen(Result<Seen, JoinError>),
    News(News),
    Engine(Found),
    Command(Option<TransientMessage>),
    Carry(TransientMessage),
    Kill,
    Drain,
}

struct Node {
    options: NodeOptions,
    broker: Broker,
    folders: RunFolders,
    /// What runs as a process here, if anything does.
    process: Option<ProcessRuntime>,
    engine: Option<Engine>,
    /// Why an engine that answers cannot be used, as it is reported.
    unusable: Option<String>,
    /// Whether the engine answered when it was last asked.
    engine_is_up: bool,
    /// Containers that ended before their start was heard of.
    ended_early: BTreeSet<String>,
    /// Containers that are being removed: nothing of them is to be told any more.
    discarding: BTreeSet<String>,
    /// Those that were since the last list: one that is under way may show them still.
    discarded: BTreeSet<String>,
    instance: u64,
    /// Earlier processes of this node, which the lock of its folder says are dead.
    succeeds: Vec<u64>,
    term: u64,
    /// The term and number of the newest command that was taken.
    seen: (u64, u64),
    /// When this process was last seen to run.
    awake: Moment,
    /// Whether queued input may have been sent while this process was suspended.
    stale: bool,
    /// Whether a leader has said that another process speaks for this name.
    refused: bool,
    draining: bool,
    /// Incarnations whose containers are on their way; cancelled, they are not to be.
    starting: BTreeMap<Key, Starting>,
    /// What takes long among these, in words.
    preparing: Arc<Mutex<BTreeMap<Key, String>>>,
    running: BTreeMap<Key, Running>,
    /// The last end of each agent here: told until a newer incarnation starts.
    exits: BTreeMap<AgentName, IncarnationExit>,
    /// Those of `exits` that this process did not see, but found.
    found: BTreeSet<AgentName>,
    watches: JoinSet<Seen>,
    /// The files that agents run with.
    cache: Cache,
    /// The SANCTUMs that are copied to another node, or from one.
    carries: Carries,
    /// When those that are not used any more were last removed.
    evicted: Option<Instant>,
    /// Incarnations whose shims ended without reporting an exit status, until what they left behind is swept: all of them at once.
    unswept: Vec<running::EndedShim>,
    sweeping: bool,
    /// Commands that were not taken.
    untaken: Untaken,
}

/// Serves until `stop`: then everything that runs here is drained.
///
/// # Errors
/// When the broker's client is closed, or nothing could run here.
pub async fn serve(
    options: NodeOptions,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    let commands = broker.subjects().node_command(&options.name);
    let commands = broker.subscribe(commands, None).await.attempt("cannot start the node")?;
    let to_all = broker.subjects().all_nodes_command();
    let to_all = broker.subscribe(to_all, None).await.attempt("cannot start the node")?;
    let carry = broker.subjects().node_carry(&options.name);
    let carry = broker.subscribe(carry, None).await.attempt("cannot start the node")?;
    let namespace = broker.subjects().namespace().clone();
    // Told to stop already, it still takes over what runs, to end it in order.
    let stopped = stop.clone();
    let mut given_up = pin!(async move {
        stopped.cancelled().await;
        tokio::time::sleep(LEADERLESS).await;
    });
    let who = format!("node {}", options.name);
    // The first supervisor may just be making the streams.
    let fleet = tokio::select! {
        fleet = broker::once_there(&who, || broker.fleet_id()) => {
            fleet.attempt("cannot tell which fleet this is")?
        }
        () = &mut given_up => return Ok(()),
    };
    let folders = RunFolders { root: options.run.join(&fleet).join(options.name.as_str()) };
    let _lock = folders.lock(&options.name)?;
    let access = Access::of(&options, &broker);
    let is_asked_for = matches!(options.runtime.runtime, Wanted::Auto | Wanted::Process);
    let process = is_asked_for.then(|| ProcessRuntime {
        node: options.name.clone(),
        folders: folders.clone(),
        namespace,
        shim: options.shim.clone(),
        url: access.url.clone(),
        creds: access.creds.as_ref().map(|path| path.to_string_lossy().into_owned()),
        ca: options.connect.ca.clone(),
        logins: access.logins,
        traces: options.traces,
        env_file: options.runtime.env_file.clone(),
    });
    // A leader that was deposed while no process of this node ran may command this one first.
    let term = broker::once_there(&who, || broker.newest_term());
    let ready = async {
        let term = term.await.attempt("cannot tell who leads")?;
        Ok::<_, ApiError>((term, engine::first(&options, &broker, &fleet, &folders).await?))
    };
    let (term, (found, search)) = tokio::select! {
        ready = ready => ready?,
        () = &mut given_up => return Ok(()),
    };
    let instance = Uuid::now_v7().as_u64_pair().1;
    let succeeds = predecessors::succeed(&folders.root, instance);
    let mut node = Node {
        cache: Cache::new(options.home.join("files")),
        carries: Carries::new(&options),
        evicted: None,
        options,
        broker,
        folders,
        process,
        engine: None,
        unusable: None,
        engine_is_up: true,
        ended_early: BTreeSet::new(),
        discarding: BTreeSet::new(),
        discarded: BTreeSet::new(),
        instance,
        succeeds,
        term,
        seen: (0, 0),
        awake: Moment::now(),
        stale: false,
        refused: false,
        draining: false,
        starting: BTreeMap::new(),
        preparing: Arc::default(),
        running: BTreeMap::new(),
        exits: BTreeMap::new(),
        found: BTreeSet::new(),
        watches: JoinSet::new(),
        unswept: Vec::new(),
        sweeping: false,
        untaken: Untaken::default(),
    };
    node.has_found(found);
    node.options.serves.cancel();
    node.go(commands, to_all, carry, search, stop).await
}

/// How the shims of this node reach the broker.
struct Access {
    url: String,
    creds: Option<PathBuf>,
    logins: Option<ShimLogins>,
}

impl Access {
    /// With logins of their own they get none of the node's.
    fn of(options: &NodeOptions, broker: &Broker) -> Self {
        let ConnectOptions { url, creds, .. } = &options.connect;
        if options.logins {
            let (shards, replicas) = (broker.subjects().shards(), broker.replicas());
            let logins = Some(ShimLogins { shards, replicas });
            return Self { url: broker::without_login(url), creds: None, logins };
        }
        Self { url: url.clone(), creds: creds.clone(), logins: None }
    }
}

impl Node {
    async fn go(
        mut self,
        mut commands: Subscription,
        mut to_all: Subscription,
        mut carry: Subscription,
        search: Search,
        stop: CancellationToken,
    ) -> Result<(), ApiError> {
        let (news, mut heard) = mpsc::channel(NEWS);
        self.adopt().await;
        self.carries.clear_up().await;
        // Ends with this function.
        let mut watching = JoinSet::new();
        let (found, mut looked) = mpsc::channel(1);
        if let Some(engine) = self.engine.clone() {
            watching.spawn(engine.watch(news.clone()));
        } else if search.goes_on() {
            watching.spawn(search.go_on(self.unusable.clone(), found));
        }
        let near = self.broker.clone().stay_in_reach(None);
        watching.spawn(async move { match near.await {} });
        let mut tick = tokio::time::interval(REPORT_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut alone = pin!(async {
            stop.cancelled().await;
            tokio::time::sleep(LEADERLESS).await;
        });
        while !(self.draining && self.is_empty()) {
            let has_heard_a_leader = self.seen.0 > 0;
            let may_drain = !self.draining && (has_heard_a_leader || self.is_empty());
            let kill_at = self.running.values().filter_map(|one| one.kill_at).min();
            let kill = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                _ = tick.tick() => Input::Tick,
                Some(seen) = self.watches.join_next() => Input::Seen(seen),
                Some(news) = heard.recv() => Input::News(news),
                Some(found) = looked.recv() => Input::Engine(found),
                message = commands.next() => Input::Command(message),
                Some(message) = to_all.next() => Input::Command(Some(message)),
                Some(message) = carry.next() => Input::Carry(message),
                Some(_) = self.carries.tasks.join_next() => continue,
                () = kill => Input::Kill,
                () = stop.cancelled(), if may_drain => Input::Drain,
                () = &mut alone, if !self.draining => Input::Drain,
            };
            // Whatever it is: it may have waited while this process stood still. The first word is what runs.
            if self.awake() {
                self.report_status().await;
            }
            match input {
                Input::Tick => {
                    self.report_status().await;
                    self.tell_untaken();
                }
                Input::Seen(Ok(seen)) => self.seen(seen).await,
                Input::Seen(Err(error)) => tracing::error!("a watch task failed: {error}"),
                Input::News(news) => self.news(news).await,
                Input::Engine(found) => {
                    self.has_found(found);
                    if let Some(engine) = self.engine.clone() {
                        watching.spawn(engine.watch(news.clone()));
                    }
                    self.report_status().await;
                }
                Input::Command(Some(message)) => self.command(&message.payload).await,
                Input::Command(None) => {
                    let cause = "the connection is closed";
                    return Err(failure::error(
                        failure::UNREACHABLE,
                        "the node stopped",
                        cause,
                        "",
                    ));
                }
                Input::Carry(message) => self.carry_asked(&message),
                Input::Kill => self.kill_late(),
                Input::Drain => self.drain().await,
            }
            if self.stale {
                self.catch_up([&mut commands, &mut to_all]).await;
            }
            if self.refused {
                return Err(self.second());
            }
        }
        self.report_status().await;
        let flushed = self.broker.flush(Duration::from_secs(2)).await;
        // After the last word, which others wait for: containers that have ended are still being removed.
        let removed = async {
            while self.watches.join_next().await.is_some() {}
            self.clear_up().await;
            // They are made anew from what is cached here.
            if let Some(engine) = &self.engine {
                engine.drop_idle_files(&BTreeSet::new()).await;
            }
        };
        if tokio::time::timeout(REMOVED, removed).await.is_err() {
            tracing::warn!("stopped containers were not removed within {REMOVED:?}");
        }
        flushed.attempt("cannot send the node's last report")
    }

    /// Another process uses the node's name. This one leaves everything as it is: what runs may belong to the other, or be managed by it.
    fn second(&self) -> ApiError {
        let name = &self.options.name;
        let cause = format!(
            "another process reports as node `{name}`: a cloned machine, or a copied data folder"
        );
        let try_ = "give one of them another name: `mozart node --name`, `mozart up --name`; or stop the other one";
        failure::error(failure::CONFLICT, "two nodes have the same name", cause, try_)
    }

    /// Whether nothing runs here, nothing is about to, and nothing is left over.
    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.starting.is_empty() && self.discarding.is_empty()
    }

    async fn seen(&mut self, seen: Seen) {
        match seen {
            Seen::ShimEnded(ended) => self.shim_ended(ended).await,
            Seen::Swept(ended) => self.swept(ended).await,
            Seen::Prepared(start, prepared) => self.prepared(*start, prepared).await,
            Seen::Started(key, started) => self.started(key, started).await,
            Seen::Said(container, words) => self.said(container, words).await,
            Seen::Settled(container, ended) => self.settled(container, ended).await,
            Seen::Discarded(id, gone) => {
                self.discarding.remove(&id);
                if gone {
                    self.discarded.insert(id);
                }
            }
            Seen::Done => {}
        }
    }

    async fn report(&self, report: &NodeReport) {
        let subject = self.broker.subjects().node_report(&self.options.name);
        match codec::encode(report) {
            Ok(frame) => {
                if let Err(error) = self.broker.tell(subject, frame.into()).await {
                    tracing::warn!("cannot send a report: {error}");
                }
            }
            Err(error) => tracing::error!("cannot send a report: {error}"),
        }
    }

    fn has_found(&mut self, found: Found) {
        self.unusable = found.why().map(str::to_owned);
        if let Found::Usable(engine) = found {
            self.engine = Some(engine);
        }
    }

    /// What agents can run in here just now; of an engine that answers and cannot be used, why not.
    fn runtimes(&self) -> Vec<String> {
        let engine = self.engine.as_ref().filter(|_| self.engine_is_up);
        let engine = engine.map(|engine| engine.kind().as_str());
        let process = self.process.as_ref().map(|_| "process");
        let unusable = self.unusable.as_deref();
        process.into_iter().chain(engine).chain(unusable).map(str::to_owned).collect()
    }

    async fn report_status(&self) {
        if let Some(metrics) = &self.options.metrics {
            let engine = self.engine.is_some() && self.engine_is_up;
            let connected = self.broker.link().borrow().up;
            metrics.show(self.running.len(), self.starting.len(), engine, connected);
        }
        let running = self.running.iter().map(|((agent, incarnation), one)| RunningIncarnation {
            agent: agent.clone(),
            generation: one.generation,
            incarnation: *incarnation,
            started_at: one.started_at,
            pid: one.pid(),
        });
        // What is on its way counts as there: it is neither missing, nor wanted if it should not be.
        let starting = self.starting.iter().map(|((agent, incarnation), one)| RunningIncarnation {
            agent: agent.clone(),
            generation: one.generation,
            incarnation: *incarnation,
            started_at: one.since,
            pid: 0,
        });
        let running = running.chain(starting);
        self.report(&NodeReport::Running(NodeStatus {
            node: self.options.name.clone(),
            instance: self.instance,
            succeeds: self.succeeds.clone(),
            term: self.term,
            seen: self.seen,
            runtimes: self.runtimes(),
            labels: self.options.labels.clone(),
            capacity: self.options.capacity,
            draining: self.draining,
            running: running.collect(),
            exits: self.exits.values().cloned().collect(),
        }))
        .await;
        let preparing = self.preparing.lock().map(|known| known.clone()).unwrap_or_default();
        for ((agent, incarnation), doing) in preparing {
            let instance = Some(self.instance);
            self.report(&NodeReport::Preparing { instance, agent, incarnation, doing }).await;
        }
    }
}
