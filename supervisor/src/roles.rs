//! `mozart supervisor`, `mozart node` and `mozart api`: the roles, each in a process of its own.

use std::time::Duration;

use broker::{Attempt as _, AuthKey, Broker, BrokerError, ConnectOptions, StreamOptions};
use cli::args::{Global, Output};
use cli::{connect, output, signals};
use common::api::ApiError;
use common::failure;
use control::SupervisorOptions;
use node::NodeOptions;
use runtime::binaries;
use runtime::engine::Connection;
use runtime::home::Home;
use tokio_util::sync::CancellationToken;

use crate::args::{ApiArgs, NodeArgs, SupervisorArgs};
use crate::numbers::Numbers;

/// How long one attempt to reach the broker may take; less for the first one, so that a log line soon says what is waited for.
const CONNECT: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_secs(2);
/// Journal streams of a new namespace: synced writes to one stream do not run in parallel.
const SHARDS: u32 = 4;

/// Connects, and waits for what does not exist yet. None: it is to stop.
async fn patiently(
    connect: &ConnectOptions,
    stop: &CancellationToken,
    attempt: impl AsyncFn(&ConnectOptions) -> Result<Broker, BrokerError>,
) -> Option<Result<Broker, BrokerError>> {
    let mut timeout = FIRST;
    let connecting = broker::once_there(&connect.name, || {
        let options = ConnectOptions { timeout, ..connect.clone() };
        timeout = CONNECT;
        let attempt = &attempt;
        async move { attempt(&options).await }
    });
    stop.run_until_cancelled(connecting).await
}

/// Runs a supervisor. Waits for a broker that is not running yet.
///
/// # Errors
/// When the broker refuses it, or does not take the streams.
pub(crate) async fn supervisor(global: &Global, args: SupervisorArgs) -> Result<(), ApiError> {
    let id = args.id.unwrap_or_else(default_id);
    let options = connect::options(global, format!("supervisor {id}"), CONNECT)?;
    let streams =
        StreamOptions { journal_shards: args.journal_shards.unwrap_or(SHARDS), replicas: None };
    let key = args.auth.key()?;
    let numbers = Numbers::open(&args.metrics, "supervisor").await?;
    let signals = signals::stop()?;
    let stop = signals.token.clone();
    let create =
        async |options: &ConnectOptions| Broker::connect_and_create(options, &streams).await;
    let Some(broker) = patiently(&options, &stop, create).await else { return Ok(()) };
    let broker = broker.attempt("cannot start the supervisor")?;
    let Some(reads) = patiently(&options, &stop, Broker::connect).await else { return Ok(()) };
    let reads = reads.attempt("cannot start the supervisor")?;
    let retention = args.keep.retention();
    let store = args.store.filter(|store| !store.as_os_str().is_empty());
    let (connect, metrics) = (options, numbers.fleet());
    let options = SupervisorOptions { id, succeeds: false, retention, store, key, metrics };
    numbers.during(&connect, control::serve(options, broker, reads, stop)).await
}

/// Serves the API. Waits for a broker, and for the streams that the first supervisor creates, if they do not exist yet.
///
/// # Errors
/// When the address is not to be had, or others would see the tokens; when the broker refuses it.
pub(crate) async fn api(global: &Global, args: ApiArgs) -> Result<(), ApiError> {
    let (mut options, numbers) = (args.options(), Numbers::open(&args.metrics, "api").await?);
    options.metrics = numbers.http();
    // What is wrong with it is better known before the broker is waited for.
    let listening = api::listen(&options).await?;
    let connect = connect::options(global, "api", CONNECT)?;
    let signals = signals::stop()?;
    let stop = signals.token.clone();
    let Some(broker) = patiently(&connect, &stop, Broker::connect).await else { return Ok(()) };
    let broker = broker.attempt("cannot start the API")?;
    numbers.without_traces().during(&connect, api::serve(options, listening, broker, stop)).await
}

/// Prints a new key: the seed for supervisors, and what nats-server's configuration names.
///
/// # Errors
/// When stdout is closed.
pub(crate) fn auth_key(global: &Global) -> Result<(), ApiError> {
    let key = AuthKey::random();
    let seed = key
        .seed()
        .map_err(|error| failure::error(failure::FAILED, "cannot make a key", error, ""))?;
    if global.output == Output::Json {
        let (issuer, xkey) = (key.issuer(), key.xkey());
        return output::json(
            &serde_json::json!({ "seed": seed, "issuer": issuer, "xkey": xkey, "nobody": key.nobody() }),
        );
    }
    output::line(format!("MOZART_AUTH_SEED={seed}"))?;
    output::line(format!("MOZART_AUTH_ISSUER={}", key.issuer()))?;
    output::line(format!("MOZART_AUTH_XKEY={}", key.xkey()))?;
    output::line(format!("MOZART_AUTH_NOBODY={}", key.nobody()))
}

/// An id that tells supervisors apart: host and process.
fn default_id() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{}", std::process::id())
}

/// Runs a node. Waits for a broker, and for the streams that the first supervisor creates, if they do not exist yet.
///
/// # Errors
/// When the broker refuses it, or no shim is found.
pub(crate) async fn node(global: &Global, args: NodeArgs) -> Result<(), ApiError> {
    let Some(node) = args.name else {
        return Err(failure::error(failure::USAGE, "the node has no name", "", "--name NAME"));
    };
    let signals = signals::stop()?;
    let stop = signals.token.clone();
    let home = Home::locate(global.home.as_deref())?;
    home.create()?;
    let folder = home.claim()?;
    let connect = connect::options_of_node(global, &node, CONNECT)?;
    let runtime = args.runtime.options();
    let numbers = Numbers::open(&args.metrics, "node").await?;
    let options = NodeOptions {
        name: node,
        labels: args.labels,
        capacity: runtime.capacity.or(runtime::capacity::found()),
        logins: args.agent_logins || connect.node().is_some(),
        connect,
        run: home.run(),
        home: home.dir,
        folder,
        shim: binaries::shim()?,
        engine: Connection::find(runtime.runtime).await?,
        runtime,
        traces: numbers.share(),
        metrics: numbers.node(),
        serves: CancellationToken::new(),
    };
    let connect = options.connect.clone();
    let Some(broker) = patiently(&options.connect, &stop, Broker::connect).await else {
        return Ok(());
    };
    let broker = broker.attempt("cannot start the node")?;
    numbers.without_traces().during(&connect, node::serve(options, broker, stop)).await
}
