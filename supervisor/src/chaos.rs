//! `mozart chaos`: finds the broker, its logins and this program for a run of `chaos`, and shows what came of it.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use broker::{Attempt as _, Broker, ConnectOptions};
use chaos::{Kind, Options, Report};
use clap::Args;
use cli::args::{Global, Output};
use cli::{connect, output, signals};
use common::api::ApiError;
use common::{Namespace, failure};
use runtime::home::Home;

use crate::args::AuthArgs;
use crate::up;

/// How long the broker may take to be reached.
const CONNECT: Duration = Duration::from_secs(5);
/// The shortest and the longest run, in minutes: time for some faults, and less than finished messages stay in the journal.
const MINUTES: (f64, f64) = (0.1, 720.0);
/// Messages a second.
const RATE: (f64, f64) = (0.1, 500.0);

/// `mozart chaos`.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// How long faults happen, in minutes
    #[arg(long, default_value_t = 1.0, value_name = "M", value_parser = minutes)]
    minutes: f64,
    /// The kinds of faults: kill, freeze, cut, restart, replace, leader [default: all that are possible]
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_parser = Kind::from_str)]
    kinds: Vec<Kind>,
    /// Repeat the faults and messages of the run with this seed [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Number of agents
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    agents: u16,
    /// Messages per second, all agents together
    #[arg(long, default_value_t = 10.0, value_name = "R", value_parser = rate)]
    rate: f64,
    /// Keep the namespace and the logs, to look at them
    #[arg(long)]
    keep: bool,
    /// Judge the journal of a run that was kept once more, and do nothing else
    #[arg(long, value_name = "NAMESPACE", conflicts_with_all = ["minutes", "kinds", "seed", "agents", "rate", "keep", "clean"])]
    verify: Option<Namespace>,
    /// Remove what was kept, and what runs have left that were killed, and do nothing else
    #[arg(long, conflicts_with_all = ["minutes", "kinds", "seed", "agents", "rate", "keep"])]
    clean: bool,
    #[command(flatten)]
    auth: AuthArgs,
}

/// `mozart chaos-worker`, `mozart chaos-keeper`.
#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// The folder of the notes, or of the run
    folder: PathBuf,
}

fn minutes(text: &str) -> Result<f64, String> {
    within(text, MINUTES)
}

fn rate(text: &str) -> Result<f64, String> {
    within(text, RATE)
}

fn within(text: &str, (least, most): (f64, f64)) -> Result<f64, String> {
    let given = text.parse().ok().filter(|given| (least..=most).contains(given));
    given.ok_or_else(|| format!("expected a number from {least} to {most}"))
}

/// Runs it; the exit code is that of the verdict.
///
/// # Errors
/// When the broker cannot be reached or used, or there is no room.
pub(crate) async fn run(global: &Global, args: &ChaosArgs) -> Result<u8, ApiError> {
    let home = Home::locate(global.home.as_deref())?;
    let connect = connect::options(global, "mozart chaos", CONNECT)?;
    let tell = |line: &str| output::note(line);
    if args.clean {
        if chaos::clean(&home.dir, &connect, &tell).await? == 0 {
            output::note("there is nothing to remove");
        }
        return Ok(0);
    }
    if let Some(namespace) = &args.verify {
        return show(&chaos::verify(&home.dir, &connect, namespace).await?, global.output);
    }
    let options = options(global, args, &home, connect).await?;
    let told: &dyn Fn(&str) = match global.output {
        // What is done is in the document, too.
        Output::Json => &|line| tracing::info!("{line}"),
        Output::Table => &tell,
    };
    let interrupted = async {
        if let Err(error) = signals::stopped().await {
            tracing::warn!("{}: {}", error.what, error.cause);
            std::future::pending::<()>().await;
        }
        output::note("interrupted; removing the throwaway fleet");
    };
    match chaos::run(&options, told, interrupted).await? {
        Some(report) => show(&report, global.output),
        None => Ok(failure::INTERRUPTED),
    }
}

