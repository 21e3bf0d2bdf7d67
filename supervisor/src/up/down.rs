//! `mozart down`: ends everything that `up` started, whatever is left of it.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use common::api::ApiError;
use common::words::count;
use tokio_util::sync::CancellationToken;

use super::containers::Left;
use super::nats::Nats;
use super::{containers, format, start};
use cli::args::Global;

use crate::args::{AuthArgs, DownArgs, Sync};
use cli::output;
use common::failure;
use runtime::home::{Home, Running};
use runtime::{RuntimeOptions, Wanted, labels, lock, processes};

/// Drains and stops what `up` started.
///
/// # Errors
/// When it does not stop in time.
pub(crate) async fn down(global: &Global, args: DownArgs) -> Result<(), ApiError> {
    let home = Home::locate(global.home.as_deref())?;
    if !home.dir.is_dir() {
        if home.holder().is_none() && !is_left(&home) {
            output::note("nothing is running");
            return Ok(());
        }
        output::note(format!(
            "warning: {} was removed while something that was started there is running",
            home.dir.display()
        ));
        // For what is locked and noted on the way. It is not needed.
        let _made = home.create();
    }
    if let Err(error) = format::check(&home) {
        // Whatever runs here can be ended.
        if home.holder().is_none() {
            return Err(error);
        }
        output::note(format!("warning: {}: {}", error.what, error.cause));
    }
    match home.claim() {
        // What its note says is of the original.
        Err(error) if home.is_unclaimed_copy() => return Err(error),
        // A disk that takes no writes keeps nobody from ending what runs.
        Err(ApiError { what, cause, .. }) => output::note(format!("warning: {what}: {cause}")),
        Ok(_id) => {}
    }
    let until = Instant::now() + args.timeout;
    let mut told = None;
    loop {
        let lock = match home.lock() {
            // Removed, and not to be made again: what runs is found by its path nevertheless.
            Err(_) if !home.dir.is_dir() => match home.holder() {
                Some(_) => None,
                None => return end_rest(&home, Vec::new(), Wanted::Auto).await,
            },
            lock => lock?,
        };
        if let Some(lock) = lock {
            if !is_left(&home) {
                if told.is_none() {
                    output::note("nothing is running");
                }
                return Ok(());
            }
            return clear(global, &home, lock).await;
        }
        // The lock's holder and nobody else: a note may be old, and its process id another program's by now.
        let holder = home.holder().filter(|pid| *pid != std::process::id());
        match (told, holder) {
            (None, Some(pid)) => {
                processes::kill(pid, rustix::process::Signal::TERM);
                told = Some(pid);
            }
            // It is down, and somebody has started another one.
            (Some(pid), Some(other)) if pid != other => return Ok(()),
            _ => {}
        }
        if Instant::now() > until {
            let who = told.map_or_else(|| "it".to_owned(), |pid| format!("process {pid}"));
            let cause = format!("{who} is still running after {:?}", args.timeout);
            let try_ = "run `mozart down` once more to stop it immediately";
            return Err(failure::error(failure::TIMEOUT, "mozart is not stopped yet", cause, try_));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn is_left(home: &Home) -> bool {
    Nats::is_left(home) || is_fleet_left(home)
}

/// Whether something is left of a fleet, other than its nats-server.
pub(super) fn is_fleet_left(home: &Home) -> bool {
    home.running_file().exists()
        || !labels::find(&home.run()).is_empty()
        || !containers::left(home).is_empty()
}

/// `up` was killed, but not what it started: takes its place and shuts down in order; what then still runs is ended.
async fn clear(global: &Global, home: &Home, lock: File) -> Result<(), ApiError> {
    // Before it goes with what is ended in order.
    let noted = home.read_running();
    let runtime = noted.as_ref().ok().and_then(|noted| noted.as_ref()?.runtime.clone());
    let runtime = runtime.unwrap_or_default();
    // A node that cannot use the engine forgets them.
    let containers = containers::left(home);
    let ended = match &noted {
        Ok(noted) if !can_drain(global, home, noted.as_ref()) => {
            let what = "the broker's data was removed";
            Err(failure::error(failure::FAILED, what, home.nats().display(), ""))
        }
        Ok(noted) => in_order(global, home, noted.as_ref(), runtime.clone()).await,
        Err(error) => Err(error.clone()),
    };
    if let Err(ApiError { what, cause, .. }) = ended {
        output::note(format!(
            "warning: not drained: {what}: {cause}; what is still running is killed"
        ));
    }
    let ended = end_rest(home, containers, runtime.runtime).await;
    let noted = match (&ended, noted) {
        // The next `down` needs to know the engine.
        (Err(_), Ok(Some(noted))) => home.write_running(&noted),
        (Ok(()) | Err(_), _) => home.remove_running(),
    };
    // It says what ran, and nothing does.
    if let Err(ApiError { what, cause, .. }) = noted {
        output::note(format!("warning: {what}: {cause}"));
    }
    drop(lock);
    ended
}

/// Whether there is a broker by which the agents can be told to end: one of others, or one of this folder that runs, or has its data.
fn can_drain(global: &Global, home: &Home, noted: Option<&Running>) -> bool {
    let is_given = noted.map_or(global.url().is_some(), |noted| noted.nats_pid.is_none());
    let runs = || Nats::is_left(home) && home.nats().join("access.json").is_file();
    is_given || home.nats().join("data").is_dir() || runs()
}

async fn in_order(
    global: &Global,
    home: &Home,
    noted: Option<&Running>,
    runtime: RuntimeOptions,
) -> Result<(), ApiError> {
    let mut global = global.clone();
    // The broker and the fleet of the `up` that was killed, whatever is meant by default.
    if let Some(noted) = noted {
        global.nats = noted.nats_pid.is_none().then(|| noted.url.clone());
        global.namespace = Some(noted.namespace.clone());
    }
    let wanted = super::Wanted {
        name: None,
        sync: Sync::Always,
        journal_shards: None,
        retention: control::Retention::default(),
        runtime,
        waits: false,
        auth: AuthArgs::default(),
        api: Some(super::ApiAt::Off),
    };
    // Nothing is started any more.
    let shim = runtime::binaries::shim().unwrap_or_else(|_| "mozart-shim".into());
    let parts = start(&global, &wanted, home, shim).await?;
    let stop = CancellationToken::new();
    stop.cancel();
    parts.serve(home, stop).await
}

/// Ends the processes and containers of incarnations that no node manages, and an orphaned nats-server.
async fn end_rest(home: &Home, containers: Vec<Left>, wanted: Wanted) -> Result<(), ApiError> {
    let left = labels::find(&home.run());
    let nodes: BTreeSet<&Path> = left.iter().filter_map(|one| one.run.parent()).collect();
    for node in nodes {
        // A `mozart node` of its own in this folder was not started by `up`.
        let taken = lock::take(node);
        let is_unattended = match &taken {
            Ok(taken) => taken.is_some(),
            // The folder was removed.
            Err(_) => lock::holder(node).is_none(),
        };
        if is_unattended {
            let ended = count(labels::sweep(node) as u64, "process", "processes");
            tracing::info!("ended {ended} of {}", node.display());
        }
    }
    let removed = containers::remove(containers, wanted).await;
    Nats::end_left(home).await;
    removed
}
