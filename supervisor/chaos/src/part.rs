//! A supervisor or node of the throwaway fleet: a child process that is killed, frozen and started again.

use std::io;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::processes;
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// The pause between two looks at a process that is to end.
const LOOK: Duration = Duration::from_millis(20);

/// A role.
pub(crate) struct Part {
    /// Its name.
    pub(crate) name: String,
    make: Box<dyn Fn() -> io::Result<Command>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Not collected while it is here: its id is no other's.
    child: Option<Child>,
    /// Whether it is to run: nobody holds it down, or has not started it yet.
    wanted: bool,
}

impl State {
    /// Its process, if it runs.
    fn pid(&mut self) -> Option<u32> {
        let child = self.child.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id()).flatten()
    }
}

impl Part {
    pub(crate) fn new(name: String, make: impl Fn() -> io::Result<Command> + 'static) -> Self {
        Self { name, make: Box::new(make), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.state().pid()
    }

    /// Starts it, unless it runs.
    pub(crate) fn start(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.pid().is_none() {
            // Signals from a terminal are for this process alone, which ends its own ones itself.
            let child = (self.make)()?.process_group(0).kill_on_drop(true).spawn()?;
            state.child = Some(child);
        }
        state.wanted = true;
        Ok(())
    }

    /// Signals it, if it runs; its process. It is not started again until [`Part::start`] where the signal ends it.
    pub(crate) fn signal(&self, signal: Signal) -> Option<u32> {
        let mut state = self.state();
        let pid = state.pid()?;
        if signal == Signal::KILL || signal == Signal::TERM {
            state.wanted = false;
        }
        processes::kill(pid, signal);
        Some(pid)
    }

    /// Lets a process go on that was stopped, if it is still the one.
    pub(crate) fn go_on(&self, process: u32) {
        let mut state = self.state();
        if state.pid() == Some(process) {
            processes::kill(process, Signal::CONT);
        }
    }

    /// Waits for its end; false if that takes longer.
    pub(crate) async fn ended(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.pid().is_some() {
            if Instant::now() > until {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// How it ended, if it did though nobody held it down.
    pub(crate) fn has_ended(&self) -> Option<ExitStatus> {
        let mut state = self.state();
        if !state.wanted {
            return None;
        }
        state.child.as_mut()?.try_wait().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_down_has_not_ended_by_itself_and_another_process_is_not_woken() {
        let part = Part::new("sleeper".to_owned(), || {
            let mut command = Command::new("sleep");
            command.arg("60");
            Ok(command)
        });
        assert_eq!((part.pid(), part.signal(Signal::STOP)), (None, None));
        part.start().expect("it starts");
        let first = part.signal(Signal::STOP).expect("it runs");
        assert!(!part.ended(Duration::from_millis(50)).await);
        assert_eq!(part.signal(Signal::KILL), Some(first));
        assert!(part.ended(Duration::from_secs(10)).await);
        assert_eq!(part.has_ended(), None);
        part.start().expect("it starts again");
        let second = part.signal(Signal::STOP).expect("it runs");
        part.go_on(first);
        let stopped = Instant::now() + Duration::from_secs(10);
        while !processes::is_stopped(second) {
            assert!(Instant::now() < stopped, "it is awake");
            sleep(LOOK).await;
        }
        part.go_on(second);
        while processes::is_stopped(second) {
            assert!(Instant::now() < stopped, "it is not awake");
            sleep(LOOK).await;
        }
        processes::kill(second, Signal::KILL);
        assert!(part.ended(Duration::from_secs(10)).await);
        assert!(part.has_ended().is_some());
    }
}
