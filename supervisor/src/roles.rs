//! `mozart supervisor` and `mozart node`: the roles, each in a process of its own.

use std::time::Duration;

use broker::{Attempt as _, Broker, StreamOptions};
use cli::args::Global;
use cli::{connect, signals};
use common::api::ApiError;
use control::SupervisorOptions;
use node::NodeOptions;
use runtime::binaries;
use runtime::engine::Connection;
use runtime::home::Home;

use crate::args::{NodeArgs, SupervisorArgs};

/// How long the broker may take to be there.
const CONNECT: Duration = Duration::from_secs(10);
/// Journal streams of a new namespace: synced writes to one stream do not run in parallel.
const SHARDS: u32 = 4;

/// Runs a supervisor.
///
/// # Errors
/// When the broker cannot be reached or does not take the streams.
pub(crate) async fn supervisor(global: &Global, args: SupervisorArgs) -> Result<(), ApiError> {
    let id = args.id.unwrap_or_else(default_id);
    let options = connect::options(global, format!("supervisor {id}"), CONNECT)?;
    let streams =
        StreamOptions { journal_shards: args.journal_shards.unwrap_or(SHARDS), replicas: None };
    let stop = signals::stop_token()?;
    let broker = Broker::connect_and_create(&options, &streams).await;
    let broker = broker.attempt("cannot start the supervisor")?;
    control::serve(SupervisorOptions { id, succeeds: false }, broker, stop).await
}

/// An id that tells supervisors apart: host and process.
fn default_id() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{}", std::process::id())
}

/// Runs a node.
///
/// # Errors
/// When the broker cannot be reached, or no shim is found.
pub(crate) async fn node(global: &Global, args: NodeArgs) -> Result<(), ApiError> {
    let home = Home::locate(global.home.as_deref())?;
    home.create()?;
    let name = format!("node {}", args.name);
    let runtime = args.runtime.options();
    let options = NodeOptions {
        name: args.name,
        labels: args.labels,
        connect: connect::options(global, &name, CONNECT)?,
        run: home.run(),
        home: home.dir,
        shim: binaries::shim()?,
        engine: Connection::find(runtime.runtime).await?,
        runtime,
    };
    let stop = signals::stop_token()?;
    let broker = Broker::connect(&options.connect).await.attempt("cannot start the node")?;
    node::serve(options, broker, stop).await
}
