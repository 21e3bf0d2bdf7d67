//! The streams of a namespace: created idempotently, and read back, since old servers ignore settings that they do not know.

mod names;
mod plan;
mod renew;
mod scale;

use std::time::Duration;

use common::Namespace;
use common::subject::Subjects;
use futures_util::future::try_join_all;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::api::{StreamInfo, code};
use crate::error::{BrokerError, Result};
use crate::wire::{Wire, pause};

/// The format of subjects, streams and records. 2: a message is named by agent, sender and id in every subject, and its
/// conversation is in the journal's.
const FORMAT: u32 = 2;
/// The format of a namespace that is being restored: every build refuses it, also those that know nothing of this.
const RESTORING: u32 = u32::MAX;
const FORMAT_KEY: &str = "mozart-format";
const SHARDS_KEY: &str = "mozart-shards";
/// Set where nobody has said how many replicas there are to be.
const GROWS_KEY: &str = "mozart-replicas";
const GROWS: &str = "auto";

pub(crate) use self::names::STREAMS;
pub use self::renew::EventsAre;
pub(crate) use self::renew::{events_are, renew_events};
pub use self::scale::Scaled;
pub(crate) use self::scale::scale;

/// Above the server's default of 1000: every incarnation has a consumer.
const MAX_CONSUMERS: u32 = 20_000;

/// On a cluster: one server may be lost.
pub(crate) const REPLICAS: usize = 3;

/// How long events and logs are kept at most, whatever an agent's KEEP says.
pub const LONGEST_KEPT: Duration = Duration::from_secs(72 * 3600);

/// How many records of a schedule are kept: a bit more than a day of one that runs every ten minutes.
const SCHEDULE_RECORDS: u32 = 200;

/// How many records LATER takes: the leader keeps some 300 bytes of each in memory.
pub(crate) const LATER_RECORDS: u64 = 1_000_000;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;

/// How the streams of a new namespace are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Journal streams: 4 where every write is synced, since synced writes to one stream do not run in parallel.
    pub journal_shards: u32,
    /// Copies of each record; none: as many as there are servers for. 1 on a server alone; on a cluster 3, or 1 until it has three servers
    /// and [`Broker::scale`](crate::Broker::scale) has made them 3.
    pub replicas: Option<usize>,
}

/// How they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) shards: u32,
    pub(crate) replicas: usize,
    /// Whether the streams become [`REPLICAS`] once there are the servers.
    pub(crate) grows: bool,
}

/// Settings that belong to the operator once the stream exists, or that no server changes.
const KEPT: [&str; 9] = [
    "storage",
    "persist_mode",
    "num_replicas",
    "max_consumers",
    "max_age",
    "max_bytes",
    "max_msgs",
    "max_msgs_per_subject",
    "retention",
];

/// Settings that a server may ignore silently.
const CHECKED: [&str; 9] = [
    "allow_atomic",
    "allow_direct",
    "allow_msg_ttl",
    "discard",
    "duplicate_window",
    "max_consumers",
    "persist_mode",
    "republish",
    "storage",
];

