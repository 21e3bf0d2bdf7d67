//! Counting what becomes of occurrences: when their record is stored, by whoever has stored it.

use broker::{BrokerError, Moment};
use common::message::Envelope;
use common::schedule::Occurrences;
use common::{AgentName, MessageId};
use metrics::Fleet;

use super::Key;
use super::decide::Places;

/// Places whose new records are counted.
#[derive(Debug)]
pub(super) struct Counted<P> {
    pub(super) places: P,
    pub(super) metrics: Option<Fleet>,
}

impl<P: Places> Places for Counted<P> {
    async fn store(
        &self,
        key: &Key,
        record: &Occurrences,
        last: u64,
    ) -> Result<Option<u64>, BrokerError> {
        let stored = self.places.store(key, record, last).await?;
        if let (Some(metrics), Some(_)) = (&self.metrics, stored) {
            metrics.scheduled(record);
        }
        Ok(stored)
    }

    async fn is_open(&self, agent: &AgentName, message: &MessageId) -> Result<bool, BrokerError> {
        self.places.is_open(agent, message).await
    }

    async fn send(&self, envelope: &Envelope, fresh: bool) -> Result<(), BrokerError> {
        self.places.send(envelope, fresh).await
    }

    fn moment(&self) -> Moment {
        self.places.moment()
    }
}
