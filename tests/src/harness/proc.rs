//! Processes as `/proc` shows them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// The shim within a container.
const SHIM: &str = "/.mozart/mozart-shim";

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment when it was started.
    pub env: BTreeMap<String, String>,
    /// The id of the container that it runs in.
    pub container: Option<String>,
}

impl Process {
    /// Reads a process; none when it is gone, a zombie or somebody else's.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, so count from its end.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if matches!(fields.next(), Some("Z" | "X")) {
            return None;
        }
        let parent = fields.next()?.parse().ok()?;
        let words = |file: &str| -> Option<Vec<String>> {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
            let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
        };
        let env = words("environ")?;
        let env = env.iter().filter_map(|entry| entry.split_once('='));
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Self { pid, parent, args: words("cmdline")?, env, container: container(pid) })
    }

    /// Whether it is a shim: by what only a shim is told.
    #[must_use]
    pub fn is_shim(&self) -> bool {
        let in_container = || self.args.iter().map(String::as_str).eq([SHIM, "container"]);
        !self.var("MOZART_SHIM_CONFIG").is_empty() || in_container()
    }

    /// An environment variable.
    #[must_use]
    pub fn var(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    /// Whether it belongs to the fleet of a folder: `up`, nats-server, the command line, shims, workers and what these started.
    #[must_use]
    pub fn is_of(&self, home: &Path) -> bool {
        let home = home.to_string_lossy();
        let under = |text: &str| {
            text.strip_prefix(home.as_ref())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        under(self.var("MOZART_DIR"))
            || under(self.var("MOZART_RUN"))
            || self.args.iter().any(|arg| under(arg))
    }
}

/// The container of a process: its cgroup has the id in its name.
fn container(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mut words = text.split(|letter: char| !letter.is_ascii_hexdigit());
    words.find(|word| word.len() == 64).map(str::to_owned)
}

/// All running processes that can be read, but for this one.
pub(super) fn all() -> impl Iterator<Item = Process> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
        .filter_map(Process::read)
}

/// The running processes of the fleet of a folder; not those in containers, which know nothing of it.
#[must_use]
pub fn processes(home: &Path) -> Vec<Process> {
    all().filter(|process| process.is_of(home)).collect()
}

/// Signals a process; gone already is fine.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // What follows from it is what a test looks at.
        let _gone = kill_process(pid, signal);
    }
}

/// Whether a process runs; a zombie does not.
#[must_use]
pub fn alive(pid: u32) -> bool {
    Process::read(pid).is_some()
}

/// When a process started, in clock ticks since the machine did: with the id, what tells it from a later one.
#[must_use]
pub fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
