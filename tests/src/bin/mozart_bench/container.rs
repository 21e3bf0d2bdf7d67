//! Goals 14 and 15: agents in containers, beside what docker does by itself.
//!
//! Docker's own restart waits 100 ms first, and doubles that for containers that ran for less than 10 s: between two crashes both
//! sides are left alone for longer than that.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::process::Command;

use crate::beacon::Beacon;
use crate::drive::{Load, Side as _, drive, text, warm_up};
use crate::figure::{Figure, Goal, Pairs, Report, median};
use crate::fleet::{ECHO, Fleet, Runtime};
use crate::memory::{CONMON, kilobytes};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process::{self, signal};
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::{roles, worker};

/// Docker forgets earlier crashes of a container that has run for 10 s.
const CALM: Duration = Duration::from_secs(11);
/// What the engine has, and both sides run in: made by the node.
const IMAGE: &str = concat!("mozart-base:", env!("CARGO_PKG_VERSION"));
const AGENTS: usize = 20;

/// From a crash to the next process's main, and to the next message that it is given.
pub(crate) async fn restart(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let (near, far) = (folder(&rig, "our-workers")?, folder(&rig, "their-workers")?);
    let (mut our_beacon, mut their_beacon) = (open(&near)?, open(&far)?);
    let programs = folder(&rig, "programs")?;
    std::fs::copy(std::env::current_exe()?, programs.join("mozart-bench"))?;
    let own = ["/bench/mozart-bench", roles::ROLE, "worker", "/beacon"];
    let soul = format!(
        "MODEL bench/worker\nSOUL You answer.\nWORKER {}\nSANCTUM {}:/bench:ro\nSANCTUM {}:/beacon\n\
         RESTART always max=0/1m backoff=0s..0s\n",
        serde_json::to_string(&own)?,
        programs.display(),
        near.display(),
    );
    let fleet = Fleet::start_in(&rig, "ours", 1, &soul, Runtime::Docker).await?;
    let ours = Ours::connect(&fleet).await?;
    let mounts =
        [format!("{}:/bench:ro", programs.display()), format!("{}:/beacon", far.display())];
    let theirs = Container::run(&mounts, &own).await?;
    our_beacon.main().await?;
    their_beacon.main().await?;

    let (mut mains, mut messages) = (Pairs::default(), Pairs::default());
    for _ in 0..plan.pairs {
        tokio::time::sleep(CALM).await;
        ours.chat(0, &text(0)).await?;
        our_beacon.drain();
        let worker = worker_of(pid_of(&fleet, 0).await?)?;
        let killed = Instant::now();
        signal(worker, Signal::KILL);
        let waiter = ours.send(&ours.envelope(0, &text(1))?).await?;
        let main = our_beacon.main().await?.0 - killed;
        let given = our_beacon.chat().await? - killed;
        waiter.answer().await?;
        let pid = theirs.pid().await?;
        let killed = Instant::now();
        signal(pid, Signal::KILL);
        let bare = their_beacon.main().await?.0 - killed;
        mains.push(millis(main), millis(bare));
        messages.push(millis(given), millis(bare));
    }
    let name = "container: crash to the next main: docker run --restart=always";
    report.add(mains.figure(14, name, "ms", Goal::AtMost(1.2)))?;
    let name = "container: crash to ready and the next message: docker's next main";
    report.add(messages.figure(14, name, "ms", Goal::AtMost(1.2)))
}

/// What a container costs beside its worker.
pub(crate) async fn memory(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let fleet = Fleet::start_in(&rig, "ours", AGENTS, ECHO, Runtime::Docker).await?;
    let ours = Ours::connect(&fleet).await?;
    let (mut conmon, mut containerd) = (Pairs::default(), Pairs::default());
    let mut pids = Vec::new();
    for agent in 0..AGENTS {
        pids.push(pid_of(&fleet, agent).await?);
    }
    for pid in &pids {
        let shim = private(*pid)?;
        conmon.push(shim, CONMON);
        containerd.push(shim, private(parent(*pid)?)?);
    }
    let name = format!("container: shim's private memory, {AGENTS} idle: conmon, as measured once");
    report.add(conmon.figure(15, &name, "KiB", Goal::AtMost(1.5)))?;
    let name = "container: the same: containerd-shim of the same containers";
    report.add(containerd.figure(15, name, "KiB", Goal::AtMost(1.0)))?;
    warm_up(&ours, AGENTS).await?;
    drive(&ours, Load { agents: AGENTS, in_flight: 64, window: plan.window }).await?;
    let loaded: Result<Vec<f64>> = pids.iter().map(|pid| private(*pid)).collect();
    report.add(Figure::alone(15, "container: the same after load", median(loaded?), "KiB"))
}

/// A folder that any user may write to: the worker is nobody in particular.
fn folder(rig: &Rig, name: &str) -> Result<PathBuf> {
    let folder = rig.folder.path().join(name);
    std::fs::create_dir_all(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    // On the way to it, too.
    std::fs::set_permissions(rig.folder.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

fn open(folder: &Path) -> Result<Beacon> {
    let beacon = Beacon::new(folder)?;
    let socket = worker::socket(folder);
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777))?;
    Ok(beacon)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The host's process id of an agent's shim.
async fn pid_of(fleet: &Fleet, agent: usize) -> Result<u32> {
    let namespace = format!("label=dev.mozart.namespace={}", fleet.namespace);
    let agent = format!("label=dev.mozart.agent={}", fleet.agents[agent]);
    let ids = docker(&["ps", "-q", "--filter", &namespace, "--filter", &agent]).await?;
    match ids.split_whitespace().collect::<Vec<_>>()[..] {
        [id] => pid(id).await,
        ref other => fail(format!("{} containers of {agent}", other.len())),
    }
}

async fn pid(container: &str) -> Result<u32> {
    Ok(docker(&["inspect", "-f", "{{.State.Pid}}", container]).await?.trim().parse()?)
}

async fn docker(args: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(args).output().await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    fail(format!("docker {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The one child of a shim.
fn worker_of(shim: u32) -> Result<u32> {
    let children = process::read(Path::new(&format!("/proc/{shim}/task/{shim}/children")));
    match children.as_deref().and_then(|text| text.split_whitespace().next()) {
        Some(child) => Ok(child.parse()?),
        None => fail(format!("process {shim} has no worker")),
    }
}

fn parent(pid: u32) -> Result<u32> {
    let status = process::read(Path::new(&format!("/proc/{pid}/status"))).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(parent.unwrap_or_default().trim().parse()?)
}

fn private(pid: u32) -> Result<f64> {
    match kilobytes(Path::new(&format!("/proc/{pid}/smaps_rollup")), "Private_") {
        Some(kilobytes) => Ok(kilobytes),
        None => fail(format!("process {pid} is gone")),
    }
}

/// A container as docker restarts it by itself; removed when dropped.
struct Container(String);

impl Container {
    async fn run(mounts: &[String], command: &[&str]) -> Result<Self> {
        let mut args = vec!["run", "-d", "-i", "--restart=always", "--network=bridge"];
        for mount in mounts {
            args.extend(["-v", mount]);
        }
        args.push(IMAGE);
        args.extend(command);
        Ok(Self(docker(&args).await?.trim().to_owned()))
    }

    async fn pid(&self) -> Result<u32> {
        pid(&self.0).await
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let removed = std::process::Command::new("docker").args(["rm", "-f", &self.0]).output();
        if let Err(error) = removed {
            crate::figure::note(&format!("docker rm {}: {error}", self.0));
        }
    }
}
