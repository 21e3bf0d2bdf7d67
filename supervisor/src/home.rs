//! The folder in which `mozart up` keeps its data, and the note by which clients find it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use common::api::ApiError;
use common::{Namespace, Timestamp};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::failure;

/// `MOZART_DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// The folder itself; absolute.
    pub(crate) dir: PathBuf,
}

/// What runs here: `mozart.json`, for this user's eyes only since the URL holds a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Running {
    /// The NATS server with user and password.
    pub(crate) url: String,
    /// The fleet.
    pub(crate) namespace: Namespace,
    /// The process of `mozart up`.
    pub(crate) pid: u32,
    /// The nats-server that it started; none when one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nats_pid: Option<u32>,
    /// The version of mozart.
    pub(crate) version: String,
    /// Since when.
    #[serde(default)]
    pub(crate) started_at: Timestamp,
}

impl Home {
    /// The folder given, else `~/.mozart`. It need not exist.
    ///
    /// # Errors
    /// When no folder is given and `HOME` is not set.
    pub(crate) fn locate(given: Option<&Path>) -> Result<Self, ApiError> {
        let dir = match given {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).map_or_else(
                || {
                    let cause = "neither --dir, MOZART_DIR nor HOME is set";
                    Err(failure::error(failure::USAGE, "no data folder", cause, "--dir DIR"))
                },
                |home| Ok(home.join(".mozart")),
            )?,
        };
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        Ok(Self { dir })
    }

    /// The note about what runs.
    pub(crate) fn running_file(&self) -> PathBuf {
        self.dir.join("mozart.json")
    }

    /// The data and configuration of the nats-server that `up` starts.
    pub(crate) fn nats(&self) -> PathBuf {
        self.dir.join("nats")
    }

    /// What the process runtime keeps about running incarnations.
    pub(crate) fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The log of `up -d`.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("mozart.log")
    }

    /// What was typed at the prompt of `chat`.
    pub(crate) fn history(&self) -> PathBuf {
        self.dir.join("history")
    }

    /// Makes the folder, for this user only.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(crate) fn create(&self) -> Result<(), ApiError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(|cause| {
            let what = format!("cannot make the data folder {}", self.dir.display());
            failure::error(failure::FAILED, what, cause, "--dir DIR for another one")
        })
    }

    /// The lock that a running `up` holds; none if one holds it already.
    ///
    /// # Errors
    /// When the file system does not allow it.
    pub(crate) fn lock(&self) -> Result<Option<fs::File>, ApiError> {
        lock(&self.dir.join("lock"))
    }

    /// Reads the note; none if nothing was started here.
    ///
    /// # Errors
    /// When the note cannot be read or is not ours.
    pub(crate) fn read_running(&self) -> Result<Option<Running>, ApiError> {
        let file = self.running_file();
        let what = || format!("cannot read {}", file.display());
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) if cause.kind() == ErrorKind::PermissionDenied => {
                let try_ = "run as the user who ran `mozart up`, or --nats URL";
                return Err(failure::error(failure::DENIED, what(), cause, try_));
            }
            Err(cause) => {
                return Err(failure::error(failure::FAILED, what(), cause, "--nats URL"));
            }
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|cause| {
            failure::error(failure::FAILED, what(), cause, "`mozart up` writes it anew")
        })
    }

    /// Writes the note, whole or not at all.
    ///
    /// # Errors
    /// When the file system does not take it.
    pub(crate) fn write_running(&self, running: &Running) -> Result<(), ApiError> {
        self.create()?;
        let file = self.running_file();
        let draft = self.dir.join(format!("mozart.json.{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut out = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            out.write_all(&serde_json::to_vec_pretty(running)?)?;
            out.write_all(b"\n")?;
            fs::rename(&draft, &file)
        };
        write().map_err(|cause| {
            let what = format!("cannot write {}", file.display());
            failure::error(failure::FAILED, what, cause, "check the disk space and rights there")
        })
    }

    /// Removes the note. Not there: fine.
    ///
    /// # Errors
    /// When the file system does not allow it.
    pub(crate) fn remove_running(&self) -> Result<(), ApiError> {
        let file = self.running_file();
        match fs::remove_file(&file) {
            Ok(()) => Ok(()),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
            Err(cause) => {
                let what = format!("cannot remove {}", file.display());
                Err(failure::error(failure::FAILED, what, cause, "check the rights there"))
            }
        }
    }
}

/// Takes a lock; none if another process has it. It goes with its process, however that ends.
///
/// # Errors
/// When the file system does not allow it.
pub(crate) fn lock(path: &Path) -> Result<Option<fs::File>, ApiError> {
    let opened = fs::File::options().create(true).truncate(false).write(true).open(path);
    let file = opened.map_err(|error| {
        let what = format!("cannot open {}", path.display());
        failure::error(failure::FAILED, what, error, "--dir DIR")
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => {
            let what = format!("cannot lock {}", path.display());
            Err(failure::error(failure::FAILED, what, error, "--dir DIR on a local disk"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_note_is_private_and_reads_back() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(&temp.path().join("deep/er"))).expect("given");
        assert_eq!(home.read_running().expect("nothing there"), None);
        let running = Running {
            url: "nats://u:p@127.0.0.1:4222".to_owned(),
            namespace: Namespace::new("default").expect("valid"),
            pid: 1,
            nats_pid: Some(2),
            version: "0.1.0".to_owned(),
            started_at: Timestamp::from_millis(5),
        };
        home.write_running(&running).expect("written");
        assert_eq!(home.read_running().expect("readable"), Some(running));
        let mode = fs::metadata(home.running_file()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        home.remove_running().expect("removed");
        home.remove_running().expect("removing twice is fine");
    }

    #[test]
    fn a_broken_note_is_an_error_and_not_nothing() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(temp.path())).expect("given");
        fs::write(home.running_file(), b"{").expect("written");
        assert_eq!(home.read_running().expect_err("not JSON").code, failure::FAILED);
    }
}
