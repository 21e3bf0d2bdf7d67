//! Following the journal: requests and final states as they are stored.

use common::AgentName;
use common::message::{Envelope, Final, MessageKey};
use futures_util::FutureExt as _;
use futures_util::future::select_all;

use crate::connection::Broker;
use crate::error::Result;
use crate::follow::{End, Followed, Follower, Source};
use crate::inbox::believe;

/// What was stored.
#[derive(Debug, Clone)]
pub enum Watched {
    /// A message.
    Request(Box<Envelope>),
    /// What became of one.
    Final(MessageKey, Box<Final>),
}

/// A run through the journal.
#[derive(Debug)]
pub struct JournalFollower {
    shards: Vec<Follower>,
    broker: Broker,
}

impl Broker {
    /// Follows the journal from now on, of an agent or of all.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn follow_journal(&self, agent: Option<&AgentName>) -> Result<JournalFollower> {
        let subjects = self.subjects();
        let followed: Vec<(String, String)> = match agent {
            Some(agent) => vec![(self.journal_stream(agent), subjects.journal_of(agent))],
            None => (0..subjects.shards())
                .map(|shard| (subjects.journal_stream(shard), subjects.journal_filter(shard)))
                .collect(),
        };
        let mut shards = Vec::new();
        for (stream, filter) in followed {
            let from = self.wire().last_seq(&stream).await? + 1;
            let source = Source { stream, filter, from, end: End::Firm, bare: false };
            shards.push(Follower::start(self.wire(), source).await?);
        }
        Ok(JournalFollower { shards, broker: self.clone() })
    }
}

impl JournalFollower {
    /// The next item; the streams of a journal are in no order between themselves. Waits forever. Cancel safe.
    ///
    /// # Errors
    /// When it cannot continue.
    pub async fn next(&mut self) -> Result<Watched> {
        loop {
            let shards = self.shards.iter_mut().map(|shard| shard.next().boxed());
            let (followed, _, _) = select_all(shards).await;
            let Followed::Message { message, .. } = followed? else { continue };
            let Some(named) = self.broker.subjects().parse_journal(&message.subject) else {
                continue;
            };
            if !named.is_final {
                if let Ok(envelope) = believe(named, &message.payload) {
                    return Ok(Watched::Request(Box::new(envelope)));
                }
            } else if let Ok(final_) = serde_json::from_slice(&message.payload) {
                return Ok(Watched::Final(named.key, final_));
            }
        }
    }
}
