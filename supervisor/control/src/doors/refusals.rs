//! Refusals, recorded at a limited rate: an agent that tries something a thousand times a second is told of once in ten seconds.

use std::collections::HashMap;
use std::time::SystemTime;

use broker::{Broker, Moment};
use common::AgentName;
use common::security::{Refusal, SecurityEvent};
use common::tally::Tally;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

/// Kinds of refusals that are counted apart, at most; beyond it all are forgotten, and counted anew.
const KINDS: usize = 4096;
/// Records on their way, at most: others are only logged.
const ON_THE_WAY: usize = 64;

/// What was refused to whom.
pub(super) struct Refused {
    pub(super) kind: Refusal,
    pub(super) agent: Option<AgentName>,
    pub(super) incarnation: Option<u64>,
    pub(super) detail: String,
}

/// Counts and records them.
pub(super) struct Refusals {
    broker: Broker,
    by: String,
    tallies: HashMap<(Option<AgentName>, Refusal), Tally>,
    recording: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Refusals {
    pub(super) fn new(broker: Broker, by: String) -> Self {
        Self { broker, by, tallies: HashMap::new(), recording: FuturesUnordered::new() }
    }

    pub(super) fn note(&mut self, refused: Refused) {
        let Refused { kind, agent, incarnation, detail } = refused;
        if self.tallies.len() >= KINDS {
            self.tallies.clear();
        }
        let tally = self.tallies.entry((agent.clone(), kind)).or_default();
        let Some(others) = tally.count(Moment::now().since_boot_ms()) else { return };
        let of = match (&agent, incarnation) {
            (Some(agent), Some(incarnation)) => format!(" of {agent}-{incarnation}"),
            (Some(agent), None) => format!(" of {agent}"),
            (None, _) => String::new(),
        };
        tracing::warn!("refused a {}{of}: {detail}{others}", kind.as_str());
        if self.recording.len() >= ON_THE_WAY {
            return;
        }
        let at = SystemTime::now().into();
        let by = self.by.clone();
        let event = SecurityEvent { at, kind, agent, incarnation, detail, by, others: others.0 };
        let broker = self.broker.clone();
        self.recording.push(Box::pin(async move {
            if let Err(error) = broker.record_refusal(&event).await {
                tracing::warn!("cannot record a refusal: {error}");
            }
        }));
    }

    /// Records what is on its way, forever.
    pub(super) async fn record(&mut self) {
        loop {
            if self.recording.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }
}

