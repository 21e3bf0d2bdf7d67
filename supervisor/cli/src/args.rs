//! The options that every command takes, those of whatever runs agents, and how times are written.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use common::api::ApiError;
use common::{Capacity, Namespace, Timestamp, failure};
use runtime::engine::BASE_IMAGE;
use runtime::{RuntimeOptions, Wanted};

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The NATS server [default: the one that `mozart up` started on this machine]
    #[arg(long, global = true, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    pub nats: Option<String>,
    /// A context of the `nats` command line, instead of --nats: names the server and the login
    #[arg(long, global = true, env = "NATS_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// A NATS credentials file
    #[arg(long, global = true, env = "NATS_CREDS", value_name = "FILE", value_parser = path())]
    pub creds: Option<PathBuf>,
    /// The CA certificates of the NATS server, in PEM; the connection uses TLS
    #[arg(long, global = true, env = "NATS_CA", value_name = "FILE", value_parser = path())]
    pub ca: Option<PathBuf>,
    /// The namespace of the fleet [default: default]
    #[arg(long, global = true, env = "MOZART_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<Namespace>,
    /// The data folder of `mozart up` [default: ~/.mozart]
    #[arg(long = "dir", global = true, env = "MOZART_DIR", value_name = "DIR", value_parser = path())]
    pub home: Option<PathBuf>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
    /// Log more to stderr; repeat for more detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// The NATS server, if one is given. An empty variable counts as not set.
    pub fn url(&self) -> Option<&str> {
        self.nats.as_deref().filter(|url| !url.is_empty())
    }

    /// The text of the CA certificates, if a file is given.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn ca(&self) -> Result<Option<String>, ApiError> {
        let given = self.ca.as_ref().filter(|path| !path.as_os_str().is_empty());
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| {
                let what = format!("cannot read the CA certificates in {}", path.display());
                failure::error(failure::USAGE, what, error, "--ca FILE with certificates in PEM")
            })
        };
        given.map(read).transpose()
    }

    /// The credentials file as an absolute path, since shims run in other folders.
    pub fn creds(&self) -> Option<PathBuf> {
        let given = self.creds.as_ref().filter(|path| !path.as_os_str().is_empty())?;
        Some(std::path::absolute(given).unwrap_or_else(|_| given.clone()))
    }

    /// The credentials file, once it is certain that it can be read.
    ///
    /// # Errors
    /// When it cannot (exit 2). No error quotes the file: it holds a secret.
    pub fn readable_creds(&self) -> Result<Option<PathBuf>, ApiError> {
        let Some(file) = self.creds() else { return Ok(None) };
        let read = std::fs::read(&file).map_err(|error| error.to_string()).and_then(|bytes| {
            let is_one = ["BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"]
                .iter()
                .all(|mark| bytes.windows(mark.len()).any(|there| there == mark.as_bytes()));
            if is_one { Ok(()) } else { Err("it is not a NATS credentials file".to_owned()) }
        });
        match read {
            Ok(()) => Ok(Some(file)),
            Err(cause) => {
                let what = format!("cannot read the credentials file {}", file.display());
                let try_ = "--creds FILE with a file that `mozart user add` wrote";
                Err(failure::error(failure::USAGE, what, cause, try_))
            }
        }
    }
}

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// Human-readable tables and text.
    #[default]
    Table,
    /// One JSON document, or one JSON line per item when following.
    Json,
}

/// What agents run in.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Runtime options")]
pub struct RuntimeArgs {
    /// Run agents as processes, in containers, or both
    #[arg(long, value_enum, default_value_t, env = "MOZART_RUNTIME", value_name = "RUNTIME")]
    runtime: Runtime,
    /// The network of the containers [default: docker's bridge; with podman, the host's network]
    #[arg(long, env = "MOZART_NETWORK", value_name = "NAME")]
    network: Option<String>,
    /// The image of agents without IMAGE, when all agents run in containers
    #[arg(long, env = "MOZART_BASE_IMAGE", value_name = "REF", value_parser = or_base)]
    #[arg(default_value = BASE_IMAGE)]
    base_image: String,
    /// For development: mount the soul's folder into the container, as the worker's working directory
    #[arg(long)]
    dev: bool,
    /// Read values of SECRETs from this file of NAME=VALUE lines first; it is read at each start of an agent
    #[arg(long, env = "MOZART_ENV_FILE", value_name = "FILE", value_parser = path())]
    env_file: Option<PathBuf>,
    /// What the node can take: agents=N,memory=SIZE,cpus=N [default: the memory and CPUs of this machine, any number of agents]
    #[arg(long, env = "MOZART_CAPACITY", value_name = "CAPACITY", value_parser = or_found)]
    capacity: Option<Capacity>,
}

