//! The options of `up` that make a host a member of a cluster, and what is printed for the next one.

use std::time::Duration;

use broker::{Attempt as _, Broker, ConnectOptions};
use cli::args::Global;
use cli::{connect, output};
use common::api::ApiError;
use common::failure;
use runtime::home::Home;

use super::{Found, GIVEN, START, START_OF_MEMBER, cluster, node_name};
use crate::args::{ClusterArgs, UpArgs};

/// Makes this host a member of the cluster that is asked for.
pub(super) async fn membership(
    global: &Global,
    args: &UpArgs,
    home: &Home,
    found: &Found,
) -> Result<(), ApiError> {
    let ClusterArgs { cluster, listen, join } = &args.cluster;
    let is_asked = cluster.is_some() || join.is_some();
    if is_asked && global.url().is_some() {
        let what = "cannot be a member of a cluster";
        let cause = "another NATS server is given";
        return Err(failure::error(failure::USAGE, what, cause, "leave out --nats (NATS_URL)"));
    }
    let is_member = cluster::read(home)?.is_some();
    cluster::is_own(home)?;
    if matches!(found, Found::Lock(_)) {
        cluster::was_removed(home).await?;
    }
    if is_asked && !is_member && matches!(found, Found::Running(_)) {
        let what = "cannot make a running fleet a member of a cluster";
        let try_ = "--dir DIR for a new data folder";
        return Err(failure::error(failure::CONFLICT, what, "it runs on this host alone", try_));
    }
    let node = || node_name(home, args.name.as_ref());
    match (cluster, join) {
        (Some(name), _) => cluster::found(home, name, *listen, &node()?).map(|_| ()),
        (None, Some(string)) => {
            let string = string.parse().map_err(|error: String| {
                let try_ = "`mozart join-token` on a member prints a new one";
                failure::error(failure::USAGE, "cannot read the join string", error, try_)
            })?;
            cluster::join(home, &string, *listen, &node()?).await.map(|_| ())
        }
        (None, None) if listen.is_some() && !is_member => {
            let what = "cannot listen for other hosts";
            let cause = "this host is no member of a cluster";
            Err(failure::error(failure::USAGE, what, cause, "--cluster NAME, or --join STRING"))
        }
        (None, None) => Ok(()),
    }
}

/// Tells how far the cluster is that was asked for, and prints the command with which another host joins.
pub(super) async fn invite(
    asked: &ClusterArgs,
    home: &Home,
    connect: &ConnectOptions,
) -> Result<(), ApiError> {
    let ClusterArgs { cluster, join, .. } = asked;
    if cluster.is_none() && join.is_none() {
        return Ok(());
    }
    let broker = Broker::connect(connect).await.attempt("cannot make a join token")?;
    cluster::show_growth(&broker).await;
    let string = cluster::invite(home, &broker).await?;
    output::note("to add a host, run this on it; it works once, within an hour:");
    output::line(format!("mozart up --join {string}"))
}

/// `mozart join-token`: prints a string with which one host can join.
///
/// # Errors
/// When this is no member of a cluster, or the broker does not answer.
pub(crate) async fn join_token(global: &Global) -> Result<(), ApiError> {
    let home = Home::locate(global.home.as_deref())?;
    let connect = connect::options(global, "mozart join-token", GIVEN)?;
    let broker = Broker::connect(&connect).await.attempt("cannot make a join token")?;
    output::line(cluster::invite(&home, &broker).await?.to_string())
}

/// How long the parts may take to be there.
pub(super) fn patience(home: &Home) -> Duration {
    if cluster::is_member(home) { START_OF_MEMBER } else { START }
}
