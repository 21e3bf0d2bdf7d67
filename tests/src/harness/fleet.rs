//! A fleet of a test's own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use broker::{Broker, ConnectOptions};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::cli::{self, Child, Output};
use super::http::Http;
use super::proc::{self, Process};
use super::running;
use super::runtime::Runtime;
use super::wait::{Until, eventually};

/// A folder with souls, and everything that `mozart up` runs for them.
///
/// Dropping it kills all of that and removes the folder; after a panic the folder stays, and the ends of its logs are printed.
#[derive(Debug)]
pub struct Fleet {
    folder: Option<TempDir>,
    home: PathBuf,
    souls: PathBuf,
    runtime: Runtime,
    /// What `mozart` finds in its environment, beside what it needs.
    env: Vec<(String, String)>,
    /// The network namespace that its commands run in; none for the machine's own.
    netns: Option<String>,
    /// Whether containers have the souls' folder.
    dev: bool,
    /// By what label the engine knows its containers, once one was seen.
    label: OnceLock<String>,
    up: Option<Child>,
}

impl Fleet {
    /// A folder with these souls (name and text), in which nothing runs yet; agents will be processes. The workers of `tests/workers`
    /// and `examples/flaky` are beside the souls, and their library.
    ///
    /// # Panics
    /// When the file system does not allow it.
    #[must_use]
    pub fn new(souls: &[(&str, &str)]) -> Self {
        Self::laid_out(Runtime::Process, souls)
    }

    /// The same, for agents of any kind.
    ///
    /// # Panics
    /// When the file system does not allow it.
    #[must_use]
    pub fn laid_out(runtime: Runtime, souls: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("mozart-test-").tempdir();
        let folder = folder.expect("a temporary folder");
        let home = folder.path().join("home");
        let souls_folder = folder.path().join("souls");
        let fleet = Self {
            folder: Some(folder),
            home,
            souls: souls_folder,
            runtime,
            env: Vec::new(),
            netns: None,
            dev: true,
            label: OnceLock::new(),
            up: None,
        };
        // What seeds saw; a worker in a container is another user.
        let seen = fleet.souls.join("seen");
        fs::create_dir_all(&seen).expect("a new folder");
        fs::set_permissions(&seen, fs::Permissions::from_mode(0o777)).expect("it is ours");
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        for from in ["workers", "../examples/flaky", "../sdk/python"] {
            fleet.copy_workers(&tests.join(from));
        }
        for (name, text) in souls {
            fleet.soul(name, text);
        }
        fleet
    }

