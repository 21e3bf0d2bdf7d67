//! The command line: the roles, and the client commands.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use api::ApiOptions;
use broker::{ArchiveOptions, AuthKey};
use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cli::args::{Global, RuntimeArgs, duration};
use cli::nodes::NodeCommand;
use common::api::ApiError;
use common::{NodeName, failure};
use control::Retention;

use crate::numbers::MetricsArgs;
use crate::up::{ApiAt, PORT};

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage or invalid soul, 3 not found, 4 conflict, 5 timeout,
6 cannot reach NATS, supervisor or engine, 7 denied, 8 the verdict of `chaos` is bad,
9 refused by a limit, 130 interrupted, 141 the reader of the output is gone.";

/// Runs fleets of long-lived AI agents, and loses no message.
#[derive(Debug, Parser)]
#[command(name = "mozart", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything on this machine, and apply the souls in a folder
    Up(UpArgs),
    /// Drain and stop everything that `up` started; keeps the data
    Down(DownArgs),
    /// Start this host as a member of a cluster: `up --join`
    Join(JoinArgs),
    /// Print a string with which one more host can join this host's cluster
    JoinToken,
    /// Remove all messages, or the whole fleet, while nothing is running
    Reset(cli::reset::ResetArgs),
    /// Restore a fleet from a backup, where there is none and nothing is running
    ///
    /// Agents start with the next `mozart up`. Whatever still runs of the fleet after the backup was taken has no effect any more; messages that
    /// were answered after it may be answered again, and are listed.
    Restore(cli::backup::restore::RestoreArgs),
    /// Run a supervisor
    Supervisor(SupervisorArgs),
    /// Serve the API over HTTP, to those who have a token; any number of them may run
    Api(ApiArgs),
    /// Run a node, which starts and stops agents on this machine; list nodes
    Node(NodeArgs),
    /// Make a key with which supervisors answer for the logins of agents, for a NATS server of your own
    AuthKey,
    /// Try the faults: kill, freeze and cut off a throwaway fleet on this broker, and judge its journal
    ///
    /// Starts supervisors, nodes and agents of its own in a new namespace, sends messages to them, and hits them at random moments. Touches
    /// nothing else: not the NATS server, and no process that it has not started. Removes everything at the end.
    Chaos(crate::chaos::ChaosArgs),
    /// What the agents of `chaos` run
    #[command(hide = true)]
    ChaosWorker(crate::chaos::FolderArgs),
    /// Ends what a run of `chaos` leaves that is killed
    #[command(hide = true)]
    ChaosKeeper(crate::chaos::FolderArgs),
    /// Measure this machine
    #[command(hide = true)]
    Bench(cli::bench::BenchArgs),
    #[command(flatten)]
    Client(cli::Command),
}

impl Command {
    /// Whether it may need a server.
    pub(crate) fn connects(&self) -> bool {
        !matches!(
            self,
            Self::AuthKey
                | Self::Bench(_)
                | Self::Client(
                    cli::Command::Init(_)
                        | cli::Command::Validate(_)
                        | cli::Command::Completions(_)
                )
        )
    }

    /// Whether it is a role rather than a client command.
    pub(crate) fn is_role(&self) -> bool {
        matches!(
            self,
            Self::Up(_)
                | Self::Join(_)
                | Self::Supervisor(_)
                | Self::Api(_)
                | Self::Node(NodeArgs { command: None, .. })
        )
    }
}

/// `mozart up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The folder with the souls
    pub(crate) dir: Option<PathBuf>,
    /// Run in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Return only when the agents of DIR, or all agents without DIR, are running (with --detach)
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// The node's name, kept in the data folder [default: the host name at the first `up`]
    #[arg(long)]
    pub(crate) name: Option<NodeName>,
    /// Number of journal streams of a new namespace [default: 4 if every write is synced, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) journal_shards: Option<u32>,
    /// When the server syncs to disk
    #[arg(long, value_enum, default_value_t, hide = true)]
    pub(crate) sync: Sync,
    /// Where the API listens, or `off` [default: 127.0.0.1:4141, if it is free]
    #[arg(long, env = "MOZART_API", value_name = "ADDRESS:PORT|off")]
    pub(crate) api: Option<ApiAt>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) auth: AuthArgs,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
    /// The lock of the data folder is this process's stdin: `--detach` starts the background process with it
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub(crate) locked: bool,
}

