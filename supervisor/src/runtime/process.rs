//! The process runtime: starts shims with `posix_spawn`, watches them by pidfd, finds them again after a restart.
//!
//! A run folder `<home>/run/<namespace>/<node>/<agent>-<incarnation>/` holds the shim's exit file and its own log.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::api::ApiError;
use common::shim::{
    CONFIG_ENV, Exit, IncarnationExit, LABEL_ENV, ShimConfig, ShimExit, StartIncarnation,
};
use common::spec::AgentSpec;
use common::{AgentName, Namespace, NodeName, Timestamp};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, waitpid};
use tokio::io::unix::AsyncFd;

use super::labels::{self, RUN_ENV};
use crate::{failure, home};

/// Variables of the node's environment that every worker gets. Anything else it gets by `ENV` and `SECRET`.
const PASSED: [&str; 17] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TERM",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "NODE_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
];

/// Where and how shims are started.
#[derive(Debug, Clone)]
pub(crate) struct ProcessRuntime {
    pub(crate) node: NodeName,
    pub(crate) namespace: Namespace,
    /// `<home>/run/<namespace>/<node>`.
    pub(crate) root: PathBuf,
    pub(crate) shim: PathBuf,
    /// The broker's address with credentials, for the shims.
    pub(crate) url: String,
    pub(crate) creds: Option<String>,
}

/// A running shim.
#[derive(Debug, Clone)]
pub(crate) struct Shim {
    pub(crate) agent: AgentName,
    pub(crate) generation: u64,
    pub(crate) incarnation: u64,
    pub(crate) pid: u32,
    pub(crate) started_at: Timestamp,
    pub(crate) run: PathBuf,
}

impl ProcessRuntime {
    fn folder(&self, agent: &AgentName, incarnation: u64) -> PathBuf {
        self.root.join(format!("{agent}-{incarnation}"))
    }

    /// Makes sure that one node of this name serves this folder.
    ///
    /// # Errors
    /// When another one does, or the folder cannot be made.
    pub(crate) fn lock(&self) -> Result<fs::File, ApiError> {
        const WHAT: &str = "cannot start the node";
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root);
        made.map_err(|error| failure::error(failure::FAILED, WHAT, error, "--dir DIR"))?;
        home::lock(&self.root.join("lock"))?.ok_or_else(|| {
            let cause = format!("another node `{}` serves {}", self.node, self.root.display());
            failure::error(failure::CONFLICT, WHAT, cause, "--name NAME, or --dir DIR")
        })
    }

    /// Starts an incarnation.
    ///
    /// # Errors
    /// In words for people: a secret that is not set, no shim binary, a system out of processes or space.
    pub(crate) fn start(&self, start: &StartIncarnation, now: Timestamp) -> Result<Shim, String> {
        let spec: AgentSpec =
            serde_json::from_str(&start.spec).map_err(|error| format!("its spec: {error}"))?;
        let run = self.folder(&start.agent, start.incarnation);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&run)
            .map_err(|error| format!("cannot make {}: {error}", run.display()))?;
        let mut command = Command::new(&self.shim);
        command.env_clear();
        let locale = |name: &str| name.starts_with("LC_");
        command.envs(std::env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| PASSED.contains(&name) || locale(name))
        }));
        for secret in &spec.secrets {
            let value = std::env::var_os(secret).ok_or_else(|| {
                format!("SECRET {secret} is not set in the environment of node `{}`", self.node)
            })?;
            command.env(secret, value);
        }
        let label = format!(
            "{}/{}/{}/{}/{}",
            self.namespace, self.node, start.agent, start.generation, start.incarnation
        );
        let config_file = run.join("shim.json");
        let config = ShimConfig {
            url: self.url.clone(),
            creds: self.creds.clone(),
            namespace: self.namespace.clone(),
            incarnation: start.incarnation,
            generation: start.generation,
            token: start.token.clone(),
            workdir: Some(workdir(&spec, &run)),
            exit_file: run.join("exit.json").to_string_lossy().into_owned(),
            spec,
        };
        write_private(&config_file, &config)
            .map_err(|error| format!("cannot write the shim's configuration: {error}"))?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(run.join("shim.log"))
            .map_err(|error| format!("cannot open the shim's log: {error}"))?;
        let child = command
            .env(LABEL_ENV, label)
            .env(RUN_ENV, &run)
            .env(CONFIG_ENV, &config_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", self.shim.display()))?;
        Ok(Shim {
            agent: start.agent.clone(),
            generation: start.generation,
            incarnation: start.incarnation,
            pid: child.id(),
            started_at: now,
            run,
        })
    }

    /// What an earlier process of this node started and what still runs.
    pub(crate) fn adopt(&self) -> Vec<Shim> {
        let shims = labels::find(&self.root).into_iter().filter(|one| one.is_shim);
        shims
            .filter_map(|one| {
                let mut parts = one.label.rsplit('/');
                let incarnation = parts.next()?.parse().ok()?;
                let generation = parts.next()?.parse().ok()?;
                let agent = AgentName::new(parts.next()?).ok()?;
                let started_at = Timestamp::from_millis(labels::started_at(one.pid)?);
                let (pid, run) = (one.pid, one.run);
                Some(Shim { agent, generation, incarnation, pid, started_at, run })
            })
            .collect()
    }

    /// The run folders that are there, as (agent, incarnation).
    pub(crate) fn folders(&self) -> Vec<(AgentName, u64)> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (agent, incarnation) = name.rsplit_once('-')?;
                Some((AgentName::new(agent).ok()?, incarnation.parse().ok()?))
            })
            .collect()
    }

    /// Removes what is left of an incarnation that nobody asks about any more.
    pub(crate) fn forget(&self, agent: &AgentName, incarnation: u64) {
        if let Err(error) = fs::remove_dir_all(self.folder(agent, incarnation))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("removing the run folder of {agent}-{incarnation}: {error}");
        }
    }

    /// How an incarnation ended, as its shim has put it on record: then it has also ended all that it started.
    pub(crate) fn last_words(
        &self,
        agent: &AgentName,
        incarnation: u64,
    ) -> Option<IncarnationExit> {
        let file = self.folder(agent, incarnation).join("exit.json");
        let left = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let ShimExit { exit, finished, clean, at } = left?;
        Some(IncarnationExit { agent: agent.clone(), incarnation, exit, clean, finished, at })
    }

    /// Ends whatever incarnations left running whose shims ended without a word. Blocks.
    pub(crate) fn sweep(&self, incarnations: &BTreeSet<(AgentName, u64)>) {
        let runs: BTreeSet<PathBuf> = incarnations
            .iter()
            .map(|(agent, incarnation)| self.folder(agent, *incarnation))
            .collect();
        let killed = labels::sweep_where(&self.root, |run| runs.contains(run));
        if killed > 0 {
            tracing::info!("ended {killed} processes that killed shims left behind");
        }
    }
}

