//! `mozart restore`, for the data folder of a fleet that `up` has run or is to run, or for a separate broker.

use cli::args::Global;
use cli::backup::restore::{self, Ready, RestoreArgs};
use cli::{connect, signals};
use common::api::ApiError;
use common::failure;
use runtime::home::Home;

use super::kept;
use super::nats::Nats;
use super::{START, down, format};
use crate::args::Sync;

/// Restores a fleet from files, where nothing of it runs. The files are checked before anything is started.
///
/// # Errors
/// 2 when a file is damaged, 4 when something runs or there is something already; when the broker does not answer.
pub(crate) async fn restore(global: &Global, args: &RestoreArgs) -> Result<u8, ApiError> {
    tokio::select! {
        done = perform(global, args) => done.map(|()| 0),
        stopped = signals::stopped() => {
            stopped?;
            // What runs only for this goes with it.
            if global.url().is_none() && !args.is_dry() {
                Nats::end_left(&Home::locate(global.home.as_deref())?).await;
            }
            Ok(failure::INTERRUPTED)
        }
    }
}

async fn perform(global: &Global, args: &RestoreArgs) -> Result<(), ApiError> {
    let ready = restore::check(args).await?;
    if args.is_dry() {
        return restore::list(global.output, &ready);
    }
    if global.url().is_some() {
        let options = connect::options(global, "mozart restore", START)?;
        return restore::restore(&options, global.output, args, ready).await;
    }
    let home = Home::locate(global.home.as_deref())?;
    home.create()?;
    format::check(&home)?;
    home.claim()?;
    // Held until the end: no `up` begins meanwhile.
    let lock = home.lock()?;
    // A server that an interrupted restore has left behind is used.
    if lock.is_none() || down::is_fleet_left(&home) {
        let cause =
            format!("something that was started from {} is still running", home.dir.display());
        return Err(failure::error(
            failure::CONFLICT,
            "cannot restore",
            cause,
            "`mozart down`, or --nats URL for a separate NATS server",
        ));
    }
    with_server(global, args, &home, ready).await
}

/// With a server that runs for as long as it takes.
async fn with_server(
    global: &Global,
    args: &RestoreArgs,
    home: &Home,
    ready: Ready,
) -> Result<(), ApiError> {
    let nats = Nats::start(home, Sync::Always, None).await?;
    let given = Global { nats: Some(nats.url()), ..global.clone() };
    let mut options = connect::options(&given, "mozart restore", START)?;
    options.ca = nats.ca();
    let done = restore::restore(&options, global.output, args, ready).await;
    if done.is_ok() {
        kept::forget(home);
    }
    drop(nats);
    Nats::end_left(home).await;
    done
}
