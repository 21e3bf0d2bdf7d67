//! The process runtime: starts shims with `posix_spawn`, watches them by pidfd, finds them again after a restart.
//!
//! An incarnation's run folder holds the shim's exit file and its own log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::shim::{CONFIG_ENV, Exit, LABEL_ENV, ShimConfig, StartIncarnation};
use common::spec::AgentSpec;
use common::{AgentName, Namespace, NodeName, Timestamp};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use tokio::io::unix::AsyncFd;

use super::folder::{RunFolders, write_private};
use super::labels::{self, RUN_ENV};

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
    pub(crate) folders: RunFolders,
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
    /// Starts an incarnation.
    ///
    /// # Errors
    /// In words for people: a secret that is not set, no shim binary, a system out of processes or space.
    pub(crate) fn start(&self, start: &StartIncarnation, now: Timestamp) -> Result<Shim, String> {
        let spec: AgentSpec =
            serde_json::from_str(&start.spec).map_err(|error| format!("its spec: {error}"))?;
        let secrets = secrets(&spec, &self.node)?;
        let run = self.folders.create(&start.agent, start.incarnation)?;
        let mut command = Command::new(&self.shim);
        command.env_clear();
        let locale = |name: &str| name.starts_with("LC_");
        command.envs(std::env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| PASSED.contains(&name) || locale(name))
        }));
        let label = format!(
            "{}/{}/{}/{}/{}",
            self.namespace, self.node, start.agent, start.generation, start.incarnation
        );
        let config_file = run.join("shim.json");
        let config = ShimConfig {
            url: self.url.clone(),
            creds: self.creds.clone(),
            creds_text: None,
            secrets,
            user: None,
            namespace: self.namespace.clone(),
            incarnation: start.incarnation,
            generation: start.generation,
            token: start.token.clone(),
            workdir: Some(workdir(&spec, &run)),
            exit_file: Some(
                self.folders
                    .exit_file(&start.agent, start.incarnation)
                    .to_string_lossy()
                    .into_owned(),
            ),
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
        let shims = labels::find(&self.folders.root).into_iter().filter(|one| one.is_shim);
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

    /// Ends whatever incarnations left running whose shims ended without a word. Blocks.
    pub(crate) fn sweep(&self, incarnations: &BTreeSet<(AgentName, u64)>) {
        let runs: BTreeSet<PathBuf> = incarnations
            .iter()
            .map(|(agent, incarnation)| self.folders.of(agent, *incarnation))
            .collect();
        let killed = labels::sweep_where(&self.folders.root, |run| runs.contains(run));
        if killed > 0 {
            tracing::info!("ended {killed} processes that killed shims left behind");
        }
    }
}

/// The soul's folder; the run folder when there is none here.
fn workdir(spec: &AgentSpec, run: &Path) -> String {
    let folder = Path::new(&spec.source_path).parent().filter(|folder| folder.is_dir());
    folder.unwrap_or(run).to_string_lossy().into_owned()
}

/// The values of a soul's SECRETs, from the environment of this process.
///
/// # Errors
/// Which one is not set.
pub(crate) fn secrets(
    spec: &AgentSpec,
    node: &NodeName,
) -> Result<BTreeMap<String, String>, String> {
    let value = |name: &String| match std::env::var(name) {
        Ok(value) => Ok((name.clone(), value)),
        Err(std::env::VarError::NotPresent) => {
            Err(format!("SECRET {name} is not set in the environment of node `{node}`"))
        }
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(format!("SECRET {name} of node `{node}` is not UTF-8"))
        }
    };
    spec.secrets.iter().map(value).collect()
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
