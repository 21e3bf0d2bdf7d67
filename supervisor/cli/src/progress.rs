//! Progress on a terminal: what the command is waiting for.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::output;

/// A line that changes while the command waits, and is removed afterwards.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new() -> Self {
        // Not a terminal: hidden, and nothing is drawn.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Says what is being waited for.
    pub(crate) fn say(&self, what: String) {
        self.0.set_message(output::shown(&what).into_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
