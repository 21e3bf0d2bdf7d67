//! Refusals, recorded at a limited rate: an agent that tries something a thousand times a second is told of once in ten seconds.

use std::collections::HashMap;
use std::time::SystemTime;

use broker::{Broker, Moment};
use common::security::{Refusal, SecurityEvent};
use common::tally::Tally;
use common::{AgentName, NodeName, SenderName};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use metrics::Fleet;

/// Kinds of refusals that are counted apart, at most; beyond it all are forgotten, and counted anew.
const KINDS: usize = 4096;
/// Records on their way, at most: others are only logged.
const ON_THE_WAY: usize = 64;

/// What was refused to whom.
#[derive(Debug)]
pub struct Refused {
    /// What it was.
    pub kind: Refusal,
    /// The agent, where that is certain.
    pub agent: Option<AgentName>,
    /// Its incarnation.
    pub incarnation: Option<u64>,
    /// The user, if it was one.
    pub user: Option<SenderName>,
    /// The node, if it was one.
    pub node: Option<NodeName>,
    /// What was tried, and why it was refused.
    pub detail: String,
}

/// Counts and records them.
pub struct Refusals {
    broker: Broker,
    by: String,
    tallies: HashMap<(Option<String>, Refusal), Tally>,
    recording: FuturesUnordered<BoxFuture<'static, ()>>,
    metrics: Option<Fleet>,
}

impl Refused {
    /// Something that an incarnation tried.
    #[must_use]
    pub fn to_agent(kind: Refusal, agent: AgentName, incarnation: u64, detail: String) -> Self {
        let (agent, incarnation) = (Some(agent), Some(incarnation));
        Self { agent, incarnation, ..Self::to_stranger(kind, detail) }
    }

    /// Something that a user tried.
    #[must_use]
    pub fn to_user(kind: Refusal, user: SenderName, detail: String) -> Self {
        Self { user: Some(user), ..Self::to_stranger(kind, detail) }
    }

    /// Something that a node with a login of its own tried.
    #[must_use]
    pub fn to_node(kind: Refusal, node: NodeName, detail: String) -> Self {
        Self { node: Some(node), ..Self::to_stranger(kind, detail) }
    }

    /// Something that somebody without a name tried.
    #[must_use]
    pub fn to_stranger(kind: Refusal, detail: String) -> Self {
        Self { kind, agent: None, incarnation: None, user: None, node: None, detail }
    }
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusals").field("by", &self.by).finish_non_exhaustive()
    }
}

impl Refusals {
    /// `by`: who refuses. `metrics`: where they are counted, if anywhere.
    #[must_use]
    pub fn new(broker: Broker, by: String, metrics: Option<Fleet>) -> Self {
        Self { broker, by, tallies: HashMap::new(), recording: FuturesUnordered::new(), metrics }
    }

    /// Takes note of one. It is recorded as [`Refusals::record`] is polled.
    pub fn note(&mut self, refused: Refused) {
        let Refused { kind, agent, incarnation, user, node, detail } = refused;
        if let Some(metrics) = &self.metrics {
            metrics.refused(kind);
        }
        if self.tallies.len() >= KINDS {
            self.tallies.clear();
        }
        let who = match (&node, &user, &agent) {
            (Some(node), _, _) => Some(format!("node {node}")),
            (None, Some(user), _) => Some(format!("user {user}")),
            (None, None, Some(agent)) => Some(agent.to_string()),
            (None, None, None) => None,
        };
        let tally = self.tallies.entry((who.clone(), kind)).or_default();
        let Some(others) = tally.count(Moment::now().since_boot_ms()) else { return };
        let of = match (who, &agent, incarnation) {
            (Some(_), Some(agent), Some(incarnation)) => format!(" of {agent}-{incarnation}"),
            (Some(who), _, _) => format!(" of {who}"),
            (None, _, _) => String::new(),
        };
        tracing::warn!("refused a {}{of}: {detail}{others}", kind.as_str());
        if self.recording.len() >= ON_THE_WAY {
            return;
        }
        let at = SystemTime::now().into();
        let by = self.by.clone();
        let event = SecurityEvent {
            at,
            kind,
            agent,
            incarnation,
            user,
            node,
            detail,
            by,
            others: others.0,
        };
        let broker = self.broker.clone();
        self.recording.push(Box::pin(async move {
            if let Err(error) = broker.record_refusal(&event).await {
                tracing::warn!("cannot record a refusal: {error}");
            }
        }));
    }

    /// Records what is on its way, forever.
    pub async fn record(&mut self) {
        loop {
            if self.recording.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }
}