/// What the run is like, by what was asked for and what the broker allows.
async fn options(
    global: &Global,
    args: &ChaosArgs,
    home: &Home,
    connect: ConnectOptions,
) -> Result<Options, ApiError> {
    runtime::binaries::shim()?;
    const WHAT: &str = "cannot find this program";
    let mozart = std::env::current_exe();
    let mozart = mozart.map_err(|error| failure::file(WHAT, &error, ""))?;
    if mozart.to_str().is_none() || home.dir.to_str().is_none() {
        let cause = format!("{} or {} is not UTF-8", mozart.display(), home.dir.display());
        return Err(failure::error(failure::USAGE, "cannot write souls for it", cause, ""));
    }
    let login_seed = match global.url() {
        None => up::login_seed(home)?,
        Some(_) => match args.auth.key()? {
            Some(key) => Some(key.seed().map_err(|error| {
                failure::error(failure::FAILED, "cannot use the key of the supervisors", error, "")
            })?),
            None => None,
        },
    };
    // The user's own namespace need not have streams.
    let reached = Broker::reach(&connect).await.attempt("cannot use the broker");
    let reached = reached.map_err(|error| connect::explain_own(global, error, &connect.url))?;
    if let Some(user) = reached.user() {
        let what = "cannot start a throwaway fleet with these credentials";
        let cause = format!("user {} belongs to {}", user.name, connect.namespace);
        let try_ = "the login of the fleet itself, as its supervisors have it";
        return Err(failure::error(failure::DENIED, what, cause, try_));
    }
    let can_cut = chaos::can_cut(&reached, &connect.url);
    let kinds = kinds(&args.kinds, can_cut)?;
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "within MINUTES")]
    let length = Duration::from_millis((args.minutes * 60_000.0) as u64);
    // 32 bits: easy to type.
    let random = || u64::from(uuid::Uuid::now_v7().as_u128() as u32);
    Ok(Options {
        connect,
        login_seed,
        can_cut,
        home: home.dir.clone(),
        mozart,
        length,
        kinds,
        seed: args.seed.unwrap_or_else(random),
        agents: usize::from(args.agents),
        rate: args.rate,
        keep: args.keep,
    })
}

/// Each kind once, in the order of all kinds.
fn kinds(asked: &[Kind], can_cut: bool) -> Result<Vec<Kind>, ApiError> {
    if asked.contains(&Kind::Cut) && !can_cut {
        let cause = "its servers use TLS, or are several: the way to them cannot be changed";
        let try_ = "--kinds without cut";
        return Err(failure::error(failure::USAGE, "cannot cut this broker off", cause, try_));
    }
    let all = Kind::ALL.into_iter();
    let wanted = |kind: &Kind| match asked {
        [] => *kind != Kind::Cut || can_cut,
        asked => asked.contains(kind),
    };
    Ok(all.filter(wanted).collect())
}

fn show(report: &Report, output: Output) -> Result<u8, ApiError> {
    let namespace = &report.ledger.namespace;
    match output {
        Output::Json => output::json(&report.shown())?,
        Output::Table => report.lines().iter().try_for_each(output::line)?,
    }
    if report.kept {
        output::note(format!(
            "kept; try: `mozart --namespace {namespace} journal ls`, `mozart chaos --verify {namespace}`; `mozart chaos --clean` removes it"
        ));
    }
    Ok(if report.is_good() { 0 } else { failure::VERDICT })
}

/// Works as an agent of a run.
///
/// # Errors
/// When its notes or its answers cannot be written.
pub(crate) async fn work(args: &FolderArgs) -> Result<(), ApiError> {
    let worked = chaos::worker::run(&args.folder).await;
    worked.map_err(|error| failure::file("the worker cannot go on", &error, ""))
}

/// Waits for the end of a run, and ends what it has left.
///
/// # Errors
/// When stdin cannot be read.
pub(crate) fn keep(args: &FolderArgs) -> Result<(), ApiError> {
    let swept = chaos::sweep_at_end(&args.folder);
    swept.map_err(|error| failure::file("cannot wait for the end of the run", &error, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_cut_is_left_out_unless_it_was_asked_for() {
        assert_eq!(kinds(&[], true).map(|kinds| kinds.len()), Ok(6));
        assert!(kinds(&[], false).is_ok_and(|kinds| !kinds.contains(&Kind::Cut)));
        assert_eq!(kinds(&[Kind::Cut], false).map_err(|error| error.code), Err(2));
        let asked = [Kind::Freeze, Kind::Kill, Kind::Freeze];
        assert_eq!(kinds(&asked, false), Ok(vec![Kind::Kill, Kind::Freeze]));
    }

    #[test]
    fn numbers_out_of_range_are_told_the_range() {
        assert_eq!(minutes("0.3"), Ok(0.3));
        for text in ["0", "-1", "721", "NaN", "inf", "x", ""] {
            let error = minutes(text).expect_err(text);
            assert!(error.ends_with("from 0.1 to 720"), "{error}");
        }
    }
}