impl RuntimeArgs {
    /// The options as a node takes them. An empty variable counts as not set.
    #[must_use]
    pub fn options(&self) -> RuntimeOptions {
        RuntimeOptions {
            runtime: self.runtime.wanted(),
            network: self.network.clone().filter(|name| !name.is_empty()),
            base_image: self.base_image.clone(),
            dev: self.dev,
            env_file: self
                .env_file
                .as_ref()
                .filter(|file| !file.as_os_str().is_empty())
                .map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone())),
            capacity: self.capacity.unwrap_or_default(),
        }
    }
}

/// What agents run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Runtime {
    /// Souls with IMAGE in containers of the first engine that answers, others as processes.
    #[default]
    Auto,
    /// Only processes on this machine.
    Process,
    /// All agents in docker containers.
    Docker,
    /// All agents in podman containers.
    Podman,
}

impl Runtime {
    /// What is to be used.
    #[must_use]
    pub fn wanted(self) -> Wanted {
        match self {
            Self::Auto => Wanted::Auto,
            Self::Process => Wanted::Process,
            Self::Docker => Wanted::Docker,
            Self::Podman => Wanted::Podman,
        }
    }
}

/// Parses `60s`, `1m 30s`, `500ms`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}: expected a time such as 30s, 5m or 1h 30m"))
}

/// A moment: a date, a date with a time, or how long ago it was.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    let at = |time: SystemTime| Ok(Timestamp::from(time));
    let full =
        if text.len() == "2026-11-01".len() { format!("{text}T00:00:00Z") } else { text.into() };
    if let Ok(time) = humantime::parse_rfc3339_weak(&full) {
        return at(time);
    }
    let ago = humantime::parse_duration(text).ok();
    let then = ago.and_then(|ago| SystemTime::now().checked_sub(ago));
    match then.filter(|then| *then >= SystemTime::UNIX_EPOCH) {
        Some(then) => at(then),
        None => {
            Err("expected 2026-11-01, 2026-11-01T12:00:00Z, or how long ago: 30d, 12h".to_owned())
        }
    }
}

/// A path, also an empty one: a variable that is set to nothing is like one that is not set.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A variable that is set to nothing bounds nothing.
fn or_found(text: &str) -> Result<Capacity, String> {
    if text.is_empty() { Ok(Capacity::default()) } else { text.parse() }
}

/// A variable that is set to nothing names no image.
#[expect(clippy::unnecessary_wraps, reason = "the form of a parser")]
fn or_base(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(if text.is_empty() { BASE_IMAGE } else { text }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_is_one_that_can_be_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("x.creds");
        let global = Global {
            nats: None,
            context: None,
            creds: Some(file.clone()),
            ca: None,
            namespace: None,
            home: None,
            output: Output::Table,
            verbose: 0,
        };
        let missing = global.readable_creds().expect_err("missing");
        assert!(missing.code == 2 && missing.what.ends_with("x.creds"), "{missing:?}");
        std::fs::write(&file, "secret").expect("written");
        let malformed = global.readable_creds().expect_err("malformed");
        assert_eq!((malformed.code, malformed.cause.contains("secret")), (2, false));
        let text = "-----BEGIN NATS USER JWT-----\n-----BEGIN USER NKEY SEED-----\n";
        std::fs::write(&file, text).expect("written");
        assert_eq!(global.readable_creds(), Ok(Some(file)));
    }

    #[test]
    fn durations_have_units_or_are_seconds() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "x", "-1", "5 parsecs"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn moments_are_dates_or_so_long_ago() {
        let day = moment("2026-11-01").expect("a day");
        assert_eq!(day.to_string(), "2026-11-01T00:00:00.000Z");
        assert_eq!(moment("2026-11-01T00:00:00Z"), Ok(day));
        assert_eq!(moment("2026-11-01 00:00:00"), Ok(day));
        let hours = Duration::from_secs(7_200);
        let before = Timestamp::from(SystemTime::now() - hours);
        let ago = moment("2h").expect("a time ago");
        let after = Timestamp::from(SystemTime::now() - hours);
        // The machine's clock may be set back by some milliseconds meanwhile.
        let slack = Duration::from_secs(60);
        assert!(ago.since(after) < slack && before.since(ago) < slack, "{before} {ago} {after}");
        for bad in ["", "yesterday", "-1h", "2026-13-01", "99999999y"] {
            assert!(moment(bad).is_err(), "{bad:?}");
        }
    }
}
