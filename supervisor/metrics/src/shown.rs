//! What only the leader knows: it puts it here now and then, and each scrape shows the last of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::durations::seconds;

/// What the leader knows of the fleet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shown {
    /// How many agents are in each state.
    pub agents: Vec<(&'static str, u64)>,
    /// Agents that are in quarantine.
    pub quarantined: u64,
    /// Agents whose state is `error`, by name: not more than a bounded number of them.
    pub failing: Vec<String>,
    /// How many nodes are in each state.
    pub nodes: Vec<(&'static str, u64)>,
    /// Messages that are open, over all agents.
    pub queue: u64,
    /// For how long the oldest of them has been, in milliseconds.
    pub oldest_ms: u64,
    /// Those that are with a worker.
    pub turns: u64,
    /// Messages that wait to be delivered later.
    pub later: u64,
    /// The agents with the most open messages: not more than a bounded number of them.
    pub backlogs: Vec<Backlog>,
    /// What the streams hold.
    pub streams: Vec<Stream>,
}

/// What waits for an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The agent.
    pub agent: String,
    /// Its open messages.
    pub messages: u64,
    /// For how long the oldest of them has been open, in milliseconds.
    pub oldest_ms: u64,
}

/// A stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// Its name without the fleet's.
    pub name: String,
    /// Its records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The most bytes that it takes, if it is bounded.
    pub limit: Option<u64>,
    /// How many records it ever had.
    pub last: u64,
}

/// Where it is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Option<Shown>>>);

impl Board {
    pub(crate) fn put(&self, shown: Option<Shown>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

/// One of the numbers, with its labels.
type Sample<'a, V> = (Vec<(&'static str, &'a str)>, V);

struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn gauges<'s, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        samples: impl IntoIterator<Item = Sample<'s, V>>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                metric.encode_family(&Labels(labels))?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

struct Labels<'a>(Vec<(&'static str, &'a str)>);

impl EncodeLabelSet for Labels<'_> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        self.0.as_slice().encode(encoder)
    }
}

impl Collector for Board {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(shown) = shown else { return Ok(()) };
        let mut to = Encoder(encoder);
        let one = |value: u64| [(Vec::new(), value)];
        to.gauges(
            "mozart_agents",
            "Agents by state; only from the leader",
            None,
            shown.agents.iter().map(|(state, count)| (vec![("state", *state)], *count)),
        )?;
        to.gauges(
            "mozart_agents_quarantined",
            "Agents that are not started any more, since they failed too often; only from the leader",
            None,
            one(shown.quarantined),
        )?;
        to.gauges(
            "mozart_agent_failing",
            "1 for each agent whose state is error, for 100 agents at most; only from the leader",
            None,
            shown.failing.iter().map(|agent| (vec![("agent", agent.as_str())], 1_u64)),
        )?;
        to.gauges(
            "mozart_nodes",
            "Nodes by state; only from the leader",
            None,
            shown.nodes.iter().map(|(state, count)| (vec![("state", *state)], *count)),
        )?;
        to.gauges(
            "mozart_queue_messages",
            "Open messages, waiting or with a worker, of all agents; only from the leader",
            None,
            one(shown.queue),
        )?;
        to.gauges(
            "mozart_queue_oldest",
            "For how long the oldest open message has been open; only from the leader",
            Some(&Unit::Seconds),
            [(Vec::new(), seconds(shown.oldest_ms))],
        )?;
        to.gauges(
            "mozart_turns_open",
            "Messages that are with a worker; only from the leader",
            None,
            one(shown.turns),
        )?;
        to.gauges(
            "mozart_later_messages",
            "Messages that wait to be delivered at a later time; only from the leader",
            None,
            one(shown.later),
        )?;
        let backlogs = &shown.backlogs;
        to.gauges(
            "mozart_agent_queue_messages",
            "Open messages of an agent, for the 100 agents with the most; only from the leader",
            None,
            backlogs.iter().map(|one| (vec![("agent", one.agent.as_str())], one.messages)),
        )?;
        to.gauges(
            "mozart_agent_queue_oldest",
            "For how long the oldest open message of an agent has been open, for the same agents; only from the leader",
            Some(&Unit::Seconds),
            backlogs.iter().map(|one| (vec![("agent", one.agent.as_str())], seconds(one.oldest_ms))),
        )?;
        let streams = &shown.streams;
        let label = "stream";
        to.gauges(
            "mozart_stream_messages",
            "Records of a stream; only from the leader",
            None,
            streams.iter().map(|one| (vec![(label, one.name.as_str())], one.records)),
        )?;
        to.gauges(
            "mozart_stream_size",
            "What a stream holds, with subjects, headers and frames; only from the leader",
            Some(&Unit::Bytes),
            streams.iter().map(|one| (vec![(label, one.name.as_str())], one.bytes)),
        )?;
        to.gauges(
            "mozart_stream_limit",
            "The most that a stream takes, where it is bounded; only from the leader",
            Some(&Unit::Bytes),
            streams.iter().filter_map(|one| Some((vec![(label, one.name.as_str())], one.limit?))),
        )?;
        to.gauges(
            "mozart_stream_last_sequence",
            "How many records a stream ever had; only from the leader",
            None,
            streams.iter().map(|one| (vec![(label, one.name.as_str())], one.last)),
        )
    }
}
