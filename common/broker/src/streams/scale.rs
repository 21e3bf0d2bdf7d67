//! More replicas for the streams of a cluster that has grown.

use std::time::Duration;

use common::subject::Subjects;
use futures_util::StreamExt as _;

use super::{Made, Plan, REPLICAS, made};
use crate::api::{StreamInfo, code};
use crate::error::{BrokerError, Result};
use crate::wire::Wire;

/// Streams that are asked for at once.
const SIDE_BY_SIDE: usize = 16;

/// How many streams have all the replicas that they are to have, of how many. With `changes`, those of a growing cluster get three each if
/// there are three servers.
pub(crate) async fn scale(
    wire: &Wire,
    subjects: &Subjects,
    changes: bool,
    timeout: Duration,
) -> Result<Scaled> {
    let plan =
        Plan { subjects: subjects.clone(), replicas: REPLICAS, clustered: true, grows: true };
    let names: Vec<String> = std::iter::once(plan.control())
        .chain(plan.others())
        .filter_map(|config| Some(config["name"].as_str()?.to_owned()))
        .collect();
    let mut scaled = Scaled { of: names.len(), ..Scaled::default() };
    // Side by side: those that have no leader just now cost the time of one.
    let asked = names.into_iter().map(async |name| (wire.stream_info(&name, timeout).await, name));
    let mut asked = futures_util::stream::iter(asked).buffered(SIDE_BY_SIDE);
    while let Some((told, name)) = asked.next().await {
        let info = match told {
            Ok(Ok(info)) => info,
            Ok(Err(error)) if error.err_code == code::STREAM_NOT_FOUND => continue,
            Ok(Err(error)) => return Err(error.into()),
            // Without a leader just now: it has not what it is to have.
            Err(BrokerError::Timeout(_)) if !changes => continue,
            Err(error) => return Err(error),
        };
        let Made { replicas, grows, .. } = made(&info)?;
        if replicas >= REPLICAS || !grows {
            scaled.ready += usize::from(info.cluster.is_complete(replicas));
            continue;
        }
        if !changes {
            continue;
        }
        let mut config = info.config;
        config["num_replicas"] = REPLICAS.into();
        match wire.api::<StreamInfo>(&format!("STREAM.UPDATE.{name}"), &config, timeout).await? {
            Ok(_) => scaled.changed += 1,
            Err(error) if error.err_code == code::TOO_FEW_SERVERS => {
                scaled.lacks_servers = true;
                return Ok(scaled);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(scaled)
}

/// How far the streams of a namespace have got to three replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scaled {
    /// The streams that were changed just now.
    pub changed: usize,
    /// Those whose replicas are all there and have everything.
    pub ready: usize,
    /// All streams.
    pub of: usize,
    /// Whether there are fewer than three servers.
    pub lacks_servers: bool,
}
