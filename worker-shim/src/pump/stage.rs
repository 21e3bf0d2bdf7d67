//! How far the end of an incarnation has come.

use std::time::{Duration, Instant};

/// An idle worker that was told to shut down gets SIGTERM after this time,
const TERM_AFTER: Duration = Duration::from_millis(100);
/// and SIGKILL after this.
const KILL_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// No new turns; the open ones may finish until then.
    Draining {
        until: Instant,
    },
    /// The worker was told to exit.
    Stopping {
        since: Instant,
        termed: bool,
    },
}

/// The stage, and what is to be said of the end.
#[derive(Debug)]
pub(super) struct Ending {
    stage: Stage,
    /// Why, if that is known here.
    pub(super) reason: Option<String>,
    /// Whether somebody asked for it.
    pub(super) asked: bool,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// The open turns took too long.
    DrainedTooLong,
    Term,
    Kill,
}

impl Ending {
    pub(super) fn none() -> Self {
        Self { stage: Stage::Running, reason: None, asked: false }
    }

    pub(super) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. })
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.stage, Stage::Stopping { .. })
    }

    pub(super) fn drain(&mut self, within: Duration) {
        self.stage = Stage::Draining { until: Instant::now() + within };
        self.asked = true;
    }

    pub(super) fn shut_down(&mut self) {
        self.stage = Stage::Stopping { since: Instant::now(), termed: false };
    }

    /// When [`Self::due`] says something.
    pub(super) fn due_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Running => None,
            Stage::Draining { until } => Some(until),
            Stage::Stopping { since, termed } => {
                Some(since + if termed { KILL_AFTER } else { TERM_AFTER })
            }
        }
    }

    /// What is due, once.
    pub(super) fn due(&mut self) -> Due {
        let now = Instant::now();
        if self.due_at().is_none_or(|at| at > now) {
            return Due::Nothing;
        }
        match self.stage {
            Stage::Running => Due::Nothing,
            Stage::Draining { .. } => Due::DrainedTooLong,
            Stage::Stopping { since, termed: false } => {
                self.stage = Stage::Stopping { since, termed: true };
                Due::Term
            }
            Stage::Stopping { termed: true, .. } => {
                self.stage = Stage::Stopping { since: now, termed: true };
                Due::Kill
            }
        }
    }
}
