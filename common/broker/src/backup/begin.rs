//! How a restore begins and ends: in a namespace that is empty, and that nobody can use meanwhile.

use common::message::MessageKey;
use common::subject::{FLEET, Subjects};
use common::{AgentName, Timestamp};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::api::code;
use crate::connecting::open;
use crate::connection::{Broker, ConnectOptions, election};
use crate::error::{BrokerError, Result};
use crate::streams::{self, StreamOptions};
use crate::wire::{CALL, Wire};

/// Messages that are looked for at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Deserialize)]
struct Names {
    #[serde(default)]
    total: usize,
    #[serde(default)]
    streams: Option<Vec<String>>,
}

impl Broker {
    /// Makes the streams of a namespace anew, to be filled. Until [`Broker::end_restore`] every supervisor and client refuses the namespace. What
    /// an earlier, interrupted restore has left is removed. The control log begins with sequence `first`.
    ///
    /// # Errors
    /// [`BrokerError::NotEmpty`] when there are agents or messages; when the broker does not answer, or does not take the streams.
    pub async fn begin_restore(
        options: &ConnectOptions,
        made: &StreamOptions,
        first: u64,
    ) -> Result<Self> {
        let deadline = Instant::now() + options.timeout;
        let wire = open(options, deadline).await?;
        let patience = options.timeout.max(3 * CALL).max(election(&wire));
        let subjects = Subjects::new(options.namespace.clone(), 1);
        remove_empty(&wire, &subjects).await?;
        let streams =
            streams::create_to_restore(&wire, &options.namespace, made, first, patience).await?;
        Ok(Self::new(wire, options, streams))
    }

    /// Whether a restore to a namespace could begin.
    ///
    /// # Errors
    /// As [`Broker::begin_restore`].
    pub async fn may_restore(options: &ConnectOptions) -> Result<()> {
        let wire = open(options, Instant::now() + options.timeout).await?;
        let subjects = Subjects::new(options.namespace.clone(), 1);
        check_empty(&wire, &subjects).await.map(drop)
    }

    /// From now on the namespace can be used.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn end_restore(&self) -> Result<()> {
        streams::restored(self.wire(), self.subjects(), 3 * CALL).await
    }

    /// The open messages of an agent, oldest first, after its journal and HISTORY were filled. A message that was moved to HISTORY while the
    /// backup was taken may look open in the journal: its request is removed. So is a dead letter of a message that is open.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn open_after_restore(
        &self,
        agent: &AgentName,
    ) -> Result<Vec<(MessageKey, Timestamp)>> {
        let scan = self.open_requests(agent, 1, usize::MAX).await?;
        let looked = scan.open.into_iter().map(|(seq, key, at)| {
            let broker = self.clone();
            async move {
                let archived = broker.archived_of(&key).await?.is_some();
                Ok::<_, BrokerError>((seq, key, at, archived))
            }
        });
        let looked = futures_util::stream::iter(looked).buffered(AT_ONCE);
        let looked: Vec<_> = looked.try_collect().await?;
        let (archived, open): (Vec<_>, Vec<_>) =
            looked.into_iter().partition(|(.., archived)| *archived);
        let stream = self.journal_stream(agent);
        self.remove(&stream, archived.iter().map(|(seq, ..)| *seq).collect(), false).await?;
        if !open.is_empty() {
            let stream = self.subjects().stream("DEAD");
            let letters = self.wire().index(&stream, &self.subjects().dead_of(agent)).await?;
            for (_, key, ..) in &open {
                let subject = self.subjects().dead(key);
                if letters.subjects.contains_key(&subject) {
                    self.wire().purge(&stream, &subject).await?;
                }
            }
        }
        Ok(open.into_iter().map(|(_, key, at, _)| (key, at)).collect())
    }
}

/// The streams of a namespace, the control log last: it says what the others are.
async fn names(wire: &Wire, subjects: &Subjects) -> Result<Vec<String>> {
    // A cluster that was just started elects first.
    let patience = CALL.max(election(wire));
    let mut names = Vec::new();
    loop {
        let body = json!({ "subject": subjects.all(), "offset": names.len() });
        let page: Names = wire.api("STREAM.NAMES", &body, patience).await??;
        let some = page.streams.unwrap_or_default();
        let is_last = some.is_empty();
        names.extend(some);
        if is_last || names.len() >= page.total {
            break;
        }
    }
    // Somebody's own stream may take the same subjects: that is not ours to remove.
    let ours = subjects.stream("");
    names.retain(|name| name.starts_with(&ours));
    let control = subjects.stream("CONTROL");
    names.sort_by_key(|name| *name == control);
    Ok(names)
}

/// The streams of a namespace in which there is nothing that anybody would miss: no agents and no messages, or what an interrupted
/// restore has left.
async fn check_empty(wire: &Wire, subjects: &Subjects) -> Result<Vec<String>> {
    let names = names(wire, subjects).await?;
    let control = subjects.stream("CONTROL");
    if names.contains(&control)
        && streams::is_restoring(&wire.stream_info(&control, CALL).await??.config)
    {
        return Ok(names);
    }
    let namespace = subjects.namespace().to_string();
    for name in &names {
        let info = match wire.stream_info(name, CALL).await? {
            Ok(info) => info,
            Err(error) if error.err_code == code::STREAM_NOT_FOUND => continue,
            Err(error) => return Err(error.into()),
        };
        let held = if *name == control {
            let index = wire.index(name, &subjects.control_filter()).await?;
            let is_agents = |subject: &&String| !subject.ends_with(&format!(".{FLEET}"));
            let agents = index.subjects.keys().filter(is_agents).count();
            (agents > 0).then(|| format!("there are records of {agents} agents"))
        } else {
            // A snapshot is of what the control log says.
            let counts = *name != subjects.stream("SNAPSHOTS") && info.state.messages > 0;
            counts.then(|| format!("{name} has {} records", info.state.messages))
        };
        if let Some(what) = held {
            return Err(BrokerError::NotEmpty { namespace, what });
        }
    }
    Ok(names)
}

async fn remove_empty(wire: &Wire, subjects: &Subjects) -> Result<()> {
    let names = check_empty(wire, subjects).await?;
    let lease = format!("KV_{}", subjects.lease_bucket());
    // The mark of an interrupted restore is in the control log, which goes last.
    for name in std::iter::once(&lease).chain(&names) {
        wire.delete_stream(name).await?;
    }
    Ok(())
}