    /// A fleet of which every agent is running, as processes.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn with(souls: &[(&str, &str)]) -> Self {
        Runtime::Process.fleet(souls).await
    }

    /// Puts a variable into the environment of all commands: of `up`, whose node has the SECRETs.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs all commands, and so what they start, in a network namespace.
    #[must_use]
    pub(super) fn on(mut self, netns: &str) -> Self {
        self.netns = Some(netns.to_owned());
        self
    }

    /// Leaves the souls' folder out of the containers: workers are in their image, then.
    #[must_use]
    pub fn without_checkout(mut self) -> Self {
        self.dev = false;
        self
    }

    fn copy_workers(&self, from: &Path) {
        for entry in fs::read_dir(from).expect("it is part of the checkout").flatten() {
            if entry.path().extension() == Some(OsStr::new("py")) {
                fs::copy(entry.path(), self.souls.join(entry.file_name())).expect("copied");
            }
        }
    }

    /// Writes a soul, and yields its file.
    ///
    /// # Panics
    /// When the file system does not allow it.
    pub fn soul(&self, name: &str, text: &str) -> PathBuf {
        if text.contains("ENV SEEN=seen") {
            // What seeds write beside their souls is none of their files.
            fs::write(self.souls.join(".mozartignore"), "/seen\n").expect("written");
        }
        let path = self.souls.join(format!("{name}.soul"));
        fs::write(&path, text).expect("written");
        path
    }

    /// What its agents run in.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(super) fn label(&self) -> &OnceLock<String> {
        &self.label
    }

    /// `MOZART_DIR`.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder of the souls and their workers.
    #[must_use]
    pub fn souls(&self) -> &Path {
        &self.souls
    }

    /// A command of the command line, with an environment that knows this fleet alone.
    #[must_use]
    pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mozart = cli::binary("mozart");
        let mut command = match &self.netns {
            None => Command::new(mozart),
            Some(netns) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns]).arg(mozart);
                command
            }
        };
        for name in [
            "NATS_URL",
            "NATS_CONTEXT",
            "NATS_CREDS",
            "NATS_CA",
            "MOZART_JOIN",
            "MOZART_NAMESPACE",
            "MOZART_NETWORK",
            "MOZART_NATS_MONITOR",
            "MOZART_METRICS",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "TRACEPARENT",
            "RUST_LOG",
        ] {
            command.env_remove(name);
        }
        command
            // Fleets run side by side; those that want an API say where.
            .env("MOZART_API", "off")
            .envs(self.runtime.env())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("MOZART_DIR", &self.home)
            .env("MOZART_NATS_SERVER", cli::nats_server())
            .env("NO_COLOR", "1")
            .current_dir(&self.souls)
            .args(args);
        command
    }

    /// Starts a command that runs beside the test.
    #[must_use]
    pub fn spawn_cli<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Child {
        Child::start(self.command(args))
    }

    /// Starts a command in a mount namespace of its own, after a shell has changed what is mounted there.
    #[must_use]
    pub fn spawn_where<I: IntoIterator<Item: AsRef<OsStr>>>(&self, mounts: &str, args: I) -> Child {
        let inner = self.command(args);
        let inner = inner.as_std();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
        command.arg(format!("{mounts}\nexec \"$0\" \"$@\""));
        command.arg(inner.get_program()).args(inner.get_args()).current_dir(&self.souls);
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Child::start(command)
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn cli<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Output {
        self.spawn_cli(args).output().await
    }

    /// Runs a command to its end, with other words in its environment.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn cli_with<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        args: I,
        env: &[(&str, &OsStr)],
    ) -> Output {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        Child::start(command).output().await
    }

    /// Runs a command that succeeds, with `-o json`; its document.
    ///
    /// # Panics
    /// When it does anything else.
    pub async fn json<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Value {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        self.cli(["-o".into(), "json".into()].into_iter().chain(args)).await.ok().json()
    }

    /// Starts `mozart up`, and returns once every agent is running.
    ///
    /// # Panics
    /// When they do not come up.
    pub async fn all_up(&mut self) {
        self.up(&[]).await;
        for agent in self.soul_files() {
            let _row = self.wait_state(&agent, "running").await;
        }
        self.learn().await;
    }

    /// Starts `mozart up` with the souls' folder beside the test, and returns once a supervisor answers.
    ///
    /// # Panics
    /// When it ends, or does not answer in time.
    pub async fn up(&mut self, more: &[&str]) {
        let mut up = self.command(["up"]);
        // A folder without a soul is a mistake to `up`.
        if !self.soul_files().is_empty() {
            up.arg(&self.souls);
        }
        if self.dev && matches!(self.runtime, Runtime::Docker(_)) {
            up.arg("--dev");
        }
        up.args(more);
        // Its own group: a test that interrupts it means it alone.
        up.process_group(0);
        let up = Child::start(up);
        let pid = up.pid();
        self.up = Some(up);
        eventually("`mozart up` applies its souls", async || {
            if !proc::alive(pid) {
                let up = self.up.take().expect("it was started");
                panic!("{}", up.output().await);
            }
            // A note of an earlier `up` proves nothing.
            if self.noted("pid") != Some(u64::from(pid)) {
                return Err("it has not written its note".to_owned());
            }
            self.answers().await
        })
        .await;
    }

    /// The names of the agents whose souls are in the folder.
    fn soul_files(&self) -> Vec<String> {
        let files = fs::read_dir(&self.souls).expect("it is there").flatten();
        let souls = files.map(|entry| entry.path());
        let souls = souls.filter(|path| path.extension() == Some(OsStr::new("soul")));
        souls.filter_map(|path| path.file_stem()?.to_str().map(str::to_owned)).collect()
    }

    async fn answers(&self) -> Until<()> {
        let output = self.cli(["ps", "-a", "-o", "json"]).await;
        if output.code != 0 {
            return Err(output.to_string());
        }
        let there = output.json().as_array().map_or(0, Vec::len);
        if there < self.soul_files().len() { Err(output.to_string()) } else { Ok(()) }
    }

    /// The `mozart up` that the test started, to signal or to await. Taken out: the fleet does not look after it any more.
    ///
    /// # Panics
    /// When none was started.
    pub fn take_up(&mut self) -> Child {
        self.up.take().expect("`up` was called")
    }

    /// Kills `mozart up` with SIGKILL, and returns when it is gone. What it started goes on.
    ///
    /// # Panics
    /// When none was started.
    pub async fn kill_up(&mut self) {
        let up = self.take_up();
        up.signal(Signal::KILL);
        let _killed = up.output().await;
    }

    /// A value of `mozart.json`.
    #[must_use]
    pub fn note(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.home.join("mozart.json")).ok()?).ok()
    }

    fn noted(&self, name: &str) -> Option<u64> {
        self.note()?.get(name)?.as_u64()
    }

    /// The process of `mozart up`.
    ///
    /// # Panics
    /// When none has noted itself.
    #[must_use]
    pub fn up_pid(&self) -> u32 {
        let pid = self.noted("pid").expect("`mozart up` runs");
        u32::try_from(pid).expect("a process id")
    }

    /// The nats-server that `up` started: by its arguments, since a note may be old.
    #[must_use]
    pub fn nats_pid(&self) -> Option<u32> {
        let conf = self.home.join("nats/nats.conf");
        let conf = conf.to_string_lossy();
        let is_it = |process: &Process| process.args.iter().any(|arg| *arg == conf);
        self.processes().into_iter().find(is_it).map(|process| process.pid)
    }

    /// The API that `mozart up --api` serves, with its own token.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn http(&self) -> Http {
        let note = self.note().expect("`mozart up` runs");
        let url = note["api"].as_str().expect("it has an API");
        let address = url.strip_prefix("http://").expect("plain").to_owned();
        let token = fs::read_to_string(self.home.join("api.token")).expect("there is a token");
        Http { address, token: Some(token.trim().to_owned()) }
    }

    /// A connection to the fleet's broker, to read the records themselves.
    ///
    /// # Panics
    /// When there is no connection within 10 s.
    pub async fn broker(&self) -> Broker {
        let note = self.note().expect("`mozart up` runs");
        let word = |name: &str| note[name].as_str().expect("the note has it").to_owned();
        let options = ConnectOptions {
            url: word("url"),
            creds: None,
            ca: None,
            name: "test".to_owned(),
            namespace: word("namespace").parse().expect("valid"),
            timeout: Duration::from_secs(10),
            shim: None,
        };
        Broker::connect(&options).await.expect("the broker answers")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            let said = self.up.as_ref().map(Child::complaints).unwrap_or_default();
            report(&self.home, &self.souls, &said);
        }
        running::end(&self.home, &self.runtime, self.label.take());
        if let Some(folder) = self.folder.take()
            && panicking
        {
            let _kept = folder.keep();
        }
    }
}

