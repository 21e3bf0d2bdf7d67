//! The worker process: its start, its pipes, its end, and whatever it leaves behind.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use common::shim::{CONFIG_ENV, Exit, ShimConfig};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use tokio::net::unix::pipe;

use crate::user::User;

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) pid: Pid,
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

/// Starts the worker, in a process group of its own, as the user that is given. Without WORKER it is this binary's echo.
pub(crate) fn spawn(config: &ShimConfig, user: Option<&User>) -> io::Result<Worker> {
    let mut command = match config.spec.worker.as_deref() {
        Some([program, args @ ..]) => {
            let mut command = Command::new(program);
            command.args(args);
            command
        }
        _ => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("echo");
            command
        }
    };
    command.env_remove(CONFIG_ENV).env("MOZART_AGENT", config.spec.name.as_str());
    if let Some(user) = user {
        // Root's home, which the engine names, is not the worker's.
        command.env("HOME", user.home.as_deref().unwrap_or("/tmp")).uid(user.uid).gid(user.gid);
    }
    command
        .envs(&config.secrets)
        .envs(&config.spec.env)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(workdir) = &config.workdir {
        // Our own folder, which the worker inherits: with one for the child alone, a static binary would fork.
        std::env::set_current_dir(workdir).map_err(|error| {
            io::Error::other(format!("its folder {workdir} cannot be entered: {error}"))
        })?;
    }
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let pipe = |fd: Option<OwnedFd>| fd.ok_or_else(|| io::Error::other("no pipe to the worker"));
    Ok(Worker {
        pid,
        stdin: Some(pipe::Sender::from_owned_fd(pipe(child.stdin.take().map(Into::into))?)?),
        stdout: pipe::Receiver::from_owned_fd(pipe(child.stdout.take().map(Into::into))?)?,
        stderr: pipe::Receiver::from_owned_fd(pipe(child.stderr.take().map(Into::into))?)?,
    })
}

impl Worker {
    /// Signals the worker and everything in its process group.
    pub(crate) fn signal(&self, signal: Signal) {
        // Gone already: fine.
        let _ = kill_process_group(self.pid, signal);
    }
}

/// Reaps every child that has ended: the worker, and orphans that became ours. Returns the worker's end, if it is among them.
/// Any child: the worker has a process group of its own, which `waitpid(None)` would leave out.
pub(crate) fn reap(worker: Pid) -> Option<Exit> {
    let mut exit = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == worker {
            exit = Some(Exit {
                code: status.exit_status(),
                signal: status.terminating_signal(),
                ..Exit::default()
            });
        }
    }
    exit
}

/// Kills the worker's process group and every orphan that it left to us, until none is there.
pub(crate) fn sweep(worker: Pid) {
    let _ = kill_process_group(worker, Signal::KILL);
    // Each round kills what the last one's victims left behind; a fork bomb is the container's or the node's to end.
    for _ in 0..100 {
        let children = children();
        if children.is_empty() {
            return;
        }
        let killed = children.iter().filter(|child| kill_process(**child, Signal::KILL).is_ok());
        if killed.count() == 0 {
            // Not ours to end, such as one that became another user's.
            return;
        }
        // Blocks only until a killed child is reaped.
        let _ = wait(WaitOptions::empty());
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

fn children() -> Vec<Pid> {
    let id = std::process::id();
    let path = format!("/proc/{id}/task/{id}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
