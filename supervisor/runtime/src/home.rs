//! The folder in which `mozart up` keeps its data, and the note by which clients find it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use common::api::ApiError;
use common::{Namespace, NodeName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{RuntimeOptions, lock, processes};
use common::failure;

/// `MOZART_DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The folder itself; absolute.
    pub dir: PathBuf,
}

/// The files that are written aside, as `<name>.<process>`, and then renamed.
const DRAFTED: [&str; 10] = [
    API_TOKEN,
    "mozart.json",
    "format",
    "node",
    "fleet",
    "identity",
    "access.json",
    "nats.conf",
    "streams.json",
    LOST,
];

/// What runs here: `mozart.json`, for this user's eyes only since the URL holds a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The NATS server with user and password.
    pub url: String,
    /// The certificates, in PEM, that vouch for it; none without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The fleet.
    pub namespace: Namespace,
    /// The process of `mozart up`.
    pub pid: u32,
    /// The nats-server that it started; none when one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats_pid: Option<u32>,
    /// What its node runs agents in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeOptions>,
    /// Where its API is; none if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// The version of mozart.
    pub version: String,
    /// Since when.
    #[serde(default)]
    pub started_at: Timestamp,
    /// Whether its node serves. Before that, something may be missing that a node needs, and all of it ends.
    #[serde(default = "yes")]
    pub ready: bool,
}

/// Notes of earlier versions do not tell.
fn yes() -> bool {
    true
}

/// The file of the token with which whoever owns the folder uses the API of `mozart up`.
pub const API_TOKEN: &str = "api.token";

/// Where the ids of the fleets are kept that a folder was used for.
pub const FLEET: &str = "fleet";

/// Where it is noted what the broker's streams have lost while they did not run: a line each. Whoever removes it accepts the loss.
pub const LOST: &str = "lost";

impl Home {
    /// The folder given, else `~/.mozart`. It need not exist.
    ///
    /// # Errors
    /// When no folder is given and `HOME` is not set; when it is given by a path from a working directory that was removed.
    pub fn locate(given: Option<&Path>) -> Result<Self, ApiError> {
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
        reaches(&dir)?;
        let dir = real(std::path::absolute(&dir).unwrap_or(dir));
        if dir.to_str().is_none() {
            let what = format!("cannot use the data folder {}", dir.display());
            let cause = "its path is not UTF-8, which nats-server's configuration cannot express";
            return Err(failure::error(failure::USAGE, what, cause, "--dir DIR for another one"));
        }
        Ok(Self { dir })
    }

    /// The note about what runs.
    pub fn running_file(&self) -> PathBuf {
        self.dir.join("mozart.json")
    }

    /// The data and configuration of the nats-server that `up` starts.
    pub fn nats(&self) -> PathBuf {
        self.dir.join("nats")
    }

    /// What the process runtime keeps about running incarnations.
    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The log of `up -d`.
    pub fn log(&self) -> PathBuf {
        self.dir.join("mozart.log")
    }

    /// What was typed at the prompt of `chat`.
    pub fn history(&self) -> PathBuf {
        self.dir.join("history")
    }

