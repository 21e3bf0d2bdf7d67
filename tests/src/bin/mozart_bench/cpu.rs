//! The CPU time of all that takes part: what a chat costs, however busy the machine is with other things.

use std::fs;
use std::path::{Path, PathBuf};

use crate::outcome::Result;

/// Marks the processes that this program starts: a rig's folder.
pub(crate) const MARK: &str = "MOZART_BENCH";

/// The processes of a rig, as they were when it was made: server, agents, workers, supervisor, and this one.
#[derive(Debug)]
pub(crate) struct Meter {
    processes: Vec<PathBuf>,
}

impl Meter {
    /// Finds all processes that have the folder in their environment.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let mark = folder.as_os_str().as_encoded_bytes();
        let takes_part = |process: &PathBuf| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|part| part == mark)
        };
        let all = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let mut processes: Vec<_> = all.filter(takes_part).collect();
        processes.push("/proc/self".into());
        Ok(Self { processes })
    }

    /// Their CPU time so far, in microseconds.
    pub(crate) fn micros(&self) -> f64 {
        let threads =
            self.processes.iter().filter_map(|process| fs::read_dir(process.join("task")).ok());
        threads.flatten().flatten().filter_map(|thread| nanos(&thread.path())).sum::<f64>() / 1000.0
    }
}

fn nanos(thread: &Path) -> Option<f64> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}
