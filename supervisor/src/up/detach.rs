//! `up -d`: the same command in the background, with its log in the data folder.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use common::api::ApiError;
use tokio::time::{Instant, sleep, timeout};

use super::{cluster, patience};
use cli::args::Global;
use cli::output;

use crate::args::{Sync, UpArgs};
use common::failure;
use runtime::home::Home;
use runtime::log;

/// How often the process and its note are looked at.
const EVERY: Duration = Duration::from_millis(10);
/// How long a process that is about to end may take to do so.
const ENDS: Duration = Duration::from_secs(1);
/// A log of more than this, in bytes, is put aside before the next start; one old log is kept.
const LOG: u64 = 16 << 20;

/// An `up` in the background that was started here.
pub(super) struct Background {
    child: Child,
    /// What its log had before, in bytes.
    logged: u64,
}

impl Background {
    /// Does something that needs it. If it ends meanwhile, the result is why.
    ///
    /// # Errors
    /// Those of what is done, or of the background process.
    pub(super) async fn during(
        &mut self,
        home: &Home,
        work: impl Future<Output = Result<(), ApiError>>,
    ) -> Result<(), ApiError> {
        let done = tokio::select! {
            biased;
            error = self.ended(home) => return Err(error),
            done = work => done,
        };
        match done {
            // What gets no answer may get none since the process is about to end.
            Err(error) if [failure::TIMEOUT, failure::UNREACHABLE].contains(&error.code) => {
                Err(timeout(ENDS, self.ended(home)).await.unwrap_or(error))
            }
            done => done,
        }
    }

    /// Waits for its end; why it ended.
    async fn ended(&mut self, home: &Home) -> ApiError {
        loop {
            match self.child.try_wait() {
                Ok(None) => sleep(EVERY).await,
                Ok(Some(status)) => return why(home, self.logged, status),
                Err(error) => return failed(error),
            }
        }
    }
}

fn failed(error: std::io::Error) -> ApiError {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    // Without -d, it writes into the same folder.
    let try_ = match error.kind() {
        kind if [ReadOnlyFilesystem, PermissionDenied].contains(&kind) => {
            "make the data folder writable, or --dir DIR for another one"
        }
        kind if [StorageFull, QuotaExceeded].contains(&kind) => {
            "free some space there, or --dir DIR for another folder"
        }
        _ => "`mozart up` without -d",
    };
    failure::file("cannot start in the background", &error, try_)
}

/// Starts `up` in the background, with the lock, and returns once its note says that its node serves. The souls are applied by the caller.
///
/// # Errors
/// Why it ended, with its own exit code; 5 when it is not there in time.
pub(super) async fn start(
    global: &Global,
    args: &UpArgs,
    home: &Home,
    lock: File,
) -> Result<Background, ApiError> {
    let path = home.log();
    if fs::metadata(&path).is_ok_and(|log| log.len() > LOG) {
        fs::rename(&path, path.with_extension("log.1")).map_err(failed)?;
    }
    let log = File::options().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    let logged = log.metadata().map_err(failed)?.len();
    let child = command(global, home, args)
        .map_err(failed)?
        .process_group(0)
        // Handed on rather than taken anew: nobody comes in between.
        .stdin(lock)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let process = child.id();
    let mut background = Background { child, logged };
    let is_ready = async {
        let within = patience(home);
        let until = Instant::now() + within;
        loop {
            let noted = home.read_running().ok().flatten();
            if noted.is_some_and(|noted| noted.pid == process && noted.ready) {
                return Ok(());
            }
            if Instant::now() > until {
                let mut cause = format!("process {process} is not ready after {within:?}");
                let log = written_since(home, logged);
                if let Some(line) = log.lines().rfind(|line| !line.is_empty()) {
                    cause.push_str(&format!("; its log ends with: {line}"));
                }
                let try_ = format!("`cat {}`, `mozart down`", path.display());
                let what = match cluster::is_member(home) {
                    true => "mozart is not up yet, and goes on waiting for the other hosts",
                    false => "mozart did not start",
                };
                return Err(failure::error(failure::TIMEOUT, what, cause, try_));
            }
            sleep(EVERY).await;
        }
    };
    background.during(home, is_ready).await?;
    for warning in warnings_in(&written_since(home, logged)) {
        output::note(format!("warning: {warning}"));
    }
    Ok(background)
}

