//! Mozart as people run it: `mozart up` of a folder of souls, on a given server.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use broker::AuthKey;
use common::{AgentName, Namespace};

use crate::outcome::{Result, fail};
use crate::process;
use crate::rig::Rig;

/// The smallest soul: the built-in echo worker answers.
pub(crate) const ECHO: &str = "MODEL bench/echo\nSOUL You echo.\n";

/// What its agents run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Process,
    Docker,
}

impl Runtime {
    /// As the command line calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }
}

/// A fleet that is up; down when dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) agents: Vec<AgentName>,
    pub(crate) namespace: Namespace,
    pub(crate) url: String,
    /// The file with the certificate of its server, where that takes TLS alone.
    pub(crate) ca: Option<PathBuf>,
    /// The seed of the supervisors' key, where agents log in with rights of their own.
    seed: Option<String>,
    shards: u32,
    runtime: Runtime,
    folder: PathBuf,
    mozart: PathBuf,
}

/// The names of a fleet's agents.
pub(crate) fn names(count: usize) -> Result<Vec<AgentName>> {
    (0..count).map(|n| Ok(AgentName::new(format!("a{n:04}"))?)).collect()
}

impl Fleet {
    /// Starts a fleet of agents that have the same soul, and waits until all are running.
    pub(crate) async fn start(rig: &Rig, name: &str, agents: usize, soul: &str) -> Result<Self> {
        Self::start_in(rig, name, agents, soul, Runtime::Process).await
    }

    /// The same, with agents that run in something else than processes.
    pub(crate) async fn start_in(
        rig: &Rig,
        name: &str,
        agents: usize,
        soul: &str,
        runtime: Runtime,
    ) -> Result<Self> {
        let agents = names(agents)?;
        let folder = rig.folder.path().join(name);
        let souls = folder.join("souls");
        std::fs::create_dir_all(&souls)?;
        for agent in &agents {
            std::fs::write(souls.join(format!("{agent}.soul")), soul)?;
        }
        let fleet = Self {
            agents,
            namespace: Namespace::new(name)?,
            url: rig.server.url.clone(),
            ca: rig.server.ca.clone(),
            seed: rig.server.key.as_ref().map(AuthKey::seed).transpose()?,
            shards: rig.shards,
            runtime,
            folder,
            mozart: process::mozart()?,
        };
        fleet.up().await?;
        Ok(fleet)
    }

    /// Starts what is not running of it.
    pub(crate) async fn up(&self) -> Result<()> {
        self.up_with(&[]).await
    }

    /// The same, with more options.
    pub(crate) async fn up_with(&self, more: &[&str]) -> Result<()> {
        let mut up = self.command();
        up.args(["up", "-d", "--wait", "--timeout", "120s", "--runtime", self.runtime.name()]);
        up.args(more).arg("--journal-shards");
        up.arg(self.shards.to_string()).arg(self.folder.join("souls"));
        self.run(&mut up).await.map(drop)
    }

    /// The folder of its souls' folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The supervisor's process.
    pub(crate) fn pid(&self) -> Result<u32> {
        let note = std::fs::read(self.home().join("mozart.json"))?;
        let note: serde_json::Value = serde_json::from_slice(&note)?;
        match note["pid"].as_u64() {
            Some(pid) => Ok(u32::try_from(pid)?),
            None => fail(format!("no process in {note}")),
        }
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// A command line that means this fleet.
    pub(crate) fn command(&self) -> Command {
        self.command_in("home")
    }

    /// The same, with a data folder of this name.
    pub(crate) fn command_in(&self, home: &str) -> Command {
        let mut command = Command::new(&self.mozart);
        command.args(["--nats", &self.url, "--namespace", self.namespace.as_str(), "--dir"]);
        command.envs(self.seed.as_ref().map(|seed| ("MOZART_AUTH_SEED", seed)));
        command.envs(self.ca.as_ref().map(|ca| ("NATS_CA", ca)));
        command
            .arg(self.folder.join(home))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs one to its end.
    pub(crate) async fn run(&self, command: &mut Command) -> Result<String> {
        let program = std::mem::replace(command, self.command());
        let mut program = tokio::process::Command::from(program);
        let output = program.output().await?;
        self.said(program.as_std(), &output)
    }

    fn said(&self, command: &Command, output: &Output) -> Result<String> {
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let log = process::read(&self.home().join("mozart.log")).unwrap_or_default();
        let log: Vec<_> = log.lines().rev().take(5).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        fail(format!("{command:?}: {}\n{said}\nits log, last line first: {log:#?}", output.status))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let mut down = self.command();
        let timeout = format!("{}s", 30 + self.agents.len() / 20);
        down.args(["down", "--timeout", &timeout]);
        let down = down.output().map_err(Into::into).and_then(|output| self.said(&down, &output));
        if let Err(error) = down {
            crate::figure::note(&format!("mozart down: {error}"));
        }
    }
}