/// The cluster that this host is a member of. Kept in the data folder: needed once.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster options")]
pub(crate) struct ClusterArgs {
    /// Start a cluster of this name, which other hosts can join
    #[arg(long, value_name = "NAME", value_parser = cluster_name, conflicts_with = "join")]
    pub(crate) cluster: Option<String>,
    /// The address at which the other hosts reach this one; the port is for clients, and the one 2000 above it for the servers [default port:
    /// 4222; default address with --join: the one from which this host reaches the others]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// Join a cluster, with the string that one of its members has printed; @FILE reads it from a file, - from stdin
    #[arg(long, value_name = "STRING", env = "MOZART_JOIN", hide_env_values = true)]
    pub(crate) join: Option<String>,
}

fn cluster_name(text: &str) -> Result<String, String> {
    // The same words as for agents and nodes.
    NodeName::new(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// `10.0.0.1`, `10.0.0.1:4222`, `[fd00::1]:4222`.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let address = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
        (Ok(address), _) => address,
        (Err(_), Ok(ip)) => SocketAddr::new(ip, PORT),
        (Err(_), Err(_)) => return Err("expected an IP address, with or without a port".to_owned()),
    };
    if address.ip().is_unspecified() {
        return Err("expected the one address at which other hosts reach this one".to_owned());
    }
    match address.port() {
        1..=63_535 => Ok(address),
        _ => {
            Err("expected a port from 1 to 63535: the servers use the one 2000 above it".to_owned())
        }
    }
}

/// `mozart join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The string that a member has printed; @FILE reads it from a file, - from stdin
    #[arg(value_name = "STRING")]
    pub(crate) string: String,
    #[command(flatten)]
    pub(crate) up: UpArgs,
}

/// How long files are kept that no generation needs, if not said otherwise.
const KEEP_FILES: Duration = Duration::from_secs(24 * 3600);

/// How long things are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retention options")]
pub(crate) struct KeepArgs {
    /// How long a finished message stays in the journal before it moves to the history
    #[arg(long, env = "MOZART_HOT", default_value = "24h", value_parser = duration, value_name = "TIME")]
    pub(crate) hot: Duration,
    /// How many finished messages stay in the journal at most
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub(crate) hot_messages: u64,
    /// How much history to keep: a time (30d), a size (10GiB), or both [default: all of it]
    #[arg(long, value_name = "TIME|SIZE", value_parser = kept)]
    pub(crate) keep_history: Vec<Kept>,
    /// How long the files of agents are kept that no generation needs any more
    #[arg(long, default_value = "24h", value_parser = duration, value_name = "TIME")]
    pub(crate) keep_files: Duration,
}

impl KeepArgs {
    pub(crate) fn retention(&self) -> Retention {
        let archive =
            ArchiveOptions { hot: self.hot, most: self.hot_messages, ..ArchiveOptions::default() };
        let files = Some(self.keep_files);
        let mut retention = Retention { archive, files, ..Retention::default() };
        for kept in &self.keep_history {
            match kept {
                Kept::For(time) => retention.history = Some(*time),
                Kept::Bytes(bytes) => retention.bytes = Some(*bytes),
            }
        }
        retention
    }

    /// Whether nothing else was asked for.
    pub(crate) fn is_default(&self) -> bool {
        let default = ArchiveOptions::default();
        // What the environment says, it said to the one that runs, too.
        let hot = self.hot == default.hot || std::env::var_os("MOZART_HOT").is_some();
        hot && self.hot_messages == default.most
            && self.keep_history.is_empty()
            && self.keep_files == KEEP_FILES
    }

    /// As words of a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec!["--hot".to_owned(), humantime::format_duration(self.hot).to_string()];
        words.extend(["--hot-messages".to_owned(), self.hot_messages.to_string()]);
        if self.keep_files != KEEP_FILES {
            let time = humantime::format_duration(self.keep_files).to_string();
            words.extend(["--keep-files".to_owned(), time]);
        }
        for kept in &self.keep_history {
            words.push("--keep-history".to_owned());
            words.push(match kept {
                Kept::For(time) => humantime::format_duration(*time).to_string(),
                Kept::Bytes(bytes) => format!("{bytes}B"),
            });
        }
        words
    }
}

