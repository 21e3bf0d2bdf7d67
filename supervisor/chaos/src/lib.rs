//! `mozart chaos`: a throwaway fleet in a namespace of its own on a broker in use. Faults hit its own processes at moments that a seed
//! decides, while messages are sent to its agents; then the journal is judged. Nothing else is touched: neither the broker, nor any process
//! that was not started here.

mod ground;
mod kind;
mod left;
mod load;
mod part;
mod random;
mod relay;
mod report;
mod schedule;
mod storm;
pub mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::{Attempt as _, Broker, ConnectOptions, by_way_of};
use checker::{Facts, judge_at_rest, settled, witnessed};
use common::api::ApiError;
use common::{Namespace, failure};
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use ground::Ground;
pub use kind::Kind;
use left::Site;
pub use left::sweep_at_end;
pub use load::{Conversations, chat, insist};
pub use random::Random;
pub use report::{Ledger, Report, Shown};
pub use schedule::schedule;
pub use storm::{Counts, Entry};
use storm::{Log, Storm};

/// ATTEMPTS of every agent.
pub(crate) const ATTEMPTS: u32 = 5;
/// How long everything may take to become final when the last fault is over: twice the consumers' ack wait, the sweeper's 60 s, and a
/// margin.
const REST: Duration = Duration::from_secs(180);
/// How much space has to be free: for logs, notes, and the streams where the broker is on this disk.
const FREE: u64 = 1 << 30;

/// What a run is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach the broker, as whoever may do everything there. The namespace is not used.
    pub connect: ConnectOptions,
    /// The seed of the key with which supervisors answer for the logins of agents; none: agents log in as their nodes do.
    pub login_seed: Option<String>,
    /// Whether processes connect through relays, so that they can be cut off ([`can_cut`]).
    pub can_cut: bool,
    /// The data folder.
    pub home: PathBuf,
    /// The program that runs as supervisor, node, client and worker.
    pub mozart: PathBuf,
    /// How long faults happen.
    pub length: Duration,
    /// The kinds of faults, each once.
    pub kinds: Vec<Kind>,
    /// Decides over everything that is random.
    pub seed: u64,
    /// How many agents there are.
    pub agents: usize,
    /// Messages a second, all agents together.
    pub rate: f64,
    /// Whether the streams and the folder stay.
    pub keep: bool,
}

/// Whether a relay can stand between a process and this broker. Not with TLS, whose certificate names another address; not with several
/// servers, which tell their clients of each other.
#[must_use]
pub fn can_cut(broker: &Broker, url: &str) -> bool {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    by_way_of(url, any).is_some() && !broker.has_tls() && !broker.is_clustered()
}

/// Runs, and leaves nothing behind, however it ends; none if `interrupted` was first. What earlier runs have left is removed before.
///
/// # Errors
/// When there is no room, the fleet does not start, or the journal cannot be read; else when what it has made cannot be removed.
pub async fn run(
    options: &Options,
    tell: &dyn Fn(&str),
    interrupted: impl Future<Output = ()>,
) -> Result<Option<Report>, ApiError> {
    has_room(&options.home)?;
    if let Err(error) = left::clean(&options.home, &options.connect, false, tell).await {
        tell(&format!("{}: {}", error.what, error.cause));
    }
    let site = Site::make(&options.home, &options.connect.url)?;
    let ground = Ground::prepare(options, site).await?;
    let ran = tokio::select! {
        ran = campaign(&ground, options, tell) => Some(ran),
        () = interrupted => None,
    };
    ground.end().await;
    let is_kept = matches!(&ran, Some(Ok(report)) if report.kept);
    let removed = match is_kept {
        true => Ok(()),
        false => ground.site.remove(&options.connect).await,
    };
    match (ran, removed) {
        (Some(Ok(report)), Err(error)) => {
            // The verdict is what was asked for.
            tell(&format!("{}: {}; the next run tries again", error.what, error.cause));
            Ok(Some(report))
        }
        (Some(ran), _) => ran.map(Some),
        (None, removed) => removed.map(|()| None),
    }
}

