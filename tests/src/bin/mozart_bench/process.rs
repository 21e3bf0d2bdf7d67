//! Child processes that end with this one's work.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::outcome::{Result, fail};

/// A process that is killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Owned {
    child: Child,
}

impl Owned {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        match command.spawn() {
            Ok(child) => Ok(Self { child }),
            Err(error) => {
                fail(format!("cannot start {}: {error}", command.get_program().display()))
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it; when this returns, it is gone.
    pub(crate) fn end(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.end();
    }
}

/// A node that stops its agents before it goes.
pub(crate) struct Draining(pub(crate) Owned);

impl Drop for Draining {
    #[expect(clippy::disallowed_methods, reason = "a drop cannot await")]
    fn drop(&mut self) {
        const LONGEST: Duration = Duration::from_secs(30);
        signal(self.0.id(), Signal::TERM);
        let until = Instant::now() + LONGEST;
        while !self.0.has_ended() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Sends a signal; a process that is gone does not mind.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The programs that are measured: beside this one, unless the environment names others.
pub(crate) fn program(name: &str, variable: &str) -> Result<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from);
    let path = match given {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name(name),
    };
    if path.is_file() {
        return Ok(path);
    }
    fail(format!("no {}: `make bench` builds all that is needed", path.display()))
}

/// Mozart's command line.
pub(crate) fn mozart() -> Result<PathBuf> {
    program("mozart", "MOZART_BIN")
}

/// Mozart's shim, which is the echo worker too.
pub(crate) fn shim() -> Result<PathBuf> {
    program("mozart-shim", "MOZART_SHIM")
}

/// This program, in one of its roles.
pub(crate) fn role(name: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([crate::roles::ROLE, name]);
    Ok(command)
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return fail(format!("{what}: not within {within:?}"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A file's text, when it is there.
pub(crate) fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}
