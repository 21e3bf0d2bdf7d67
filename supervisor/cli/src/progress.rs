//! Progress: what the command is waiting for.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::output;

/// What a command waits for is said in a line of its own after so long, and again when it has changed, where no terminal shows it.
const AFTER: Duration = Duration::from_secs(5);

/// A line that changes while the command waits, and is removed afterwards. Without a terminal, a few lines that stay.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    lines: Lines,
}

impl Progress {
    pub(crate) fn new() -> Self {
        // Not a terminal: hidden, and nothing is drawn.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, lines: Lines { due: Instant::now() + AFTER, said: None } }
    }

    /// Says what is being waited for.
    pub(crate) fn say(&mut self, what: String) {
        if output::stderr_is_terminal() {
            self.bar.set_message(output::shown(&what).into_owned());
        } else if self.lines.is_due(Instant::now(), &what) {
            output::note(format!("waiting: {}", what.trim_end()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The lines of a command that waits.
#[derive(Debug)]
struct Lines {
    due: Instant,
    said: Option<String>,
}

impl Lines {
    fn is_due(&mut self, now: Instant, what: &str) -> bool {
        let is_due = self.due <= now && self.said.as_deref() != Some(what);
        if is_due {
            self.due = now + AFTER;
            self.said = Some(what.to_owned());
        }
        is_due
    }
}

/// A progress bar for bytes, on a terminal only.
pub(crate) fn bar(total: u64, doing: &'static str) -> ProgressBar {
    if !output::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_what_lasts_is_said_once_and_what_changes_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lines = Lines { due: at(5), said: None };
        assert!(!lines.is_due(at(4), "a is starting"), "most waits are short");
        assert!(lines.is_due(at(5), "a is starting"));
        assert!(!lines.is_due(at(60), "a is starting"));
        assert!(lines.is_due(at(60), "a is in error"));
        assert!(!lines.is_due(at(61), "a is starting"), "what flaps does not flood");
        assert!(lines.is_due(at(65), "a is starting"));
    }
}