/// Prints what a failed test leaves behind.
#[expect(clippy::print_stderr, reason = "the test runner shows it beside the panic")]
fn report(home: &Path, souls: &Path, up: &str) {
    eprintln!("\nthe fleet's folder is kept: {} (souls in {})", home.display(), souls.display());
    for process in running::running(home) {
        let label = process.var("MOZART_INCARNATION");
        eprintln!("running: {} (of {}) {label} {:?}", process.pid, process.parent, process.args);
    }
    let mut logs = vec![home.join("mozart.log"), home.join("nats/nats.log")];
    let runs = fs::read_dir(home.join("run")).into_iter().flatten().flatten();
    let incarnations =
        runs.flat_map(|run| fs::read_dir(run.path()).into_iter().flatten().flatten());
    logs.extend(incarnations.map(|incarnation| incarnation.path().join("shim.log")));
    tail("`mozart up`", up);
    for log in logs {
        tail(&log.display().to_string(), &fs::read_to_string(&log).unwrap_or_default());
    }
}

/// Prints the last lines of a log.
#[expect(clippy::print_stderr, reason = "the test runner shows it beside the panic")]
fn tail(what: &str, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    if !lines.is_empty() {
        let tail = &lines[lines.len().saturating_sub(30)..];
        eprintln!("--- {what}\n{}", tail.join("\n"));
    }
}