/// Reads how a namespace's streams were made. CONTROL is asked, since its name does not depend on the answer.
pub(crate) async fn find(wire: &Wire, namespace: &Namespace, timeout: Duration) -> Result<Made> {
    let name = Subjects::new(namespace.clone(), 1).stream("CONTROL");
    match wire.stream_info(&name, timeout).await? {
        Ok(info) => made(&info),
        Err(error) if error.err_code == code::STREAM_NOT_FOUND => {
            Err(BrokerError::NoStreams(namespace.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates what is missing. CONTROL comes first: its creator decides the shard count, also when two try at once.
pub(crate) async fn create(
    wire: &Wire,
    namespace: &Namespace,
    options: &StreamOptions,
    timeout: Duration,
) -> Result<Made> {
    let made = control(wire, namespace, options, timeout).await?;
    let plan = Plan {
        subjects: Subjects::new(namespace.clone(), made.shards),
        replicas: made.replicas,
        clustered: is_clustered(wire),
        grows: made.grows,
    };
    let others = plan.others().into_iter();
    try_join_all(others.map(|config| ensure(wire, config, timeout))).await?;
    Ok(made)
}

pub(crate) fn is_clustered(wire: &Wire) -> bool {
    wire.client.server_info().cluster.is_some()
}

/// Creates CONTROL, with as many replicas as there are servers for.
async fn control(
    wire: &Wire,
    namespace: &Namespace,
    options: &StreamOptions,
    timeout: Duration,
) -> Result<Made> {
    made(&ensure(wire, plan(wire, namespace, options).control(), timeout).await?)
}

/// What a new namespace is to have.
fn plan(wire: &Wire, namespace: &Namespace, options: &StreamOptions) -> Plan {
    let clustered = is_clustered(wire);
    let replicas = options.replicas.unwrap_or(if clustered { REPLICAS } else { 1 }).max(1);
    let grows = clustered && options.replicas.is_none();
    let subjects = Subjects::new(namespace.clone(), options.journal_shards);
    Plan { subjects, replicas, clustered, grows }
}

fn made(info: &StreamInfo) -> Result<Made> {
    check_format(&info.config)?;
    let shards = metadata(&info.config, SHARDS_KEY).unwrap_or(1);
    let replicas = info.config["num_replicas"].as_u64().unwrap_or(1);
    let grows = info.config["metadata"][GROWS_KEY] == GROWS;
    Ok(Made { shards, replicas: usize::try_from(replicas).unwrap_or(1), grows })
}

/// The namespace, by the name of its control log.
fn namespace(config: &Value) -> String {
    let name = config["name"].as_str().unwrap_or_default();
    let name = name.strip_prefix("MOZART_").unwrap_or(name);
    name.strip_suffix("_CONTROL").unwrap_or(name).to_owned()
}

/// Whether a namespace is being restored, by its control log.
pub(crate) fn is_restoring(config: &Value) -> bool {
    metadata(config, FORMAT_KEY) == Some(RESTORING)
}

/// Creates the streams of a namespace that has none, for a restore: nobody can use them until [`restored`]. The control log begins with
/// a sequence.
pub(crate) async fn create_to_restore(
    wire: &Wire,
    namespace: &Namespace,
    options: &StreamOptions,
    first: u64,
    timeout: Duration,
) -> Result<Made> {
    let plan = plan(wire, namespace, options);
    let mut control = in_batches(plan.control());
    control["first_seq"] = first.into();
    control["metadata"][FORMAT_KEY] = RESTORING.to_string().into();
    let mut info = ensure(wire, control, timeout).await?;
    info.config["metadata"][FORMAT_KEY] = FORMAT.to_string().into();
    let made = made(&info)?;
    let plan = Plan { replicas: made.replicas, grows: made.grows, ..plan };
    let others = plan.others().into_iter().map(in_batches);
    try_join_all(others.map(|config| ensure(wire, config, timeout))).await?;
    Ok(made)
}

/// A stream that is filled in batches, each of them synced once: not one that is not synced at all.
fn in_batches(mut config: Value) -> Value {
    if config["persist_mode"].is_null() && config["storage"] == "file" {
        config["allow_atomic"] = true.into();
    }
    config
}

/// From now on the namespace can be used.
pub(crate) async fn restored(wire: &Wire, subjects: &Subjects, timeout: Duration) -> Result<()> {
    // What they are otherwise is as it was created; the control log, which unlocks all of them, comes last.
    let plan = Plan { subjects: subjects.clone(), replicas: 1, clustered: false, grows: false };
    for wanted in plan.others().into_iter().chain([plan.control()]) {
        let name = wanted["name"].as_str().unwrap_or_default();
        let existing = wire.stream_info(name, timeout).await??.config;
        let mut config = existing.clone();
        config["allow_atomic"] = wanted["allow_atomic"].as_bool().unwrap_or(false).into();
        if is_restoring(&config) {
            config["metadata"][FORMAT_KEY] = FORMAT.to_string().into();
        }
        if config != existing {
            wire.api::<StreamInfo>(&format!("STREAM.UPDATE.{name}"), &config, timeout).await??;
        }
    }
    Ok(())
}

fn metadata(config: &Value, key: &str) -> Option<u32> {
    config["metadata"][key].as_str()?.parse().ok()
}

fn check_format(config: &Value) -> Result<()> {
    match metadata(config, FORMAT_KEY) {
        Some(RESTORING) => Err(BrokerError::Restoring(namespace(config))),
        Some(found) if found > FORMAT => Err(BrokerError::TooNew { found, known: FORMAT }),
        Some(found) if found < FORMAT => Err(BrokerError::Outdated { found, known: FORMAT }),
        Some(_) | None => Ok(()),
    }
}

/// The wanted configurations.
struct Plan {
    subjects: Subjects,
    replicas: usize,
    /// Several servers, or one that others may join: what a stream cannot change later is as it has to be with replicas.
    clustered: bool,
    grows: bool,
}

/// Creates a stream or brings it up to date.
async fn ensure(wire: &Wire, mut wanted: Value, timeout: Duration) -> Result<StreamInfo> {
    let name = wanted["name"].as_str().unwrap_or_default().to_owned();
    let deadline = Instant::now() + timeout;
    loop {
        let created =
            wire.api::<StreamInfo>(&format!("STREAM.CREATE.{name}"), &wanted, timeout).await?;
        let error = match created {
            Ok(info) => {
                check_taken(&name, &wanted, &info.config)?;
                return Ok(info);
            }
            Err(error) => error,
        };
        if error.err_code == code::STREAM_NAME_IN_USE {
            if let Some(info) = update(wire, &name, &wanted, timeout).await? {
                return Ok(info);
            }
            // On a cluster another one is making it just now: its name is taken, and it is not there yet.
            pause(deadline, timeout).await?;
            continue;
        }
        let grows = wanted["metadata"][GROWS_KEY] == GROWS && wanted["num_replicas"] != 1;
        if error.err_code == code::TOO_FEW_SERVERS && grows {
            // A cluster that is being built has no three servers yet.
            wanted["num_replicas"] = 1.into();
            continue;
        }
        // The server sets `max_bytes` aside at once: on a small disk less will do.
        let smaller = wanted["max_bytes"].as_u64().map(|bytes| bytes / 16);
        match smaller {
            Some(bytes) if code::FULL.contains(&error.err_code) && bytes >= 1 << 20 => {
                // It looks at the room before it looks at the name: one that is there is not made, and keeps its bound.
                if let Some(info) = update(wire, &name, &wanted, timeout).await? {
                    return Ok(info);
                }
                tracing::warn!(
                    stream = name,
                    bytes,
                    "not enough storage: creating a smaller stream"
                );
                wanted["max_bytes"] = bytes.into();
            }
            Some(_) | None => return Err(error.into()),
        }
    }
}

/// Updates what differs from what is wanted and can be changed; none if it is not there.
async fn update(
    wire: &Wire,
    name: &str,
    wanted: &Value,
    timeout: Duration,
) -> Result<Option<StreamInfo>> {
    let info = match wire.stream_info(name, timeout).await? {
        Ok(info) => info,
        Err(error) if error.err_code == code::STREAM_NOT_FOUND => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    check_format(&info.config)?;
    let merged = merge(&info.config, wanted);
    if merged == info.config {
        return Ok(Some(info));
    }
    tracing::info!(stream = name, "updating the stream's configuration");
    let updated =
        wire.api::<StreamInfo>(&format!("STREAM.UPDATE.{name}"), &merged, timeout).await??;
    check_taken(name, &merged, &updated.config)?;
    Ok(Some(updated))
}

/// What exists, with what is wanted laid over it: [`KEPT`] settings and metadata of others stay, and so does the shard count.
fn merge(existing: &Value, wanted: &Value) -> Value {
    let mut merged = existing.clone();
    let empty = Map::new();
    for (key, value) in wanted.as_object().unwrap_or(&empty) {
        if key == "metadata" {
            for (name, value) in value.as_object().unwrap_or(&empty) {
                // That nobody has said how many replicas there are to be is so from the start or never.
                let is_new = existing["metadata"].get(name).is_none();
                let kept = (name == SHARDS_KEY && !is_new) || (name == GROWS_KEY && is_new);
                if !kept {
                    merged["metadata"][name] = value.clone();
                }
            }
        } else if !KEPT.contains(&key.as_str()) {
            merged[key] = value.clone();
        }
    }
    merged
}

fn check_taken(name: &str, wanted: &Value, taken: &Value) -> Result<()> {
    let ignored = CHECKED
        .into_iter()
        .find(|field| wanted.get(field).is_some_and(|value| taken[*field] != *value));
    match ignored {
        Some(field) => Err(BrokerError::NotTaken { stream: name.to_owned(), field }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_operator_tuned_stays() {
        let existing = json!({
            "name": "S", "max_age": 1, "discard": "old",
            "metadata": { "mozart-shards": "4", "theirs": "x" },
        });
        let wanted = json!({
            "name": "S", "max_age": 2, "discard": "new",
            "metadata": { "mozart-shards": "1", "mozart-format": "2" },
        });
        assert_eq!(
            merge(&existing, &wanted),
            json!({
                "name": "S", "max_age": 1, "discard": "new",
                "metadata": { "mozart-shards": "4", "mozart-format": "2", "theirs": "x" },
            })
        );
    }

    #[test]
    fn a_setting_that_came_back_different_is_named() {
        let wanted = json!({ "allow_msg_ttl": true });
        let error = check_taken("S", &wanted, &json!({})).expect_err("it is not there");
        assert!(matches!(error, BrokerError::NotTaken { field: "allow_msg_ttl", .. }));
    }
}
