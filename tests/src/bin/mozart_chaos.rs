//! `mozart-chaos`: kills and stops everything at random moments, then reads the verdict from the journal.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use system_tests::chaos::{self, HOSTS, Options, Problem};
use system_tests::harness::{Engine, Net, Runtime};

/// Puts a fleet under load, kills and stops its parts at random moments, and checks that no message was lost or doubled.
#[derive(Debug, Parser)]
struct Args {
    /// What agents run in: `docker` is hit, too
    #[arg(long, value_enum, default_value_t)]
    runtime: Kind,
    /// On how many nats-servers: with three, supervisors and nodes are processes of their own, two of each
    #[arg(long, default_value_t = 1, value_parser = servers)]
    servers: usize,
    /// How long blows fall
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The same seed is the same schedule [default: a fresh one, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// How many agents
    #[arg(long, default_value_t = 20)]
    agents: usize,
    /// Messages a second, all agents together
    #[arg(long, default_value_t = 60.0)]
    rate: f64,
    /// Freeze `mozart up`, nats-server and shims for this many seconds, too; may be said several times
    #[arg(long, value_name = "SECONDS")]
    freeze: Vec<u64>,
    /// Archive finished messages after so many seconds
    #[arg(long, value_name = "SECONDS")]
    hot: Option<u64>,
    /// Inject requests that nobody can read
    #[arg(long)]
    garbage: bool,
    /// Start copies of the data folder beside the original
    #[arg(long)]
    copies: bool,
    /// Give every process but the servers a wall clock that is an hour off; the binaries must be dynamic: `cargo build`
    #[arg(long)]
    skew: bool,
    /// Put each of three servers, with the roles, on a host of its own, whose links and power are cut, too (root only)
    #[arg(long)]
    hosts: bool,
    /// The hosts, by the name of their namespaces: `--hosts` starts this program there
    #[arg(long, hide = true)]
    inside: Option<String>,
    /// Where the data goes [default: a new folder, removed unless something is wrong]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Tell the histories of odd messages, too
    #[arg(long)]
    curious: bool,
}

fn servers(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3 is expected".to_owned()),
    }
}

/// What agents run in.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Kind {
    /// Processes.
    #[default]
    Process,
    /// Containers.
    Docker,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if args.hosts && args.inside.is_none() {
        return outside();
    }
    match run(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            // Where nobody reads, nobody is told.
            let _unread = writeln!(std::io::stderr(), "error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the hosts, and runs this program once more, on the last one.
fn outside() -> ExitCode {
    let net = Net::new(HOSTS);
    let this = std::env::current_exe().unwrap_or_default();
    let mut inside = std::process::Command::new("ip");
    inside.args(["netns", "exec", &net.host(HOSTS - 1)]).arg(this);
    inside.args(std::env::args_os().skip(1)).args(["--inside", net.name()]);
    match inside.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _unread = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<bool, Problem> {
    let fresh = tempfile::Builder::new().prefix("mozart-chaos-").tempdir();
    // Half of a version 7 id is random.
    let seed = args.seed.unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1 % 1_000_000);
    let runtime = match args.runtime {
        Kind::Process => Runtime::Process,
        Kind::Docker => Runtime::Docker(Engine::ready().await?),
    };
    if args.skew && matches!(runtime, Runtime::Docker(_)) {
        return Err("with other clocks, agents are processes".into());
    }
    if args.servers > 1 && matches!(runtime, Runtime::Docker(_)) {
        return Err("on three servers, agents are processes".into());
    }
    if args.copies && (args.servers > 1 || matches!(runtime, Runtime::Docker(_))) {
        return Err(
            "copies are of a data folder of `mozart up`, with agents that are processes".into()
        );
    }
    let options = Options {
        runtime,
        cluster: args.servers > 1 || args.hosts,
        hosts: args.inside,
        length: Duration::from_secs(args.seconds),
        seed,
        agents: args.agents,
        rate: args.rate,
        freezes: args.freeze.into_iter().map(Duration::from_secs).collect(),
        hot: args.hot.map(Duration::from_secs),
        garbage: args.garbage,
        copies: args.copies,
        clocks: args.skew,
        curious: args.curious,
        folder: match (&args.folder, &fresh) {
            (Some(folder), _) => folder.clone(),
            (None, Ok(fresh)) => fresh.path().to_owned(),
            (None, Err(error)) => return Err(format!("no temporary folder: {error}").into()),
        },
    };
    let mut out = std::io::stdout();
    let ended = chaos::run(&options, &mut out).await;
    if !matches!(ended, Ok(true)) {
        // The folder that was given, or the one that now is not removed.
        let _kept = fresh.map(tempfile::TempDir::keep);
        writeln!(out, "everything is kept in {}", options.folder.display())?;
    }
    ended
}
