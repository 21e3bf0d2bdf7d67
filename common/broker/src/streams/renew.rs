//! EVENTS of a cluster is in memory, and its group elects no leader when most of its servers have come back without it: nats-server counts
//! the votes of servers with an empty log only when all servers have voted (`runAsCandidate` in raft.go, 2.15). Its records are lost to
//! everybody until the last server is back. It is made anew instead: what it had is in the final states, but for what is being streamed.

use std::time::Duration;

use common::subject::Subjects;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Plan, REPLICAS, ensure};
use crate::api::code;
use crate::error::{BrokerError, Result};
use crate::wire::Wire;

/// Whether EVENTS can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventsAre {
    /// It has a leader.
    Led,
    /// It has none, as far as the connection's server reaches.
    Leaderless,
    /// There is no such stream.
    Missing,
}

#[derive(Deserialize)]
struct Deleted {}

fn wanted(subjects: &Subjects) -> Value {
    let (replicas, clustered, grows) = (REPLICAS, true, true);
    Plan { subjects: subjects.clone(), replicas, clustered, grows }.events()
}

pub(crate) async fn events_are(
    wire: &Wire,
    subjects: &Subjects,
    timeout: Duration,
) -> Result<EventsAre> {
    match wire.stream_info(&subjects.stream("EVENTS"), timeout).await {
        Ok(Ok(_)) => Ok(EventsAre::Led),
        Ok(Err(error)) if error.err_code == code::STREAM_NOT_FOUND => Ok(EventsAre::Missing),
        Ok(Err(error)) => Err(error.into()),
        Err(BrokerError::Timeout(_)) => Ok(EventsAre::Leaderless),
        Err(error) => Err(error),
    }
}

/// Removes EVENTS, if it is there, and makes it anew.
pub(crate) async fn renew_events(
    wire: &Wire,
    subjects: &Subjects,
    timeout: Duration,
) -> Result<()> {
    let delete = format!("STREAM.DELETE.{}", subjects.stream("EVENTS"));
    match wire.api::<Deleted>(&delete, &json!({}), timeout).await? {
        Ok(Deleted {}) => {}
        Err(error) if error.err_code == code::STREAM_NOT_FOUND => {}
        Err(error) => return Err(error.into()),
    }
    ensure(wire, wanted(subjects), timeout).await.map(drop)
}
