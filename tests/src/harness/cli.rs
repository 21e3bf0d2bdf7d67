//! The command line, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::proc;

/// No command of a test takes longer than this, unless something is broken.
const LONGEST: Duration = Duration::from_secs(90);

/// A binary of this workspace, beside the test's own.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/system-<hash>
    let path = own.ancestors().nth(2).map(|profile| profile.join(name)).unwrap_or_default();
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build --workspace` (or `make test`)",
        path.display()
    );
    path
}

/// The nats-server that the tests use: `MOZART_NATS_SERVER`, else what `make setup` installed.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn nats_server() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nats-server");
    let path = std::env::var_os("MOZART_NATS_SERVER").map_or(installed, PathBuf::from);
    assert!(
        path.is_file(),
        "there is no nats-server at {}: run `make setup`, or name one in MOZART_NATS_SERVER",
        path.display()
    );
    path.canonicalize().expect("it is a file")
}

/// What a command said, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Its data.
    pub stdout: String,
    /// The rest.
    pub stderr: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
}

impl Output {
    /// Itself, if the command succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exit(0)
    }

    /// Itself, if the command ended with this exit code.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    #[track_caller]
    pub fn exit(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Itself, if stderr holds these words.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "{words:?} is missing: {self}");
        self
    }

    /// Its one JSON document.
    ///
    /// # Panics
    /// When stdout is something else.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Its JSON lines.
    ///
    /// # Panics
    /// When stdout is something else.
    #[must_use]
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self}"));
        self.stdout.lines().map(parse).collect()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, stdout, stderr, code } = self;
        write!(f, "`{command}` ended with {code}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it does not end within 90 s.
pub async fn run(command: Command) -> Output {
    Child::start(command).output().await
}

/// A command that runs beside the test. Killed when dropped.
#[derive(Debug)]
pub struct Child {
    command: String,
    child: tokio::process::Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<()>,
    /// What was read of stderr so far.
    complaints: Arc<Mutex<Vec<u8>>>,
}

impl Child {
    /// Starts a command.
    ///
    /// # Panics
    /// When the system does not.
    pub(super) fn start(mut command: Command) -> Self {
        let shown = format!("{:?}", command.as_std());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut errors = child.stderr.take().expect("it is piped");
        let complaints = Arc::<Mutex<Vec<u8>>>::default();
        let into = Arc::clone(&complaints);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the child's stderr, which ends with the child"
        )]
        let stderr = tokio::spawn(async move {
            let mut part = [0; 4096];
            // What was read before an error is what there is.
            while let Ok(count @ 1..) = errors.read(&mut part).await {
                into.lock().expect("nobody panics with it").extend_from_slice(&part[..count]);
            }
        });
        Self { command: shown, child, stdout, stderr, complaints }
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// What it said on stderr so far.
    #[must_use]
    pub fn complaints(&self) -> String {
        text(&self.complaints)
    }

    /// Signals it.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            proc::kill(pid, signal);
        }
    }

    /// Writes to its stdin and closes it.
    ///
    /// # Panics
    /// When it was closed before.
    pub async fn feed(&mut self, bytes: &[u8]) {
        let mut stdin = self.child.stdin.take().expect("fed once only");
        // A command that refuses its input closes it early: what it says then is what counts.
        let _refused = stdin.write_all(bytes).await;
        let _refused = stdin.shutdown().await;
    }

    /// The next line of its stdout; none at its end.
    ///
    /// # Panics
    /// When it takes longer than 30 s.
    pub async fn line(&mut self) -> Option<String> {
        let line = timeout(super::wait::DEADLINE, self.stdout.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("no further line from `{}`", self.command));
        line.unwrap_or_else(|error| panic!("`{}`: {error}", self.command))
    }

    /// The next line of its stdout as JSON; none at its end.
    ///
    /// # Panics
    /// When it takes longer than 30 s, or is no JSON.
    pub async fn json(&mut self) -> Option<Value> {
        let line = self.line().await?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// Reads JSON lines up to one that a test waits for; yields all of them.
    ///
    /// # Panics
    /// When the output ends before.
    pub async fn json_until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            let Some(line) = self.json().await else {
                panic!("`{}` ended before the line that was waited for: {seen:#?}", self.command);
            };
            let is_it = wanted(&line);
            seen.push(line);
            if is_it {
                return seen;
            }
        }
    }

    /// Waits for its end; stdout is what had not been read yet.
    ///
    /// # Panics
    /// When it does not end within 90 s.
    pub async fn output(mut self) -> Output {
        // Nobody is going to write to it.
        drop(self.child.stdin.take());
        let mut stdout = String::new();
        let status: ExitStatus = timeout(LONGEST, async {
            while let Some(line) = self.stdout.next_line().await.expect("UTF-8") {
                stdout.push_str(&line);
                stdout.push('\n');
            }
            self.child.wait().await.expect("our child")
        })
        .await
        .unwrap_or_else(|_| panic!("`{}` does not end; it said {stdout:?}", self.command));
        self.stderr.await.expect("reading does not panic");
        let stderr = text(&self.complaints);
        Output { command: self.command, stdout, stderr, code: status.code().unwrap_or(-1) }
    }
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    let bytes = bytes.lock().expect("nobody panics with it");
    String::from_utf8_lossy(&bytes).into_owned()
}
