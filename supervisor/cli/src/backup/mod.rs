//! `mozart backup` and `mozart restore`: a whole fleet as a file, or as one file and those that continue it.
//!
//! `frame` is the file's form, `manifest` what it says of itself. `chain` checks files before anything is done with them, `take` writes one,
//! and `restore` fills an empty namespace from them. Which records of which file count is decided in `plan`, without I/O.

mod chain;
mod frame;
mod manifest;
mod plan;
pub mod restore;
mod show;
mod take;

pub(crate) use plan::is_renumbered;
pub use take::BackupArgs;
pub(crate) use take::backup;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;

/// A bar that counts, on a terminal only.
fn progress(doing: &'static str, template: &'static str) -> ProgressBar {
    if !output::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar
}

/// Of records.
const RECORDS: &str = "{msg} {wide_bar} {human_pos}/{human_len} records {per_sec}";
/// Of bytes.
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
