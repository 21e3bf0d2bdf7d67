//! The run folders of a node: `<home>/run/<fleet>/<node>/<agent>-<incarnation>/`. They are of one fleet: another one counts its
//! incarnations from 1, too. What is in them outlives the node: how an
//! incarnation ended, and by what it is found again.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use common::api::ApiError;
use common::frame::IncarnationExit;
use common::shim::{Exit, ShimExit};
use common::{AgentName, NodeName, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use common::failure;

use crate::lock;

/// How an incarnation ended, as its shim has put it on record.
const EXIT: &str = "exit.json";

/// The folder of all run folders of one node.
#[derive(Debug, Clone)]
pub struct RunFolders {
    /// The folder.
    pub root: PathBuf,
}

impl RunFolders {
    /// The run folder of an incarnation.
    pub fn of(&self, agent: &AgentName, incarnation: u64) -> PathBuf {
        self.root.join(format!("{agent}-{incarnation}"))
    }

    /// Makes sure that only one node of this name uses this folder.
    ///
    /// # Errors
    /// When another one uses it, or the folder cannot be created.
    pub fn lock(&self, node: &NodeName) -> Result<fs::File, ApiError> {
        const WHAT: &str = "cannot start the node";
        let made = make(&self.root);
        made.map_err(|error| failure::error(failure::FAILED, WHAT, error, "--dir DIR"))?;
        lock::take(&self.root)?.ok_or_else(|| {
            let cause = format!("another node `{node}` already uses {}", self.root.display());
            failure::error(failure::CONFLICT, WHAT, cause, "--name NAME, or --dir DIR")
        })
    }

    /// Makes the folder of an incarnation.
    ///
    /// # Errors
    /// A human-readable message.
    pub fn create(&self, agent: &AgentName, incarnation: u64) -> Result<PathBuf, String> {
        let run = self.of(agent, incarnation);
        make(&run).map_err(|error| format!("cannot make {}: {error}", run.display()))?;
        Ok(run)
    }

    /// The run folders that are there, as (agent, incarnation).
    pub fn list(&self) -> Vec<(AgentName, u64)> {
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
    pub fn forget(&self, agent: &AgentName, incarnation: u64) {
        if let Err(error) = fs::remove_dir_all(self.of(agent, incarnation))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("cannot remove the run folder of {agent}-{incarnation}: {error}");
        }
    }

    /// How an incarnation ended, if that is on record: then it has also ended all that it started.
    pub fn last_words(&self, agent: &AgentName, incarnation: u64) -> Option<IncarnationExit> {
        let ShimExit { exit, finished, clean, at } = read(&self.of(agent, incarnation).join(EXIT))?;
        Some(IncarnationExit { agent: agent.clone(), incarnation, exit, clean, finished, at })
    }

    /// Sets space aside for how it will end, so that this is on record also if the disk is full by then. Blanks are no record.
    ///
    /// # Errors
    /// When the file system does not take it.
    pub fn reserve(&self, agent: &AgentName, incarnation: u64) -> io::Result<()> {
        const ENOUGH: usize = 4096;
        let path = self.exit_file(agent, incarnation);
        let mut file =
            fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
        file.write_all(&[b' '; ENOUGH])
    }

    /// Where the shim of an incarnation leaves how it ended.
    pub fn exit_file(&self, agent: &AgentName, incarnation: u64) -> PathBuf {
        self.of(agent, incarnation).join(EXIT)
    }

    /// Records the exit of a shim that could not do so itself. If that fails, the node knows it until it exits.
    pub fn record(&self, end: &IncarnationExit) {
        let IncarnationExit { agent, incarnation, exit, clean, finished, at } = end;
        let words = ShimExit { exit: exit.clone(), finished: *finished, clean: *clean, at: *at };
        let kept = self.create(agent, *incarnation).and_then(|run| {
            write_private(&run.join(EXIT), &words).map_err(|error| error.to_string())
        });
        if let Err(error) = kept {
            tracing::warn!("cannot record the exit of {agent}-{incarnation}: {error}");
        }
    }
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Reads a file of ours; none if it is not there, or not whole.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a file that only this user can read.
pub fn write_private(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut file =
        fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(value)?)
}

/// The exit of an incarnation whose shim wrote no exit record.
pub fn without_a_word(
    agent: AgentName,
    incarnation: u64,
    status: Option<Exit>,
    now: Timestamp,
) -> IncarnationExit {
    let mut exit = status.unwrap_or_default();
    exit.reason.get_or_insert_with(|| Exit::UNREPORTED.to_owned());
    IncarnationExit { agent, incarnation, exit, clean: false, finished: 0, at: now }
}
