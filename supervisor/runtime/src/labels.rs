//! Finding the processes of incarnations by what their environment says, in `/proc`. Process ids are never trusted alone: they
//! are reused.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use common::shim::{CONFIG_ENV, LABEL_ENV};

use crate::processes;

/// The environment variable with the run folder of an incarnation. It holds the home folder, so that two fleets of the same names
/// on one machine are never mixed up.
pub const RUN_ENV: &str = "MOZART_RUN";

/// A process that belongs to an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// Its process id.
    pub pid: u32,
    /// `<namespace>/<node>/<agent>/<generation>/<incarnation>`.
    pub label: String,
    /// Its run folder.
    pub run: PathBuf,
    /// Whether it is the shim, and not the worker or what the worker started.
    pub is_shim: bool,
}

/// All processes of incarnations whose run folder is in `root`. Those of other users cannot be read, and are not ours.
pub fn find(root: &Path) -> Vec<Labelled> {
    processes::all().filter_map(|pid| read(pid, root)).collect()
}

/// Whether a process belongs to an incarnation whose run folder is in `root`.
#[must_use]
pub fn is_in(pid: u32, root: &Path) -> bool {
    read(pid, root).is_some()
}

fn read(pid: u32, root: &Path) -> Option<Labelled> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        environ
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    let run = PathBuf::from(OsStr::from_bytes(value(RUN_ENV)?));
    if !run.starts_with(root) {
        return None;
    }
    let label = String::from_utf8(value(LABEL_ENV)?.to_vec()).ok()?;
    Some(Labelled { pid, label, run, is_shim: value(CONFIG_ENV).is_some() })
}

/// Kills every process that incarnations left behind, until none is there: those whose run folders are in `root`. Returns how many
/// there were.
pub fn sweep(root: &Path) -> usize {
    sweep_where(root, |_| true)
}

/// The same, of the run folders that are meant: one look at all processes for however many incarnations.
///
/// A killed process may have started another one in the same moment: so it looks again, at most 20 times. Reads all of `/proc`,
/// which takes its time: not for an async task.
pub fn sweep_where(root: &Path, is_meant: impl Fn(&Path) -> bool) -> usize {
    let mut killed = BTreeSet::new();
    for _ in 0..20 {
        let left = find(root)
            .into_iter()
            .filter(|one| is_meant(&one.run) && !processes::is_zombie(one.pid));
        let left: Vec<Labelled> = left.collect();
        if left.is_empty() {
            break;
        }
        for one in left {
            processes::kill(one.pid, rustix::process::Signal::KILL);
            killed.insert(one.pid);
        }
    }
    killed.len()
}