    /// Makes the folder, for this user only.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn create(&self) -> Result<(), ApiError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(|cause| {
            let what = format!("cannot make the data folder {}", self.dir.display());
            failure::file(what, &cause, "--dir DIR for another one")
        })
    }

    /// The lock that a running `up` holds; none if one holds it already.
    ///
    /// # Errors
    /// When the file system does not allow it.
    pub fn lock(&self) -> Result<Option<fs::File>, ApiError> {
        lock::take(&self.dir)
    }

    /// The lock that the parent process held, and has passed to this one as its stdin.
    ///
    /// # Errors
    /// When stdin is not a lock.
    pub fn inherit_lock() -> Result<fs::File, ApiError> {
        let inherited = std::io::stdin().as_fd().try_clone_to_owned().map(fs::File::from);
        let what = "cannot take over the lock of the data folder";
        inherited.map_err(|cause| failure::file(what, &cause, "`mozart up -d`"))
    }

    /// The process that holds the lock; none if there is none, or if it is not visible from here.
    pub fn holder(&self) -> Option<u32> {
        lock::holder(&self.dir)
    }

    /// Reads the note; none if nothing was started here.
    ///
    /// # Errors
    /// When the note cannot be read or is not ours.
    pub fn read_running(&self) -> Result<Option<Running>, ApiError> {
        let file = self.running_file();
        let what = || format!("cannot read {}", file.display());
        let bytes = match fs::read(&file) {
            // Of what runs elsewhere.
            Ok(_) if self.is_unclaimed_copy() => return Ok(None),
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
            failure::error(failure::FAILED, what(), cause, "run `mozart up`, which rewrites it")
        })
    }

    /// The name of the node of this folder: chosen once, and kept. After a host is renamed, what runs here must not belong to a node
    /// that no longer exists, and must not be started a second time.
    ///
    /// # Errors
    /// When the file system does not allow it, or what is kept is no name.
    pub fn node_name(&self, first: impl FnOnce() -> NodeName) -> Result<NodeName, ApiError> {
        let file = self.dir.join("node");
        let failed = |cause: &std::io::Error| {
            let what = format!("cannot keep the node's name in {}", file.display());
            failure::file(what, cause, "check the disk space and permissions there")
        };
        match fs::read_to_string(&file) {
            Ok(kept) => NodeName::new(kept.trim()).map_err(|cause| {
                let what = format!("cannot read the node's name in {}", file.display());
                let try_ = "write into it the node name that `mozart ps` shows for its agents";
                failure::error(failure::FAILED, what, cause, try_)
            }),
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                let name = first();
                self.keep_node_name(&name)?;
                Ok(name)
            }
            Err(cause) => Err(failed(&cause)),
        }
    }

    /// Gives the node of this folder a name. Only while nothing of another one runs.
    ///
    /// # Errors
    /// When the file system does not allow it.
    pub fn keep_node_name(&self, name: &NodeName) -> Result<(), ApiError> {
        self.put("node", format!("{name}\n").as_bytes()).map_err(|cause| {
            let what =
                format!("cannot keep the node's name in {}", self.dir.join("node").display());
            failure::file(what, &cause, "check the disk space and permissions there")
        })
    }

    /// Writes a file of this folder, for this user only, whole or not at all.
    ///
    /// # Errors
    /// When the file system does not take it.
    pub fn put(&self, name: &str, content: &[u8]) -> std::io::Result<()> {
        let draft = self.dir.join(format!("{name}.{}", std::process::id()));
        let write = || {
            let mut out = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            out.write_all(content)?;
            out.sync_all()?;
            fs::rename(&draft, self.dir.join(name))
        };
        write().inspect_err(|_| drop(fs::remove_file(&draft)))
    }

    /// The fleets that this folder was used for, the last one first.
    pub fn fleets(&self) -> Vec<String> {
        let kept = fs::read_to_string(self.dir.join(FLEET)).unwrap_or_default();
        kept.split_whitespace().map(str::to_owned).collect()
    }

    /// Removes drafts of files of this folder, which processes have left that were killed, or could not remove them.
    pub fn tidy(&self) {
        for folder in [self.dir.clone(), self.nats()] {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                let draft = path.file_name().and_then(|name| name.to_str()?.rsplit_once('.'));
                let of = draft.filter(|(of, _)| DRAFTED.contains(of));
                let Some(pid) = of.and_then(|(_, pid)| pid.parse::<u32>().ok()) else { continue };
                // One that lives may be writing it.
                if processes::all().any(|one| one == pid) {
                    continue;
                }
                match fs::remove_file(&path) {
                    Ok(()) => tracing::info!("removed {}, which was left over", path.display()),
                    Err(error) => tracing::debug!("cannot remove {}: {error}", path.display()),
                }
            }
        }
    }

    /// Writes the note, whole or not at all.
    ///
    /// # Errors
    /// When the file system does not take it.
    pub fn write_running(&self, running: &Running) -> Result<(), ApiError> {
        self.create()?;
        let file = self.running_file();
        let write = || -> std::io::Result<()> {
            let mut note = serde_json::to_vec_pretty(running)?;
            note.push(b'\n');
            self.put("mozart.json", &note)
        };
        write().map_err(|cause| {
            let what = format!("cannot write {}", file.display());
            failure::file(what, &cause, "check the disk space and permissions there")
        })
    }

    /// Removes the note. It is fine if it does not exist.
    ///
    /// # Errors
    /// When the file system does not allow it.
    pub fn remove_running(&self) -> Result<(), ApiError> {
        let file = self.running_file();
        match fs::remove_file(&file) {
            Ok(()) => Ok(()),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
            Err(cause) => {
                let what = format!("cannot remove {}", file.display());
                Err(failure::error(failure::FAILED, what, cause, "check the permissions there"))
            }
        }
    }
}