/// A bound of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    For(Duration),
    Bytes(u64),
}

/// A time such as `30d`, or a size such as `10GiB`.
fn kept(text: &str) -> Result<Kept, String> {
    const UNITS: [(&str, u64); 4] =
        [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    for (unit, bytes) in UNITS {
        let count = text.strip_suffix(unit).and_then(|count| count.parse::<u64>().ok());
        if let Some(bytes) = count.and_then(|count| count.checked_mul(bytes)) {
            return Ok(Kept::Bytes(bytes));
        }
    }
    let time = humantime::parse_duration(text).map(Kept::For);
    time.map_err(|_| "expected a time such as 30d, or a size such as 10GiB".to_owned())
}

/// When the nats-server that `up` starts syncs its writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Sync {
    /// Before it confirms that a record is stored.
    #[default]
    Always,
    /// Periodically: for measurements only.
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
    /// This replica's id [default: from the host name and process id]
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Number of journal streams of a new namespace
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) journal_shards: Option<u32>,
    /// The data folder of the NATS server, if it is on this machine; new messages are refused before its disk is full
    #[arg(long, env = "MOZART_STORE", value_name = "DIR", value_parser = cli::args::path())]
    pub(crate) store: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) auth: AuthArgs,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
}

/// The key of supervisors.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AuthArgs {
    /// A file with the seed of the key that nats-server's auth_callout names [default: the seed in MOZART_AUTH_SEED]
    #[arg(long, env = "MOZART_AUTH_SEED_FILE", value_name = "FILE", value_parser = cli::args::path())]
    pub(crate) auth_seed_file: Option<PathBuf>,
}

impl AuthArgs {
    /// The key; none if none is given.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no seed.
    pub(crate) fn key(&self) -> Result<Option<AuthKey>, ApiError> {
        const TRY: &str = "`mozart auth-key` makes one";
        let file = self.auth_seed_file.as_ref().filter(|file| !file.as_os_str().is_empty());
        let (from, seed) = match file {
            Some(file) => {
                let from = file.display().to_string();
                let seed = std::fs::read_to_string(file)
                    .map_err(|error| failure::file(format!("cannot read {from}"), &error, TRY))?;
                (from, seed)
            }
            None => match std::env::var("MOZART_AUTH_SEED") {
                Ok(seed) if !seed.is_empty() => ("MOZART_AUTH_SEED".to_owned(), seed),
                Ok(_) | Err(_) => return Ok(None),
            },
        };
        AuthKey::from_seed(&seed).map(Some).map_err(|error| {
            failure::error(failure::USAGE, format!("{from} is not the seed of a key"), error, TRY)
        })
    }
}

/// Where the API listens unless something else is said.
pub(crate) fn own_api() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), api::PORT)
}

/// `mozart api`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiArgs {
    /// The address to listen on
    #[arg(long, env = "MOZART_API_LISTEN", default_value_t = own_api(), value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// A file with its certificates, in PEM format
    #[arg(long, env = "MOZART_API_TLS_CERT", value_name = "FILE", requires = "tls_key", value_parser = cli::args::path())]
    tls_cert: Option<PathBuf>,
    /// A file with the key of the certificate, in PEM format
    #[arg(long, env = "MOZART_API_TLS_KEY", value_name = "FILE", requires = "tls_cert", value_parser = cli::args::path())]
    tls_key: Option<PathBuf>,
    /// Only a proxy that encrypts, or this host, reaches the address: listen there without TLS
    #[arg(long, env = "MOZART_API_BEHIND_PROXY", value_parser = BoolishValueParser::new())]
    behind_proxy: bool,
    /// A name under which it is reached, besides addresses and `localhost`; repeat for more
    #[arg(long = "host", env = "MOZART_API_HOSTS", value_name = "NAME", value_delimiter = ',')]
    hosts: Vec<String>,
    /// An origin whose pages may use it, such as `https://app.example.com`; repeat for more
    #[arg(
        long = "origin",
        env = "MOZART_API_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    origins: Vec<String>,
    /// Requests a second that a token may make of this process; twice as many at once
    #[arg(long, env = "MOZART_API_RATE", default_value_t = api::RATE, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Streams that a token may have open at this process
    #[arg(long, env = "MOZART_API_STREAMS", default_value_t = api::STREAMS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    streams: u32,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
}