async fn campaign(
    ground: &Ground,
    options: &Options,
    tell: &dyn Fn(&str),
) -> Result<Report, ApiError> {
    let Options { length, kinds, seed, agents, rate, .. } = options;
    let namespace = ground.site.namespace.clone();
    tell(&format!("starting {agents} agents in {namespace}"));
    let broker = ground.start().await?;
    tell(&format!("seed {seed}: faults for {:.1} s", length.as_secs_f64()));
    let blows = schedule(*seed, *length, *agents, kinds);
    let (stop, stopped) = watch::channel(false);
    #[expect(clippy::cast_precision_loss, reason = "there are few agents")]
    let every = Duration::from_secs_f64(*agents as f64 / rate);
    let log = Log::begin(tell);
    let senders = (0..).zip(ground.agents.iter().cloned()).map(|(number, agent)| {
        let random = Random::new(seed.wrapping_mul(1000).wrapping_add(number));
        load::send(&broker, agent, random, every, stopped.clone())
    });
    let raging = async {
        let counts = Storm::new(ground, &broker, &log).rage(&blows, *length).await;
        stop.send_replace(true);
        counts
    };
    let (mut counts, sent, ended) =
        tokio::join!(raging, join_all(senders), storm::keep(ground, &log, stopped.clone()));
    counts.ended = ended;
    let started = ground.start_roles();
    started.map_err(|error| failure::file("cannot start the fleet again", &error, ""))?;
    let mut ledger = Ledger {
        namespace,
        seed: *seed,
        seconds: length.as_secs_f64(),
        kinds: kinds.clone(),
        agents: *agents,
        rate: *rate,
        counts,
        log: log.into_entries(),
        problems: Vec::new(),
        accepted: Vec::new(),
    };
    for sent in sent {
        ledger.accepted.extend(sent.accepted);
        ledger.problems.extend(sent.problems);
    }
    tell("waiting for the last answers");
    let until = Instant::now() + REST;
    let open = settled(&broker, &ground.agents, until).await;
    open.attempt("cannot tell which messages are open")?;
    let notes = ground.notes();
    let collect = async || collect(&broker, &ledger, ground.attempts(), &notes).await;
    let (facts, verdict) = judge_at_rest(until, collect).await?;
    if options.keep {
        keep(&ground.site, &ledger)?;
    }
    Ok(Report::new(ledger, &facts, verdict, options.keep))
}

fn keep(site: &Site, ledger: &Ledger) -> Result<(), ApiError> {
    let written = serde_json::to_vec(ledger).map_err(std::io::Error::other);
    written.and_then(|ledger| site.keep(&ledger)).map_err(|error| {
        let what = format!("cannot keep the run in {}", site.folder.display());
        failure::file(what, &error, "check the disk space and permissions there")
    })
}

async fn collect(
    broker: &Broker,
    ledger: &Ledger,
    attempts: std::collections::BTreeMap<common::AgentName, u32>,
    notes: &Path,
) -> Result<Facts, ApiError> {
    const WHAT: &str = "cannot read what the run has stored";
    let notes = witnessed(notes).map_err(|error| failure::file(WHAT, &error, ""))?;
    let (accepted, injected) = (ledger.accepted.clone(), std::collections::BTreeMap::new());
    Facts::collect(broker, accepted, attempts, injected, notes).await.attempt(WHAT)
}

/// Judges a run once more that was kept.
///
/// # Errors
/// 3 if none was kept in this namespace; when the broker does not answer, or has nothing of it.
pub async fn verify(
    home: &Path,
    connect: &ConnectOptions,
    namespace: &Namespace,
) -> Result<Report, ApiError> {
    let site = Site::kept(home, namespace)?;
    let what = format!("cannot read the run that was kept in {}", site.folder.display());
    let ledger = site.ledger().map_err(|error| failure::file(&what, &error, ""))?;
    let ledger: Ledger = serde_json::from_slice(&ledger)
        .map_err(|error| failure::error(failure::FAILED, &what, error, ""))?;
    let options = ConnectOptions { namespace: namespace.clone(), ..connect.clone() };
    let broker = Broker::connect(&options).await.attempt(&what)?;
    let names = (0..ledger.agents).map(|number| schedule::agent_name(number).parse());
    let attempts = names.filter_map(|name| Some((name.ok()?, ATTEMPTS))).collect();
    let facts = collect(&broker, &ledger, attempts, &site.folder.join(ground::NOTES)).await?;
    let verdict = checker::judge(&facts);
    Ok(Report::new(ledger, &facts, verdict, true))
}

/// Removes what runs have left that were kept or killed; how many there were.
///
/// # Errors
/// When the broker does not answer, or files cannot be removed.
pub async fn clean(
    home: &Path,
    connect: &ConnectOptions,
    tell: &dyn Fn(&str),
) -> Result<usize, ApiError> {
    left::clean(home, connect, true, tell).await
}

/// Refuses to begin what would fill the disk.
fn has_room(home: &Path) -> Result<(), ApiError> {
    let there = home.ancestors().find(|folder| folder.exists());
    let Some(disk) = there.and_then(|folder| rustix::fs::statvfs(folder).ok()) else {
        return Ok(());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= FREE {
        return Ok(());
    }
    let what = "there is too little space for a throwaway fleet";
    let cause = format!("{} MiB are free at {}, 1024 are needed", free >> 20, home.display());
    Err(failure::error(failure::LIMIT, what, cause, "free some, or --dir DIR on another disk"))
}