/// Demands that a path leads somewhere: a relative one does not where the working directory was removed, and its own error then misleads.
///
/// # Errors
/// That the working directory is needed, and what is wrong with it.
pub fn reaches(path: &Path) -> Result<(), ApiError> {
    match std::env::current_dir() {
        Err(cause) if path.is_relative() => {
            let what = format!("cannot find {}", path.display());
            let cause =
                format!("the working directory was removed, or cannot be entered ({cause})");
            let try_ = "`cd` to a folder that exists, or give an absolute path";
            Err(failure::error(failure::USAGE, what, cause, try_))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The path without symbolic links, as far as it exists: the same folder has the same name for all who look for what it started.
pub fn real(path: PathBuf) -> PathBuf {
    let exists = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    match exists.and_then(|(part, real)| Some((real, path.strip_prefix(part).ok()?))) {
        Some((real, rest)) if rest.as_os_str().is_empty() => real,
        Some((real, rest)) => real.join(rest),
        None => path,
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
            ca: None,
            namespace: Namespace::new("default").expect("valid"),
            pid: 1,
            nats_pid: Some(2),
            api: None,
            runtime: Some(RuntimeOptions::default()),
            version: "0.1.0".to_owned(),
            started_at: Timestamp::from_millis(5),
            ready: true,
        };
        home.write_running(&running).expect("written");
        assert_eq!(home.read_running().expect("readable"), Some(running));
        let mode = fs::metadata(home.running_file()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        home.remove_running().expect("removed");
        home.remove_running().expect("removing twice is fine");
    }

    #[test]
    fn a_node_keeps_its_name_whatever_the_host_is_called() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(temp.path())).expect("given");
        let name = |name: &str| NodeName::new(name).expect("valid");
        let first = home.node_name(|| name("laptop")).expect("kept");
        assert_eq!(first, name("laptop"));
        assert_eq!(home.node_name(|| name("laptop-2")).expect("read"), name("laptop"));
        fs::write(home.dir.join("node"), b"").expect("written");
        let broken = home.node_name(|| name("laptop")).expect_err("no name");
        assert_eq!(broken.code, failure::FAILED);
    }

    #[test]
    fn a_folder_has_one_name_however_it_is_reached() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let real = temp.path().canonicalize().expect("it is there").join("real");
        fs::create_dir(&real).expect("made");
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&real, &link).expect("made");
        let located = |path: &Path| Home::locate(Some(path)).expect("given").dir;
        assert_eq!(located(&link), real);
        assert_eq!(located(&link.join("not/yet")), real.join("not/yet"));
        assert_eq!(located(&temp.path().join("link/../real")), real);
    }

    #[test]
    fn no_draft_is_left() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(temp.path())).expect("given");
        fs::create_dir_all(home.nats()).expect("made");
        // A folder in its place keeps it from being renamed.
        fs::create_dir_all(home.dir.join("node/x")).expect("made");
        home.put("node", b"n").expect_err("there is a folder");
        let gone = u32::MAX;
        let own = format!("fleet.{}", std::process::id());
        let left = [format!("mozart.json.{gone}"), format!("nats/nats.conf.{gone}")];
        let kept = ["mozart.log.1".to_owned(), own];
        for file in left.iter().chain(&kept) {
            fs::write(home.dir.join(file), b"").expect("written");
        }
        home.tidy();
        let there = |file: &String| home.dir.join(file).exists();
        assert!(!left.iter().any(there) && kept.iter().all(there));
        assert_eq!(fs::read_dir(&home.dir).expect("readable").count(), 4);
    }

    #[test]
    fn a_broken_note_is_an_error_and_not_nothing() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(temp.path())).expect("given");
        fs::write(home.running_file(), b"{").expect("written");
        assert_eq!(home.read_running().expect_err("not JSON").code, failure::FAILED);
    }
}