impl ApiArgs {
    pub(crate) fn options(&self) -> ApiOptions {
        let Self { listen, tls_cert, tls_key, behind_proxy, hosts, origins, rate, streams, .. } =
            self.clone();
        let tls = tls_cert.zip(tls_key);
        ApiOptions { listen, tls, behind_proxy, hosts, origins, rate, streams, metrics: None }
    }
}

/// `mozart node`.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: Option<NodeCommand>,
    /// The node's name
    #[arg(long, required = true)]
    pub(crate) name: Option<NodeName>,
    /// A label that souls can REQUIRE; repeat for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// The agents log in with rights of their own, for which supervisors with a key answer
    #[arg(long, env = "MOZART_AGENT_LOGINS", value_parser = BoolishValueParser::new())]
    pub(crate) agent_logins: bool,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
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
    use runtime::RuntimeOptions;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_that_it_takes() {
        fn leaves(command: &clap::Command, above: &str, all: &mut Vec<String>) {
            let shown = |inner: &&clap::Command| !inner.is_hide_set() && inner.get_name() != "help";
            for inner in command.get_subcommands().filter(shown) {
                let words = format!("{above}{} ", inner.get_name());
                if inner.has_subcommands() {
                    leaves(inner, &words, all);
                } else if inner.get_after_help().is_none() {
                    all.push(words);
                }
            }
        }
        let mut without = Vec::new();
        leaves(&cli::examples::with(Cli::command()), "", &mut without);
        assert!(without.is_empty(), "{without:?}");
        let refused = cli::examples::words().into_iter().filter_map(|words| {
            let line = std::iter::once("mozart".to_owned()).chain(words.iter().cloned());
            Cli::try_parse_from(line).err().map(|error| format!("{words:?}: {error}"))
        });
        assert_eq!(refused.collect::<Vec<_>>(), Vec::<String>::new());
    }

    #[test]
    fn what_agents_run_in_is_noted_and_read_back() {
        let words = ["mozart", "up", "--runtime", "podman", "--network", "n", "--dev"];
        let Command::Up(up) = Cli::parse_from(words).command else { panic!("it is `up`") };
        let options = up.runtime.options();
        let text = serde_json::to_string(&options).expect("plain");
        assert_eq!(
            serde_json::from_str::<RuntimeOptions>(&text).expect("what was written"),
            options
        );
    }

    #[test]
    fn the_history_is_bounded_by_time_and_by_size() {
        assert_eq!(kept("30d"), Ok(Kept::For(Duration::from_secs(30 * 24 * 3600))));
        assert_eq!(kept("10GiB"), Ok(Kept::Bytes(10 << 30)));
        assert_eq!(kept("7B"), Ok(Kept::Bytes(7)));
        for bad in ["", "30", "GiB", "-1GiB", "99999999999999GiB", "x"] {
            assert!(kept(bad).is_err(), "{bad}");
        }
        let words = ["mozart", "supervisor", "--keep-history", "30d", "--keep-history", "1MiB"];
        let Command::Supervisor(args) = Cli::parse_from(words).command else { panic!("it is one") };
        let retention = args.keep.retention();
        assert_eq!(
            (retention.history.map(|time| time.as_secs()), retention.bytes),
            (Some(2_592_000), Some(1 << 20))
        );
        let again =
            ["mozart", "supervisor"].map(str::to_owned).into_iter().chain(args.keep.words());
        let Command::Supervisor(again) = Cli::parse_from(again).command else {
            panic!("it is one")
        };
        assert_eq!(again.keep.retention(), retention);
    }

    #[test]
    fn labels_need_a_key() {
        assert_eq!(label("gpu=yes"), Ok(("gpu".to_owned(), "yes".to_owned())));
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(label("gpu").is_err());
        assert!(label("=yes").is_err());
    }
}
