//! A docker engine of a test's own, to kill and to start again: nobody else's containers are in it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::proc;
use super::wait::{DEADLINE, eventually};

/// An engine with all its data in a folder, and a bridge of its own: without one, it would take the machine's engine its bridge away.
#[derive(Debug)]
pub struct OwnEngine {
    folder: TempDir,
    bridge: String,
    shim: PathBuf,
    /// What runs the containers, and goes on while the engine does not: one that an engine starts by itself is not always found again
    /// by the next.
    containerd: Option<Child>,
    engine: Option<Child>,
}

impl OwnEngine {
    /// Starts one. None where something is missing, which is said; in CI, that is a failure.
    ///
    /// # Panics
    /// When something is missing and `CI` is `true`, or the engine does not start.
    pub async fn start() -> Option<Self> {
        Self::start_with(None).await
    }

    /// The same, with so much room for its data, in MiB.
    ///
    /// # Panics
    /// As [`OwnEngine::start`].
    pub async fn start_within(room: u32) -> Option<Self> {
        Self::start_with(Some(room)).await
    }

    #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
    async fn start_with(room: Option<u32>) -> Option<Self> {
        let shim = env::var_os("MOZART_TEST_SHIM").map(PathBuf::from).unwrap_or_default();
        let path = env::var_os("PATH").unwrap_or_default();
        let is_there = env::split_paths(&path).any(|folder| folder.join("dockerd").is_file());
        let missing = match (shim.is_file(), is_there, rustix::process::getuid().is_root()) {
            (true, true, true) => None,
            (false, _, _) => Some("no static shim is named in MOZART_TEST_SHIM; try: make test"),
            (_, false, _) => Some("there is no dockerd on PATH"),
            (_, _, false) => Some("only root can start an engine"),
        };
        if let Some(missing) = missing {
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "{missing}");
            eprintln!("SKIPPED, since it needs an engine of its own: {missing}");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("mozart-engine-").tempdir();
        let folder = folder.expect("a temporary folder");
        // Not the machine's own settings.
        fs::write(folder.path().join("daemon.json"), "{}").expect("written");
        if let Some(room) = room {
            let data = folder.path().join("data");
            fs::create_dir(&data).expect("a new folder");
            let (flags, room) = (rustix::mount::MountFlags::empty(), format!("size={room}m"));
            let room = std::ffi::CString::new(room).expect("no zero in it");
            rustix::mount::mount("tmpfs", &data, "tmpfs", flags, Some(room.as_c_str()))
                .expect("root may mount");
        }
        let bridge = bridge();
        let mut engine = Self { folder, bridge, shim, containerd: None, engine: None };
        engine.containerd = Some(engine.containerd());
        engine.begin().await;
        Some(engine)
    }

    fn containerd(&self) -> Child {
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            self.file("containerd/root"),
            self.file("containerd/state"),
            self.file("containerd.sock"),
        );
        fs::write(self.file("containerd.toml"), config).expect("written");
        let log = fs::File::create(self.file("containerd.log")).expect("a log");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.file("containerd.toml")).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().expect("containerd is on PATH, as dockerd is")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where it listens, for `DOCKER_HOST`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.file("docker.sock").display())
    }

    /// The shim for its containers.
    #[must_use]
    pub fn shim(&self) -> &Path {
        &self.shim
    }

    /// Starts it, again if it ran before.
    ///
    /// # Panics
    /// When it does not answer within 30 s.
    pub async fn begin(&mut self) {
        // A killed one leaves it behind.
        let _left = fs::remove_file(self.file("pid"));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.file("log"));
        let mut command = Command::new("dockerd");
        command.arg("--config-file").arg(self.file("daemon.json"));
        command.arg("--host").arg(self.address()).arg("--pidfile").arg(self.file("pid"));
        command.arg("--data-root").arg(self.file("data"));
        command.arg("--exec-root").arg(self.file("exec"));
        command.arg("--containerd").arg(self.file("containerd.sock"));
        command.arg("--bridge").arg(&self.bridge);
        command.args(["--iptables=false", "--ip-masq=false", "--ip-forward=false"]);
        command.arg("--storage-driver=vfs");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log"));
        self.engine = Some(command.process_group(0).spawn().expect("dockerd is on PATH"));
        eventually("the engine answers", async || match self.list().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let log = fs::read_to_string(self.file("log")).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(3).collect();
                Err(format!("{error}; {last:?}"))
            }
        })
        .await;
    }

    /// The names of all its containers, in whatever state.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn list(&self) -> Result<Vec<String>, String> {
        self.docker(&["ps", "--all", "--format", "{{.Names}}"]).await
    }

    /// What a command of docker's command line prints, line by line.
    ///
    /// # Errors
    /// What it says when it fails.
    pub async fn docker(&self, args: &[&str]) -> Result<Vec<String>, String> {
        let mut command = Command::new("docker");
        let output = command.args(args).env("DOCKER_HOST", self.address()).output().await;
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Signals it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        let engine = self.engine.as_ref().and_then(Child::id);
        proc::kill(engine.expect("it runs"), signal);
    }

    /// Ends it, and returns when it is gone: with SIGTERM it stops its containers before.
    ///
    /// # Panics
    /// When it does not run, or does not end within 30 s.
    pub async fn end(&mut self, signal: Signal) {
        let mut engine = self.engine.take().expect("it runs");
        proc::kill(engine.id().expect("it was not awaited"), signal);
        let ended = timeout(DEADLINE, engine.wait()).await;
        let _status = ended.expect("it ends").expect("our child");
    }
}

/// Makes a bridge with an address that nobody else has: its containers reach this host by it, and nothing beyond.
fn bridge() -> String {
    const NUMBERS: u32 = 250;
    let first = std::process::id();
    for number in (first..first + NUMBERS).map(|number| number % NUMBERS + 1) {
        let name = format!("mozart-t{number}");
        // Another test may have it.
        if ip(&["link", "add", &name, "type", "bridge"]).is_err() {
            continue;
        }
        let address = format!("10.213.{number}.1/24");
        ip(&["address", "add", &address, "dev", &name]).expect("an address of its own");
        ip(&["link", "set", &name, "up"]).expect("it is ours");
        return name;
    }
    panic!("{NUMBERS} bridges are taken");
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = std::process::Command::new("ip").args(args).output().expect("iproute2 is there");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

impl Drop for OwnEngine {
    /// All that is left: the engine, its containerd, and what that started. They have the folder among their arguments.
    fn drop(&mut self) {
        for _ in 0..20 {
            let left = proc::processes(self.folder.path());
            if left.is_empty() {
                break;
            }
            // What is in a container names no folder of ours: it is known by what started it, as long as that is there.
            let within = |one: &proc::Process| left.iter().any(|known| known.pid == one.parent);
            for one in proc::all().filter(within).chain(left.iter().cloned()) {
                proc::kill(one.pid, Signal::KILL);
            }
        }
        // Gone before only if the test failed to make it.
        let _gone =
            std::process::Command::new("ip").args(["link", "delete", &self.bridge]).output();
        // What a killed engine had mounted.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for place in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(place).starts_with(self.folder.path()) {
                let _gone = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}
