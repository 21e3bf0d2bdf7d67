//! Other clocks: every role, shim, worker and command of a campaign has a wall clock that is an hour off, one way or the other, and
//! runs too fast or too slow. nats-server, whose clock is the log's, has the machine's.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Problem;

/// What puts another clock into a process.
const PRELOAD: &str = "LD_PRELOAD";
/// Which one: how many seconds it is off, and how many percent too fast.
const CLOCK: &str = "MOZART_CLOCK";
/// Names a file that says how many seconds it is off from now on.
const CLOCK_FILE: &str = "MOZART_CLOCK_FILE";
const CLOCKS: [&str; 4] = ["3600:5", "-3600:-5", "-3600:0", "3600:0"];

/// Builds the library in a folder.
fn build(folder: &Path) -> Result<PathBuf, Problem> {
    let (source, library) = (folder.join("clocks.c"), folder.join("clocks.so"));
    fs::write(&source, include_str!("clocks.c"))?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source);
    let built = cc.output().map_err(|error| format!("no `cc` for other clocks: {error}"))?;
    if !built.status.success() {
        return Err(format!("{cc:?}: {}", String::from_utf8_lossy(&built.stderr)).into());
    }
    Ok(library)
}

fn is_in(library: &Path, pid: u32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.contains(&*library.to_string_lossy())
}

/// A wall clock that jumps when it is told to, for the processes that are started with it.
#[derive(Debug)]
pub struct JumpingClock {
    library: PathBuf,
    file: PathBuf,
}

impl JumpingClock {
    /// One that is right at first, with what it needs in a folder.
    ///
    /// # Errors
    /// When there is no C compiler, or the folder cannot be written to.
    pub fn prepare(folder: &Path) -> Result<Self, Problem> {
        let clock = Self { library: build(folder)?, file: folder.join("clock") };
        clock.jump(0)?;
        Ok(clock)
    }

    /// What a process is started with that has it.
    #[must_use]
    pub fn env(&self) -> [(&'static str, String); 2] {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        [(PRELOAD, path(&self.library)), (CLOCK_FILE, path(&self.file))]
    }

    /// Whether a process has it: one that is static keeps the machine's.
    #[must_use]
    pub fn is_in(&self, pid: u32) -> bool {
        is_in(&self.library, pid)
    }

    /// From now on it is this many seconds off.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn jump(&self, seconds: i64) -> Result<(), Problem> {
        // In place: it is mapped into the processes.
        let mut file = fs::OpenOptions::new();
        let mut file = file.create(true).write(true).truncate(false).open(&self.file)?;
        Ok(file.write_all(&seconds.to_ne_bytes())?)
    }
}

/// What processes are started with.
#[derive(Debug, Clone)]
pub(super) struct Clocks {
    library: PathBuf,
    /// Stands for the shim, and gives each incarnation a clock by its number.
    shim: PathBuf,
    started: Arc<AtomicUsize>,
}

impl Clocks {
    /// Builds the library and the shim's stand-in in a folder.
    pub(super) fn prepare(folder: &Path, mozart: &Path) -> Result<Self, Problem> {
        let library = build(folder)?;
        let beside = mozart.with_file_name("mozart-shim");
        for binary in [mozart, &beside] {
            if !is_dynamic(binary)? {
                let binary = binary.display();
                return Err(format!("{binary} is static and keeps its clock: `cargo build`").into());
            }
        }
        let shim = folder.join("mozart-shim");
        let choices = CLOCKS.iter().enumerate();
        let choices = choices.map(|(number, clock)| format!("{number}) {CLOCK}={clock} ;;\n"));
        let script = format!(
            "#!/bin/sh\n\
             # The last word of its label is the incarnation's number.\n\
             case $(( ${{MOZART_INCARNATION##*/}} % {} )) in\n{}esac\n\
             export {CLOCK} {PRELOAD}={library:?}\n\
             exec {beside:?} \"$@\"\n",
            CLOCKS.len(),
            choices.collect::<String>(),
        );
        fs::write(&shim, script)?;
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o755))?;
        Ok(Self { library, shim, started: Arc::default() })
    }

    /// What a process is started with that has the clock of this number.
    pub(super) fn env(&self, number: usize) -> [(&'static str, String); 3] {
        let clock = CLOCKS[number % CLOCKS.len()].to_owned();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        [(PRELOAD, path(&self.library)), (CLOCK, clock), ("MOZART_SHIM", path(&self.shim))]
    }

    /// The same, with another clock than the process before.
    pub(super) fn next_env(&self) -> [(&'static str, String); 3] {
        self.env(self.started.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a process has one of our clocks.
    pub(super) fn are_in(&self, pid: u32) -> bool {
        is_in(&self.library, pid)
    }
}

/// Whether a program is loaded by the dynamic linker, which knows `LD_PRELOAD`: whether one is named in it.
fn is_dynamic(binary: &Path) -> Result<bool, Problem> {
    let bytes = fs::read(binary).map_err(|error| format!("{}: {error}", binary.display()))?;
    let head = bytes.get(..4096).unwrap_or(&bytes);
    Ok(memchr::memmem::find(head, b"/ld-linux").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(clocks: &Clocks, number: usize) -> i64 {
        let date = Command::new("date").arg("+%s").envs(clocks.env(number)).output();
        let date = date.expect("coreutils are there");
        String::from_utf8(date.stdout).expect("digits").trim().parse().expect("seconds")
    }

    #[test]
    fn a_process_has_the_clock_that_it_is_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let mozart = crate::harness::binary("mozart");
        let clocks = Clocks::prepare(folder.path(), &mozart).expect("`cc` is there");
        let now = || i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("now").as_secs());
        for (number, off) in [(0, 3600), (1, -3600), (2, -3600), (3, 3600)] {
            let before = now().expect("soon enough");
            let shown = clock(&clocks, number) - off;
            assert!((before..=before + 10).contains(&shown), "{number}: {shown}, {before}");
        }
        assert!(!clocks.are_in(std::process::id()));
    }
}
