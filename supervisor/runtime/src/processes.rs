//! The process table: who is there, since when, and how to signal it. Process ids are never trusted alone: they are reused.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use common::shim::Exit;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use tokio::io::unix::AsyncFd;

/// The ids of all processes.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Signals a process; it is fine if it is already gone.
pub fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // Its end is what counts, and that is watched.
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

/// A process that is meant, whatever becomes of its id.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// The process with this id, if it is the one that is meant. That is asked once the id can be no other's any more without this noticing.
    #[must_use]
    pub fn open(pid: u32, is_meant: impl FnOnce() -> bool) -> Option<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let process = Self(pidfd_open(pid, PidfdFlags::empty()).ok()?);
        is_meant().then_some(process)
    }

    /// Signals it; false if it is gone.
    pub fn signal(&self, signal: rustix::process::Signal) -> bool {
        pidfd_send_signal(&self.0, signal).is_ok()
    }
}

/// Names the process with which this one is to end, in the environment of a child.
pub const ENDS_WITH: &str = "MOZART_ENDS_WITH";

/// Arranges that this process is killed when its parent ends, if it was started that way; false if the parent is gone already.
#[must_use]
pub fn end_with_parent() -> bool {
    let Some(parent) = std::env::var(ENDS_WITH).ok().and_then(|pid| pid.parse().ok()) else {
        return true;
    };
    let set = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    set.is_ok() && now == Some(parent)
}

/// Whether a process has ended and only waits to be collected.
pub fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything, so count from its end.
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// Whether a process is stopped by a signal, and goes on with SIGCONT.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
}

/// When a process started, in milliseconds since 1970: none if it is gone.
pub fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 =
        boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot * 1000 + ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Waits for a process's end; then its status, if it was our own child.
///
/// # Errors
/// When the kernel has no pidfd for it, other than for its being gone already.
pub async fn ended(pid: u32) -> io::Result<Option<Exit>> {
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
