//! The engine that containers run in here: found at the start, or looked for until there is one that can be used.

use std::time::Duration;

use broker::Broker;
use common::api::ApiError;
use common::failure;
use runtime::Wanted;
use runtime::engine::{Connection, Engine, EngineOptions, Kind, noted};
use runtime::folder::RunFolders;
use tokio::sync::mpsc;

use super::{Access, NodeOptions};

/// The pauses between two looks at an engine that cannot be used: the first, and what they grow to.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// The reason is part of each report, and of the control log: no longer than this.
const REASON: usize = 200;

/// What there is to run containers in.
#[derive(Debug)]
pub(super) enum Found {
    /// This.
    Usable(Engine),
    /// An engine answers, and cannot be used, as a node reports it: `docker: network x not found`.
    Unusable(String),
    /// No engine answers.
    Nothing,
}

impl Found {
    /// Why an engine that answers cannot be used.
    pub(super) fn why(&self) -> Option<&str> {
        match self {
            Self::Unusable(why) => Some(why),
            Self::Usable(_) | Self::Nothing => None,
        }
    }
}

/// The container runtime with the engine that was found. If processes are sufficient, an engine that cannot be used is ignored.
pub(super) async fn first(
    options: &NodeOptions,
    broker: &Broker,
    fleet: &str,
    folders: &RunFolders,
) -> Result<(Found, Search), ApiError> {
    let search = Search {
        wanted: options.runtime.runtime,
        options: engine_options(options, broker, fleet, folders),
    };
    let Some(connection) = options.engine.clone() else {
        return all_can_be_seen(folders, None).map(|()| (Found::Nothing, search));
    };
    all_can_be_seen(folders, Some(connection.kind))?;
    match search.open(connection.clone()).await {
        Ok(engine) => Ok((Found::Usable(engine), search)),
        Err(error) if search.wanted == Wanted::Auto => {
            all_can_be_seen(folders, None)?;
            tracing::warn!("{}: {}; try: {}", error.what, error.cause, error.try_);
            Ok((Found::Unusable(reason(connection.kind, &error)), search))
        }
        Err(error) => Err(error),
    }
}

fn engine_options(
    options: &NodeOptions,
    broker: &Broker,
    fleet: &str,
    folders: &RunFolders,
) -> EngineOptions {
    let access = Access::of(options, broker);
    EngineOptions {
        node: options.name.clone(),
        namespace: broker.subjects().namespace().clone(),
        fleet: fleet.to_owned(),
        folder: options.folder.clone(),
        folders: folders.clone(),
        shim: options.shim.clone(),
        url: access.url,
        creds: access.creds,
        ca: options.connect.ca.clone(),
        logins: access.logins,
        traces: options.traces,
        network: options.runtime.network.clone(),
        base_image: options.runtime.base_image.clone(),
        dev: options.runtime.dev,
        env_file: options.runtime.env_file.clone(),
        home: options.home.clone(),
    }
}

/// As a node reports it: one line, of bounded length.
fn reason(kind: Kind, error: &ApiError) -> String {
    let cause = error.cause.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{}: {}", kind.as_str(), cause.chars().take(REASON).collect::<String>())
}

/// Looks for an engine again.
#[derive(Debug)]
pub(super) struct Search {
    wanted: Wanted,
    options: EngineOptions,
}

impl Search {
    /// Whether an engine that appears later is used. One that is asked for by name is there from the start, or the node does not start.
    pub(super) fn goes_on(&self) -> bool {
        self.wanted == Wanted::Auto
    }

    /// Tells each change, until there is an engine that can be used or nobody listens.
    pub(super) async fn go_on(self, mut last: Option<String>, news: mpsc::Sender<Found>) {
        let (mut pause, most) = PAUSES;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(most);
            let found = self.look().await;
            let is_usable = matches!(found, Found::Usable(_));
            if !is_usable && found.why() == last.as_deref() {
                continue;
            }
            last = found.why().map(str::to_owned);
            if news.send(found).await.is_err() || is_usable {
                return;
            }
        }
    }

    async fn look(&self) -> Found {
        let Ok(Some(connection)) = Connection::find(self.wanted).await else {
            return Found::Nothing;
        };
        let kind = connection.kind;
        match self.open(connection).await {
            Ok(engine) => Found::Usable(engine),
            Err(error) => Found::Unusable(reason(kind, &error)),
        }
    }

    async fn open(&self, connection: Connection) -> Result<Engine, ApiError> {
        let (kind, version, address) =
            (connection.kind.as_str(), connection.version.clone(), connection.address.clone());
        let engine = Engine::new(connection, self.options.clone()).await?;
        tracing::info!("containers run in {kind} {version} at {address}");
        Ok(engine)
    }
}

/// Makes sure that the engine is the one in which agents of this node run as far as is noted: without it they would count as ended,
/// and be started once more beside themselves.
fn all_can_be_seen(folders: &RunFolders, kind: Option<Kind>) -> Result<(), ApiError> {
    for (agent, incarnation) in folders.list() {
        let run = folders.of(&agent, incarnation);
        let Some(container) = noted(&run) else { continue };
        let is_seen = kind.is_some_and(|kind| container.engine == kind.as_str());
        if is_seen || folders.last_words(&agent, incarnation).is_some() {
            continue;
        }
        let engine = container.engine;
        let cause =
            format!("{agent}-{incarnation} runs in a container of {engine}, which does not answer");
        let try_ = format!(
            "start {engine}, or --runtime {engine}; if it is gone for good, remove {}",
            run.display()
        );
        return Err(failure::error(failure::UNREACHABLE, "cannot start the node", cause, try_));
    }
    Ok(())
}
