//! How long a fleet is without decisions when its leader is killed: two supervisors, a node, and a worker that crashes in the same
//! moment. The next decision is the leader's record that this worker's incarnation has ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use broker::{Broker, ControlFollower, ControlItem, StreamOptions};
use common::Namespace;
use common::control::ControlEvent;
use rustix::process::Signal;

use crate::beacon::Beacon;
use crate::figure::{Report, note};
use crate::outcome::{Result, fail};
use crate::process::{self, Draining, Owned, signal};
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::worker;

/// A fleet that has its decision by then is one that people wait for.
const WANTED: f64 = 5.0;
/// What is waited for takes no longer.
const LONGEST: Duration = Duration::from_secs(30);
/// It is known to crash, and is to go on.
const FOREVER: &str = "RESTART always max=0/1m backoff=0s..0s";

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let workers = rig.folder.path().join("workers");
    let mut beacon = Beacon::new(&workers)?;
    let roles = Roles::new(&rig, &worker::soul(Some(&workers), FOREVER)?)?;
    let options = Rig::connect(&rig.server.url, &roles.namespace);
    let streams = StreamOptions { journal_shards: 4, replicas: None };
    let broker = Broker::connect_and_create(&options, &streams).await?;
    let mut log = Log { follower: broker.follow_control(1, None).await?, leader: String::new() };
    let mut supervisors = [roles.supervisor(0).await?, roles.supervisor(1).await?];
    let _node = Draining(roles.start("node", &["node", "--name", "n", "--runtime", "process"])?);
    roles.apply().await?;
    let (mut elections, mut decisions) = (Vec::new(), Vec::new());
    for _ in 0..plan.trials {
        let pid = beacon.main().await?.2;
        log.until(|event| matches!(event, ControlEvent::IncarnationReady { .. })).await?;
        let killed = roles.number(&log.leader)?;
        let from = Instant::now();
        signal(supervisors[killed].id(), Signal::KILL);
        signal(pid, Signal::KILL);
        log.until(|event| matches!(event, ControlEvent::LeaderElected { .. })).await?;
        elections.push(from.elapsed().as_secs_f64());
        log.until(|event| matches!(event, ControlEvent::IncarnationExited { .. })).await?;
        decisions.push(from.elapsed().as_secs_f64());
        supervisors[killed] = roles.supervisor(killed).await?;
    }
    report.times("leader killed to the next election", &elections, "s", WANTED)?;
    report.times("leader killed to the next decision", &decisions, "s", WANTED)
}

/// The control log, read as it grows.
struct Log {
    follower: ControlFollower,
    /// The supervisor of the last election.
    leader: String,
}

impl Log {
    /// Reads up to a record that is meant.
    async fn until(&mut self, is_meant: impl Fn(&ControlEvent) -> bool) -> Result<()> {
        let read = async {
            loop {
                let ControlItem::Record { record, .. } = self.follower.next().await? else {
                    continue;
                };
                if let ControlEvent::LeaderElected { supervisor, .. } = &record.event {
                    self.leader.clone_from(supervisor);
                }
                if is_meant(&record.event) {
                    return Ok(());
                }
            }
        };
        match tokio::time::timeout(LONGEST, read).await {
            Ok(read) => read,
            Err(_) => fail(format!("the control log stays silent for {LONGEST:?}")),
        }
    }
}

/// Each role in a process of its own.
struct Roles {
    mozart: PathBuf,
    url: String,
    namespace: Namespace,
    folder: PathBuf,
}

impl Roles {
    fn new(rig: &Rig, soul: &str) -> Result<Self> {
        let folder = rig.folder.path().join("roles");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("a.soul"), soul)?;
        let namespace = Namespace::new("failover")?;
        Ok(Self { mozart: process::mozart()?, url: rig.server.url.clone(), namespace, folder })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.mozart);
        command.args(["--nats", &self.url, "--namespace", self.namespace.as_str(), "--dir"]);
        command.arg(self.folder.join("home")).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn start(&self, name: &str, args: &[&str]) -> Result<Owned> {
        let mut command = self.command();
        Owned::start(command.args(args).stderr(File::create(self.log(name))?))
    }

    /// Starts a supervisor, and waits until it competes.
    async fn supervisor(&self, number: usize) -> Result<Owned> {
        let id = id(number);
        let started = self.start(&id, &["supervisor", "--id", &id])?;
        process::until("a supervisor", LONGEST, async || {
            let log = process::read(&self.log(&id)).unwrap_or_default();
            Ok(log.contains("follows the log").then_some(()))
        })
        .await?;
        Ok(started)
    }

    fn number(&self, leader: &str) -> Result<usize> {
        match (0..2).find(|number| id(*number) == leader) {
            Some(number) => Ok(number),
            None => fail(format!("{leader:?} leads, whom nobody started")),
        }
    }

    /// Applies the soul, as soon as a supervisor and a node are there.
    async fn apply(&self) -> Result<()> {
        let mut apply = self.command();
        apply.arg("apply").arg(self.folder.join("a.soul")).stderr(Stdio::piped());
        let ended = tokio::process::Command::from(apply).output().await?;
        if ended.status.success() {
            return Ok(());
        }
        note(&read_all(&self.folder));
        fail(format!("mozart apply: {}", String::from_utf8_lossy(&ended.stderr)))
    }
}

fn id(number: usize) -> String {
    format!("s{number}")
}

fn read_all(folder: &Path) -> String {
    let logs = ["s0", "s1", "node"].map(|name| process::read(&folder.join(format!("{name}.log"))));
    logs.into_iter().flatten().collect()
}
