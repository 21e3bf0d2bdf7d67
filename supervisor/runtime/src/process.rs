//! The process runtime: starts shims with `posix_spawn`, watches them by pidfd, finds them again after a restart.
//!
//! An incarnation's run folder holds the shim's exit file and its own log.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::frame::StartIncarnation;
use common::shim::{CONFIG_ENV, LABEL_ENV, ShimConfig, ShimLogins};
use common::spec::AgentSpec;
use common::trace::Share;
use common::{AgentName, Namespace, NodeName, Timestamp};

use super::files::moved;
use super::folder::{RunFolders, write_private};
use super::labels::{self, RUN_ENV};
use super::processes;
use super::secrets::secrets;

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
pub struct ProcessRuntime {
    /// The node.
    pub node: NodeName,
    /// The fleet's namespace.
    pub namespace: Namespace,
    /// The run folders.
    pub folders: RunFolders,
    /// The shim's binary.
    pub shim: PathBuf,
    /// The broker's address with credentials, for the shims.
    pub url: String,
    /// A NATS credentials file.
    pub creds: Option<String>,
    /// The certificates, in PEM, that vouch for the broker's servers.
    pub ca: Option<String>,
    /// How shims log in; none: with the node's credentials.
    pub logins: Option<ShimLogins>,
    /// The traces that are recorded; none where none is exported.
    pub traces: Option<Share>,
    /// Where the values of SECRETs are looked up first.
    pub env_file: Option<PathBuf>,
}

/// A running shim.
#[derive(Debug, Clone)]
pub struct Shim {
    /// The agent.
    pub agent: AgentName,
    /// The generation.
    pub generation: u64,
    /// The incarnation.
    pub incarnation: u64,
    /// Its process id.
    pub pid: u32,
    /// When it was started.
    pub started_at: Timestamp,
    /// Its run folder.
    pub run: PathBuf,
}

impl ProcessRuntime {
    /// Starts an incarnation, in the folder where its files are laid out. None: in the soul's folder, or the run folder where there is none.
    ///
    /// # Errors
    /// A human-readable message: a secret that is not set, no shim binary, a system out of processes or space.
    pub fn start(
        &self,
        start: &StartIncarnation,
        files: Option<&Path>,
        now: Timestamp,
    ) -> Result<Shim, String> {
        let mut spec: AgentSpec =
            serde_json::from_str(&start.spec).map_err(|error| format!("its spec: {error}"))?;
        let secrets = secrets(&spec, &self.node, self.env_file.as_deref())?;
        let run = self.folders.create(&start.agent, start.incarnation)?;
        // Without it, it does as well as it can.
        if let Err(error) = self.folders.reserve(&start.agent, start.incarnation) {
            tracing::debug!("no space is set aside in {}: {error}", run.display());
        }
        if let Some(files) = files {
            spec = moved(&spec, files, |path| files.join(path).exists());
        }
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
            ca: self.ca.clone(),
            login: self
                .logins
                .map(|logins| logins.of(&self.namespace, &start.agent, start.incarnation)),
            secrets,
            user: None,
            writable: Vec::new(),
            namespace: self.namespace.clone(),
            incarnation: start.incarnation,
            generation: start.generation,
            token: start.token.clone(),
            traces: self.traces,
            workdir: Some(match files {
                Some(files) => files.to_string_lossy().into_owned(),
                None => workdir(&spec, &run),
            }),
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
    pub fn adopt(&self) -> Vec<Shim> {
        let shims = labels::find(&self.folders.root).into_iter().filter(|one| one.is_shim);
        shims
            .filter_map(|one| {
                let mut parts = one.label.rsplit('/');
                let incarnation = parts.next()?.parse().ok()?;
                let generation = parts.next()?.parse().ok()?;
                let agent = AgentName::new(parts.next()?).ok()?;
                let started_at = Timestamp::from_millis(processes::started_at(one.pid)?);
                let (pid, run) = (one.pid, one.run);
                Some(Shim { agent, generation, incarnation, pid, started_at, run })
            })
            .collect()
    }

    /// Ends the processes of incarnations whose shims ended without reporting an exit status. Blocks.
    pub fn sweep(&self, incarnations: &BTreeSet<(AgentName, u64)>) {
        let runs: BTreeSet<PathBuf> = incarnations
            .iter()
            .map(|(agent, incarnation)| self.folders.of(agent, *incarnation))
            .collect();
        let killed = labels::sweep_where(&self.folders.root, |run| runs.contains(run));
        if killed > 0 {
            tracing::info!("killed {killed} leftover processes of killed shims");
        }
    }
}

/// The soul's folder; the run folder when there is none here.
fn workdir(spec: &AgentSpec, run: &Path) -> String {
    let folder = Path::new(&spec.source_path).parent().filter(|folder| folder.is_dir());
    folder.unwrap_or(run).to_string_lossy().into_owned()
}
