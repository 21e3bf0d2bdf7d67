//! A process of the campaign's own that is started again and again.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::harness::{Signal, kill};

type Make = dyn Fn() -> io::Result<Command> + Send + Sync;

/// A role or a server.
pub(in crate::chaos) struct Part {
    pub(in crate::chaos) name: String,
    make: Box<Make>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    /// Whether it is down on purpose.
    held: bool,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Part {
    pub(super) fn new(
        name: String,
        make: impl Fn() -> io::Result<Command> + Send + Sync + 'static,
    ) -> Self {
        // Nothing is expected of it before it was started once.
        let state = State { child: None, held: true };
        Self { name, make: Box::new(make), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process, if it runs.
    pub(in crate::chaos) fn pid(&self) -> Option<u32> {
        let mut state = self.state();
        let child = state.child.as_mut()?;
        // A child that cannot be asked is not ours to signal.
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// Starts it, unless it runs.
    pub(in crate::chaos) fn start(&self) -> io::Result<()> {
        if self.pid().is_none() {
            let child = (self.make)()?.process_group(0).spawn()?;
            self.state().child = Some(child);
        }
        self.state().held = false;
        Ok(())
    }

    /// Ends it, and waits until it is gone: it stays down until it is started.
    pub(in crate::chaos) fn kill(&self) -> io::Result<()> {
        let mut state = self.state();
        state.held = true;
        if let Some(child) = &mut state.child {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, for good.
    pub(super) fn ask_to_end(&self) {
        let pid = self.pid();
        self.state().held = true;
        if let Some(pid) = pid {
            kill(pid, Signal::TERM);
        }
    }

    /// Whether it has ended though nobody held it down.
    pub(super) fn has_ended(&self) -> bool {
        !self.state().held && self.pid().is_none()
    }
}
