//! The questions that agents ask each other: which messages a message led to.

use common::Timestamp;
use common::message::{Envelope, MessageKey};
use futures_util::future::try_join_all;

use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::history::asks;
use crate::journal::Stored;
use crate::read::Reader;

/// The most questions of the agent that are looked at, in each part of the journal.
const LOOKED: usize = 1_000;

impl Broker {
    /// The messages that were sent by a message's agent between two times, in the course of it; as far as they are in the journal. `until`:
    /// when it ended; none if it has not.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn questions(
        &self,
        of: &MessageKey,
        since: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<Vec<Stored<Envelope>>> {
        let subjects = self.subjects();
        let shards = (0..subjects.shards()).map(async |shard| {
            let (stream, filter) =
                (subjects.journal_stream(shard), subjects.questions_of(&of.agent, shard));
            let Some(first) = self.wire().since(&stream, &filter, since).await? else {
                return Ok(Vec::new());
            };
            let reader = Reader::new(self.wire(), stream, filter, first.seq, u64::MAX);
            let mut reader = reader.of(self.replicas());
            let mut found = Vec::new();
            for _looked in 0..LOOKED {
                let Some(record) = reader.next().await? else { break };
                if until.is_some_and(|until| record.at > until) {
                    break;
                }
                match Stored::<Envelope>::parse(&record) {
                    Ok(stored) if asks(&stored.value, of) => found.push(stored),
                    Ok(_) | Err(BrokerError::Malformed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        });
        Ok(try_join_all(shards).await?.into_iter().flatten().collect())
    }
}
