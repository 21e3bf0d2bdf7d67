//! The command line's grammar: global options, the roles, and where the client commands hang.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use common::{Namespace, NodeName};
use serde::{Deserialize, Serialize};

use crate::cli;
use crate::runtime::Wanted;
use crate::runtime::engine::BASE_IMAGE;

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage or invalid soul, 3 not found, 4 conflict, 5 timeout,
6 cannot reach NATS, supervisor or engine, 7 denied, 9 refused by a limit, 130 interrupted.";

/// Runs fleets of long-lived AI agents, and loses no message.
#[derive(Debug, Parser)]
#[command(name = "mozart", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The NATS server; without it, the one that `mozart up` started here
    #[arg(long, global = true, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) nats: Option<String>,
    /// A NATS credentials file
    #[arg(long, global = true, env = "NATS_CREDS", value_name = "FILE", value_parser = path())]
    pub(crate) creds: Option<PathBuf>,
    /// The fleet [default: default]
    #[arg(long, global = true, env = "MOZART_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<Namespace>,
    /// Where `mozart up` keeps its data [default: ~/.mozart]
    #[arg(long = "dir", global = true, env = "MOZART_DIR", value_name = "DIR", value_parser = path())]
    pub(crate) home: Option<PathBuf>,
    /// How results are written to stdout
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Output,
    /// Log more to stderr; repeat for more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// The NATS server that is named; a variable that is set to nothing names none.
    pub(crate) fn url(&self) -> Option<&str> {
        self.nats.as_deref().filter(|url| !url.is_empty())
    }

    /// The credentials file; absolute, since shims run in other folders.
    pub(crate) fn creds(&self) -> Option<PathBuf> {
        let given = self.creds.as_ref().filter(|path| !path.as_os_str().is_empty())?;
        Some(std::path::absolute(given).unwrap_or_else(|_| given.clone()))
    }
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// One document, or one line per item when following.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything on this machine, and apply the souls of a folder
    Up(UpArgs),
    /// Drain and stop everything that `up` started; the data stays
    Down(DownArgs),
    /// Run a supervisor
    Supervisor(SupervisorArgs),
    /// Run a node: starts and stops agents on this machine
    Node(NodeArgs),
    /// Measure this machine
    #[command(hide = true)]
    Bench(cli::bench::BenchArgs),
    #[command(flatten)]
    Client(cli::Command),
}

impl Command {
    /// Whether it is a role of its own rather than a client of one.
    pub(crate) fn is_role(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Supervisor(_) | Self::Node(_))
    }
}

/// `mozart up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The folder with the souls
    pub(crate) dir: Option<PathBuf>,
    /// Stay in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Return only when every agent is running (with --detach)
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Journal streams of a new namespace [default: 4 where every write is synced, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) journal_shards: Option<u32>,
    /// When the server syncs to disk
    #[arg(long, value_enum, default_value_t, hide = true)]
    pub(crate) sync: Sync,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    /// The lock of the data folder is this process's stdin: `--detach` starts the process that stays so
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub(crate) locked: bool,
}

/// When the nats-server that `up` starts syncs its writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Sync {
    /// Before it says that a record is stored.
    #[default]
    Always,
    /// Now and then: for measurements only.
    Lazy,
}

/// `mozart down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// How long running turns may take to finish
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

/// `mozart supervisor`.
#[derive(Debug, Args)]
pub(crate) struct SupervisorArgs {
    /// This replica's id [default: made from host name and process id]
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Journal streams of a new namespace
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) journal_shards: Option<u32>,
}

/// `mozart node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node's name
    #[arg(long)]
    pub(crate) name: NodeName,
    /// A label that souls can REQUIRE; repeat for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
}

