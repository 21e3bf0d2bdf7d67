//! The binary `mozart`: the roles (supervisor, node, both under `up`) and the command line.

mod args;
mod chaos;
mod numbers;
mod roles;
mod up;

use std::process::ExitCode;

use clap::FromArgMatches as _;
use common::api::ApiError;

use clap::CommandFactory as _;
use cli::args::Global;
use common::failure;
use tracing_appender::non_blocking::WorkerGuard;

use crate::args::{Cli, Command, JoinArgs, NodeArgs};

fn main() -> ExitCode {
    if !runtime::processes::end_with_parent() {
        return ExitCode::FAILURE;
    }
    // What whoever started us had open is nobody's whom we start: a lock that it holds would be held for as long as the fleet runs.
    close_fds::set_fds_cloexec(3, &[]);
    // What is made here is for its owner to use, whatever is masked: a folder that nobody may enter is of no use.
    keep_for_owner();
    cli::completions::answer(Cli::command);
    let matches = match cli::parse::parse(Cli::command) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let parsed = Cli::from_arg_matches(&matches);
    let Cli { global, command } = parsed.unwrap_or_else(|error| error.exit());
    let writing = start_log(&global, command.is_role());
    let output = global.output;
    let result = match async_runtime(command.is_role()) {
        Ok(runtime) => {
            let collects = command.is_role();
            let result = runtime.block_on(async {
                let mut orphans = tokio::task::JoinSet::new();
                if collects {
                    orphans.spawn(runtime::orphans::collect());
                }
                run(global, command).await
            });
            // A prompt may still hold a thread that reads the terminal: nobody waits for it.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(failure::error(
            failure::FAILED,
            "cannot start the async runtime",
            error,
            "check the limits on threads and open files (`ulimit -a`)",
        )),
    };
    // The error is the last word.
    cli::output::write_by(None);
    drop(writing);
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => cli::output::fail(&error, output),
    }
}

/// Takes the owner's bits out of the umask, which everything that is started here inherits.
fn keep_for_owner() {
    use rustix::fs::Mode;
    // It can only be read by setting it.
    let masked = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::umask(masked - Mode::RWXU);
}

/// Runs a command; the exit code is one that is not an error, such as that of `doctor`.
async fn run(global: Global, command: Command) -> Result<u8, ApiError> {
    let global = &if command.connects() { global.with_context()? } else { global };
    match command {
        Command::Up(args) => up::up(global, args).await.map(|()| 0),
        Command::Join(JoinArgs { string, mut up }) => {
            up.cluster.join = Some(string);
            up::up(global, up).await.map(|()| 0)
        }
        Command::AuthKey => roles::auth_key(global).map(|()| 0),
        Command::JoinToken => up::join_token(global).await.map(|()| 0),
        Command::Down(args) => up::down(global, args).await.map(|()| 0),
        Command::Reset(args) => up::reset(global, &args).await.map(|()| 0),
        Command::Restore(args) => up::restore(global, &args).await,
        Command::Supervisor(args) => roles::supervisor(global, args).await.map(|()| 0),
        Command::Api(args) => roles::api(global, args).await.map(|()| 0),
        Command::Node(NodeArgs { command: Some(command), .. }) => {
            cli::nodes::run(global, &command).await
        }
        Command::Node(args) => roles::node(global, args).await.map(|()| 0),
        Command::Chaos(args) => chaos::run(global, &args).await,
        Command::ChaosWorker(args) => chaos::work(&args).await.map(|()| 0),
        Command::ChaosKeeper(args) => chaos::keep(&args).map(|()| 0),
        Command::Bench(args) => Err(cli::bench::exec(global, &args)),
        Command::Client(command) => cli::run(global, command).await,
    }
}

/// Roles use all cores; a client command is one task that waits for the network.
fn async_runtime(role: bool) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = if role {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()
}

/// Logs to stderr: `RUST_LOG` decides, else `-v`, else `info` for the roles and next to nothing for the client, which says what
/// is wrong in its own words.
///
/// A role waits for no reader: what a terminal that stands still (Ctrl-S), or a full pipe, does not take is written by a thread of its own,
/// and lines are dropped once very many wait. What is yielded writes what is left when it is dropped.
fn start_log(global: &Global, role: bool) -> Option<WorkerGuard> {
    use std::io::{IsTerminal, Write as _};
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;

    let default = match (role, global.verbose) {
        (false, 0) => "error,async_nats=off",
        (false, 1) => "info",
        (true, 0) => "info,async_nats=warn,rmcp=warn",
        (_, 1 | 2) => "debug,async_nats=info",
        (_, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let (writer, writing) = match role {
        true => {
            let (writer, writing) = tracing_appender::non_blocking(std::io::stderr());
            let words = writer.clone();
            // Dropped where too many wait.
            let write = move |text: &str| drop(words.clone().write_all(text.as_bytes()));
            cli::output::write_by(Some(Box::new(write)));
            (BoxMakeWriter::new(writer), Some(writing))
        }
        false => (BoxMakeWriter::new(std::io::stderr), None),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal() && cli::output::colour())
        // It would be told on stderr that stderr cannot be written, by a macro that panics then.
        .log_internal_errors(false)
        .init();
    writing
}
