//! What a measurement stands on: a folder, a server, and the sides on it.

use std::path::PathBuf;
use std::time::Duration;

use broker::{AuthKey, ConnectOptions};
use common::Namespace;
use tempfile::TempDir;

use crate::fleet::Fleet;
use crate::ours::Ours;
use crate::outcome::Result;
use crate::raw::Raw;
use crate::server::{Server, Sync};

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many pairs a figure is the median of.
    pub(crate) pairs: u32,
    /// How often agents are replaced in all.
    pub(crate) replacements: u32,
    /// How many trials a time is the median of.
    pub(crate) trials: u32,
    /// How long a link is cut.
    pub(crate) cut: Duration,
    /// How many messages have finished.
    pub(crate) messages: u32,
    /// How many records a long control log has.
    pub(crate) records: u64,
    /// How many agents a large fleet has; none for what the scenario is made for.
    pub(crate) agents: Option<usize>,
    /// How many open messages each agent has.
    pub(crate) open: u32,
    /// Journal streams where every write is synced, if it is not as usual.
    pub(crate) shards: Option<u32>,
    /// How long one measurement takes.
    pub(crate) window: Duration,
    /// Where the data goes.
    pub(crate) data: PathBuf,
    /// Goal numbers and parts of names; empty for all.
    pub(crate) which: Vec<String>,
}

impl Plan {
    /// Whether a goal is asked for, where one run could give several.
    pub(crate) fn wants(&self, goal: u8) -> bool {
        let mut numbers = self.which.iter().filter_map(|which| which.parse::<u8>().ok()).peekable();
        numbers.peek().is_none() || numbers.any(|number| number == goal)
    }
}

/// A server with its folder.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) sync: Sync,
    /// Journal streams, of every side.
    pub(crate) shards: u32,
    pub(crate) folder: TempDir,
}

impl Rig {
    pub(crate) async fn new(plan: &Plan, sync: Sync) -> Result<Self> {
        Self::with(plan, sync, None).await
    }

    /// The same on a cluster of three servers.
    pub(crate) async fn on_three(plan: &Plan, sync: Sync) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mozart-bench-").tempdir_in(&plan.data)?;
        let server = Server::start_three(folder.path(), sync).await?;
        Ok(Self { server, sync, shards: plan.shards.unwrap_or(sync.shards()), folder })
    }

    /// The same; with a key, shims log in with rights of their own.
    pub(crate) async fn with(plan: &Plan, sync: Sync, key: Option<AuthKey>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mozart-bench-").tempdir_in(&plan.data)?;
        let server = Server::start(folder.path(), sync, key).await?;
        let always = plan.shards.filter(|_| sync == Sync::Always);
        let shards = always.unwrap_or(sync.shards());
        Ok(Self { server, sync, shards, folder })
    }

    /// The same, and all connections are encrypted.
    pub(crate) async fn secured(plan: &Plan, sync: Sync) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mozart-bench-").tempdir_in(&plan.data)?;
        let server = Server::start_secured(folder.path(), sync, AuthKey::random()).await?;
        Ok(Self { server, sync, shards: sync.shards(), folder })
    }

    /// How a client of a fleet connects.
    pub(crate) fn connect(url: &str, namespace: &Namespace) -> ConnectOptions {
        ConnectOptions {
            url: url.to_owned(),
            creds: None,
            ca: None,
            name: "mozart bench".to_owned(),
            namespace: namespace.clone(),
            timeout: Duration::from_secs(10),
            shim: None,
        }
    }

    /// A Mozart fleet of `agents` with the same soul, and a client of it.
    pub(crate) async fn ours(&self, agents: usize, soul: &str) -> Result<(Fleet, Ours)> {
        let fleet = Fleet::start(self, "ours", agents, soul).await?;
        let client = Ours::connect(&fleet).await?;
        Ok((fleet, client))
    }

    /// As many raw loops, and a client of them.
    pub(crate) async fn raw(&self, agents: usize) -> Result<Raw> {
        Raw::start(self, "raw", agents).await
    }
}
