//! `mozart bench`: Mozart beside what people would write instead, on this machine, in turn, in one run.
//!
//! A ratio counts and an absolute time does not: every figure is the median of the ratios of neighbouring measurements,
//! with one server process, one payload and one load for both sides. What is compared with lives here too ([`raw`],
//! [`sqlite`], [`respawn`]), so that anybody can repeat the comparison.

mod archiving;
mod ask;
mod backlog;
mod beacon;
mod chunks;
mod container;
mod cpu;
mod crowd;
mod drive;
mod failover;
mod figure;
mod fleet;
mod floors;
mod history;
mod http;
mod logins;
mod long_log;
mod memory;
mod ours;
mod outcome;
mod process;
mod raw;
mod recover;
mod register;
mod remember;
mod replace;
mod respawn;
mod restart;
mod rig;
mod roles;
mod server;
mod sqlite;
mod takeover;
mod throughput;
mod trials;
mod waiters;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::Styles;
use common::failure;

use crate::figure::{Format, Report};
use crate::fleet::Runtime;
use crate::outcome::Result;

/// Measures Mozart beside a raw NATS loop and stdio + SQLite
#[derive(Debug, Parser)]
#[command(name = "mozart bench", version, styles = Styles::plain())]
struct Args {
    /// Which figures: goal numbers, or parts of names [default: all but those that need root and hosts of their own: host-loss,
    /// server-loss, cut, spread]
    which: Vec<String>,
    /// How many pairs of measurements a figure is the median of
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How long one measurement of a throughput or a latency takes
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
    /// How often agents are replaced in all, for the gap
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    replacements: u32,
    /// How many trials the times of faults and drains are the median of
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
    /// For how many seconds agents are cut off from the broker
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    cut: u64,
    /// Journal streams where every write is synced [default: as `mozart up` has it]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: Option<u32>,
    /// How many messages have finished, for what history costs
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..))]
    messages: u32,
    /// How many records the control log has with which a supervisor starts
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// How many agents a large fleet has [default: 2000 for `recover`, 100 for `backlog`]
    #[arg(long)]
    agents: Option<usize>,
    /// How many open messages each agent has that is started after a long time
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    open: u32,
    /// How results are written to stdout
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Where servers and fleets keep their data while measured; the disk below is part of the result
    #[arg(long, value_name = "DIR", env = "TMPDIR", default_value = "/tmp")]
    data: PathBuf,
}

/// What can be measured: goal numbers, and the name that picks it.
const SCENARIOS: [(&[u8], &str, Scenario); 30] = [
    (&[1, 3], "throughput-lazy", Scenario::ThroughputLazy),
    (&[2], "single", Scenario::Single),
    (&[4], "throughput-always", Scenario::ThroughputAlways),
    (&[5], "chunks", Scenario::Chunks),
    (&[6], "agent-asks-agent", Scenario::Ask),
    (&[7], "restart", Scenario::Restart),
    (&[8, 10], "crowd", Scenario::Crowd),
    (&[9], "memory", Scenario::Memory),
    (&[11], "register", Scenario::Register),
    (&[12], "takeover", Scenario::Takeover),
    (&[], "failover", Scenario::Failover),
    (&[13], "replace-process", Scenario::ReplaceProcess),
    (&[13], "replace-docker", Scenario::ReplaceDocker),
    (&[14], "restart-docker", Scenario::RestartDocker),
    (&[15], "memory-docker", Scenario::MemoryDocker),
    (&[16, 17, 18], "history", Scenario::History),
    (&[20], "recover", Scenario::Recover),
    (&[20], "backlog", Scenario::Backlog),
    (&[19], "archiving", Scenario::Archiving),
    (&[21], "long-log", Scenario::LongLog),
    (&[22], "logins", Scenario::Logins),
    (&[23], "three-replicas", Scenario::ThreeReplicas),
    (&[24], "http", Scenario::Http),
    (&[25], "steps", Scenario::Steps),
    (&[26], "turns", Scenario::Turns),
    (&[], "drain", Scenario::Drain),
    (&[], "host-loss", Scenario::HostLoss),
    (&[], "server-loss", Scenario::ServerLoss),
    (&[], "cut", Scenario::Cut),
    (&[], "spread", Scenario::Spread),
];

#[derive(Debug, Clone, Copy)]
enum Scenario {
    ThroughputLazy,
    Single,
    ThroughputAlways,
    Chunks,
    Ask,
    Restart,
    Crowd,
    Memory,
    Register,
    Takeover,
    Failover,
    ReplaceProcess,
    ReplaceDocker,
    RestartDocker,
    MemoryDocker,
    History,
    Archiving,
    Recover,
    Backlog,
    LongLog,
    Logins,
    ThreeReplicas,
    Http,
    Steps,
    Turns,
    Drain,
    HostLoss,
    ServerLoss,
    Cut,
    Spread,
}

