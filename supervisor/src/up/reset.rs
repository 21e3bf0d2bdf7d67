//! `mozart reset`, for the data folder of a fleet that `up` has run, or for a separate broker.

use std::fs;
use std::path::PathBuf;

use broker::Reset;
use cli::args::Global;
use cli::reset::{self, ResetArgs};
use cli::{connect, output};
use common::api::ApiError;
use common::failure;
use runtime::home::Home;

use super::cluster;
use super::kept;
use super::nats::Nats;
use super::{START, down, format};
use crate::args::Sync;

/// Shows what there is, and removes it when that is confirmed. Only while nothing runs.
///
/// # Errors
/// 4 while something runs; when the broker does not answer, or files cannot be removed.
pub(crate) async fn reset(global: &Global, args: &ResetArgs) -> Result<(), ApiError> {
    if global.url().is_some() {
        let options = connect::options(global, "mozart reset", START)?;
        return reset::streams(&options, global.output, args, &[]).await;
    }
    let home = Home::locate(global.home.as_deref())?;
    if !home.dir.is_dir() {
        output::note("there is nothing to reset");
        return Ok(());
    }
    format::check(&home)?;
    home.claim()?;
    let lock = home.lock()?;
    if lock.is_none() || down::is_left(&home) {
        let cause =
            format!("something that was started from {} is still running", home.dir.display());
        let what = "cannot reset the fleet";
        return Err(failure::error(failure::CONFLICT, what, cause, "`mozart down`"));
    }
    let data = home.nats().join("data");
    match args.what() {
        Reset::All => all(global, args, &home),
        Reset::Messages if !data.is_dir() => {
            output::note("there is nothing to reset");
            Ok(())
        }
        Reset::Messages => messages(global, args, &home).await,
    }
}

/// Without a server: one may not even start with what is there.
fn all(global: &Global, args: &ResetArgs, home: &Home) -> Result<(), ApiError> {
    let folders: Vec<PathBuf> = [home.nats().join("data"), home.run()]
        .into_iter()
        .filter(|folder| folder.exists())
        .collect();
    if folders.is_empty() {
        output::note("there is nothing to reset");
        return Ok(());
    }
    if !args.is_dry() {
        // That nothing of it is there any more is what was asked for.
        let _gone = fs::remove_file(home.dir.join(runtime::home::FLEET));
        for folder in &folders {
            fs::remove_dir_all(folder).map_err(|error| {
                let what = format!("cannot remove {}", folder.display());
                failure::file(what, &error, "check the permissions there, and retry")
            })?;
        }
        kept::forget(home);
        cluster::begin_anew(home)?;
    }
    reset::folders(global.output, args, &folders)
}

/// With a server that runs for as long as it takes.
async fn messages(global: &Global, args: &ResetArgs, home: &Home) -> Result<(), ApiError> {
    let nats = Nats::start(home, Sync::Always, None).await?;
    let given = Global { nats: Some(nats.url()), ..global.clone() };
    let mut options = connect::options(&given, "mozart reset", START)?;
    options.ca = nats.ca();
    let done = reset::streams(&options, global.output, args, &[]).await;
    if done.is_ok() && !args.is_dry() {
        kept::forget(home);
    }
    drop(nats);
    Nats::end_left(home).await;
    done
}