/// What agents run in.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "What agents run in")]
#[serde(rename_all = "camelCase", default = "RuntimeArgs::for_ending")]
pub(crate) struct RuntimeArgs {
    /// Processes of this machine, containers of an engine, or both, whichever is there
    #[arg(long, value_enum, default_value_t, env = "MOZART_RUNTIME", value_name = "RUNTIME")]
    runtime: Runtime,
    /// The network of the containers [default: docker's bridge; with podman, the host's]
    #[arg(long, env = "MOZART_NETWORK", value_name = "NAME")]
    network: Option<String>,
    /// What agents without IMAGE run in, where all run in containers
    #[arg(long, env = "MOZART_BASE_IMAGE", value_name = "REF", value_parser = or_base)]
    #[arg(default_value = BASE_IMAGE)]
    base_image: String,
    /// For work on a worker: its soul's folder is mounted into its container, as its working directory
    #[arg(long)]
    pub(crate) dev: bool,
}

impl RuntimeArgs {
    /// What is to be used.
    pub(crate) fn wanted(&self) -> Wanted {
        match self.runtime {
            Runtime::Auto => Wanted::Auto,
            Runtime::Process => Wanted::Process,
            Runtime::Docker => Wanted::Docker,
            Runtime::Podman => Wanted::Podman,
        }
    }

    /// The network that is named; a variable that is set to nothing names none.
    pub(crate) fn network(&self) -> Option<&str> {
        self.network.as_deref().filter(|name| !name.is_empty())
    }

    /// What agents without IMAGE run in, where all run in containers.
    pub(crate) fn base_image(&self) -> &str {
        &self.base_image
    }

    /// The same, as words of a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let runtime = match self.runtime {
            Runtime::Auto => "auto",
            Runtime::Process => "process",
            Runtime::Docker => "docker",
            Runtime::Podman => "podman",
        };
        let mut words = vec!["--runtime".to_owned(), runtime.to_owned()];
        words.extend(["--base-image".to_owned(), self.base_image.clone()]);
        if let Some(network) = self.network() {
            words.extend(["--network".to_owned(), network.to_owned()]);
        }
        if self.dev {
            words.push("--dev".to_owned());
        }
        words
    }

    /// Where nothing is started any more, and nothing is known of what was.
    pub(crate) fn for_ending() -> Self {
        Self {
            runtime: Runtime::Auto,
            network: None,
            base_image: BASE_IMAGE.to_owned(),
            dev: false,
        }
    }
}

/// What agents run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Runtime {
    /// Souls with IMAGE in containers of the first engine that answers, the others as processes.
    #[default]
    Auto,
    /// Processes of this machine only.
    Process,
    /// All in containers, of docker.
    Docker,
    /// All in containers, of podman.
    Podman,
}

/// Parses `60s`, `1m 30s`, `500ms`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}: expected a time such as 30s, 5m or 1h 30m"))
}

/// A path, also an empty one: a variable that is set to nothing is like one that is not set.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A variable that is set to nothing names no image.
#[expect(clippy::unnecessary_wraps, reason = "the form of a parser")]
fn or_base(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(if text.is_empty() { BASE_IMAGE } else { text }.to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
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
    fn what_agents_run_in_is_noted_and_read_back() {
        let words = ["mozart", "up", "--runtime", "podman", "--network", "n", "--dev"];
        let Command::Up(up) = Cli::parse_from(words).command else { panic!("it is `up`") };
        let text = serde_json::to_string(&up.runtime).expect("plain");
        assert_eq!(
            serde_json::from_str::<RuntimeArgs>(&text).expect("what was written"),
            up.runtime
        );
        let less: RuntimeArgs = serde_json::from_str(r#"{"runtime":"podman"}"#).expect("less");
        assert_eq!((less.wanted(), less.base_image.as_str()), (Wanted::Podman, BASE_IMAGE));
    }

    #[test]
    fn labels_need_a_key() {
        assert_eq!(label("gpu=yes"), Ok(("gpu".to_owned(), "yes".to_owned())));
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(label("gpu").is_err());
        assert!(label("=yes").is_err());
    }
}