impl Scenario {
    /// Whether it needs root, hosts of its own, and a lot of time.
    fn is_on_request(self) -> bool {
        matches!(self, Self::HostLoss | Self::ServerLoss | Self::Cut | Self::Spread)
    }
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let result = match args.get(1).and_then(|first| first.to_str()) {
        // What this program starts of itself.
        Some(roles::ROLE) => roles::run(&args[2..]),
        _ => match Args::try_parse_from(&args) {
            Ok(args) => return measure(args),
            Err(error) => {
                let is_json = |words: &[OsString]| words[0] == "-o" && words[1] == "json";
                let json = args.windows(2).any(is_json);
                return usage(&error, if json { Format::Json } else { Format::Table });
            }
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(failure::FAILED, &error.to_string(), Format::Table),
    }
}

/// Help, or what is wrong with the command line: without colours, and without what would steer a terminal.
fn usage(error: &clap::Error, format: Format) -> ExitCode {
    if !error.use_stderr() {
        return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let text = error.render().ansi().to_string();
    if format == Format::Json {
        let what = text.lines().next().unwrap_or_default();
        let what = what.strip_prefix("error: ").unwrap_or(what);
        return complain(failure::USAGE, what, format);
    }
    figure::note(text.trim_end());
    failure::USAGE.into()
}

fn measure(args: Args) -> ExitCode {
    let format = args.output;
    if !args.which.is_empty() && chosen(&args.which).next().is_none() {
        let names: Vec<_> =
            SCENARIOS.iter().map(|(goals, name, _)| format!("{name} {goals:?}")).collect();
        let what = format!("{:?} is none of: {}", args.which.join(" "), names.join(", "));
        return complain(failure::USAGE, &what, format);
    }
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(failure::FAILED, &error.to_string(), format),
    }
}

/// Says what went wrong as the commands of `mozart` do.
fn complain(code: u8, what: &str, format: Format) -> ExitCode {
    figure::note(&match format {
        Format::Json => {
            let error = serde_json::json!({ "code": code, "what": what, "cause": "", "try": "" });
            serde_json::json!({ "error": error }).to_string()
        }
        Format::Table => format!("error: {what}"),
    });
    code.into()
}

/// The scenarios that are meant; all of them where none is named.
fn chosen(
    which: &[String],
) -> impl Iterator<Item = &'static (&'static [u8], &'static str, Scenario)> {
    SCENARIOS.iter().filter(move |(goals, name, scenario)| {
        (which.is_empty() && !scenario.is_on_request())
            || which.iter().any(|which| picks(which, goals, name))
    })
}

fn run(args: Args) -> Result<()> {
    let chosen: Vec<_> = chosen(&args.which).collect();
    let plan = rig::Plan {
        pairs: args.pairs,
        replacements: args.replacements,
        trials: args.trials,
        cut: Duration::from_secs(args.cut),
        messages: args.messages,
        records: args.records,
        agents: args.agents,
        open: args.open,
        shards: args.shards,
        window: Duration::try_from_secs_f64(args.seconds)?,
        data: args.data,
        which: args.which,
    };
    let mut report = Report::new(args.output);
    report.floors(&floors::measure(&plan.data)?)?;
    // One thread: the measuring side must not take more of the machine than a lean client would.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (_, name, scenario) in chosen {
        figure::note(&format!("measuring {name}"));
        runtime.block_on(async {
            match scenario {
                Scenario::ThroughputLazy => throughput::lazy(&plan, &mut report).await,
                Scenario::Single => throughput::single(&plan, &mut report).await,
                Scenario::ThroughputAlways => throughput::always(&plan, &mut report).await,
                Scenario::Chunks => chunks::run(&plan, &mut report).await,
                Scenario::Ask => ask::run(&plan, &mut report).await,
                Scenario::Restart => restart::run(&plan, &mut report).await,
                Scenario::Crowd => crowd::run(&plan, &mut report).await,
                Scenario::Memory => memory::run(&plan, &mut report).await,
                Scenario::Register => register::run(&plan, &mut report).await,
                Scenario::Takeover => takeover::run(&plan, &mut report).await,
                Scenario::Failover => failover::run(&plan, &mut report).await,
                Scenario::ReplaceProcess => {
                    replace::run(&plan, &mut report, Runtime::Process).await
                }
                Scenario::History => history::run(&plan, &mut report).await,
                Scenario::Archiving => archiving::run(&plan, &mut report).await,
                Scenario::RestartDocker => container::restart(&plan, &mut report).await,
                Scenario::MemoryDocker => container::memory(&plan, &mut report).await,
                Scenario::Recover => recover::run(&plan, &mut report).await,
                Scenario::Backlog => backlog::run(&plan, &mut report).await,
                Scenario::Logins => logins::run(&plan, &mut report).await,
                Scenario::ThreeReplicas => throughput::replicated(&plan, &mut report).await,
                Scenario::Http => http::run(&plan, &mut report).await,
                Scenario::Steps => remember::steps(&plan, &mut report).await,
                Scenario::Turns => remember::turns(&plan, &mut report).await,
                Scenario::Drain => trials::drain(&plan, &mut report).await,
                Scenario::HostLoss => trials::of_hosts(&plan, &mut report).await,
                Scenario::ServerLoss => trials::of_servers(&plan, &mut report).await,
                Scenario::Cut => trials::cut(&plan, &mut report).await,
                Scenario::Spread => trials::spread(&plan, &mut report).await,
                Scenario::LongLog => long_log::run(&plan, &mut report).await,
                Scenario::ReplaceDocker => replace::run(&plan, &mut report, Runtime::Docker).await,
            }
        })?;
    }
    report.end()
}

fn picks(which: &str, goals: &[u8], name: &str) -> bool {
    which.parse::<u8>().map_or_else(|_| name.contains(which), |goal| goals.contains(&goal))
}
