//! Finding the processes of incarnations by what their environment says, in `/proc`. Process ids are never trusted alone: they
//! are given again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use common::shim::{CONFIG_ENV, LABEL_ENV};

/// The environment variable with the run folder of an incarnation. It holds the home folder, so that two fleets of the same names
/// on one machine are never mixed up.
pub(crate) const RUN_ENV: &str = "MOZART_RUN";

/// A process that belongs to an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labelled {
    pub(crate) pid: u32,
    /// `<namespace>/<node>/<agent>/<generation>/<incarnation>`.
    pub(crate) label: String,
    /// Its run folder.
    pub(crate) run: PathBuf,
    /// Whether it is the shim, and not the worker or what the worker started.
    pub(crate) is_shim: bool,
}

/// All processes of incarnations whose run folder is in `root`. Those of other users cannot be read, and are not ours.
pub(crate) fn find(root: &Path) -> Vec<Labelled> {
    processes().filter_map(|pid| read(pid, root)).collect()
}

/// The ids of all processes.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
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
pub(crate) fn sweep(root: &Path) -> usize {
    sweep_where(root, |_| true)
}

/// The same, of the run folders that are meant: one look at all processes for however many incarnations.
///
/// A killed process may have started another one in the same moment: so it looks again, at most 20 times. Reads all of `/proc`,
/// which takes its time: not for an async task.
pub(crate) fn sweep_where(root: &Path, is_meant: impl Fn(&Path) -> bool) -> usize {
    let mut killed = BTreeSet::new();
    for _ in 0..20 {
        let left = find(root).into_iter().filter(|one| is_meant(&one.run) && !is_zombie(one.pid));
        let left: Vec<Labelled> = left.collect();
        if left.is_empty() {
            break;
        }
        for one in left {
            kill(one.pid, rustix::process::Signal::KILL);
            killed.insert(one.pid);
        }
    }
    killed.len()
}

/// Signals a process; gone already is fine.
pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // Its end is what counts, and that is watched.
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything, so count from its end.
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// When a process started, in milliseconds since 1970: none if it is gone.
pub(crate) fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 =
        boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot * 1000 + ticks * 1000 / rustix::param::clock_ticks_per_second())
}