/// The end of an incarnation whose shim said nothing.
pub(crate) fn without_a_word(
    agent: AgentName,
    incarnation: u64,
    status: Option<Exit>,
    now: Timestamp,
) -> IncarnationExit {
    let mut exit = status.unwrap_or_default();
    exit.reason = Some("its shim ended without a word".to_owned());
    IncarnationExit { agent, incarnation, exit, clean: false, finished: 0, at: now }
}

/// The soul's folder; the run folder when there is none here.
fn workdir(spec: &AgentSpec, run: &Path) -> String {
    let folder = Path::new(&spec.source_path).parent().filter(|folder| folder.is_dir());
    folder.unwrap_or(run).to_string_lossy().into_owned()
}

fn write_private(path: &Path, config: &ShimConfig) -> io::Result<()> {
    let mut file =
        fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(config)?)
}

/// Waits for a process's end; then its status, if it was our own child.
///
/// # Errors
/// When the kernel has no pidfd for it, other than for its being gone already.
pub(crate) async fn ended(pid: u32) -> io::Result<Option<Exit>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(ErrorKind::InvalidInput)?;
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(fd) => {
            #[expect(
                deprecated,
                reason = "an `OwnedFd` stays open while it is registered: what its successor asks for, unsafe"
            )]
            let fd: AsyncFd<OwnedFd> = AsyncFd::new(fd)?;
            fd.readable().await?.retain_ready();
        }
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let status = waitpid(Some(pid), WaitOptions::NOHANG).ok().flatten();
    Ok(status.map(|(_, status)| Exit {
        code: status.exit_status(),
        signal: status.terminating_signal(),
        ..Exit::default()
    }))
}

impl Shim {
    /// Asks it to drain and end.
    pub(crate) fn terminate(&self) {
        labels::kill(self.pid, Signal::TERM);
    }

    /// Ends it. What it started is swept once its end is seen.
    pub(crate) fn kill(&self) {
        labels::kill(self.pid, Signal::KILL);
    }
}