/// The given options again: in the environment, where only this user can see the password in a URL.
fn command(global: &Global, home: &Home, args: &UpArgs) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["up", "--locked"]).env("MOZART_DIR", &home.dir);
    // What it says is in the others.
    command.env_remove("NATS_CONTEXT");
    if let Some(url) = global.url() {
        command.env("NATS_URL", url);
    }
    if let Some(creds) = global.creds() {
        command.env("NATS_CREDS", creds);
    }
    if let Some(ca) = &global.ca {
        command.env("NATS_CA", std::path::absolute(ca)?);
    }
    if let Some(namespace) = &global.namespace {
        command.env("MOZART_NAMESPACE", namespace.as_str());
    }
    command.args(args.runtime.options().words());
    command.args(args.keep.words());
    command.args(args.metrics.words());
    if let Some(name) = &args.name {
        command.args(["--name", name.as_str()]);
    }
    if let Some(shards) = args.journal_shards {
        command.arg("--journal-shards").arg(shards.to_string());
    }
    if let Some(api) = &args.api {
        command.arg("--api").arg(api.to_string());
    }
    if args.sync == Sync::Lazy {
        command.args(["--sync", "lazy"]);
    }
    command.args((0..global.verbose).map(|_| "-v"));
    Ok(command)
}

/// Why it ended: the last error in its log, as an error of this process.
fn why(home: &Home, before: u64, status: ExitStatus) -> ApiError {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let code = code.filter(|code| *code != 0).unwrap_or(failure::FAILED);
    let log = format!("`cat {}`", home.log().display());
    if status.success() {
        let what = "mozart was stopped while it was starting";
        return failure::error(code, what, "`mozart down` or a signal ended it", "`mozart up`");
    }
    match log::error_in(&written_since(home, before)) {
        Some((what, cause, try_)) => {
            failure::error(code, what, cause, if try_.is_empty() { &log } else { try_ })
        }
        None if has_no_space(home) => {
            let cause =
                format!("{status}, and no space is left for its log in {}", home.dir.display());
            failure::error(code, "mozart exited immediately", cause, "free some space there")
        }
        None => failure::error(code, "mozart exited immediately", status, log),
    }
}

fn has_no_space(home: &Home) -> bool {
    rustix::fs::statvfs(&home.dir).is_ok_and(|disk| disk.f_bavail == 0)
}

fn written_since(home: &Home, before: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(home.log()).and_then(|mut log| {
        log.seek(SeekFrom::Start(before))?;
        log.take(1 << 20).read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        // The exit status says something, too.
        Err(_) => String::new(),
    }
}

/// What a log warns of: `<time>  WARN <module>: <text>`.
fn warnings_in(log: &str) -> impl Iterator<Item = &str> {
    let warned = log.lines().filter_map(|line| line.split_once("  WARN "));
    warned.filter_map(|(_, text)| Some(text.split_once(": ")?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_nothing_takes_nothing_without_d_either() {
        let try_ = |kind: std::io::ErrorKind| failed(kind.into()).try_;
        assert!(try_(std::io::ErrorKind::ReadOnlyFilesystem).contains("--dir DIR"));
        assert!(try_(std::io::ErrorKind::StorageFull).contains("free some space"));
        assert!(try_(std::io::ErrorKind::WouldBlock).contains("without -d"));
    }

    #[test]
    fn warnings_are_found_in_a_log() {
        let log = "2026-11-30T03:12:17Z  WARN mozart::up::others: it is gone: all\n\
                   2026-11-30T03:12:17Z  INFO control: x  WARNING y\nerror: z\n";
        assert_eq!(warnings_in(log).collect::<Vec<_>>(), ["it is gone: all"]);
    }

    #[test]
    fn the_background_gets_what_was_given_and_no_folder_of_souls() {
        use clap::Parser as _;
        let given = [
            "mozart",
            "--dir",
            "/x",
            "up",
            "/x",
            "-vdo",
            "json",
            "--nats",
            "nats://a:b@c",
            "--timeout",
            "9s",
            "--wait",
            "--journal-shards",
            "3",
            "--name",
            "n",
            "--runtime",
            "docker",
            "--base-image",
            "python:3",
            "--network",
            "n",
            "--dev",
            "--hot",
            "1h",
            "--hot-messages",
            "9",
            "--metrics",
            "127.0.0.1",
        ];
        let crate::args::Cli { global, command: given } = crate::args::Cli::parse_from(given);
        let crate::args::Command::Up(args) = given else { panic!("it is `up`") };
        let home = Home::locate(Some(std::path::Path::new("/x"))).expect("given");
        let command = command(&global, &home, &args).expect("this program has a path");
        let words: Vec<_> = command.get_args().collect();
        let containers = "--runtime docker --base-image python:3 --network n --dev".split(' ');
        let expected = ["up", "--locked"].into_iter().chain(containers);
        let keep = ["--hot", "1h", "--hot-messages", "9", "--metrics", "127.0.0.1:4142"];
        let expected = expected.chain(keep);
        let expected: Vec<_> =
            expected.chain(["--name", "n", "--journal-shards", "3", "-v"]).collect();
        assert_eq!(words, expected);
        let env: Vec<_> =
            command.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
        assert!(env.contains(&("MOZART_DIR".as_ref(), "/x".as_ref())), "{env:?}");
        assert!(env.contains(&("NATS_URL".as_ref(), "nats://a:b@c".as_ref())), "{env:?}");
    }
}
