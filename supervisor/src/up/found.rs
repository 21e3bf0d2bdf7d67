//! What a data folder is used by already, and the name of its node.

use std::fs::File;
use std::time::{Duration, Instant};

use broker::ConnectOptions;
use cli::args::Global;
use cli::connect;
use common::api::ApiError;
use common::{NodeName, failure};
use runtime::home::{Home, Running};
use runtime::{labels, lock};

use super::joining::patience;
use super::{containers, host_name};

/// What there is in a data folder.
pub(super) enum Found {
    /// This runs.
    Running(ConnectOptions),
    /// Nothing; and nothing can start as long as this is held.
    Lock(File),
}

/// Finds what runs here, once its note is written: an `up` that is just starting has not written it yet.
pub(super) async fn find(
    global: &Global,
    home: &Home,
    name: Option<&NodeName>,
) -> Result<Found, ApiError> {
    let within = patience(home);
    let until = Instant::now() + within;
    loop {
        if let Some(lock) = home.lock()? {
            return Ok(Found::Lock(lock));
        }
        // A broken note is being replaced, or is the last of an `up` that was killed.
        let noted = home.read_running().ok().flatten().filter(|noted| noted.ready);
        if let Some(noted) = noted.filter(|noted| lock::is_holder(&home.dir, noted.pid)) {
            same_fleet(global, &noted)?;
            same_node(home, name)?;
            return Ok(Found::Running(connect::options(global, "mozart up", within)?));
        }
        if Instant::now() > until {
            let cause = format!("it is not ready after {within:?}");
            let what = "mozart did not start";
            return Err(failure::error(failure::TIMEOUT, what, cause, "`mozart down`"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One data folder holds one fleet at a time: souls must not be applied to another fleet than the one given.
fn same_fleet(global: &Global, noted: &Running) -> Result<(), ApiError> {
    let other = |what: String| {
        let try_ = "`mozart down` first, or --dir DIR for another fleet on this machine";
        Err(failure::error(failure::CONFLICT, "another fleet runs in this folder", what, try_))
    };
    if let Some(meant) = global.namespace.as_ref().filter(|meant| **meant != noted.namespace) {
        return other(format!("its namespace is {}, not {meant}", noted.namespace));
    }
    match global.url() {
        Some(url) if url != noted.url => other("it uses another NATS server".to_owned()),
        _ => Ok(()),
    }
}

/// A running node keeps its name.
fn same_node(home: &Home, name: Option<&NodeName>) -> Result<(), ApiError> {
    let Some(name) = name else { return Ok(()) };
    let kept = home.node_name(|| name.clone())?;
    if kept == *name { Ok(()) } else { Err(still_runs(name, &kept)) }
}

fn still_runs(name: &NodeName, kept: &NodeName) -> ApiError {
    let what = format!("cannot name the node {name}");
    let cause = format!(
        "something of node {kept} is still running here, and no other node would manage it"
    );
    let try_ = format!("`mozart down`, then `mozart up --name {name}`");
    failure::error(failure::CONFLICT, what, cause, try_)
}

/// The node's name: the one that is asked for, unless something of another one still runs, else the one that is kept.
pub(super) fn node_name(home: &Home, asked: Option<&NodeName>) -> Result<NodeName, ApiError> {
    let kept = home.node_name(|| asked.cloned().unwrap_or_else(host_name))?;
    let Some(name) = asked.filter(|asked| **asked != kept) else { return Ok(kept) };
    let of_it = |node: &std::path::Path| node.file_name() == Some(kept.as_str().as_ref());
    let runs = labels::find(&home.run()).iter().any(|one| one.run.parent().is_some_and(of_it));
    if runs || containers::left(home).iter().any(|one| of_it(one.node())) {
        return Err(still_runs(name, &kept));
    }
    home.keep_node_name(name)?;
    tracing::info!("the node of this folder was {kept}, and is {name} from now on");
    Ok(name.clone())
}
